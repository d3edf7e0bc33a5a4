#include "base/log.h"
#include "index/db.h"

#include <errno.h>
#include <string.h>

/* Bytes 18 and 19 of a database's first page: the versions needed to write and to read it; 2 means WAL. */
#define HEADER_WRITE_VERSION 18
#define HEADER_READ_VERSION  19
#define HEADER_LEN           100

/* docs/FORMAT.md explains the columns. */
static const char schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE inode(ino INTEGER PRIMARY KEY, mode INTEGER NOT NULL, nlink INTEGER NOT NULL, uid INTEGER NOT NULL,"
    " gid INTEGER NOT NULL, rdev INTEGER NOT NULL, flags INTEGER NOT NULL, size INTEGER NOT NULL,"
    " blocks INTEGER NOT NULL, parent INTEGER NOT NULL, generation INTEGER NOT NULL, atime INTEGER NOT NULL,"
    " atime_ns INTEGER NOT NULL, mtime INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime INTEGER NOT NULL,"
    " ctime_ns INTEGER NOT NULL, btime INTEGER NOT NULL, btime_ns INTEGER NOT NULL);"
    "CREATE INDEX inode_orphan ON inode(ino) WHERE nlink = 0;"
    "CREATE TABLE symlink(ino INTEGER PRIMARY KEY, target BLOB NOT NULL);"
    "CREATE TABLE dirent(parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, cookie INTEGER NOT NULL,"
    " type INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;"
    "CREATE UNIQUE INDEX dirent_cookie ON dirent(parent, cookie);"
    "CREATE TABLE xattr(ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY(ino, name))"
    " WITHOUT ROWID;"
    "CREATE TABLE extent(ino INTEGER NOT NULL, off INTEGER NOT NULL, len INTEGER NOT NULL, chunk INTEGER NOT NULL,"
    " chunk_off INTEGER NOT NULL, PRIMARY KEY(ino, off)) WITHOUT ROWID;"
    "CREATE INDEX extent_chunk ON extent(chunk);"
    "CREATE TABLE chunk(id INTEGER PRIMARY KEY, refs INTEGER NOT NULL, mapped INTEGER NOT NULL,"
    " segment INTEGER NOT NULL, offset INTEGER NOT NULL, stored_len INTEGER NOT NULL, plain_len INTEGER NOT NULL, "
    "data_start INTEGER NOT NULL,"
    " sequence INTEGER NOT NULL, inlined INTEGER NOT NULL, frames BLOB NOT NULL);"
    "CREATE INDEX chunk_segment ON chunk(segment) WHERE inlined = 0;"
    "CREATE TABLE inline_chunk(id INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "CREATE TABLE segment(id INTEGER PRIMARY KEY, name BLOB NOT NULL, epoch INTEGER NOT NULL, state INTEGER NOT NULL,"
    " total INTEGER NOT NULL, live INTEGER NOT NULL, chunks INTEGER NOT NULL, header BLOB NOT NULL);"
    "CREATE INDEX segment_empty ON segment(id) WHERE chunks = 0;"
    "INSERT INTO meta VALUES('schema', 1);";

static void db_close_scoped(sqlite3 **db)
{
	(void)sqlite3_close(*db);
}

static int image_error(sqlite3 *db, struct err *e)
{
	int ret = sqlite3_errcode(db) == SQLITE_NOMEM ? -ENOMEM : -EIO;

	return err_set(e, ret, ERR_INDEX, "making an empty index: %s", sqlite3_errmsg(db));
}

int schema_image(uint32_t page_size, unsigned char **image, size_t *len, struct err *e)
{
	__attribute__((cleanup(db_close_scoped))) sqlite3 *db = NULL;
	char pragma[48];
	int reserve = INDEX_RESERVE;
	sqlite3_int64 size = 0;

	if (page_size < INDEX_PAGE_MIN || page_size > 65536 || (page_size & (page_size - 1)))
		return err_set(e, -EINVAL, ERR_USAGE,
		               "page size %u of the index is not a power of two from %d to 65536", page_size,
		               INDEX_PAGE_MIN);
	if (sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		return image_error(db, e);
	/* auto_vacuum makes the first page, which fixes what the other two set. */
	(void)sqlite3_snprintf(sizeof(pragma), pragma, "PRAGMA page_size = %u", page_size);
	if (sqlite3_exec(db, pragma, NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_file_control(db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserve) != SQLITE_OK ||
	    sqlite3_exec(db, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(db, schema, NULL, NULL, NULL) != SQLITE_OK)
		return image_error(db, e);
	*image = sqlite3_serialize(db, "main", &size, 0);
	if (!*image || size < HEADER_LEN) {
		sqlite3_free(*image);
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for an empty index");
	}
	(*image)[HEADER_WRITE_VERSION] = 2;
	(*image)[HEADER_READ_VERSION] = 2;
	*len = (size_t)size;
	return 0;
}

int schema_check(struct index *ix, struct err *e)
{
	uint64_t version = 0;
	int reserve = -1;

	SCOPED_STMT st = stmt_get(ix, STMT_META_GET);
	int ret = -EUCLEAN;
	if (st) {
		(void)sqlite3_bind_text(st, 1, "schema", -1, SQLITE_STATIC);
		ret = stmt_row(ix, st);
		if (ret > 0)
			version = stmt_u64(st, 0);
	} else {
		ret = index_error(ix);
	}
	if (ret < 0)
		return err_set(e, ret, ERR_INDEX, "index.db cannot be read: %s", sqlite3_errmsg(ix->db));
	if (version > INDEX_SCHEMA)
		return err_set(e, -EPROTONOSUPPORT, ERR_FORMAT, "the index has schema %llu, newer than %d",
		               (unsigned long long)version, INDEX_SCHEMA);
	if (version != INDEX_SCHEMA)
		return err_set(e, -EUCLEAN, ERR_FORMAT, "index.db is not an index of this program");
	if (sqlite3_file_control(ix->db, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserve) != SQLITE_OK ||
	    reserve != INDEX_RESERVE)
		return err_set(e, -EUCLEAN, ERR_FORMAT, "pages of index.db reserve %d bytes, not %d", reserve,
		               INDEX_RESERVE);
	return 0;
}
