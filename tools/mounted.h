/* A mount of ours, seen from outside of the process that serves it. */
#ifndef APFS_TOOLS_MOUNTED_H
#define APFS_TOOLS_MOUNTED_H

#include "base/err.h"

#include <sys/types.h>

struct mounted {
	char *path; /* absolute */
	int dir;    /* its root directory, open */
	pid_t pid;  /* of the process that serves it; 0: unknown */
};

/* -ENODATA: path is not the root of an apfs mount. *out is released by mounted_release, also after a failure. */
int mounted_open(const char *path, struct mounted *out, struct err *e) MUST_CHECK;
/* Returns when everything written before is durable. */
int mounted_sync(const struct mounted *m, struct err *e) MUST_CHECK;
void mounted_release(struct mounted *m);

#endif
