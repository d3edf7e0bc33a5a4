/*
 * Allocations that fail when a test says so: malloc and its like, mmap and pthread_create, in everything that is linked
 * statically into a program with apfs_alloc_fault. What shared libraries allocate for themselves is seen with
 * apfs_alloc_fault_all only (and not in builds with sanitizers), SQLite's after alloc_fault_sqlite. Other threads may
 * be running.
 */
#ifndef APFS_TESTS_SIM_ALLOC_FAULT_H
#define APFS_TESTS_SIM_ALLOC_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* Allocation number nth from now on (1 is the next) fails; lasting: so do all after it. this_thread: only those of the
 * calling thread count and fail. Replaces what was armed. */
void alloc_fault_arm(uint64_t nth, bool lasting, bool this_thread);
/* Whether it has failed one. */
bool alloc_fault_disarm(void);
/* Allocations since the last arming that counted. */
uint64_t alloc_fault_count(void);

/* Between these the calling thread's allocations neither count nor fail. They nest. The simulated STORE uses them. */
void alloc_fault_pause(void);
void alloc_fault_resume(void);

/* For what stands in for an allocator: whether this call has to fail, with errno set. */
bool alloc_fault_now(void);

/* Does nothing, but brings what apfs_alloc_fault_all is for. */
void alloc_fault_all(void);
/* Before anything else uses SQLite: its allocations count, too. Link apfs_alloc_fault_sqlite. */
void alloc_fault_sqlite(void);

#endif
