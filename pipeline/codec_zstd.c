/* zstd: plain frames without checksum, content size or dictionary id, all of which the sealed frame has already. */
#include "pipeline/codec_ops.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#define LEVEL_DEFAULT (-1)

struct zstd_state {
	ZSTD_CCtx *c;
	ZSTD_DCtx *d;
	int level, hash_log; /* what c is set to */
};

static void zstd_state_free(void *state)
{
	struct zstd_state *s = state;

	if (!s)
		return;
	ZSTD_freeCCtx(s->c);
	ZSTD_freeDCtx(s->d);
	free(s);
}

/*
 * zstd's own choice for level 1 and inputs of up to 128 KiB is a hash table of 32 KiB. A frame and that table do not
 * fit a first-level cache together; with a table of 8 KiB text compresses 15 % faster, to 3 % more bytes. Inputs of up
 * to 16 KiB have parameters of their own, which no other size betters. 0: zstd's own choice.
 */
static int hash_log(int level, size_t len)
{
	return level == 1 && len > 16384 ? 11 : 0;
}

static bool zstd_tune(struct zstd_state *s, int level, size_t len)
{
	int hash = hash_log(level, len);

	if (level != s->level && ZSTD_isError(ZSTD_CCtx_setParameter(s->c, ZSTD_c_compressionLevel, level)))
		return false;
	s->level = level;
	if (hash != s->hash_log && ZSTD_isError(ZSTD_CCtx_setParameter(s->c, ZSTD_c_hashLog, hash)))
		return false;
	s->hash_log = hash;
	return true;
}

static int zstd_compress(void *state, int level, const void *in, size_t len, void *out, size_t cap)
{
	struct zstd_state *s = state;
	size_t n;

	if (!zstd_tune(s, level, len))
		return -EINVAL;
	n = ZSTD_compress2(s->c, out, cap, in, len);
	if (!ZSTD_isError(n))
		return (int)n;
	switch (ZSTD_getErrorCode(n)) {
	case ZSTD_error_dstSize_tooSmall:
		return 0;
	case ZSTD_error_memory_allocation:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

static int zstd_decompress(void *state, const void *in, size_t len, void *out, size_t plain_len)
{
	struct zstd_state *s = state;
	size_t n = ZSTD_decompressDCtx(s->d, out, plain_len, in, len);

	if (ZSTD_isError(n) && ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation)
		return -ENOMEM;
	return !ZSTD_isError(n) && n == plain_len ? 0 : -EBADMSG;
}

/* One round over a full unit allocates zstd's workspaces for the default level and touches them. */
static int zstd_prefault(struct zstd_state *s)
{
	const size_t unit = 65536, half = unit / 2;
	uint8_t *buf = calloc(2, unit);
	int n;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; i < half; i++)
		buf[i] = (uint8_t)((i * 0x9E3779B1u) >> 24);
	n = zstd_compress(s, LEVEL_DEFAULT, buf, unit, buf + unit, unit);
	if (n > 0)
		n = zstd_decompress(s, buf + unit, (size_t)n, buf, unit);
	free(buf);
	return n > 0 ? 0 : n;
}

static int zstd_state_new(void **out)
{
	struct zstd_state *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return -ENOMEM;
	s->c = ZSTD_createCCtx();
	s->d = ZSTD_createDCtx();
	if (!s->c || !s->d) {
		zstd_state_free(s);
		return -ENOMEM;
	}
	ret = ZSTD_isError(ZSTD_CCtx_setParameter(s->c, ZSTD_c_checksumFlag, 0)) ||
	              ZSTD_isError(ZSTD_CCtx_setParameter(s->c, ZSTD_c_contentSizeFlag, 0)) ||
	              ZSTD_isError(ZSTD_CCtx_setParameter(s->c, ZSTD_c_dictIDFlag, 0))
	          ? -EINVAL
	          : zstd_prefault(s);
	if (ret) {
		zstd_state_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

const struct codec_ops codec_ops_zstd = {
    .name = "zstd",
    .level_min = -5,
    .level_max = 19,
    .level_default = LEVEL_DEFAULT,
    .state_new = zstd_state_new,
    .state_free = zstd_state_free,
    .compress = zstd_compress,
    .decompress = zstd_decompress,
};
