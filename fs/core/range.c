/* Ranges of a file: where its data and its holes are, allocating, and making holes. */
#include "fs/core/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#define PART_EXTENTS 256u
#define BLOCKS_STEPS 64u /* pieces that a new hole asks about at once: the cut that stores it knows exactly */

/* --- data and holes ----------------------------------------------------------------------------------------------- */

/* Part of a file: of what the extents do not hold nothing is stored. They are in ascending order, and the first and the
 * last one may reach beyond it. */
struct part {
	uint64_t end;
	size_t n;
	struct index_extent x[PART_EXTENTS];
};

/* The part that begins at off: a piece of the map or, of what that does not know, some from the index. There may be
 * very many extents, so the index is asked without the inode's lock, and the map is not filled with them. */
static int part_at(struct core *c, struct node *n, uint64_t off, struct part *out)
{
	int ret;
	{
		SCOPED_LOCK(&n->lock);
		const struct piece *p = map_find(&n->map, off);

		if (p && p->off <= off) {
			out->end = p->off + p->len;
			out->n = p->kind != PIECE_HOLE;
			out->x[0] = (struct index_extent){.off = p->off, .len = p->len};
			return 0;
		}
		out->end = p ? p->off : CORE_SIZE_MAX;
	}
	ret = index_extent_list(c->index, n->ino, off, out->end, out->x, PART_EXTENTS, &out->n);
	if (out->n == PART_EXTENTS)
		out->end = min_u64(out->end, out->x[out->n - 1].off + out->x[out->n - 1].len);
	return ret;
}

/* Where there is data, or a hole, from off on: the part's end or beyond if not in it. */
static uint64_t part_seek(const struct part *part, uint64_t off, bool data)
{
	if (data)
		return !part->n ? part->end : part->x[0].off > off ? part->x[0].off : off;
	for (size_t i = 0; i < part->n && part->x[i].off <= off; i++)
		off = part->x[i].off + part->x[i].len;
	return off;
}

bool core_file_is_written(struct core_file *f)
{
	SCOPED_LOCK(&f->node->lock);
	return f->node->writers;
}

int core_file_seek(struct core_file *f, uint64_t off, int whence, uint64_t *out)
{
	struct node *n = f->node;
	struct part part;
	uint64_t size;
	{
		SCOPED_LOCK(&n->lock);
		size = n->attr.size;
		if (whence != SEEK_DATA && whence != SEEK_HOLE)
			return -EINVAL;
		if (off >= size)
			return -ENXIO;
		if (n->writers) {
			*out = whence == SEEK_DATA ? off : size;
			return 0;
		}
	}
	for (; off < size; off = part.end) {
		int ret = part_at(f->core, n, off, &part);

		if (ret)
			return ret;
		*out = part_seek(&part, off, whence == SEEK_DATA);
		if (*out < part.end && *out < size)
			return 0;
	}
	*out = size;
	return whence == SEEK_DATA ? -ENXIO : 0;
}

/* --- allocating --------------------------------------------------------------------------------------------------- */

/* Bytes of [off, end) that nothing is stored for. */
static int count_holes(struct core *c, struct node *n, uint64_t off, uint64_t end, uint64_t *bytes)
{
	struct part part;

	*bytes = end - off;
	for (; off < end; off = part.end) {
		int ret = part_at(c, n, off, &part);

		if (ret)
			return ret;
		for (size_t i = 0; i < part.n; i++) {
			const struct index_extent *x = &part.x[i];
			uint64_t from = x->off > off ? x->off : off;
			uint64_t to = min_u64(x->off + x->len, min_u64(part.end, end));

			*bytes -= from < to ? to - from : 0;
		}
	}
	return 0;
}

/* Nothing can be set aside for data of which the compressed size is not known: what certainly does not fit now is
 * refused. */
static int allocate(struct core *c, struct node *n, uint64_t off, uint64_t end)
{
	struct core_statfs s;
	uint64_t missing = end - off;
	int ret = core_statfs(c, &s);

	if (!ret && missing / s.block_size >= s.avail)
		ret = count_holes(c, n, off, end, &missing);
	if (ret)
		return ret;
	return missing && missing / s.block_size >= s.avail ? -ENOSPC : 0;
}

/* --- holes -------------------------------------------------------------------------------------------------------- */

/* What st_blocks loses with [off, end). Under n->lock. */
static void blocks_leave(struct core *c, struct node *n, uint64_t off, uint64_t end)
{
	uint64_t stored = 0, pending = 0, least = off || end < n->attr.size;
	struct piece *p;

	for (unsigned i = 0; i < BLOCKS_STEPS && off < end && !data_piece(c, n, off, &p); i++) {
		uint64_t stop = min_u64(p->off + p->len, end);
		struct chunk *k;

		if (p->kind != PIECE_HOLE && p->dirty) {
			pending += stop - off;
		} else if (p->kind == PIECE_EXTENT && !chunk_get(c, p->chunk, &k)) {
			stored += (stop - off) * k->p->stored_len / k->p->plain_len;
			chunk_put(c, k);
		}
		off = stop;
	}
	n->pending_bytes -= pending < n->pending_bytes ? pending : n->pending_bytes;
	if (n->attr.blocks)
		n->attr.blocks = n->attr.blocks > stored / 512 + least ? n->attr.blocks - stored / 512 : least;
}

/* Under n->lock. */
static int punch(struct core *c, struct node *n, uint64_t off, uint64_t end)
{
	end = end < n->attr.size ? end : n->attr.size;
	if (off >= end)
		return 0;
	blocks_leave(c, n, off, end);
	return data_set_hole(c, n, off, end - off);
}

int core_file_fallocate(struct core_file *f, int mode, uint64_t off, uint64_t len, unsigned flags)
{
	struct core *c = f->core;
	struct node *n = f->node;
	bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
	int what = mode & ~FALLOC_FL_KEEP_SIZE, ret = core_may_write(c);

	core_busy(c);
	if (ret)
		return ret;
	if ((what && what != FALLOC_FL_ZERO_RANGE && what != FALLOC_FL_PUNCH_HOLE) ||
	    (what == FALLOC_FL_PUNCH_HOLE && !keep_size))
		return -EOPNOTSUPP;
	if (!len)
		return -EINVAL;
	if (off >= CORE_SIZE_MAX || len > CORE_SIZE_MAX - off)
		return -EFBIG;
	if (!what)
		ret = allocate(c, n, off, off + len);
	if (ret)
		return ret;
	SCOPED_LOCK(&n->lock);
	ret = data_kill_priv(c, n, flags);
	if (!ret && what)
		ret = punch(c, n, off, off + len);
	if (ret)
		return ret;
	if (!keep_size && off + len > n->attr.size)
		n->attr.size = off + len;
	if (!(flags & CORE_KEEP_TIMES))
		n->attr.mtime = n->attr.ctime = core_now(c);
	node_touch(c, n);
	return 0;
}
