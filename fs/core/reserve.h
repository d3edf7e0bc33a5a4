/*
 * STORE's reserve: a file of allocated space that nobody needs, so that a disk which has become full, perhaps by
 * others, can still take what emptying it takes. A vtable over STORE's: where a call that needs space is told that
 * there is none
 * (-ENOSPC or -EDQUOT), a part of the reserve is given up and the call made again, until the reserve is spent down to
 * what the file may use: all of it for the index, half for everything else. io_allocate only asks and gets no help.
 */
#ifndef APFS_FS_CORE_RESERVE_H
#define APFS_FS_CORE_RESERVE_H

#include "base/io.h"

/* under is borrowed. On success *out is the caller's, to io_free. */
int reserve_new(struct io *under, struct io **out) MUST_CHECK;

/* Bytes that the reserve lacks: 1/32 of the disk, at least 1 MiB and at most 16 MiB. */
uint64_t reserve_lacks(struct io *io);
/* Makes it larger by at most `room` bytes, which must be free; as far as it goes. */
void reserve_grow(struct io *io, uint64_t room);
/* From now on anything may spend all of it. */
void reserve_open_up(struct io *io);

#endif
