#include "tests/pipeline/faulty.h"

#include "base/clock.h"
#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct faulty_file {
	struct io_file file;
	struct io_file *inner;
};

static struct faulty *faulty_of(struct io *io)
{
	return (struct faulty *)io;
}

static struct io_file *inner_of(struct io_file *f)
{
	return ((struct faulty_file *)f)->inner;
}

/* Counts a call; the error it is to fail with, or 0. */
static int meet(struct io *io, enum faulty_op op)
{
	struct faulty *f = faulty_of(io);

	if (f->hook)
		f->hook(f->arg, op);
	SCOPED_LOCK(&f->lock);
	f->calls[op]++;
	if (!f->code || f->op != op)
		return 0;
	if (f->after) {
		f->after--;
		return 0;
	}
	int code = f->code;
	if (f->once)
		f->code = 0;
	return code;
}

static int faulty_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	int ret = meet(io, FAULTY_OPEN);

	if (ret)
		return ret;
	struct faulty_file *f = malloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->file.io = io;
	ret = io_open(faulty_of(io)->inner, path, flags, &f->inner);
	if (ret)
		free(f);
	else
		*out = &f->file;
	return ret;
}

static void faulty_close(struct io_file *f)
{
	io_close(inner_of(f));
	free(f);
}

static ssize_t faulty_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	int ret = meet(f->io, FAULTY_PREAD);

	return ret ? ret : io_pread(inner_of(f), buf, len, off);
}

/* One write after another, as a disk of that speed would. */
static void throttle(struct faulty *f, size_t len)
{
	uint64_t rate, until;

	{
		SCOPED_LOCK(&f->lock);
		uint64_t now = clock_system.monotonic(&clock_system);

		rate = f->rate;
		if (!rate)
			return;
		f->free_at = (f->free_at > now ? f->free_at : now) + (uint64_t)((double)len * 1e9 / (double)rate);
		until = f->free_at;
	}
	const struct timespec t = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

/* What fails has written half of it. */
static int faulty_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	int ret = meet(f->io, FAULTY_PWRITE);

	if (ret) {
		(void)!io_pwrite(inner_of(f), buf, len / 2, off);
		return ret;
	}
	throttle(faulty_of(f->io), len);
	return io_pwrite(inner_of(f), buf, len, off);
}

static int faulty_sync(struct io_file *f)
{
	int ret = meet(f->io, FAULTY_SYNC);

	return ret ? ret : io_sync(inner_of(f));
}

static void faulty_write_behind(struct io_file *f, uint64_t off, uint64_t len)
{
	{
		SCOPED_LOCK(&faulty_of(f->io)->lock);
		faulty_of(f->io)->behind += len;
	}
	io_write_behind(inner_of(f), off, len);
}

static int faulty_truncate(struct io_file *f, uint64_t size)
{
	int ret = meet(f->io, FAULTY_TRUNCATE);

	return ret ? ret : io_truncate(inner_of(f), size);
}

static int faulty_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	return io_allocate(inner_of(f), off, len);
}

static int faulty_size(struct io_file *f, uint64_t *size)
{
	int ret = meet(f->io, FAULTY_SIZE);

	return ret ? ret : io_size(inner_of(f), size);
}

static int faulty_map(struct io_file *f, uint64_t len)
{
	return io_map(inner_of(f), len);
}

static int faulty_unlink(struct io *io, const char *path)
{
	int ret = meet(io, FAULTY_UNLINK);

	return ret ? ret : io_unlink(faulty_of(io)->inner, path);
}

static int faulty_rename(struct io *io, const char *from, const char *to)
{
	return io_rename(faulty_of(io)->inner, from, to);
}

static int faulty_mkdir(struct io *io, const char *path)
{
	int ret = meet(io, FAULTY_MKDIR);

	return ret ? ret : io_mkdir(faulty_of(io)->inner, path);
}

static int faulty_sync_dir(struct io *io, const char *path)
{
	int ret = meet(io, FAULTY_SYNC_DIR);

	return ret ? ret : io_sync_dir(faulty_of(io)->inner, path);
}

static int faulty_list(struct io *io, const char *path, io_list_fn fn, void *arg)
{
	return io_list(faulty_of(io)->inner, path, fn, arg);
}

static int faulty_stat(struct io *io, const char *path, struct io_stat *st)
{
	return io_stat(faulty_of(io)->inner, path, st);
}

static int faulty_space(struct io *io, struct io_space *space)
{
	return io_space(faulty_of(io)->inner, space);
}

static int faulty_lock(struct io *io)
{
	return io_lock(faulty_of(io)->inner);
}

static void faulty_free(struct io *io)
{
	(void)io;
}

static const struct io_ops faulty_ops = {
    .open = faulty_open,
    .close = faulty_close,
    .pread = faulty_pread,
    .pwrite = faulty_pwrite,
    .sync = faulty_sync,
    .write_behind = faulty_write_behind,
    .truncate = faulty_truncate,
    .allocate = faulty_allocate,
    .size = faulty_size,
    .map = faulty_map,
    .unlink = faulty_unlink,
    .rename = faulty_rename,
    .mkdir = faulty_mkdir,
    .sync_dir = faulty_sync_dir,
    .list = faulty_list,
    .stat = faulty_stat,
    .space = faulty_space,
    .lock = faulty_lock,
    .free = faulty_free,
};

void faulty_init(struct faulty *f, struct io *inner)
{
	memset(f, 0, sizeof(*f));
	f->io.ops = &faulty_ops;
	f->inner = inner;
	(void)pthread_mutex_init(&f->lock, NULL);
}

void faulty_release(struct faulty *f)
{
	(void)pthread_mutex_destroy(&f->lock);
}

void faulty_arm(struct faulty *f, enum faulty_op op, unsigned after, int code, bool once)
{
	SCOPED_LOCK(&f->lock);
	f->op = op;
	f->after = after;
	f->code = code;
	f->once = once;
}

unsigned faulty_calls(struct faulty *f, enum faulty_op op)
{
	SCOPED_LOCK(&f->lock);
	return f->calls[op];
}
