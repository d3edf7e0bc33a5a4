#include "tools/control.h"
#include "base/log.h"
#include "fs/core/core.h"
#include "tools/metrics_text.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define QUESTION_MAX 64u
#define ANSWER_MAX   ((size_t)16 << 20) /* bytes that are believed to be one */
#define BACKLOG      8
#define TURN         1000 /* ms that one who asks may take: those who wait outlast a full backlog of them */
#define PATIENCE     15   /* seconds to wait for an answer */

struct control {
	struct core *core;
	pthread_t thread;
	int listener, stop; /* stop: eventfd */
	struct sockaddr_un addr;
	char dir[80];
	bool own_dir; /* for this socket alone, and removed with it */
};

/* --- the place ---------------------------------------------------------------------------------------------------- */

/* Whether the directory is, or can be made, one that nobody else can enter. */
static bool dir_private(const char *path)
{
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return false;
	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 077) == 0;
}

/* The mount tells the path, so it need not be one that can be guessed. */
static int dir_find(char *path, size_t len, bool *own)
{
	const char *runtime = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");

	if (runtime && *runtime == '/' && (size_t)snprintf(path, len, "%s/apfs", runtime) < len && dir_private(path))
		return 0;
	(void)snprintf(path, len, "/tmp/apfs-%u", (unsigned)geteuid());
	if (dir_private(path))
		return 0;
	/* Somebody else was first there. */
	(void)snprintf(path, len, "/tmp/apfs-%u-XXXXXX", (unsigned)geteuid());
	*own = mkdtemp(path) != NULL;
	return *own ? 0 : -errno;
}

/* Sockets are named after the process that listens: those of processes that were killed are left over. */
static void dir_sweep(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		char *end;
		long pid = strtol(entry->d_name, &end, 10);

		if (pid > 0 && strcmp(end, ".sock") == 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH)
			(void)unlinkat(dirfd(d), entry->d_name, 0);
	}
	if (d)
		(void)closedir(d);
}

static int socket_open(struct control *c, struct err *e)
{
	int ret = dir_find(c->dir, sizeof(c->dir), &c->own_dir);

	if (ret)
		return err_set(e, ret, ERR_USAGE, "%s cannot be made: %s", c->dir, strerror(-ret));
	dir_sweep(c->dir);
	c->addr.sun_family = AF_UNIX;
	(void)snprintf(c->addr.sun_path, sizeof(c->addr.sun_path), "%s/%ld.sock", c->dir, (long)getpid());
	c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listener < 0)
		return err_set(e, -errno, ERR_IO, "%s", strerror(errno));
	(void)unlink(c->addr.sun_path);
	if (bind(c->listener, (const void *)&c->addr, sizeof(c->addr)) < 0)
		return err_set(e, -errno, ERR_IO, "%s: %s", c->addr.sun_path, strerror(errno));
	if (chmod(c->addr.sun_path, 0600) < 0 || listen(c->listener, BACKLOG) < 0) {
		int code = errno;

		(void)unlink(c->addr.sun_path);
		return err_set(e, -code, ERR_IO, "%s: %s", c->addr.sun_path, strerror(code));
	}
	return 0;
}

/* --- answering ---------------------------------------------------------------------------------------------------- */

static bool peer_allowed(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && (peer.uid == 0 || peer.uid == getuid());
}

/* One who asks, and until when. */
struct turn {
	const struct control *c;
	int fd;
	uint64_t end; /* ms */
};

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Whether fd can go on; false: its turn is over, or the mount's. */
static bool turn_wait(const struct turn *t, short events)
{
	struct pollfd fds[2] = {{.fd = t->fd, .events = events}, {.fd = t->c->stop, .events = POLLIN}};
	uint64_t now = now_ms();

	return now < t->end && poll(fds, 2, (int)(t->end - now)) > 0 && !fds[1].revents;
}

/* False: nobody asked in time, or not with a line. */
static bool read_question(const struct turn *t, char *line)
{
	size_t len = 0;

	while (len < QUESTION_MAX - 1 && turn_wait(t, POLLIN)) {
		ssize_t n = recv(t->fd, line + len, QUESTION_MAX - 1 - len, 0);

		if (n <= 0)
			return false;
		len += (size_t)n;
		char *end = memchr(line, '\n', len);
		if (end) {
			*end = 0;
			return true;
		}
	}
	return false;
}

static void answer(const struct control *c, const char *question, FILE *f)
{
	const struct metrics *m = core_metrics(c->core);

	if (!m)
		(void)fprintf(f, "!metrics are switched off (no-metrics)\n");
	else if (strcmp(question, "prometheus") == 0)
		metrics_print_prometheus(m, f);
	else if (strcmp(question, "json") != 0)
		(void)fprintf(f, "!this mount does not know the question '%s'\n", question);
	else if (metrics_print_json(m, f))
		(void)fprintf(f, "!out of memory\n");
}

static void send_answer(const struct turn *t, const char *data, size_t len)
{
	while (len > 0 && turn_wait(t, POLLOUT)) {
		ssize_t n = send(t->fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

static void serve(const struct control *c, int fd)
{
	const struct turn t = {.c = c, .fd = fd, .end = now_ms() + TURN};
	char line[QUESTION_MAX], *text = NULL;
	size_t len = 0;

	if (!peer_allowed(fd) || !read_question(&t, line))
		return;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return;
	answer(c, line, f);
	if (fclose(f) == 0)
		send_answer(&t, text, len);
	free(text);
}

static void *control_main(void *arg)
{
	struct control *c = arg;
	struct pollfd fds[2] = {{.fd = c->listener, .events = POLLIN}, {.fd = c->stop, .events = POLLIN}};

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents)
			break;
		int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			continue;
		serve(c, fd);
		(void)close(fd);
	}
	return NULL;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static void control_close(struct control *c)
{
	if (c->listener >= 0)
		(void)close(c->listener);
	if (c->stop >= 0)
		(void)close(c->stop);
	if (c->own_dir)
		(void)rmdir(c->dir);
	free(c);
}

int control_new(struct core *core, struct control **out, struct err *e)
{
	struct control *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(e, -ENOMEM, ERR_MEMORY, "out of memory");
	c->core = core;
	c->listener = -1;
	c->stop = eventfd(0, EFD_CLOEXEC);
	int ret = c->stop < 0 ? err_set(e, -errno, ERR_MEMORY, "%s", strerror(errno)) : socket_open(c, e);
	if (!ret) {
		ret = -pthread_create(&c->thread, NULL, control_main, c);
		if (ret) {
			(void)unlink(c->addr.sun_path);
			(void)err_set(e, ret, ERR_MEMORY, "no thread: %s", strerror(-ret));
		}
	}
	if (ret) {
		control_close(c);
		return ret;
	}
	(void)pthread_setname_np(c->thread, "apfs-control");
	*out = c;
	return 0;
}

const char *control_path(const struct control *c)
{
	return c->addr.sun_path;
}

void control_free(struct control *c)
{
	const uint64_t one = 1;

	if (!c)
		return;
	(void)unlink(c->addr.sun_path);
	if (write(c->stop, &one, sizeof(one)) < 0)
		log_error("cannot end the thread of the control socket: %s", strerror(errno));
	(void)pthread_join(c->thread, NULL);
	control_close(c);
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

static void set_patience(int fd)
{
	const struct timeval t = {.tv_sec = PATIENCE};

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static int read_answer(int fd, char **out)
{
	size_t len = 0, room = 65536;
	char *text = malloc(room);

	while (text) {
		ssize_t n = recv(fd, text + len, room - len - 1, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || room > ANSWER_MAX) {
			int ret = n >= 0 ? -EPROTO : errno == EAGAIN ? -ETIMEDOUT : -errno;

			free(text);
			return ret;
		}
		len += (size_t)n;
		text[len] = 0;
		if (n == 0) {
			*out = text;
			return 0;
		}
		if (room - len < 2) {
			char *more = realloc(text, room * 2);

			if (!more)
				free(text);
			text = more;
			room *= 2;
		}
	}
	return -ENOMEM;
}

static int gone(struct err *e)
{
	return err_set(e, -ENOTCONN, ERR_USAGE, "the mount is gone");
}

static int ask(int fd, const char *path, const char *question, char **out, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char line[QUESTION_MAX];

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, -EPROTO, ERR_FORMAT, "the mount names an impossible socket");
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	set_patience(fd);
	if (connect(fd, (const void *)&addr, sizeof(addr)) < 0)
		return errno == ENOENT || errno == ECONNREFUSED
		           ? gone(e)
		           : err_set(e, -errno, ERR_IO, "%s",
		                     errno == EACCES ? "only root and the user who mounted it may ask"
		                                     : strerror(errno));
	/* Few bytes, which a socket takes at once. Should it not, no answer comes. */
	(void)snprintf(line, sizeof(line), "%s\n", question);
	(void)send(fd, line, strlen(line), MSG_NOSIGNAL);
	int ret = read_answer(fd, out);
	if (ret == -ECONNRESET)
		return gone(e);
	if (ret)
		return err_set(e, ret, ERR_IO, "the mount does not answer: %s", strerror(-ret));
	if (**out && **out != '!')
		return 0;
	(*out)[strcspn(*out, "\n")] = 0;
	ret = err_set(e, -EPROTO, ERR_USAGE, "%s", **out ? *out + 1 : "the mount does not answer");
	free(*out);
	*out = NULL;
	return ret;
}

int control_ask(const char *path, const char *question, char **out, struct err *e)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_set(e, -errno, ERR_IO, "%s", strerror(errno));
	int ret = ask(fd, path, question, out, e);
	(void)close(fd);
	return ret;
}
