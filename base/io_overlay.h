/* A vtable that reads through another one and keeps every change in memory: STORE opened without touching it. */
#ifndef APFS_BASE_IO_OVERLAY_H
#define APFS_BASE_IO_OVERLAY_H

#include "base/io.h"

/* under is borrowed, must stay as it is, and is never written, locked or synced. What has changed takes memory, in
 * blocks of 4 KiB, until io_free. On success *out is the caller's, to io_free. */
int io_overlay_new(struct io *under, struct io **out, struct err *e) MUST_CHECK;

#endif
