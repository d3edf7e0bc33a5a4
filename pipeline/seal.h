/*
 * Within the pipeline: requests to seal become jobs. One of few frames is done by the thread that submits it, within a
 * context's span buffer; any other waits, without memory of its own, for a piece of the arena, and then its frames go
 * to the workers; files that wait take turns, by bytes. Nothing here ever blocks on another job, so that done() may
 * submit again from anywhere.
 */
#ifndef APFS_PIPELINE_SEAL_H
#define APFS_PIPELINE_SEAL_H

#include "pipeline/arena.h"
#include "pipeline/segment.h"

#include <stdatomic.h>

struct seal_job;

struct sealer {
	struct segment_store *store;
	struct workers *workers;

	pthread_mutex_t lock;
	pthread_cond_t drained; /* jobs became 0 */
	struct arena arena;
	struct budget *budget;
	unsigned admitted, admitted_max;            /* jobs that have a piece of it; fewer of them touch fewer pages */
	TAILQ_HEAD(sealer_queue, seal_job) waiting; /* for a piece of the arena, ascending by turn */
	uint64_t turn;                              /* of the last that got one */
	uint64_t queued; /* plaintext bytes of the jobs that are waiting or with the workers */
	unsigned jobs;   /* whose done() has not returned */

	atomic_uint_fast64_t plain, stored, chunks, frames, frames_stored; /* counters */
};

/* memory: bytes for records. A chunk that may need more is refused. budget: borrowed, or NULL. */
int sealer_init(struct sealer *s, struct segment_store *store, struct workers *workers, size_t memory,
                struct budget *budget) MUST_CHECK;
/* Waits until every done() has returned. */
void sealer_drain(struct sealer *s);
void sealer_release(struct sealer *s);

void sealer_submit(struct sealer *s, struct pipeline_seal *rq);

#endif
