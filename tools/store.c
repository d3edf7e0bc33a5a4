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
#include <unistd.h>

#define NOTE     CORE_FILE_LOCK
#define NOTE_MAX 256

/* A crash leaves its note, and who only reads leaves none: a process of this machine that is gone is not the one. */
static bool gone(long pid, const char *host)
{
	char here[65] = "";

	(void)gethostname(here, sizeof(here) - 1);
	return strcmp(host, here) == 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

static int busy(struct store *s, struct err *e)
{
	void *note = NULL;
	size_t len = 0;
	long pid = 0;
	char host[65] = "";

	if (io_read_file(s->io, NOTE, NOTE_MAX, &note, &len) == 0) {
		char text[NOTE_MAX + 1];

		memcpy(text, note, len);
		text[len] = 0;
		free(note);
		char *end = NULL;
		pid = strtol(text, &end, 10);
		while (*end == ' ')
			end++;
		size_t n = 0;
		while (end[n] > ' ' && end[n] <= '~') /* nothing that a terminal would obey */
			n++;
		if (n < sizeof(host) && (!end[n] || end[n] == '\n')) {
			memcpy(host, end, n);
			host[n] = 0;
		}
	}
	if (pid > 0 && pid <= INT_MAX && *host && !gone(pid, host))
		return err_set(e, -EBUSY, ERR_BUSY, "in use by process %ld on %s", pid, host);
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
	int ret = io_lock(s->io);

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

int store_claim(struct store *s, bool read_only, struct err *e)
{
	char text[NOTE_MAX], host[65] = "";

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
	(void)gethostname(host, sizeof(host) - 1);
	int n = snprintf(text, sizeof(text), "%d %s\n", (int)getpid(), *host ? host : "localhost");
	if (io_truncate(s->note, 0) || io_pwrite(s->note, text, (size_t)n, 0))
		s->noted = false; /* a courtesy */
	return 0;
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
