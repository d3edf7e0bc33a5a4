#include "tests/fuzz/mem_io.h"

#include "base/lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_LEN  96
#define FILE_MAX  ((uint64_t)256 << 20) /* a STORE that wants more is full */
#define SPACE_ALL ((uint64_t)64 << 30)

struct node {
	struct node *next;
	char path[PATH_LEN];
	bool dir, gone; /* gone: unlinked while open */
	unsigned opens;
	uint8_t *data;
	size_t size, room;
};

struct mem {
	struct io io;
	pthread_mutex_t lock;
	struct node *first;
	bool locked;
};

struct mem_file {
	struct io_file file;
	struct node *node;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static struct mem *mem_of(struct io *io)
{
	return (struct mem *)io;
}

static struct node *node_of(struct io_file *f)
{
	return ((struct mem_file *)f)->node;
}

static struct node *find(struct mem *m, const char *path)
{
	for (struct node *n = m->first; n; n = n->next) {
		if (!n->gone && !strcmp(n->path, path))
			return n;
	}
	return NULL;
}

static struct node *add(struct mem *m, const char *path, bool dir)
{
	struct node *n = must(calloc(1, sizeof(*n)));

	(void)snprintf(n->path, sizeof(n->path), "%s", path);
	n->dir = dir;
	n->next = m->first;
	m->first = n;
	return n;
}

static void resize(struct node *n, size_t size)
{
	if (size > n->room) {
		/* Large zeroed blocks are fresh pages, which cost nothing until they are written to. */
		uint8_t *data = must(calloc(1, size + size / 2));

		n->room = size + size / 2;
		if (n->size)
			memcpy(data, n->data, n->size);
		free(n->data);
		n->data = data;
	} else if (size < n->size) {
		memset(n->data + size, 0, n->size - size);
	}
	n->size = size;
}

/* Frees nodes that nobody can reach any more. */
static void sweep(struct mem *m)
{
	for (struct node **at = &m->first, *n = *at; n; n = *at) {
		if (!n->gone || n->opens) {
			at = &n->next;
			continue;
		}
		*at = n->next;
		free(n->data);
		free(n);
	}
}

/* Whether the directory that the path lies in is there. */
static bool has_parent(struct mem *m, const char *path)
{
	char parent[PATH_LEN];
	const char *slash = strrchr(path, '/');

	if (!slash)
		return true;
	(void)snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
	struct node *n = find(m, parent);
	return n && n->dir;
}

static int op_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	struct mem *m = mem_of(io);

	SCOPED_LOCK(&m->lock);
	struct node *n = find(m, path);
	if (n && n->dir)
		return -EISDIR;
	if (n && (flags & IO_EXCL))
		return -EEXIST;
	if (!n && (!(flags & IO_CREATE) || !has_parent(m, path) || strlen(path) >= PATH_LEN))
		return -ENOENT;
	if (!n)
		n = add(m, path, false);
	struct mem_file *f = must(calloc(1, sizeof(*f)));
	f->file.io = io;
	f->node = n;
	n->opens++;
	*out = &f->file;
	return 0;
}

static void op_close(struct io_file *f)
{
	struct mem *m = mem_of(f->io);

	SCOPED_LOCK(&m->lock);
	node_of(f)->opens--;
	sweep(m);
	free(f);
}

static ssize_t op_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	SCOPED_LOCK(&mem_of(f->io)->lock);
	const struct node *n = node_of(f);

	if (off >= n->size)
		return 0;
	if (len > n->size - off)
		len = n->size - (size_t)off;
	memcpy(buf, n->data + off, len);
	return (ssize_t)len;
}

static int op_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	SCOPED_LOCK(&mem_of(f->io)->lock);
	struct node *n = node_of(f);

	if (off > FILE_MAX || len > FILE_MAX - off)
		return -ENOSPC;
	if (off + len > n->size)
		resize(n, (size_t)off + len);
	if (len)
		memcpy(n->data + off, buf, len);
	return 0;
}

static int op_sync(struct io_file *f)
{
	(void)f;
	return 0;
}

static int op_truncate(struct io_file *f, uint64_t size)
{
	SCOPED_LOCK(&mem_of(f->io)->lock);
	if (size > FILE_MAX)
		return -ENOSPC;
	resize(node_of(f), (size_t)size);
	return 0;
}

static int op_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	SCOPED_LOCK(&mem_of(f->io)->lock);
	struct node *n = node_of(f);

	if (!strncmp(n->path, "reserve", 7)) /* would be copied with the rest */
		return -EOPNOTSUPP;
	if (off > FILE_MAX || len > FILE_MAX - off)
		return -ENOSPC;
	if (off + len > n->size)
		resize(n, (size_t)(off + len));
	return 0;
}

static int op_size(struct io_file *f, uint64_t *size)
{
	SCOPED_LOCK(&mem_of(f->io)->lock);
	*size = node_of(f)->size;
	return 0;
}

static int op_unlink(struct io *io, const char *path)
{
	struct mem *m = mem_of(io);

	SCOPED_LOCK(&m->lock);
	struct node *n = find(m, path);
	if (!n)
		return -ENOENT;
	n->gone = true;
	sweep(m);
	return 0;
}

static int op_rename(struct io *io, const char *from, const char *to)
{
	struct mem *m = mem_of(io);

	SCOPED_LOCK(&m->lock);
	struct node *n = find(m, from), *old = find(m, to);
	if (!n || strlen(to) >= PATH_LEN)
		return -ENOENT;
	if (old && old != n)
		old->gone = true;
	(void)snprintf(n->path, sizeof(n->path), "%s", to);
	sweep(m);
	return 0;
}

static int op_mkdir(struct io *io, const char *path)
{
	struct mem *m = mem_of(io);

	SCOPED_LOCK(&m->lock);
	if (find(m, path))
		return -EEXIST;
	if (!has_parent(m, path) || strlen(path) >= PATH_LEN)
		return -ENOENT;
	(void)add(m, path, true);
	return 0;
}

static int op_sync_dir(struct io *io, const char *path)
{
	(void)io;
	(void)path;
	return 0;
}

/* The names are copied first, so that fn may call in. */
static int op_list(struct io *io, const char *path, io_list_fn fn, void *arg)
{
	struct mem *m = mem_of(io);
	size_t len = strlen(path), n = 0;
	char(*names)[PATH_LEN] = NULL;
	int ret = 0;

	pthread_mutex_lock(&m->lock);
	struct node *dir = len ? find(m, path) : NULL;
	if (len && (!dir || !dir->dir))
		ret = -ENOENT;
	for (const struct node *k = m->first; k && !ret; k = k->next) {
		const char *name = len ? k->path + len + 1 : k->path;

		if (k->gone || (len && (strncmp(k->path, path, len) != 0 || k->path[len] != '/')) || strchr(name, '/'))
			continue;
		names = must(realloc(names, (n + 1) * sizeof(*names)));
		(void)snprintf(names[n++], PATH_LEN, "%s", name);
	}
	pthread_mutex_unlock(&m->lock);
	for (size_t i = 0; i < n && !ret; i++)
		ret = fn(arg, names[i]);
	free(names);
	return ret;
}

static int op_stat(struct io *io, const char *path, struct io_stat *st)
{
	struct mem *m = mem_of(io);

	SCOPED_LOCK(&m->lock);
	const struct node *n = find(m, path);
	if (!n)
		return -ENOENT;
	*st = (struct io_stat){.size = n->size, .stored = n->size, .changed = 1, .dir = n->dir};
	return 0;
}

static int op_space(struct io *io, struct io_space *space)
{
	(void)io;
	*space = (struct io_space){
	    .total = SPACE_ALL, .free = SPACE_ALL, .avail = SPACE_ALL, .files = 1u << 20, .files_free = 1u << 20};
	return 0;
}

static int op_lock(struct io *io)
{
	struct mem *m = mem_of(io);

	SCOPED_LOCK(&m->lock);
	if (m->locked)
		return -EBUSY;
	m->locked = true;
	return 0;
}

static void op_free(struct io *io)
{
	struct mem *m = mem_of(io);

	for (struct node *n = m->first; n; n = n->next)
		n->gone = true;
	sweep(m);
	if (m->first)
		abort(); /* somebody has left a file open */
	(void)pthread_mutex_destroy(&m->lock);
	free(m);
}

static const struct io_ops ops = {
    .open = op_open,
    .close = op_close,
    .pread = op_pread,
    .pwrite = op_pwrite,
    .sync = op_sync,
    .truncate = op_truncate,
    .allocate = op_allocate,
    .size = op_size,
    .unlink = op_unlink,
    .rename = op_rename,
    .mkdir = op_mkdir,
    .sync_dir = op_sync_dir,
    .list = op_list,
    .stat = op_stat,
    .space = op_space,
    .lock = op_lock,
    .free = op_free,
};

struct io *mem_new(void)
{
	struct mem *m = must(calloc(1, sizeof(*m)));

	m->io.ops = &ops;
	(void)pthread_mutex_init(&m->lock, NULL);
	return &m->io;
}

void mem_put(struct io *io, const char *path, const void *data, size_t len)
{
	struct mem *m = mem_of(io);
	char parent[PATH_LEN];

	for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		(void)snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		if (!find(m, parent))
			(void)add(m, parent, true);
	}
	struct node *n = find(m, path);
	if (!n)
		n = add(m, path, false);
	resize(n, len);
	if (len)
		memcpy(n->data, data, len);
}

const uint8_t *mem_get(struct io *io, const char *path, size_t *len)
{
	const struct node *n = find(mem_of(io), path);

	*len = n ? n->size : 0;
	return n ? n->data : NULL;
}

struct io *mem_copy(struct io *io)
{
	struct io *copy = mem_new();

	for (const struct node *n = mem_of(io)->first; n; n = n->next) {
		if (n->gone)
			continue;
		struct node *c = add(mem_of(copy), n->path, n->dir);
		resize(c, n->size);
		if (n->size)
			memcpy(c->data, n->data, n->size);
	}
	return copy;
}
