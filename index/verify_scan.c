/*
 * The steps of index_verify that count the rows of one table for each row of another. SQLite would sort the whole of
 * it in memory; here the rows that are counted for are taken a batch at a time, in order of their number, and the
 * counted table is read once a batch.
 */
#include "index/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BATCH 2000000u

/* --- a batch ------------------------------------------------------------------------------------------------------ */

/* A row that others are counted for. */
struct item {
	uint64_t id;
	uint64_t a, b;           /* of an inode: parent, entries; of a segment: live bytes, said and found */
	uint32_t mode;           /* of a chunk: its plaintext length */
	uint32_t links;          /* of a chunk: its extents; of a segment: its chunks */
	uint32_t found, subdirs; /* counted */
};

struct batch {
	struct item *item;
	size_t n, room;
	uint64_t first, last; /* the numbers it speaks for; the last batch for all that are left */
	size_t hint;
};

static int batch_add(struct batch *b, const struct item *item)
{
	if (b->n == b->room) {
		size_t room = b->room ? 2 * b->room : 256;
		struct item *bigger = realloc(b->item, room * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		b->item = bigger;
		b->room = room;
	}
	b->item[b->n++] = *item;
	return 0;
}

/* NULL when no row of the batch has the number; *outside when it is another batch's. */
static struct item *batch_find(struct batch *b, uint64_t id, bool *outside)
{
	size_t lo = 0, hi = b->n;

	*outside = id < b->first || id > b->last;
	if (*outside)
		return NULL;
	if (b->hint < b->n && b->item[b->hint].id == id) /* neighbours ask for the same */
		return &b->item[b->hint];
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (b->item[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	b->hint = lo;
	return lo < b->n && b->item[lo].id == id ? &b->item[lo] : NULL;
}

/* Fills the batch with the rows after the one before it, read by `fill`, and has `count` read the other table and
 * `judge` look at each row; until there are no more. */
struct counting {
	const char *sql; /* rows with a number above ?1 */
	void (*fill)(struct verify *vf, sqlite3_stmt *st, struct item *item);
	int (*count)(struct verify *vf, struct batch *b, bool first);
	void (*judge)(struct verify *vf, const struct item *item);
};

static int batch_fill(struct verify *vf, const struct counting *c, struct batch *b)
{
	SCOPED_FINALIZE st = NULL;
	int ret = verify_prepare(vf, c->sql, &st);

	b->n = 0;
	b->hint = 0;
	if (st)
		stmt_bind(st, 1, b->first - 1);
	while (!ret && b->n < BATCH && (ret = verify_row(vf, st)) > 0) {
		struct item item = {0};

		c->fill(vf, st, &item);
		ret = batch_add(b, &item);
	}
	b->last = b->n == BATCH ? b->item[b->n - 1].id : UINT64_MAX;
	return ret;
}

static int count_all(struct verify *vf, const struct counting *c)
{
	struct batch b = {.first = 1};
	bool first = true, last = false;
	int ret = 0;

	while (!ret && !last) {
		ret = batch_fill(vf, c, &b);
		last = b.last == UINT64_MAX;
		if (!ret)
			ret = c->count(vf, &b, first);
		for (size_t i = 0; i < b.n && !ret; i++)
			c->judge(vf, &b.item[i]);
		b.first = b.last + 1;
		first = false;
	}
	free(b.item);
	return ret;
}

/* --- extents and chunks ------------------------------------------------------------------------------------------- */

static void chunk_fill(struct verify *vf, sqlite3_stmt *st, struct item *item)
{
	item->id = stmt_u64(st, 0);
	item->links = stmt_u32(st, 1);
	item->mode = stmt_u32(st, 2);
	item->a = stmt_u64(st, 4);
	vf->totals->chunks++;
	vf->totals->stored += stmt_u64(st, 3);
}

static void extent_overlap(struct verify *vf, uint64_t ino, uint64_t off, uint64_t len, uint64_t before)
{
	if (!len || off > INDEX_OFFSET_MAX || len > INDEX_OFFSET_MAX - off)
		verify_finding(vf, "impossible extent of inode %" PRIu64, ino);
	else if (off < before)
		verify_finding(vf, "overlapping extents of inode %" PRIu64, ino);
}

static int extent_count(struct verify *vf, struct batch *b, bool first)
{
	SCOPED_FINALIZE st = NULL;
	uint64_t ino = 0, before = 0;
	int ret = verify_prepare(vf, "SELECT ino, off, len, chunk, chunk_off FROM extent ORDER BY ino, off", &st);

	while (!ret && (ret = verify_row(vf, st)) > 0) {
		uint64_t off = stmt_u64(st, 1), len = stmt_u64(st, 2), chunk = stmt_u64(st, 3);
		uint64_t chunk_off = stmt_u64(st, 4);
		bool outside;
		struct item *c = batch_find(b, chunk, &outside);

		if (stmt_u64(st, 0) != ino)
			before = 0;
		ino = stmt_u64(st, 0);
		if (first) {
			vf->totals->extents++;
			extent_overlap(vf, ino, off, len, before);
		}
		before = off + len;
		if (c) {
			c->found++;
			c->b += len;
			if (chunk_off > c->mode || len > c->mode - chunk_off)
				verify_finding(vf, "extent beyond the end of chunk %" PRIu64 ", of inode %" PRIu64,
				               chunk, ino);
		} else if (!outside) {
			verify_finding(vf, "extent of chunk %" PRIu64 ", which has no row, of inode %" PRIu64, chunk,
			               ino);
		}
		ret = 0;
	}
	return ret;
}

static void chunk_judge(struct verify *vf, const struct item *c)
{
	if (c->found != c->links)
		verify_finding(vf, "chunk %" PRIu64 " counts %u extents and has %u", c->id, c->links, c->found);
	else if (!c->found)
		verify_finding(vf, "chunk %" PRIu64 " has no extents", c->id);
	else if (c->a != c->b)
		verify_finding(vf, "chunk %" PRIu64 " counts %" PRIu64 " mapped bytes and has %" PRIu64, c->id, c->a,
		               c->b);
}

int verify_extents(struct verify *vf)
{
	static const struct counting c = {
	    "SELECT id, refs, plain_len, stored_len, mapped FROM chunk WHERE id > ?1 ORDER BY id", chunk_fill,
	    extent_count, chunk_judge};

	return count_all(vf, &c);
}

/* --- segments and chunks ------------------------------------------------------------------------------------------ */

static void segment_fill(struct verify *vf, sqlite3_stmt *st, struct item *item)
{
	item->id = stmt_u64(st, 0);
	item->links = stmt_u32(st, 1);
	item->a = stmt_u64(st, 2);
	vf->totals->segments++;
}

static int segment_count(struct verify *vf, struct batch *b, bool first)
{
	SCOPED_FINALIZE st = NULL;
	int ret = verify_prepare(
	    vf,
	    "SELECT segment, (stored_len * min(mapped, plain_len) + plain_len - 1) / plain_len FROM chunk "
	    "WHERE refs > 0 AND plain_len > 0",
	    &st);

	(void)first;
	while (!ret && (ret = verify_row(vf, st)) > 0) {
		bool outside;
		struct item *s = batch_find(b, stmt_u64(st, 0), &outside);

		if (s) {
			s->found++;
			s->b += stmt_u64(st, 1);
		}
		ret = 0;
	}
	return ret;
}

static void segment_judge(struct verify *vf, const struct item *s)
{
	if (s->found != s->links || s->a != s->b)
		verify_finding(
		    vf, "segment %" PRIu64 " counts %u chunks with %" PRIu64 " live bytes and has %u with %" PRIu64,
		    s->id, s->links, s->a, s->found, s->b);
}

int verify_segments(struct verify *vf)
{
	static const struct counting c = {"SELECT id, chunks, live FROM segment WHERE id > ?1 ORDER BY id",
	                                  segment_fill, segment_count, segment_judge};

	return count_all(vf, &c);
}

/* --- names and inodes --------------------------------------------------------------------------------------------- */

static void inode_fill(struct verify *vf, sqlite3_stmt *st, struct item *item)
{
	item->id = stmt_u64(st, 0);
	item->mode = stmt_u32(st, 1);
	item->links = stmt_u32(st, 2);
	item->a = stmt_u64(st, 3);
	item->b = S_ISDIR(item->mode) ? stmt_u64(st, 4) : 0;
	vf->totals->inodes++;
	vf->totals->orphans += !item->links;
}

static void name_child(struct verify *vf, struct batch *b, uint64_t parent, uint64_t ino, uint64_t type)
{
	bool outside;
	struct item *i = batch_find(b, ino, &outside);

	if (!i) {
		if (!outside)
			verify_finding(vf, "name of inode %" PRIu64 ", which has no row, in directory %" PRIu64, ino,
			               parent);
		return;
	}
	i->found++;
	if (!vf->v->tree)
		return;
	if (type != (i->mode & S_IFMT) >> 12)
		verify_finding(vf, "name of inode %" PRIu64 " with another type than it has, in directory %" PRIu64,
		               ino, parent);
	if (S_ISDIR(i->mode) && i->a != parent)
		verify_finding(vf, "directory %" PRIu64 " is in %" PRIu64 " and says it is in %" PRIu64, ino, parent,
		               i->a);
}

/* Entries are counted down from what the directory's row says. */
static void name_parent(struct verify *vf, struct batch *b, uint64_t parent, uint64_t type)
{
	bool outside;
	struct item *i = batch_find(b, parent, &outside);

	if (i) {
		i->b--;
		i->subdirs += type == S_IFDIR >> 12;
		if (vf->v->tree && !S_ISDIR(i->mode))
			verify_finding(vf, "name in inode %" PRIu64 ", which is no directory", parent);
	} else if (!outside) {
		verify_finding(vf, "name in directory %" PRIu64 ", which has no row", parent);
	}
}

static int name_count(struct verify *vf, struct batch *b, bool first)
{
	SCOPED_FINALIZE st = NULL;
	int ret = verify_prepare(vf, "SELECT parent, ino, type FROM dirent ORDER BY parent, name", &st);

	while (!ret && (ret = verify_row(vf, st)) > 0) {
		vf->totals->names += first;
		name_child(vf, b, stmt_u64(st, 0), stmt_u64(st, 1), stmt_u64(st, 2));
		name_parent(vf, b, stmt_u64(st, 0), stmt_u64(st, 2));
		ret = 0;
	}
	return ret;
}

static void inode_judge(struct verify *vf, const struct item *i)
{
	if (!S_ISDIR(i->mode)) {
		if (i->found != i->links)
			verify_finding(vf, "inode %" PRIu64 " counts %u links and has %u names", i->id, i->links,
			               i->found);
		return;
	}
	if (i->found > 1)
		verify_finding(vf, "directory %" PRIu64 " has more than one name", i->id);
	if (!vf->v->tree)
		return;
	if (i->id != 1 && !i->found != !i->links)
		verify_finding(vf, "directory %" PRIu64 " counts %u links and has %u names", i->id, i->links, i->found);
	if (i->links && i->b)
		verify_finding(vf, "directory %" PRIu64 " counts another number of entries than it has", i->id);
	if (i->links && i->links != 2 + i->subdirs)
		verify_finding(vf, "directory %" PRIu64 " counts %u links and has %u directories", i->id, i->links,
		               i->subdirs);
}

int verify_names(struct verify *vf)
{
	static const struct counting c = {
	    "SELECT ino, mode, nlink, parent, size FROM inode WHERE ino > ?1 ORDER BY ino", inode_fill, name_count,
	    inode_judge};

	return count_all(vf, &c);
}

/* --- the tree ----------------------------------------------------------------------------------------------------- */

/* Of a directory, in the place of its mode. */
enum { UNKNOWN = 0, WALKING = 1, HANGS = 2, LOST = 3 };

/* Follows the parents of a directory to one whose state is known, and gives all on the way that state. */
static void directory_follow(struct verify *vf, struct batch *b, struct item *start)
{
	struct item *i = start;
	uint32_t state;
	bool outside;

	while (i && i->mode == UNKNOWN) {
		i->mode = WALKING;
		i = batch_find(b, i->a, &outside);
	}
	state = i && i->mode == HANGS ? HANGS : LOST;
	if (i && i->mode == WALKING)
		verify_finding(vf, "directory %" PRIu64 " lies in itself", i->id);
	else if (!i)
		verify_finding(vf, "directory %" PRIu64 " is not below the root", start->id);
	for (i = start; i && i->mode == WALKING; i = batch_find(b, i->a, &outside))
		i->mode = state;
}

int verify_directories(struct verify *vf)
{
	static const char sql[] =
	    "SELECT ino, parent FROM inode WHERE (mode & 61440) = 16384 AND nlink > 0 ORDER BY ino";
	struct batch b = {.last = UINT64_MAX};
	SCOPED_FINALIZE st = NULL;
	int ret = verify_prepare(vf, sql, &st);

	while (!ret && (ret = verify_row(vf, st)) > 0) {
		struct item item = {.id = stmt_u64(st, 0), .a = stmt_u64(st, 1)};

		item.mode = item.id == 1 ? HANGS : UNKNOWN;
		ret = batch_add(&b, &item);
	}
	for (size_t i = 0; i < b.n && !ret; i++)
		if (b.item[i].mode == UNKNOWN)
			directory_follow(vf, &b, &b.item[i]);
	free(b.item);
	return ret;
}
