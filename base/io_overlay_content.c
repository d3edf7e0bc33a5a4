#include "base/io_overlay_content.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define uthash_fatal(msg) ((void)0)
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct overlay_block {
	UT_hash_handle hh;
	uint64_t number;
	uint8_t data[OVERLAY_BLOCK];
};

struct overlay_content *overlay_content_new(void)
{
	struct overlay_content *c = calloc(1, sizeof(*c));

	if (c)
		*c = (struct overlay_content){.refs = 1, .changed = clock_system.now(&clock_system).sec};
	return c;
}

int overlay_content_load(struct io *under, const char *path, int64_t changed, struct overlay_content **out)
{
	struct overlay_content *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = (struct overlay_content){.refs = 1, .changed = changed, .pristine = true};
	int ret = io_open(under, path, IO_READ, &c->under);
	if (!ret)
		ret = io_size(c->under, &c->size);
	if (ret) {
		overlay_content_put(c);
		return ret;
	}
	c->under_end = c->size;
	*out = c;
	return 0;
}

void overlay_content_put(struct overlay_content *c)
{
	struct overlay_block *b, *next;

	if (!c || --c->refs)
		return;
	HASH_ITER (hh, c->blocks, b, next) {
		HASH_DEL(c->blocks, b);
		free(b);
	}
	io_close(c->under);
	free(c);
}

static void content_touch(struct overlay_content *c)
{
	c->pristine = false;
	c->changed = clock_system.now(&clock_system).sec;
}

static struct overlay_block *block_find(const struct overlay_content *c, uint64_t number)
{
	struct overlay_block *b;

	HASH_FIND(hh, c->blocks, &number, sizeof(number), b);
	return b;
}

/* Bytes of the file below, zeroes after its end. */
static int under_read(const struct overlay_content *c, uint8_t *buf, size_t len, uint64_t off)
{
	size_t have = off >= c->under_end ? 0 : c->under_end - off < len ? (size_t)(c->under_end - off) : len;
	ssize_t n = have ? io_pread(c->under, buf, have, off) : 0;

	if (n < 0)
		return (int)n;
	memset(buf + n, 0, len - (size_t)n);
	return 0;
}

/* The block, copied from below unless it is changed already. */
static int block_get(struct overlay_content *c, uint64_t number, struct overlay_block **out)
{
	struct overlay_block *b = block_find(c, number);

	*out = b;
	if (b)
		return 0;
	b = malloc(sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->number = number;
	int ret = under_read(c, b->data, OVERLAY_BLOCK, number * OVERLAY_BLOCK);
	if (!ret) {
		HASH_ADD(hh, c->blocks, number, sizeof(b->number), b);
		if (!b->hh.tbl)
			ret = -ENOMEM;
	}
	if (ret)
		free(b);
	else
		*out = b;
	return ret;
}

ssize_t overlay_content_read(const struct overlay_content *c, void *buf, size_t len, uint64_t off)
{
	size_t left = off >= c->size ? 0 : c->size - off < len ? (size_t)(c->size - off) : len, all = left;
	uint8_t *p = buf;

	while (left) {
		size_t at = (size_t)(off % OVERLAY_BLOCK), n = OVERLAY_BLOCK - at < left ? OVERLAY_BLOCK - at : left;
		const struct overlay_block *b = block_find(c, off / OVERLAY_BLOCK);
		int ret = 0;

		if (b)
			memcpy(p, b->data + at, n);
		else
			ret = under_read(c, p, n, off);
		if (ret)
			return ret;
		p += n;
		off += n;
		left -= n;
	}
	return (ssize_t)all;
}

int overlay_content_write(struct overlay_content *c, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *p = buf;

	content_touch(c);
	while (len) {
		size_t at = (size_t)(off % OVERLAY_BLOCK), n = OVERLAY_BLOCK - at < len ? OVERLAY_BLOCK - at : len;
		struct overlay_block *b;
		int ret = block_get(c, off / OVERLAY_BLOCK, &b);

		if (ret)
			return ret;
		memcpy(b->data + at, p, n);
		p += n;
		off += n;
		len -= n;
		if (off > c->size)
			c->size = off;
	}
	return 0;
}

void overlay_content_resize(struct overlay_content *c, uint64_t size)
{
	struct overlay_block *b, *next;

	content_touch(c);
	if (size < c->under_end)
		c->under_end = size;
	if (size < c->size) {
		HASH_ITER (hh, c->blocks, b, next) {
			if (b->number * OVERLAY_BLOCK >= size) {
				HASH_DEL(c->blocks, b);
				free(b);
			} else if (size - b->number * OVERLAY_BLOCK < OVERLAY_BLOCK) {
				memset(b->data + size % OVERLAY_BLOCK, 0, OVERLAY_BLOCK - size % OVERLAY_BLOCK);
			}
		}
	}
	c->size = size;
}
