#include "fs/core/map.h"

#include "fs/core/buffer.h"

#include <errno.h>
#include <stdlib.h>

static int piece_cmp(const struct piece *a, const struct piece *b)
{
	return a->off < b->off ? -1 : a->off > b->off;
}

/* libbsd's static variant relies on a macro that glibc lacks. */
RB_GENERATE_INTERNAL(map_tree, piece, link, piece_cmp, __attribute__((unused)) static)

static uint64_t piece_end(const struct piece *p)
{
	return p->off + p->len;
}

void map_init(struct map *m, atomic_size_t *all)
{
	RB_INIT(&m->tree);
	TAILQ_INIT(&m->dirty_list);
	m->count = 0;
	m->dirty = 0;
	m->all = all;
}

static void piece_clean(struct map *m, struct piece *p)
{
	if (!p->dirty)
		return;
	p->dirty = false;
	m->dirty--;
	TAILQ_REMOVE(&m->dirty_list, p, on_dirty);
}

static void piece_remove(struct map *m, struct piece *p)
{
	RB_REMOVE(map_tree, &m->tree, p);
	m->count--;
	if (m->all)
		atomic_fetch_sub_explicit(m->all, 1, memory_order_relaxed);
	piece_clean(m, p);
	if (p->buffer)
		buffer_unref(p->buffer);
	free(p);
}

static void piece_insert(struct map *m, struct piece *p)
{
	RB_INSERT(map_tree, &m->tree, p);
	m->count++;
	if (m->all)
		atomic_fetch_add_explicit(m->all, 1, memory_order_relaxed);
	if (!p->dirty)
		return;
	m->dirty++;
	TAILQ_INSERT_TAIL(&m->dirty_list, p, on_dirty);
}

void map_release(struct map *m)
{
	struct piece *p, *next;

	RB_FOREACH_SAFE (p, map_tree, &m->tree, next)
		piece_remove(m, p);
}

/* The last one when p is NULL. */
static struct piece *piece_before(struct map *m, struct piece *p)
{
	return p ? RB_PREV(map_tree, &m->tree, p) : RB_MAX(map_tree, &m->tree);
}

struct piece *map_find(struct map *m, uint64_t off)
{
	struct piece key = {.off = off};
	struct piece *p = RB_NFIND(map_tree, &m->tree, &key);
	struct piece *before;

	if (p && p->off == off)
		return p;
	before = piece_before(m, p);
	return before && piece_end(before) > off ? before : p;
}

struct piece *map_next(struct piece *p)
{
	return RB_NEXT(map_tree, NULL, p);
}

uint64_t map_gap(struct map *m, struct piece *next)
{
	struct piece *before = piece_before(m, next);

	return before ? piece_end(before) : 0;
}

struct piece *map_before(struct map *m, uint64_t off)
{
	struct piece *p = off ? map_find(m, off - 1) : NULL;

	return p && piece_end(p) == off ? p : NULL;
}

/* Moves a piece's start forward by n bytes; its order in the tree does not change. */
static void piece_advance(struct piece *p, uint64_t n)
{
	p->off += n;
	p->len -= n;
	if (p->kind != PIECE_HOLE)
		p->pos += (uint32_t)n;
}

/* Makes room: nothing covers [off, end) afterwards. spare is used, and set to NULL, if a piece must be split. */
static void carve(struct map *m, uint64_t off, uint64_t end, struct piece **spare)
{
	struct piece *p, *next;

	for (p = map_find(m, off); p && p->off < end; p = next) {
		next = map_next(p);
		if (p->off < off && piece_end(p) > end) {
			struct piece *right = *spare;

			*spare = NULL;
			*right = *p;
			if (right->buffer)
				buffer_ref(right->buffer);
			piece_advance(right, end - p->off);
			p->len = off - p->off;
			piece_insert(m, right);
			/* The tree owns right now. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
			return;
		}
		if (p->off < off)
			p->len = off - p->off;
		else if (piece_end(p) > end)
			piece_advance(p, end - p->off);
		else
			piece_remove(m, p);
	}
}

int map_set(struct map *m, const struct piece *like, struct piece **out)
{
	struct piece *p = malloc(sizeof(*p));
	struct piece *spare = malloc(sizeof(*spare));

	if (!p || !spare) {
		free(p);
		free(spare);
		return -ENOMEM;
	}
	carve(m, like->off, piece_end(like), &spare);
	*p = *like;
	piece_insert(m, p);
	free(spare);
	if (out)
		*out = p;
	return 0;
}

int map_clear(struct map *m, uint64_t off, uint64_t len)
{
	struct piece *spare = malloc(sizeof(*spare));

	if (!spare)
		return -ENOMEM;
	carve(m, off, off + len, &spare);
	free(spare);
	return 0;
}

int map_extend(struct map *m, struct piece *p, uint64_t n)
{
	int ret = map_clear(m, piece_end(p), n);

	if (!ret)
		p->len += n;
	return ret;
}

void map_forget(struct map *m, uint64_t off, uint64_t len, uint64_t chunk)
{
	struct piece *p, *next;

	for (p = map_find(m, off); p && p->off < off + len; p = next) {
		next = map_next(p);
		if (p->kind == PIECE_EXTENT && !p->dirty && p->chunk == chunk)
			piece_remove(m, p);
	}
}

void map_seal(struct map *m, struct piece *p, uint64_t chunk, uint32_t pos)
{
	struct piece *before = RB_PREV(map_tree, &m->tree, p);

	buffer_unref(p->buffer);
	p->buffer = NULL;
	p->kind = PIECE_EXTENT;
	p->chunk = chunk;
	p->pos = pos;
	p->sealing = false;
	if (!before || before->kind != PIECE_EXTENT || piece_end(before) != p->off || before->chunk != chunk ||
	    before->pos + before->len != pos || before->dirty != p->dirty || before->cut != p->cut)
		return;
	before->len += p->len;
	piece_remove(m, p);
}

void map_cut_done(struct map *m, uint64_t cut, bool installed)
{
	struct piece *p, *next;

	for (p = TAILQ_FIRST(&m->dirty_list); p; p = next) {
		next = TAILQ_NEXT(p, on_dirty);
		if (p->cut != cut)
			continue;
		p->cut = 0;
		if (installed)
			piece_clean(m, p);
	}
}

void map_drop_clean(struct map *m)
{
	struct piece *p, *next;

	RB_FOREACH_SAFE (p, map_tree, &m->tree, next)
		if (!p->dirty)
			piece_remove(m, p);
}
