/*
 *   crash_loop SCENARIO       runs until there were as many cuts as the table says
 *   crash_loop SCENARIO SEED  one run
 *
 * APFS_CUTS says how many cuts instead, APFS_NIGHTLY that ten times as many; APFS_VERBOSE=1 names each step, and
 * APFS_KEEP=DIR saves the image that fails.
 *
 * A cut is one operation on STORE after which the power goes; of each, several images of what may be on the disk are
 * judged.
 */
#include "tests/core/inside.h"
#include "tests/crash/loop.h"
#include "tests/crash/small.h"

#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct run_choice ops[] = {
    {run_op_create, 14},   {run_op_symlink, 2}, {run_op_link, 3},    {run_op_unlink, 7}, {run_op_rmdir, 3},
    {run_op_rename, 9},    {run_op_forget, 5},  {run_op_open, 8},    {run_op_close, 6},  {run_op_write, 30},
    {run_op_truncate, 7},  {run_op_setattr, 4}, {run_op_xattr, 4},   {run_op_fsync, 14}, {run_op_replace, 5},
    {run_op_fallocate, 4}, {run_op_clone, 10},  {run_op_tmpfile, 3},
};

static struct {
	uint64_t cuts, images, in_recovery, classes[SIM_CLASSES];
} total;

static void overwrite(struct run *r, struct model_inode *i, size_t len, uint64_t off)
{
	struct core_file *f;

	run_use(r, i);
	run_expect(r, core_file_open(r->fx.core, i->ino, O_WRONLY, &f), 0);
	fill_random(&r->rng, r->a, len);
	run_expect(r, core_file_write(f, r->a, len, off, CORE_KEEP_TIMES), 0);
	model_write(r->m, i, r->a, len, off);
	core_file_close(f);
}

/* The model can tell what was changed and what was synced only if they are different steps. */
static void next_step(struct loop *l)
{
	loop_step_end(l);
	loop_step_begin(l);
}

/* Segments of which a part is dead: files that are written, and then written again in places. */
static void churn(struct loop *l)
{
	struct run *r = &l->run;

	run_say(r, "churn");
	for (unsigned n = 0; n < 12; n++) {
		struct model_inode *i = run_pick(r, run_is_file);
		if (!i || r->m->step + 3 >= r->steps)
			return;
		if (n < 6)
			overwrite(r, i, 20000 + (size_t)run_below(r, 60000), 4096 * run_below(r, 8));
		else
			overwrite(r, i, 4096 * (1 + (size_t)run_below(r, 3)), 4096 * run_below(r, 16));
		next_step(l);
		if (run_chance(r, 30))
			run_op_fsync(r);
		next_step(l);
	}
}

static void compact(struct loop *l)
{
	struct run *r = &l->run;

	churn(l);
	run_say(r, "compact");
	run_expect(r, core_sync(r->fx.core), 0);
	run_synced(r);
	run_expect(r,
	           r->fx.options.no_compact ? inside_compact(r->fx.core, run_chance(r, 70))
	                                    : core_compact_start(r->fx.core, run_chance(r, 70)),
	           0);
}

static void random_step(struct loop *l, unsigned compactions)
{
	unsigned dice = (unsigned)run_below(&l->run, 1000);

	if (dice < 8)
		loop_power_cut(l);
	else if (dice < 18)
		loop_remount(l);
	else if (dice < 40)
		inside_roll(l->run.fx.core);
	else if (dice < 40 + compactions)
		compact(l);
	else
		run_op_random(&l->run, ops, sizeof(ops) / sizeof(ops[0]));
}

static void random_run(const char *scenario, uint64_t seed)
{
	static struct loop l;
	struct run *r = &l.run;
	bool timer = !strcmp(scenario, "timer"), compacts = !strcmp(scenario, "compact");
	unsigned steps = compacts ? 240 : 120;

	loop_begin(&l, scenario, seed, steps);
	l.checkpoint = run_chance(r, 70) ? 8192u << run_below(r, 6) : 0;
	if (run_chance(r, 20))
		sim_no_allocate(l.disk);
	/* From now on: segments that fill up, and the next one made ahead. */
	if (compacts || run_chance(r, 60))
		r->fx.options.segment_size = 65536u << run_below(r, 4);
	if (timer)
		r->fx.options.commit_interval_ms = 2 + (uint32_t)run_below(r, 10);
	r->fx.options.no_compact = !timer;
	loop_remount(&l);
	while (r->m->step + 1 < steps) {
		loop_step_begin(&l);
		random_step(&l, compacts ? 100 : 10);
		loop_step_end(&l);
	}
	loop_end(&l);
	total.cuts += l.cut;
	total.images += l.judged;
	total.in_recovery += l.in_recovery;
	for (unsigned i = 0; i < SIM_CLASSES; i++)
		total.classes[i] += l.classes[i];
}

static void one_run(const char *scenario, uint64_t seed)
{
	struct small_result s = {0};

	if (!strcmp(scenario, "init"))
		s = small_init(seed, 4);
	else if (!strcmp(scenario, "keys"))
		s = small_keys(seed, 4);
	else
		random_run(scenario, seed);
	total.cuts += s.cuts;
	total.images += s.images;
}

static void report(uint64_t first, uint64_t next)
{
	print_message("seeds %llu to %llu: %llu distinct cuts, %llu images of them, %llu of cuts in recoveries, 0 "
	              "violations\n",
	              (unsigned long long)first, (unsigned long long)next - 1, (unsigned long long)total.cuts,
	              (unsigned long long)total.images, (unsigned long long)total.in_recovery);
	for (unsigned i = 0; i < SIM_CLASSES; i++) {
		if (total.classes[i])
			print_message("  after %s: %llu\n", sim_class_name(1u << i),
			              (unsigned long long)total.classes[i]);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint64_t cuts;
	} scenarios[] = {
	    {"random", 2000}, /* operations of all kinds, on small segments and with frequent checkpoints */
	    {"timer", 500}, /* with commits every few milliseconds, and compaction in the background: repeats roughly */
	    {"compact", 500}, /* with much compaction */
	    {"init", 500},    /* making a store */
	    {"keys", 200},    /* changing the superblock */
	};
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : env_number("APFS_SEED", 1), seed = first, wanted = 0;

	for (size_t i = 0; argc > 1 && i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (!strcmp(argv[1], scenarios[i].name))
			wanted = env_number("APFS_CUTS", scenarios[i].cuts * (getenv("APFS_NIGHTLY") ? 10 : 1));
	}
	if (!wanted) {
		(void)fprintf(stderr, "usage: crash_loop random|timer|compact|init|keys [SEED]\n");
		return 2;
	}
	/* A volume is opened for every image: what it frees is what the next one needs. */
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 30);
	(void)mallopt(M_TRIM_THRESHOLD, 1 << 30);
	do
		one_run(argv[1], seed++);
	while (argc < 3 && total.cuts < wanted);
	report(first, seed);
	return 0;
}
