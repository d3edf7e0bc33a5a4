/*
 * What a volume counts of itself. One table of metrics (metrics.c) has the name, kind and unit of each; everything that
 * shows metrics walks that table. Any thread, no locks on the paths of data; without metrics (NULL) every function
 * returns at once and no clock is read.
 */
#ifndef APFS_PIPELINE_METRICS_H
#define APFS_PIPELINE_METRICS_H

#include "base/clock.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum metric {
	/* requests */
	METRIC_REQUEST_SECONDS,
	METRIC_WRITE_BYTES,
	METRIC_WRITE_SECONDS,
	METRIC_READ_BYTES,
	METRIC_READ_SECONDS,
	METRIC_READ_ERRORS,
	METRIC_FSYNC_SECONDS,
	/* the stages of sealing and reading */
	METRIC_COMPRESS_BYTES,
	METRIC_COMPRESS_SECONDS,
	METRIC_SEAL_BYTES,
	METRIC_SEAL_SECONDS,
	METRIC_APPEND_BYTES,
	METRIC_APPEND_SECONDS,
	METRIC_SYNC_BYTES,
	METRIC_SYNC_SECONDS,
	METRIC_FETCH_BYTES,
	METRIC_FETCH_SECONDS,
	METRIC_OPEN_BYTES,
	METRIC_OPEN_SECONDS,
	METRIC_DECOMPRESS_BYTES,
	METRIC_DECOMPRESS_SECONDS,
	/* what sealing made */
	METRIC_CHUNKS,
	METRIC_CHUNKS_INLINE,
	METRIC_CHUNK_PLAIN_BYTES,
	METRIC_CHUNK_STORED_BYTES,
	METRIC_COMPRESSION_RATIO,
	METRIC_FRAMES_STORED, /* and those of each codec, in the order of enum codec_id */
	METRIC_FRAMES_LZ4,
	METRIC_FRAMES_ZSTD,
	METRIC_FRAMES_BROTLI,
	/* commits */
	METRIC_CUT_SECONDS,
	METRIC_INDEX_COMMIT_SECONDS,
	METRIC_INDEX_SYNC_SECONDS,
	/* the cache of frames */
	METRIC_CACHE_HITS,
	METRIC_CACHE_MISSES,
	METRIC_CACHE_EVICTIONS,
	METRIC_CACHE_BYTES,
	METRIC_CACHE_GIVEN,
	/* waiting */
	METRIC_CPU_WAIT,
	METRIC_IO_WAIT,
	METRIC_MEMORY_WAIT,
	METRIC_QUEUE_BYTES,
	METRIC_QUEUE_JOBS,
	METRIC_WORKERS,
	METRIC_WORKERS_ACTIVE,
	/* feedback */
	METRIC_FEEDBACK_LEVEL,
	METRIC_FEEDBACK_SHRINK,
	METRIC_FEEDBACK_WORKERS,
	METRIC_FEEDBACK_DECISIONS,
	/* how full it is */
	METRIC_CPU_SATURATION,
	METRIC_IO_SATURATION,
	METRIC_MEMORY_SATURATION,
	METRIC_MEMORY_USED,
	METRIC_MEMORY_LIMIT,
	METRIC_DIRTY_BYTES,
	METRIC_STORE_AVAILABLE,
	/* the rest */
	METRIC_COMPACT_BYTES,
	METRIC_SEGMENTS_DELETED,
	METRIC_ALERTS,
	METRIC_UPTIME,
	METRIC_COUNT
};

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* What a value counts. Times are held as nanoseconds and shares as millionths, and shown as seconds and as 1; steps are
 * an int64_t. */
enum metric_unit { METRIC_NUMBER, METRIC_BYTES, METRIC_NS, METRIC_PPM, METRIC_STEPS };

struct metric_info {
	const char *name, *help;
	enum metric_type type;
	enum metric_unit unit;
};

const struct metric_info *metric_info(enum metric id);
/* What a value is divided by to be shown. */
double metric_scale(enum metric_unit unit);

struct metrics;

/* clock: borrowed. */
int metrics_new(const struct clock *clock, struct metrics **out) MUST_CHECK;
void metrics_free(struct metrics *m); /* NULL is allowed */
/* Counts nothing while paused, as without metrics: so that their cost can be measured on a volume that is open. Nothing
 * of it may be under way; gauges are of the past afterwards. */
void metrics_pause(struct metrics *m, bool paused);

void metrics_add(struct metrics *m, enum metric id, uint64_t n); /* a counter */
void metrics_set(struct metrics *m, enum metric id, uint64_t v); /* a gauge */
/* A histogram: 16 buckets an octave from 0 to 2^64, so that a value is known to 1/16 and none is too large. */
void metrics_observe(struct metrics *m, enum metric id, uint64_t v);

/* Nanoseconds that never run backwards; 0 without metrics. */
uint64_t metrics_now(const struct metrics *m);
/* Observes the time since `begin`, which metrics_now gave, and returns the present one: the next stage's begin. */
uint64_t metrics_lap(struct metrics *m, enum metric id, uint64_t begin);

/* Around an operation on STORE, as metrics_now and metrics_lap, which counts as time that STORE was busy too. */
uint64_t metrics_io_begin(struct metrics *m);
void metrics_io_end(struct metrics *m, enum metric id, uint64_t begin);
/* Nanoseconds so far in which at least one such operation was under way. */
uint64_t metrics_io_busy(struct metrics *m);

/* A counter's or a gauge's value; how often a histogram has been observed. */
uint64_t metrics_value(const struct metrics *m, enum metric id);
/* What was observed, in all. */
uint64_t metrics_sum(const struct metrics *m, enum metric id);
/* The value that a share q (0 to 1) of what was observed does not exceed; 0 if nothing was. */
uint64_t metrics_percentile(const struct metrics *m, enum metric id, double q);

#define METRICS_BUCKETS 976

struct metrics_histogram {
	uint64_t count, sum;
	uint64_t bucket[METRICS_BUCKETS];
};

/* A copy, taken while others observe: each of its numbers is right, their sum may be one observation off. */
void metrics_histogram_get(const struct metrics *m, enum metric id, struct metrics_histogram *out);
/* Leaves in *h what was observed after `earlier`, a copy of the same one. */
void metrics_histogram_since(struct metrics_histogram *h, const struct metrics_histogram *earlier);
uint64_t metrics_histogram_percentile(const struct metrics_histogram *h, double q);
/* How many observations were below `bound`, a power of two. */
uint64_t metrics_histogram_below(const struct metrics_histogram *h, uint64_t bound);

#endif
