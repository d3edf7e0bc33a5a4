#include "tools/store.h"
#include "pipeline/superblock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE     "lock"
#define NOTE_MAX 256

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
	if (pid > 0 && *host)
		return err_set(e, -EBUSY, ERR_BUSY, "in use by process %ld on %s", pid, host);
	return err_set(e, -EBUSY, ERR_BUSY, "in use by another process");
}

int store_lock(struct store *s, struct err *e)
{
	int ret = io_lock(s->io);

	if (ret == -EBUSY)
		return busy(s, e);
	return ret ? err_set(e, ret, ERR_IO, "cannot lock: %s", strerror(-ret)) : 0;
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

void store_mark(struct store *s)
{
	char text[NOTE_MAX], host[65] = "";

	(void)gethostname(host, sizeof(host) - 1);
	int n = snprintf(text, sizeof(text), "%d %s\n", (int)getpid(), *host ? host : "localhost");
	s->marked = io_replace_file(s->io, NOTE, 0, text, (size_t)n) == 0;
}

void store_release(struct store *s)
{
	if (s->marked && io_unlink(s->io, NOTE) == 0)
		s->marked = false;
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
