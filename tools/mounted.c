#include "tools/mounted.h"
#include "fs/fuse/mountinfo.h"
#include "fs/fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The mount at path or, for what lies under one that cannot be entered, above it. */
static int find_above(const char *path, struct mountinfo *out)
{
	char *below = strdup(path), *place = NULL, *slash;

	while (below && !(place = realpath(below, NULL)) && errno == EACCES && (slash = strrchr(below, '/')))
		*slash = 0;
	int ret = place ? mountinfo_find(place, out) : -ENOENT;
	free(place);
	free(below);
	return ret;
}

bool mounted_become_user(const char *path)
{
	struct mountinfo m;

	return geteuid() == 0 && find_above(path, &m) == 0 && mountinfo_is_apfs(&m) && m.uid && !setgroups(0, NULL) &&
	       !setresgid(m.gid, m.gid, m.gid) && !setresuid(m.uid, m.uid, m.uid);
}

int mounted_open(const char *path, struct mounted *out, struct err *e)
{
	struct mountinfo info;
	char text[32];

	*out = (struct mounted){.dir = -1};
	out->path = realpath(path, NULL);
	if (!out->path)
		return err_set(e, errno == ENOENT ? -ENODATA : -errno, ERR_USAGE, "%s", strerror(errno));
	int ret = mountinfo_find(out->path, &info);
	if (ret || !mountinfo_is_apfs(&info))
		return err_set(e, -ENODATA, ERR_USAGE, "not an apfs mount");
	out->dir = open(out->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (out->dir < 0 && errno == EACCES && mounted_become_user(out->path))
		out->dir = open(out->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ssize_t n = out->dir < 0 ? -1 : fgetxattr(out->dir, SESSION_XATTR_PID, text, sizeof(text) - 1);
	if (n < 0 && errno == ENOTCONN) /* which an open may not notice */
		return err_set(e, -ENOTCONN, ERR_USAGE, "the mount's process has died: unmount it");
	if (out->dir < 0)
		return err_set(e, -errno, ERR_USAGE, "cannot open the mount: %s", strerror(errno));
	if (n > 0) {
		text[n] = 0;
		out->pid = (pid_t)strtol(text, NULL, 10);
	}
	return 0;
}

enum exit_status mounted_status(int ret)
{
	if (ret == -ENODATA || ret == -ENOTCONN)
		return EXIT_NOT_MOUNT;
	return ret ? EXIT_SYSTEM : EXIT_OK;
}

int mounted_sync(const struct mounted *m, struct err *e)
{
	/* What the kernel holds of open files goes to the mount's process first; fsync of the root then waits for it
	 * to arrive and to be durable. */
	int code;

	/* A program that was killed while the kernel sent the times of its file leaves EINTR to whoever comes next. */
	do
		code = syncfs(m->dir) < 0 ? errno : 0;
	while (code == EINTR);

	/* An error that the kernel remembers (a full disk, a while ago) does not spare the commit. */
	if (fsync(m->dir) < 0 && !code)
		code = errno;
	return code ? err_set(e, -code, ERR_IO, "not everything could be made durable: %s", strerror(code)) : 0;
}

void mounted_release(struct mounted *m)
{
	if (m->dir >= 0)
		(void)close(m->dir);
	free(m->path);
	*m = (struct mounted){.dir = -1};
}
