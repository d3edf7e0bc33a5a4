/* Requests about an inode: attributes, extended attributes, the filesystem's numbers. */
#include "base/wait.h"
#include "fs/fuse/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

struct core_cred op_cred(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct core_cred){.uid = ctx->uid, .gid = ctx->gid, .umask = ctx->umask};
}

static struct timespec timespec_of(struct clock_time t)
{
	return (struct timespec){.tv_sec = t.sec, .tv_nsec = t.nsec};
}

static struct clock_time time_of(struct timespec t)
{
	return (struct clock_time){.sec = t.tv_sec, .nsec = (uint32_t)t.tv_nsec};
}

bool op_blocks_unsure(const struct core_attr *a)
{
	return a->written && !a->blocks;
}

/* A file with data must not look like one hole, to tar -S for one. */
static uint64_t shown_blocks(const struct core_attr *a)
{
	return op_blocks_unsure(a) ? 1 : a->blocks;
}

/* The kernel forgets the blocks when a writer closes; we may not have heard of that yet. */
static double attr_timeout(const struct core_attr *a)
{
	return op_blocks_unsure(a) ? 0 : SESSION_TIMEOUT;
}

void op_stat(const struct core_attr *a, struct stat *st)
{
	*st = (struct stat){
	    .st_ino = a->ino,
	    .st_mode = a->mode,
	    .st_nlink = a->nlink,
	    .st_uid = a->uid,
	    .st_gid = a->gid,
	    .st_rdev = a->rdev,
	    .st_size = (off_t)a->size,
	    .st_blocks = (blkcnt_t)shown_blocks(a),
	    .st_blksize = 4096,
	    .st_atim = timespec_of(a->atime),
	    .st_mtim = timespec_of(a->mtime),
	    .st_ctim = timespec_of(a->ctime),
	};
}

void op_entry(const struct core_attr *a, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){
	    .ino = a->ino,
	    .generation = a->generation,
	    .attr_timeout = SESSION_TIMEOUT,
	    .entry_timeout = SESSION_TIMEOUT,
	};
	op_stat(a, &e->attr);
}

void op_reply(fuse_req_t req, int ret)
{
	(void)fuse_reply_err(req, -ret);
}

void op_reply_entry(fuse_req_t req, int ret, const struct core_attr *a)
{
	struct core *core = op_core(req);
	struct fuse_entry_param e;

	if (ret) {
		op_reply(req, ret);
		return;
	}
	op_entry(a, &e);
	if (fuse_reply_entry(req, &e) < 0)
		core_forget(core, a->ino, 1); /* interrupted: the kernel never learned of it */
}

static void reply_attr(fuse_req_t req, int ret, const struct core_attr *a, double timeout)
{
	struct stat st;

	if (ret) {
		op_reply(req, ret);
		return;
	}
	op_stat(a, &st);
	(void)fuse_reply_attr(req, &st, timeout);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct core_attr a;
	(void)fi;

	int ret = core_getattr(op_core(req), ino, &a);
	reply_attr(req, ret, &a, ret ? 0 : attr_timeout(&a));
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
static struct statx_timestamp statx_time(struct clock_time t)
{
	return (struct statx_timestamp){.tv_sec = t.sec, .tv_nsec = t.nsec};
}

void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
	struct core_attr a;
	(void)flags;
	(void)mask;
	(void)fi;

	int ret = core_getattr(op_core(req), ino, &a);
	if (ret) {
		op_reply(req, ret);
		return;
	}
	struct statx st = {
	    .stx_mask = STATX_BASIC_STATS | STATX_BTIME,
	    .stx_blksize = 4096,
	    .stx_nlink = a.nlink,
	    .stx_uid = a.uid,
	    .stx_gid = a.gid,
	    .stx_mode = (uint16_t)a.mode,
	    .stx_ino = a.ino,
	    .stx_size = a.size,
	    .stx_blocks = shown_blocks(&a),
	    .stx_rdev_major = major(a.rdev),
	    .stx_rdev_minor = minor(a.rdev),
	    .stx_atime = statx_time(a.atime),
	    .stx_mtime = statx_time(a.mtime),
	    .stx_ctime = statx_time(a.ctime),
	    .stx_btime = statx_time(a.btime),
	};
	(void)fuse_reply_statx(req, 0, &st, attr_timeout(&a));
}
#endif

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	static const struct {
		int fuse;
		unsigned core;
	} map[] = {
	    {FUSE_SET_ATTR_MODE, CORE_SET_MODE},
	    {FUSE_SET_ATTR_UID, CORE_SET_UID},
	    {FUSE_SET_ATTR_GID, CORE_SET_GID},
	    {FUSE_SET_ATTR_SIZE, CORE_SET_SIZE},
	    {FUSE_SET_ATTR_ATIME, CORE_SET_ATIME},
	    {FUSE_SET_ATTR_MTIME, CORE_SET_MTIME},
	    {FUSE_SET_ATTR_CTIME, CORE_SET_CTIME}, /* the kernel keeps time for what it caches */
	    {FUSE_SET_ATTR_ATIME_NOW, CORE_SET_ATIME_NOW},
	    {FUSE_SET_ATTR_MTIME_NOW, CORE_SET_MTIME_NOW},
	};
	struct core_attr in = {
	    .mode = attr->st_mode & ~(mode_t)WIRE_KILL_SUIDGID,
	    .uid = attr->st_uid,
	    .gid = attr->st_gid,
	    .size = (uint64_t)attr->st_size,
	    .atime = time_of(attr->st_atim),
	    .mtime = time_of(attr->st_mtim),
	    .ctime = time_of(attr->st_ctim),
	};
	struct core_attr out;
	unsigned which = 0;
	(void)fi;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
		if (to_set & map[i].fuse)
			which |= map[i].core;
	}
	/* Where the kernel keeps times it sends those that a truncate changes: none if the size that it knows stays. */
	if ((which & CORE_SET_SIZE) && op_session(req)->keeps_times)
		which |= CORE_KEEP_TIMES;
	/* A truncate by somebody without CAP_FSETID, or a change of owner by anybody. */
	if ((attr->st_mode & WIRE_KILL_SUIDGID) ||
	    ((which & (CORE_SET_UID | CORE_SET_GID)) && !(which & CORE_SET_MODE)))
		which |= CORE_KILL_SUIDGID;
	if ((which & CORE_KILL_SUIDGID) && caller_is_outside(req, ino) && !caller_is_capable(req, CAP_FSETID))
		which |= CORE_KILL_SGID;
	int ret = core_setattr(op_core(req), ino, which, &in, &out);
	reply_attr(req, ret, &out, SESSION_TIMEOUT);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct core_statfs s;
	(void)ino;

	atomic_fetch_add_explicit(&op_session(req)->asked, 1, memory_order_relaxed);
	int ret = core_statfs(op_core(req), &s);
	if (ret) {
		op_reply(req, ret);
		return;
	}
	struct statvfs out = {
	    .f_bsize = s.block_size,
	    .f_frsize = s.block_size,
	    .f_blocks = s.blocks,
	    .f_bfree = s.free,
	    .f_bavail = s.avail,
	    .f_files = s.files,
	    .f_ffree = s.files_free,
	    .f_favail = s.files_free,
	    .f_namemax = 255,
	};
	(void)fuse_reply_statfs(req, &out);
}

/* --- extended attributes ------------------------------------------------------------------------------------------ */

/* A value or a list of len bytes in buf, or just its length. */
static void reply_bytes(fuse_req_t req, const void *buf, size_t len, size_t size)
{
	if (size == 0)
		(void)fuse_reply_xattr(req, len);
	else if (len > size)
		(void)fuse_reply_err(req, ERANGE);
	else
		(void)fuse_reply_buf(req, buf, len);
}

static void reply_info(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *text = NULL;
	int ret = core_info(op_core(req), ino, &text);

	if (ret) {
		op_reply(req, ret);
		return;
	}
	size_t len = strlen(text);
	reply_bytes(req, text, len > XATTR_SIZE_MAX ? XATTR_SIZE_MAX : len, size);
	free(text);
}

/* Names of ours are answered here, not stored: nobody may set or remove them, but to control compaction. */
static bool name_is_virtual(const char *name)
{
	return strcmp(name, SESSION_XATTR_INFO) == 0 || strcmp(name, SESSION_XATTR_PID) == 0 ||
	       strcmp(name, SESSION_XATTR_CONFIG) == 0 || strcmp(name, SESSION_XATTR_COMPACT) == 0 ||
	       strcmp(name, SESSION_XATTR_CONTROL) == 0;
}

static int compact_set(fuse_req_t req, const char *value, size_t size)
{
	uid_t uid = fuse_req_ctx(req)->uid;

	if (uid != 0 && uid != getuid())
		return -EPERM;
	if (size == 4 && !memcmp(value, "stop", 4)) {
		core_compact_stop(op_core(req));
		return 0;
	}
	if (size == 0 || (size == 3 && !memcmp(value, "all", 3)))
		return core_compact_start(op_core(req), size != 0);
	return -EINVAL;
}

static void reply_compact(fuse_req_t req, size_t size)
{
	char *buf = serve_reply_buffer();
	struct core_compact_status s;

	core_compact_status(op_core(req), &s);
	int n = snprintf(buf, SESSION_MAX_WRITE, "%s done=%" PRIu64 " total=%" PRIu64 " freed=%" PRIu64 " error=%d\n",
	                 s.running ? "running" : "idle", s.done, s.total, s.freed, -s.ret);
	reply_bytes(req, buf, (size_t)n, size);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	if (strcmp(name, SESSION_XATTR_COMPACT) == 0) {
		op_reply(req, compact_set(req, value, size));
		return;
	}
	if (name_is_virtual(name)) {
		(void)fuse_reply_err(req, EPERM);
		return;
	}
	int set = flags & (XATTR_CREATE | XATTR_REPLACE);
	if (flags & WIRE_KILL_SGID)
		set |= CORE_XATTR_KILL_SGID;
	op_reply(req, core_setxattr(op_core(req), ino, name, value, size, set));
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	char *buf = serve_reply_buffer();

	if (strcmp(name, SESSION_XATTR_INFO) == 0) {
		wait_begin(); /* it looks at all extents */
		reply_info(req, ino, size);
		return;
	}
	if (strcmp(name, SESSION_XATTR_PID) == 0) {
		int n = snprintf(buf, SESSION_MAX_WRITE, "%d", (int)getpid());

		reply_bytes(req, buf, (size_t)n, size);
		return;
	}
	if (strcmp(name, SESSION_XATTR_CONFIG) == 0) {
		const char *text = op_session(req)->config;

		reply_bytes(req, text, strlen(text), size);
		return;
	}
	if (strcmp(name, SESSION_XATTR_CONTROL) == 0) {
		const char *path = op_session(req)->control;

		if (path)
			reply_bytes(req, path, strlen(path), size);
		else
			(void)fuse_reply_err(req, ENODATA);
		return;
	}
	if (strcmp(name, SESSION_XATTR_COMPACT) == 0) {
		reply_compact(req, size);
		return;
	}
	size_t len = size > SESSION_MAX_WRITE ? SESSION_MAX_WRITE : size;
	int ret = core_getxattr(op_core(req), ino, name, buf, &len);
	if (ret)
		op_reply(req, ret);
	else
		reply_bytes(req, buf, len, size);
}

static bool name_is_trusted(const char *name)
{
	return strncmp(name, "trusted.", 8) == 0;
}

/* The names in trusted. are listed for those who may read them; the kernel checks every other use. */
static size_t list_filter(fuse_req_t req, char *buf, size_t len)
{
	size_t kept = 0;
	bool asked = false, may = false;

	for (size_t at = 0, n; at < len; at += n) {
		n = strlen(buf + at) + 1;
		if (name_is_trusted(buf + at) && !asked) {
			asked = true;
			may = caller_is_capable(req, CAP_SYS_ADMIN);
		}
		if (name_is_trusted(buf + at) && !may)
			continue;
		memmove(buf + kept, buf + at, n);
		kept += n;
	}
	return kept;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	char *buf = serve_reply_buffer();
	size_t len = SESSION_MAX_WRITE;

	int ret = core_listxattr(op_core(req), ino, buf, &len);
	if (ret)
		op_reply(req, ret);
	else
		reply_bytes(req, buf, list_filter(req, buf, len), size);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	op_reply(req, name_is_virtual(name) ? -EPERM : core_removexattr(op_core(req), ino, name));
}
