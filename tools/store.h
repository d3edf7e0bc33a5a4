/* A STORE as the tools open it: locked, with a note of who holds it. */
#ifndef APFS_TOOLS_STORE_H
#define APFS_TOOLS_STORE_H

#include "base/io.h"
#include "tools/exit_status.h"

#include <stdbool.h>

struct store {
	char *path;           /* absolute */
	struct io *io;        /* locked, but after store_open_beside */
	struct io_file *note; /* `lock`, held by store_claim; NULL: it is not */
	bool noted;           /* it says who we are */
};

/* Opens and locks; with `create` makes the directory if it is missing. -EBUSY with the holder's pid and host in e: at
 * once it is not, but after half a second, and after a minute where the holder is about to end.
 * *out is released by store_release, also after a failure. */
int store_open(const char *path, bool create, struct store *out, struct err *e) MUST_CHECK;
/* The same without the lock: for what may be done while STORE is mounted. */
int store_open_beside(const char *path, struct store *out, struct err *e) MUST_CHECK;
/* Locks one that was opened without: -EBUSY as store_open. */
int store_lock(struct store *s, struct err *e) MUST_CHECK;
/* Of a store that is locked: locks its file `lock` as well, because networks pass on locks on files (NFS, CIFS) but
 * none on directories, and notes there who uses it. Who only reads shares that lock with others who do, as far as there
 * is one, and writes nothing. -EBUSY as store_open. -ENOSPC, -EDQUOT: it is missing and cannot be made. */
int store_claim(struct store *s, bool read_only, struct err *e) MUST_CHECK;
/* Of a store that store_claim has noted: who waits for its lock may go on waiting, it is not for long. */
void store_ending(struct store *s);
void store_release(struct store *s);

/* 0 if STORE has a superblock that this build reads; else as superblock_open. */
int store_check(struct store *s, struct err *e) MUST_CHECK;

/* The exit status for what store_open, superblock_*, core_format and core_open return. */
enum exit_status store_status(int ret);

#endif
