#include "tests/index/sim_io.h"

#include "base/lock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LEN 64
#define FILES    8
#define SECTOR   512

struct bytes {
	uint8_t *p;
	size_t size, room;
};

enum op_kind { OP_WRITE, OP_SIZE };

struct op {
	struct op *next;
	enum op_kind kind;
	uint64_t off; /* or the size */
	size_t len;
	uint8_t data[];
};

/* A file's contents, apart from its names. */
struct node {
	struct bytes now, durable;
	struct op *first, **last;
	bool used;
};

struct entry {
	char name[NAME_LEN];
	struct node *node;
};

struct sim {
	struct io io;
	pthread_mutex_t lock;
	struct node node[4 * FILES];
	struct entry now[FILES], durable[FILES];
	char names[1024];
	unsigned nth, syncs;
	int error;
	bool sticky, no_allocate;
	atomic_bool failed;
	uint64_t limit;
};

struct sim_file {
	struct io_file file;
	struct node *node;
};

static struct sim *sim_of(struct io *io)
{
	return (struct sim *)io;
}

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* --- contents ----------------------------------------------------------------------------------------------------- */

/* Buffers that a freed STORE had: a fresh page costs more than all that a test does with it. */
static struct bytes spare[16];

static void bytes_release(struct bytes *b)
{
	for (size_t i = 0; i < sizeof(spare) / sizeof(spare[0]) && b->p; i++) {
		if (!spare[i].p) {
			spare[i] = *b;
			b->p = NULL;
		}
	}
	free(b->p);
	*b = (struct bytes){0};
}

static void bytes_grow(struct bytes *b, size_t size)
{
	for (size_t i = 0; i < sizeof(spare) / sizeof(spare[0]) && size > b->room; i++) {
		if (spare[i].room < size)
			continue;
		struct bytes old = *b;
		*b = spare[i];
		spare[i] = (struct bytes){0};
		b->size = old.size;
		if (old.size)
			memcpy(b->p, old.p, old.size);
		bytes_release(&old);
	}
	if (size <= b->room)
		return;
	b->room = size + size / 2 + 4096;
	b->p = must(realloc(b->p, b->room));
}

static void bytes_resize(struct bytes *b, size_t size)
{
	bytes_grow(b, size);
	if (size > b->size)
		memset(b->p + b->size, 0, size - b->size);
	b->size = size;
}

static void bytes_write(struct bytes *b, const void *data, size_t len, uint64_t off)
{
	if (off + len > b->size)
		bytes_resize(b, (size_t)off + len);
	if (len)
		memcpy(b->p + off, data, len);
}

static void node_log(struct node *n, enum op_kind kind, uint64_t off, const void *data, size_t len)
{
	struct op *op = must(malloc(sizeof(*op) + len));

	*op = (struct op){.kind = kind, .off = off, .len = len};
	if (len)
		memcpy(op->data, data, len);
	*n->last = op;
	n->last = &op->next;
}

static void op_apply(struct bytes *b, const struct op *op, size_t from, size_t len)
{
	if (op->kind == OP_SIZE)
		bytes_resize(b, (size_t)op->off);
	else
		bytes_write(b, op->data + from, len, op->off + from);
}

static void node_forget_log(struct node *n)
{
	while (n->first) {
		struct op *op = n->first;
		n->first = op->next;
		free(op);
	}
	n->last = &n->first;
}

static void node_sync(struct node *n)
{
	for (const struct op *op = n->first; op; op = op->next)
		op_apply(&n->durable, op, 0, op->len);
	node_forget_log(n);
}

/* Each sector of each write is there or not. */
static void node_crash(struct node *n, unsigned *seed)
{
	for (const struct op *op = n->first; op && *seed; op = op->next) {
		unsigned how = (unsigned)rand_r(seed) % 4;
		if (how == 0)
			continue;
		if (how < 3 || op->kind == OP_SIZE) {
			op_apply(&n->durable, op, 0, op->len);
			continue;
		}
		for (size_t at = 0; at < op->len;) {
			size_t len = SECTOR - (size_t)((op->off + at) % SECTOR);
			if (len > op->len - at)
				len = op->len - at;
			if (rand_r(seed) & 1)
				op_apply(&n->durable, op, at, len);
			at += len;
		}
	}
}

static void node_restart(struct node *n)
{
	node_forget_log(n);
	n->now.size = 0;
	bytes_write(&n->now, n->durable.p, n->durable.size, 0);
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static struct entry *find(struct sim *s, const char *name)
{
	for (size_t i = 0; i < FILES; i++) {
		if (s->now[i].node && !strcmp(s->now[i].name, name))
			return &s->now[i];
	}
	return NULL;
}

static void remember(struct sim *s, const char *name)
{
	char word[NAME_LEN + 3], all[sizeof(s->names) + 1];

	(void)snprintf(word, sizeof(word), " %s ", name);
	(void)snprintf(all, sizeof(all), " %s", s->names);
	if (strstr(all, word))
		return;
	if (strlen(s->names) + strlen(name) + 2 > sizeof(s->names))
		abort();
	(void)snprintf(s->names + strlen(s->names), sizeof(s->names) - strlen(s->names), "%s ", name);
}

static struct entry *make(struct sim *s, const char *name)
{
	struct entry *e = NULL;
	struct node *n = NULL;

	for (size_t i = 0; i < FILES && !e; i++)
		e = s->now[i].node ? NULL : &s->now[i];
	for (size_t i = 0; i < sizeof(s->node) / sizeof(s->node[0]) && !n; i++)
		n = s->node[i].used ? NULL : &s->node[i];
	if (!e || !n || strlen(name) >= NAME_LEN)
		abort();
	n->used = true;
	n->last = &n->first;
	e->node = n;
	(void)snprintf(e->name, sizeof(e->name), "%s", name);
	remember(s, name);
	return e;
}

/* Counts a call that changes something; the error it has to fail with, or 0. */
static int hit(struct sim *s)
{
	if (atomic_load(&s->failed) && s->sticky)
		return s->error;
	if (!s->nth || --s->nth)
		return 0;
	atomic_store(&s->failed, true);
	return s->error;
}

static bool over_limit(const struct sim *s, const struct node *grows, uint64_t size)
{
	uint64_t total = size > grows->now.size ? size - grows->now.size : 0;

	if (!s->limit || !total)
		return false;
	for (size_t i = 0; i < FILES; i++)
		total += s->now[i].node ? s->now[i].node->now.size : 0;
	return total > s->limit;
}

/* --- the vtable --------------------------------------------------------------------------------------------------- */

static int sim_open(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	struct sim *s = sim_of(io);

	SCOPED_LOCK(&s->lock);
	struct entry *e = find(s, path);
	int ret = flags & IO_WRITE ? hit(s) : 0;
	if (ret)
		return ret;
	if (!e && !(flags & IO_CREATE))
		return -ENOENT;
	if (e && (flags & IO_EXCL))
		return -EEXIST;
	if (!e)
		e = make(s, path);
	struct sim_file *f = must(malloc(sizeof(*f)));
	*f = (struct sim_file){{io}, e->node};
	*out = &f->file;
	return 0;
}

static void sim_close(struct io_file *f)
{
	free(f);
}

static ssize_t sim_pread(struct io_file *f, void *buf, size_t len, uint64_t off)
{
	struct sim *s = sim_of(f->io);

	SCOPED_LOCK(&s->lock);
	const struct bytes *b = &((struct sim_file *)f)->node->now;
	if (off >= b->size)
		return 0;
	if (len > b->size - off)
		len = b->size - (size_t)off;
	memcpy(buf, b->p + off, len);
	return (ssize_t)len;
}

static int sim_pwrite(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	struct sim *s = sim_of(f->io);
	struct node *n = ((struct sim_file *)f)->node;

	SCOPED_LOCK(&s->lock);
	int ret = hit(s);
	if (!ret && over_limit(s, n, off + len))
		ret = -ENOSPC;
	if (ret)
		len /= 2;
	if (!ret || !over_limit(s, n, off + len)) {
		bytes_write(&n->now, buf, len, off);
		node_log(n, OP_WRITE, off, buf, len);
	}
	return ret;
}

/* After a failed sync the pages count as clean and may never be written. */
static int sim_sync(struct io_file *f)
{
	struct sim *s = sim_of(f->io);
	struct node *n = ((struct sim_file *)f)->node;

	SCOPED_LOCK(&s->lock);
	int ret = hit(s);
	s->syncs++;
	if (!ret)
		node_sync(n);
	return ret;
}

static int sim_truncate(struct io_file *f, uint64_t size)
{
	struct sim *s = sim_of(f->io);
	struct node *n = ((struct sim_file *)f)->node;

	SCOPED_LOCK(&s->lock);
	int ret = hit(s);
	if (!ret && over_limit(s, n, size))
		ret = -ENOSPC;
	if (ret)
		return ret;
	bytes_resize(&n->now, (size_t)size);
	node_log(n, OP_SIZE, size, NULL, 0);
	return 0;
}

static int sim_allocate(struct io_file *f, uint64_t off, uint64_t len)
{
	struct sim *s = sim_of(f->io);

	if (s->no_allocate)
		return -EOPNOTSUPP;
	return sim_truncate(f, off + len);
}

static int sim_size(struct io_file *f, uint64_t *size)
{
	struct sim *s = sim_of(f->io);

	SCOPED_LOCK(&s->lock);
	*size = ((struct sim_file *)f)->node->now.size;
	return 0;
}

static int sim_unlink(struct io *io, const char *path)
{
	struct sim *s = sim_of(io);

	SCOPED_LOCK(&s->lock);
	struct entry *e = find(s, path);
	int ret = hit(s);
	if (ret || !e)
		return ret ? ret : -ENOENT;
	e->node = NULL;
	return 0;
}

static int sim_rename(struct io *io, const char *from, const char *to)
{
	struct sim *s = sim_of(io);

	SCOPED_LOCK(&s->lock);
	struct entry *e = find(s, from), *old = find(s, to);
	int ret = hit(s);
	if (ret || !e)
		return ret ? ret : -ENOENT;
	if (old)
		old->node = NULL;
	(void)snprintf(e->name, sizeof(e->name), "%s", to);
	remember(s, to);
	return 0;
}

static int sim_sync_dir(struct io *io, const char *path)
{
	struct sim *s = sim_of(io);

	(void)path;
	SCOPED_LOCK(&s->lock);
	int ret = hit(s);
	if (!ret)
		memcpy(s->durable, s->now, sizeof(s->now));
	return ret;
}

static int sim_stat(struct io *io, const char *path, struct io_stat *st)
{
	struct sim *s = sim_of(io);

	SCOPED_LOCK(&s->lock);
	const struct entry *e = find(s, path);
	if (!e)
		return -ENOENT;
	*st = (struct io_stat){.size = e->node->now.size, .stored = e->node->now.size};
	return 0;
}

static void sim_free(struct io *io)
{
	struct sim *s = sim_of(io);

	for (size_t i = 0; i < sizeof(s->node) / sizeof(s->node[0]); i++) {
		if (s->node[i].used)
			node_forget_log(&s->node[i]);
		bytes_release(&s->node[i].now);
		bytes_release(&s->node[i].durable);
	}
	pthread_mutex_destroy(&s->lock);
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
    .sync_dir = sim_sync_dir,
    .stat = sim_stat,
    .free = sim_free,
};

struct io *sim_new(void)
{
	struct sim *s = must(calloc(1, sizeof(*s)));

	s->io.ops = &sim_ops;
	pthread_mutex_init(&s->lock, NULL);
	return &s->io;
}

/* Forgets nodes that no name leads to. */
static void sweep(struct sim *s)
{
	for (size_t i = 0; i < sizeof(s->node) / sizeof(s->node[0]); i++) {
		struct node *n = &s->node[i];
		bool named = false;
		for (size_t j = 0; j < FILES; j++)
			named = named || s->now[j].node == n || s->durable[j].node == n;
		if (named || !n->used)
			continue;
		node_forget_log(n);
		bytes_release(&n->now);
		bytes_release(&n->durable);
		*n = (struct node){0};
	}
}

void sim_crash(struct io *io, unsigned seed)
{
	struct sim *s = sim_of(io);

	/* The journal of most filesystems keeps the order of changes of names: the last few are there or not. */
	if (!seed || (rand_r(&seed) & 1))
		memcpy(s->now, s->durable, sizeof(s->now));
	else
		memcpy(s->durable, s->now, sizeof(s->now));
	for (size_t i = 0; i < sizeof(s->node) / sizeof(s->node[0]); i++) {
		if (!s->node[i].used)
			continue;
		node_crash(&s->node[i], &seed);
		node_restart(&s->node[i]);
	}
	sweep(s);
	sim_fail(io, 0, 0, false);
}

void sim_crash_last(struct io *io)
{
	struct sim *s = sim_of(io);

	for (size_t i = 0; i < sizeof(s->node) / sizeof(s->node[0]); i++) {
		struct node *n = &s->node[i];
		const struct op *op = n->used ? n->first : NULL;
		if (!n->used)
			continue;
		while (op && op->next)
			op = op->next;
		if (op)
			op_apply(&n->durable, op, 0, op->len);
		node_restart(n);
	}
	sim_fail(io, 0, 0, false);
}

void sim_fail(struct io *io, unsigned nth, int error, bool sticky)
{
	struct sim *s = sim_of(io);

	s->nth = nth;
	s->error = error;
	s->sticky = sticky;
	atomic_store(&s->failed, false);
}

bool sim_failed(const struct io *io)
{
	return atomic_load(&((const struct sim *)io)->failed);
}

void sim_limit(struct io *io, uint64_t bytes)
{
	sim_of(io)->limit = bytes;
}

void sim_no_allocate(struct io *io)
{
	sim_of(io)->no_allocate = true;
}

unsigned sim_syncs(const struct io *io)
{
	return ((const struct sim *)io)->syncs;
}

const char *sim_names(const struct io *io)
{
	return ((const struct sim *)io)->names;
}
