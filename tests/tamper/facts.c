#include "tests/tamper/facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK     4096u
#define DEPTH_MAX 40
#define FILE_MAX  ((uint64_t)64 << 20)

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* --- taking ------------------------------------------------------------------------------------------------------- */

struct names {
	char **name;
	size_t n, room;
};

static int names_entry(void *arg, const struct core_entry *e)
{
	struct names *l = arg;

	if (!strcmp(e->name, ".") || !strcmp(e->name, ".."))
		return 0;
	if (l->n == l->room)
		l->name = must(realloc(l->name, (l->room = l->room ? 2 * l->room : 16) * sizeof(char *)));
	l->name[l->n++] = must(strdup(e->name));
	return 0;
}

static void take_data(struct core *c, struct facts *all, struct fact *f)
{
	struct core_file *file;
	uint64_t size = f->attr.size < FILE_MAX ? f->attr.size : FILE_MAX;
	int ret = core_file_open(c, f->attr.ino, O_RDONLY, &file);

	f->pieces = (size_t)((size + FACTS_PIECE - 1) / FACTS_PIECE);
	f->data = must(calloc(f->pieces + 1, FACTS_PIECE));
	f->piece_err = must(calloc(f->pieces + 1, sizeof(int)));
	for (size_t i = 0; i < f->pieces; i++) {
		ssize_t n = ret ? ret : core_file_read(file, f->data + i * FACTS_PIECE, FACTS_PIECE, i * FACTS_PIECE);

		f->piece_err[i] = n < 0 ? (int)n : 0;
		all->errors += n < 0;
	}
	if (!ret)
		core_file_close(file);
}

static void take_xattrs(struct core *c, struct facts *all, struct fact *f)
{
	size_t len = 65536;
	char *names = must(malloc(len));

	f->xattr_err = core_listxattr(c, f->attr.ino, names, &len);
	all->errors += f->xattr_err != 0;
	for (size_t at = 0; !f->xattr_err && at < len; at += strlen(names + at) + 1) {
		f->xattr = must(realloc(f->xattr, (f->nxattrs + 1) * sizeof(f->xattr[0])));
		struct fact_xattr *x = &f->xattr[f->nxattrs++];

		*x = (struct fact_xattr){must(strdup(names + at)), must(malloc(65536)), 65536, 0};
		x->err = core_getxattr(c, f->attr.ino, x->name, x->value, &x->len);
		all->errors += x->err != 0;
	}
	free(names);
}

static void take_inode(struct core *c, struct facts *all, struct fact *f)
{
	if (S_ISREG(f->attr.mode))
		take_data(c, all, f);
	take_xattrs(c, all, f);
	if (!S_ISLNK(f->attr.mode))
		return;
	f->target = must(calloc(1, 4097));
	f->target_err = core_readlink(c, f->attr.ino, f->target, 4097);
	all->errors += f->target_err != 0;
}

static struct fact *fact_add(struct facts *all, const char *path, uint64_t parent)
{
	if (all->n == all->room)
		all->fact =
		    must(realloc(all->fact, (all->room = all->room ? 2 * all->room : 64) * sizeof(struct fact)));
	all->fact[all->n] = (struct fact){.path = must(strdup(path)), .parent = parent};
	return &all->fact[all->n++];
}

static void take_dir(struct core *c, struct facts *all, size_t self, int depth)
{
	struct names l = {0};
	uint64_t ino = all->fact[self].attr.ino;
	int ret = depth > DEPTH_MAX ? -ELOOP : core_readdir(c, ino, 0, false, names_entry, &l);

	all->fact[self].list_err = ret;
	all->errors += ret != 0;
	for (size_t i = 0; i < l.n; i++) {
		char path[4096];

		(void)snprintf(path, sizeof(path), "%s%s%s", all->fact[self].path, self ? "/" : "", l.name[i]);
		size_t at = (size_t)(fact_add(all, path, ino) - all->fact);
		struct fact *f = &all->fact[at];

		f->err = core_lookup(c, ino, l.name[i], &f->attr);
		all->errors += f->err != 0;
		if (!f->err) {
			take_inode(c, all, f);
			if (S_ISDIR(f->attr.mode))
				take_dir(c, all, at, depth + 1);
			core_forget(c, all->fact[at].attr.ino, 1);
		}
		free(l.name[i]);
	}
	free(l.name);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct fact *)a)->path, ((const struct fact *)b)->path);
}

void facts_take(struct core *c, struct facts *out)
{
	*out = (struct facts){0};
	struct fact *root = fact_add(out, "", 0);
	root->err = core_getattr(c, CORE_ROOT, &root->attr);
	out->errors += root->err != 0;
	if (!root->err) {
		take_inode(c, out, root);
		take_dir(c, out, 0, 0);
	}
	qsort(out->fact, out->n, sizeof(struct fact), by_path);
}

void facts_release(struct facts *all)
{
	for (size_t i = 0; i < all->n; i++) {
		struct fact *f = &all->fact[i];

		for (size_t k = 0; k < f->nxattrs; k++) {
			free(f->xattr[k].name);
			free(f->xattr[k].value);
		}
		free(f->xattr);
		free(f->path);
		free(f->target);
		free(f->data);
		free(f->piece_err);
	}
	free(all->fact);
	*all = (struct facts){0};
}

/* --- comparing ---------------------------------------------------------------------------------------------------- */

static char text[512];

#define DIFFERS(...) ((void)snprintf(text, sizeof(text), __VA_ARGS__), text)

const struct fact *facts_find(const struct facts *all, const char *path)
{
	struct fact key = {.path = (char *)(uintptr_t)path};

	return bsearch(&key, all->fact, all->n, sizeof(struct fact), by_path);
}

static bool same_time(struct clock_time a, struct clock_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

static const struct fact_xattr *xattr_find(const struct fact *f, const char *name)
{
	for (size_t i = 0; i < f->nxattrs; i++)
		if (!strcmp(f->xattr[i].name, name))
			return &f->xattr[i];
	return NULL;
}

static const char *differ_xattrs(const struct fact *a, const struct fact *b)
{
	if (a->xattr_err)
		return NULL;
	if (a->nxattrs != b->nxattrs)
		return DIFFERS("%s has %zu extended attributes, not %zu", a->path, a->nxattrs, b->nxattrs);
	for (size_t i = 0; i < a->nxattrs; i++) {
		const struct fact_xattr *x = &a->xattr[i], *y = xattr_find(b, x->name);

		if (!y || x->err == -ENODATA ||
		    (!x->err && (x->len != y->len || memcmp(x->value, y->value, x->len) != 0)))
			return DIFFERS("%s has another %s", a->path, x->name);
	}
	return NULL;
}

static const char *differ_fact(const struct fact *a, const struct fact *b)
{
	const struct core_attr *x = &a->attr, *y = &b->attr;

	if (a->err)
		return a->err == -ENOENT ? DIFFERS("%s is listed but not there", a->path) : NULL;
	if (x->ino != y->ino || x->size != y->size || x->mode != y->mode || x->nlink != y->nlink || x->uid != y->uid ||
	    x->gid != y->gid || x->rdev != y->rdev || x->generation != y->generation || x->blocks != y->blocks ||
	    !same_time(x->mtime, y->mtime) || !same_time(x->ctime, y->ctime) || !same_time(x->btime, y->btime))
		return DIFFERS(
		    "%s has other attributes: inode %llu, size %llu, mode %o, %u links; not %llu, %llu, %o, %u",
		    a->path, (unsigned long long)x->ino, (unsigned long long)x->size, x->mode, x->nlink,
		    (unsigned long long)y->ino, (unsigned long long)y->size, y->mode, y->nlink);
	for (size_t i = 0; i < a->pieces; i++)
		if (!a->piece_err[i] && memcmp(a->data + i * FACTS_PIECE, b->data + i * FACTS_PIECE, FACTS_PIECE) != 0)
			return DIFFERS("%s has other data in piece %zu", a->path, i);
	if (a->target && !a->target_err && strcmp(a->target, b->target) != 0)
		return DIFFERS("%s has another target", a->path);
	return differ_xattrs(a, b);
}

/* Whether `found` lists the directory of a path, so that the path should be there. */
static bool parent_listed(const struct facts *found, const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = must(strndup(path, slash ? (size_t)(slash - path) : 0));
	const struct fact *f = facts_find(found, dir);

	free(dir);
	return f && !f->err && !f->list_err;
}

static bool is_touched(const char *path, const char *const *touched)
{
	for (; touched && *touched; touched++)
		if (!strcmp(path, *touched))
			return true;
	return false;
}

const char *facts_differ(const struct facts *found, const struct facts *real, const char *const *touched)
{
	for (size_t i = 0; i < found->n; i++) {
		const struct fact *f = &found->fact[i], *r = facts_find(real, f->path);

		if (is_touched(f->path, touched))
			continue;
		if (!r)
			return DIFFERS("%s should not be there", f->path);
		const char *why = differ_fact(f, r);
		if (why)
			return why;
	}
	for (size_t i = 1; i < real->n; i++)
		if (!is_touched(real->fact[i].path, touched) && !facts_find(found, real->fact[i].path) &&
		    parent_listed(found, real->fact[i].path))
			return DIFFERS("%s is missing", real->fact[i].path);
	return NULL;
}

/* --- nothing that never was --------------------------------------------------------------------------------------- */

static bool zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

static bool block_was(const struct fact *f, size_t at, size_t len, const struct facts *states, size_t n)
{
	for (size_t s = 0; s < n; s++)
		for (size_t i = 0; i < states[s].n; i++) {
			const struct fact *r = &states[s].fact[i];

			if (r->attr.ino == f->attr.ino && at + BLOCK <= r->pieces * FACTS_PIECE &&
			    !memcmp(f->data + at, r->data + at, len))
				return true;
		}
	return false;
}

static const char *invented_data(const struct fact *f, const struct facts *states, size_t n)
{
	for (size_t at = 0; at < f->pieces * FACTS_PIECE && at < f->attr.size; at += BLOCK) {
		size_t len = f->attr.size - at < BLOCK ? (size_t)(f->attr.size - at) : BLOCK;

		if (!f->piece_err[at / FACTS_PIECE] && !zero(f->data + at, len) && !block_was(f, at, len, states, n))
			return DIFFERS("%s has data at %zu that was never there", f->path, at);
	}
	return NULL;
}

static bool xattr_was(const struct fact *f, const struct fact_xattr *x, const struct facts *states, size_t n)
{
	for (size_t s = 0; s < n; s++)
		for (size_t i = 0; i < states[s].n; i++) {
			const struct fact *r = &states[s].fact[i];
			const struct fact_xattr *y = r->attr.ino == f->attr.ino ? xattr_find(r, x->name) : NULL;

			if (y && x->len == y->len && !memcmp(x->value, y->value, x->len))
				return true;
		}
	return false;
}

/* The name, in that directory, and the target of the inode. */
static bool name_was(const struct fact *f, const struct facts *states, size_t n)
{
	const char *slash = strrchr(f->path, '/'), *name = slash ? slash + 1 : f->path;

	for (size_t s = 0; s < n; s++)
		for (size_t i = 0; i < states[s].n; i++) {
			const struct fact *r = &states[s].fact[i];
			const char *at = strrchr(r->path, '/');

			if (r->parent == f->parent && !strcmp(at ? at + 1 : r->path, name))
				return true;
		}
	return false;
}

static bool target_was(const struct fact *f, const struct facts *states, size_t n)
{
	for (size_t s = 0; s < n; s++)
		for (size_t i = 0; i < states[s].n; i++) {
			const struct fact *r = &states[s].fact[i];

			if (r->attr.ino == f->attr.ino && r->target && !strcmp(r->target, f->target))
				return true;
		}
	return false;
}

const char *facts_invented(const struct facts *found, const struct facts *states, size_t n)
{
	for (size_t i = 0; i < found->n; i++) {
		const struct fact *f = &found->fact[i];
		const char *why = f->err ? NULL : invented_data(f, states, n);

		if (why)
			return why;
		if (!name_was(f, states, n))
			return DIFFERS("%s was never there", f->path);
		if (f->err)
			continue;
		if (f->target && !f->target_err && !target_was(f, states, n))
			return DIFFERS("%s never had this target", f->path);
		for (size_t k = 0; k < f->nxattrs; k++)
			if (!f->xattr[k].err && !xattr_was(f, &f->xattr[k], states, n))
				return DIFFERS("%s never had this %s", f->path, f->xattr[k].name);
	}
	return NULL;
}
