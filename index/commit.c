#include "base/log.h"
#include "index/db.h"
#include "index/hooks.h"

#include <errno.h>

/* Pages of file space that deletions left free are given back once they are this many and a quarter of the file. */
#define FREE_PAGES 1024

int transaction_begin(struct index *ix)
{
	int ret = stmt_run(ix, stmt_get(ix, STMT_BEGIN));

	if (ret)
		return index_fail(ix, ret);
	ix->changes = sqlite3_total_changes64(ix->db);
	atomic_store(&ix->pending, 0);
	return 0;
}

/* An upper bound of what COMMIT will write: no more pages than are cached, and no more than the changed rows touch,
 * each in a few trees with a few levels and splits. */
static uint64_t commit_bound(struct index *ix, uint64_t changes)
{
	uint64_t page = ix->page_size, pages = 16 + 12 * changes;
	int used = 0, peak;

	if (sqlite3_db_status(ix->db, SQLITE_DBSTATUS_CACHE_USED, &used, &peak, 0) == SQLITE_OK &&
	    pages > (uint64_t)used / page + 16)
		pages = (uint64_t)used / page + 16;
	return pages * (page + INDEX_FRAME_HEADER);
}

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

/* Moves pages from the end of the file to free places before it, a bounded number at a time. */
static int vacuum(struct index *ix)
{
	uint64_t unused = 0, pages = 0;
	int ret = pragma_number(ix, STMT_FREE_PAGES, &unused);

	if (ret || unused < FREE_PAGES)
		return ret;
	ret = pragma_number(ix, STMT_PAGES, &pages);
	if (ret || unused < pages / 4)
		return ret;
	return stmt_run(ix, stmt_get(ix, STMT_VACUUM));
}

/* Learns what a changed row costs. */
static void learn(struct index *ix, uint64_t changes, uint64_t used_before)
{
	uint64_t used = vfs_wal_used(ix->vfs);

	if (changes < 32)
		return;
	/* A WAL that was restarted begins at 0. */
	uint64_t bytes = (used >= used_before ? used - used_before : used) / changes;
	ix->per_change = (uint32_t)((ix->per_change + 3 * (bytes > 65536 ? 65536 : bytes)) / 4);
}

int transaction_commit(struct index *ix, struct err *e)
{
	int ret = counts_apply(ix, e);

	if (ret)
		return index_fail(ix, ret);
	uint64_t changes = (uint64_t)(sqlite3_total_changes64(ix->db) - ix->changes);
	ret = vacuum(ix);
	if (ret)
		return err_set(e, index_fail(ix, ret), ERR_INDEX, "vacuum: %s", err_text(NULL, ret));
	ret = vfs_wal_reserve(ix->vfs, commit_bound(ix, changes));
	if (ret == -ENOSPC || ret == -EDQUOT)
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
	return (ret == -ENOSPC || ret == -EDQUOT) && !vfs_stopped(ix->vfs);
}

/* A checkpoint without room for the database's growth leaves all in the WAL, which grows in its stead. */
static int checkpoint_if_due(struct index *ix, struct err *e)
{
	if (vfs_wal_used(ix->vfs) < ix->checkpoint_at)
		return 0;
	int ret = checkpoint(ix);
	if (checkpoint_lacks_space(ix, ret)) {
		log_warn("index: no space to write back the write-ahead log");
		ix->checkpoint_at = vfs_wal_used(ix->vfs) + ix->checkpoint_every / 4;
		return 0;
	}
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

void index_size(struct index *ix, uint64_t *db, uint64_t *wal)
{
	vfs_size(ix->vfs, db, wal);
}

void index_checkpoint_every(struct index *ix, uint64_t bytes)
{
	SCOPED_LOCK(&ix->lock);
	ix->checkpoint_every = ix->checkpoint_at = bytes;
}
