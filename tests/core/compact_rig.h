/* Files beside what they must hold, for the tests of compaction. All fail the test themselves. */
#ifndef APFS_TESTS_CORE_COMPACT_RIG_H
#define APFS_TESTS_CORE_COMPACT_RIG_H

#include "fs/core/compact.h"
#include "tests/core/support.h"

#define MIB   ((size_t)1 << 20)
#define BLOCK ((size_t)4096)

struct file {
	uint64_t ino;
	uint8_t *data; /* the caller frees it */
	size_t len;
};

/* A new one, of random bytes. */
struct file file_make_in(struct fixture *f, uint64_t dir, const char *name, uint64_t *rng, size_t len);
struct file file_make(struct fixture *f, const char *name, uint64_t *rng, size_t len);
void file_write(struct fixture *f, struct file *x, uint64_t *rng, size_t off, size_t len);
/* Overwrites n blocks at random places. */
void file_scatter(struct fixture *f, struct file *x, uint64_t *rng, size_t n);
void file_check(struct fixture *f, const struct file *x);

void index_ok(struct fixture *f);
void compact_ok(struct fixture *f, bool all);

#endif
