#include "base/log.h"
#include "index/db.h"

#include <errno.h>

/* Pages of file space that deletions left free are given back once they are this many and a quarter of the file. */
#define FREE_PAGES   1024
#define COMMIT_PAGES 16u  /* that any commit may change */
#define ROWS_A_PAGE  20u  /* extents or inodes, at least */
#define VACUUM_PAGES 128u /* moved at a time, as the statement says */
#define MAPPED_PAGES 512u /* that a page of the map of pointers tells of, at least */

static int pragma_number(struct index *ix, enum stmt which, uint64_t *value)
{
	SCOPED_STMT st = stmt_get(ix, which);

	if (!st)
		return index_error(ix);
	int ret = stmt_row(ix, st);
	if (ret <= 0)
		return ret ? ret : -EIO;
	*value = stmt_u64(st, 0);
	return 0;
}

/* What the files lack of what has been committed. */
static int owed_update(struct index *ix)
{
	uint64_t pages = 0, db = 0, wal = 0;
	int ret = pragma_number(ix, STMT_PAGES, &pages);

	if (ret)
		return index_fail(ix, ret);
	vfs_size(ix->vfs, &db, &wal);
	atomic_store(&ix->pages, pages);
	atomic_store(&ix->owed, pages * ix->page_size > db ? pages * ix->page_size - db : 0);
	atomic_store(&ix->wal_room, vfs_wal_room(ix->vfs));
	return 0;
}

int transaction_begin(struct index *ix)
{
	int ret = stmt_run(ix, stmt_get(ix, STMT_BEGIN));

	if (ret)
		return index_fail(ix, ret);
	ix->changes = sqlite3_total_changes64(ix->db);
	ix->values = 0;
	atomic_store(&ix->pending, 0);
	return owed_update(ix);
}

static uint64_t frame_size(const struct index *ix)
{
	return ix->page_size + INDEX_FRAME_EXTRA;
}

/* An upper bound of what COMMIT will write, in bytes: no more than these pages, and no more than are cached. */
static uint64_t commit_bound(struct index *ix, uint64_t pages)
{
	uint64_t page = ix->page_size;
	int used = 0, peak;

	if (sqlite3_db_status(ix->db, SQLITE_DBSTATUS_CACHE_USED, &used, &peak, 0) == SQLITE_OK &&
	    pages > (uint64_t)used / page + COMMIT_PAGES)
		pages = (uint64_t)used / page + COMMIT_PAGES;
	return pages * frame_size(ix);
}

/* Room for COMMIT in the WAL. Where it has to grow for that it grows by what is dirty, not by what is cached. */
static int wal_reserve(struct index *ix, uint64_t pages)
{
	uint64_t bound = commit_bound(ix, pages);

	if (bound > vfs_wal_room(ix->vfs)) {
		(void)sqlite3_db_release_memory(ix->db);
		bound = commit_bound(ix, pages);
	}
	return pages ? vfs_wal_reserve(ix->vfs, bound) : 0;
}

/* Moves pages from the end of the file to free places before it, a bounded number at a time, and only within what the
 * WAL has room for already: giving space back must not need any. *touched: an upper bound of the pages changed. */
static int vacuum(struct index *ix, uint64_t bound, uint64_t *touched)
{
	uint64_t unused = 0, pages = 0;
	int ret = pragma_number(ix, STMT_FREE_PAGES, &unused);

	if (ret || unused < FREE_PAGES)
		return ret;
	ret = pragma_number(ix, STMT_PAGES, &pages);
	/* The page, the one that refers to it, the free list, and the map. */
	uint64_t most = UINT64_C(3) * VACUUM_PAGES + pages / MAPPED_PAGES;
	if (ret || unused < pages / 4 || bound + most * frame_size(ix) > vfs_wal_room(ix->vfs))
		return ret;
	*touched = most;
	return stmt_run(ix, stmt_get(ix, STMT_VACUUM));
}

/* Learns what a changed row costs besides its large values. */
static void learn(struct index *ix, uint64_t changes, uint64_t used_before)
{
	uint64_t used = vfs_wal_used(ix->vfs);

	if (changes < 32)
		return;
	/* A WAL that was restarted begins at 0. */
	uint64_t bytes = used >= used_before ? used - used_before : used;
	/* What is mostly values, some of them perhaps put over one another, tells nothing of rows. */
	if (bytes / 2 < ix->values)
		return;
	bytes = (bytes - ix->values) / changes;
	ix->per_change = (uint32_t)((ix->per_change + 3 * (bytes > 65536 ? 65536 : bytes)) / 4);
}

int transaction_commit(struct index *ix, struct err *e)
{
	int ret = counts_apply(ix, e);

	if (ret)
		return index_fail(ix, ret);
	uint64_t changes = (uint64_t)(sqlite3_total_changes64(ix->db) - ix->changes), moved = 0;
	/* Each changed row touches a few trees, with a few levels and splits, and the pages of its large values. */
	uint64_t pages = changes ? COMMIT_PAGES + 12 * changes + ix->values / ix->page_size : 0;
	ret = vacuum(ix, commit_bound(ix, pages), &moved);
	if (ret)
		return err_set(e, index_fail(ix, ret), ERR_INDEX, "vacuum: %s", err_text(NULL, ret));
	ret = wal_reserve(ix, pages + moved);
	if (err_is_no_space(ret))
		return err_set(e, ret, ERR_SPACE, "no space for the index's write-ahead log");
	if (ret)
		return err_set(e, index_fail(ix, ret), ERR_IO, "index.db-wal: %s", err_text(NULL, ret));
	uint64_t used = vfs_wal_used(ix->vfs);
	ret = stmt_run(ix, stmt_get(ix, STMT_COMMIT));
	if (!ret)
		ret = vfs_flush(ix->vfs);
	if (ret)
		return err_set(e, index_fail(ix, ret), ERR_INDEX, "COMMIT: %s", err_text(NULL, ret));
	learn(ix, changes, used);
	return 0;
}

int checkpoint(struct index *ix)
{
	int frames = -1, copied = -1;

	vfs_error_reset(ix->vfs);
	vfs_checkpoint_begin(ix->vfs);
	int rc = sqlite3_wal_checkpoint_v2(ix->db, "main", SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
	int ret = rc == SQLITE_OK ? 0 : vfs_error(ix->vfs);
	if (rc != SQLITE_OK && !ret)
		ret = rc == SQLITE_NOMEM ? -ENOMEM : -EIO;
	int flushed = vfs_flush(ix->vfs);
	if (!ret)
		ret = flushed;
	vfs_checkpoint_end(ix->vfs, !ret && frames == copied);
	return ret;
}

bool checkpoint_lacks_space(const struct index *ix, int ret)
{
	return err_is_no_space(ret) && !vfs_stopped(ix->vfs);
}

/* A checkpoint without room for the database's growth leaves all in the WAL, which grows in its stead. */
static int checkpoint_if_due(struct index *ix, struct err *e)
{
	uint64_t used = vfs_wal_used(ix->vfs);

	if (used < ix->checkpoint_at && (!used || vfs_wal_room(ix->vfs) >= ix->keep_room))
		return 0;
	int ret = checkpoint(ix);
	if (checkpoint_lacks_space(ix, ret)) {
		if (!ix->lacks_space)
			log_warn("index: no space to write back the write-ahead log");
		ix->lacks_space = true;
		ix->checkpoint_at = vfs_wal_used(ix->vfs) + ix->checkpoint_every / 4;
		return 0;
	}
	ix->lacks_space = false;
	if (ret)
		return err_set(e, index_fail(ix, ret), ERR_INDEX, "checkpoint: %s", err_text(NULL, ret));
	ix->checkpoint_at = ix->checkpoint_every;
	return 0;
}

int index_commit(struct index *ix, struct err *e)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return err_set(e, ret, ERR_INDEX, "the index has failed");
	ret = transaction_commit(ix, e);
	if (ret)
		return ret;
	ret = checkpoint_if_due(ix, e);
	if (ret)
		return ret;
	ret = transaction_begin(ix);
	return ret ? err_set(e, ret, ERR_INDEX, "BEGIN: %s", err_text(NULL, ret)) : 0;
}

int index_sync(struct index *ix, struct err *e)
{
	if (atomic_load(&ix->failed))
		return err_set(e, -EIO, ERR_INDEX, "the index has failed");
	int ret = vfs_sync(ix->vfs);
	return ret ? err_set(e, index_fail(ix, ret), ERR_IO, "fdatasync of the index: %s", err_text(NULL, ret)) : 0;
}

bool index_failed(const struct index *ix)
{
	return atomic_load(&ix->failed);
}

size_t index_pending(const struct index *ix)
{
	return atomic_load(&ix->pending);
}

uint64_t index_owed(const struct index *ix, uint64_t rows)
{
	uint64_t pending = atomic_load(&ix->pending), room = atomic_load(&ix->wal_room);
	/* A row to come changes a leaf in its table and one in an index; all of them no more than there are. */
	uint64_t pages = 2 * rows, most = atomic_load(&ix->pages) + rows / ROWS_A_PAGE;

	if (pages > most)
		pages = most;
	uint64_t wal = 2 * pending + (pages + COMMIT_PAGES) * frame_size(ix);
	return atomic_load(&ix->owed) + pending + rows * ix->page_size / ROWS_A_PAGE + (wal > room ? wal - room : 0);
}

void index_size(struct index *ix, uint64_t *db, uint64_t *wal)
{
	vfs_size(ix->vfs, db, wal);
}

void index_keep_room(struct index *ix, uint64_t bytes)
{
	SCOPED_LOCK(&ix->lock);
	ix->keep_room = bytes;
}

void index_checkpoint_every(struct index *ix, uint64_t bytes)
{
	SCOPED_LOCK(&ix->lock);
	ix->checkpoint_every = ix->checkpoint_at = bytes;
}
