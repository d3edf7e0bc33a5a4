/* Time as a seam, so that tests choose it. */
#ifndef APFS_BASE_CLOCK_H
#define APFS_BASE_CLOCK_H

#include <stdint.h>

struct clock_time {
	int64_t sec; /* since the epoch, may be negative */
	uint32_t nsec;
};

struct clock {
	/* Wall-clock time, what inode times are made of. */
	struct clock_time (*now)(const struct clock *c);
	/* Nanoseconds that never run backwards. */
	uint64_t (*monotonic)(const struct clock *c);
};

/* The system's clocks: CLOCK_REALTIME and CLOCK_MONOTONIC. */
extern const struct clock clock_system;

#endif
