/* The file data of the model: blocks of 4 KiB in a hash, and their history. */
#include "tests/core/model.h"

#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static struct model_block *block_get(struct model_inode *i, uint64_t number)
{
	struct model_block *b;

	HASH_FIND(hh, i->blocks, &number, sizeof(number), b);
	return b;
}

static uint8_t *block_copy(const uint8_t *data)
{
	uint8_t *copy;

	if (!data)
		return NULL;
	copy = must(malloc(MODEL_BLOCK));
	return memcpy(copy, data, MODEL_BLOCK);
}

/* The block, to be changed: what it was goes to its history. */
static struct model_block *block_change(struct model *m, struct model_inode *i, uint64_t number)
{
	struct model_block *b = block_get(i, number);

	if (!b) {
		b = must(calloc(1, sizeof(*b)));
		b->number = number;
		HASH_ADD(hh, i->blocks, number, sizeof(b->number), b);
	}
	if (m->history) {
		struct model_version *v = must(calloc(1, sizeof(*v)));

		v->until = m->step - 1;
		v->data = block_copy(b->data);
		v->older = b->old;
		b->old = v;
	}
	return b;
}

static void size_change(struct model *m, struct model_inode *i, uint64_t size)
{
	if (m->history && size != i->size) {
		struct model_version *v = must(calloc(1, sizeof(*v)));

		v->until = m->step - 1;
		v->size = i->size;
		v->older = i->old_sizes;
		i->old_sizes = v;
	}
	i->size = size;
}

size_t model_read(struct model_inode *i, void *buf, size_t len, uint64_t off)
{
	uint8_t *out = buf;

	if (off >= i->size)
		return 0;
	if (len > i->size - off)
		len = (size_t)(i->size - off);
	for (size_t done = 0; done < len;) {
		uint64_t at = (off + done) % MODEL_BLOCK;
		size_t n = (size_t)(MODEL_BLOCK - at);
		struct model_block *b = block_get(i, (off + done) / MODEL_BLOCK);

		if (n > len - done)
			n = len - done;
		if (b && b->data)
			memcpy(out + done, b->data + at, n);
		else
			memset(out + done, 0, n);
		done += n;
	}
	return len;
}

void model_write(struct model *m, struct model_inode *i, const void *buf, size_t len, uint64_t off)
{
	const uint8_t *in = buf;

	for (size_t done = 0; done < len;) {
		uint64_t at = (off + done) % MODEL_BLOCK;
		size_t n = (size_t)(MODEL_BLOCK - at);
		struct model_block *b = block_change(m, i, (off + done) / MODEL_BLOCK);

		if (n > len - done)
			n = len - done;
		if (!b->data)
			b->data = must(calloc(1, MODEL_BLOCK));
		memcpy(b->data + at, in + done, n);
		done += n;
	}
	if (len && off + len > i->size)
		size_change(m, i, off + len);
	i->changed = m->step;
}

static void block_cut(struct model *m, struct model_inode *i, struct model_block *b, size_t keep)
{
	if (!b->data)
		return;
	(void)block_change(m, i, b->number);
	if (keep) {
		memset(b->data + keep, 0, MODEL_BLOCK - keep);
		return;
	}
	free(b->data);
	b->data = NULL;
	if (!m->history) {
		HASH_DEL(i->blocks, b);
		free(b);
	}
}

void model_truncate(struct model *m, struct model_inode *i, uint64_t size)
{
	struct model_block *b, *next;

	if (size < i->size)
		HASH_ITER (hh, i->blocks, b, next) {
			uint64_t start = b->number * MODEL_BLOCK;

			if (start >= size)
				block_cut(m, i, b, 0);
			else if (start + MODEL_BLOCK > size)
				block_cut(m, i, b, (size_t)(size - start));
		}
	size_change(m, i, size);
	i->changed = m->step;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

bool model_has_data(struct model_inode *i, uint64_t off, uint64_t len)
{
	struct model_block *b, *next;

	HASH_ITER (hh, i->blocks, b, next) {
		uint64_t start = b->number * MODEL_BLOCK, end = start + MODEL_BLOCK;

		if (!b->data || end <= off || start >= off + len)
			continue;
		if (start < off)
			start = off;
		if (end > off + len)
			end = off + len;
		if (!all_zero(b->data + start % MODEL_BLOCK, (size_t)(end - start)))
			return true;
	}
	return false;
}

static bool version_equals(const uint8_t *version, const uint8_t *data, size_t len)
{
	return version ? !memcmp(version, data, len) : all_zero(data, len);
}

bool model_block_was(struct model_inode *i, uint64_t number, const uint8_t *data, size_t len, uint64_t since)
{
	struct model_block *b = block_get(i, number);

	if (!b)
		return all_zero(data, len);
	if (version_equals(b->data, data, len))
		return true;
	for (struct model_version *v = b->old; v && v->until >= since; v = v->older)
		if (version_equals(v->data, data, len))
			return true;
	return false;
}

bool model_size_was(struct model_inode *i, uint64_t size, uint64_t since)
{
	if (i->size == size)
		return true;
	for (struct model_version *v = i->old_sizes; v && v->until >= since; v = v->older)
		if (v->size == size)
			return true;
	return false;
}
