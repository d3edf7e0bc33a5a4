/* A buffer of file data that is not sealed yet: one piece of the pool. */
#ifndef APFS_FS_CORE_BUFFER_H
#define APFS_FS_CORE_BUFFER_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>

struct core;
struct node;

struct buffer {
	struct core *core;
	struct node *node; /* whose data it is: outlives it */
	atomic_uint refs;  /* pieces of maps and items of batches */
	uint32_t cap;      /* bytes there is room for */
	uint32_t len;      /* bytes in use, from the start */
	uint32_t inflight; /* items being sealed: while there are any, nobody writes to data */
	uint8_t *data;
};

/* A buffer of n's with room for at least len bytes (1 to POOL_BLOCK) and one reference, counted as dirty until its last
 * reference goes. -ENOMEM only when the arena stays full whatever is evicted: the caller waits for a cut. */
int buffer_new(struct core *c, struct node *n, size_t len, struct buffer **out) MUST_CHECK;
void buffer_ref(struct buffer *b);
void buffer_unref(struct buffer *b);

#endif
