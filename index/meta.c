#include "index/db.h"

#include <errno.h>
#include <string.h>

int index_meta_get(struct index *ix, const char *key, uint64_t fallback, uint64_t *value)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_META_GET);

	if (!st)
		return index_error(ix);
	(void)sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	int ret = stmt_row(ix, st);
	if (ret < 0)
		return ret;
	*value = ret ? stmt_u64(st, 0) : fallback;
	return 0;
}

int index_meta_set(struct index *ix, const char *key, uint64_t value)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	if (!*key || !strcmp(key, "schema"))
		return -EINVAL;
	sqlite3_stmt *st = stmt_get(ix, STMT_META_SET);
	(void)sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	stmt_bind(st, 2, value);
	ret = stmt_run(ix, st);
	write_end(ix);
	return ret;
}
