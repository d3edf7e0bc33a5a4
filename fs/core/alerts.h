/* When to tell that something is too busy, and what to do about it: a pure function of what was measured. */
#ifndef APFS_FS_CORE_ALERTS_H
#define APFS_FS_CORE_ALERTS_H

#include "pipeline/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum alert { ALERT_CPU, ALERT_MEMORY, ALERT_IO, ALERT_COUNT };

/* How busy the volume was during an interval: shares of 1. */
struct load {
	double cpu;        /* of the processors */
	double memory;     /* of the memory for unsaved data, at the interval's end */
	double io;         /* of the time that STORE's disk worked */
	uint64_t io_p95;   /* ns: 19 of 20 operations on STORE took no longer */
	uint64_t wait_p95; /* ns: nor did 19 of 20 waits of writers for memory; 0: none waited */
};

struct alerts {
	bool raised[ALERT_COUNT];
	bool told[ALERT_COUNT];
	uint64_t told_at[ALERT_COUNT]; /* ns */
};

#define ALERTS_QUIET ((uint64_t)600 * 1000000000) /* ns in which the same is not told again */

/* Raises what is above its limit (CPU 90 %, memory 80 % or, while wait_p95 is above a second, 60 %, I/O 80 % while
 * io_p95 is above 100 ms) and lowers what is a tenth below. One file alone cannot have more than two thirds of the
 * memory, and whoever writes faster than is compressed waits a little all the time: that is no alert. The result has
 * bit 1 << alert for each that was raised; of those, *tell has the ones that the log has not had lately. now: monotonic
 * ns. */
unsigned alerts_step(struct alerts *a, const struct load *l, uint64_t now, unsigned *tell);

/* One line: what is too busy, and advice that fits how the volume compresses and what else is busy. */
void alerts_text(enum alert alert, const struct load *l, struct codec_choice choice, enum policy_priority priority,
                 char *buf, size_t len);

#endif
