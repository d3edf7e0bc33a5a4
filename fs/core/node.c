#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NODES_IDLE_MAX  8192u
#define LOOKUP_PAGE     512u                 /* inode numbers a page: consecutive ones, which are listed together */
#define RELATIME        ((int64_t)24 * 3600) /* seconds: a read makes an access time older than this new */
#define DIR_ENTRY_BYTES 32u                  /* what st_size counts for each entry of a directory */

/* Counts of the kernel's references, apart from nodes: a million listed inodes cost 4 MB here. */
struct lookup_page {
	UT_hash_handle hh;
	uint64_t number; /* ino / LOOKUP_PAGE */
	uint32_t live;   /* counts that are not zero */
	uint32_t count[LOOKUP_PAGE];
};

static struct lookup_page *lookup_page_find(struct core *c, uint64_t ino)
{
	uint64_t number = ino / LOOKUP_PAGE;
	struct lookup_page *p;

	HASH_FIND(hh, c->lookups, &number, sizeof(number), p);
	return p;
}

void lookup_add(struct core *c, uint64_t ino, uint32_t count)
{
	SCOPED_LOCK(&c->table_lock);
	struct lookup_page *p = lookup_page_find(c, ino);

	if (!p) {
		/* Without a page the inode only looks forgotten too early, which costs a lookup. */
		p = calloc(1, sizeof(*p));
		if (!p)
			return;
		p->number = ino / LOOKUP_PAGE;
		HASH_ADD(hh, c->lookups, number, sizeof(p->number), p);
		if (!p->hh.tbl) {
			free(p);
			return;
		}
	}
	p->live += p->count[ino % LOOKUP_PAGE] == 0;
	p->count[ino % LOOKUP_PAGE] += count;
}

uint32_t lookup_sub(struct core *c, uint64_t ino, uint64_t count)
{
	SCOPED_LOCK(&c->table_lock);
	struct lookup_page *p = lookup_page_find(c, ino);
	uint32_t *n;

	if (!p)
		return 0;
	n = &p->count[ino % LOOKUP_PAGE];
	if (!*n)
		return 0;
	if (count < *n) {
		*n -= (uint32_t)count;
		return *n;
	}
	*n = 0;
	if (--p->live == 0) {
		HASH_DEL(c->lookups, p);
		free(p);
	}
	return 0;
}

static uint32_t lookup_count(struct core *c, uint64_t ino)
{
	struct lookup_page *p = lookup_page_find(c, ino);

	return p ? p->count[ino % LOOKUP_PAGE] : 0;
}

static struct node *node_alloc(struct core *c, uint64_t ino)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->ino = ino;
	n->refs = 1;
	(void)pthread_mutex_init(&n->lock, NULL);
	map_init(&n->map, &c->pieces);
	return n;
}

static void node_free(struct node *n)
{
	map_release(&n->map);
	(void)pthread_mutex_destroy(&n->lock);
	free(n);
}

static void node_unlist(struct core *c, struct node *n)
{
	if (n->hh.tbl)
		HASH_DEL(c->table, n);
}

/* Under the table's lock. */
static struct node *node_find(struct core *c, uint64_t ino)
{
	struct node *n;

	HASH_FIND(hh, c->table, &ino, sizeof(ino), n);
	if (n && n->refs++ == 0) {
		TAILQ_REMOVE(&c->lru, n, lru);
		c->idle_nodes--;
	}
	return n;
}

static int node_add(struct core *c, struct node *n)
{
	HASH_ADD(hh, c->table, ino, sizeof(n->ino), n);
	return n->hh.tbl ? 0 : -ENOMEM;
}

struct node *node_peek(struct core *c, uint64_t ino)
{
	SCOPED_LOCK(&c->table_lock);

	return node_find(c, ino);
}

static int node_load(struct core *c, struct node *n)
{
	SCOPED_LOCK(&n->lock);
	int ret;

	if (n->gone)
		return -ENOENT;
	if (n->loaded)
		return 0;
	ret = index_inode_get(c->index, n->ino, &n->attr);
	if (!ret && !n->attr.nlink)
		ret = -ENOENT; /* what is left of it is being deleted */
	if (ret) {
		n->gone = ret == -ENOENT;
		return ret;
	}
	n->loaded = true;
	n->in_index = true;
	n->cut_size = n->attr.size;
	n->cut_bytes = n->attr.blocks * 512;
	return 0;
}

int node_get(struct core *c, uint64_t ino, struct node **out)
{
	struct node *n;
	int ret = 0;

	core_busy(c);
	{
		SCOPED_LOCK(&c->table_lock);
		n = node_find(c, ino);
		if (!n) {
			n = node_alloc(c, ino);
			ret = n ? node_add(c, n) : -ENOMEM;
			if (ret) {
				if (n)
					node_free(n);
				return ret;
			}
		}
	}
	ret = node_load(c, n);
	if (ret) {
		node_put(c, n);
		return ret;
	}
	*out = n;
	return 0;
}

int node_create(struct core *c, const struct index_inode *attr, struct node **out)
{
	struct node *n = node_alloc(c, attr->ino);
	int ret;

	if (!n)
		return -ENOMEM;
	n->attr = *attr;
	n->loaded = true;
	{
		SCOPED_LOCK(&c->table_lock);
		ret = node_add(c, n);
	}
	if (ret) {
		node_free(n);
		return ret;
	}
	*out = n;
	return 0;
}

void node_put(struct core *c, struct node *n)
{
	SCOPED_LOCK(&c->table_lock);
	struct node *old;

	if (--n->refs)
		return;
	if (n->gone || !n->loaded) {
		node_unlist(c, n);
		node_free(n);
		return;
	}
	TAILQ_INSERT_TAIL(&c->lru, n, lru);
	if (++c->idle_nodes <= NODES_IDLE_MAX)
		return;
	old = TAILQ_FIRST(&c->lru);
	TAILQ_REMOVE(&c->lru, old, lru);
	c->idle_nodes--;
	node_unlist(c, old);
	node_free(old);
}

void node_dirty(struct core *c, struct node *n)
{
	SCOPED_LOCK(&c->table_lock);

	if (n->listed || n->gone)
		return;
	n->listed = true;
	n->refs++;
	TAILQ_INSERT_TAIL(&c->dirty, n, on_dirty);
	c->dirty_nodes++;
}

int node_list_dirty(struct core *c, struct node ***list, size_t *n)
{
	struct node *node;

	SCOPED_LOCK(&c->table_lock);
	*n = 0;
	*list = malloc((c->dirty_nodes + 1) * sizeof(struct node *));
	if (!*list)
		return -ENOMEM;
	TAILQ_FOREACH (node, &c->dirty, on_dirty) {
		(*list)[(*n)++] = node;
		node->refs++;
	}
	return 0;
}

bool node_durable(const struct node *n)
{
	return !n->attr_dirty && !n->map.dirty && (!S_ISREG(n->attr.mode) || n->attr.size == n->cut_size);
}

void node_clean(struct core *c, struct node *n)
{
	if (!n->gone && !node_durable(n))
		return;
	SCOPED_LOCK(&c->table_lock);
	if (!n->listed)
		return;
	n->listed = false;
	TAILQ_REMOVE(&c->dirty, n, on_dirty);
	c->dirty_nodes--;
	n->refs--; /* not the last: the caller has one */
}

int node_reap(struct core *c, struct node *n)
{
	int ret = 0;

	SCOPED_LOCK(&n->lock);
	if (n->gone || n->attr.nlink)
		return 0;
	{
		SCOPED_LOCK(&c->table_lock);
		if (n->opens || lookup_count(c, n->ino))
			return 0;
	}
	/* A cut under way skips inodes that are gone; what it has installed already goes with the row. */
	if (n->in_index || n->in_cut || n->attr.flags || S_ISLNK(n->attr.mode))
		ret = reap_inode(c, &n->attr);
	if (ret)
		return ret;
	space_freed(c);
	n->gone = true;
	n->attr_dirty = false;
	map_release(&n->map);
	map_init(&n->map, &c->pieces);
	node_clean(c, n);
	SCOPED_LOCK(&c->table_lock);
	n->refs--; /* the reference that nlink 0 held: node_orphan */
	return 0;
}

void node_reap_or_leave(struct core *c, struct node *n)
{
	int ret = node_reap(c, n);

	atomic_store(&c->ns_dirty, true);
	if (ret)
		log_warn("unlinked inode %llu could not be deleted (%s); the next mount will do it",
		         (unsigned long long)n->ino, strerror(-ret));
}

void node_reap_logged(struct core *c, struct node *n)
{
	SCOPED_LOCK(&c->ns);
	if (!core_may_write(c))
		node_reap_or_leave(c, n);
}

void node_table_release(struct core *c)
{
	struct node *n, *next;
	struct lookup_page *p, *q;

	HASH_ITER (hh, c->table, n, next) {
		HASH_DEL(c->table, n);
		node_free(n);
	}
	HASH_ITER (hh, c->lookups, p, q) {
		HASH_DEL(c->lookups, p);
		free(p);
	}
}

void node_attr(const struct node *n, struct core_attr *out)
{
	const struct index_inode *a = &n->attr;
	bool dir = S_ISDIR(a->mode);

	*out = (struct core_attr){
	    .ino = a->ino,
	    .generation = a->generation,
	    .size = dir ? a->size * DIR_ENTRY_BYTES : a->size,
	    .blocks = a->blocks + n->pending_bytes / 512,
	    .mode = a->mode,
	    .nlink = a->nlink,
	    .uid = a->uid,
	    .gid = a->gid,
	    .rdev = a->rdev,
	    .atime = a->atime,
	    .mtime = a->mtime,
	    .ctime = a->ctime,
	    .btime = a->btime,
	    .written = n->writers,
	};
	/* A file with data must not look like one hole: tar -S would drop it. */
	if (!out->blocks && S_ISREG(a->mode) && a->size && n->map.dirty)
		out->blocks = 1;
}

void node_orphan(struct core *c, struct node *n)
{
	node_ref(c, n);
}

void node_named(struct core *c, struct node *n)
{
	n->nameless = false;
	SCOPED_LOCK(&c->table_lock);
	n->refs--; /* not the last: the caller has one */
}

void node_touch(struct core *c, struct node *n)
{
	n->attr_dirty = true;
	node_dirty(c, n);
}

static bool time_before(struct clock_time a, struct clock_time b)
{
	return a.sec < b.sec || (a.sec == b.sec && a.nsec < b.nsec);
}

void node_accessed(struct core *c, struct node *n)
{
	struct index_inode *a = &n->attr;
	struct clock_time now;

	if (c->opt.read_only || c->opt.noatime)
		return;
	now = core_now(c);
	if (!time_before(a->atime, a->mtime) && !time_before(a->atime, a->ctime) && now.sec - a->atime.sec < RELATIME)
		return;
	a->atime = now;
	node_touch(c, n);
}

struct clock_time core_now(const struct core *c)
{
	return c->clock->now(c->clock);
}

uint64_t core_monotonic(const struct core *c)
{
	return c->clock->monotonic(c->clock);
}

int core_stop(struct core *c, int ret, const struct err *e, const char *what)
{
	int none = 0;

	if (atomic_compare_exchange_strong(&c->failed, &none, ret))
		log_error(
		    "%s failed: %s; the volume is read-only from now on: unmount, check the disk of STORE, mount again",
		    what, err_text(e, ret));
	return ret;
}

int core_may_write(struct core *c)
{
	if (c->opt.read_only)
		return -EROFS;
	/* A read may have lost the index's transaction. */
	if (index_failed(c->index))
		(void)core_stop(c, -EIO, NULL, "using the index");
	return atomic_load(&c->failed) ? -EROFS : 0;
}

int core_index_result(struct core *c, int ret, const struct err *e, const char *what)
{
	return ret && index_failed(c->index) ? core_stop(c, ret, e, what) : ret;
}
