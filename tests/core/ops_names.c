/* Random operations on names and attributes. */
#include "tests/core/run.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static void check_new(struct run *r, const struct core_attr *a)
{
	if (a->ino <= CORE_ROOT || model_inode_any(r->m, a->ino))
		run_fail(r, "the new inode number %llu is in use", (unsigned long long)a->ino);
	if (a->ino > r->last_ino)
		r->last_ino = a->ino;
}

static void created(struct run *r, int core, int model, const struct core_attr *a)
{
	struct model_inode *i;

	run_expect(r, core, model);
	if (core)
		return;
	i = model_inode_get(r->m, a->ino);
	i->refs++;
	run_check_attr(r, a, i);
}

static struct model_cred random_cred(struct run *r)
{
	static const uint32_t umasks[] = {0, 022, 077, 027};

	return (struct model_cred){(uint32_t)run_below(r, 3) * 1000, (uint32_t)run_below(r, 3) * 100,
	                           umasks[run_below(r, 4)]};
}

static uint32_t random_mode(struct run *r)
{
	static const uint32_t modes[] = {0644, 0600, 0755, 0777, 01777, 0};

	return modes[run_below(r, 6)];
}

void run_op_create(struct run *r)
{
	static const uint32_t kinds[] = {S_IFREG, S_IFREG, S_IFREG, S_IFREG,  S_IFREG, 0,      S_IFDIR,
	                                 S_IFDIR, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
	struct model_inode *dir = run_pick(r, run_is_dir);
	const char *name = run_name(r, dir, false);
	uint32_t kind = kinds[run_below(r, sizeof(kinds) / sizeof(kinds[0]))];
	uint32_t mode = kind | random_mode(r), rdev = (uint32_t)(run_below(r, 255) << 8 | run_below(r, 255));
	struct model_cred mc = random_cred(r);
	struct core_cred cc = {mc.uid, mc.gid, mc.umask};
	struct core_attr attr = {0};
	int ret;

	if (!S_ISCHR(kind) && !S_ISBLK(kind))
		rdev = 0;
	run_say(r, "mknod %llu/%s %o", (unsigned long long)dir->ino, name, mode);
	run_use(r, dir);
	ret = core_mknod(r->fx.core, &cc, dir->ino, name, mode, rdev, &attr);
	if (!ret)
		check_new(r, &attr);
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	created(r, ret, model_create(r->m, &mc, dir->ino, name, mode, rdev, NULL, attr.ino), &attr);
	run_check_inode(r, dir);
}

void run_op_tmpfile(struct run *r)
{
	struct model_inode *dir = run_pick(r, run_is_dir);
	uint32_t mode = random_mode(r);
	struct model_cred mc = random_cred(r);
	struct core_cred cc = {mc.uid, mc.gid, mc.umask};
	struct core_attr attr = {0};
	int ret;

	run_say(r, "tmpfile in %llu, %o", (unsigned long long)dir->ino, mode);
	run_use(r, dir);
	ret = core_tmpfile(r->fx.core, &cc, dir->ino, mode, &attr);
	if (!ret)
		check_new(r, &attr);
	created(r, ret, model_create(r->m, &mc, dir->ino, NULL, S_IFREG | mode, 0, NULL, attr.ino), &attr);
	run_check_inode(r, dir);
}

void run_op_symlink(struct run *r)
{
	struct model_inode *dir = run_pick(r, run_is_dir);
	const char *name = run_name(r, dir, false);
	struct model_cred mc = random_cred(r);
	struct core_cred cc = {mc.uid, mc.gid, mc.umask};
	struct core_attr attr = {0};
	char target[4096];
	size_t len = run_chance(r, 5) ? 4095 : 1 + (size_t)run_below(r, 80);
	int ret;

	for (size_t n = 0; n < len; n++)
		target[n] = (char)(1 + run_below(r, 255));
	target[len] = 0;
	run_say(r, "symlink %llu/%s of %zu bytes", (unsigned long long)dir->ino, name, len);
	run_use(r, dir);
	ret = core_symlink(r->fx.core, &cc, dir->ino, name, target, &attr);
	if (!ret)
		check_new(r, &attr);
	created(r, ret, model_create(r->m, &mc, dir->ino, name, 0, 0, target, attr.ino), &attr);
	if (!ret)
		run_check_target(r, model_inode_get(r->m, attr.ino));
}

void run_op_link(struct run *r)
{
	struct model_inode *i = run_pick(r, run_is_any), *dir = run_pick(r, run_is_dir);
	const char *name = run_name(r, dir, false);
	struct core_attr attr = {0};
	int ret;

	if (!i->nlink && !i->nameless)
		return; /* the kernel does not ask */
	run_say(r, "link %llu to %llu/%s", (unsigned long long)i->ino, (unsigned long long)dir->ino, name);
	run_use(r, dir);
	run_use(r, i);
	ret = core_link(r->fx.core, i->ino, dir->ino, name, &attr);
	created(r, ret, model_link(r->m, i->ino, dir->ino, name), &attr);
}

static void remove_name(struct run *r, bool is_rmdir)
{
	struct model_inode *dir = run_pick(r, run_is_dir), *victim = NULL;
	const char *name = run_name(r, dir, run_chance(r, 90));
	struct model_dirent *d;
	uint64_t ino = 0;
	int ret;

	if (!name)
		return;
	d = strlen(name) < 256 ? model_dirent_get(dir, name) : NULL;
	if (d) {
		ino = d->ino;
		victim = model_inode_get(r->m, ino);
		if (run_chance(r, 70))
			run_use(r, victim);
	}
	run_say(r, "%s %llu/%s", is_rmdir ? "rmdir" : "unlink", (unsigned long long)dir->ino, name);
	run_use(r, dir);
	if (is_rmdir) {
		ret = core_rmdir(r->fx.core, dir->ino, name);
		run_expect(r, ret, model_rmdir(r->m, dir->ino, name));
	} else {
		ret = core_unlink(r->fx.core, dir->ino, name);
		run_expect(r, ret, model_unlink(r->m, dir->ino, name));
	}
	run_check_inode(r, dir);
	victim = model_inode_get(r->m, ino);
	if (victim)
		run_check_inode(r, victim); /* referenced still, or it has other names */
}

void run_op_unlink(struct run *r)
{
	remove_name(r, false);
}

void run_op_rmdir(struct run *r)
{
	remove_name(r, true);
}

static void note_replaced(struct run *r, uint64_t ino)
{
	if (r->crashes && r->nevents < RUN_EVENTS)
		r->event[r->nevents++] = (struct run_event){r->m->step, ino};
}

/* The name of a file in dir, or NULL. */
static const char *file_in(struct run *r, struct model_inode *dir)
{
	for (unsigned tries = 0; tries < 10; tries++) {
		const char *name = run_name(r, dir, true);

		if (name && run_is_file(model_inode_get(r->m, model_dirent_get(dir, name)->ino)))
			return name;
	}
	return NULL;
}

void run_op_replace(struct run *r)
{
	static const char temp[] = "temp";
	const struct core_cred cred = {0, 0, 0};
	const struct model_cred mc = {0, 0, 0};
	struct model_inode *dir = run_pick(r, run_is_dir), *other = run_pick(r, run_is_file);
	const char *name = file_in(r, dir);
	struct core_attr attr = {0};

	if (!name || !other || model_dirent_get(dir, temp))
		return;
	run_say(r, "replace %llu/%s", (unsigned long long)dir->ino, name);
	run_use(r, dir);
	run_expect(r, core_mknod(r->fx.core, &cred, dir->ino, temp, S_IFREG | 0644, 0, &attr), 0);
	check_new(r, &attr);
	created(r, 0, model_create(r->m, &mc, dir->ino, temp, S_IFREG | 0644, 0, NULL, attr.ino), &attr);
	r->names_amid[r->m->step] = r->m->names;
	run_write_new(r, model_inode_get(r->m, attr.ino));
	run_expect(r, core_rename(r->fx.core, dir->ino, temp, dir->ino, name, 0), 0);
	run_expect(r, 0, model_rename(r->m, dir->ino, temp, dir->ino, name, 0));
	note_replaced(r, attr.ino);
	run_check_inode(r, model_inode_get(r->m, attr.ino));
	other = run_pick(r, run_is_file);
	if (run_chance(r, 40) && other && other->ino != attr.ino) {
		run_use(r, other);
		run_expect(r, core_fsync(r->fx.core, other->ino, true), 0);
		r->names[r->m->step] = r->m->names;
		run_synced_inode(r, other);
	}
}

/* What a rename has left under its old name. */
static void check_whiteout(struct run *r, const struct model_cred *mc, struct model_inode *dir, const char *name)
{
	struct core_attr attr = {0};

	run_expect(r, core_lookup(r->fx.core, dir->ino, name, &attr), 0);
	check_new(r, &attr);
	created(r, 0, model_create(r->m, mc, dir->ino, name, S_IFCHR, 0, NULL, attr.ino), &attr);
}

void run_op_rename(struct run *r)
{
	static const unsigned all[] = {
	    0, 0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, RENAME_WHITEOUT | RENAME_NOREPLACE};
	struct model_inode *from = run_pick(r, run_is_dir), *to = run_chance(r, 40) ? from : run_pick(r, run_is_dir);
	unsigned flags = all[run_below(r, 8)];
	bool whiteout = flags & RENAME_WHITEOUT;
	struct model_cred mc = random_cred(r);
	struct core_cred cc = {mc.uid, mc.gid, mc.umask};
	struct model_dirent *d;
	uint64_t src = 0, dst = 0;
	char name[300], new_name[300];
	const char *n = run_name(r, from, run_chance(r, 95));
	int ret;

	if (!n)
		return;
	(void)snprintf(name, sizeof(name), "%s", n);
	n = run_name(r, to, flags & RENAME_EXCHANGE || run_chance(r, 30));
	(void)snprintf(new_name, sizeof(new_name), "%s", n ? n : "n0");
	run_say(r, "rename %llu/%s to %llu/%s flags %u", (unsigned long long)from->ino, name,
	        (unsigned long long)to->ino, new_name, flags);
	run_use(r, from);
	run_use(r, to);
	d = strlen(name) < 256 ? model_dirent_get(from, name) : NULL;
	src = d ? d->ino : 0;
	d = strlen(new_name) < 256 ? model_dirent_get(to, new_name) : NULL;
	dst = d ? d->ino : 0;
	flags &= ~(unsigned)RENAME_WHITEOUT;
	ret = whiteout ? core_rename_whiteout(r->fx.core, &cc, from->ino, name, to->ino, new_name, flags)
	               : core_rename(r->fx.core, from->ino, name, to->ino, new_name, flags);
	run_expect(r, ret, model_rename(r->m, from->ino, name, to->ino, new_name, flags));
	if (whiteout && !ret && src != dst)
		check_whiteout(r, &mc, from, name);
	run_check_inode(r, from);
	run_check_inode(r, to);
	if (ret)
		return;
	run_check_inode(r, model_inode_get(r->m, src));
	if (dst && dst != src && flags != RENAME_EXCHANGE)
		note_replaced(r, src);
	if (dst && model_inode_get(r->m, dst))
		run_check_inode(r, model_inode_get(r->m, dst));
}

void run_op_lookup(struct run *r)
{
	struct model_inode *dir = run_pick(r, run_chance(r, 95) ? run_is_dir : run_is_any);
	const char *name = run_is_dir(dir) ? run_name(r, dir, false) : "n1";
	struct core_attr attr = {0};
	uint64_t ino = 0;
	int ret;

	run_say(r, "lookup %llu/%s", (unsigned long long)dir->ino, name);
	run_use(r, dir);
	ret = core_lookup(r->fx.core, dir->ino, name, &attr);
	run_expect(r, ret, model_lookup(r->m, dir->ino, name, &ino));
	if (ret)
		return;
	model_inode_get(r->m, ino)->refs++;
	run_check_attr(r, &attr, model_inode_get(r->m, ino));
}

void run_op_forget(struct run *r)
{
	struct model_inode *i = run_pick(r, run_is_any);
	uint64_t n = i->refs;

	if (!n || i->opens)
		return;
	if (i->nlink && run_chance(r, 30))
		n = 1 + run_below(r, n);
	run_say(r, "forget %llu, %llu of %llu", (unsigned long long)i->ino, (unsigned long long)n,
	        (unsigned long long)i->refs);
	core_forget(r->fx.core, i->ino, n);
	i->refs -= n;
	model_inode_settle(r->m, i);
}

void run_op_readdir(struct run *r)
{
	struct model_inode *dir = run_pick(r, run_is_dir);

	run_say(r, "readdir %llu", (unsigned long long)dir->ino);
	run_check_dir(r, dir, run_chance(r, 50), 1 + (size_t)run_below(r, 8));
}

static struct clock_time random_time(struct run *r)
{
	struct clock_time t = {.nsec = (uint32_t)run_below(r, 1000000000)};

	switch (run_below(r, 4)) {
	case 0:
		t.sec = -(int64_t)run_below(r, 4000000000);
		break;
	case 1:
		t.sec = (int64_t)run_below(r, 16000000000);
		break;
	default:
		t.sec = (int64_t)run_below(r, 2000000000);
	}
	return t;
}

/* What the kernel asks at once: chmod; chown; utimensat; and combinations of them. */
void run_op_setattr(struct run *r)
{
	struct model_inode *i = run_pick(r, run_is_any);
	struct core_attr in = {0}, out = {0};
	unsigned which = 0;
	int ret;

	if (run_chance(r, 40)) {
		which |= CORE_SET_MODE;
		in.mode = (i->mode & S_IFMT) | (uint32_t)run_below(r, 010000);
	} else if (run_chance(r, 40)) {
		which |= run_chance(r, 70) ? CORE_SET_UID : 0;
		which |= run_chance(r, 70) ? CORE_SET_GID : 0;
		in.uid = (uint32_t)run_below(r, 0xfffffffe);
		in.gid = (uint32_t)run_below(r, 0xfffffffe);
	}
	if (!which || run_chance(r, 20)) {
		which |= run_chance(r, 70) ? CORE_SET_ATIME | (run_chance(r, 30) ? CORE_SET_ATIME_NOW : 0) : 0;
		which |= run_chance(r, 70) ? CORE_SET_MTIME | (run_chance(r, 30) ? CORE_SET_MTIME_NOW : 0) : 0;
		which |= run_chance(r, 20) ? CORE_SET_CTIME : 0;
		in.atime = random_time(r);
		in.mtime = random_time(r);
		in.ctime = random_time(r);
	}
	if (!which)
		which = CORE_SET_MTIME_NOW | CORE_SET_MTIME;
	run_say(r, "setattr %llu which %#x mode %o", (unsigned long long)i->ino, which, in.mode);
	run_use(r, i);
	ret = core_setattr(r->fx.core, i->ino, which, &in, &out);
	run_expect(r, ret, 0);
	if (which & (CORE_SET_UID | CORE_SET_GID))
		model_kill_setid(i);
	if (which & CORE_SET_MODE)
		i->mode = in.mode;
	if (which & CORE_SET_UID)
		i->uid = in.uid;
	if (which & CORE_SET_GID)
		i->gid = in.gid;
	if (which & CORE_SET_ATIME) {
		i->atime = which & CORE_SET_ATIME_NOW ? r->m->now : in.atime;
		i->atime_known = true;
	}
	if (which & CORE_SET_MTIME)
		i->mtime = which & CORE_SET_MTIME_NOW ? r->m->now : in.mtime;
	i->ctime = which & CORE_SET_CTIME ? in.ctime : r->m->now;
	i->changed = r->m->step;
	run_check_attr(r, &out, i);
}

static size_t random_value(struct run *r)
{
	size_t len = run_chance(r, 10) ? 0 : 1 + (size_t)run_below(r, 300);

	if (run_chance(r, 5))
		len = run_chance(r, 50) ? 65536 : 1 + (size_t)run_below(r, 65536);
	fill_data(&r->rng, r->a, len);
	return len;
}

void run_op_xattr(struct run *r)
{
	static const char *const names[] = {"user.a", "user.some.longer.name", "user.\xc3\xa4\x01", "trusted.t",
	                                    "security.s"};
	struct model_inode *i = run_pick(r, run_is_any);
	const char *name = names[run_below(r, 5)];
	int flags, ret;
	size_t len;

	if (!S_ISREG(i->mode) && !S_ISDIR(i->mode))
		name = names[3 + run_below(r, 2)]; /* the kernel allows user.* there only */
	run_use(r, i);
	if (run_chance(r, 30)) {
		run_say(r, "removexattr %llu %s", (unsigned long long)i->ino, name);
		ret = core_removexattr(r->fx.core, i->ino, name);
		run_expect(r, ret, model_xattr_remove(r->m, i, name));
	} else {
		flags = run_chance(r, 20) ? XATTR_CREATE : run_chance(r, 20) ? XATTR_REPLACE : 0;
		len = random_value(r);
		run_say(r, "setxattr %llu %s of %zu bytes, flags %d", (unsigned long long)i->ino, name, len, flags);
		ret = core_setxattr(r->fx.core, i->ino, name, r->a, len, flags);
		run_expect(r, ret, model_xattr_set(r->m, i, name, r->a, len, flags));
	}
	run_check_inode(r, i);
	run_check_xattrs(r, i);
}
