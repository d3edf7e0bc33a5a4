/* File data: sizes, holes, what lives on unlinked, what is durable. */
#include "base/option.h"
#include "fs/core/map.h"
#include "tests/core/support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

static struct core_file *open_file(struct fixture *f, uint64_t ino, int flags)
{
	struct core_file *h = NULL;

	assert_int_equal(core_file_open(f->core, ino, flags, &h), 0);
	return h;
}

static void resize(struct fixture *f, uint64_t ino, uint64_t size)
{
	struct core_attr in = {.size = size}, out;

	assert_int_equal(core_setattr(f->core, ino, CORE_SET_SIZE, &in, &out), 0);
	assert_int_equal(out.size, size);
}

static void test_read_at_end(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	char buf[64];

	assert_int_equal(get(f, file, buf, sizeof(buf), 0), 0);
	put(f, file, "0123456789", 10, 0);
	assert_int_equal(get(f, file, buf, sizeof(buf), 4), 6);
	assert_memory_equal(buf, "456789", 6);
	assert_int_equal(get(f, file, buf, sizeof(buf), 10), 0);
	assert_int_equal(get(f, file, buf, sizeof(buf), 11), 0);
	assert_int_equal(get(f, file, buf, sizeof(buf), (uint64_t)1 << 62), 0);
	assert_int_equal(get(f, file, buf, 3, 3), 3);
	assert_memory_equal(buf, "345", 3);
}

static void test_sparse(void **state)
{
	static const uint64_t at[] = {0, 65535, (uint64_t)1 << 32, ((uint64_t)1 << 53) - 4};
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	char buf[16], zero[16] = {0};
	struct core_file *h;

	for (unsigned n = 0; n < 4; n++)
		put(f, file, "data", 4, at[n]);
	fixture_remount(f);
	file = find(f, CORE_ROOT, "f");
	assert_int_equal(attr_of(f, file).size, (uint64_t)1 << 53);
	for (unsigned n = 0; n < 4; n++) {
		assert_int_equal(get(f, file, buf, 4, at[n]), 4);
		assert_memory_equal(buf, "data", 4);
	}
	assert_int_equal(get(f, file, buf, 16, (uint64_t)1 << 40), 16);
	assert_memory_equal(buf, zero, 16);
	assert_true(fixture_disk_usage(f, "segments") < 4 * MIB + ((size_t)64 << 20));
	h = open_file(f, file, O_RDWR);
	assert_int_equal(core_file_write(h, "xx", 2, CORE_SIZE_MAX - 1, 0), -EFBIG);
	core_file_close(h);
	assert_int_equal(attr_of(f, file).size, (uint64_t)1 << 53);
	resize(f, file, CORE_SIZE_MAX);
	resize(f, file, 3);
	assert_int_equal(get(f, file, buf, 16, 0), 3);
	assert_memory_equal(buf, "dat", 3);
}

/* What was cut off never comes back, whichever way the file grows again. */
static void test_truncate_zeroes(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(11);
	uint8_t *buf = malloc(MIB), *got = malloc(MIB);

	assert_true(buf && got);
	for (unsigned n = 0; n < 24; n++) {
		char name[16];
		uint64_t file, cut = 1 + rng_below(&rng, MIB - 1);

		(void)snprintf(name, sizeof(name), "f%u", n);
		file = make(f, CORE_ROOT, name, S_IFREG | 0644);
		fill_random(&rng, buf, MIB);
		put(f, file, buf, MIB, 0);
		if (n & 1)
			sync_all(f);
		resize(f, file, cut);
		if (n & 2)
			sync_all(f);
		if (n & 4)
			put(f, file, "end", 3, MIB - 3);
		else
			resize(f, file, MIB);
		if (n & 8)
			fixture_remount(f);
		file = find(f, CORE_ROOT, name);
		assert_int_equal(get(f, file, got, MIB, 0), MIB);
		memset(buf + cut, 0, MIB - cut);
		if (n & 4)
			memcpy(buf + MIB - 3, "end", 3);
		assert_memory_equal(got, buf, MIB);
	}
	free(buf);
	free(got);
}

static void test_append(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "log", S_IFREG | 0644);
	struct core_file *a = open_file(f, file, O_WRONLY), *b = open_file(f, file, O_WRONLY);
	char line[16], buf[16];

	for (unsigned n = 0; n < 5000; n++) {
		(void)snprintf(line, sizeof(line), "line %06u\n", n);
		assert_int_equal(core_file_write(n % 3 ? a : b, line, 12, 0, CORE_WRITE_APPEND), 0);
		if (n == 2000)
			sync_all(f);
	}
	core_file_close(a);
	core_file_close(b);
	fixture_remount(f);
	file = find(f, CORE_ROOT, "log");
	assert_int_equal(attr_of(f, file).size, 60000);
	for (unsigned n = 0; n < 5000; n++) {
		(void)snprintf(line, sizeof(line), "line %06u\n", n);
		assert_int_equal(get(f, file, buf, 12, n * 12), 12);
		assert_memory_equal(buf, line, 12);
	}
}

static void test_seek(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644), at;
	uint8_t *buf = malloc(MIB);
	struct core_file *h, *w;

	assert_non_null(buf);
	memset(buf, 'd', MIB);
	put(f, file, buf, MIB, 4 * MIB);
	put(f, file, buf, MIB, 8 * MIB);
	resize(f, file, 16 * MIB);
	sync_all(f);
	h = open_file(f, file, O_RDONLY);
	assert_int_equal(core_file_seek(h, 0, SEEK_DATA, &at), 0);
	assert_int_equal(at, 4 * MIB);
	assert_int_equal(core_file_seek(h, at, SEEK_HOLE, &at), 0);
	assert_int_equal(at, 5 * MIB);
	assert_int_equal(core_file_seek(h, at, SEEK_DATA, &at), 0);
	assert_int_equal(at, 8 * MIB);
	assert_int_equal(core_file_seek(h, at + 5, SEEK_DATA, &at), 0);
	assert_int_equal(at, 8 * MIB + 5);
	assert_int_equal(core_file_seek(h, 9 * MIB, SEEK_HOLE, &at), 0);
	assert_int_equal(at, 9 * MIB);
	assert_int_equal(core_file_seek(h, 9 * MIB, SEEK_DATA, &at), -ENXIO);
	assert_int_equal(core_file_seek(h, 16 * MIB, SEEK_HOLE, &at), -ENXIO);
	assert_int_equal(core_file_seek(h, 16 * MIB, SEEK_DATA, &at), -ENXIO);
	w = open_file(f, file, O_RDWR); /* the kernel may hold data now */
	assert_int_equal(core_file_seek(h, 0, SEEK_DATA, &at), 0);
	assert_int_equal(at, 0);
	assert_int_equal(core_file_seek(w, 0, SEEK_HOLE, &at), 0);
	assert_int_equal(at, 16 * MIB);
	core_file_close(w);
	core_file_close(h);
	free(buf);
}

static void test_blocks(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644);

	assert_int_equal(attr_of(f, file).blocks, 0);
	resize(f, file, (uint64_t)1 << 40);
	assert_int_equal(attr_of(f, file).blocks, 0);
	put(f, file, "x", 1, 0);
	assert_true(attr_of(f, file).blocks >= 1); /* before it is sealed, too */
	sync_all(f);
	assert_true(attr_of(f, file).blocks >= 1);
	fixture_remount(f);
	assert_true(attr_of(f, find(f, CORE_ROOT, "f")).blocks >= 1);
	assert_true(attr_of(f, find(f, CORE_ROOT, "f")).blocks < 1000);
}

/* --- unlinked but open -------------------------------------------------------------------------------------------- */

static void test_unlinked_lives_on(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	struct core_file *h = open_file(f, file, O_RDWR);
	struct core_attr a;
	char buf[16];

	assert_int_equal(core_file_write(h, "before", 6, 0, 0), 0);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "f"), 0);
	assert_int_equal(core_lookup(f->core, CORE_ROOT, "f", &a), -ENOENT);
	assert_int_equal(attr_of(f, file).nlink, 0);
	assert_int_equal(core_file_write(h, "after", 5, 6, 0), 0);
	sync_all(f);
	assert_int_equal(core_fsync(f->core, file, false), 0);
	assert_int_equal(core_file_read(h, buf, sizeof(buf), 0), 11);
	assert_memory_equal(buf, "beforeafter", 11);
	core_forget(f->core, file, 1);
	assert_int_equal(core_file_read(h, buf, sizeof(buf), 0), 11);
	core_file_close(h);
	assert_int_equal(core_getattr(f->core, file, &a), -ENOENT);
}

/* Fails for want of memory when it comes down to 0. */
static atomic_int map_sets = INT_MAX;

int __real_map_set(struct map *m, const struct piece *p, struct piece **out);
int __wrap_map_set(struct map *m, const struct piece *p, struct piece **out);
int __wrap_map_set(struct map *m, const struct piece *p, struct piece **out)
{
	return atomic_fetch_sub(&map_sets, 1) == 1 ? -ENOMEM : __real_map_set(m, p, out);
}

/* A write that ran out of memory goes on after a cut, and finds what it has not kept yet. */
static void test_kept_later(void **state)
{
	struct fixture *f = *state;
	struct core_file *h = open_file(f, make(f, CORE_ROOT, "f", S_IFREG | 0644), O_RDWR);
	uint8_t *want = malloc(MIB), *got = malloc(MIB);
	uint64_t rng = rng_seed(4);

	assert_true(want && got);
	fill_random(&rng, want, MIB);
	atomic_store(&map_sets, 3);
	assert_int_equal(write_blocks(f, h, want, MIB, 0, 0), 0);
	assert_true(atomic_load(&map_sets) <= 0);
	atomic_store(&map_sets, INT_MAX);
	assert_int_equal(core_file_read(h, got, MIB, 0), MIB);
	assert_memory_equal(got, want, MIB);
	core_file_close(h);
	free(want);
	free(got);
}

/* Whole blocks of a file are kept and exchanged; what is not one of them is copied, and its block left. */
static void test_kept_blocks(void **state)
{
	static const struct {
		uint64_t off;
		size_t len;
		bool kept[3];
	} write[] = {
	    {0, 3 * POOL_BLOCK, {true, true, true}},
	    {0, 3 * POOL_BLOCK, {false, false, false}}, /* there are buffers there already */
	    {MIB, 2 * POOL_BLOCK + 5000, {true, true, false}},
	    {2 * MIB + 4096, 3 * POOL_BLOCK, {false, false, false}},
	    {3 * MIB - 4096, POOL_BLOCK + 4096, {false, false, false}},
	};
	struct fixture *f = *state;
	struct core_file *h = open_file(f, make(f, CORE_ROOT, "f", S_IFREG | 0644), O_RDWR);
	uint8_t *want = calloc(4, MIB), *got = calloc(4, MIB);
	void *block[3], *old[3];
	uint64_t rng = rng_seed(3);

	assert_true(want && got);
	assert_int_equal(core_blocks_get(f->core, block, 3), 0);
	for (size_t i = 0; i < sizeof(write) / sizeof(write[0]); i++) {
		uint8_t *plain = want + write[i].off;

		fill_random(&rng, plain, write[i].len);
		memcpy(old, block, sizeof(block));
		for (size_t b = 0; b * POOL_BLOCK < write[i].len; b++)
			memcpy(block[b], plain + b * POOL_BLOCK,
			       write[i].len - b * POOL_BLOCK < POOL_BLOCK ? write[i].len % POOL_BLOCK : POOL_BLOCK);
		assert_int_equal(core_file_write_blocks(h, block, write[i].len, write[i].off, 0), 0);
		for (size_t b = 0; b < 3; b++) {
			assert_int_equal(block[b] != old[b], write[i].kept[b]);
			memset(block[b], 0xee, POOL_BLOCK);
		}
	}
	core_blocks_put(f->core, block, 3);
	assert_int_equal(core_file_read(h, got, 4 * MIB, 0), 3 * MIB + POOL_BLOCK);
	assert_memory_equal(got, want, 4 * MIB);
	sync_all(f);
	assert_int_equal(core_file_read(h, got, 4 * MIB, 0), 3 * MIB + POOL_BLOCK);
	assert_memory_equal(got, want, 4 * MIB);
	core_file_close(h);
	free(want);
	free(got);
}

/* An orphan survives a crash of the process and goes at the next open; its space comes back. */
static void test_orphans_after_crash(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644), rng = rng_seed(5), used;
	struct core_file *h = open_file(f, file, O_RDWR);
	uint8_t *buf = malloc(MIB);
	struct core_attr a;

	assert_non_null(buf);
	for (unsigned n = 0; n < 24; n++) {
		fill_random(&rng, buf, MIB);
		assert_int_equal(core_file_write(h, buf, MIB, n * MIB, 0), 0);
	}
	sync_all(f);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "f"), 0);
	sync_all(f);
	used = fixture_disk_usage(f, "segments");
	assert_true(used >= 24 * MIB);
	lose_file(h);
	fixture_crash(f);
	assert_int_equal(core_lookup(f->core, CORE_ROOT, "f", &a), -ENOENT);
	sync_all(f);
	assert_int_equal(core_getattr(f->core, file, &a), -ENOENT);
	fixture_remount(f);
	sync_all(f);
	used = fixture_disk_usage(f, "segments");
	if (used >= 8 * MIB)
		fail_msg("%llu bytes of segments are left", (unsigned long long)used);
	free(buf);
}

/* --- durability --------------------------------------------------------------------------------------------------- */

static void test_fsync_then_crash(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0600), other = make(f, CORE_ROOT, "o", S_IFREG | 0600);
	uint8_t *buf = malloc(MIB), *got = malloc(MIB);
	uint64_t rng = rng_seed(21);

	assert_true(buf && got);
	fill_random(&rng, buf, MIB);
	put(f, file, buf, MIB, 0);
	put(f, other, "other", 5, 0);
	assert_int_equal(core_setxattr(f->core, file, "user.a", "b", 1, 0), 0);
	assert_int_equal(core_fsync(f->core, file, true), 0);
	fixture_crash(f);
	file = find(f, CORE_ROOT, "f");
	assert_int_equal(get(f, file, got, MIB, 0), MIB);
	assert_memory_equal(got, buf, MIB);
	/* a small synchronous write, again and again */
	for (unsigned n = 0; n < 20; n++) {
		struct core_file *h = open_file(f, file, O_RDWR | O_DSYNC);

		fill_random(&rng, buf + n * 5000, 3000);
		assert_int_equal(core_file_write(h, buf + n * 5000, 3000, n * 5000, 0), 0);
		core_file_close(h);
		if (n % 5 == 4) {
			fixture_crash(f);
			file = find(f, CORE_ROOT, "f");
			assert_int_equal(get(f, file, got, MIB, 0), MIB);
			assert_memory_equal(got, buf, MIB);
		}
	}
	free(buf);
	free(got);
}

/* The timer makes things durable without being asked. */
static void test_commit_interval(void **state)
{
	struct fixture *f = *state;
	char buf[8] = {0};
	uint64_t file;

	f->options.commit_interval_ms = 50;
	fixture_remount(f);
	file = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	put(f, file, "timer", 5, 0);
	(void)usleep(1500 * 1000);
	fixture_crash(f);
	assert_int_equal(get(f, find(f, CORE_ROOT, "f"), buf, 8, 0), 5);
	assert_string_equal(buf, "timer");
}

/* Replacing by rename without an fsync: whole, the old or the new. */
static void test_replace_is_whole(void **state)
{
	struct fixture *f = *state;
	uint8_t *buf = malloc(MIB), *got = malloc(MIB);

	assert_true(buf && got);
	f->options.commit_interval_ms = 5;
	put(f, make(f, CORE_ROOT, "file", S_IFREG | 0644), "0", 0, 0);
	fixture_remount(f);
	for (unsigned n = 1; n < 40; n++) {
		uint64_t file = make(f, CORE_ROOT, "temp", S_IFREG | 0644);
		size_t len = n * 10000;

		memset(buf, (int)n, len);
		put(f, file, buf, len, 0);
		assert_int_equal(core_rename(f->core, CORE_ROOT, "temp", CORE_ROOT, "file", 0), 0);
		if (n % 8)
			continue;
		(void)usleep(1000 * (n % 5) * 7);
		fixture_crash(f);
		file = find(f, CORE_ROOT, "file");
		len = get(f, file, got, MIB, 0);
		assert_true(len % 10000 == 0 && len / 10000 <= n);
		memset(buf, (int)(len / 10000), len);
		assert_memory_equal(got, buf, len);
		struct core_attr a;
		int ret = core_lookup(f->core, CORE_ROOT, "temp", &a);
		assert_true(!ret || ret == -ENOENT);
		if (!ret)
			assert_int_equal(core_unlink(f->core, CORE_ROOT, "temp"), 0);
	}
	free(buf);
	free(got);
}

/* An fsync of one file makes a rename of another durable, and with it all that was written to that one. */
static void test_replace_then_fsync_other(void **state)
{
	struct fixture *f = *state;
	uint64_t other = make(f, CORE_ROOT, "other", S_IFREG | 0644), ino;
	uint8_t *buf = malloc(MIB), *got = malloc(MIB);
	uint64_t rng = rng_seed(41);

	assert_true(buf && got);
	for (size_t n = 1; n <= 12; n++) {
		size_t len = n * 50000;

		ino = make(f, CORE_ROOT, "temp", S_IFREG | 0644);
		fill_random(&rng, buf, len);
		put(f, ino, buf, len, 0);
		if (n > 1)
			assert_int_equal(core_rename(f->core, CORE_ROOT, "temp", CORE_ROOT, "file", 0), 0);
		else
			assert_int_equal(core_rename(f->core, CORE_ROOT, "temp", CORE_ROOT, "file", RENAME_NOREPLACE),
			                 0);
		put(f, other, "x", 1, n);
		assert_int_equal(core_fsync(f->core, other, true), 0);
		fixture_crash(f);
		other = find(f, CORE_ROOT, "other");
		ino = find(f, CORE_ROOT, "file");
		if (n == 1)
			continue; /* it replaced nothing */
		assert_int_equal(attr_of(f, ino).size, len);
		assert_int_equal(get(f, ino, got, MIB, 0), len);
		assert_memory_equal(got, buf, len);
	}
	free(buf);
	free(got);
}

static void test_read_only(void **state)
{
	struct fixture *f = *state;
	const struct core_cred cred = {0, 0, 0};
	struct core_attr a = {0};
	char buf[8];

	put(f, make(f, CORE_ROOT, "f", S_IFREG | 0644), "data", 4, 0);
	f->options.read_only = true;
	fixture_remount(f);
	assert_int_equal(get(f, find(f, CORE_ROOT, "f"), buf, 8, 0), 4);
	assert_int_equal(core_mknod(f->core, &cred, CORE_ROOT, "g", S_IFREG, 0, &a), -EROFS);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "f"), -EROFS);
	assert_int_equal(core_setattr(f->core, find(f, CORE_ROOT, "f"), CORE_SET_MODE, &a, &a), -EROFS);
	assert_int_equal(core_setxattr(f->core, find(f, CORE_ROOT, "f"), "user.a", "b", 1, 0), -EROFS);
	f->options.read_only = false;
	fixture_remount(f);
	assert_int_equal(get(f, find(f, CORE_ROOT, "f"), buf, 8, 0), 4);
}

static void test_chunk_size(void **state)
{
	static const uint32_t sizes[] = {256 << 10, 1 << 20, 4 << 20};
	struct fixture *f = *state;
	char *text, want[64], name[16], size[32];
	uint64_t seed = rng_seed(1);
	char *buf = malloc(4 * MIB);

	assert_non_null(buf);
	fill_random(&seed, buf, 4 * MIB);
	for (size_t i = 0; i < 3; i++) {
		f->options.chunk_size = sizes[i];
		f->options.memory = 128 * MIB;
		fixture_remount(f);
		(void)snprintf(name, sizeof(name), "f%zu", i);
		uint64_t file = make(f, CORE_ROOT, name, S_IFREG | 0644);
		put(f, file, buf, 4 * MIB, 0);
		sync_all(f);
		assert_int_equal(core_info(f->core, file, &text), 0);
		(void)snprintf(want, sizeof(want), " %zu, of %s (0 in the index)", 4 * MIB / sizes[i],
		               option_format_size(sizes[i], size, sizeof(size)));
		assert_non_null(strstr(text, want));
		free(text);
	}
	free(buf);
}

static void test_statfs(void **state)
{
	struct fixture *f = *state;
	struct core_statfs s;

	assert_int_equal(core_statfs(f->core, &s), 0);
	assert_true(s.block_size >= 512 && s.blocks > 0);
	assert_true(s.free <= s.blocks && s.avail <= s.free);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_read_at_end),
	    TEST(test_sparse),
	    TEST(test_truncate_zeroes),
	    TEST(test_append),
	    TEST(test_seek),
	    TEST(test_blocks),
	    TEST(test_unlinked_lives_on),
	    TEST(test_kept_blocks),
	    TEST(test_kept_later),
	    TEST(test_orphans_after_crash),
	    TEST(test_fsync_then_crash),
	    TEST(test_commit_interval),
	    TEST(test_replace_is_whole),
	    TEST(test_replace_then_fsync_other),
	    TEST(test_read_only),
	    TEST(test_chunk_size),
	    TEST(test_statfs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
