/* The pool: steps, tasks, order, lending, ending. */
#include "base/lock.h"
#include "pipeline/keys.h"
#include "pipeline/workers.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* A job that checks that every step runs once. */
struct counted {
	struct workers_job job;
	atomic_uint seen[64];
	atomic_uint left;
	atomic_uint *done;
};

static void counted_step(struct workers_job *job, unsigned i, struct worker_ctx *ctx)
{
	struct counted *c = container(job, struct counted, job);

	assert_non_null(ctx->codec);
	assert_non_null(ctx->cipher);
	ctx->plain[0] = (uint8_t)i;
	ctx->plain[WORKER_PLAIN - 1] = (uint8_t)i;
	assert_int_equal(atomic_fetch_add(&c->seen[i], 1), 0);
	if (atomic_fetch_sub(&c->left, 1) == 1) {
		atomic_fetch_add(c->done, 1);
		free(c); /* whoever is last may */
	}
}

static struct counted *counted_new(unsigned steps, atomic_uint *done)
{
	struct counted *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	c->job.step = counted_step;
	c->job.steps = steps;
	atomic_init(&c->left, steps);
	c->done = done;
	return c;
}

static void test_steps(void **state)
{
	struct workers *w;
	atomic_uint done = 0;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 3, .contexts = 16}, &w, NULL), 0);
	for (unsigned i = 0; i < 500; i++)
		workers_submit(w, &counted_new(i % 64 + 1, &done)->job);
	workers_free(w); /* not before everything has run */
	assert_int_equal(atomic_load(&done), 500);
}

/* --- what is held up until it is let go --------------------------------------------------------------------------- */

struct latch {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned waiting;
	bool open;
};

#define LATCH                                                                       \
	{                                                                           \
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER \
	}

static void latch_wait(void *arg)
{
	struct latch *l = arg;

	SCOPED_LOCK(&l->lock);
	l->waiting++;
	(void)pthread_cond_broadcast(&l->cond);
	while (!l->open)
		(void)pthread_cond_wait(&l->cond, &l->lock);
}

static void latch_await(struct latch *l, unsigned n)
{
	SCOPED_LOCK(&l->lock);
	while (l->waiting < n)
		(void)pthread_cond_wait(&l->cond, &l->lock);
}

static void latch_open(struct latch *l)
{
	SCOPED_LOCK(&l->lock);
	l->open = true;
	(void)pthread_cond_broadcast(&l->cond);
}

struct held {
	struct workers_job job;
	struct latch *latch;
};

static void held_step(struct workers_job *job, unsigned i, struct worker_ctx *ctx)
{
	(void)i;
	(void)ctx;
	latch_wait(container(job, struct held, job)->latch);
}

/* Tasks leave a thread for jobs: all of them waiting must not stop sealing, which they may be waiting for. */
static void test_tasks_leave_room(void **state)
{
	struct latch tasks = LATCH, jobs = LATCH;
	struct held held = {.job = {.step = held_step, .steps = 1}, .latch = &jobs};
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 3, .contexts = 16}, &w, NULL), 0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(workers_run(w, latch_wait, &tasks), 0);
	latch_await(&tasks, 2);
	workers_submit(w, &held.job);
	latch_await(&jobs, 1);
	(void)pthread_mutex_lock(&tasks.lock);
	assert_int_equal(tasks.waiting, 2);
	(void)pthread_mutex_unlock(&tasks.lock);
	latch_open(&jobs);
	latch_open(&tasks);
	latch_await(&tasks, 10);
	workers_free(w);
}

/* A job whose steps wait, and that no more than `width` threads may work on. */
struct narrow {
	struct workers_job job;
	struct workers *workers;
	struct latch *latch;
	atomic_uint running, most, done;
};

static void narrow_step(struct workers_job *job, unsigned i, struct worker_ctx *ctx)
{
	struct narrow *n = container(job, struct narrow, job);
	unsigned now = atomic_fetch_add(&n->running, 1) + 1, most = atomic_load(&n->most);

	(void)i;
	(void)ctx;
	while (now > most && !atomic_compare_exchange_weak(&n->most, &most, now))
		;
	latch_wait(n->latch);
	(void)atomic_fetch_sub(&n->running, 1);
	workers_leave(n->workers, job);
	(void)atomic_fetch_add(&n->done, 1);
}

/* Threads that a job may not have go to the next one. */
static void test_width(void **state)
{
	struct latch first = LATCH, second = LATCH;
	struct narrow narrow = {.job = {.step = narrow_step, .steps = 40, .width = 2}, .latch = &first};
	struct held held = {.job = {.step = held_step, .steps = 2}, .latch = &second};
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 4, .contexts = 16}, &w, NULL), 0);
	narrow.workers = w;
	workers_submit(w, &narrow.job);
	latch_await(&first, 2);
	workers_submit(w, &held.job);
	latch_await(&second, 2); /* the other two have passed it by */
	assert_int_equal(atomic_load(&narrow.running), 2);
	latch_open(&second);
	latch_open(&first);
	workers_free(w);
	assert_int_equal(atomic_load(&narrow.done), 40);
	assert_int_equal(atomic_load(&narrow.most), 2);
}

/* No more threads than are allowed work on jobs; tasks go on. A higher limit is used at once. */
static void test_limit(void **state)
{
	struct latch jobs = LATCH, tasks = LATCH;
	struct held held = {.job = {.step = held_step, .steps = 3}, .latch = &jobs};
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 3, .contexts = 16}, &w, NULL), 0);
	workers_limit(w, 1);
	workers_submit(w, &held.job);
	latch_await(&jobs, 1);
	for (int i = 0; i < 2; i++)
		assert_int_equal(workers_run(w, latch_wait, &tasks), 0);
	latch_await(&tasks, 2); /* the other two have left the job alone */
	(void)pthread_mutex_lock(&jobs.lock);
	assert_int_equal(jobs.waiting, 1);
	(void)pthread_mutex_unlock(&jobs.lock);
	latch_open(&tasks);
	workers_limit(w, 3);
	latch_await(&jobs, 3);
	latch_open(&jobs);
	workers_free(w);
}

/* A pool of one works on one step at a time, and nevertheless has a thread for tasks. */
static void test_one(void **state)
{
	struct latch jobs = LATCH, task = LATCH;
	struct held held = {.job = {.step = held_step, .steps = 2}, .latch = &jobs};
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 1, .contexts = 16}, &w, NULL), 0);
	assert_int_equal(workers_count(w), 1);
	workers_submit(w, &held.job);
	latch_await(&jobs, 1);
	assert_int_equal(workers_run(w, latch_wait, &task), 0);
	latch_await(&task, 1);
	assert_int_equal(workers_active(w), 1);
	latch_open(&task);
	workers_tasks_wait(w); /* its thread looks for steps again */
	(void)pthread_mutex_lock(&jobs.lock);
	assert_int_equal(jobs.waiting, 1);
	(void)pthread_mutex_unlock(&jobs.lock);
	latch_open(&jobs);
	workers_free(w);
}

static void count_task(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static void test_tasks_are_bounded(void **state)
{
	struct latch held = LATCH;
	atomic_uint n = 0;
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 2, .contexts = 16}, &w, NULL), 0);
	assert_int_equal(workers_run(w, latch_wait, &held), 0);
	latch_await(&held, 1);
	for (unsigned i = 0; i < WORKERS_TASKS; i++)
		assert_int_equal(workers_run(w, count_task, &n), 0);
	assert_int_equal(workers_run(w, count_task, &n), -EAGAIN);
	latch_open(&held);
	workers_free(w);
	assert_int_equal(atomic_load(&n), WORKERS_TASKS);
}

/* Jobs go in the order in which they came. */
struct ordered {
	struct workers_job job;
	unsigned id;
	unsigned *order;
	atomic_uint *n;
};

static void ordered_step(struct workers_job *job, unsigned i, struct worker_ctx *ctx)
{
	struct ordered *o = container(job, struct ordered, job);

	(void)i;
	(void)ctx;
	o->order[atomic_fetch_add(o->n, 1)] = o->id;
}

static void test_order(void **state)
{
	struct latch held = LATCH;
	struct held block[2];
	struct ordered o[4];
	unsigned order[4];
	atomic_uint n = 0;
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 2, .contexts = 16}, &w, NULL), 0);
	for (int i = 0; i < 2; i++) {
		block[i] = (struct held){.job = {.step = held_step, .steps = 1}, .latch = &held};
		workers_submit(w, &block[i].job);
	}
	latch_await(&held, 2);
	for (unsigned i = 0; i < 4; i++) {
		o[i] = (struct ordered){{.step = ordered_step, .steps = 1}, i, order, &n};
		workers_submit(w, &o[i].job);
	}
	workers_limit(w, 1);
	latch_open(&held);
	while (atomic_load(&n) < 4) /* before the end, when all threads may */
		(void)sched_yield();
	workers_free(w);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(order[i], i);
}

/* --- lending ------------------------------------------------------------------------------------------------------ */

static void *borrower(void *arg)
{
	struct workers *w = arg;

	for (unsigned i = 0; i < 300; i++) {
		struct worker_ctx *ctx = workers_borrow(w);
		assert_non_null(ctx);
		memset(ctx->plain, (int)i, 100);
		for (unsigned j = 0; j < 100; j++)
			assert_int_equal(ctx->plain[j], i & 0xff);
		workers_return(w, ctx);
	}
	return NULL;
}

/* More threads than contexts: they take turns. */
static void test_lending(void **state)
{
	pthread_t thread[40];
	struct workers *w;

	(void)state;
	assert_int_equal(workers_new(&(struct workers_options){.threads = 1, .contexts = 16}, &w, NULL), 0);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, borrower, w), 0);
	for (unsigned i = 0; i < 40; i++)
		(void)pthread_join(thread[i], NULL);
	workers_free(w);
}

static int setup(void **state)
{
	(void)state;
	return keys_init(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_steps),
	    cmocka_unit_test(test_tasks_leave_room),
	    cmocka_unit_test(test_width),
	    cmocka_unit_test(test_limit),
	    cmocka_unit_test(test_tasks_are_bounded),
	    cmocka_unit_test(test_order),
	    cmocka_unit_test(test_lending),
	    cmocka_unit_test(test_one),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
