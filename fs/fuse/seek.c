/*
 * LSEEK of a file that somebody may write to. The kernel, which does not send what it holds first, knows a size that we
 * may not have heard of: it is asked to write back what lies beyond ours. That has to be done by a thread that answers
 * no requests, since the kernel waits for the answers to those writes; it sends no others for the file meanwhile.
 */
#include "base/lock.h"
#include "base/log.h"
#include "fs/fuse/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE          4096u
#define DRAIN_SECONDS 5

struct seek_job {
	fuse_req_t req;
	struct core_file *file;
	uint64_t ino, off;
	int whence;
	STAILQ_ENTRY(seek_job) link;
};

static void answer(const struct seek_job *job)
{
	uint64_t found = 0;
	int ret = core_file_seek(job->file, job->off, job->whence, &found);

	if (ret)
		op_reply(job->req, ret);
	else
		(void)fuse_reply_lseek(job->req, (off_t)found);
}

/* Nothing has been stored beyond our size, so of the kernel's cache only what it has not sent is lost. */
static void write_back(struct session *s, const struct seek_job *job)
{
	struct core_attr a;

	if (core_getattr(s->core, job->ino, &a))
		return;
	int ret = fuse_lowlevel_notify_inval_inode(s->se, job->ino, (off_t)(a.size & ~(uint64_t)(PAGE - 1)), 0);
	if (ret)
		log_debug("asking the kernel to write back inode %llu: %s", (unsigned long long)job->ino,
		          strerror(-ret));
	if (!s->waits_for_writes)
		serve_drain(s, DRAIN_SECONDS);
}

static void *seek_main(void *arg)
{
	struct session *s = arg;
	struct seek_job *job;

	(void)pthread_mutex_lock(&s->lock);
	while (!s->seek_end || !STAILQ_EMPTY(&s->seeks)) {
		job = STAILQ_FIRST(&s->seeks);
		if (!job) {
			(void)pthread_cond_wait(&s->seek_cond, &s->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&s->seeks, link);
		bool ending = s->seek_end;
		(void)pthread_mutex_unlock(&s->lock);
		if (!ending)
			write_back(s, job);
		answer(job);
		free(job);
		(void)pthread_mutex_lock(&s->lock);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Under s->lock: most mounts never need the thread. */
static int seek_start(struct session *s)
{
	if (s->seek_started)
		return 0;
	int ret = pthread_create(&s->seek_thread, NULL, seek_main, s);
	if (ret)
		return -ret;
	(void)pthread_setname_np(s->seek_thread, "apfs-seek");
	s->seek_started = true;
	return 0;
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct session *s = op_session(req);
	const struct seek_job now = {
	    .req = req, .file = op_file(fi), .ino = ino, .off = (uint64_t)off, .whence = whence};
	struct seek_job *job = core_file_is_written(now.file) ? malloc(sizeof(*job)) : NULL;

	if (job) {
		*job = now;
		SCOPED_LOCK(&s->lock);
		if (!seek_start(s)) {
			STAILQ_INSERT_TAIL(&s->seeks, job, link);
			(void)pthread_cond_signal(&s->seek_cond);
			return;
		}
	}
	free(job);
	answer(&now);
}

bool seek_stop(struct session *s, unsigned seconds)
{
	struct timespec end;
	{
		SCOPED_LOCK(&s->lock);
		s->seek_end = true;
		(void)pthread_cond_signal(&s->seek_cond);
	}
	if (!s->seek_started)
		return true;
	(void)clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += seconds;
	if (pthread_timedjoin_np(s->seek_thread, NULL, &end))
		return false; /* still inside of the kernel */
	s->seek_started = false;
	return true;
}
