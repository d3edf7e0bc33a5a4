/* Names: everything that changes the tree, and how it is read. Changes run under ns, one at a time, and join the open
 * transaction of the index at once. */
#include "fs/core/dir.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TARGET_MAX 4095u
#define LINK_MAX_  ((uint32_t)1 << 31)

int name_check(const char *name, size_t *len)
{
	*len = strlen(name);
	if (*len > INDEX_NAME_MAX)
		return -ENAMETOOLONG;
	if (!*len || !strcmp(name, ".") || !strcmp(name, "..") || memchr(name, '/', *len))
		return -EINVAL;
	return 0;
}

static uint8_t type_of(uint32_t mode)
{
	return (uint8_t)IFTODT(mode);
}

/* --- looking up --------------------------------------------------------------------------------------------------- */

static void attr_of(struct node *n, struct core_attr *out)
{
	SCOPED_LOCK(&n->lock);
	node_attr(n, out);
}

/* A node with a reference and one lookup counted: what every reply with an entry gives the kernel. */
static int entry_get(struct core *c, uint64_t ino, struct core_attr *out)
{
	struct node *n;
	int ret = node_get(c, ino, &n);

	if (ret)
		return ret;
	attr_of(n, out);
	lookup_add(c, ino, 1);
	node_put(c, n);
	return 0;
}

/* Something was read that is no file's data. */
static int accessed(struct core *c, uint64_t ino)
{
	struct node *n;
	int ret = node_get(c, ino, &n);

	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		node_accessed(c, n);
	}
	node_put(c, n);
	return 0;
}

int dir_parent(struct core *c, uint64_t ino, uint64_t *parent)
{
	struct node *n;
	int ret = node_get(c, ino, &n);

	if (ret)
		return ret;
	{
		SCOPED_LOCK(&n->lock);
		*parent = n->attr.parent;
		ret = S_ISDIR(n->attr.mode) ? 0 : -ENOTDIR;
	}
	node_put(c, n);
	return ret;
}

int core_lookup(struct core *c, uint64_t parent, const char *name, struct core_attr *out)
{
	struct index_dirent d;
	size_t len = strlen(name);
	int ret;

	if (len > INDEX_NAME_MAX) {
		uint64_t up;

		ret = dir_parent(c, parent, &up);
		return ret ? ret : -ENAMETOOLONG;
	}
	if (!strcmp(name, ".")) { /* NFS asks for these; this one of files too */
		ret = entry_get(c, parent, out);
		if (ret || out->nlink)
			return ret;
		/* The kernel asks where it does not have the inode any more: it is about to forget this one. */
		core_forget(c, parent, 1);
		return -ENOENT;
	}
	if (!strcmp(name, "..")) {
		uint64_t up;

		ret = dir_parent(c, parent, &up);
		return ret ? ret : entry_get(c, up, out);
	}
	ret = index_dirent_get(c->index, parent, name, len, &d);
	if (ret == -ENOENT) {
		uint64_t up;
		int dir = dir_parent(c, parent, &up);

		return dir ? dir : -ENOENT;
	}
	return ret ? ret : entry_get(c, d.ino, out);
}

void core_forget(struct core *c, uint64_t ino, uint64_t count)
{
	struct node *n;
	bool last;

	if (lookup_sub(c, ino, count))
		return;
	n = node_peek(c, ino); /* an inode without a name stays in memory */
	if (!n)
		return;
	{
		SCOPED_LOCK(&n->lock);
		last = n->loaded && !n->gone && n->attr.nlink == 0;
	}
	if (last)
		node_reap_logged(c, n);
	node_put(c, n);
}

/* --- creating ----------------------------------------------------------------------------------------------------- */

/* Under ns: the directory as a node, if new names may appear in it. */
int dir_get(struct core *c, uint64_t ino, struct node **out)
{
	int ret = core_may_write(c);

	if (!ret)
		ret = node_get(c, ino, out);
	if (ret)
		return ret;
	{
		SCOPED_LOCK(&(*out)->lock);
		if (!S_ISDIR((*out)->attr.mode))
			ret = -ENOTDIR;
		else if (!(*out)->attr.nlink)
			ret = -ENOENT;
	}
	if (ret) {
		node_put(c, *out);
		*out = NULL;
	}
	return ret;
}

/* Under ns: a directory gained (or lost) entries and subdirectories. */
void dir_changed(struct core *c, struct node *dir, int entries, int subdirs)
{
	SCOPED_LOCK(&dir->lock);

	dir->attr.size += (uint64_t)(int64_t)entries;
	dir->attr.nlink += (uint32_t)subdirs;
	dir->attr.mtime = core_now(c);
	dir->attr.ctime = dir->attr.mtime;
	node_touch(c, dir);
	atomic_store(&c->ns_dirty, true);
}

int dir_add(struct core *c, uint64_t parent, const char *name, size_t len, uint64_t ino, uint32_t mode)
{
	struct index_dirent d = {.ino = ino, .cookie = atomic_fetch_add(&c->next_cookie, 1), .type = type_of(mode)};

	d.name_len = (uint8_t)len;
	memcpy(d.name, name, len);
	return index_dirent_add(c->index, parent, &d);
}

/* A failed change may have left half of itself in the transaction: if undoing it fails too, the volume stops. */
void dir_undo_add(struct core *c, uint64_t parent, const char *name, size_t len)
{
	int ret = index_dirent_remove(c->index, parent, name, len);

	if (ret)
		(void)core_stop(c, ret, NULL, "undoing a change of names");
}

int dir_new_inode(struct core *c, struct node *dir, const struct core_cred *cred, struct index_inode *a)
{
	bool acls = false;
	int ret;

	a->ino = atomic_fetch_add(&c->next_ino, 1);
	a->generation = 1; /* numbers are never reused */
	a->btime = a->atime = a->mtime = a->ctime = core_now(c);
	a->parent = dir->ino;
	a->uid = cred->uid;
	a->gid = cred->gid;
	SCOPED_LOCK(&dir->lock);
	if (dir->attr.mode & S_ISGID) {
		a->gid = dir->attr.gid;
		a->mode |= S_ISDIR(a->mode) ? S_ISGID : 0;
	}
	ret = S_ISLNK(a->mode) ? 0 : acl_inherit(c, &dir->attr, a->ino, cred->umask, &a->mode, &acls);
	a->flags = acls ? INDEX_INODE_XATTRS : 0;
	return ret ? ret : prefer_inherit(c, &dir->attr, a);
}

void dir_undo_inode(struct core *c, const struct index_inode *a)
{
	int ret = a->flags || S_ISLNK(a->mode) ? index_inode_delete(c->index, a->ino) : 0;

	if (ret)
		(void)core_stop(c, ret, NULL, "undoing the creation of an inode");
}

/* name: NULL for a file without one. */
static int create(struct core *c, const struct core_cred *cred, uint64_t parent, const char *name, uint32_t mode,
                  uint32_t rdev, const char *target, struct core_attr *out)
{
	struct index_inode a = {.mode = mode, .nlink = S_ISDIR(mode) ? 2 : name != NULL, .rdev = rdev};
	struct node *dir, *n = NULL;
	struct index_dirent d;
	size_t len = 0;
	int ret = name ? name_check(name, &len) : 0;

	if (!ret)
		ret = space_for_name(c, target ? strlen(target) : 0);
	if (ret)
		return ret;
	SCOPED_LOCK(&c->ns);
	ret = dir_get(c, parent, &dir);
	if (ret)
		return ret;
	ret = name ? index_dirent_get(c->index, parent, name, len, &d) : -ENOENT;
	if (ret != -ENOENT) {
		ret = ret ? ret : -EEXIST;
		goto out;
	}
	ret = dir_new_inode(c, dir, cred, &a);
	if (!ret && target) {
		a.size = strlen(target);
		ret = index_symlink_put(c->index, a.ino, target, a.size);
	}
	if (!ret)
		ret = node_create(c, &a, &n);
	if (!ret && name)
		ret = dir_add(c, parent, name, len, a.ino, a.mode);
	if (ret) {
		if (n) {
			SCOPED_LOCK(&n->lock);
			n->gone = true;
		}
		dir_undo_inode(c, &a);
		goto out;
	}
	{
		SCOPED_LOCK(&n->lock);
		n->dense_name = name && policy_name_is_dense(name);
		n->nameless = !name;
		node_touch(c, n);
		node_attr(n, out);
		if (!name)
			node_orphan(c, n);
	}
	lookup_add(c, a.ino, 1);
	if (name)
		dir_changed(c, dir, 1, S_ISDIR(mode) ? 1 : 0);
out:
	if (n)
		node_put(c, n);
	node_put(c, dir);
	return ret;
}

int core_mknod(struct core *c, const struct core_cred *cred, uint64_t parent, const char *name, uint32_t mode,
               uint32_t rdev, struct core_attr *out)
{
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	if (S_ISLNK(mode) || !type_of(mode))
		return -EINVAL;
	return create(c, cred, parent, name, mode, S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0, NULL, out);
}

int core_tmpfile(struct core *c, const struct core_cred *cred, uint64_t parent, uint32_t mode, struct core_attr *out)
{
	return create(c, cred, parent, NULL, (mode & 07777) | S_IFREG, 0, NULL, out);
}

int core_symlink(struct core *c, const struct core_cred *cred, uint64_t parent, const char *name, const char *target,
                 struct core_attr *out)
{
	size_t len = strlen(target);

	if (!len)
		return -ENOENT;
	if (len > TARGET_MAX)
		return -ENAMETOOLONG;
	return create(c, cred, parent, name, S_IFLNK | 0777, 0, target, out);
}

int core_readlink(struct core *c, uint64_t ino, char *buf, size_t size)
{
	size_t len = size - 1;
	int ret = index_symlink_get(c->index, ino, buf, &len);

	if (ret)
		return ret == -ENOENT ? -EINVAL : ret;
	buf[len] = 0;
	return accessed(c, ino);
}

int core_link(struct core *c, uint64_t ino, uint64_t parent, const char *name, struct core_attr *out)
{
	struct node *dir, *n;
	struct index_dirent d;
	size_t len;
	uint32_t mode = 0;
	int ret = name_check(name, &len);

	if (!ret)
		ret = space_for_name(c, 0);
	if (ret)
		return ret;
	SCOPED_LOCK(&c->ns);
	ret = dir_get(c, parent, &dir);
	if (ret)
		return ret;
	ret = node_get(c, ino, &n);
	if (ret) {
		node_put(c, dir);
		return ret;
	}
	ret = index_dirent_get(c->index, parent, name, len, &d);
	if (ret == -ENOENT) {
		SCOPED_LOCK(&n->lock);
		mode = n->attr.mode;
		ret = 0;
		if (S_ISDIR(mode))
			ret = -EPERM;
		else if (!n->attr.nlink && !n->nameless)
			ret = -ENOENT;
		else if (n->attr.nlink >= LINK_MAX_)
			ret = -EMLINK;
	} else if (!ret) {
		ret = -EEXIST;
	}
	if (!ret)
		ret = dir_add(c, parent, name, len, ino, mode);
	if (!ret) {
		dir_changed(c, dir, 1, 0);
		SCOPED_LOCK(&n->lock);
		if (!n->attr.nlink++)
			node_named(c, n);
		n->attr.parent = parent;
		n->attr.ctime = core_now(c);
		node_touch(c, n);
		node_attr(n, out);
		lookup_add(c, ino, 1);
	}
	node_put(c, n);
	node_put(c, dir);
	return ret;
}

/* --- removing ----------------------------------------------------------------------------------------------------- */

/* Under ns: n lost one name (a directory: its only one). */
void dir_drop_link(struct core *c, struct node *n)
{
	{
		SCOPED_LOCK(&n->lock);
		if (S_ISDIR(n->attr.mode))
			n->attr.nlink = 0;
		else
			n->attr.nlink--;
		n->attr.ctime = core_now(c);
		node_touch(c, n);
		if (n->attr.nlink)
			return;
		node_orphan(c, n);
	}
	node_reap_or_leave(c, n);
}

/* May what n is be removed by unlink (want_dir false) or rmdir? */
int dir_may_remove(struct node *n, bool want_dir)
{
	SCOPED_LOCK(&n->lock);

	if (!want_dir)
		return S_ISDIR(n->attr.mode) ? -EISDIR : 0;
	if (!S_ISDIR(n->attr.mode))
		return -ENOTDIR;
	return n->attr.size ? -ENOTEMPTY : 0;
}

static int remove_name(struct core *c, uint64_t parent, const char *name, bool want_dir)
{
	struct node *dir, *n;
	struct index_dirent d;
	size_t len;
	int ret = name_check(name, &len);

	if (ret)
		return ret;
	space_pause(c);
	SCOPED_LOCK(&c->ns);
	ret = dir_get(c, parent, &dir);
	if (ret)
		return ret;
	ret = index_dirent_get(c->index, parent, name, len, &d);
	if (!ret)
		ret = node_get(c, d.ino, &n);
	if (ret) {
		node_put(c, dir);
		return ret;
	}
	ret = dir_may_remove(n, want_dir);
	if (!ret)
		ret = index_dirent_remove(c->index, parent, name, len);
	if (!ret) {
		dir_changed(c, dir, -1, want_dir ? -1 : 0);
		dir_drop_link(c, n);
	}
	node_put(c, n);
	node_put(c, dir);
	return ret;
}

int core_unlink(struct core *c, uint64_t parent, const char *name)
{
	return remove_name(c, parent, name, false);
}

int core_rmdir(struct core *c, uint64_t parent, const char *name)
{
	return remove_name(c, parent, name, true);
}

/* --- listing ------------------------------------------------------------------------------------------------------ */

/* Entries are collected under the index's mutex and handed out after: the callback may be slow. */
#define LIST_BATCH 64

struct listed {
	struct index_dirent d;
	struct index_inode inode;
	bool has_inode;
};

struct listing {
	struct listed *e;
	size_t n;
};

static int list_collect(void *arg, const struct index_dirent *d, const struct index_inode *inode)
{
	struct listing *l = arg;
	struct listed *e = &l->e[l->n++];

	e->d = *d;
	e->has_inode = inode != NULL;
	if (inode)
		e->inode = *inode;
	return l->n == LIST_BATCH;
}

/* The attributes of a listed entry: those in memory are newer than the row. -ENOENT: it went meanwhile. */
static int list_attr(struct core *c, const struct listed *e, struct core_attr *out)
{
	struct node *n = node_peek(c, e->d.ino);
	struct node row;
	int ret;

	if (!n && e->has_inode) {
		row.attr = e->inode;
		row.pending_bytes = 0;
		row.writers = 0;
		map_init(&row.map, NULL);
		node_attr(&row, out);
		return 0;
	}
	if (n)
		node_put(c, n);
	ret = node_get(c, e->d.ino, &n);
	if (ret)
		return ret;
	attr_of(n, out);
	node_put(c, n);
	return 0;
}

static int list_dots(struct core *c, uint64_t ino, uint64_t *off, bool with_attr, core_entry_fn fn, void *arg)
{
	uint64_t up;
	int ret = dir_parent(c, ino, &up);

	for (; *off < 2 && !ret; (*off)++) {
		struct core_attr attr = {.ino = *off ? up : ino, .mode = S_IFDIR};
		struct core_entry entry = {.name = *off ? ".." : ".",
		                           .next = *off + 1,
		                           .ino = attr.ino,
		                           .type = S_IFDIR,
		                           .attr = with_attr ? &attr : NULL};

		ret = fn(arg, &entry);
	}
	return ret;
}

/* Offsets: 0 and 1 are before "." and "..", any other is the cookie of the entry before; cookies begin at 3. */
int core_readdir(struct core *c, uint64_t ino, uint64_t off, bool with_attr, core_entry_fn fn, void *arg)
{
	struct listing l;
	int ret = off ? 0 : accessed(c, ino);

	if (!ret)
		ret = list_dots(c, ino, &off, with_attr, fn, arg);
	if (ret)
		return ret < 0 ? ret : 0;
	l.e = malloc(LIST_BATCH * sizeof(*l.e));
	if (!l.e)
		return -ENOMEM;
	do {
		l.n = 0;
		ret = index_dirent_list(c->index, ino, off, with_attr, list_collect, &l);
		for (size_t i = 0; i < l.n && !ret; i++) {
			struct listed *e = &l.e[i];
			struct core_attr attr;
			int found = with_attr ? list_attr(c, e, &attr) : 0;
			struct core_entry entry = {.name = e->d.name,
			                           .next = e->d.cookie,
			                           .ino = e->d.ino,
			                           .type = (uint32_t)DTTOIF((unsigned)e->d.type),
			                           .attr = with_attr && !found ? &attr : NULL};

			e->d.name[e->d.name_len] = 0;
			off = e->d.cookie;
			if (found == -ENOENT)
				continue;
			if (entry.attr)
				lookup_add(c, e->d.ino, 1);
			ret = fn(arg, &entry);
			if (ret && entry.attr)
				core_forget(c, e->d.ino, 1);
		}
	} while (!ret && l.n == LIST_BATCH);
	free(l.e);
	return ret < 0 ? ret : 0;
}
