/* Scoped mutexes: SCOPED_LOCK(&m) holds m until the end of the block. Who has to wait calls wait_begin() before. */
#ifndef APFS_BASE_LOCK_H
#define APFS_BASE_LOCK_H

#include "base/wait.h"

#include <pthread.h>

static inline void lock_scope_end(pthread_mutex_t **m)
{
	if (*m)
		(void)pthread_mutex_unlock(*m);
}

static inline pthread_mutex_t *lock_scope_begin(pthread_mutex_t *m)
{
	if (pthread_mutex_trylock(m)) {
		wait_begin();
		(void)pthread_mutex_lock(m);
	}
	return m;
}

/* pthread_cond_wait. */
static inline void lock_wait(pthread_cond_t *cond, pthread_mutex_t *m)
{
	wait_begin();
	(void)pthread_cond_wait(cond, m);
}

#define LOCK_NAME2(a, b) a##b
#define LOCK_NAME(a, b)  LOCK_NAME2(a, b)
/* NOLINTBEGIN(bugprone-macro-parentheses): it is a declaration */
#define SCOPED_LOCK(m)                                                                                       \
	__attribute__((cleanup(lock_scope_end), unused)) pthread_mutex_t *LOCK_NAME(scope_lock_, __LINE__) = \
	    lock_scope_begin(m)
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
