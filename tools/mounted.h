/* A mount of ours, seen from outside of the process that serves it. */
#ifndef APFS_TOOLS_MOUNTED_H
#define APFS_TOOLS_MOUNTED_H

#include "base/err.h"
#include "tools/exit_status.h"

#include <stdbool.h>
#include <sys/types.h>

struct mounted {
	char *path; /* absolute */
	int dir;    /* its root directory, open */
	pid_t pid;  /* of the process that serves it; 0: unknown */
};

/* The kernel keeps everybody, even root, out of a FUSE mount that another made without allow_other. If root asks and
 * path is, or lies under, such a mount of ours, this process becomes the user who made it, for good. errno is lost. */
bool mounted_become_user(const char *path);

/* -ENODATA: path is not the root of an apfs mount. -ENOTCONN: its process has died. Root may be another after it: see
 * above. *out is released by mounted_release, also after a failure. */
int mounted_open(const char *path, struct mounted *out, struct err *e) MUST_CHECK;
/* The exit status for what that returns. */
enum exit_status mounted_status(int ret);
/* Returns when everything written before is durable. */
int mounted_sync(const struct mounted *m, struct err *e) MUST_CHECK;
void mounted_release(struct mounted *m);

#endif
