#include "tests/crash/loop.h"

#include "base/lock.h"
#include "tests/core/inside.h"
#include "tests/sim/tame.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* struct run is its first member. */
static struct loop *loop_of(struct run *r)
{
	return (struct loop *)r;
}

/* --- recording ---------------------------------------------------------------------------------------------------- */

static void cuts_init(struct cuts *q, uint64_t step)
{
	(void)pthread_mutex_init(&q->lock, NULL);
	q->first = NULL;
	q->last = &q->first;
	atomic_store(&q->step, step);
}

static void record(void *arg, struct io *copy, uint64_t number, unsigned class, const char *path)
{
	struct cuts *q = arg;
	struct cut *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	*c = (struct cut){.copy = copy, .number = number, .class = class, .step = atomic_load(&q->step)};
	(void)snprintf(c->path, sizeof(c->path), "%s", path);
	SCOPED_LOCK(&q->lock);
	*q->last = c;
	q->last = &c->next;
}

static struct cut *take(struct cuts *q)
{
	SCOPED_LOCK(&q->lock);
	struct cut *c = q->first;

	if (c)
		q->first = c->next;
	if (!q->first)
		q->last = &q->first;
	return c;
}

static void drop(struct cut *c)
{
	io_free(c->copy);
	free(c);
}

static void cuts_release(struct cuts *q)
{
	struct cut *c;

	while ((c = take(q)))
		drop(c);
	(void)pthread_mutex_destroy(&q->lock);
}

/* --- reports ------------------------------------------------------------------------------------------------------ */

/* Keeps the image for a look, where somebody wants it. */
static void save(struct loop *l)
{
	const char *dir = getenv("APFS_KEEP");
	struct io *to;

	if (!dir || !l->image || io_posix_new(dir, &to, NULL))
		return;
	if (!sim_raw_export(l->image, to))
		print_error("the image is in %s\n", dir);
	io_free(to);
}

static void failed(struct run *r)
{
	struct loop *l = loop_of(r);

	if (l->judging)
		print_error("power cut after operation %llu (%s %s, step %llu), image %llu\n",
		            (unsigned long long)l->now.number, sim_class_name(l->now.class), l->now.path,
		            (unsigned long long)l->now.step, (unsigned long long)l->image_seed);
	print_error("run it again: crash_loop %s %llu\n", l->scenario, (unsigned long long)r->seed);
	save(l);
}

/* --- judging ------------------------------------------------------------------------------------------------------ */

static void check_index(struct loop *l)
{
	struct err e = {0};
	int ret = inside_check(l->run.fx.core, &e);

	if (ret)
		run_fail(&l->run, "after the power cut: the index is not clean: %s", err_text(&e, ret));
}

/* Before anybody opens it: a crash leaves nothing that a check calls damage. */
static void check_store(struct loop *l, struct io *image)
{
	const struct core_options *o = &l->run.fx.options;
	struct err e = {0};
	int ret = inside_check_store(image, o->pass, o->pass_len, &e);

	if (ret)
		run_fail(&l->run, "after the power cut: the check of the store: %s", err_text(&e, ret));
}

/* What is damaged without a loss that the model sees is a violation, too. */
static void check_log(struct loop *l)
{
	const char *text = loop_logged();

	if (text)
		run_fail(&l->run, "after the power cut: logged: %s", text);
}

/* Opens the image, holds it against the model, and leaves it open. */
static void judge_open(struct loop *l)
{
	struct run *r = &l->run;

	if (fixture_open(&r->fx))
		run_fail(r, "after the power cut: the store does not open");
	model_free(run_judge(r));
	check_index(l);
	check_log(l);
}

/* The volume can be used, and closing it keeps everything. */
static void live_on(struct loop *l)
{
	static const char name[] = "written after the power cut";
	const struct core_cred cred = {0, 0, 0};
	struct core_attr attr, again, root;
	struct run *r = &l->run;
	struct core_file *f;
	char back[sizeof(name)];

	run_expect(r, core_getattr(r->fx.core, CORE_ROOT, &root), 0);
	run_expect(r, core_mknod(r->fx.core, &cred, CORE_ROOT, name, S_IFREG | 0644, 0, &attr), 0);
	run_expect(r, core_file_open(r->fx.core, attr.ino, O_RDWR, &f), 0);
	run_expect(r, core_file_write(f, name, sizeof(name), 0, 0), 0);
	run_expect(r, run_chance(r, 50) ? core_fsync(r->fx.core, attr.ino, true) : core_sync(r->fx.core), 0);
	core_file_close(f);
	if (fixture_close(&r->fx) || fixture_open(&r->fx))
		run_fail(r, "after the power cut: the store cannot be closed and opened");
	run_expect(r, core_lookup(r->fx.core, CORE_ROOT, name, &again), 0);
	run_expect(r, core_file_open(r->fx.core, again.ino, O_RDONLY, &f), 0);
	if (core_file_read(f, back, sizeof(back), 0) != sizeof(back) || memcmp(back, name, sizeof(back)) != 0)
		run_fail(r, "after the power cut: what was written then is lost");
	core_file_close(f);
	run_expect(r, core_unlink(r->fx.core, CORE_ROOT, name), 0);
	core_forget(r->fx.core, attr.ino, 1);
	run_expect(r, core_setattr(r->fx.core, CORE_ROOT, CORE_SET_MTIME | CORE_SET_CTIME, &root, &again), 0);
	run_expect(r, core_sync(r->fx.core), 0);
	model_free(run_judge(r));
	check_index(l);
}

#define KILLED 2 /* seeds of images for which only the process ended, modulo 16 */

static bool only_killed(uint64_t seed)
{
	return seed % 16 == KILLED;
}

/* Takes the power of the image away, opens it and judges it; image is ours. What opening it did is in q, if given. */
static void judge_image(struct loop *l, struct io *image, uint64_t seed, struct cuts *q)
{
	struct run *r = &l->run;
	struct fixture was = r->fx;

	l->image = image;
	l->image_seed = seed;
	if (only_killed(seed))
		sim_restart(image);
	else if (seed % 16 == 0)
		sim_crash_last(image);
	else
		sim_crash(image, seed % 16 == 1 ? 0 : seed);
	if (rng_below(&l->rng, 4) == 0)
		check_store(l, image);
	if (q)
		sim_record(image, record, q);
	r->fx.core = NULL;
	r->fx.disk = r->fx.io = image;
	judge_open(l);
	sim_record(image, NULL, NULL);
	if (rng_below(&l->rng, 8) == 0)
		live_on(l);
	if (rng_below(&l->rng, 4) != 0)
		fixture_abandon(&r->fx);
	else if (fixture_close(&r->fx))
		run_fail(r, "after the power cut: the store cannot be closed");
	check_log(l);
	r->fx.core = was.core;
	r->fx.disk = was.disk;
	r->fx.io = was.io;
	io_free(image);
	l->image = NULL;
	l->judged++;
}

/* Power cuts in the midst of what opening an image did: all of them, or one and two more or so. */
static void judge_recovery(struct loop *l, struct cuts *q, bool all)
{
	uint64_t n = 0, pick;
	struct cut *c;

	for (c = q->first; c; c = c->next)
		n++;
	pick = n ? rng_below(&l->rng, n) : 0;
	while ((c = take(q))) {
		if (!pick-- || all || rng_below(&l->rng, n) < 2) {
			judge_image(l, sim_clone(c->copy), rng_next(&l->rng), NULL);
			l->in_recovery++;
		}
		drop(c);
	}
}

/* A commit that is not durable yet. If only the process ends, the recovery reads what need not be durable. */
static bool in_commit(const struct cut *c)
{
	return c->class == SIM_WRITE && !strcmp(c->path, "index.db-wal");
}

static void judge_cut(struct loop *l, const struct cut *c)
{
	struct cuts q;

	l->now = *c;
	l->cut++;
	l->classes[__builtin_ctz(c->class)]++;
	/* The same, whatever came before. */
	l->rng = rng_seed(l->run.seed * 1000003 + c->number);
	for (unsigned i = 0; i < l->images; i++) {
		uint64_t seed = rng_next(&l->rng);
		bool killed = in_commit(c) && rng_below(&l->rng, 6) == 0;
		if (killed)
			seed = seed / 16 * 16 + KILLED;
		if (!killed && rng_below(&l->rng, 6)) {
			judge_image(l, sim_clone(c->copy), seed, NULL);
			continue;
		}
		cuts_init(&q, l->now.step);
		judge_image(l, sim_clone(c->copy), seed, &q);
		judge_recovery(l, &q, killed);
		cuts_release(&q);
	}
}

void loop_judge(struct loop *l)
{
	struct cut *c;

	if (l->judging)
		return;
	l->judging = true;
	while ((c = take(&l->cuts))) {
		if (l->every < 2 || c->number % l->every == 0)
			judge_cut(l, c);
		drop(c);
	}
	l->judging = false;
}

static void synced(struct run *r)
{
	loop_judge(loop_of(r));
}

/* --- runs --------------------------------------------------------------------------------------------------------- */

void loop_settle(struct loop *l)
{
	if (l->checkpoint)
		inside_checkpoint_every(l->run.fx.core, l->checkpoint);
}

void loop_begin(struct loop *l, const char *scenario, uint64_t seed, unsigned steps)
{
	struct run *r = &l->run;

	memset(l, 0, sizeof(*l));
	cuts_init(&l->cuts, 0);
	l->scenario = scenario;
	tame(seed);
	l->images = 1;
	l->disk = sim_new();
	r->seed = seed;
	r->rng = rng_seed(seed);
	r->steps = steps;
	r->crashes = true;
	r->budget = 1u << 20;
	r->a = malloc(RUN_WRITE + 1);
	r->b = malloc(RUN_WRITE + 1);
	r->names = calloc((size_t)steps + 2, sizeof(*r->names));
	r->names_amid = calloc((size_t)steps + 2, sizeof(*r->names));
	assert_true(r->a && r->b && r->names && r->names_amid);
	r->on_synced = synced;
	r->on_fail = failed;
	fixture_init_on(&r->fx, l->disk);
	r->fx.options.memory = 16u << 20;
	r->fx.options.workers = 2;
	r->m = model_new(0755, 0, 0, test_clock_now(&r->fx.clock));
	r->m->history = true;
	assert_int_equal(fixture_open(&r->fx), 0);
	run_say(r, "open");
	run_adopt_root(r);
	r->names[0] = r->m->names;
	loop_settle(l);
	sim_record(l->disk, record, &l->cuts);
}

void loop_step_begin(struct loop *l)
{
	struct run *r = &l->run;

	test_clock_step(&r->fx.clock);
	r->m->now = test_clock_now(&r->fx.clock);
	atomic_store(&l->cuts.step, ++r->m->step);
	r->names[r->m->step] = r->names_amid[r->m->step] = r->m->names;
}

void loop_step_end(struct loop *l)
{
	l->run.names[l->run.m->step] = l->run.m->names;
	loop_judge(l);
}

void loop_remount(struct loop *l)
{
	struct run *r = &l->run;

	run_say(r, "remount");
	run_close_all(r);
	if (fixture_close(&r->fx))
		run_fail(r, "the store cannot be closed");
	loop_judge(l);
	model_remount(r->m);
	run_synced(r);
	if (fixture_open(&r->fx))
		run_fail(r, "the store cannot be opened");
	loop_judge(l);
	loop_settle(l);
}

void loop_power_cut(struct loop *l)
{
	struct run *r = &l->run;

	run_say(r, "power cut");
	loop_judge(l);
	sim_record(l->disk, NULL, NULL);
	run_lose_all(r);
	fixture_abandon(&r->fx);
	sim_crash(l->disk, rng_next(&r->rng));
	run_crash(r);
	loop_settle(l);
	sim_record(l->disk, record, &l->cuts);
}

void loop_end(struct loop *l)
{
	struct run *r = &l->run;

	loop_step_begin(l);
	loop_remount(l);
	run_check_tree(r);
	if (fixture_close(&r->fx))
		run_fail(r, "core_close failed");
	model_free(r->m);
	free(r->a);
	free(r->b);
	free(r->names);
	free(r->names_amid);
	cuts_release(&l->cuts);
	io_free(l->disk);
}
