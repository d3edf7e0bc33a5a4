/*
 * What a thread does before it waits. A thread that serves others says how it lets go of what they need; whoever makes
 * a thread wait for the disk, for memory or for another thread, or keeps it busy for longer than a wake-up costs, calls
 * wait_begin() before. Locks of base/lock.h do so by themselves.
 */
#ifndef APFS_BASE_WAIT_H
#define APFS_BASE_WAIT_H

#include <stdbool.h>
#include <stddef.h>

struct wait_hook {
	void (*fn)(void *arg);
	void *arg;
};

/* The calling thread's; fn is NULL when there is nothing to do. */
extern _Thread_local struct wait_hook wait_hook;

static inline bool wait_is_hooked(void)
{
	return wait_hook.fn != NULL;
}

/* Calls the hook, once. */
static inline void wait_begin(void)
{
	struct wait_hook h = wait_hook;

	if (!h.fn)
		return;
	wait_hook.fn = NULL;
	h.fn(h.arg);
}

/* Takes the hook away again; false if it was called. */
static inline bool wait_unhook(void)
{
	bool hooked = wait_is_hooked();

	wait_hook.fn = NULL;
	return hooked;
}

#endif
