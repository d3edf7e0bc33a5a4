/*
 * The cut: a consistent snapshot of some or all inodes is made durable. In order (docs/ARCHITECTURE.md, "Order of
 * writes"): take the snapshot of each inode, seal its buffers, sync the segments, enter extents, sizes and attributes
 * into the index, COMMIT, sync the WAL. Only one cut runs at a time; whoever waits for one and finds none running leads
 * the next for everybody who waits.
 */
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define INLINE_PLAIN	28672u		      /* plaintext bytes that surely fit an inline chunk once sealed */
#define PACK_CHUNK	((uint32_t)1 << 20)   /* plaintext of a chunk of small pieces */
#define SCATTER_FILE	((uint64_t)256 << 10) /* in files from this size on ... */
#define SCATTER_PIECE	16384u		      /* ... pieces up to this size are random writes */
#define MAP_KEEP	4096u		      /* pieces a map may keep after a cut */
#define DUE_ROUNDS	3
#define CUT_DIRTY_NODES 16384u
#define CUT_PENDING	((size_t)32 << 20) /* bytes of changed pages of the index */

struct cut_node {
	struct node *n; /* holds a reference */
	uint64_t size, pending;
	uint64_t covered; /* bytes below the old size that the snapshot replaces */
	uint64_t stored;  /* bytes of STORE that its extents take, estimated */
};

/* What a snapshot holds apart from buffers: extents sealed earlier, and holes. */
struct cut_piece {
	struct node *n;
	struct index_extent x;
};

struct cut {
	struct core *core;
	uint64_t number;
	bool full;
	struct cut_node *node;
	size_t nodes, nodes_room;
	struct seal_item *item;
	size_t items, items_room;
	struct cut_piece *piece;
	size_t pieces, pieces_room;
	uint64_t bytes; /* of plaintext in items */
	struct err err;
};

static int grow(void *array, size_t *room, size_t used, size_t size)
{
	void **a = array, *bigger;
	size_t want = *room ? 2 * *room : 64;

	if (used < *room)
		return 0;
	bigger = realloc(*a, want * size);
	if (!bigger)
		return -ENOMEM;
	*a = bigger;
	*room = want;
	return 0;
}

static int cut_add(struct cut *cut, struct node *n)
{
	int ret = grow(&cut->node, &cut->nodes_room, cut->nodes, sizeof(*cut->node));

	if (!ret) {
		cut->node[cut->nodes++] = (struct cut_node){.n = n};
		n->refs++;
	}
	return ret;
}

static int by_ino(const void *a, const void *b)
{
	uint64_t x = ((const struct cut_node *)a)->n->ino, y = ((const struct cut_node *)b)->n->ino;

	return x < y ? -1 : x > y;
}

/* The inodes of a cut: everything dirty, or those that somebody waits for and those that are due. */
static int cut_collect(struct cut *cut, struct node *const *wanted, size_t nwanted)
{
	struct core *c = cut->core;
	struct node *n;
	size_t unique = 0;
	int ret = 0;

	(void)pthread_mutex_lock(&c->table_lock);
	TAILQ_FOREACH (n, &c->dirty, on_dirty)
		if (!ret && (cut->full || atomic_load(&n->data_due)))
			ret = cut_add(cut, n);
	for (size_t i = 0; i < nwanted && !cut->full && !ret; i++)
		ret = cut_add(cut, wanted[i]);
	(void)pthread_mutex_unlock(&c->table_lock);
	qsort(cut->node, cut->nodes, sizeof(*cut->node), by_ino);
	for (size_t i = 0; i < cut->nodes; i++) {
		if (unique && cut->node[unique - 1].n == cut->node[i].n)
			node_put(c, cut->node[i].n); /* waited for twice, or due besides */
		else
			cut->node[unique++] = cut->node[i];
	}
	cut->nodes = unique;
	return ret;
}

static int take_piece(struct cut *cut, struct cut_node *cn, struct piece *p)
{
	uint64_t end = p->off + p->len;
	int ret;

	if (p->off < cn->n->cut_size)
		cn->covered += (end < cn->n->cut_size ? end : cn->n->cut_size) - p->off;
	if (p->kind == PIECE_BUFFER) {
		ret = grow(&cut->item, &cut->items_room, cut->items, sizeof(*cut->item));
		if (ret)
			return ret;
		seal_take(cut->core, cn->n, p, &cut->item[cut->items++]);
		cut->bytes += p->len;
	} else {
		ret = grow(&cut->piece, &cut->pieces_room, cut->pieces, sizeof(*cut->piece));
		if (ret)
			return ret;
		cut->piece[cut->pieces++] = (struct cut_piece){
		    cn->n, {p->off, p->len, p->kind == PIECE_HOLE ? 0 : p->chunk, p->kind == PIECE_HOLE ? 0 : p->pos}};
	}
	p->cut = cut->number;
	return 0;
}

/* The snapshot of one inode. Batches under way end first, so that every piece is either a buffer or an extent. */
static int cut_freeze(struct cut *cut, struct cut_node *cn)
{
	struct core *c = cut->core;
	struct node *n = cn->n;
	struct piece *p;
	int ret = 0;

	SCOPED_LOCK(&n->lock);
	n->cutting = true;
	seal_drain(c, n);
	n->cutting = false;
	if (n->gone)
		return 0;
	n->in_cut = true;
	atomic_store(&n->data_due, false);
	cn->size = n->attr.size;
	cn->pending = n->pending_bytes;
	for (p = n->map.dirty ? map_find(&n->map, 0) : NULL; p && !ret; p = map_next(p))
		if (p->dirty)
			ret = take_piece(cut, cn, p);
	return ret;
}

/* --- sealing ------------------------------------------------------------------------------------------------------ */

/* A piece of a large file that was written at random: such pieces share small frames, so that reading one of them back
 * does not decode many. */
static bool is_scattered(const struct seal_item *i, uint64_t size)
{
	return size >= SCATTER_FILE && i->len <= SCATTER_PIECE;
}

static int by_class(const void *a, const void *b)
{
	const struct seal_item *x = a, *y = b;

	if (x->scattered != y->scattered)
		return x->scattered ? 1 : -1;
	if (x->node->ino != y->node->ino)
		return x->node->ino < y->node->ino ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

static uint32_t chunk_limit(const struct cut *cut, const struct seal_item *i)
{
	uint32_t limit = policy_chunk_size(i->size, cut->core->opt.memory);

	return limit > PACK_CHUNK ? limit : PACK_CHUNK;
}

static enum policy_kind kind_of(const struct seal_item *first, bool to_inline)
{
	if (first->scattered || to_inline)
		return POLICY_RANDOM;
	return first->size < PACK_CHUNK ? POLICY_PACKED : POLICY_STREAM;
}

static int cut_seal(struct cut *cut)
{
	struct core *c = cut->core;
	struct seal_group g = {0};
	bool to_inline = !cut->full && cut->bytes <= INLINE_PLAIN;
	size_t i = 0;
	int ret = 0;

	for (size_t k = 0; k < cut->items; k++) {
		struct seal_item *it = &cut->item[k];

		it->scattered = is_scattered(it, it->size);
	}
	qsort(cut->item, cut->items, sizeof(*cut->item), by_class);
	while (i < cut->items && !ret) {
		struct seal_item *first = &cut->item[i];
		uint32_t limit = chunk_limit(cut, first), bytes = 0;
		size_t n = 0;

		while (i + n < cut->items && first[n].scattered == first->scattered &&
		       (bytes + first[n].len <= limit || !n))
			bytes += first[n++].len;
		ret = seal_submit(c, first, n, kind_of(first, to_inline), to_inline, &g);
		i += ret ? 0 : n;
	}
	for (size_t k = i; k < cut->items; k++) /* not submitted for want of memory */
		seal_settle(&cut->item[k]);
	int waited = seal_wait(c, &g);
	if (waited)
		cut->err = g.err;
	return ret ? ret : waited;
}

/* --- installing --------------------------------------------------------------------------------------------------- */

/* Rows of the segments that this mount has begun since. */
static int install_segments(struct cut *cut)
{
	struct core *c = cut->core;
	struct pipeline_segment s[16];
	size_t n;

	do {
		n = pipeline_segment_new_since(c->pipeline, c->last_segment + 1, s, 16);
		for (size_t i = 0; i < n; i++) {
			struct index_segment row = {.id = s[i].id, .epoch = s[i].epoch, .total = s[i].size};
			int ret;

			row.state = s[i].kind == PIPELINE_SEGMENT_INLINE ? INDEX_SEGMENT_INLINE : INDEX_SEGMENT_OPEN;
			memcpy(row.name, s[i].name, sizeof(row.name));
			memcpy(row.header, s[i].header, s[i].header_len);
			row.header_len = s[i].header_len;
			ret = index_segment_put(c->index, &row);
			if (ret)
				return ret;
			c->last_segment = s[i].id;
		}
	} while (n);
	return 0;
}

static struct cut_node *cut_find(struct cut *cut, struct node *n)
{
	struct cut_node key = {.n = n};

	return bsearch(&key, cut->node, cut->nodes, sizeof(*cut->node), by_ino);
}

/* Enters one extent (or hole) unless its inode was deleted meanwhile. */
static int install_extent(struct cut *cut, struct node *n, const struct index_extent *x)
{
	struct core *c = cut->core;
	struct cut_node *cn = cut_find(cut, n);
	struct chunk *k;
	int ret = 0;

	if (x->chunk) {
		ret = chunk_install(c, x->chunk);
		if (!ret)
			ret = chunk_get(c, x->chunk, &k);
		if (ret)
			return ret;
		if (cn)
			cn->stored += 1 + x->len * k->p->stored_len / k->p->plain_len;
		chunk_put(c, k);
	}
	SCOPED_LOCK(&n->lock);
	return n->gone ? 0 : index_extent_set(c->index, n->ino, x);
}

/* The estimate of what a file takes in STORE: what is left of the old one is the share of the old bytes that were not
 * replaced. It never falls to 0 while there may be data: tar -S and cp would take the file for a hole. */
static uint64_t blocks_after(const struct cut_node *cn, const struct node *n)
{
	uint64_t kept = 0;

	if (n->cut_blocks && n->cut_size > cn->covered)
		kept = 1 + (uint64_t)((double)(n->cut_blocks - 1) * (1.0 - (double)cn->covered / (double)n->cut_size));
	return kept + (cn->stored + 511) / 512;
}

static void install_size(struct cut *cut, struct cut_node *cn)
{
	struct core *c = cut->core;
	struct node *n = cn->n;

	SCOPED_LOCK(&n->lock);
	if (n->gone)
		return;
	n->cut_blocks = blocks_after(cn, n);
	if (S_ISREG(n->attr.mode))
		n->attr.blocks = n->cut_blocks;
	n->pending_bytes -= n->pending_bytes < cn->pending ? n->pending_bytes : cn->pending;
	n->cut_size = cn->size;
	map_cut_done(&n->map, cut->number, true);
	if (n->map.count - n->map.dirty > MAP_KEEP)
		map_drop_clean(&n->map);
	node_touch(c, n);
}

static int cut_install(struct cut *cut)
{
	int ret = install_segments(cut);

	for (size_t i = 0; i < cut->pieces && !ret; i++)
		ret = install_extent(cut, cut->piece[i].n, &cut->piece[i].x);
	for (size_t i = 0; i < cut->items && !ret; i++) {
		const struct seal_item *it = &cut->item[i];
		struct index_extent x = {it->off, it->len, it->chunk, it->chunk_pos};

		ret = install_extent(cut, it->node, &x);
	}
	for (size_t i = 0; i < cut->nodes && !ret; i++)
		install_size(cut, &cut->node[i]);
	return ret;
}

/* Under ns: rows of every inode whose attributes changed. Data that no cut has taken is left out of size and blocks. */
static int write_rows(struct core *c, bool *due)
{
	struct node **list;
	size_t count = 0;
	struct node *n;
	int ret = 0;

	*due = false;
	(void)pthread_mutex_lock(&c->table_lock);
	list = malloc((c->dirty_nodes + 1) * sizeof(struct node *));
	if (list)
		TAILQ_FOREACH (n, &c->dirty, on_dirty) {
			list[count++] = n;
			n->refs++;
		}
	(void)pthread_mutex_unlock(&c->table_lock);
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		n = list[i];
		(void)pthread_mutex_lock(&n->lock);
		if (!ret && n->attr_dirty && !n->gone) {
			struct index_inode row = n->attr;

			if (S_ISREG(row.mode)) {
				row.size = n->cut_size;
				row.blocks = n->cut_blocks;
			}
			ret = index_inode_put(c->index, &row);
			if (!ret) {
				n->in_index = true;
				n->attr_dirty = false;
			}
		}
		*due |= atomic_load(&n->data_due) && n->map.dirty;
		node_clean(c, n);
		(void)pthread_mutex_unlock(&n->lock);
		node_put(c, n);
	}
	free(list);
	return ret;
}

static void cut_release(struct cut *cut, bool installed)
{
	struct core *c = cut->core;

	for (size_t i = 0; i < cut->items; i++) {
		if (cut->item[i].buffer)
			seal_settle(&cut->item[i]);
		node_put(c, cut->item[i].node);
	}
	for (size_t i = 0; i < cut->nodes; i++) {
		struct node *n = cut->node[i].n;

		(void)pthread_mutex_lock(&n->lock);
		n->in_cut = false;
		if (!installed)
			map_cut_done(&n->map, cut->number, false);
		node_clean(c, n);
		(void)pthread_mutex_unlock(&n->lock);
		node_put(c, n);
	}
	free(cut->node);
	free(cut->item);
	free(cut->piece);
}

/* Snapshot, seal, sync, install. A failure before installing leaves everything dirty, to be tried again; a later one
 * stops the volume. */
static int cut_round(struct core *c, bool full, struct node *const *wanted, size_t nwanted, struct err *e)
{
	struct cut cut = {.core = c, .number = atomic_fetch_add(&c->cut, 1) + 1, .full = full};
	bool installed = false;
	int ret = cut_collect(&cut, wanted, nwanted);

	for (size_t i = 0; i < cut.nodes && !ret; i++)
		ret = cut_freeze(&cut, &cut.node[i]);
	if (!ret)
		ret = cut_seal(&cut);
	if (ret) {
		*e = cut.err;
	} else {
		ret = pipeline_sync(c->pipeline, e);
		if (ret)
			(void)core_stop(c, ret, e, "making segments durable");
	}
	if (!ret) {
		ret = cut_install(&cut);
		installed = !ret;
		if (ret)
			(void)core_stop(c, ret, e, "entering extents into the index");
	}
	cut_release(&cut, installed);
	if (installed && full)
		chunk_drop_stale(c, cut.number);
	return ret;
}

/* Under ns: rows, then COMMIT, unless inodes turn out to be due (and need not be by now). */
static int cut_commit(struct core *c, bool last_round, bool *due, struct err *e)
{
	int ret = write_rows(c, due);

	if (!ret && (!*due || last_round)) {
		*due = false;
		ret = ids_reserve(c);
		if (!ret)
			ret = index_commit(c->index, e);
		if (!ret)
			atomic_store(&c->ns_dirty, false);
	}
	return ret ? core_stop(c, ret, e, "committing the index") : 0;
}

/* One whole cut. Renames over files that happen meanwhile make their inodes due, and those get a round of their own;
 * if renames keep coming, they wait for the last one. */
static int cut_run(struct core *c, bool full, struct node *const *wanted, size_t nwanted)
{
	struct err e = {0};
	bool due = true;
	int ret = core_may_write(c);

	if (!ret)
		ret = cut_round(c, full, wanted, nwanted, &e);
	for (int round = 0; !ret && due; round++) {
		bool last = round == DUE_ROUNDS;

		(void)pthread_mutex_lock(&c->ns);
		if (last)
			ret = cut_round(c, false, NULL, 0, &e);
		if (!ret)
			ret = cut_commit(c, last, &due, &e);
		(void)pthread_mutex_unlock(&c->ns);
		if (!ret && due)
			ret = cut_round(c, false, NULL, 0, &e);
	}
	if (ret)
		return ret;
	ret = index_sync(c->index, &e);
	if (ret)
		return core_stop(c, ret, &e, "making the index durable");
	if (full)
		reclaim_segments(c);
	return 0;
}

/* --- waiting ------------------------------------------------------------------------------------------------------ */

/* Under sync_lock: leads one cut for all who wait now. */
static void cut_lead(struct core *c)
{
	struct sync_queue mine = STAILQ_HEAD_INITIALIZER(mine);
	struct sync_request *rq;
	struct node **wanted;
	size_t n = 0;
	bool full = false;
	int ret;

	STAILQ_CONCAT(&mine, &c->sync_queue);
	c->cut_running = true;
	(void)pthread_mutex_unlock(&c->sync_lock);
	STAILQ_FOREACH (rq, &mine, link)
		n++;
	wanted = malloc((n + 1) * sizeof(struct node *));
	n = 0;
	STAILQ_FOREACH (rq, &mine, link) {
		full |= !rq->node || !wanted;
		if (wanted && rq->node)
			wanted[n++] = rq->node;
	}
	ret = cut_run(c, full, wanted, n);
	free(wanted);
	if (ret || full) {
		SCOPED_LOCK(&c->memory_lock);
		if (ret) {
			c->cut_failures++;
			c->cut_error = ret;
		}
		(void)pthread_cond_broadcast(&c->memory_cond);
	}
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

int cut_wait(struct core *c, struct node *n)
{
	struct sync_request rq = {.node = n};

	if (c->opt.read_only)
		return 0;
	(void)pthread_mutex_lock(&c->sync_lock);
	if (all_durable(c, n)) {
		(void)pthread_mutex_unlock(&c->sync_lock);
		return atomic_load(&c->failed);
	}
	STAILQ_INSERT_TAIL(&c->sync_queue, &rq, link);
	while (!rq.done) {
		if (c->cut_running)
			(void)pthread_cond_wait(&c->sync_cond, &c->sync_lock);
		else
			cut_lead(c);
	}
	(void)pthread_mutex_unlock(&c->sync_lock);
	return rq.ret;
}

int core_fsync(struct core *c, uint64_t ino, bool data_only)
{
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
		if (c->dirty_bytes > c->dirty_limit / 2)
			return true;
	}
	{
		SCOPED_LOCK(&c->table_lock);
		if (c->dirty_nodes > CUT_DIRTY_NODES)
			return true;
	}
	return index_pending(c->index) > CUT_PENDING;
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
		int ret = cut_wait(c, NULL);

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
