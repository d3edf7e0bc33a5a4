/*
 * The memory that file data lives in: one arena, mapped once and never grown, cut into blocks of 64 KiB, each whole or
 * split into equal pieces of a power of two from 4 KiB up. A fresh page costs a fault of 22 us here, a reused one
 * nothing; and what is not in the arena cannot be exceeded. Any thread.
 */
#ifndef APFS_BASE_POOL_H
#define APFS_BASE_POOL_H

#include "base/err.h"

#include <stddef.h>

#define POOL_BLOCK ((size_t)65536)
#define POOL_PIECE ((size_t)4096)

struct pool;

/* An arena of `bytes`, rounded up to whole blocks, excluded from core dumps. */
int pool_new(size_t bytes, struct pool **out) MUST_CHECK;
/* Every piece must have been put back (checked in debug builds). */
void pool_free(struct pool *p);

/* A piece of at least len bytes (1 to POOL_BLOCK), or NULL when the arena has none: the caller evicts or waits.
 * Contents are undefined. */
void *pool_get(struct pool *p, size_t len) MUST_CHECK;
/* What pool_get gave for a request of len bytes has this size. */
size_t pool_size(size_t len);
/* Puts back what pool_get(p, len) gave; len only has to be of the same class. */
void pool_put(struct pool *p, void *piece, size_t len);

/* Bytes in use, counted in pieces; and the arena's size. */
size_t pool_used(const struct pool *p);
size_t pool_total(const struct pool *p);

#endif
