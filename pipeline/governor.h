/*
 * Tokens that keep a mount from asking more of the machine than it has: whoever runs a codec or a cipher holds a CPU
 * token, whoever reads, appends to or syncs a segment an I/O token. Those who wait are served in the order in which
 * they came: a token that is given back while somebody waits is that waiter's, and nobody who comes later can take it.
 * Threads whose runs are short and waited for (urgent holds) have a queue of their own; if somebody waits in both
 * queues they are served in turn, so that neither a flood of reads nor one of writes keeps the other from half of it.
 *
 * Nothing is waited for with a token but, with one for I/O, storage: so who waits for a token gets it. Taking and
 * giving back a token that nobody else wants is one atomic operation each.
 */
#ifndef APFS_PIPELINE_GOVERNOR_H
#define APFS_PIPELINE_GOVERNOR_H

#include "pipeline/metrics.h"

enum governor_kind { GOVERNOR_CPU, GOVERNOR_IO, GOVERNOR_KINDS };

struct governor;

struct governor_options {
	unsigned tokens[GOVERNOR_KINDS]; /* 1 at least of each */
	struct metrics *metrics;         /* METRIC_CPU_WAIT and METRIC_IO_WAIT; borrowed, NULL: none */
};

int governor_new(const struct governor_options *o, struct governor **out) MUST_CHECK;
/* No token may be held. NULL is allowed. */
void governor_free(struct governor *g);

/* Takes a token, and waits for it if need be; signals do not end the wait. Without a governor (NULL) nothing is
 * governed. Any thread; nobody asks for a token of a kind that it holds, nor for one for I/O with one for the CPU. */
void governor_enter(struct governor *g, enum governor_kind kind);
void governor_leave(struct governor *g, enum governor_kind kind);

unsigned governor_tokens(const struct governor *g, enum governor_kind kind);
/* Threads that can run codecs and ciphers at once on so many cores. */
unsigned governor_cpu_threads(const struct governor *g, unsigned cores);
/* How many are held, and how many threads wait. */
unsigned governor_held(const struct governor *g, enum governor_kind kind);
unsigned governor_waiting(const struct governor *g, enum governor_kind kind);

/* One thread's CPU token over a row of short runs. A change of hands for each of them would cost more than some of them
 * take, so it is kept for GOVERNOR_SLICE from when somebody is seen to wait, and for as long as nobody does; one that
 * is not urgent goes to an urgent waiter at once. */
struct governor_hold {
	struct governor *governor; /* NULL: nothing is governed */
	uint64_t since;            /* when somebody was seen to wait, monotonic ns; 0: not yet */
	bool urgent;               /* somebody waits for what is run */
	bool held;
};

#define GOVERNOR_SLICE ((uint64_t)1000000) /* ns */

/* Before each run: has the token after, if need be after everybody who waits. */
void governor_hold_begin(struct governor_hold *h);
/* Before anything else than a run; nothing to do if it is not held. */
void governor_hold_end(struct governor_hold *h);

#endif
