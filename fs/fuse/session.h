/*
 * A volume mounted through FUSE: session_new mounts it and starts the threads that answer the kernel, session_serve
 * waits until it is unmounted or a signal asks for that, session_free lets go of everything but the volume itself.
 *
 * SIGTERM, SIGINT and SIGHUP must be blocked in every thread of the process (before core_open starts threads):
 * session_serve waits for them.
 */
#ifndef APFS_FS_FUSE_SESSION_H
#define APFS_FS_FUSE_SESSION_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct core;
struct session;

struct session_params {
	const char *source;         /* shown as the mount's source: the path of STORE */
	const char *mountpoint;     /* absolute, without symbolic links */
	const char *const *options; /* mount options as in fuse(8): "ro", "allow_other", "nodev", ... */
	size_t noptions;
	unsigned threads;    /* that answer requests, session_threads() */
	unsigned spare;      /* buffers for writes that wait, session_spare() */
	bool debug;          /* log every request, at LOG_DEBUG */
	uint64_t idle_ms;    /* unmount when it was not used for that long; 0: never */
	const char *config;  /* text of SESSION_XATTR_CONFIG; borrowed */
	const char *control; /* value of SESSION_XATTR_CONTROL; borrowed; NULL: there is none */
};

/* Names of extended attributes that every file under a mount answers, and none lists. */
#define SESSION_XATTR_INFO    "user.apfs.info"    /* core_info's text */
#define SESSION_XATTR_PID     "user.apfs.pid"     /* the process that serves the mount, in decimal */
#define SESSION_XATTR_CONFIG  "user.apfs.config"  /* a line a setting: name, effective value, where it comes from */
#define SESSION_XATTR_CONTROL "user.apfs.control" /* path of the control socket: tools/control.h */
/* Compaction. Set by root or the process's user, it begins ("" or "all") or ends ("stop"); its value is
 * "idle|running done=BYTES total=BYTES freed=BYTES error=ERRNO" and a line feed, error being the last run's. */
#define SESSION_XATTR_COMPACT "user.apfs.compact"

/* How many threads `wanted` (0: by the machine) means here when `memory` bytes are allowed in all: their buffers take a
 * quarter of it at most. */
unsigned session_threads(unsigned wanted, uint64_t memory);
/* How many buffers to keep for writes that wait: another quarter at most. They are touched when needed. */
unsigned session_spare(uint64_t memory, unsigned threads);
/* Bytes of request buffers that a session may come to hold, and how many blocks of core_blocks_get are among them. */
uint64_t session_memory(unsigned threads, unsigned spare);
size_t session_blocks(unsigned threads, unsigned spare);

/* Mounts, and answers requests from then on. -ENXIO: FUSE is not available here (no device, no permission, no
 * fusermount3); other errors: the mount was refused. *out is the caller's, to session_free; core is borrowed. */
int session_new(struct core *core, const struct session_params *p, struct session **out, struct err *e) MUST_CHECK;

/* Returns when the mount has ended: unmounted by somebody, or by us after a signal or when it was idle, what the kernel
 * had cached having been written. -ETIMEDOUT: the volume no longer answers, and only the process's end will free it. */
int session_serve(struct session *s) MUST_CHECK;

/* Unmounts if need be. NULL is allowed. Not after -ETIMEDOUT. */
void session_free(struct session *s);

#endif
