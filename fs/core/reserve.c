#include "fs/core/reserve.h"

#include "base/lock.h"
#include "base/log.h"
#include "fs/core/core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define NAME      CORE_FILE_RESERVE
#define SHARE     32u /* of the disk */
#define BYTES_MIN ((uint64_t)1 << 20)
#define BYTES_MAX ((uint64_t)16 << 20)
#define FILL      ((size_t)128 << 10)
#define STEPS     16u /* in which it is given up */

struct reserve {
	struct io io;
	struct io *under;
	pthread_mutex_t lock; /* all below */
	uint64_t size;        /* bytes that are really allocated */
	uint64_t wanted;
	bool sparse;              /* the file is longer than that: somebody copied it */
	bool open_up;             /* everybody may have all */
	bool told_some, told_all; /* the log knows */
};

struct file {
	struct io_file file;
	struct io_file *under;
	bool index;
};

static struct reserve *reserve_of(struct io *io)
{
	return (struct reserve *)io;
}

static struct file *file_of(struct io_file *f)
{
	return (struct file *)f;
}

static struct io_file *under_of(const struct io_file *f)
{
	return ((const struct file *)f)->under;
}

/* Under the lock. */
static int resize(struct reserve *r, uint64_t size)
{
	struct io_file *f;
	int ret = io_open(r->under, NAME, IO_WRITE, &f);

	if (ret)
		return ret;
	ret = io_truncate(f, size);
	io_close(f);
	if (!ret) {
		r->size = size;
		r->sparse = false;
	}
	return ret;
}

/* Gives up a part: false when there is no more for this use. */
static bool spend(struct reserve *r, bool index)
{
	SCOPED_LOCK(&r->lock);
	uint64_t floor = index || r->open_up ? 0 : r->wanted / 2;
	uint64_t step = r->wanted / STEPS, left;

	if (r->size <= floor) {
		if (!r->size && !r->told_all)
			log_error("STORE is full and its reserve is spent: make room on its disk");
		r->told_all |= !r->size;
		return false;
	}
	left = r->size - floor > step ? r->size - step : floor;
	if (resize(r, left))
		return false;
	if (!r->told_some)
		log_warn("STORE is full: its reserve is being spent, which deleting files gives back");
	r->told_some = true;
	return true;
}

#define WITH_RESERVE(r, index, call)                              \
	({                                                        \
		int ret_;                                         \
		do                                                \
			ret_ = (call);                            \
		while (err_is_no_space(ret_) && spend(r, index)); \
		ret_;                                             \
	})

/* --- the vtable --------------------------------------------------------------------------------------------------- */

static int file_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	struct reserve *r = reserve_of(io);
	struct file *f = malloc(sizeof(*f));
	int ret;

	if (!f)
		return -ENOMEM;
	f->file.io = io;
	f->index = !strncmp(path, "index.db", 8);
	ret = WITH_RESERVE(r, f->index, io_open(r->under, path, flags, &f->under));
	if (ret) {
		free(f);
		return ret;
	}
	*out = &f->file;
	return 0;
}

static void file_close(struct io_file *f)
{
	io_close(under_of(f));
	free(f);
}

static ssize_t file_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	return io_pread(under_of(f), buf, len, off);
}

static int file_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	return WITH_RESERVE(reserve_of(f->io), file_of(f)->index, io_pwrite(under_of(f), buf, len, off));
}

static int file_sync(struct io_file *f)
{
	return io_sync(under_of(f));
}

static void file_write_behind(struct io_file *f, uint64_t off, uint64_t len)
{
	io_write_behind(under_of(f), off, len);
}

static int file_truncate(struct io_file *f, uint64_t size)
{
	return WITH_RESERVE(reserve_of(f->io), file_of(f)->index, io_truncate(under_of(f), size));
}

static int file_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	return io_allocate(under_of(f), off, len);
}

static int file_size(struct io_file *f, uint64_t *size)
{
	return io_size(under_of(f), size);
}

static int file_map(struct io_file *f, uint64_t len)
{
	return io_map(under_of(f), len);
}

static int path_unlink(struct io *io, const char *path)
{
	return WITH_RESERVE(reserve_of(io), true, io_unlink(reserve_of(io)->under, path));
}

static int path_rename(struct io *io, const char *from, const char *to)
{
	return WITH_RESERVE(reserve_of(io), false, io_rename(reserve_of(io)->under, from, to));
}

static int path_mkdir(struct io *io, const char *path)
{
	return WITH_RESERVE(reserve_of(io), false, io_mkdir(reserve_of(io)->under, path));
}

static int path_sync_dir(struct io *io, const char *path)
{
	return io_sync_dir(reserve_of(io)->under, path);
}

static int path_list(struct io *io, const char *path, io_list_fn fn, void *arg)
{
	return io_list(reserve_of(io)->under, path, fn, arg);
}

static int path_stat(struct io *io, const char *path, struct io_stat *st)
{
	return io_stat(reserve_of(io)->under, path, st);
}

static int io_space_(struct io *io, struct io_space *space)
{
	return io_space(reserve_of(io)->under, space);
}

static int io_lock_(struct io *io)
{
	return io_lock(reserve_of(io)->under);
}

static void io_free_(struct io *io)
{
	struct reserve *r = reserve_of(io);

	(void)pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct io_ops reserve_ops = {
    .open = file_open,
    .close = file_close,
    .pread = file_pread,
    .pwrite = file_pwrite,
    .sync = file_sync,
    .write_behind = file_write_behind,
    .truncate = file_truncate,
    .allocate = file_allocate,
    .size = file_size,
    .map = file_map,
    .unlink = path_unlink,
    .rename = path_rename,
    .mkdir = path_mkdir,
    .sync_dir = path_sync_dir,
    .list = path_list,
    .stat = path_stat,
    .space = io_space_,
    .lock = io_lock_,
    .free = io_free_,
};

/* --- making it ---------------------------------------------------------------------------------------------------- */

static uint64_t bytes_wanted(struct io *under)
{
	struct io_space s;
	uint64_t bytes = io_space(under, &s) ? BYTES_MAX : s.total / SHARE;

	return bytes < BYTES_MIN ? BYTES_MIN : bytes > BYTES_MAX ? BYTES_MAX : bytes;
}

int reserve_new(struct io *under, struct io **out)
{
	struct reserve *r = calloc(1, sizeof(*r));
	struct io_stat st;

	if (!r)
		return -ENOMEM;
	r->io.ops = &reserve_ops;
	r->under = under;
	(void)pthread_mutex_init(&r->lock, NULL);
	r->wanted = bytes_wanted(under);
	if (!io_stat(under, NAME, &st)) {
		r->sparse = st.stored < st.size;
		r->size = r->sparse ? 0 : st.size;
	}
	*out = &r->io;
	return 0;
}

uint64_t reserve_lacks(struct io *io)
{
	struct reserve *r = reserve_of(io);

	SCOPED_LOCK(&r->lock);
	return r->size < r->wanted ? r->wanted - r->size : 0;
}

void reserve_open_up(struct io *io)
{
	struct reserve *r = reserve_of(io);

	SCOPED_LOCK(&r->lock);
	r->open_up = true;
}

static int noise(uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = getrandom(buf, len, 0);

		if (n < 0 && errno != EINTR)
			return -errno;
		buf += n < 0 ? 0 : n;
		len -= n < 0 ? 0 : (size_t)n;
	}
	return 0;
}

/* Where STORE's filesystem cannot allocate: bytes that it cannot compress either. In pieces that suit a network. */
static int fill(struct io_file *f, uint64_t from, uint64_t to)
{
	uint8_t *block = malloc(FILL);
	int ret = block ? 0 : -ENOMEM;

	while (from < to && !ret) {
		size_t n = to - from < FILL ? (size_t)(to - from) : FILL;

		ret = noise(block, n);
		if (!ret)
			ret = io_pwrite(f, block, n, from);
		from += n;
	}
	free(block);
	return ret;
}

void reserve_grow(struct io *io, uint64_t room)
{
	struct reserve *r = reserve_of(io);
	struct io_file *f;
	uint64_t to;
	int ret;

	SCOPED_LOCK(&r->lock);
	if (r->size >= r->wanted || !room)
		return;
	to = r->wanted - r->size < room ? r->wanted : r->size + room;
	if (r->sparse && resize(r, 0))
		return;
	ret = io_open(r->under, NAME, IO_WRITE | IO_CREATE, &f);
	if (ret)
		return;
	ret = io_allocate(f, r->size, to - r->size);
	if (ret == -EOPNOTSUPP)
		ret = fill(f, r->size, to);
	io_close(f);
	if (ret)
		(void)resize(r, r->size); /* it may have become longer, in part */
	else
		r->size = to;
	if (r->size >= r->wanted)
		r->told_some = r->told_all = false;
}
