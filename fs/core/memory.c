#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>

int buffer_new(struct core *c, size_t len, struct buffer **out)
{
	struct buffer *b = malloc(sizeof(*b));

	if (!b)
		return -ENOMEM;
	do
		b->data = pool_get(c->pool, len);
	while (!b->data && frame_cache_evict(c));
	if (!b->data) {
		free(b);
		return -ENOMEM;
	}
	b->core = c;
	atomic_init(&b->refs, 1);
	b->cap = (uint32_t)pool_size(len);
	b->len = 0;
	b->inflight = 0;
	budget_take(&c->budget, BUDGET_DIRTY, b->cap);
	SCOPED_LOCK(&c->memory_lock);
	c->dirty_buffers++;
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
	pool_put(c->pool, b->data, b->cap);
	SCOPED_LOCK(&c->memory_lock);
	budget_give(&c->budget, BUDGET_DIRTY, b->cap);
	c->dirty_buffers--;
	(void)pthread_cond_broadcast(&c->memory_cond);
	free(b);
}

/* Under memory_lock. */
static int dirty_wait(struct core *c, size_t len)
{
	uint64_t begin = 0;
	int ret = 0;

	while (!ret && budget_used(&c->budget, BUDGET_DIRTY) + len > c->dirty_limit) {
		unsigned failures = c->cut_failures;

		if (!begin)
			begin = metrics_now(c->metrics);
		committer_kick(c);
		(void)pthread_cond_wait(&c->memory_cond, &c->memory_lock);
		if (c->cut_failures != failures)
			ret = c->cut_error;
		if (!ret)
			ret = core_may_write(c);
	}
	if (begin)
		(void)metrics_lap(c->metrics, METRIC_MEMORY_WAIT, begin);
	return ret;
}

int memory_wait(struct core *c, size_t len)
{
	int ret = space_claim(c, len);

	if (ret)
		return ret;
	{
		SCOPED_LOCK(&c->memory_lock);
		ret = dirty_wait(c, len);
	}
	if (ret)
		space_unclaim(c, len);
	return ret;
}
