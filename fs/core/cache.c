#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct frame_key {
	uint64_t chunk;
	uint64_t frame; /* 64 bits so that the key has no padding */
};

struct cached_frame {
	UT_hash_handle hh;
	TAILQ_ENTRY(cached_frame) lru; /* while refs is 0 */
	struct frame_key key;
	unsigned refs;
	uint32_t len;
	int ret; /* of the load */
	bool loading;
	bool heap; /* the arena was full: data is malloc'd */
	bool once; /* goes with its last reference: on the heap, or without a place in the table */
	uint8_t *data;
};

/* A chunk's id is never reused, so a cached frame is never wrong. */
struct frame_cache {
	struct core *core;
	pthread_mutex_t lock;
	pthread_cond_t loaded;
	struct cached_frame *table;
	TAILQ_HEAD(, cached_frame) lru;
};

int frame_cache_new(struct core *c, struct frame_cache **out)
{
	struct frame_cache *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->core = c;
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)pthread_cond_init(&f->loaded, NULL);
	TAILQ_INIT(&f->lru);
	*out = f;
	return 0;
}

/* Bytes that the frame's data takes. */
static size_t frame_size(const struct cached_frame *f)
{
	return f->heap ? f->len : pool_size(f->len);
}

static void frame_free(struct frame_cache *fc, struct cached_frame *f)
{
	budget_give(&fc->core->budget, BUDGET_CACHE, frame_size(f));
	if (f->heap)
		free(f->data);
	else if (f->data)
		pool_put(fc->core->pool, f->data, f->len);
	free(f);
}

void frame_cache_free(struct frame_cache *fc)
{
	struct cached_frame *f, *next;

	if (!fc)
		return;
	HASH_ITER (hh, fc->table, f, next) {
		HASH_DEL(fc->table, f);
		frame_free(fc, f);
	}
	(void)pthread_cond_destroy(&fc->loaded);
	(void)pthread_mutex_destroy(&fc->lock);
	free(fc);
}

bool frame_cache_evict(struct core *c)
{
	struct frame_cache *fc = c->cache;
	struct cached_frame *f;

	SCOPED_LOCK(&fc->lock);
	f = TAILQ_FIRST(&fc->lru);
	if (!f)
		return false;
	TAILQ_REMOVE(&fc->lru, f, lru);
	HASH_DEL(fc->table, f);
	frame_free(fc, f);
	metrics_add(c->metrics, METRIC_CACHE_EVICTIONS, 1);
	return true;
}

bool frame_cache_has(struct core *c, uint64_t chunk, uint32_t frame)
{
	struct frame_key key = {chunk, frame};
	struct cached_frame *f;

	SCOPED_LOCK(&c->cache->lock);
	HASH_FIND(hh, c->cache->table, &key, sizeof(key), f);
	return f != NULL;
}

static struct cached_frame *frame_find(struct frame_cache *fc, const struct frame_key *key)
{
	struct cached_frame *f;

	HASH_FIND(hh, fc->table, key, sizeof(*key), f);
	if (f && f->refs++ == 0)
		TAILQ_REMOVE(&fc->lru, f, lru);
	return f;
}

/* Under the lock: the last reference of a frame that failed or lives on the heap ends it. */
static void frame_unref(struct frame_cache *fc, struct cached_frame *f)
{
	if (--f->refs)
		return;
	if (!f->ret && !f->once) {
		TAILQ_INSERT_TAIL(&fc->lru, f, lru);
		return;
	}
	if (f->hh.tbl)
		HASH_DEL(fc->table, f);
	frame_free(fc, f);
}

bool frame_cache_peek(struct core *c, uint64_t chunk, uint32_t frame, struct cached_frame **out, const uint8_t **data)
{
	struct frame_key key = {chunk, frame};
	struct frame_cache *fc = c->cache;

	SCOPED_LOCK(&fc->lock);
	struct cached_frame *f = frame_find(fc, &key);
	if (!f)
		return false;
	if (f->loading || f->ret) {
		frame_unref(fc, f);
		return false;
	}
	*out = f;
	*data = f->data;
	return true;
}

static struct cached_frame *frame_new(struct core *c, const struct frame_key *key, uint32_t len)
{
	struct cached_frame *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->key = *key;
	f->len = len;
	f->refs = 1;
	f->loading = true;
	do
		f->data = pool_get(c->pool, len);
	while (!f->data && frame_cache_evict(c));
	if (!f->data) {
		f->heap = true;
		f->once = true;
		f->data = malloc(len);
	}
	if (!f->data) {
		free(f);
		return NULL;
	}
	budget_take(&c->budget, BUDGET_CACHE, frame_size(f));
	return f;
}

/* Waits for a frame that another thread loads. */
static int frame_wait(struct frame_cache *fc, struct cached_frame *f)
{
	int ret;

	while (f->loading)
		lock_wait(&fc->loaded, &fc->lock);
	ret = f->ret;
	if (ret)
		frame_unref(fc, f);
	return ret;
}

int frame_cache_get(struct core *c, struct chunk *k, uint32_t frame, struct cached_frame **out, const uint8_t **data,
                    struct err *e)
{
	struct frame_cache *fc = c->cache;
	struct frame_key key = {k->id, frame};
	struct cached_frame *f, *other;
	int ret;

	(void)pthread_mutex_lock(&fc->lock);
	f = frame_find(fc, &key);
	metrics_add(c->metrics, f ? METRIC_CACHE_HITS : METRIC_CACHE_MISSES, 1);
	if (!f) {
		(void)pthread_mutex_unlock(&fc->lock);
		f = frame_new(c, &key, k->p->frame[frame].plain_len);
		if (!f)
			return -ENOMEM;
		(void)pthread_mutex_lock(&fc->lock);
		other = frame_find(fc, &key);
		if (!other) {
			HASH_ADD(hh, fc->table, key, sizeof(f->key), f);
			if (!f->hh.tbl)
				f->once = true;
			(void)pthread_mutex_unlock(&fc->lock);
			ret = frame_read(c, k, frame, 1, f->data, e);
			(void)pthread_mutex_lock(&fc->lock);
			f->ret = ret;
			f->loading = false;
			(void)pthread_cond_broadcast(&fc->loaded);
		} else {
			frame_free(fc, f);
			f = other;
		}
	}
	ret = frame_wait(fc, f);
	if (!ret) {
		*out = f;
		*data = f->data;
	}
	(void)pthread_mutex_unlock(&fc->lock);
	return ret;
}

void frame_cache_put(struct core *c, struct cached_frame *f)
{
	SCOPED_LOCK(&c->cache->lock);

	frame_unref(c->cache, f);
}
