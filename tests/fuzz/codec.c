/* Input: u8 codec (bit 7: compress and come back), u16 length of the plaintext less 1, compressed bytes. */
#include "tests/fuzz/fuzz.h"

#include "pipeline/codec.h"

#include <errno.h>
#include <string.h>

#define UNIT_MAX 65536u

static struct codec_ctx *context(void)
{
	static struct codec_ctx *ctx;

	must(ctx || !codec_ctx_new(&ctx));
	return ctx;
}

static void decompress(enum codec_id codec, const uint8_t *in, size_t len, size_t plain_len)
{
	uint8_t *out = malloc(plain_len);

	must(out);
	int ret = codec_decompress(context(), codec, in, len, out, plain_len);
	must(ret == 0 || ret == -EBADMSG || ret == -ENOMEM);
	free(out);
}

static void round_trip(enum codec_id codec, const uint8_t *in, size_t len, int level)
{
	uint8_t *packed = malloc(len), *out = malloc(len);

	must(packed && out);
	int n = codec_compress(context(), (struct codec_choice){codec, level}, in, len, packed, len);
	must(n >= 0 || n == -EINVAL);
	if (n > 0) {
		must(!codec_decompress(context(), codec, packed, (size_t)n, out, len));
		must(!memcmp(in, out, len));
	}
	free(packed);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor c = cursor_reader(data, len);
	size_t n;

	fuzz_begin();
	uint8_t how = cursor_get8(&c);
	uint16_t plain = cursor_get16(&c);
	uint8_t *in = fuzz_take(&c, UNIT_MAX, &n);
	enum codec_id codec = (enum codec_id)(how & 3);

	(void)codec_looks_incompressible(in, n);
	if (how & 0x80)
		round_trip(codec, in, n ? n : 1, (int)(plain % 26) - 5);
	else
		decompress(codec, in, n, (size_t)plain + 1);
	free(in);
	return 0;
}
