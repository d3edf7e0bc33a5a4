/* What the files of the index share. Everything here is called with the index's mutex held. */
#ifndef APFS_INDEX_DB_H
#define APFS_INDEX_DB_H

#include "base/lock.h"
#include "index/index.h"
#include "index/vfs.h"

#include <sqlite3.h>
#include <stdatomic.h>

#define INDEX_SCHEMA     1
#define INDEX_CACHE      (16 << 20) /* bytes of pages kept */
#define INDEX_CHECKPOINT ((uint64_t)16 << 20)

enum stmt {
	STMT_BEGIN,
	STMT_COMMIT,
	STMT_FREE_PAGES,
	STMT_PAGES,
	STMT_VACUUM,
	STMT_META_GET,
	STMT_META_SET,
	STMT_INODE_GET,
	STMT_INODE_PUT,
	STMT_INODE_BLOCKS,
	STMT_INODE_DELETE,
	STMT_INODE_ORPHANS,
	STMT_SYMLINK_PUT,
	STMT_SYMLINK_GET,
	STMT_SYMLINK_DELETE,
	STMT_DIRENT_GET,
	STMT_DIRENT_ADD,
	STMT_DIRENT_REMOVE,
	STMT_DIRENT_RENAME,
	STMT_DIRENT_SET,
	STMT_DIRENT_LIST,
	STMT_DIRENT_LIST_INODES,
	STMT_DIRENT_OF,
	STMT_DIRENT_ALL,
	STMT_XATTR_GET,
	STMT_XATTR_SET,
	STMT_XATTR_REMOVE,
	STMT_XATTR_LIST,
	STMT_XATTR_DELETE,
	STMT_EXTENT_LIST,
	STMT_EXTENT_BELOW,
	STMT_EXTENT_INSERT,
	STMT_EXTENT_LENGTH,
	STMT_EXTENT_MAP,
	STMT_EXTENT_DELETE,
	STMT_EXTENT_DELETE_RANGE,
	STMT_EXTENT_OF_CHUNK,
	STMT_CHUNK_INSERT,
	STMT_CHUNK_MOVE,
	STMT_CHUNK_GET,
	STMT_CHUNK_COUNT_GET,
	STMT_CHUNK_COUNT_SET,
	STMT_CHUNK_DELETE,
	STMT_CHUNK_OF_FILE,
	STMT_CHUNK_NEXT,
	STMT_CHUNK_OF_SEGMENT,
	STMT_CHUNK_INLINE,
	STMT_INLINE_PUT,
	STMT_INLINE_GET,
	STMT_INLINE_DELETE,
	STMT_SEGMENT_PUT,
	STMT_SEGMENT_COUNT,
	STMT_SEGMENT_DELETE,
	STMT_SEGMENT_LIST,
	STMT_SEGMENT_EMPTY,
	STMT_COUNT
};

/* unsure.c: of what a segment counts as live, so many bytes at most may be dead. */
struct unsure {
	uint64_t segment, bytes;
};

struct index {
	pthread_mutex_t lock;
	struct io *io;
	struct vfs *vfs;
	sqlite3 *db;
	sqlite3_stmt *stmt[STMT_COUNT];
	uint32_t page_size;

	/* What index_commit still has to add to chunk.refs and to segment.live and .chunks. */
	struct count *counts;
	struct segment_count *segment_counts;

	/* By segment. */
	struct unsure *unsure;
	size_t nunsure, unsure_room;

	sqlite3_int64 changes;  /* sqlite3_total_changes64 when the transaction began */
	uint32_t per_change;    /* bytes of dirty pages a changed row has cost lately, without its large values */
	uint64_t values;        /* bytes of pages that large values take which the transaction has put */
	uint64_t checkpoint_at; /* bytes of WAL in use */
	uint64_t checkpoint_every;
	uint64_t keep_room; /* bytes of the WAL that commits leave free */
	bool lacks_space;   /* the last checkpoint did */
	atomic_size_t pending;
	_Atomic uint64_t pages;    /* of the database as last committed */
	_Atomic uint64_t owed;     /* bytes by which its file is shorter than that */
	_Atomic uint64_t wal_room; /* bytes of the WAL that are allocated and free */
	atomic_bool failed;
};

/* --- statements --------------------------------------------------------------------------------------------------- */

/* Holds a statement until the end of the block, then resets it. */
#define SCOPED_STMT __attribute__((cleanup(stmt_scope_end))) sqlite3_stmt *

static inline void stmt_scope_end(sqlite3_stmt **st)
{
	if (*st)
		(void)sqlite3_reset(*st);
}

/* A statement of its own, finalized at the end of the block. */
#define SCOPED_FINALIZE __attribute__((cleanup(stmt_scope_finalize))) sqlite3_stmt *

static inline void stmt_scope_finalize(sqlite3_stmt **st)
{
	(void)sqlite3_finalize(*st);
}

/* The prepared statement; NULL when it cannot be prepared: index_error then has the reason. */
sqlite3_stmt *stmt_get(struct index *ix, enum stmt which) MUST_CHECK;
void stmt_finalize_all(struct index *ix);

/* One step of a statement that reads: 1 when it gave a row, 0 at the end, or -errno. */
int stmt_row(struct index *ix, sqlite3_stmt *st) MUST_CHECK;
/* The one step of a statement that looks something up: -ENOENT when it gave no row. */
int stmt_find(struct index *ix, sqlite3_stmt *st) MUST_CHECK;

/* Runs a statement that writes to its end, and resets it: 0, -EEXIST for a violated constraint, or -errno and then the
 * index has failed: SQLite may have rolled back, or only a part of the caller's change is done. */
int stmt_run(struct index *ix, sqlite3_stmt *st) MUST_CHECK;

/* Begins a function that writes: -EIO when the index has failed. */
int write_begin(struct index *ix) MUST_CHECK;
/* Notes that the transaction has grown. */
void write_end(struct index *ix);

/* Translates SQLite's last result and logs it. */
int index_error(struct index *ix);
/* Turns index_failed true for good and returns ret. */
int index_fail(struct index *ix, int ret);
/* A row that no correct program wrote: -EIO. */
int index_damaged(const char *what);

static inline void stmt_bind(sqlite3_stmt *st, int n, uint64_t value)
{
	(void)sqlite3_bind_int64(st, n, (sqlite3_int64)value);
}

/* data must live until the statement is reset. */
static inline void stmt_bind_blob(sqlite3_stmt *st, int n, const void *data, size_t len)
{
	(void)sqlite3_bind_blob64(st, n, len ? data : "", len, SQLITE_STATIC);
}

/* The same for a value that a row is to have and that may be longer than a page, which no number of rows tells. */
void stmt_bind_value(struct index *ix, sqlite3_stmt *st, int n, const void *data, size_t len);

static inline uint64_t stmt_u64(sqlite3_stmt *st, int column)
{
	return (uint64_t)sqlite3_column_int64(st, column);
}

static inline uint32_t stmt_u32(sqlite3_stmt *st, int column)
{
	return (uint32_t)sqlite3_column_int64(st, column);
}

/* Copies a blob column: *len is the room in (0: only ask) and the length out. -ERANGE when it does not fit. */
int stmt_blob(sqlite3_stmt *st, int column, void *buf, size_t *len) MUST_CHECK;

/* Runs statements without parameters or results, such as pragmas. */
int db_exec(struct index *ix, const char *sql) MUST_CHECK;

/* --- rows --------------------------------------------------------------------------------------------------------- */

#define INODE_COLUMNS 19
/* Reads the columns of an inode from `column` on. */
void inode_read(sqlite3_stmt *st, int column, struct index_inode *out);

/* Removes every extent of a file. */
int extent_clear(struct index *ix, uint64_t ino) MUST_CHECK;

/* Reads the columns of a chunk; frames points into the row. -EIO when they make no sense. */
int chunk_read(sqlite3_stmt *st, int column, struct index_chunk *out) MUST_CHECK;

/* --- counts (count.c) --------------------------------------------------------------------------------------------- */

struct count;
/* The pending change of a chunk's number of extents and of the bytes that they map, made if there is none yet; NULL
 * without memory. */
struct count *count_get(struct index *ix, uint64_t chunk) MUST_CHECK;
void count_add(struct count *c, int64_t extents, int64_t mapped);
/* Reads the chunk's row, once a transaction: 0 also when there is none. */
int count_know(struct index *ix, struct count *c) MUST_CHECK;
/* The bytes of STORE, an estimate, that so many bytes of its plaintext take, once its row is known. */
uint64_t count_stored(const struct count *c, uint64_t mapped);
/* The row changes. */
void count_forget(struct count *c);
/* A chunk row was put: unless it has extents by the next commit it is removed again. */
void count_put(struct count *c);
/* Adds to the pending change of a segment's live bytes and chunks. */
int count_segment(struct index *ix, uint64_t segment, int64_t live, int64_t chunks) MUST_CHECK;
/* Writes all pending changes; removes chunks without extents. */
int counts_apply(struct index *ix, struct err *e) MUST_CHECK;
void counts_free(struct index *ix);

struct count_row {
	uint64_t refs, mapped, segment;
	uint32_t stored_len, plain_len;
	bool is_inline;
};
/* A chunk's row without pending changes: 1, 0 when there is none, or -errno. */
int count_row_get(struct index *ix, uint64_t chunk, struct count_row *row) MUST_CHECK;
/* What a chunk adds to segment.live. */
uint64_t count_live(uint64_t mapped, uint32_t stored_len, uint32_t plain_len);

/* Adds to what may be dead of what the segment counts as live; without memory it is forgotten. */
void unsure_add(struct index *ix, uint64_t segment, uint64_t bytes);
void unsure_clear(struct index *ix, uint64_t segment);

/* --- opening and committing --------------------------------------------------------------------------------------- */

/* The image of an empty database, the caller's to sqlite3_free. */
int schema_image(uint32_t page_size, unsigned char **image, size_t *len, struct err *e) MUST_CHECK;
/* -EPROTONOSUPPORT for a schema newer than this program's, -EUCLEAN when it is no index. */
int schema_check(struct index *ix, struct err *e) MUST_CHECK;

/* Opens the next transaction. */
int transaction_begin(struct index *ix) MUST_CHECK;
/* Counts, COMMIT, and all buffered writes of the WAL. -ENOSPC without index_failed: nothing has happened. */
int transaction_commit(struct index *ix, struct err *e) MUST_CHECK;
/* Copies the WAL's frames to the database file. No transaction is open. */
int checkpoint(struct index *ix) MUST_CHECK;
/* Whether it only lacked room for the database's growth: all is still in the WAL. */
bool checkpoint_lacks_space(const struct index *ix, int ret);

#endif
