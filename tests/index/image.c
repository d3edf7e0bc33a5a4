#include "tests/index/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t *load(struct io *io, const char *path, size_t *len)
{
	void *buf = NULL;

	assert_int_equal(io_read_file(io, path, 64 << 20, &buf, len), 0);
	return buf;
}

void poke(struct io *io, const char *path, uint64_t off, const void *data, size_t len)
{
	struct io_file *f;

	assert_int_equal(io_open(io, path, IO_WRITE, &f), 0);
	assert_int_equal(io_pwrite(f, data, len, off), 0);
	io_close(f);
}

void flip(struct io *io, const char *path, uint64_t off, unsigned bit)
{
	struct io_file *f;
	uint8_t b;

	assert_int_equal(io_open(io, path, IO_WRITE, &f), 0);
	assert_int_equal(io_pread(f, &b, 1, off), 1);
	b ^= (uint8_t)(1u << bit);
	assert_int_equal(io_pwrite(f, &b, 1, off), 0);
	io_close(f);
}

void put_back(struct io *io, const char *path, const uint8_t *data, size_t len)
{
	struct io_file *f;

	assert_int_equal(io_open(io, path, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_truncate(f, len), 0);
	if (len)
		assert_int_equal(io_pwrite(f, data, len, 0), 0);
	io_close(f);
}

struct image image_take(struct io *io)
{
	struct image m = {0};

	m.db = load(io, VFS_DB, &m.db_len);
	m.wal = load(io, VFS_WAL, &m.wal_len);
	return m;
}

void image_restore(struct io *io, const struct image *m)
{
	put_back(io, VFS_DB, m->db, m->db_len);
	put_back(io, VFS_WAL, m->wal, m->wal_len);
}

void image_free(struct image *m)
{
	free(m->db);
	free(m->wal);
}

static uint64_t hash_more(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3;
	return h;
}

uint64_t rows_hash(struct index *ix)
{
	static const char *const tables[] = {"meta",   "inode", "symlink",      "dirent", "xattr",
	                                     "extent", "chunk", "inline_chunk", "segment"};
	uint64_t h = 0xcbf29ce484222325;

	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
		char sql[64];
		sqlite3_stmt *st = NULL;
		(void)snprintf(sql, sizeof(sql), "SELECT * FROM %s ORDER BY 1, 2", tables[t]);
		int rc = sqlite3_prepare_v2(ix->db, sql, -1, &st, NULL);
		while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
			for (int i = 0; i < sqlite3_column_count(st); i++) {
				const void *blob = sqlite3_column_blob(st, i);
				int n = sqlite3_column_bytes(st, i);
				h = hash_more(h, &n, sizeof(n));
				h = hash_more(h, blob, (size_t)n);
			}
			rc = SQLITE_OK;
		}
		(void)sqlite3_finalize(st);
		if (rc != SQLITE_DONE)
			return 0;
	}
	return h;
}

uint64_t open_and_hash(struct io *io, int *ret)
{
	struct index *ix = NULL;
	struct err e = {0};

	*ret = index_open_read(io, PAGE, test_sealer, &ix, &e);
	if (*ret) {
		assert_true(*ret < 0 && e.code == *ret);
		return 0;
	}
	uint64_t h = rows_hash(ix);
	index_abandon(ix);
	return h;
}

void put_names(struct index *ix, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		char name[INDEX_NAME_MAX + 1];
		(void)snprintf(name, sizeof(name), "canary of a name, number %u", i * 7919);
		struct index_dirent d = some_dirent(name, 100 + i, 100 + i);
		assert_int_equal(index_dirent_add(ix, 1 + i % 50, &d), 0);
		struct index_inode in = some_inode(100 + i, 1);
		assert_int_equal(index_inode_put(ix, &in), 0);
	}
}

void crashed_init(struct crashed *c, unsigned synced)
{
	struct index *ix = new_index(&c->io);

	close_index(ix);
	ix = open_index(c->io);
	c->rows[0] = rows_hash(ix);
	c->last[0] = 0;
	c->durable = 0;
	for (unsigned i = 1; i <= COMMITS; i++) {
		put_names(ix, i * 60, (i + 1) * 60);
		commit_index(ix);
		c->rows[i] = rows_hash(ix);
		c->last[i] = ix->vfs->wal_last;
		if (i <= synced)
			ok(index_sync(ix, &ok_err));
		if (i <= synced && i < COMMITS)
			c->durable = c->last[i];
	}
	c->m = image_take(c->io);
	index_abandon(ix);
}

void crashed_release(struct crashed *c)
{
	image_free(&c->m);
	io_free(c->io);
}
