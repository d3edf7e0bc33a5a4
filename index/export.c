#include "index/db.h"

#include <errno.h>

static void close_scoped(sqlite3 **db)
{
	(void)sqlite3_close(*db);
}

static int out_failed(sqlite3 *out, struct err *e)
{
	int rc = sqlite3_errcode(out);
	int ret = rc == SQLITE_FULL ? -ENOSPC : rc == SQLITE_NOMEM ? -ENOMEM : -EIO;

	return err_set(e, ret, ERR_IO, "the copy cannot be written: %s", sqlite3_errmsg(out));
}

/* Every page as it is. One that does not open ends it: a copy with a hole would look whole. */
static int copy_pages(struct index *ix, sqlite3 *out, struct err *e)
{
	sqlite3_backup *b = sqlite3_backup_init(out, "main", ix->db, "main");

	if (!b)
		return out_failed(out, e);
	vfs_error_reset(ix->vfs);
	(void)sqlite3_backup_step(b, -1);
	if (sqlite3_backup_finish(b) == SQLITE_OK)
		return 0;
	if (*vfs_damage(ix->vfs))
		return err_set(e, -EBADMSG, ERR_AUTH, "%s", vfs_damage(ix->vfs));
	int ret = vfs_error(ix->vfs);
	if (ret)
		return err_set(e, ret, ERR_IO, "the index cannot be read: %s", err_text(NULL, ret));
	return out_failed(out, e);
}

int index_export(struct index *ix, const char *path, struct err *e)
{
	__attribute__((cleanup(close_scoped))) sqlite3 *out = NULL;

	SCOPED_LOCK(&ix->lock);
	if (sqlite3_open_v2(path, &out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, "unix") != SQLITE_OK)
		return out_failed(out, e);
	(void)sqlite3_exec(out, "PRAGMA journal_mode = OFF", NULL, NULL, NULL);
	int ret = copy_pages(ix, out, e);
	/* The copy of a database in WAL mode is one too, which those who may only read it cannot open. */
	if (!ret && sqlite3_exec(out, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL) != SQLITE_OK)
		ret = out_failed(out, e);
	return ret;
}
