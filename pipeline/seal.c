#include "pipeline/seal.h"

#include "base/lock.h"
#include "base/wait.h"
#include "pipeline/policy.h"
#include "pipeline/seal_job.h"

#include <errno.h>
#include <stddef.h>

#define ADMITTED_EXTRA 2u /* jobs at the workers beyond one each, so that none runs dry while another finishes */

/* Set within done(): what it submits goes to the workers, or the stack might grow without end. */
static _Thread_local bool reporting;

int sealer_init(struct sealer *s, struct segment_store *store, struct workers *workers, size_t memory,
                struct budget *budget)
{
	int ret = arena_init(&s->arena, memory);

	if (ret)
		return ret;
	s->store = store;
	s->workers = workers;
	s->budget = budget;
	s->admitted_max = workers_count(workers) + ADMITTED_EXTRA;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->drained, NULL);
	TAILQ_INIT(&s->waiting);
	return 0;
}

void sealer_drain(struct sealer *s)
{
	SCOPED_LOCK(&s->lock);
	while (s->jobs)
		(void)pthread_cond_wait(&s->drained, &s->lock);
}

void sealer_release(struct sealer *s)
{
	arena_release(&s->arena);
	(void)pthread_cond_destroy(&s->drained);
	(void)pthread_mutex_destroy(&s->lock);
}

static void count(struct sealer *s, const struct pipeline_chunk *chunk)
{
	struct metrics *m = s->store->metrics;
	uint64_t frames[CODEC_COUNT] = {0}, stored;

	for (uint32_t i = 0; i < chunk->nframes; i++)
		frames[chunk->frame[i].codec]++;
	stored = frames[CODEC_STORED];
	for (unsigned i = 0; i < CODEC_COUNT; i++)
		if (frames[i])
			metrics_add(m, (enum metric)(METRIC_FRAMES_STORED + i), frames[i]);
	metrics_add(m, METRIC_CHUNKS, 1);
	metrics_add(m, METRIC_CHUNKS_INLINE, chunk->inline_data != NULL);
	metrics_add(m, METRIC_CHUNK_PLAIN_BYTES, chunk->plain_len);
	metrics_add(m, METRIC_CHUNK_STORED_BYTES, chunk->stored_len);
	atomic_fetch_add_explicit(&s->plain, chunk->plain_len, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->stored, chunk->stored_len, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->chunks, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->frames, chunk->nframes, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->frames_stored, stored, memory_order_relaxed);
}

static void report(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	bool outer = reporting;

	reporting = true;
	rq->done(rq, ret, chunk, e);
	reporting = outer;
}

static void admit(struct sealer *s);

/* Gives back what the job holds, reports, and forgets it. */
static void job_end(struct seal_job *job)
{
	struct sealer *s = job->sealer;
	int ret = atomic_load(&job->ret);
	struct pipeline_chunk *chunk = NULL;

	if (!ret) {
		chunk = job->chunk;
		job->chunk = NULL;
		count(s, chunk);
	}
	if (job->pooled) {
		(void)pthread_mutex_lock(&s->lock);
		arena_put(&s->arena, &job->piece);
		budget_give(s->budget, BUDGET_RECORDS, job->piece.len);
		s->admitted--;
		s->queued -= chunk ? chunk->plain_len : job->chunk->plain_len;
		(void)pthread_mutex_unlock(&s->lock);
		admit(s);
	}
	report(job->rq, ret, chunk, &job->e);
	seal_job_free(job);

	SCOPED_LOCK(&s->lock);
	if (!--s->jobs)
		(void)pthread_cond_broadcast(&s->drained);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

static struct seal_job *job_of(struct workers_job *work)
{
	return (struct seal_job *)(void *)((char *)work - offsetof(struct seal_job, work));
}

static void job_finish(struct seal_job *job, struct worker_ctx *ctx)
{
	seal_job_complete(job, ctx);
	job_end(job);
}

static void job_frame_step(struct workers_job *work, unsigned i, struct worker_ctx *ctx)
{
	struct seal_job *job = job_of(work);

	seal_job_frame(job, i, ctx);
	workers_leave(job->sealer->workers, work);
	if (atomic_fetch_sub(&job->left, 1) == 1)
		job_finish(job, ctx);
}

static void job_whole_step(struct workers_job *work, unsigned i, struct worker_ctx *ctx)
{
	struct seal_job *job = job_of(work);

	(void)i;
	for (uint32_t n = 0; n < job->chunk->nframes; n++)
		seal_job_frame(job, n, ctx);
	job_finish(job, ctx);
}

/* Queues a job behind those of its own file, and before what others have more than one turn of: a turn is a byte. What
 * a file has queued so waits for as much of each other file, not for all of it. Lock held. */
static void job_wait(struct sealer *s, struct seal_job *job)
{
	struct seal_job *other;

	job->turn = s->turn;
	TAILQ_FOREACH_REVERSE(other, &s->waiting, sealer_queue, link)
	if (other->owner == job->owner) {
		job->turn = other->turn;
		break;
	}
	job->turn += job->chunk->plain_len;
	TAILQ_FOREACH_REVERSE(other, &s->waiting, sealer_queue, link)
	if (other->turn <= job->turn)
		break;
	if (other)
		TAILQ_INSERT_AFTER(&s->waiting, other, job, link);
	else
		TAILQ_INSERT_HEAD(&s->waiting, job, link);
}

/* Hands jobs to the workers in their turns, as far as there is memory for their records. */
static void admit(struct sealer *s)
{
	struct seal_job *job;

	for (;;) {
		(void)pthread_mutex_lock(&s->lock);
		job = s->admitted < s->admitted_max ? TAILQ_FIRST(&s->waiting) : NULL;
		if (job)
			job->buf = arena_get(&s->arena, &job->piece, job->worst);
		if (job && job->buf) {
			TAILQ_REMOVE(&s->waiting, job, link);
			s->turn = job->turn;
			s->admitted++;
			budget_take(s->budget, BUDGET_RECORDS, job->piece.len);
		} else {
			job = NULL;
		}
		(void)pthread_mutex_unlock(&s->lock);
		if (!job)
			return;
		seal_job_begin(job);
		workers_submit(s->workers, &job->work);
	}
}

static void job_queue(struct sealer *s, struct seal_job *job)
{
	(void)pthread_mutex_lock(&s->lock);
	job->pooled = true;
	job_wait(s, job);
	s->queued += job->chunk->plain_len;
	(void)pthread_mutex_unlock(&s->lock);
	admit(s);
}

static void job_run_here(struct sealer *s, struct seal_job *job)
{
	struct worker_ctx *ctx = workers_borrow(s->workers);
	struct err e = {0};

	wait_begin(); /* codecs take longer than a wake-up */
	if (ctx) {
		ctx->cpu.urgent = job->rq->to_inline;
		job->buf = ctx->span;
		seal_job_begin(job);
		for (uint32_t n = 0; n < job->chunk->nframes; n++)
			seal_job_frame(job, n, ctx);
		seal_job_complete(job, ctx);
		workers_return(s->workers, ctx);
	} else {
		seal_job_fail(job, err_set(&e, -ENOMEM, ERR_MEMORY, "no memory to seal a chunk"), &e);
	}
	job_end(job);
}

void sealer_submit(struct sealer *s, struct pipeline_seal *rq)
{
	struct seal_job *job = NULL;
	struct err e = {0};
	int ret = seal_job_new(s, rq, &job, &e);

	if (ret) {
		report(rq, ret, NULL, &e);
		return;
	}
	bool few = policy_inline(job->chunk->nframes);
	job->work.step = few ? job_whole_step : job_frame_step;
	job->work.steps = few ? 1 : job->chunk->nframes;
	job->work.width = rq->workers < workers_count(s->workers) ? rq->workers : 0;
	(void)pthread_mutex_lock(&s->lock);
	s->jobs++;
	(void)pthread_mutex_unlock(&s->lock);
	if (few && !rq->many && job->worst <= WORKER_SPAN && !reporting)
		job_run_here(s, job);
	else
		job_queue(s, job);
}
