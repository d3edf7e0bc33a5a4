/*
 * malloc and its like for the whole process: what a program defines is what shared libraries call. What the linker has
 * wrapped comes by twice, and may fail at either place. The rest of glibc's allocator stays as it is.
 */
#include "tests/sim/alloc_fault.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

/* NOLINTBEGIN(bugprone-reserved-identifier): exported by glibc for this */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);
/* NOLINTEND(bugprone-reserved-identifier) */

void *malloc(size_t size)
{
	return alloc_fault_now() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	return alloc_fault_now() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	return alloc_fault_now() ? NULL : __libc_realloc(p, size);
}

void *aligned_alloc(size_t align, size_t size)
{
	return alloc_fault_now() ? NULL : __libc_memalign(align, size);
}

int posix_memalign(void **p, size_t align, size_t size)
{
	int before = errno;
	void *q = alloc_fault_now() ? NULL : __libc_memalign(align, size);

	errno = before;
	if (q)
		*p = q;
	return q ? 0 : ENOMEM;
}

#endif

/* What makes the linker take this file. */
void alloc_fault_all(void)
{
}
