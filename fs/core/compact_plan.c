/* What a step of compaction copies: the live extents of a victim's chunks, and what lies around fragments. */
#include "base/array.h"
#include "fs/core/compact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKS_BATCH  64u
#define EXTENTS_STEP  16384u                /* extents a copy takes, about */
#define EXTENTS_CHUNK 65536u                /* extents of one chunk that are looked at */
#define REGION        ((uint64_t)1 << 20)   /* bytes of a file that are gathered at once, at most */
#define REGION_PIECES 1024u                 /* extents of a region that are looked at */
#define FRAGMENT      ((uint64_t)32 << 10)  /* bytes: pieces of a region that on average are smaller are gathered */
#define SHARERS_WORK  ((size_t)1 << 20)     /* pairs of extents that are compared for what they share */
#define REFUSED_MAX   16u                   /* after so many regions with too many sharers no more are tried */
#define COLD_AGE      3600                  /* seconds since a file's last change */
#define MERGE_FILE    ((uint64_t)256 << 10) /* bytes: smaller files are one piece soon enough */

static int add_extent(struct copy *cp, uint64_t ino, const struct index_extent *x, bool merged)
{
	int ret = array_grow(&cp->ext, &cp->exts_room, cp->exts, sizeof(*cp->ext));

	if (!ret)
		cp->ext[cp->exts++] = (struct copy_extent){ino, *x, merged};
	return ret;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

struct file {
	uint64_t ino, size, parent;
	struct preference prefers;
	bool dirty; /* written to, and not yet stored */
	bool cloned;
	bool cold; /* not changed for long */
};

static bool is_cold(const struct core *c, const struct index_inode *row)
{
	return row->ctime.sec < core_now(c).sec - COLD_AGE;
}

static int file_get(struct core *c, uint64_t ino, struct file *f)
{
	struct node *n = node_peek(c, ino);
	struct index_inode row;
	int ret;

	*f = (struct file){.ino = ino};
	ret = prefer_of(c, ino, 0, &f->prefers);
	if (n) {
		SCOPED_LOCK(&n->lock);
		if (n->loaded) {
			f->size = n->attr.size;
			f->parent = n->attr.parent;
			f->dirty = n->map.dirty;
			f->cloned = n->attr.flags & NODE_CLONED;
			f->cold = is_cold(c, &n->attr);
			prefer_node(c, n, &f->prefers);
		}
	}
	if (n) {
		node_put(c, n);
		return ret;
	}
	ret = index_inode_get(c->index, ino, &row);
	if (!ret) {
		f->size = row.size;
		f->parent = row.parent;
		f->cold = is_cold(c, &row);
		f->cloned = row.flags & NODE_CLONED;
		ret = prefer_of(c, ino, row.flags, &f->prefers);
	}
	return ret == -ENOENT ? 0 : ret; /* deleted meanwhile: so are its extents */
}

/* --- merging ------------------------------------------------------------------------------------------------------ */

static bool in_region(const struct copy *cp, uint64_t ino, const struct index_extent *x)
{
	for (size_t i = 0; i < cp->regions; i++) {
		const struct copy_region *r = &cp->region[i];

		if (r->ino == ino && x->off >= r->off && x->off + x->len <= r->off + r->len)
			return true;
	}
	return false;
}

static int by_source(const void *a, const void *b)
{
	const struct index_extent *x = a, *y = b;

	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return x->chunk_off < y->chunk_off ? -1 : x->chunk_off > y->chunk_off;
}

/* Adds what others map of the bytes of n extents of one chunk. 1: they are too many. */
static int add_sharers_of(struct copy *cp, uint64_t ino, const struct index_extent *x, size_t n)
{
	struct index_owned_extent *e;
	size_t count;
	int ret = chunk_extents(cp->core->index, x->chunk, EXTENTS_CHUNK, &e, &count);

	if (!ret && (count >= EXTENTS_CHUNK || count * n > SHARERS_WORK))
		ret = 1;
	for (size_t i = 0; i < n && !ret; i++) {
		uint64_t from = x[i].chunk_off, to = from + x[i].len;

		for (size_t k = 0; k < count && e[k].x.chunk_off < to && !ret; k++) {
			const struct index_extent *y = &e[k].x;
			uint64_t start = y->chunk_off > from ? y->chunk_off : from;
			uint64_t end = y->chunk_off + y->len < to ? y->chunk_off + y->len : to;
			struct index_extent part = {y->off + (start - y->chunk_off), end - start, y->chunk,
			                            (uint32_t)start};

			if (start < end && (e[k].ino != ino || part.off - part.chunk_off != x[i].off - from))
				ret = cp->exts < EXTENTS_STEP ? add_extent(cp, e[k].ino, &part, false) : 1;
		}
	}
	free(e);
	return ret;
}

/* What clones share is moved for all of them, or it would be stored twice. Reorders x. 1: it cannot be done. */
static int add_sharers(struct copy *cp, uint64_t ino, struct index_extent *x, size_t n)
{
	int ret = 0;

	qsort(x, n, sizeof(*x), by_source);
	for (size_t i = 0, end; i < n && !ret; i = end) {
		for (end = i + 1; end < n && x[end].chunk == x[i].chunk;)
			end++;
		ret = add_sharers_of(cp, ino, x + i, end - i);
	}
	return ret;
}

/* Takes all extents around a fragment if they are many small ones, so that they become one: 1 if it did. A file that is
 * being written to is left alone: its pieces would be fragments again soon. */
static int plan_region(struct copy *cp, uint64_t ino, const struct index_extent *around)
{
	uint64_t size = REGION, off, end, bytes = 0;
	struct index_extent *x;
	struct file f;
	size_t n, old = cp->exts;
	int ret;

	while (size > cp->room / 4)
		size /= 2;
	off = around->off / size * size;
	end = off + size;
	if (cp->regions == COPY_REGIONS || cp->used + size > cp->room || around->off + around->len > end)
		return 0;
	ret = file_get(cp->core, ino, &f);
	if (ret || f.dirty || f.size < MERGE_FILE || (f.cloned && cp->refused == REFUSED_MAX))
		return ret;
	x = malloc(REGION_PIECES * sizeof(*x));
	if (!x)
		return -ENOMEM;
	ret = index_extent_list(cp->core->index, ino, off, end, x, REGION_PIECES, &n);
	for (size_t i = 0; i < n && !ret; i++) {
		uint64_t from = x[i].off > off ? x[i].off : off, to = x[i].off + x[i].len;

		to = to < end ? to : end;
		x[i] = (struct index_extent){from, to - from, x[i].chunk, x[i].chunk_off + (uint32_t)(from - x[i].off)};
		bytes += x[i].len;
		ret = add_extent(cp, ino, &x[i], true);
	}
	if (!ret && n == REGION_PIECES)
		end = x[n - 1].off + x[n - 1].len;
	bool fragments = !ret && n > 1 && bytes / n < FRAGMENT;
	if (fragments && f.cloned) {
		ret = add_sharers(cp, ino, x, n);
		fragments = !ret;
		cp->refused += ret > 0;
	}
	if (fragments) {
		cp->region[cp->regions++] = (struct copy_region){ino, off, end - off};
		cp->used += bytes;
	} else {
		cp->exts = old;
	}
	free(x);
	return ret < 0 ? ret : fragments;
}

/* --- a chunk ------------------------------------------------------------------------------------------------------ */

/* Adds what of the extents lies in [from, to) of the chunk. */
static int add_clipped(struct copy *cp, const struct index_owned_extent *e, uint32_t from, uint32_t to)
{
	struct index_extent x = e->x;
	uint64_t end = x.chunk_off + x.len;
	uint64_t skip = x.chunk_off < from ? from - x.chunk_off : 0;

	end = end < to ? end : to;
	if (x.chunk_off + skip >= end || in_region(cp, e->ino, &e->x))
		return 0;
	x.off += skip;
	x.chunk_off += (uint32_t)skip;
	x.len = end - x.chunk_off;
	return add_extent(cp, e->ino, &x, false);
}

/* Chooses how far into the chunk the copy goes, and takes what surrounds fragments. */
static int plan_window(struct copy *cp, const struct compact_pass *pass, const struct index_owned_extent *e, size_t n,
                       uint32_t *stop)
{
	uint64_t covered = pass->pos;
	size_t taken = cp->exts;

	for (size_t i = 0; i < n; i++) {
		const struct index_extent *x = &e[i].x;
		uint64_t start = x->chunk_off > covered ? x->chunk_off : covered, end = x->chunk_off + x->len;
		uint64_t left = cp->room > cp->used ? cp->room - cp->used : 0;

		if (end <= start || in_region(cp, e[i].ino, x)) {
			covered = end > covered ? end : covered;
			continue;
		}
		if (end - start > left || taken >= EXTENTS_STEP) {
			left = taken >= EXTENTS_STEP ? 0 : left / PIPELINE_FRAME_MAX * PIPELINE_FRAME_MAX;
			*stop = (uint32_t)(left ? start + left : covered);
			cp->used += left;
			return 0;
		}
		if (pass->thorough && x->len < FRAGMENT) {
			int ret = plan_region(cp, e[i].ino, x);

			if (ret < 0)
				return ret;
			if (ret && in_region(cp, e[i].ino, x)) {
				covered = end;
				continue;
			}
		}
		cp->used += end - start;
		covered = end;
		taken++;
	}
	return 0;
}

/* 1 when the copy is full. */
static int plan_chunk(struct copy *cp, struct compact_pass *pass, const struct index_chunk *row)
{
	struct index_owned_extent *e;
	uint32_t stop = row->plain_len;
	size_t n;
	int ret = chunk_extents(cp->core->index, row->id, EXTENTS_CHUNK, &e, &n);

	if (!ret)
		ret = plan_window(cp, pass, e, n, &stop);
	for (size_t i = 0; i < n && !ret && e[i].x.chunk_off < stop; i++)
		ret = add_clipped(cp, &e[i], pass->pos, stop);
	free(e);
	if (ret)
		return ret;
	cp->crowded = n >= EXTENTS_CHUNK ? row->id : 0;
	if (stop < row->plain_len) {
		pass->pos = stop;
		return 1;
	}
	pass->after = row->id;
	pass->pos = 0;
	return cp->crowded || cp->used >= cp->room || cp->exts >= EXTENTS_STEP;
}

int copy_plan_rest(struct copy *cp)
{
	struct index_owned_extent *e;
	size_t n;
	int ret = chunk_extents(cp->core->index, cp->crowded, EXTENTS_CHUNK, &e, &n);

	cp->exts = 0;
	for (size_t i = 0; i < n && !ret; i++)
		ret = add_extent(cp, e[i].ino, &e[i].x, false);
	if (n < EXTENTS_CHUNK)
		cp->crowded = 0;
	free(e);
	return ret;
}

static int plan_extents(struct copy *cp, struct compact_pass *pass)
{
	struct index_chunk row[CHUNKS_BATCH];
	struct index *ix = cp->core->index;
	size_t n;
	int ret;

	do {
		ret = pass->segment ? index_segment_chunks(ix, pass->segment, pass->after, row, CHUNKS_BATCH, &n)
		                    : index_inline_chunks(ix, pass->after, row, CHUNKS_BATCH, &n);
		for (size_t i = 0; i < n && !ret; i++) {
			if (row[i].id > pass->last) {
				pass->end = true;
				return 0;
			}
			ret = plan_chunk(cp, pass, &row[i]);
		}
	} while (!ret && n == CHUNKS_BATCH);
	if (!ret)
		pass->end = true;
	return ret < 0 ? ret : 0;
}

/* --- parts -------------------------------------------------------------------------------------------------------- */

static int by_chunk(const void *a, const void *b)
{
	const struct copy_extent *x = a, *y = b;

	if (x->x.chunk != y->x.chunk)
		return x->x.chunk < y->x.chunk ? -1 : 1;
	if (x->x.chunk_off != y->x.chunk_off)
		return x->x.chunk_off < y->x.chunk_off ? -1 : 1;
	if (x->merged != y->merged)
		return x->merged ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* The bytes from `start` on of an extent, whose file is f, as parts that end where blocks of the file do. */
static int add_parts(struct copy *cp, const struct copy_extent *e, const struct file *f, uint64_t start)
{
	uint64_t end = e->x.chunk_off + e->x.len;

	while (start < end) {
		uint64_t off = e->x.off + (start - e->x.chunk_off), len = PIPELINE_FRAME_MAX - off % PIPELINE_FRAME_MAX;
		int ret = array_grow(&cp->part, &cp->parts_room, cp->parts, sizeof(*cp->part));

		if (ret)
			return ret;
		len = len < end - start ? len : end - start;
		cp->part[cp->parts++] =
		    (struct copy_part){.chunk = e->x.chunk,
		                       .ino = e->ino,
		                       .off = off,
		                       .parent = f->parent,
		                       .size = f->size,
		                       .pos = (uint32_t)start,
		                       .len = (uint32_t)len,
		                       .prefers = f->prefers,
		                       .cold = f->cold,
		                       .kind = policy_kind(f->size, e->merged ? UINT64_MAX : e->x.len)};
		start += len;
	}
	return 0;
}

int copy_plan(struct copy *cp, struct compact_pass *pass)
{
	struct file f = {0};
	uint64_t chunk = 0, covered = 0;
	int ret = plan_extents(cp, pass);

	if (ret || !cp->exts)
		return ret;
	qsort(cp->ext, cp->exts, sizeof(*cp->ext), by_chunk);
	for (size_t i = 0; i < cp->exts && !ret; i++) {
		const struct copy_extent *e = &cp->ext[i];
		uint64_t end = e->x.chunk_off + e->x.len;

		if (e->x.chunk != chunk)
			covered = 0;
		chunk = e->x.chunk;
		if (end <= covered)
			continue;
		if (f.ino != e->ino)
			ret = file_get(cp->core, e->ino, &f);
		f.cold = f.cold && pass->thorough;
		if (!ret)
			ret = add_parts(cp, e, &f, e->x.chunk_off > covered ? e->x.chunk_off : covered);
		covered = end;
	}
	return ret;
}
