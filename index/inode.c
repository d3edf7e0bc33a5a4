#include "index/db.h"

#include <errno.h>

#define SYMLINK_MAX 4095

void inode_read(sqlite3_stmt *st, int c, struct index_inode *out)
{
	*out = (struct index_inode){
	    .ino = stmt_u64(st, c),
	    .mode = stmt_u32(st, c + 1),
	    .nlink = stmt_u32(st, c + 2),
	    .uid = stmt_u32(st, c + 3),
	    .gid = stmt_u32(st, c + 4),
	    .rdev = stmt_u32(st, c + 5),
	    .flags = stmt_u32(st, c + 6),
	    .size = stmt_u64(st, c + 7),
	    .blocks = stmt_u64(st, c + 8),
	    .parent = stmt_u64(st, c + 9),
	    .generation = stmt_u64(st, c + 10),
	    .atime = {sqlite3_column_int64(st, c + 11), stmt_u32(st, c + 12)},
	    .mtime = {sqlite3_column_int64(st, c + 13), stmt_u32(st, c + 14)},
	    .ctime = {sqlite3_column_int64(st, c + 15), stmt_u32(st, c + 16)},
	    .btime = {sqlite3_column_int64(st, c + 17), stmt_u32(st, c + 18)},
	};
}

static void inode_bind(sqlite3_stmt *st, const struct index_inode *in)
{
	const uint64_t value[INODE_COLUMNS] = {
	    in->ino,        in->mode,
	    in->nlink,      in->uid,
	    in->gid,        in->rdev,
	    in->flags,      in->size,
	    in->blocks,     in->parent,
	    in->generation, (uint64_t)in->atime.sec,
	    in->atime.nsec, (uint64_t)in->mtime.sec,
	    in->mtime.nsec, (uint64_t)in->ctime.sec,
	    in->ctime.nsec, (uint64_t)in->btime.sec,
	    in->btime.nsec,
	};

	for (int i = 0; i < INODE_COLUMNS; i++)
		stmt_bind(st, i + 1, value[i]);
}

int index_inode_get(struct index *ix, uint64_t ino, struct index_inode *out)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_INODE_GET);

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, ino);
	int ret = stmt_find(ix, st);
	if (ret)
		return ret;
	inode_read(st, 0, out);
	return 0;
}

int index_inode_put(struct index *ix, const struct index_inode *in)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_INODE_PUT);
	inode_bind(st, in);
	ret = stmt_run(ix, st);
	write_end(ix);
	return ret;
}

int index_inode_blocks(struct index *ix, uint64_t ino, int64_t change)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	sqlite3_stmt *st = stmt_get(ix, STMT_INODE_BLOCKS);
	stmt_bind(st, 1, ino);
	stmt_bind(st, 2, (uint64_t)change);
	ret = stmt_run(ix, st);
	write_end(ix);
	return ret;
}

int index_inode_delete(struct index *ix, uint64_t ino)
{
	static const enum stmt tables[] = {STMT_INODE_DELETE, STMT_SYMLINK_DELETE, STMT_XATTR_DELETE};

	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	ret = extent_clear(ix, ino);
	/* What the row says of its type and attributes may be older than they are: look everywhere. */
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && !ret; i++) {
		sqlite3_stmt *st = stmt_get(ix, tables[i]);
		stmt_bind(st, 1, ino);
		ret = stmt_run(ix, st);
	}
	write_end(ix);
	return ret;
}

int index_inode_orphans(struct index *ix, uint64_t *ino, size_t max, size_t *n)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_INODE_ORPHANS);
	int ret = 0;

	*n = 0;
	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, max);
	while (*n < max && (ret = stmt_row(ix, st)) > 0)
		ino[(*n)++] = stmt_u64(st, 0);
	return ret < 0 ? ret : 0;
}

int index_symlink_put(struct index *ix, uint64_t ino, const char *target, size_t len)
{
	SCOPED_LOCK(&ix->lock);
	int ret = write_begin(ix);

	if (ret)
		return ret;
	if (!len)
		return -EINVAL;
	if (len > SYMLINK_MAX)
		return -ENAMETOOLONG;
	sqlite3_stmt *st = stmt_get(ix, STMT_SYMLINK_PUT);
	stmt_bind(st, 1, ino);
	stmt_bind_value(ix, st, 2, target, len);
	ret = stmt_run(ix, st);
	write_end(ix);
	return ret;
}

int index_symlink_get(struct index *ix, uint64_t ino, char *target, size_t *len)
{
	SCOPED_LOCK(&ix->lock);
	SCOPED_STMT st = stmt_get(ix, STMT_SYMLINK_GET);

	if (!st)
		return index_error(ix);
	stmt_bind(st, 1, ino);
	int ret = stmt_find(ix, st);
	if (ret)
		return ret;
	return stmt_blob(st, 0, target, len);
}
