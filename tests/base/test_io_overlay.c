#include "base/io_overlay.h"
#include "tests/base/cmocka_all.h"
#include "tests/base/scratch.h"

#include <errno.h>
#include <string.h>

/* The same random operations on an overlay and on a plain directory with the same files give the same results, and what
 * is below the overlay stays as it was. */

#define FILES 6
#define STEPS 4000
#define SPAN  20000

static const char *const names[FILES] = {"a", "b", "d/a", "d/b", "e/a", "c"};

struct pair {
	char dir[3][SCRATCH_PATH]; /* below, beside, and a copy that stays as it is */
	struct io *io[3], *over;
	struct io_file *f[FILES], *g[FILES]; /* open in the overlay and beside */
};

static unsigned seed;

static unsigned below(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

static void write_all(struct io *io, const char *name, const void *buf, size_t len)
{
	struct io_file *f;

	assert_int_equal(io_open(io, name, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_pwrite(f, buf, len, 0), 0);
	io_close(f);
}

static void pair_init(struct pair *p)
{
	uint8_t buf[SPAN];

	memset(p, 0, sizeof(*p));
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)below(256);
	for (int i = 0; i < 3; i++) {
		assert_non_null(scratch_new(p->dir[i]));
		assert_int_equal(io_posix_new(p->dir[i], &p->io[i], NULL), 0);
		assert_int_equal(io_mkdir(p->io[i], "d"), 0);
		for (int n = 0; n < 4; n++)
			write_all(p->io[i], names[n], buf + n, (size_t)(n * 5000));
	}
	assert_int_equal(io_overlay_new(p->io[0], &p->over, NULL), 0);
}

static void pair_close(struct pair *p, int n)
{
	io_close(p->f[n]);
	io_close(p->g[n]);
	p->f[n] = p->g[n] = NULL;
}

static void compare(struct io_file *f, struct io_file *g, uint64_t off, size_t len)
{
	uint8_t a[SPAN], b[SPAN];
	uint64_t x, y;
	ssize_t n = io_pread(f, a, len, off), m = io_pread(g, b, len, off);

	assert_int_equal(n, m);
	assert_memory_equal(a, b, (size_t)n);
	assert_int_equal(io_size(f, &x), 0);
	assert_int_equal(io_size(g, &y), 0);
	assert_int_equal(x, y);
}

static void step_file(struct pair *p, int n)
{
	uint64_t off = below(SPAN);
	size_t len = below(6000);
	uint8_t buf[6000];

	switch (below(4)) {
	case 0:
		memset(buf, (int)below(256), sizeof(buf));
		assert_int_equal(io_pwrite(p->f[n], buf, len, off), io_pwrite(p->g[n], buf, len, off));
		break;
	case 1:
		assert_int_equal(io_truncate(p->f[n], off), io_truncate(p->g[n], off));
		break;
	case 2:
		assert_int_equal(io_allocate(p->f[n], off, len + 1), io_allocate(p->g[n], off, len + 1));
		break;
	default:
		break;
	}
	compare(p->f[n], p->g[n], below(SPAN), below(SPAN));
}

static void step_path(struct pair *p, int n)
{
	int to = (int)below(FILES);
	struct io_stat a, b;

	switch (below(5)) {
	case 0:
		pair_close(p, n);
		{
			unsigned flags = IO_WRITE | (below(2) ? IO_CREATE : 0) | (below(4) ? 0 : IO_EXCL);
			int ret = io_open(p->over, names[n], flags, &p->f[n]);

			assert_int_equal(ret, io_open(p->io[1], names[n], flags, &p->g[n]));
		}
		break;
	case 1:
		pair_close(p, n);
		break;
	case 2:
		assert_int_equal(io_unlink(p->over, names[n]), io_unlink(p->io[1], names[n]));
		break;
	case 3:
		assert_int_equal(io_rename(p->over, names[n], names[to]), io_rename(p->io[1], names[n], names[to]));
		break;
	default:
		if (!below(20))
			assert_int_equal(io_mkdir(p->over, "e"), io_mkdir(p->io[1], "e"));
	}
	int ret = io_stat(p->over, names[n], &a);
	assert_int_equal(ret, io_stat(p->io[1], names[n], &b));
	if (!ret) {
		assert_int_equal(a.size, b.size);
		assert_int_equal(a.dir, b.dir);
	}
}

static int count_name(void *arg, const char *name)
{
	*(uint64_t *)arg += (uint64_t)strlen(name) * 1000 + (uint8_t)name[0];
	return 0;
}

static void compare_lists(struct pair *p, const char *dir)
{
	uint64_t a = 0, b = 0;
	int ret = io_list(p->over, dir, count_name, &a);

	assert_int_equal(ret, io_list(p->io[1], dir, count_name, &b));
	assert_int_equal(a, b);
}

static void test_random(void **state)
{
	struct pair p;

	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		seed = round;
		pair_init(&p);
		for (int i = 0; i < STEPS; i++) {
			int n = (int)below(FILES);

			if (p.f[n] && below(3))
				step_file(&p, n);
			else
				step_path(&p, n);
			if (i % 50 == 0) {
				compare_lists(&p, "");
				compare_lists(&p, "d");
				compare_lists(&p, "e");
			}
		}
		for (int n = 0; n < FILES; n++)
			pair_close(&p, n);
		io_free(p.over);
		for (int n = 0; n < 4; n++) {
			struct io_file *f, *g;

			assert_int_equal(io_open(p.io[0], names[n], IO_READ, &f), 0);
			assert_int_equal(io_open(p.io[2], names[n], IO_READ, &g), 0);
			compare(f, g, 0, SPAN);
			io_close(f);
			io_close(g);
		}
		for (int i = 0; i < 3; i++) {
			io_free(p.io[i]);
			scratch_free(p.dir[i]);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
