/* Bytes of files, in blocks that copies share until they are written. */
#include "tests/sim/disk.h"

#include <stdlib.h>
#include <string.h>

/* What is allocated and was never written; it is never freed. */
static struct block zero_block = {.refs = 1};

void *sim_must(void *p)
{
	if (!p)
		abort();
	return p;
}

uint64_t rng64(struct rng *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

static struct block *block_ref(struct block *b)
{
	if (b && b != &zero_block)
		(void)atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

static void block_unref(struct block *b)
{
	if (b && b != &zero_block && atomic_fetch_sub(&b->refs, 1) == 1)
		free(b);
}

/* A block that nobody else sees. */
static struct block *block_own(struct block *b)
{
	if (b && b != &zero_block && atomic_load(&b->refs) == 1)
		return b;
	struct block *own = sim_must(malloc(sizeof(*own)));
	atomic_init(&own->refs, 1);
	if (b)
		memcpy(own->data, b->data, SIM_BLOCK);
	else
		memset(own->data, 0, SIM_BLOCK);
	block_unref(b);
	return own;
}

/* --- contents ----------------------------------------------------------------------------------------------------- */

struct content *content_new(void)
{
	struct content *c = sim_must(calloc(1, sizeof(*c)));

	atomic_init(&c->refs, 1);
	return c;
}

struct content *content_ref(struct content *c)
{
	if (c)
		(void)atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

void content_unref(struct content *c)
{
	if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	for (size_t i = 0; i < c->count; i++)
		block_unref(c->block[i]);
	free(c->block);
	free(c);
}

static struct content *content_own(struct content **at)
{
	struct content *c = *at;

	if (atomic_load(&c->refs) == 1)
		return c;
	struct content *own = content_new();
	own->size = c->size;
	own->allocated = c->allocated;
	own->count = own->room = c->count;
	own->block = sim_must(calloc(c->count + 1, sizeof(struct block *)));
	for (size_t i = 0; i < c->count; i++)
		own->block[i] = block_ref(c->block[i]);
	content_unref(c);
	return *at = own;
}

static void content_grow(struct content *c, size_t count)
{
	if (count <= c->count)
		return;
	if (count > c->room) {
		c->room = count + count / 2;
		c->block = sim_must(realloc(c->block, c->room * sizeof(struct block *)));
	}
	memset(c->block + c->count, 0, (count - c->count) * sizeof(struct block *));
	c->count = count;
}

static size_t blocks_of(uint64_t bytes)
{
	return (size_t)((bytes + SIM_BLOCK - 1) / SIM_BLOCK);
}

size_t content_read(const struct content *c, void *buf, size_t len, uint64_t off)
{
	if (off >= c->size)
		return 0;
	if (len > c->size - off)
		len = (size_t)(c->size - off);
	for (size_t done = 0; done < len;) {
		size_t i = (size_t)((off + done) / SIM_BLOCK), at = (size_t)((off + done) % SIM_BLOCK);
		size_t n = SIM_BLOCK - at < len - done ? SIM_BLOCK - at : len - done;

		if (i < c->count && c->block[i])
			memcpy((uint8_t *)buf + done, c->block[i]->data + at, n);
		else
			memset((uint8_t *)buf + done, 0, n);
		done += n;
	}
	return len;
}

void content_write(struct content **at, const void *buf, size_t len, uint64_t off)
{
	if (!len)
		return;
	struct content *c = content_own(at);
	content_grow(c, blocks_of(off + len));
	for (size_t done = 0; done < len;) {
		size_t i = (size_t)((off + done) / SIM_BLOCK), in = (size_t)((off + done) % SIM_BLOCK);
		size_t n = SIM_BLOCK - in < len - done ? SIM_BLOCK - in : len - done;

		c->allocated += !c->block[i];
		c->block[i] = block_own(c->block[i]);
		memcpy(c->block[i]->data + in, (const uint8_t *)buf + done, n);
		done += n;
	}
	if (off + len > c->size)
		c->size = off + len;
}

void content_resize(struct content **at, uint64_t size)
{
	struct content *c = content_own(at);
	size_t keep = blocks_of(size);

	for (size_t i = keep; i < c->count; i++) {
		c->allocated -= c->block[i] != NULL;
		block_unref(c->block[i]);
	}
	if (keep < c->count)
		c->count = keep;
	if (size < c->size && size % SIM_BLOCK && keep <= c->count && c->block[keep - 1]) {
		c->block[keep - 1] = block_own(c->block[keep - 1]);
		memset(c->block[keep - 1]->data + size % SIM_BLOCK, 0, SIM_BLOCK - size % SIM_BLOCK);
	}
	c->size = size;
}

void content_allocate(struct content **at, uint64_t off, uint64_t len)
{
	struct content *c = content_own(at);

	content_grow(c, blocks_of(off + len));
	for (size_t i = (size_t)(off / SIM_BLOCK); i < blocks_of(off + len); i++) {
		if (c->block[i])
			continue;
		c->block[i] = &zero_block;
		c->allocated++;
	}
	if (off + len > c->size)
		c->size = off + len;
}

size_t content_holes(const struct content *c, uint64_t off, uint64_t len)
{
	size_t holes = 0;

	for (size_t i = (size_t)(off / SIM_BLOCK); len && i < blocks_of(off + len); i++)
		holes += i >= c->count || !c->block[i];
	return holes;
}

/* --- pending changes ---------------------------------------------------------------------------------------------- */

struct op *op_new(enum op_kind kind, uint64_t number, const void *data, uint64_t off, uint64_t len, struct op *before)
{
	struct op *op = sim_must(malloc(sizeof(*op) + (data ? (size_t)len : 0)));

	atomic_init(&op->refs, 1);
	op->before = before;
	op->number = number;
	op->kind = kind;
	op->off = off;
	op->len = len;
	if (data)
		memcpy(op->data, data, (size_t)len);
	return op;
}

void op_unref(struct op *op)
{
	while (op && atomic_fetch_sub(&op->refs, 1) == 1) {
		struct op *before = op->before;
		free(op);
		op = before;
	}
}

void op_apply(const struct op *op, struct content **c)
{
	switch (op->kind) {
	case OP_WRITE:
		content_write(c, op->data, (size_t)op->len, op->off);
		break;
	case OP_SIZE:
		content_resize(c, op->off);
		break;
	case OP_ALLOCATE:
		content_allocate(c, op->off, op->len);
		break;
	}
}

void op_apply_torn(const struct op *op, struct content **c, struct rng *r)
{
	unsigned percent = (unsigned)(rng64(r) % 3) * 45 + 5;

	if (op->kind != OP_WRITE) {
		if (rng64(r) & 1)
			op_apply(op, c);
		return;
	}
	for (uint64_t at = 0; at < op->len;) {
		uint64_t n = SIM_SECTOR - (op->off + at) % SIM_SECTOR;

		if (n > op->len - at)
			n = op->len - at;
		if (rng_percent(r, percent))
			content_write(c, op->data + at, (size_t)n, op->off + at);
		at += n;
	}
	if (op->off + op->len > (*c)->size && rng64(r) & 1)
		content_resize(c, op->off + op->len);
}
