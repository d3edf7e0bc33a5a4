/* Reading what a step of compaction copies, and sealing it into new chunks. */
#include "fs/core/compact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* One frame of the chunk that is being read. */
struct frame {
	struct chunk *k;
	uint32_t number;
	bool valid;
	uint8_t data[PIPELINE_FRAME_MAX];
};

/* Notes that a segment has a frame that cannot be read: it is left alone from now on. */
static int note_damage(struct copy *cp, uint64_t chunk, uint64_t segment, int ret, const struct err *e)
{
	struct copy_damage *bigger;

	for (size_t i = 0; i < cp->ndamaged; i++)
		if (cp->damaged[i].segment == segment)
			return 0;
	bigger = realloc(cp->damaged, (cp->ndamaged + 1) * sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	cp->damaged = bigger;
	cp->damaged[cp->ndamaged++] = (struct copy_damage){segment, chunk, ret, *e};
	return 0;
}

static int read_part(struct core *c, struct frame *f, const struct copy_part *p, uint8_t *dst, struct err *e)
{
	uint32_t pos = p->pos, end = p->pos + p->len;

	if (end > f->k->p->plain_len)
		return err_set(e, -EBADMSG, ERR_FORMAT, "an extent lies outside the chunk");
	while (pos < end) {
		uint32_t number = chunk_frame_at(f->k, pos), start = f->k->start[number];
		uint32_t stop = f->k->start[number + 1] < end ? f->k->start[number + 1] : end;

		if (!f->valid || f->number != number) {
			int ret = frame_read(c, f->k, number, 1, f->data, e);

			f->valid = !ret;
			f->number = number;
			if (ret)
				return ret;
		}
		memcpy(dst, f->data + (pos - start), stop - pos);
		dst += stop - pos;
		pos = stop;
	}
	return 0;
}

/* Reads the parts of one chunk, [i, end). What cannot be read is not copied, and so not moved. */
static int read_chunk(struct copy *cp, struct frame *f, size_t i, size_t end)
{
	struct core *c = cp->core;
	struct err e = {0};
	int ret = chunk_get(c, cp->part[i].chunk, &f->k);

	if (ret)
		return ret == -ENOENT ? 0 : ret; /* replaced and deleted meanwhile */
	f->valid = false;
	for (; i < end && !ret; i++) {
		struct copy_part *p = &cp->part[i];
		uint8_t *dst = cp->buffer + cp->used;

		if (p->len > cp->room - cp->used)
			break;
		ret = read_part(c, f, p, dst, &e);
		if (!ret) {
			p->data = dst;
			p->read = true;
			cp->used += p->len;
		} else if (ret == -ENOENT) {
			ret = 0;
		} else if (ret != -ENOMEM) {
			ret = note_damage(cp, p->chunk, f->k->p->segment, ret, &e);
		}
	}
	chunk_put(c, f->k);
	return ret;
}

static int copy_read(struct copy *cp)
{
	struct frame *f = malloc(sizeof(*f));
	int ret = f ? 0 : -ENOMEM;

	cp->used = 0;
	for (size_t i = 0, end; i < cp->parts && !ret; i = end) {
		for (end = i + 1; end < cp->parts && cp->part[end].chunk == cp->part[i].chunk;)
			end++;
		ret = read_chunk(cp, f, i, end);
	}
	free(f);
	return ret;
}

/* --- sealing ------------------------------------------------------------------------------------------------------ */

/* May share a chunk. */
static bool alike(const struct copy_part *x, const struct copy_part *y)
{
	return x->kind == y->kind && x->cold == y->cold && !prefer_order(&x->prefers, &y->prefers);
}

/* Small files lie together by directory, everything else by file. */
static int by_place(const void *a, const void *b)
{
	const struct copy_part *x = *(struct copy_part *const *)a, *y = *(struct copy_part *const *)b;
	int order = prefer_order(&x->prefers, &y->prefers);

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->cold != y->cold)
		return x->cold ? 1 : -1;
	if (order)
		return order;
	if (x->kind == POLICY_PACKED && x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

/* Divides the parts that were read into chunks. */
static int copy_arrange(struct copy *cp)
{
	size_t n = 0;

	cp->order = malloc((cp->parts + 1) * sizeof(*cp->order));
	cp->chunk = calloc(cp->parts + 1, sizeof(*cp->chunk));
	if (!cp->order || !cp->chunk)
		return -ENOMEM;
	cp->chunks = 0;
	for (size_t i = 0; i < cp->parts; i++)
		if (cp->part[i].read)
			cp->order[n++] = &cp->part[i];
	qsort(cp->order, n, sizeof(struct copy_part *), by_place);
	for (size_t i = 0; i < n;) {
		struct copy_chunk *k = &cp->chunk[cp->chunks];
		const struct copy_part *first = cp->order[i];
		uint32_t limit =
		    policy_chunk_limit(&cp->core->policy, atomic_load(&cp->core->shrink), first->kind, first->size);

		*k = (struct copy_chunk){.id = atomic_fetch_add(&cp->core->next_chunk, 1), .first = &cp->order[i]};
		while (i < n && alike(cp->order[i], first) && (!k->parts || k->len + cp->order[i]->len <= limit)) {
			cp->order[i]->to = (uint32_t)cp->chunks;
			cp->order[i]->to_pos = k->len;
			k->len += cp->order[i]->len;
			k->parts++;
			i++;
		}
		cp->chunks++;
	}
	return 0;
}

struct copy_batch {
	struct pipeline_seal rq;
	struct copy *copy;
	struct copy_chunk *chunk;
	struct pipeline_item item[];
};

static void batch_done(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	struct copy_batch *b = rq->arg;
	struct copy *cp = b->copy;

	if (!ret) {
		atomic_fetch_add(&cp->stored, chunk->stored_len);
		b->chunk->stored = chunk->stored_len;
		ret = chunk_add_fresh(cp->core, chunk, rq->sequence, UINT64_MAX, true);
	}
	free(b);
	seal_end(cp->core, &cp->sealing, ret, e);
}

static int chunk_submit(struct copy *cp, struct copy_chunk *k)
{
	const struct copy_part *first = k->first[0];
	struct copy_batch *b = malloc(sizeof(*b) + k->parts * sizeof(b->item[0]));

	if (!b)
		return -ENOMEM;
	b->copy = cp;
	b->chunk = k;
	for (size_t i = 0; i < k->parts; i++) {
		const struct copy_part *p = k->first[i];

		b->item[i] = (struct pipeline_item){p->ino, p->off, p->len, p->data};
	}
	b->rq = (struct pipeline_seal){
	    .item = b->item, .nitems = k->parts, .chunk_id = k->id, .done = batch_done, .arg = b};
	seal_start(cp->core, &b->rq,
	           &(struct seal_data){
		       .kind = first->kind,
		       .prefers = &first->prefers,
		       .cold = first->cold,
		   },
	           &cp->sealing);
	return 0;
}

static int copy_seal(struct copy *cp, struct err *e)
{
	int waited, ret = copy_arrange(cp);

	for (size_t i = 0; i < cp->chunks && !ret; i++)
		ret = chunk_submit(cp, &cp->chunk[i]);
	waited = seal_wait(cp->core, &cp->sealing);
	if (waited && !ret)
		*e = cp->sealing.err;
	return ret ? ret : waited;
}

int copy_make(struct core *c, struct compact_pass *pass, uint8_t *buffer, size_t room, struct copy **out, struct err *e)
{
	struct copy *cp = calloc(1, sizeof(*cp));
	int ret;

	*out = NULL;
	if (!cp)
		return -ENOMEM;
	cp->core = c;
	cp->buffer = buffer;
	cp->room = room;
	ret = copy_plan(cp, pass);
	if (!ret)
		ret = copy_read(cp);
	if (!ret && cp->used) {
		if (space_claim_scratch(c, cp->used, cp->exts))
			cp->claimed = cp->used;
		else
			ret = err_set(e, -ENOSPC, ERR_SPACE, "STORE has no room for a copy");
	}
	if (!ret)
		ret = copy_seal(cp, e);
	if (ret || !cp->exts) {
		copy_free(cp);
		return ret;
	}
	*out = cp;
	return 0;
}

bool copy_again(struct copy *cp, int *ret)
{
	/* What was moved is the old chunk's no more. What maps other bytes of it is for another walk. */
	if (!cp->crowded || !cp->moved)
		return false;
	*ret = copy_plan_rest(cp);
	if (!*ret && !space_claim_scratch(cp->core, 0, cp->exts))
		*ret = -ENOSPC;
	cp->again = true;
	cp->installed = false;
	cp->moved = 0;
	atomic_store(&cp->stored, 0); /* it has been counted */
	return !*ret && cp->exts;
}

void copy_free(struct copy *cp)
{
	for (size_t i = 0; i < cp->chunks; i++)
		chunk_forget(cp->core, cp->chunk[i].id);
	space_unclaim(cp->core, cp->claimed);
	free(cp->ext);
	free(cp->part);
	free(cp->order);
	free(cp->chunk);
	free(cp->damaged);
	free(cp);
}
