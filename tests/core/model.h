/*
 * A filesystem in memory, as plain as can be: what fs/core is compared with. Inode numbers are chosen by the caller
 * (they are the ones that core gave out). Functions return 0 or -errno, and die when memory runs out. One thread.
 *
 * With history on, nothing that a crash could bring back is forgotten: each 4 KiB block and each size keeps its earlier
 * versions with the last step at which they were current, and removed inodes stay to be asked about.
 */
#ifndef APFS_TESTS_CORE_MODEL_H
#define APFS_TESTS_CORE_MODEL_H

#include "base/clock.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

#define MODEL_BLOCK ((uint64_t)4096)

struct model_version {
	struct model_version *older;
	uint64_t until; /* the last step at which this was current */
	uint64_t size;  /* of a version of the size */
	uint8_t *data;  /* of a version of a block; NULL: zeroes */
};

struct model_block {
	uint64_t number; /* offset / MODEL_BLOCK */
	uint8_t *data;   /* NULL: zeroes */
	struct model_version *old;
	UT_hash_handle hh;
};

struct model_dirent {
	char name[256];
	uint64_t ino;
	UT_hash_handle hh;
};

struct model_xattr {
	char name[256];
	uint8_t *value;
	size_t len;
	UT_hash_handle hh;
};

struct model_inode {
	uint64_t ino;
	uint32_t mode, nlink, uid, gid, rdev;
	uint64_t size;
	struct clock_time atime, mtime, ctime, btime;
	bool atime_known;
	char *target;
	struct model_dirent *entries;
	struct model_xattr *xattrs;
	struct model_block *blocks;
	struct model_version *old_sizes;
	uint64_t parent;  /* of a directory */
	bool nameless;    /* made without a name: it may be given one */
	uint64_t refs;    /* references that core counts for us */
	unsigned opens;   /* open files */
	uint64_t changed; /* step of the last change to data or attributes */
	uint64_t synced;  /* step of the last fsync */
	bool removed;     /* kept for history only */
	UT_hash_handle hh;
};

struct model {
	struct model_inode *inodes;
	struct clock_time now;
	uint64_t step;
	bool history;
	uint64_t names; /* a hash of all names, whatever their order */
};

struct model_cred {
	uint32_t uid, gid, umask;
};

/* The root directory gets inode number 1. */
struct model *model_new(uint32_t mode, uint32_t uid, uint32_t gid, struct clock_time now);
void model_free(struct model *m);
/* All but older versions and removed inodes. */
struct model *model_copy(const struct model *m);
/* Forgets older versions and removed inodes: everything is durable now. */
void model_history_clear(struct model *m);
/* The same for the data of one inode. */
void model_history_clear_inode(struct model *m, struct model_inode *i);
/* What ends with a mount: references, open files, and inodes without a name. */
void model_remount(struct model *m);

/* NULL when there is none (or only a removed one). */
struct model_inode *model_inode_get(struct model *m, uint64_t ino);
/* Removed ones too. */
struct model_inode *model_inode_any(struct model *m, uint64_t ino);
/* Frees the inode if it has no name, reference or open file any more. */
void model_inode_settle(struct model *m, struct model_inode *i);
struct model_inode *model_inode_add(struct model *m, uint64_t ino, uint32_t mode);
struct model_dirent *model_dirent_get(struct model_inode *dir, const char *name);
void model_dirent_put(struct model *m, struct model_inode *dir, const char *name, uint64_t ino);
uint64_t model_name_hash(uint64_t parent, const char *name, uint64_t ino);

int model_lookup(struct model *m, uint64_t parent, const char *name, uint64_t *ino) MUST_CHECK;
/* ino: the number for the new inode. name: NULL for a file without one. target: of a symlink, else NULL. */
int model_create(struct model *m, const struct model_cred *cred, uint64_t parent, const char *name, uint32_t mode,
                 uint32_t rdev, const char *target, uint64_t ino) MUST_CHECK;
int model_link(struct model *m, uint64_t ino, uint64_t parent, const char *name) MUST_CHECK;
int model_unlink(struct model *m, uint64_t parent, const char *name) MUST_CHECK;
int model_rmdir(struct model *m, uint64_t parent, const char *name) MUST_CHECK;
int model_rename(struct model *m, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
                 unsigned flags) MUST_CHECK;

/* The count read. */
size_t model_read(struct model_inode *i, void *buf, size_t len, uint64_t off);
void model_write(struct model *m, struct model_inode *i, const void *buf, size_t len, uint64_t off);
void model_truncate(struct model *m, struct model_inode *i, uint64_t size);
/* Whether [off, off + len) holds a byte that is not zero. */
bool model_has_data(struct model_inode *i, uint64_t off, uint64_t len);
/* clears set-user-id, and set-group-id where it means set-id. */
void model_kill_setid(struct model_inode *i);

int model_xattr_set(struct model *m, struct model_inode *i, const char *name, const void *value, size_t len,
                    int flags) MUST_CHECK;
int model_xattr_remove(struct model *m, struct model_inode *i, const char *name) MUST_CHECK;

/* Whether the 4 KiB block `number` of i, cut to len bytes, ever equalled data at step `since` or later. */
bool model_block_was(struct model_inode *i, uint64_t number, const uint8_t *data, size_t len, uint64_t since);
bool model_size_was(struct model_inode *i, uint64_t size, uint64_t since);

#endif
