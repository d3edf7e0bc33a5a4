/* Ranges of a file: where its data and its holes are, allocating, and making holes. */
#include "fs/core/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#define MAP_SEEN     65536u /* clean pieces that a walk may leave in a map */
#define BLOCKS_STEPS 64u    /* pieces that a new hole asks about at once: the cut that stores it knows exactly */

static uint64_t piece_stop(const struct piece *p, uint64_t end)
{
	return p->off + p->len < end ? p->off + p->len : end;
}

/* --- data and holes ----------------------------------------------------------------------------------------------- */

bool core_file_is_written(struct core_file *f)
{
	SCOPED_LOCK(&f->node->lock);
	return f->node->writers;
}

int core_file_seek(struct core_file *f, uint64_t off, int whence, uint64_t *out)
{
	struct node *n = f->node;

	SCOPED_LOCK(&n->lock);
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (off >= n->attr.size)
		return -ENXIO;
	if (n->writers) {
		*out = whence == SEEK_DATA ? off : n->attr.size;
		return 0;
	}
	while (off < n->attr.size) {
		struct piece *p;
		int ret = data_piece(f->core, n, off, &p);

		if (ret)
			return ret;
		if ((p->kind != PIECE_HOLE) == (whence == SEEK_DATA)) {
			*out = off;
			return 0;
		}
		off = p->off + p->len;
		if (n->map.count - n->map.dirty > MAP_SEEN)
			map_drop_clean(&n->map);
	}
	if (whence == SEEK_DATA)
		return -ENXIO;
	*out = n->attr.size;
	return 0;
}

/* --- allocating --------------------------------------------------------------------------------------------------- */

/* Bytes of [off, end) that nothing is stored for. */
static int count_holes(struct core *c, struct node *n, uint64_t off, uint64_t end, uint64_t *bytes)
{
	SCOPED_LOCK(&n->lock);
	uint64_t size = n->attr.size, stop = end < size ? end : size;

	*bytes = off < stop ? end - stop : end - off;
	while (off < stop) {
		struct piece *p;
		int ret = data_piece(c, n, off, &p);

		if (ret)
			return ret;
		if (p->kind == PIECE_HOLE)
			*bytes += piece_stop(p, stop) - off;
		off = piece_stop(p, stop);
		if (n->map.count - n->map.dirty > MAP_SEEN)
			map_drop_clean(&n->map);
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
		uint64_t stop = piece_stop(p, end);
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
	n->attr.mtime = n->attr.ctime = core_now(c);
	node_touch(c, n);
	return 0;
}
