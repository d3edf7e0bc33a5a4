/* What changes of names share. All but name_check and dir_parent run under ns. */
#ifndef APFS_FS_CORE_DIR_H
#define APFS_FS_CORE_DIR_H

#include "fs/core/volume.h"

/* -ENAMETOOLONG or -EINVAL for what is no name of an entry; *len is its length. */
int name_check(const char *name, size_t *len) MUST_CHECK;

/* The parent of a directory; -ENOTDIR for anything else. */
int dir_parent(struct core *c, uint64_t ino, uint64_t *parent) MUST_CHECK;

/* The directory as a node with a reference, if names in it may change. *out is NULL after an error. */
int dir_get(struct core *c, uint64_t ino, struct node **out) MUST_CHECK;

/* Says that a directory gained (or lost) entries and subdirectories. */
void dir_changed(struct core *c, struct node *dir, int entries, int subdirs);

/* Fills in a new inode of dir, of which mode, nlink and rdev are given: number, times, owner, and what it has of its
 * directory. ACLs and the like enter the index. */
int dir_new_inode(struct core *c, struct node *dir, const struct core_cred *cred, struct index_inode *a) MUST_CHECK;

/* Takes back what the index has of a new inode, also when dir_new_inode has failed: if that fails too, the volume
 * stops. */
void dir_undo_inode(struct core *c, const struct index_inode *a);

/* Adds an entry with a new cookie. -EEXIST. */
int dir_add(struct core *c, uint64_t parent, const char *name, size_t len, uint64_t ino, uint32_t mode) MUST_CHECK;

/* Takes back an entry of a change that failed half-way: if that fails too, the volume stops. */
void dir_undo_add(struct core *c, uint64_t parent, const char *name, size_t len);

/* May n be removed by unlink (want_dir false) or rmdir? */
int dir_may_remove(struct node *n, bool want_dir) MUST_CHECK;

/* n lost one name (a directory: its only one). */
void dir_drop_link(struct core *c, struct node *n);

#endif
