/* Files beside what they must hold, for the tests of compaction and of clones. All fail the test themselves. */
#ifndef APFS_TESTS_CORE_FILE_RIG_H
#define APFS_TESTS_CORE_FILE_RIG_H

#include "fs/core/compact.h"
#include "tests/core/support.h"

#define MIB   ((size_t)1 << 20)
#define BLOCK ((size_t)4096)

struct file {
	uint64_t ino;
	uint8_t *data; /* the caller frees it */
	size_t len, room;
};

/* A new one, of random bytes, which may grow to `room` if that is more. */
struct file file_make_in(struct fixture *f, uint64_t dir, const char *name, uint64_t *rng, size_t len, size_t room);
struct file file_make(struct fixture *f, const char *name, uint64_t *rng, size_t len);
void file_write(struct fixture *f, struct file *x, uint64_t *rng, size_t off, size_t len);
/* Overwrites n blocks at random places. */
void file_scatter(struct fixture *f, struct file *x, uint64_t *rng, size_t n);
/* All of `to` becomes what `from` is, which is no shorter. */
void file_clone(struct fixture *f, const struct file *from, struct file *to);
void file_check(struct fixture *f, const struct file *x);
/* Extents that the index has of it. */
size_t file_pieces(struct fixture *f, const struct file *x);

/* That STORE takes. */
uint64_t segment_bytes(struct fixture *f);
void index_ok(struct fixture *f);
void compact_ok(struct fixture *f, bool all);

#endif
