#include "tools/stats_view.h"
#include "base/option.h"

#include <errno.h>
#include <jansson.h>

#define MB 1e6

/* --- reading ------------------------------------------------------------------------------------------------------ */

static int get(const json_t *o, const char *key, double *out)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_number(v))
		return -EPROTO;
	*out = json_number_value(v);
	return 0;
}

int stats_parse(const char *json, struct stats *out)
{
	json_t *top = json_loads(json, 0, NULL);
	const json_t *all = json_object_get(top, "metrics");
	int ret = 0;

	for (unsigned i = 0; i < METRIC_COUNT && !ret; i++) {
		const struct metric_info *info = metric_info((enum metric)i);
		const json_t *o = json_object_get(all, info->name);

		ret = get(o, info->type == METRIC_HISTOGRAM ? "count" : "value", &out->v[i].value);
		if (ret || info->type != METRIC_HISTOGRAM)
			continue;
		if (get(o, "sum", &out->v[i].sum) || get(o, "p50", &out->v[i].p50) || get(o, "p95", &out->v[i].p95) ||
		    get(o, "p99", &out->v[i].p99))
			ret = -EPROTO;
	}
	json_decref(top);
	return ret;
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

static double value(const struct stats *s, enum metric id)
{
	return s->v[id].value;
}

static void print_time(FILE *f, double seconds)
{
	if (seconds >= 1)
		(void)fprintf(f, " %7.2f s ", seconds);
	else if (seconds >= 1e-3)
		(void)fprintf(f, " %7.2f ms", seconds * 1e3);
	else
		(void)fprintf(f, " %7.1f us", seconds * 1e6);
}

static void print_times(FILE *f, const struct stats *s, enum metric id)
{
	(void)fprintf(f, " %10.0f", value(s, id));
	print_time(f, s->v[id].p50);
	print_time(f, s->v[id].p95);
	print_time(f, s->v[id].p99);
	(void)fprintf(f, "\n");
}

/* MB/s while it runs, in one thread. */
static void print_stage(FILE *f, const struct stats *s, const char *name, enum metric bytes, enum metric seconds)
{
	char size[32];

	(void)fprintf(f, "%-12s %10s", name, option_format_size((uint64_t)value(s, bytes), size, sizeof(size)));
	if (s->v[seconds].sum > 0)
		(void)fprintf(f, " %8.0f", value(s, bytes) / s->v[seconds].sum / MB);
	else
		(void)fprintf(f, " %8s", "-");
	print_times(f, s, seconds);
}

static void print_stages(FILE *f, const struct stats *s)
{
	static const struct {
		const char *name;
		enum metric bytes, seconds;
	} stage[] = {
	    {"write", METRIC_WRITE_BYTES, METRIC_WRITE_SECONDS},
	    {"compress", METRIC_COMPRESS_BYTES, METRIC_COMPRESS_SECONDS},
	    {"seal", METRIC_SEAL_BYTES, METRIC_SEAL_SECONDS},
	    {"append", METRIC_APPEND_BYTES, METRIC_APPEND_SECONDS},
	    {"sync", METRIC_SYNC_BYTES, METRIC_SYNC_SECONDS},
	    {"read", METRIC_READ_BYTES, METRIC_READ_SECONDS},
	    {"fetch", METRIC_FETCH_BYTES, METRIC_FETCH_SECONDS},
	    {"open", METRIC_OPEN_BYTES, METRIC_OPEN_SECONDS},
	    {"decompress", METRIC_DECOMPRESS_BYTES, METRIC_DECOMPRESS_SECONDS},
	};

	(void)fprintf(f, "%-12s %10s %8s %10s %10s %10s %10s\n", "stage", "bytes", "MB/s", "count", "P50", "P95",
	              "P99");
	for (size_t i = 0; i < sizeof(stage) / sizeof(stage[0]); i++)
		print_stage(f, s, stage[i].name, stage[i].bytes, stage[i].seconds);
}

static void print_waits(FILE *f, const struct stats *s)
{
	static const struct {
		const char *name;
		enum metric id;
	} wait[] = {
	    {"request", METRIC_REQUEST_SECONDS},
	    {"fsync", METRIC_FSYNC_SECONDS},
	    {"commit", METRIC_CUT_SECONDS},
	    {"index commit", METRIC_INDEX_COMMIT_SECONDS},
	    {"index sync", METRIC_INDEX_SYNC_SECONDS},
	    {"wait: CPU", METRIC_CPU_WAIT},
	    {"wait: I/O", METRIC_IO_WAIT},
	    {"wait: memory", METRIC_MEMORY_WAIT},
	};

	(void)fprintf(f, "\n%-32s %10s %10s %10s %10s\n", "what takes time", "count", "P50", "P95", "P99");
	for (size_t i = 0; i < sizeof(wait) / sizeof(wait[0]); i++) {
		(void)fprintf(f, "%-32s", wait[i].name);
		print_times(f, s, wait[i].id);
	}
}

static void print_bytes(FILE *f, const char *name, double bytes)
{
	char size[32];

	(void)fprintf(f, "%s %s", name, option_format_size((uint64_t)bytes, size, sizeof(size)));
}

static void print_rest(FILE *f, const struct stats *s)
{
	double hits = value(s, METRIC_CACHE_HITS), misses = value(s, METRIC_CACHE_MISSES);

	(void)fprintf(f, "\nsaturation   CPU %.0f %%, I/O %.0f %%, memory %.0f %%; alerts: %.0f\n",
	              value(s, METRIC_CPU_SATURATION) * 100, value(s, METRIC_IO_SATURATION) * 100,
	              value(s, METRIC_MEMORY_SATURATION) * 100, value(s, METRIC_ALERTS));
	(void)fprintf(f, "memory      ");
	print_bytes(f, "", value(s, METRIC_MEMORY_USED));
	print_bytes(f, " of", value(s, METRIC_MEMORY_LIMIT));
	print_bytes(f, ", unsaved", value(s, METRIC_DIRTY_BYTES));
	print_bytes(f, ", cached", value(s, METRIC_CACHE_BYTES));
	(void)fprintf(f, "\ncache        %.0f hits, %.0f misses (%.0f %%), %.0f evicted\n", hits, misses,
	              hits + misses > 0 ? hits / (hits + misses) * 100 : 0, value(s, METRIC_CACHE_EVICTIONS));
	(void)fprintf(f, "queue        %.0f chunks", value(s, METRIC_QUEUE_JOBS));
	print_bytes(f, ",", value(s, METRIC_QUEUE_BYTES));
	(void)fprintf(f, "; %.0f of %.0f workers active\n", value(s, METRIC_WORKERS_ACTIVE), value(s, METRIC_WORKERS));
	(void)fprintf(f, "sealed       %.0f chunks (%.0f in the index), ratio %.2f\n", value(s, METRIC_CHUNKS),
	              value(s, METRIC_CHUNKS_INLINE), value(s, METRIC_COMPRESSION_RATIO));
	(void)fprintf(f, "frames       stored %.0f, lz4 %.0f, zstd %.0f, brotli %.0f\n", value(s, METRIC_FRAMES_STORED),
	              value(s, METRIC_FRAMES_LZ4), value(s, METRIC_FRAMES_ZSTD), value(s, METRIC_FRAMES_BROTLI));
	(void)fprintf(f, "compaction  ");
	print_bytes(f, "", value(s, METRIC_COMPACT_BYTES));
	(void)fprintf(f, " moved, %.0f segments deleted\n", value(s, METRIC_SEGMENTS_DELETED));
	(void)fprintf(f, "store       ");
	print_bytes(f, "", value(s, METRIC_STORE_AVAILABLE));
	(void)fprintf(f, " left; %.0f reads failed; up for %.0f s\n", value(s, METRIC_READ_ERRORS),
	              value(s, METRIC_UPTIME));
}

static void print_feedback(FILE *f, const struct stats *s)
{
	if (value(s, METRIC_FEEDBACK_WORKERS) > 0)
		(void)fprintf(f, "feedback     level %+.0f, large chunks 1/%u, %.0f workers; moved %.0f times\n",
		              value(s, METRIC_FEEDBACK_LEVEL), 1u << (unsigned)value(s, METRIC_FEEDBACK_SHRINK) % 32,
		              value(s, METRIC_FEEDBACK_WORKERS), value(s, METRIC_FEEDBACK_DECISIONS));
	else
		(void)fprintf(f, "feedback     off\n");
}

void stats_print(const struct stats *s, FILE *f)
{
	print_stages(f, s);
	print_waits(f, s);
	print_rest(f, s);
	print_feedback(f, s);
}

/* --- rates -------------------------------------------------------------------------------------------------------- */

void stats_print_rates_head(FILE *f)
{
	(void)fprintf(f, "%8s %8s %8s %8s %6s %5s %5s %5s %9s %7s %6s\n", "write", "read", "append", "fetch", "hits",
	              "CPU", "I/O", "mem", "requests", "commits", "queue");
	(void)fprintf(f, "%8s %8s %8s %8s %6s %5s %5s %5s %9s %7s %6s\n", "MB/s", "MB/s", "MB/s", "MB/s", "%", "%", "%",
	              "%", "/s", "/s", "chunks");
}

void stats_print_rates(const struct stats *before, const struct stats *now, FILE *f)
{
	double seconds = value(now, METRIC_UPTIME) - value(before, METRIC_UPTIME), per = seconds > 0 ? seconds : 1;
#define DELTA(id) (value(now, id) - value(before, id))
	double hits = DELTA(METRIC_CACHE_HITS), frames = hits + DELTA(METRIC_CACHE_MISSES);

	(void)fprintf(f, "%8.1f %8.1f %8.1f %8.1f %6.0f %5.0f %5.0f %5.0f %9.0f %7.1f %6.0f\n",
	              DELTA(METRIC_WRITE_BYTES) / per / MB, DELTA(METRIC_READ_BYTES) / per / MB,
	              DELTA(METRIC_APPEND_BYTES) / per / MB, DELTA(METRIC_FETCH_BYTES) / per / MB,
	              frames > 0 ? hits / frames * 100 : 0, value(now, METRIC_CPU_SATURATION) * 100,
	              value(now, METRIC_IO_SATURATION) * 100, value(now, METRIC_MEMORY_SATURATION) * 100,
	              DELTA(METRIC_REQUEST_SECONDS) / per, DELTA(METRIC_CUT_SECONDS) / per,
	              value(now, METRIC_QUEUE_JOBS));
#undef DELTA
}
