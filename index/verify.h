/* A run of index_verify, between verify.c and verify_scan.c. */
#ifndef APFS_INDEX_VERIFY_H
#define APFS_INDEX_VERIFY_H

#include "index/db.h"

struct verify {
	struct index *ix;
	const struct index_verify *v;
	struct index_totals_checked *totals;
	unsigned step, steps;
	bool stopped;    /* progress said so */
	unsigned listed; /* findings of this step */
};

/* Reports a finding; beyond a number a step, only that there are more. */
void verify_finding(struct verify *vf, const char *fmt, ...) PRINTF(2, 3);

/* Prepares a statement of this run, a SCOPED_FINALIZE. A failure is reported. */
int verify_prepare(struct verify *vf, const char *sql, sqlite3_stmt **st) MUST_CHECK;
/* 1 and a row, 0 at the end or where what follows cannot be read (reported), -EINTR or -ENOMEM. */
int verify_row(struct verify *vf, sqlite3_stmt *st) MUST_CHECK;

/* Steps that read whole tables and count (verify_scan.c): 0, -EINTR or -ENOMEM. */
int verify_extents(struct verify *vf) MUST_CHECK;     /* against their chunks, both ways, and one another */
int verify_segments(struct verify *vf) MUST_CHECK;    /* against the sums of their chunks */
int verify_names(struct verify *vf) MUST_CHECK;       /* against their inodes, both ways */
int verify_directories(struct verify *vf) MUST_CHECK; /* every one hangs below the root */

#endif
