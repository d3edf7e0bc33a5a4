/*
 * A STORE in memory for tests of the index: what is not synced is lost, torn or kept at a crash, as a seed decides; the
 * Nth call that changes something fails; and every path that is opened or made is remembered.
 */
#ifndef APFS_TESTS_INDEX_SIM_IO_H
#define APFS_TESTS_INDEX_SIM_IO_H

#include "base/io.h"

/* The vtable; io_free frees it with all files. Aborts without memory. */
struct io *sim_new(void);

/* A power cut: every write that was not synced survives whole, in part or not at all. All files must be closed, or are
 * closed for the caller as far as the state goes. Seed 0 loses everything unsynced. */
void sim_crash(struct io *io, unsigned seed);

/* A power cut of which only the last unsynced write of each file survives: the worst order of writes. */
void sim_crash_last(struct io *io);

/* The call number `nth` from now (1 is the next) that writes, syncs, truncates, allocates, opens, unlinks or syncs a
 * directory fails with `error`; a write is then done by half. nth 0: none. sticky: so do all after it. */
void sim_fail(struct io *io, unsigned nth, int error, bool sticky);
/* Whether the armed failure has happened. */
bool sim_failed(const struct io *io);

/* All files together may have this many bytes; 0: no limit. */
void sim_limit(struct io *io, uint64_t bytes);
/* io_allocate is not supported from now on. */
void sim_no_allocate(struct io *io);

/* Calls of io_sync so far. */
unsigned sim_syncs(const struct io *io);
/* Names that ever existed, each ending in a blank. */
const char *sim_names(const struct io *io);

#endif
