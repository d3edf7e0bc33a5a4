/* Names and nodes of a simulated STORE, and what a power cut makes of them. */
#include "tests/sim/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- directories -------------------------------------------------------------------------------------------------- */

static struct names *names_new(void)
{
	struct names *n = sim_must(calloc(1, sizeof(*n)));

	atomic_init(&n->refs, 1);
	return n;
}

struct names *names_ref(struct names *n)
{
	if (n)
		(void)atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	return n;
}

void names_unref(struct names *n)
{
	if (!n || atomic_fetch_sub(&n->refs, 1) != 1)
		return;
	free(n->entry);
	free(n);
}

static struct entry *names_find(const struct names *n, const char *name)
{
	for (size_t i = 0; i < n->count; i++) {
		if (!strcmp(n->entry[i].name, name))
			return &n->entry[i];
	}
	return NULL;
}

uint32_t names_get(const struct names *n, const char *name)
{
	const struct entry *e = names_find(n, name);

	return e ? e->node : 0;
}

static void names_set(struct names **at, const char *name, uint32_t node)
{
	struct names *n = *at;

	if (atomic_load(&n->refs) != 1) {
		struct names *own = names_new();
		own->count = own->room = n->count;
		own->entry = sim_must(calloc(n->count + 1, sizeof(struct entry)));
		if (n->count)
			memcpy(own->entry, n->entry, n->count * sizeof(struct entry));
		names_unref(n);
		*at = n = own;
	}
	struct entry *e = names_find(n, name);
	if (e && !node) {
		size_t left = n->count-- - (size_t)(e - n->entry) - 1;
		memmove(e, e + 1, left * sizeof(*e));
		return;
	}
	if (!e && !node)
		return;
	if (!e) {
		if (n->count == n->room) {
			n->room = 2 * n->room + 8;
			n->entry = sim_must(realloc(n->entry, n->room * sizeof(struct entry)));
		}
		e = &n->entry[n->count++];
		memset(e, 0, sizeof(*e));
		memcpy(e->name, name, strlen(name));
	}
	e->node = node;
}

/* --- nodes -------------------------------------------------------------------------------------------------------- */

struct node *disk_node(const struct disk *d, uint32_t number)
{
	return d->node[number];
}

uint32_t disk_add(struct disk *d, bool dir)
{
	struct node *n = sim_must(calloc(1, sizeof(*n)));
	size_t i = SIM_ROOT;

	while (i < d->nodes && d->node[i])
		i++;
	if (i >= d->nodes) {
		size_t room = 2 * d->nodes + 16;
		d->node = sim_must(realloc(d->node, room * sizeof(struct node *)));
		memset(d->node + d->nodes, 0, (room - d->nodes) * sizeof(struct node *));
		d->nodes = room;
	}
	n->dir = dir;
	n->changed = time(NULL);
	if (dir) {
		n->names = names_new();
		n->durable_names = names_ref(n->names);
	} else {
		n->now = content_new();
		n->durable = content_ref(n->now);
	}
	d->node[i] = n;
	return (uint32_t)i;
}

static void node_free(struct node *n)
{
	content_unref(n->now);
	content_unref(n->durable);
	op_unref(n->ops);
	names_unref(n->names);
	names_unref(n->durable_names);
	free(n);
}

static void name_ops_free(struct disk *d)
{
	while (d->name_ops) {
		struct name_op *op = d->name_ops;
		d->name_ops = op->next;
		free(op);
	}
	d->name_ops_end = &d->name_ops;
}

void disk_init(struct disk *d)
{
	memset(d, 0, sizeof(*d));
	d->name_ops_end = &d->name_ops;
	if (disk_add(d, true) != SIM_ROOT)
		abort();
	d->node[SIM_ROOT]->links = 1;
}

void disk_release(struct disk *d)
{
	for (size_t i = 0; i < d->nodes; i++) {
		if (d->node[i])
			node_free(d->node[i]);
	}
	free(d->node);
	name_ops_free(d);
}

void disk_copy(struct disk *to, const struct disk *from)
{
	memset(to, 0, sizeof(*to));
	to->nodes = from->nodes;
	to->node = sim_must(calloc(from->nodes, sizeof(struct node *)));
	for (size_t i = 0; i < from->nodes; i++) {
		if (!from->node[i])
			continue;
		struct node *n = to->node[i] = sim_must(malloc(sizeof(*n)));
		*n = *from->node[i];
		n->opens = 0;
		n->locks = 0;
		(void)content_ref(n->now);
		(void)content_ref(n->durable);
		(void)names_ref(n->names);
		(void)names_ref(n->durable_names);
		if (n->ops)
			(void)atomic_fetch_add(&n->ops->refs, 1);
	}
	to->name_ops_end = &to->name_ops;
	for (const struct name_op *op = from->name_ops; op; op = op->next) {
		struct name_op *copy = sim_must(malloc(sizeof(*copy)));
		*copy = *op;
		copy->next = NULL;
		*to->name_ops_end = copy;
		to->name_ops_end = &copy->next;
	}
}

uint64_t disk_used(const struct disk *d)
{
	uint64_t blocks = 0;

	for (size_t i = 0; i < d->nodes; i++) {
		const struct node *n = d->node[i];
		if (n && n->now && (n->links || n->opens))
			blocks += n->now->allocated;
	}
	return blocks * SIM_BLOCK;
}

static void mark_names(bool *seen, const struct names *n)
{
	for (size_t i = 0; n && i < n->count; i++)
		seen[n->entry[i].node] = true;
}

void disk_sweep(struct disk *d)
{
	bool *seen = sim_must(malloc(d->nodes * sizeof(bool))), again = true;

	while (again) {
		again = false;
		memset(seen, 0, d->nodes * sizeof(bool));
		seen[SIM_ROOT] = true;
		for (size_t i = 0; i < d->nodes; i++) {
			if (!d->node[i])
				continue;
			mark_names(seen, d->node[i]->names);
			mark_names(seen, d->node[i]->durable_names);
			if (d->node[i]->opens)
				seen[i] = true;
		}
		for (const struct name_op *op = d->name_ops; op; op = op->next) {
			for (unsigned i = 0; i < op->count; i++)
				seen[op->change[i].node] = true;
		}
		for (size_t i = 0; i < d->nodes; i++) {
			if (seen[i] || !d->node[i])
				continue;
			again = d->node[i]->dir || again;
			node_free(d->node[i]);
			d->node[i] = NULL;
		}
	}
	free(seen);
}

/* --- paths -------------------------------------------------------------------------------------------------------- */

int disk_find_parent(const struct disk *d, const char *path, uint32_t *dir, const char **name)
{
	uint32_t at = SIM_ROOT;

	for (const char *p = path;;) {
		size_t n = strcspn(p, "/");
		char part[SIM_NAME] = {0};

		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return -EINVAL;
		if (n >= SIM_NAME)
			return -ENAMETOOLONG;
		if (!p[n]) {
			*dir = at;
			*name = p;
			return 0;
		}
		memcpy(part, p, n);
		at = names_get(d->node[at]->names, part);
		if (!at)
			return -ENOENT;
		if (!d->node[at]->dir)
			return -ENOTDIR;
		p += n + 1;
	}
}

int disk_find(const struct disk *d, const char *path, uint32_t *node)
{
	const char *name;
	uint32_t dir;

	*node = SIM_ROOT;
	if (!*path)
		return 0;
	int ret = disk_find_parent(d, path, &dir, &name);
	if (ret)
		return ret;
	*node = names_get(d->node[dir]->names, name);
	return *node ? 0 : -ENOENT;
}

static void link_now(struct disk *d, uint32_t dir, const char *name, uint32_t node)
{
	uint32_t old = names_get(d->node[dir]->names, name);

	if (old)
		d->node[old]->links--;
	if (node)
		d->node[node]->links++;
	names_set(&d->node[dir]->names, name, node);
}

static struct name_op *name_op_add(struct disk *d, uint64_t number)
{
	struct name_op *op = sim_must(calloc(1, sizeof(*op)));

	op->number = number;
	*d->name_ops_end = op;
	d->name_ops_end = &op->next;
	return op;
}

static void name_op_change(struct name_op *op, uint32_t dir, const char *name, uint32_t node)
{
	op->change[op->count].dir = dir;
	op->change[op->count].node = node;
	memcpy(op->change[op->count].name, name, strlen(name) + 1);
	op->count++;
}

void disk_link(struct disk *d, uint64_t number, uint32_t dir, const char *name, uint32_t node)
{
	name_op_change(name_op_add(d, number), dir, name, node);
	link_now(d, dir, name, node);
}

void disk_rename(struct disk *d, uint64_t number, uint32_t from, const char *from_name, uint32_t to,
                 const char *to_name, uint32_t node)
{
	struct name_op *op = name_op_add(d, number);

	name_op_change(op, from, from_name, 0);
	name_op_change(op, to, to_name, node);
	link_now(d, from, from_name, 0);
	link_now(d, to, to_name, node);
}

void disk_link_raw(struct disk *d, uint32_t dir, const char *name, uint32_t node)
{
	link_now(d, dir, name, node);
	names_set(&d->node[dir]->durable_names, name, node);
}

/* --- syncs -------------------------------------------------------------------------------------------------------- */

static size_t ops_count(const struct op *op)
{
	size_t n = 0;

	for (; op; op = op->before)
		n++;
	return n;
}

/* The pending changes of a file, oldest first: the caller's to free. */
static struct op **ops_list(const struct node *n, size_t *count)
{
	*count = ops_count(n->ops);
	struct op **list = sim_must(calloc(*count + 1, sizeof(struct op *)));
	size_t i = *count;

	for (struct op *op = n->ops; op; op = op->before)
		list[--i] = op;
	return list;
}

static void ops_forget(struct node *n)
{
	op_unref(n->ops);
	n->ops = NULL;
}

void disk_sync_file(struct node *n)
{
	content_unref(n->durable);
	n->durable = content_ref(n->now);
	ops_forget(n);
}

void disk_sync_file_failed(struct node *n, struct rng *r)
{
	size_t count;
	struct op **list = ops_list(n, &count);

	for (size_t i = 0; i < count; i++) {
		if (rng64(r) & 1)
			op_apply(list[i], &n->durable);
	}
	free(list);
	ops_forget(n);
}

/* Names whose earlier change has not become durable hold back the later ones. */
static bool name_op_held(const struct name_op *ops, const struct name_op *op)
{
	for (const struct name_op *o = ops; o != op; o = o->next) {
		for (unsigned i = 0; i < o->count; i++) {
			for (unsigned k = 0; k < op->count; k++) {
				if (o->change[i].dir == op->change[k].dir &&
				    !strcmp(o->change[i].name, op->change[k].name))
					return true;
			}
		}
	}
	return false;
}

static void name_op_apply(struct disk *d, const struct name_op *op)
{
	for (unsigned i = 0; i < op->count; i++)
		names_set(&d->node[op->change[i].dir]->durable_names, op->change[i].name, op->change[i].node);
}

void disk_sync_dir(struct disk *d, uint32_t dir)
{
	struct name_op **at = &d->name_ops;

	while (*at) {
		struct name_op *op = *at;
		bool whole = true;

		for (unsigned i = 0; i < op->count; i++) {
			op->change[i].synced |= op->change[i].dir == dir;
			whole = whole && op->change[i].synced;
		}
		if (!whole || name_op_held(d->name_ops, op)) {
			at = &op->next;
			continue;
		}
		name_op_apply(d, op);
		*at = op->next;
		free(op);
	}
	d->name_ops_end = at;
	disk_sweep(d);
}

/* --- power cuts --------------------------------------------------------------------------------------------------- */

enum loss { LOSE_ALL, LOSE_NOTHING, LOSE_AFTER, LOSE_ONE, KEEP_ONE, LOSE_SOME };
enum fate { LOST, TORN, KEPT };

struct plan {
	struct rng rng;
	enum loss loss;
	uint64_t number; /* of the operation that LOSE_AFTER, LOSE_ONE and KEEP_ONE are about */
	unsigned keep;   /* percent, of LOSE_SOME */
};

/* Any one of the pending operations. */
static uint64_t pick_pending(const struct disk *d, struct rng *r)
{
	uint64_t picked = 0, seen = 0;

	for (size_t i = 0; i < d->nodes; i++) {
		for (const struct op *op = d->node[i] ? d->node[i]->ops : NULL; op; op = op->before) {
			if (rng64(r) % ++seen == 0)
				picked = op->number;
		}
	}
	for (const struct name_op *op = d->name_ops; op; op = op->next) {
		if (rng64(r) % ++seen == 0)
			picked = op->number;
	}
	return picked;
}

static struct plan plan_make(const struct disk *d, uint64_t seed)
{
	static const enum loss losses[] = {LOSE_ALL, LOSE_NOTHING, LOSE_AFTER, LOSE_AFTER, LOSE_ONE,
	                                   KEEP_ONE, LOSE_SOME,    LOSE_SOME,  LOSE_SOME,  LOSE_SOME};
	static const unsigned keeps[] = {5, 50, 95};
	struct plan p = {.rng = {seed}};

	if (!seed)
		return p;
	p.loss = losses[rng64(&p.rng) % (sizeof(losses) / sizeof(losses[0]))];
	p.keep = keeps[rng64(&p.rng) % 3];
	p.number = pick_pending(d, &p.rng);
	return p;
}

static enum fate plan_fate(struct plan *p, uint64_t number)
{
	switch (p->loss) {
	case LOSE_ALL:
		return LOST;
	case LOSE_NOTHING:
		return KEPT;
	case LOSE_AFTER:
		return number < p->number ? KEPT : number > p->number ? LOST : TORN;
	case LOSE_ONE:
		return number != p->number ? KEPT : rng64(&p->rng) & 1 ? LOST : TORN;
	case KEEP_ONE:
		return number != p->number ? LOST : rng64(&p->rng) & 1 ? KEPT : TORN;
	case LOSE_SOME:
		break;
	}
	return rng_percent(&p->rng, p->keep) ? KEPT : rng64(&p->rng) & 1 ? LOST : TORN;
}

static void crash_file(struct node *n, struct plan *p)
{
	size_t count;
	struct op **list = ops_list(n, &count);

	for (size_t i = 0; i < count; i++) {
		switch (plan_fate(p, list[i]->number)) {
		case KEPT:
			op_apply(list[i], &n->durable);
			break;
		case TORN:
			op_apply_torn(list[i], &n->durable, &p->rng);
			break;
		case LOST:
			break;
		}
	}
	free(list);
}

static void crash_names(struct disk *d, struct plan *p)
{
	struct name_op **at = &d->name_ops;

	while (*at) {
		struct name_op *op = *at;
		enum fate fate = plan_fate(p, op->number);

		if (fate == TORN)
			fate = rng64(&p->rng) & 1 ? KEPT : LOST;
		if (fate == LOST || name_op_held(d->name_ops, op)) {
			at = &op->next;
			continue;
		}
		name_op_apply(d, op);
		*at = op->next;
		free(op);
	}
	name_ops_free(d);
}

/* What is on the disk is what programs see from now on. */
static void disk_restart(struct disk *d)
{
	name_ops_free(d);
	for (size_t i = 0; i < d->nodes; i++) {
		struct node *n = d->node[i];
		if (!n)
			continue;
		n->links = i == SIM_ROOT;
		if (n->dir) {
			names_unref(n->names);
			n->names = names_ref(n->durable_names);
			continue;
		}
		content_unref(n->now);
		n->now = content_ref(n->durable);
		ops_forget(n);
	}
	disk_sweep(d);
	for (size_t i = 0; i < d->nodes; i++) {
		const struct names *names = d->node[i] ? d->node[i]->names : NULL;
		for (size_t k = 0; names && k < names->count; k++)
			d->node[names->entry[k].node]->links++;
	}
}

void disk_crash(struct disk *d, uint64_t seed)
{
	struct plan p = plan_make(d, seed);

	crash_names(d, &p);
	for (size_t i = 0; i < d->nodes; i++) {
		if (d->node[i] && d->node[i]->ops)
			crash_file(d->node[i], &p);
	}
	disk_restart(d);
}

void disk_crash_last(struct disk *d)
{
	for (const struct name_op *op = d->name_ops; op; op = op->next)
		name_op_apply(d, op);
	for (size_t i = 0; i < d->nodes; i++) {
		if (d->node[i] && d->node[i]->ops)
			op_apply(d->node[i]->ops, &d->node[i]->durable);
	}
	disk_restart(d);
}
