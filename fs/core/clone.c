/*
 * Clones: a range of one file comes to show what a range of another holds, by extents of the same chunks. Only what the
 * index has already can be shared. So what of the source is not stored yet is either stored first or, where that is
 * little, copied.
 *
 * While a map refers to a chunk and the index does not know, the chunk stays because the file is due: no commit that
 * could take the last other extent away, compaction's included, leaves the file's own out.
 */
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>

#define STEP      512u                  /* pieces under one set of locks */
#define ROW_BYTES 64u                   /* of an extent in the index, about */
#define MAP_KEEP  4096u                 /* clean pieces that a source keeps */
#define ROWS_MAX  16384u                /* extents of clones that no cut has taken, of the whole volume */
#define COPY      ((uint32_t)256 << 10) /* bytes copied at a time */
#define COPY_MAX  ((uint64_t)1 << 20)   /* more bytes that are not stored are stored first */

struct clone {
	struct core *core;
	struct core_file *from, *to;
	uint64_t off, to_off, len; /* what is left */
	unsigned flags;            /* of writes */
};

static bool is_same(const struct clone *cl)
{
	return cl->from->node == cl->to->node;
}

static void advance(struct clone *cl, uint64_t n)
{
	cl->off += n;
	cl->to_off += n;
	cl->len -= n;
}

/* What the source has from cl->off on, as a piece of the target. -EAGAIN: the index does not have it yet. Under the
 * source's lock. */
static int next_piece(struct clone *cl, struct piece *out)
{
	struct node *n = cl->from->node;
	struct piece *p;
	int ret;

	*out = (struct piece){.off = cl->to_off, .len = cl->len, .kind = PIECE_HOLE, .dirty = true};
	if (cl->off >= n->attr.size)
		return 0;
	ret = data_piece(cl->core, n, cl->off, &p);
	if (ret)
		return ret;
	uint64_t skip = cl->off - p->off;
	if (out->len > p->len - skip)
		out->len = p->len - skip;
	if (p->kind == PIECE_HOLE)
		return 0;
	out->kind = PIECE_EXTENT;
	out->chunk = p->chunk;
	out->pos = p->pos + (uint32_t)skip;
	return p->dirty ? -EAGAIN : 0;
}

/* Under the locks of both: as much as one step may. *rows: the extents made. */
static int share(struct clone *cl, unsigned *rows)
{
	struct core *c = cl->core;
	struct node *from = cl->from->node, *to = cl->to->node;
	uint64_t len = cl->len;
	int ret = data_kill_priv(c, to, cl->flags);

	*rows = 0;
	for (unsigned i = 0; i < STEP && cl->len && !ret; i++) {
		struct piece p;

		ret = next_piece(cl, &p);
		if (!ret)
			ret = p.kind == PIECE_HOLE ? data_set_hole(c, to, p.off, p.len) : map_set(&to->map, &p, NULL);
		if (ret)
			break;
		if (p.kind == PIECE_EXTENT) {
			++*rows;
			to->pending_bytes += p.len;
		}
		if (p.off + p.len > to->attr.size)
			to->attr.size = p.off + p.len;
		advance(cl, p.len);
	}
	if (*rows) {
		if (!(from->attr.flags & NODE_CLONED))
			node_touch(c, from);
		from->attr.flags |= NODE_CLONED;
		to->attr.flags |= NODE_CLONED;
		atomic_fetch_or(&to->due, DUE_CLONES);
	}
	if (cl->len < len && !(cl->flags & CORE_KEEP_TIMES))
		to->attr.mtime = to->attr.ctime = core_now(c);
	node_touch(c, to);
	if (from->map.count - from->map.dirty > MAP_KEEP)
		map_drop_clean(&from->map);
	return ret;
}

/* ns: no commit comes between. */
static int share_locked(struct clone *cl, unsigned *rows)
{
	struct core *c = cl->core;
	struct node *a = cl->from->node, *b = cl->to->node;
	bool ordered = a->ino < b->ino; /* ns alone would do; but an order can be checked */

	SCOPED_LOCK(&c->ns);
	SCOPED_LOCK(ordered ? &a->lock : &b->lock);
	if (is_same(cl))
		return share(cl, rows);
	SCOPED_LOCK(ordered ? &b->lock : &a->lock);
	return share(cl, rows);
}

/* Copies what cannot be shared, a buffer's worth at most. */
static int copy_some(struct clone *cl)
{
	uint64_t len = cl->len < COPY ? cl->len : COPY;
	uint8_t *buf;
	ssize_t n;
	int ret;

	{
		struct node *from = cl->from->node;
		struct piece p;

		SCOPED_LOCK(&from->lock);
		ret = next_piece(cl, &p);
		if (ret != -EAGAIN)
			return ret; /* it has been stored meanwhile */
		len = p.len < len ? p.len : len;
	}
	buf = malloc(len);
	if (!buf)
		return -ENOMEM;
	n = data_read(cl->from, buf, len, cl->off, false);
	ret = n < 0 ? (int)n : n ? core_file_write(cl->to, buf, (size_t)n, cl->to_off, cl->flags) : 0;
	if (!ret)
		advance(cl, (uint64_t)n);
	free(buf);
	return ret;
}

/* Bytes of the range that are not stored yet. */
static uint64_t unsaved(const struct clone *cl)
{
	struct node *n = cl->from->node;
	uint64_t bytes = 0, end = cl->off + cl->len;
	const struct piece *p;

	SCOPED_LOCK(&n->lock);
	TAILQ_FOREACH (p, &n->map.dirty_list, on_dirty) {
		uint64_t from = p->off > cl->off ? p->off : cl->off;
		uint64_t to = p->off + p->len < end ? p->off + p->len : end;

		if (p->kind != PIECE_HOLE && from < to)
			bytes += to - from;
	}
	return bytes;
}

/* Makes sure that what the map and the index owe stays bounded. No locks may be held. */
static int settle(struct clone *cl, unsigned rows)
{
	struct core *c = cl->core;

	if (atomic_fetch_add(&c->clone_rows, rows) + rows <= ROWS_MAX)
		return 0;
	return cut_wait(c, cl->to->node);
}

static int clone_all(struct clone *cl)
{
	int ret = 0;

	while (cl->len && !ret) {
		unsigned rows = 0;

		ret = space_for_name(cl->core, (size_t)STEP * ROW_BYTES);
		if (ret)
			break;
		ret = share_locked(cl, &rows);
		if (ret == -EAGAIN)
			ret = copy_some(cl);
		int settled = settle(cl, rows);
		ret = ret ? ret : settled;
	}
	return ret;
}

ssize_t core_file_clone(struct core_file *from, uint64_t off, struct core_file *to, uint64_t to_off, uint64_t len,
                        unsigned flags)
{
	struct core *c = from->core;
	struct clone cl = {c, from, to, off, to_off, len, flags};
	int ret = core_may_write(c);

	core_busy(c);
	if (ret || !len)
		return ret;
	if (off >= CORE_SIZE_MAX || len > CORE_SIZE_MAX - off || to_off >= CORE_SIZE_MAX ||
	    len > CORE_SIZE_MAX - to_off)
		return -EFBIG;
	if (is_same(&cl) && off < to_off + len && to_off < off + len)
		return -EINVAL;
	if (unsaved(&cl) > COPY_MAX)
		ret = cut_wait(c, from->node);
	if (!ret)
		ret = clone_all(&cl);
	return cl.len < len ? (ssize_t)(len - cl.len) : ret;
}
