/* Attributes and extended attributes. */
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define XATTR_VALUE_MAX 65536u
#define CAPABILITY      "security.capability"
#define VIRTUAL         "user.apfs."

int core_getattr(struct core *c, uint64_t ino, struct core_attr *out)
{
	struct node *n;
	int ret = node_get(c, ino, &n);

	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		node_attr(n, out);
	}
	node_put(c, n);
	return 0;
}

/* chmod changes the access ACL too: its owner, mask (or group) and other entries are the mode's bits. Under n->lock. */
static int chmod_acl(struct core *c, struct node *n, uint32_t mode)
{
	uint8_t acl[XATTR_VALUE_MAX / 8];
	size_t len = sizeof(acl);
	int ret;

	if (!(n->attr.flags & INDEX_INODE_XATTRS))
		return 0;
	ret = index_xattr_get(c->index, n->ino, ACL_ACCESS, acl, &len);
	if (ret == -ENODATA)
		return 0;
	if (!ret)
		ret = acl_chmod(acl, len, mode);
	if (!ret)
		ret = index_xattr_set(c->index, n->ino, ACL_ACCESS, acl, len);
	return ret;
}

static int set_times(struct core *c, struct node *n, unsigned which, const struct core_attr *in)
{
	struct index_inode *a = &n->attr;
	struct clock_time now = core_now(c);

	if (which & (CORE_SET_ATIME | CORE_SET_ATIME_NOW))
		a->atime = which & CORE_SET_ATIME_NOW ? now : in->atime;
	if (which & (CORE_SET_MTIME | CORE_SET_MTIME_NOW))
		a->mtime = which & CORE_SET_MTIME_NOW ? now : in->mtime;
	if (which & CORE_SET_CTIME)
		a->ctime = in->ctime;
	else if (!(which & CORE_KEEP_TIMES))
		a->ctime = now;
	return 0;
}

/* Which set-id bits a change takes: none of a directory, where set-gid means something else. */
static unsigned kill_of(unsigned which, uint32_t mode)
{
	unsigned kill = which & (CORE_KILL_SUIDGID | CORE_KILL_SGID);

	if (S_ISDIR(mode))
		return 0;
	return which & (CORE_SET_UID | CORE_SET_GID) ? kill | CORE_KILL_SUIDGID : kill;
}

static int setattr_locked(struct core *c, struct node *n, unsigned which, const struct core_attr *in)
{
	struct index_inode *a = &n->attr;
	int ret = 0;

	if (which & CORE_SET_SIZE) {
		if (S_ISDIR(a->mode))
			return -EISDIR;
		if (!S_ISREG(a->mode))
			return -EINVAL;
		if (in->size > CORE_SIZE_MAX)
			return -EFBIG;
		ret = data_truncate(c, n, in->size);
		if (!ret && !(which & (CORE_SET_MTIME | CORE_SET_MTIME_NOW | CORE_KEEP_TIMES)))
			a->mtime = core_now(c);
	}
	if (!ret && which & (CORE_KILL_SUIDGID | CORE_KILL_SGID | CORE_SET_SIZE | CORE_SET_UID | CORE_SET_GID))
		ret = data_kill_priv(c, n, kill_of(which, a->mode));
	if (!ret && which & CORE_SET_MODE) {
		ret = chmod_acl(c, n, in->mode);
		if (!ret)
			a->mode = (a->mode & S_IFMT) | (in->mode & 07777);
	}
	if (ret)
		return ret;
	if (which & CORE_SET_UID)
		a->uid = in->uid;
	if (which & CORE_SET_GID)
		a->gid = in->gid;
	return set_times(c, n, which, in);
}

static int change_attr(struct core *c, uint64_t ino, unsigned which, const struct core_attr *in, struct core_attr *out)
{
	struct node *n;
	int ret = core_may_write(c);

	if (!ret)
		ret = node_get(c, ino, &n);
	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		ret = setattr_locked(c, n, which, in);
		node_touch(c, n);
		node_attr(n, out);
	}
	node_put(c, n);
	return ret;
}

int core_setattr(struct core *c, uint64_t ino, unsigned which, const struct core_attr *in, struct core_attr *out)
{
	if (!(which & CORE_SET_MODE))
		return change_attr(c, ino, which, in, out);
	SCOPED_LOCK(&c->ns); /* no commit may come between ACL and mode */
	return change_attr(c, ino, which, in, out);
}

/* --- extended attributes ------------------------------------------------------------------------------------------ */

static bool xattr_is_acl(const char *name)
{
	return !strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT);
}

/* -EOPNOTSUPP: a namespace that there is not. */
static int xattr_namespace_check(const char *name)
{
	static const char *const prefix[] = {"user.", "trusted.", "security."};

	for (size_t i = 0; i < sizeof(prefix) / sizeof(prefix[0]); i++) {
		size_t len = strlen(prefix[i]);

		if (!strncmp(name, prefix[i], len))
			return name[len] ? 0 : -EINVAL;
	}
	return xattr_is_acl(name) ? 0 : -EOPNOTSUPP;
}

static int xattr_name_check(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > INDEX_NAME_MAX)
		return -ERANGE;
	if (!strncmp(name, VIRTUAL, sizeof(VIRTUAL) - 1) && !prefer_is_name(name))
		return -EPERM;
	return xattr_namespace_check(name);
}

int core_getxattr(struct core *c, uint64_t ino, const char *name, void *value, size_t *len)
{
	struct node *n;
	int ret = xattr_namespace_check(name);

	if (!ret)
		ret = node_get(c, ino, &n);
	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		/* `ls -l` asks twice a file: this answers without SQL. */
		if (!(n->attr.flags & INDEX_INODE_XATTRS) ||
		    (!(n->attr.flags & NODE_CAPABILITY) && !strcmp(name, CAPABILITY)))
			ret = -ENODATA;
	}
	node_put(c, n);
	return ret ? ret : index_xattr_get(c->index, ino, name, value, len);
}

static int xattr_exists(struct core *c, struct node *n, const char *name, bool *exists)
{
	size_t len = 0;
	int ret = n->attr.flags & INDEX_INODE_XATTRS ? index_xattr_get(c->index, n->ino, name, NULL, &len) : -ENODATA;

	*exists = !ret;
	return ret == -ENODATA ? 0 : ret;
}

static int setxattr_locked(struct core *c, struct node *n, const char *name, const void *value, size_t len, int flags)
{
	bool trivial = false, exists = false;
	uint32_t mode = n->attr.mode;
	int ret = 0;

	if (n->gone)
		return -ENOENT;
	if (prefer_is_name(name) && prefer_check(name, value, len))
		return -EINVAL;
	if (flags & (XATTR_CREATE | XATTR_REPLACE)) {
		ret = xattr_exists(c, n, name, &exists);
		if (!ret && flags & XATTR_CREATE && exists)
			ret = -EEXIST;
		if (!ret && flags & XATTR_REPLACE && !exists)
			ret = -ENODATA;
	}
	if (!ret && !strcmp(name, ACL_DEFAULT)) {
		ret = S_ISDIR(mode) ? acl_check(value, len) : -EACCES;
	} else if (!ret && !strcmp(name, ACL_ACCESS)) {
		/* It sets the mode, and is not kept if it says no more than that. */
		ret = S_ISLNK(mode) ? -EOPNOTSUPP : acl_to_mode(value, len, &mode, &trivial);
		if (flags & CORE_XATTR_KILL_SGID)
			mode &= ~(uint32_t)S_ISGID;
	}
	if (ret)
		return ret;
	if (trivial) {
		ret = index_xattr_remove(c->index, n->ino, name);
		ret = ret == -ENODATA ? 0 : ret;
	} else {
		ret = index_xattr_set(c->index, n->ino, name, value, len);
		if (!ret)
			n->attr.flags |= INDEX_INODE_XATTRS | (strcmp(name, CAPABILITY) ? 0 : NODE_CAPABILITY) |
			                 (prefer_is_name(name) ? NODE_PREFERS : 0);
	}
	if (!ret)
		n->attr.mode = mode;
	return ret;
}

/* Runs under ns: extended attributes go straight into the open transaction, and the inode must not be deleted
 * meanwhile, nor a commit come between attribute and flag. */
static int xattr_change(struct core *c, uint64_t ino, const char *name, const void *value, size_t len, int flags)
{
	struct node *n;
	int ret;

	SCOPED_LOCK(&c->ns);
	ret = core_may_write(c);
	if (!ret)
		ret = node_get(c, ino, &n);
	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		if (value)
			ret = setxattr_locked(c, n, name, value, len, flags);
		else if (n->attr.flags & INDEX_INODE_XATTRS)
			ret = index_xattr_remove(c->index, n->ino, name);
		else
			ret = -ENODATA;
		if (!ret) {
			n->prefers_known = false;
			n->attr.ctime = core_now(c);
			node_touch(c, n);
			atomic_store(&c->ns_dirty, true);
		}
	}
	node_put(c, n);
	return ret;
}

int core_setxattr(struct core *c, uint64_t ino, const char *name, const void *value, size_t len, int flags)
{
	int ret = xattr_name_check(name);

	if (ret)
		return ret;
	if (len > XATTR_VALUE_MAX)
		return -E2BIG;
	ret = space_for_name(c, len);
	if (ret)
		return ret;
	return xattr_change(c, ino, name, value ? value : "", len, flags);
}

int core_removexattr(struct core *c, uint64_t ino, const char *name)
{
	int ret = xattr_name_check(name);

	if (ret)
		return ret;
	space_pause(c);
	ret = xattr_change(c, ino, name, NULL, 0, 0);
	return ret == -ENODATA && xattr_is_acl(name) ? 0 : ret; /* an ACL that is not there may be removed */
}

int core_listxattr(struct core *c, uint64_t ino, char *names, size_t *len)
{
	struct node *n;
	bool none;
	int ret = node_get(c, ino, &n);

	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		none = !(n->attr.flags & INDEX_INODE_XATTRS);
	}
	node_put(c, n);
	if (none) {
		*len = 0;
		return 0;
	}
	return index_xattr_list(c->index, ino, names, len);
}
