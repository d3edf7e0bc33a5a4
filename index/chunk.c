#include "index/db.h"

#include <errno.h>
#include <string.h>

#define FRAMES_MAX (1u << 20) /* bytes of a frame table */
#define INLINE_MAX (1u << 20) /* bytes of an inline record */

int chunk_read(sqlite3_stmt *st, int column, struct index_chunk *out)
{
	*out = (struct index_chunk){
	    .id = stmt_u64(st, column),
	    .segment = stmt_u64(st, column + 1),
	    .offset = stmt_u64(st, column + 2),
	    .stored_len = stmt_u32(st, column + 3),
	    .plain_len = stmt_u32(st, column + 4),
	    .data_start = stmt_u32(st, column + 5),
	    .sequence = stmt_u64(st, column + 6),
	    .is_inline = stmt_u64(st, column + 7) != 0,
	    .mapped = stmt_u64(st, column + 8),
	    .refs = stmt_u64(st, column + 9),
	};
	if (sqlite3_column_count(st) > column + 10) {
		out->frames = sqlite3_column_blob(st, column + 10);
		out->frames_len = (size_t)sqlite3_column_bytes(st, column + 10);
	}
	for (int i = 3; i < 6; i++) {
		if (stmt_u64(st, column + i) > UINT32_MAX)
			return index_damaged("a chunk's lengths");
	}
	return 0;
}

/* Binds all but the inline record. */
static void chunk_bind(struct index *ix, sqlite3_stmt *st, const struct index_chunk *c)
{
	stmt_bind(st, 1, c->id);
	stmt_bind(st, 2, c->segment);
	stmt_bind(st, 3, c->offset);
	stmt_bind(st, 4, c->stored_len);
	stmt_bind(st, 5, c->plain_len);
	stmt_bind(st, 6, c->data_start);
	stmt_bind(st, 7, c->sequence);
	stmt_bind(st, 8, c->inline_data != NULL);
	stmt_bind_value(ix, st, 9, c->frames, c->frames_len);
}

/* The chunk has a row already: it moves, with its extents. */
static int chunk_move(struct index *ix, const struct index_chunk *c)
{
	struct count_row old;
	int ret = count_row_get(ix, c->id, &old);

	if (ret <= 0)
		return ret ? ret : -EIO;
	if (old.refs) {
		ret =
		    count_segment(ix, old.segment, -(int64_t)count_live(old.mapped, old.stored_len, old.plain_len), -1);
		if (!ret)
			ret = count_segment(ix, c->segment,
			                    (int64_t)count_live(old.mapped, c->stored_len, c->plain_len), 1);
		if (ret)
			return index_fail(ix, ret);
		unsure_add(ix, c->segment, old.refs > 1 ? c->stored_len : 0);
	}
	sqlite3_stmt *st = stmt_get(ix, STMT_CHUNK_MOVE);
	chunk_bind(ix, st, c);
	ret = stmt_run(ix, st);
	if (ret || !old.is_inline || c->inline_data)
		return ret;
	st = stmt_get(ix, STMT_INLINE_DELETE);
	stmt_bind(st, 1, c->id);
	return stmt_run(ix, st);
}

static int chunk_put(struct index *ix, const struct index_chunk *c)
{
	struct count *count = count_get(ix, c->id);

	if (!count)
		return -ENOMEM;
	count_forget(count);
	sqlite3_stmt *st = stmt_get(ix, STMT_CHUNK_INSERT);
	chunk_bind(ix, st, c);
	int ret = stmt_run(ix, st);
	if (ret == -EEXIST)
		ret = chunk_move(ix, c);
	else if (!ret)
		count_put(count);
	if (ret || !c->inline_data)
		return ret;
	st = stmt_get(ix, STMT_INLINE_PUT);
	stmt_bind(st, 1, c->id);
	stmt_bind_value(ix, st, 2, c->inline_data, c->stored_len);
	return stmt_run(ix, st);
}

int index_chunk_put(struct index *ix, const struct index_chunk *c)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	if (!c->id || c->frames_len > FRAMES_MAX || (c->inline_data && c->stored_len > INLINE_MAX))
		return -EINVAL;
	ret = chunk_put(ix, c);
	write_end(ix);
	return ret;
}

/* Runs a statement that gives one chunk; its frame table is copied to buf. */
static int chunk_find(struct index *ix, enum stmt which, uint64_t id, struct index_chunk *out, void *buf,
                      size_t buf_len)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, which);

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, id);
	int ret = stmt_find(ix, st);
	if (ret)
		return ret;
	ret = chunk_read(st, 0, out);
	if (ret)
		return ret;
	if (out->frames_len > buf_len)
		return -ERANGE;
	if (out->frames_len)
		memcpy(buf, out->frames, out->frames_len);
	out->frames = buf;
	return 0;
}

int index_chunk_get(struct index *ix, uint64_t id, struct index_chunk *out, void *buf, size_t buf_len)
{
	return chunk_find(ix, STMT_CHUNK_GET, id, out, buf, buf_len);
}

int index_chunk_next(struct index *ix, uint64_t after, struct index_chunk *out, void *buf, size_t buf_len)
{
	return after < INT64_MAX ? chunk_find(ix, STMT_CHUNK_NEXT, after, out, buf, buf_len) : -ENOENT;
}

int index_inline_get(struct index *ix, uint64_t id, void *buf, size_t *len)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_INLINE_GET);

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, id);
	int ret = stmt_find(ix, st);
	if (ret)
		return ret;
	return stmt_blob(st, 0, buf, len);
}

int index_file_chunks(struct index *ix, uint64_t ino, int (*fn)(void *arg, const struct index_chunk *c), void *arg)
{
	struct index_chunk c;

	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_CHUNK_OF_FILE);
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, ino);
	for (;;) {
		int ret = stmt_row(ix, st);
		if (ret <= 0)
			return ret;
		ret = chunk_read(st, 0, &c);
		if (!ret)
			ret = fn(arg, &c);
		if (ret)
			return ret;
	}
}

static int chunks_read(struct index *ix, sqlite3_stmt *st, struct index_chunk *out, size_t max, size_t *n)
{
	int ret = 0;

	while (*n < max && (ret = stmt_row(ix, st)) > 0) {
		ret = chunk_read(st, 0, &out[*n]);
		if (ret)
			return ret;
		(*n)++;
	}
	return ret < 0 ? ret : 0;
}

int index_segment_chunks(struct index *ix, uint64_t segment, uint64_t after, struct index_chunk *out, size_t max,
                         size_t *n)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_CHUNK_OF_SEGMENT);

	*n = 0;
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, segment);
	stmt_bind(st, 2, after);
	return chunks_read(ix, st, out, max, n);
}

int index_inline_chunks(struct index *ix, uint64_t after, struct index_chunk *out, size_t max, size_t *n)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_CHUNK_INLINE);

	*n = 0;
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, after);
	return chunks_read(ix, st, out, max, n);
}
