/*
 * A STORE in memory that behaves as a disk may: the simulated implementation of base/io.h.
 *
 * What is written, truncated or allocated stays pending until io_sync of that file; names (made, removed, renamed) stay
 * pending until io_sync_dir of their directory, a rename until that of both. A power cut decides by a seed what of the
 * pending survives: each write whole, not at all, or sector by sector (512 bytes), in any order; names in any
 * combination that keeps the order of changes of each name, a rename always as a whole. A file whose name was never
 * synced may be gone whatever was synced of its data.
 *
 * Thread-safe. With one thread, all of it repeats exactly for the same seeds and calls. Dies when memory runs out; a
 * store is cheap to copy (blocks are shared until written), so there can be thousands.
 */
#ifndef APFS_TESTS_SIM_SIM_H
#define APFS_TESTS_SIM_SIM_H

#include "base/io.h"

/* An empty STORE. io_free frees it, with everything in it, once its files are closed. */
struct io *sim_new(void);
/* A copy as of now, pending changes included; no fault armed, not locked, nothing open, no recorder. */
struct io *sim_clone(struct io *io);

/* --- operations --------------------------------------------------------------------------------------------------- */

enum {
	SIM_OPEN = 1, /* for writing */
	SIM_OPEN_READ = 2,
	SIM_READ = 4,
	SIM_WRITE = 8,
	SIM_SYNC = 16,
	SIM_TRUNCATE = 32,
	SIM_ALLOCATE = 64,
	SIM_UNLINK = 128,
	SIM_RENAME = 256,
	SIM_MKDIR = 512,
	SIM_SYNC_DIR = 1024,
	SIM_LIST = 2048,
	SIM_STAT = 4096, /* io_size too */
	SIM_SPACE = 8192,
	SIM_LOCK = 16384,
	SIM_CLASSES = 15,
	SIM_CHANGE = SIM_OPEN | SIM_WRITE | SIM_SYNC | SIM_TRUNCATE | SIM_ALLOCATE | SIM_UNLINK | SIM_RENAME |
	             SIM_MKDIR | SIM_SYNC_DIR,
	SIM_ANY = (1 << SIM_CLASSES) - 1
};

/* Calls of these classes so far, failed ones included. */
uint64_t sim_count(struct io *io, unsigned classes);
/* The name of one class. */
const char *sim_class_name(unsigned class);

/* Calls fn with a copy of the store after every SIM_CHANGE call (each is a moment at which the power may be cut), from
 * the thread that made the call and without a lock. number: of the call. The copy is fn's. NULL: no more. */
typedef void (*sim_record_fn)(void *arg, struct io *copy, uint64_t number, unsigned class, const char *path);
void sim_record(struct io *io, sim_record_fn fn, void *arg);

/* --- power cuts --------------------------------------------------------------------------------------------------- */

/* What is on the disk after a power cut, in place; faults are disarmed and the lock is free. Seed 0 loses everything
 * that was not synced. Other seeds choose a kind of loss (all, nothing, everything after some moment, all but one, at
 * random, rarely or mostly) and then at random. Files should be closed; those still open go on with what is left. */
void sim_crash(struct io *io, uint64_t seed);
/* Only the last pending write of each file survives, and all names: the worst order of writes. */
void sim_crash_last(struct io *io);
/* The end of a process, not of the power: nothing is lost, the lock is free, faults are disarmed. */
void sim_restart(struct io *io);

/* --- faults ------------------------------------------------------------------------------------------------------- */

struct sim_fault {
	unsigned classes; /* which calls count and fail */
	uint64_t nth;     /* from now on, 1 is the next */
	int error;        /* -errno; 0: -EIO */
	bool lasting;     /* so do all after it of these classes */
	unsigned percent; /* of a write is done before it fails */
	bool cut;         /* every call of any class after it fails: the power is gone; it may itself have had effect */
};

/* Arms one fault, in the place of an armed one; NULL disarms. After a failed io_sync pending writes of that file count
 * as clean, as on Linux: a seeded half of them is lost, whatever is synced later. */
void sim_arm(struct io *io, const struct sim_fault *fault);
/* The same for SIM_CHANGE; half of a write is done. nth 0: none. */
void sim_fail(struct io *io, uint64_t nth, int error, bool lasting);
/* Whether the armed fault has happened. Power cuts and restarts disarm, and make this false. */
bool sim_failed(const struct io *io);

/* All files together may take this many bytes, in blocks of 4 KiB; beyond, writes do what fits and fail with -ENOSPC.
 * 0: no limit (io_space then says 1 TiB). */
void sim_limit(struct io *io, uint64_t bytes);
/* The same with -EDQUOT, and io_space does not know of it. */
void sim_quota(struct io *io, uint64_t bytes);
/* io_allocate is not supported from now on. */
void sim_no_allocate(struct io *io);
/* Bytes that the files take. */
uint64_t sim_used(struct io *io);

/* --- looking and tampering ---------------------------------------------------------------------------------------- */

/* Calls of io_sync. */
static inline unsigned sim_syncs(struct io *io)
{
	return (unsigned)sim_count(io, SIM_SYNC);
}
/* Paths that were ever opened for writing, made or renamed to, each ending in a blank. */
const char *sim_names(const struct io *io);

/* These act on what programs see and on what is durable alike, count as no operation and never fail by a fault. Paths
 * of files; -ENOENT. */
int sim_raw_size(struct io *io, const char *path, uint64_t *size) MUST_CHECK;
ssize_t sim_raw_read(struct io *io, const char *path, void *buf, size_t len, uint64_t off) MUST_CHECK;
int sim_raw_write(struct io *io, const char *path, const void *buf, size_t len, uint64_t off) MUST_CHECK;
int sim_raw_truncate(struct io *io, const char *path, uint64_t size) MUST_CHECK;
/* Inverts bit number `bit` of the file. -ERANGE beyond its end. */
int sim_raw_flip(struct io *io, const char *path, uint64_t bit) MUST_CHECK;
/* The two files change places. */
int sim_raw_swap(struct io *io, const char *a, const char *b) MUST_CHECK;
/* The file `to`, made if need be, gets the bytes of `from`. */
int sim_raw_copy(struct io *io, const char *from, const char *to) MUST_CHECK;
int sim_raw_remove(struct io *io, const char *path) MUST_CHECK;
int sim_raw_set_changed(struct io *io, const char *path, int64_t changed) MUST_CHECK;
/* Calls fn for every file, in order of paths; a non-zero return ends the walk and is its result. fn may change the
 * store. */
typedef int (*sim_walk_fn)(void *arg, const char *path, uint64_t size);
int sim_raw_walk(struct io *io, sim_walk_fn fn, void *arg) MUST_CHECK;
/* Copies the store to another one, a directory of the machine for example, to be looked at. */
int sim_raw_export(struct io *io, struct io *to) MUST_CHECK;

#endif
