/* apfs config MOUNT */
#include "fs/fuse/session.h"
#include "tools/commands.h"
#include "tools/mounted.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

static int print_config(const struct mounted *m, struct err *e)
{
	char *text = malloc(XATTR_SIZE_MAX);
	ssize_t n;

	if (!text)
		return err_set(e, -ENOMEM, ERR_MEMORY, "out of memory");
	n = fgetxattr(m->dir, SESSION_XATTR_CONFIG, text, XATTR_SIZE_MAX);
	int ret = n < 0 ? err_set(e, -errno, ERR_IO, "the mount does not answer: %s", strerror(errno)) : 0;
	if (n > 0)
		(void)fwrite(text, 1, (size_t)n, stdout);
	free(text);
	return ret;
}

int cmd_config(int argc, char **argv)
{
	const char *path = command_argument(
	    argc, argv, "MOUNT",
	    "Shows the settings that hold for MOUNT: name, value, where it comes from (the "
	    "command line or a mount option, a line of a configuration file, or the default), and what "
	    "was asked for where that is not what it came to.\v" EXIT_STATUS_HELP);
	struct mounted m;
	struct err e = {0};

	int ret = mounted_open(path, &m, &e);
	enum exit_status status = mounted_status(ret);
	if (!ret) {
		ret = print_config(&m, &e);
		status = ret ? EXIT_SYSTEM : EXIT_OK;
	}
	if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], path, err_text(&e, ret));
	mounted_release(&m);
	return (int)status;
}
