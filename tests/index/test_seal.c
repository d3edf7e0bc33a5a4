/* What lies in index.db and its WAL, sealed by the rules of docs/FORMAT.md; the same as without. */
#include "index/db.h"
#include "tests/base/scratch.h"
#include "tests/index/history.h"
#include "tests/index/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_KEPT (24 + PAGE - 40)
#define SLOT_PLAIN (FRAME_KEPT + 8)

static uint64_t get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (unsigned i = 8; i--;)
		v = v << 8 | p[i];
	return v;
}

/* --- layout ------------------------------------------------------------------------------------------------------- */

static void slot_open(const uint8_t *wal, uint64_t number, uint8_t *plain)
{
	const uint8_t *slot = wal + (number ? SLOT_AT(number) : 0);
	size_t len = number ? SLOT_PLAIN : 32;

	assert_int_equal(test_unit_open(NULL, INDEX_SLOT, number, slot, slot + 24, len, plain), 0);
}

static void test_layout(void **state)
{
	static const uint8_t zero[56];
	struct io *io;
	struct index *ix = new_index(&io);
	uint8_t plain[SLOT_PLAIN], salt[8];

	(void)state;
	put_names(ix, 0, 100);
	commit_index(ix);
	uint64_t first = ix->vfs->wal_last;
	ok(index_sync(ix, &ok_err));
	put_names(ix, 100, 200);
	commit_index(ix); /* not synced: the next commit's claim is the same */
	uint64_t second = ix->vfs->wal_last;
	put_names(ix, 200, 300);
	commit_index(ix);
	uint64_t third = ix->vfs->wal_last;
	assert_true(first > 1 && second > first && third > second);
	struct image m = image_take(io);
	index_abandon(ix);

	for (uint32_t p = 1; p <= m.db_len / PAGE; p++) {
		uint8_t page[PAGE - INDEX_RESERVE];
		test_page_open(m.db + (size_t)(p - 1) * PAGE, PAGE, p, page);
		assert_true(p > 1 || !memcmp(page, "SQLite format 3", 16));
	}
	slot_open(m.wal, 0, plain);
	assert_memory_equal(plain, "\x37\x7f\x06", 3);
	assert_int_equal(plain[10] << 8 | plain[11], PAGE);
	memcpy(salt, plain + 16, 8);
	assert_memory_equal(m.wal + 72, zero, 56);
	for (uint64_t n = 1; n <= third; n++) {
		slot_open(m.wal, n, plain);
		assert_memory_equal(plain + 8, salt, 8);
		bool ends = get64(plain) >> 32 != 0; /* the database's size, in frames that end a transaction */
		assert_int_equal(ends, n == first || n == second || n == third);
		assert_int_equal(get64(plain + FRAME_KEPT), n <= first ? 0 : first);
	}
	image_free(&m);
	io_free(io);
}

static bool contains(const uint8_t *data, size_t len, const char *word)
{
	return memmem(data, len, word, strlen(word)) != NULL;
}

static void test_no_plaintext(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);

	(void)state;
	index_checkpoint_every(ix, 200000);
	for (unsigned i = 0; i < 40; i++) {
		put_names(ix, i * 50, (i + 1) * 50);
		commit_index(ix);
		if (i % 3 == 0)
			ok(index_sync(ix, &ok_err));
	}
	struct image m = image_take(io);
	index_abandon(ix);
	assert_true(m.db_len > 100000 && m.wal_len > 100000);
	assert_false(contains(m.db, m.db_len, "SQLite") || contains(m.wal, m.wal_len, "SQLite"));
	assert_false(contains(m.db, m.db_len, "canary") || contains(m.wal, m.wal_len, "canary"));
	assert_false(contains(m.db, m.db_len, "CREATE") || contains(m.wal, m.wal_len, "CREATE"));
	image_free(&m);
	io_free(io);
}

/* --- the same as without ------------------------------------------------------------------------------------------ */

struct twin {
	struct history h;
	struct io *io;
	struct index *ix;
	uint32_t page;
	bool sealed;
};

static void twin_open(struct twin *t)
{
	struct err e = {0};

	test_seal_index(t->sealed);
	ok_at(index_open(t->io, t->page, test_sealer, &t->ix, &e), &e, __FILE__, __LINE__);
	test_seal_index(true);
}

static void twin_init(struct twin *t, bool sealed, uint32_t page, unsigned seed)
{
	struct err e = {0};

	*t = (struct twin){.h = {.seed = seed, .next = 1}, .io = sim_new(), .page = page, .sealed = sealed};
	test_seal_index(sealed);
	ok_at(index_create(t->io, page, test_sealer, &e), &e, __FILE__, __LINE__);
	twin_open(t);
	put_segment(t->ix, 1);
}

static void twin_step(struct twin *t, unsigned what)
{
	if (what % 16 == 0)
		index_checkpoint_every(t->ix, 1 + what);
	assert_int_equal(history_work(&t->h, t->ix), 0);
	assert_int_equal(history_commit(&t->h, t->ix), 0);
	if (what % 3 == 0)
		assert_int_equal(history_sync(&t->h, t->ix), 0);
	if (what % 11 == 0) {
		index_abandon(t->ix);
		twin_open(t);
	} else if (what % 23 == 0) {
		close_index(t->ix);
		twin_open(t);
	}
}

static void test_differential(void **state)
{
	static const uint32_t pages[] = {1024, 2048, 4096, 8192, 65536};

	(void)state;
	for (unsigned seed = 1; seed <= rounds(10); seed++) {
		struct twin plain, sealed;
		unsigned rand = seed;

		twin_init(&plain, false, pages[seed % 5], seed);
		twin_init(&sealed, true, pages[seed % 5], seed);
		for (unsigned i = 0; i < 60; i++) {
			unsigned what = (unsigned)rand_r(&rand);
			twin_step(&plain, what);
			twin_step(&sealed, what);
		}
		uint64_t rows = rows_hash(plain.ix);
		assert_true(rows && rows_hash(sealed.ix) == rows);
		close_index(plain.ix);
		close_index(sealed.ix);
		twin_open(&plain);
		twin_open(&sealed);
		assert_true(rows_hash(plain.ix) == rows && rows_hash(sealed.ix) == rows);
		index_abandon(plain.ix);
		index_abandon(sealed.ix);
		io_free(plain.io);
		io_free(sealed.io);
	}
}

/* A transaction that spills its pages and then changes them: SQLite writes pages without their headers, then headers
 * without their pages. */
static void test_spilled(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in;

	(void)state;
	index_checkpoint_every(ix, (uint64_t)1 << 30);
	assert_int_equal(db_exec(ix, "COMMIT; PRAGMA cache_spill = 1; PRAGMA cache_size = 20; BEGIN IMMEDIATE"), 0);
	for (unsigned round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < 6000; i++) {
			in = some_inode(1 + i * 31 % 3000, 1);
			in.size = round * 10000 + i;
			assert_int_equal(index_inode_put(ix, &in), 0);
		}
		if (round < 2) {
			commit_index(ix);
			ok(index_sync(ix, &ok_err));
		}
	}
	uint64_t spilled = ix->vfs->wal_end, committed = ix->vfs->wal_committed;
	assert_true(spilled > committed);
	commit_index(ix);
	assert_true(ix->vfs->wal_last <= ix->vfs->wal_end);
	uint64_t rows = rows_hash(ix);
	index_abandon(ix);
	ix = open_index(io);
	assert_true(rows_hash(ix) == rows);
	assert_int_equal(index_inode_get(ix, 1, &in), 0);
	assert_int_equal(in.size, 23000);
	close_index(ix);
	io_free(io);
}

/* --- to read only ------------------------------------------------------------------------------------------------- */

static void assert_unchanged(struct io *io, const struct image *m)
{
	struct image now = image_take(io);

	assert_true(now.db_len == m->db_len && !memcmp(now.db, m->db, m->db_len));
	assert_true(now.wal_len == m->wal_len && !memcmp(now.wal, m->wal, m->wal_len));
	image_free(&now);
}

static void test_read_only(void **state)
{
	struct crashed c;
	struct index *ix;
	struct index_inode in = some_inode(5000, 1);

	(void)state;
	crashed_init(&c, 2);
	ok(index_open_read(c.io, PAGE, test_sealer, &ix, &ok_err));
	assert_true(rows_hash(ix) == c.rows[COMMITS]);
	assert_int_not_equal(index_inode_put(ix, &in), 0);
	index_abandon(ix);
	assert_unchanged(c.io, &c.m);
	/* Without a WAL, and none is made. */
	ix = open_index(c.io);
	close_index(ix);
	ok(index_open_read(c.io, PAGE, test_sealer, &ix, &ok_err));
	assert_true(rows_hash(ix) == c.rows[COMMITS]);
	index_abandon(ix);
	struct io_stat st;
	assert_int_equal(io_stat(c.io, VFS_WAL, &st), -ENOENT);
	crashed_release(&c);
}

/* A plain copy, of the WAL's frames too. */
static void test_export(void **state)
{
	char dir[SCRATCH_PATH], path[SCRATCH_PATH + 8], trailing[SCRATCH_PATH + 12];
	struct crashed c;
	struct index *ix, copy = {0};
	struct err e = {0};
	int fd;

	(void)state;
	assert_non_null(scratch_new(dir));
	(void)snprintf(path, sizeof(path), "%s/copy", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && !close(fd));
	crashed_init(&c, 2);
	ok(index_open_read(c.io, PAGE, test_sealer, &ix, &ok_err));
	ok(index_export(ix, path, &ok_err));
	index_abandon(ix);
	assert_unchanged(c.io, &c.m);
	assert_int_equal(sqlite3_open_v2(path, &copy.db, SQLITE_OPEN_READONLY, "unix"), SQLITE_OK);
	assert_true(rows_hash(&copy) == c.rows[COMMITS]);
	assert_int_equal(sqlite3_close(copy.db), SQLITE_OK);
	(void)snprintf(trailing, sizeof(trailing), "%s-wal", path);
	assert_int_equal(access(trailing, F_OK), -1);
	assert_int_equal(truncate(path, 0), 0);

	/* STORE that cannot be read is not a copy that cannot be written. */
	ok(index_open_read(c.io, PAGE, test_sealer, &ix, &ok_err));
	sim_arm(c.io, &(struct sim_fault){SIM_READ, 1, -ESTALE, true, 0, false});
	assert_int_equal(index_export(ix, path, &e), -ESTALE);
	assert_non_null(strstr(e.text, "the index cannot be read"));
	sim_arm(c.io, NULL);
	err_reset(&e);
	index_abandon(ix);
	assert_int_equal(truncate(path, 0), 0);

	/* Damage is not copied over. */
	close_index(open_index(c.io));
	flip(c.io, VFS_DB, 5 * PAGE + 7, 1);
	ok(index_open_read(c.io, PAGE, test_sealer, &ix, &ok_err));
	assert_int_equal(index_export(ix, path, &e), -EBADMSG);
	assert_non_null(strstr(e.text, "page 6 is damaged"));
	index_abandon(ix);
	scratch_free(dir);
	crashed_release(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_layout),       cmocka_unit_test(test_no_plaintext), cmocka_unit_test(test_spilled),
	    cmocka_unit_test(test_differential), cmocka_unit_test(test_read_only),    cmocka_unit_test(test_export),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
