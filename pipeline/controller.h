/*
 * Feedback: what is measured moves the level, the workers and the size of chunks from where the policies begin. A state
 * machine: no clock, no lock, no thread. It is given a sample every half second or so while there is work.
 *
 * Storage busy while the CPU is not: a higher level, up to the priority's highest; beyond that fewer workers, as long
 * as that costs nothing. The CPU busy while storage is not: more workers while that helps, a raised level back down,
 * and below where it began only while the CPU is scarce, that is, while threads that could run do not: a machine that
 * has nothing else to do is worth its ratio. Memory above 80 %: smaller chunks and, if storage is busy, fewer workers;
 * back below 70 %, once it has stayed there for a while: unsaved data comes and goes with every commit.
 *
 * Two samples must say the same before anything moves, a move is judged by the throughput after it, and what did not
 * help is taken back and not tried again for a while, longer each time.
 */
#ifndef APFS_PIPELINE_CONTROLLER_H
#define APFS_PIPELINE_CONTROLLER_H

#include <stdbool.h>
#include <stdint.h>

#define CONTROLLER_INTERVAL ((uint64_t)500000000) /* ns between samples */
#define CONTROLLER_RING     32u                   /* decisions that are remembered */

/* What was measured since the last one. Shares are per mille. */
struct controller_sample {
	uint64_t at;     /* ns, of any clock that does not run backwards: now */
	uint64_t ns;     /* since the last sample */
	uint64_t bytes;  /* plaintext sealed */
	uint64_t queued; /* plaintext that is still to be sealed, as was decided when it was queued */
	uint64_t cpu_ns; /* spent in codecs and ciphers, by all threads */
	unsigned io;     /* share of the time in which an operation on STORE was under way */
	unsigned scarce; /* share of cpu_ns in which the thread was not running */
	unsigned memory; /* share of the limit that is in use and cannot be given back at once */
};

/* Fixed for a mount. What the user has set has no room to move in. */
struct controller_limits {
	int lowest, highest;     /* levels: steps from where the policy begins, lowest <= 0 <= highest */
	unsigned shrink;         /* halvings of a chunk */
	unsigned least, workers; /* threads: that must be left; that there are */
	unsigned tokens;         /* threads that can run at once */
};

struct controller_state {
	int level;
	unsigned shrink; /* halvings of a chunk */
	unsigned workers;
};

enum controller_reason {
	CONTROLLER_STORAGE,     /* it is the bottleneck */
	CONTROLLER_CPU,         /* it is the bottleneck */
	CONTROLLER_CPU_SCARCE,  /* others use it */
	CONTROLLER_CPU_FREE,    /* and do no more */
	CONTROLLER_NO_GAIN,     /* the last move did not help */
	CONTROLLER_MEMORY,      /* above 80 % */
	CONTROLLER_MEMORY_FREE, /* below 70 % */
	CONTROLLER_REASONS
};
/* As part of a sentence. */
const char *controller_reason_text(enum controller_reason reason);

struct controller_decision {
	uint64_t at;
	struct controller_state state;
	enum controller_reason reason;
};

/* What a move is taken for: each is held back on its own. */
enum controller_move {
	CONTROLLER_LEVEL_UP,
	CONTROLLER_LEVEL_DOWN,
	CONTROLLER_WORKERS_UP,
	CONTROLLER_WORKERS_DOWN,
	CONTROLLER_MOVES
};

struct controller {
	struct controller_limits limits;
	struct controller_state state;
	unsigned lost;      /* workers that memory has cost */
	unsigned high, low; /* samples in which memory was above, or below */
	unsigned streak;    /* samples that said `last` */
	int last;           /* what the last sample said */
	unsigned settle;    /* samples to let pass */
	uint64_t queued;    /* bytes to let pass */
	bool judging;       /* the last move is not judged yet: */
	enum controller_move move;
	double before;                 /* bytes a second before it */
	unsigned samples;              /* since then */
	struct controller_sample seen; /* bytes and time since the last decision */
	unsigned hold[CONTROLLER_MOVES],
	    wait[CONTROLLER_MOVES]; /* samples a failed move is not tried: next time; still */
	unsigned calm;              /* samples since the last decision */
	struct controller_decision ring[CONTROLLER_RING];
	uint64_t decisions; /* so far; the last is at (decisions - 1) % CONTROLLER_RING */
};

void controller_init(struct controller *c, const struct controller_limits *limits);
/* Takes a sample; true: the state has changed. */
bool controller_step(struct controller *c, const struct controller_sample *s);

#endif
