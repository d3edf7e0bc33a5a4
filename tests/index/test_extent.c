/* index_extent_set against a map that knows each byte, with counts checked against the tables. */
#include "tests/index/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BYTES  4096
#define CHUNKS 12
#define LIST   4097

struct byte {
	uint64_t chunk;
	uint32_t off;
};

struct model {
	struct byte byte[BYTES];
};

static void model_set(struct model *m, const struct index_extent *x)
{
	for (uint64_t i = 0; i < x->len; i++)
		m->byte[x->off + i] = x->chunk ? (struct byte){x->chunk, x->chunk_off + (uint32_t)i} : (struct byte){0};
}

static void compare(struct index *ix, uint64_t ino, const struct model *m, uint64_t from, uint64_t to)
{
	static struct index_extent x[LIST];
	uint64_t at = from;
	size_t n;

	assert_int_equal(index_extent_list(ix, ino, from, to, x, LIST, &n), 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(x[i].off < to && x[i].off + x[i].len > from);
		assert_true(i == 0 || x[i].off >= x[i - 1].off + x[i - 1].len);
		for (; at < x[i].off; at++)
			assert_int_equal(m->byte[at].chunk, 0);
		for (; at < to && at < x[i].off + x[i].len; at++) {
			assert_int_equal(m->byte[at].chunk, x[i].chunk);
			assert_int_equal(m->byte[at].off, x[i].chunk_off + (at - x[i].off));
		}
	}
	for (; at < to; at++)
		assert_int_equal(m->byte[at].chunk, 0);
}

/* A new extent that continues what lies before it must have become part of it. */
static void check_joined(struct index *ix, uint64_t ino, const struct model *m, const struct index_extent *x)
{
	struct index_extent found;
	size_t n;

	if (!x->chunk || !x->off)
		return;
	const struct byte *b = &m->byte[x->off - 1];
	if (b->chunk != x->chunk || b->off + 1 != x->chunk_off)
		return;
	assert_int_equal(index_extent_list(ix, ino, x->off, x->off + 1, &found, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_true(found.off < x->off);
}

static void ensure_chunk(struct index *ix, uint64_t id)
{
	struct index_chunk c;
	uint8_t frames[4];

	if (index_chunk_get(ix, id, &c, frames, sizeof(frames)) == -ENOENT)
		put_chunk(ix, id);
}

static struct index_extent random_extent(const struct model *m, unsigned *seed)
{
	uint64_t off = (unsigned)rand_r(seed) % BYTES, len = 1 + (unsigned)rand_r(seed) % 64;
	unsigned how = (unsigned)rand_r(seed) % 8;

	if (how == 0)
		len = 1 + (unsigned)rand_r(seed) % BYTES;
	if (how < 3)
		off &= ~63u;
	if (how == 3)
		len = 64;
	if (len > BYTES - off)
		len = BYTES - off;
	struct index_extent x = {off, len, (unsigned)rand_r(seed) % (CHUNKS + 1), (unsigned)rand_r(seed) % 4096};
	/* Often one that continues, or repeats, what is there. */
	if (off && rand_r(seed) % 3 == 0 && m->byte[off - 1].chunk) {
		x.chunk = m->byte[off - 1].chunk;
		x.chunk_off = m->byte[off - 1].off + 1;
	} else if (rand_r(seed) % 8 == 0 && m->byte[off].chunk) {
		x.chunk = m->byte[off].chunk;
		x.chunk_off = m->byte[off].off;
	}
	return x;
}

static void set_and_check(struct index *ix, struct model *m, const struct index_extent *x)
{
	if (x->chunk)
		ensure_chunk(ix, x->chunk);
	struct model before = *m;
	model_set(m, x);
	assert_int_equal(index_extent_set(ix, 9, x), 0);
	check_joined(ix, 9, &before, x);
}

/* Many extents of one byte: more than are replaced in one step. */
static void shred(struct index *ix, struct model *m, unsigned *seed)
{
	uint64_t from = (unsigned)rand_r(seed) % (BYTES / 2);

	for (uint64_t i = 0; i < 150; i++) {
		struct index_extent x = {from + 2 * i, 1, 1 + i % CHUNKS, 17};
		set_and_check(ix, m, &x);
	}
}

static void run(unsigned seed)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in = some_inode(9, 0);
	struct model m = {0};

	assert_int_equal(index_inode_put(ix, &in), 0);
	for (unsigned i = 0; i < 400; i++) {
		struct index_extent x = random_extent(&m, &seed);
		set_and_check(ix, &m, &x);
		uint64_t from = (unsigned)rand_r(&seed) % BYTES, len = 1 + (unsigned)rand_r(&seed) % 500;
		compare(ix, 9, &m, from, from + len < BYTES ? from + len : BYTES);
		if (rand_r(&seed) % 64 == 0)
			shred(ix, &m, &seed);
		if (rand_r(&seed) % 32 == 0)
			commit_index(ix);
		if (rand_r(&seed) % 64 == 0)
			ok(index_check(ix, &ok_err));
	}
	compare(ix, 9, &m, 0, BYTES);
	ok(index_check(ix, &ok_err));
	close_index(ix);
	ix = open_index(io);
	compare(ix, 9, &m, 0, BYTES);
	ok(index_check(ix, &ok_err));

	/* With the file goes every chunk. */
	struct index_totals t;
	assert_int_equal(index_inode_delete(ix, 9), 0);
	commit_index(ix);
	assert_int_equal(index_totals(ix, &t), 0);
	assert_int_equal(t.chunks, 0);
	assert_int_equal(t.live, 0);
	assert_int_equal(t.logical, 0);
	close_index(ix);
	io_free(io);
}

static void test_against_model(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= rounds(30); seed++) {
		print_message("seed %u\n", seed);
		run(seed);
	}
}

static void test_limits(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_extent x = {INDEX_OFFSET_MAX - 10, 10, 1, 0}, out[4];
	size_t n;

	(void)state;
	put_chunk(ix, 1);
	assert_int_equal(index_extent_set(ix, 1, &x), 0);
	assert_int_equal(index_extent_list(ix, 1, 0, UINT64_MAX, out, 4, &n), 0);
	assert_int_equal(n, 1);
	assert_true(out[0].off == x.off && out[0].len == 10);
	x.len = 11;
	assert_int_equal(index_extent_set(ix, 1, &x), -EINVAL);
	x = (struct index_extent){UINT64_MAX, 1, 0, 0};
	assert_int_equal(index_extent_set(ix, 1, &x), -EINVAL);
	x = (struct index_extent){0, 2, 1, UINT32_MAX - 1};
	assert_int_equal(index_extent_set(ix, 1, &x), -EINVAL);
	x = (struct index_extent){5, 0, 1, 0};
	assert_int_equal(index_extent_set(ix, 1, &x), 0);
	assert_int_equal(index_extent_list(ix, 1, 5, 5, out, 4, &n), 0);
	assert_int_equal(n, 0);
	/* The whole file becomes a hole. */
	x = (struct index_extent){0, INDEX_OFFSET_MAX, 0, 0};
	assert_int_equal(index_extent_set(ix, 1, &x), 0);
	assert_int_equal(index_extent_list(ix, 1, 0, UINT64_MAX, out, 4, &n), 0);
	assert_int_equal(n, 0);
	/* Files do not touch each other. */
	for (uint64_t ino = 1; ino < 4; ino++) {
		x = (struct index_extent){ino * 10, 10, 1, 0};
		assert_int_equal(index_extent_set(ix, ino, &x), 0);
	}
	x = (struct index_extent){0, INDEX_OFFSET_MAX, 0, 0};
	assert_int_equal(index_extent_set(ix, 2, &x), 0);
	assert_int_equal(index_extent_list(ix, 1, 0, 100, out, 4, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(index_extent_list(ix, 3, 0, 100, out, 4, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(index_extent_list(ix, 3, 0, 100, out, 0, &n), 0);
	assert_int_equal(n, 0);
	index_abandon(ix);
	io_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_against_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
