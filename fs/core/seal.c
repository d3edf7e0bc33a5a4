/* Buffers become chunks: batches of pieces are handed to the pipeline, and the maps learn where they went. */
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLES 8u /* items of a chunk that are looked at */

struct batch {
	struct pipeline_seal rq;
	struct core *core;
	struct seal_group *group; /* NULL: background, the items are the batch's own */
	struct seal_item *item;
	uint64_t born;
	struct pipeline_item data[];
};

void seal_take(struct core *c, struct node *n, struct piece *p, struct seal_item *item)
{
	*item = (struct seal_item){.node = n,
	                           .buffer = p->buffer,
	                           .off = p->off,
	                           .size = n->attr.size,
	                           .len = (uint32_t)p->len,
	                           .pos = p->pos};
	prefer_node(c, n, &item->prefers);
	node_ref(c, n);
	buffer_ref(p->buffer);
	p->sealing = true;
	p->buffer->inflight++;
	n->inflight++;
}

/* Under the lock of the item's node. */
static void settle_pieces(struct node *n, struct seal_item *item)
{
	struct piece *p, *next;

	for (p = map_find(&n->map, item->off); p && p->off < item->off + item->len; p = next) {
		next = map_next(p);
		if (p->buffer != item->buffer || !p->sealing || p->pos - item->pos != p->off - item->off)
			continue;
		if (item->chunk)
			map_seal(&n->map, p, item->chunk, item->chunk_pos + (uint32_t)(p->off - item->off));
		else
			p->sealing = false;
	}
	item->buffer->inflight--;
	n->inflight--;
}

void seal_settle(struct seal_item *item, size_t count)
{
	for (size_t i = 0, end; i < count; i = end) {
		struct node *n = item[i].node;

		(void)pthread_mutex_lock(&n->lock);
		for (end = i; end < count && item[end].node == n; end++)
			settle_pieces(n, &item[end]);
		(void)pthread_mutex_unlock(&n->lock);
		for (; i < end; i++) {
			buffer_unref(item[i].buffer);
			item[i].buffer = NULL;
		}
	}
}

/* What is true of all the samples: files in one chunk differ. The usual is met soon. */
static enum policy_sample sample(const struct pipeline_seal *rq, bool dense_name)
{
	size_t step = (rq->nitems + SAMPLES - 1) / SAMPLES;
	enum policy_sample first = POLICY_SAMPLE_USUAL;

	for (size_t i = 0; i < rq->nitems; i += step) {
		enum policy_sample s = policy_sample(rq->item[i].data, rq->item[i].len, dense_name);

		if (s == POLICY_SAMPLE_USUAL || (i && s != first))
			return POLICY_SAMPLE_USUAL;
		first = s;
	}
	return first;
}

void seal_start(struct core *c, struct pipeline_seal *rq, const struct seal_data *data, struct seal_group *g)
{
	const struct preference *p = data->prefers;
	enum policy_sample s = policy_level_is_free(p->compress) ? sample(rq, data->dense_name) : POLICY_SAMPLE_USUAL;

	adapt_tick(c);
	rq->sequence = atomic_fetch_add(&c->next_sequence, 1);
	rq->choice = data->cold ? policy_codec_cold(p->compress, p->priority, s)
	                        : policy_codec(p->compress, p->priority, data->kind, s, atomic_load(&c->level));
	rq->frame_size = policy_frame_size(data->kind);
	rq->many = data->many;
	rq->workers = policy_workers(&c->policy, data->size, UINT32_MAX);
	{
		SCOPED_LOCK(&c->memory_lock);
		c->batches++;
		if (g)
			g->pending++;
	}
	pipeline_seal_submit(c->pipeline, rq);
}

void seal_end(struct core *c, struct seal_group *g, int ret, const struct err *e)
{
	if (ret && pipeline_failed(c->pipeline))
		(void)core_stop(c, ret, e, "making segments durable");
	else if (!g && ret && !space_lacks(ret)) /* of that the cuts tell */
		log_warn("data could not be stored yet: %s; it stays in memory and is tried again", err_text(e, ret));
	SCOPED_LOCK(&c->memory_lock);
	c->batches--;
	c->batches_ended++;
	memory_next(c);
	if (g) {
		g->pending--;
		if (ret && !g->ret) {
			g->ret = ret;
			if (e)
				g->err = *e;
		}
	}
	(void)pthread_cond_broadcast(&c->batch_cond);
}

static void batch_done(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	struct batch *b = rq->arg;
	struct core *c = b->core;
	struct seal_group *g = b->group;
	uint64_t id = rq->chunk_id;
	uint32_t pos = 0;
	bool shared = false;

	for (size_t i = 1; i < rq->nitems; i++)
		shared |= b->item[i].node != b->item[0].node;
	if (!ret)
		ret = chunk_add_fresh(c, chunk, rq->sequence, b->born, shared);
	for (size_t i = 0; i < rq->nitems; i++) {
		b->item[i].chunk = ret ? 0 : id;
		b->item[i].chunk_pos = pos;
		pos += b->item[i].len;
	}
	seal_settle(b->item, rq->nitems);
	for (size_t i = 0; i < rq->nitems && !g; i++)
		node_put(c, b->item[i].node);
	if (!g)
		free(b->item);
	free(b);
	seal_end(c, g, ret, e);
}

int seal_submit(struct core *c, struct seal_item *item, size_t n, enum policy_kind kind, bool many, bool to_inline,
                struct seal_group *g)
{
	struct batch *b = calloc(1, sizeof(*b) + n * sizeof(b->data[0]));

	if (!b)
		return -ENOMEM;
	b->core = c;
	b->group = g;
	b->item = item;
	if (!g) {
		b->item = malloc(n * sizeof(*item));
		if (!b->item) {
			free(b);
			return -ENOMEM;
		}
		memcpy(b->item, item, n * sizeof(*item));
	}
	for (size_t i = 0; i < n; i++)
		b->data[i] = (struct pipeline_item){item[i].node->ino, item[i].off, item[i].len,
		                                    item[i].buffer->data + item[i].pos};
	b->born = atomic_load(&c->cut);
	b->rq = (struct pipeline_seal){
	    .item = b->data,
	    .nitems = n,
	    .chunk_id = atomic_fetch_add(&c->next_chunk, 1),
	    .to_inline = to_inline,
	    .done = batch_done,
	    .arg = b,
	};
	seal_start(c, &b->rq,
	           &(struct seal_data){
		       .kind = kind,
		       .size = kind == POLICY_STREAM ? item->size : 0,
		       .dense_name = item->node->dense_name,
		       .prefers = &item->prefers,
		       .many = many,
		   },
	           g);
	return 0;
}

int seal_wait(struct core *c, struct seal_group *g)
{
	SCOPED_LOCK(&c->memory_lock);

	while (g->pending)
		lock_wait(&c->batch_cond, &c->memory_lock);
	return g->ret;
}

void seal_drain(struct core *c, struct node *n)
{
	while (n->inflight) {
		uint64_t ended;

		(void)pthread_mutex_lock(&c->memory_lock);
		ended = c->batches_ended;
		(void)pthread_mutex_unlock(&n->lock);
		while (c->batches && c->batches_ended == ended)
			lock_wait(&c->batch_cond, &c->memory_lock);
		(void)pthread_mutex_unlock(&c->memory_lock);
		(void)pthread_mutex_lock(&n->lock);
	}
}
