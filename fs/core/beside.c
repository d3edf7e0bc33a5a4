/* What a frame was decoded for in vain, unless somebody takes it. */
#include "fs/core/volume.h"

#include <string.h>

/* Copies what the frame that holds *off has of an extent, if it is decoded; *off becomes where that begins. */
static size_t copy_decoded(struct core *c, const struct piece *p, uint64_t *off, void *buf, size_t len)
{
	uint32_t end = p->pos + (uint32_t)p->len;
	struct cached_frame *f;
	struct chunk *k;
	const uint8_t *data;

	if (chunk_get(c, p->chunk, &k))
		return 0;
	uint32_t frame = chunk_frame_at(k, p->pos + (uint32_t)(*off - p->off));
	uint32_t lo = k->start[frame] > p->pos ? k->start[frame] : p->pos;
	uint32_t hi = k->start[frame + 1] < end ? k->start[frame + 1] : end;
	size_t n = hi > lo && hi - lo <= len ? hi - lo : 0;

	if (n && frame_cache_peek(c, k->id, frame, &f, &data)) {
		memcpy(buf, data + (lo - k->start[frame]), n);
		frame_cache_put(c, f);
		*off = p->off + (lo - p->pos);
	} else {
		n = 0;
	}
	chunk_put(c, k);
	return n;
}

/* The extent that holds off, when what it says stays so: nobody can write. */
static bool find_extent(struct core *c, struct node *n, uint64_t off, struct piece *out)
{
	struct piece *p;

	SCOPED_LOCK(&n->lock);
	if (n->writers || n->streak || off >= n->attr.size || data_piece(c, n, off, &p) || p->kind != PIECE_EXTENT)
		return false;
	*out = *p;
	out->len = min_u64(out->len, n->attr.size - out->off);
	return true;
}

size_t core_read_beside(struct core *c, uint64_t ino, uint64_t *off, void *buf, size_t len)
{
	struct node *n;
	struct piece p;
	size_t got = 0;

	if (node_get(c, ino, &n))
		return 0;
	if (find_extent(c, n, *off, &p))
		got = copy_decoded(c, &p, off, buf, len);
	node_put(c, n);
	return got;
}
