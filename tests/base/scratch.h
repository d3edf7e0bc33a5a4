/* A directory of a test's own, removed with all that is in it: when the program ends, if the test has failed. */
#ifndef APFS_TESTS_SCRATCH_H
#define APFS_TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCRATCH_PATH 128
#define SCRATCH_MAX  4

static struct {
	char path[SCRATCH_MAX][SCRATCH_PATH]; /* what there is, "": nothing */
	pid_t owner;
} scratch;

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* Leaves it where APFS_KEEP is set. */
static inline void scratch_free(const char *path)
{
	if (!getenv("APFS_KEEP"))
		(void)nftw(path, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
	for (int i = 0; i < SCRATCH_MAX; i++)
		if (!strcmp(path, scratch.path[i]))
			scratch.path[i][0] = 0;
}

static inline void scratch_end(void)
{
	for (int i = 0; i < SCRATCH_MAX && scratch.owner == getpid(); i++)
		if (scratch.path[i][0])
			scratch_free(scratch.path[i]);
}

/* Makes the directory and returns its path in buf; NULL when it cannot. */
static inline char *scratch_new(char buf[SCRATCH_PATH])
{
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(buf, SCRATCH_PATH, "%s/apfs-test-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(buf))
		return NULL;
	if (!scratch.owner)
		(void)atexit(scratch_end);
	scratch.owner = getpid();
	for (int i = 0; i < SCRATCH_MAX; i++)
		if (!scratch.path[i][0]) {
			memcpy(scratch.path[i], buf, strlen(buf) + 1);
			break;
		}
	return buf;
}

#endif
