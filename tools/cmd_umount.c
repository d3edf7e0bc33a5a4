/* apfs umount MOUNT, and umount.fuse.apfs for umount(8) */
#include "fs/fuse/mountinfo.h"
#include "tools/commands.h"
#include "tools/mounted.h"

#include <argp.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TIMEOUT_SECONDS 300 /* for the process to end: it has a last commit to make */

struct umount_options {
	const char *path;
	bool lazy;
	unsigned timeout; /* seconds */
};

static const struct argp_option option_table[] = {
    {"lazy", 'l', NULL, 0, "Detach the mount even if files are open, and do not wait for the process", 0},
    {"timeout", 't', "SECONDS", 0, "How long to wait for the mount's process to end (300)", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct umount_options *o = state->input;
	char *end = NULL;

	switch (key) {
	case 'l':
		o->lazy = true;
		return 0;
	case 't':
		o->timeout = (unsigned)strtoul(arg, &end, 10);
		if (end == arg || *end || o->timeout > 86400)
			argp_error(state, "timeout: '%s' is not a number of seconds", arg);
		return 0;
	default:
		return command_argument_parse(key, arg, state, "MOUNT", &o->path);
	}
}

/* 0: it has ended, or cannot be watched (it is in another pid namespace). */
static int wait_process(int pidfd, unsigned seconds)
{
	struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
	int n;

	if (pidfd < 0)
		return 0;
	do
		n = poll(&pfd, 1, (int)seconds * 1000);
	while (n < 0 && errno == EINTR);
	return n == 0 ? -ETIMEDOUT : 0;
}

/* The sync comes first because an unmount does not report what could not be written. */
static enum exit_status unmount(const struct umount_options *o, struct err *e)
{
	struct mounted m;
	int pidfd = -1;

	int ret = mounted_open(o->path, &m, e);
	bool dead = ret == -ENOTCONN;
	if (ret && !dead) {
		mounted_release(&m);
		return mounted_status(ret);
	}
	if (dead)
		err_reset(e); /* it is unmounted all the same */
	if (m.pid > 0)
		pidfd = (int)syscall(SYS_pidfd_open, m.pid, 0);
	enum exit_status status = dead || mounted_sync(&m, e) ? EXIT_SYSTEM : EXIT_OK;
	if (m.dir >= 0)
		(void)close(m.dir);
	m.dir = -1;
	ret = mountinfo_unmount(m.path, o->lazy);
	if (ret == -EBUSY) {
		(void)err_set(e, ret, ERR_BUSY, "busy: files are open, or it is somebody's working directory");
		status = EXIT_BUSY;
	} else if (ret) {
		(void)err_set(e, ret, ERR_USAGE, "cannot unmount: %s", strerror(-ret));
		status = EXIT_SYSTEM;
	} else if (!o->lazy && wait_process(pidfd, o->timeout)) {
		(void)err_set(e, -ETIMEDOUT, ERR_BUSY, "unmounted, but process %d still writes after %u s", (int)m.pid,
		              o->timeout);
		status = EXIT_TIMEOUT;
	} else if (dead) {
		(void)err_set(e, -ENOTCONN, ERR_IO,
		              "unmounted, but its process had died: what was not durable is lost");
	}
	if (pidfd >= 0)
		(void)close(pidfd);
	mounted_release(&m);
	return status;
}

static int run(const char *program, const struct umount_options *o)
{
	struct err e = {0};
	enum exit_status status = unmount(o, &e);

	if (status)
		(void)fprintf(stderr, "%s: %s: %s\n", program, o->path, err_text(&e, e.code));
	return (int)status;
}

int cmd_umount(int argc, char **argv)
{
	static const struct argp argp = {
	    option_table,
	    parse,
	    "MOUNT",
	    "Unmounts MOUNT and returns when its process has ended: everything is durable, and the "
	    "store is free.\v" EXIT_STATUS_HELP,
	    NULL,
	    NULL,
	    NULL};
	struct umount_options o = {.timeout = TIMEOUT_SECONDS};

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	return run(argv[0], &o);
}

/* umount.fuse.apfs MOUNT [-nlfvr] [-N NAMESPACE] [-t TYPE] */
int cmd_umount_helper(int argc, char **argv)
{
	struct umount_options o = {.timeout = TIMEOUT_SECONDS};
	bool force = false;
	int c;

	if (argc == 2 && argv[1][0] == '-' && argv[1][1] == '-')
		return cmd_umount(argc, argv);
	while ((c = getopt(argc, argv, "nlfvrN:t:")) != -1) {
		if (c == 'l')
			o.lazy = true;
		else if (c == 'f')
			force = true;
		else if (c == '?')
			return EXIT_USAGE;
	}
	if (argc - optind != 1) {
		(void)fprintf(stderr, "umount.fuse.apfs: one MOUNT is needed\n");
		return EXIT_USAGE;
	}
	o.path = argv[optind];
	/* Forced: the mount may no longer answer, so it is not asked. */
	if (force && umount2(o.path, MNT_FORCE | UMOUNT_NOFOLLOW) == 0)
		return EXIT_OK;
	return run("umount.fuse.apfs", &o);
}
