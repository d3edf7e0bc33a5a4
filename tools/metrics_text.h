/* Metrics as programs read them. */
#ifndef APFS_TOOLS_METRICS_TEXT_H
#define APFS_TOOLS_METRICS_TEXT_H

#include "pipeline/metrics.h"

#include <stdio.h>

/* The text format of Prometheus. A histogram's buckets end at the powers of two from 1 us to 17 minutes. */
void metrics_print_prometheus(const struct metrics *m, FILE *f);
/* One line, one object: {"version": ..., "metrics": {NAME: {"type": ..., "value": ...}, ...}}; a histogram has count,
 * sum, p50, p95 and p99. Seconds and ratios are fractions, all else integers. */
int metrics_print_json(const struct metrics *m, FILE *f) MUST_CHECK;

#endif
