/*
 * A history of transactions, for tests of crashes and faults. Transaction number g is made of operations that seed and
 * g alone decide; the digest of the whole index after it is remembered, so that an index found later can be held
 * against the transaction that it says it ends with.
 */
#ifndef APFS_TESTS_INDEX_HISTORY_H
#define APFS_TESTS_INDEX_HISTORY_H

#include "tests/index/support.h"

#define HISTORY_MAX 512

struct history {
	unsigned seed;
	uint64_t next;      /* the number of the open transaction */
	uint64_t committed; /* index_commit has returned 0 for it */
	uint64_t synced;    /* and index_sync after it */
	uint64_t digest[HISTORY_MAX];
};

/* Runs the operations of the open transaction: 0, or the first error. */
int history_work(struct history *h, struct index *ix);
/* index_commit, index_sync. */
int history_commit(struct history *h, struct index *ix);
int history_sync(struct history *h, struct index *ix);

/* After a crash: the index is whole, holds every transaction that was synced, and is exactly as after some committed
 * one, or one that was being committed. The history continues from there. */
void history_verify(struct history *h, struct index *ix);

#endif
