/*
 * A crash without a sync: what is found must be a state of the past. Names are those of one step, not before the last
 * fsync; each 4 KiB block and each size is the last or an earlier version, not before the file's last fsync; a file
 * that was renamed over another is whole. Then the model is made anew from what was found.
 */
#include "tests/core/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static void must_find(struct run *r, int ret, const char *what)
{
	if (ret)
		run_fail(r, "after the crash: %s: %s", what, strerror(-ret));
}

struct finder {
	struct run *r;
	struct model *found;
	struct model_inode *dir;
	struct model_dirent *list; /* what the listing gave */
};

static int finder_entry(void *arg, const struct core_entry *e)
{
	struct finder *f = arg;
	struct model_dirent *d;

	if (!strcmp(e->name, ".") || !strcmp(e->name, ".."))
		return 0;
	d = calloc(1, sizeof(*d));
	if (!d)
		abort();
	memcpy(d->name, e->name, strlen(e->name) + 1);
	d->ino = e->ino;
	HASH_ADD_STR(f->list, name, d);
	return 0;
}

static void copy_attr(struct model_inode *i, const struct core_attr *a)
{
	i->mode = a->mode;
	i->nlink = a->nlink;
	i->uid = a->uid;
	i->gid = a->gid;
	i->rdev = a->rdev;
	i->size = S_ISDIR(a->mode) ? 0 : a->size;
	i->atime = a->atime;
	i->mtime = a->mtime;
	i->ctime = a->ctime;
	i->btime = a->btime;
}

static void find_xattrs(struct run *r, struct model *found, struct model_inode *i)
{
	char names[8192];
	size_t len = sizeof(names), n;

	must_find(r, core_listxattr(r->fx.core, i->ino, names, &len), "listxattr");
	for (size_t at = 0; at < len; at += strlen(names + at) + 1) {
		struct clock_time ctime = i->ctime;

		n = RUN_WRITE;
		must_find(r, core_getxattr(r->fx.core, i->ino, names + at, r->a, &n), "getxattr");
		must_find(r, model_xattr_set(found, i, names + at, r->a, n, 0), "the model");
		i->ctime = ctime;
	}
}

static void find_data(struct run *r, struct model *found, struct model_inode *i)
{
	uint64_t size = i->size;
	struct core_file *f;

	must_find(r, core_file_open(r->fx.core, i->ino, O_RDONLY, &f), "open");
	i->size = 0;
	for (uint64_t off = 0; off < size; off += RUN_WRITE) {
		ssize_t n = core_file_read(f, r->a, RUN_WRITE, off);

		if (n != (ssize_t)(size - off < RUN_WRITE ? size - off : RUN_WRITE))
			run_fail(r, "after the crash: read of inode %" PRIu64 " at %" PRIu64 " gives %zd", i->ino, off,
			         n);
		model_write(found, i, r->a, (size_t)n, off);
	}
	core_file_close(f);
	i->atime_known = false;
}

static void find_inode(struct run *r, struct model *found, struct model_inode *i)
{
	char target[4097];

	if (S_ISREG(i->mode)) {
		find_data(r, found, i);
	} else if (S_ISLNK(i->mode)) {
		must_find(r, core_readlink(r->fx.core, i->ino, target, sizeof(target)), "readlink");
		i->target = strdup(target);
		i->atime_known = false;
	}
	find_xattrs(r, found, i);
}

static void find_dir(struct run *r, struct model *found, struct model_inode *dir);

/* A name must lead to an inode, of which the listing says the same. */
static void find_name(struct run *r, struct model *found, struct model_inode *dir, const struct model_dirent *d)
{
	struct model_inode *i = model_inode_get(found, d->ino);
	struct core_attr attr;

	must_find(r, core_lookup(r->fx.core, dir->ino, d->name, &attr), "a listed name does not resolve");
	if (attr.ino != d->ino)
		run_fail(r, "after the crash: a name is listed as %" PRIu64 " and found as %" PRIu64, d->ino, attr.ino);
	model_dirent_put(found, dir, d->name, d->ino);
	if (i) {
		if (S_ISDIR(i->mode))
			run_fail(r, "after the crash: directory %" PRIu64 " has two names", i->ino);
		i->refs++;
		i->nlink++;
		return;
	}
	i = model_inode_add(found, attr.ino, attr.mode);
	copy_attr(i, &attr);
	i->nlink = S_ISDIR(i->mode) ? 2 : 1; /* counted anew */
	i->refs = 1;
	i->parent = dir->ino;
	find_inode(r, found, i);
	if (S_ISDIR(i->mode)) {
		dir->nlink++;
		find_dir(r, found, i);
	}
}

static void find_dir(struct run *r, struct model *found, struct model_inode *dir)
{
	struct finder f = {.r = r, .found = found, .dir = dir};
	struct model_dirent *d, *next;

	must_find(r, core_readdir(r->fx.core, dir->ino, 0, false, finder_entry, &f), "readdir");
	dir->atime_known = false;
	HASH_ITER (hh, f.list, d, next) {
		find_name(r, found, dir, d);
		HASH_DEL(f.list, d);
		free(d);
	}
}

static struct model *find_tree(struct run *r)
{
	struct model *found = model_new(0755, 0, 0, r->m->now);
	struct model_inode *root = model_inode_get(found, CORE_ROOT);
	struct core_attr attr;

	found->step = r->m->step;
	must_find(r, core_getattr(r->fx.core, CORE_ROOT, &attr), "getattr of the root");
	copy_attr(root, &attr);
	root->nlink = 2;
	find_inode(r, found, root);
	find_dir(r, found, root);
	return found;
}

/* The first step that the names found may be of: what it did is there. */
static uint64_t names_step(struct run *r, const struct model *found)
{
	for (uint64_t s = r->names_synced; s <= r->m->step; s++) {
		if (r->names[s] == found->names)
			return s;
		if (r->names_amid[s] == found->names)
			return s - 1;
	}
	run_fail(r, "after the crash: the names are not those of any step since %" PRIu64, r->names_synced);
	return 0;
}

static void check_versions(struct run *r, struct model_inode *is, struct model_inode *was, uint64_t since)
{
	if (!model_size_was(was, is->size, since))
		run_fail(r, "after the crash: inode %" PRIu64 " never had size %" PRIu64 " since step %" PRIu64,
		         is->ino, is->size, since);
	for (uint64_t off = 0; off < is->size; off += MODEL_BLOCK) {
		size_t n = model_read(is, r->a, MODEL_BLOCK, off);

		if (!model_block_was(was, off / MODEL_BLOCK, r->a, n, since))
			run_fail(r,
			         "after the crash: block at %" PRIu64 " of inode %" PRIu64 " (size %" PRIu64
			         ") is none of its versions since step %" PRIu64,
			         off, is->ino, is->size, since);
	}
}

/* What was not changed since its fsync is as it was. */
static void check_synced(struct run *r, struct model_inode *is, struct model_inode *was)
{
	bool known = was->atime_known;
	struct model_xattr *x, *y, *next;
	struct core_attr attr;

	if (was->changed > was->synced)
		return;
	must_find(r, core_getattr(r->fx.core, is->ino, &attr), "getattr");
	was->atime_known = false;
	run_check_attr(r, &attr, was);
	was->atime_known = known;
	HASH_ITER (hh, was->xattrs, x, next) {
		HASH_FIND_STR(is->xattrs, x->name, y);
		if (!y || y->len != x->len || memcmp(y->value, x->value, x->len) != 0)
			run_fail(r, "after the crash: attribute %s of inode %" PRIu64 " is not what was synced",
			         x->name, is->ino);
	}
	if (HASH_COUNT(is->xattrs) != HASH_COUNT(was->xattrs))
		run_fail(r, "after the crash: inode %" PRIu64 " has other attributes than synced", is->ino);
}

static void check_inode(struct run *r, struct model_inode *is, uint64_t step)
{
	struct model_inode *was = model_inode_any(r->m, is->ino);
	struct core_attr attr;
	uint64_t since = 0;

	if (!was || (was->mode & S_IFMT) != (is->mode & S_IFMT))
		run_fail(r, "after the crash: inode %" PRIu64 " was never made so", is->ino);
	must_find(r, core_getattr(r->fx.core, is->ino, &attr), "getattr");
	if (attr.nlink != is->nlink)
		run_fail(r, "after the crash: inode %" PRIu64 " has %u names and nlink %u", is->ino, is->nlink,
		         attr.nlink);
	if (is->target && strcmp(is->target, was->target) != 0)
		run_fail(r, "after the crash: symlink %" PRIu64 " has another target", is->ino);
	for (size_t n = 0; n < r->nevents; n++)
		if (r->event[n].ino == is->ino && r->event[n].step <= step)
			since = r->event[n].step;
	if (S_ISREG(is->mode))
		check_versions(r, is, was, since);
	check_synced(r, is, was);
}

/* Inodes without a name are gone. */
static void check_orphans(struct run *r, struct model *found)
{
	struct model_inode *i, *next;
	struct core_attr attr;

	HASH_ITER (hh, r->m->inodes, i, next)
		if (!model_inode_any(found, i->ino) && !core_getattr(r->fx.core, i->ino, &attr))
			run_fail(r, "after the crash: inode %" PRIu64 " lives on without a name", i->ino);
}

struct model *run_judge(struct run *r)
{
	struct model_inode *i, *next;
	struct model *found = find_tree(r);
	uint64_t step = names_step(r, found);

	HASH_ITER (hh, found->inodes, i, next)
		check_inode(r, i, step);
	check_orphans(r, found);
	return found;
}

void run_crash(struct run *r)
{
	struct model *found;

	run_say(r, "crash");
	run_lose_all(r);
	fixture_crash(&r->fx);
	found = run_judge(r);
	found->history = true;
	model_free(r->m);
	r->m = found;
	r->names[r->m->step] = r->m->names;
	run_synced(r); /* nothing older can come back: what recovery found is what the next crash starts from */
}
