/* Compaction: space comes back, nothing else changes, whatever happens in the middle of a step. */
#include "fs/core/compact.h"
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

#define MIB   ((size_t)1 << 20)
#define BLOCK ((size_t)4096)

/* --- files and what they must hold -------------------------------------------------------------------------------- */

struct file {
	uint64_t ino;
	uint8_t *data;
	size_t len;
};

static struct file file_make_in(struct fixture *f, uint64_t dir, const char *name, uint64_t *rng, size_t len)
{
	struct file x = {make(f, dir, name, S_IFREG | 0644), malloc(len + 1), len};

	assert_non_null(x.data);
	fill_random(rng, x.data, len);
	for (size_t off = 0; off < len; off += MIB)
		put(f, x.ino, x.data + off, len - off < MIB ? len - off : MIB, off);
	return x;
}

static struct file file_make(struct fixture *f, const char *name, uint64_t *rng, size_t len)
{
	return file_make_in(f, CORE_ROOT, name, rng, len);
}

static void file_write(struct fixture *f, struct file *x, uint64_t *rng, size_t off, size_t len)
{
	fill_random(rng, x->data + off, len);
	put(f, x->ino, x->data + off, len, off);
}

/* Overwrites n blocks at random places. */
static void file_scatter(struct fixture *f, struct file *x, uint64_t *rng, size_t n)
{
	while (n--)
		file_write(f, x, rng, rng_below(rng, x->len / BLOCK) * BLOCK, BLOCK);
}

static void file_check(struct fixture *f, const struct file *x)
{
	uint8_t *buf = malloc(x->len + 1);

	assert_non_null(buf);
	assert_int_equal(get(f, x->ino, buf, x->len + 1, 0), x->len);
	assert_memory_equal(buf, x->data, x->len);
	free(buf);
}

static void index_ok(struct fixture *f)
{
	struct err e = {0};
	int ret = index_check(f->core->index, &e);

	if (ret)
		fail_msg("index_check: %s", err_text(&e, ret));
}

static void compact_ok(struct fixture *f, bool all)
{
	assert_int_equal(compact_run(f->core, all), 0);
	index_ok(f);
}

static uint64_t segment_bytes(struct fixture *f)
{
	return fixture_disk_usage(f, "segments");
}

/* --- space -------------------------------------------------------------------------------------------------------- */

static size_t pieces(struct fixture *f, uint64_t ino)
{
	static struct index_extent x[65536];
	size_t n;

	assert_int_equal(index_extent_list(f->core->index, ino, 0, UINT64_MAX, x, 65536, &n), 0);
	return n;
}

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
	              (unsigned long long)segment_bytes(f), pieces(f, x.ino));
	assert_true(segment_bytes(f) < x.len / 10 * 13);
	assert_true(pieces(f, x.ino) <= x.len / MIB * 5); /* with so little memory a quarter of 1 MiB at a time */
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
		x[i] = file_make_in(f, dir[i % 3], name, &rng, 1 + rng_below(&rng, 6000));
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
		y[i] = (struct file){make(f, CORE_ROOT, name, S_IFREG | 0644), calloc(1, x.len), x.len};
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

/* --- in the middle of a step -------------------------------------------------------------------------------------- */

struct rig {
	uint64_t rng;
	struct file x, y;
	uint8_t *buffer;
	struct compact_pass pass;
	struct copy *copy;
};

/* Two files in a segment that is closed, with a copy of its first part that is not installed. */
static void rig_init(struct fixture *f, struct rig *r)
{
	struct err e = {0};
	uint64_t victim;

	*r = (struct rig){.rng = rng_seed(5)};
	r->x = file_make(f, "x", &r->rng, MIB / 2);
	r->y = file_make(f, "y", &r->rng, MIB / 4);
	file_scatter(f, &r->x, &r->rng, 10);
	sync_all(f);
	victim = f->core->last_segment;
	pipeline_segment_roll(f->core->pipeline, victim);
	r->buffer = malloc(MIB);
	assert_non_null(r->buffer);
	r->pass = (struct compact_pass){.segment = victim, .last = UINT64_MAX};
	assert_int_equal(copy_make(f->core, &r->pass, r->buffer, MIB, &r->copy, &e), 0);
	assert_non_null(r->copy);
	assert_true(r->pass.end);
}

static void rig_install(struct fixture *f, struct rig *r)
{
	assert_int_equal(cut_wait_copy(f->core, r->copy), 0);
	assert_int_equal(r->copy->ret, 0);
	copy_free(r->copy);
	r->copy = NULL;
	index_ok(f);
}

static void rig_release(struct fixture *f, struct rig *r)
{
	if (r->copy)
		copy_free(r->copy);
	sync_all(f);
	index_ok(f);
	file_check(f, &r->x);
	file_check(f, &r->y);
	fixture_crash(f);
	index_ok(f);
	file_check(f, &r->x);
	file_check(f, &r->y);
	free(r->x.data);
	free(r->y.data);
	free(r->buffer);
}

static void test_step(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	rig_init(f, &r);
	rig_install(f, &r);
	assert_int_equal(fixture_segments(f), 1);
	rig_release(f, &r);
}

/* A copy that is not installed leaves no trace. */
static void test_step_dropped(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	rig_init(f, &r);
	copy_free(r.copy);
	r.copy = NULL;
	sync_all(f);
	rig_release(f, &r);
}

static void test_step_crash(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	rig_init(f, &r);
	file_scatter(f, &r.x, &r.rng, 5);
	sync_all(f);
	/* Freed first: what it refers to goes with the volume. */
	copy_free(r.copy);
	r.copy = NULL;
	fixture_crash(f);
	rig_release(f, &r);
}

/* Readers had the map, and the frames, of before. */
static void test_step_read(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	rig_init(f, &r);
	file_check(f, &r.x);
	rig_install(f, &r);
	rig_release(f, &r);
}

static void test_step_overwrite(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	rig_init(f, &r);
	file_scatter(f, &r.x, &r.rng, 20);
	file_write(f, &r.x, &r.rng, 5000, 70000);
	sync_all(f);
	file_scatter(f, &r.x, &r.rng, 20); /* and some that no cut has */
	rig_install(f, &r);
	file_check(f, &r.x);
	rig_release(f, &r);
}

static void test_step_fsync(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	rig_init(f, &r);
	for (unsigned i = 0; i < 10; i++) {
		file_scatter(f, &r.x, &r.rng, 1);
		assert_int_equal(core_fsync(f->core, r.x.ino, false), 0);
	}
	rig_install(f, &r);
	rig_release(f, &r);
}

static void set_size(struct fixture *f, struct file *x, size_t len)
{
	struct core_attr a = {.size = len}, out;

	assert_int_equal(core_setattr(f->core, x->ino, CORE_SET_SIZE, &a, &out), 0);
	if (len > x->len) {
		x->data = realloc(x->data, len + 1);
		assert_non_null(x->data);
		memset(x->data + x->len, 0, len - x->len);
	}
	x->len = len;
}

static void test_step_truncate(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	rig_init(f, &r);
	set_size(f, &r.x, 100001);
	sync_all(f);
	set_size(f, &r.x, 200000); /* what lay beyond must not come back */
	set_size(f, &r.y, 77777);
	set_size(f, &r.y, 99999);
	rig_install(f, &r);
	file_check(f, &r.x);
	file_check(f, &r.y);
	rig_release(f, &r);
}

static void test_step_unlink(void **state)
{
	struct fixture *f = *state;
	struct rig r;

	for (unsigned how = 0; how < 2; how++) {
		rig_init(f, &r);
		assert_int_equal(core_unlink(f->core, CORE_ROOT, "y"), 0);
		core_forget(f->core, r.y.ino, 1);
		if (how)
			sync_all(f);
		assert_int_equal(core_rename(f->core, CORE_ROOT, "x", CORE_ROOT, "z", 0), 0);
		rig_install(f, &r);
		free(r.y.data);
		r.y = file_make(f, "y", &r.rng, 100);
		rig_release(f, &r);
		r.x.ino = find(f, CORE_ROOT, "z");
		assert_int_equal(core_unlink(f->core, CORE_ROOT, "y"), 0);
		assert_int_equal(core_unlink(f->core, CORE_ROOT, "z"), 0);
	}
}

/* An inode has data in an old chunk that the index does not know of: the chunk must stay. */
static void test_step_held(void **state)
{
	struct fixture *f = *state;
	struct index_extent e;
	struct node *n;
	struct rig r;
	size_t got;

	rig_init(f, &r);
	assert_int_equal(index_extent_list(f->core->index, r.x.ino, 0, BLOCK, &e, 1, &got), 0);
	assert_int_equal(got, 1);
	assert_int_equal(node_get(f->core, r.y.ino, &n), 0);
	struct piece p = {
	    .off = r.y.len, .len = 1000, .kind = PIECE_EXTENT, .chunk = e.chunk, .pos = e.chunk_off, .dirty = true};
	assert_int_equal(map_set(&n->map, &p, NULL), 0);
	n->attr.size += 1000;
	node_touch(f->core, n);
	node_put(f->core, n);
	r.y.data = realloc(r.y.data, r.y.len + 1000);
	assert_non_null(r.y.data);
	memcpy(r.y.data + r.y.len, r.x.data + e.off, 1000);
	r.y.len += 1000;
	rig_install(f, &r);
	rig_release(f, &r);
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
	    cmocka_unit_test_setup_teardown(test_inline, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_shared, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_dropped, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_crash, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_read, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_overwrite, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_fsync, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_truncate, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_unlink, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_step_held, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_damage, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_threads, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_background, fixture_setup, fixture_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
