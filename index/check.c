#include "base/log.h"
#include "index/db.h"

#include <errno.h>
#include <inttypes.h>

/* Each of these finds a row only in an index that is wrong; its columns name what. */
static const struct {
	const char *what, *sql;
} findings[] = {
    {"chunk counts other than its extents",
     "SELECT c.id FROM chunk c LEFT JOIN (SELECT chunk, count(*) AS n, sum(len) AS mapped FROM extent GROUP BY chunk) "
     "x "
     "ON x.chunk = c.id WHERE c.refs IS NOT coalesce(x.n, 0) OR c.mapped IS NOT coalesce(x.mapped, 0) LIMIT 1"},
    {"extents of a chunk that has no row, in inode",
     "SELECT ino FROM extent WHERE chunk NOT IN (SELECT id FROM chunk) LIMIT 1"},
    {"extent beyond the end of its chunk, in inode",
     "SELECT x.ino FROM extent x JOIN chunk c ON c.id = x.chunk WHERE x.chunk_off + x.len > c.plain_len LIMIT 1"},
    {"overlapping extents in inode",
     "SELECT ino FROM (SELECT ino, off, lag(off + len, 1, 0) OVER (PARTITION BY ino ORDER BY off) AS before "
     "FROM extent) WHERE off < before LIMIT 1"},
    {"segment counts other than its chunks",
     "SELECT s.id FROM segment s LEFT JOIN (SELECT segment, count(*) AS n, "
     "sum((stored_len * min(mapped, plain_len) + plain_len - 1) / plain_len) AS live FROM chunk "
     "WHERE refs > 0 GROUP BY segment) c ON c.segment = s.id "
     "WHERE s.chunks IS NOT coalesce(c.n, 0) OR s.live IS NOT coalesce(c.live, 0) LIMIT 1"},
    {"chunk in a segment that has no row",
     "SELECT id FROM chunk WHERE segment NOT IN (SELECT id FROM segment) LIMIT 1"},
    {"inline chunk without its record",
     "SELECT id FROM chunk WHERE inlined AND id NOT IN (SELECT id FROM inline_chunk) LIMIT 1"},
    {"record of no inline chunk",
     "SELECT id FROM inline_chunk WHERE id NOT IN (SELECT id FROM chunk WHERE inlined) LIMIT 1"},
    {"name of an inode that has no row, in directory",
     "SELECT parent FROM dirent WHERE ino NOT IN (SELECT ino FROM inode) LIMIT 1"},
    {"name in a directory that has no row",
     "SELECT parent FROM dirent WHERE parent NOT IN (SELECT ino FROM inode) LIMIT 1"},
    {"number of links other than names, of inode",
     "SELECT i.ino FROM inode i LEFT JOIN (SELECT ino, count(*) AS n FROM dirent GROUP BY ino) d ON d.ino = i.ino "
     "WHERE (i.mode & 61440) <> 16384 AND i.nlink IS NOT coalesce(d.n, 0) LIMIT 1"},
    {"more than one name of directory",
     "SELECT d.ino FROM dirent d JOIN inode i ON i.ino = d.ino WHERE (i.mode & 61440) = 16384 "
     "GROUP BY d.ino HAVING count(*) > 1 LIMIT 1"},
    {"extents of an inode that has no row", "SELECT ino FROM extent WHERE ino NOT IN (SELECT ino FROM inode) LIMIT 1"},
    {"extended attributes of an inode that has no row",
     "SELECT ino FROM xattr WHERE ino NOT IN (SELECT ino FROM inode) LIMIT 1"},
    {"symlink target of an inode that has no row",
     "SELECT ino FROM symlink WHERE ino NOT IN (SELECT ino FROM inode) LIMIT 1"},
};

static void finalize_scoped(sqlite3_stmt **st)
{
	(void)sqlite3_finalize(*st);
}
#define FINALIZED __attribute__((cleanup(finalize_scoped))) sqlite3_stmt *

static int prepare(struct index *ix, const char *sql, sqlite3_stmt **st)
{
	vfs_error_reset(ix->vfs);
	return sqlite3_prepare_v2(ix->db, sql, -1, st, NULL) == SQLITE_OK ? 0 : index_error(ix);
}

static int check_integrity(struct index *ix, struct err *e)
{
	FINALIZED st = NULL;
	int ret = prepare(ix, "PRAGMA integrity_check(1)", &st);

	if (!ret)
		ret = stmt_row(ix, st);
	if (ret <= 0)
		return err_set(e, ret ? ret : -EIO, ERR_INDEX, "integrity_check: %s", sqlite3_errmsg(ix->db));
	const char *text = (const char *)sqlite3_column_text(st, 0);
	if (text && !sqlite3_stricmp(text, "ok"))
		return 0;
	return err_set(e, -EUCLEAN, ERR_FORMAT, "integrity_check: %s", text ? text : "no result");
}

int index_check(struct index *ix, struct err *e)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return err_set(e, ret, ERR_INDEX, "the index has failed");
	ret = counts_apply(ix, e);
	if (ret)
		return index_fail(ix, ret);
	ret = check_integrity(ix, e);
	for (size_t i = 0; i < sizeof(findings) / sizeof(findings[0]) && !ret; i++) {
		FINALIZED st = NULL;
		ret = prepare(ix, findings[i].sql, &st);
		if (!ret)
			ret = stmt_row(ix, st);
		if (ret > 0)
			ret = err_set(e, -EUCLEAN, ERR_FORMAT, "%s: %" PRIu64, findings[i].what, stmt_u64(st, 0));
		else if (ret)
			(void)err_set(e, ret, ERR_INDEX, "checking the index: %s", err_text(NULL, ret));
	}
	return ret;
}

int index_totals(struct index *ix, struct index_totals *out)
{
	static const char sql[] =
	    "SELECT (SELECT count(*) FROM inode), (SELECT count(*) FROM chunk), (SELECT count(*) FROM segment),"
	    " (SELECT coalesce(sum(len), 0) FROM extent), (SELECT coalesce(sum(total), 0) FROM segment),"
	    " (SELECT coalesce(sum(live), 0) FROM segment WHERE state <> 3),"
	    " (SELECT coalesce(sum(length(data)), 0) FROM inline_chunk)";

	SCOPED_LOCK(&ix->lock);
	FINALIZED st = NULL;
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
