/*
 * What `apfs check` does: looks at all of a STORE that is not mounted, and changes nothing. What recovery would write
 * is kept in memory.
 */
#ifndef APFS_FS_CORE_CHECK_H
#define APFS_FS_CORE_CHECK_H

#include "base/io.h"
#include "pipeline/keys.h"

#include <stdbool.h>
#include <stdint.h>

/* How bad a finding is, in order. */
enum check_kind {
	CHECK_NOTE,  /* nothing is wrong: what the next mount tidies up */
	CHECK_SPARE, /* only what is kept twice: a copy of the superblock, what finds data without the index */
	CHECK_DATA,  /* data of files cannot be read */
	CHECK_INDEX  /* names, attributes or the map of files are damaged */
};

struct check_range {
	uint64_t off, len;
};

/* A file with damaged data. */
struct check_file {
	uint64_t ino;
	const char *path;                /* below the root, one of its names; NULL when none could be found */
	uint64_t bytes;                  /* damaged */
	const struct check_range *range; /* ascending */
	size_t nranges;
	bool more; /* ranges than could be kept */
};

struct check_options {
	struct io *io; /* locked by the caller */
	const struct secret *secret;
	bool data;        /* read every chunk */
	unsigned threads; /* 0: as many as there are cores, 8 at most; each takes 17 MiB */

	/* One line. Not from several threads at once, as all of these. */
	void (*finding)(void *arg, enum check_kind kind, const char *text);
	void (*file)(void *arg, const struct check_file *f);
	/* Called now and then; what names the step, unit is true when done and total are bytes. True stops. */
	bool (*progress)(void *arg, const char *what, bool bytes, uint64_t done, uint64_t total);
	void *arg;
};

struct check_result {
	enum check_kind worst;
	bool stopped; /* by progress: there may be more */
	uint8_t uuid[16];
	uint64_t inodes, names, chunks, segments, orphans;
	uint64_t quarantined; /* bytes */
	uint64_t read;        /* bytes of records, with `data` */
	uint64_t files;       /* with damaged data */
};

/* 0 when it ran, whatever it found. Errors: STORE could not be opened so far that there was something to check. */
int core_check(const struct check_options *o, struct check_result *r, struct err *e) MUST_CHECK;

#endif
