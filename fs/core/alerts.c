#include "fs/core/alerts.h"

#include <stdio.h>

#define IO_SLOW   ((uint64_t)100000000)  /* ns */
#define WAIT_LONG ((uint64_t)1000000000) /* ns */
#define LOWER     0.1                    /* below its limit, where an alert ends */
#define BUSY      0.5                    /* a share from which something is likely to be what others wait for */
#define LIMIT_CPU 0.9
#define LIMIT_MEM 0.8
#define HELD_UP   0.6 /* of memory, while writers are held up for long */
#define LIMIT_IO  0.8

static bool is_above(enum alert alert, const struct load *l, double less)
{
	switch (alert) {
	case ALERT_CPU:
		return l->cpu > LIMIT_CPU - less;
	case ALERT_MEMORY:
		return l->memory > (l->wait_p95 > WAIT_LONG ? HELD_UP : LIMIT_MEM) - less;
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

/* What makes compression cheaper, NULL: nothing. */
static const char *faster(struct codec_choice choice, enum policy_priority priority)
{
	if (choice.codec == CODEC_AUTO)
		return priority == POLICY_SPEED ? NULL : "--priority=speed";
	return choice.codec == CODEC_STORED || choice.codec == CODEC_LZ4 ? NULL : "--compress=lz4";
}

/* What makes it write less, NULL: nothing. */
static const char *denser(struct codec_choice choice, enum policy_priority priority)
{
	if (choice.codec == CODEC_AUTO)
		return priority == POLICY_RATIO ? NULL : "--priority=ratio";
	return choice.codec == CODEC_BROTLI ? NULL : "--compress=zstd:9";
}

static void cpu_text(const struct load *l, const char *speed, char *buf, size_t len)
{
	(void)snprintf(buf, len,
	               "the processors are busy to %.0f %%, and data waits for them: %s%smore of them would help",
	               l->cpu * 100, speed ? speed : "compression is as fast as it gets already;",
	               speed ? " needs less of them, " : " ");
}

static void memory_text(const struct load *l, const char *speed, char *buf, size_t len)
{
	int n = snprintf(buf, len, "%.0f %% of the memory for unsaved data is in use, and ", l->memory * 100);

	if (l->wait_p95 > WAIT_LONG)
		n += snprintf(buf + n, len - (size_t)n,
		              "1 in 20 waits for it takes over %.1f s: ", (double)l->wait_p95 / 1e9);
	else
		n += snprintf(buf + n, len - (size_t)n, "writers may wait: ");

	if (l->io > BUSY)
		(void)snprintf(buf + n, len - (size_t)n,
		               "STORE's disk is what it waits for; a larger --memory helps with bursts only");
	else if (l->cpu > BUSY)
		(void)snprintf(buf + n, len - (size_t)n,
		               "compression is what it waits for%s%s; a larger --memory helps with bursts only",
		               speed ? ", which is faster with " : "", speed ? speed : "");
	else
		(void)snprintf(buf + n, len - (size_t)n, "a larger --memory takes more of it at once");
}

static void io_text(const struct load *l, const char *less, char *buf, size_t len)
{
	int n =
	    snprintf(buf, len,
	             "STORE's disk works %.0f %% of the time, and 1 in 20 operations takes over %.0f ms: ", l->io * 100,
	             (double)l->io_p95 / 1e6);

	if (less && l->cpu < BUSY)
		(void)snprintf(buf + n, len - (size_t)n, "the processors have time to spare, and %s writes less to it",
		               less);
	else
		(void)snprintf(buf + n, len - (size_t)n,
		               "look at what else uses it; a faster disk for STORE would help");
}

void alerts_text(enum alert alert, const struct load *l, struct codec_choice choice, enum policy_priority priority,
                 char *buf, size_t len)
{
	if (alert == ALERT_CPU)
		cpu_text(l, faster(choice, priority), buf, len);
	else if (alert == ALERT_MEMORY)
		memory_text(l, faster(choice, priority), buf, len);
	else
		io_text(l, denser(choice, priority), buf, len);
}
