/* Requests about names: lookup and forget, and what makes, moves and removes them. */
#include "fs/fuse/internal.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/stat.h>

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct core_attr a;
	int ret = core_lookup(op_core(req), parent, name, &a);

	if (ret == -ENOENT) {
		/* An entry without inode: the kernel may remember that there is nothing. */
		struct fuse_entry_param none = {.entry_timeout = SESSION_TIMEOUT};

		(void)fuse_reply_entry(req, &none);
		return;
	}
	op_reply_entry(req, ret, &a);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	core_forget(op_core(req), ino, nlookup);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		core_forget(op_core(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char *buf = serve_reply_buffer();
	int ret = core_readlink(op_core(req), ino, buf, SESSION_MAX_WRITE);

	if (ret)
		op_reply(req, ret);
	else
		(void)fuse_reply_readlink(req, buf);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct core_cred cred = op_cred(req);
	struct core_attr a;

	int ret = core_mknod(op_core(req), &cred, parent, name, mode, (uint32_t)rdev, &a);
	op_reply_entry(req, ret, &a);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	op_mknod(req, parent, name, (mode & ~(mode_t)S_IFMT) | S_IFDIR, 0);
}

void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	struct core_cred cred = op_cred(req);
	struct core_attr a;

	int ret = core_symlink(op_core(req), &cred, parent, name, link, &a);
	op_reply_entry(req, ret, &a);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	struct core_attr a;

	int ret = core_link(op_core(req), ino, newparent, newname, &a);
	op_reply_entry(req, ret, &a);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	op_reply(req, core_unlink(op_core(req), parent, name));
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	op_reply(req, core_rmdir(op_core(req), parent, name));
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
               unsigned int flags)
{
	struct core *core = op_core(req);
	struct core_cred cred = op_cred(req);

	const unsigned whiteout = RENAME_WHITEOUT;

	op_reply(req, flags & whiteout
	                  ? core_rename_whiteout(core, &cred, parent, name, newparent, newname, flags & ~whiteout)
	                  : core_rename(core, parent, name, newparent, newname, flags));
}
