#include "pipeline/arena.h"

#include <errno.h>
#include <sys/mman.h>

#define ALIGN 4096u /* pieces start on pages, so that two threads never write to one cache line */

int arena_init(struct arena *a, size_t size)
{
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return -errno;
	(void)madvise(base, size, MADV_DONTDUMP);
	a->base = base;
	a->size = size;
	TAILQ_INIT(&a->used);
	return 0;
}

void arena_release(struct arena *a)
{
	if (a->base)
		(void)munmap(a->base, a->size);
	a->base = NULL;
}

uint8_t *arena_get(struct arena *a, struct arena_piece *piece, size_t len)
{
	struct arena_piece *next;
	size_t off = 0;

	if (len > a->size)
		return NULL;
	len = (len + ALIGN - 1) / ALIGN * ALIGN;
	TAILQ_FOREACH (next, &a->used, link) {
		if (next->off - off >= len)
			break;
		off = next->off + next->len;
	}
	if (!next && a->size - off < len)
		return NULL;
	piece->off = off;
	piece->len = len;
	if (next)
		TAILQ_INSERT_BEFORE(next, piece, link);
	else
		TAILQ_INSERT_TAIL(&a->used, piece, link);
	return a->base + off;
}

void arena_put(struct arena *a, struct arena_piece *piece)
{
	TAILQ_REMOVE(&a->used, piece, link);
}
