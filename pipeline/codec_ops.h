/* Within the pipeline: what a codec is. */
#ifndef APFS_PIPELINE_CODEC_OPS_H
#define APFS_PIPELINE_CODEC_OPS_H

#include "base/err.h"

#include <stddef.h>

struct codec_ops {
	const char *name;
	int level_min, level_max, level_default; /* 0 is never a level of its own: it stands for level_default */

	/* A thread's state; touched once over so that its pages exist. */
	int (*state_new)(void **out);
	void (*state_free)(void *state);
	/* As codec_compress and codec_decompress, with a level within bounds. */
	int (*compress)(void *state, int level, const void *in, size_t len, void *out, size_t cap);
	int (*decompress)(void *state, const void *in, size_t len, void *out, size_t plain_len);
};

extern const struct codec_ops codec_ops_lz4, codec_ops_zstd, codec_ops_brotli;

#endif
