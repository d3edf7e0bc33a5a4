/* Random operations on ranges of files. */
#include "tests/core/run.h"

#include <errno.h>
#include <linux/falloc.h>
#include <string.h>

#define SIZE_MAX_CRASH ((uint64_t)4 << 20) /* where all of a file is looked at after each crash */

static uint64_t range_in(struct run *r, const struct model_inode *i, uint64_t *len)
{
	uint64_t off = run_below(r, i->size + 1), room = r->crashes ? 65536 : 4 << 20;

	*len = 1 + run_below(r, run_chance(r, 30) ? room : 20000);
	if (run_chance(r, 50)) {
		off &= ~(uint64_t)4095;
		*len = (*len | 4095) + 1;
	}
	return off % SIZE_MAX_CRASH;
}

static void model_zero(struct run *r, struct model_inode *i, uint64_t off, uint64_t len)
{
	uint64_t end = off + len < i->size ? off + len : i->size;

	memset(r->b, 0, RUN_WRITE);
	for (; off < end; off += RUN_WRITE)
		model_write(r->m, i, r->b, end - off < RUN_WRITE ? (size_t)(end - off) : RUN_WRITE, off);
}

void run_op_fallocate(struct run *r)
{
	static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	                            FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	                            FALLOC_FL_PUNCH_HOLE,
	                            FALLOC_FL_ZERO_RANGE,
	                            FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	                            FALLOC_FL_KEEP_SIZE,
	                            FALLOC_FL_COLLAPSE_RANGE,
	                            FALLOC_FL_INSERT_RANGE,
	                            0};
	int mode = modes[run_below(r, sizeof(modes) / sizeof(modes[0]))], expected = 0;
	struct run_handle *h = run_handle_any(r, true);
	unsigned flags = run_chance(r, 10) ? CORE_KILL_SUIDGID : 0;
	struct model_inode *i;
	uint64_t off, len;

	if (!h)
		return;
	i = model_inode_get(r->m, h->ino);
	off = range_in(r, i, &len);
	run_say(r, "fallocate %llu: mode %d, %llu at %llu", (unsigned long long)h->ino, mode, (unsigned long long)len,
	        (unsigned long long)off);
	if (mode == FALLOC_FL_PUNCH_HOLE || mode == FALLOC_FL_COLLAPSE_RANGE || mode == FALLOC_FL_INSERT_RANGE)
		expected = -EOPNOTSUPP;
	run_expect(r, core_file_fallocate(h->file, mode, off, len, flags), expected);
	if (!expected) {
		if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
			model_zero(r, i, off, len);
		if (!(mode & FALLOC_FL_KEEP_SIZE) && off + len > i->size)
			model_truncate(r->m, i, off + len);
		if (flags)
			model_kill_setid(i);
		i->mtime = i->ctime = r->m->now;
		i->changed = r->m->step;
	}
	run_check_inode(r, i);
	off = off > 5000 ? off - run_below(r, 5000) : 0;
	run_check_range(r, h->file, i, off, len + 10000 < RUN_WRITE ? (size_t)len + 10000 : RUN_WRITE);
}

/* Of ranges that do not overlap, or of different files. */
static void model_clone(struct run *r, struct model_inode *from, uint64_t off, struct model_inode *to, uint64_t to_off,
                        uint64_t len)
{
	for (uint64_t done = 0; done < len;) {
		size_t n = len - done < RUN_WRITE ? (size_t)(len - done) : RUN_WRITE;

		memset(r->b, 0, n);
		(void)model_read(from, r->b, n, off + done);
		model_write(r->m, to, r->b, n, to_off + done);
		done += n;
	}
}

void run_op_clone(struct run *r)
{
	struct run_handle *to = run_handle_any(r, true), *from = run_handle_any(r, false);
	struct model_inode *src, *dst;
	uint64_t off, to_off, len, unused;
	bool overlap;

	if (!to || !from || !to->file)
		return;
	src = model_inode_get(r->m, from->ino);
	dst = model_inode_get(r->m, to->ino);
	off = range_in(r, src, &len);
	to_off = range_in(r, dst, &unused);
	if (run_chance(r, 30)) {
		off = to_off = 0;
		len = src->size < SIZE_MAX_CRASH ? src->size : SIZE_MAX_CRASH;
	} else if (run_chance(r, 80) && off + len > src->size) {
		len = src->size - off;
	}
	overlap = src == dst && off < to_off + len && to_off < off + len;
	/* A commit in the midst must find whole blocks of the model: what is stored is shared in one go. */
	if (r->crashes)
		run_expect(r, core_fsync(r->fx.core, src->ino, true), 0);
	run_say(r, "clone %llu at %llu: %llu to %llu at %llu", (unsigned long long)from->ino, (unsigned long long)off,
	        (unsigned long long)len, (unsigned long long)to->ino, (unsigned long long)to_off);
	if (core_file_clone(from->file, off, to->file, to_off, len, 0) != (overlap && len ? -EINVAL : (ssize_t)len))
		run_fail(r, "not all was cloned");
	if (!overlap && len) {
		model_clone(r, src, off, dst, to_off, len);
		dst->mtime = dst->ctime = r->m->now;
	}
	run_check_inode(r, dst);
	to_off = to_off > 5000 ? to_off - run_below(r, 5000) : 0;
	run_check_range(r, to->file, dst, to_off, len + 10000 < RUN_WRITE ? (size_t)len + 10000 : RUN_WRITE);
}
