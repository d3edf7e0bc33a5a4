/* LZ4 blocks without a frame. Negative levels are LZ4's acceleration, 3 and above its high-compression mode. */
#include "pipeline/codec_ops.h"

#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <lz4hc.h>
#include <stdlib.h>
#include <string.h>

struct lz4_state {
	void *fast; /* LZ4_sizeofState() bytes */
	void *hc;   /* LZ4_sizeofStateHC() bytes, made when a level first asks for it */
};

static void lz4_state_free(void *state)
{
	struct lz4_state *s = state;

	if (!s)
		return;
	free(s->fast);
	free(s->hc);
	free(s);
}

static int lz4_state_new(void **out)
{
	struct lz4_state *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->fast = malloc((size_t)LZ4_sizeofState());
	if (!s->fast) {
		lz4_state_free(s);
		return -ENOMEM;
	}
	memset(s->fast, 0, (size_t)LZ4_sizeofState());
	*out = s;
	return 0;
}

static int lz4_compress(void *state, int level, const void *in, size_t len, void *out, size_t cap)
{
	struct lz4_state *s = state;
	int room = cap > INT_MAX ? INT_MAX : (int)cap;

	if (level < LZ4HC_CLEVEL_MIN)
		return LZ4_compress_fast_extState(s->fast, in, out, (int)len, room, level < 0 ? -level : 1);
	if (!s->hc) {
		s->hc = malloc((size_t)LZ4_sizeofStateHC());
		if (!s->hc)
			return -ENOMEM;
	}
	return LZ4_compress_HC_extStateHC(s->hc, in, out, (int)len, room, level);
}

static int lz4_decompress(void *state, const void *in, size_t len, void *out, size_t plain_len)
{
	(void)state;
	if (len > INT_MAX || plain_len > INT_MAX)
		return -EBADMSG;
	return LZ4_decompress_safe(in, out, (int)len, (int)plain_len) == (int)plain_len ? 0 : -EBADMSG;
}

const struct codec_ops codec_ops_lz4 = {
    .name = "lz4",
    .level_min = -64,
    .level_max = LZ4HC_CLEVEL_MAX,
    .level_default = 1,
    .state_new = lz4_state_new,
    .state_free = lz4_state_free,
    .compress = lz4_compress,
    .decompress = lz4_decompress,
};
