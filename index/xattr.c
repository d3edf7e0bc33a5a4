#include "index/db.h"

#include <errno.h>
#include <string.h>

#define XATTR_VALUE_MAX 65536

static int check_name(const char *name)
{
	size_t len = strlen(name);

	if (!len)
		return -EINVAL;
	return len > INDEX_NAME_MAX ? -ERANGE : 0;
}

int index_xattr_get(struct index *ix, uint64_t ino, const char *name, void *value, size_t *len)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_XATTR_GET);

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, ino);
	stmt_bind_blob(st, 2, name, strlen(name));
	int ret = stmt_row(ix, st);
	if (ret <= 0)
		return ret ? ret : -ENODATA;
	return stmt_blob(st, 0, value, len);
}

int index_xattr_set(struct index *ix, uint64_t ino, const char *name, const void *value, size_t len)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (!ret)
		ret = check_name(name);
	if (!ret && len > XATTR_VALUE_MAX)
		ret = -E2BIG;
	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_XATTR_SET);
	stmt_bind(st, 1, ino);
	stmt_bind_blob(st, 2, name, strlen(name));
	stmt_bind_value(ix, st, 3, value, len);
	ret = stmt_run(ix, st);
	write_end(ix);
	return ret;
}

int index_xattr_remove(struct index *ix, uint64_t ino, const char *name)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_XATTR_REMOVE);
	stmt_bind(st, 1, ino);
	stmt_bind_blob(st, 2, name, strlen(name));
	ret = stmt_run(ix, st);
	write_end(ix);
	if (!ret && !sqlite3_changes(ix->db))
		return -ENODATA;
	return ret;
}

int index_xattr_list(struct index *ix, uint64_t ino, char *names, size_t *len)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_XATTR_LIST);
	size_t room = *len, total = 0;
	int ret;

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, ino);
	while ((ret = stmt_row(ix, st)) > 0) {
		const void *name = sqlite3_column_blob(st, 0);
		size_t n = (size_t)sqlite3_column_bytes(st, 0);
		if (!name || n > INDEX_NAME_MAX)
			return index_damaged("the length of an attribute's name");
		if (room > total && room - total > n) {
			memcpy(names + total, name, n);
			names[total + n] = '\0';
		}
		total += n + 1;
	}
	*len = total;
	if (ret < 0)
		return ret;
	return room && total > room ? -ERANGE : 0;
}
