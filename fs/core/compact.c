/* When compaction runs, how hard, and for whom: the background thread and its control. */
#include "fs/core/compact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define SECOND      ((uint64_t)1000000000)
#define QUIET       (2 * SECOND)      /* without requests, this long: the volume is idle */
#define QUIET_FEW   8u                /* requests that do not count */
#define STEP_MAX    ((size_t)8 << 20) /* bytes of plaintext copied at once ... */
#define STEP_BUSY   ((size_t)1 << 20) /* ... and while others work */
#define STEP_MIN    ((size_t)1 << 20)
#define RETRY       (30 * SECOND) /* after an error */
#define SCAN_SHARE  50u           /* looking for victims takes at most one part in so many of the time */
#define POLL        (SECOND / 4)
#define BUSY_INLINE ((uint64_t)32 << 20)
#define PAUSE       7u /* while others work each step is followed by a pause of so many times its time */

enum mode { MODE_STOP, MODE_IDLE, MODE_BUSY, MODE_URGENT, MODE_ASKED, MODE_ASKED_ALL, MODES };

/* While idle a segment that is a fifth dead is worth the work; while others work it must be half dead. */
static const struct compact_rule rules[MODES] = {
    [MODE_IDLE] = {.dead = 20, .dead_bytes = 512 << 10, .inline_live = 256 << 10, .open = true},
    [MODE_BUSY] = {.dead = 50, .dead_bytes = 4 << 20, .inline_live = BUSY_INLINE, .known = true},
    [MODE_URGENT] = {.dead = 10, .dead_bytes = 64 << 10, .inline_live = UINT64_MAX, .open = true, .emptiest = true},
    [MODE_ASKED] = {.dead = 20, .dead_bytes = 64 << 10, .inline_live = 1, .open = true},
    [MODE_ASKED_ALL] = {.dead = 0, .dead_bytes = 4096, .inline_live = 1, .open = true},
};

static bool is_asked(enum mode mode)
{
	return mode == MODE_ASKED || mode == MODE_ASKED_ALL;
}

struct compact {
	pthread_t thread;
	bool running;

	pthread_mutex_t lock; /* all of this block */
	pthread_cond_t cond;  /* CLOCK_MONOTONIC */
	bool stopping, stop_asked;
	bool urged, rescued;             /* somebody waits for room; what it last came to */
	bool no_room;                    /* there was nothing to find, and no commit since */
	bool changed_idle, changed_busy; /* something was committed since the last search for victims found none */
	bool changed_shared;             /* since the search for what clones have left began */
	enum mode asked;                 /* MODE_STOP: nobody asks */
	uint64_t last;                   /* of what is asked for: segments made later are not its business */
	uint64_t inline_after;           /* when the chunks that the index keeps may be a victim again */
	struct core_compact_status status;

	/* The compacting thread's own. */
	struct compact_pass pass;
	struct compact_victim victim;
	bool in_pass;
	enum mode pass_mode; /* that it was begun in */
	uint64_t pass_moved, pass_stored;
	uint8_t *buffer;
	size_t room;
	uint64_t *skip; /* segments not to be tried again: damaged, or nothing in them could be moved */
	size_t nskip;
	uint64_t shared_after;          /* where the search for what clones have left goes on ... */
	enum mode shared_mode;          /* by whose rule it was begun */
	bool searching;                 /* it is not over */
	uint64_t requests, quiet_since; /* monotonic ns, as all below */
	uint64_t next_busy, next_any;
	bool failing;
};

size_t compact_memory(uint64_t memory)
{
	uint64_t share = memory / 32;

	return share < STEP_MIN ? STEP_MIN : share > STEP_MAX ? STEP_MAX : (size_t)share;
}

int compact_new(struct core *c)
{
	struct compact *k = calloc(1, sizeof(*k));
	pthread_condattr_t monotonic;

	if (!k)
		return -ENOMEM;
	(void)pthread_mutex_init(&k->lock, NULL);
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&k->cond, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	k->room = compact_memory(c->opt.memory);
	k->changed_idle = k->changed_busy = true; /* what the last mount left */
	k->quiet_since = core_monotonic(c);
	k->next_any = k->quiet_since + QUIET;
	c->compact = k;
	return 0;
}

static void buffer_free(struct core *c)
{
	struct compact *k = c->compact;

	if (k->buffer) {
		(void)munmap(k->buffer, k->room);
		budget_give(&c->budget, BUDGET_COMPACT, k->room);
	}
	k->buffer = NULL;
}

void compact_free(struct core *c)
{
	struct compact *k = c->compact;

	if (!k)
		return;
	buffer_free(c);
	(void)pthread_mutex_destroy(&k->lock);
	(void)pthread_cond_destroy(&k->cond);
	free(k->skip);
	free(k);
}

/* Plaintext is copied through it: it stays out of core dumps, and is given back when nothing is left to do. */
static int buffer_get(struct core *c)
{
	struct compact *k = c->compact;
	void *p;

	if (k->buffer)
		return 0;
	p = mmap(NULL, k->room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	(void)madvise(p, k->room, MADV_DONTDUMP);
	k->buffer = p;
	budget_take(&c->budget, BUDGET_COMPACT, k->room);
	return 0;
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

/* False if it was there already. */
static bool skip_add(struct compact *k, uint64_t segment)
{
	uint64_t *bigger;

	for (size_t i = 0; i < k->nskip; i++)
		if (k->skip[i] == segment)
			return false;
	bigger = realloc(k->skip, (k->nskip + 1) * sizeof(*bigger));
	if (!bigger)
		return false; /* it is tried again */
	k->skip = bigger;
	k->skip[k->nskip++] = segment;
	return true;
}

static void status_progress(struct compact *k, uint64_t left)
{
	SCOPED_LOCK(&k->lock);

	if (k->status.total < k->status.done + left)
		k->status.total = k->status.done + left;
}

/* What clones have left is looked for, some segments at a time, where nothing else is a victim or has room. -EAGAIN:
 * not all have been looked at. */
static int choose_shared(struct core *c, enum mode mode, const struct compact_rule *rule)
{
	struct compact *k = c->compact;
	int ret;

	if (k->shared_mode != mode)
		k->shared_after = 0;
	k->shared_mode = mode;
	if (!k->shared_after) {
		SCOPED_LOCK(&k->lock);
		k->changed_shared = false;
	}
	ret = compact_choose_shared(c, rule, k->skip, k->nskip, &k->shared_after, &k->victim);
	if (ret == -ENOENT) {
		SCOPED_LOCK(&k->lock);
		/* What was committed meanwhile may lie behind; whoever asked wants what was there before. */
		if (k->changed_shared && !is_asked(mode))
			ret = -EAGAIN;
		k->shared_after = 0;
	}
	k->searching = ret == -EAGAIN;
	return ret;
}

/* -ENOENT: there is no victim; -ENOSPC: none that there is room for. */
static int choose(struct core *c, enum mode mode, const struct compact_rule *rule, uint64_t *left)
{
	struct compact *k = c->compact;
	int found = compact_choose(c, rule, k->skip, k->nskip, &k->victim, left), ret;

	k->searching = false;
	if (!found && !compact_has_room(c, k->victim.live))
		found = -ENOSPC;
	if (found != -ENOENT && found != -ENOSPC)
		return found;
	ret = choose_shared(c, mode, rule);
	if (!ret)
		*left += k->victim.live;
	return ret == -ENOENT ? found : ret;
}

/* Begins with the next victim: -ENOENT if there is none, -EAGAIN if it is still being written to or looked for. */
static int pass_begin(struct core *c, enum mode mode)
{
	struct compact *k = c->compact;
	struct compact_rule rule = rules[mode];
	struct pipeline_segment s;
	uint64_t left = 0;
	int ret;

	{
		SCOPED_LOCK(&k->lock);
		rule.last = is_asked(mode) ? k->last : UINT64_MAX;
		if (core_monotonic(c) < k->inline_after)
			rule.inline_live = UINT64_MAX;
	}
	ret = choose(c, mode, &rule, &left);
	if (ret)
		return ret;
	status_progress(k, left);
	if (k->victim.open) {
		pipeline_segment_roll(c->pipeline, k->victim.segment);
		if (pipeline_segment_get(c->pipeline, k->victim.segment, &s) || s.open) {
			if (k->shared_after == k->victim.segment)
				k->shared_after--; /* it is found again */
			return -EAGAIN;
		}
	}
	k->pass = (struct compact_pass){.segment = k->victim.segment, .last = UINT64_MAX};
	if (!k->victim.segment)
		k->pass.last = atomic_load(&c->next_chunk) - 1;
	k->pass_moved = k->pass_stored = 0;
	k->pass_mode = mode;
	k->in_pass = true;
	return 0;
}

/* A walk is over. What could not be moved out of a segment will not be another time either; chunks in the index come
 * and go: they are tried again later, and whoever asked gets one walk through them. */
static void pass_end(struct core *c)
{
	struct compact *k = c->compact;

	k->in_pass = false;
	if (!k->pass_moved && k->victim.segment)
		(void)skip_add(k, k->victim.segment);
	SCOPED_LOCK(&k->lock);
	if (!k->victim.segment && k->asked && is_asked(k->pass_mode))
		k->inline_after = UINT64_MAX;
	else if (!k->victim.segment && !k->pass_moved)
		k->inline_after = core_monotonic(c) + RETRY;
	k->status.done += k->victim.live > k->pass_stored ? k->victim.live - k->pass_stored : 0;
	k->status.freed += k->victim.total > k->pass_stored ? k->victim.total - k->pass_stored : 0;
}

static void step_done(struct compact *k, const struct copy *copy)
{
	uint64_t left = k->victim.live > k->pass_stored ? k->victim.live - k->pass_stored : 0;

	k->pass_moved += copy->moved;
	k->pass_stored += copy->stored;
	for (size_t i = 0; i < copy->ndamaged; i++) {
		const struct copy_damage *d = &copy->damaged[i];

		if (skip_add(k, d->segment))
			log_warn("compaction cannot read chunk %llu: %s; what is damaged stays where it is; "
			         "run `apfs check`",
			         (unsigned long long)d->chunk, err_text(&d->err, d->ret));
	}
	SCOPED_LOCK(&k->lock);
	k->status.done += copy->stored < left ? copy->stored : left;
}

static bool must_stop(struct compact *k)
{
	SCOPED_LOCK(&k->lock);

	return k->stop_asked || k->stopping;
}

/* In several cuts where what was copied is mapped very many times. */
static int install(struct core *c, struct copy *copy)
{
	struct compact *k = c->compact;
	int ret;

	do {
		ret = cut_wait_copy(c, copy);
		if (!ret)
			ret = copy->ret;
		if (!ret)
			step_done(k, copy);
	} while (!ret && !must_stop(k) && copy_again(copy, &ret));
	return ret;
}

static int step(struct core *c, enum mode mode)
{
	struct compact *k = c->compact;
	size_t room = mode == MODE_BUSY && k->room > STEP_BUSY ? STEP_BUSY : k->room;
	struct compact_pass before;
	struct copy *copy;
	struct err e = {0};
	int ret = core_may_write(c);

	if (!ret && !k->in_pass)
		ret = pass_begin(c, mode);
	if (!ret)
		ret = buffer_get(c); /* it may have been given back in the midst of a walk */
	if (ret)
		return ret;
	before = k->pass;
	k->pass.thorough = mode != MODE_BUSY && mode != MODE_URGENT;
	ret = copy_make(c, &k->pass, k->buffer, room, &copy, &e);
	if (!ret && copy) {
		ret = install(c, copy);
		copy_free(copy);
	}
	if (ret)
		k->pass = before;
	else if (k->pass.end)
		pass_end(c);
	/* Smaller victims may have room; the smallest have been tried if this one was chosen for that. */
	if (space_lacks(ret)) {
		k->in_pass = false;
		if (mode == MODE_URGENT && k->pass_mode != MODE_URGENT)
			return -EAGAIN;
	}
	if (ret && !k->failing && !core_failed(c))
		log_warn("compaction failed: %s; nothing is lost, it will be tried again", err_text(&e, ret));
	k->failing = ret != 0;
	return ret;
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

static bool quiet(struct core *c, uint64_t now)
{
	struct compact *k = c->compact;
	uint64_t requests = atomic_load_explicit(&c->requests, memory_order_relaxed);

	if (requests - k->requests > QUIET_FEW) {
		k->requests = requests;
		k->quiet_since = now;
	}
	return now - k->quiet_since >= QUIET;
}

static void wait_until(struct compact *k, uint64_t ns)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(ns / SECOND);
	until.tv_nsec = (long)(ns % SECOND);
	(void)pthread_cond_timedwait(&k->cond, &k->lock, &until);
}

/* Waits for a reason to work. Once everything has been looked at it sleeps until there is a new commit. */
static enum mode await(struct core *c)
{
	struct compact *k = c->compact;

	SCOPED_LOCK(&k->lock);
	for (;;) {
		uint64_t now = core_monotonic(c);

		if (k->stopping)
			return MODE_STOP;
		if (k->urged)
			return MODE_URGENT;
		if (k->asked)
			return k->asked;
		if (c->opt.compact_on_demand || (!k->in_pass && !k->changed_idle && !k->changed_busy)) {
			buffer_free(c);
			(void)pthread_cond_wait(&k->cond, &k->lock);
			continue;
		}
		if (now >= k->next_any && quiet(c, now) && (k->in_pass || k->changed_idle))
			return MODE_IDLE;
		if (now >= k->next_any && now >= k->next_busy && (k->in_pass || k->changed_busy))
			return MODE_BUSY;
		wait_until(k, POLL);
	}
}

/* Ends a run that was asked for. */
static void asked_end(struct compact *k, int ret)
{
	SCOPED_LOCK(&k->lock);

	k->asked = MODE_STOP;
	k->stop_asked = false;
	k->inline_after = 0;
	k->shared_after = 0;
	k->status.running = false;
	k->status.ret = ret;
	if (!ret)
		k->status.done = k->status.total;
	(void)pthread_cond_broadcast(&k->cond);
}

/* Whoever waits for room learns what came of it, once a victim is done with or there is none. */
static void urge_result(struct compact *k, enum mode mode, int ret)
{
	SCOPED_LOCK(&k->lock);

	/* What another mode's rule did not find, or had no room for, this one may. */
	if (!k->urged || ret == -EAGAIN || (!ret && k->in_pass) || (ret && mode != MODE_URGENT))
		return;
	k->rescued = !ret && k->victim.total > k->pass_stored;
	k->no_room = ret != 0;
	k->urged = false;
	(void)pthread_cond_broadcast(&k->cond);
}

/* What a step's result means for the next one. */
static void work_result(struct core *c, enum mode mode, int ret, uint64_t began)
{
	struct compact *k = c->compact;
	uint64_t now = core_monotonic(c), took = now - began;
	bool asked = is_asked(mode);

	k->next_busy = now + took * PAUSE;
	urge_result(k, mode, ret);
	if (ret == -EAGAIN && k->searching) {
		if (mode == MODE_IDLE || mode == MODE_BUSY)
			k->next_any = now + took * SCAN_SHARE;
		ret = 0;
	} else if (ret == -EAGAIN) {
		SCOPED_LOCK(&k->lock);
		wait_until(k, POLL / 10);
		ret = 0;
	} else if (ret) {
		SCOPED_LOCK(&k->lock);
		/* Without a victim there is nothing to do until something changes. */
		if (ret == -ENOENT)
			k->changed_busy = k->changed_busy && mode == MODE_URGENT;
		if (ret == -ENOENT && mode != MODE_BUSY && mode != MODE_URGENT)
			k->changed_idle = false;
		k->next_any = now + (ret == -ENOENT || mode == MODE_URGENT ? took * SCAN_SHARE : RETRY);
	}
	if (asked && ret)
		asked_end(k, ret == -ENOENT ? 0 : ret);
	else if (asked && must_stop(k))
		asked_end(k, -ECANCELED);
}

/* How often somebody else was given this thread's core. What the kernel's cache answers makes no requests: a volume
 * may look idle on a machine that is not. */
static long preemptions(void)
{
	struct rusage u;

	return getrusage(RUSAGE_THREAD, &u) ? 0 : u.ru_nivcsw;
}

static void work(struct core *c, enum mode mode)
{
	struct compact *k = c->compact;
	uint64_t began = core_monotonic(c);
	long preempted = preemptions();

	/* A victim that is worth it only while idle waits until then. */
	if (k->in_pass && mode == MODE_BUSY && k->victim.segment &&
	    (k->victim.total - k->victim.live) * 100 < rules[MODE_BUSY].dead * k->victim.total)
		k->in_pass = false;
	work_result(c, mode, step(c, mode), began);
	if (mode == MODE_IDLE && preemptions() > preempted + 1 && k->next_any < k->next_busy)
		k->next_any = k->next_busy;
}

static void *compact_main(void *arg)
{
	struct core *c = arg;
	enum mode mode;

	while ((mode = await(c)) != MODE_STOP)
		work(c, mode);
	return NULL;
}

int compact_start(struct core *c)
{
	int ret = -pthread_create(&c->compact->thread, NULL, compact_main, c);

	c->compact->running = !ret;
	return ret;
}

void compact_stop(struct core *c)
{
	struct compact *k = c->compact;

	if (!k || !k->running)
		return;
	(void)pthread_mutex_lock(&k->lock);
	k->stopping = true;
	(void)pthread_cond_broadcast(&k->cond);
	(void)pthread_mutex_unlock(&k->lock);
	(void)pthread_join(k->thread, NULL);
	k->running = false;
}

void compact_changed(struct core *c)
{
	struct compact *k = c->compact;

	SCOPED_LOCK(&k->lock);
	bool asleep = !k->changed_idle && !k->changed_busy; /* otherwise it looks by itself */

	k->changed_idle = k->changed_busy = k->changed_shared = true;
	k->no_room = false;
	if (asleep)
		(void)pthread_cond_broadcast(&k->cond);
}

uint64_t compact_could_find(struct core *c, uint64_t scratch)
{
	bool running;

	{
		SCOPED_LOCK(&c->compact->lock);
		running = c->compact->running && !c->compact->stopping;
	}
	return running ? compact_dead(c, &rules[MODE_URGENT], scratch) : 0;
}

bool compact_find_room(struct core *c)
{
	struct compact *k = c->compact;

	SCOPED_LOCK(&k->lock);
	if (!k->running || k->stopping || k->no_room)
		return false;
	k->urged = true;
	(void)pthread_cond_broadcast(&k->cond);
	while (k->urged && !k->stopping)
		lock_wait(&k->cond, &k->lock);
	return !k->urged && k->rescued;
}

/* --- asked for ---------------------------------------------------------------------------------------------------- */

static int asked_begin(struct core *c, bool all)
{
	struct compact *k = c->compact;

	SCOPED_LOCK(&k->lock);
	if (k->asked)
		return -EBUSY;
	k->last = atomic_load(&c->last_segment);
	k->inline_after = 0;
	k->asked = all ? MODE_ASKED_ALL : MODE_ASKED;
	k->stop_asked = false;
	k->status = (struct core_compact_status){.running = true};
	(void)pthread_cond_broadcast(&k->cond);
	return 0;
}

int core_compact_start(struct core *c, bool all)
{
	int ret = core_may_write(c);

	if (ret)
		return ret;
	if (!c->compact->running)
		return -EOPNOTSUPP;
	ret = core_sync(c); /* what was overwritten is dead only then */
	return ret ? ret : asked_begin(c, all);
}

void core_compact_stop(struct core *c)
{
	SCOPED_LOCK(&c->compact->lock);

	c->compact->stop_asked = c->compact->asked != MODE_STOP;
}

void core_compact_status(struct core *c, struct core_compact_status *out)
{
	SCOPED_LOCK(&c->compact->lock);

	*out = c->compact->status;
}

int compact_run(struct core *c, bool all)
{
	struct compact *k = c->compact;
	struct core_compact_status s;
	int ret = core_sync(c);

	if (!ret)
		ret = asked_begin(c, all);
	if (ret)
		return ret;
	do {
		work(c, k->asked);
		core_compact_status(c, &s);
	} while (s.running);
	buffer_free(c);
	return s.ret;
}
