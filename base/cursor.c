#include "base/cursor.h"

#include <string.h>

struct cursor cursor_reader(const void *buf, size_t len)
{
	uint8_t *p = (uint8_t *)(uintptr_t)buf;
	return (struct cursor){.p = p, .end = p ? p + len : p, .bad = !p && len};
}

struct cursor cursor_writer(void *buf, size_t len)
{
	return cursor_reader(buf, len);
}

size_t cursor_left(const struct cursor *c)
{
	return c->bad ? 0 : (size_t)(c->end - c->p);
}

/* The next len bytes, or NULL when there are fewer; once bad, always bad. */
static uint8_t *take(struct cursor *c, size_t len)
{
	if (c->bad || len > (size_t)(c->end - c->p)) {
		c->bad = true;
		return NULL;
	}
	uint8_t *p = c->p;
	c->p += len;
	return p;
}

static uint64_t get_le(struct cursor *c, size_t len)
{
	const uint8_t *p = take(c, len);
	uint64_t v = 0;

	if (!p)
		return 0;
	for (size_t i = 0; i < len; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static void put_le(struct cursor *c, uint64_t v, size_t len)
{
	uint8_t *p = take(c, len);

	if (!p)
		return;
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

uint8_t cursor_get8(struct cursor *c)
{
	return (uint8_t)get_le(c, 1);
}

uint16_t cursor_get16(struct cursor *c)
{
	return (uint16_t)get_le(c, 2);
}

uint32_t cursor_get32(struct cursor *c)
{
	return (uint32_t)get_le(c, 4);
}

uint64_t cursor_get64(struct cursor *c)
{
	return get_le(c, 8);
}

uint64_t cursor_get_varint(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 70; shift += 7) {
		const uint8_t *p = take(c, 1);
		if (!p)
			return 0;
		/* The tenth byte has room for one bit, and nothing may follow it. */
		if (shift == 63 && *p > 1)
			break;
		v |= (uint64_t)(*p & 0x7f) << shift;
		if (!(*p & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

void cursor_get(struct cursor *c, void *out, size_t len)
{
	const uint8_t *p = take(c, len);

	if (!len)
		return;
	if (p)
		memcpy(out, p, len);
	else
		memset(out, 0, len);
}

void cursor_put8(struct cursor *c, uint8_t v)
{
	put_le(c, v, 1);
}

void cursor_put16(struct cursor *c, uint16_t v)
{
	put_le(c, v, 2);
}

void cursor_put32(struct cursor *c, uint32_t v)
{
	put_le(c, v, 4);
}

void cursor_put64(struct cursor *c, uint64_t v)
{
	put_le(c, v, 8);
}

void cursor_put_varint(struct cursor *c, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		bytes[n++] = (uint8_t)(v | 0x80);
	bytes[n++] = (uint8_t)v;
	cursor_put(c, bytes, n);
}

void cursor_put(struct cursor *c, const void *in, size_t len)
{
	uint8_t *p = take(c, len);

	if (p && len)
		memcpy(p, in, len);
}
