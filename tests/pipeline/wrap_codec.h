/* For tests that link with -Wl,--wrap=codec_compress or --wrap=codec_decompress, to see every run of a codec. */
#ifndef APFS_TESTS_PIPELINE_WRAP_CODEC_H
#define APFS_TESTS_PIPELINE_WRAP_CODEC_H

#include "pipeline/codec.h"

int __real_codec_compress(struct codec_ctx *ctx, struct codec_choice choice, const void *src, size_t len, void *dst,
                          size_t cap);
int __wrap_codec_compress(struct codec_ctx *ctx, struct codec_choice choice, const void *src, size_t len, void *dst,
                          size_t cap);
int __real_codec_decompress(struct codec_ctx *ctx, enum codec_id codec, const void *src, size_t len, void *dst,
                            size_t plain_len);
int __wrap_codec_decompress(struct codec_ctx *ctx, enum codec_id codec, const void *src, size_t len, void *dst,
                            size_t plain_len);

#endif
