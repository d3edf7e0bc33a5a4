/* The end of a mount: by umount(8), or by a signal or idleness, which we answer with an unmount of our own. */
#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "fs/fuse/internal.h"
#include "fs/fuse/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_SECONDS  30 /* for the kernel's writes, once it has sent them */
#define STALL_SECONDS  30 /* without a single answer while closing */
#define LINGER_SECONDS 5  /* from our unmount to the connection's end */

struct closing {
	struct session *s;
	pthread_t thread;
	bool started;
	bool idle; /* nobody wants it to end: it stays where the kernel knows of a user */
	atomic_bool finished, busy;
	uint64_t used, used_at; /* requests that were uses, and when that number was last another; ns */
	uint64_t done;
	unsigned stalled, lingered; /* seconds */
};

/* Has the kernel write what it holds. */
static int write_back(const struct session *s)
{
	int ret, fd = open(s->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	do
		ret = syncfs(fd) ? -errno : 0;
	while (ret == -EINTR); /* as in mounted_sync */
	if (ret)
		log_warn("writing back the kernel's cache: %s", strerror(-ret));
	(void)close(fd);
	return ret;
}

/* While the threads still answer: what the kernel holds is written, then the mount goes. One that nobody asked to go
 * does not while it holds what it cannot store. */
static void *closing_main(void *arg)
{
	struct closing *c = arg;
	struct session *s = c->s;
	uint64_t one = 1;
	bool covered = session_is_covered(s);
	int ret = covered ? -EBUSY : write_back(s);

	serve_drain(s, DRAIN_SECONDS);
	if (c->idle && !ret)
		ret = core_sync(s->core);
	if (!covered && !(c->idle && ret)) {
		ret = mountinfo_unmount(s->mountpoint, false);
		if (ret && ret != -EBUSY && ret != -EINVAL)
			log_warn("unmounting: %s", strerror(-ret));
	}
	atomic_store(&c->busy, ret && ret != -EINVAL);
	atomic_store(&c->finished, true);
	if (write(s->event, &one, sizeof(one)) < 0)
		log_error("cannot wake the main thread: %s", strerror(errno));
	return NULL;
}

static void closing_begin(struct closing *c)
{
	if (pthread_create(&c->thread, NULL, closing_main, c) == 0) {
		c->started = true;
	} else {
		atomic_store(&c->busy, true);
		atomic_store(&c->finished, true);
	}
}

/* Somebody has it as working directory, has a directory open, or has come just now. */
static void closing_undo(struct closing *c)
{
	if (c->started)
		(void)pthread_join(c->thread, NULL);
	c->started = false;
	atomic_store(&c->finished, false);
	atomic_store(&c->busy, false);
	c->used_at = clock_system.monotonic(&clock_system);
}

static bool is_idle(struct session *s, struct closing *c)
{
	uint64_t now = clock_system.monotonic(&clock_system);
	uint64_t used = atomic_load(&s->done) - atomic_load(&s->asked);

	SCOPED_LOCK(&s->handle_lock);
	if (used != c->used || !LIST_EMPTY(&s->handles)) {
		c->used = used;
		c->used_at = now;
	}
	return s->idle_ms && now - c->used_at >= s->idle_ms * 1000000;
}

/* The mount cannot be ended in the polite way: whoever still uses it sees ENOTCONN from here on. As root the connection
 * is cut as well, which frees a thread of ours that waits for the kernel. */
static void closing_force(struct session *s)
{
	if (session_is_covered(s)) /* it ends with its device */
		return;
	(void)umount2(s->mountpoint, MNT_FORCE | UMOUNT_NOFOLLOW);
	if (mountinfo_unmount(s->mountpoint, true))
		log_debug("%s is not mounted any more", s->mountpoint);
}

/* Waits for a signal, the connection's end, the closing thread's end, or the time. */
static int wait_event(struct session *s, int sigfd, int timeout_ms, unsigned *signo)
{
	struct pollfd pfd[2] = {{.fd = sigfd, .events = POLLIN}, {.fd = s->event, .events = POLLIN}};
	struct signalfd_siginfo info;
	uint64_t count = 0;

	*signo = 0;
	int n = poll(pfd, 2, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	if ((pfd[0].revents & POLLIN) && read(sigfd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		*signo = info.ssi_signo;
	if ((pfd[1].revents & POLLIN) && read(s->event, &count, sizeof(count)) < 0)
		count = 0;
	return 0;
}

static void closing_look(struct session *s, struct closing *c, unsigned signo)
{
	if (signo)
		log_info("signal %u: unmounting", signo);
	else if (is_idle(s, c))
		log_debug("not used for %llu s: unmounting", (unsigned long long)(s->idle_ms / 1000));
	else
		return;
	c->idle = !signo;
	closing_begin(c);
}

/* Whether closing, which has begun, has gone as far as it can. */
static bool closing_over(struct session *s, struct closing *c, unsigned signo)
{
	if (signo && !c->idle)
		return true; /* a second signal: at once */
	if (signo) {
		log_info("signal %u: unmounting", signo);
		c->idle = false;
	}
	if (atomic_load(&c->busy)) {
		if (c->idle)
			closing_undo(c);
		else
			log_warn("%s", session_is_covered(s) ? "something else is mounted over it, and stays"
			                                     : "files are still open: they end with the mount");
		return !c->idle;
	}
	if (c->idle)
		return false; /* no hurry: where it is mounted in another namespace too, it goes on there */
	if (atomic_load(&c->finished) && ++c->lingered > LINGER_SECONDS)
		return true; /* the same */
	uint64_t done = atomic_load(&s->done);
	c->stalled = done == c->done ? c->stalled + 1 : 0;
	c->done = done;
	return c->stalled > STALL_SECONDS;
}

static int look_ms(const struct session *s, bool closing)
{
	if (closing)
		return 1000;
	if (!s->idle_ms)
		return -1;
	return s->idle_ms / 8 > 60000 ? 60000 : (int)(s->idle_ms / 8);
}

/* Until the kernel has ended the connection, or closing has gone as far as it can. */
static void wait_end(struct session *s, struct closing *c, int sigfd)
{
	unsigned signo = 0;

	while (!atomic_load(&s->gone)) {
		bool closing = c->started || atomic_load(&c->finished);

		if (wait_event(s, sigfd, look_ms(s, closing), &signo))
			return;
		if (!closing)
			closing_look(s, c, signo);
		else if (closing_over(s, c, signo))
			return;
	}
}

int session_serve(struct session *s)
{
	struct closing c = {.s = s, .used_at = clock_system.monotonic(&clock_system)};
	sigset_t mask;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGHUP);
	int sigfd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sigfd < 0)
		return -errno;

	wait_end(s, &c, sigfd);
	(void)close(sigfd);
	bool stopped = serve_stop(s, STALL_SECONDS);
	if (!atomic_load(&s->gone) && (atomic_load(&c.busy) || !atomic_load(&c.finished)))
		closing_force(s);
	if (!stopped || !seek_stop(s, LINGER_SECONDS))
		return -ETIMEDOUT;
	if (c.started) {
		struct timespec end;

		(void)clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += LINGER_SECONDS;
		if (pthread_timedjoin_np(c.thread, NULL, &end) != 0)
			return -ETIMEDOUT; /* still inside of the kernel */
	}
	return 0;
}
