#include "pipeline/metrics.h"

#include "base/lock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#define COUNTER(n, h, u)                \
	{                               \
		n, h, METRIC_COUNTER, u \
	}
#define GAUGE(n, h, u)                \
	{                             \
		n, h, METRIC_GAUGE, u \
	}
#define HISTOGRAM(n, h)                           \
	{                                         \
		n, h, METRIC_HISTOGRAM, METRIC_NS \
	}

static const struct metric_info table[METRIC_COUNT] = {
    [METRIC_REQUEST_SECONDS] = HISTOGRAM("apfs_request_seconds", "Requests of the kernel, until they were answered"),
    [METRIC_WRITE_BYTES] = COUNTER("apfs_write_bytes_total", "Bytes written to files", METRIC_BYTES),
    [METRIC_WRITE_SECONDS] = HISTOGRAM("apfs_write_seconds", "Writes to files, with what they waited for"),
    [METRIC_READ_BYTES] = COUNTER("apfs_read_bytes_total", "Bytes read from files", METRIC_BYTES),
    [METRIC_READ_SECONDS] = HISTOGRAM("apfs_read_seconds", "Reads of files"),
    [METRIC_READ_ERRORS] = COUNTER("apfs_read_errors_total", "Reads that failed: the log names them", METRIC_NUMBER),
    [METRIC_FSYNC_SECONDS] = HISTOGRAM("apfs_fsync_seconds", "Waiting until data was durable"),

    [METRIC_COMPRESS_BYTES] =
	COUNTER("apfs_compress_bytes_total", "Plaintext bytes that went through this stage", METRIC_BYTES),
    [METRIC_COMPRESS_SECONDS] = HISTOGRAM("apfs_compress_seconds", "Compressing a frame"),
    [METRIC_SEAL_BYTES] = COUNTER("apfs_seal_bytes_total", "Bytes encrypted and authenticated", METRIC_BYTES),
    [METRIC_SEAL_SECONDS] = HISTOGRAM("apfs_seal_seconds", "Sealing a frame"),
    [METRIC_APPEND_BYTES] = COUNTER("apfs_append_bytes_total", "Bytes appended to segments", METRIC_BYTES),
    [METRIC_APPEND_SECONDS] = HISTOGRAM("apfs_append_seconds", "Appending a chunk to a segment"),
    [METRIC_SYNC_BYTES] = COUNTER("apfs_sync_bytes_total", "Bytes of segments made durable", METRIC_BYTES),
    [METRIC_SYNC_SECONDS] = HISTOGRAM("apfs_sync_seconds", "Making a segment durable"),
    [METRIC_FETCH_BYTES] = COUNTER("apfs_fetch_bytes_total", "Bytes read from segments", METRIC_BYTES),
    [METRIC_FETCH_SECONDS] = HISTOGRAM("apfs_fetch_seconds", "Reading a run of frames from a segment"),
    [METRIC_OPEN_BYTES] = COUNTER("apfs_open_bytes_total", "Bytes authenticated and decrypted", METRIC_BYTES),
    [METRIC_OPEN_SECONDS] = HISTOGRAM("apfs_open_seconds", "Opening a frame"),
    [METRIC_DECOMPRESS_BYTES] = COUNTER("apfs_decompress_bytes_total", "Plaintext bytes decompressed", METRIC_BYTES),
    [METRIC_DECOMPRESS_SECONDS] = HISTOGRAM("apfs_decompress_seconds", "Decompressing a frame"),

    [METRIC_CHUNKS] = COUNTER("apfs_chunks_total", "Chunks sealed", METRIC_NUMBER),
    [METRIC_CHUNKS_INLINE] = COUNTER("apfs_chunks_inline_total", "Chunks kept in the index", METRIC_NUMBER),
    [METRIC_CHUNK_PLAIN_BYTES] = COUNTER("apfs_chunk_plain_bytes_total", "Plaintext bytes of chunks", METRIC_BYTES),
    [METRIC_CHUNK_STORED_BYTES] = COUNTER("apfs_chunk_stored_bytes_total", "Stored bytes of chunks", METRIC_BYTES),
    [METRIC_COMPRESSION_RATIO] = GAUGE("apfs_compression_ratio", "Plaintext bytes for each stored byte", METRIC_PPM),
    [METRIC_FRAMES_STORED] = COUNTER("apfs_frames_stored_total", "Frames that did not compress", METRIC_NUMBER),
    [METRIC_FRAMES_LZ4] = COUNTER("apfs_frames_lz4_total", "Frames compressed with LZ4", METRIC_NUMBER),
    [METRIC_FRAMES_ZSTD] = COUNTER("apfs_frames_zstd_total", "Frames compressed with zstd", METRIC_NUMBER),
    [METRIC_FRAMES_BROTLI] = COUNTER("apfs_frames_brotli_total", "Frames compressed with Brotli", METRIC_NUMBER),

    [METRIC_CUT_SECONDS] = HISTOGRAM("apfs_commit_seconds", "Commits, from the snapshot until all is durable"),
    [METRIC_INDEX_COMMIT_SECONDS] = HISTOGRAM("apfs_index_commit_seconds", "Committing the index's transaction"),
    [METRIC_INDEX_SYNC_SECONDS] = HISTOGRAM("apfs_index_sync_seconds", "Making the index's log durable"),

    [METRIC_CACHE_HITS] = COUNTER("apfs_cache_hits_total", "Frames found in the cache", METRIC_NUMBER),
    [METRIC_CACHE_MISSES] = COUNTER("apfs_cache_misses_total", "Frames that had to be read", METRIC_NUMBER),
    [METRIC_CACHE_EVICTIONS] = COUNTER("apfs_cache_evictions_total", "Frames that made room", METRIC_NUMBER),
    [METRIC_CACHE_BYTES] = GAUGE("apfs_cache_bytes", "Decoded frames in the cache", METRIC_BYTES),
    [METRIC_CACHE_GIVEN] =
	COUNTER("apfs_cache_given_bytes_total", "Bytes put into the kernel's cache beside those read", METRIC_BYTES),

    [METRIC_CPU_WAIT] = HISTOGRAM("apfs_cpu_wait_seconds", "Waiting for a processor's token"),
    [METRIC_IO_WAIT] = HISTOGRAM("apfs_io_wait_seconds", "Waiting for a token of STORE's disk"),
    [METRIC_MEMORY_WAIT] = HISTOGRAM("apfs_memory_wait_seconds", "Writes that waited for memory"),
    [METRIC_QUEUE_BYTES] = GAUGE("apfs_queue_bytes", "Plaintext bytes in the pipeline's queue", METRIC_BYTES),
    [METRIC_QUEUE_JOBS] = GAUGE("apfs_queue_jobs", "Chunks being sealed or waiting for it", METRIC_NUMBER),
    [METRIC_WORKERS] = GAUGE("apfs_workers", "Worker threads", METRIC_NUMBER),
    [METRIC_WORKERS_ACTIVE] = GAUGE("apfs_workers_active", "Worker threads that work", METRIC_NUMBER),

    [METRIC_FEEDBACK_LEVEL] =
	GAUGE("apfs_feedback_level_steps", "Levels above where the policy begins, or below", METRIC_STEPS),
    [METRIC_FEEDBACK_SHRINK] =
	GAUGE("apfs_feedback_chunk_halvings", "How often chunks above 1 MiB are halved", METRIC_NUMBER),
    [METRIC_FEEDBACK_WORKERS] =
	GAUGE("apfs_feedback_workers", "Worker threads that may compress at once; 0: no feedback", METRIC_NUMBER),
    [METRIC_FEEDBACK_DECISIONS] = COUNTER("apfs_feedback_decisions_total", "What feedback has moved", METRIC_NUMBER),

    [METRIC_CPU_SATURATION] = GAUGE("apfs_cpu_saturation_ratio", "Share of the processors in use", METRIC_PPM),
    [METRIC_IO_SATURATION] =
	GAUGE("apfs_io_saturation_ratio", "Share of the time that STORE's disk worked", METRIC_PPM),
    [METRIC_MEMORY_SATURATION] =
	GAUGE("apfs_memory_saturation_ratio", "Share of the memory for unsaved data in use", METRIC_PPM),
    [METRIC_MEMORY_USED] =
	GAUGE("apfs_memory_used_bytes", "Memory for file data in use, the cache's too", METRIC_BYTES),
    [METRIC_MEMORY_LIMIT] = GAUGE("apfs_memory_limit_bytes", "Memory for file data", METRIC_BYTES),
    [METRIC_DIRTY_BYTES] = GAUGE("apfs_dirty_bytes", "Buffers of data that is not durable", METRIC_BYTES),
    [METRIC_STORE_AVAILABLE] = GAUGE("apfs_store_available_bytes", "Space that is left to files", METRIC_BYTES),

    [METRIC_COMPACT_BYTES] = COUNTER("apfs_compact_bytes_total", "Bytes that compaction has moved", METRIC_BYTES),
    [METRIC_SEGMENTS_DELETED] = COUNTER("apfs_segments_deleted_total", "Segments deleted", METRIC_NUMBER),
    [METRIC_ALERTS] = COUNTER("apfs_alerts_total", "Alerts raised: the log has them", METRIC_NUMBER),
    [METRIC_UPTIME] = GAUGE("apfs_uptime_seconds", "Time since the volume was opened", METRIC_NS),
};

const struct metric_info *metric_info(enum metric id)
{
	return &table[id];
}

double metric_scale(enum metric_unit unit)
{
	return unit == METRIC_NS ? 1e9 : unit == METRIC_PPM ? 1e6 : 1;
}

/* A value to a cache line: what different threads count does not meet. */
struct cell {
	_Alignas(64) atomic_uint_fast64_t value; /* a histogram's: the sum */
	atomic_uint_fast64_t *bucket;            /* a histogram's */
};

struct metrics {
	struct cell cell[METRIC_COUNT];
	const struct clock *clock;
	atomic_uint_fast64_t *buckets;
	atomic_bool paused;

	pthread_mutex_t io_lock;
	unsigned io_active;
	uint64_t io_since, io_busy;
};

int metrics_new(const struct clock *clock, struct metrics **out)
{
	struct metrics *m = aligned_alloc(_Alignof(struct metrics), sizeof(*m));
	size_t n = 0;

	if (!m)
		return -ENOMEM;
	*m = (struct metrics){.clock = clock};
	for (int i = 0; i < METRIC_COUNT; i++)
		n += table[i].type == METRIC_HISTOGRAM;
	m->buckets = calloc(n * METRICS_BUCKETS, sizeof(*m->buckets));
	if (!m->buckets) {
		free(m);
		return -ENOMEM;
	}
	for (int i = METRIC_COUNT - 1; i >= 0; i--)
		if (table[i].type == METRIC_HISTOGRAM)
			m->cell[i].bucket = m->buckets + --n * METRICS_BUCKETS;
	(void)pthread_mutex_init(&m->io_lock, NULL);
	*out = m;
	return 0;
}

void metrics_free(struct metrics *m)
{
	if (!m)
		return;
	(void)pthread_mutex_destroy(&m->io_lock);
	free(m->buckets);
	free(m);
}

void metrics_pause(struct metrics *m, bool paused)
{
	atomic_store(&m->paused, paused);
}

/* --- counting ----------------------------------------------------------------------------------------------------- */

static bool counts(const struct metrics *m)
{
	return m && !atomic_load_explicit(&m->paused, memory_order_relaxed);
}

void metrics_add(struct metrics *m, enum metric id, uint64_t n)
{
	if (counts(m))
		atomic_fetch_add_explicit(&m->cell[id].value, n, memory_order_relaxed);
}

void metrics_set(struct metrics *m, enum metric id, uint64_t v)
{
	if (counts(m))
		atomic_store_explicit(&m->cell[id].value, v, memory_order_relaxed);
}

/* Values below 16 have a bucket each, then 16 share an octave. */
static unsigned bucket_of(uint64_t v)
{
	if (v < 16)
		return (unsigned)v;
	unsigned shift = 59u - (unsigned)__builtin_clzll(v);

	return 16 * (shift + 1) + (unsigned)(v >> shift & 15);
}

static uint64_t bucket_low(unsigned b)
{
	return b < 16 ? b : (uint64_t)(16 + b % 16) << (b / 16 - 1);
}

void metrics_observe(struct metrics *m, enum metric id, uint64_t v)
{
	if (!counts(m))
		return;
	struct cell *c = &m->cell[id];

	atomic_fetch_add_explicit(&c->bucket[bucket_of(v)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->value, v, memory_order_relaxed);
}

uint64_t metrics_now(const struct metrics *m)
{
	return counts(m) ? m->clock->monotonic(m->clock) : 0;
}

uint64_t metrics_lap(struct metrics *m, enum metric id, uint64_t begin)
{
	uint64_t now = metrics_now(m);

	metrics_observe(m, id, now - begin);
	return now;
}

uint64_t metrics_io_begin(struct metrics *m)
{
	uint64_t now = metrics_now(m);

	if (now) {
		SCOPED_LOCK(&m->io_lock);
		if (!m->io_active++)
			m->io_since = now;
	}
	return now;
}

void metrics_io_end(struct metrics *m, enum metric id, uint64_t begin)
{
	if (!begin)
		return;
	uint64_t now = metrics_lap(m, id, begin);

	SCOPED_LOCK(&m->io_lock);
	if (!--m->io_active && now > m->io_since)
		m->io_busy += now - m->io_since;
}

uint64_t metrics_io_busy(struct metrics *m)
{
	if (!m)
		return 0;
	SCOPED_LOCK(&m->io_lock);
	uint64_t now = metrics_now(m);

	return m->io_busy + (m->io_active && now > m->io_since ? now - m->io_since : 0);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

static uint64_t load(const atomic_uint_fast64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

uint64_t metrics_value(const struct metrics *m, enum metric id)
{
	uint64_t n = 0;

	if (!m || !m->cell[id].bucket)
		return m ? load(&m->cell[id].value) : 0;
	for (unsigned b = 0; b < METRICS_BUCKETS; b++)
		n += load(&m->cell[id].bucket[b]);
	return n;
}

uint64_t metrics_sum(const struct metrics *m, enum metric id)
{
	return m ? load(&m->cell[id].value) : 0;
}

uint64_t metrics_percentile(const struct metrics *m, enum metric id, double q)
{
	struct metrics_histogram h;

	metrics_histogram_get(m, id, &h);
	return metrics_histogram_percentile(&h, q);
}

void metrics_histogram_get(const struct metrics *m, enum metric id, struct metrics_histogram *out)
{
	*out = (struct metrics_histogram){0};
	if (!m || !m->cell[id].bucket)
		return;
	out->sum = load(&m->cell[id].value);
	for (unsigned b = 0; b < METRICS_BUCKETS; b++) {
		out->bucket[b] = load(&m->cell[id].bucket[b]);
		out->count += out->bucket[b];
	}
}

void metrics_histogram_since(struct metrics_histogram *h, const struct metrics_histogram *earlier)
{
	h->count -= earlier->count;
	h->sum -= earlier->sum;
	for (unsigned b = 0; b < METRICS_BUCKETS; b++)
		h->bucket[b] -= earlier->bucket[b];
}

/* The middle of the bucket that holds the value of that rank. */
uint64_t metrics_histogram_percentile(const struct metrics_histogram *h, double q)
{
	double wanted = q * (double)h->count;
	uint64_t seen = 0;

	for (unsigned b = 0; b < METRICS_BUCKETS && h->count; b++) {
		seen += h->bucket[b];
		if (h->bucket[b] && (double)seen >= wanted)
			return bucket_low(b) + (b < 16 ? 0 : ((uint64_t)1 << (b / 16 - 1)) / 2);
	}
	return 0;
}

uint64_t metrics_histogram_below(const struct metrics_histogram *h, uint64_t bound)
{
	unsigned end = bucket_of(bound);
	uint64_t n = 0;

	for (unsigned b = 0; b < end; b++)
		n += h->bucket[b];
	return n;
}
