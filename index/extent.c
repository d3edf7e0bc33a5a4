#include "index/db.h"

#include <errno.h>

/*
 * The extents of a file do not overlap, so those that begin below an offset, in descending order, end in descending
 * order too: walking down from `to` until one ends at or before `from` sees exactly what overlaps [from, to), and the
 * predecessor right after.
 */

#define SPAN_MAX 64

/* What overlaps a range: the extents in descending order. */
struct span {
	struct index_extent x[SPAN_MAX];
	size_t n;
	bool more;                  /* there are more below x[n - 1] */
	struct index_extent before; /* the extent that ends exactly where the range begins; len 0 if none */
};

static uint64_t end_of(const struct index_extent *x)
{
	return x->off + x->len;
}

static int extent_read(sqlite3_stmt *st, struct index_extent *x)
{
	*x = (struct index_extent){
	    .off = stmt_u64(st, 0),
	    .len = stmt_u64(st, 1),
	    .chunk = stmt_u64(st, 2),
	    .chunk_off = stmt_u32(st, 3),
	};
	if (x->off > INDEX_OFFSET_MAX || !x->len || x->len > INDEX_OFFSET_MAX - x->off ||
	    stmt_u64(st, 3) + x->len > UINT32_MAX || stmt_u64(st, 3) > UINT32_MAX)
		return index_damaged("an extent's range");
	return 0;
}

int index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out, size_t max,
                      size_t *n)
{
	struct index_extent x;
	int ret = 0;

	*n = 0;
	if (to > INDEX_OFFSET_MAX)
		to = INDEX_OFFSET_MAX;
	if (from >= to)
		return 0;
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_EXTENT_LIST);
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, ino);
	stmt_bind(st, 2, from);
	stmt_bind(st, 3, to);
	while (*n < max && (ret = stmt_row(ix, st)) > 0) {
		ret = extent_read(st, &x);
		if (ret)
			return ret;
		if (end_of(&x) > from)
			out[(*n)++] = x;
	}
	return ret < 0 ? ret : 0;
}

static int span_read(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct span *s)
{
	SCOPED_STMT st = stmt_get(ix, STMT_EXTENT_BELOW);
	struct index_extent x;
	int ret;

	s->n = 0;
	s->more = false;
	s->before.len = 0;
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, ino);
	stmt_bind(st, 2, to);
	while ((ret = stmt_row(ix, st)) > 0) {
		ret = extent_read(st, &x);
		if (ret)
			return ret;
		if (end_of(&x) <= from) {
			if (end_of(&x) == from)
				s->before = x;
			return 0;
		}
		if (s->n == SPAN_MAX) {
			s->more = true;
			return 0;
		}
		s->x[s->n++] = x;
	}
	return ret;
}

/* --- one statement each ------------------------------------------------------------------------------------------- */

/* Runs a statement whose parameters are an extent's columns. */
static int extent_run(struct index *ix, enum stmt which, uint64_t ino, const struct index_extent *x)
{
	sqlite3_stmt *st = stmt_get(ix, which);

	stmt_bind(st, 1, ino);
	stmt_bind(st, 2, x->off);
	stmt_bind(st, 3, x->len);
	stmt_bind(st, 4, x->chunk);
	stmt_bind(st, 5, x->chunk_off);
	return stmt_run(ix, st);
}

static int extent_insert(struct index *ix, uint64_t ino, const struct index_extent *x)
{
	int ret = extent_run(ix, STMT_EXTENT_INSERT, ino, x);

	/* Two extents at one offset cannot be: the file's map is damaged. */
	return ret == -EEXIST ? index_fail(ix, index_damaged("extents that overlap")) : ret;
}

static int extent_set_length(struct index *ix, uint64_t ino, uint64_t off, uint64_t len)
{
	sqlite3_stmt *st = stmt_get(ix, STMT_EXTENT_LENGTH);

	stmt_bind(st, 1, ino);
	stmt_bind(st, 2, off);
	stmt_bind(st, 3, len);
	return stmt_run(ix, st);
}

static int extent_remap(struct index *ix, uint64_t ino, const struct index_extent *x)
{
	return extent_run(ix, STMT_EXTENT_MAP, ino, x);
}

/* Removes the extents that begin in [from, to), of which there are n. */
static int extent_delete(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, size_t n)
{
	if (!n)
		return 0;
	sqlite3_stmt *st = stmt_get(ix, n == 1 ? STMT_EXTENT_DELETE : STMT_EXTENT_DELETE_RANGE);
	stmt_bind(st, 1, ino);
	stmt_bind(st, 2, from);
	if (n > 1)
		stmt_bind(st, 3, to);
	return stmt_run(ix, st);
}

/* --- replacing ---------------------------------------------------------------------------------------------------- */

static bool continues(const struct index_extent *before, uint64_t before_len, const struct index_extent *x)
{
	return before->chunk == x->chunk && before->chunk_off + before_len == x->chunk_off;
}

/* Makes sure that counting cannot fail once rows have changed. */
static int span_reserve_counts(struct index *ix, const struct span *s, const struct index_extent *x, bool stored)
{
	for (size_t i = 0; i < s->n; i++) {
		struct count *c = count_get(ix, s->x[i].chunk);
		int ret = !c ? -ENOMEM : stored ? count_know(ix, c) : 0;

		if (ret)
			return ret;
	}
	return x->chunk && !count_get(ix, x->chunk) ? -ENOMEM : 0;
}

static void count_change(struct index *ix, uint64_t chunk, int64_t extents, int64_t mapped)
{
	struct count *c = count_get(ix, chunk);

	if (c)
		count_add(c, extents, mapped);
}

static uint64_t stored_bytes(struct index *ix, uint64_t chunk, int64_t mapped)
{
	struct count *c = count_get(ix, chunk);

	return c ? count_stored(c, (uint64_t)mapped) : 0;
}

/* Bytes of x in [from, to), which it overlaps. */
static int64_t overlap(const struct index_extent *x, uint64_t from, uint64_t to)
{
	uint64_t start = x->off > from ? x->off : from, end = end_of(x) < to ? end_of(x) : to;

	return (int64_t)(end - start);
}

/* Puts x, whose range is [from, to) or, for what lies above to, already free, in the place of the span of [from, to).
 * With chunk 0 it only clears. At most: cut the extent at the left, remove those inside, add the rest of the one at
 * the right, add or join x. gone may be NULL. */
static int span_replace(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, const struct span *s,
                        const struct index_extent *x, uint64_t *gone)
{
	const struct index_extent *high = s->n ? &s->x[0] : NULL, *low = s->n ? &s->x[s->n - 1] : NULL;
	const struct index_extent *before = s->before.len ? &s->before : NULL;
	uint64_t before_len = s->before.len;
	bool cut = low && low->off < from;
	size_t inside = s->n - (cut ? 1 : 0);

	int ret = span_reserve_counts(ix, s, x, gone != NULL);
	if (ret)
		return ret;
	if (cut) {
		before = low;
		before_len = from - low->off;
	}
	bool join = x->chunk && before && continues(before, before_len, x);
	/* An extent that begins where x does is changed in place. */
	bool in_place = x->chunk && !join && low && low->off == from;

	if (join)
		ret = extent_set_length(ix, ino, before->off, before_len + x->len);
	else if (cut)
		ret = extent_set_length(ix, ino, before->off, before_len);
	for (size_t i = 0; i < s->n; i++) {
		int64_t bytes = overlap(&s->x[i], from, to);

		if (gone)
			*gone += stored_bytes(ix, s->x[i].chunk, bytes);
		count_change(ix, s->x[i].chunk, i < inside ? -1 : 0, -bytes);
	}
	if (!ret && in_place && inside > 1)
		ret = extent_delete(ix, ino, s->x[inside - 2].off, to, inside - 1);
	else if (!ret && !in_place && inside)
		ret = extent_delete(ix, ino, s->x[inside - 1].off, to, inside);
	if (!ret && high && end_of(high) > to) {
		struct index_extent rest = {to, end_of(high) - to, high->chunk,
		                            high->chunk_off + (uint32_t)(to - high->off)};
		ret = extent_insert(ix, ino, &rest);
		count_change(ix, rest.chunk, 1, 0);
	}
	if (!ret && x->chunk) {
		if (!join)
			ret = in_place ? extent_remap(ix, ino, x) : extent_insert(ix, ino, x);
		count_change(ix, x->chunk, !join, (int64_t)x->len);
	}
	return ret;
}

static int extent_replace(struct index *ix, uint64_t ino, const struct index_extent *x, uint64_t *gone)
{
	static const struct index_extent hole;
	uint64_t to = end_of(x);
	struct span s;

	/* A range with many extents is cleared from its end, some at a time. */
	for (bool begun = false;; begun = true) {
		int ret = span_read(ix, ino, x->off, to, &s);
		if (ret)
			return begun ? index_fail(ix, ret) : ret;
		if (!s.more) {
			ret = span_replace(ix, ino, x->off, to, &s, x, gone);
			return ret && begun ? index_fail(ix, ret) : ret;
		}
		uint64_t from = s.x[s.n - 1].off;
		ret = span_replace(ix, ino, from, to, &s, &hole, gone);
		if (ret)
			return begun ? index_fail(ix, ret) : ret;
		to = from;
	}
}

int index_extent_set(struct index *ix, uint64_t ino, const struct index_extent *x)
{
	return index_extent_replace(ix, ino, x, NULL);
}

int index_extent_replace(struct index *ix, uint64_t ino, const struct index_extent *x, uint64_t *gone)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	if (x->off > INDEX_OFFSET_MAX || x->len > INDEX_OFFSET_MAX - x->off ||
	    (x->chunk && x->chunk_off + x->len > UINT32_MAX))
		return -EINVAL;
	if (!x->len)
		return 0;
	ret = extent_replace(ix, ino, x, gone);
	write_end(ix);
	return ret;
}

int extent_clear(struct index *ix, uint64_t ino)
{
	const struct index_extent all = {.len = INDEX_OFFSET_MAX};

	return extent_replace(ix, ino, &all, NULL);
}

/* --- compaction --------------------------------------------------------------------------------------------------- */

int index_chunk_extents(struct index *ix, uint64_t chunk, uint64_t ino, uint64_t off, struct index_owned_extent *out,
                        size_t max, size_t *n)
{
	int ret = 0;

	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_EXTENT_OF_CHUNK);
	*n = 0;
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, chunk);
	stmt_bind(st, 2, ino);
	stmt_bind(st, 3, off);
	while (*n < max && (ret = stmt_row(ix, st)) > 0) {
		ret = extent_read(st, &out[*n].x);
		if (ret)
			return ret;
		out[(*n)++].ino = stmt_u64(st, 4);
	}
	return ret < 0 ? ret : 0;
}

/* The next bytes of the file, from *off on, that are mapped as m says: *x is what they become, len 0 at the end. */
static int move_next(struct index *ix, const struct index_move *m, uint64_t *off, struct index_extent *x)
{
	uint64_t end = m->off + m->len;
	struct index_extent found;
	int ret;

	x->len = 0;
	SCOPED_STMT st = stmt_get(ix, STMT_EXTENT_LIST);
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, m->ino);
	stmt_bind(st, 2, *off);
	stmt_bind(st, 3, end);
	while ((ret = stmt_row(ix, st)) > 0) {
		ret = extent_read(st, &found);
		if (ret)
			return ret;
		if (end_of(&found) <= *off || found.chunk != m->chunk || found.off - found.chunk_off != m->off - m->pos)
			continue;
		x->off = found.off > *off ? found.off : *off;
		x->len = (end_of(&found) < end ? end_of(&found) : end) - x->off;
		x->chunk = m->to;
		x->chunk_off = m->to_pos + (uint32_t)(x->off - m->off);
		*off = x->off + x->len;
		return 0;
	}
	return ret;
}

int index_extent_move(struct index *ix, const struct index_move *m, uint64_t *moved, uint64_t *gone)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	*moved = 0;
	if (ret)
		return ret;
	if (m->off > INDEX_OFFSET_MAX || m->len > INDEX_OFFSET_MAX - m->off || m->to_pos > UINT32_MAX - m->len)
		return -EINVAL;
	for (uint64_t off = m->off; off < m->off + m->len && !ret;) {
		struct index_extent x;

		ret = move_next(ix, m, &off, &x);
		if (ret || !x.len)
			break;
		ret = extent_replace(ix, m->ino, &x, gone);
		if (!ret)
			*moved += x.len;
	}
	write_end(ix);
	return ret;
}
