/*
 * One account of the memory that file data is in, whoever holds it: how much of what, how much there has been at most,
 * and how much there may be. Who holds memory keeps to a share that was settled when the volume was opened; the account
 * shows that together they keep to the limit. Any thread; NULL counts nothing.
 */
#ifndef APFS_BASE_BUDGET_H
#define APFS_BASE_BUDGET_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum budget_kind {
	BUDGET_RECEIVE,  /* requests, and answers that are being built */
	BUDGET_DIRTY,    /* buffers of data that no cut has taken */
	BUDGET_CACHE,    /* decoded frames */
	BUDGET_RECORDS,  /* chunks that are being sealed */
	BUDGET_CONTEXTS, /* what codecs and ciphers work in */
	BUDGET_COMPACT,  /* what compaction copies through */
	BUDGET_KINDS
};

struct budget {
	uint64_t limit; /* bytes */
	_Atomic uint64_t used[BUDGET_KINDS];
	_Atomic uint64_t total, peak;
};

void budget_init(struct budget *b, uint64_t limit);
/* Everything must have been given back (checked in debug builds). */
void budget_release(const struct budget *b);
void budget_take(struct budget *b, enum budget_kind kind, size_t bytes);
void budget_give(struct budget *b, enum budget_kind kind, size_t bytes);

static inline uint64_t budget_used(const struct budget *b, enum budget_kind kind)
{
	return atomic_load_explicit(&b->used[kind], memory_order_relaxed);
}

static inline uint64_t budget_total(const struct budget *b)
{
	return atomic_load_explicit(&b->total, memory_order_relaxed);
}

/* The most that there has been at any one time. */
static inline uint64_t budget_peak(const struct budget *b)
{
	return atomic_load_explicit(&b->peak, memory_order_relaxed);
}

#endif
