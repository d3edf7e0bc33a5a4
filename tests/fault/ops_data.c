/* File data, durability, and the volume as a whole. */
#include "tests/core/inside.h"
#include "tests/fault/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE ((size_t)65536) /* what core enters at once, up to the next multiple of it */
#define READ  ((size_t)256 << 10)

/* --- writes that fail --------------------------------------------------------------------------------------------- */

/* Piece after piece, each a step: without memory a write may wait for a commit in its midst. */
static void write_model(struct job *j, struct model_inode *i, const uint8_t *buf, size_t len, uint64_t off,
                        size_t piece)
{
	for (size_t done = 0, n; done < len; done += n) {
		n = piece - (off + done) % piece;
		n = n < len - done ? n : len - done;
		model_write(j->run.m, i, buf + done, n, off + done);
		step_begin(j);
	}
}

/* All that such a write may have left are versions from now on, and what was before is current again. */
static void doubt(struct job *j, struct model_inode *i, const uint8_t *buf, size_t len, uint64_t off, size_t piece)
{
	struct run *r = &j->run;
	struct model *m = r->m;
	uint64_t size = i->size;
	size_t kept = model_read(i, r->a, len, off);

	if (j->doubts == FAULT_DOUBTS)
		run_fail(r, "too many writes fail");
	j->doubt[j->doubts++] = (struct doubt){i->ino, m->step - 1, i->mtime, i->ctime};
	write_model(j, i, buf, len, off, piece);
	model_truncate(m, i, size);
	if (kept)
		model_write(m, i, r->a, kept, off);
}

static bool doubted(const struct job *j, uint64_t ino)
{
	for (size_t n = 0; n < j->doubts; n++)
		if (!ino || j->doubt[n].ino == ino)
			return true;
	return false;
}

static bool same_time(struct clock_time a, struct clock_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

/* One of the versions that it may have becomes the model's. */
static void settle(struct job *j, const struct doubt *d)
{
	STEP(j, "settling inode %llu", (unsigned long long)d->ino);
	struct model_inode *i = model_inode_get(r->m, d->ino);
	struct core_file *f;
	struct core_attr attr;

	if (!i || (!i->nlink && !i->refs))
		return;
	run_use(r, i);
	run_expect(r, core_getattr(r->fx.core, i->ino, &attr), 0);
	if (!model_size_was(i, attr.size, d->since))
		run_fail(r, "after a failed write the size is %llu", (unsigned long long)attr.size);
	run_expect(r, core_file_open(r->fx.core, i->ino, O_RDONLY, &f), 0);
	model_truncate(r->m, i, attr.size);
	for (uint64_t off = 0; off < attr.size; off += MODEL_BLOCK) {
		size_t want = attr.size - off < MODEL_BLOCK ? (size_t)(attr.size - off) : (size_t)MODEL_BLOCK;

		if (core_file_read(f, r->a, want, off) != (ssize_t)want)
			run_fail(r, "after a failed write the file cannot be read");
		if (!model_block_was(i, off / MODEL_BLOCK, r->a, want, d->since))
			run_fail(r, "after a failed write the block at %llu is neither old nor new",
			         (unsigned long long)off);
		model_write(r->m, i, r->a, want, off);
	}
	core_file_close(f);
	if (same_time(i->mtime, d->mtime) && same_time(i->ctime, d->ctime)) {
		i->mtime = attr.mtime; /* of the last write that did something, if it is not as before */
		i->ctime = attr.ctime;
	}
	i->atime_known = false;
}

void op_settle_doubts(struct job *j)
{
	for (size_t n = 0; n < j->doubts; n++)
		settle(j, &j->doubt[n]);
	j->doubts = 0;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static void closed(struct job *j, struct core_file *f)
{
	job_enter(j);
	core_file_close(f);
	job_leave(j);
}

static struct core_file *opened(struct job *j, const struct model_inode *i, int flags)
{
	struct core_file *f = NULL;

	if (!i || job_did(j, CALL(j, core_file_open(j->run.fx.core, i->ino, flags, &f))))
		return f;
	if (f) /* of a volume that has stopped */
		closed(j, f);
	return NULL;
}

/* What a change of [off, off + len) to buf has come to. */
static void changed(struct job *j, struct model_inode *i, bool did, const uint8_t *buf, size_t len, uint64_t off,
                    size_t piece)
{
	if (!did) {
		doubt(j, i, buf, len, off, piece);
		return;
	}
	i->mtime = i->ctime = j->run.m->now;
	write_model(j, i, buf, len, off, piece);
}

static bool write_at(struct job *j, struct core_file *f, struct model_inode *i, const uint8_t *buf, size_t len,
                     uint64_t off)
{
	bool did = job_did(j, CHANGE(j, write_blocks(&j->run.fx, f, buf, len, off, 0)));

	changed(j, i, did, buf, len, off, PIECE);
	return did;
}

void op_write(struct job *j, const char *path, size_t len, uint64_t off, int flags)
{
	STEP(j, "write %s: %zu at %llu, flags %#x", path, len, (unsigned long long)off, (unsigned)flags);
	struct model_inode *i = op_walk(j, path);
	struct core_file *f = opened(j, i, O_RDWR | flags);
	uint8_t *buf = malloc(len);

	if (!buf)
		abort();
	fill_data(&r->rng, buf, len);
	if (f) {
		if (write_at(j, f, i, buf, len, off) && flags & (O_SYNC | O_DSYNC) && !j->doubts)
			run_synced_inode(r, i);
		closed(j, f);
	}
	free(buf);
}

void op_clone(struct job *j, const char *from, uint64_t off, const char *to, uint64_t to_off, size_t len)
{
	STEP(j, "clone %zu of %s to %s", len, from, to);
	struct model_inode *a = op_walk(j, from), *b = op_walk(j, to);
	struct core_file *f = a && b && !doubted(j, a->ino) ? opened(j, a, O_RDONLY) : NULL;
	struct core_file *g = f ? opened(j, b, O_RDWR) : NULL;
	uint8_t *buf = calloc(1, len);

	if (!buf)
		abort();
	if (g) {
		(void)model_read(a, buf, len, off);
		int n = CHANGE(j, (int)core_file_clone(f, off, g, to_off, len, 0));
		bool did = job_did(j, n);

		if (did && (size_t)n < len && !job_hit(j))
			run_fail(r, "only %d bytes were cloned", n);
		changed(j, b, did && (size_t)n == len, buf, len, to_off, MODEL_BLOCK);
		closed(j, g);
	}
	if (f)
		closed(j, f);
	free(buf);
}

void op_punch(struct job *j, const char *path, size_t len, uint64_t off)
{
	STEP(j, "punch %zu at %llu out of %s", len, (unsigned long long)off, path);
	struct model_inode *i = op_walk(j, path);
	struct core_file *f = opened(j, i, O_RDWR);
	uint8_t *buf;

	if (!f)
		return;
	buf = calloc(1, len); /* all of it lies within the file, if nothing has failed */
	if (!buf)
		abort();
	bool did =
	    job_did(j, CHANGE(j, core_file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len, 0)));
	changed(j, i, did, buf, i->size <= off ? 0 : len < i->size - off ? len : (size_t)(i->size - off), off, PIECE);
	closed(j, f);
	free(buf);
}

void op_scatter(struct job *j, const char *path, unsigned count, uint64_t within)
{
	STEP(j, "scatter %u blocks over %s", count, path);
	struct model_inode *i = op_walk(j, path);
	struct core_file *f = opened(j, i, O_WRONLY);
	uint8_t buf[4096];

	for (; f && count; count--) {
		uint64_t off = rng_below(&r->rng, within / 4096) * 4096;

		step_begin(j);
		fill_data(&r->rng, buf, sizeof(buf));
		if (!write_at(j, f, i, buf, sizeof(buf), off))
			break;
	}
	if (f)
		closed(j, f);
}

static void read_through(struct job *j, struct core_file *f, struct model_inode *i)
{
	struct run *r = &j->run;

	i->atime_known = false;
	for (uint64_t off = 0; off < i->size; off += READ) {
		size_t want = model_read(i, r->b, READ, off);
		ssize_t got = CALL(j, core_file_read(f, r->a, READ, off));

		if (!job_did(j, got < 0 ? got : 0) || doubted(j, i->ino))
			continue;
		if ((size_t)got != want || memcmp(r->a, r->b, want) != 0)
			run_fail(r, "other data is read at %llu", (unsigned long long)off);
	}
}

void op_read(struct job *j, const char *path)
{
	STEP(j, "read %s", path);
	struct model_inode *i = op_walk(j, path);
	struct core_file *f = opened(j, i, O_RDONLY);

	if (!f)
		return;
	read_through(j, f, i);
	closed(j, f);
}

void op_unlink_open(struct job *j, const char *path)
{
	STEP(j, "unlink %s while it is open", path);
	struct model_inode *i = op_walk(j, path);
	struct core_file *f = opened(j, i, O_RDONLY);

	if (!f)
		return;
	i->opens++;
	step_begin(j);
	op_unlink(j, path);
	read_through(j, f, i);
	closed(j, f);
	i->opens--;
	if (i->nlink)
		return;
	op_forget_inode(j, i);
}

/* --- durability --------------------------------------------------------------------------------------------------- */

/* Where a write has failed nobody knows yet what became durable. */
static void synced(struct job *j, struct model_inode *i)
{
	struct run *r = &j->run;

	r->names[r->m->step] = r->m->names;
	if (j->doubts)
		return;
	if (i && !S_ISDIR(i->mode))
		run_synced_inode(r, i);
	else
		run_synced(r);
}

void op_fsync(struct job *j, const char *path)
{
	STEP(j, "fsync %s", path);
	struct model_inode *i = op_walk(j, path);

	if (i && job_did(j, CHANGE(j, core_fsync(r->fx.core, i->ino, false))))
		synced(j, i);
}

void op_sync(struct job *j)
{
	STEP(j, "sync");
	if (job_did(j, CHANGE(j, core_sync(r->fx.core))))
		synced(j, NULL);
}

void op_compact(struct job *j)
{
	STEP(j, "compact");
	if (job_did(j, CALL(j, inside_compact(r->fx.core, true))))
		synced(j, NULL);
}

bool op_open(struct job *j)
{
	STEP(j, "open");
	struct err e = {0};

	r->fx.io = r->fx.options.io = r->fx.disk;
	r->fx.options.clock = &r->fx.clock.clock;
	r->fx.core = NULL;
	struct core *c = NULL;
	int ret = CALL(j, core_open(&r->fx.options, &c, &e));
	(void)job_did(j, ret);
	r->fx.core = ret ? NULL : c; /* open, even if it has stopped meanwhile */
	return !ret;
}

void op_close(struct job *j)
{
	STEP(j, "close");
	struct core *c = r->fx.core;
	struct err e = {0};

	if (!c)
		return;
	bool stopped = job_stopped(j);
	int ret = CHANGE(j, core_close(c, &e));
	r->fx.core = NULL; /* freed, whatever the result */
	model_remount(r->m);
	if (stopped || (job_hit(j) && (ret == -EROFS || ret == -EIO)))
		return; /* it has stopped before, or meanwhile */
	if (job_did(j, ret))
		synced(j, NULL);
}

void op_usual_tree(struct job *j)
{
	static const char *const small[] = {"d/s0", "d/s1", "d/s2", "d/s3", "d/s4", "d/s5", "d/s6", "d/s7"};

	(void)op_make(j, "d", S_IFDIR | 0755);
	(void)op_make(j, "e", S_IFDIR | 0755);
	(void)op_make(j, "d/sub", S_IFDIR | 0755);
	for (size_t n = 0; n < sizeof(small) / sizeof(small[0]); n++) {
		(void)op_make(j, small[n], S_IFREG | 0644);
		op_write(j, small[n], 500 + 700 * n, 0, 0);
	}
	(void)op_make(j, "large", S_IFREG | 0644);
	op_write(j, "large", 700000, 0, 0);
	(void)op_make(j, "inline", S_IFREG | 0644);
	op_write(j, "inline", 6000, 0, O_SYNC);
	op_sync(j);
	op_scatter(j, "large", 12, 655360);
	op_link(j, "d/s0", "e/link");
	(void)op_symlink(j, "e/symlink", "somewhere/else");
	op_setxattr(j, "d/s1", "user.short", 20);
	op_setxattr(j, "d/s1", "user.long", 30000);
	op_setxattr(j, "d", "trusted.t", 5);
	op_sync(j);
}
