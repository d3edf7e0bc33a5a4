/* Reading: what is asked of the index, and what else is in memory where somebody read. */
#include "index/index.h"
#include "tests/core/support.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

static unsigned lists; /* of the index's extents */

int __real_index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out,
                             size_t max, size_t *n);
int __wrap_index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out,
                             size_t max, size_t *n);
int __wrap_index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out,
                             size_t max, size_t *n)
{
	lists++;
	return __real_index_extent_list(ix, ino, from, to, out, max, n);
}

/* The index is asked for an extent once, wherever in it reads begin, and for what was written since not at all. */
static void test_extents_known(void **state)
{
	struct fixture *f = *state;
	uint64_t rng = rng_seed(5);
	uint8_t data[200000], got[1000];

	fill_random(&rng, data, sizeof(data));
	put(f, make(f, CORE_ROOT, "f", S_IFREG | 0644), data, sizeof(data), 0);
	fixture_remount(f);
	uint64_t file = find(f, CORE_ROOT, "f");
	struct core_file *h; /* whose last close forgets */

	assert_int_equal(core_file_open(f->core, file, O_RDWR, &h), 0);
	memset(data + 90000, 'x', 5000);
	put(f, file, data + 90000, 5000, 90000);
	lists = 0;
	for (uint64_t off = 199000; off >= 90000; off -= 500) {
		assert_int_equal(get(f, file, got, sizeof(got), off), sizeof(got));
		assert_memory_equal(got, data + off, sizeof(got));
	}
	assert_int_equal(lists, 1);
	for (uint64_t off = 89500; off; off -= 500) {
		assert_int_equal(get(f, file, got, sizeof(got), off), sizeof(got));
		assert_memory_equal(got, data + off, sizeof(got));
	}
	assert_int_equal(lists, 2);
	core_file_close(h);
}

/* What was decoded for a read, and nothing that may change. */
static void test_beside(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644), off;
	size_t len = MIB + 100000;
	uint8_t *data = malloc(len), *buf = malloc(65536);
	struct core_attr end = {.size = 500100}, now;
	struct core_file *h;
	char byte;

	assert_non_null(data);
	assert_non_null(buf);
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i >> 8 ^ i);
	put(f, file, data, len, 0);
	off = 500000;
	assert_int_equal(core_read_beside(f->core, file, &off, buf, 65536), 0); /* not stored yet */
	sync_all(f);
	assert_int_equal(core_read_beside(f->core, file, &off, buf, 65536), 0); /* not decoded */
	assert_int_equal(get(f, file, &byte, 1, off), 1);
	size_t n = core_read_beside(f->core, file, &off, buf, 65536);
	assert_true(off <= 500000 && off + n > 500000);
	assert_int_equal(n, 65536);
	assert_memory_equal(buf, data + off, n);
	off = 500000;
	assert_int_equal(core_read_beside(f->core, file, &off, buf, 65535), 0); /* no room */
	assert_int_equal(core_file_open(f->core, file, O_WRONLY, &h), 0);
	assert_int_equal(core_read_beside(f->core, file, &off, buf, 65536), 0);
	core_file_close(h);
	assert_int_equal(core_read_beside(f->core, file, &off, buf, 65536), 65536);

	/* not beyond the end, where the frame goes on */
	assert_int_equal(core_setattr(f->core, file, CORE_SET_SIZE, &end, &now), 0);
	off = 500000;
	n = core_read_beside(f->core, file, &off, buf, 65536);
	assert_int_equal(off + n, 500100);
	assert_memory_equal(buf, data + off, n);
	off = 500100;
	assert_int_equal(core_read_beside(f->core, file, &off, buf, 65536), 0);
	/* not to who reads on and on */
	assert_int_equal(get(f, file, &byte, 1, 500001), 1);
	assert_int_equal(get(f, file, &byte, 1, 500002), 1);
	off = 500000;
	assert_int_equal(core_read_beside(f->core, file, &off, buf, 65536), 0);
	free(data);
	free(buf);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_extents_known),
	    TEST(test_beside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
