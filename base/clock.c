#include "base/clock.h"

#include <time.h>

static struct clock_time system_now(const struct clock *c)
{
	(void)c;
	struct timespec ts;
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (struct clock_time){.sec = ts.tv_sec, .nsec = (uint32_t)ts.tv_nsec};
}

static uint64_t system_monotonic(const struct clock *c)
{
	(void)c;
	struct timespec ts;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

const struct clock clock_system = {.now = system_now, .monotonic = system_monotonic};
