/* Random operations on file data. */
#include "tests/core/inside.h"
#include "tests/core/run.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static struct run_handle *random_handle(struct run *r)
{
	struct run_handle *h = &r->handle[run_below(r, RUN_HANDLES)];

	for (size_t n = 0; n < RUN_HANDLES && !h->file; n++)
		h = &r->handle[run_below(r, RUN_HANDLES)];
	return h->file ? h : NULL;
}

void run_op_open(struct run *r)
{
	static const int accesses[] = {O_RDWR, O_RDWR, O_RDWR, O_RDONLY};
	struct run_handle *h = &r->handle[run_below(r, RUN_HANDLES)];
	struct model_inode *i = run_pick(r, run_is_file);
	int ret;

	if (h->file || !i)
		return;
	h->flags = accesses[run_below(r, 4)];
	if (h->flags == O_RDWR && run_chance(r, 8))
		h->flags |= run_chance(r, 50) ? O_SYNC : O_DSYNC;
	run_say(r, "open %llu flags %#x", (unsigned long long)i->ino, (unsigned)h->flags);
	run_use(r, i);
	ret = core_file_open(r->fx.core, i->ino, h->flags, &h->file);
	run_expect(r, ret, 0);
	h->ino = i->ino;
	i->opens++;
	run_check_inode(r, i);
}

void run_op_close(struct run *r)
{
	struct run_handle *h = random_handle(r);
	struct model_inode *i;

	if (!h)
		return;
	i = model_inode_get(r->m, h->ino);
	run_say(r, "close %llu", (unsigned long long)h->ino);
	core_file_close(h->file);
	h->file = NULL;
	i->opens--;
	model_inode_settle(r->m, i);
}

struct run_handle *run_handle_any(struct run *r, bool write)
{
	struct run_handle *h = random_handle(r);

	if (!h) {
		run_op_open(r);
		h = random_handle(r);
	}
	return h && (!write || (h->flags & O_ACCMODE) != O_RDONLY) ? h : NULL;
}

static size_t random_length(struct run *r)
{
	static const size_t limits[] = {1, 16, 4096, 4096, 16384, 65536, 65536, 262144};
	size_t limit = limits[run_below(r, 8)];

	if (run_chance(r, 3))
		limit = RUN_WRITE;
	if (run_chance(r, 25))
		return limit > 4096 ? limit : 4096; /* whole blocks, as the kernel sends them */
	return 1 + (size_t)run_below(r, limit);
}

static uint64_t random_offset(struct run *r, const struct model_inode *i)
{
	uint64_t off;

	switch (run_below(r, 10)) {
	case 0:
	case 1:
	case 2:
		off = i->size;
		break;
	case 3:
		off = 0;
		break;
	case 4:
		off = i->size + run_below(r, 200000);
		break;
	case 5:
		if (!r->crashes && run_chance(r, 20))
			return run_below(r, (uint64_t)1 << (30 + run_below(r, 24)));
		off = i->size + 4096 * run_below(r, 100);
		break;
	default:
		off = run_below(r, i->size + 1);
		if (off > 4u << 20)
			off %= 4u << 20;
	}
	return run_chance(r, 50) ? off & ~(uint64_t)4095 : off;
}

void run_op_read(struct run *r)
{
	struct run_handle *h = run_handle_any(r, false);
	struct model_inode *i;
	uint64_t off;
	size_t len;

	if (!h)
		return;
	i = model_inode_get(r->m, h->ino);
	off = random_offset(r, i);
	len = random_length(r);
	run_say(r, "read %llu: %zu at %llu", (unsigned long long)h->ino, len, (unsigned long long)off);
	run_check_range(r, h->file, i, off, len);
}

void run_op_write(struct run *r)
{
	struct run_handle *h = run_handle_any(r, true);
	size_t len = random_length(r);
	struct model_inode *i;
	unsigned flags = 0;
	uint64_t off;
	bool blocks;
	int ret;

	if (!h)
		return;
	if (len > r->budget)
		len = 1 + (size_t)run_below(r, 64);
	else
		r->budget -= len;
	i = model_inode_get(r->m, h->ino);
	off = random_offset(r, i);
	if (r->crashes && off > 2u << 20)
		off &= 0x1fffff;
	flags |= run_chance(r, 50) ? CORE_KEEP_TIMES : 0;
	flags |= run_chance(r, 10) ? CORE_KILL_SUIDGID : 0;
	flags |= run_chance(r, 15) ? CORE_WRITE_APPEND : 0;
	blocks = run_chance(r, 50);
	if (blocks && run_chance(r, 50))
		off -= off % POOL_BLOCK;
	run_say(r, "write %llu: %zu at %llu flags %u%s", (unsigned long long)h->ino, len, (unsigned long long)off,
	        flags, blocks ? " in blocks" : "");
	fill_data(&r->rng, r->a, len);
	memcpy(r->b, r->a, len);
	ret = blocks ? write_blocks(&r->fx, h->file, r->a, len, off, flags)
	             : core_file_write(h->file, r->a, len, off, flags);
	run_expect(r, ret, 0);
	memset(r->a, 0xee, len); /* the buffer is ours again */
	if (flags & CORE_WRITE_APPEND)
		off = i->size;
	model_write(r->m, i, r->b, len, off);
	if (!(flags & CORE_KEEP_TIMES))
		i->mtime = i->ctime = r->m->now;
	if (flags & CORE_KILL_SUIDGID)
		model_kill_setid(i);
	if (h->flags & (O_SYNC | O_DSYNC))
		run_synced_inode(r, i);
	run_check_inode(r, i);
	off = off > 5000 ? off - run_below(r, 5000) : 0;
	run_check_range(r, h->file, i, off, len + 10000 < RUN_WRITE ? len + 10000 : RUN_WRITE);
}

void run_write_new(struct run *r, struct model_inode *i)
{
	size_t len = random_length(r) % 150000;
	struct core_file *f;

	run_expect(r, core_file_open(r->fx.core, i->ino, O_WRONLY, &f), 0);
	fill_data(&r->rng, r->a, len);
	run_expect(r, core_file_write(f, r->a, len, 0, 0), 0);
	model_write(r->m, i, r->a, len, 0);
	core_file_close(f);
}

void run_op_truncate(struct run *r)
{
	struct model_inode *i = run_pick(r, run_is_file);
	unsigned which = CORE_SET_SIZE;
	struct core_attr in = {0}, out;
	int ret;

	if (!i)
		return;
	in.size = run_chance(r, 15) ? 0 : run_chance(r, 60) ? run_below(r, i->size + 1) : random_offset(r, i);
	if (r->crashes)
		in.size &= 0x3fffff;
	if (in.size == i->size)
		return;
	which |= run_chance(r, 20) ? CORE_KILL_SUIDGID : 0;
	which |= run_chance(r, 20) ? CORE_SET_MTIME : 0;
	in.mtime.sec = 42;
	run_say(r, "truncate %llu from %llu to %llu", (unsigned long long)i->ino, (unsigned long long)i->size,
	        (unsigned long long)in.size);
	run_use(r, i);
	ret = core_setattr(r->fx.core, i->ino, which, &in, &out);
	run_expect(r, ret, 0);
	model_truncate(r->m, i, in.size);
	i->mtime = which & CORE_SET_MTIME ? in.mtime : r->m->now;
	i->ctime = r->m->now;
	if (which & CORE_KILL_SUIDGID)
		model_kill_setid(i);
	run_check_attr(r, &out, i);
}

void run_op_fsync(struct run *r)
{
	struct model_inode *i = run_pick(r, run_chance(r, 80) ? run_is_file : run_is_dir);
	int ret;

	if (run_chance(r, 20)) {
		run_say(r, "sync");
		ret = core_sync(r->fx.core);
		run_expect(r, ret, 0);
		run_synced(r);
		return;
	}
	if (!i)
		return;
	run_say(r, "fsync %llu", (unsigned long long)i->ino);
	run_use(r, i);
	ret = core_fsync(r->fx.core, i->ino, run_chance(r, 50));
	run_expect(r, ret, 0);
	if (S_ISDIR(i->mode))
		run_synced(r);
	else
		run_synced_inode(r, i);
}

void run_op_compact(struct run *r)
{
	bool all = run_chance(r, 70);

	if (r->syncing)
		return; /* only one thread may */
	run_say(r, "compact%s", all ? " all" : "");
	if (run_chance(r, 50))
		inside_roll(r->fx.core);
	run_expect(r, inside_compact(r->fx.core, all), 0);
	run_synced(r);
}
