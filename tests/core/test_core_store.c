/* What STORE holds: no plaintext, no dead segments; and what becomes of damage. */
#include "fs/core/volume.h"
#include "index/db.h"
#include "tests/core/support.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB     ((size_t)1 << 20)
#define CANARY  16
#define NCANARY 40

static void write_canaries(struct fixture *f, uint64_t *rng, uint8_t canary[NCANARY][CANARY])
{
	uint8_t *buf = malloc(MIB);

	assert_non_null(buf);
	for (unsigned n = 0; n < NCANARY; n++) {
		char name[32];
		size_t len = n % 4 == 0 ? CANARY : n % 4 == 1 ? 3000 : n % 4 == 2 ? 70000 : MIB;
		struct core_file *h;
		uint64_t ino;

		fill_random(rng, canary[n], CANARY);
		if (n % 8 < 4)
			fill_random(rng, buf, len);
		else
			memset(buf, ' ', len);
		for (size_t at = 0; at + CANARY <= len; at += 4000 + CANARY)
			memcpy(buf + at, canary[n], CANARY);
		(void)snprintf(name, sizeof(name), "file%u", n);
		ino = make(f, CORE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(core_file_open(f->core, ino, n % 3 ? O_RDWR : O_RDWR | O_SYNC, &h), 0);
		assert_int_equal(core_file_write(h, buf, len, 0, 0), 0);
		core_file_close(h);
	}
	free(buf);
}

static void assert_no_canary(struct fixture *f, uint8_t canary[NCANARY][CANARY])
{
	for (unsigned n = 0; n < NCANARY; n += SLOW_BUILD ? 5 : 1)
		if (fixture_contains(f, "", canary[n], CANARY))
			fail_msg("canary %u is in STORE", n);
}

static void test_canaries(void **state)
{
	struct fixture *f = *state;
	static const enum codec_id codec[] = {CODEC_ZSTD, CODEC_LZ4, CODEC_STORED};
	uint8_t canary[NCANARY][CANARY];
	uint64_t rng = rng_seed(99);

	for (unsigned n = 0; n < 3; n++) {
		f->options.compress = (struct codec_choice){codec[n], 0};
		fixture_remount(f);
		write_canaries(f, &rng, canary);
		sync_all(f);
		assert_no_canary(f, canary);
		assert_int_equal(fixture_close(f), 0);
		assert_no_canary(f, canary);
		assert_int_equal(fixture_open(f), 0);
		for (unsigned k = 0; k < NCANARY; k++) {
			char name[32];
			uint8_t got[CANARY];

			(void)snprintf(name, sizeof(name), "file%u", k);
			assert_int_equal(get(f, find(f, CORE_ROOT, name), got, CANARY, 0), CANARY);
			assert_memory_equal(got, canary[k], CANARY);
			assert_int_equal(core_unlink(f->core, CORE_ROOT, name), 0);
		}
	}
}

/* Text takes less room than it has bytes; also as many small files. */
static void test_compresses(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(13), ino, before, total = 0, used;
	char *text = malloc(MIB), name[32];

	assert_non_null(text);
	assert_int_equal(fixture_close(f), 0);
	before = fixture_disk_usage(f, "");
	assert_int_equal(fixture_open(f), 0);
	for (size_t at = 0; at + 40 < MIB;)
		at += (size_t)snprintf(text + at, 40, "%s %u;\n", rng_below(&rng, 2) ? "return" : "int",
		                       (unsigned)rng_below(&rng, 100000));
	ino = make(f, CORE_ROOT, "big", S_IFREG | 0644);
	for (unsigned n = 0; n < 8; n++, total += MIB)
		put(f, ino, text, MIB - 40, n * (MIB - 40));
	for (unsigned n = 0; n < 1000; n++, total += 2000) {
		(void)snprintf(name, sizeof(name), "small%u", n);
		put(f, make(f, CORE_ROOT, name, S_IFREG | 0644), text + n * 1000, 2000, 0);
	}
	assert_int_equal(fixture_close(f), 0);
	used = fixture_disk_usage(f, "") - before;
	print_message("%llu bytes of text take %llu\n", (unsigned long long)total, (unsigned long long)used);
	assert_true(used < total * 6 / 10);
	free(text);
}

/* Segments that nothing refers to any more are deleted by a sync. */
static void test_dead_segments(void **state)
{
	struct fixture *f = *state;
	unsigned size = SLOW_BUILD ? 140 : 200;
	uint64_t rng = rng_seed(17), ino = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	uint8_t *buf = malloc(MIB);
	uint64_t used;
	unsigned before;

	assert_non_null(buf);
	fill_random(&rng, buf, MIB);
	for (unsigned n = 0; n < size; n++) {
		fill_random(&rng, buf, 4096);
		put(f, ino, buf, MIB, n * MIB);
	}
	sync_all(f);
	before = fixture_segments(f);
	assert_true(before >= size / 66);
	assert_true(fixture_disk_usage(f, "segments") >= size * MIB);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "f"), 0);
	core_forget(f->core, ino, 1);
	sync_all(f);
	used = fixture_disk_usage(f, "segments");
	if (used > 66 * MIB)
		fail_msg("%llu bytes in %u of %u segments are left", (unsigned long long)used, fixture_segments(f),
		         before);
	fixture_remount(f);
	sync_all(f);
	assert_true(fixture_disk_usage(f, "segments") <= 66 * MIB);
	free(buf);
}

/* Overwriting again and again does not let STORE grow without end. */
static void test_overwritten_space(void **state)
{
	struct fixture *f = *state;
	unsigned rounds = SLOW_BUILD ? 20 : 40;
	uint64_t rng = rng_seed(19), ino = make(f, CORE_ROOT, "f", S_IFREG | 0644), used;
	uint8_t *buf = malloc(8 * MIB);

	assert_non_null(buf);
	fill_random(&rng, buf, 8 * MIB);
	for (unsigned n = 0; n < rounds; n++) {
		buf[n]++;
		put(f, ino, buf, 8 * MIB, 0);
		sync_all(f);
	}
	used = fixture_disk_usage(f, "segments");
	if (used > 150 * MIB)
		fail_msg("%llu bytes of segments for a file of 8 MiB", (unsigned long long)used);
	free(buf);
}

/* --- damage ------------------------------------------------------------------------------------------------------- */

#define NFLIPFILE 12

struct flip {
	char *path;
	off_t off;
	uint8_t mask;
};

static void flip(const struct flip *x)
{
	int fd = open(x->path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, x->off), 1);
	byte ^= x->mask;
	assert_int_equal(pwrite(fd, &byte, 1, x->off), 1);
	(void)close(fd);
}

static void write_flip_files(struct fixture *f, uint8_t *data[NFLIPFILE], size_t len[NFLIPFILE], uint64_t *rng)
{
	for (unsigned n = 0; n < NFLIPFILE; n++) {
		char name[32];

		len[n] = n < 6 ? 1 + (size_t)rng_below(rng, 3000) : 20000 + (size_t)rng_below(rng, 150000);
		data[n] = malloc(len[n]);
		assert_non_null(data[n]);
		fill_data(rng, data[n], len[n]);
		(void)snprintf(name, sizeof(name), "f%u", n);
		put(f, make(f, CORE_ROOT, name, S_IFREG | 0644), data[n], len[n], 0);
	}
}

static void flip_files_release(uint8_t *data[NFLIPFILE], char **path, size_t npaths)
{
	for (unsigned n = 0; n < NFLIPFILE; n++)
		free(data[n]);
	for (size_t n = 0; n < npaths; n++)
		free(path[n]);
	free(path);
}

/* Each file is as it was, or an error: the number of errors. */
static unsigned read_damaged(struct fixture *f, uint8_t *data[NFLIPFILE], const size_t len[NFLIPFILE], uint8_t *buf)
{
	unsigned errors = 0;

	for (unsigned n = 0; n < NFLIPFILE; n++) {
		struct core_file *h;
		char name[32];
		ssize_t got;

		(void)snprintf(name, sizeof(name), "f%u", n);
		assert_int_equal(core_file_open(f->core, find(f, CORE_ROOT, name), O_RDONLY, &h), 0);
		memset(buf, 0xaa, 200000);
		got = core_file_read(h, buf, 200000, 0);
		core_file_close(h);
		if (got < 0) {
			assert_int_equal(got, -EIO);
			errors++;
			continue;
		}
		assert_int_equal(got, len[n]);
		assert_memory_equal(buf, data[n], len[n]);
	}
	return errors;
}

/* What was deleted is given back even when the commit of it was somebody's fsync of another file. */
static void test_fsync_of_another(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(7), big = make(f, CORE_ROOT, "big", S_IFREG | 0644),
		 small = make(f, CORE_ROOT, "small", S_IFREG | 0644);
	uint8_t *buf = malloc(4 * MIB);

	assert_non_null(buf);
	fill_random(&rng, buf, 4 * MIB);
	put(f, big, buf, 4 * MIB, 0);
	put(f, small, buf, 4096, 0);
	sync_all(f);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "big"), 0);
	core_forget(f->core, big, 1);
	put(f, small, buf, 4096, 0);
	assert_int_equal(core_fsync(f->core, small, false), 0);
	assert_int_equal(cut_wait_space(f->core), 0);
	assert_true(fixture_disk_usage(f, "segments") < MIB);
	free(buf);
}

/* Very many extents are replaced by a hole in steps. */
static void test_truncate(void **state)
{
	enum { BLOCKS = 2000, BLOCK = 4096 };
	struct fixture *f = *state;
	uint64_t rng = rng_seed(8), file = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	struct core_attr in = {.size = 3 * BLOCK + 100}, out;
	uint8_t *buf = malloc(4 * BLOCK), got[4 * BLOCK];
	struct index_extent x[4];
	struct err e = {0};
	size_t n;

	assert_non_null(buf);
	fill_random(&rng, buf, 4 * BLOCK);
	for (size_t i = 0; i < BLOCKS; i++) /* backwards: no two become one extent */
		put(f, file, buf + i % 4 * BLOCK, BLOCK, (BLOCKS - 1 - i) * 2 * BLOCK);
	sync_all(f);
	put(f, file, buf, 4 * BLOCK, 0);
	sync_all(f);
	assert_int_equal(core_setattr(f->core, file, CORE_SET_SIZE, &in, &out), 0);
	sync_all(f);
	assert_int_equal(index_extent_list(f->core->index, file, 0, UINT64_MAX, x, 4, &n), 0);
	assert_true(n <= 1);
	assert_int_equal(index_check(f->core->index, &e), 0);
	fixture_crash(f);
	assert_int_equal(get(f, file, got, sizeof(got), 0), in.size);
	assert_memory_equal(got, buf, in.size);
	free(buf);
}

static void test_bit_flips(void **state)
{
	struct fixture *f = *state;
	unsigned rounds = SLOW_BUILD ? 15 : 100, errors = 0;
	uint8_t *data[NFLIPFILE], *buf = malloc(200000);
	size_t len[NFLIPFILE], npaths;
	uint64_t rng = rng_seed(23);
	char **path;

	assert_non_null(buf);
	write_flip_files(f, data, len, &rng);
	assert_int_equal(fixture_close(f), 0);
	path = fixture_segment_paths(f, &npaths);
	assert_true(npaths > 0);
	for (unsigned round = 0; round < rounds; round++) {
		struct flip x[3];

		for (unsigned k = 0; k < 3; k++) {
			struct stat st;

			x[k].path = path[rng_below(&rng, npaths)];
			assert_int_equal(stat(x[k].path, &st), 0);
			x[k].off = (off_t)rng_below(&rng, (uint64_t)st.st_size);
			x[k].mask = (uint8_t)(1u << rng_below(&rng, 8));
			flip(&x[k]);
		}
		assert_int_equal(fixture_open(f), 0);
		errors += read_damaged(f, data, len, buf);
		fixture_abandon(f);
		for (unsigned k = 0; k < 3; k++)
			flip(&x[k]);
	}
	print_message("%u flips gave %u errors\n", rounds * 3, errors);
	assert_true(errors > rounds / 4); /* most bytes of a segment matter */
	assert_int_equal(fixture_open(f), 0);
	assert_int_equal(read_damaged(f, data, len, buf), 0);
	flip_files_release(data, path, npaths);
	free(buf);
}

/* A segment that is gone or cut short is an error for its files, and the volume opens. */
static void test_lost_segment(void **state)
{
	struct fixture *f = *state;
	uint8_t *data[NFLIPFILE], *buf = malloc(200000);
	size_t len[NFLIPFILE], npaths;
	uint64_t rng = rng_seed(29);
	char **path;

	assert_non_null(buf);
	write_flip_files(f, data, len, &rng);
	assert_int_equal(fixture_close(f), 0);
	path = fixture_segment_paths(f, &npaths);
	for (size_t n = 0; n < npaths; n++)
		assert_int_equal(truncate(path[n], 200), 0);
	assert_int_equal(fixture_open(f), 0);
	assert_true(read_damaged(f, data, len, buf) > 0);
	fixture_abandon(f);
	for (size_t n = 0; n < npaths; n++)
		assert_int_equal(unlink(path[n]), 0);
	assert_int_equal(fixture_open(f), 0);
	assert_true(read_damaged(f, data, len, buf) > 0);
	put(f, make(f, CORE_ROOT, "new", S_IFREG | 0644), "works", 5, 0);
	sync_all(f);
	fixture_remount(f);
	assert_int_equal(get(f, find(f, CORE_ROOT, "new"), buf, 10, 0), 5);
	flip_files_release(data, path, npaths);
	free(buf);
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static void test_opening(void **state)
{
	struct fixture *f = *state;
	const struct core_format format = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};
	struct err e = {0};
	struct io *second;
	const void *pass = f->options.pass;

	assert_int_equal(io_posix_new(f->dir, &second, &e), 0);
	assert_int_equal(io_lock(second), -EBUSY);
	io_free(second);
	assert_int_equal(core_format(f->io, &format, "x", 1, &e), -EEXIST);
	assert_int_equal(fixture_close(f), 0);
	f->options.pass = "wrong";
	f->options.pass_len = 5;
	assert_int_equal(fixture_open(f), -EKEYREJECTED);
	f->options.pass = pass;
	f->options.pass_len = strlen(pass);
	assert_int_equal(fixture_open(f), 0);
}

/* Makes the index of deleted inodes list one that has no row, as a damaged one may. */
static void list_orphan(struct index *ix, unsigned ino)
{
	char sql[96];
	sqlite3_stmt *st;

	assert_int_equal(
	    sqlite3_prepare_v2(ix->db, "SELECT rootpage FROM sqlite_schema WHERE name = 'inode_orphan'", -1, &st, NULL),
	    SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	int root = sqlite3_column_int(st, 0);
	assert_int_equal(sqlite3_finalize(st), SQLITE_OK);
	assert_int_equal(sqlite3_test_control(SQLITE_TESTCTRL_IMPOSTER, ix->db, "main", 1, root), SQLITE_OK);
	assert_int_equal(db_exec(ix, "CREATE TABLE imposter(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID"), 0);
	(void)snprintf(sql, sizeof(sql), "INSERT INTO imposter VALUES(%u, %u)", ino, ino);
	assert_int_equal(db_exec(ix, sql), 0);
	assert_int_equal(sqlite3_test_control(SQLITE_TESTCTRL_IMPOSTER, ix->db, "main", 0, 1), SQLITE_OK);
}

/* A mount ends, also where what it has to remove cannot be removed. */
static void test_orphan_without_row(void **state)
{
	struct fixture *f = *state;
	char buf[8];

	put(f, make(f, CORE_ROOT, "file", S_IFREG | 0644), "content", 8, 0);
	sync_all(f);
	list_orphan(f->core->index, 77);
	list_orphan(f->core->index, 78);
	assert_int_equal(fixture_close(f), 0);
	(void)alarm(120);
	assert_int_equal(fixture_open(f), 0);
	(void)alarm(0);
	assert_int_equal(get(f, find(f, CORE_ROOT, "file"), buf, 8, 0), 8);
	assert_string_equal(buf, "content");
}

struct late {
	struct core *core;
	int ret;
};

/* A prefetch that is slow. */
static void late_run(void *arg)
{
	struct late *late = arg;
	struct index_inode row;

	(void)usleep(300000);
	late->ret = index_inode_get(late->core->index, CORE_ROOT, &row);
}

/* The index stays until everything that reads it has ended. */
static void test_close_waits(void **state)
{
	struct fixture *f = *state;

	for (unsigned n = 0; n < 2; n++) {
		struct late late = {f->core, -EAGAIN};
		assert_int_equal(pipeline_run(f->core->pipeline, late_run, &late), 0);
		if (n)
			fixture_crash(f);
		else
			fixture_remount(f);
		assert_int_equal(late.ret, 0);
	}
}

/* Many sessions in a row, each with a little to write: nothing piles up. */
static void test_many_sessions(void **state)
{
	struct fixture *f = *state;
	unsigned sessions = SLOW_BUILD ? 15 : 60;
	char name[32], buf[32];

	for (unsigned n = 0; n < sessions; n++) {
		(void)snprintf(name, sizeof(name), "s%u", n);
		put(f, make(f, CORE_ROOT, name, S_IFREG | 0644), name, strlen(name), 0);
		if (n % 2) {
			sync_all(f);
			fixture_crash(f);
		} else {
			fixture_remount(f);
		}
	}
	for (unsigned n = 0; n < sessions; n++) {
		(void)snprintf(name, sizeof(name), "s%u", n);
		assert_int_equal(get(f, find(f, CORE_ROOT, name), buf, 32, 0), strlen(name));
		assert_memory_equal(buf, name, strlen(name));
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_fsync_of_another), TEST(test_truncate),      TEST(test_canaries),
	    TEST(test_compresses),       TEST(test_dead_segments), TEST(test_overwritten_space),
	    TEST(test_bit_flips),        TEST(test_lost_segment),  TEST(test_orphan_without_row),
	    TEST(test_opening),          TEST(test_close_waits),   TEST(test_many_sessions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
