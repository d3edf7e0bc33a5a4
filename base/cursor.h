/*
 * A bounds-checked cursor over bytes: little-endian encode and decode. A get past the end yields zero and a put past
 * the end writes nothing; both set `bad`, which the caller checks once at the end. Bytes from disk go through here.
 */
#ifndef APFS_BASE_CURSOR_H
#define APFS_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cursor {
	uint8_t *p; /* the next byte; decoding never writes through it */
	uint8_t *end;
	bool bad;
};

struct cursor cursor_reader(const void *buf, size_t len);
struct cursor cursor_writer(void *buf, size_t len);
size_t cursor_left(const struct cursor *c);

uint8_t cursor_get8(struct cursor *c);
uint16_t cursor_get16(struct cursor *c);
uint32_t cursor_get32(struct cursor *c);
uint64_t cursor_get64(struct cursor *c);
/* LEB128, at most 10 bytes; a longer or overflowing one sets bad. */
uint64_t cursor_get_varint(struct cursor *c);
/* Copies len bytes to out; zeroes out when bad. */
void cursor_get(struct cursor *c, void *out, size_t len);

void cursor_put8(struct cursor *c, uint8_t v);
void cursor_put16(struct cursor *c, uint16_t v);
void cursor_put32(struct cursor *c, uint32_t v);
void cursor_put64(struct cursor *c, uint64_t v);
void cursor_put_varint(struct cursor *c, uint64_t v);
void cursor_put(struct cursor *c, const void *in, size_t len);

#endif
