/* A STORE in memory for the fuzz targets: fast, and gone with the process. */
#ifndef APFS_TESTS_FUZZ_MEM_IO_H
#define APFS_TESTS_FUZZ_MEM_IO_H

#include "base/io.h"

/* An empty STORE; aborts without memory. io_free frees it with all its files, which must be closed. */
struct io *mem_new(void);
/* A copy of all files. */
struct io *mem_copy(struct io *io);
/* Makes or replaces a file, and the directories that its path names. */
void mem_put(struct io *io, const char *path, const void *data, size_t len);
/* A file's bytes, valid until it is written to; NULL if there is none. */
const uint8_t *mem_get(struct io *io, const char *path, size_t *len);

#endif
