/* apfs sync MOUNT */
#include "tools/commands.h"
#include "tools/mounted.h"

#include <errno.h>
#include <stdio.h>

int cmd_sync(int argc, char **argv)
{
	const char *path =
	    command_argument(argc, argv, "MOUNT",
	                     "Returns when everything that was written to MOUNT before is durable. (sync(1) "
	                     "does not wait for FUSE filesystems.)\v" EXIT_STATUS_HELP);
	struct mounted m;
	struct err e = {0};

	int ret = mounted_open(path, &m, &e);
	enum exit_status status = mounted_status(ret);
	if (ret == 0) {
		ret = mounted_sync(&m, &e);
		status = ret ? EXIT_SYSTEM : EXIT_OK;
	}
	if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], path, err_text(&e, ret));
	mounted_release(&m);
	return (int)status;
}
