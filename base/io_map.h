/*
 * Within base: a file that is mapped for reading. A page that cannot be read (the file was cut short, the device
 * failed) raises SIGBUS; a handler then puts zeroes in place of the whole mapping and marks it, and whoever was reading
 * goes on and learns of it. Other SIGBUSes are left to who handled them before.
 */
#ifndef APFS_BASE_IO_MAP_H
#define APFS_BASE_IO_MAP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IO_MAP_MAX 256u /* mappings at a time */

struct io_map;

/* Maps the first len bytes. Threads that read must not block SIGBUS. -ENOSPC: too many are mapped. */
int io_map_new(int fd, size_t len, struct io_map **out) MUST_CHECK;
/* Nobody may be reading. NULL is allowed. */
void io_map_free(struct io_map *m);

/* Copies len bytes from off on. False when the mapping does not give them: buf then holds anything. */
bool io_map_read(struct io_map *m, void *buf, size_t len, uint64_t off) MUST_CHECK;

#endif
