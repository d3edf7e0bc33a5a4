/* Requests about open files. */
#include "fs/fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static struct core_file *file_of(const struct fuse_file_info *fi)
{
	return (struct core_file *)(uintptr_t)fi->fh;
}

/*
 * With the writeback cache the kernel reads what a partial write needs through write-only handles too, it places
 * appended data itself, and it follows a write to an O_SYNC file by FSYNC: of all flags only these are left.
 */
static int open_flags(int flags)
{
	int mode = (flags & O_ACCMODE) == O_RDONLY ? O_RDONLY : O_RDWR;

	return mode | (flags & O_TRUNC);
}

static int kill_suidgid(struct core *core, uint64_t ino)
{
	struct core_attr none = {0}, out;

	return core_setattr(core, ino, CORE_KILL_SUIDGID, &none, &out);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct core *core = op_core(req);
	struct core_cred cred = op_cred(req);
	struct core_file *file = NULL;
	struct fuse_entry_param e;
	struct core_attr a;

	int ret = core_mknod(core, &cred, parent, name, (mode & ~(mode_t)S_IFMT) | S_IFREG, 0, &a);
	if (ret) {
		op_reply(req, ret);
		return;
	}
	ret = core_file_open(core, a.ino, open_flags(fi->flags), &file);
	if (ret) {
		if (core_unlink(core, parent, name) == 0)
			core_forget(core, a.ino, 1);
		op_reply(req, ret);
		return;
	}
	op_entry(&a, &e);
	fi->fh = (uintptr_t)file;
	fi->keep_cache = 1;
	if (fuse_reply_create(req, &e, fi) < 0) {
		core_file_close(file);
		core_forget(core, a.ino, 1);
	}
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct core *core = op_core(req);
	struct core_file *file = NULL;

	int ret = core_file_open(core, ino, open_flags(fi->flags), &file);
	if (ret == 0 && (fi->flags & WIRE_KILL_SUIDGID)) {
		ret = kill_suidgid(core, ino);
		if (ret)
			core_file_close(file);
	}
	if (ret) {
		op_reply(req, ret);
		return;
	}
	fi->fh = (uintptr_t)file;
	fi->keep_cache = 1;
	if (fuse_reply_open(req, fi) < 0)
		core_file_close(file);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	char *buf = serve_reply_buffer();
	(void)ino;

	if (size > SESSION_MAX_WRITE)
		size = SESSION_MAX_WRITE;
	ssize_t n = core_file_read(file_of(fi), buf, size, (uint64_t)off);
	if (n < 0)
		op_reply(req, (int)n);
	else
		(void)fuse_reply_buf(req, buf, (size_t)n);
}

/*
 * The kernel sets the flag that clears set-id bits where they must go: not for writers with CAP_FSETID, and for a file
 * that has such bits it does not write through its cache.
 */
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	unsigned flags = 0;
	(void)ino;

	if (fi->writepage)
		flags |= CORE_WRITE_CACHED;
	if (fi->flags & WIRE_KILL_SUIDGID)
		flags |= CORE_WRITE_KILL_SUIDGID;
	int ret = core_file_write(file_of(fi), buf, size, (uint64_t)off, flags);
	if (ret)
		op_reply(req, ret);
	else
		(void)fuse_reply_write(req, size);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	core_file_close(file_of(fi));
	(void)fuse_reply_err(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)fi;
	op_reply(req, core_fsync(op_core(req), ino, datasync != 0));
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	uint64_t found = 0;
	(void)ino;

	int ret = core_file_seek(file_of(fi), (uint64_t)off, whence, &found);
	if (ret)
		op_reply(req, ret);
	else
		(void)fuse_reply_lseek(req, (off_t)found);
}
