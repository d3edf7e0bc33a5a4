#include "index/db.h"

#include <errno.h>
#include <string.h>

/* Columns id, name, epoch, state, total, live, chunks, header. */
static int segment_read(sqlite3_stmt *st, struct index_segment *out)
{
	const void *name = sqlite3_column_blob(st, 1), *header = sqlite3_column_blob(st, 7);
	size_t header_len = (size_t)sqlite3_column_bytes(st, 7);
	uint64_t state = stmt_u64(st, 3);

	if (!name || sqlite3_column_bytes(st, 1) != sizeof(out->name) || header_len > sizeof(out->header) ||
	    state > INDEX_SEGMENT_INLINE)
		return index_damaged("a segment's row");
	*out = (struct index_segment){
	    .id = stmt_u64(st, 0),
	    .epoch = stmt_u32(st, 2),
	    .state = (enum index_segment_state)state,
	    .total = stmt_u64(st, 4),
	    .live = stmt_u64(st, 5),
	    .chunks = stmt_u64(st, 6),
	    .header_len = header_len,
	};
	memcpy(out->name, name, sizeof(out->name));
	if (header_len)
		memcpy(out->header, header, header_len);
	return 0;
}

int index_segment_put(struct index *ix, const struct index_segment *s)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	if (s->header_len > sizeof(s->header) || s->id > INT64_MAX || s->state > INDEX_SEGMENT_INLINE)
		return -EINVAL;
	sqlite3_stmt *st = stmt_get(ix, STMT_SEGMENT_PUT);
	stmt_bind(st, 1, s->id);
	stmt_bind_blob(st, 2, s->name, sizeof(s->name));
	stmt_bind(st, 3, s->epoch);
	stmt_bind(st, 4, s->state);
	stmt_bind(st, 5, s->total);
	stmt_bind_blob(st, 6, s->header, s->header_len);
	ret = stmt_run(ix, st);
	write_end(ix);
	return ret;
}

int index_segment_delete(struct index *ix, uint64_t id)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_SEGMENT_DELETE);
	stmt_bind(st, 1, id);
	ret = stmt_run(ix, st);
	if (!ret)
		unsure_clear(ix, id);
	write_end(ix);
	return ret;
}

static int segments_read(struct index *ix, sqlite3_stmt *st, struct index_segment *out, size_t max, size_t *n)
{
	int ret = 0;

	while (*n < max && (ret = stmt_row(ix, st)) > 0) {
		ret = segment_read(st, &out[*n]);
		if (ret)
			return ret;
		(*n)++;
	}
	return ret < 0 ? ret : 0;
}

int index_segment_list(struct index *ix, uint64_t after, struct index_segment *out, size_t max, size_t *n)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_SEGMENT_LIST);

	*n = 0;
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, after > INT64_MAX ? INT64_MAX : after);
	stmt_bind(st, 2, max);
	return segments_read(ix, st, out, max, n);
}

int index_segment_empty(struct index *ix, struct index_segment *out, size_t max, size_t *n)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_SEGMENT_EMPTY);

	*n = 0;
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, max);
	return segments_read(ix, st, out, max, n);
}
