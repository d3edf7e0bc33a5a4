#include "pipeline/policy.h"

#include "pipeline/pipeline.h"

#include <stddef.h>

#define CHUNK_LEAST ((uint32_t)4 << 10)
#define CHUNK_FIRST ((uint32_t)64 << 10)
#define WORKERS_MAX 32u

#define RANDOM_FILE  ((uint64_t)256 << 10)
#define RANDOM_PIECE 16384u
#define RANDOM_FRAME 16384u
#define PACKED_FILE  ((uint64_t)1 << 20)
#define PACKED_CHUNK ((uint32_t)1 << 20)

/* A band is a decade of file sizes and two doublings of the chunk, so on a logarithmic scale the exponent rises by one
 * at each half decade. */
static const uint64_t half_decades[] = {
    3162278u, 10000000u, 31622777u, 100000000u, 316227767u, 1000000000u, 3162277661u, 10000000000u,
};

uint32_t policy_chunk_size(uint64_t size, uint64_t memory)
{
	uint32_t chunk = CHUNK_FIRST;

	for (size_t i = 0; i < sizeof(half_decades) / sizeof(half_decades[0]) && size >= half_decades[i]; i++)
		chunk *= 2;
	while (chunk > CHUNK_LEAST && chunk > memory / 16)
		chunk /= 2;
	return chunk;
}

enum policy_kind policy_kind(uint64_t size, uint64_t len)
{
	if (size >= RANDOM_FILE && len <= RANDOM_PIECE)
		return POLICY_RANDOM;
	return size < PACKED_FILE ? POLICY_PACKED : POLICY_STREAM;
}

uint32_t policy_chunk_limit(enum policy_kind kind, uint64_t size, uint64_t memory)
{
	uint32_t limit = kind == POLICY_STREAM ? policy_chunk_size(size, memory) : 0;

	return limit > PACKED_CHUNK ? limit : PACKED_CHUNK;
}

uint32_t policy_frame_size(enum policy_kind kind)
{
	return kind == POLICY_RANDOM ? RANDOM_FRAME : PIPELINE_FRAME_MAX;
}

/* Measured on one core, 64 KiB frames of kernel source (stored share, encoding and decoding MB/s): -1 31.6 %, 393,
 * 1719; 1 27.2 %, 354, 1472; 3 25.8 %, 303, 1467. */
struct codec_choice policy_codec(struct codec_choice choice, enum policy_kind kind)
{
	static const int level[] = {[POLICY_STREAM] = -1, [POLICY_PACKED] = 5, [POLICY_RANDOM] = -1};

	if (choice.codec == CODEC_ZSTD && !choice.level)
		choice.level = level[kind];
	return choice;
}

unsigned policy_workers(unsigned cores)
{
	unsigned workers = cores > 2 ? cores - 1 : cores;

	if (!workers)
		return 1;
	return workers < WORKERS_MAX ? workers : WORKERS_MAX;
}
