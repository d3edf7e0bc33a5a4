/* The policies: pure functions of what is known about a file. */
#ifndef APFS_PIPELINE_POLICY_H
#define APFS_PIPELINE_POLICY_H

#include "pipeline/codec.h"

#include <stdint.h>

/* Plaintext bytes of a chunk for a file of `size` bytes: a power of two, log-interpolated inside the bands < 10 MB
 * 64-256 KiB, 10-100 MB 256 KiB-1 MiB, 100 MB-1 GB 1-4 MiB, > 1 GB 4-16 MiB, and at most memory / 16. */
uint32_t policy_chunk_size(uint64_t size, uint64_t memory);

/* What a chunk is made of. */
enum policy_kind {
	POLICY_STREAM, /* a large file, written in sequence: throughput counts */
	POLICY_PACKED, /* many small files: bound by requests, so the CPU has time for a higher level */
	POLICY_RANDOM  /* small pieces of large files, or somebody waits for it: latency counts */
};

/* Of a piece of len bytes that is stored for itself, of a file of size bytes: pieces up to 16 KiB of files from
 * 256 KiB on were written at random, files below 1 MiB are packed. */
enum policy_kind policy_kind(uint64_t size, uint64_t len);

/* Plaintext bytes that are put into one chunk at most: what files of that size get, and 1 MiB for other kinds. */
uint32_t policy_chunk_limit(enum policy_kind kind, uint64_t size, uint64_t memory);

/* Plaintext bytes of a frame: what was written at random is likely to be read so, and gets small ones, so that reading
 * a piece back does not decode many others. */
uint32_t policy_frame_size(enum policy_kind kind);

/* The codec and level for a chunk: a level that the user named is kept, balanced zstd's depends on the kind. */
struct codec_choice policy_codec(struct codec_choice choice, enum policy_kind kind);

/* Worker threads for this many cores. */
unsigned policy_workers(unsigned cores);

#endif
