/* Many threads at once, and the bound on memory. */
#include "tests/core/support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MIB      ((size_t)1 << 20)
#define NTHREADS 8
#define REGION   ((size_t)48000) /* a thread's part of the shared file: no multiple of anything */

struct worker {
	struct fixture *f;
	pthread_t thread;
	unsigned number, rounds;
	uint64_t rng, dir, other, shared;
	uint64_t ino, size; /* of its own file */
	uint8_t *all;       /* what its file, or its part of one, must hold */
	int ret;            /* cmocka's asserts are for the main thread */
	const char *what;
};

static int worker_fails(struct worker *w, int ret, const char *what)
{
	if (ret && !w->ret) {
		w->ret = ret;
		w->what = what;
	}
	return w->ret;
}

static void *worker_join(struct worker *w)
{
	(void)pthread_join(w->thread, NULL);
	if (w->ret)
		fail_msg("thread %u: %s: %d (%s)", w->number, w->what, w->ret, strerror(w->ret < 0 ? -w->ret : 0));
	return NULL;
}

static void run_workers(struct fixture *f, struct worker *w, unsigned n, void *(*fn)(void *), unsigned rounds)
{
	for (unsigned k = 0; k < n; k++) {
		w[k].f = f;
		w[k].number = k;
		w[k].rounds = rounds;
		w[k].rng = rng_seed(k + 100);
		assert_int_equal(pthread_create(&w[k].thread, NULL, fn, &w[k]), 0);
	}
	for (unsigned k = 0; k < n; k++)
		(void)worker_join(&w[k]);
}

/* Writes len bytes at off and reads them back. */
static int write_and_read(struct worker *w, struct core_file *h, uint8_t *a, uint8_t *b, uint64_t off, size_t len)
{
	fill_data(&w->rng, a, len);
	unsigned flags = w->number % 2 ? CORE_KEEP_TIMES : 0;
	int ret =
	    w->number % 4 < 2 ? core_file_write(h, a, len, off, flags) : write_blocks(w->f, h, a, len, off, flags);

	if (worker_fails(w, ret, "write"))
		return w->ret;
	if (core_file_read(h, b, len, off) != (ssize_t)len || memcmp(a, b, len) != 0)
		return worker_fails(w, 1, "read gives other data");
	return 0;
}

#define OWN (9 * MIB)

/* In two threads of three, fsync is asked for so often that cuts run all the time. */
static void own_file_extras(struct worker *w, unsigned n)
{
	if (n % (w->number % 3 ? 3 : 16) == 2)
		(void)worker_fails(w, core_fsync(w->f->core, w->ino, true), "fsync");
	if (n % 32 == 11) {
		struct core_attr in = {.size = rng_below(&w->rng, 8 * MIB)}, out;

		(void)worker_fails(w, core_setattr(w->f->core, w->ino, CORE_SET_SIZE, &in, &out), "truncate");
		if (in.size < w->size)
			memset(w->all + in.size, 0, (size_t)(w->size - in.size));
		w->size = in.size;
	}
}

static void *own_file(void *arg)
{
	struct worker *w = arg;
	const struct core_cred cred = {0, 0, 0};
	uint8_t *a = malloc(MIB), *b = malloc(MIB);
	struct core_file *h = NULL;
	struct core_attr attr;
	char name[32];

	(void)snprintf(name, sizeof(name), "own%u", w->number);
	if (worker_fails(w, core_mknod(w->f->core, &cred, CORE_ROOT, name, S_IFREG | 0644, 0, &attr), "mknod") ||
	    worker_fails(w, core_file_open(w->f->core, attr.ino, O_RDWR, &h), "open"))
		goto out;
	w->ino = attr.ino;
	for (unsigned n = 0; n < w->rounds && !w->ret; n++) {
		size_t len = 1 + (size_t)rng_below(&w->rng, n % 8 ? 100000 : MIB);
		uint64_t off = rng_below(&w->rng, 8 * MIB);

		(void)write_and_read(w, h, a, b, off, len);
		memcpy(w->all + off, a, len);
		w->size = off + len > w->size ? off + len : w->size;
		own_file_extras(w, n);
	}
out:
	if (h)
		core_file_close(h);
	free(a);
	free(b);
	return NULL;
}

static void test_own_files(void **state)
{
	struct fixture *f = *state;
	struct worker w[NTHREADS] = {0};
	uint8_t *got = malloc(OWN);

	assert_non_null(got);
	for (unsigned n = 0; n < NTHREADS; n++) {
		w[n].all = calloc(1, OWN);
		assert_non_null(w[n].all);
	}
	run_workers(f, w, NTHREADS, own_file, SLOW_BUILD ? 60 : 200);
	fixture_remount(f);
	for (unsigned n = 0; n < NTHREADS; n++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "own%u", n);
		assert_int_equal(get(f, find(f, CORE_ROOT, name), got, OWN, 0), w[n].size);
		assert_memory_equal(got, w[n].all, w[n].size);
		free(w[n].all);
	}
	free(got);
}

static void *shared_file(void *arg)
{
	struct worker *w = arg;
	uint8_t *a = malloc(REGION), *b = malloc(REGION), *all = w->all;
	uint64_t start = w->number * REGION;
	struct core_file *h = NULL;

	if (worker_fails(w, core_file_open(w->f->core, w->shared, O_RDWR, &h), "open"))
		goto out;
	for (unsigned n = 0; n < w->rounds && !w->ret; n++) {
		uint64_t at = rng_below(&w->rng, REGION);
		size_t len = 1 + (size_t)rng_below(&w->rng, REGION - at);

		if (write_and_read(w, h, a, b, start + at, len))
			break;
		memcpy(all + at, a, len);
		if (n % (w->number % 3 ? 20 : 3) == 2)
			(void)worker_fails(w, core_fsync(w->f->core, w->shared, false), "fsync");
		if (core_file_read(h, b, REGION, start) < (ssize_t)(at + len) || memcmp(all, b, at + len) != 0)
			(void)worker_fails(w, 1, "the region differs");
	}
out:
	if (h)
		core_file_close(h);
	free(a);
	free(b);
	return NULL;
}

static void test_shared_file(void **state)
{
	struct fixture *f = *state;
	struct worker w[NTHREADS] = {0};
	uint64_t ino = make(f, CORE_ROOT, "shared", S_IFREG | 0644);
	uint8_t got[REGION];

	put(f, ino, "end", 3, NTHREADS * REGION);
	for (unsigned n = 0; n < NTHREADS; n++) {
		w[n].shared = ino;
		w[n].all = calloc(1, REGION);
		assert_non_null(w[n].all);
	}
	run_workers(f, w, NTHREADS, shared_file, SLOW_BUILD ? 60 : 300);
	fixture_remount(f);
	ino = find(f, CORE_ROOT, "shared");
	for (unsigned n = 0; n < NTHREADS; n++) {
		assert_int_equal(get(f, ino, got, REGION, n * REGION), REGION);
		assert_memory_equal(got, w[n].all, REGION);
		free(w[n].all);
	}
}

static int nothing(void *arg, const struct core_entry *e)
{
	(void)arg, (void)e;
	return 0;
}

/* Errors that other threads' doings explain. */
static int tolerate(int ret)
{
	return ret == -ENOENT || ret == -EEXIST ? 0 : ret;
}

static void *names(void *arg)
{
	struct worker *w = arg;
	struct core *c = w->f->core;
	const struct core_cred cred = {0, 0, 0};
	char name[32], other[32];
	struct core_attr a;

	for (unsigned n = 0; n < w->rounds && !w->ret; n++) {
		int ret = 0;

		(void)snprintf(name, sizeof(name), "n%u", (unsigned)rng_below(&w->rng, 30));
		(void)snprintf(other, sizeof(other), "n%u", (unsigned)rng_below(&w->rng, 30));
		switch (rng_below(&w->rng, 8)) {
		case 0:
		case 1:
			ret = core_mknod(c, &cred, w->dir, name, S_IFREG | 0644, 0, &a);
			if (!ret)
				core_forget(c, a.ino, 1);
			break;
		case 2:
			ret = core_unlink(c, w->dir, name);
			break;
		case 3:
			ret = core_rename(c, w->dir, name, w->dir, other, (unsigned)rng_below(&w->rng, 3));
			break;
		case 4:
			ret = core_readdir(c, w->dir, 0, false, nothing, NULL);
			break;
		case 5:
			ret = core_sync(c);
			break;
		default:
			ret = core_lookup(c, w->dir, name, &a);
			if (!ret) {
				struct core_file *h = NULL;

				ret = core_file_open(c, a.ino, O_RDWR, &h);
				if (!ret) {
					ret = core_file_write(h, name, 4, rng_below(&w->rng, 10000), 0);
					core_file_close(h);
				}
				core_forget(c, a.ino, 1);
			}
		}
		(void)worker_fails(w, tolerate(ret), "operation on names");
	}
	return NULL;
}

static void test_names(void **state)
{
	struct fixture *f = *state;
	struct worker w[NTHREADS] = {0};
	uint64_t dir;

	(void)make(f, CORE_ROOT, "dir", S_IFDIR | 0755);
	f->options.commit_interval_ms = 5;
	fixture_remount(f);
	dir = find(f, CORE_ROOT, "dir");
	for (unsigned n = 0; n < NTHREADS; n++)
		w[n].dir = dir;
	run_workers(f, w, NTHREADS, names, SLOW_BUILD ? 100 : 500);
	fixture_remount(f);
}

/* Two directories, renames of directories between them both ways: no deadlock, no loop. */
static void *cross(void *arg)
{
	struct worker *w = arg;
	uint64_t a = w->dir, b = w->other;

	for (unsigned n = 0; n < w->rounds && !w->ret; n++) {
		int ret = w->number % 2 ? core_rename(w->f->core, a, "x", b, "x", 0)
		                        : core_rename(w->f->core, b, "x", a, "x", 0);

		(void)worker_fails(w, tolerate(ret), "rename");
		ret = core_rename(w->f->core, CORE_ROOT, w->number % 2 ? "a" : "b", w->number % 2 ? b : a, "y", 0);
		if (!ret) /* back again */
			ret = core_rename(w->f->core, w->number % 2 ? b : a, "y", CORE_ROOT, w->number % 2 ? "a" : "b",
			                  0);
		(void)worker_fails(w, tolerate(ret == -EINVAL ? 0 : ret), "rename of a parent");
	}
	return NULL;
}

static void test_cross_renames(void **state)
{
	struct fixture *f = *state;
	struct worker w[4] = {0};
	uint64_t a = make(f, CORE_ROOT, "a", S_IFDIR | 0755), b = make(f, CORE_ROOT, "b", S_IFDIR | 0755);

	(void)make(f, a, "x", S_IFDIR | 0755);
	for (unsigned n = 0; n < 4; n++) {
		w[n].dir = a;
		w[n].other = b;
	}
	run_workers(f, w, 4, cross, SLOW_BUILD ? 200 : 2000);
	fixture_remount(f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_own_files),
	    TEST(test_shared_file),
	    TEST(test_names),
	    TEST(test_cross_renames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
