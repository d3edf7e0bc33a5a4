#include "tests/fault/fault.h"

#include "base/log.h"
#include "tests/core/inside.h"
#include "tests/sim/alloc_fault.h"
#include "tests/sim/tame.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define WATCHDOG 120 /* seconds that one run may take */

static struct job *job_of(struct run *r)
{
	return (struct job *)r;
}

/* --- the fault ---------------------------------------------------------------------------------------------------- */

void job_enter(struct job *j)
{
	if (j->armed && j->kind->memory)
		alloc_fault_resume();
}

void job_leave(struct job *j)
{
	if (j->armed && j->kind->memory)
		alloc_fault_pause();
}

bool job_hit(const struct job *j)
{
	if (!j->armed)
		return false;
	return j->kind->memory ? alloc_fault_count() >= j->nth : sim_failed(j->run.fx.disk);
}

static void arm(struct job *j)
{
	struct sim_fault f = j->kind->fault;

	j->armed = true;
	if (j->kind->memory) {
		alloc_fault_pause();
		alloc_fault_arm(j->nth, f.lasting, false);
		return;
	}
	f.nth = j->nth;
	sim_arm(j->run.fx.disk, &f);
}

/* Whether it had happened. */
static bool disarm(struct job *j)
{
	bool hit = job_hit(j);

	j->armed = false;
	if (j->kind->memory) {
		(void)alloc_fault_disarm();
		alloc_fault_resume();
	}
	sim_arm(j->run.fx.disk, NULL);
	return hit;
}

int job_stopped(const struct job *j)
{
	return j->run.fx.core ? core_failed(j->run.fx.core) : 0;
}

void job_refused(struct job *j, int stopped, int ret)
{
	if (stopped && !ret)
		run_fail(&j->run, "the volume has stopped, and a change succeeds");
}

/* A thread that cannot be made is -EAGAIN, and what cannot be read is -EIO, whatever STORE said. */
static bool explained(const struct job *j, int ret)
{
	if (!job_hit(j))
		return false;
	if (j->kind->memory)
		return ret == -ENOMEM || ret == -EAGAIN;
	return ret == j->kind->fault.error || (ret == -EIO && j->kind->fault.error == -EINTR);
}

bool job_did(struct job *j, ssize_t ret)
{
	if (job_stopped(j))
		return false;
	if (ret < 0 && !explained(j, (int)ret))
		run_fail(&j->run, "%s", strerror((int)-ret));
	return ret >= 0;
}

/* --- reports ------------------------------------------------------------------------------------------------------ */

static char log_path[] = "/tmp/apfs-fault-XXXXXX";

static void failed(struct run *r)
{
	struct job *j = job_of(r);
	char text[4096];
	int fd = open(log_path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = 0;
	print_error("log:\n%srun it again: fault_loop all '%s' '%s' %llu\n", text, j->scenario->name,
	            j->kind ? j->kind->name : "", (unsigned long long)j->nth);
	(void)unlink(log_path);
}

static struct job *watched;

static void hangs(int sig)
{
	(void)sig;
	print_error("it hangs\n");
	failed(&watched->run);
	abort();
}

static bool log_tells(void)
{
	struct stat st;

	return !stat(log_path, &st) && st.st_size;
}

/* --- judging ------------------------------------------------------------------------------------------------------ */

static void check_clean(struct job *j)
{
	struct err e = {0};
	int ret = inside_check(j->run.fx.core, &e);

	if (ret)
		run_fail(&j->run, "the index is not clean: %s", err_text(&e, ret));
}

/* The same, and all data, of a store that is not open. */
static void check_store(struct job *j)
{
	const struct core_options *o = &j->run.fx.options;
	struct err e = {0};

	sim_restart(j->run.fx.disk);
	int ret = inside_check_store(j->run.fx.disk, o->pass, o->pass_len, &e);
	if (ret)
		run_fail(&j->run, "the store is not clean: %s", err_text(&e, ret));
}

void judge_opens(struct job *j)
{
	if (!op_open(j))
		run_fail(&j->run, "the store does not open");
}

/* What a power cut leaves, of a copy: everything durable, and nothing that never was. */
static void judge_image(struct job *j, struct io *image, uint64_t seed)
{
	struct run *r = &j->run;
	struct fixture was = r->fx;

	sim_crash(image, seed);
	r->fx.core = NULL;
	r->fx.disk = r->fx.io = image;
	judge_opens(j);
	model_free(run_judge(r));
	check_clean(j);
	core_abandon(r->fx.core);
	r->fx.core = was.core;
	r->fx.disk = was.disk;
	r->fx.io = was.io;
	io_free(image);
}

/* It changes nothing any more, says so, and has told why. */
static void judge_stopped(struct job *j)
{
	const struct core_cred cred = {0, 0, 0};
	struct run *r = &j->run;
	struct core_attr attr;
	struct err e = {0};

	run_say(r, "the volume has stopped");
	(void)CHANGE(j, core_mknod(r->fx.core, &cred, CORE_ROOT, "after", S_IFREG | 0644, 0, &attr));
	(void)CHANGE(j, core_sync(r->fx.core));
	if (!log_tells())
		run_fail(r, "the log does not say why");
	int stopped = job_stopped(j);
	job_refused(j, stopped, core_close(r->fx.core, &e));
	r->fx.core = NULL;
}

/* Without memory the volume may count no reference of the kernel's, and delete what has no name too early. */
static void forget_nameless(struct job *j)
{
	struct model_inode *i, *next;

	HASH_ITER (hh, j->run.m->inodes, i, next) {
		if (i->removed || i->nlink || i->opens)
			continue;
		core_forget(j->run.fx.core, i->ino, i->refs);
		i->refs = 0;
		model_inode_settle(j->run.m, i);
	}
}

/* Everything is as the calls reported. */
static void judge_going_on(struct job *j, bool hit)
{
	struct run *r = &j->run;

	run_say(r, "afterwards");
	if (j->kind->memory)
		forget_nameless(j);
	op_settle_doubts(j);
	run_check_tree(r);
	/* It may yet report what failed in the background. */
	int ret = core_sync(r->fx.core);
	if (ret && !hit)
		run_fail(r, "sync fails");
	if (!ret)
		run_synced(r);
}

/* New things become durable. */
static void judge_new(struct job *j)
{
	struct run *r = &j->run;

	(void)op_make(j, "after", S_IFREG | 0644);
	op_write(j, "after", 10000, 0, 0);
	op_sync(j);
	op_close(j);
	sim_crash(r->fx.disk, 0);
	judge_opens(j);
	run_check_tree(r);
	check_clean(j);
	core_abandon(r->fx.core);
	r->fx.core = NULL;
	if (j->nth % 8 == 0)
		check_store(j);
}

/* What is found becomes the model. */
static void adopt(struct job *j)
{
	struct run *r = &j->run;
	struct model *found = run_judge(r);

	found->history = true;
	model_free(r->m);
	r->m = found;
	run_synced(r);
	r->names[r->m->step] = r->names_amid[r->m->step] = r->m->names;
}

static void judge(struct job *j, bool hit)
{
	struct run *r = &j->run;

	judge_image(j, sim_clone(r->fx.disk), j->nth % 3 ? j->nth : 0);
	if (r->fx.core && !job_stopped(j))
		judge_going_on(j, hit);
	if (job_stopped(j)) {
		j->stopped++;
		judge_stopped(j);
		sim_crash(r->fx.disk, 0);
	}
	if (!r->fx.core) { /* it has stopped, or the script has closed it, or could not open it */
		j->doubts = 0;
		judge_opens(j);
		adopt(j);
	}
	judge_new(j);
}

void judge_prepared(struct job *j)
{
	run_check_tree(&j->run);
	check_clean(j);
	judge_new(j);
}

/* --- running ------------------------------------------------------------------------------------------------------ */

/* One run: false if it met no fault. *met: how many operations or allocations could have failed. */
static bool one_run(struct job *j, uint64_t *met)
{
	struct run *r = &j->run;
	uint64_t before;
	bool hit;

	(void)alarm(WATCHDOG);
	if (truncate(log_path, 0))
		abort();
	r->rng = rng_seed(1);
	tame(1);
	r->fx.disk = r->fx.io = sim_clone(j->base);
	r->m = model_copy(j->prepared);
	r->names_synced = r->m->step;
	r->names[r->m->step] = r->names_amid[r->m->step] = r->m->names;
	r->nevents = 0;
	j->doubts = 0;
	if (!j->scenario->alone)
		judge_opens(j);
	before = sim_count(r->fx.disk, j->kind->fault.classes);
	arm(j);
	j->scenario->run(j);
	*met = j->kind->memory ? alloc_fault_count() : sim_count(r->fx.disk, j->kind->fault.classes) - before;
	hit = disarm(j);
	if (j->scenario->judge)
		j->scenario->judge(j, hit);
	else
		judge(j, hit);
	model_free(r->m);
	r->m = NULL;
	io_free(r->fx.disk);
	(void)alarm(0);
	return hit;
}

static void prepare(struct job *j)
{
	struct run *r = &j->run;

	j->kind = NULL;
	j->base = sim_new();
	if (!j->scenario->prepare) {
		test_clock_init(&r->fx.clock, 1700000000, 0);
		j->prepared = model_new(0755, 0, 0, test_clock_now(&r->fx.clock));
		return;
	}
	fixture_init_on(&r->fx, j->base);
	r->fx.options.memory = 8u << 20;
	r->fx.options.workers = 2;
	r->crashes = true;
	r->m = model_new(0755, 0, 0, test_clock_now(&r->fx.clock));
	r->m->history = true;
	judge_opens(j);
	op_begin(j);
	j->scenario->prepare(j);
	if (j->scenario->crashed) {
		core_abandon(r->fx.core);
		sim_crash(j->base, 3);
		judge_opens(j);
		adopt(j);
		core_abandon(r->fx.core);
		sim_restart(j->base);
		r->fx.core = NULL;
	} else {
		op_close(j);
	}
	j->prepared = r->m;
	r->m = NULL;
}

static const struct fault_kind kinds[] = {
    {.name = "EIO", .fault = {.classes = SIM_ANY, .error = -EIO}},
    {.name = "EIO lasting", .fault = {.classes = SIM_ANY, .error = -EIO, .lasting = true}, .basic = true},
    {.name = "ENOSPC",
     .fault = {.classes = SIM_CHANGE & ~SIM_SYNC & ~SIM_SYNC_DIR, .error = -ENOSPC, .percent = 50},
     .basic = true},
    {.name = "ENOSPC lasting",
     .fault = {.classes = SIM_WRITE | SIM_ALLOCATE | SIM_OPEN | SIM_MKDIR, .error = -ENOSPC, .lasting = true}},
    {.name = "EDQUOT", .fault = {.classes = SIM_WRITE | SIM_ALLOCATE, .error = -EDQUOT, .percent = 30}},
    {.name = "short write", .fault = {.classes = SIM_WRITE, .error = -EIO, .percent = 50}},
    {.name = "EINTR", .fault = {.classes = SIM_ANY, .error = -EINTR}},
    {.name = "sync", .fault = {.classes = SIM_SYNC | SIM_SYNC_DIR, .error = -EIO}, .basic = true},
    {.name = "memory", .memory = true, .basic = true},
    {.name = "memory lasting", .fault = {.lasting = true}, .memory = true},
};

static void run_kind(struct job *j, const struct fault_kind *kind, uint64_t only)
{
	unsigned few = (kind->memory ? 16 : 60) / (SLOW_BUILD ? 10 : 1);
	uint64_t most = env_number("APFS_FAULTS", getenv("APFS_NIGHTLY") ? UINT64_MAX : few), met, n = 0, stride;

	j->kind = kind;
	j->stopped = 0;
	j->nth = only ? only : UINT64_MAX >> 1;
	(void)one_run(j, &met); /* counts */
	if (only)
		return;
	stride = met > most ? (met + most - 1) / most : 1;
	for (j->nth = 1 + met % stride; one_run(j, &met); j->nth += stride)
		n++;
	print_message("%s, %s: %llu of %llu faults, after %u the volume had stopped\n", j->scenario->name, kind->name,
	              (unsigned long long)n, (unsigned long long)(j->nth - 1), j->stopped);
}

static void run_scenario(const struct scenario *s, const char *kind, uint64_t nth)
{
	struct job *j = calloc(1, sizeof(*j));
	struct run *r;

	assert_non_null(j);
	r = &j->run;
	r->a = malloc(RUN_WRITE + 1);
	r->b = malloc(RUN_WRITE + 1);
	r->names = calloc(FAULT_STEPS + 1, sizeof(*r->names));
	r->names_amid = calloc(FAULT_STEPS + 1, sizeof(*r->names_amid));
	assert_true(r->a && r->b && r->names && r->names_amid);
	r->rng = rng_seed(0);
	r->on_fail = failed;
	j->scenario = s;
	watched = j;
	prepare(j);
	for (size_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++)
		if (kind ? !strcmp(kind, kinds[n].name) : kinds[n].basic || !SLOW_BUILD)
			run_kind(j, &kinds[n], nth);
	model_free(j->prepared);
	io_free(j->base);
	free(r->a);
	free(r->b);
	free(r->names);
	free(r->names_amid);
	free(j);
}

/* fault_loop LIST [SCENARIO [KIND [N]]] */
int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		const struct scenario *list;
	} lists[] = {{"names", scenarios_names},
	             {"data", scenarios_data},
	             {"volume", scenarios_volume},
	             {"store", scenarios_store}};
	unsigned ran = 0;
	int fd = mkstemp(log_path);

	if (argc < 2 || fd < 0)
		return 2;
	(void)close(fd);
	assert_int_equal(log_init(LOG_T_FILE, log_path, LOG_L_WARN), 0);
	alloc_fault_sqlite();
	alloc_fault_all();
	(void)signal(SIGALRM, hangs);
	for (size_t n = 0; n < sizeof(lists) / sizeof(lists[0]); n++) {
		if (strcmp(argv[1], "all") != 0 && strcmp(argv[1], lists[n].name) != 0)
			continue;
		for (const struct scenario *s = lists[n].list; s->name; s++) {
			if (argc > 2 && strcmp(argv[2], s->name) != 0)
				continue;
			run_scenario(s, argc > 3 ? argv[3] : NULL, argc > 4 ? strtoull(argv[4], NULL, 10) : 0);
			ran++;
		}
	}
	log_release();
	(void)unlink(log_path);
	return ran ? 0 : 2;
}
