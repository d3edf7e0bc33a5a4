/* Questions the wrong way round, which only a check asks: what an inode is called. */
#include "index/db.h"

#include <errno.h>

int index_name_of(struct index *ix, uint64_t parent, uint64_t ino, char name[INDEX_NAME_MAX + 1])
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_DIRENT_OF);
	size_t len = INDEX_NAME_MAX;

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, parent);
	stmt_bind(st, 2, ino);
	int ret = stmt_find(ix, st);
	if (!ret)
		ret = stmt_blob(st, 0, name, &len);
	if (!ret)
		name[len] = '\0';
	return ret == -ERANGE ? index_damaged("a name") : ret;
}

int index_names_all(struct index *ix, int (*fn)(void *arg, uint64_t parent, uint64_t ino, const char *name, size_t len),
                    void *arg)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_DIRENT_ALL);

	if (!st)
		return index_error(ix);
	for (;;) {
		int ret = stmt_row(ix, st);

		if (ret <= 0)
			return ret;
		const char *name = sqlite3_column_blob(st, 2);
		ret = fn(arg, stmt_u64(st, 0), stmt_u64(st, 1), name ? name : "", (size_t)sqlite3_column_bytes(st, 2));
		if (ret)
			return ret;
	}
}
