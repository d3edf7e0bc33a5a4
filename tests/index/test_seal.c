/* What lies in index.db and its WAL, sealed: by the rules of docs/FORMAT.md, and damaged in every way. */
#include "index/db.h"
#include "tests/index/history.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT          (PAGE + 32)
#define SLOT_AT(n)    (128 + ((uint64_t)(n)-1) * SLOT)
#define FRAME_KEPT    (24 + PAGE - 40)
#define SLOT_PLAIN    (FRAME_KEPT + 8)
#define NONCE_AND_TAG 40

static uint64_t get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (unsigned i = 8; i--;)
		v = v << 8 | p[i];
	return v;
}

/* --- files of STORE ----------------------------------------------------------------------------------------------- */

static uint8_t *load(struct io *io, const char *path, size_t *len)
{
	void *buf = NULL;

	assert_int_equal(io_read_file(io, path, 64 << 20, &buf, len), 0);
	return buf;
}

static void poke(struct io *io, const char *path, uint64_t off, const void *data, size_t len)
{
	struct io_file *f;

	assert_int_equal(io_open(io, path, IO_WRITE, &f), 0);
	assert_int_equal(io_pwrite(f, data, len, off), 0);
	io_close(f);
}

static void flip(struct io *io, const char *path, uint64_t off, unsigned bit)
{
	struct io_file *f;
	uint8_t b;

	assert_int_equal(io_open(io, path, IO_WRITE, &f), 0);
	assert_int_equal(io_pread(f, &b, 1, off), 1);
	b ^= (uint8_t)(1u << bit);
	assert_int_equal(io_pwrite(f, &b, 1, off), 0);
	io_close(f);
}

/* Writes a file anew, as it was loaded. */
static void put_back(struct io *io, const char *path, const uint8_t *data, size_t len)
{
	struct io_file *f;

	assert_int_equal(io_open(io, path, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_truncate(f, len), 0);
	if (len)
		assert_int_equal(io_pwrite(f, data, len, 0), 0);
	io_close(f);
}

struct image {
	uint8_t *db, *wal;
	size_t db_len, wal_len;
};

static struct image image_take(struct io *io)
{
	struct image m = {0};

	m.db = load(io, VFS_DB, &m.db_len);
	m.wal = load(io, VFS_WAL, &m.wal_len);
	return m;
}

static void image_restore(struct io *io, const struct image *m)
{
	put_back(io, VFS_DB, m->db, m->db_len);
	put_back(io, VFS_WAL, m->wal, m->wal_len);
}

static void image_free(struct image *m)
{
	free(m->db);
	free(m->wal);
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

static uint64_t hash_more(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3;
	return h;
}

/* Of every column of every row. 0: not all could be read. */
static uint64_t rows_hash(struct index *ix)
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

/* Opens what there is: the hash of its rows, or 0 and why not. Nothing is written back. */
static uint64_t open_and_hash(struct io *io, int *ret)
{
	struct index *ix = NULL;
	struct err e = {0};

	*ret = index_open(io, PAGE, test_sealer, &ix, &e);
	if (*ret) {
		assert_true(*ret < 0 && e.code == *ret);
		return 0;
	}
	uint64_t h = rows_hash(ix);
	index_abandon(ix);
	return h;
}

/* --- layout ------------------------------------------------------------------------------------------------------- */

static void slot_open(const uint8_t *wal, uint64_t number, uint8_t *plain)
{
	const uint8_t *slot = wal + (number ? SLOT_AT(number) : 0);
	size_t len = number ? SLOT_PLAIN : 32;

	assert_int_equal(test_unit_open(NULL, INDEX_SLOT, number, slot, slot + 24, len, plain), 0);
}

/* Rows that need a page each. */
static void put_names(struct index *ix, unsigned from, unsigned to)
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

/* --- damage ------------------------------------------------------------------------------------------------------- */

#define COMMITS 6

/* A store as a crash leaves it: COMMITS commits in the WAL, of which the first `synced` were synced one by one. */
struct crashed {
	struct io *io;
	struct image m;
	uint64_t rows[COMMITS + 1]; /* after so many commits */
	uint64_t last[COMMITS + 1]; /* the slot that the commit ends with */
	uint64_t durable;           /* what the last slot claims */
};

static void crashed_init(struct crashed *c, unsigned synced)
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

static void crashed_release(struct crashed *c)
{
	image_free(&c->m);
	io_free(c->io);
}

/* What a damaged slot must lead to. */
static void expect_slot_damaged(struct crashed *c, uint64_t slot)
{
	int ret;
	uint64_t rows = open_and_hash(c->io, &ret);
	unsigned whole = 0;

	while (whole < COMMITS && c->last[whole + 1] < slot)
		whole++;
	if (slot <= c->durable) {
		if (ret != -EBADMSG)
			fail_msg("slot %u of %u durable ones is damaged: %d", (unsigned)slot, (unsigned)c->durable,
			         ret);
	} else if (ret || rows != c->rows[whole]) {
		fail_msg("slot %u, %u durable: %d, not the state of commit %u", (unsigned)slot, (unsigned)c->durable,
		         ret, whole);
	}
	image_restore(c->io, &c->m);
}

static void test_torn_slots(void **state)
{
	static uint8_t half[SLOT / 2];

	(void)state;
	for (unsigned synced = 0; synced <= COMMITS; synced += 2) {
		struct crashed c;
		unsigned seed = synced;
		crashed_init(&c, synced);
		for (uint64_t n = 1; n <= c.last[COMMITS]; n++) {
			flip(c.io, VFS_WAL, SLOT_AT(n) + (unsigned)rand_r(&seed) % SLOT, n % 8);
			expect_slot_damaged(&c, n);
			poke(c.io, VFS_WAL, SLOT_AT(n) + (n & 1 ? SLOT / 2 : 0), half, sizeof(half));
			expect_slot_damaged(&c, n);
		}
		crashed_release(&c);
	}
}

/* Slots in each other's place, and of another generation. */
static void test_moved_slots(void **state)
{
	struct crashed c;

	(void)state;
	crashed_init(&c, 3);
	for (uint64_t n = 1; n < c.last[COMMITS]; n++) {
		poke(c.io, VFS_WAL, SLOT_AT(n), c.m.wal + SLOT_AT(n + 1), SLOT);
		expect_slot_damaged(&c, n);
	}
	struct crashed other;
	crashed_init(&other, 3);
	for (uint64_t n = 1; n < c.last[COMMITS]; n++) {
		poke(c.io, VFS_WAL, SLOT_AT(n), other.m.wal + SLOT_AT(n), SLOT);
		expect_slot_damaged(&c, n);
	}
	crashed_release(&other);
	crashed_release(&c);
}

/* The header of a WAL with durable frames. */
static void test_header_damage(void **state)
{
	static const uint8_t zero[512];
	struct crashed c;
	int ret;

	(void)state;
	crashed_init(&c, COMMITS);
	for (unsigned at = 0; at < 128; at++) {
		flip(c.io, VFS_WAL, at, at % 8);
		uint64_t rows = open_and_hash(c.io, &ret);
		if (at < 72)
			assert_int_equal(ret, -EBADMSG);
		else
			assert_true(!ret && rows == c.rows[COMMITS]); /* unused bytes */
		image_restore(c.io, &c.m);
	}
	/* Zeroes, where slot 1 is still there. */
	poke(c.io, VFS_WAL, 0, zero, 128);
	assert_int_equal(open_and_hash(c.io, &ret), 0);
	assert_int_equal(ret, -EBADMSG);
	image_restore(c.io, &c.m);
	/* As vfs_sync clears it: empty, by the rules. */
	poke(c.io, VFS_WAL, 0, zero, 512);
	assert_true(open_and_hash(c.io, &ret) == c.rows[0]);
	crashed_release(&c);
}

/* The header of a new WAL is lost, but a frame is not: nothing was durable, so it is no damage. */
static void test_header_lost(void **state)
{
	static const uint8_t zero[128];
	struct crashed c;
	int ret;

	(void)state;
	crashed_init(&c, 0);
	poke(c.io, VFS_WAL, 0, zero, 128);
	assert_true(open_and_hash(c.io, &ret) == c.rows[0]);
	crashed_release(&c);
}

/* While a checkpoint ran, the power went: any page of the database may be torn, the WAL has them. */
static void test_torn_pages(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	size_t before_len;
	int ret;

	(void)state;
	put_names(ix, 0, 400);
	close_index(ix);
	uint8_t *before = load(io, VFS_DB, &before_len);
	ix = open_index(io);
	put_names(ix, 400, 800);
	for (uint64_t i = 1; i < 800; i++) {
		struct index_inode in = some_inode(i, 3);
		assert_int_equal(index_inode_put(ix, &in), 0);
	}
	commit_index(ix);
	ok(index_sync(ix, &ok_err));
	uint64_t rows = rows_hash(ix);
	size_t wal_len;
	uint8_t *wal = load(io, VFS_WAL, &wal_len);
	close_index(ix);
	struct image m = {.wal = wal, .wal_len = wal_len};
	m.db = load(io, VFS_DB, &m.db_len);
	assert_true(m.db_len > before_len);
	for (size_t p = 0; p < m.db_len / PAGE; p++) {
		/* Sectors of the old page and of the new one. */
		const uint8_t *old = (p + 1) * PAGE <= before_len ? before + p * PAGE : NULL;
		image_restore(io, &m);
		if (!old || !memcmp(old, m.db + p * PAGE, PAGE))
			continue;
		poke(io, VFS_DB, p * PAGE + 512 * (p % 8), old + 512 * (p % 8), 512);
		if (open_and_hash(io, &ret) != rows)
			fail_msg("page %u torn: %d", (unsigned)p + 1, ret);
	}
	/* The first page, in every sector, with all the others old or new. */
	for (unsigned sector = 0; sector < 16; sector++) {
		image_restore(io, &m);
		if (sector & 1)
			put_back(io, VFS_DB, before, before_len);
		flip(io, VFS_DB, sector / 2 * 512 + 99, 3);
		assert_true(open_and_hash(io, &ret) == rows);
	}
	free(before);
	image_free(&m);
	io_free(io);
}

/* A flipped bit gives an error, or the rows as they were: never others. */
static void test_flipped_pages(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	unsigned errors = 0, seed = 5;
	int ret;

	(void)state;
	put_names(ix, 0, 600);
	close_index(ix);
	ix = open_index(io);
	uint64_t rows = rows_hash(ix);
	index_abandon(ix);
	put_back(io, VFS_WAL, NULL, 0);
	size_t len;
	uint8_t *db = load(io, VFS_DB, &len);
	for (size_t p = 0; p < len / PAGE; p++) {
		static const size_t regions[] = {0, PAGE - 40, PAGE - 16, PAGE};
		for (unsigned r = 0; r < 3; r++) {
			size_t at = p * PAGE + regions[r] + (unsigned)rand_r(&seed) % (regions[r + 1] - regions[r]);
			flip(io, VFS_DB, at, (unsigned)rand_r(&seed) % 8);
			uint64_t h = open_and_hash(io, &ret);
			assert_true(!h || h == rows);
			errors += !h;
			put_back(io, VFS_DB, db, len);
			put_back(io, VFS_WAL, NULL, 0);
		}
	}
	/* Some pages (free, or of indexes) are not read for the rows. */
	assert_true(errors > len / PAGE * 2);
	free(db);
	io_free(io);
}

/* An older page is accepted: nothing says how new it is. docs/SECURITY.md tells. */
static void test_page_replay(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in = some_inode(7, 1);
	int ret;

	(void)state;
	assert_int_equal(index_inode_put(ix, &in), 0);
	close_index(ix);
	size_t len, new_len;
	uint8_t *old = load(io, VFS_DB, &len);
	uint64_t rows = open_and_hash(io, &ret);
	ix = open_index(io);
	in.size = 4711;
	assert_int_equal(index_inode_put(ix, &in), 0);
	close_index(ix);
	uint8_t *now = load(io, VFS_DB, &new_len);
	assert_int_equal(len, new_len);
	for (size_t at = PAGE; at < len; at += PAGE) {
		if (memcmp(old + at, now + at, PAGE) != 0)
			poke(io, VFS_DB, at, old + at, PAGE);
	}
	assert_true(open_and_hash(io, &ret) == rows);
	free(old);
	free(now);
	io_free(io);
}

/* Pages of another store, in another place, and cut off. */
static void test_foreign_pages(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	size_t len;
	int ret;

	(void)state;
	put_names(ix, 0, 200);
	close_index(ix);
	uint8_t *db = load(io, VFS_DB, &len);
	poke(io, VFS_DB, 2 * PAGE, db + 3 * PAGE, PAGE);
	assert_int_equal(open_and_hash(io, &ret), 0);
	for (size_t cut = 1; cut < 2 * PAGE; cut += PAGE - 1) {
		put_back(io, VFS_DB, db, len / PAGE / 2 * PAGE - cut);
		assert_int_equal(open_and_hash(io, &ret), 0);
	}
	free(db);
	io_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_layout),        cmocka_unit_test(test_no_plaintext),
	    cmocka_unit_test(test_spilled),       cmocka_unit_test(test_torn_slots),
	    cmocka_unit_test(test_moved_slots),   cmocka_unit_test(test_header_damage),
	    cmocka_unit_test(test_header_lost),   cmocka_unit_test(test_torn_pages),
	    cmocka_unit_test(test_flipped_pages), cmocka_unit_test(test_page_replay),
	    cmocka_unit_test(test_foreign_pages), cmocka_unit_test(test_differential),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
