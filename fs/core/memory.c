#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>

#define MEMORY_SHARE 2u

static void *piece_get(struct core *c, size_t len)
{
	void *piece;

	do
		piece = pool_get(c->pool, len);
	while (!piece && frame_cache_evict(c));
	return piece;
}

int core_blocks_get(struct core *c, void **block, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		block[i] = piece_get(c, POOL_BLOCK);
		if (!block[i]) {
			core_blocks_put(c, block, i);
			return -ENOMEM;
		}
	}
	return 0;
}

void core_blocks_put(struct core *c, void **block, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pool_put(c->pool, block[i], POOL_BLOCK);
}

int buffer_new(struct core *c, struct node *n, size_t len, struct buffer **out)
{
	struct buffer *b = malloc(sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->data = piece_get(c, len);
	if (!b->data) {
		free(b);
		return -ENOMEM;
	}
	b->core = c;
	b->node = n;
	atomic_init(&b->refs, 1);
	b->cap = (uint32_t)pool_size(len);
	b->len = 0;
	b->inflight = 0;
	budget_take(&c->budget, BUDGET_DIRTY, b->cap);
	SCOPED_LOCK(&c->memory_lock);
	c->dirty_buffers++;
	n->held += b->cap;
	*out = b;
	return 0;
}

void buffer_ref(struct buffer *b)
{
	atomic_fetch_add(&b->refs, 1);
}

void buffer_unref(struct buffer *b)
{
	struct core *c = b->core;

	if (atomic_fetch_sub(&b->refs, 1) != 1)
		return;
	budget_give(&c->budget, BUDGET_DIRTY, b->cap); /* before somebody takes it: it is one piece, and counts once */
	pool_put(c->pool, b->data, b->cap);
	SCOPED_LOCK(&c->memory_lock);
	c->dirty_buffers--;
	b->node->held -= b->cap;
	memory_next(c);
	free(b);
}

/* --- who may make more of it dirty -------------------------------------------------------------------------------- */

struct memory_waiter {
	TAILQ_ENTRY(memory_waiter) link;
	pthread_cond_t wake;
	struct node *node;
	size_t len;
	bool admitted;
};

/* A file may hold MEMORY_SHARE times what is left: alone two thirds, of four each two ninths. So writers that come to
 * the limit hold the same, however quick they are, and something is left for one that comes. Under memory_lock. */
static bool memory_has_room(const struct core *c, const struct node *n, size_t len)
{
	size_t used = budget_used(&c->budget, BUDGET_DIRTY) + c->memory_admitted;
	size_t left = used < c->dirty_limit ? c->dirty_limit - used : 0;

	return len <= left && n->held + len <= MEMORY_SHARE * left;
}

/* Whoever holds the least goes first. Under memory_lock. */
static struct memory_waiter *memory_first(struct core *c)
{
	struct memory_waiter *first = TAILQ_FIRST(&c->memory_queue), *w;

	TAILQ_FOREACH (w, &c->memory_queue, link)
		if (w->node->held < first->node->held)
			first = w;
	return first;
}

void memory_next(struct core *c)
{
	struct memory_waiter *w;

	while ((w = memory_first(c))) {
		if (!memory_has_room(c, w->node, w->len)) {
			if (!c->batches)
				committer_kick(c);
			return;
		}
		TAILQ_REMOVE(&c->memory_queue, w, link);
		w->admitted = true;
		w->node->held += w->len;
		c->memory_admitted += w->len;
		(void)pthread_cond_signal(&w->wake);
	}
}

/* Under memory_lock. */
static int dirty_wait(struct core *c, struct node *n, size_t len)
{
	struct memory_waiter w = {.wake = PTHREAD_COND_INITIALIZER, .node = n, .len = len};
	unsigned failures = c->cut_failures;
	uint64_t begin;
	int ret = 0;

	TAILQ_INSERT_TAIL(&c->memory_queue, &w, link);
	memory_next(c);
	if (w.admitted)
		return 0;
	begin = metrics_now(c->metrics);
	while (!w.admitted && !ret) {
		lock_wait(&w.wake, &c->memory_lock);
		ret = c->cut_failures != failures ? c->cut_error : core_may_write(c);
	}
	if (!w.admitted)
		TAILQ_REMOVE(&c->memory_queue, &w, link);
	(void)metrics_lap(c->metrics, METRIC_MEMORY_WAIT, begin);
	return w.admitted ? 0 : ret;
}

int memory_wait(struct core *c, struct node *n, size_t len)
{
	int ret = space_claim(c, len);

	if (ret)
		return ret;
	{
		SCOPED_LOCK(&c->memory_lock);
		ret = dirty_wait(c, n, len);
	}
	if (ret)
		space_unclaim(c, len);
	return ret;
}

void memory_release(struct core *c, struct node *n, size_t len)
{
	space_unclaim(c, len);
	SCOPED_LOCK(&c->memory_lock);
	c->memory_admitted -= len;
	n->held -= len;
	memory_next(c);
}

void memory_cut_ended(struct core *c, int ret)
{
	struct memory_waiter *w;

	SCOPED_LOCK(&c->memory_lock);
	if (ret) {
		c->cut_failures++;
		c->cut_error = ret;
		TAILQ_FOREACH (w, &c->memory_queue, link)
			(void)pthread_cond_signal(&w->wake);
	}
	memory_next(c);
}
