/*
 * The second half of a cut, and who runs it: rows of changed inodes, COMMIT, sync of the WAL. Only one cut runs at a
 * time; whoever waits for one and finds none running leads the next, for those whose turn it is.
 */
#include "fs/core/compact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define DUE_ROUNDS      3
#define CUT_DIRTY_NODES 16384u
#define CUT_PENDING     ((size_t)32 << 20) /* bytes of changed pages of the index */

/* Under ns: rows of every inode whose attributes changed. Data that no cut has taken is left out of size and blocks. */
static int write_rows(struct core *c, bool *due)
{
	struct node **list;
	size_t count;
	int ret = node_list_dirty(c, &list, &count);

	*due = false;
	if (ret)
		return ret;
	for (size_t i = 0; i < count; i++) {
		struct node *n = list[i];

		(void)pthread_mutex_lock(&n->lock);
		if (!ret && n->attr_dirty && !n->gone) {
			struct index_inode row = n->attr;

			if (S_ISREG(row.mode)) {
				row.size = n->cut_size;
				row.blocks = node_cut_blocks(n);
			}
			ret = index_inode_put(c->index, &row);
			if (!ret) {
				n->in_index = true;
				n->attr_dirty = false;
			}
		}
		*due |= atomic_load(&n->due) && n->map.dirty;
		node_clean(c, n);
		(void)pthread_mutex_unlock(&n->lock);
		node_put(c, n);
	}
	free(list);
	return ret;
}

/* Under ns: rows, then COMMIT, unless inodes turn out to be due (and need not be by now). */
static int cut_commit(struct core *c, bool last_round, bool *due, struct err *e)
{
	int ret;

	atomic_store(&c->ns_dirty, true); /* what was entered counts as clean from here on, and is not durable yet */
	ret = write_rows(c, due);
	if (!ret && (!*due || last_round)) {
		*due = false;
		ret = ids_reserve(c);
		if (!ret) {
			uint64_t begin = metrics_now(c->metrics);

			ret = index_commit(c->index, e);
			(void)metrics_lap(c->metrics, METRIC_INDEX_COMMIT_SECONDS, begin);
		}
		if (!ret)
			atomic_store(&c->ns_dirty, false);
	}
	return core_index_result(c, ret, e, "committing the index");
}

/* Renames over files that happen meanwhile make their inodes due, and those get a round of their own;
 * if renames keep coming, they wait for the last one. */
static int cut_once(struct core *c, enum cut_kind kind, struct node *const *wanted, size_t nwanted, struct copy *copy,
                    bool *reclaimed)
{
	enum cut_kind more = kind == CUT_LEAN ? CUT_LEAN : CUT_SOME;
	struct err e = {0};
	bool due = true;
	int ret = core_may_write(c);

	/* What the last one has sealed or entered goes as a whole. */
	if (c->retry_full && kind == CUT_SOME)
		kind = CUT_FULL;
	if (!ret)
		ret = cut_round(c, kind, wanted, nwanted, &e);
	if (!ret && copy && !copy->installed)
		ret = core_index_result(c, copy_install(c, copy), NULL, "moving extents in the index");
	for (int round = 0; !ret && due; round++) {
		bool last = round == DUE_ROUNDS;

		(void)pthread_mutex_lock(&c->ns);
		if (last)
			ret = cut_round(c, more, NULL, 0, &e);
		if (!ret)
			ret = cut_commit(c, last, &due, &e);
		(void)pthread_mutex_unlock(&c->ns);
		if (!ret && due)
			ret = cut_round(c, more, NULL, 0, &e);
	}
	if (ret)
		return ret;
	uint64_t begin = metrics_io_begin(c->metrics);
	ret = index_sync(c->index, &e);
	metrics_io_end(c->metrics, METRIC_INDEX_SYNC_SECONDS, begin);
	if (ret)
		return core_stop(c, ret, &e, "making the index durable");
	if (kind != CUT_SOME || copy) {
		reclaim_segments(c);
		*reclaimed = true;
	}
	compact_changed(c);
	return 0;
}

/* One whole cut. Where there is no room for the data, what was deleted must not wait for it: that becomes durable
 * first, and may give the data the room. */
static int cut_run(struct core *c, enum cut_kind kind, struct node *const *wanted, size_t nwanted, struct copy *copy)
{
	uint64_t begin = metrics_now(c->metrics);
	unsigned rows = atomic_load(&c->clone_rows);
	bool reclaimed = false;
	int ret, names = 0;

	space_cut_begins(c);
	ret = cut_once(c, kind, wanted, nwanted, copy, &reclaimed);
	if (space_lacks(ret)) {
		/* Extents without their sizes may be in the transaction: only both may be committed. */
		names = c->half_entered ? ret : cut_once(c, CUT_LEAN, NULL, 0, NULL, &reclaimed);
		if (!names)
			ret = cut_once(c, kind, wanted, nwanted, copy, &reclaimed);
	}
	if (!ret)
		atomic_fetch_sub(&c->clone_rows, rows);
	space_cut_ended(c, ret, names, reclaimed);
	(void)metrics_lap(c->metrics, METRIC_CUT_SECONDS, begin);
	return ret;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

/* Who takes part in the next cut: everybody; but one of everything takes long, so that those who wait for single inodes
 * go first, every other time. Under sync_lock. */
static void cut_choose(struct core *c, struct sync_queue *mine)
{
	struct sync_queue all = STAILQ_HEAD_INITIALIZER(all);
	struct sync_request *rq;

	if (!c->cut_passed) {
		while ((rq = STAILQ_FIRST(&c->sync_queue))) {
			STAILQ_REMOVE_HEAD(&c->sync_queue, link);
			if (rq->node)
				STAILQ_INSERT_TAIL(mine, rq, link);
			else
				STAILQ_INSERT_TAIL(&all, rq, link);
		}
		STAILQ_CONCAT(&c->sync_queue, &all);
	}
	c->cut_passed = !STAILQ_EMPTY(mine) && !STAILQ_EMPTY(&c->sync_queue);
	if (!c->cut_passed)
		STAILQ_CONCAT(mine, &c->sync_queue);
}

/* Under sync_lock: leads one cut. */
static void cut_lead(struct core *c)
{
	struct sync_queue mine = STAILQ_HEAD_INITIALIZER(mine);
	struct sync_request *rq;
	struct node **wanted;
	struct copy *copy = NULL;
	size_t n = 0;
	bool full = false;
	int ret;

	cut_choose(c, &mine);
	c->cut_running = true;
	(void)pthread_mutex_unlock(&c->sync_lock);
	STAILQ_FOREACH (rq, &mine, link)
		n++;
	wanted = malloc((n + 1) * sizeof(struct node *));
	n = 0;
	STAILQ_FOREACH (rq, &mine, link) {
		if (rq->copy) { /* there is only one thread that compacts */
			copy = rq->copy;
			continue;
		}
		full |= !rq->node || !wanted;
		if (wanted && rq->node)
			wanted[n++] = rq->node;
	}
	ret = cut_run(c, full ? CUT_FULL : CUT_SOME, wanted, n, copy);
	free(wanted);
	memory_cut_ended(c, ret);
	(void)pthread_mutex_lock(&c->sync_lock);
	c->cut_running = false;
	STAILQ_FOREACH (rq, &mine, link) {
		rq->ret = ret;
		rq->done = true;
	}
	(void)pthread_cond_broadcast(&c->sync_cond);
}

/* Nothing of n (or of anything) waits for a cut. Under sync_lock. */
static bool all_durable(struct core *c, struct node *n)
{
	if (c->cut_running || atomic_load(&c->ns_dirty))
		return false;
	if (n) {
		SCOPED_LOCK(&n->lock);
		return node_durable(n);
	}
	SCOPED_LOCK(&c->table_lock);
	return TAILQ_EMPTY(&c->dirty);
}

/* Under sync_lock. */
static int cut_join(struct core *c, struct sync_request *rq)
{
	STAILQ_INSERT_TAIL(&c->sync_queue, rq, link);
	while (!rq->done) {
		if (c->cut_running)
			lock_wait(&c->sync_cond, &c->sync_lock);
		else
			cut_lead(c);
	}
	return rq->ret;
}

int cut_wait(struct core *c, struct node *n)
{
	struct sync_request rq = {.node = n};

	if (c->opt.read_only)
		return 0;
	SCOPED_LOCK(&c->sync_lock);
	return all_durable(c, n) ? core_failed(c) : cut_join(c, &rq);
}

int cut_wait_space(struct core *c)
{
	struct sync_request rq = {0};

	if (c->opt.read_only)
		return 0;
	SCOPED_LOCK(&c->sync_lock);
	return !atomic_load(&c->space.freed) && all_durable(c, NULL) ? core_failed(c) : cut_join(c, &rq);
}

int cut_wait_copy(struct core *c, struct copy *copy)
{
	struct sync_request rq = {.copy = copy};

	SCOPED_LOCK(&c->sync_lock);
	return cut_join(c, &rq);
}

int core_fsync(struct core *c, uint64_t ino, bool data_only)
{
	uint64_t begin = metrics_now(c->metrics);
	struct node *n;
	bool dir;
	int ret = node_get(c, ino, &n);

	(void)data_only; /* the commit that holds the data holds the attributes too */
	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		dir = S_ISDIR(n->attr.mode);
	}
	ret = cut_wait(c, dir ? NULL : n);
	node_put(c, n);
	(void)metrics_lap(c->metrics, METRIC_FSYNC_SECONDS, begin);
	return ret;
}

int core_sync(struct core *c)
{
	return cut_wait(c, NULL);
}

/* --- the committer ------------------------------------------------------------------------------------------------ */

static bool cut_early(struct core *c)
{
	{
		SCOPED_LOCK(&c->memory_lock);
		if (budget_used(&c->budget, BUDGET_DIRTY) > c->dirty_limit / 2)
			return true;
	}
	{
		SCOPED_LOCK(&c->table_lock);
		if (c->dirty_nodes > CUT_DIRTY_NODES)
			return true;
	}
	return index_pending(c->index) > space_pending_max(c, CUT_PENDING);
}

/* Sleeps until the interval is over, somebody kicks or a threshold is passed: looked at ten times a second, since a
 * writer that has to wait kicks at once. False: the volume is being closed. */
static bool committer_sleep(struct core *c, bool patient)
{
	uint64_t begin = core_monotonic(c), interval = (uint64_t)c->opt.commit_interval_ms * 1000000u;
	long step = interval < 100000000u ? (long)interval : 100000000;

	(void)pthread_mutex_lock(&c->kick_lock);
	while (!c->stopping && !c->kicked && core_monotonic(c) - begin < interval) {
		struct timespec until;

		(void)clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += step;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		(void)pthread_cond_timedwait(&c->kick_cond, &c->kick_lock, &until);
		(void)pthread_mutex_unlock(&c->kick_lock);
		bool early = !patient && cut_early(c);
		(void)pthread_mutex_lock(&c->kick_lock);
		if (early)
			break;
	}
	bool go_on = !c->stopping;
	c->kicked = false;
	(void)pthread_mutex_unlock(&c->kick_lock);
	return go_on;
}

static void *committer_main(void *arg)
{
	struct core *c = arg;
	bool failing = false;

	while (committer_sleep(c, failing)) {
		int ret = cut_wait_space(c);

		if (!ret && reap_rest(c))
			ret = cut_wait_space(c);
		if (!ret)
			space_refill(c);
		if (ret && !failing && !core_failed(c))
			log_error("a periodic commit failed: %s; written data stays in memory and is tried again; "
			          "make room for STORE or check its disk",
			          strerror(-ret));
		failing = ret != 0;
	}
	return NULL;
}

int committer_start(struct core *c)
{
	int ret = -pthread_create(&c->committer, NULL, committer_main, c);

	c->committer_running = !ret;
	return ret;
}

void committer_stop(struct core *c)
{
	if (!c->committer_running)
		return;
	(void)pthread_mutex_lock(&c->kick_lock);
	c->stopping = true;
	(void)pthread_cond_signal(&c->kick_cond);
	(void)pthread_mutex_unlock(&c->kick_lock);
	(void)pthread_join(c->committer, NULL);
	c->committer_running = false;
}

void committer_kick(struct core *c)
{
	SCOPED_LOCK(&c->kick_lock);

	c->kicked = true;
	(void)pthread_cond_signal(&c->kick_cond);
}
