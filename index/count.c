/*
 * How many extents each chunk has, and how many bytes they map. Random overwrites change the counts of the same few
 * chunks again and again, so the changes gather here and reach chunk.refs, chunk.mapped, segment.live and
 * segment.chunks once a transaction.
 */
#define HASH_NONFATAL_OOM 1

#include "base/log.h"
#include "index/db.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <uthash.h>

struct count {
	uint64_t chunk;
	int64_t extents, mapped;
	uint64_t gone; /* bytes that extents mapped and do not any more */
	bool put;
	bool known, found; /* row was asked for, and is filled in */
	struct count_row row;
	UT_hash_handle hh;
};

struct segment_count {
	uint64_t segment;
	int64_t live, chunks;
	UT_hash_handle hh;
};

struct count *count_get(struct index *ix, uint64_t chunk)
{
	struct count *c = NULL;

	HASH_FIND(hh, ix->counts, &chunk, sizeof(chunk), c);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->chunk = chunk;
	HASH_ADD(hh, ix->counts, chunk, sizeof(c->chunk), c);
	if (!c->hh.tbl) {
		free(c);
		return NULL;
	}
	return c;
}

void count_add(struct count *c, int64_t extents, int64_t mapped)
{
	c->extents += extents;
	c->mapped += mapped;
	c->gone += mapped < 0 ? (uint64_t)-mapped : 0;
}

void count_put(struct count *c)
{
	c->put = true;
}

void count_forget(struct count *c)
{
	c->known = false;
}

int count_segment(struct index *ix, uint64_t segment, int64_t live, int64_t chunks)
{
	struct segment_count *s = NULL;

	HASH_FIND(hh, ix->segment_counts, &segment, sizeof(segment), s);
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return -ENOMEM;
		s->segment = segment;
		HASH_ADD(hh, ix->segment_counts, segment, sizeof(s->segment), s);
		if (!s->hh.tbl) {
			free(s);
			return -ENOMEM;
		}
	}
	s->live += live;
	s->chunks += chunks;
	return 0;
}

/* The stored bytes that a chunk is worth: those of its plaintext that extents map, as if all compressed alike. */
uint64_t count_live(uint64_t mapped, uint32_t stored_len, uint32_t plain_len)
{
	if (mapped >= plain_len)
		return mapped ? stored_len : 0;
	return (stored_len * mapped + plain_len - 1) / plain_len;
}

int count_row_get(struct index *ix, uint64_t chunk, struct count_row *row)
{
	SCOPED_STMT st = stmt_get(ix, STMT_CHUNK_COUNT_GET);

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, chunk);
	int ret = stmt_row(ix, st);
	if (ret > 0)
		*row = (struct count_row){.refs = stmt_u64(st, 0),
		                          .mapped = stmt_u64(st, 1),
		                          .segment = stmt_u64(st, 2),
		                          .stored_len = stmt_u32(st, 3),
		                          .plain_len = stmt_u32(st, 4),
		                          .is_inline = stmt_u64(st, 5) != 0};
	return ret;
}

int count_know(struct index *ix, struct count *c)
{
	if (c->known)
		return 0;
	int ret = count_row_get(ix, c->chunk, &c->row);
	if (ret < 0)
		return ret;
	c->known = true;
	c->found = ret > 0;
	return 0;
}

uint64_t count_stored(const struct count *c, uint64_t mapped)
{
	return c->known && c->found && c->row.plain_len ? mapped * c->row.stored_len / c->row.plain_len : 0;
}

static int chunk_delete(struct index *ix, uint64_t chunk, const struct count_row *row)
{
	if (row->is_inline) {
		sqlite3_stmt *data = stmt_get(ix, STMT_INLINE_DELETE);
		stmt_bind(data, 1, chunk);
		int ret = stmt_run(ix, data);
		if (ret)
			return ret;
	}
	sqlite3_stmt *st = stmt_get(ix, STMT_CHUNK_DELETE);
	stmt_bind(st, 1, chunk);
	int ret = stmt_run(ix, st);
	if (ret || !row->refs)
		return ret;
	return count_segment(ix, row->segment, -(int64_t)count_live(row->mapped, row->stored_len, row->plain_len), -1);
}

/* How much more of what the chunk counts as live may be dead after the transaction: all that is gone, as if nobody
 * shared it, but for what `live` shows; and what was dead before, where a clone of the rest makes the chunk count more.
 */
static uint64_t count_unsure(const struct count *c, const struct count_row *row, uint64_t mapped)
{
	uint64_t before = row->refs ? row->mapped : mapped + c->gone, plain = row->plain_len;

	/* Of a new chunk that is shared at once, what was overwritten before may never have been mapped. */
	if (!row->refs && before > plain)
		before = 0;
	uint64_t bytes = c->gone + (mapped < plain ? mapped : plain) - (before < plain ? before : plain);
	if (!bytes || !plain)
		return 0;
	return bytes >= plain ? row->stored_len : (bytes * row->stored_len + plain - 1) / plain;
}

static bool plausible(uint64_t count, int64_t change)
{
	return count <= INT64_MAX && (change >= 0 || (uint64_t)-change <= count);
}

static int count_apply(struct index *ix, struct count *c, struct err *e)
{
	int ret = count_know(ix, c);

	if (ret)
		return err_set(e, ret, ERR_INDEX, "reading chunk %" PRIu64 ": %s", c->chunk, err_text(NULL, ret));
	struct count_row row = c->row;
	if (!c->found) {
		if (c->extents > 0)
			return err_set(e, -EINVAL, ERR_USAGE, "an extent names chunk %" PRIu64 ", which has no row",
			               c->chunk);
		return 0; /* the row is lost: nothing to count any more */
	}
	if (!plausible(row.refs, c->extents) || !plausible(row.mapped, c->mapped)) {
		log_error("index: chunk %" PRIu64 " counts %" PRIu64 " extents, of which %" PRId64 " went", c->chunk,
		          row.refs, -c->extents);
		return err_set(e, -EIO, ERR_FORMAT, "the index miscounts the extents of chunk %" PRIu64, c->chunk);
	}
	uint64_t refs = row.refs + (uint64_t)c->extents, mapped = row.mapped + (uint64_t)c->mapped;
	if (!refs)
		return chunk_delete(ix, c->chunk, &row);
	unsure_add(ix, row.segment, count_unsure(c, &row, mapped));
	if (refs == row.refs && mapped == row.mapped)
		return 0;
	sqlite3_stmt *st = stmt_get(ix, STMT_CHUNK_COUNT_SET);
	stmt_bind(st, 1, c->chunk);
	stmt_bind(st, 2, refs);
	stmt_bind(st, 3, mapped);
	ret = stmt_run(ix, st);
	if (ret)
		return ret;
	return count_segment(ix, row.segment,
	                     (int64_t)count_live(mapped, row.stored_len, row.plain_len) -
	                         (int64_t)count_live(row.mapped, row.stored_len, row.plain_len),
	                     !row.refs);
}

static int segment_apply(struct index *ix, const struct segment_count *s, struct err *e)
{
	if (!s->live && !s->chunks)
		return 0;
	sqlite3_stmt *st = stmt_get(ix, STMT_SEGMENT_COUNT);
	stmt_bind(st, 1, s->segment);
	stmt_bind(st, 2, (uint64_t)s->live);
	stmt_bind(st, 3, (uint64_t)s->chunks);
	int ret = stmt_run(ix, st);
	if (!ret && s->chunks > 0 && !sqlite3_changes(ix->db))
		return err_set(e, -EINVAL, ERR_USAGE, "a chunk is in segment %" PRIu64 ", which has no row",
		               s->segment);
	return ret;
}

int counts_apply(struct index *ix, struct err *e)
{
	int ret = 0;

	for (struct count *c = ix->counts; c && !ret; c = c->hh.next) {
		if (c->extents || c->gone || c->mapped || c->put)
			ret = count_apply(ix, c, e);
	}
	for (struct segment_count *s = ix->segment_counts; s && !ret; s = s->hh.next)
		ret = segment_apply(ix, s, e);
	if (ret)
		return err_set(e, ret, ERR_INDEX, "counting extents: %s", err_text(NULL, ret));
	counts_free(ix);
	return 0;
}

void counts_free(struct index *ix)
{
	struct count *c = ix->counts;
	struct segment_count *s = ix->segment_counts;

	/* Frees the tables; what was in them is still a list. */
	HASH_CLEAR(hh, ix->counts);
	HASH_CLEAR(hh, ix->segment_counts);
	while (c) {
		struct count *next = c->hh.next;
		free(c);
		c = next;
	}
	while (s) {
		struct segment_count *next = s->hh.next;
		free(s);
		s = next;
	}
}
