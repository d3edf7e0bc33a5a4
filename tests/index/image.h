/* What lies in index.db and its WAL, byte by byte, and the rows that an index has, for tests of both. */
#ifndef APFS_TESTS_INDEX_IMAGE_H
#define APFS_TESTS_INDEX_IMAGE_H

#include "index/db.h"
#include "tests/index/support.h"

#define SLOT       (PAGE + 32)
#define SLOT_AT(n) (128 + ((uint64_t)(n)-1) * SLOT)

/* A whole file, the caller's to free. */
uint8_t *load(struct io *io, const char *path, size_t *len);
void poke(struct io *io, const char *path, uint64_t off, const void *data, size_t len);
void flip(struct io *io, const char *path, uint64_t off, unsigned bit);
/* Makes a file what it was when it was loaded. */
void put_back(struct io *io, const char *path, const uint8_t *data, size_t len);

struct image {
	uint8_t *db, *wal;
	size_t db_len, wal_len;
};
struct image image_take(struct io *io);
void image_restore(struct io *io, const struct image *m);
void image_free(struct image *m);

/* Of every column of every row. 0: not all could be read. */
uint64_t rows_hash(struct index *ix);
/* Opens what there is: the hash of its rows, or 0 and why not. STORE stays as it is. */
uint64_t open_and_hash(struct io *io, int *ret);

/* Many rows, of which the names contain "canary". */
void put_names(struct index *ix, unsigned from, unsigned to);

#define COMMITS 6

/* A store as a crash leaves it: COMMITS commits in the WAL, of which the first `synced` were synced one by one. */
struct crashed {
	struct io *io;
	struct image m;
	uint64_t rows[COMMITS + 1]; /* after so many commits */
	uint64_t last[COMMITS + 1]; /* the slot that the commit ends with */
	uint64_t durable;           /* what the last slot claims */
};
void crashed_init(struct crashed *c, unsigned synced);
void crashed_release(struct crashed *c);

#endif
