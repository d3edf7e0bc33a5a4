/* Within the overlay: a file's bytes. Whoever calls holds the overlay's lock. */
#ifndef APFS_BASE_IO_OVERLAY_CONTENT_H
#define APFS_BASE_IO_OVERLAY_CONTENT_H

#include "base/io.h"

#include <stdbool.h>

#define OVERLAY_BLOCK 4096u

struct overlay_block;

/* The bytes of a file below up to under_end, zeroes from there, and changed blocks over both. */
struct overlay_content {
	unsigned refs;         /* handles, and 1 for an entry that names it */
	struct io_file *under; /* NULL: made here */
	uint64_t under_end, size;
	int64_t changed;
	bool pristine; /* as it is below, at the same path */
	struct overlay_block *blocks;
};

/* With one reference: nothing, NULL without memory; or what is at a path below. */
struct overlay_content *overlay_content_new(void) MUST_CHECK;
int overlay_content_load(struct io *under, const char *path, int64_t changed, struct overlay_content **out) MUST_CHECK;
/* Gives a reference back; NULL is allowed. */
void overlay_content_put(struct overlay_content *c);

/* As io_pread and io_pwrite. */
ssize_t overlay_content_read(const struct overlay_content *c, void *buf, size_t len, uint64_t off);
int overlay_content_write(struct overlay_content *c, const void *buf, size_t len, uint64_t off) MUST_CHECK;
/* What was beyond a smaller size does not show again when the file grows. */
void overlay_content_resize(struct overlay_content *c, uint64_t size);

#endif
