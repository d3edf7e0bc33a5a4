#include "index/db.h"

#include <errno.h>

static int prepare(struct index *ix, const char *sql, sqlite3_stmt **st)
{
	vfs_error_reset(ix->vfs);
	return sqlite3_prepare_v2(ix->db, sql, -1, st, NULL) == SQLITE_OK ? 0 : index_error(ix);
}

static void keep_first(void *arg, const char *text)
{
	struct err *e = arg;

	(void)err_set(e, -EUCLEAN, ERR_FORMAT, "%s", text);
}

int index_check(struct index *ix, struct err *e)
{
	struct err first = {0};
	struct index_totals_checked totals;
	const struct index_verify v = {.finding = keep_first, .arg = &first};
	int ret = index_verify(ix, &v, &totals);

	if (ret)
		return err_set(e, ret, ERR_INDEX, "checking the index: %s", err_text(NULL, ret));
	return first.code ? err_set(e, first.code, first.domain, "%s", first.text) : 0;
}

int index_totals(struct index *ix, struct index_totals *out)
{
	static const char sql[] =
	    "SELECT (SELECT count(*) FROM inode), (SELECT count(*) FROM chunk), (SELECT count(*) FROM segment),"
	    " (SELECT coalesce(sum(len), 0) FROM extent), (SELECT coalesce(sum(total), 0) FROM segment),"
	    " (SELECT coalesce(sum(live), 0) FROM segment WHERE state <> 3),"
	    " (SELECT coalesce(sum(length(data)), 0) FROM inline_chunk)";

	SCOPED_LOCK(&ix->lock);
	SCOPED_FINALIZE st = NULL;
	int ret = prepare(ix, sql, &st);
	if (!ret)
		ret = stmt_row(ix, st);
	if (ret <= 0)
		return ret ? ret : -EIO;
	*out = (struct index_totals){
	    .inodes = stmt_u64(st, 0),
	    .chunks = stmt_u64(st, 1),
	    .segments = stmt_u64(st, 2),
	    .logical = stmt_u64(st, 3),
	    .stored = stmt_u64(st, 4),
	    .live = stmt_u64(st, 5),
	    .inline_bytes = stmt_u64(st, 6),
	};
	return 0;
}
