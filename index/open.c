#include "base/log.h"
#include "index/db.h"
#include "index/sealed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Our own mutex guards the connection, and nothing here asks SQLite how much memory it uses. Fails when SQLite is
 * already in use in this process, which costs only speed. */
static void sqlite_configure(void)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static void configure_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, sqlite_configure);
}

int index_create(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct err *e)
{
	unsigned char *image = NULL;
	struct io_stat st;
	size_t len = 0;

	configure_once();
	int ret = io_stat(io, VFS_DB, &st);
	if (!ret)
		return err_set(e, -EEXIST, ERR_USAGE, "there is an index already");
	if (ret != -ENOENT)
		return err_set(e, ret, ERR_IO, "index.db: %s", err_text(NULL, ret));
	ret = schema_image(page_size, &image, &len, e);
	if (ret)
		return ret;
	for (size_t at = 0; sealer && at < len && !ret; at += page_size)
		ret = page_seal(sealer, page_size, (uint32_t)(at / page_size) + 1, image + at, image + at);
	if (!ret)
		ret = io_replace_file(io, VFS_DB, IO_REWRITTEN, image, len);
	sqlite3_free(image);
	return ret ? err_set(e, ret, ERR_IO, "writing index.db: %s", err_text(NULL, ret)) : 0;
}

static const char *const pragmas[] = {
    "PRAGMA locking_mode = EXCLUSIVE", /* before the first read: keeps the wal-index on the heap */
    "PRAGMA temp_store = MEMORY",      "PRAGMA synchronous = NORMAL",
    "PRAGMA cache_spill = OFF",        "PRAGMA mmap_size = 0",
    "PRAGMA wal_autocheckpoint = 0",   "PRAGMA cache_size = -16384", /* INDEX_CACHE in KiB */
    "PRAGMA secure_delete = OFF",      "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
};

/* Opens the database, with which SQLite recovers the WAL. */
static int db_open(struct index *ix, struct err *e)
{
	vfs_sync_at_once(ix->vfs, true);
	int rc = sqlite3_open_v2(VFS_DB, &ix->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, vfs_name(ix->vfs));
	if (!ix->db)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the index");
	(void)sqlite3_extended_result_codes(ix->db, 1);
	if (rc != SQLITE_OK) {
		int ret = index_error(ix);
		return err_set(e, ret, ERR_INDEX, "opening index.db: %s", err_text(NULL, ret));
	}
	(void)sqlite3_db_config(ix->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	(void)sqlite3_db_config(ix->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	for (size_t i = 0; i < sizeof(pragmas) / sizeof(pragmas[0]); i++) {
		int ret = db_exec(ix, pragmas[i]);
		if (ret)
			return err_set(e, ret, ERR_INDEX, "%s: %s", pragmas[i], sqlite3_errmsg(ix->db));
	}
	return 0;
}

static int check_page_size(struct index *ix, struct err *e)
{
	SCOPED_FINALIZE st = NULL;

	vfs_error_reset(ix->vfs);
	int rc = sqlite3_prepare_v2(ix->db, "PRAGMA page_size", -1, &st, NULL);
	int ret = rc == SQLITE_OK ? stmt_row(ix, st) : index_error(ix);
	bool as_expected = ret > 0 && stmt_u32(st, 0) == ix->page_size;
	if (ret < 0)
		return err_set(e, ret, ERR_INDEX, "opening index.db: %s", err_text(NULL, ret));
	return as_expected ? 0
	                   : err_set(e, -EUCLEAN, ERR_INDEX, "pages of index.db are not of %u bytes", ix->page_size);
}

/* Brings the database file up to date, so that the WAL starts empty, and begins the first transaction. */
static int db_start(struct index *ix, struct err *e)
{
	int ret = check_page_size(ix, e);

	if (ret)
		return ret;
	ret = checkpoint(ix);
	if (ret && !checkpoint_lacks_space(ix, ret))
		return err_set(e, ret, ERR_INDEX, "recovering the index: %s", err_text(NULL, ret));
	ret = vfs_wal_prepare(ix->vfs, !ret);
	if (ret)
		return err_set(e, ret, ERR_IO, "index.db-wal: %s", err_text(NULL, ret));
	vfs_sync_at_once(ix->vfs, false);
	ret = transaction_begin(ix);
	return ret ? err_set(e, ret, ERR_INDEX, "beginning a transaction: %s", err_text(NULL, ret)) : 0;
}

static void index_free(struct index *ix)
{
	if (!ix)
		return;
	stmt_finalize_all(ix);
	if (ix->db)
		(void)sqlite3_close(ix->db);
	counts_free(ix);
	free(ix->unsure);
	vfs_free(ix->vfs);
	(void)pthread_mutex_destroy(&ix->lock);
	free(ix);
}

static int index_new(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct index **out,
                     struct err *e)
{
	struct io_stat st;

	configure_once();
	int ret = io_stat(io, VFS_DB, &st);
	if (ret)
		return err_set(e, ret, ERR_IO, "index.db: %s", err_text(NULL, ret));
	/* SQLite would delete the WAL beside an empty database. */
	if (!st.size)
		return err_set(e, -EUCLEAN, ERR_FORMAT, "index.db is empty");

	struct index *ix = calloc(1, sizeof(*ix));
	if (!ix)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the index");
	(void)pthread_mutex_init(&ix->lock, NULL);
	ix->io = io;
	ix->per_change = 512;
	ix->checkpoint_every = ix->checkpoint_at = INDEX_CHECKPOINT;
	ix->page_size = page_size;
	ret = vfs_new(io, page_size, sealer, &ix->vfs);
	if (ret) {
		index_free(ix);
		return err_set(e, ret, ERR_MEMORY, "no memory for the index");
	}
	*out = ix;
	return 0;
}

/* Frees what could not be opened. What the VFS has met says more than what SQLite makes of it. */
static int open_failed(struct index *ix, int ret, const struct err *why, struct err *e)
{
	if (*vfs_damage(ix->vfs))
		ret = err_set(e, -EBADMSG, ERR_AUTH, "%s", vfs_damage(ix->vfs));
	else
		ret = err_set(e, ret, why->domain, "%s", err_text(why, ret));
	index_abandon(ix);
	return ret;
}

int index_open(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct index **out, struct err *e)
{
	struct err why = {0};
	struct index *ix = NULL;
	int ret = index_new(io, page_size, sealer, &ix, e);

	if (!ix)
		return ret;
	ret = db_open(ix, &why);
	if (!ret)
		ret = schema_check(ix, &why);
	if (!ret)
		ret = db_start(ix, &why);
	if (ret)
		return open_failed(ix, ret, &why, e);
	*out = ix;
	return 0;
}

int index_open_read(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct index **out,
                    struct err *e)
{
	struct err why = {0};
	struct index *ix = NULL;
	int ret = index_new(io, page_size, sealer, &ix, e);

	if (!ix)
		return ret;
	vfs_read_only(ix->vfs);
	ret = db_open(ix, &why);
	if (!ret)
		ret = schema_check(ix, &why);
	if (ret)
		return open_failed(ix, ret, &why, e);
	*out = ix;
	return 0;
}

/* The database holds everything and is durable; SQLite deletes the WAL as it closes. */
static int db_finish(struct index *ix, struct err *e)
{
	int ret = transaction_commit(ix, e);

	if (ret)
		return ret;
	vfs_sync_at_once(ix->vfs, true);
	ret = checkpoint(ix);
	bool keep_wal = checkpoint_lacks_space(ix, ret);
	if (!ret || keep_wal)
		ret = vfs_sync(ix->vfs);
	if (ret)
		return err_set(e, ret, ERR_INDEX, "writing back the index: %s", err_text(NULL, ret));
	if (keep_wal) {
		log_warn("index: no space to write back the write-ahead log; the next mount does");
		return 0;
	}
	stmt_finalize_all(ix);
	(void)sqlite3_db_config(ix->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	vfs_error_reset(ix->vfs);
	int rc = sqlite3_close(ix->db);
	ix->db = NULL;
	ret = rc == SQLITE_OK ? vfs_error(ix->vfs) : -EIO;
	return ret ? err_set(e, ret, ERR_INDEX, "closing the index: %s", err_text(NULL, ret)) : 0;
}

int index_close(struct index *ix, struct err *e)
{
	int ret = -EIO;

	if (atomic_load(&ix->failed))
		(void)err_set(e, ret, ERR_INDEX, "the index had failed");
	else
		ret = db_finish(ix, e);
	index_abandon(ix);
	return ret;
}

void index_abandon(struct index *ix)
{
	vfs_stop(ix->vfs);
	index_free(ix);
}
