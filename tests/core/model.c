/* The namespace of the model. */
#include "tests/core/model.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

uint64_t model_name_hash(uint64_t parent, const char *name, uint64_t ino)
{
	uint64_t h = 0xcbf29ce484222325u ^ parent;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 0x100000001b3u;
	h ^= ino * 0x9e3779b97f4a7c15u;
	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9u;
	return h ^ (h >> 32);
}

static void versions_free(struct model_version **list)
{
	while (*list) {
		struct model_version *v = *list;

		*list = v->older;
		free(v->data);
		free(v);
	}
}

static void inode_free(struct model *m, struct model_inode *i)
{
	struct model_dirent *d, *dn;
	struct model_xattr *x, *xn;
	struct model_block *b, *bn;

	HASH_ITER (hh, i->entries, d, dn) {
		HASH_DEL(i->entries, d);
		free(d);
	}
	HASH_ITER (hh, i->xattrs, x, xn) {
		HASH_DEL(i->xattrs, x);
		free(x->value);
		free(x);
	}
	HASH_ITER (hh, i->blocks, b, bn) {
		HASH_DEL(i->blocks, b);
		versions_free(&b->old);
		free(b->data);
		free(b);
	}
	versions_free(&i->old_sizes);
	HASH_DEL(m->inodes, i);
	free(i->target);
	free(i);
}

struct model_inode *model_inode_add(struct model *m, uint64_t ino, uint32_t mode)
{
	struct model_inode *i = must(calloc(1, sizeof(*i)));

	i->ino = ino;
	i->mode = mode;
	i->nlink = S_ISDIR(mode) ? 2 : 1;
	i->atime = i->mtime = i->ctime = i->btime = m->now;
	i->atime_known = true;
	i->changed = m->step;
	HASH_ADD(hh, m->inodes, ino, sizeof(i->ino), i);
	return i;
}

struct model *model_new(uint32_t mode, uint32_t uid, uint32_t gid, struct clock_time now)
{
	struct model *m = must(calloc(1, sizeof(*m)));
	struct model_inode *root;

	m->now = now;
	root = model_inode_add(m, 1, S_IFDIR | mode);
	root->uid = uid;
	root->gid = gid;
	root->parent = 1;
	return m;
}

void model_free(struct model *m)
{
	struct model_inode *i, *next;

	if (!m)
		return;
	HASH_ITER (hh, m->inodes, i, next)
		inode_free(m, i);
	free(m);
}

static void inode_copy(struct model *to, const struct model_inode *from)
{
	struct model_inode *i = model_inode_add(to, from->ino, from->mode), fresh = *i;
	struct model_dirent *d, *dn;
	struct model_xattr *x, *xn;
	struct model_block *b, *bn;

	*i = *from;
	i->hh = fresh.hh;
	i->target = from->target ? must(strdup(from->target)) : NULL;
	i->entries = NULL;
	i->xattrs = NULL;
	i->blocks = NULL;
	i->old_sizes = NULL;
	HASH_ITER (hh, from->entries, d, dn) {
		struct model_dirent *copy = must(malloc(sizeof(*copy)));

		*copy = *d;
		HASH_ADD_STR(i->entries, name, copy);
	}
	HASH_ITER (hh, from->xattrs, x, xn) {
		struct model_xattr *copy = must(malloc(sizeof(*copy)));

		*copy = *x;
		copy->value = memcpy(must(malloc(x->len + 1)), x->value, x->len);
		HASH_ADD_STR(i->xattrs, name, copy);
	}
	HASH_ITER (hh, from->blocks, b, bn) {
		struct model_block *copy = must(malloc(sizeof(*copy)));

		*copy = (struct model_block){.number = b->number};
		copy->data = b->data ? memcpy(must(malloc(MODEL_BLOCK)), b->data, MODEL_BLOCK) : NULL;
		HASH_ADD(hh, i->blocks, number, sizeof(copy->number), copy);
	}
}

struct model *model_copy(const struct model *m)
{
	struct model *copy = must(malloc(sizeof(*copy)));
	struct model_inode *i, *next;

	*copy = *m;
	copy->inodes = NULL;
	HASH_ITER (hh, m->inodes, i, next)
		if (!i->removed)
			inode_copy(copy, i);
	return copy;
}

void model_history_clear_inode(struct model *m, struct model_inode *i)
{
	struct model_block *b, *bn;

	HASH_ITER (hh, i->blocks, b, bn)
		versions_free(&b->old);
	versions_free(&i->old_sizes);
	i->synced = m->step;
}

void model_history_clear(struct model *m)
{
	struct model_inode *i, *next;

	HASH_ITER (hh, m->inodes, i, next) {
		if (i->removed) {
			inode_free(m, i);
			continue;
		}
		model_history_clear_inode(m, i);
	}
}

void model_inode_settle(struct model *m, struct model_inode *i)
{
	if (i->nlink || i->refs || i->opens)
		return;
	if (m->history)
		i->removed = true;
	else
		inode_free(m, i);
}

void model_remount(struct model *m)
{
	struct model_inode *i, *next;

	HASH_ITER (hh, m->inodes, i, next) {
		i->refs = 0;
		i->opens = 0;
		model_inode_settle(m, i);
	}
}

struct model_inode *model_inode_any(struct model *m, uint64_t ino)
{
	struct model_inode *i;

	HASH_FIND(hh, m->inodes, &ino, sizeof(ino), i);
	return i;
}

struct model_inode *model_inode_get(struct model *m, uint64_t ino)
{
	struct model_inode *i = model_inode_any(m, ino);

	return i && !i->removed ? i : NULL;
}

struct model_dirent *model_dirent_get(struct model_inode *dir, const char *name)
{
	struct model_dirent *d;

	HASH_FIND_STR(dir->entries, name, d);
	return d;
}

void model_dirent_put(struct model *m, struct model_inode *dir, const char *name, uint64_t ino)
{
	struct model_dirent *d = model_dirent_get(dir, name);

	if (d) {
		m->names ^= model_name_hash(dir->ino, name, d->ino);
	} else {
		d = must(calloc(1, sizeof(*d)));
		memcpy(d->name, name, strlen(name) + 1);
		HASH_ADD_STR(dir->entries, name, d);
	}
	d->ino = ino;
	m->names ^= model_name_hash(dir->ino, name, ino);
}

static void dirent_remove(struct model *m, struct model_inode *dir, struct model_dirent *d)
{
	m->names ^= model_name_hash(dir->ino, d->name, d->ino);
	HASH_DEL(dir->entries, d);
	free(d);
}

static void dir_touch(struct model *m, struct model_inode *dir)
{
	dir->mtime = dir->ctime = m->now;
	dir->changed = m->step;
}

static void inode_touch(struct model *m, struct model_inode *i)
{
	i->ctime = m->now;
	i->changed = m->step;
}

/* The directory that a name is looked for in. A removed one takes no names. */
static int dir_get(struct model *m, uint64_t parent, const char *name, struct model_inode **out)
{
	*out = model_inode_get(m, parent);
	if (!*out)
		return -ENOENT;
	if (!S_ISDIR((*out)->mode))
		return -ENOTDIR;
	if (strlen(name) > 255)
		return -ENAMETOOLONG;
	return 0;
}

static int name_get(struct model *m, uint64_t parent, const char *name, struct model_inode **dir,
                    struct model_dirent **d)
{
	int ret = dir_get(m, parent, name, dir);

	if (ret)
		return ret;
	*d = model_dirent_get(*dir, name);
	return *d ? 0 : -ENOENT;
}

int model_lookup(struct model *m, uint64_t parent, const char *name, uint64_t *ino)
{
	struct model_inode *dir;
	struct model_dirent *d;
	int ret = name_get(m, parent, name, &dir, &d);

	if (!ret)
		*ino = d->ino;
	return ret;
}

int model_create(struct model *m, const struct model_cred *cred, uint64_t parent, const char *name, uint32_t mode,
                 uint32_t rdev, const char *target, uint64_t ino)
{
	struct model_inode *dir, *i;
	int ret = dir_get(m, parent, name ? name : "", &dir);

	if (ret)
		return ret;
	if (name && model_dirent_get(dir, name))
		return -EEXIST;
	if (!dir->nlink)
		return -ENOENT;
	if (target)
		mode = S_IFLNK | 0777;
	else
		mode &= ~(cred->umask & 07777);
	i = model_inode_add(m, ino, mode);
	i->uid = cred->uid;
	i->gid = cred->gid;
	i->rdev = S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0;
	if (dir->mode & S_ISGID) {
		i->gid = dir->gid;
		if (S_ISDIR(mode))
			i->mode |= S_ISGID;
	}
	if (target) {
		i->target = must(strdup(target));
		i->size = strlen(target);
	}
	if (!name) {
		i->nlink = 0;
		i->nameless = true;
		return 0;
	}
	if (S_ISDIR(mode)) {
		i->parent = parent;
		dir->nlink++;
	}
	model_dirent_put(m, dir, name, ino);
	dir_touch(m, dir);
	return 0;
}

int model_link(struct model *m, uint64_t ino, uint64_t parent, const char *name)
{
	struct model_inode *dir, *i = model_inode_get(m, ino);
	int ret = dir_get(m, parent, name, &dir);

	if (ret)
		return ret;
	if (model_dirent_get(dir, name))
		return -EEXIST;
	if (!i || !dir->nlink)
		return -ENOENT;
	if (S_ISDIR(i->mode))
		return -EPERM;
	i->nlink++;
	i->nameless = false;
	inode_touch(m, i);
	model_dirent_put(m, dir, name, ino);
	dir_touch(m, dir);
	return 0;
}

/* Takes the last or only name of a directory, or one name of anything else, from an inode. */
static void inode_drop_name(struct model *m, struct model_inode *dir, struct model_inode *i)
{
	if (S_ISDIR(i->mode)) {
		i->nlink = 0;
		dir->nlink--;
	} else {
		i->nlink--;
	}
	inode_touch(m, i);
	model_inode_settle(m, i);
}

int model_unlink(struct model *m, uint64_t parent, const char *name)
{
	struct model_inode *dir, *i;
	struct model_dirent *d;
	int ret = name_get(m, parent, name, &dir, &d);

	if (ret)
		return ret;
	i = model_inode_get(m, d->ino);
	if (S_ISDIR(i->mode))
		return -EISDIR;
	dirent_remove(m, dir, d);
	dir_touch(m, dir);
	inode_drop_name(m, dir, i);
	return 0;
}

int model_rmdir(struct model *m, uint64_t parent, const char *name)
{
	struct model_inode *dir, *i;
	struct model_dirent *d;
	int ret = name_get(m, parent, name, &dir, &d);

	if (ret)
		return ret;
	i = model_inode_get(m, d->ino);
	if (!S_ISDIR(i->mode))
		return -ENOTDIR;
	if (i->entries)
		return -ENOTEMPTY;
	dirent_remove(m, dir, d);
	dir_touch(m, dir);
	inode_drop_name(m, dir, i);
	return 0;
}

/* Whether directory a is b or above it. */
static bool dir_above(struct model *m, uint64_t a, uint64_t b)
{
	while (b != a && b != 1) {
		struct model_inode *i = model_inode_get(m, b);

		if (!i)
			return false; /* under a removed directory */
		b = i->parent;
	}
	return a == b;
}

struct rename {
	struct model_inode *from_dir, *to_dir, *src, *dst;
	struct model_dirent *from, *to;
};

static int rename_check(struct model *m, const struct rename *r, unsigned flags)
{
	if (!r->from)
		return -ENOENT;
	if ((flags & RENAME_NOREPLACE) && r->to)
		return -EEXIST;
	if ((flags & RENAME_EXCHANGE) && !r->to)
		return -ENOENT;
	if (!r->to_dir->nlink)
		return -ENOENT;
	if (S_ISDIR(r->src->mode) && dir_above(m, r->src->ino, r->to_dir->ino))
		return -EINVAL;
	if (r->dst && S_ISDIR(r->dst->mode) && dir_above(m, r->dst->ino, r->from_dir->ino))
		return flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	if (r->dst && r->src != r->dst && !(flags & RENAME_EXCHANGE)) {
		if (S_ISDIR(r->src->mode) && !S_ISDIR(r->dst->mode))
			return -ENOTDIR;
		if (!S_ISDIR(r->src->mode) && S_ISDIR(r->dst->mode))
			return -EISDIR;
		if (r->dst->entries)
			return -ENOTEMPTY;
	}
	return 0;
}

static void dir_move(struct model_inode *i, struct model_inode *from, struct model_inode *to)
{
	if (!S_ISDIR(i->mode))
		return;
	from->nlink--;
	to->nlink++;
	i->parent = to->ino;
}

int model_rename(struct model *m, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
                 unsigned flags)
{
	struct rename r = {0};
	char new_copy[256];
	int ret = dir_get(m, parent, name, &r.from_dir);

	if (!ret)
		ret = dir_get(m, new_parent, new_name, &r.to_dir);
	if (ret)
		return ret;
	r.from = model_dirent_get(r.from_dir, name);
	r.to = model_dirent_get(r.to_dir, new_name);
	r.src = r.from ? model_inode_get(m, r.from->ino) : NULL;
	r.dst = r.to ? model_inode_get(m, r.to->ino) : NULL;
	ret = rename_check(m, &r, flags);
	if (ret || r.src == r.dst)
		return ret;
	memcpy(new_copy, new_name, strlen(new_name) + 1);
	if (flags & RENAME_EXCHANGE) {
		uint64_t src = r.src->ino;

		dir_move(r.src, r.from_dir, r.to_dir);
		dir_move(r.dst, r.to_dir, r.from_dir);
		model_dirent_put(m, r.from_dir, r.from->name, r.dst->ino);
		model_dirent_put(m, r.to_dir, r.to->name, src);
		inode_touch(m, r.dst);
	} else {
		dirent_remove(m, r.from_dir, r.from);
		model_dirent_put(m, r.to_dir, new_copy, r.src->ino);
		if (r.dst)
			inode_drop_name(m, r.to_dir, r.dst);
		dir_move(r.src, r.from_dir, r.to_dir);
	}
	inode_touch(m, r.src);
	dir_touch(m, r.from_dir);
	dir_touch(m, r.to_dir);
	return 0;
}

void model_kill_setid(struct model_inode *i)
{
	if (S_ISDIR(i->mode))
		return;
	i->mode &= ~(uint32_t)S_ISUID;
	if (i->mode & S_IXGRP)
		i->mode &= ~(uint32_t)S_ISGID;
}

int model_xattr_set(struct model *m, struct model_inode *i, const char *name, const void *value, size_t len, int flags)
{
	struct model_xattr *x;

	HASH_FIND_STR(i->xattrs, name, x);
	if (x && (flags & XATTR_CREATE))
		return -EEXIST;
	if (!x && (flags & XATTR_REPLACE))
		return -ENODATA;
	if (!x) {
		x = must(calloc(1, sizeof(*x)));
		memcpy(x->name, name, strlen(name) + 1);
		HASH_ADD_STR(i->xattrs, name, x);
	}
	free(x->value);
	x->value = must(malloc(len + 1));
	memcpy(x->value, value, len);
	x->len = len;
	inode_touch(m, i);
	return 0;
}

int model_xattr_remove(struct model *m, struct model_inode *i, const char *name)
{
	struct model_xattr *x;

	HASH_FIND_STR(i->xattrs, name, x);
	if (!x)
		return -ENODATA;
	HASH_DEL(i->xattrs, x);
	free(x->value);
	free(x);
	inode_touch(m, i);
	return 0;
}
