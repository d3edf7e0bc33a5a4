/*
 * Every byte of STORE goes through this vtable: posix in production, simulated in tests. Paths are relative to STORE's
 * root, '/'-separated, without "..". Functions return 0 or -errno. A vtable and its files may be used from any thread;
 * one file may be read and written at disjoint ranges by several threads at once.
 */
#ifndef APFS_BASE_IO_H
#define APFS_BASE_IO_H

#include "base/err.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { IO_READ = 0, IO_WRITE = 1, IO_CREATE = 2, IO_EXCL = 4, IO_LOCK = 8, IO_REWRITTEN = 16 };

struct io;
struct io_file {
	struct io *io; /* the first member of every implementation's file */
};

struct io_space {
	uint64_t total, free, avail; /* bytes; avail is what this process may use */
	uint64_t files, files_free;
};

struct io_stat {
	uint64_t size;   /* bytes */
	uint64_t stored; /* bytes allocated on the device */
	int64_t changed; /* when it was last written to, made or renamed: seconds since the epoch */
	bool dir;
};

/* Called by io_list for each entry but "." and ".."; a non-zero return ends the listing and is io_list's result. */
typedef int (*io_list_fn)(void *arg, const char *name);

struct io_ops {
	int (*open)(struct io *io, const char *path, unsigned flags, struct io_file **out);
	void (*close)(struct io_file *f);
	ssize_t (*pread)(struct io_file *f, void *buf, size_t len, uint64_t off);
	int (*pwrite)(struct io_file *f, const void *buf, size_t len, uint64_t off);
	int (*sync)(struct io_file *f);
	void (*write_behind)(struct io_file *f, uint64_t off, uint64_t len); /* NULL: there is no such thing */
	int (*truncate)(struct io_file *f, uint64_t size);
	int (*allocate)(struct io_file *f, uint64_t off, uint64_t len);
	int (*size)(struct io_file *f, uint64_t *size);
	int (*map)(struct io_file *f, uint64_t len); /* NULL: there is no such thing */
	int (*unlink)(struct io *io, const char *path);
	int (*rename)(struct io *io, const char *from, const char *to);
	int (*mkdir)(struct io *io, const char *path);
	int (*sync_dir)(struct io *io, const char *path);
	int (*list)(struct io *io, const char *path, io_list_fn fn, void *arg);
	int (*stat)(struct io *io, const char *path, struct io_stat *st);
	int (*space)(struct io *io, struct io_space *space);
	int (*lock)(struct io *io);
	void (*free)(struct io *io);
};

struct io {
	const struct io_ops *ops; /* the first member of every implementation */
};

/* The posix implementation over the directory `path`. On success *out is the caller's, to io_free. */
int io_posix_new(const char *path, struct io **out, struct err *e) MUST_CHECK;

/* Releases the lock, if held, and the vtable; its files must be closed. NULL is allowed. */
static inline void io_free(struct io *io)
{
	if (io)
		io->ops->free(io);
}

/* Opens a file: IO_WRITE for reading and writing, IO_CREATE to create it (0600), IO_EXCL to fail with -EEXIST, IO_LOCK
 * to be the only one that has it open with IO_LOCK, or with IO_READ one of those who all read, without waiting: -EBUSY.
 * IO_REWRITTEN with IO_CREATE: it will be written in place again and again, where there may be no space left for that:
 * not copied on write, where STORE's filesystem can be told. */
static inline int MUST_CHECK io_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	return io->ops->open(io, path, flags, out);
}

/* NULL is allowed. */
static inline void io_close(struct io_file *f)
{
	if (f)
		f->io->ops->close(f);
}

/* Reads until len bytes or the end of the file: the count, less than len only at the end, or -errno. */
static inline ssize_t MUST_CHECK io_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	return f->io->ops->pread(f, buf, len, off);
}

/* Writes all of it or fails; after a failure any part may have been written. */
static inline int MUST_CHECK io_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	return f->io->ops->pwrite(f, buf, len, off);
}

/* fdatasync. After a failure nothing is known of what is durable: never retry, stop writing. */
static inline int MUST_CHECK io_sync(struct io_file *f)
{
	return f->io->ops->sync(f);
}

/* A hint: io_sync will be called for what was written to [off, off + len), so the device may begin with it. Nothing is
 * durable for it, and a failure shows at io_sync. */
static inline void io_write_behind(struct io_file *f, uint64_t off, uint64_t len)
{
	if (f->io->ops->write_behind)
		f->io->ops->write_behind(f, off, len);
}

static inline int MUST_CHECK io_truncate(struct io_file *f, uint64_t size)
{
	return f->io->ops->truncate(f, size);
}

/* Makes [off, off + len) allocated, growing the file if need be; -EOPNOTSUPP where STORE's filesystem cannot. */
static inline int MUST_CHECK io_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	return f->io->ops->allocate(f, off, len);
}

static inline int MUST_CHECK io_size(struct io_file *f, uint64_t *size)
{
	return f->io->ops->size(f, size);
}

/* From now on io_pread may take the first len bytes, which nobody writes any more, out of a mapping. What that does not
 * give it reads as before, with the same errors: a damaged file never raises a signal. Once, reads may be under way.
 * Threads that read must not block SIGBUS. -EOPNOTSUPP; -ENOSPC: too much is mapped. */
static inline int MUST_CHECK io_map(struct io_file *f, uint64_t len)
{
	return f->io->ops->map ? f->io->ops->map(f, len) : -EOPNOTSUPP;
}

static inline int MUST_CHECK io_unlink(struct io *io, const char *path)
{
	return io->ops->unlink(io, path);
}

/* Replaces `to` if it exists. Durable after io_sync_dir of both directories. */
static inline int MUST_CHECK io_rename(struct io *io, const char *from, const char *to)
{
	return io->ops->rename(io, from, to);
}

/* -EEXIST if it exists. Mode 0700. */
static inline int MUST_CHECK io_mkdir(struct io *io, const char *path)
{
	return io->ops->mkdir(io, path);
}

/* fsync of a directory; "" is STORE itself. */
static inline int MUST_CHECK io_sync_dir(struct io *io, const char *path)
{
	return io->ops->sync_dir(io, path);
}

static inline int MUST_CHECK io_list(struct io *io, const char *path, io_list_fn fn, void *arg)
{
	return io->ops->list(io, path, fn, arg);
}

static inline int MUST_CHECK io_stat(struct io *io, const char *path, struct io_stat *st)
{
	return io->ops->stat(io, path, st);
}

static inline int MUST_CHECK io_space(struct io *io, struct io_space *space)
{
	return io->ops->space(io, space);
}

/* Takes the exclusive lock on STORE without waiting: -EBUSY when somebody holds it. Held until io_free or death. */
static inline int MUST_CHECK io_lock(struct io *io)
{
	return io->ops->lock(io);
}

/* Reads a whole file of at most max bytes into a fresh buffer, the caller's to free(); -EFBIG if larger. */
int io_read_file(struct io *io, const char *path, size_t max, void **buf, size_t *len) MUST_CHECK;

/* Replaces `path` durably and atomically: temporary file, write, sync, rename, sync of its directory. flags: 0 or
 * IO_REWRITTEN. */
int io_replace_file(struct io *io, const char *path, unsigned flags, const void *buf, size_t len) MUST_CHECK;

#endif
