/* Compaction: space comes back, and nothing else changes. */
#include "tests/core/file_rig.h"

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

/* --- space -------------------------------------------------------------------------------------------------------- */

/* A file overwritten at random many times over takes little more than itself afterwards, in few pieces. */
static void test_random_overwrite(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(1), before;
	struct file x = file_make(f, "f", &rng, 8 * MIB);

	for (unsigned i = 0; i < (SLOW_BUILD ? 4 : 10); i++) {
		file_scatter(f, &x, &rng, x.len / BLOCK);
		sync_all(f);
	}
	before = segment_bytes(f);
	compact_ok(f, false);
	print_message("%llu bytes became %llu, %zu pieces\n", (unsigned long long)before,
	              (unsigned long long)segment_bytes(f), file_pieces(f, &x));
	assert_true(segment_bytes(f) < x.len / 10 * 13);
	assert_true(file_pieces(f, &x) <= x.len / MIB * 5); /* with so little memory a quarter of 1 MiB at a time */
	file_check(f, &x);
	/* It settles: there is nothing more to do. */
	before = f->core->next_chunk;
	compact_ok(f, false);
	assert_int_equal(f->core->next_chunk, before);
	fixture_remount(f);
	index_ok(f);
	file_check(f, &x);
	assert_true(segment_bytes(f) < x.len / 10 * 13);
	free(x.data);
}

/* Most of many small files go: the rest moves together. */
static void test_small_files(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(2), before, kept = 0;
	enum { FILES = 3000 };
	static struct file x[FILES];
	uint64_t dir[3];
	char name[32];

	for (unsigned i = 0; i < 3; i++) {
		(void)snprintf(name, sizeof(name), "dir%u", i);
		dir[i] = make(f, CORE_ROOT, name, S_IFDIR | 0755);
	}
	for (unsigned i = 0; i < FILES; i++) {
		(void)snprintf(name, sizeof(name), "file%u", i);
		x[i] = file_make_in(f, dir[i % 3], name, &rng, 1 + rng_below(&rng, 6000), 0);
	}
	sync_all(f);
	for (unsigned i = 0; i < FILES; i++) {
		if (rng_below(&rng, 4) == 0)
			continue;
		(void)snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(core_unlink(f->core, dir[i % 3], name), 0);
		core_forget(f->core, x[i].ino, 1);
		free(x[i].data);
		x[i].data = NULL;
	}
	sync_all(f);
	before = segment_bytes(f);
	compact_ok(f, true);
	for (unsigned i = 0; i < FILES; i++)
		kept += x[i].data ? x[i].len : 0;
	print_message("%llu bytes became %llu, for %llu of data\n", (unsigned long long)before,
	              (unsigned long long)segment_bytes(f), (unsigned long long)kept);
	assert_true(segment_bytes(f) < kept / 10 * 13);
	fixture_remount(f);
	for (unsigned i = 0; i < FILES; i++) {
		if (x[i].data)
			file_check(f, &x[i]);
		free(x[i].data);
	}
}

/* Each extent's share of its chunk. */
static uint64_t stored_bytes(struct fixture *f, uint64_t ino)
{
	static struct index_extent e[4096];
	uint64_t bytes = 0;
	struct chunk *k;
	size_t n;

	assert_int_equal(index_extent_list(f->core->index, ino, 0, UINT64_MAX, e, 4096, &n), 0);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(chunk_get(f->core, e[i].chunk, &k), 0);
		bytes += e[i].len * k->p->stored_len / k->p->plain_len;
		chunk_put(f->core, k);
	}
	return bytes;
}

static void blocks_right(struct fixture *f, uint64_t ino)
{
	uint64_t counted = attr_of(f, ino).blocks * 512, stored = stored_bytes(f, ino);

	if (counted + 1024 < stored || counted > stored + 1024)
		fail_msg("st_blocks are %llu bytes, %llu are stored", (unsigned long long)counted,
		         (unsigned long long)stored);
}

/* st_blocks is what data takes after it was compressed anew, of files in memory and of others. */
static void test_blocks(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(8), waste, stored, x[3];
	uint8_t *data = malloc(MIB);
	char name[8];

	assert_non_null(data);
	for (size_t i = 0; i < MIB; i++)
		data[i] = (uint8_t)rng_below(&rng, 4);
	waste = make(f, CORE_ROOT, "waste", S_IFREG | 0644);
	put(f, waste, data, MIB, 0);
	for (unsigned i = 0; i < 3; i++) {
		(void)snprintf(name, sizeof(name), "x%u", i);
		x[i] = make(f, CORE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(core_setxattr(f->core, x[i], "user.apfs.compression", "off", 3, 0), 0);
		put(f, x[i], data, i ? MIB : 20000, 0);
	}
	sync_all(f);
	stored = stored_bytes(f, x[2]);
	assert_true(stored >= MIB);
	for (unsigned i = 0; i < 3; i++) {
		blocks_right(f, x[i]);
		assert_int_equal(core_setxattr(f->core, x[i], "user.apfs.compression", "zstd:9", 6, 0), 0);
	}
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "waste"), 0);
	core_forget(f->core, waste, 1);
	fixture_remount(f);
	(void)attr_of(f, x[1]); /* this one is in memory */
	compact_ok(f, true);
	assert_true(stored_bytes(f, x[2]) < stored / 2);
	for (unsigned turn = 0; turn < 2; turn++, fixture_crash(f))
		for (unsigned i = 0; i < 3; i++)
			blocks_right(f, x[i]);
	/* So nothing is left of the old number when the data goes. */
	for (size_t off = 0; off < MIB; off += MIB / 4) {
		put(f, x[2], data, MIB / 4, off);
		sync_all(f);
	}
	blocks_right(f, x[2]);
	free(data);
}

static uint64_t inline_bytes(struct fixture *f)
{
	struct index_totals t;

	assert_int_equal(index_totals(f->core->index, &t), 0);
	return t.inline_bytes;
}

/* Small writes that somebody waited for leave the index. */
static void test_inline(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(3);
	struct file x = file_make(f, "f", &rng, 4 * MIB);

	sync_all(f);
	for (unsigned i = 0; i < 200; i++) {
		file_scatter(f, &x, &rng, 1);
		assert_int_equal(core_fsync(f->core, x.ino, false), 0);
	}
	assert_true(inline_bytes(f) > 150 * BLOCK);
	compact_ok(f, false);
	assert_int_equal(inline_bytes(f), 0);
	file_check(f, &x);
	fixture_crash(f);
	index_ok(f);
	file_check(f, &x);
	free(x.data);
}

/* Extents of several files that map the same bytes: those are stored once, and all extents follow. */
static void test_shared(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(4), before;
	struct file x = file_make(f, "f", &rng, 8 * MIB), y[3];
	struct index_extent e[64];
	struct index_inode row;
	size_t n;
	char name[32];

	sync_all(f);
	assert_int_equal(index_extent_list(f->core->index, x.ino, 0, UINT64_MAX, e, 64, &n), 0);
	assert_true(n < 64);
	for (unsigned i = 0; i < 3; i++) {
		(void)snprintf(name, sizeof(name), "clone%u", i);
		y[i] = (struct file){make(f, CORE_ROOT, name, S_IFREG | 0644), calloc(1, x.len), x.len, x.len};
		assert_non_null(y[i].data);
		sync_all(f);
		/* Each has another part of it, and they overlap. */
		for (size_t k = 0; k < n; k++) {
			struct index_extent part = {e[k].off + i * 1000, e[k].len - 2000, e[k].chunk,
			                            e[k].chunk_off + i * 1000};

			assert_int_equal(index_extent_set(f->core->index, y[i].ino, &part), 0);
			memcpy(y[i].data + part.off, x.data + part.off, part.len);
		}
		assert_int_equal(index_inode_get(f->core->index, y[i].ino, &row), 0);
		row.size = x.len;
		assert_int_equal(index_inode_put(f->core->index, &row), 0);
	}
	f->core->ns_dirty = true;
	fixture_remount(f);
	/* Three quarters of the original go. */
	for (size_t off = 0; off < x.len; off += 64 << 10) {
		if (off % (256 << 10))
			file_write(f, &x, &rng, off, 64 << 10);
	}
	for (unsigned i = 0; i < 3; i++) {
		for (size_t off = 0; off < x.len; off += 64 << 10) {
			if (off % (256 << 10))
				file_write(f, &y[i], &rng, off, 64 << 10);
		}
	}
	sync_all(f);
	before = segment_bytes(f);
	compact_ok(f, true);
	print_message("%llu bytes became %llu\n", (unsigned long long)before, (unsigned long long)segment_bytes(f));
	/* Four files' three quarters of their own, and the quarter that they share. */
	assert_true(segment_bytes(f) < x.len / 4 * 13 + x.len / 8);
	file_check(f, &x);
	fixture_remount(f);
	file_check(f, &x);
	for (unsigned i = 0; i < 3; i++) {
		file_check(f, &y[i]);
		free(y[i].data);
	}
	free(x.data);
}

/* Clones hide half of what x once held: none of them has it any more, but what they share counts as live for each. */
static void hide_dead(struct fixture *f, struct file *x, struct file *y, uint64_t *rng)
{
	*x = file_make(f, "x", rng, 4 * MIB);
	for (unsigned i = 0; i < 2; i++)
		y[i] = file_make_in(f, CORE_ROOT, i ? "y1" : "y0", rng, 0, x->len);
	for (unsigned round = 0; round < 2; round++) {
		sync_all(f);
		for (unsigned i = 0; i < 2; i++)
			file_clone(f, x, &y[i]);
		for (size_t off = 0; !round && off < x->len; off += MIB / 4)
			file_write(f, x, rng, off, MIB / 8);
	}
	sync_all(f);
	assert_true(segment_bytes(f) > 6 * MIB);
}

static void hidden_check(struct fixture *f, struct file *x, struct file *y)
{
	print_message("%llu bytes are left\n", (unsigned long long)segment_bytes(f));
	assert_true(segment_bytes(f) < 5 * MIB);
	fixture_remount(f);
	index_ok(f);
	file_check(f, x);
	free(x->data);
	for (unsigned i = 0; i < 2; i++) {
		file_check(f, &y[i]);
		free(y[i].data);
	}
}

static void test_hidden(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(13);
	struct file x, y[2];

	hide_dead(f, &x, y, &rng);
	compact_ok(f, false);
	hidden_check(f, &x, y);
}

/* While the volume is idle it is found as well, and by the next mount, too; and then there is peace. */
static void hidden_idle(struct fixture *f, bool next_mount)
{
	uint64_t rng = rng_seed(14), chunks = 0;
	struct file x, y[2];

	f->options.no_compact = next_mount;
	fixture_remount(f);
	hide_dead(f, &x, y, &rng);
	f->options.no_compact = false;
	if (next_mount)
		fixture_remount(f);
	for (unsigned i = 0; i < 600 && segment_bytes(f) > 5 * MIB; i++)
		(void)usleep(100000);
	for (unsigned i = 0; i < 20 && chunks != f->core->next_chunk; i++) {
		chunks = f->core->next_chunk;
		(void)usleep(1500000);
	}
	assert_int_equal(f->core->next_chunk, chunks);
	hidden_check(f, &x, y);
}

static void test_hidden_idle(void **state)
{
	hidden_idle(*state, false);
}

static void test_hidden_next_mount(void **state)
{
	hidden_idle(*state, true);
}

/* --- damage ------------------------------------------------------------------------------------------------------- */

static void test_damage(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(6);
	struct file x[4];
	char name[8], **path;
	uint8_t byte;
	size_t n;
	int fd;

	for (unsigned i = 0; i < 4; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		x[i] = file_make(f, name, &rng, MIB);
		sync_all(f);
	}
	path = fixture_segment_paths(f, &n);
	assert_int_equal(n, 1);
	fd = open(path[0], O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, 500000), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 500000), 1);
	assert_int_equal(close(fd), 0);
	for (unsigned i = 1; i < 3; i++)
		file_write(f, &x[i], &rng, 0, MIB - BLOCK);
	sync_all(f);
	compact_ok(f, true);
	assert_int_equal(access(path[0], F_OK), 0);
	for (unsigned i = 1; i < 4; i++)
		file_check(f, &x[i]);
	fixture_remount(f);
	for (unsigned i = 1; i < 4; i++)
		file_check(f, &x[i]);
	/* Only the damaged frame stayed in the old segment. */
	struct index_segment s;
	assert_int_equal(index_segment_list(f->core->index, 0, &s, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(s.chunks, 1);
	assert_true(s.live < 2 * PIPELINE_FRAME_MAX);
	for (unsigned i = 0; i < 4; i++)
		free(x[i].data);
	for (size_t i = 0; i < 1; i++)
		free(path[i]);
	free(path);
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

struct actor {
	struct fixture *f;
	struct file x;
	uint64_t rng;
	pthread_t thread;
	atomic_bool *stop;
};

static void *actor_main(void *arg)
{
	struct actor *a = arg;
	uint8_t *buf = malloc(64 << 10);

	while (buf && !atomic_load(a->stop)) {
		size_t off = rng_below(&a->rng, a->x.len - (64 << 10));

		if (rng_below(&a->rng, 4) == 0)
			file_scatter(a->f, &a->x, &a->rng, 8);
		if (rng_below(&a->rng, 64) == 0 && core_fsync(a->f->core, a->x.ino, false))
			abort();
		if (get(a->f, a->x.ino, buf, 64 << 10, off) != 64 << 10 || memcmp(buf, a->x.data + off, 64 << 10))
			abort();
	}
	free(buf);
	return NULL;
}

static void test_threads(void **state)
{
	struct fixture *f = *state;
	enum { ACTORS = 3 };
	struct actor a[ACTORS];
	atomic_bool stop = false;
	char name[8];

	for (unsigned i = 0; i < ACTORS; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		a[i] = (struct actor){.f = f, .rng = rng_seed(10 + i), .stop = &stop};
		a[i].x = file_make(f, name, &a[i].rng, 4 * MIB);
	}
	sync_all(f);
	for (unsigned i = 0; i < ACTORS; i++)
		assert_int_equal(pthread_create(&a[i].thread, NULL, actor_main, &a[i]), 0);
	for (unsigned i = 0; i < (SLOW_BUILD ? 10 : 25); i++)
		assert_int_equal(compact_run(f->core, i % 2), 0);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < ACTORS; i++)
		assert_int_equal(pthread_join(a[i].thread, NULL), 0);
	for (unsigned i = 0; i < ACTORS; i++)
		file_check(f, &a[i].x);
	fixture_remount(f);
	index_ok(f);
	for (unsigned i = 0; i < ACTORS; i++) {
		file_check(f, &a[i].x);
		free(a[i].x.data);
	}
}

/* The background thread: begins by itself once the volume is idle, does what it is asked, ends with the volume. */
static void test_background(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(7);
	struct core_compact_status s;
	struct file x;

	f->options.no_compact = false;
	fixture_remount(f);
	x = file_make(f, "f", &rng, 4 * MIB);
	sync_all(f);
	file_write(f, &x, &rng, 0, MIB);
	file_write(f, &x, &rng, MIB, MIB);
	sync_all(f);
	for (unsigned i = 0; i < 600 && segment_bytes(f) > 5 * MIB; i++)
		(void)usleep(100000);
	assert_true(segment_bytes(f) < 5 * MIB);
	file_write(f, &x, &rng, 0, 16 << 10);
	assert_int_equal(core_compact_start(f->core, true), 0);
	do {
		(void)usleep(10000);
		core_compact_status(f->core, &s);
	} while (s.running);
	assert_int_equal(s.ret, 0);
	assert_true(s.total && s.done == s.total && s.freed);
	file_write(f, &x, &rng, 0, 16 << 10);
	assert_int_equal(core_compact_start(f->core, true), 0);
	core_compact_stop(f->core);
	assert_int_equal(fixture_close(f), 0);
	assert_int_equal(fixture_open(f), 0);
	file_check(f, &x);
	free(x.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_random_overwrite, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_small_files, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_blocks, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_inline, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_shared, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_hidden, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_hidden_idle, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_hidden_next_mount, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_damage, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_threads, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_background, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
