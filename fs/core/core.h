/*
 * The filesystem without FUSE: POSIX semantics over index and pipeline, testable in-process. Nodes are named by inode
 * number; the root is CORE_ROOT. Functions return 0 or -errno and may be called from any thread at once.
 *
 * Permission checks are the caller's (the kernel's default_permissions); ownership, set-gid inheritance, ACL
 * inheritance and the clearing of set-id bits are done here. Names are checked here: -ENAMETOOLONG, -EINVAL.
 */
#ifndef APFS_FS_CORE_CORE_H
#define APFS_FS_CORE_CORE_H

#include "base/budget.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/pool.h"
#include "pipeline/codec.h"
#include "pipeline/keys.h"
#include "pipeline/metrics.h"
#include "pipeline/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CORE_ROOT     ((uint64_t)1)
#define CORE_SIZE_MAX ((uint64_t)INT64_MAX) /* bytes of a file */

/* Files of STORE that others than fs/core have to do with. */
#define CORE_FILE_LOCK    "lock"    /* locked by whoever mounts it */
#define CORE_FILE_RESERVE "reserve" /* space for a full disk */

struct core; /* a mounted volume */

struct core_options {
	struct io *io; /* locked by the caller; borrowed, outlives the volume */
	const void *pass;
	size_t pass_len;
	enum secret_type pass_type;   /* 0: a passphrase */
	uint64_t memory;              /* bytes for file data: received, dirty, cached, in flight; 0: 256 MiB */
	uint64_t receive;             /* of those, for the caller's requests, which it counts in core_budget */
	size_t blocks;                /* of those, what it takes by core_blocks_get */
	uint32_t commit_interval_ms;  /* 0: 5,000 */
	struct codec_choice compress; /* CODEC_AUTO: the priority's */
	enum policy_priority priority;
	bool compress_fixed, priority_fixed; /* before what files and directories say of themselves */
	enum storage_class storage;          /* of STORE's device; STORAGE_AUTO: as SSD */
	uint64_t chunk_size;                 /* plaintext bytes of a chunk, 1 to POLICY_CHUNK_SET_MAX; 0: by policy */
	bool no_feedback;                    /* what is measured moves nothing; so it is without metrics */
	unsigned workers;      /* threads that compress and encrypt; 0: by the machine, and for each file by policy */
	unsigned cpu_tokens;   /* threads that may compress or encrypt at once; 0: by policy */
	unsigned io_tokens;    /* and that may read, append to or sync segments; 0: by policy */
	bool no_governance;    /* no tokens: all threads may */
	uint64_t segment_size; /* bytes of a segment file; 0: 64 MiB, less on a small disk */
	uint64_t map_max;      /* bytes of segments that are mapped for reading; 0: none */
	bool read_only, noatime;
	bool no_compact;           /* no thread that compacts */
	bool compact_on_demand;    /* it works only when asked, or when STORE is full */
	bool no_metrics;           /* nothing is measured */
	uint32_t sample_ms;        /* between two looks at how busy it is; 0: 5,000 */
	const struct clock *clock; /* NULL: the system's */
};

/* What a store is made with. */
struct core_format {
	int suite;                  /* enum cipher_suite; 0: by the machine */
	enum secret_type pass_type; /* 0: a passphrase */
	uint32_t kdf_ops;
	uint64_t kdf_mem;        /* zeroes: the defaults */
	uint32_t uid, gid, mode; /* of the root directory */
};

/* Makes a store in an empty directory: superblock, index, segments/, README, reserve. An interrupted run can be
 * repeated. -EEXIST: it is a store already; -ENOTEMPTY: it holds something else. */
int core_format(struct io *io, const struct core_format *f, const void *pass, size_t pass_len,
                struct err *e) MUST_CHECK;

/* Opens and recovers. Errors as superblock_open and superblock_unlock, plus what recovery meets. */
int core_open(const struct core_options *o, struct core **out, struct err *e) MUST_CHECK;
/* What options have come to, within what the machine and memory allow. */
struct core_effective {
	unsigned workers;
	unsigned cpu_tokens, io_tokens; /* 0: no limit */
	uint32_t chunk_size;            /* plaintext bytes of a large file's chunks, where a size is set; else 0 */
};
void core_effective(const struct core *c, struct core_effective *out);

/* A last cut, then everything is closed and freed, whatever the result. */
int core_close(struct core *c, struct err *e) MUST_CHECK;
/* Frees without writing anything more, as a crash would leave it. */
void core_abandon(struct core *c);

/* --- inodes ------------------------------------------------------------------------------------------------------- */

struct core_attr {
	uint64_t ino, generation, size, blocks; /* blocks of 512 bytes */
	uint32_t mode, nlink, uid, gid, rdev;
	struct clock_time atime, mtime, ctime, btime;
	bool written; /* open for writing: whoever caches its data may hold some that blocks does not count */
};

/* Who asks: the owner of what is created. */
struct core_cred {
	uint32_t uid, gid;
	uint32_t umask;
};

/* lookup, create, mknod, mkdir, symlink, link and readdir with attributes each add one reference that the caller
 * (the kernel) gives back with core_forget; an unlinked inode lives until its last reference and last open end. The
 * name "." finds any inode by its number, but one without a name, which is -ENOENT. */
int core_lookup(struct core *c, uint64_t parent, const char *name, struct core_attr *out) MUST_CHECK;
void core_forget(struct core *c, uint64_t ino, uint64_t count);
int core_getattr(struct core *c, uint64_t ino, struct core_attr *out) MUST_CHECK;

enum {
	CORE_SET_MODE = 1,
	CORE_SET_UID = 2,
	CORE_SET_GID = 4,
	CORE_SET_SIZE = 8,
	CORE_SET_ATIME = 16,
	CORE_SET_MTIME = 32,
	CORE_SET_CTIME = 64,
	CORE_SET_ATIME_NOW = 128,
	CORE_SET_MTIME_NOW = 256,
	CORE_KILL_SUIDGID = 512, /* clear suid, and sgid where the group may execute (a change of owner always does) */
	CORE_KILL_SGID = 1024,   /* sgid in any case */
	CORE_KEEP_TIMES = 2048,  /* the caller keeps them, and names those that change, now or later: the others stay */
	/* of a write that was cached: the capability of then is gone, the file's of now is newer */
	CORE_KEEP_CAPABILITY = 4096
};
/* Sets what `which` names from *in; *out is the result. */
int core_setattr(struct core *c, uint64_t ino, unsigned which, const struct core_attr *in,
                 struct core_attr *out) MUST_CHECK;

/* --- names -------------------------------------------------------------------------------------------------------- */

/* Creates any kind of inode but a symlink: mode holds its type (S_IFREG if none). The umask of cred is applied unless
 * the parent has a default ACL. */
int core_mknod(struct core *c, const struct core_cred *cred, uint64_t parent, const char *name, uint32_t mode,
               uint32_t rdev, struct core_attr *out) MUST_CHECK;
/* A file without a name, which core_link may give one. Without that it goes with its last reference. */
int core_tmpfile(struct core *c, const struct core_cred *cred, uint64_t parent, uint32_t mode,
                 struct core_attr *out) MUST_CHECK;
int core_symlink(struct core *c, const struct core_cred *cred, uint64_t parent, const char *name, const char *target,
                 struct core_attr *out) MUST_CHECK;
/* buf gets the target, zero-terminated; size at least 4096. */
int core_readlink(struct core *c, uint64_t ino, char *buf, size_t size) MUST_CHECK;
int core_link(struct core *c, uint64_t ino, uint64_t parent, const char *name, struct core_attr *out) MUST_CHECK;
int core_unlink(struct core *c, uint64_t parent, const char *name) MUST_CHECK;
int core_rmdir(struct core *c, uint64_t parent, const char *name) MUST_CHECK;
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE; -EINVAL for others. */
int core_rename(struct core *c, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
                unsigned flags) MUST_CHECK;
/* The same, and the old name becomes a character device 0/0 of cred's, as union filesystems want it. flags:
 * RENAME_NOREPLACE. */
int core_rename_whiteout(struct core *c, const struct core_cred *cred, uint64_t parent, const char *name,
                         uint64_t new_parent, const char *new_name, unsigned flags) MUST_CHECK;

/* --- directories -------------------------------------------------------------------------------------------------- */

struct core_entry {
	const char *name;
	uint64_t next; /* the offset that continues after this entry */
	uint64_t ino;
	uint32_t type;                /* S_IF* bits */
	const struct core_attr *attr; /* NULL unless asked for and found */
};

/* Returns 0 to go on, 1 when the entry did not fit and must not be counted as seen. */
typedef int (*core_entry_fn)(void *arg, const struct core_entry *entry);

/* Lists from offset off (0: the beginning; "." and ".." come first), entries in order of creation; with_attr adds a
 * reference to each entry that fn took with its attributes, but "." and "..". */
int core_readdir(struct core *c, uint64_t ino, uint64_t off, bool with_attr, core_entry_fn fn, void *arg) MUST_CHECK;

/* --- file data ---------------------------------------------------------------------------------------------------- */

struct core_file; /* an open file */

/* flags: O_ACCMODE, O_SYNC, O_DSYNC. The inode lives as long as it is open. */
int core_file_open(struct core *c, uint64_t ino, int flags, struct core_file **out) MUST_CHECK;
void core_file_close(struct core_file *f);

/* The count read, less than len only at the end of the file, or -errno. */
ssize_t core_file_read(struct core_file *f, void *buf, size_t len, uint64_t off) MUST_CHECK;

/* What else is decoded where a file has been read: what lies around *off in it is copied to buf, and *off becomes where
 * that begins. The count, 0 when it is not in memory or above len, when the file is being read in sequence, or when
 * somebody has it open for writing. */
size_t core_read_beside(struct core *c, uint64_t ino, uint64_t *off, void *buf, size_t len);

enum {
	CORE_WRITE_APPEND = 4 /* at the end of the file, whatever off says */
};
/* All of it or -errno. Durable by core_fsync only, or when the file was opened O_SYNC or O_DSYNC. flags: CORE_WRITE_*,
 * CORE_KILL_*, CORE_KEEP_*. */
int core_file_write(struct core_file *f, const void *buf, size_t len, uint64_t off, unsigned flags) MUST_CHECK;

/* Memory to receive writes in: n blocks of POOL_BLOCK bytes, options.blocks of them at most at a time. -ENOMEM: there
 * are no more. They are put back before core_close. */
int core_blocks_get(struct core *c, void **block, size_t n) MUST_CHECK;
void core_blocks_put(struct core *c, void **block, size_t n);
/* core_file_write of len bytes that begin in block[0] and go on in the next. A block that is one of the file's too is
 * kept rather than copied, and block[] holds another in its place. */
int core_file_write_blocks(struct core_file *f, void **block, size_t len, uint64_t off, unsigned flags) MUST_CHECK;

/* Makes [to_off, to_off + len) of one file show what another (or the same one, elsewhere: else -EINVAL) holds at off,
 * without storing it again; later writes to either leave the other alone. What lies beyond the end of `from` are
 * zeroes: the caller knows its size. The count cloned, less than len only where there was no space or memory for more,
 * or -errno. flags: CORE_KILL_* and CORE_KEEP_TIMES. */
ssize_t core_file_clone(struct core_file *from, uint64_t off, struct core_file *to, uint64_t to_off, uint64_t len,
                        unsigned flags) MUST_CHECK;

/* mode as fallocate(2) has it: 0, FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE, with FALLOC_FL_KEEP_SIZE or, but for
 * the second, without; -EOPNOTSUPP for others. No space is set aside; -ENOSPC where certainly not all of the range
 * could be written now. Zeroes are holes. flags: as above. */
int core_file_fallocate(struct core_file *f, int mode, uint64_t off, uint64_t len, unsigned flags) MUST_CHECK;

/* Somebody has the file open for writing. */
bool core_file_is_written(struct core_file *f);
/* SEEK_DATA and SEEK_HOLE. -ENXIO past the end. While the file is open for writing all of it counts as data: the
 * kernel may hold pages that have not reached us. */
int core_file_seek(struct core_file *f, uint64_t off, int whence, uint64_t *out) MUST_CHECK;

/* Waits until the file's data and attributes, and all names, are durable. Works on directories too, and then on the
 * whole volume: everything that was written before is durable after. */
int core_fsync(struct core *c, uint64_t ino, bool data_only) MUST_CHECK;
int core_sync(struct core *c) MUST_CHECK;

/* --- extended attributes ------------------------------------------------------------------------------------------ */

#define CORE_XATTR_KILL_SGID (1 << 30) /* an access ACL that is set clears set-gid */
/* get and list: *len is the room in, 0 to ask, and the length out. flags of set: XATTR_CREATE, XATTR_REPLACE,
 * CORE_XATTR_KILL_SGID. -EOPNOTSUPP for other namespaces than user, trusted, security and ACLs.
 * Setting system.posix_acl_access brings the mode in line. Of user.apfs.*, compression and priority can be set, to
 * values that mean something, see docs/ARCHITECTURE.md. */
int core_getxattr(struct core *c, uint64_t ino, const char *name, void *value, size_t *len) MUST_CHECK;
int core_setxattr(struct core *c, uint64_t ino, const char *name, const void *value, size_t len, int flags) MUST_CHECK;
int core_removexattr(struct core *c, uint64_t ino, const char *name) MUST_CHECK;
int core_listxattr(struct core *c, uint64_t ino, char *names, size_t *len) MUST_CHECK;

/* --- the volume --------------------------------------------------------------------------------------------------- */

struct core_statfs {
	uint64_t block_size, blocks, free, avail, files, files_free;
};
int core_statfs(struct core *c, struct core_statfs *out) MUST_CHECK;

/* Compaction that somebody asked for: at once and without pause, in the background. all: every segment of which
 * anything is dead, else those that would be compacted when the volume is idle. -EROFS; -EBUSY: somebody has asked
 * already. */
int core_compact_start(struct core *c, bool all) MUST_CHECK;
/* Ends it, soon. */
void core_compact_stop(struct core *c);

struct core_compact_status {
	bool running;
	uint64_t done, total; /* bytes of STORE looked after, and to look after: total may grow */
	uint64_t freed;       /* bytes of STORE */
	int ret;              /* of the last run: 0, or the -errno that ended it early; -ECANCELED: stopped */
};
void core_compact_status(struct core *c, struct core_compact_status *out);

/* Text for `apfs info`: of the volume (ino CORE_ROOT) or of one file; malloc'd, the caller's to free(). */
int core_info(struct core *c, uint64_t ino, char **text) MUST_CHECK;

/* 0, or the -errno that stopped the volume or turned it read-only. */
int core_failed(const struct core *c);

/* The memory of file data: who has how much of it. The volume's. */
struct budget *core_budget(struct core *c);

/* What is measured, its gauges brought up to date but for the saturations, which are of the last interval. NULL when it
 * is switched off. The volume's. */
struct metrics *core_metrics(struct core *c);

#endif
