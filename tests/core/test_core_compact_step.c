/* What happens in the middle of a step of compaction: whatever it is, nothing but places changes. */
#include "tests/core/file_rig.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

/* What becomes of a copy of a chunk that more extents map than one cut moves, after the first one. */
enum meanwhile {
	AGAIN, /* the second */
	GONE,  /* the same, when all that the first had moved has been deleted, and the new chunk with it */
	POWER  /* a power cut */
};

static void step_again(struct fixture *f, enum meanwhile meanwhile)
{
	uint64_t rng = rng_seed(6);
	struct file x = file_make(f, "x", &rng, MIB / 16), y = file_make(f, "y", &rng, 0);
	struct compact_pass pass = {.last = UINT64_MAX};
	uint8_t *buffer = malloc(MIB);
	struct core_file *from, *to;
	struct copy *copy;
	struct err e = {0};
	size_t n = 0;
	int ret;

	assert_non_null(buffer);
	sync_all(f);
	assert_int_equal(core_file_open(f->core, x.ino, O_RDONLY, &from), 0);
	assert_int_equal(core_file_open(f->core, y.ino, O_RDWR, &to), 0);
	assert_int_equal(core_file_clone(from, 0, to, 0, x.len, 0), x.len);
	core_file_close(from);
	core_file_close(to);
	sync_all(f);
	pass.segment = f->core->last_segment;
	pipeline_segment_roll(f->core->pipeline, pass.segment);
	assert_int_equal(copy_make(f->core, &pass, buffer, MIB, &copy, &e), 0);
	for (size_t i = 0; i < copy->exts; i++)
		if (copy->ext[i].ino == x.ino)
			copy->ext[n++] = copy->ext[i];
	copy->exts = n;
	copy->crowded = copy->part[0].chunk;
	assert_int_equal(cut_wait_copy(f->core, copy), 0);
	assert_int_equal(copy->moved, x.len);
	if (meanwhile == GONE) {
		assert_int_equal(core_unlink(f->core, CORE_ROOT, "x"), 0);
		core_forget(f->core, x.ino, 1);
		sync_all(f);
	}
	if (meanwhile != POWER) {
		assert_true(copy_again(copy, &ret));
		assert_int_equal(cut_wait_copy(f->core, copy), 0);
		assert_int_equal(copy->ret, 0);
		assert_int_equal(copy->moved, meanwhile == GONE ? 0 : x.len);
		assert_false(copy_again(copy, &ret));
	}
	copy_free(copy);
	free(y.data);
	if (meanwhile == POWER)
		fixture_crash(f);
	y = (struct file){.ino = y.ino, .data = x.data, .len = x.len};
	for (unsigned i = 0; i < 2; i++, fixture_crash(f)) {
		index_ok(f);
		file_check(f, &y);
		if (meanwhile != GONE)
			file_check(f, &x);
	}
	free(x.data);
	free(buffer);
}

static void test_step_again(void **state)
{
	step_again(*state, AGAIN);
}

static void test_step_again_gone(void **state)
{
	step_again(*state, GONE);
}

static void test_step_again_power(void **state)
{
	step_again(*state, POWER);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_step),           TEST(test_step_dropped), TEST(test_step_crash),      TEST(test_step_read),
	    TEST(test_step_overwrite), TEST(test_step_fsync),   TEST(test_step_truncate),   TEST(test_step_unlink),
	    TEST(test_step_held),      TEST(test_step_again),   TEST(test_step_again_gone), TEST(test_step_again_power),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
