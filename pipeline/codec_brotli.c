/*
 * Brotli streams with a 16-bit window. Its library makes and drops an instance per stream, so the state lends it memory
 * that is kept from one to the next: fresh pages would cost more than the compression.
 */
#include "pipeline/codec_ops.h"

#include <brotli/decode.h>
#include <brotli/encode.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define WINDOW_BITS 16
#define KEPT        48
/* One allocation of a decoder: more than the code tables of any stream, less than the window that a hostile one wants.
 */
#define DECODER_MAX ((size_t)2 << 20)

struct block {
	void *p;
	size_t size;
	bool lent;
};

struct brotli_state {
	struct block kept[KEPT];
	bool decoding;
	bool failed; /* an allocation did, which the library reports as any other failure */
};

/* The smallest kept block that suffices and is not many times too large; else a new one, in an empty place if any. */
static void *brotli_lend(void *opaque, size_t size)
{
	struct brotli_state *s = opaque;
	struct block *best = NULL, *empty = NULL;
	void *p;

	if (s->decoding && size > DECODER_MAX)
		return NULL;
	for (struct block *b = s->kept; b < s->kept + KEPT; b++) {
		if (!b->p)
			empty = empty ? empty : b;
		else if (!b->lent && b->size >= size && b->size / 2 <= size && (!best || b->size < best->size))
			best = b;
	}
	if (best) {
		best->lent = true;
		return best->p;
	}
	p = malloc(size);
	if (!p)
		s->failed = true;
	else if (empty)
		*empty = (struct block){.p = p, .size = size, .lent = true};
	return p;
}

static void brotli_return(void *opaque, void *p)
{
	struct brotli_state *s = opaque;

	for (struct block *b = s->kept; p && b < s->kept + KEPT; b++) {
		if (b->p == p) {
			b->lent = false;
			return;
		}
	}
	free(p);
}

static int brotli_state_new(void **out)
{
	struct brotli_state *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*out = s;
	return 0;
}

static void brotli_state_free(void *state)
{
	struct brotli_state *s = state;

	if (!s)
		return;
	for (struct block *b = s->kept; b < s->kept + KEPT; b++)
		free(b->p);
	free(s);
}

static int brotli_compress(void *state, int level, const void *in, size_t len, void *out, size_t cap)
{
	struct brotli_state *s = state;
	BrotliEncoderState *enc;
	const uint8_t *next_in = in;
	uint8_t *next_out = out;
	size_t left_in = len, left_out = cap;
	int ret = 0;

	s->failed = s->decoding = false;
	enc = BrotliEncoderCreateInstance(brotli_lend, brotli_return, s);
	if (!enc)
		return -ENOMEM;
	BrotliEncoderSetParameter(enc, BROTLI_PARAM_QUALITY, (uint32_t)level);
	BrotliEncoderSetParameter(enc, BROTLI_PARAM_LGWIN, WINDOW_BITS);
	BrotliEncoderSetParameter(enc, BROTLI_PARAM_SIZE_HINT, (uint32_t)len);
	if (!BrotliEncoderCompressStream(enc, BROTLI_OPERATION_FINISH, &left_in, &next_in, &left_out, &next_out, NULL))
		ret = s->failed ? -ENOMEM : -EIO;
	else if (BrotliEncoderIsFinished(enc))
		ret = (int)(cap - left_out);
	BrotliEncoderDestroyInstance(enc);
	return ret;
}

static int brotli_decompress(void *state, const void *in, size_t len, void *out, size_t plain_len)
{
	struct brotli_state *s = state;
	BrotliDecoderState *dec;
	BrotliDecoderResult result;
	const uint8_t *next_in = in;
	uint8_t *next_out = out;
	size_t left_in = len, left_out = plain_len;

	s->failed = false;
	s->decoding = true;
	dec = BrotliDecoderCreateInstance(brotli_lend, brotli_return, s);
	if (!dec)
		return -ENOMEM;
	result = BrotliDecoderDecompressStream(dec, &left_in, &next_in, &left_out, &next_out, NULL);
	BrotliDecoderDestroyInstance(dec);
	if (s->failed)
		return -ENOMEM;
	return result == BROTLI_DECODER_RESULT_SUCCESS && !left_in && !left_out ? 0 : -EBADMSG;
}

const struct codec_ops codec_ops_brotli = {
    .name = "brotli",
    .level_min = 1,
    .level_max = 11,
    .level_default = 4,
    .state_new = brotli_state_new,
    .state_free = brotli_state_free,
    .compress = brotli_compress,
    .decompress = brotli_decompress,
};
