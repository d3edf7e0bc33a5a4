/* What a request does not say of the process that made it. */
#include "base/wait.h"
#include "fs/fuse/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define GROUPS_MAX 65536 /* the kernel's own limit */

/* Whoever makes a user namespace has every capability in it, and none over what belongs to others, as a mount does: its
 * namespace is ours. */
static bool caller_in_our_namespace(pid_t pid)
{
	char path[64];
	struct stat ours, theirs;

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	return !stat("/proc/self/ns/user", &ours) && !stat(path, &theirs) && ours.st_dev == theirs.st_dev &&
	       ours.st_ino == theirs.st_ino;
}

bool caller_is_capable(fuse_req_t req, unsigned capability)
{
	char path[64], line[256];
	pid_t pid = fuse_req_ctx(req)->pid;
	uint64_t bits = 0;

	if (!caller_in_our_namespace(pid))
		return false;
	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	wait_begin(); /* who asks may itself wait for us, and others for it */
	FILE *f = fopen(path, "re");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "CapEff: %" SCNx64, &bits) == 1)
			break;
	(void)fclose(f);
	return bits >> capability & 1;
}

static bool caller_in_group(fuse_req_t req, gid_t gid)
{
	bool found = fuse_req_ctx(req)->gid == gid;
	gid_t few[64], *list = few;
	int n = found ? 0 : fuse_req_getgroups(req, sizeof(few) / sizeof(few[0]), list);

	if (n > (int)(sizeof(few) / sizeof(few[0]))) {
		list = n <= GROUPS_MAX ? calloc((size_t)n, sizeof(*list)) : NULL;
		int again = list ? fuse_req_getgroups(req, n, list) : 0;
		n = again < n ? again : n;
	}
	for (int i = 0; i < n && !found; i++)
		found = list[i] == gid;
	if (list != few)
		free(list);
	return found;
}

bool caller_is_outside(fuse_req_t req, fuse_ino_t ino)
{
	struct core_attr a;

	if (core_getattr(op_core(req), ino, &a))
		return false;
	return S_ISREG(a.mode) && (a.mode & (S_ISGID | S_IXGRP)) == S_ISGID && !caller_in_group(req, a.gid);
}
