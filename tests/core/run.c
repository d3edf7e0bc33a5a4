/* Choosing and reporting. */
#include "tests/core/run.h"
#include "tests/core/inside.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

void run_fail(struct run *r, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	print_error("seed %llu step %llu: %s: %s\n", (unsigned long long)r->seed, (unsigned long long)r->m->step, r->op,
	            text);
	if (r->on_fail)
		r->on_fail(r);
	else
		print_error("run it again: test_property %s %llu\n", r->crashes ? "crash" : "model",
		            (unsigned long long)r->seed);
	/* This may be a callback of core, with its locks held: nothing can be taken down in order. */
	fixture_discard(&r->fx);
	_exit(1);
}

void run_say(struct run *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(r->op, sizeof(r->op), fmt, ap);
	va_end(ap);
	if (getenv("APFS_VERBOSE"))
		print_message("%llu: %s\n", (unsigned long long)r->m->step, r->op);
}

void run_expect(struct run *r, int core, int model)
{
	if (core != model)
		run_fail(r, "core says %d (%s), the model %d (%s)", core, strerror(-core), model, strerror(-model));
}

uint64_t run_below(struct run *r, uint64_t n)
{
	return rng_below(&r->rng, n);
}

bool run_chance(struct run *r, unsigned percent)
{
	return run_below(r, 100) < percent;
}

bool run_is_dir(const struct model_inode *i)
{
	return S_ISDIR(i->mode);
}

bool run_is_file(const struct model_inode *i)
{
	return S_ISREG(i->mode);
}

bool run_is_link(const struct model_inode *i)
{
	return S_ISLNK(i->mode);
}

bool run_is_any(const struct model_inode *i)
{
	(void)i;
	return true;
}

struct model_inode *run_pick(struct run *r, bool (*pred)(const struct model_inode *i))
{
	struct model_inode *i, *next;
	uint64_t n = 0;

	HASH_ITER (hh, r->m->inodes, i, next)
		n += !i->removed && pred(i);
	if (!n)
		return NULL;
	n = run_below(r, n);
	HASH_ITER (hh, r->m->inodes, i, next)
		if (!i->removed && pred(i) && !n--)
			return i;
	return NULL;
}

/* Some directory and name that lead to the inode. */
static struct model_inode *find_name(struct run *r, uint64_t ino, const char **name)
{
	struct model_inode *dir, *next;
	struct model_dirent *d, *dn;

	HASH_ITER (hh, r->m->inodes, dir, next)
		HASH_ITER (hh, dir->entries, d, dn)
			if (d->ino == ino) {
				*name = d->name;
				return dir;
			}
	return NULL;
}

void run_use(struct run *r, struct model_inode *i)
{
	struct model_inode *dir;
	struct core_attr attr;
	const char *name = NULL;
	int ret;

	if (i->refs || i->opens || i->ino == CORE_ROOT)
		return;
	dir = find_name(r, i->ino, &name);
	if (!dir)
		run_fail(r, "the model lost the name of inode %llu", (unsigned long long)i->ino);
	run_use(r, dir);
	ret = core_lookup(r->fx.core, dir->ino, name, &attr);
	if (ret)
		run_fail(r, "lookup of an existing name: %s", strerror(-ret));
	i->refs++;
	run_check_attr(r, &attr, i);
}

static const char *odd_name(struct run *r)
{
	static char name[300];
	size_t len;

	switch (run_below(r, 6)) {
	case 0:
		memset(name, 'L', 255);
		name[255] = 0;
		break;
	case 1:
		memset(name, 'M', 256);
		name[256] = 0;
		break;
	case 2:
		(void)snprintf(name, sizeof(name), "%s", "new\nline \x01\x7f\xff\xfe");
		break;
	case 3:
		(void)snprintf(name, sizeof(name), "%s", "-rf *?'\"\\");
		break;
	case 4:
		(void)snprintf(name, sizeof(name), "%s", "\xe2\x82\xac\xf0\x9f\x98\x80");
		break;
	default:
		len = 1 + (size_t)run_below(r, 40);
		for (size_t i = 0; i < len; i++)
			do
				name[i] = (char)(1 + run_below(r, 255));
			while (name[i] == '/' || name[i] == '.');
		name[len] = 0;
	}
	return name;
}

const char *run_name(struct run *r, const struct model_inode *dir, bool existing)
{
	static char name[300];
	unsigned n = HASH_COUNT(dir->entries);
	struct model_dirent *d;

	if (n && (existing || run_chance(r, 25))) {
		uint64_t k = run_below(r, n);

		d = dir->entries;
		while (k--)
			d = d->hh.next;
		(void)snprintf(name, sizeof(name), "%s", d->name);
		return name;
	}
	if (existing)
		return NULL;
	if (run_chance(r, 8))
		return odd_name(r);
	(void)snprintf(name, sizeof(name), "n%u", (unsigned)run_below(r, 24));
	return name;
}

void run_close_all(struct run *r)
{
	for (size_t h = 0; h < RUN_HANDLES; h++) {
		if (!r->handle[h].file)
			continue;
		core_file_close(r->handle[h].file);
		r->handle[h].file = NULL;
	}
}

static void *sync_loop(void *arg)
{
	struct run *r = arg;
	uint64_t rng = rng_seed(r->seed);

	while (!atomic_load(&r->sync_stop)) {
		if (r->compacts ? inside_compact(r->fx.core, true) : core_sync(r->fx.core))
			return r; /* the operations will say what is wrong */
		(void)usleep((useconds_t)rng_below(&rng, 3000));
	}
	return NULL;
}

void run_sync_begin(struct run *r)
{
	if (!r->syncs)
		return;
	atomic_store(&r->sync_stop, false);
	r->syncing = !pthread_create(&r->syncer, NULL, sync_loop, r);
}

void run_sync_end(struct run *r)
{
	if (!r->syncing)
		return;
	atomic_store(&r->sync_stop, true);
	(void)pthread_join(r->syncer, NULL);
	r->syncing = false;
}

void run_lose_all(struct run *r)
{
	for (size_t h = 0; h < RUN_HANDLES; h++) {
		if (!r->handle[h].file)
			continue;
		lose_file(r->handle[h].file);
		r->handle[h].file = NULL;
	}
}

void run_synced(struct run *r)
{
	if (r->on_synced)
		r->on_synced(r);
	r->names_synced = r->m->step;
	model_history_clear(r->m);
	r->nevents = 0;
}

void run_synced_inode(struct run *r, struct model_inode *i)
{
	if (r->on_synced)
		r->on_synced(r);
	r->names_synced = r->m->step;
	model_history_clear_inode(r->m, i);
}

void run_adopt_root(struct run *r)
{
	struct model_inode *root = model_inode_get(r->m, CORE_ROOT);
	struct core_attr a;

	run_expect(r, core_getattr(r->fx.core, CORE_ROOT, &a), 0);
	root->atime = a.atime;
	root->mtime = a.mtime;
	root->ctime = a.ctime;
	root->btime = a.btime;
}

void run_op_random(struct run *r, const struct run_choice *choice, size_t n)
{
	unsigned total = 0, dice;

	for (size_t i = 0; i < n; i++)
		total += choice[i].weight;
	dice = (unsigned)run_below(r, total);
	while (dice >= choice->weight)
		dice -= choice++->weight;
	choice->op(r);
}
