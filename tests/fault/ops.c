/* Operations on core and model side by side, each of which a fault may keep from happening. */
#include "tests/fault/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct core_cred root_cred = {0, 0, 0};
static const struct model_cred model_root = {0, 0, 0};

void step_begin(struct job *j)
{
	struct run *r = &j->run;

	test_clock_step(&r->fx.clock);
	r->m->now = test_clock_now(&r->fx.clock);
	r->m->step++;
	if (r->m->step >= FAULT_STEPS)
		run_fail(r, "the script has too many steps");
	r->names[r->m->step] = r->names_amid[r->m->step] = r->m->names;
}

void step_end(struct run **r)
{
	(*r)->names[(*r)->m->step] = (*r)->m->names;
}

void op_begin(struct job *j)
{
	run_adopt_root(&j->run);
	j->run.names[j->run.m->step] = j->run.names_amid[j->run.m->step] = j->run.m->names;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static struct model_inode *step_into(struct job *j, struct model_inode *dir, const char *name)
{
	struct run *r = &j->run;
	struct model_dirent *d = model_dirent_get(dir, name);
	struct model_inode *i = d ? model_inode_get(r->m, d->ino) : NULL;
	struct core_attr attr;

	if (!i || i->refs)
		return i;
	if (!job_did(j, CALL(j, core_lookup(r->fx.core, dir->ino, name, &attr))))
		return NULL;
	i->refs++;
	run_check_attr(r, &attr, i);
	return i;
}

/* The directory that a path names something in. */
static struct model_inode *walk_parent(struct job *j, const char *path, const char **name)
{
	struct model_inode *i = model_inode_get(j->run.m, CORE_ROOT);
	char part[256];
	size_t n;

	for (; i && strchr(path, '/'); path += n + 1) {
		n = strcspn(path, "/");
		memcpy(part, path, n);
		part[n] = 0;
		i = step_into(j, i, part);
	}
	*name = path;
	return i;
}

struct model_inode *op_walk(struct job *j, const char *path)
{
	const char *name;
	struct model_inode *dir = walk_parent(j, path, &name);

	return dir && *name ? step_into(j, dir, name) : dir;
}

static struct model_inode *made(struct job *j, const struct core_attr *attr)
{
	struct model_inode *i = model_inode_get(j->run.m, attr->ino);

	i->refs++;
	run_check_attr(&j->run, attr, i);
	return i;
}

static const char *const preferences[][2] = {{"user.apfs.compression", "zstd:3"}, {"user.apfs.priority", "ratio"}};

void op_prefer(struct job *j, const char *path)
{
	STEP(j, "preferences of %s", path);
	struct model_inode *i = op_walk(j, path);

	for (unsigned n = 0; i && n < 2; n++) {
		const char *name = preferences[n][0], *value = preferences[n][1];

		if (job_did(j, CHANGE(j, core_setxattr(r->fx.core, i->ino, name, value, strlen(value), 0))))
			run_expect(r, 0, model_xattr_set(r->m, i, name, value, strlen(value), 0));
	}
}

/* Files and directories begin with their directory's. */
static void inherit(struct run *r, const struct model_inode *dir, struct model_inode *i)
{
	for (unsigned n = 0; (S_ISREG(i->mode) || S_ISDIR(i->mode)) && n < 2; n++) {
		struct model_xattr *x;

		HASH_FIND_STR(dir->xattrs, preferences[n][0], x);
		if (x)
			run_expect(r, 0, model_xattr_set(r->m, i, x->name, x->value, x->len, 0));
	}
}

struct model_inode *op_make(struct job *j, const char *path, uint32_t mode)
{
	STEP(j, "make %s", path);
	const char *name;
	struct model_inode *dir = walk_parent(j, path, &name);
	struct core_attr attr;

	if (!dir || !job_did(j, CHANGE(j, core_mknod(r->fx.core, &root_cred, dir->ino, name, mode, 0, &attr))))
		return NULL;
	run_expect(r, 0, model_create(r->m, &model_root, dir->ino, name, mode, 0, NULL, attr.ino));
	inherit(r, dir, model_inode_get(r->m, attr.ino));
	return made(j, &attr);
}

struct model_inode *op_symlink(struct job *j, const char *path, const char *target)
{
	STEP(j, "symlink %s", path);
	const char *name;
	struct model_inode *dir = walk_parent(j, path, &name);
	struct core_attr attr;

	if (!dir || !job_did(j, CHANGE(j, core_symlink(r->fx.core, &root_cred, dir->ino, name, target, &attr))))
		return NULL;
	run_expect(r, 0, model_create(r->m, &model_root, dir->ino, name, 0, 0, target, attr.ino));
	return made(j, &attr);
}

void op_link(struct job *j, const char *path, const char *new_path)
{
	STEP(j, "link %s to %s", path, new_path);
	const char *name;
	struct model_inode *i = op_walk(j, path), *dir = walk_parent(j, new_path, &name);
	struct core_attr attr;

	if (!i || !dir || !job_did(j, CHANGE(j, core_link(r->fx.core, i->ino, dir->ino, name, &attr))))
		return;
	run_expect(r, 0, model_link(r->m, i->ino, dir->ino, name));
	(void)made(j, &attr);
}

void op_unlink(struct job *j, const char *path)
{
	STEP(j, "unlink %s", path);
	const char *name;
	struct model_inode *dir = walk_parent(j, path, &name);

	if (dir && model_dirent_get(dir, name) && job_did(j, CHANGE(j, core_unlink(r->fx.core, dir->ino, name))))
		run_expect(r, 0, model_unlink(r->m, dir->ino, name));
}

void op_rmdir(struct job *j, const char *path)
{
	STEP(j, "rmdir %s", path);
	const char *name;
	struct model_inode *dir = walk_parent(j, path, &name);

	if (dir && model_dirent_get(dir, name) && job_did(j, CHANGE(j, core_rmdir(r->fx.core, dir->ino, name))))
		run_expect(r, 0, model_rmdir(r->m, dir->ino, name));
}

void op_rename(struct job *j, const char *from, const char *to, unsigned flags)
{
	STEP(j, "rename %s to %s, flags %u", from, to, flags);
	const char *name, *new_name;
	struct model_inode *dir = walk_parent(j, from, &name), *new_dir = walk_parent(j, to, &new_name);
	struct model_dirent *src = dir ? model_dirent_get(dir, name) : NULL;
	struct model_dirent *dst = new_dir ? model_dirent_get(new_dir, new_name) : NULL;

	if (!src || !new_dir)
		return;
	if (!job_did(j, CHANGE(j, core_rename(r->fx.core, dir->ino, name, new_dir->ino, new_name, flags))))
		return;
	if (dst && !flags && r->nevents < RUN_EVENTS)
		r->event[r->nevents++] = (struct run_event){r->m->step, src->ino};
	run_expect(r, 0, model_rename(r->m, dir->ino, name, new_dir->ino, new_name, flags));
}

void op_forget_inode(struct job *j, struct model_inode *i)
{
	job_enter(j);
	core_forget(j->run.fx.core, i->ino, i->refs);
	job_leave(j);
	i->refs = 0;
	model_inode_settle(j->run.m, i);
}

void op_forget(struct job *j, const char *path)
{
	STEP(j, "forget %s", path);
	struct model_inode *i = op_walk(j, path);

	if (i && i->refs)
		op_forget_inode(j, i);
}

void op_readlink(struct job *j, const char *path)
{
	STEP(j, "readlink %s", path);
	struct model_inode *i = op_walk(j, path);
	char target[4097];

	if (!i || !job_did(j, CALL(j, core_readlink(r->fx.core, i->ino, target, sizeof(target)))))
		return;
	i->atime_known = false;
	if (strcmp(target, i->target) != 0)
		run_fail(r, "another target: %s", target);
}

struct listing {
	struct job *j;
	struct model_inode *dir;
	bool with_attr;
	unsigned count;
};

static int listing_entry(void *arg, const struct core_entry *e)
{
	struct listing *l = arg;
	struct model_dirent *d;
	struct model_inode *i;

	if (!strcmp(e->name, ".") || !strcmp(e->name, ".."))
		return 0;
	d = model_dirent_get(l->dir, e->name);
	if (!d || d->ino != e->ino)
		run_fail(&l->j->run, "the listing shows %s, inode %llu", e->name, (unsigned long long)e->ino);
	i = model_inode_get(l->j->run.m, d->ino);
	if (l->with_attr) {
		run_check_attr(&l->j->run, e->attr, i);
		i->refs++;
	}
	l->count++;
	return 0;
}

void op_list(struct job *j, const char *path, bool with_attr)
{
	STEP(j, "list %s", path);
	struct model_inode *dir = op_walk(j, path);
	struct listing l = {j, dir, with_attr, 0};

	if (!dir)
		return;
	dir->atime_known = false;
	if (job_did(j, CALL(j, core_readdir(r->fx.core, dir->ino, 0, with_attr, listing_entry, &l))) &&
	    l.count != HASH_COUNT(dir->entries))
		run_fail(r, "the listing shows %u names of %u", l.count, HASH_COUNT(dir->entries));
}

/* --- attributes --------------------------------------------------------------------------------------------------- */

static bool set(struct job *j, const struct model_inode *i, unsigned which, const struct core_attr *in,
                struct core_attr *out)
{
	return job_did(j, CHANGE(j, core_setattr(j->run.fx.core, i->ino, which, in, out)));
}

static void was_set(struct job *j, struct model_inode *i, const struct core_attr *out)
{
	i->ctime = j->run.m->now;
	i->changed = j->run.m->step;
	run_check_attr(&j->run, out, i);
}

void op_truncate(struct job *j, const char *path, uint64_t size)
{
	STEP(j, "truncate %s to %llu", path, (unsigned long long)size);
	struct model_inode *i = op_walk(j, path);
	struct core_attr in = {.size = size}, out;

	if (!i || !set(j, i, CORE_SET_SIZE, &in, &out))
		return;
	model_truncate(r->m, i, size);
	i->mtime = r->m->now;
	was_set(j, i, &out);
}

void op_chmod(struct job *j, const char *path, uint32_t mode)
{
	STEP(j, "chmod %s", path);
	struct model_inode *i = op_walk(j, path);
	struct core_attr in = {.mode = i ? (i->mode & S_IFMT) | mode : 0}, out;

	if (!i || !set(j, i, CORE_SET_MODE, &in, &out))
		return;
	i->mode = in.mode;
	was_set(j, i, &out);
}

void op_chown(struct job *j, const char *path, uint32_t uid, uint32_t gid)
{
	STEP(j, "chown %s", path);
	struct model_inode *i = op_walk(j, path);
	struct core_attr in = {.uid = uid, .gid = gid}, out;

	if (!i || !set(j, i, CORE_SET_UID | CORE_SET_GID, &in, &out))
		return;
	model_kill_setid(i);
	i->uid = uid;
	i->gid = gid;
	was_set(j, i, &out);
}

void op_utimes(struct job *j, const char *path)
{
	STEP(j, "utimes of %s", path);
	struct model_inode *i = op_walk(j, path);
	struct core_attr in = {.atime = {1000000, 1}, .mtime = {2000000, 2}}, out;

	if (!i || !set(j, i, CORE_SET_ATIME | CORE_SET_MTIME, &in, &out))
		return;
	i->atime = in.atime;
	i->atime_known = true;
	i->mtime = in.mtime;
	was_set(j, i, &out);
}

void op_setxattr(struct job *j, const char *path, const char *name, size_t len)
{
	STEP(j, "setxattr %s %s of %zu bytes", path, name, len);
	struct model_inode *i = op_walk(j, path);

	fill_random(&r->rng, r->b, len);
	if (i && job_did(j, CHANGE(j, core_setxattr(r->fx.core, i->ino, name, r->b, len, 0))))
		run_expect(r, 0, model_xattr_set(r->m, i, name, r->b, len, 0));
}

void op_removexattr(struct job *j, const char *path, const char *name)
{
	STEP(j, "removexattr %s %s", path, name);
	struct model_inode *i = op_walk(j, path);
	struct model_xattr *x = NULL;

	if (i)
		HASH_FIND_STR(i->xattrs, name, x);
	if (x && job_did(j, CHANGE(j, core_removexattr(r->fx.core, i->ino, name))))
		run_expect(r, 0, model_xattr_remove(r->m, i, name));
}

void op_getxattr(struct job *j, const char *path, const char *name)
{
	STEP(j, "getxattr %s %s", path, name);
	struct model_inode *i = op_walk(j, path);
	struct model_xattr *x = NULL;
	size_t len = RUN_WRITE;

	if (i)
		HASH_FIND_STR(i->xattrs, name, x);
	if (x && job_did(j, CALL(j, core_getxattr(r->fx.core, i->ino, name, r->a, &len))) &&
	    (len != x->len || memcmp(r->a, x->value, len) != 0))
		run_fail(r, "the attribute differs");
	len = RUN_WRITE;
	if (i && job_did(j, CALL(j, core_listxattr(r->fx.core, i->ino, (char *)r->a, &len))) && x &&
	    !memmem(r->a, len, name, strlen(name) + 1))
		run_fail(r, "the attribute is not listed");
}

void op_statfs(struct job *j)
{
	STEP(j, "statfs");
	struct core_statfs s;

	if (job_did(j, CALL(j, core_statfs(r->fx.core, &s))) && !s.blocks)
		run_fail(r, "statfs shows no blocks");
}

void op_info(struct job *j, const char *path)
{
	STEP(j, "info of %s", path);
	struct model_inode *i = op_walk(j, path);
	char *text = NULL;

	if (i)
		(void)job_did(j, CALL(j, core_info(r->fx.core, i->ino, &text)));
	free(text);
}
