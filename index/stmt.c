#include "base/log.h"
#include "index/db.h"

#include <errno.h>
#include <string.h>

#define INODE                                                                                                        \
	"i.ino, i.mode, i.nlink, i.uid, i.gid, i.rdev, i.flags, i.size, i.blocks, i.parent, i.generation, i.atime, " \
	"i.atime_ns, i.mtime, i.mtime_ns, i.ctime, i.ctime_ns, i.btime, i.btime_ns"
#define CHUNK_SHORT \
	"c.id, c.segment, c.offset, c.stored_len, c.plain_len, c.data_start, c.sequence, c.inlined, c.mapped, c.refs"
#define CHUNK   CHUNK_SHORT ", c.frames"
#define SEGMENT "id, name, epoch, state, total, live, chunks, header"

static const char *const sql[STMT_COUNT] = {
    [STMT_BEGIN] = "BEGIN IMMEDIATE",
    [STMT_COMMIT] = "COMMIT",
    [STMT_FREE_PAGES] = "PRAGMA freelist_count",
    [STMT_PAGES] = "PRAGMA page_count",
    [STMT_VACUUM] = "PRAGMA incremental_vacuum(128)",

    [STMT_META_GET] = "SELECT value FROM meta WHERE key = ?1",
    [STMT_META_SET] = "REPLACE INTO meta VALUES(?1, ?2)",

    [STMT_INODE_GET] = "SELECT " INODE " FROM inode i WHERE ino = ?1",
    [STMT_INODE_PUT] = "REPLACE INTO inode VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, "
		       "?16, ?17, ?18, ?19)",
    [STMT_INODE_BLOCKS] = "UPDATE inode SET blocks = max(blocks + ?2, 1) WHERE ino = ?1",
    [STMT_INODE_DELETE] = "DELETE FROM inode WHERE ino = ?1",
    [STMT_INODE_ORPHANS] = "SELECT ino FROM inode WHERE nlink = 0 LIMIT ?1",

    [STMT_SYMLINK_PUT] = "REPLACE INTO symlink VALUES(?1, ?2)",
    [STMT_SYMLINK_GET] = "SELECT target FROM symlink WHERE ino = ?1",
    [STMT_SYMLINK_DELETE] = "DELETE FROM symlink WHERE ino = ?1",

    [STMT_DIRENT_GET] = "SELECT name, ino, cookie, type FROM dirent WHERE parent = ?1 AND name = ?2",
    [STMT_DIRENT_ADD] = "INSERT INTO dirent(parent, name, ino, cookie, type) VALUES(?1, ?2, ?3, ?4, ?5)",
    [STMT_DIRENT_REMOVE] = "DELETE FROM dirent WHERE parent = ?1 AND name = ?2",
    [STMT_DIRENT_RENAME] = "UPDATE dirent SET name = ?3 WHERE parent = ?1 AND name = ?2",
    [STMT_DIRENT_SET] = "UPDATE dirent SET ino = ?3, type = ?4 WHERE parent = ?1 AND name = ?2",
    [STMT_DIRENT_LIST] = "SELECT name, ino, cookie, type FROM dirent INDEXED BY dirent_cookie "
			 "WHERE parent = ?1 AND cookie > ?2 ORDER BY cookie",
    [STMT_DIRENT_LIST_INODES] = "SELECT d.name, d.ino, d.cookie, d.type, " INODE
				" FROM dirent d INDEXED BY dirent_cookie LEFT JOIN inode i ON i.ino = d.ino "
				"WHERE d.parent = ?1 AND d.cookie > ?2 ORDER BY d.cookie",

    [STMT_DIRENT_OF] = "SELECT name FROM dirent WHERE parent = ?1 AND ino = ?2 LIMIT 1",
    [STMT_DIRENT_ALL] = "SELECT parent, ino, name FROM dirent ORDER BY parent, name",

    [STMT_XATTR_GET] = "SELECT value FROM xattr WHERE ino = ?1 AND name = ?2",
    [STMT_XATTR_SET] = "REPLACE INTO xattr VALUES(?1, ?2, ?3)",
    [STMT_XATTR_REMOVE] = "DELETE FROM xattr WHERE ino = ?1 AND name = ?2",
    [STMT_XATTR_LIST] = "SELECT name FROM xattr WHERE ino = ?1 ORDER BY name",
    [STMT_XATTR_DELETE] = "DELETE FROM xattr WHERE ino = ?1",

    /* From the extent that begins at or before ?2, which may end before it, to the last that begins before ?3. */
    [STMT_EXTENT_LIST] =
	"SELECT off, len, chunk, chunk_off FROM extent WHERE ino = ?1 AND off < ?3 AND off >= coalesce("
	"(SELECT off FROM extent WHERE ino = ?1 AND off <= ?2 ORDER BY off DESC LIMIT 1), ?2) ORDER BY off",
    [STMT_EXTENT_BELOW] = "SELECT off, len, chunk, chunk_off FROM extent WHERE ino = ?1 AND off < ?2 ORDER BY off DESC",
    [STMT_EXTENT_INSERT] = "INSERT INTO extent(ino, off, len, chunk, chunk_off) VALUES(?1, ?2, ?3, ?4, ?5)",
    [STMT_EXTENT_LENGTH] = "UPDATE extent SET len = ?3 WHERE ino = ?1 AND off = ?2",
    [STMT_EXTENT_MAP] = "UPDATE extent SET len = ?3, chunk = ?4, chunk_off = ?5 WHERE ino = ?1 AND off = ?2",
    [STMT_EXTENT_DELETE] = "DELETE FROM extent WHERE ino = ?1 AND off = ?2",
    [STMT_EXTENT_DELETE_RANGE] = "DELETE FROM extent WHERE ino = ?1 AND off >= ?2 AND off < ?3",

    [STMT_EXTENT_OF_CHUNK] = "SELECT off, len, chunk, chunk_off, ino FROM extent INDEXED BY extent_chunk "
			     "WHERE chunk = ?1 AND (ino, off) > (?2, ?3) ORDER BY ino, off",

    [STMT_CHUNK_INSERT] = "INSERT INTO chunk VALUES(?1, 0, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [STMT_CHUNK_MOVE] = "UPDATE chunk SET segment = ?2, offset = ?3, stored_len = ?4, plain_len = ?5, data_start = ?6, "
			"sequence = ?7, inlined = ?8, frames = ?9 WHERE id = ?1",
    [STMT_CHUNK_GET] = "SELECT " CHUNK " FROM chunk c WHERE id = ?1",
    [STMT_CHUNK_COUNT_GET] = "SELECT refs, mapped, segment, stored_len, plain_len, inlined FROM chunk WHERE id = ?1",
    [STMT_CHUNK_COUNT_SET] = "UPDATE chunk SET refs = ?2, mapped = ?3 WHERE id = ?1",
    [STMT_CHUNK_DELETE] = "DELETE FROM chunk WHERE id = ?1",
    [STMT_CHUNK_OF_FILE] =
	"SELECT " CHUNK " FROM chunk c WHERE c.id IN (SELECT chunk FROM extent WHERE ino = ?1) ORDER BY c.id",
    [STMT_CHUNK_NEXT] = "SELECT " CHUNK " FROM chunk c WHERE c.id > ?1 ORDER BY c.id LIMIT 1",
    [STMT_CHUNK_OF_SEGMENT] = "SELECT " CHUNK_SHORT " FROM chunk c INDEXED BY chunk_segment "
			      "WHERE c.segment = ?1 AND c.inlined = 0 AND c.id > ?2 ORDER BY c.id",
    [STMT_CHUNK_INLINE] = "SELECT " CHUNK_SHORT " FROM inline_chunk i CROSS JOIN chunk c ON c.id = i.id "
			  "WHERE i.id > ?1 ORDER BY i.id",
    [STMT_INLINE_PUT] = "REPLACE INTO inline_chunk VALUES(?1, ?2)",
    [STMT_INLINE_GET] = "SELECT data FROM inline_chunk WHERE id = ?1",
    [STMT_INLINE_DELETE] = "DELETE FROM inline_chunk WHERE id = ?1",

    [STMT_SEGMENT_PUT] = "INSERT INTO segment VALUES(?1, ?2, ?3, ?4, ?5, 0, 0, ?6) "
			 "ON CONFLICT(id) DO UPDATE SET state = ?4, total = ?5",
    [STMT_SEGMENT_COUNT] = "UPDATE segment SET live = max(0, live + ?2), chunks = max(0, chunks + ?3) WHERE id = ?1",
    [STMT_SEGMENT_DELETE] = "DELETE FROM segment WHERE id = ?1",
    [STMT_SEGMENT_LIST] = "SELECT " SEGMENT " FROM segment WHERE id > ?1 ORDER BY id LIMIT ?2",
    [STMT_SEGMENT_EMPTY] = "SELECT " SEGMENT " FROM segment WHERE chunks = 0 ORDER BY id LIMIT ?1",
};

sqlite3_stmt *stmt_get(struct index *ix, enum stmt which)
{
	sqlite3_stmt **st = &ix->stmt[which];

	vfs_error_reset(ix->vfs);
	if (!*st && sqlite3_prepare_v3(ix->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT, st, NULL) != SQLITE_OK)
		return NULL;
	return *st;
}

void stmt_finalize_all(struct index *ix)
{
	for (size_t i = 0; i < STMT_COUNT; i++) {
		(void)sqlite3_finalize(ix->stmt[i]);
		ix->stmt[i] = NULL;
	}
}

static int translate(const struct index *ix, int rc)
{
	int io = vfs_error(ix->vfs);

	switch (rc & 0xff) {
	case SQLITE_CONSTRAINT:
		return -EEXIST;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return io ? io : -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_PROTOCOL: /* see vfs_unread */
		if (rc == SQLITE_IOERR_NOMEM)
			return -ENOMEM;
		return io ? io : -EIO;
	default:
		return -EIO; /* SQLITE_CORRUPT and SQLITE_NOTADB above all */
	}
}

int index_error(struct index *ix)
{
	int ret = translate(ix, sqlite3_extended_errcode(ix->db));

	if (sqlite3_errcode(ix->db) == SQLITE_PROTOCOL)
		log_error("index: index.db or index.db-wal cannot be read: %s", err_text(NULL, ret));
	else if (ret != -EEXIST)
		log_error("index: %s (%s)", sqlite3_errmsg(ix->db), err_text(NULL, ret));
	/* A statement that failed may have taken the transaction with it. */
	if (sqlite3_get_autocommit(ix->db))
		return index_fail(ix, ret);
	return ret;
}

int index_fail(struct index *ix, int ret)
{
	if (!atomic_exchange(&ix->failed, true))
		log_error("index: stopped, as in a crash: %s", err_text(NULL, ret));
	return ret;
}

int index_damaged(const char *what)
{
	log_error("index: damaged: %s", what);
	return -EIO;
}

int stmt_row(struct index *ix, sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : index_error(ix);
}

int stmt_find(struct index *ix, sqlite3_stmt *st)
{
	int ret = stmt_row(ix, st);

	if (ret < 0)
		return ret;
	return ret ? 0 : -ENOENT;
}

int stmt_run(struct index *ix, sqlite3_stmt *st)
{
	if (!st)
		return index_fail(ix, index_error(ix));
	int ret;
	do {
		ret = stmt_row(ix, st);
	} while (ret > 0);
	(void)sqlite3_reset(st);
	return ret && ret != -EEXIST ? index_fail(ix, ret) : ret;
}

void stmt_bind_value(struct index *ix, sqlite3_stmt *st, int n, const void *data, size_t len)
{
	size_t page = ix->page_size - INDEX_RESERVE - 4; /* what an overflow page holds */

	/* A row keeps less than a quarter of a page with it; of what is longer each page is of this row alone. */
	ix->values += len < page / 4 ? len : (len + page - 1) / page * ix->page_size;
	stmt_bind_blob(st, n, data, len);
}

int write_begin(struct index *ix)
{
	return atomic_load(&ix->failed) ? -EIO : 0;
}

void write_end(struct index *ix)
{
	uint64_t n = (uint64_t)(sqlite3_total_changes64(ix->db) - ix->changes);
	size_t estimate = (size_t)n * ix->per_change + ix->values;
	int used = 0, peak;

	/* Clean pages stay within the cache's size, dirty ones do not: beyond it all are dirty. */
	if (n % 32 == 0 && sqlite3_db_status(ix->db, SQLITE_DBSTATUS_CACHE_USED, &used, &peak, 0) == SQLITE_OK &&
	    used > INDEX_CACHE + INDEX_CACHE / 4 && (size_t)used > estimate)
		estimate = (size_t)used;
	atomic_store(&ix->pending, estimate);
}

int stmt_blob(sqlite3_stmt *st, int column, void *buf, size_t *len)
{
	const void *data = sqlite3_column_blob(st, column);
	size_t n = (size_t)sqlite3_column_bytes(st, column), room = *len;

	*len = n;
	if (!room)
		return 0;
	if (n > room)
		return -ERANGE;
	if (n)
		memcpy(buf, data, n);
	return 0;
}

int db_exec(struct index *ix, const char *text)
{
	vfs_error_reset(ix->vfs);
	return sqlite3_exec(ix->db, text, NULL, NULL, NULL) == SQLITE_OK ? 0 : index_error(ix);
}
