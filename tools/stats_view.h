/* Metrics as people read them. */
#ifndef APFS_TOOLS_STATS_VIEW_H
#define APFS_TOOLS_STATS_VIEW_H

#include "pipeline/metrics.h"

#include <stdio.h>

/* What a mount says of itself, as numbers to be shown: seconds and ratios are fractions. */
struct stats {
	struct {
		double value; /* a histogram's: how often it was observed */
		double sum, p50, p95, p99;
	} v[METRIC_COUNT];
};

/* From metrics_print_json's text. -EPROTO: it is something else, or lacks a metric. */
int stats_parse(const char *json, struct stats *out) MUST_CHECK;
/* All of them, in tables. */
void stats_print(const struct stats *s, FILE *f);
/* One line of rates between two, and the line of headings above it. */
void stats_print_rates_head(FILE *f);
void stats_print_rates(const struct stats *before, const struct stats *now, FILE *f);

#endif
