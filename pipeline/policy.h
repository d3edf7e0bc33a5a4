/*
 * The policies: pure functions of what is known about a file, a machine and a store. What they answer holds where no
 * setting says otherwise.
 */
#ifndef APFS_PIPELINE_POLICY_H
#define APFS_PIPELINE_POLICY_H

#include "base/storage.h"
#include "pipeline/codec.h"

#include <stdbool.h>
#include <stdint.h>

#define POLICY_CHUNK_DEFAULT   ((uint32_t)1 << 20)   /* where there is no file size to go by: small files, packed */
#define POLICY_CHUNK_SET_MAX   ((uint64_t)512 << 20) /* a setting may be 1 byte to this */
#define POLICY_WORKERS_DEFAULT 4u                    /* where there is no file size to go by */
#define POLICY_WORKERS_MAX     32u
#define POLICY_SHRINK_MAX      4u /* halvings of a chunk while memory is short */

/* What the user wants most. */
enum policy_priority { POLICY_BALANCED = 0, POLICY_SPEED = 1, POLICY_RATIO = 2, POLICY_PRIORITIES = 3 };

const char *policy_priority_name(enum policy_priority priority);
/* "balanced", "speed" or "ratio"; -EINVAL. */
int policy_priority_parse(const char *text, enum policy_priority *out) MUST_CHECK;

/* The machine, the store and the settings: fixed while a volume is mounted. */
struct policy {
	enum storage_class storage;
	unsigned cores;
	uint64_t memory;     /* bytes for file data */
	uint64_t chunk_size; /* setting: bytes, 0 by the policy */
	unsigned workers;    /* setting: threads for one chunk, 0 by the policy */
};

/* --- chunks ------------------------------------------------------------------------------------------------------- */

/* What a chunk is made of. */
enum policy_kind {
	POLICY_STREAM, /* a large file, written in sequence: throughput counts */
	POLICY_PACKED, /* many small files: bound by requests, so the CPU has time for a higher level */
	POLICY_RANDOM  /* small pieces of large files, or somebody waits for it: latency counts */
};

/* Of a piece of len bytes that is stored for itself, of a file of size bytes: pieces up to 16 KiB of files from
 * 256 KiB on were written at random, files below 1 MiB are packed. */
enum policy_kind policy_kind(uint64_t size, uint64_t len);

/* Plaintext bytes of a chunk for a file of `size` bytes: a power of two, log-interpolated inside the bands < 10 MB
 * 64-256 KiB, 10-100 MB 256 KiB-1 MiB, 100 MB-1 GB 1-4 MiB, > 1 GB 4-16 MiB, and at most memory / 16. */
uint32_t policy_chunk_size(uint64_t size, uint64_t memory);

/* Plaintext bytes of the chunks into which a file that is being written in sequence is sealed, `size` bytes of it so
 * far: that, halved `shrink` times because memory is short, though not below 1 MiB; but no less than the largest
 * request that suits the storage: it becomes one when compressed, of a size within what suits. Smaller ones were
 * measured slower by 5 to 10 % and won nothing. A setting holds instead of all that, clamped to 4 KiB-16 MiB and memory
 * / 16. */
uint32_t policy_stream_chunk(const struct policy *p, unsigned shrink, uint64_t size);

/* Plaintext bytes that a cut puts into one chunk at most. What is a stream's beyond 1 MiB; 1 MiB of packed files, so
 * that the frames of one are enough to be fanned out; 256 KiB of random pieces. */
uint32_t policy_chunk_limit(const struct policy *p, unsigned shrink, enum policy_kind kind, uint64_t size);

/* Plaintext bytes of a frame: what was written at random is likely to be read so, and gets small ones, so that reading
 * a piece back does not decode many others. */
uint32_t policy_frame_size(enum policy_kind kind);

/* --- codecs ------------------------------------------------------------------------------------------------------- */

/* What a sample of the data says. */
enum policy_sample {
	POLICY_SAMPLE_USUAL,
	POLICY_SAMPLE_DENSE, /* close to incompressible: a high level would gain nothing */
	POLICY_SAMPLE_PLAIN  /* mostly the same bytes: the lowest level is as small, and faster */
};

/* From a few strips of len bytes, in a few microseconds. A name that makes dense data likely is a hint: then the bytes
 * need only be fairly even. */
enum policy_sample policy_sample(const void *data, size_t len, bool dense_name);

/* An archive, a picture, a film, by the ending of its name. */
bool policy_name_is_dense(const char *name);

/* The policy chooses the level. */
bool policy_level_is_free(struct codec_choice choice);

/* How far the level may be moved from where it begins, by the controller: steps of a codec's ladder of levels. */
int policy_level_lowest(struct codec_choice choice, enum policy_priority priority);
int policy_level_highest(struct codec_choice choice, enum policy_priority priority);

/* The codec and level for a chunk. What the user named is kept: a level, or a codec of which the policy chooses the
 * level; CODEC_AUTO is the priority's. step: the controller's. */
struct codec_choice policy_codec(struct codec_choice choice, enum policy_priority priority, enum policy_kind kind,
                                 enum policy_sample sample, int step);

/* The same for data that has not been changed for long, when nobody waits for the CPU. */
struct codec_choice policy_codec_cold(struct codec_choice choice, enum policy_priority priority,
                                      enum policy_sample sample);

/* --- workers, tokens, requests ------------------------------------------------------------------------------------ */

/* Codec and cipher runs at once: all cores but one, or all where there are one or two. */
unsigned policy_cpu_tokens(unsigned cores);
/* Operations on STORE at once: 4, 12, 24. */
unsigned policy_io_tokens(enum storage_class storage);

/* Bytes of the largest I/O request that suits the storage: HDD 4 MiB, SSD 1 MiB, NVMe 256 KiB. */
uint32_t policy_request(enum storage_class storage);

/* Threads for a file of size bytes: 9 up to 5 MB, 5 at 50 MB, 3 from 2 GB on, log-interpolated; 4 for size 0, which is
 * unknown. */
unsigned policy_workers_size(uint64_t size);

/* What work waits for. */
enum policy_work { POLICY_WORK_CPU, POLICY_WORK_STORAGE, POLICY_WORK_MIXED };

/* Threads for that kind of work: as many as cores; as many as the storage takes operations; the default. */
unsigned policy_workers_work(enum policy_work work, unsigned cores, enum storage_class storage);

/* No more than that: frames to do, CPU tokens, 2 x cores, 32; at least 1. */
unsigned policy_workers_cap(unsigned workers, uint32_t frames, unsigned cpu_tokens, unsigned cores);

/* Threads of the pool, for all files: work for the CPU, capped. */
unsigned policy_pool(unsigned cores);

/* Threads that may work on one chunk of `frames` frames of a file of size bytes: the setting, or by size; capped. */
unsigned policy_workers(const struct policy *p, uint64_t size, uint32_t frames);

/* Whether so few frames, all that there are to do, are better done by the thread that brings them than handed over. */
bool policy_inline(uint64_t frames);

#endif
