/* Codecs. A frame is compressed alone. Codec numbers are part of the format; every build decodes every codec. */
#ifndef APFS_PIPELINE_CODEC_H
#define APFS_PIPELINE_CODEC_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum codec_id { CODEC_STORED = 0, CODEC_LZ4 = 1, CODEC_ZSTD = 2, CODEC_BROTLI = 3, CODEC_COUNT = 4, CODEC_AUTO = 255 };

/* Codec and level as a user names them: "auto" (the policy's, and no number of the format), "off", "lz4", "zstd",
 * "zstd:3", "zstd:-1", "brotli:4". */
struct codec_choice {
	enum codec_id codec;
	int level; /* in the codec's own terms; 0 means the codec's default here */
};

const char *codec_name(enum codec_id codec); /* NULL when unknown */
/* Levels: lz4 -64 to 12, zstd -5 to 19, brotli 1 to 11, but not 0. -EINVAL: not a choice. -ERANGE: no such level. */
int codec_choice_parse(const char *text, struct codec_choice *out) MUST_CHECK;
/* Of text that is none: what there is instead, into buf, which is returned. */
const char *codec_choice_rule(const char *text, char *buf, size_t len);
/* The choice as codec_choice_parse takes it, into buf, which is returned. */
const char *codec_choice_format(struct codec_choice choice, char *buf, size_t len);

/* A thread's contexts, allocated and prefaulted once. One thread at a time. */
struct codec_ctx;
int codec_ctx_new(struct codec_ctx **out) MUST_CHECK;
void codec_ctx_free(struct codec_ctx *ctx);

/* Compresses len bytes (1 to 64 KiB) into out. Returns the compressed size, at most cap; 0 when it would not fit, so
 * that cap is also how small the result must be to be worth keeping; -errno on failure. CODEC_STORED always gives 0. */
int codec_compress(struct codec_ctx *ctx, struct codec_choice choice, const void *in, size_t len, void *out,
                   size_t cap) MUST_CHECK;

/* Decompresses in to exactly plain_len bytes of out, never writing more. -EBADMSG when in is not that. */
int codec_decompress(struct codec_ctx *ctx, enum codec_id codec, const void *in, size_t len, void *out,
                     size_t plain_len) MUST_CHECK;

#define CODEC_SAMPLE_MIN 512u /* bytes: of fewer nothing can be said */

/* Adds to a histogram the bytes of strips spread evenly over len bytes, so that a part of some size is met; all bytes
 * of a few. Returns how many; len is at least CODEC_SAMPLE_MIN. */
size_t codec_sample(const void *in, size_t len, uint32_t count[256]);

/* A guess from a sample, in a few microseconds and without a context: true when no codec would gain more than a few
 * percent, so that the bytes are better stored. False for less than 512 bytes. LZ4, zstd up to level 4 and Brotli 1
 * give up on such a unit about as fast by themselves (11 us for 64 KiB); higher levels take 50 us to over a
 * millisecond. */
bool codec_looks_incompressible(const void *in, size_t len);

#endif
