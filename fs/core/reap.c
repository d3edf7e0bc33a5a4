/*
 * Deleting what the index has of an inode. A file of very many extents goes in steps, with commits in between: its
 * deletion as one transaction would take memory, and space in the index's log, in proportion. Until it is done the
 * inode's row says that it has no links, so that the next mount finishes what this one does not.
 */
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STEP    512u /* extents deleted at a time */
#define AT_ONCE 16u  /* steps that whoever deletes does himself */
#define PENDING ((size_t)8 << 20)

/* *some: as much of a hole as one step enters. */
static int step_of(struct core *c, uint64_t ino, const struct index_extent *hole, struct index_extent *some)
{
	struct index_extent *x = malloc(STEP * sizeof(*x));
	uint64_t end = hole->off + hole->len;
	size_t n = 0;
	int ret = x ? index_extent_list(c->index, ino, hole->off, end, x, STEP, &n) : -ENOMEM;

	*some = *hole;
	if (n == STEP && x[n - 1].off + x[n - 1].len < end)
		some->len = x[n - 1].off + x[n - 1].len - hole->off;
	free(x);
	return ret;
}

int extents_clear_step(struct core *c, uint64_t ino, struct index_extent *hole, uint64_t *gone)
{
	struct index_extent some;
	int ret = step_of(c, ino, hole, &some);

	if (!ret)
		ret = index_extent_replace(c->index, ino, &some, gone);
	if (!ret) {
		hole->off += some.len;
		hole->len -= some.len;
	}
	return ret;
}

int reap_step(struct core *c, uint64_t ino, bool *more)
{
	static const struct index_extent all = {.len = INDEX_OFFSET_MAX};
	struct index_extent some;
	int ret = step_of(c, ino, &all, &some);

	*more = !ret && some.len < all.len;
	if (ret)
		return ret;
	return *more ? index_extent_set(c->index, ino, &some) : index_inode_delete(c->index, ino);
}

static int queue(struct core *c, uint64_t ino)
{
	uint64_t *bigger = realloc(c->reaping, (c->nreaping + 1) * sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	c->reaping = bigger;
	c->reaping[c->nreaping++] = ino;
	return 0;
}

int reap_inode(struct core *c, const struct index_inode *row)
{
	bool more = true;
	int ret = 0;

	for (unsigned i = 0; i < AT_ONCE && more && !ret; i++)
		ret = reap_step(c, row->ino, &more);
	if (ret || !more)
		return ret;
	ret = index_inode_put(c->index, row);
	if (!ret && queue(c, row->ino))
		log_warn("no memory to go on deleting inode %llu: the next mount does it",
		         (unsigned long long)row->ino);
	committer_kick(c);
	return ret;
}

/* One step of the last in the queue: false when there is none left, or deleting fails. */
static bool next_step(struct core *c)
{
	bool more = false;
	int ret;

	SCOPED_LOCK(&c->ns);
	if (!c->nreaping || core_may_write(c))
		return false;
	ret = reap_step(c, c->reaping[c->nreaping - 1], &more);
	atomic_store(&c->ns_dirty, true);
	space_freed(c);
	if (ret)
		log_warn("inode %llu could not be deleted to the end (%s): the next mount does it",
		         (unsigned long long)c->reaping[c->nreaping - 1], strerror(-ret));
	if (ret || !more)
		c->nreaping--;
	return true;
}

bool reap_rest(struct core *c)
{
	bool any = false;

	while (next_step(c)) {
		any = true;
		if (index_pending(c->index) > space_pending_max(c, PENDING) && cut_wait(c, NULL))
			break; /* it is tried again with the next cut */
	}
	return any;
}
