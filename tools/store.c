#include "tools/store.h"
#include "fs/core/core.h"
#include "pipeline/superblock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NOTE     CORE_FILE_LOCK
#define NOTE_MAX 256
#define ENDING   " ending" /* at its end: nothing is mounted any more, and the last commit is being made */

#define STEP_MS   20u
#define NOTICE_MS 500u   /* until a process has noticed that it is not mounted any more, and noted it */
#define ENDING_MS 60000u /* until it has ended */

/* A crash leaves its note, and who only reads leaves none: a process of this machine that is gone is not the one. */
static bool gone(long pid, const char *host)
{
	char here[65] = "";

	(void)gethostname(here, sizeof(here) - 1);
	return strcmp(host, here) == 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* Whoever holds the lock, as far as `lock` says it. */
struct holder {
	long pid; /* 0: unknown */
	char host[65];
	bool ending;
};

static void read_note(struct store *s, struct holder *h)
{
	void *note = NULL;
	size_t len = 0;
	char text[NOTE_MAX + 1];

	*h = (struct holder){0};
	if (io_read_file(s->io, NOTE, NOTE_MAX, &note, &len))
		return;
	memcpy(text, note, len);
	text[len] = 0;
	free(note);
	char *end = NULL;
	long pid = strtol(text, &end, 10);
	while (*end == ' ')
		end++;
	size_t n = 0;
	while (end[n] > ' ' && end[n] <= '~') /* nothing that a terminal would obey */
		n++;
	bool ending = strcmp(end + n, ENDING "\n") == 0;
	if (n == 0 || n >= sizeof(h->host) || (!ending && end[n] && end[n] != '\n'))
		return;
	memcpy(h->host, end, n);
	if (pid > 0 && pid <= INT_MAX && !gone(pid, h->host)) {
		h->pid = pid;
		h->ending = ending;
	}
}

static int busy(struct store *s, struct err *e)
{
	struct holder h;

	read_note(s, &h);
	if (h.pid)
		return err_set(e, -EBUSY, ERR_BUSY, "in use by process %ld on %s", h.pid, h.host);
	return err_set(e, -EBUSY, ERR_BUSY, "in use by another process");
}

static int no_locks(int ret, struct err *e)
{
	return err_set(e, ret, ERR_IO,
	               "the filesystem that it lies on gives no lock (%s), so nothing would keep a second mount away: "
	               "mount that filesystem with locks (on NFS without nolock, on CIFS without nobrl)",
	               strerror(-ret));
}

int store_lock(struct store *s, struct err *e)
{
	const struct timespec step = {.tv_nsec = STEP_MS * 1000000L};
	struct holder h;
	int ret = io_lock(s->io);

	/* umount(2) returns before the process of the mount has ended, and even before it knows. */
	for (unsigned ms = 0; ret == -EBUSY && ms < ENDING_MS; ms += STEP_MS) {
		if (ms >= NOTICE_MS) {
			read_note(s, &h);
			if (!h.ending)
				break;
		}
		(void)nanosleep(&step, NULL);
		ret = io_lock(s->io);
	}
	if (ret == -EBUSY)
		return busy(s, e);
	return ret ? no_locks(ret, e) : 0;
}

int store_open_beside(const char *path, struct store *out, struct err *e)
{
	struct stat st;

	memset(out, 0, sizeof(*out));
	out->path = realpath(path, NULL);
	if (!out->path || stat(out->path, &st) < 0)
		return err_set(e, errno == ENOENT ? -ENOENT : -errno, ERR_USAGE, "not a store: %s", strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOENT, ERR_USAGE, "not a store: not a directory");
	return io_posix_new(out->path, &out->io, e);
}

int store_open(const char *path, bool create, struct store *out, struct err *e)
{
	memset(out, 0, sizeof(*out));
	if (create && mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_set(e, -errno, ERR_USAGE, "cannot make the directory: %s", strerror(errno));
	int ret = store_open_beside(path, out, e);
	if (ret)
		return ret;
	return store_lock(out, e);
}

/* What holds for whoever only reads, who may not be able to write here. */
static int claim_read(struct store *s, struct err *e)
{
	int ret = io_open(s->io, NOTE, IO_READ | IO_LOCK, &s->note);

	return ret == -EBUSY ? busy(s, e) : 0;
}

/* The lock that others see. A new store has the file; one that lost it, on a disk without room for a file, gets it in
 * exchange for what is set aside for a full disk. */
static int claim_write(struct store *s)
{
	const unsigned flags = IO_WRITE | IO_CREATE | IO_LOCK;
	int ret = io_open(s->io, NOTE, flags, &s->note);

	if (err_is_no_space(ret) && !io_unlink(s->io, CORE_FILE_RESERVE))
		ret = io_open(s->io, NOTE, flags, &s->note);
	return ret;
}

static void write_note(struct store *s, const char *more)
{
	char text[NOTE_MAX], host[65] = "";

	(void)gethostname(host, sizeof(host) - 1);
	int n = snprintf(text, sizeof(text), "%d %s%s\n", (int)getpid(), *host ? host : "localhost", more);
	/* Over the one before: a full disk has no room for another. */
	if (io_pwrite(s->note, text, (size_t)n, 0) || io_truncate(s->note, (uint64_t)n))
		s->noted = false; /* a courtesy */
}

int store_claim(struct store *s, bool read_only, struct err *e)
{
	if (read_only)
		return claim_read(s, e);
	int ret = claim_write(s);
	if (ret == -EBUSY)
		return busy(s, e);
	if (err_is_no_space(ret))
		return err_set(e, ret, ERR_SPACE,
		               "its disk has no room (%s) for the file `lock`, without which nothing would keep other "
		               "machines away: make some",
		               strerror(-ret));
	if (ret == -EROFS || ret == -EACCES || ret == -EPERM)
		return err_set(e, ret, ERR_IO, "cannot be written (%s): mount it read-only, with --ro", strerror(-ret));
	if (ret)
		return no_locks(ret, e);
	s->noted = true;
	write_note(s, "");
	return 0;
}

void store_ending(struct store *s)
{
	if (s->noted)
		write_note(s, ENDING);
}

void store_release(struct store *s)
{
	if (s->noted && io_truncate(s->note, 0) == 0)
		s->noted = false;
	io_close(s->note);
	io_free(s->io);
	free(s->path);
	memset(s, 0, sizeof(*s));
}

int store_check(struct store *s, struct err *e)
{
	struct superblock *sb = NULL;
	int ret = superblock_open(s->io, &sb, e);

	if (ret == 0)
		superblock_free(sb);
	return ret;
}

enum exit_status store_status(int ret)
{
	switch (ret) {
	case 0:
		return EXIT_OK;
	case -ENOENT:
	case -ENOTDIR:
		return EXIT_NOT_STORE;
	case -EKEYREJECTED:
		return EXIT_WRONG_PASS;
	case -EBUSY:
		return EXIT_IN_USE;
	case -EPROTONOSUPPORT:
		return EXIT_NEWER;
	case -EBADMSG:
	case -EUCLEAN:
		return EXIT_DAMAGED;
	case -EEXIST:
	case -ENOTEMPTY:
		return EXIT_EXISTS;
	case -ENOMEM:
		return EXIT_TOO_SMALL;
	default:
		return EXIT_SYSTEM;
	}
}
