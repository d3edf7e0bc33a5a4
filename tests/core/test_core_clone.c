/* Clones and holes: what is shared stays, whatever happens to the other files; and what is counted as stored. */
#include "tests/core/file_rig.h"
#include "tests/core/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ROOM (16 * MIB)

static struct file roomy(struct fixture *f, const char *name, uint64_t *rng, size_t len)
{
	return file_make_in(f, CORE_ROOT, name, rng, len, ROOM);
}

static ssize_t clone_raw(struct fixture *f, uint64_t from, size_t off, uint64_t to, size_t to_off, size_t len)
{
	struct core_file *a, *b;

	assert_int_equal(core_file_open(f->core, from, O_RDONLY, &a), 0);
	assert_int_equal(core_file_open(f->core, to, O_RDWR, &b), 0);
	ssize_t n = core_file_clone(a, off, b, to_off, len, 0);
	core_file_close(a);
	core_file_close(b);
	return n;
}

static void clone_to(struct fixture *f, const struct file *from, size_t off, struct file *to, size_t to_off, size_t len)
{
	assert_int_equal(clone_raw(f, from->ino, off, to->ino, to_off, len), len);
	memmove(to->data + to_off, from->data + off, len);
	to->len = to_off + len > to->len ? to_off + len : to->len;
}

static void allocate(struct fixture *f, struct file *x, int mode, size_t off, size_t len)
{
	struct core_file *a;

	assert_int_equal(core_file_open(f->core, x->ino, O_RDWR, &a), 0);
	assert_int_equal(core_file_fallocate(a, mode, off, len, 0), 0);
	core_file_close(a);
	if (mode)
		memset(x->data + off, 0, len);
}

/* Of every byte of a store that is not open. */
static int store_check(struct fixture *f, struct err *e)
{
	struct io *io;

	assert_int_equal(io_posix_new(f->dir, &io, NULL), 0);
	int ret = inside_check_store(io, f->options.pass, f->options.pass_len, e);
	io_free(io);
	return ret;
}

static void store_ok(struct fixture *f)
{
	struct err e = {0};

	assert_int_equal(fixture_close(f), 0);
	int ret = store_check(f, &e);
	if (ret)
		fail_msg("the check of the store: %s", err_text(&e, ret));
	assert_int_equal(fixture_open(f), 0);
}

static void delete (struct fixture *f, const char *name, struct file *x)
{
	assert_int_equal(core_unlink(f->core, CORE_ROOT, name), 0);
	core_forget(f->core, x->ino, 1);
	free(x->data);
}

/* --- clones ------------------------------------------------------------------------------------------------------- */

static void test_shares(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(1), before;
	struct file x = roomy(f, "x", &rng, 8 * MIB), y = roomy(f, "y", &rng, 0), z = roomy(f, "z", &rng, 0);

	sync_all(f);
	before = segment_bytes(f);
	clone_to(f, &x, 0, &y, 0, x.len);
	clone_to(f, &y, 1000, &z, 77, 5 * MIB); /* of a clone that no cut has */
	assert_true(attr_of(f, y.ino).blocks > 0);
	file_check(f, &y);
	file_check(f, &z);
	sync_all(f);
	assert_true(segment_bytes(f) < before + MIB);
	assert_true(attr_of(f, y.ino).blocks * 512 >= 8 * MIB);
	file_write(f, &x, &rng, 3 * MIB, 100000);
	file_write(f, &y, &rng, MIB, 5000);
	allocate(f, &z, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * MIB + 1, MIB);
	file_check(f, &x);
	file_check(f, &y);
	file_check(f, &z);
	store_ok(f);
	file_check(f, &x);
	delete (f, "x", &x);
	store_ok(f);
	file_check(f, &y);
	file_check(f, &z);
	delete (f, "y", &y);
	delete (f, "z", &z);
	sync_all(f);
	index_ok(f);
	assert_true(segment_bytes(f) < MIB);
}

static void test_answers(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(2);
	struct file x = roomy(f, "x", &rng, 300000), y = roomy(f, "y", &rng, 100);

	for (unsigned turn = 0; turn < 2; turn++, sync_all(f)) {
		assert_int_equal(clone_raw(f, x.ino, 0, y.ino, 0, 0), 0);
		assert_int_equal(clone_raw(f, x.ino, 100, x.ino, 199, 100), -EINVAL);
		assert_int_equal(clone_raw(f, x.ino, 199, x.ino, 100, 100), -EINVAL);
		assert_int_equal(clone_raw(f, x.ino, CORE_SIZE_MAX, y.ino, 0, 1), -EFBIG);
		assert_int_equal(clone_raw(f, x.ino, 0, y.ino, CORE_SIZE_MAX - 10, 11), -EFBIG);
		clone_to(f, &x, 100, &x, 200, 100);
		clone_to(f, &x, 5, &x, 400000, 70000);
		clone_to(f, &x, 400000 + 70000 - 10, &y, 50, 5000); /* beyond the end: zeroes */
		file_check(f, &x);
		file_check(f, &y);
	}
	fixture_crash(f);
	file_check(f, &x);
	file_check(f, &y);
	free(x.data);
	free(y.data);
}

/* What is not stored yet: little of it is copied, much is stored first. */
static void test_unsaved(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(3), before;
	struct file x = roomy(f, "x", &rng, MIB / 2), y = roomy(f, "y", &rng, 0);
	struct file copy = roomy(f, "copy", &rng, 0), big;

	before = f->core->cut;
	clone_to(f, &x, 0, &y, 0, x.len);
	assert_int_equal(f->core->cut, before);
	big = roomy(f, "big", &rng, 6 * MIB); /* so much may be reason enough for a cut */
	clone_to(f, &big, 0, &copy, 0, big.len);
	assert_true(f->core->cut > before);
	file_write(f, &big, &rng, 2 * MIB, 10000);
	clone_to(f, &big, MIB, &copy, 7 * MIB + 3, 2 * MIB);
	file_check(f, &x);
	file_check(f, &y);
	file_check(f, &copy);
	sync_all(f);
	assert_true(segment_bytes(f) < 8 * MIB);
	fixture_crash(f);
	file_check(f, &y);
	file_check(f, &big);
	file_check(f, &copy);
	free(x.data);
	free(y.data);
	free(big.data);
	free(copy.data);
}

/* The only other reference to what a clone shares goes with a commit that nobody made for the clone. */
static void test_source_goes(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(4);

	for (unsigned how = 0; how < 4; how++) {
		struct file x = roomy(f, "x", &rng, 2 * MIB), y = roomy(f, "y", &rng, 0);
		struct file other = roomy(f, "other", &rng, 1000);

		sync_all(f);
		clone_to(f, &x, 0, &y, 0, x.len);
		if (how == 1)
			file_write(f, &x, &rng, 0, x.len);
		if (how == 2)
			allocate(f, &x, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, x.len);
		if (how == 3)
			assert_int_equal(core_rename(f->core, CORE_ROOT, "other", CORE_ROOT, "x", 0), 0);
		assert_int_equal(core_fsync(f->core, how == 3 ? other.ino : x.ino, false), 0);
		if (how == 0)
			delete (f, "x", &x);
		if (how == 3)
			core_forget(f->core, x.ino, 1);
		file_write(f, &other, &rng, 0, 1000);
		assert_int_equal(core_fsync(f->core, other.ino, false), 0);
		index_ok(f);
		fixture_crash(f);
		index_ok(f);
		file_check(f, &y);
		store_ok(f);
		file_check(f, &y);
		delete (f, "y", &y);
		if (how)
			assert_int_equal(core_unlink(f->core, CORE_ROOT, "x"), 0);
		if (how)
			free(x.data);
		if (how != 3)
			assert_int_equal(core_unlink(f->core, CORE_ROOT, "other"), 0);
		free(other.data);
		sync_all(f);
	}
}

/* A file that maps another's bytes is found, but for clones, which may. */
static void test_foreign(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(9);
	struct file x = file_make(f, "x", &rng, MIB), y = file_make(f, "y", &rng, MIB);
	struct fixture_index ix;
	struct index_inode row;
	struct index_extent e;
	struct err err = {0};
	size_t n;

	assert_int_equal(fixture_close(f), 0);
	fixture_index_open(f, &ix);
	assert_int_equal(index_extent_list(ix.index, x.ino, 0, UINT64_MAX, &e, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(index_extent_set(ix.index, y.ino, &e), 0);
	assert_int_equal(index_commit(ix.index, NULL), 0);
	fixture_index_close(&ix);
	assert_int_equal(store_check(f, &err), -EUCLEAN);
	assert_non_null(strstr(err.text, "its record says are other bytes"));
	fixture_index_open(f, &ix);
	assert_int_equal(index_inode_get(ix.index, y.ino, &row), 0);
	row.flags |= NODE_CLONED;
	assert_int_equal(index_inode_put(ix.index, &row), 0);
	assert_int_equal(index_commit(ix.index, NULL), 0);
	fixture_index_close(&ix);
	err = (struct err){0};
	int ret = store_check(f, &err);
	if (ret)
		fail_msg("the check of the store: %s", err_text(&err, ret));
	assert_int_equal(fixture_open(f), 0);
	memcpy(y.data, x.data, e.len);
	file_check(f, &y);
	free(x.data);
	free(y.data);
}

/* Fragments that several files share become one for all of them, and are stored once. */
static void test_merge(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(5), before;
	struct file x = roomy(f, "x", &rng, 6 * MIB), y = roomy(f, "y", &rng, 0), z = roomy(f, "z", &rng, 0);

	for (unsigned i = 0; i < 6000; i++) {
		file_write(f, &x, &rng, rng_below(&rng, x.len / BLOCK) * BLOCK, BLOCK);
		if (i % 500 == 0)
			sync_all(f);
	}
	sync_all(f);
	clone_to(f, &x, 0, &y, 0, x.len);
	clone_to(f, &x, MIB / 2, &z, 12345, 4 * MIB);
	sync_all(f);
	before = segment_bytes(f);
	assert_true(file_pieces(f, &y) > 500);
	compact_ok(f, true);
	print_message("%llu bytes became %llu, pieces %zu, %zu and %zu\n", (unsigned long long)before,
	              (unsigned long long)segment_bytes(f), file_pieces(f, &x), file_pieces(f, &y), file_pieces(f, &z));
	assert_true(segment_bytes(f) < x.len / 10 * 13);
	assert_true(file_pieces(f, &x) < 100 && file_pieces(f, &y) < 100 && file_pieces(f, &z) < 100);
	file_check(f, &x);
	store_ok(f);
	file_check(f, &x);
	file_check(f, &y);
	file_check(f, &z);
	free(x.data);
	free(y.data);
	free(z.data);
}

struct cloner {
	struct fixture *f;
	const struct file *from;
	struct file to;
	uint64_t rng;
	pthread_t thread;
	atomic_bool *stop;
};

static void *cloner_main(void *arg)
{
	struct cloner *a = arg;
	uint8_t *buf = malloc(MIB);
	struct core_file *from, *to;

	if (!buf || core_file_open(a->f->core, a->from->ino, O_RDONLY, &from) ||
	    core_file_open(a->f->core, a->to.ino, O_RDWR, &to))
		abort();
	while (!atomic_load(a->stop)) {
		size_t len = 1 + rng_below(&a->rng, MIB), off = rng_below(&a->rng, a->from->len - len);
		size_t to_off = rng_below(&a->rng, 3 * MIB);

		if (core_file_clone(from, off, to, to_off, len, 0) != (ssize_t)len)
			abort();
		memcpy(a->to.data + to_off, a->from->data + off, len);
		a->to.len = to_off + len > a->to.len ? to_off + len : a->to.len;
		if (rng_below(&a->rng, 8) == 0 && core_fsync(a->f->core, a->to.ino, false))
			abort();
		if (core_file_read(to, buf, len, to_off) != (ssize_t)len || memcmp(buf, a->from->data + off, len) != 0)
			abort();
	}
	core_file_close(from);
	core_file_close(to);
	free(buf);
	return NULL;
}

/* Compaction moves what is being cloned. */
static void test_threads(void **state)
{
	struct fixture *f = *state;
	enum { CLONERS = 3 };
	struct cloner a[CLONERS];
	atomic_bool stop = false;
	uint64_t rng = rng_seed(6);
	struct file x = roomy(f, "x", &rng, 4 * MIB), waste = roomy(f, "waste", &rng, MIB);
	char name[8];

	for (unsigned i = 0; i < CLONERS; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		a[i] = (struct cloner){.f = f, .from = &x, .rng = rng_seed(20 + i), .stop = &stop};
		a[i].to = roomy(f, name, &a[i].rng, 100);
	}
	sync_all(f);
	for (unsigned i = 0; i < CLONERS; i++)
		assert_int_equal(pthread_create(&a[i].thread, NULL, cloner_main, &a[i]), 0);
	for (unsigned i = 0; i < (SLOW_BUILD ? 10 : 30); i++) {
		file_write(f, &waste, &rng, rng_below(&rng, waste.len / BLOCK) * BLOCK, BLOCK); /* something is dead */
		inside_roll(f->core);
		assert_int_equal(compact_run(f->core, true), 0);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < CLONERS; i++)
		assert_int_equal(pthread_join(a[i].thread, NULL), 0);
	sync_all(f);
	index_ok(f);
	store_ok(f);
	file_check(f, &x);
	file_check(f, &waste);
	for (unsigned i = 0; i < CLONERS; i++) {
		file_check(f, &a[i].to);
		free(a[i].to.data);
	}
	free(x.data);
	free(waste.data);
}

/* --- what is counted ---------------------------------------------------------------------------------------------- */

static void expect_stored(struct fixture *f, const struct file *x, size_t least, size_t most)
{
	uint64_t bytes = attr_of(f, x->ino).blocks * 512;

	if (bytes < least || bytes > most)
		fail_msg("%llu bytes are counted as stored, not %zu to %zu", (unsigned long long)bytes, least, most);
}

/* Overwritten again and again, a part of a large hole takes what it takes once. */
static void test_blocks(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(7);
	struct file x = roomy(f, "x", &rng, 0);
	struct core_attr size = {.size = (uint64_t)1 << 40}, out;

	assert_int_equal(core_setattr(f->core, x.ino, CORE_SET_SIZE, &size, &out), 0);
	for (unsigned i = 0; i < 12; i++) {
		file_write(f, &x, &rng, MIB, MIB);
		file_write(f, &x, &rng, 5 * MIB + 100, 100);
		assert_int_equal(core_fsync(f->core, x.ino, false), 0);
		expect_stored(f, &x, MIB, MIB + MIB / 8);
		if (i % 4 == 3)
			fixture_remount(f);
		expect_stored(f, &x, MIB, MIB + MIB / 8);
	}
	allocate(f, &x, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB + MIB / 2, MIB);
	expect_stored(f, &x, MIB / 2, MIB / 2 + MIB / 8); /* at once, and */
	sync_all(f);
	expect_stored(f, &x, MIB / 2, MIB / 2 + MIB / 8);
	allocate(f, &x, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * MIB);
	expect_stored(f, &x, 1, MIB / 8);
	sync_all(f);
	expect_stored(f, &x, 1, MIB / 8);
	/* Next to nothing, but data. */
	memset(x.data, 0, 16 * MIB);
	put(f, x.ino, x.data, MIB, 0);
	sync_all(f);
	expect_stored(f, &x, 1, MIB / 8);
	size.size = 0;
	assert_int_equal(core_setattr(f->core, x.ino, CORE_SET_SIZE, &size, &out), 0);
	expect_stored(f, &x, 0, 0);
	sync_all(f);
	fixture_remount(f);
	expect_stored(f, &x, 0, 0);
	free(x.data);
}

static void test_allocate(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(8);
	struct file x = roomy(f, "x", &rng, MIB);
	struct core_statfs s;
	struct core_file *a;

	assert_int_equal(core_file_open(f->core, x.ino, O_RDWR, &a), 0);
	assert_int_equal(core_file_fallocate(a, FALLOC_FL_PUNCH_HOLE, 0, 10, 0), -EOPNOTSUPP);
	assert_int_equal(core_file_fallocate(a, FALLOC_FL_COLLAPSE_RANGE, 0, 4096, 0), -EOPNOTSUPP);
	assert_int_equal(core_file_fallocate(a, FALLOC_FL_INSERT_RANGE, 0, 4096, 0), -EOPNOTSUPP);
	assert_int_equal(core_file_fallocate(a, 0, 0, 0, 0), -EINVAL);
	assert_int_equal(core_file_fallocate(a, 0, CORE_SIZE_MAX - 1, 2, 0), -EFBIG);
	assert_int_equal(core_statfs(f->core, &s), 0);
	assert_int_equal(core_file_fallocate(a, 0, 0, 2 * s.blocks * s.block_size, 0), -ENOSPC);
	assert_int_equal(core_file_fallocate(a, FALLOC_FL_KEEP_SIZE, 0, CORE_SIZE_MAX, 0), -ENOSPC);
	assert_int_equal(attr_of(f, x.ino).size, MIB);
	assert_int_equal(core_file_fallocate(a, 0, MIB, 1, 0), 0);
	assert_int_equal(core_file_fallocate(a, FALLOC_FL_ZERO_RANGE, MIB + 5, 5, 0), 0);
	core_file_close(a);
	x.len = MIB + 10;
	file_check(f, &x);
	fixture_remount(f);
	file_check(f, &x);
	free(x.data);
}

/* --- very many extents -------------------------------------------------------------------------------------------- */

static struct node *watched;
static unsigned asked, held;

int __real_index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out,
                             size_t max, size_t *n);
int __wrap_index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out,
                             size_t max, size_t *n);

/* Counts how often the index is asked for extents of the watched file, and how often with its lock held. */
int __wrap_index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out,
                             size_t max, size_t *n)
{
	if (watched && ino == watched->ino) {
		asked++;
		if (pthread_mutex_trylock(&watched->lock))
			held++;
		else
			(void)pthread_mutex_unlock(&watched->lock);
	}
	return __real_index_extent_list(ix, ino, from, to, out, max, n);
}

int __real_index_chunk_extents(struct index *ix, uint64_t chunk, uint64_t ino, uint64_t off,
                               struct index_owned_extent *out, size_t max, size_t *n);
int __wrap_index_chunk_extents(struct index *ix, uint64_t chunk, uint64_t ino, uint64_t off,
                               struct index_owned_extent *out, size_t max, size_t *n);

static unsigned chunk_asked;

int __wrap_index_chunk_extents(struct index *ix, uint64_t chunk, uint64_t ino, uint64_t off,
                               struct index_owned_extent *out, size_t max, size_t *n)
{
	chunk_asked++;
	return __real_index_chunk_extents(ix, chunk, ino, off, out, max, n);
}

/* A file of n extents of `each` bytes that adjoin but are of two chunks in turn. */
static struct file shreds(struct fixture *f, const char *name, uint64_t *rng, size_t n, size_t each)
{
	struct file x = roomy(f, name, rng, 0);

	for (size_t odd = 0; odd < 2; odd++, sync_all(f))
		for (size_t i = odd; i < n; i += 2)
			file_write(f, &x, rng, i * each, each);
	assert_int_equal(file_pieces(f, &x), n);
	return x;
}

/* What looks at all extents of a file keeps nobody from it, and is not kept in memory. */
static void test_many_extents(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(9), at;
	struct file x = shreds(f, "x", &rng, 4000, 512);
	struct core_file *h;

	fixture_remount(f);
	assert_int_equal(core_file_open(f->core, x.ino, O_RDONLY, &h), 0);
	watched = node_peek(f->core, x.ino);
	assert_non_null(watched);
	assert_int_equal(core_file_seek(h, 0, SEEK_HOLE, &at), 0);
	assert_int_equal(at, x.len);
	assert_int_equal(core_file_fallocate(h, 0, 0, (uint64_t)1 << 60, 0), -ENOSPC);
	print_message("the index was asked %u times\n", asked);
	assert_in_range(asked, 20, 100);
	assert_int_equal(held, 0);
	assert_in_range(watched->map.count, 0, 10);
	node_put(f->core, watched);
	watched = NULL;
	core_file_close(h);
	file_check(f, &x);
	free(x.data);
}

/* What is read of a file of very many extents, or was, takes no memory in proportion. */
static void test_many_read(void **state)
{
	enum { N = 40000 };
	struct fixture *f = *state;
	uint64_t rng = rng_seed(12);
	struct file x = roomy(f, "x", &rng, BLOCK);
	size_t most = f->core->opt.memory / 2048, peak = 0;
	uint8_t *got = malloc(MIB);
	struct core_file *h;

	assert_non_null(got);
	sync_all(f);
	for (size_t n = 1; n < N; n += n < N - n ? n : N - n) {
		size_t len = (n < N - n ? n : N - n) * BLOCK;

		assert_int_equal(clone_raw(f, x.ino, 0, x.ino, n * BLOCK, len), len);
		sync_all(f);
	}
	assert_int_equal(file_pieces(f, &x), N);
	assert_true(most < N / 2);
	fixture_remount(f);
	assert_int_equal(core_file_open(f->core, x.ino, O_RDONLY, &h), 0);
	for (uint64_t off = 0; off < (uint64_t)N * BLOCK; off += MIB) {
		ssize_t n = core_file_read(h, got, MIB, off);

		assert_true(n > 0 && n % (ssize_t)BLOCK == 0);
		for (ssize_t i = 0; i < n; i += (ssize_t)BLOCK)
			assert_memory_equal(got + i, x.data, BLOCK);
		peak = f->core->pieces > peak ? f->core->pieces : peak;
	}
	print_message("%zu pieces at most, %zu at the end\n", peak, (size_t)f->core->pieces);
	assert_in_range(peak, most / 2, most + 1000);
	core_file_close(h);
	assert_true(f->core->pieces < 1000);
	free(got);
	free(x.data);
}

/* Fragments that too many share to be gathered are moved as they are, without asking for each of them who shares it. */
static void test_many_sharers(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(10);
	struct file waste = roomy(f, "waste", &rng, 4 * MIB), x = shreds(f, "x", &rng, 8000, 64);
	struct file y = roomy(f, "y", &rng, 0);

	clone_to(f, &x, 0, &y, 0, x.len);
	delete (f, "waste", &waste);
	sync_all(f);
	inside_roll(f->core);
	chunk_asked = 0;
	compact_ok(f, false);
	print_message("the index was asked %u times\n", chunk_asked);
	assert_true(chunk_asked < 1000);
	assert_true(segment_bytes(f) < 2 * MIB);
	file_check(f, &x);
	file_check(f, &y);
	store_ok(f);
	free(x.data);
	free(y.data);
}

/* What more extents map than one cut may move is still stored once. */
static void test_many_clones(void **state)
{
	enum { N = 70000 };
	struct fixture *f = *state;
	uint64_t rng = rng_seed(11);
	struct file waste = roomy(f, "waste", &rng, 4 * MIB), x = roomy(f, "x", &rng, BLOCK);
	struct index_extent e[2];
	uint8_t got[BLOCK];
	size_t found;

	sync_all(f);
	for (size_t n = 1; n < N; n += n < N - n ? n : N - n) {
		size_t len = (n < N - n ? n : N - n) * BLOCK;

		assert_int_equal(clone_raw(f, x.ino, 0, x.ino, n * BLOCK, len), len);
		sync_all(f); /* so that the next one shares all of it */
	}
	delete (f, "waste", &waste);
	sync_all(f);
	assert_int_equal(file_pieces(f, &x), 65536); /* it counts no more */
	inside_roll(f->core);
	compact_ok(f, false);
	assert_true(segment_bytes(f) < 2 * MIB);
	assert_int_equal(index_extent_list(f->core->index, x.ino, 0, UINT64_MAX, e, 1, &found), 0);
	assert_int_equal(index_extent_list(f->core->index, x.ino, (N - 1) * BLOCK, UINT64_MAX, e + 1, 1, &found), 0);
	assert_int_equal(found, 1);
	assert_int_equal(e[0].chunk, e[1].chunk);
	assert_int_equal(get(f, x.ino, got, BLOCK, (N - 1) * BLOCK), BLOCK);
	assert_memory_equal(got, x.data, BLOCK);
	store_ok(f);
	free(x.data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_shares),    TEST(test_answers),      TEST(test_unsaved),      TEST(test_source_goes),
	    TEST(test_merge),     TEST(test_threads),      TEST(test_blocks),       TEST(test_allocate),
	    TEST(test_foreign),   TEST(test_many_extents), TEST(test_many_sharers), TEST(test_many_clones),
	    TEST(test_many_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
