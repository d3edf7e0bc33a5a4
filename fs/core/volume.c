#include "fs/core/volume.h"
#include "base/array.h"
#include "base/io_overlay.h"
#include "fs/core/reserve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_DEFAULT ((uint64_t)256 << 20)
#define MEMORY_MIN     ((uint64_t)16 << 20)
#define ARENA_SHARE(m) ((m) / 4 * 3) /* the rest is the pipeline's */
#define COMMIT_MS      5000u
#define SAMPLE_MS      5000u

static void options_default(struct core *c, const struct core_options *o)
{
	c->opt = *o;
	c->opt.pass = NULL; /* not ours to keep */
	if (!c->opt.memory)
		c->opt.memory = MEMORY_DEFAULT;
	if (c->opt.memory < MEMORY_MIN + o->receive)
		c->opt.memory = MEMORY_MIN + o->receive;
	budget_init(&c->budget, c->opt.memory);
	c->opt.memory -= o->receive; /* from here on: what is for us */
	if (!c->opt.commit_interval_ms)
		c->opt.commit_interval_ms = COMMIT_MS;
	if (!c->opt.sample_ms)
		c->opt.sample_ms = SAMPLE_MS;
	c->clock = o->clock ? o->clock : &clock_system;
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	c->policy = (struct policy){.storage = o->storage,
	                            .cores = cores < 1 ? 1 : (unsigned)cores,
	                            .memory = c->opt.memory,
	                            .chunk_size = o->chunk_size,
	                            .workers = o->workers};
	c->opened = core_monotonic(c);
}

static void locks_init(struct core *c)
{
	pthread_condattr_t monotonic;

	(void)pthread_mutex_init(&c->ns, NULL);
	(void)pthread_mutex_init(&c->table_lock, NULL);
	(void)pthread_mutex_init(&c->memory_lock, NULL);
	(void)pthread_mutex_init(&c->sync_lock, NULL);
	(void)pthread_mutex_init(&c->kick_lock, NULL);
	(void)pthread_cond_init(&c->batch_cond, NULL);
	(void)pthread_cond_init(&c->sync_cond, NULL);
	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&c->kick_cond, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
	STAILQ_INIT(&c->sync_queue);
	TAILQ_INIT(&c->lru);
	TAILQ_INIT(&c->dirty);
	TAILQ_INIT(&c->memory_queue);
}

/* Frees everything; what has files open is closed first. ix is gone already. */
static void volume_free(struct core *c)
{
	pipeline_free(c->pipeline);
	governor_free(c->governor);
	adapt_free(c);
	node_table_release(c);
	frame_cache_free(c->cache);
	compact_free(c);
	chunk_table_free(c->chunks);
	pool_free(c->pool);
	metrics_free(c->metrics);
	index_seal_release(&c->seal);
	keyring_free(c->keyring);
	superblock_free(c->sb);
	free(c->reaping);
	io_free(c->io);
	budget_release(&c->budget);
	(void)pthread_mutex_destroy(&c->ns);
	(void)pthread_mutex_destroy(&c->table_lock);
	(void)pthread_mutex_destroy(&c->memory_lock);
	(void)pthread_mutex_destroy(&c->sync_lock);
	(void)pthread_mutex_destroy(&c->kick_lock);
	(void)pthread_cond_destroy(&c->batch_cond);
	(void)pthread_cond_destroy(&c->sync_cond);
	(void)pthread_cond_destroy(&c->kick_cond);
	free(c);
}

static int memory_init(struct core *c)
{
	size_t arena = (size_t)ARENA_SHARE(c->opt.memory) - compact_memory(c->opt.memory);
	int ret = pool_new(arena + c->opt.blocks * POOL_BLOCK, &c->pool);

	c->dirty_limit = arena / 2;
	if (!ret)
		ret = chunk_table_new(&c->chunks);
	if (!ret)
		ret = frame_cache_new(c, &c->cache);
	return ret;
}

/* What clones have left in the segments that are there is not known yet. */
static int segments_begin(struct core *c, uint64_t *highest)
{
	struct index_segment row[64];
	size_t n;
	int ret;

	*highest = 0;
	do {
		ret = index_segment_list(c->index, *highest, row, 64, &n);
		for (size_t i = 0; i < n && !ret; i++) {
			*highest = row[i].id;
			if (!c->opt.read_only)
				index_unsure_add(c->index, row[i].id, INDEX_UNKNOWN);
		}
	} while (!ret && n);
	return ret;
}

static int governor_init(struct core *c)
{
	const struct governor_options o = {
	    .tokens = {[GOVERNOR_CPU] = c->opt.cpu_tokens ? c->opt.cpu_tokens : policy_cpu_tokens(c->policy.cores),
	               [GOVERNOR_IO] = c->opt.io_tokens ? c->opt.io_tokens : policy_io_tokens(c->policy.storage)},
	    .metrics = c->metrics};

	return c->opt.no_governance ? 0 : governor_new(&o, &c->governor);
}

static int pipeline_init(struct core *c, struct err *e)
{
	const struct superblock_info *info = superblock_info(c->sb);
	struct pipeline_options o = {.io = c->io,
	                             .keyring = c->keyring,
	                             .suite = info->suite,
	                             .workers = c->opt.workers,
	                             .segment_size = c->opt.segment_size ? c->opt.segment_size : c->space.segment,
	                             .map_max = c->opt.map_max,
	                             .memory = c->opt.memory - ARENA_SHARE(c->opt.memory),
	                             .read_only = c->opt.read_only,
	                             .budget = &c->budget,
	                             .governor = c->governor,
	                             .metrics = c->metrics};
	uint64_t last;
	int ret = segments_begin(c, &last);

	if (ret)
		return ret;
	atomic_store(&c->last_segment, last);
	memcpy(o.uuid, info->uuid, sizeof(o.uuid));
	o.next_segment = last + 1;
	c->growing_segment = o.next_segment;
	return pipeline_new(&o, &c->pipeline, e);
}

/* The promises about numbers must be durable before the first number is used. */
static int ids_begin(struct core *c, struct err *e)
{
	int ret = ids_load(c);

	if (ret || c->opt.read_only)
		return ret;
	ret = ids_reserve(c);
	if (!ret)
		ret = index_commit(c->index, e);
	if (!ret)
		ret = index_sync(c->index, e);
	if (!ret)
		reclaim_segments(c); /* what recovery deleted orphans from */
	return ret;
}

static int keys_open(struct core *c, const struct core_options *o, struct err *e)
{
	const struct secret secret = {o->pass_type ? o->pass_type : SECRET_PASSPHRASE, o->pass, o->pass_len};
	int ret = superblock_open(c->io, &c->sb, e);

	return ret ? ret : superblock_unlock(c->sb, &secret, &c->keyring, e);
}

/* The index has opened under these keys: this superblock is the right one, and its other copy can be made the same. */
static void keys_settle(struct core *c)
{
	struct err e = {0};
	int ret = c->opt.read_only ? 0 : superblock_repair(c->io, c->sb, c->keyring, &e);

	if (ret)
		log_warn("a damaged copy of the superblock could not be repaired: %s", err_text(&e, ret));
	keyring_forget_root(c->keyring);
}

/* Without its root nobody can even ask a mount to end. */
static int root_check(struct core *c, struct err *e)
{
	struct index_inode root;
	int ret = index_inode_get(c->index, CORE_ROOT, &root);

	if (ret == -ENOENT)
		ret = -EUCLEAN;
	return ret ? err_set(e, ret, ERR_INDEX, "the root directory cannot be read: %s; run `apfs check`",
	                     strerror(-ret))
	           : 0;
}

int core_open(const struct core_options *o, struct core **out, struct err *e)
{
	struct core *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for a volume");
	locks_init(c);
	options_default(c, o);
	ret = c->opt.read_only ? io_overlay_new(o->io, &c->io, e) : reserve_new(o->io, &c->io);
	if (!ret)
		ret = keys_init(e);
	if (!ret)
		ret = keys_open(c, o, e);
	if (!ret)
		ret = memory_init(c);
	if (!ret && !c->opt.no_metrics)
		ret = metrics_new(c->clock, &c->metrics);
	if (!ret)
		ret = index_seal_init(&c->seal, c->sb, c->keyring, e);
	if (!ret)
		ret = index_open(c->io, superblock_info(c->sb)->page_size, &c->seal.index, &c->index, e);
	if (!ret)
		space_init(c);
	if (!ret)
		ret = governor_init(c);
	if (!ret)
		ret = pipeline_init(c, e);
	if (!ret)
		ret = root_check(c, e);
	if (!ret)
		ret = recover(c, e);
	if (!ret)
		ret = ids_begin(c, e);
	if (!ret)
		keys_settle(c);
	if (!ret)
		ret = compact_new(c);
	if (!ret && c->metrics && !c->opt.read_only && !c->opt.no_feedback)
		ret = adapt_new(c);
	if (!ret && !c->opt.read_only) {
		space_quarantine(c);
		space_refill(c);
		ret = committer_start(c);
	}
	if (!ret && !c->opt.read_only && !c->opt.no_compact && compact_start(c))
		log_warn("no thread for compaction: space of overwritten data is not given back");
	if (!ret && c->metrics && sampler_start(c))
		log_warn("no thread to look at how busy the volume is: there are no alerts");
	if (ret) {
		if (c->index)
			index_abandon(c->index);
		volume_free(c);
		return err_set(e, ret, ERR_IO, "the volume could not be opened: %s%s", strerror(-ret),
		               space_lacks(ret) ? "; make room on STORE's disk, or mount it read-only" : "");
	}
	*out = c;
	return 0;
}

/* Inodes without a name that were still open: whoever held them is gone with the mount. */
static void reap_all(struct core *c)
{
	struct node *n;
	uint64_t *ino = NULL;
	size_t count = 0, room = 0;

	for (n = c->table; n; n = n->hh.next) {
		if (!n->loaded || n->gone || n->attr.nlink)
			continue;
		if (array_grow(&ino, &room, count, sizeof(*ino)))
			break; /* the next mount does it */
		ino[count++] = n->ino;
	}
	for (size_t i = 0; i < count; i++) {
		n = node_peek(c, ino[i]);
		if (!n)
			continue;
		n->opens = 0;
		(void)lookup_sub(c, ino[i], UINT64_MAX);
		node_reap_logged(c, n);
		node_put(c, n);
	}
	free(ino);
}

int core_close(struct core *c, struct err *e)
{
	int ret = 0, closed;

	sampler_stop(c);
	compact_stop(c);
	committer_stop(c);
	pipeline_run_wait(c->pipeline); /* prefetch reads the index */
	if (!c->opt.read_only) {
		reap_all(c);
		(void)reap_rest(c);
		ret = cut_wait_space(c);
		if (space_lacks(ret)) {
			/* What was accepted goes before what a later mount may need. */
			reserve_open_up(c->io);
			ret = cut_wait_space(c);
		}
		if (!ret)
			ret = atomic_load(&c->failed);
	}
	if (ret) {
		index_abandon(c->index);
		(void)err_set(e, ret, ERR_IO, "the last commit failed: %s", strerror(-ret));
	} else {
		closed = index_close(c->index, e);
		ret = closed;
		if (!ret && !c->opt.read_only) /* the WAL is gone: before others take its place */
			space_keep(c);
	}
	volume_free(c);
	return ret;
}

void core_abandon(struct core *c)
{
	sampler_stop(c);
	compact_stop(c);
	committer_stop(c);
	pipeline_run_wait(c->pipeline); /* prefetch reads the index */
	index_abandon(c->index);
	volume_free(c);
}

int core_failed(const struct core *c)
{
	int failed = atomic_load(&c->failed);

	return failed || !index_failed(c->index) ? failed : -EIO;
}

struct budget *core_budget(struct core *c)
{
	return &c->budget;
}
