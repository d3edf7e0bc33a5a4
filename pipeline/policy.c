#include "pipeline/policy.h"

#include "pipeline/pipeline.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define CHUNK_FIRST ((uint32_t)64 << 10)

#define RANDOM_FILE  ((uint64_t)256 << 10)
#define RANDOM_PIECE 16384u
#define RANDOM_FRAME 16384u
#define RANDOM_CHUNK ((uint32_t)256 << 10)
#define PACKED_FILE  ((uint64_t)1 << 20)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const priority_names[POLICY_PRIORITIES] = {
    [POLICY_BALANCED] = "balanced", [POLICY_SPEED] = "speed", [POLICY_RATIO] = "ratio"};

const char *policy_priority_name(enum policy_priority priority)
{
	return (unsigned)priority < POLICY_PRIORITIES ? priority_names[priority] : "unknown";
}

int policy_priority_parse(const char *text, enum policy_priority *out)
{
	for (unsigned i = 0; i < POLICY_PRIORITIES; i++) {
		if (!strcmp(text, priority_names[i])) {
			*out = (enum policy_priority)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* --- chunks ------------------------------------------------------------------------------------------------------- */

enum policy_kind policy_kind(uint64_t size, uint64_t len)
{
	if (size >= RANDOM_FILE && len <= RANDOM_PIECE)
		return POLICY_RANDOM;
	return size < PACKED_FILE ? POLICY_PACKED : POLICY_STREAM;
}

/* The largest power of two that is no more than `chunk` and a sixteenth of the memory, and at least the least. */
static uint32_t chunk_clamp(uint64_t chunk, uint64_t memory)
{
	uint32_t clamped = PIPELINE_CHUNK_MAX;

	while (clamped > PIPELINE_CHUNK_MIN && (clamped > chunk || clamped > memory / 16))
		clamped /= 2;
	return clamped;
}

/* A band is a decade of file sizes and two doublings of the chunk, so on a logarithmic scale the exponent rises by one
 * at each half decade. */
uint32_t policy_chunk_size(uint64_t size, uint64_t memory)
{
	static const uint64_t half_decades[] = {
	    3162278u, 10000000u, 31622777u, 100000000u, 316227767u, 1000000000u, 3162277661u, 10000000000u,
	};
	uint32_t chunk = CHUNK_FIRST;

	for (size_t i = 0; i < COUNT(half_decades) && size >= half_decades[i]; i++)
		chunk *= 2;
	return chunk_clamp(chunk, memory);
}

uint32_t policy_stream_chunk(const struct policy *p, unsigned shrink, uint64_t size)
{
	uint32_t chunk = policy_chunk_size(size, p->memory), least = policy_request(p->storage);

	if (p->chunk_size)
		return chunk_clamp(p->chunk_size, p->memory);
	while (shrink-- && chunk > POLICY_CHUNK_DEFAULT)
		chunk /= 2;
	return chunk_clamp(chunk > least ? chunk : least, p->memory);
}

uint32_t policy_chunk_limit(const struct policy *p, unsigned shrink, enum policy_kind kind, uint64_t size)
{
	uint32_t limit = kind == POLICY_RANDOM ? RANDOM_CHUNK : POLICY_CHUNK_DEFAULT;
	uint32_t stream = kind == POLICY_STREAM ? policy_stream_chunk(p, shrink, size) : 0;

	if (p->chunk_size)
		return chunk_clamp(p->chunk_size, p->memory);
	return chunk_clamp(stream > limit ? stream : limit, p->memory);
}

uint32_t policy_frame_size(enum policy_kind kind)
{
	return kind == POLICY_RANDOM ? RANDOM_FRAME : PIPELINE_FRAME_MAX;
}

/* --- codecs ------------------------------------------------------------------------------------------------------- */

/* Of the bytes of a sample. Uniform ones have a sum of squares of n + n(n-1)/256; an eighth more is an entropy of 7.8
 * bits, a half more one of 7.4. */
enum policy_sample policy_sample(const void *data, size_t len, bool dense_name)
{
	uint32_t count[256] = {0};
	uint64_t squares = 0, most = 0;

	if (len < CODEC_SAMPLE_MIN)
		return POLICY_SAMPLE_USUAL;
	uint64_t n = codec_sample(data, len, count);
	for (unsigned i = 0; i < 256; i++) {
		squares += (uint64_t)count[i] * count[i];
		most = count[i] > most ? count[i] : most;
	}
	if (most * 10 >= n * 9)
		return POLICY_SAMPLE_PLAIN;
	if (dense_name)
		return squares <= n + n * (n - 1) / 256 * 3 / 2 ? POLICY_SAMPLE_DENSE : POLICY_SAMPLE_USUAL;
	return codec_looks_incompressible(data, len) ? POLICY_SAMPLE_DENSE : POLICY_SAMPLE_USUAL;
}

bool policy_name_is_dense(const char *name)
{
	static const char *const ending[] = {
	    "7z",   "aac", "age", "apk", "avi",  "avif", "br",   "bz2",  "cab", "deb",  "docx", "epub",
	    "flac", "gif", "gpg", "gz",  "heic", "jar",  "jpeg", "jpg",  "lz4", "lzma", "m4a",  "m4v",
	    "mkv",  "mov", "mp3", "mp4", "mpg",  "odp",  "ods",  "odt",  "ogg", "opus", "png",  "pptx",
	    "rar",  "rpm", "tgz", "txz", "webm", "webp", "whl",  "xlsx", "xz",  "zip",  "zst",
	};
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < COUNT(ending); i++)
		if (!strcasecmp(dot + 1, ending[i]))
			return true;
	return false;
}

/* The levels of a codec, from fast to small; the controller moves along them, from the middle on. bench/units.py
 * measures each of them; bench/RESULTS.md has its table. Of that, 64 KiB frames of text on one core, stored %, encoding
 * and decoding MB/s: zstd:-5 42.0, 378, 1479; zstd:-1 34.3, 304, 1254; zstd:1 30.1, 324, 1178; zstd:3 26.4, 259, 1051;
 * zstd:5 25.4, 109, 1005. 1 is where the next step begins to cost more than it saves. */
#define STEPS  5
#define MIDDLE 2
static const int ladder[CODEC_COUNT][STEPS] = {
    [CODEC_LZ4] = {-16, -4, 1, 3, 5},
    [CODEC_ZSTD] = {-5, -1, 1, 2, 3},
    [CODEC_BROTLI] = {1, 2, 4, 5, 6},
};
/* Small files are bound by requests, so the CPU has time. */
static const int packed_zstd[STEPS] = {-1, 3, 5, 6, 7};

static const struct {
	enum codec_id codec;
	int lowest, highest;
} priorities[POLICY_PRIORITIES] = {
    [POLICY_BALANCED] = {CODEC_ZSTD, -2, 2},
    [POLICY_SPEED] = {CODEC_LZ4, -2, 1},
    [POLICY_RATIO] = {CODEC_BROTLI, -1, 2},
};

bool policy_level_is_free(struct codec_choice choice)
{
	return choice.codec != CODEC_STORED && !choice.level;
}

int policy_level_lowest(struct codec_choice choice, enum policy_priority priority)
{
	return policy_level_is_free(choice) ? priorities[priority].lowest : 0;
}

int policy_level_highest(struct codec_choice choice, enum policy_priority priority)
{
	return policy_level_is_free(choice) ? priorities[priority].highest : 0;
}

struct codec_choice policy_codec(struct codec_choice choice, enum policy_priority priority, enum policy_kind kind,
                                 enum policy_sample sample, int step)
{
	int lowest = priorities[priority].lowest, highest = priorities[priority].highest;

	if (!policy_level_is_free(choice))
		return choice;
	if (choice.codec == CODEC_AUTO)
		choice.codec = priorities[priority].codec;
	const int *level = ladder[choice.codec];
	if (choice.codec == CODEC_ZSTD && kind == POLICY_PACKED && sample == POLICY_SAMPLE_USUAL)
		level = packed_zstd;
	if (sample == POLICY_SAMPLE_DENSE)
		step = -MIDDLE;
	else if (step >= 0 && sample == POLICY_SAMPLE_PLAIN) /* as small, and faster */
		step = -1;
	else if (step > 0 && kind == POLICY_RANDOM) /* somebody waits */
		step = 0;
	else
		step = step < lowest ? lowest : step > highest ? highest : step;
	choice.level = level[MIDDLE + step];
	return choice;
}

/* 9 is the highest that is measured there. What lies beyond was measured once, when it was chosen, on a busier machine:
 * zstd 9 25.3 %, 66, 1353; 12 25.1 %, 24, 1438. lz4 9 32.3 %, 63; 12 32.1 %, 25. Brotli 9 24.6 %, 35; 11 22.3 %, 1. */
struct codec_choice policy_codec_cold(struct codec_choice choice, enum policy_priority priority,
                                      enum policy_sample sample)
{
	static const int level[CODEC_COUNT] = {[CODEC_LZ4] = 9, [CODEC_ZSTD] = 9, [CODEC_BROTLI] = 9};
	bool harder = policy_level_is_free(choice) && sample == POLICY_SAMPLE_USUAL;

	choice = policy_codec(choice, priority, POLICY_PACKED, sample, 0);
	if (harder)
		choice.level = level[choice.codec];
	return choice;
}

/* --- workers, tokens, requests ------------------------------------------------------------------------------------ */

unsigned policy_cpu_tokens(unsigned cores)
{
	return cores > 2 ? cores - 1 : cores ? cores : 1;
}

static const struct {
	unsigned tokens;
	uint32_t request;
} storages[STORAGE_CLASSES] = {
    [STORAGE_AUTO] = {12, 1u << 20}, /* as SSD */
    [STORAGE_HDD] = {4, 4u << 20},
    [STORAGE_SSD] = {12, 1u << 20},
    [STORAGE_NVME] = {24, 256u << 10},
};

unsigned policy_io_tokens(enum storage_class storage)
{
	return storages[storage].tokens;
}

uint32_t policy_request(enum storage_class storage)
{
	return storages[storage].request;
}

/* Where, on a logarithmic scale of sizes, the line through 9 at 5 MB, 5 at 50 MB and 3 at 2 GB passes the half. */
unsigned policy_workers_size(uint64_t size)
{
	static const uint64_t fewer[] = {6667607u, 11856870u, 21084825u, 37494710u, 125743343u, 795270729u};
	unsigned workers = 9;

	if (!size)
		return POLICY_WORKERS_DEFAULT;
	for (size_t i = 0; i < COUNT(fewer) && size >= fewer[i]; i++)
		workers--;
	return workers;
}

unsigned policy_workers_work(enum policy_work work, unsigned cores, enum storage_class storage)
{
	if (work == POLICY_WORK_CPU)
		return cores;
	return work == POLICY_WORK_STORAGE ? policy_io_tokens(storage) : POLICY_WORKERS_DEFAULT;
}

unsigned policy_workers_cap(unsigned workers, uint32_t frames, unsigned cpu_tokens, unsigned cores)
{
	const unsigned limit[] = {frames, cpu_tokens, cores < POLICY_WORKERS_MAX ? 2 * cores : POLICY_WORKERS_MAX,
	                          POLICY_WORKERS_MAX};

	for (size_t i = 0; i < COUNT(limit); i++)
		workers = workers < limit[i] ? workers : limit[i];
	return workers ? workers : 1;
}

unsigned policy_pool(unsigned cores)
{
	return policy_workers_cap(policy_workers_work(POLICY_WORK_CPU, cores, STORAGE_AUTO), UINT32_MAX,
	                          policy_cpu_tokens(cores), cores);
}

unsigned policy_workers(const struct policy *p, uint64_t size, uint32_t frames)
{
	return policy_workers_cap(p->workers ? p->workers : policy_workers_size(size), frames,
	                          policy_cpu_tokens(p->cores), p->cores);
}

bool policy_inline(uint64_t frames)
{
	return frames < 10;
}
