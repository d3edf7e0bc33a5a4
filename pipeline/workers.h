/*
 * Within the pipeline: the threads that do its work, and the contexts that any thread needs to run codecs and ciphers.
 * A job is a number of steps that any worker may take, in order of submission; a task is one call that may wait.
 */
#ifndef APFS_PIPELINE_WORKERS_H
#define APFS_PIPELINE_WORKERS_H

#include "base/budget.h"
#include "pipeline/cipher.h"
#include "pipeline/codec.h"
#include "pipeline/governor.h"

#include <stdbool.h>
#include <sys/queue.h>

#define WORKERS_MAX   32u                 /* threads of a pool */
#define WORKERS_MIN   2u                  /* and at least: where one works on jobs, the other is for tasks */
#define WORKERS_TASKS 256u                /* tasks that may wait */
#define WORKER_PLAIN  ((size_t)68 << 10)  /* bytes of a context's plain buffer */
#define WORKER_SPAN   ((size_t)720 << 10) /* and of its span buffer */

/* What one thread at a time works with. The buffers are reused for ever: a fresh page is dear. */
struct worker_ctx {
	struct codec_ctx *codec;
	struct cipher_ctx *cipher;
	struct governor_hold cpu; /* begun for each codec or cipher run, ended before anything else */
	uint8_t *plain;           /* room for a frame's plaintext and its seal */
	uint8_t *span;            /* WORKER_SPAN bytes: a record or a run of frames; NULL in a worker's own */
	SLIST_ENTRY(worker_ctx) link;
};

struct workers;

struct workers_options {
	unsigned threads;          /* that work on jobs, 1 to WORKERS_MAX */
	unsigned contexts;         /* that may be lent at once, 1 at least */
	struct governor *governor; /* borrowed, or NULL */
	struct budget *budget;     /* borrowed, or NULL */
};

int workers_new(const struct workers_options *o, struct workers **out, struct err *e) MUST_CHECK;
/* Runs everything that is queued, then ends the threads. */
void workers_free(struct workers *w);

/* Threads that may work on jobs. */
unsigned workers_count(const struct workers *w);
/* So many of those do something now, jobs or tasks. */
unsigned workers_active(struct workers *w);

/* At most so many threads of the pool work on jobs at once; 1 to all of them, which is how it begins. */
void workers_limit(struct workers *w, unsigned threads);

struct workers_job {
	/* Called once for each i below `steps`, at the same time from several threads. The pool does not touch the job
	 * after the last call has begun, so that whoever finishes last may free it. The context's hold on a CPU token
	 * may go on from one step to the next. */
	void (*step)(struct workers_job *job, unsigned i, struct worker_ctx *ctx);
	unsigned steps;
	unsigned width;         /* steps that may run at once; 0: all */
	unsigned next, running; /* the pool's; running: where there is a width */
	TAILQ_ENTRY(workers_job) link;
};

/* Queues a job behind the others. Never fails, never waits. */
void workers_submit(struct workers *w, struct workers_job *job);
/* A step of a job with more than one has done its work, and comes before the last word that lets others free the job.
 */
void workers_leave(struct workers *w, struct workers_job *job);

/* Queues a task. Tasks yield to jobs, and one thread is always kept for jobs. -EAGAIN when too many wait. */
int workers_run(struct workers *w, void (*fn)(void *arg), void *arg) MUST_CHECK;
/* Waits until no task is queued or running. Not from a task. */
void workers_tasks_wait(struct workers *w);

/* A context for a thread that is not a worker, or for a worker's own use in a callback. Waits while too many are lent;
 * who holds one must not ask for another. NULL when there is no memory. */
struct worker_ctx *workers_borrow(struct workers *w) MUST_CHECK;
void workers_return(struct workers *w, struct worker_ctx *ctx);

#endif
