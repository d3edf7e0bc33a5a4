/* What a request does not say of the process that made it. */
#include "fs/fuse/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define GROUPS_MAX 65536 /* the kernel's own limit */

bool caller_is_capable(fuse_req_t req, unsigned capability)
{
	char path[64], line[256];
	uint64_t bits = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)fuse_req_ctx(req)->pid);
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
