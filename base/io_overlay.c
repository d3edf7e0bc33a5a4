#include "base/io_overlay.h"

#include "base/clock.h"
#include "base/io_overlay_content.h"
#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define uthash_fatal(msg) ((void)0)
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

enum entry_kind { ENTRY_FILE, ENTRY_DIR, ENTRY_GONE };

/* What is known of a path that was opened or changed; every other one is as it is below. */
struct entry {
	UT_hash_handle hh;
	enum entry_kind kind;
	struct overlay_content *content; /* of a file */
	char path[];
};

struct overlay {
	struct io io;
	struct io *under;
	pthread_mutex_t lock; /* everything; not held over reads of files that have no changed blocks */
	struct entry *table;
};

struct handle {
	struct io_file file;
	struct overlay_content *content;
};

static struct overlay *overlay_of(struct io *io)
{
	return (struct overlay *)io;
}

static struct overlay_content *content_of(struct io_file *f)
{
	return ((struct handle *)f)->content;
}

/* --- entries ------------------------------------------------------------------------------------------------------ */

static struct entry *entry_find(const struct overlay *o, const char *path)
{
	struct entry *en;

	HASH_FIND_STR(o->table, path, en);
	return en;
}

static struct entry *entry_add(struct overlay *o, const char *path, enum entry_kind kind)
{
	size_t len = strlen(path) + 1;
	struct entry *en = malloc(sizeof(*en) + len);

	if (!en)
		return NULL;
	en->kind = kind;
	en->content = NULL;
	memcpy(en->path, path, len);
	HASH_ADD_KEYPTR(hh, o->table, en->path, len - 1, en);
	if (en->hh.tbl)
		return en;
	free(en);
	return NULL;
}

static void entry_delete(struct overlay *o, struct entry *en)
{
	HASH_DEL(o->table, en);
	overlay_content_put(en->content);
	free(en);
}

/* What is at a path: 0, -ENOENT or another failure. */
static int path_stat(const struct overlay *o, const char *path, struct io_stat *st)
{
	const struct entry *en = *path ? entry_find(o, path) : NULL;

	if (!en || (en->content && en->content->pristine))
		return io_stat(o->under, path, st);
	if (en->kind == ENTRY_GONE)
		return -ENOENT;
	*st = (struct io_stat){.dir = en->kind == ENTRY_DIR, .changed = clock_system.now(&clock_system).sec};
	if (en->content) {
		st->size = en->content->size;
		st->stored = (en->content->size + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK * OVERLAY_BLOCK;
		st->changed = en->content->changed;
	}
	return 0;
}

/* Whether a file can be made at path: its directory exists. */
static int parent_check(const struct overlay *o, const char *path)
{
	const char *slash = strrchr(path, '/');
	struct io_stat st;

	if (!slash)
		return 0;
	char *dir = strndup(path, (size_t)(slash - path));
	int ret = dir ? path_stat(o, dir, &st) : -ENOMEM;
	free(dir);
	return ret ? ret : st.dir ? 0 : -ENOTDIR;
}

/* The entry of the file at path, made from the file below where there is none. */
static int entry_load(struct overlay *o, const char *path, struct entry **out)
{
	struct io_stat st;
	struct entry *en = entry_find(o, path);

	*out = en;
	if (en)
		return en->kind == ENTRY_FILE ? 0 : en->kind == ENTRY_DIR ? -EISDIR : -ENOENT;
	int ret = io_stat(o->under, path, &st);
	if (ret)
		return ret;
	struct overlay_content *c;
	ret = overlay_content_load(o->under, path, st.changed, &c);
	if (ret)
		return ret;
	en = entry_add(o, path, ENTRY_FILE);
	if (!en) {
		overlay_content_put(c);
		return -ENOMEM;
	}
	en->content = c;
	*out = en;
	return 0;
}

/* An empty file at a path where there is none. */
static int entry_create(struct overlay *o, const char *path, struct entry **out)
{
	int ret = parent_check(o, path);
	struct overlay_content *c = ret ? NULL : overlay_content_new();

	if (!c)
		return ret ? ret : -ENOMEM;
	struct entry *en = entry_find(o, path);
	if (!en)
		en = entry_add(o, path, ENTRY_FILE);
	if (!en) {
		overlay_content_put(c);
		return -ENOMEM;
	}
	en->kind = ENTRY_FILE;
	en->content = c;
	*out = en;
	return 0;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int overlay_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	struct overlay *o = overlay_of(io);
	struct handle *h = malloc(sizeof(*h));
	struct entry *en = NULL;

	if (!h)
		return -ENOMEM;
	SCOPED_LOCK(&o->lock);
	int ret = entry_load(o, path, &en);
	if (!ret && (flags & IO_EXCL))
		ret = -EEXIST;
	else if (ret == -ENOENT && (flags & (IO_CREATE | IO_EXCL)))
		ret = entry_create(o, path, &en);
	if (ret) {
		free(h);
		return ret;
	}
	h->file.io = io;
	h->content = en->content;
	h->content->refs++;
	*out = &h->file;
	return 0;
}

/* A pristine file that nobody has open is forgotten: there may be many. */
static void overlay_close(struct io_file *f)
{
	struct overlay *o = overlay_of(f->io);
	struct overlay_content *c = content_of(f);
	struct entry *en, *next;

	free(f);
	SCOPED_LOCK(&o->lock);
	if (c->refs == 2 && c->pristine) {
		HASH_ITER (hh, o->table, en, next) {
			if (en->content == c) {
				entry_delete(o, en);
				break;
			}
		}
	}
	overlay_content_put(c);
}

static ssize_t overlay_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	struct overlay *o = overlay_of(f->io);
	struct overlay_content *c = content_of(f);

	(void)pthread_mutex_lock(&o->lock);
	bool through = c->pristine;
	(void)pthread_mutex_unlock(&o->lock);
	if (through)
		return io_pread(c->under, buf, len, off);

	SCOPED_LOCK(&o->lock);
	return overlay_content_read(c, buf, len, off);
}

static int overlay_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	SCOPED_LOCK(&overlay_of(f->io)->lock);
	return overlay_content_write(content_of(f), buf, len, off);
}

static int overlay_sync(struct io_file *f)
{
	(void)f;
	return 0;
}

static int overlay_truncate(struct io_file *f, uint64_t size)
{
	if (size > INT64_MAX)
		return -EFBIG;
	SCOPED_LOCK(&overlay_of(f->io)->lock);
	overlay_content_resize(content_of(f), size);
	return 0;
}

static int overlay_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	struct overlay_content *c = content_of(f);

	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	SCOPED_LOCK(&overlay_of(f->io)->lock);
	if (off + len > c->size)
		overlay_content_resize(c, off + len);
	return 0;
}

static int overlay_size(struct io_file *f, uint64_t *size)
{
	struct overlay *o = overlay_of(f->io);

	SCOPED_LOCK(&o->lock);
	*size = content_of(f)->size;
	return 0;
}

static int overlay_map(struct io_file *f, uint64_t len)
{
	struct overlay_content *c = content_of(f);

	return c->under ? io_map(c->under, len) : -EOPNOTSUPP;
}

/* --- paths -------------------------------------------------------------------------------------------------------- */

static int unlink_locked(struct overlay *o, const char *path)
{
	struct entry *en;
	int ret = entry_load(o, path, &en);

	if (ret)
		return ret;
	en->content->pristine = false;
	overlay_content_put(en->content);
	en->content = NULL;
	en->kind = ENTRY_GONE;
	return 0;
}

static int overlay_unlink(struct io *io, const char *path)
{
	struct overlay *o = overlay_of(io);

	SCOPED_LOCK(&o->lock);
	return unlink_locked(o, path);
}

static int overlay_rename(struct io *io, const char *from, const char *to)
{
	struct overlay *o = overlay_of(io);
	struct entry *a, *b;

	SCOPED_LOCK(&o->lock);
	int ret = entry_load(o, from, &a);
	if (!ret)
		ret = parent_check(o, to);
	if (ret || !strcmp(from, to))
		return ret;
	ret = unlink_locked(o, to);
	if (ret && ret != -ENOENT)
		return ret;
	b = entry_find(o, to);
	if (!b)
		b = entry_add(o, to, ENTRY_FILE);
	if (!b)
		return -ENOMEM;
	b->kind = ENTRY_FILE;
	b->content = a->content;
	b->content->pristine = false;
	a->kind = ENTRY_GONE;
	a->content = NULL;
	return 0;
}

static int overlay_mkdir(struct io *io, const char *path)
{
	struct overlay *o = overlay_of(io);
	struct io_stat st;

	SCOPED_LOCK(&o->lock);
	int ret = path_stat(o, path, &st);
	if (ret != -ENOENT)
		return ret ? ret : -EEXIST;
	ret = parent_check(o, path);
	if (ret)
		return ret;
	struct entry *en = entry_find(o, path);
	if (en)
		en->kind = ENTRY_DIR;
	else if (!entry_add(o, path, ENTRY_DIR))
		return -ENOMEM;
	return 0;
}

static int overlay_sync_dir(struct io *io, const char *path)
{
	struct overlay *o = overlay_of(io);
	struct io_stat st;

	SCOPED_LOCK(&o->lock);
	int ret = path_stat(o, path, &st);
	return ret ? ret : st.dir ? 0 : -ENOTDIR;
}

/* The names of a directory, copied, so that fn runs without the lock and may change it. */
struct names {
	struct overlay *o;
	const char *dir;
	char **name;
	size_t count, room;
};

static int names_add(struct names *l, const char *name)
{
	if (l->count == l->room) {
		char **bigger = realloc(l->name, (l->room = l->room ? 2 * l->room : 64) * sizeof(char *));

		if (!bigger)
			return -ENOMEM;
		l->name = bigger;
	}
	l->name[l->count] = strdup(name);
	return l->name[l->count] ? (void)l->count++, 0 : -ENOMEM;
}

/* Below: what no entry speaks for. */
static int names_below(void *arg, const char *name)
{
	struct names *l = arg;
	size_t dir = strlen(l->dir), len = strlen(name);
	char *path = malloc(dir + len + 2);

	if (!path)
		return -ENOMEM;
	memcpy(path, l->dir, dir);
	path[dir] = '/';
	memcpy(path + dir + 1, name, len + 1);
	const struct entry *en = entry_find(l->o, dir ? path : name);
	free(path);
	return en ? 0 : names_add(l, name);
}

static int names_gather(struct names *l)
{
	size_t dir = strlen(l->dir);
	const struct entry *en, *next;
	int ret = io_list(l->o->under, l->dir, names_below, l);
	const struct entry *self = dir ? entry_find(l->o, l->dir) : NULL;

	if (ret == -ENOENT && self && self->kind == ENTRY_DIR)
		ret = 0;
	HASH_ITER (hh, l->o->table, en, next) {
		const char *name = dir ? en->path + dir + 1 : en->path;

		if (ret || en->kind == ENTRY_GONE)
			continue;
		if (dir && (strncmp(en->path, l->dir, dir) != 0 || en->path[dir] != '/'))
			continue;
		if (!strchr(name, '/'))
			ret = names_add(l, name);
	}
	return ret;
}

static int overlay_list(struct io *io, const char *path, io_list_fn fn, void *arg)
{
	struct names l = {.o = overlay_of(io), .dir = path};
	int ret;

	{
		SCOPED_LOCK(&l.o->lock);
		ret = names_gather(&l);
	}
	for (size_t i = 0; i < l.count; i++) {
		if (!ret)
			ret = fn(arg, l.name[i]);
		free(l.name[i]);
	}
	free(l.name);
	return ret;
}

static int overlay_stat(struct io *io, const char *path, struct io_stat *st)
{
	struct overlay *o = overlay_of(io);

	SCOPED_LOCK(&o->lock);
	return path_stat(o, path, st);
}

static int overlay_space(struct io *io, struct io_space *space)
{
	return io_space(overlay_of(io)->under, space);
}

/* Whoever made the overlay has locked what is below. */
static int overlay_lock(struct io *io)
{
	(void)io;
	return 0;
}

static void overlay_free(struct io *io)
{
	struct overlay *o = overlay_of(io);
	struct entry *en, *next;

	HASH_ITER (hh, o->table, en, next)
		entry_delete(o, en);
	(void)pthread_mutex_destroy(&o->lock);
	free(o);
}

static const struct io_ops overlay_ops = {
    .open = overlay_open,
    .close = overlay_close,
    .pread = overlay_pread,
    .pwrite = overlay_pwrite,
    .sync = overlay_sync,
    .truncate = overlay_truncate,
    .allocate = overlay_allocate,
    .size = overlay_size,
    .map = overlay_map,
    .unlink = overlay_unlink,
    .rename = overlay_rename,
    .mkdir = overlay_mkdir,
    .sync_dir = overlay_sync_dir,
    .list = overlay_list,
    .stat = overlay_stat,
    .space = overlay_space,
    .lock = overlay_lock,
    .free = overlay_free,
};

int io_overlay_new(struct io *under, struct io **out, struct err *e)
{
	struct overlay *o = calloc(1, sizeof(*o));

	if (!o)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for an overlay");
	o->io.ops = &overlay_ops;
	o->under = under;
	(void)pthread_mutex_init(&o->lock, NULL);
	*out = &o->io;
	return 0;
}
