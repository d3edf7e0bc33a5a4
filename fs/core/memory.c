#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>

#define SPACE_AGE_NS    1000000000ull /* how long an answer about STORE's space is believed while there is plenty */
#define SPACE_PLENTY    ((uint64_t)1 << 30) /* bytes */
#define STORED_OVERHEAD 64u                 /* a frame's nonce and tag, and its share of the record's table */

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
	SCOPED_LOCK(&c->memory_lock);
	c->dirty_bytes += b->cap;
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
	c->dirty_bytes -= b->cap;
	(void)pthread_cond_broadcast(&c->memory_cond);
	free(b);
}

/* Under memory_lock: -ENOSPC unless STORE can take what is dirty and len more, were none of it compressible. */
static int space_check(struct core *c, size_t len)
{
	uint64_t need = c->dirty_bytes + len + (c->dirty_bytes + len) / POOL_PIECE * STORED_OVERHEAD + c->space_margin;
	uint64_t now = core_monotonic(c);
	struct io_space s;

	if (c->space_left >= need + SPACE_PLENTY && now - c->space_asked < SPACE_AGE_NS)
		return 0;
	if (io_space(c->io, &s))
		return 0; /* the write itself will tell */
	c->space_left = s.avail;
	c->space_asked = now;
	return s.avail >= need ? 0 : -ENOSPC;
}

int memory_wait(struct core *c, size_t len)
{
	SCOPED_LOCK(&c->memory_lock);
	int ret = space_check(c, len);

	while (!ret && c->dirty_bytes + len > c->dirty_limit) {
		unsigned failures = c->cut_failures;

		committer_kick(c);
		(void)pthread_cond_wait(&c->memory_cond, &c->memory_lock);
		if (c->cut_failures != failures)
			ret = c->cut_error;
		if (!ret)
			ret = core_may_write(c);
	}
	return ret;
}
