/* Shared by the tests of the index. */
#ifndef APFS_TESTS_INDEX_SUPPORT_H
#define APFS_TESTS_INDEX_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "index/index.h"
#include "tests/sim/sim.h"

#define PAGE 4096

/* Fails the test with err's text unless ret is 0. */
void ok_at(int ret, const struct err *e, const char *file, int line);
#define ok(call)                                            \
	do {                                                \
		struct err ok_err = {0};                    \
		ok_at((call), &ok_err, __FILE__, __LINE__); \
	} while (0)

/* How the indexes of a test are sealed: by libsodium, with keys that are known here; or not, which only some do. */
extern const struct index_sealer *test_sealer;
void test_seal_index(bool sealed);
/* Opens a page as it lies in index.db: size - INDEX_RESERVE bytes to out. */
void test_page_open(const uint8_t *page, size_t size, uint32_t number, uint8_t *out);
int test_unit_open(void *arg, enum index_unit unit, uint64_t number, const uint8_t nonce[INDEX_NONCE], const void *in,
                   size_t len, void *out) MUST_CHECK;

/* An index on a new simulated STORE, with a segment 1. */
struct index *new_index(struct io **io);
struct index *open_index(struct io *io);
void close_index(struct index *ix);
void commit_index(struct index *ix);

void put_segment(struct index *ix, uint64_t id);
/* A chunk in segment 1 with 1,000 stored bytes and 1 MiB of plaintext. */
void put_chunk(struct index *ix, uint64_t id);
struct index_inode some_inode(uint64_t ino, uint32_t nlink);
/* All members but padding. */
bool same_inode(const struct index_inode *a, const struct index_inode *b);
struct index_dirent some_dirent(const char *name, uint64_t ino, uint64_t cookie);

/* How many rounds a property runs: n, or 20 times as many where APFS_NIGHTLY is set; a quarter under sanitizers. */
unsigned rounds(unsigned n);

#endif
