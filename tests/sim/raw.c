/* Bytes of a simulated STORE, beside its vtable. */
#include "tests/sim/disk.h"

#include "base/lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct node *raw_file(struct io *io, const char *path)
{
	uint32_t number;

	if (disk_find(&sim_of(io)->disk, path, &number))
		return NULL;
	struct node *n = disk_node(&sim_of(io)->disk, number);
	return n->dir ? NULL : n;
}

int sim_raw_size(struct io *io, const char *path, uint64_t *size)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	const struct node *n = raw_file(io, path);

	if (n)
		*size = n->now->size;
	return n ? 0 : -ENOENT;
}

ssize_t sim_raw_read(struct io *io, const char *path, void *buf, size_t len, uint64_t off)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	const struct node *n = raw_file(io, path);

	return n ? (ssize_t)content_read(n->now, buf, len, off) : -ENOENT;
}

int sim_raw_write(struct io *io, const char *path, const void *buf, size_t len, uint64_t off)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	struct node *n = raw_file(io, path);

	if (!n)
		return -ENOENT;
	content_write(&n->now, buf, len, off);
	content_write(&n->durable, buf, len, off);
	return 0;
}

int sim_raw_truncate(struct io *io, const char *path, uint64_t size)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	struct node *n = raw_file(io, path);

	if (!n)
		return -ENOENT;
	content_resize(&n->now, size);
	content_resize(&n->durable, size);
	return 0;
}

int sim_raw_flip(struct io *io, const char *path, uint64_t bit)
{
	uint8_t byte;
	ssize_t n = sim_raw_read(io, path, &byte, 1, bit / 8);

	if (n != 1)
		return n < 0 ? (int)n : -ERANGE;
	byte ^= (uint8_t)(1u << bit % 8);
	return sim_raw_write(io, path, &byte, 1, bit / 8);
}

static void swap_contents(struct node *a, struct node *b)
{
	struct content *now = a->now, *durable = a->durable;
	struct op *ops = a->ops;

	a->now = b->now;
	a->durable = b->durable;
	a->ops = b->ops;
	b->now = now;
	b->durable = durable;
	b->ops = ops;
}

int sim_raw_swap(struct io *io, const char *a, const char *b)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	struct node *x = raw_file(io, a), *y = raw_file(io, b);

	if (!x || !y)
		return -ENOENT;
	swap_contents(x, y);
	return 0;
}

int sim_raw_copy(struct io *io, const char *from, const char *to)
{
	struct disk *d = &sim_of(io)->disk;
	const char *name;
	uint32_t dir;

	SCOPED_LOCK(&sim_of(io)->lock);
	const struct node *n = raw_file(io, from);
	if (!n)
		return -ENOENT;
	int ret = disk_find_parent(d, to, &dir, &name);
	if (ret)
		return ret;
	if (!names_get(disk_node(d, dir)->names, name))
		disk_link_raw(d, dir, name, disk_add(d, false));
	struct node *copy = raw_file(io, to);
	if (!copy)
		return -EISDIR;
	struct content *c = content_ref(n->now);
	content_unref(copy->now);
	content_unref(copy->durable);
	op_unref(copy->ops);
	copy->now = c;
	copy->durable = content_ref(c);
	copy->ops = NULL;
	return 0;
}

int sim_raw_remove(struct io *io, const char *path)
{
	struct disk *d = &sim_of(io)->disk;
	const char *name;
	uint32_t dir;

	SCOPED_LOCK(&sim_of(io)->lock);
	if (!raw_file(io, path) || disk_find_parent(d, path, &dir, &name))
		return -ENOENT;
	disk_link_raw(d, dir, name, 0);
	return 0;
}

int sim_raw_set_changed(struct io *io, const char *path, int64_t changed)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	struct node *n = raw_file(io, path);

	if (n)
		n->changed = changed;
	return n ? 0 : -ENOENT;
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */

struct listed {
	char path[4 * SIM_NAME];
	uint64_t size;
	bool dir;
};

struct list {
	struct listed *item;
	size_t count, room;
};

static void list_dir(const struct disk *d, uint32_t dir, const char *prefix, struct list *l)
{
	const struct names *names = disk_node(d, dir)->names;

	for (size_t i = 0; i < names->count; i++) {
		const struct node *n = disk_node(d, names->entry[i].node);

		if (l->count == l->room) {
			l->room = 2 * l->room + 32;
			l->item = sim_must(realloc(l->item, l->room * sizeof(struct listed)));
		}
		struct listed *item = &l->item[l->count++];
		item->dir = n->dir;
		item->size = n->dir ? 0 : n->now->size;
		int len = snprintf(item->path, sizeof(item->path), "%s%s", prefix, names->entry[i].name);
		if (n->dir && len > 0 && (size_t)len + 2 < sizeof(item->path)) {
			char below[sizeof(item->path)];
			(void)snprintf(below, sizeof(below), "%.*s/", (int)sizeof(below) - 2, item->path);
			list_dir(d, names->entry[i].node, below, l);
		}
	}
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct listed *)a)->path, ((const struct listed *)b)->path);
}

static struct list list_all(struct io *io)
{
	struct list l = {0};

	SCOPED_LOCK(&sim_of(io)->lock);
	list_dir(&sim_of(io)->disk, SIM_ROOT, "", &l);
	if (l.count)
		qsort(l.item, l.count, sizeof(struct listed), by_path);
	return l;
}

int sim_raw_walk(struct io *io, sim_walk_fn fn, void *arg)
{
	struct list l = list_all(io);
	int ret = 0;

	for (size_t i = 0; i < l.count && !ret; i++)
		ret = l.item[i].dir ? 0 : fn(arg, l.item[i].path, l.item[i].size);
	free(l.item);
	return ret;
}

static int export_file(struct io *io, const char *path, uint64_t size, struct io *to)
{
	static const uint8_t zero[SIM_BLOCK];
	uint8_t buf[SIM_BLOCK];
	struct io_file *f;
	int ret = io_open(to, path, IO_WRITE | IO_CREATE, &f);

	if (ret)
		return ret;
	ret = io_truncate(f, size);
	for (uint64_t off = 0; off < size && !ret; off += sizeof(buf)) {
		ssize_t n = sim_raw_read(io, path, buf, sizeof(buf), off);
		if (n < 0)
			ret = (int)n;
		else if (memcmp(buf, zero, (size_t)n) != 0)
			ret = io_pwrite(f, buf, (size_t)n, off);
	}
	if (!ret)
		ret = io_sync(f);
	io_close(f);
	return ret;
}

int sim_raw_export(struct io *io, struct io *to)
{
	struct list l = list_all(io);
	int ret = 0;

	for (size_t i = 0; i < l.count && !ret; i++) {
		const struct listed *item = &l.item[i];
		ret = item->dir ? io_mkdir(to, item->path) : export_file(io, item->path, item->size, to);
		if (item->dir && ret == -EEXIST)
			ret = 0;
	}
	free(l.item);
	return ret;
}
