/* The vtable of the simulated STORE, and its faults. */
#include "tests/sim/disk.h"

#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define UNLIMITED ((uint64_t)1 << 40)

static unsigned class_index(unsigned class)
{
	return (unsigned)__builtin_ctz(class);
}

const char *sim_class_name(unsigned class)
{
	static const char *const names[SIM_CLASSES] = {
	    "open",  "open to read",        "read", "write", "sync",  "truncate", "allocate", "unlink", "rename",
	    "mkdir", "sync of a directory", "list", "stat",  "space", "lock"};

	return names[class_index(class)];
}

/* Counts a call: 0, or the error that it has to fail with. *last: it may have had effect before the power went. */
static int meet(struct sim *s, unsigned class, bool *last)
{
	struct sim_fault *f = &s->fault;

	*last = false;
	s->number++;
	s->count[class_index(class)]++;
	if (s->dead)
		return -EIO;
	if (!f->nth || !(f->classes & class))
		return 0;
	if (atomic_load(&s->failed))
		return f->lasting ? f->error : 0;
	if (f->nth > 1) {
		f->nth--;
		return 0;
	}
	atomic_store(&s->failed, true);
	if (f->cut)
		s->dead = *last = true;
	return f->error ? f->error : -EIO;
}

static void remember(struct sim *s, const char *path)
{
	size_t len = strlen(path), at = s->paths_len;

	for (const char *p = s->paths; p && (p = strstr(p, path)); p++) {
		if ((p == s->paths || p[-1] == ' ') && p[len] == ' ')
			return;
	}
	s->paths = sim_must(realloc(s->paths, at + len + 2));
	memcpy(s->paths + at, path, len);
	memcpy(s->paths + at + len, " ", 2);
	s->paths_len = at + len + 1;
}

static struct sim *sim_make(void)
{
	struct sim *s = sim_must(calloc(1, sizeof(*s)));

	(void)pthread_mutex_init(&s->lock, NULL);
	s->rng.state = 1;
	return s;
}

static struct io *clone_locked(struct sim *s)
{
	struct sim *copy = sim_make();

	copy->io.ops = s->io.ops;
	disk_copy(&copy->disk, &s->disk);
	copy->limit = s->limit;
	copy->limit_error = s->limit_error;
	copy->no_allocate = s->no_allocate;
	return &copy->io;
}

struct io *sim_clone(struct io *io)
{
	SCOPED_LOCK(&sim_of(io)->lock);
	return clone_locked(sim_of(io));
}

/* --- the end of every call that changes something ----------------------------------------------------------------- */

/* Allocations of this file are not the tested program's. Only there where faults of allocations are linked. */
__attribute__((weak)) void alloc_fault_pause(void);
__attribute__((weak)) void alloc_fault_resume(void);

struct call {
	struct sim *s;
	unsigned class;
	const char *path;
};

static struct call call_begin(struct io *io, unsigned class, const char *path)
{
	if (alloc_fault_pause)
		alloc_fault_pause();
	(void)pthread_mutex_lock(&sim_of(io)->lock);
	return (struct call){sim_of(io), class, path};
}

static void call_end(struct call *c)
{
	struct sim *s = c->s;
	sim_record_fn fn = c->class & SIM_CHANGE ? s->record : NULL;
	void *arg = s->record_arg;
	struct io *copy = fn ? clone_locked(s) : NULL;
	uint64_t number = s->number;

	(void)pthread_mutex_unlock(&s->lock);
	if (alloc_fault_resume)
		alloc_fault_resume();
	if (fn)
		fn(arg, copy, number, c->class, c->path);
}

#define SCOPED_CALL(name, io, class, path) \
	__attribute__((cleanup(call_end))) struct call name = call_begin((io), (class), (path))

static struct sim_file *file_of(struct io_file *f)
{
	return (struct sim_file *)f;
}

static struct node *node_of(struct io_file *f)
{
	return disk_node(&sim_of(f->io)->disk, file_of(f)->node);
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int open_node(struct sim *s, const char *path, unsigned flags, uint32_t *node)
{
	const char *name;
	uint32_t dir;
	int ret = disk_find_parent(&s->disk, path, &dir, &name);

	if (ret)
		return ret;
	*node = names_get(disk_node(&s->disk, dir)->names, name);
	if (*node && flags & IO_EXCL)
		return -EEXIST;
	if (*node)
		return disk_node(&s->disk, *node)->dir ? -EISDIR : 0;
	if (!(flags & (IO_CREATE | IO_EXCL)))
		return -ENOENT;
	*node = disk_add(&s->disk, false);
	disk_link(&s->disk, s->number, dir, name, *node);
	return 0;
}

static int sim_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	SCOPED_CALL(call, io, flags & IO_WRITE ? SIM_OPEN : SIM_OPEN_READ, path);
	struct sim *s = call.s;
	uint32_t node;
	bool last;
	int ret = meet(s, call.class, &last);

	if (ret && !last)
		return ret;
	int opened = open_node(s, path, flags, &node);
	if (ret || opened)
		return ret ? ret : opened;
	if (strlen(path) >= sizeof(((struct sim_file *)NULL)->path))
		return -ENAMETOOLONG;
	int lock = !(flags & IO_LOCK) ? 0 : flags & IO_WRITE ? -1 : 1;
	int held = disk_node(&s->disk, node)->locks;
	if (lock && held && (lock < 0 || held < 0))
		return -EBUSY;
	if (flags & IO_WRITE)
		remember(s, path);
	struct sim_file *f = sim_must(calloc(1, sizeof(*f)));
	f->file.io = io;
	f->node = node;
	f->lock = lock;
	disk_node(&s->disk, node)->locks += lock;
	memcpy(f->path, path, strlen(path) + 1);
	disk_node(&s->disk, node)->opens++;
	*out = &f->file;
	return 0;
}

static void sim_close(struct io_file *f)
{
	SCOPED_LOCK(&sim_of(f->io)->lock);
	node_of(f)->opens--;
	node_of(f)->locks -= file_of(f)->lock;
	free(f);
}

static ssize_t sim_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	SCOPED_CALL(call, f->io, SIM_READ, file_of(f)->path);
	bool last;
	int ret = meet(call.s, SIM_READ, &last);

	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EINVAL;
	return ret ? ret : (ssize_t)content_read(node_of(f)->now, buf, len, off);
}

/* How much of [off, off + *len) there is room for; -errno if not for all. */
static int room_for(const struct sim *s, const struct node *n, uint64_t off, uint64_t *len)
{
	uint64_t need = (uint64_t)content_holes(n->now, off, *len) * SIM_BLOCK, used;

	if (!s->limit || !need)
		return 0;
	used = disk_used(&s->disk);
	if (used + need <= s->limit)
		return 0;
	while (*len && used + (uint64_t)content_holes(n->now, off, *len) * SIM_BLOCK > s->limit)
		*len =
		    (off + *len - 1) / SIM_BLOCK * SIM_BLOCK > off ? (off + *len - 1) / SIM_BLOCK * SIM_BLOCK - off : 0;
	return s->limit_error;
}

static void write_now(struct sim *s, struct node *n, const void *buf, uint64_t len, uint64_t off)
{
	if (!len)
		return;
	content_write(&n->now, buf, (size_t)len, off);
	n->ops = op_new(OP_WRITE, s->number, buf, off, len, n->ops);
	n->changed = time(NULL);
}

static int sim_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	SCOPED_CALL(call, f->io, SIM_WRITE, file_of(f)->path);
	struct node *n = node_of(f);
	uint64_t part = len;
	bool last;
	int ret = meet(call.s, SIM_WRITE, &last);

	if (ret && !last)
		part = call.s->dead ? 0 : len * call.s->fault.percent / 100;
	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	int full = room_for(call.s, n, off, &part);
	write_now(call.s, n, buf, part, off);
	return ret ? ret : full;
}

static int sim_sync(struct io_file *f)
{
	SCOPED_CALL(call, f->io, SIM_SYNC, file_of(f)->path);
	bool last;
	int ret = meet(call.s, SIM_SYNC, &last);

	if (!ret)
		disk_sync_file(node_of(f));
	else if (!call.s->dead)
		disk_sync_file_failed(node_of(f), &call.s->rng);
	return ret;
}

static int sim_truncate(struct io_file *f, uint64_t size)
{
	SCOPED_CALL(call, f->io, SIM_TRUNCATE, file_of(f)->path);
	struct node *n = node_of(f);
	bool last;
	int ret = meet(call.s, SIM_TRUNCATE, &last);

	if (ret && !last)
		return ret;
	if (size > INT64_MAX)
		return -EFBIG;
	content_resize(&n->now, size);
	n->ops = op_new(OP_SIZE, call.s->number, NULL, size, 0, n->ops);
	n->changed = time(NULL);
	return ret;
}

static int sim_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	SCOPED_CALL(call, f->io, SIM_ALLOCATE, file_of(f)->path);
	struct node *n = node_of(f);
	uint64_t part = len;
	bool last;
	int ret = meet(call.s, SIM_ALLOCATE, &last);

	if (ret && !last)
		return ret;
	if (call.s->no_allocate)
		return ret ? ret : -EOPNOTSUPP;
	if (off > INT64_MAX || len > INT64_MAX - off)
		return -EFBIG;
	int full = room_for(call.s, n, off, &part);
	if (full)
		return ret ? ret : full;
	content_allocate(&n->now, off, len);
	n->ops = op_new(OP_ALLOCATE, call.s->number, NULL, off, len, n->ops);
	return ret;
}

static int sim_size(struct io_file *f, uint64_t *size)
{
	SCOPED_CALL(call, f->io, SIM_STAT, file_of(f)->path);
	bool last;
	int ret = meet(call.s, SIM_STAT, &last);

	if (!ret)
		*size = node_of(f)->now->size;
	return ret;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static int sim_unlink(struct io *io, const char *path)
{
	SCOPED_CALL(call, io, SIM_UNLINK, path);
	struct disk *d = &call.s->disk;
	const char *name;
	uint32_t dir, node;
	bool last;
	int ret = meet(call.s, SIM_UNLINK, &last);

	if (ret && !last)
		return ret;
	int found = disk_find_parent(d, path, &dir, &name);
	if (found)
		return ret ? ret : found;
	node = names_get(disk_node(d, dir)->names, name);
	if (!node || disk_node(d, node)->dir)
		return ret ? ret : node ? -EISDIR : -ENOENT;
	disk_link(d, call.s->number, dir, name, 0);
	return ret;
}

static bool is_above(const char *dir, const char *path)
{
	size_t len = strlen(dir);

	return !strncmp(dir, path, len) && path[len] == '/';
}

static int rename_now(struct sim *s, const char *from, const char *to)
{
	struct disk *d = &s->disk;
	const char *from_name, *to_name;
	uint32_t from_dir, to_dir, node, old;
	int ret = disk_find_parent(d, from, &from_dir, &from_name);

	if (!ret)
		ret = disk_find_parent(d, to, &to_dir, &to_name);
	if (ret)
		return ret;
	node = names_get(disk_node(d, from_dir)->names, from_name);
	old = names_get(disk_node(d, to_dir)->names, to_name);
	if (!node)
		return -ENOENT;
	if (is_above(from, to) || is_above(to, from))
		return is_above(from, to) ? -EINVAL : -ENOTEMPTY;
	if (node == old)
		return 0;
	if (old && disk_node(d, old)->dir != disk_node(d, node)->dir)
		return disk_node(d, old)->dir ? -EISDIR : -ENOTDIR;
	if (old && disk_node(d, old)->dir && disk_node(d, old)->names->count)
		return -ENOTEMPTY;
	disk_rename(d, s->number, from_dir, from_name, to_dir, to_name, node);
	disk_node(d, node)->changed = time(NULL);
	remember(s, to);
	return 0;
}

static int sim_rename(struct io *io, const char *from, const char *to)
{
	SCOPED_CALL(call, io, SIM_RENAME, to);
	bool last;
	int ret = meet(call.s, SIM_RENAME, &last);

	if (ret && !last)
		return ret;
	int renamed = rename_now(call.s, from, to);
	return ret ? ret : renamed;
}

static int sim_mkdir(struct io *io, const char *path)
{
	SCOPED_CALL(call, io, SIM_MKDIR, path);
	struct disk *d = &call.s->disk;
	const char *name;
	uint32_t dir;
	bool last;
	int ret = meet(call.s, SIM_MKDIR, &last);

	if (ret && !last)
		return ret;
	int made = disk_find_parent(d, path, &dir, &name);
	if (!made && names_get(disk_node(d, dir)->names, name))
		made = -EEXIST;
	if (!made) {
		disk_link(d, call.s->number, dir, name, disk_add(d, true));
		remember(call.s, path);
	}
	return ret ? ret : made;
}

static int meet_dir(struct sim *s, unsigned class, const char *path, uint32_t *dir)
{
	bool last;
	int ret = meet(s, class, &last);

	if (!ret)
		ret = disk_find(&s->disk, path, dir);
	if (!ret && !disk_node(&s->disk, *dir)->dir)
		ret = -ENOTDIR;
	return ret;
}

static int sim_sync_dir(struct io *io, const char *path)
{
	SCOPED_CALL(call, io, SIM_SYNC_DIR, path);
	uint32_t dir;
	int ret = meet_dir(call.s, SIM_SYNC_DIR, path, &dir);

	if (!ret)
		disk_sync_dir(&call.s->disk, dir);
	return ret;
}

static int list_begin(struct io *io, const char *path, struct names **out)
{
	SCOPED_CALL(call, io, SIM_LIST, path);
	uint32_t dir;
	int ret = meet_dir(call.s, SIM_LIST, path, &dir);

	if (!ret)
		*out = names_ref(disk_node(&call.s->disk, dir)->names);
	return ret;
}

static int sim_list(struct io *io, const char *path, io_list_fn fn, void *arg)
{
	struct names *names;
	int ret = list_begin(io, path, &names);

	if (ret)
		return ret;
	for (size_t i = 0; i < names->count && !ret; i++)
		ret = fn(arg, names->entry[i].name);
	names_unref(names);
	return ret;
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */

static int sim_stat(struct io *io, const char *path, struct io_stat *st)
{
	SCOPED_CALL(call, io, SIM_STAT, path);
	uint32_t node;
	bool last;
	int ret = meet(call.s, SIM_STAT, &last);

	if (!ret)
		ret = disk_find(&call.s->disk, path, &node);
	if (ret)
		return ret;
	const struct node *n = disk_node(&call.s->disk, node);
	*st = (struct io_stat){.changed = n->changed, .dir = n->dir};
	if (!n->dir) {
		st->size = n->now->size;
		st->stored = (uint64_t)n->now->allocated * SIM_BLOCK;
	}
	return 0;
}

static int sim_space(struct io *io, struct io_space *space)
{
	SCOPED_CALL(call, io, SIM_SPACE, "");
	const struct sim *s = call.s;
	bool last;
	int ret = meet(call.s, SIM_SPACE, &last);

	if (ret)
		return ret;
	uint64_t total = s->limit && s->limit_error == -ENOSPC ? s->limit : UNLIMITED, used = disk_used(&s->disk);
	uint64_t left = total > used ? total - used : 0;
	*space =
	    (struct io_space){.total = total, .free = left, .avail = left, .files = 1 << 20, .files_free = 1 << 19};
	return 0;
}

static int sim_lock(struct io *io)
{
	SCOPED_CALL(call, io, SIM_LOCK, "");
	bool last;
	int ret = meet(call.s, SIM_LOCK, &last);

	if (!ret && call.s->locked)
		ret = -EBUSY;
	if (!ret)
		call.s->locked = true;
	return ret;
}

static void sim_free(struct io *io)
{
	struct sim *s = sim_of(io);

	disk_release(&s->disk);
	(void)pthread_mutex_destroy(&s->lock);
	free(s->paths);
	free(s);
}

static const struct io_ops sim_ops = {
    .open = sim_open,
    .close = sim_close,
    .pread = sim_pread,
    .pwrite = sim_pwrite,
    .sync = sim_sync,
    .truncate = sim_truncate,
    .allocate = sim_allocate,
    .size = sim_size,
    .unlink = sim_unlink,
    .rename = sim_rename,
    .mkdir = sim_mkdir,
    .sync_dir = sim_sync_dir,
    .list = sim_list,
    .stat = sim_stat,
    .space = sim_space,
    .lock = sim_lock,
    .free = sim_free,
};

struct io *sim_new(void)
{
	struct sim *s = sim_make();

	s->io.ops = &sim_ops;
	disk_init(&s->disk);
	return &s->io;
}
