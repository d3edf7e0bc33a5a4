/*
 * The first half of a cut (docs/ARCHITECTURE.md, "The cut"): take the snapshot of each inode, seal its buffers, sync
 * the segments, enter extents and sizes into the open transaction. commit.c makes that durable.
 */
#include "base/array.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INLINE_PLAIN 28672u /* plaintext bytes that surely fit an inline chunk once sealed */
#define MAP_KEEP     4096u  /* pieces a map may keep after a cut */

struct cut_node {
	struct node *n; /* holds a reference */
	uint64_t size, pending;
	uint64_t covered; /* bytes below the old size that the snapshot replaces */
	uint64_t stored;  /* bytes of STORE that its extents take, estimated */
	uint64_t gone;    /* and that what they replace took */
	bool data;        /* it has extents */
	unsigned due;     /* it was: so it is again if the cut fails */
	bool taken;       /* the snapshot holds it */
};

/* What a snapshot holds apart from buffers: extents sealed earlier, and holes. */
struct cut_piece {
	struct node *n;
	struct index_extent x;
};

struct cut {
	struct core *core;
	uint64_t number;
	enum cut_kind kind;
	struct cut_node *node;
	size_t nodes, nodes_room;
	struct seal_item *item;
	size_t items, items_room;
	struct cut_piece *piece;
	size_t pieces, pieces_room;
	uint64_t bytes; /* of plaintext in items */
	struct err err;
};

static int cut_add(struct cut *cut, struct node *n)
{
	int ret = array_grow(&cut->node, &cut->nodes_room, cut->nodes, sizeof(*cut->node));

	if (!ret) {
		cut->node[cut->nodes++] = (struct cut_node){.n = n};
		n->refs++;
	}
	return ret;
}

static int by_ino(const void *a, const void *b)
{
	uint64_t x = ((const struct cut_node *)a)->n->ino, y = ((const struct cut_node *)b)->n->ino;

	return x < y ? -1 : x > y;
}

static int cut_collect(struct cut *cut, struct node *const *wanted, size_t nwanted)
{
	struct core *c = cut->core;
	struct node *n;
	size_t unique = 0;
	int ret = 0;

	(void)pthread_mutex_lock(&c->table_lock);
	TAILQ_FOREACH (n, &c->dirty, on_dirty)
		if (!ret && (cut->kind != CUT_SOME || atomic_load(&n->due)))
			ret = cut_add(cut, n);
	for (size_t i = 0; i < nwanted && cut->kind == CUT_SOME && !ret; i++)
		ret = cut_add(cut, wanted[i]);
	(void)pthread_mutex_unlock(&c->table_lock);
	if (cut->nodes)
		qsort(cut->node, cut->nodes, sizeof(*cut->node), by_ino);
	for (size_t i = 0; i < cut->nodes; i++) {
		if (unique && cut->node[unique - 1].n == cut->node[i].n)
			node_put(c, cut->node[i].n); /* waited for twice, or due besides */
		else
			cut->node[unique++] = cut->node[i];
	}
	cut->nodes = unique;
	return ret;
}

static int take_piece(struct cut *cut, struct cut_node *cn, struct piece *p)
{
	uint64_t end = p->off + p->len;
	int ret;

	if (p->kind != PIECE_HOLE)
		cn->pending += p->len;
	if (p->off < cn->n->cut_size)
		cn->covered += (end < cn->n->cut_size ? end : cn->n->cut_size) - p->off;
	if (p->kind == PIECE_BUFFER) {
		ret = array_grow(&cut->item, &cut->items_room, cut->items, sizeof(*cut->item));
		if (ret)
			return ret;
		seal_take(cut->core, cn->n, p, &cut->item[cut->items++]);
		cut->bytes += p->len;
	} else {
		ret = array_grow(&cut->piece, &cut->pieces_room, cut->pieces, sizeof(*cut->piece));
		if (ret)
			return ret;
		cut->piece[cut->pieces++] = (struct cut_piece){
		    cn->n, {p->off, p->len, p->kind == PIECE_HOLE ? 0 : p->chunk, p->kind == PIECE_HOLE ? 0 : p->pos}};
	}
	p->cut = cut->number;
	return 0;
}

/* A piece that waits for room: it must be sealed, or is in the same fresh chunk as data of others. Without those that
 * would be installed, and later perhaps deleted, while they still refer to it. */
static bool waits(struct core *c, const struct piece *p)
{
	return p->kind == PIECE_BUFFER || (p->kind == PIECE_EXTENT && chunk_is_joint(c, p->chunk));
}

/* Whether a lean cut takes an inode: if nothing of it waits, or it must. A clone's target must keep what it shares, so
 * *part: it is taken without what waits, which stays as it was in the last cut. */
static int lean_takes(struct core *c, struct node *n, bool *takes, bool *part)
{
	unsigned due = atomic_load(&n->due);
	const struct piece *p;
	bool any = false;

	TAILQ_FOREACH (p, &n->map.dirty_list, on_dirty) {
		if (due & DUE_ALL && p->kind != PIECE_BUFFER && waits(c, p))
			return -ENOSPC;
		any |= waits(c, p);
	}
	*takes = due || !any;
	*part = any && !(due & DUE_ALL);
	return 0;
}

/* Lets no batch of these inodes start, or lets them again. All are held until the last is taken: what is taken of one
 * stays where it is until then, and its writer would wait while others went on. */
static void cut_hold(struct cut *cut, bool hold)
{
	for (size_t i = 0; i < cut->nodes; i++) {
		SCOPED_LOCK(&cut->node[i].n->lock);
		cut->node[i].n->cutting = hold;
	}
}

/* The snapshot of one inode, which is held. Batches under way end first, so that every piece is either a buffer or an
 * extent. */
static int cut_freeze(struct cut *cut, struct cut_node *cn)
{
	struct core *c = cut->core;
	struct node *n = cn->n;
	struct piece *p;
	bool takes = true, part = false;
	int ret = 0;

	SCOPED_LOCK(&n->lock);
	seal_drain(c, n);
	if (cut->kind == CUT_LEAN && !n->gone)
		ret = lean_takes(c, n, &takes, &part);
	if (n->gone || !takes || ret)
		return ret;
	n->in_cut = true;
	cn->taken = true;
	cn->due = atomic_exchange(&n->due, 0);
	cn->size = n->attr.size;
	TAILQ_FOREACH (p, &n->map.dirty_list, on_dirty)
		if (!ret && !(part && waits(c, p)))
			ret = take_piece(cut, cn, p);
	if (!part)
		cn->pending = n->pending_bytes; /* with what was overwritten since */
	return ret;
}

/* --- sealing ------------------------------------------------------------------------------------------------------ */

static int by_class(const void *a, const void *b)
{
	const struct seal_item *x = a, *y = b;

	int order = prefer_order(&x->prefers, &y->prefers);

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (order)
		return order;
	if (x->turn != y->turn)
		return x->turn < y->turn ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

static int cut_seal(struct cut *cut)
{
	struct core *c = cut->core;
	struct seal_group g = {0};
	bool to_inline = cut->kind == CUT_SOME && cut->bytes <= INLINE_PLAIN;
	bool many = !policy_inline(cut->bytes / PIPELINE_FRAME_MAX);
	size_t i = 0;
	int ret = 0;

	for (size_t k = 0; k < cut->items; k++) {
		struct seal_item *it = &cut->item[k];

		it->kind = to_inline ? POLICY_RANDOM : policy_kind(it->size, it->len); /* somebody waits for it */
		it->turn = it->node->ino - (it->kind == POLICY_STREAM ? c->cut_from : 0);
	}
	if (cut->items)
		qsort(cut->item, cut->items, sizeof(*cut->item), by_class);
	while (i < cut->items && !ret) {
		struct seal_item *first = &cut->item[i];
		uint32_t limit = policy_chunk_limit(&c->policy, atomic_load(&c->shrink), first->kind, first->size),
			 bytes = 0;
		size_t n = 0;

		if (first->kind == POLICY_STREAM && (!i || first[-1].kind != POLICY_STREAM))
			c->cut_from = first->node->ino + 1; /* who goes first has its memory back first: in turns */
		while (i + n < cut->items && first[n].kind == first->kind &&
		       !prefer_order(&first[n].prefers, &first->prefers) && (bytes + first[n].len <= limit || !n))
			bytes += first[n++].len;
		ret = seal_submit(c, first, n, first->kind, many, to_inline, &g);
		i += ret ? 0 : n;
	}
	seal_settle(cut->item + i, cut->items - i); /* not submitted for want of memory */
	int waited = seal_wait(c, &g);
	if (waited)
		cut->err = g.err;
	return ret ? ret : waited;
}

/* --- installing --------------------------------------------------------------------------------------------------- */

static int install_segment(struct core *c, const struct pipeline_segment *s)
{
	struct index_segment row = {.id = s->id, .epoch = s->epoch, .total = s->size, .header_len = s->header_len};

	row.state = s->kind == PIPELINE_SEGMENT_INLINE ? INDEX_SEGMENT_INLINE
	            : s->open                          ? INDEX_SEGMENT_OPEN
	                                               : INDEX_SEGMENT_SEALED;
	memcpy(row.name, s->name, sizeof(row.name));
	memcpy(row.header, s->header, s->header_len);
	return index_segment_put(c->index, &row);
}

/* Rows of the segments that this mount has begun since the last cut; and, where the cut is of everything and not one
 * that somebody waits for, what those that were still growing have come to. */
static int install_segments(struct cut *cut)
{
	struct core *c = cut->core;
	struct pipeline_segment s[16];
	bool full = cut->kind == CUT_FULL;
	uint64_t from = full ? c->growing_segment : c->last_segment + 1;
	bool complete = true;
	size_t n;

	do {
		n = pipeline_segment_new_since(c->pipeline, from, s, 16);
		for (size_t i = 0; i < n; i++) {
			int ret = install_segment(c, &s[i]);

			if (ret)
				return ret;
			from = s[i].id + 1;
			if (s[i].id > c->last_segment)
				c->last_segment = s[i].id;
			complete = complete && (!s[i].open || s[i].kind == PIPELINE_SEGMENT_INLINE);
			if (complete && full)
				c->growing_segment = from;
		}
	} while (n);
	return 0;
}

static struct cut_node *cut_find(struct cut *cut, struct node *n)
{
	struct cut_node key = {.n = n};

	return cut->nodes ? bsearch(&key, cut->node, cut->nodes, sizeof(*cut->node), by_ino) : NULL;
}

/* Enters one extent (or hole) unless its inode was deleted meanwhile. */
static int install_extent(struct cut *cut, struct node *n, const struct index_extent *x)
{
	struct core *c = cut->core;
	struct cut_node *cn = cut_find(cut, n);
	uint64_t none = 0, *gone = cn ? &cn->gone : &none;
	struct chunk *k;
	int ret = 0;

	if (x->chunk) {
		ret = chunk_install(c, x->chunk);
		if (!ret)
			ret = chunk_get(c, x->chunk, &k);
		if (ret)
			return ret;
		if (cn) {
			cn->data = true;
			cn->stored += x->len * k->p->stored_len / k->p->plain_len;
		}
		chunk_put(c, k);
	}
	struct index_extent left = *x;

	do {
		SCOPED_LOCK(&n->lock);
		if (n->gone)
			return 0;
		n->in_index = true; /* from here on, whether this cut gets to its row or not */
		if (x->chunk)
			return index_extent_replace(c->index, n->ino, x, gone);
		ret = extents_clear_step(c, n->ino, &left, gone);
	} while (!ret && left.len);
	return ret;
}

/* The estimate of what a file takes in STORE. It never falls to 0 while there may be data: tar -S and cp would take the
 * file for a hole. */
static uint64_t bytes_after(const struct cut_node *cn, const struct node *n)
{
	uint64_t kept = n->cut_size > cn->covered ? n->cut_bytes : 0;
	bool data = kept || cn->data;

	kept -= cn->gone < kept ? cn->gone : kept;
	return kept + cn->stored || !data ? kept + cn->stored : 1;
}

static void install_size(struct cut *cut, struct cut_node *cn)
{
	struct core *c = cut->core;
	struct node *n = cn->n;

	SCOPED_LOCK(&n->lock);
	if (n->gone || !cn->taken)
		return;
	n->cut_bytes = bytes_after(cn, n);
	if (S_ISREG(n->attr.mode))
		n->attr.blocks = node_cut_blocks(n);
	n->pending_bytes -= n->pending_bytes < cn->pending ? n->pending_bytes : cn->pending;
	n->cut_size = cn->size;
	map_cut_done(&n->map, cut->number, true);
	if (n->map.count - n->map.dirty > MAP_KEEP)
		map_drop_clean(&n->map);
	node_touch(c, n);
}

static int cut_install(struct cut *cut)
{
	int ret = install_segments(cut);

	for (size_t i = 0; i < cut->pieces && !ret; i++)
		/* cut_release frees the array. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		ret = install_extent(cut, cut->piece[i].n, &cut->piece[i].x);
	for (size_t i = 0; i < cut->items && !ret; i++) {
		const struct seal_item *it = &cut->item[i];
		struct index_extent x = {it->off, it->len, it->chunk, it->chunk_pos};

		ret = install_extent(cut, it->node, &x);
	}
	for (size_t i = 0; i < cut->nodes && !ret; i++)
		install_size(cut, &cut->node[i]);
	return ret;
}

static void cut_release(struct cut *cut, bool installed)
{
	struct core *c = cut->core;

	for (size_t i = 0; i < cut->items; i++) {
		if (cut->item[i].buffer)
			seal_settle(&cut->item[i], 1);
		node_put(c, cut->item[i].node);
	}
	for (size_t i = 0; i < cut->nodes; i++) {
		struct node *n = cut->node[i].n;

		(void)pthread_mutex_lock(&n->lock);
		n->in_cut = false;
		if (!installed) {
			map_cut_done(&n->map, cut->number, false);
			atomic_fetch_or(&n->due, cut->node[i].due);
		}
		node_clean(c, n);
		(void)pthread_mutex_unlock(&n->lock);
		node_put(c, n);
	}
	free(cut->node);
	free(cut->item);
	free(cut->piece);
}

int cut_round(struct core *c, enum cut_kind kind, struct node *const *wanted, size_t nwanted, struct err *e)
{
	struct cut cut = {.core = c, .number = atomic_fetch_add(&c->cut, 1) + 1, .kind = kind};
	bool installed = false;
	int ret = cut_collect(&cut, wanted, nwanted);

	cut_hold(&cut, true);
	for (size_t i = 0; i < cut.nodes && !ret; i++)
		ret = cut_freeze(&cut, &cut.node[i]);
	cut_hold(&cut, false);
	if (!ret)
		ret = cut_seal(&cut);
	if (ret) {
		*e = cut.err;
	} else {
		ret = pipeline_sync(c->pipeline, e);
		if (ret)
			(void)core_stop(c, ret, e, "making segments durable");
	}
	if (!ret) {
		ret = core_index_result(c, cut_install(&cut), e, "entering extents into the index");
		installed = !ret;
		c->half_entered = ret != 0;
	}
	/* Chunks may hold data of several inodes: a cut of only some would install, and later delete, what the others
	 * still refer to. */
	c->retry_full = ret || (kind == CUT_LEAN && c->retry_full);
	cut_release(&cut, installed);
	if (installed && kind == CUT_FULL)
		chunk_drop_stale(c, cut.number);
	return ret;
}
