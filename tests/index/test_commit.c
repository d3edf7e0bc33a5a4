/* Transactions, syncs, space, files and threads. */
#include "index/db.h"
#include "tests/base/scratch.h"
#include "tests/index/history.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A result that may be anything. */
static void any(int ret)
{
	(void)ret;
}

/* Rows of which none is as it was: SQLite does not write what has not changed. */
static void put_inodes(struct index *ix, uint64_t from, uint64_t to)
{
	static uint64_t size = (uint64_t)1 << 40;

	for (uint64_t ino = from; ino < to; ino++) {
		struct index_inode in = some_inode(ino, 1);
		in.size = size++;
		assert_int_equal(index_inode_put(ix, &in), 0);
	}
}

static void test_transaction(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in;

	(void)state;
	put_inodes(ix, 1, 10);
	assert_true(index_pending(ix) > 0);
	commit_index(ix);
	assert_int_equal(index_pending(ix), 0);
	put_inodes(ix, 10, 20);
	index_abandon(ix);
	ix = open_index(io);
	assert_int_equal(index_inode_get(ix, 9, &in), 0);
	assert_int_equal(index_inode_get(ix, 10, &in), -ENOENT);
	close_index(ix);
	io_free(io);
}

/* The estimate of dirty bytes follows what a commit writes, within a factor. */
static void test_pending(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);

	(void)state;
	index_checkpoint_every(ix, (uint64_t)1 << 30);
	for (unsigned i = 0; i < 10; i++) {
		put_inodes(ix, 1 + i * 20000, 1 + (i + 1) * 20000);
		size_t pending = index_pending(ix);
		uint64_t before = vfs_wal_used(ix->vfs);
		commit_index(ix);
		uint64_t wrote = vfs_wal_used(ix->vfs) - before;
		assert_true(i < 3 || (pending > wrote / 3 && pending < wrote * 3));
	}
	/* Changes that touch a page each. */
	for (unsigned i = 0; i < 8; i++) {
		for (uint64_t ino = 1; ino < 200000; ino += 400)
			put_inodes(ix, ino, ino + 1);
		size_t pending = index_pending(ix);
		uint64_t before = vfs_wal_used(ix->vfs);
		commit_index(ix);
		uint64_t wrote = vfs_wal_used(ix->vfs) - before;
		assert_true(i < 4 || (pending > wrote / 3 && pending < wrote * 3));
	}
	index_abandon(ix);
	io_free(io);
}

/* One large value in each row: attributes, symbolic links and inline records. */
static void put_values(struct index *ix, uint64_t from, uint64_t to)
{
	static uint8_t value[64 << 10];

	for (uint64_t i = from; i < to; i++) {
		struct index_chunk c = {.id = i,
		                        .segment = 1,
		                        .stored_len = 28 << 10,
		                        .plain_len = 28 << 10,
		                        .sequence = i,
		                        .inline_data = value};
		struct index_extent x = {i << 20, 28 << 10, i, 0};
		memset(value, (int)i, sizeof(value));
		assert_int_equal(index_xattr_set(ix, i, "user.large", value, sizeof(value)), 0);
		assert_int_equal(index_symlink_put(ix, i, (const char *)value, 4095), 0);
		assert_int_equal(index_chunk_put(ix, &c), 0);
		assert_int_equal(index_extent_set(ix, 1, &x), 0);
	}
}

/* Large values count for what they are from the first on, and rows that come after for no more than they were. */
static void test_pending_values(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);

	(void)state;
	index_checkpoint_every(ix, (uint64_t)1 << 30);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t owed = index_owed(ix, 0);
		put_values(ix, 1 + i * 40, 1 + (i + 1) * 40);
		size_t pending = index_pending(ix);
		owed = index_owed(ix, 0) - owed;
		uint64_t before = vfs_wal_used(ix->vfs);
		commit_index(ix);
		uint64_t wrote = vfs_wal_used(ix->vfs) - before;
		assert_true(wrote > 40 * (96 << 10));
		assert_true(pending > wrote * 9 / 10 && pending < wrote * 3 / 2);
		assert_true(owed > wrote * 9 / 10);
	}
	put_inodes(ix, 1, 2000);
	assert_true(index_pending(ix) <= 2000 * 512);
	index_abandon(ix);
	io_free(io);
}

/* With any rest of space a transaction of large values is committed, or it stays open and can be committed later. */
static void test_values_without_room(void **state)
{
	static uint8_t value[64 << 10];
	struct io *io;

	(void)state;
	for (uint64_t n = 10; n <= 300; n += 29) {
		struct index *ix = new_index(&io);
		size_t len = sizeof(value);
		uint64_t used, lacked = 0;
		commit_index(ix);
		for (uint64_t i = 0; i < n; i++)
			assert_int_equal(index_xattr_set(ix, i, "user.large", value, sizeof(value)), 0);
		used = sim_used(io);
		for (sim_limit(io, used); index_commit(ix, NULL); sim_limit(io, used + lacked * (64 << 10))) {
			assert_false(index_failed(ix));
			lacked++;
		}
		assert_true(lacked * (64 << 10) > (n - 64) * sizeof(value) || n < 64); /* 4 MiB are there */
		ok(index_sync(ix, &ok_err));
		index_abandon(ix);
		sim_crash(io, n);
		sim_limit(io, 0);
		ix = open_index(io);
		for (uint64_t i = 0; i < n; i++)
			assert_int_equal(index_xattr_get(ix, i, "user.large", value, &len), 0);
		close_index(ix);
		io_free(io);
	}
}

/* A transaction that outgrows the cache shows it, whatever the estimate was. */
static void test_pending_large(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);

	(void)state;
	ix->per_change = 1;
	put_inodes(ix, 1, 400000);
	assert_true(index_pending(ix) > (20 << 20));
	index_abandon(ix);
	io_free(io);
}

/* One fdatasync a commit, none for nothing; a commit alone has none. */
static void test_syncs(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	unsigned before = sim_syncs(io);

	(void)state;
	put_inodes(ix, 1, 100);
	commit_index(ix);
	assert_int_equal(sim_syncs(io), before);
	ok(index_sync(ix, &ok_err));
	assert_int_equal(sim_syncs(io), before + 1);
	ok(index_sync(ix, &ok_err));
	commit_index(ix);
	ok(index_sync(ix, &ok_err));
	assert_int_equal(sim_syncs(io), before + 1);
	/* With a checkpoint: the WAL before it, then database and WAL in index_sync. */
	put_inodes(ix, 1, 100);
	index_checkpoint_every(ix, 1);
	commit_index(ix);
	assert_int_equal(sim_syncs(io), before + 2);
	ok(index_sync(ix, &ok_err));
	assert_int_equal(sim_syncs(io), before + 4);
	/* The restart after it needs none. */
	index_checkpoint_every(ix, 1 << 20);
	put_inodes(ix, 1, 100);
	commit_index(ix);
	assert_int_equal(sim_syncs(io), before + 4);
	close_index(ix);
	io_free(io);
}

/* The WAL is reused in place, and the database gives back what deletions left free. */
static void test_sizes(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	uint64_t db, wal, full;

	(void)state;
	index_checkpoint_every(ix, 1 << 20);
	for (uint64_t i = 0; i < 100; i++) {
		put_inodes(ix, 1 + i * 2000, 1 + (i + 1) * 2000);
		commit_index(ix);
		ok(index_sync(ix, &ok_err));
		index_size(ix, &full, &wal);
		assert_true(wal <= 24 << 20);
	}
	assert_true(full > 12 << 20);
	for (uint64_t i = 1; i <= 200000; i++) {
		assert_int_equal(index_inode_delete(ix, i), 0);
		if (i % 4000 == 0)
			commit_index(ix);
	}
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(index_meta_set(ix, "i", i), 0);
		commit_index(ix);
	}
	index_checkpoint_every(ix, 1);
	assert_int_equal(index_meta_set(ix, "i", 0), 0);
	commit_index(ix);
	index_size(ix, &db, &wal);
	assert_true(db < full / 2);
	ok(index_check(ix, &ok_err));
	close_index(ix);
	io_free(io);
}

static unsigned foreign_opens;

static int trap_open(sqlite3_vfs *v, const char *path, sqlite3_file *f, int flags, int *out)
{
	(void)v;
	(void)path;
	(void)flags;
	(void)out;
	f->pMethods = NULL;
	foreign_opens++;
	return SQLITE_CANTOPEN;
}

static void work_hard(struct io *io)
{
	struct index *ix = open_index(io);
	struct history h = {.seed = 77, .next = 1};

	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(history_work(&h, ix), 0);
		assert_int_equal(history_commit(&h, ix), 0);
	}
	put_inodes(ix, 1000, 60000);
	for (uint64_t i = 1; i < 3000; i++) {
		struct index_extent x = {i * 8192, 4096, 1 + i % 100, 0};
		put_chunk(ix, 1 + i % 100);
		assert_int_equal(index_extent_set(ix, 1, &x), 0);
	}
	any(index_check(ix, NULL)); /* sorts a lot */
	assert_int_equal(index_inode_delete(ix, 1), 0);
	index_checkpoint_every(ix, 1);
	commit_index(ix);
	close_index(ix);
}

/* Nothing but the database and its WAL, in STORE or elsewhere; no other VFS is asked. */
static void test_files(void **state)
{
	struct io *io;

	(void)state;
	close_index(new_index(&io));
	sqlite3_vfs trap = *sqlite3_vfs_find(NULL);
	sqlite3_vfs *unix_vfs = sqlite3_vfs_find(NULL);
	trap.zName = "trap";
	trap.xOpen = trap_open;
	assert_int_equal(sqlite3_vfs_register(&trap, 1), SQLITE_OK);
	work_hard(io);
	assert_int_equal(sqlite3_vfs_register(unix_vfs, 1), SQLITE_OK);
	assert_int_equal(sqlite3_vfs_unregister(&trap), SQLITE_OK);
	assert_int_equal(foreign_opens, 0);
	assert_string_equal(sim_names(io), "index.db.new index.db index.db-wal ");
	io_free(io);
}

static int collect(void *arg, const char *name)
{
	char *names = arg;

	(void)snprintf(names + strlen(names), 256 - strlen(names), "%s ", name);
	return 0;
}

static void test_posix(void **state)
{
	char dir[SCRATCH_PATH], names[256] = "";
	struct io *io = NULL;

	(void)state;
	assert_non_null(scratch_new(dir));
	ok(io_posix_new(dir, &io, &ok_err));
	ok(index_create(io, PAGE, test_sealer, &ok_err));
	struct index *ix = open_index(io);
	put_segment(ix, 1);
	put_inodes(ix, 1, 1000);
	commit_index(ix);
	ok(index_sync(ix, &ok_err));
	assert_int_equal(io_list(io, "", collect, names), 0);
	assert_true(!strcmp(names, "index.db index.db-wal ") || !strcmp(names, "index.db-wal index.db "));
	close_index(ix);
	work_hard(io);
	names[0] = '\0';
	assert_int_equal(io_list(io, "", collect, names), 0);
	assert_string_equal(names, "index.db ");
	io_free(io);
	scratch_free(dir);
}

/* What docs/FORMAT.md says of the first page. */
static void test_header(void **state)
{
	struct io *io = sim_new();
	struct io_file *f;
	uint8_t page[8192], h[8192 - INDEX_RESERVE];

	(void)state;
	ok(index_create(io, 8192, test_sealer, &ok_err));
	assert_int_equal(io_open(io, "index.db", IO_READ, &f), 0);
	assert_int_equal(io_pread(f, page, sizeof(page), 0), sizeof(page));
	io_close(f);
	test_page_open(page, sizeof(page), 1, h);
	assert_memory_equal(h, "SQLite format 3", 16);
	assert_int_equal(h[16] << 8 | h[17], 8192);
	assert_int_equal(h[18], 2);
	assert_int_equal(h[19], 2);
	assert_int_equal(h[20], INDEX_RESERVE);
	assert_int_equal(h[67], 1); /* incremental vacuum */
	io_free(io);
}

static void test_open_errors(void **state)
{
	struct io *io = sim_new();
	struct io_file *f;
	struct index *ix = NULL;
	struct err e = {0};

	(void)state;
	assert_int_equal(index_open(io, PAGE, test_sealer, &ix, &e), -ENOENT);
	assert_int_equal(index_create(io, 1000, test_sealer, NULL), -EINVAL);
	assert_int_equal(index_create(io, 131072, test_sealer, NULL), -EINVAL);
	assert_int_equal(io_open(io, "index.db", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(index_create(io, PAGE, test_sealer, NULL), -EEXIST);
	assert_int_equal(index_open(io, PAGE, test_sealer, &ix, NULL), -EUCLEAN);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(io_pwrite(f, "this is no database, ", 21, (uint64_t)i * 21), 0);
	io_close(f);
	err_reset(&e);
	assert_int_equal(index_open(io, PAGE, test_sealer, &ix, &e), -EBADMSG);
	assert_non_null(strstr(e.text, "page 1 is damaged"));
	io_free(io);

	ix = new_index(&io);
	assert_int_equal(db_exec(ix, "UPDATE meta SET value = 2 WHERE key = 'schema'"), 0);
	close_index(ix);
	err_reset(&e);
	assert_int_equal(index_open(io, PAGE, test_sealer, &ix, &e), -EPROTONOSUPPORT);
	assert_non_null(strstr(e.text, "newer"));
	io_free(io);
}

/* Bits that flip in the file give an error or go unnoticed; they break nothing else. */
static void test_flipped_bits(void **state)
{
	struct io_file *f;
	struct io *io;

	(void)state;
	for (unsigned n = 1; n <= rounds(20); n++) {
		struct history h = {.seed = n, .next = 1};
		struct index *ix = new_index(&io);
		unsigned seed = n;
		uint64_t size;
		for (unsigned i = 0; i < 10; i++) {
			assert_int_equal(history_work(&h, ix), 0);
			assert_int_equal(history_commit(&h, ix), 0);
		}
		close_index(ix);
		assert_int_equal(io_open(io, "index.db", IO_WRITE, &f), 0);
		assert_int_equal(io_size(f, &size), 0);
		for (unsigned i = 0; i < 20; i++) {
			uint8_t b;
			uint64_t at = i < 5 ? (unsigned)rand_r(&seed) % 4096 : (unsigned)rand_r(&seed) % size;
			assert_int_equal(io_pread(f, &b, 1, at), 1);
			b ^= (uint8_t)(1u << ((unsigned)rand_r(&seed) % 8));
			assert_int_equal(io_pwrite(f, &b, 1, at), 0);
		}
		io_close(f);
		if (!index_open(io, PAGE, test_sealer, &ix, NULL)) {
			struct index_totals t;
			any(index_totals(ix, &t));
			for (unsigned i = 0; i < 5; i++) {
				(void)history_work(&h, ix);
				(void)history_commit(&h, ix);
			}
			any(index_check(ix, NULL));
			any(index_close(ix, NULL));
		}
		io_free(io);
	}
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

struct shared {
	struct index *ix;
	atomic_bool stop;
};

static void *read_loop(void *arg)
{
	struct shared *s = arg;
	struct index_inode in;
	struct index_extent x[8];
	size_t n;

	for (uint64_t i = 0; !atomic_load(&s->stop); i++) {
		uint64_t db, wal;
		int ret = index_inode_get(s->ix, 1 + i % 500, &in);
		if (ret && ret != -ENOENT)
			abort();
		if (index_extent_list(s->ix, 1 + i % 500, 0, 1 << 20, x, 8, &n))
			abort();
		index_size(s->ix, &db, &wal);
		(void)index_pending(s->ix);
	}
	return NULL;
}

static void *sync_loop(void *arg)
{
	struct shared *s = arg;

	while (!atomic_load(&s->stop)) {
		if (index_sync(s->ix, NULL))
			abort();
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct shared s = {0};
	pthread_t thread[4];
	struct io *io;

	(void)state;
	s.ix = new_index(&io);
	index_checkpoint_every(s.ix, 200000);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, i < 2 ? read_loop : sync_loop, &s), 0);
	for (uint64_t i = 0; i < 200; i++) {
		put_inodes(s.ix, 1 + i % 400, 60 + i % 400);
		struct index_extent x = {i % 50 * 4096, 4096, 1 + i, 0};
		put_chunk(s.ix, 1 + i);
		assert_int_equal(index_extent_set(s.ix, 1 + i % 7, &x), 0);
		commit_index(s.ix);
		if (i % 3 == 0)
			ok(index_sync(s.ix, &ok_err));
	}
	atomic_store(&s.stop, true);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	ok(index_sync(s.ix, &ok_err));
	index_abandon(s.ix);
	sim_crash(io, 0);
	s.ix = open_index(io);
	struct index_inode in;
	assert_int_equal(index_inode_get(s.ix, 200 + 58, &in), 0);
	close_index(s.ix);
	io_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_transaction),    cmocka_unit_test(test_pending),
	    cmocka_unit_test(test_pending_values), cmocka_unit_test(test_values_without_room),
	    cmocka_unit_test(test_pending_large),  cmocka_unit_test(test_syncs),
	    cmocka_unit_test(test_sizes),          cmocka_unit_test(test_files),
	    cmocka_unit_test(test_posix),          cmocka_unit_test(test_header),
	    cmocka_unit_test(test_open_errors),    cmocka_unit_test(test_flipped_bits),
	    cmocka_unit_test(test_threads),
	};

#ifdef __SANITIZE_THREAD__ /* the others have one */
	cmocka_set_test_filter("test_threads");
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
