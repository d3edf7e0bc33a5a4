/* A store in a temporary directory, opened in-process, for the tests of fs/core. */
#ifndef APFS_TESTS_CORE_SUPPORT_H
#define APFS_TESTS_CORE_SUPPORT_H

#include "base/clock.h"
#include "fs/core/core.h"
#include "fs/core/index_seal.h"
#include "tests/base/scratch.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A clock that shows what the test says; its monotonic time is the system's. */
struct test_clock {
	struct clock clock; /* the first member */
	_Atomic int64_t sec;
	_Atomic uint32_t nsec;
};
void test_clock_init(struct test_clock *c, int64_t sec, uint32_t nsec);
void test_clock_set(struct test_clock *c, struct clock_time t);
void test_clock_step(struct test_clock *c);
struct clock_time test_clock_now(const struct test_clock *c);

struct fixture {
	char dir[SCRATCH_PATH]; /* STORE */
	struct io *disk;        /* or a simulated one, borrowed */
	struct io *io;
	struct core *core;
	struct core_options options;
	struct test_clock clock;
};

/* Makes and formats a store with the cheapest key derivation; memory 32 MiB, commits only when asked. */
void fixture_init(struct fixture *f);
/* The same on a simulated STORE, which stays the caller's; it is not locked. */
void fixture_init_on(struct fixture *f, struct io *disk);
/* Closes it if it is open and removes the directory. */
void fixture_release(struct fixture *f);
/* Only removes the directory. */
void fixture_discard(struct fixture *f);
/* Results of core_open and core_close; the lock is taken and released. */
int fixture_open(struct fixture *f) MUST_CHECK;
int fixture_close(struct fixture *f) MUST_CHECK;
void fixture_abandon(struct fixture *f);
/* These fail the test themselves. */
void fixture_remount(struct fixture *f);
void fixture_crash(struct fixture *f);

/* The index of a store that is not open. These fail the test themselves. */
struct fixture_index {
	struct io *io;
	struct index_seal seal;
	struct index *index;
};
void fixture_index_open(struct fixture *f, struct fixture_index *out);
void fixture_index_close(struct fixture_index *x);

/* Allocated bytes under STORE/sub ("" for all of it but the reserve), and calls for each regular file. */
uint64_t fixture_disk_usage(const struct fixture *f, const char *sub);
/* The number of segment files that chunks were appended to. */
unsigned fixture_segments(const struct fixture *f);
/* Whether any file under STORE/sub contains the bytes. */
bool fixture_contains(const struct fixture *f, const char *sub, const void *needle, size_t len);
/* Paths of these: the caller frees each and the list. */
char **fixture_segment_paths(const struct fixture *f, size_t *n);

/* cmocka's setup and teardown: *state is a fixture with an open volume. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Shorthands that fail the test on an error. New inodes belong to 0:0, umask 0; the reference is kept. */
uint64_t make(struct fixture *f, uint64_t parent, const char *name, uint32_t mode);
uint64_t find(struct fixture *f, uint64_t parent, const char *name);
struct core_attr attr_of(struct fixture *f, uint64_t ino);
void put(struct fixture *f, uint64_t ino, const void *buf, size_t len, uint64_t off);
/* core_file_write_blocks of a copy, 1 MiB at most, and then writes over the blocks that it left. */
int write_blocks(struct fixture *f, struct core_file *file, const void *buf, size_t len, uint64_t off,
                 unsigned flags) MUST_CHECK;
/* Reads up to len bytes: the count. */
size_t get(struct fixture *f, uint64_t ino, void *buf, size_t len, uint64_t off);
void sync_all(struct fixture *f);
/* A file that is open when its volume is abandoned can no more be closed. It is kept, lest it count as a leak. */
void lose_file(struct core_file *file);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD 1 /* sanitizers: do less */
#else
#define SLOW_BUILD 0
#endif

/* xorshift: the next of a sequence; below(n) is in [0, n). */
uint64_t rng_next(uint64_t *state);
uint64_t rng_below(uint64_t *state, uint64_t n);
uint64_t rng_seed(uint64_t seed);

/* Fills buf with data of a kind chosen by the generator: text, random bytes, zeroes or short runs. */
void fill_data(uint64_t *state, void *buf, size_t len);
void fill_random(uint64_t *state, void *buf, size_t len);

/* An unsigned number from the environment, or the fallback. */
uint64_t env_number(const char *name, uint64_t fallback);

#endif
