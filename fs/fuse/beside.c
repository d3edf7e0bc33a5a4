/*
 * What was decoded beside a page that was read goes to the kernel's cache too, as Btrfs fills the pages of a compressed
 * extent: the next READ of it is none.
 *
 * FUSE_NOTIFY_STORE overwrites what the cache holds, a program's new data as well. So it is for files that nobody can
 * write to, and no request that would change this is worked on meanwhile. It also waits for pages that are being read,
 * until another thread has answered: one thread at a time does this, and who it keeps out of a file does not wait for
 * it, but leaves the request to that thread.
 */
#include "base/lock.h"
#include "fs/fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MIN 3 /* besides the one that does this, one for READ and one for what may wait */

struct beside_request {
	STAILQ_ENTRY(beside_request) link;
	uint64_t begin;
	size_t len;
	uint8_t bytes[];
};

static bool is_change(const struct request *rq)
{
	const struct fuse_in_header *in = (const void *)rq->head;
	const void *arg = in + 1;

	if (in->opcode == FUSE_OPEN) {
		uint32_t flags = ((const struct fuse_open_in *)arg)->flags;

		return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
	}
	return in->opcode == FUSE_SETATTR && (((const struct fuse_setattr_in *)arg)->valid & FATTR_SIZE);
}

/* Leaves a request to the thread that gives the data of its file: a change under way from now on, so that no other
 * thread gives any before it is answered. Under beside_lock. */
static bool leave(struct session *s, const struct request *rq, const void *bytes)
{
	struct beside_request *b = malloc(sizeof(*b) + rq->len);

	if (!b)
		return false;
	b->begin = rq->begin;
	b->len = rq->len;
	memcpy(b->bytes, bytes, rq->len);
	STAILQ_INSERT_TAIL(&s->left, b, link);
	s->changes++;
	return true;
}

enum beside_turn beside_turn(struct session *s, const struct request *rq, const void *bytes)
{
	const struct fuse_in_header *in = (const void *)rq->head;

	if (!is_change(rq))
		return BESIDE_FREE;
	SCOPED_LOCK(&s->beside_lock);
	while (s->giving == in->nodeid) {
		if (leave(s, rq, bytes))
			return BESIDE_LEFT;
		lock_wait(&s->beside_cond, &s->beside_lock);
	}
	s->changes++;
	return BESIDE_CHANGE;
}

void beside_change_end(struct session *s)
{
	SCOPED_LOCK(&s->beside_lock);
	s->changes--;
}

static bool begin(struct session *s, uint64_t ino)
{
	SCOPED_LOCK(&s->beside_lock);
	if (s->giving || s->changes || s->gives_nothing || s->nthreads < THREADS_MIN)
		return false;
	s->giving = ino;
	return true;
}

static void end(struct session *s)
{
	SCOPED_LOCK(&s->beside_lock);
	s->giving = 0;
	(void)pthread_cond_broadcast(&s->beside_cond);
}

static void give(struct session *s, uint64_t ino, uint64_t off, void *buf, size_t len)
{
	struct fuse_bufvec v = FUSE_BUFVEC_INIT(len);

	v.buf[0].mem = buf;
	if (fuse_lowlevel_notify_store(s->se, ino, (off_t)off, &v, 0) == 0)
		metrics_add(s->metrics, METRIC_CACHE_GIVEN, len);
}

bool beside_read(struct session *s, const struct request *rq, void *buf)
{
	const struct fuse_in_header *in = (const void *)rq->head;
	const struct fuse_read_in *arg = (const void *)(in + 1);
	uint64_t off = arg->offset;

	if (in->opcode != FUSE_READ || arg->size >= BESIDE_MAX || (arg->flags & O_DIRECT) || !begin(s, in->nodeid))
		return false;
	size_t n = core_read_beside(s->core, in->nodeid, &off, buf, BESIDE_MAX);
	/* Whole pages: of others the kernel reads all again, but a file's last one it takes for read, and before Linux
	 * 6.13 does not clear what lies behind the file's end. */
	size_t page = (size_t)sysconf(_SC_PAGESIZE), skip = -off % page;
	n = n > skip ? (n - skip) / page * page : 0;
	if (n > arg->size) {
		wait_begin();
		give(s, in->nodeid, off + skip, (uint8_t *)buf + skip, n);
	}
	end(s);
	return true;
}

bool beside_left(struct session *s, struct request *rq, void *bytes)
{
	struct beside_request *b;
	{
		SCOPED_LOCK(&s->beside_lock);
		b = STAILQ_FIRST(&s->left);
		if (!b)
			return false;
		STAILQ_REMOVE_HEAD(&s->left, link);
	}
	wait_begin(); /* others may read: that one is not what this thread has read */
	rq->begin = b->begin;
	rq->len = b->len;
	memcpy(rq->head, b->bytes, b->len < sizeof(rq->head) ? b->len : sizeof(rq->head));
	memcpy(bytes, b->bytes, b->len);
	free(b);
	return true;
}

void beside_stop(struct session *s, unsigned seconds)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	SCOPED_LOCK(&s->beside_lock);
	s->gives_nothing = true;
	while (s->giving && pthread_cond_timedwait(&s->beside_cond, &s->beside_lock, &until) != ETIMEDOUT)
		;
}
