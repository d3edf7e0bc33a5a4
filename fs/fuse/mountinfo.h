/* What is mounted where: /proc/self/mountinfo. */
#ifndef APFS_FS_FUSE_MOUNTINFO_H
#define APFS_FS_FUSE_MOUNTINFO_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct mountinfo {
	unsigned major, minor; /* of st_dev */
	unsigned uid, gid;     /* of a FUSE filesystem: who mounted it; else 0 */
	char type[64];         /* "fuse.apfs" */
};

/* Finds the topmost mount whose root is exactly `path` (absolute, without symbolic links). -ENOENT if there is none. */
int mountinfo_find(const char *path, struct mountinfo *out) MUST_CHECK;

/* Whether m is one of ours. */
bool mountinfo_is_apfs(const struct mountinfo *m);

/* Unmounts `path`, as root by the system call, else through fusermount3. lazy: detach even if busy. -EBUSY, -EPERM,
 * -EINVAL (not mounted), ... */
int mountinfo_unmount(const char *path, bool lazy) MUST_CHECK;

#endif
