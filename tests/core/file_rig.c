#include "tests/core/file_rig.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct file file_make_in(struct fixture *f, uint64_t dir, const char *name, uint64_t *rng, size_t len, size_t room)
{
	room = room > len ? room : len;
	struct file x = {make(f, dir, name, S_IFREG | 0644), calloc(1, room + 1), len, room};

	assert_non_null(x.data);
	fill_random(rng, x.data, len);
	for (size_t off = 0; off < len; off += MIB)
		put(f, x.ino, x.data + off, len - off < MIB ? len - off : MIB, off);
	return x;
}

struct file file_make(struct fixture *f, const char *name, uint64_t *rng, size_t len)
{
	return file_make_in(f, CORE_ROOT, name, rng, len, 0);
}

void file_write(struct fixture *f, struct file *x, uint64_t *rng, size_t off, size_t len)
{
	assert_true(off + len <= x->room);
	fill_random(rng, x->data + off, len);
	put(f, x->ino, x->data + off, len, off);
	x->len = off + len > x->len ? off + len : x->len;
}

void file_scatter(struct fixture *f, struct file *x, uint64_t *rng, size_t n)
{
	while (n--)
		file_write(f, x, rng, rng_below(rng, x->len / BLOCK) * BLOCK, BLOCK);
}

void file_clone(struct fixture *f, const struct file *from, struct file *to)
{
	struct core_file *a, *b;

	assert_true(from->len >= to->len && from->len <= to->room);
	assert_int_equal(core_file_open(f->core, from->ino, O_RDONLY, &a), 0);
	assert_int_equal(core_file_open(f->core, to->ino, O_RDWR, &b), 0);
	assert_int_equal(core_file_clone(a, 0, b, 0, from->len, 0), from->len);
	core_file_close(a);
	core_file_close(b);
	memcpy(to->data, from->data, from->len);
	to->len = from->len;
}

void file_check(struct fixture *f, const struct file *x)
{
	uint8_t *buf = malloc(x->len + 1);

	assert_non_null(buf);
	assert_int_equal(get(f, x->ino, buf, x->len + 1, 0), x->len);
	assert_memory_equal(buf, x->data, x->len);
	free(buf);
}

size_t file_pieces(struct fixture *f, const struct file *x)
{
	static struct index_extent list[65536];
	size_t n;

	assert_int_equal(index_extent_list(f->core->index, x->ino, 0, UINT64_MAX, list, 65536, &n), 0);
	return n;
}

uint64_t segment_bytes(struct fixture *f)
{
	return fixture_disk_usage(f, "segments");
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
