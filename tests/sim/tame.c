#include "tests/sim/tame.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t state = 1;

static uint64_t next(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void fill(void *buf, size_t len)
{
	uint8_t *p = buf;

	(void)pthread_mutex_lock(&lock);
	while (len) {
		uint64_t v = next();
		size_t n = len < sizeof(v) ? len : sizeof(v);

		memcpy(p, &v, n);
		p += n;
		len -= n;
	}
	(void)pthread_mutex_unlock(&lock);
}

static const char *name(void)
{
	return "tame";
}

static uint32_t one(void)
{
	uint32_t v;

	fill(&v, sizeof(v));
	return v;
}

void tame(uint64_t seed)
{
	static struct randombytes_implementation from_seed = {.implementation_name = name, .random = one, .buf = fill};

	(void)pthread_mutex_lock(&lock);
	state = seed;
	(void)pthread_mutex_unlock(&lock);
	if (randombytes_set_implementation(&from_seed) || sodium_init() < 0)
		abort();
}

/* The linker sends calls of f to __wrap_f. NOLINTBEGIN(bugprone-reserved-identifier) */
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
void *__wrap_sodium_malloc(size_t len);
void __wrap_sodium_free(void *p);

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
	(void)flags;
	fill(buf, len);
	return (ssize_t)len;
}

void *__wrap_sodium_malloc(size_t len)
{
	return malloc(len);
}

void __wrap_sodium_free(void *p)
{
	free(p);
}
/* NOLINTEND(bugprone-reserved-identifier) */
