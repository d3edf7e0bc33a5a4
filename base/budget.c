#include "base/budget.h"

#include "base/log.h"

#include <stdlib.h>

void budget_init(struct budget *b, uint64_t limit)
{
	b->limit = limit;
	for (int i = 0; i < BUDGET_KINDS; i++)
		atomic_init(&b->used[i], 0);
	atomic_init(&b->total, 0);
	atomic_init(&b->peak, 0);
}

void budget_release(const struct budget *b)
{
#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	for (int i = 0; i < BUDGET_KINDS; i++) {
		if (budget_used(b, (enum budget_kind)i)) {
			log_error("budget: %llu bytes of kind %d were not given back",
			          (unsigned long long)budget_used(b, (enum budget_kind)i), i);
			abort();
		}
	}
#else
	(void)b;
#endif
}

void budget_take(struct budget *b, enum budget_kind kind, size_t bytes)
{
	uint64_t total, peak;

	if (!b)
		return;
	atomic_fetch_add_explicit(&b->used[kind], bytes, memory_order_relaxed);
	total = atomic_fetch_add_explicit(&b->total, bytes, memory_order_relaxed) + bytes;
	peak = atomic_load_explicit(&b->peak, memory_order_relaxed);
	while (total > peak && !atomic_compare_exchange_weak_explicit(&b->peak, &peak, total, memory_order_relaxed,
	                                                              memory_order_relaxed))
		;
}

void budget_give(struct budget *b, enum budget_kind kind, size_t bytes)
{
	if (!b)
		return;
	atomic_fetch_sub_explicit(&b->total, bytes, memory_order_relaxed);
	if (atomic_fetch_sub_explicit(&b->used[kind], bytes, memory_order_relaxed) < bytes) {
		/* Somebody has given back what was not taken: a limit on such an account means nothing. */
		log_error("budget: more memory was given back than taken");
		abort();
	}
}
