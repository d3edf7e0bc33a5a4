/*
 * Within the pipeline: the bytes of a chunk record, as docs/FORMAT.md lays them out. Pure functions: no I/O, no
 * threads, no allocation. A record is a sealed header, a sealed table and sealed frames, in this order; to who lacks
 * the key all of it is random bytes.
 */
#ifndef APFS_PIPELINE_CHUNK_H
#define APFS_PIPELINE_CHUNK_H

#include "pipeline/cipher.h"
#include "pipeline/pipeline.h"

#define CHUNK_HEADER_PLAIN 36u        /* bytes of the record header, unsealed */
#define CHUNK_ENTRY        9u         /* bytes of a frame's entry in the table */
#define CHUNK_RANGE_MIN    3u         /* bytes of the shortest range in the table */
#define CHUNK_TABLE_MAX    (8u << 20) /* bytes of the table, unsealed */
#define CHUNK_RANGES_MAX   (1u << 20)
/* Two successive frames hold more than one frame size together. */
#define CHUNK_FRAMES_MAX (2u * (PIPELINE_CHUNK_MAX / PIPELINE_FRAME_MIN) + 1u)

/* What the parts of a record are sealed with: all of it borrowed from the segment. */
struct chunk_key {
	const uint8_t *key;  /* CIPHER_KEY bytes */
	const uint8_t *uuid; /* SUPERBLOCK_UUID bytes */
	const uint8_t *name; /* PIPELINE_SEGMENT_NAME bytes */
	enum cipher_suite suite;
};

struct chunk_header {
	uint64_t id, sequence;
	uint32_t stored_len, plain_len; /* of the whole record; of its data */
	uint32_t table_len, nframes, nranges;
};

/* Bytes that sealing adds to a part: nonce and tag. */
static inline uint32_t chunk_overhead(enum cipher_suite suite)
{
	return (uint32_t)cipher_nonce_len(suite) + CIPHER_TAG;
}

/* Where the first frame starts in a record with a table of this many bytes. */
static inline uint32_t chunk_data_start(enum cipher_suite suite, uint32_t table_len)
{
	return 2 * chunk_overhead(suite) + CHUNK_HEADER_PLAIN + table_len;
}

/* A sealed part is nonce, ciphertext, tag; `out` has room for all of it and the nonce is copied to its beginning.
 * chunk_header_open checks every length against the limits and against one another. */
int chunk_header_seal(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *nonce,
                      const struct chunk_header *h, uint8_t *out) MUST_CHECK;
int chunk_header_open(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *in,
                      struct chunk_header *h) MUST_CHECK;

/* The ranges that items make: their number and the bytes they take in a table. */
void chunk_ranges_count(const struct pipeline_item *item, size_t nitems, uint32_t *nranges, uint64_t *bytes);

/* Encodes the table of items and frames (h->table_len bytes) and seals it to out. */
int chunk_table_seal(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *nonce,
                     const struct chunk_header *h, const struct pipeline_item *item, size_t nitems,
                     const struct pipeline_frame *frame, uint8_t *out) MUST_CHECK;
/* Opens the sealed table `in` into plain (h->table_len bytes). */
int chunk_table_open(struct cipher_ctx *ctx, const struct chunk_key *k, const struct chunk_header *h, const uint8_t *in,
                     uint8_t *plain) MUST_CHECK;
/* Decodes an opened table: h->nranges ranges and h->nframes frames. -EBADMSG unless everything adds up. */
int chunk_table_parse(enum cipher_suite suite, const struct chunk_header *h, const uint8_t *plain,
                      struct pipeline_range *range, struct pipeline_frame *frame) MUST_CHECK;

/* Which frame of which chunk: what its seal is bound to. */
struct chunk_frame_id {
	uint64_t chunk;
	uint32_t number;
	bool last;
	uint8_t codec;
	uint32_t plain_len;
};

/* Seals len bytes of `in`, which may lie at out + nonce length already. */
int chunk_frame_seal(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *nonce,
                     const struct chunk_frame_id *id, const void *in, uint32_t len, uint8_t *out) MUST_CHECK;
/* Opens stored_len bytes of `in` to out, which has room for stored_len - chunk_overhead() bytes. */
int chunk_frame_open(struct cipher_ctx *ctx, const struct chunk_key *k, const struct chunk_frame_id *id,
                     const uint8_t *in, uint32_t stored_len, void *out) MUST_CHECK;

/* Whether a frame's lengths and codec are possible. */
bool chunk_frame_valid(enum cipher_suite suite, const struct pipeline_frame *f);

#endif
