#include "fs/core/alerts.h"

#include <stdio.h>

#define IO_SLOW   ((uint64_t)100000000) /* ns */
#define LOWER     0.1                   /* below its limit, where an alert ends */
#define BUSY      0.5                   /* a share from which something is likely to be what others wait for */
#define LIMIT_CPU 0.9
#define LIMIT_MEM 0.8
#define LIMIT_IO  0.8

static bool is_above(enum alert alert, const struct load *l, double less)
{
	switch (alert) {
	case ALERT_CPU:
		return l->cpu > LIMIT_CPU - less;
	case ALERT_MEMORY:
		return l->memory > LIMIT_MEM - less;
	default:
		return l->io > LIMIT_IO - less && l->io_p95 > IO_SLOW;
	}
}

unsigned alerts_step(struct alerts *a, const struct load *l, uint64_t now, unsigned *tell)
{
	unsigned raised = 0;

	*tell = 0;
	for (unsigned i = 0; i < ALERT_COUNT; i++) {
		bool was = a->raised[i];

		a->raised[i] = is_above((enum alert)i, l, was ? LOWER : 0);
		if (was || !a->raised[i])
			continue;
		raised |= 1u << i;
		if (a->told[i] && now - a->told_at[i] < ALERTS_QUIET)
			continue;
		*tell |= 1u << i;
		a->told[i] = true;
		a->told_at[i] = now;
	}
	return raised;
}

static const char *cpu_advice(struct codec_choice choice)
{
	if (choice.codec == CODEC_STORED)
		return "all that is left to do is encryption, which more processors would share";
	if (choice.codec == CODEC_LZ4)
		return "--compress=lz4 is the fastest codec already; more processors would share the work";
	return "--compress=lz4 needs less of them, more processors would share the work";
}

static const char *memory_advice(const struct load *l)
{
	if (l->io > BUSY)
		return "STORE's disk is what it waits for; a larger --memory helps with bursts only";
	if (l->cpu > BUSY)
		return "compression is what it waits for: --compress=lz4 is faster; a larger --memory helps with "
		       "bursts only";
	return "a larger --memory takes more of it at once";
}

static const char *io_advice(struct codec_choice choice, const struct load *l)
{
	if (l->cpu < BUSY && choice.codec != CODEC_BROTLI)
		return "the processors have time to spare: a higher level, such as --compress=zstd:9, writes less to "
		       "it";
	return "look at what else uses it; a faster disk for STORE is what would help";
}

void alerts_text(enum alert alert, const struct load *l, struct codec_choice choice, char *buf, size_t len)
{
	if (alert == ALERT_CPU)
		(void)snprintf(buf, len, "the processors are busy to %.0f %%, and data waits for them: %s",
		               l->cpu * 100, cpu_advice(choice));
	else if (alert == ALERT_MEMORY)
		(void)snprintf(buf, len, "%.0f %% of the memory for unsaved data is in use, and writers may wait: %s",
		               l->memory * 100, memory_advice(l));
	else
		(void)snprintf(buf, len,
		               "STORE's disk works %.0f %% of the time, and 1 in 20 operations takes over %.0f ms: %s",
		               l->io * 100, (double)l->io_p95 / 1e6, io_advice(choice, l));
}
