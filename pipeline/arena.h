/*
 * Within the pipeline: the memory that large records are put together in. One mapping, cut first-fit from the bottom,
 * so that the same pages are used again and again: a fresh page costs a fault of 22 us here. The caller locks.
 */
#ifndef APFS_PIPELINE_ARENA_H
#define APFS_PIPELINE_ARENA_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

/* A piece in use; embedded in whatever uses it. */
struct arena_piece {
	size_t off, len;
	TAILQ_ENTRY(arena_piece) link;
};

struct arena {
	uint8_t *base;
	size_t size;
	TAILQ_HEAD(, arena_piece) used; /* ascending */
};

/* Pages come into being on first use; core dumps leave them out. */
int arena_init(struct arena *a, size_t size) MUST_CHECK;
void arena_release(struct arena *a);

/* len bytes, or NULL while there is no such gap: an empty arena always has one for len up to its size. */
uint8_t *arena_get(struct arena *a, struct arena_piece *piece, size_t len) MUST_CHECK;
void arena_put(struct arena *a, struct arena_piece *piece);

#endif
