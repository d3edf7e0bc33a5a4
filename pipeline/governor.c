#include "pipeline/governor.h"

#include "base/lock.h"
#include "base/wait.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>

#define CACHE_LINE 64

struct waiter {
	sem_t granted;
	STAILQ_ENTRY(waiter) link;
};

struct tokens {
	_Alignas(CACHE_LINE) atomic_int balance; /* tokens that nobody has, less threads that want one */
	int total;
	enum metric wait;

	/* Only where balance says that somebody wants one. */
	_Alignas(CACHE_LINE) pthread_mutex_t lock;
	STAILQ_HEAD(, waiter) queue[2]; /* [1]: urgent */
	bool urgent_last;               /* which was served last */
	unsigned early;                 /* tokens given back for somebody who has not come to a queue yet */
	atomic_uint urgent;             /* how many wait in that queue */
};

struct governor {
	struct tokens tokens[GOVERNOR_KINDS];
	struct metrics *metrics;
};

static void tokens_init(struct tokens *t, unsigned total, enum metric wait)
{
	atomic_init(&t->balance, (int)total);
	t->total = (int)total;
	t->wait = wait;
	(void)pthread_mutex_init(&t->lock, NULL);
	STAILQ_INIT(&t->queue[0]);
	STAILQ_INIT(&t->queue[1]);
}

int governor_new(const struct governor_options *o, struct governor **out)
{
	struct governor *g = aligned_alloc(CACHE_LINE, sizeof(*g));

	if (!g)
		return -ENOMEM;
	*g = (struct governor){.metrics = o->metrics};
	tokens_init(&g->tokens[GOVERNOR_CPU], o->tokens[GOVERNOR_CPU], METRIC_CPU_WAIT);
	tokens_init(&g->tokens[GOVERNOR_IO], o->tokens[GOVERNOR_IO], METRIC_IO_WAIT);
	*out = g;
	return 0;
}

void governor_free(struct governor *g)
{
	for (int kind = 0; g && kind < GOVERNOR_KINDS; kind++)
		(void)pthread_mutex_destroy(&g->tokens[kind].lock);
	free(g);
}

static void tokens_wait(struct tokens *t, bool urgent)
{
	struct waiter me;

	(void)pthread_mutex_lock(&t->lock);
	if (t->early) {
		t->early--;
		(void)pthread_mutex_unlock(&t->lock);
		return;
	}
	(void)sem_init(&me.granted, 0, 0);
	STAILQ_INSERT_TAIL(&t->queue[urgent], &me, link);
	atomic_fetch_add_explicit(&t->urgent, urgent, memory_order_relaxed);
	(void)pthread_mutex_unlock(&t->lock);
	wait_begin();
	while (sem_wait(&me.granted) < 0)
		; /* a signal: the token is still on its way */
	(void)sem_destroy(&me.granted);
}

static void tokens_take(struct governor *g, enum governor_kind kind, bool urgent)
{
	struct tokens *t = &g->tokens[kind];
	uint64_t begin;

	if (atomic_fetch_sub_explicit(&t->balance, 1, memory_order_acquire) > 0) {
		metrics_observe(g->metrics, t->wait, 0);
		return;
	}
	begin = metrics_now(g->metrics);
	tokens_wait(t, urgent);
	(void)metrics_lap(g->metrics, t->wait, begin);
}

/* Whose turn it is; NULL if nobody has come yet. Under the lock. */
static struct waiter *tokens_next(struct tokens *t)
{
	bool urgent = !STAILQ_EMPTY(&t->queue[1]) && (!t->urgent_last || STAILQ_EMPTY(&t->queue[0]));
	struct waiter *next = STAILQ_FIRST(&t->queue[urgent]);

	if (!next)
		return NULL;
	STAILQ_REMOVE_HEAD(&t->queue[urgent], link);
	atomic_fetch_sub_explicit(&t->urgent, urgent, memory_order_relaxed);
	t->urgent_last = urgent;
	return next;
}

void governor_enter(struct governor *g, enum governor_kind kind)
{
	if (g)
		tokens_take(g, kind, false);
}

void governor_leave(struct governor *g, enum governor_kind kind)
{
	struct waiter *next;
	struct tokens *t;

	if (!g)
		return;
	t = &g->tokens[kind];
	if (atomic_fetch_add_explicit(&t->balance, 1, memory_order_release) >= 0)
		return;
	(void)pthread_mutex_lock(&t->lock);
	next = tokens_next(t);
	if (!next)
		t->early++;
	(void)pthread_mutex_unlock(&t->lock);
	if (next)
		(void)sem_post(&next->granted);
}

unsigned governor_tokens(const struct governor *g, enum governor_kind kind)
{
	return g ? (unsigned)g->tokens[kind].total : 0;
}

unsigned governor_cpu_threads(const struct governor *g, unsigned cores)
{
	unsigned tokens = governor_tokens(g, GOVERNOR_CPU);

	return tokens && tokens < cores ? tokens : cores;
}

unsigned governor_waiting(const struct governor *g, enum governor_kind kind)
{
	int balance = g ? atomic_load_explicit(&g->tokens[kind].balance, memory_order_relaxed) : 0;

	return balance < 0 ? (unsigned)-balance : 0;
}

unsigned governor_held(const struct governor *g, enum governor_kind kind)
{
	int balance = g ? atomic_load_explicit(&g->tokens[kind].balance, memory_order_relaxed) : 0;

	return governor_tokens(g, kind) - (unsigned)(balance > 0 ? balance : 0);
}

/* May the hold go on? */
static bool hold_goes_on(struct governor_hold *h)
{
	if (!governor_waiting(h->governor, GOVERNOR_CPU)) {
		h->since = 0;
		return true;
	}
	if (!h->urgent && atomic_load_explicit(&h->governor->tokens[GOVERNOR_CPU].urgent, memory_order_relaxed))
		return false;
	uint64_t now = clock_system.monotonic(&clock_system);
	if (!h->since)
		h->since = now;
	return now - h->since < GOVERNOR_SLICE;
}

void governor_hold_begin(struct governor_hold *h)
{
	if (!h->governor || (h->held && hold_goes_on(h)))
		return;
	if (h->held)
		governor_leave(h->governor, GOVERNOR_CPU);
	tokens_take(h->governor, GOVERNOR_CPU, h->urgent);
	h->held = true;
	h->since = 0;
}

void governor_hold_end(struct governor_hold *h)
{
	if (!h->held)
		return;
	h->held = false;
	governor_leave(h->governor, GOVERNOR_CPU);
}
