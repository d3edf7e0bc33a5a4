/*
 *   crash_loop random          random workloads until there were 2,000 cuts (APFS_CUTS; 20,000 with APFS_NIGHTLY)
 *   crash_loop random SEED     one of them; APFS_VERBOSE=1 says each step, APFS_KEEP=DIR saves the image that fails
 *
 * A cut is one operation on STORE after which the power goes.
 */
#include "tests/crash/loop.h"

#include "base/log.h"
#include "tests/core/inside.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
	run_op op;
	unsigned weight;
} ops[] = {
    {run_op_create, 14},  {run_op_symlink, 2}, {run_op_link, 3},  {run_op_unlink, 7}, {run_op_rmdir, 3},
    {run_op_rename, 9},   {run_op_forget, 5},  {run_op_open, 8},  {run_op_close, 6},  {run_op_write, 30},
    {run_op_truncate, 7}, {run_op_setattr, 4}, {run_op_xattr, 4}, {run_op_fsync, 14}, {run_op_replace, 5},
};

static void random_op(struct run *r)
{
	unsigned total = 0, n;
	size_t k = 0;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		total += ops[i].weight;
	n = (unsigned)run_below(r, total);
	while (n >= ops[k].weight)
		n -= ops[k++].weight;
	ops[k].op(r);
}

static void random_step(struct loop *l)
{
	unsigned dice = (unsigned)run_below(&l->run, 1000);

	if (dice < 8)
		loop_power_cut(l);
	else if (dice < 18)
		loop_remount(l);
	else if (dice < 40)
		inside_roll(l->run.fx.core);
	else
		random_op(&l->run);
}

static void run_random(struct loop *l, uint64_t seed)
{
	unsigned steps = 120;

	loop_begin(l, "random", seed, steps);
	l->checkpoint = run_chance(&l->run, 70) ? 8192u << run_below(&l->run, 6) : 0;
	if (run_chance(&l->run, 20))
		sim_no_allocate(l->disk);
	/* From now on: segments that fill up, and the next one made ahead. */
	if (run_chance(&l->run, 60)) {
		l->run.fx.options.segment_size = 65536u << run_below(&l->run, 4);
		loop_remount(l);
	}
	loop_settle(l);
	for (unsigned n = 1; n < steps; n++) {
		loop_step_begin(l);
		random_step(l);
		loop_step_end(l);
	}
	loop_end(l);
}

int main(int argc, char **argv)
{
	uint64_t wanted = env_number("APFS_CUTS", getenv("APFS_NIGHTLY") ? 20000 : 2000), cuts = 0, judged = 0, rec = 0;
	struct loop l;

	if (argc < 2)
		return 2;
	/* A volume is opened for every image: what it frees is what the next one needs. */
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
	(void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
	if (!getenv("APFS_VERBOSE") && log_init(LOG_T_STDERR, NULL, LOG_L_ERROR))
		return 2;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	while (cuts < wanted) {
		run_random(&l, seed++);
		cuts += l.cut;
		judged += l.judged;
		rec += l.in_recovery;
		print_message("seed %llu: %llu cuts, %llu judged\n", (unsigned long long)(seed - 1),
		              (unsigned long long)cuts, (unsigned long long)judged);
		if (argc > 2)
			break;
	}
	print_message("%llu distinct cuts, %llu images, %llu cuts in recoveries, 0 violations\n",
	              (unsigned long long)cuts, (unsigned long long)judged, (unsigned long long)rec);
	return 0;
}
