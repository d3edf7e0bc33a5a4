/* The threads that read requests and answer them. */
#include "base/lock.h"
#include "base/log.h"
#include "base/wait.h"
#include "fs/fuse/internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(SESSION_WRITE_HEAD == sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in),
               "data of a WRITE begins in its first block");

#define SMALL ((uint32_t)65536) /* bytes that are read or written soon */

/* The request that this thread works on, and SESSION_BUFFER bytes for it: what brings no data to be kept lies here in
 * one piece, and its answer is built behind it. */
static _Thread_local struct request *current;
static _Thread_local uint8_t *plain;

void *serve_reply_buffer(void)
{
	return plain + SESSION_HEADER;
}

void **serve_write_blocks(void)
{
	return current->block;
}

static bool is_write(const struct request *rq)
{
	return ((const struct fuse_in_header *)rq->head)->opcode == FUSE_WRITE;
}

/* What libfuse is given. It hands a pointer to what would follow the head of a WRITE on to op_write, and does not look
 * there itself. */
static void *request_mem(struct request *rq)
{
	return is_write(rq) ? (void *)rq->head : plain;
}

static void process(struct session *s, struct request *rq)
{
	struct fuse_buf buf = {.size = rq->len, .mem = request_mem(rq), .fd = -1};

	current = rq;
	fuse_session_process_buf(s->se, &buf);
	(void)metrics_lap(s->metrics, METRIC_REQUEST_SECONDS, rq->begin);
	atomic_fetch_add_explicit(&s->done, 1, memory_order_relaxed);
}

/* --- writes ------------------------------------------------------------------------------------------------------- */

static void write_done(struct session *s, const struct request *rq)
{
	if (--s->writing[rq->epoch] == 0)
		(void)pthread_cond_broadcast(&s->drained);
}

/* Sets a WRITE aside with its blocks, and takes a spare one in its place; false when there is none. */
static bool write_park(struct session *s, struct request **rq)
{
	struct request *spare = s->spare;

	if (!spare)
		return false;
	s->spare = spare->next;
	(*rq)->next = NULL;
	*s->parked_end = *rq;
	s->parked_end = &(*rq)->next;
	*rq = spare;
	budget_take(core_budget(s->core), BUDGET_RECEIVE, SESSION_MAX_WRITE);
	return true;
}

/* The next parked WRITE for a thread that is done with one; its own request becomes a spare. */
static bool write_unpark(struct session *s, struct request **rq)
{
	struct request *next = s->parked;

	if (!next)
		return false;
	s->parked = next->next;
	if (!s->parked)
		s->parked_end = &s->parked;
	(*rq)->next = s->spare;
	s->spare = *rq;
	*rq = next;
	budget_give(core_budget(s->core), BUDGET_RECEIVE, SESSION_MAX_WRITE);
	return true;
}

static void process_write(struct session *s, struct request **rq)
{
	bool more = true;
	{
		SCOPED_LOCK(&s->lock);
		(*rq)->epoch = s->epoch;
		s->writing[s->epoch]++;
		if (s->writers >= s->max_writers && write_park(s, rq))
			return;
		s->writers++;
	}
	while (more) {
		process(s, *rq);

		SCOPED_LOCK(&s->lock);
		write_done(s, *rq);
		more = write_unpark(s, rq);
		if (more)
			wait_begin(); /* others may read: that one is not what this thread has read */
		else
			s->writers--;
	}
}

void serve_drain(struct session *s, unsigned seconds)
{
	struct timespec end;

	(void)clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += seconds;
	SCOPED_LOCK(&s->drain_lock);
	/* The kernel keeps all but max_background writes back, and hands out the next when one is answered: as
	 * long as it has any, the device has, or the threads. */
	for (int quiet = 0; quiet < 2;) {
		struct pollfd pfd = {.fd = s->fd, .events = POLLIN};
		struct timespec now, pause = {.tv_nsec = 1000000};

		if (poll(&pfd, 1, 0) == 0) {
			SCOPED_LOCK(&s->lock);
			unsigned old = s->epoch;

			quiet = s->writing[old] == 0 ? quiet + 1 : 0;
			s->epoch = !old;
			while (s->writing[old] != 0) {
				if (pthread_cond_timedwait(&s->drained, &s->lock, &end) == ETIMEDOUT)
					return;
			}
		}
		(void)clock_gettime(CLOCK_REALTIME, &now);
		if (now.tv_sec >= end.tv_sec)
			return;
		/* a thread may have read a WRITE and not counted it yet */
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

/* SESSION_BUFFER has 8 bytes more than len, for wire_request. */
static void flatten(const struct iovec *iov, size_t len)
{
	for (size_t at = 0, k; at < len; at += k, iov++) {
		k = len - at < iov->iov_len ? len - at : iov->iov_len;
		memcpy(plain + at, iov->iov_base, k);
	}
}

/* 0: a request is in rq; -EAGAIN: nothing yet; else why there will be no more. */
static int receive(struct session *s, struct request *rq)
{
	struct iovec iov[1 + SESSION_BLOCKS] = {{rq->head, SESSION_WRITE_HEAD}};

	for (size_t i = 0; i < SESSION_BLOCKS; i++)
		iov[1 + i] = (struct iovec){rq->block[i], POOL_BLOCK};
	ssize_t n = readv(s->fd, iov, 1 + SESSION_BLOCKS);
	if (n < 0)
		return errno == EINTR || errno == ENOENT || errno == EAGAIN ? -EAGAIN : -errno;
	if ((size_t)n < sizeof(struct fuse_in_header))
		return -EIO;
	rq->begin = metrics_now(s->metrics);
	rq->len = (size_t)n;
	if (!is_write(rq))
		flatten(iov, rq->len);
	wire_request(&s->wire, request_mem(rq), &rq->len);
	return 0;
}

int serve_one(struct session *s, struct request *rq)
{
	int ret;

	plain = s->arena;
	do
		ret = receive(s, rq);
	while (ret == -EAGAIN);
	if (ret == 0)
		process(s, rq);
	return ret;
}

static void connection_ended(struct session *s, int ret)
{
	uint64_t one = 1;

	if (atomic_exchange(&s->gone, true))
		return;
	if (ret != -ENODEV && ret != -ECONNABORTED)
		log_error("reading /dev/fuse: %s", strerror(-ret));
	if (write(s->event, &one, sizeof(one)) < 0)
		log_error("cannot wake the main thread: %s", strerror(errno));
}

/*
 * With several threads in read(2) the kernel wakes the one that has slept longest, for each request another one, on
 * another core as a rule. So one thread reads at a time, and as long as nobody else asks for anything, it answers what
 * takes it less time than another thread takes to wake up before it lets the next one read. Where it must let go for
 * each request, that wake-up is one too many: who had to, reads freely afterwards, beside the one that holds `reading`,
 * until it gets a short request again.
 */
static void reading_ends(void *arg)
{
	struct session *s = arg;

	(void)pthread_mutex_unlock(&s->reading);
}

/* How long it takes to answer, unless it has to wait: then wait_begin() lets others read. */
enum length {
	LENGTH_SHORT,
	LENGTH_DATA, /* short, but who asks for that much may soon ask for what is not in memory */
	LENGTH_LONG
};

static enum length request_length(const struct request *rq)
{
	const struct fuse_in_header *in = (const void *)rq->head;
	const void *arg = in + 1;

	switch (in->opcode) {
	case FUSE_READ:
		return ((const struct fuse_read_in *)arg)->size <= SMALL ? LENGTH_DATA : LENGTH_LONG;
	case FUSE_WRITE:
		return ((const struct fuse_write_in *)arg)->size <= SMALL ? LENGTH_DATA : LENGTH_LONG;
	case FUSE_SETATTR:
		return ((const struct fuse_setattr_in *)arg)->valid & FATTR_SIZE ? LENGTH_LONG : LENGTH_SHORT;
	case FUSE_LOOKUP:
	case FUSE_FORGET:
	case FUSE_GETATTR:
	case FUSE_READLINK:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_OPEN:
	case FUSE_RELEASE:
	case FUSE_CREATE:
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		return LENGTH_SHORT;
	default:
		return LENGTH_LONG;
	}
}

static bool is_more_to_read(const struct session *s)
{
	struct pollfd pfd = {.fd = s->fd, .events = POLLIN};

	return poll(&pfd, 1, 0) != 0;
}

/* Any request but a WRITE. */
static void process_other(struct session *s, struct request *rq)
{
	enum beside_turn turn = beside_turn(s, rq, plain);

	if (turn == BESIDE_LEFT)
		return;
	process(s, rq);
	if (turn == BESIDE_CHANGE)
		beside_change_end(s);
	if (!beside_read(s, rq, serve_reply_buffer()))
		return;
	while (beside_left(s, rq, plain)) {
		process(s, rq);
		beside_change_end(s);
	}
}

static void *worker(void *arg)
{
	struct session *s = arg;
	unsigned number = atomic_fetch_add(&s->running, 1);
	struct request *rq = &s->request[number];
	bool reading = false, freely = false;
	int ret = 0;

	plain = s->arena + number * SESSION_BUFFER;
	while (ret == 0 || ret == -EAGAIN) {
		if (!reading && !freely) {
			(void)pthread_mutex_lock(&s->reading);
			reading = true;
		}
		if (atomic_load_explicit(&s->stopping, memory_order_relaxed))
			break;
		ret = receive(s, rq);
		if (ret)
			continue;
		enum length length = request_length(rq);
		if (reading && length != LENGTH_LONG && !is_more_to_read(s))
			wait_hook = (struct wait_hook){reading_ends, s};
		else if (reading)
			reading_ends(s);
		if (is_write(rq))
			process_write(s, &rq);
		else
			process_other(s, rq);
		reading = wait_unhook();
		freely = !reading && length != LENGTH_SHORT;
	}
	if (reading)
		reading_ends(s);
	if (ret && ret != -EAGAIN)
		connection_ended(s, ret);
	atomic_fetch_add(&s->ended, 1);
	return NULL;
}

static void nothing(int signo)
{
	(void)signo;
}

int serve_start(struct session *s)
{
	struct sigaction wake = {.sa_handler = nothing}; /* without SA_RESTART: read() returns */
	sigset_t mask, old;

	if (sigaction(SIGUSR1, &wake, NULL) < 0)
		return -errno;
	(void)sigfillset(&mask);
	(void)sigdelset(&mask, SIGUSR1);
	(void)sigdelset(&mask, SIGSEGV);
	(void)sigdelset(&mask, SIGBUS);
	(void)sigdelset(&mask, SIGFPE);
	(void)sigdelset(&mask, SIGILL);
	(void)sigdelset(&mask, SIGABRT);
	(void)pthread_sigmask(SIG_SETMASK, &mask, &old);
	int ret = 0;
	while (s->started < s->nthreads && ret == 0) {
		ret = pthread_create(&s->thread[s->started], NULL, worker, s);
		if (ret == 0) {
			(void)pthread_setname_np(s->thread[s->started], "apfs-fuse");
			s->started++;
		}
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -ret;
}

bool serve_stop(struct session *s, unsigned seconds)
{
	const struct timespec pause = {.tv_nsec = 10000000};

	beside_stop(s, seconds); /* while the others still answer what it may wait for */
	atomic_store(&s->stopping, true);
	/* A signal that comes just before read() is lost: repeat it. */
	for (unsigned i = 0; i < seconds * 100 && atomic_load(&s->ended) < s->started; i++) {
		if (i > 0 || !atomic_load(&s->gone)) {
			for (unsigned t = 0; t < s->started; t++)
				(void)pthread_kill(s->thread[t], SIGUSR1);
		}
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
	if (atomic_load(&s->ended) < s->started)
		return false;
	for (unsigned t = 0; t < s->started; t++)
		(void)pthread_join(s->thread[t], NULL);
	s->started = 0;
	return true;
}
