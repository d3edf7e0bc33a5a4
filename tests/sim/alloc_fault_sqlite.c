/* SQLite's allocations through malloc of this program, which the linker has wrapped. */
#include "tests/sim/alloc_fault.h"

#include <sqlite3.h>
#include <stdlib.h>

/* Lengths are kept in front: SQLite asks for them. */
#define FRONT 16

static void *take(int size)
{
	char *p = malloc((size_t)size + FRONT);

	if (!p)
		return NULL;
	*(int *)(void *)p = size;
	return p + FRONT;
}

static void give(void *p)
{
	if (p)
		free((char *)p - FRONT);
}

static void *change(void *p, int size)
{
	char *q = realloc((char *)p - FRONT, (size_t)size + FRONT);

	if (!q)
		return NULL;
	*(int *)(void *)q = size;
	return q + FRONT;
}

static int size_of(void *p)
{
	return p ? *(int *)(void *)((char *)p - FRONT) : 0;
}

static int round_up(int size)
{
	return (size + 7) & ~7;
}

static int begin(void *arg)
{
	(void)arg;
	return SQLITE_OK;
}

static void end(void *arg)
{
	(void)arg;
}

void alloc_fault_sqlite(void)
{
	static const sqlite3_mem_methods methods = {take, give, change, size_of, round_up, begin, end, NULL};

	if (sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK)
		abort();
}
