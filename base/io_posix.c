#include "base/io.h"
#include "base/io_map.h"
#include "base/wait.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

struct posix_io {
	struct io io;
	int dirfd;  /* STORE; also what the lock is held on */
	bool btrfs; /* STORE's filesystem */
};

struct posix_file {
	struct io_file file;
	int fd;
	_Atomic(struct io_map *) map; /* NULL: read by pread */
};

static int dirfd_of(const struct io *io)
{
	return ((const struct posix_io *)io)->dirfd;
}

static int fd_of(const struct io_file *f)
{
	return ((const struct posix_file *)f)->fd;
}

/* Keeps every path inside STORE: relative, no empty, "." or ".." component. */
static int check_path(const char *path)
{
	for (const char *p = path;; p++) {
		size_t n = strcspn(p, "/");
		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return -EINVAL;
		p += n;
		if (!*p)
			return 0;
	}
}

/* openat that a signal does not end. Symbolic links and waiting fifos in STORE are not ours: neither is followed. */
static int open_at(int dirfd, const char *path, int flags)
{
	for (;;) {
		int fd = openat(dirfd, path, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
		if (fd >= 0)
			return fd;
		if (errno != EINTR)
			return -errno;
	}
}

/* Opens a directory; "" is STORE itself. */
static int open_dir(const struct io *io, const char *path)
{
	if (!*path)
		return open_at(dirfd_of(io), ".", O_RDONLY | O_DIRECTORY);
	int ret = check_path(path);
	return ret ? ret : open_at(dirfd_of(io), path, O_RDONLY | O_DIRECTORY);
}

/* flock without waiting. NFS gives an exclusive one only on what is open for writing. */
static int lock_fd(int fd, bool shared)
{
	while (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB)) {
		if (errno == EWOULDBLOCK)
			return -EBUSY;
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* A file that is not copied on write: what was allocated or written once can be written again on a full disk. Only
 * Btrfs has it, and only for a file that is empty. It costs Btrfs's checksums, and with them the repair from a second
 * copy: so not for what is never written again. */
static void no_cow(int fd)
{
	int attributes = 0;

	if (!ioctl(fd, FS_IOC_GETFLAGS, &attributes)) {
		attributes |= FS_NOCOW_FL;
		(void)ioctl(fd, FS_IOC_SETFLAGS, &attributes);
	}
}

static int posix_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	int mode = flags & IO_WRITE ? O_RDWR : O_RDONLY;
	struct stat st;

	int ret = check_path(path);
	if (ret)
		return ret;
	wait_begin();
	if (flags & IO_CREATE)
		mode |= O_CREAT;
	if (flags & IO_EXCL)
		mode |= O_CREAT | O_EXCL;

	struct posix_file *f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	int fd = open_at(dirfd_of(io), path, mode);
	if (fd < 0) {
		free(f);
		return fd;
	}
	if (fstat(fd, &st))
		ret = -errno;
	else if (!S_ISREG(st.st_mode))
		ret = S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	else if (flags & IO_LOCK)
		ret = lock_fd(fd, !(flags & IO_WRITE));
	if (!ret && flags & IO_REWRITTEN && !st.st_size && ((const struct posix_io *)io)->btrfs)
		no_cow(fd);
	if (ret) {
		(void)close(fd);
		free(f);
		return ret;
	}
	f->file.io = io;
	f->fd = fd;
	atomic_init(&f->map, NULL);
	*out = &f->file;
	return 0;
}

static void posix_close(struct io_file *f)
{
	io_map_free(atomic_load(&((struct posix_file *)f)->map));
	(void)close(fd_of(f));
	free(f);
}

/* pread, which only says that it waits where the page cache has nothing. */
static ssize_t read_at(int fd, void *buf, size_t len, uint64_t off)
{
	if (wait_is_hooked()) {
		const struct iovec iov = {buf, len};
		ssize_t n = preadv2(fd, &iov, 1, (off_t)off, RWF_NOWAIT);

		if (n >= 0)
			return n;
		wait_begin();
	}
	return pread(fd, buf, len, (off_t)off);
}

static ssize_t posix_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	struct io_map *map = atomic_load_explicit(&((struct posix_file *)f)->map, memory_order_acquire);
	size_t done = 0;

	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EINVAL;
	if (map && io_map_read(map, buf, len, off))
		return (ssize_t)len;
	while (done < len) {
		ssize_t n = read_at(fd_of(f), (char *)buf + done, len - done, off + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int posix_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	wait_begin();
	while (done < len) {
		ssize_t n = pwrite(fd_of(f), (const char *)buf + done, len - done, (off_t)(off + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

static int posix_sync(struct io_file *f)
{
	wait_begin();
	/* EINTR reports a signal, no failed write: only that may be tried again. */
	while (fdatasync(fd_of(f))) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* Where STORE's filesystem cannot, or the range is none of a file's, it is left to fdatasync. */
static void posix_write_behind(struct io_file *f, uint64_t off, uint64_t len)
{
	wait_begin();
	(void)sync_file_range(fd_of(f), (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static int posix_truncate(struct io_file *f, uint64_t size)
{
	if (size > INT64_MAX)
		return -EFBIG;
	wait_begin();
	while (ftruncate(fd_of(f), (off_t)size)) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int posix_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	wait_begin();
	while (fallocate(fd_of(f), 0, (off_t)off, (off_t)len)) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int posix_size(struct io_file *f, uint64_t *size)
{
	struct stat st;

	if (fstat(fd_of(f), &st))
		return -errno;
	*size = (uint64_t)st.st_size;
	return 0;
}

/* No more than the file has: behind its end there is nothing to read. */
static int posix_map(struct io_file *f, uint64_t len)
{
	struct io_map *map;
	struct stat st;

	if (fstat(fd_of(f), &st))
		return -errno;
	if (len > (uint64_t)st.st_size)
		len = (uint64_t)st.st_size;
	if (!len || len > SIZE_MAX || atomic_load(&((struct posix_file *)f)->map))
		return -EINVAL;
	int ret = io_map_new(fd_of(f), len, &map);
	if (!ret)
		atomic_store_explicit(&((struct posix_file *)f)->map, map, memory_order_release);
	return ret;
}

static int posix_unlink(struct io *io, const char *path)
{
	int ret = check_path(path);

	if (ret)
		return ret;
	wait_begin();
	return unlinkat(dirfd_of(io), path, 0) ? -errno : 0;
}

static int posix_rename(struct io *io, const char *from, const char *to)
{
	int ret = check_path(from);

	if (!ret)
		ret = check_path(to);
	if (ret)
		return ret;
	wait_begin();
	return renameat(dirfd_of(io), from, dirfd_of(io), to) ? -errno : 0;
}

static int posix_mkdir(struct io *io, const char *path)
{
	int ret = check_path(path);

	if (ret)
		return ret;
	wait_begin();
	return mkdirat(dirfd_of(io), path, 0700) ? -errno : 0;
}

static int posix_sync_dir(struct io *io, const char *path)
{
	int ret = 0;

	wait_begin();
	int fd = open_dir(io, path);
	if (fd < 0)
		return fd;
	while (fsync(fd)) {
		if (errno != EINTR) {
			ret = -errno;
			break;
		}
	}
	(void)close(fd);
	return ret;
}

static int posix_list(struct io *io, const char *path, io_list_fn fn, void *arg)
{
	wait_begin();
	int fd = open_dir(io, path);
	if (fd < 0)
		return fd;
	DIR *d = fdopendir(fd);
	if (!d) {
		int ret = -errno;
		(void)close(fd);
		return ret;
	}

	int ret = 0;
	while (!ret) {
		errno = 0;
		const struct dirent *e = readdir(d);
		if (!e) {
			ret = -errno;
			break;
		}
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			ret = fn(arg, e->d_name);
	}
	(void)closedir(d);
	return ret;
}

static int posix_stat(struct io *io, const char *path, struct io_stat *out)
{
	struct stat st;
	int ret = *path ? check_path(path) : 0;

	if (ret)
		return ret;
	if (fstatat(dirfd_of(io), path, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -errno;
	*out = (struct io_stat){
	    .size = (uint64_t)st.st_size,
	    .stored = (uint64_t)st.st_blocks * 512,
	    .changed = st.st_ctim.tv_sec,
	    .dir = S_ISDIR(st.st_mode),
	};
	return 0;
}

static int posix_space(struct io *io, struct io_space *space)
{
	struct statvfs v;

	while (fstatvfs(dirfd_of(io), &v)) {
		if (errno != EINTR)
			return -errno;
	}
	*space = (struct io_space){
	    .total = (uint64_t)v.f_blocks * v.f_frsize,
	    .free = (uint64_t)v.f_bfree * v.f_frsize,
	    .avail = (uint64_t)v.f_bavail * v.f_frsize,
	    .files = v.f_files,
	    .files_free = v.f_ffree,
	};
	return 0;
}

static int posix_lock(struct io *io)
{
	return lock_fd(dirfd_of(io), false);
}

static void posix_free(struct io *io)
{
	(void)close(dirfd_of(io));
	free(io);
}

static const struct io_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .pread = posix_pread,
    .pwrite = posix_pwrite,
    .sync = posix_sync,
    .write_behind = posix_write_behind,
    .truncate = posix_truncate,
    .allocate = posix_allocate,
    .size = posix_size,
    .map = posix_map,
    .unlink = posix_unlink,
    .rename = posix_rename,
    .mkdir = posix_mkdir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .stat = posix_stat,
    .space = posix_space,
    .lock = posix_lock,
    .free = posix_free,
};

int io_posix_new(const char *path, struct io **out, struct err *e)
{
	struct posix_io *p = malloc(sizeof(*p));

	if (!p)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the store's directory");
	do {
		p->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} while (p->dirfd < 0 && errno == EINTR);
	if (p->dirfd < 0) {
		int code = -errno;
		free(p);
		return err_set(e, code, ERR_IO, "%s: %s", path, err_text(NULL, code));
	}
	struct statfs fs;
	p->btrfs = !fstatfs(p->dirfd, &fs) && fs.f_type == BTRFS_SUPER_MAGIC;
	p->io.ops = &posix_ops;
	*out = &p->io;
	return 0;
}
