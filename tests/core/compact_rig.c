#include "tests/core/compact_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

struct file file_make_in(struct fixture *f, uint64_t dir, const char *name, uint64_t *rng, size_t len)
{
	struct file x = {make(f, dir, name, S_IFREG | 0644), malloc(len + 1), len};

	assert_non_null(x.data);
	fill_random(rng, x.data, len);
	for (size_t off = 0; off < len; off += MIB)
		put(f, x.ino, x.data + off, len - off < MIB ? len - off : MIB, off);
	return x;
}

struct file file_make(struct fixture *f, const char *name, uint64_t *rng, size_t len)
{
	return file_make_in(f, CORE_ROOT, name, rng, len);
}

void file_write(struct fixture *f, struct file *x, uint64_t *rng, size_t off, size_t len)
{
	fill_random(rng, x->data + off, len);
	put(f, x->ino, x->data + off, len, off);
}

void file_scatter(struct fixture *f, struct file *x, uint64_t *rng, size_t n)
{
	while (n--)
		file_write(f, x, rng, rng_below(rng, x->len / BLOCK) * BLOCK, BLOCK);
}

void file_check(struct fixture *f, const struct file *x)
{
	uint8_t *buf = malloc(x->len + 1);

	assert_non_null(buf);
	assert_int_equal(get(f, x->ino, buf, x->len + 1, 0), x->len);
	assert_memory_equal(buf, x->data, x->len);
	free(buf);
}

void index_ok(struct fixture *f)
{
	struct err e = {0};
	int ret = index_check(f->core->index, &e);

	if (ret)
		fail_msg("index_check: %s", err_text(&e, ret));
}

void compact_ok(struct fixture *f, bool all)
{
	assert_int_equal(compact_run(f->core, all), 0);
	index_ok(f);
}
