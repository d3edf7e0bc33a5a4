/* Requests about open directories: there is nothing to keep for one, the offset says it all. */
#include "fs/fuse/internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

/* ENOSYS tells the kernel never to ask again, and to cache what it reads of directories. */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct session *s = op_session(req);
	(void)ino;

	if (s->no_opendir) {
		(void)fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	(void)fuse_reply_open(req, fi);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	(void)fuse_reply_err(req, 0);
}

struct listing {
	fuse_req_t req;
	char *buf;
	size_t size, used;
};

static int add_entry(void *arg, const struct core_entry *entry)
{
	struct listing *l = arg;
	struct stat st = {.st_ino = entry->ino, .st_mode = entry->type};
	size_t left = l->size - l->used;

	size_t need = fuse_add_direntry(l->req, l->buf + l->used, left, entry->name, &st, (off_t)entry->next);
	if (need > left)
		return 1;
	l->used += need;
	return 0;
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int add_entry_plus(void *arg, const struct core_entry *entry)
{
	struct listing *l = arg;
	struct fuse_entry_param e = {.attr = {.st_ino = entry->ino, .st_mode = entry->type}};
	size_t left = l->size - l->used;

	/* An entry without inode number gives a name only: the kernel takes no reference. */
	if (entry->attr && !is_dot(entry->name))
		op_entry(entry->attr, &e);
	size_t need = fuse_add_direntry_plus(l->req, l->buf + l->used, left, entry->name, &e, (off_t)entry->next);
	if (need > left)
		return 1;
	l->used += need;
	return 0;
}

/* The kernel did not take the answer, so it will not forget what is in it either. */
static void forget_listed(struct core *core, const struct listing *l)
{
	for (size_t at = 0; at + FUSE_NAME_OFFSET_DIRENTPLUS <= l->used;) {
		const struct fuse_direntplus *d = (const void *)(l->buf + at);

		if (d->entry_out.nodeid)
			core_forget(core, d->entry_out.nodeid, 1);
		at += FUSE_DIRENTPLUS_SIZE(d);
	}
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct core *core = op_core(req);
	struct listing l = {.req = req, .buf = serve_reply_buffer(), .size = size};

	if (l.size > SESSION_MAX_WRITE)
		l.size = SESSION_MAX_WRITE;
	int ret = core_readdir(core, ino, (uint64_t)off, plus, plus ? add_entry_plus : add_entry, &l);
	if (ret < 0 && l.used == 0) {
		op_reply(req, ret);
		return;
	}
	if (fuse_reply_buf(req, l.buf, l.used) < 0 && plus)
		forget_listed(core, &l);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, ino, size, off, true);
}

/*
 * Durable means everything, whatever the directory. The kernel does not wait for its own writeback in syncfs(2), so
 * for the root, which `apfs sync` asks about after a syncfs, what is on the way is waited for as well.
 */
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)fi;
	if (ino == FUSE_ROOT_ID)
		serve_drain(op_session(req), 10);
	op_reply(req, core_fsync(op_core(req), ino, datasync != 0));
}
