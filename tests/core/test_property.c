/*
 * Random operations on core and on a model, compared after every step.
 *
 *   test_property model|crash              200 seeds (APFS_SEEDS; 5,000 with APFS_NIGHTLY), from APFS_SEED or 1
 *   test_property model|crash SEED [STEPS] one seed; APFS_VERBOSE=1 says each step
 *
 * "model": remounts, and crashes right after a sync, after which everything must be there. "crash": crashes at any
 * moment, after which what was synced must be there and the rest must be of the past.
 */
#include "base/io.h"
#include "tests/core/inside.h"
#include "tests/core/run.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct {
	bool crashes;
	uint64_t first, count;
	unsigned steps;
} plan;

static const struct run_choice ops[] = {
    {run_op_create, 14}, {run_op_symlink, 2}, {run_op_link, 3},    {run_op_unlink, 5},   {run_op_rmdir, 3},
    {run_op_rename, 9},  {run_op_lookup, 4},  {run_op_forget, 5},  {run_op_readdir, 3},  {run_op_open, 8},
    {run_op_close, 5},   {run_op_read, 7},    {run_op_write, 30},  {run_op_truncate, 7}, {run_op_setattr, 5},
    {run_op_xattr, 5},   {run_op_fsync, 5},   {run_op_replace, 3}, {run_op_compact, 2},  {run_op_fallocate, 4},
    {run_op_clone, 8},   {run_op_tmpfile, 2},
};

/* All that `apfs check --data` looks at. */
static void check_store(struct run *r)
{
	const struct core_options *o = &r->fx.options;
	struct err e = {0};
	struct io *io;

	assert_int_equal(io_posix_new(r->fx.dir, &io, NULL), 0);
	int ret = inside_check_store(io, o->pass, o->pass_len, &e);
	io_free(io);
	if (ret)
		run_fail(r, "checking the store: %s", err_text(&e, ret));
}

static void remount(struct run *r)
{
	run_say(r, "remount");
	run_close_all(r);
	run_sync_end(r);
	fixture_remount(&r->fx);
	run_sync_begin(r);
	model_remount(r->m);
	run_synced(r);
	run_check_tree(r);
}

static void crash_synced(struct run *r)
{
	run_say(r, "sync and crash");
	run_expect(r, core_sync(r->fx.core), 0);
	run_sync_end(r);
	run_lose_all(r);
	fixture_crash(&r->fx);
	run_sync_begin(r);
	model_remount(r->m);
	run_synced(r);
	run_check_tree(r);
}

static void choose_options(struct run *r)
{
	static const struct codec_choice codecs[] = {
	    {CODEC_ZSTD, -1}, {CODEC_ZSTD, 0}, {CODEC_LZ4, 0}, {CODEC_STORED, 0}};
	static const uint64_t memories[] = {16, 16, 32, 64};

	r->fx.options.compress = codecs[run_below(r, 4)];
	r->fx.options.memory = memories[run_below(r, 4)] << 20;
	r->fx.options.commit_interval_ms = run_chance(r, 50) ? 3600 * 1000 : 5 + (uint32_t)run_below(r, 200);
	r->fx.options.workers = (unsigned)run_below(r, 4);
}

static struct run *active; /* for the teardown */

static void run_begin(struct run *r, uint64_t seed)
{
	memset(r, 0, sizeof(*r));
	r->seed = seed;
	r->rng = rng_seed(seed * 2 + plan.crashes);
	r->steps = plan.steps;
	r->crashes = plan.crashes;
	r->budget = r->crashes ? 4u << 20 : 8u << 20;
	r->a = malloc(RUN_WRITE + 1);
	r->b = malloc(RUN_WRITE + 1);
	r->names = calloc((size_t)r->steps + 2, sizeof(*r->names));
	r->names_amid = calloc((size_t)r->steps + 2, sizeof(*r->names));
	assert_true(r->a && r->b && r->names && r->names_amid);
	fixture_init(&r->fx);
	r->m = model_new(0755, 0, 0, test_clock_now(&r->fx.clock));
	r->m->history = r->crashes;
	choose_options(r);
	assert_int_equal(fixture_open(&r->fx), 0);
	r->names[0] = r->m->names;
	r->syncs = !r->crashes && run_chance(r, 30);
	r->compacts = run_chance(r, 50);
	run_sync_begin(r);
}

static void run_end(struct run *r)
{
	fixture_release(&r->fx);
	model_free(r->m);
	free(r->a);
	free(r->b);
	free(r->names);
	free(r->names_amid);
	memset(r, 0, sizeof(*r));
}

static void one_step(struct run *r)
{
	unsigned dice = (unsigned)run_below(r, 1000);

	if (r->crashes && dice < 12)
		run_crash(r);
	else if (!r->crashes && dice < 8)
		crash_synced(r);
	else if (dice < 20)
		remount(r);
	else
		run_op_random(r, ops, sizeof(ops) / sizeof(ops[0]));
	if (r->m->step % 100 == 0)
		run_check_tree(r);
}

static void run_seed(struct run *r, uint64_t seed)
{
	run_begin(r, seed);
	run_say(r, "open");
	run_adopt_root(r);
	for (unsigned n = 1; n <= r->steps; n++) {
		test_clock_step(&r->fx.clock);
		r->m->now = test_clock_now(&r->fx.clock);
		r->m->step = n;
		r->names[n] = r->names_amid[n] = r->m->names;
		one_step(r);
		r->names[n] = r->m->names;
	}
	run_check_tree(r);
	if (r->crashes)
		run_crash(r);
	remount(r);
	run_say(r, "close");
	run_sync_end(r);
	if (fixture_close(&r->fx))
		run_fail(r, "core_close failed");
	check_store(r);
	run_end(r);
}

static void test_seeds(void **state)
{
	struct run *r = *state;

	for (uint64_t n = 0; n < plan.count; n++)
		run_seed(r, plan.first + n);
	print_message("%llu seeds from %llu, %u steps each\n", (unsigned long long)plan.count,
	              (unsigned long long)plan.first, plan.steps);
}

static int setup(void **state)
{
	active = calloc(1, sizeof(*active));
	*state = active;
	return active ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	fixture_release(&active->fx);
	free(active);
	return 0;
}

/* A crash is the daemon's here, after which STORE has all that was written: the disk would only be waited for. */
static void store_in_memory(void)
{
	struct statvfs vfs;

	if (!access("/dev/shm", W_OK) && !statvfs("/dev/shm", &vfs) && vfs.f_bavail * vfs.f_frsize >= 1ul << 30)
		(void)setenv("TMPDIR", "/dev/shm", 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_seeds, setup, teardown)};
	bool nightly = getenv("APFS_NIGHTLY") != NULL;

	if (argc < 2 || (strcmp(argv[1], "model") != 0 && strcmp(argv[1], "crash") != 0)) {
		(void)fprintf(stderr, "usage: test_property model|crash [SEED [STEPS]]\n");
		return 2;
	}
	store_in_memory();
	plan.crashes = argv[1][0] == 'c';
	plan.first = argc > 2 ? strtoull(argv[2], NULL, 10) : env_number("APFS_SEED", 1);
	plan.count = argc > 2 ? 1 : env_number("APFS_SEEDS", nightly ? 5000 : 200);
	plan.steps = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : nightly ? 1000 : 300;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
