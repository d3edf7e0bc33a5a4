#include "base/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_LEN 256 /* STORE's own names are short */

static void close_scoped(struct io_file **f)
{
	io_close(*f);
}

int io_read_file(struct io *io, const char *path, size_t max, void **buf, size_t *len)
{
	struct io_file *f __attribute__((cleanup(close_scoped))) = NULL;
	uint64_t size;

	int ret = io_open(io, path, IO_READ, &f);
	if (ret)
		return ret;
	ret = io_size(f, &size);
	if (ret)
		return ret;
	if (size > max)
		return -EFBIG;

	void *data = malloc(size ? (size_t)size : 1);
	if (!data)
		return -ENOMEM;
	ssize_t n = io_pread(f, data, (size_t)size, 0);
	if (n < 0) {
		free(data);
		return (int)n;
	}
	*buf = data;
	*len = (size_t)n;
	return 0;
}

static int write_temporary(struct io *io, const char *path, unsigned flags, const void *buf, size_t len)
{
	struct io_file *f __attribute__((cleanup(close_scoped))) = NULL;

	int ret = io_open(io, path, IO_WRITE | IO_CREATE | flags, &f);
	if (ret)
		return ret;
	/* An interrupted run may have left a longer one. */
	ret = io_truncate(f, 0);
	if (ret)
		return ret;
	ret = io_pwrite(f, buf, len, 0);
	if (ret)
		return ret;
	return io_sync(f);
}

int io_replace_file(struct io *io, const char *path, unsigned flags, const void *buf, size_t len)
{
	char tmp[PATH_LEN], dir[PATH_LEN];

	int n = snprintf(tmp, sizeof(tmp), "%s.new", path);
	if (n < 0 || (size_t)n >= sizeof(tmp))
		return -ENAMETOOLONG;
	const char *slash = strrchr(path, '/');
	size_t dir_len = slash ? (size_t)(slash - path) : 0;
	memcpy(dir, path, dir_len);
	dir[dir_len] = '\0';

	int ret = write_temporary(io, tmp, flags, buf, len);
	if (!ret)
		ret = io_rename(io, tmp, path);
	if (ret) {
		int ignored = io_unlink(io, tmp);
		(void)ignored;
		return ret;
	}
	return io_sync_dir(io, dir);
}
