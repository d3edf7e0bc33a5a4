#include "tests/sim/alloc_fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

static atomic_uint_fast64_t left; /* until the one that fails; 0: none armed */
static atomic_uint_fast64_t count;
static atomic_bool lasts, one_thread, hit, armed;
static _Thread_local bool mine;
static _Thread_local unsigned paused;

void alloc_fault_arm(uint64_t nth, bool lasting, bool this_thread)
{
	atomic_store(&armed, false);
	atomic_store(&left, nth);
	atomic_store(&count, 0);
	atomic_store(&lasts, lasting);
	atomic_store(&one_thread, this_thread);
	atomic_store(&hit, false);
	mine = this_thread;
	atomic_store(&armed, true);
}

bool alloc_fault_disarm(void)
{
	atomic_store(&armed, false);
	mine = false;
	return atomic_load(&hit);
}

uint64_t alloc_fault_count(void)
{
	return atomic_load(&count);
}

void alloc_fault_pause(void)
{
	paused++;
}

void alloc_fault_resume(void)
{
	paused--;
}

static bool fails(void)
{
	if (!atomic_load(&armed) || paused || (atomic_load(&one_thread) && !mine))
		return false;
	(void)atomic_fetch_add(&count, 1);
	if (atomic_load(&hit))
		return atomic_load(&lasts);
	if (!atomic_load(&left) || atomic_fetch_sub(&left, 1) != 1)
		return false;
	atomic_store(&hit, true);
	return true;
}

bool alloc_fault_now(void)
{
	bool yes = fails();

	if (yes)
		errno = ENOMEM;
	return yes;
}

/* The linker sends calls of f to __wrap_f, and those of __real_f to f. NOLINTBEGIN(bugprone-reserved-identifier) */
#define WRAPPED(type, f, ...)         \
	type __real_##f(__VA_ARGS__); \
	type __wrap_##f(__VA_ARGS__)

WRAPPED(void *, malloc, size_t size);
WRAPPED(void *, calloc, size_t n, size_t size);
WRAPPED(void *, realloc, void *p, size_t size);
WRAPPED(void *, reallocarray, void *p, size_t n, size_t size);
WRAPPED(void *, aligned_alloc, size_t align, size_t size);
WRAPPED(int, posix_memalign, void **p, size_t align, size_t size);
WRAPPED(char *, strdup, const char *s);
WRAPPED(char *, strndup, const char *s, size_t n);
WRAPPED(void *, mmap, void *at, size_t len, int prot, int flags, int fd, off_t off);
WRAPPED(int, pthread_create, pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);

void *__wrap_malloc(size_t size)
{
	return alloc_fault_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return alloc_fault_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return alloc_fault_now() ? NULL : __real_realloc(p, size);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return alloc_fault_now() ? NULL : __real_reallocarray(p, n, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	return alloc_fault_now() ? NULL : __real_aligned_alloc(align, size);
}

int __wrap_posix_memalign(void **p, size_t align, size_t size)
{
	return fails() ? ENOMEM : __real_posix_memalign(p, align, size);
}

char *__wrap_strdup(const char *s)
{
	return alloc_fault_now() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
	return alloc_fault_now() ? NULL : __real_strndup(s, n);
}

void *__wrap_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	return alloc_fault_now() ? MAP_FAILED : __real_mmap(at, len, prot, flags, fd, off);
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return fails() ? EAGAIN : __real_pthread_create(t, attr, fn, arg);
}
/* NOLINTEND(bugprone-reserved-identifier) */
