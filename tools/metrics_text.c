#include "tools/metrics_text.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>

#define BUCKET_FIRST 10u /* 2^10 ns is about a microsecond */
#define BUCKET_LAST  40u

static const char *const type_name[] = {"counter", "gauge", "histogram"};

static bool is_fraction(const struct metric_info *info)
{
	return info->unit == METRIC_NS || info->unit == METRIC_PPM;
}

static void print_histogram(const struct metrics *m, enum metric id, FILE *f)
{
	const struct metric_info *info = metric_info(id);
	struct metrics_histogram h;

	metrics_histogram_get(m, id, &h);
	for (unsigned i = BUCKET_FIRST; i <= BUCKET_LAST; i++) {
		uint64_t bound = (uint64_t)1 << i;

		(void)fprintf(f, "%s_bucket{le=\"%.9g\"} %" PRIu64 "\n", info->name,
		              (double)bound / metric_scale(info->unit), metrics_histogram_below(&h, bound));
	}
	(void)fprintf(f, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", info->name, h.count);
	(void)fprintf(f, "%s_sum %.9f\n", info->name, (double)h.sum / metric_scale(info->unit));
	(void)fprintf(f, "%s_count %" PRIu64 "\n", info->name, h.count);
}

void metrics_print_prometheus(const struct metrics *m, FILE *f)
{
	for (unsigned i = 0; i < METRIC_COUNT; i++) {
		enum metric id = (enum metric)i;
		const struct metric_info *info = metric_info(id);
		uint64_t v = metrics_value(m, id);

		(void)fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", info->name, info->help, info->name,
		              type_name[info->type]);
		if (info->type == METRIC_HISTOGRAM)
			print_histogram(m, id, f);
		else if (is_fraction(info))
			(void)fprintf(f, "%s %.9g\n", info->name, (double)v / metric_scale(info->unit));
		else if (info->unit == METRIC_STEPS)
			(void)fprintf(f, "%s %" PRId64 "\n", info->name, (int64_t)v);
		else
			(void)fprintf(f, "%s %" PRIu64 "\n", info->name, v);
	}
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

static json_t *json_value(const struct metric_info *info, uint64_t v)
{
	if (is_fraction(info))
		return json_real((double)v / metric_scale(info->unit));
	if (info->unit == METRIC_STEPS)
		return json_integer((json_int_t)v);
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

static json_t *json_metric(const struct metrics *m, enum metric id)
{
	const struct metric_info *info = metric_info(id);
	struct metrics_histogram h;

	if (info->type != METRIC_HISTOGRAM)
		return json_pack("{s:s, s:o}", "type", type_name[info->type], "value",
		                 json_value(info, metrics_value(m, id)));
	metrics_histogram_get(m, id, &h);
	return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o}", "type", type_name[info->type], "count", (json_int_t)h.count,
	                 "sum", json_value(info, h.sum), "p50", json_value(info, metrics_histogram_percentile(&h, 0.5)),
	                 "p95", json_value(info, metrics_histogram_percentile(&h, 0.95)), "p99",
	                 json_value(info, metrics_histogram_percentile(&h, 0.99)));
}

int metrics_print_json(const struct metrics *m, FILE *f)
{
	json_t *all = json_object();
	int bad = all ? 0 : -1;

	for (unsigned i = 0; i < METRIC_COUNT && !bad; i++)
		bad = json_object_set_new(all, metric_info((enum metric)i)->name, json_metric(m, (enum metric)i));
	json_t *top = bad ? NULL : json_pack("{s:s, s:O}", "version", APFS_VERSION, "metrics", all);
	bad = top ? json_dumpf(top, f, JSON_COMPACT | JSON_REAL_PRECISION(12)) : -1;
	json_decref(top);
	json_decref(all);
	(void)fputc('\n', f);
	return bad || ferror(f) ? -ENOMEM : 0;
}
