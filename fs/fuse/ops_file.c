/* Requests about open files. */
#include "base/lock.h"
#include "fs/fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/stat.h>

#define COPY_MAX ((size_t)UINT32_MAX & ~(size_t)4095) /* bytes that an answer can tell */

static struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

struct core_file *op_file(const struct fuse_file_info *fi)
{
	return handle_of(fi)->file;
}

/*
 * With the writeback cache the kernel reads what a partial write needs through write-only handles too, it places
 * appended data itself, it follows a write to an O_SYNC file by FSYNC, and truncates by SETATTR: of all flags only this
 * is left.
 */
static int open_flags(int flags)
{
	return (flags & O_ACCMODE) == O_RDONLY ? O_RDONLY : O_RDWR;
}

/* flags: as the kernel gives them. */
static int handle_open(struct session *s, uint64_t ino, int flags, struct handle **out)
{
	struct handle *h = malloc(sizeof(*h));
	if (!h)
		return -ENOMEM;

	h->sync = flags & (O_SYNC | O_DSYNC);
	int ret = core_file_open(s->core, ino, open_flags(flags), &h->file);
	if (ret) {
		free(h);
		return ret;
	}
	SCOPED_LOCK(&s->handle_lock);
	LIST_INSERT_HEAD(&s->handles, h, link);
	*out = h;
	return 0;
}

static void handle_close(struct session *s, struct handle *h)
{
	{
		SCOPED_LOCK(&s->handle_lock);
		LIST_REMOVE(h, link);
	}
	core_file_close(h->file);
	free(h);
}

void op_close_all(struct session *s)
{
	while (!LIST_EMPTY(&s->handles))
		handle_close(s, LIST_FIRST(&s->handles));
}

/* What a caller that must lose set-id bits loses, where there are any. */
static unsigned kill_setid(fuse_req_t req, fuse_ino_t ino)
{
	struct core_attr a;

	if (core_getattr(op_core(req), ino, &a) || !(a.mode & (S_ISUID | S_ISGID)))
		return 0;
	return CORE_KILL_SUIDGID | (caller_is_outside(req, ino) ? CORE_KILL_SGID : 0);
}

/* After a change of a file's data with these flags: the kernel goes on with the mode that it knows, unless told. */
static void forget_mode(fuse_req_t req, fuse_ino_t ino, unsigned flags)
{
	if (flags & CORE_KILL_SUIDGID)
		(void)fuse_lowlevel_notify_inval_inode(op_session(req)->se, ino, -1, 0);
}

/* Answers with a new file, opened; 0, or why it could not be. */
static int reply_opened(fuse_req_t req, const struct core_attr *a, struct fuse_file_info *fi)
{
	struct session *s = op_session(req);
	struct handle *h = NULL;
	struct fuse_entry_param e;
	struct core_attr now = *a;

	int ret = handle_open(s, a->ino, fi->flags, &h);
	if (ret)
		return ret;
	now.written = core_file_is_written(h->file);
	op_entry(&now, &e);
	fi->fh = (uintptr_t)h;
	fi->keep_cache = 1;
	if (fuse_reply_create(req, &e, fi) < 0) {
		handle_close(s, h);
		core_forget(s->core, a->ino, 1);
	}
	return 0;
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct core *core = op_core(req);
	struct core_cred cred = op_cred(req);
	struct core_attr a;

	int ret = core_mknod(core, &cred, parent, name, (mode & ~(mode_t)S_IFMT) | S_IFREG, 0, &a);
	if (!ret) {
		ret = reply_opened(req, &a, fi);
		if (ret && core_unlink(core, parent, name) == 0)
			core_forget(core, a.ino, 1);
	}
	if (ret)
		op_reply(req, ret);
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	struct core *core = op_core(req);
	struct core_cred cred = op_cred(req);
	struct core_attr a;

	int ret = core_tmpfile(core, &cred, parent, mode, &a);
	if (!ret) {
		ret = reply_opened(req, &a, fi);
		if (ret)
			core_forget(core, a.ino, 1);
	}
	if (ret)
		op_reply(req, ret);
}
#endif

/* What the kernel knows of a file without blocks does not hold once it may gather data for it. */
static void forget_blocks(struct session *s, fuse_ino_t ino)
{
	struct core_attr a;

	if (!core_getattr(s->core, ino, &a) && op_blocks_unsure(&a))
		(void)fuse_lowlevel_notify_inval_inode(s->se, ino, -1, 0);
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct session *s = op_session(req);
	struct handle *h = NULL;

	int ret = handle_open(s, ino, fi->flags, &h);
	if (ret) {
		op_reply(req, ret);
		return;
	}
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		forget_blocks(s, ino);
	fi->fh = (uintptr_t)h;
	fi->keep_cache = 1;
	if (fuse_reply_open(req, fi) < 0)
		handle_close(s, h);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	char *buf = serve_reply_buffer();
	(void)ino;

	if (size > SESSION_MAX_WRITE)
		size = SESSION_MAX_WRITE;
	ssize_t n = core_file_read(op_file(fi), buf, size, (uint64_t)off);
	if (n < 0)
		op_reply(req, (int)n);
	else
		(void)fuse_reply_buf(req, buf, (size_t)n);
}

/* With its writeback cache on the kernel sets a file's times when it changes the file, and sends them by SETATTR. */
static unsigned keep_times(fuse_req_t req)
{
	return op_session(req)->keeps_times ? CORE_KEEP_TIMES : 0;
}

/*
 * The kernel sets the flag that clears set-id bits where they must go: not for writers with CAP_FSETID, and for a file
 * that has such bits it does not write through its cache. A capability it removes itself when a program writes: what
 * its cache sends later comes after one that was set since.
 */
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	unsigned flags = keep_times(req) | (fi->writepage ? CORE_KEEP_CAPABILITY : 0);

	(void)buf; /* the data are in blocks */
	if (fi->flags & WIRE_KILL_SUIDGID)
		flags |= kill_setid(req, ino);
	int ret = core_file_write_blocks(op_file(fi), serve_write_blocks(), size, (uint64_t)off, flags);
	forget_mode(req, ino, flags);
	if (ret)
		op_reply(req, ret);
	else
		(void)fuse_reply_write(req, size);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	handle_close(op_session(req), handle_of(fi));
	(void)fuse_reply_err(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)fi;
	op_reply(req, core_fsync(op_core(req), ino, datasync != 0));
}

/* The kernel does not say for these requests whether set-id bits must go. */
static unsigned change_flags(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
	unsigned flags = handle_of(fi)->sync ? 0 : keep_times(req); /* what is durable at once is so with a time */
	unsigned kill = kill_setid(req, ino);

	return flags | (kill && !caller_is_capable(req, CAP_FSETID) ? kill : 0);
}

/* The kernel does not follow these by FSYNC either. */
static int sync_handle(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
	return handle_of(fi)->sync ? core_fsync(op_core(req), ino, false) : 0;
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	unsigned change = change_flags(req, ino, fi);
	int ret = -EINVAL;

	if (off >= 0 && len > 0)
		ret = core_file_fallocate(op_file(fi), mode, (uint64_t)off, (uint64_t)len, change);
	forget_mode(req, ino, change);
	op_reply(req, ret ? ret : sync_handle(req, ino, fi));
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino, off_t off, struct fuse_file_info *fi, fuse_ino_t to_ino,
                        off_t to_off, struct fuse_file_info *to_fi, size_t len, int flags)
{
	(void)ino;
	(void)flags;
	if (off < 0 || to_off < 0) {
		op_reply(req, -EINVAL);
		return;
	}
	if (len > COPY_MAX)
		len = COPY_MAX;
	/* The kernel has cut len to the size that it knows, and has sent what it held of the ranges. */
	unsigned change = change_flags(req, to_ino, to_fi);
	ssize_t n = core_file_clone(op_file(fi), (uint64_t)off, op_file(to_fi), (uint64_t)to_off, len, change);
	forget_mode(req, to_ino, change);
	int ret = n > 0 ? sync_handle(req, to_ino, to_fi) : (int)n;
	if (ret)
		op_reply(req, ret);
	else
		(void)fuse_reply_write(req, (size_t)n);
}
