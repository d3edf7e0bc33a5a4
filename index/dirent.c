#include "index/db.h"

#include <errno.h>
#include <string.h>

static int check_name(size_t len)
{
	if (!len)
		return -EINVAL;
	return len > INDEX_NAME_MAX ? -ENAMETOOLONG : 0;
}

/* What a directory can list: the kernel refuses whole listings with other names. */
static bool name_valid(const char *name, size_t len)
{
	if (!len || len > INDEX_NAME_MAX || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	return name[0] != '.' || (len > 1 && (len > 2 || name[1] != '.'));
}

/* Columns name, ino, cookie, type. */
static int dirent_read(sqlite3_stmt *st, struct index_dirent *out)
{
	const void *name = sqlite3_column_blob(st, 0);
	int len = sqlite3_column_bytes(st, 0);

	if (!name || !name_valid(name, (size_t)len))
		return index_damaged("a name");
	memcpy(out->name, name, (size_t)len);
	out->name[len] = '\0';
	out->name_len = (uint8_t)len;
	out->ino = stmt_u64(st, 1);
	out->cookie = stmt_u64(st, 2);
	out->type = (uint8_t)stmt_u32(st, 3);
	return 0;
}

int index_dirent_get(struct index *ix, uint64_t parent, const char *name, size_t len, struct index_dirent *out)
{
	int ret = check_name(len);

	if (ret)
		return ret;
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_DIRENT_GET);
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, parent);
	stmt_bind_blob(st, 2, name, len);
	ret = stmt_find(ix, st);
	if (ret)
		return ret;
	return dirent_read(st, out);
}

static int dirent_write_begin(struct index *ix, size_t len)
{
	int ret = write_begin(ix);

	return ret ? ret : check_name(len);
}

int index_dirent_add(struct index *ix, uint64_t parent, const struct index_dirent *d)
{
	SCOPED_LOCK(&ix->lock);
	int ret = dirent_write_begin(ix, d->name_len);

	if (!ret && d->cookie > INT64_MAX)
		ret = -EINVAL;
	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_DIRENT_ADD);
	stmt_bind(st, 1, parent);
	stmt_bind_blob(st, 2, d->name, d->name_len);
	stmt_bind(st, 3, d->ino);
	stmt_bind(st, 4, d->cookie);
	stmt_bind(st, 5, d->type);
	ret = stmt_run(ix, st);
	write_end(ix);
	return ret;
}

/* -ENOENT: there is no such name. */
static int dirent_change(struct index *ix, sqlite3_stmt *st)
{
	int ret = stmt_run(ix, st);

	write_end(ix);
	if (!ret && !sqlite3_changes(ix->db))
		return -ENOENT;
	return ret;
}

int index_dirent_remove(struct index *ix, uint64_t parent, const char *name, size_t len)
{
	SCOPED_LOCK(&ix->lock);
	int ret = dirent_write_begin(ix, len);

	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_DIRENT_REMOVE);
	stmt_bind(st, 1, parent);
	stmt_bind_blob(st, 2, name, len);
	return dirent_change(ix, st);
}

int index_dirent_set(struct index *ix, uint64_t parent, const char *name, size_t len, uint64_t ino, uint8_t type)
{
	SCOPED_LOCK(&ix->lock);
	int ret = dirent_write_begin(ix, len);

	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_DIRENT_SET);
	stmt_bind(st, 1, parent);
	stmt_bind_blob(st, 2, name, len);
	stmt_bind(st, 3, ino);
	stmt_bind(st, 4, type);
	return dirent_change(ix, st);
}

int index_dirent_rename(struct index *ix, uint64_t parent, const char *name, size_t len, const char *new_name,
                        size_t new_len)
{
	SCOPED_LOCK(&ix->lock);
	int ret = dirent_write_begin(ix, len);

	if (!ret)
		ret = check_name(new_len);
	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_DIRENT_RENAME);
	stmt_bind(st, 1, parent);
	stmt_bind_blob(st, 2, name, len);
	stmt_bind_blob(st, 3, new_name, new_len);
	return dirent_change(ix, st);
}

int index_dirent_list(struct index *ix, uint64_t parent, uint64_t after, bool want_inodes, index_dirent_fn fn,
                      void *arg)
{
	struct index_dirent d;
	struct index_inode inode;

	if (after >= INT64_MAX)
		return 0;
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, want_inodes ? STMT_DIRENT_LIST_INODES : STMT_DIRENT_LIST);
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, parent);
	stmt_bind(st, 2, after);
	for (;;) {
		int ret = stmt_row(ix, st);
		if (ret > 0) {
			ret = dirent_read(st, &d);
			if (ret)
				return ret;
		} else {
			return ret;
		}
		bool has_inode = want_inodes && sqlite3_column_type(st, 4) != SQLITE_NULL;
		if (has_inode)
			inode_read(st, 4, &inode);
		if (fn(arg, &d, has_inode ? &inode : NULL))
			return 0;
	}
}
