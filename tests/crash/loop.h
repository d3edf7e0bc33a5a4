/*
 * The crash loop: a run of tests/core (fs/core beside its model) on a simulated STORE, of which a copy is kept after
 * every operation that changes something. Before the model forgets anything, and after every step, each copy loses its
 * power in several ways (or only its process), is opened, and what is found is held against the model; so is what a
 * power cut leaves in the midst of the recovery.
 */
#ifndef APFS_TESTS_CRASH_LOOP_H
#define APFS_TESTS_CRASH_LOOP_H

#include "tests/core/run.h"
#include "tests/sim/sim.h"

#include <pthread.h>

/* A moment at which the power may go. */
struct cut {
	struct cut *next;
	struct io *copy;
	uint64_t number;
	unsigned class;
	uint64_t step;
	char path[64];
};

struct cuts {
	pthread_mutex_t lock;
	struct cut *first, **last;
	_Atomic uint64_t step; /* of the run */
};

struct loop {
	struct run run; /* the first member */
	const char *scenario;
	struct io *disk;
	unsigned images;     /* of each cut */
	unsigned every;      /* which operations are cut: every, or one of so many */
	uint64_t checkpoint; /* of the index, in bytes of the WAL; 0: as it is */
	uint64_t rng;        /* for what is judged, apart from the workload's; of each cut */

	struct cuts cuts;
	bool judging;
	struct io *image; /* the one being judged, for a report */
	struct cut now;   /* and of which cut */
	uint64_t image_seed;

	uint64_t cut, judged, in_recovery; /* how many */
	uint64_t classes[SIM_CLASSES];     /* of cut */
};

/* An error that the volume logged since it was last asked, which it should not have; NULL: none. Linked with
 * -Wl,--wrap=log_line. */
const char *loop_logged(void);

/* Formats a store and opens it; seed decides everything. */
void loop_begin(struct loop *l, const char *scenario, uint64_t seed, unsigned steps);
/* The end of a run: everything is judged, closed, judged once more and freed. */
void loop_end(struct loop *l);

/* Around one step of the model. */
void loop_step_begin(struct loop *l);
void loop_step_end(struct loop *l);

/* Cuts every moment recorded so far. */
void loop_judge(struct loop *l);
/* Closes and opens the volume. */
void loop_remount(struct loop *l);
/* The power goes, for the run itself: it goes on with what is left. */
void loop_power_cut(struct loop *l);
/* Applies the settings of the loop to a volume that was opened. */
void loop_settle(struct loop *l);

#endif
