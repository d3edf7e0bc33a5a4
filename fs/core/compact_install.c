/* The part of compaction that belongs to a cut: the index learns where data has moved, and so do maps in memory. */
#include "fs/core/compact.h"

#include <errno.h>
#include <stdlib.h>

/* An old chunk that data was copied from. */
struct source {
	uint64_t chunk;
	bool held; /* an inode has a reference to it that the index does not know yet */
};

static int by_id(const void *a, const void *b)
{
	const struct source *x = a, *y = b;

	return x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

static struct source *source_find(struct source *s, size_t n, uint64_t chunk)
{
	struct source key = {.chunk = chunk};

	return bsearch(&key, s, n, sizeof(*s), by_id);
}

/* What is dirty in maps may refer to chunks that the index has. Those stay, until a cut has entered it. */
static int sources_hold(struct core *c, struct source *s, size_t n)
{
	struct node **list;
	size_t count;
	int ret = node_list_dirty(c, &list, &count);

	if (ret)
		return ret;
	for (size_t i = 0; i < count; i++) {
		struct piece *p;

		(void)pthread_mutex_lock(&list[i]->lock);
		TAILQ_FOREACH (p, &list[i]->map.dirty_list, on_dirty) {
			struct source *found = p->kind == PIECE_EXTENT ? source_find(s, n, p->chunk) : NULL;

			if (found)
				found->held = true;
		}
		(void)pthread_mutex_unlock(&list[i]->lock);
		node_put(c, list[i]);
	}
	free(list);
	return 0;
}

/* The first part that ends beyond pos of the chunk. */
static size_t part_at(const struct copy *cp, uint64_t chunk, uint64_t pos)
{
	size_t lo = 0, hi = cp->parts;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct copy_part *p = &cp->part[mid];

		if (p->chunk < chunk || (p->chunk == chunk && (uint64_t)p->pos + p->len <= pos))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* What of a file has moved took, and takes now, of STORE: estimates, in bytes. */
struct change {
	uint64_t ino, gone, come;
};

/* Remaps one extent to where its parts have gone. */
static int install_extent(struct copy *cp, const struct copy_extent *e, struct change *change)
{
	uint64_t end = e->x.chunk_off + e->x.len;
	int ret = 0;

	for (size_t i = part_at(cp, e->x.chunk, e->x.chunk_off); i < cp->parts && !ret; i++) {
		const struct copy_part *p = &cp->part[i];
		uint64_t from = p->pos > e->x.chunk_off ? p->pos : e->x.chunk_off;
		uint64_t to = (uint64_t)p->pos + p->len < end ? (uint64_t)p->pos + p->len : end, moved;

		if (p->chunk != e->x.chunk || p->pos >= end)
			break;
		if (!p->read)
			continue;
		struct index_move m = {.ino = e->ino,
		                       .off = e->x.off + (from - e->x.chunk_off),
		                       .len = (uint32_t)(to - from),
		                       .chunk = p->chunk,
		                       .pos = (uint32_t)from,
		                       .to = cp->chunk[p->to].id,
		                       .to_pos = p->to_pos + (uint32_t)(from - p->pos)};
		const struct copy_chunk *to_chunk = &cp->chunk[p->to];

		ret = index_extent_move(cp->core->index, &m, &moved, &change->gone);
		change->come += moved * to_chunk->stored / to_chunk->len;
		cp->moved += moved;
	}
	return ret;
}

/* The inode in memory, if it is: false if it is not. */
static bool recount_node(struct core *c, const struct change *x)
{
	struct node *n = node_peek(c, x->ino);
	bool loaded;

	if (!n)
		return false;
	{
		SCOPED_LOCK(&n->lock);
		loaded = n->loaded && !n->gone;
		if (loaded) {
			uint64_t bytes = n->cut_bytes + x->come, before = node_cut_blocks(n);

			n->cut_bytes = bytes > x->gone ? bytes - x->gone : 1;
			/* It may have been cut or punched since the last snapshot. */
			bytes = n->attr.blocks + node_cut_blocks(n);
			if (n->attr.blocks)
				n->attr.blocks = bytes > before ? bytes - before : 1;
			if (node_cut_blocks(n) != before)
				node_touch(c, n);
		}
	}
	node_put(c, n);
	return loaded;
}

/* st_blocks follows what has been compressed anew. */
static int recount(struct core *c, const struct change *x)
{
	int64_t blocks = (int64_t)(x->come / 512) - (int64_t)(x->gone / 512);

	return x->come == x->gone || recount_node(c, x) || !blocks ? 0 : index_inode_blocks(c->index, x->ino, blocks);
}

/* Maps that were read from the index before forget what has moved: they ask again. */
static void forget_moved(struct copy *cp)
{
	struct node *n = NULL;
	uint64_t ino = 0;

	for (size_t i = 0; i < cp->exts; i++) {
		const struct copy_extent *e = &cp->ext[i];

		if (e->ino != ino) {
			if (n)
				node_put(cp->core, n);
			ino = e->ino;
			n = node_peek(cp->core, ino);
		}
		if (!n)
			continue;
		SCOPED_LOCK(&n->lock);
		map_forget(&n->map, e->x.off, e->x.len, e->x.chunk);
	}
	if (n)
		node_put(cp->core, n);
}

static int by_ino(const void *a, const void *b)
{
	const struct copy_extent *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->x.off < y->x.off ? -1 : x->x.off > y->x.off;
}

/* All that was moved to a new chunk may have been overwritten since, and the chunk is gone. */
static bool chunks_stand(const struct copy *cp)
{
	struct index_chunk row;
	int ret = 0;

	for (size_t i = 0; i < cp->chunks && (!ret || ret == -ERANGE); i++)
		ret = index_chunk_get(cp->core->index, cp->chunk[i].id, &row, NULL, 0);
	return !ret || ret == -ERANGE;
}

int copy_install(struct core *c, struct copy *cp)
{
	struct source *s = malloc((cp->parts + 1) * sizeof(*s));
	struct change change = {0};
	size_t n = 0;
	int ret = s ? 0 : -ENOMEM;

	cp->installed = true;
	for (size_t i = 0; i < cp->parts && s; i++)
		if (!n || s[n - 1].chunk != cp->part[i].chunk)
			s[n++] = (struct source){.chunk = cp->part[i].chunk};
	if (!ret)
		ret = sources_hold(c, s, n);
	if (!ret && cp->again && !chunks_stand(cp))
		cp->exts = 0;
	for (size_t i = 0; i < cp->chunks && !ret && !cp->again; i++)
		ret = chunk_install(c, cp->chunk[i].id);
	/* In order, so that what adjoins becomes one extent. */
	if (cp->exts)
		qsort(cp->ext, cp->exts, sizeof(*cp->ext), by_ino);
	for (size_t i = 0; i < cp->exts && !ret; i++) {
		const struct source *from = source_find(s, n, cp->ext[i].x.chunk);

		if (change.ino != cp->ext[i].ino) {
			ret = recount(c, &change);
			change = (struct change){.ino = cp->ext[i].ino};
		}
		if (from && !from->held && !ret)
			ret = install_extent(cp, &cp->ext[i], &change);
	}
	if (!ret)
		ret = recount(c, &change);
	forget_moved(cp);
	metrics_add(c->metrics, METRIC_COMPACT_BYTES, cp->moved);
	free(s);
	cp->ret = ret;
	/* Each extent that was moved is right by itself: a lack of memory is no reason for the cut to fail. */
	return index_failed(c->index) ? ret : 0;
}
