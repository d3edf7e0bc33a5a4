/* index.db and its WAL damaged in every way: an error, or what was there. */
#include "tests/index/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
	poke(c->io, VFS_WAL, SLOT_AT(slot), c->m.wal + SLOT_AT(slot), SLOT);
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
	/* Opened to write it is refused just so, and left as it is. */
	flip(c.io, VFS_WAL, 30, 1);
	struct index *ix;
	assert_int_equal(index_open(c.io, PAGE, test_sealer, &ix, NULL), -EBADMSG);
	flip(c.io, VFS_WAL, 30, 1);
	assert_true(open_and_hash(c.io, &ret) == c.rows[COMMITS]);
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
			poke(io, VFS_DB, p * PAGE, db + p * PAGE, PAGE);
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
	    cmocka_unit_test(test_torn_slots),    cmocka_unit_test(test_moved_slots),
	    cmocka_unit_test(test_header_damage), cmocka_unit_test(test_header_lost),
	    cmocka_unit_test(test_torn_pages),    cmocka_unit_test(test_flipped_pages),
	    cmocka_unit_test(test_page_replay),   cmocka_unit_test(test_foreign_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
