#include "pipeline/workers.h"

#include "base/lock.h"
#include "pipeline/pipeline.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BUFFER_ALIGN ((size_t)4096)

_Static_assert(WORKER_PLAIN >= PIPELINE_FRAME_MAX + CIPHER_TAG && WORKER_PLAIN % BUFFER_ALIGN == 0 &&
                   WORKER_SPAN % BUFFER_ALIGN == 0,
               "a frame and its seal, in whole pages");

struct task {
	void (*fn)(void *arg);
	void *arg;
};

struct worker {
	struct workers *pool;
	struct worker_ctx *ctx;
	pthread_t thread;
};

struct workers {
	struct governor *governor;
	struct budget *budget;
	pthread_mutex_t lock;      /* of everything up to the contexts */
	pthread_cond_t wake;       /* work has come, or the end */
	pthread_cond_t tasks_done; /* none is left */
	TAILQ_HEAD(, workers_job) jobs;
	struct task task[WORKERS_TASKS]; /* a ring */
	unsigned task_head, ntasks;
	unsigned tasks_running;
	unsigned idle;
	unsigned busy, limit; /* threads that work on jobs, and how many may now */
	bool stop;

	pthread_mutex_t ctx_lock;
	pthread_cond_t ctx_wake; /* one came back */
	SLIST_HEAD(, worker_ctx) spare;
	unsigned lent, lent_max;

	unsigned most; /* threads that may ever work on jobs */
	unsigned nthreads;
	struct worker worker[];
};

/* Whole pages, which core dumps leave out: what is in there is plaintext. */
static uint8_t *buffer_new(struct workers *w, size_t len)
{
	uint8_t *buf = aligned_alloc(BUFFER_ALIGN, len);

	if (!buf)
		return NULL;
	(void)madvise(buf, len, MADV_DONTDUMP);
	budget_take(w->budget, BUDGET_CONTEXTS, len);
	return buf;
}

static void buffer_free(struct workers *w, uint8_t *buf, size_t len)
{
	if (buf)
		budget_give(w->budget, BUDGET_CONTEXTS, len);
	free(buf);
}

static void worker_ctx_free(struct workers *w, struct worker_ctx *ctx)
{
	if (!ctx)
		return;
	codec_ctx_free(ctx->codec);
	cipher_ctx_free(ctx->cipher);
	buffer_free(w, ctx->plain, WORKER_PLAIN);
	buffer_free(w, ctx->span, WORKER_SPAN);
	free(ctx);
}

/* lent: to whoever asks. A worker's own needs no span. */
static MUST_CHECK int worker_ctx_new(struct workers *w, bool lent, struct worker_ctx **out)
{
	struct worker_ctx *ctx = calloc(1, sizeof(*ctx));
	int ret;

	if (!ctx)
		return -ENOMEM;
	ctx->cpu.governor = w->governor;
	ctx->plain = buffer_new(w, WORKER_PLAIN);
	ctx->span = lent ? buffer_new(w, WORKER_SPAN) : NULL;
	ret = ctx->plain && (ctx->span || !lent) ? 0 : -ENOMEM;
	if (!ret)
		ret = codec_ctx_new(&ctx->codec);
	if (!ret)
		ret = cipher_ctx_new(&ctx->cipher);
	if (ret) {
		worker_ctx_free(w, ctx);
		return ret;
	}
	memset(ctx->plain, 0, WORKER_PLAIN);
	*out = ctx;
	return 0;
}

/* Takes the next step of the first job that may have another thread. Lock held. */
static struct workers_job *job_claim(struct workers *w, unsigned *step)
{
	struct workers_job *job;

	TAILQ_FOREACH (job, &w->jobs, link)
		if (!job->width || job->running < job->width)
			break;
	if (!job)
		return NULL;
	job->running++;
	*step = job->next++;
	if (job->next == job->steps)
		TAILQ_REMOVE(&w->jobs, job, link);
	return job;
}

/* Lock held. */
static bool task_claim(struct workers *w, struct task *t)
{
	if (!w->ntasks || (w->tasks_running + 1 >= w->nthreads && !w->stop))
		return false;
	*t = w->task[w->task_head];
	w->task_head = (w->task_head + 1) % WORKERS_TASKS;
	w->ntasks--;
	w->tasks_running++;
	return true;
}

static void *worker_main(void *arg)
{
	struct worker *me = arg;
	struct workers *w = me->pool;
	struct workers_job *job;
	struct task t;
	unsigned step = 0;

	(void)pthread_mutex_lock(&w->lock);
	for (;;) {
		if ((w->busy < w->limit || w->stop) && (job = job_claim(w, &step))) {
			w->busy++;
			(void)pthread_mutex_unlock(&w->lock);
			job->step(job, step, me->ctx);
			(void)pthread_mutex_lock(&w->lock);
			w->busy--;
		} else if (me->ctx->cpu.held) {
			(void)pthread_mutex_unlock(&w->lock);
			governor_hold_end(&me->ctx->cpu);
			(void)pthread_mutex_lock(&w->lock);
		} else if (task_claim(w, &t)) {
			(void)pthread_mutex_unlock(&w->lock);
			t.fn(t.arg);
			(void)pthread_mutex_lock(&w->lock);
			if (!--w->tasks_running && !w->ntasks)
				(void)pthread_cond_broadcast(&w->tasks_done);
			/* The queue may have waited for this one to end. */
			if (w->tasks_running + 2 == w->nthreads && w->ntasks && w->idle)
				(void)pthread_cond_signal(&w->wake);
		} else if (w->stop) {
			break;
		} else {
			w->idle++;
			(void)pthread_cond_wait(&w->wake, &w->lock);
			w->idle--;
		}
	}
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Workers take no signals: those are for the threads that know what to do with them. But that a mapping cannot be read
 * (base/io_map.h) is a matter of the thread that reads it. */
static int worker_start(struct workers *w, struct worker *me)
{
	sigset_t all, old;

	me->pool = w;
	int ret = worker_ctx_new(w, false, &me->ctx);
	if (ret)
		return ret;
	(void)sigfillset(&all);
	(void)sigdelset(&all, SIGBUS);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&me->thread, NULL, worker_main, me);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret) {
		worker_ctx_free(w, me->ctx);
		return ret;
	}
	(void)pthread_setname_np(me->thread, "apfs-worker");
	return 0;
}

int workers_new(const struct workers_options *o, struct workers **out, struct err *e)
{
	unsigned most = !o->threads ? 1 : o->threads < WORKERS_MAX ? o->threads : WORKERS_MAX;
	unsigned threads = most < WORKERS_MIN ? WORKERS_MIN : most;
	int ret = 0;

	struct workers *w = calloc(1, sizeof(*w) + threads * sizeof(w->worker[0]));
	if (!w)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the workers");
	w->governor = o->governor;
	w->budget = o->budget;
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_cond_init(&w->wake, NULL);
	(void)pthread_cond_init(&w->tasks_done, NULL);
	(void)pthread_mutex_init(&w->ctx_lock, NULL);
	(void)pthread_cond_init(&w->ctx_wake, NULL);
	TAILQ_INIT(&w->jobs);
	w->limit = w->most = most;
	SLIST_INIT(&w->spare);
	w->lent_max = o->contexts;
	while (w->nthreads < threads && !ret) {
		ret = worker_start(w, &w->worker[w->nthreads]);
		if (!ret) {
			(void)pthread_mutex_lock(&w->lock);
			w->nthreads++;
			(void)pthread_mutex_unlock(&w->lock);
		}
	}
	if (ret) {
		workers_free(w);
		return err_set(e, ret, ERR_MEMORY, "cannot start the worker threads: %s", err_text(NULL, ret));
	}
	*out = w;
	return 0;
}

void workers_free(struct workers *w)
{
	struct worker_ctx *ctx;

	if (!w)
		return;
	(void)pthread_mutex_lock(&w->lock);
	w->stop = true;
	(void)pthread_cond_broadcast(&w->wake);
	(void)pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->nthreads; i++) {
		(void)pthread_join(w->worker[i].thread, NULL);
		worker_ctx_free(w, w->worker[i].ctx);
	}
	while ((ctx = SLIST_FIRST(&w->spare))) {
		SLIST_REMOVE_HEAD(&w->spare, link);
		worker_ctx_free(w, ctx);
	}
	(void)pthread_cond_destroy(&w->ctx_wake);
	(void)pthread_mutex_destroy(&w->ctx_lock);
	(void)pthread_cond_destroy(&w->tasks_done);
	(void)pthread_cond_destroy(&w->wake);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

void workers_tasks_wait(struct workers *w)
{
	SCOPED_LOCK(&w->lock);
	while (w->ntasks || w->tasks_running)
		lock_wait(&w->tasks_done, &w->lock);
}

unsigned workers_count(const struct workers *w)
{
	return w->most;
}

void workers_limit(struct workers *w, unsigned threads)
{
	SCOPED_LOCK(&w->lock);
	w->limit = threads ? threads : 1;
	(void)pthread_cond_broadcast(&w->wake);
}

unsigned workers_active(struct workers *w)
{
	SCOPED_LOCK(&w->lock);
	unsigned active = w->nthreads - w->idle;

	return active < w->most ? active : w->most;
}

void workers_submit(struct workers *w, struct workers_job *job)
{
	unsigned steps = job->steps, idle;

	(void)pthread_mutex_lock(&w->lock);
	job->next = 0;
	job->running = 0;
	TAILQ_INSERT_TAIL(&w->jobs, job, link);
	idle = w->idle;
	(void)pthread_mutex_unlock(&w->lock);
	/* Who wakes wants the lock at once. The job is not ours any more. */
	if (idle > 1 && steps > 1)
		(void)pthread_cond_broadcast(&w->wake);
	else if (idle)
		(void)pthread_cond_signal(&w->wake);
}

void workers_leave(struct workers *w, struct workers_job *job)
{
	if (!job->width)
		return;
	SCOPED_LOCK(&w->lock);
	job->running--; /* who leaves comes for the next step itself */
}

int workers_run(struct workers *w, void (*fn)(void *arg), void *arg)
{
	SCOPED_LOCK(&w->lock);

	if (w->ntasks == WORKERS_TASKS)
		return -EAGAIN;
	w->task[(w->task_head + w->ntasks++) % WORKERS_TASKS] = (struct task){fn, arg};
	if (w->idle)
		(void)pthread_cond_signal(&w->wake);
	return 0;
}

struct worker_ctx *workers_borrow(struct workers *w)
{
	struct worker_ctx *ctx;

	(void)pthread_mutex_lock(&w->ctx_lock);
	while (w->lent == w->lent_max)
		lock_wait(&w->ctx_wake, &w->ctx_lock);
	w->lent++;
	ctx = SLIST_FIRST(&w->spare);
	if (ctx)
		SLIST_REMOVE_HEAD(&w->spare, link);
	(void)pthread_mutex_unlock(&w->ctx_lock);
	if (ctx || !worker_ctx_new(w, true, &ctx))
		return ctx;

	SCOPED_LOCK(&w->ctx_lock);
	w->lent--;
	(void)pthread_cond_signal(&w->ctx_wake);
	return NULL;
}

void workers_return(struct workers *w, struct worker_ctx *ctx)
{
	governor_hold_end(&ctx->cpu);
	ctx->cpu.urgent = false;
	SCOPED_LOCK(&w->ctx_lock);
	SLIST_INSERT_HEAD(&w->spare, ctx, link);
	w->lent--;
	(void)pthread_cond_signal(&w->ctx_wake);
}
