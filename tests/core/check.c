/* Comparing what core shows with the model. */
#include "tests/core/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_time(struct clock_time a, struct clock_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

static void check_time(struct run *r, const char *what, uint64_t ino, struct clock_time core, struct clock_time model)
{
	if (!same_time(core, model))
		run_fail(r, "%s of inode %" PRIu64 " is %" PRId64 ".%09u, not %" PRId64 ".%09u", what, ino, core.sec,
		         core.nsec, model.sec, model.nsec);
}

static void check_number(struct run *r, const char *what, uint64_t ino, uint64_t core, uint64_t model)
{
	if (core != model)
		run_fail(r, "%s of inode %" PRIu64 " is %" PRIu64 " (%#" PRIx64 "), not %" PRIu64 " (%#" PRIx64 ")",
		         what, ino, core, core, model, model);
}

void run_check_attr(struct run *r, const struct core_attr *a, struct model_inode *i)
{
	check_number(r, "number", i->ino, a->ino, i->ino);
	check_number(r, "mode", i->ino, a->mode, i->mode);
	check_number(r, "nlink", i->ino, a->nlink, i->nlink);
	check_number(r, "uid", i->ino, a->uid, i->uid);
	check_number(r, "gid", i->ino, a->gid, i->gid);
	check_number(r, "rdev", i->ino, a->rdev, i->rdev);
	if (!S_ISDIR(i->mode))
		check_number(r, "size", i->ino, a->size, i->size);
	check_time(r, "mtime", i->ino, a->mtime, i->mtime);
	check_time(r, "ctime", i->ino, a->ctime, i->ctime);
	check_time(r, "btime", i->ino, a->btime, i->btime);
	if (i->atime_known)
		check_time(r, "atime", i->ino, a->atime, i->atime);
}

void run_check_inode(struct run *r, struct model_inode *i)
{
	struct core_attr attr;
	int ret;

	run_use(r, i);
	ret = core_getattr(r->fx.core, i->ino, &attr);
	if (ret)
		run_fail(r, "getattr of inode %" PRIu64 ": %s", i->ino, strerror(-ret));
	run_check_attr(r, &attr, i);
}

void run_check_range(struct run *r, struct core_file *f, struct model_inode *i, uint64_t off, size_t len)
{
	ssize_t got = core_file_read(f, r->a, len, off);
	size_t want = model_read(i, r->b, len, off);

	if (got < 0)
		run_fail(r, "read of %zu at %" PRIu64 " of inode %" PRIu64 ": %s", len, off, i->ino,
		         strerror((int)-got));
	if ((size_t)got != want)
		run_fail(r, "read of %zu at %" PRIu64 " of inode %" PRIu64 " gives %zd bytes, not %zu", len, off,
		         i->ino, got, want);
	i->atime_known = false;
	if (!memcmp(r->a, r->b, want))
		return;
	for (size_t n = 0; n < want; n++)
		if (r->a[n] != r->b[n])
			run_fail(r,
			         "inode %" PRIu64 " differs at byte %" PRIu64 " (read of %zu at %" PRIu64
			         ", size %" PRIu64 "): %02x, not %02x",
			         i->ino, off + n, len, off, i->size, r->a[n], r->b[n]);
}

static int compare_blocks(const void *a, const void *b)
{
	const struct model_block *const *x = a, *const *y = b;

	return (*x)->number < (*y)->number ? -1 : (*x)->number > (*y)->number;
}

/* All of a file but the middle of long holes. */
static void check_data(struct run *r, struct core_file *f, struct model_inode *i)
{
	size_t n = HASH_COUNT(i->blocks), k = 0;
	struct model_block **sorted = calloc(n + 1, sizeof(struct model_block *));
	struct model_block *b, *next;
	uint64_t at = 0;

	if (!sorted)
		abort();
	HASH_ITER (hh, i->blocks, b, next)
		sorted[k++] = b;
	qsort(sorted, n, sizeof(struct model_block *), compare_blocks);
	for (k = 0; k <= n; k++) {
		uint64_t end = k < n ? sorted[k]->number * MODEL_BLOCK : i->size;

		if (end > at + 4 * RUN_WRITE) {
			run_check_range(r, f, i, at, RUN_WRITE);
			at = end - RUN_WRITE;
		}
		while (at + RUN_WRITE <= end) {
			run_check_range(r, f, i, at, RUN_WRITE);
			at += RUN_WRITE;
		}
	}
	free(sorted);
	run_check_range(r, f, i, at, RUN_WRITE);
	if (i->size > at + RUN_WRITE)
		run_fail(r, "the check of data ends early");
}

/* SEEK_DATA and SEEK_HOLE of a file that nobody writes: what they call a hole holds no data. */
static void check_holes(struct run *r, struct core_file *f, struct model_inode *i)
{
	uint64_t at = 0, data, hole;

	for (unsigned n = 0; at < i->size; n++) {
		int ret = core_file_seek(f, at, SEEK_DATA, &data);

		if (ret == -ENXIO)
			data = i->size;
		else if (ret)
			run_fail(r, "SEEK_DATA: %s", strerror(-ret));
		if (data < at || data > i->size)
			run_fail(r, "SEEK_DATA from %" PRIu64 " gives %" PRIu64, at, data);
		if (model_has_data(i, at, data - at))
			run_fail(r, "SEEK_DATA from %" PRIu64 " to %" PRIu64 " skips data", at, data);
		if (data == i->size)
			return;
		ret = core_file_seek(f, data, SEEK_HOLE, &hole);
		if (ret || hole <= data || hole > i->size)
			run_fail(r, "SEEK_HOLE from %" PRIu64 ": %s, %" PRIu64, data, strerror(-ret), hole);
		at = hole;
		if (n > 100000)
			run_fail(r, "SEEK_DATA and SEEK_HOLE do not end");
	}
	if (core_file_seek(f, i->size, SEEK_DATA, &data) != -ENXIO ||
	    core_file_seek(f, i->size, SEEK_HOLE, &data) != -ENXIO)
		run_fail(r, "seeking at the end is not ENXIO");
}

void run_check_file(struct run *r, struct model_inode *i)
{
	struct core_file *f;
	struct core_attr attr;
	int ret;

	run_use(r, i);
	ret = core_file_open(r->fx.core, i->ino, O_RDONLY, &f);
	if (ret)
		run_fail(r, "open of inode %" PRIu64 ": %s", i->ino, strerror(-ret));
	check_data(r, f, i);
	check_holes(r, f, i);
	core_file_close(f);
	ret = core_getattr(r->fx.core, i->ino, &attr);
	if (ret)
		run_fail(r, "getattr: %s", strerror(-ret));
	if (!attr.blocks && i->size && model_has_data(i, 0, i->size))
		run_fail(r, "inode %" PRIu64 " has data but no blocks", i->ino);
}

struct listing {
	struct run *r;
	struct model_inode *dir;
	bool with_attr;
	size_t left, dots;
	uint64_t next, seen;
	struct model_dirent **found;
};

static int listing_entry(void *arg, const struct core_entry *e)
{
	struct listing *l = arg;
	struct model_dirent *d;
	struct model_inode *i;

	if (!l->left)
		return 1;
	l->left--;
	if (e->next <= l->next && l->next)
		run_fail(l->r, "offsets of a listing do not rise: %" PRIu64 " after %" PRIu64, e->next, l->next);
	l->next = e->next;
	if (!strcmp(e->name, ".") || !strcmp(e->name, "..")) {
		l->dots++;
		if (e->ino != (e->name[1] ? l->dir->parent : l->dir->ino) && l->dir->nlink)
			run_fail(l->r, "%s is inode %" PRIu64, e->name, e->ino);
		return 0;
	}
	d = model_dirent_get(l->dir, e->name);
	if (!d)
		run_fail(l->r, "listed name %s is not in the model", e->name);
	i = model_inode_get(l->r->m, d->ino);
	if (e->ino != d->ino || (e->type & S_IFMT) != (i->mode & S_IFMT))
		run_fail(l->r, "listed %s: inode %" PRIu64 " type %o, not %" PRIu64, e->name, e->ino, e->type, d->ino);
	for (uint64_t n = 0; n < l->seen; n++)
		if (l->found[n] == d)
			run_fail(l->r, "%s is listed twice", e->name);
	l->found[l->seen++] = d;
	if (l->with_attr) {
		if (!e->attr)
			run_fail(l->r, "no attributes in the listing");
		run_check_attr(l->r, e->attr, i);
		i->refs++;
	}
	return 0;
}

void run_check_dir(struct run *r, struct model_inode *dir, bool with_attr, size_t piece)
{
	struct listing l = {.r = r, .dir = dir, .with_attr = with_attr};
	unsigned want = HASH_COUNT(dir->entries);

	run_use(r, dir);
	l.found = calloc((size_t)want + 1, sizeof(struct model_dirent *));
	if (!l.found)
		abort();
	for (;;) {
		int ret;

		l.left = piece;
		ret = core_readdir(r->fx.core, dir->ino, l.next, with_attr, listing_entry, &l);
		if (ret)
			run_fail(r, "readdir: %s", strerror(-ret));
		if (l.left == piece)
			break; /* nothing more came */
	}
	dir->atime_known = false;
	free(l.found);
	if (l.seen != want)
		run_fail(r, "directory %" PRIu64 " lists %" PRIu64 " names, not %u", dir->ino, l.seen, want);
	if (l.dots != 2 && dir->nlink)
		run_fail(r, ". and .. are listed %zu times", l.dots);
}

static void check_xattr(struct run *r, struct model_inode *i, const struct model_xattr *x)
{
	size_t len = 0;
	int ret = core_getxattr(r->fx.core, i->ino, x->name, NULL, &len);

	if (ret || len != x->len)
		run_fail(r, "length of %s: %s, %zu, not %zu", x->name, strerror(-ret), len, x->len);
	len = RUN_WRITE;
	ret = core_getxattr(r->fx.core, i->ino, x->name, r->a, &len);
	if (ret || len != x->len || memcmp(r->a, x->value, len) != 0)
		run_fail(r, "value of %s differs: %s, length %zu, not %zu", x->name, strerror(-ret), len, x->len);
	if (x->len < 2)
		return;
	len = x->len - 1;
	ret = core_getxattr(r->fx.core, i->ino, x->name, r->a, &len);
	if (ret != -ERANGE)
		run_fail(r, "a short buffer for %s gives %d", x->name, ret);
}

void run_check_xattrs(struct run *r, struct model_inode *i)
{
	struct model_xattr *x, *next;
	size_t len = RUN_WRITE, count = 0;
	char *names = (char *)r->b;
	int ret;

	run_use(r, i);
	ret = core_listxattr(r->fx.core, i->ino, names, &len);
	if (ret)
		run_fail(r, "listxattr: %s", strerror(-ret));
	for (size_t at = 0; at < len; at += strlen(names + at) + 1, count++) {
		HASH_FIND_STR(i->xattrs, names + at, x);
		if (!x)
			run_fail(r, "listed attribute %s is not in the model", names + at);
	}
	if (count != HASH_COUNT(i->xattrs))
		run_fail(r, "%zu attributes are listed, not %u", count, HASH_COUNT(i->xattrs));
	HASH_ITER (hh, i->xattrs, x, next)
		check_xattr(r, i, x);
}

void run_check_target(struct run *r, struct model_inode *i)
{
	char target[4097];
	int ret;

	run_use(r, i);
	ret = core_readlink(r->fx.core, i->ino, target, sizeof(target));
	if (ret || strcmp(target, i->target) != 0)
		run_fail(r, "target of %" PRIu64 ": %s, %.40s", i->ino, strerror(-ret), ret ? "" : target);
	i->atime_known = false;
}

void run_check_tree(struct run *r)
{
	struct model_inode *i, *next;

	HASH_ITER (hh, r->m->inodes, i, next) {
		if (i->removed)
			continue;
		run_check_inode(r, i);
		run_check_xattrs(r, i);
		if (S_ISDIR(i->mode))
			run_check_dir(r, i, run_chance(r, 50), 1 + (size_t)run_below(r, 40));
		else if (S_ISREG(i->mode))
			run_check_file(r, i);
		else if (S_ISLNK(i->mode))
			run_check_target(r, i);
	}
}
