#include "base/pool.h"

#include "base/lock.h"
#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(addr, size)   ((void)(addr), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(addr, size) ((void)(addr), (void)(size))
#endif

#define CLASSES   5u /* 4, 8, 16, 32 and 64 KiB */
#define NO_BLOCK  UINT32_MAX
#define HUGE_PAGE ((size_t)2 << 20)

/*
 * A block is on the free list, or is of one class and, while it has a free piece, on that class's list. Both lists are
 * stacks, blocks never touched come after those that were, and pieces are given lowest first: what was used before is
 * used again before a new page is faulted in.
 */
struct block {
	uint32_t prev, next;
	uint16_t free; /* a bit for each free piece */
	uint8_t class;
};

struct pool {
	pthread_mutex_t mutex;
	char *arena;
	void *map; /* the mapping that holds the arena, for munmap */
	size_t map_len;
	uint32_t nblocks;
	uint32_t fresh;            /* blocks from here on were never used */
	uint32_t unused;           /* stack of used blocks that are free again, through next */
	uint32_t partial[CLASSES]; /* blocks with a free piece */
	_Atomic size_t used;
	struct block *block;
};

/* The class of a request; CLASSES if there is none. */
static unsigned class_of(size_t len)
{
	unsigned class = 0;

	if (len == 0 || len > POOL_BLOCK)
		return CLASSES;
	while (POOL_PIECE << class < len)
		class ++;
	return class;
}

static size_t class_size(unsigned class)
{
	return POOL_PIECE << class;
}

/* The bits of all pieces of a block. */
static uint16_t class_mask(unsigned class)
{
	return (uint16_t)((1u << (POOL_BLOCK / class_size(class))) - 1);
}

static void list_push(struct pool *p, uint32_t *head, uint32_t b)
{
	p->block[b].prev = NO_BLOCK;
	p->block[b].next = *head;
	if (*head != NO_BLOCK)
		p->block[*head].prev = b;
	*head = b;
}

static void list_remove(struct pool *p, uint32_t *head, uint32_t b)
{
	const struct block *blk = &p->block[b];

	if (blk->prev == NO_BLOCK)
		*head = blk->next;
	else
		p->block[blk->prev].next = blk->next;
	if (blk->next != NO_BLOCK)
		p->block[blk->next].prev = blk->prev;
}

int pool_new(size_t bytes, struct pool **out)
{
	size_t nblocks = bytes / POOL_BLOCK + (bytes % POOL_BLOCK != 0);

	if (nblocks == 0 || nblocks >= NO_BLOCK)
		return -EINVAL;
	struct pool *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->block = calloc(nblocks, sizeof(*p->block));
	p->map_len = nblocks * POOL_BLOCK + HUGE_PAGE;
	p->map = mmap(NULL, p->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!p->block || p->map == MAP_FAILED) {
		if (p->map != MAP_FAILED)
			(void)munmap(p->map, p->map_len);
		free(p->block);
		free(p);
		return -ENOMEM;
	}
	p->arena = (char *)p->map + (HUGE_PAGE - (uintptr_t)p->map % HUGE_PAGE) % HUGE_PAGE;
	/* Both are advice: an old kernel or a small arena goes without. */
	(void)madvise(p->arena, nblocks * POOL_BLOCK, MADV_DONTDUMP);
	(void)madvise(p->arena, nblocks * POOL_BLOCK, MADV_HUGEPAGE);
	ASAN_POISON_MEMORY_REGION(p->arena, nblocks * POOL_BLOCK);

	p->nblocks = (uint32_t)nblocks;
	p->unused = NO_BLOCK;
	for (unsigned i = 0; i < CLASSES; i++)
		p->partial[i] = NO_BLOCK;
	(void)pthread_mutex_init(&p->mutex, NULL);
	*out = p;
	return 0;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
#if !defined(NDEBUG) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	if (pool_used(p)) {
		log_error("pool: %zu bytes were not put back", pool_used(p));
		abort();
	}
#endif
	ASAN_UNPOISON_MEMORY_REGION(p->arena, pool_total(p));
	(void)munmap(p->map, p->map_len);
	(void)pthread_mutex_destroy(&p->mutex);
	free(p->block);
	free(p);
}

/* Takes a free block for pieces of this class; NO_BLOCK if the arena has none. */
static uint32_t block_take(struct pool *p, unsigned class)
{
	uint32_t b = p->unused;

	if (b != NO_BLOCK)
		p->unused = p->block[b].next;
	else if (p->fresh < p->nblocks)
		b = p->fresh++;
	else
		return NO_BLOCK;
	p->block[b].class = (uint8_t) class;
	p->block[b].free = class_mask(class);
	list_push(p, &p->partial[class], b);
	return b;
}

void *pool_get(struct pool *p, size_t len)
{
	unsigned class = class_of(len);

	if (class == CLASSES)
		return NULL;
	SCOPED_LOCK(&p->mutex);
	uint32_t b = p->partial[class];
	if (b == NO_BLOCK)
		b = block_take(p, class);
	if (b == NO_BLOCK)
		return NULL;

	struct block *blk = &p->block[b];
	unsigned piece = (unsigned)__builtin_ctz(blk->free);
	blk->free = (uint16_t)(blk->free & ~(1u << piece));
	if (!blk->free)
		list_remove(p, &p->partial[class], b);
	atomic_fetch_add_explicit(&p->used, class_size(class), memory_order_relaxed);
	char *mem = p->arena + b * POOL_BLOCK + piece * class_size(class);
	ASAN_UNPOISON_MEMORY_REGION(mem, class_size(class));
	return mem;
}

size_t pool_size(size_t len)
{
	unsigned class = class_of(len);

	return class == CLASSES ? 0 : class_size(class);
}

void pool_put(struct pool *p, void *piece, size_t len)
{
	unsigned class = class_of(len);
	size_t at = (size_t)((char *)piece - p->arena);
	uint32_t b = (uint32_t)(at / POOL_BLOCK);

	SCOPED_LOCK(&p->mutex);
	struct block *blk = at < p->fresh * POOL_BLOCK ? &p->block[b] : NULL;
	unsigned bit = class < CLASSES ? 1u << (at % POOL_BLOCK / class_size(class)) : 0;
	if (!blk || blk->class != class || at % class_size(class) || (blk->free & bit)) {
		/* The caller's books are wrong: to go on would hand one piece to two owners. */
		log_error("pool: a piece was put back that was not given");
		abort();
	}
	ASAN_POISON_MEMORY_REGION(piece, class_size(class));
	if (blk->free)
		list_remove(p, &p->partial[class], b);
	blk->free = (uint16_t)(blk->free | bit);
	if (blk->free == class_mask(class)) {
		blk->next = p->unused;
		p->unused = b;
	} else {
		list_push(p, &p->partial[class], b);
	}
	atomic_fetch_sub_explicit(&p->used, class_size(class), memory_order_relaxed);
}

size_t pool_used(const struct pool *p)
{
	return atomic_load_explicit(&p->used, memory_order_relaxed);
}

size_t pool_total(const struct pool *p)
{
	return p->nblocks * POOL_BLOCK;
}
