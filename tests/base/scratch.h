/* A directory of a test's own, removed with all that is in it. */
#ifndef APFS_TESTS_SCRATCH_H
#define APFS_TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#define SCRATCH_PATH 128

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* Makes the directory and returns its path in buf; NULL when it cannot. */
static inline char *scratch_new(char buf[SCRATCH_PATH])
{
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(buf, SCRATCH_PATH, "%s/apfs-test-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(buf);
}

static inline void scratch_free(const char *path)
{
	(void)nftw(path, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
