/* Reading and writing a file's bytes through its map. */
#include "fs/core/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOAD_EXTENTS   128u
#define BAD_READ_QUIET ((uint64_t)60 * 1000000000) /* ns */
#define READ_RETRIES   8                           /* reads that met an extent which moved meanwhile */
#define STREAM_STEPS   4096u /* pieces looked at for one chunk: a random writer has many and fills none */
#define PREFETCH_JOB   ((uint32_t)256 << 10)
#define PIECE_SHARE    2048u /* bytes of memory for each piece that all maps together may cache of the index */

/* --- the map ------------------------------------------------------------------------------------------------------ */

static int load_hole(struct node *n, uint64_t from, uint64_t to)
{
	struct piece hole = {.off = from, .len = to - from, .kind = PIECE_HOLE};

	return to > from ? map_set(&n->map, &hole, NULL) : 0;
}

void data_forget(struct node *n)
{
	if (n->map.count - n->map.dirty > LOAD_EXTENTS)
		map_drop_clean(&n->map);
}

int data_load(struct core *c, struct node *n, uint64_t from)
{
	struct index_extent x[LOAD_EXTENTS];
	struct piece *next;
	uint64_t end;
	size_t count = 0;
	int ret = 0;

	if (atomic_load_explicit(&c->pieces, memory_order_relaxed) > c->opt.memory / PIECE_SHARE)
		data_forget(n);
	next = map_find(&n->map, from);
	end = next ? next->off : CORE_SIZE_MAX; /* one answer may be a hole of 2^60 bytes */
	if (!n->in_index && !n->in_cut)
		return load_hole(n, from, end);
	ret = index_extent_list(c->index, n->ino, from, end, x, LOAD_EXTENTS, &count);
	if (count == LOAD_EXTENTS && x[count - 1].off + x[count - 1].len < end)
		end = x[count - 1].off + x[count - 1].len; /* what lies further is for another call */
	uint64_t gap = map_gap(&n->map, next);
	if (count && x[0].off < from) /* as a whole, or each read further down asks for another part of it */
		from = x[0].off > gap ? x[0].off : gap;
	for (size_t i = 0; i < count && !ret; i++) {
		uint64_t start = x[i].off > from ? x[i].off : from;
		uint64_t stop = x[i].off + x[i].len < end ? x[i].off + x[i].len : end;
		struct piece p = {.off = start,
		                  .len = stop - start,
		                  .kind = PIECE_EXTENT,
		                  .chunk = x[i].chunk,
		                  .pos = x[i].chunk_off + (uint32_t)(start - x[i].off)};

		ret = load_hole(n, from, start);
		if (!ret)
			ret = map_set(&n->map, &p, NULL);
		from = stop;
	}
	return ret ? ret : load_hole(n, from, end);
}

int data_piece(struct core *c, struct node *n, uint64_t off, struct piece **out)
{
	struct piece *p = map_find(&n->map, off);
	int ret;

	if (!p || p->off > off) {
		ret = data_load(c, n, off);
		if (ret)
			return ret;
		p = map_find(&n->map, off);
		if (!p || p->off > off)
			return -EIO;
	}
	*out = p;
	return 0;
}

int data_set_hole(struct core *c, struct node *n, uint64_t off, uint64_t len)
{
	struct piece hole = {.off = off, .len = len, .kind = PIECE_HOLE, .dirty = true};

	space_freed(c);
	if (n->in_index || n->in_cut)
		return map_set(&n->map, &hole, NULL);
	return map_clear(&n->map, off, len);
}

int data_truncate(struct core *c, struct node *n, uint64_t size)
{
	if (size < n->attr.size) {
		int ret = data_set_hole(c, n, size, CORE_SIZE_MAX - size);

		if (ret)
			return ret;
		if (n->full_from > size)
			n->full_from = size;
		n->pending_bytes = n->pending_bytes < size ? n->pending_bytes : size;
		if (n->attr.blocks)
			n->attr.blocks =
			    size ? 1 + (uint64_t)((double)(n->attr.blocks - 1) * ((double)size / (double)n->attr.size))
				 : 0;
	}
	n->attr.size = size;
	node_touch(c, n);
	return 0;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

/* What is written, from byte `at` on: in blocks of `size` bytes, which may be exchanged if it is POOL_BLOCK. */
struct source {
	void **block;
	size_t size, at;
};

static void source_copy(const struct source *s, uint8_t *dst, size_t len)
{
	for (size_t at = s->at, k; len; at += k, dst += k, len -= k) {
		size_t room = s->size - at % s->size;

		k = room < len ? room : len;
		memcpy(dst, (const uint8_t *)s->block[at / s->size] + at % s->size, k);
	}
}

/* The next len bytes are a whole block, to be kept rather than copied. */
static bool source_is_block(const struct source *s, size_t len)
{
	return s->size == POOL_BLOCK && len == POOL_BLOCK && s->at % POOL_BLOCK == 0;
}

static bool piece_writable(const struct piece *p)
{
	return p->kind == PIECE_BUFFER && !p->buffer->inflight;
}

/* Bytes go into whole blocks of POOL_BLOCK, aligned in the file, so that a sequential writer's frames are. */
static int write_step(struct core *c, struct node *n, const struct source *src, size_t len, uint64_t off, size_t *done)
{
	struct piece *p = map_find(&n->map, off);
	size_t room = POOL_BLOCK - off % POOL_BLOCK;
	size_t k = len < room ? len : room;
	size_t cap = k;
	struct buffer *b;
	struct piece piece;
	bool kept;
	int ret;

	if (p && p->off <= off && piece_writable(p)) {
		uint64_t left = p->off + p->len - off;

		*done = len < left ? len : (size_t)left;
		source_copy(src, p->buffer->data + p->pos + (off - p->off), *done);
		return 0;
	}
	p = off % POOL_BLOCK ? map_before(&n->map, off) : NULL;
	if (p && piece_writable(p) && p->pos + p->len == p->buffer->len) {
		b = p->buffer;
		if (b->len < b->cap) {
			k = k < b->cap - b->len ? k : b->cap - b->len;
			ret = map_extend(&n->map, p, k);
			if (ret)
				return ret;
			source_copy(src, b->data + b->len, k);
			b->len += (uint32_t)k;
			n->pending_bytes += k;
			*done = k;
			return 0;
		}
		cap = 2 * (size_t)b->cap < room ? 2 * (size_t)b->cap : room; /* appended to again and again */
		cap = cap < k ? k : cap;
	}
	ret = buffer_new(c, n, cap, &b);
	if (ret)
		return ret;
	kept = source_is_block(src, k);
	if (!kept)
		source_copy(src, b->data, k);
	b->len = (uint32_t)k;
	piece = (struct piece){.off = off, .len = k, .kind = PIECE_BUFFER, .buffer = b, .dirty = true};
	ret = map_set(&n->map, &piece, NULL);
	if (ret) {
		buffer_unref(b);
		return ret;
	}
	if (kept) { /* now that nothing can fail: who tries again finds it where it was */
		void **block = &src->block[src->at / POOL_BLOCK], *empty = b->data;

		b->data = *block;
		*block = empty;
	}
	n->pending_bytes += k;
	*done = k;
	return 0;
}

/* As much as there is memory for: *done. -EAGAIN: wait and go on. Under n->lock. */
static int write_locked(struct core *c, struct node *n, struct source *src, size_t len, uint64_t off, size_t *done)
{
	int ret = 0;

	*done = 0;
	if (off < n->full_from)
		n->full_from = off;
	while (*done < len && !ret) {
		size_t k = 0;

		ret = write_step(c, n, src, len - *done, off + *done, &k);
		*done += k;
		src->at += k;
		n->unsealed += (uint32_t)k;
	}
	if (*done && off + *done > n->attr.size)
		n->attr.size = off + *done;
	return ret == -ENOMEM ? -EAGAIN : ret;
}

static void clear_setid(struct node *n, unsigned kill)
{
	if (kill & CORE_KILL_SUIDGID)
		n->attr.mode &= ~(uint32_t)S_ISUID;
	if (kill & CORE_KILL_SGID || (kill & CORE_KILL_SUIDGID && n->attr.mode & S_IXGRP))
		n->attr.mode &= ~(uint32_t)S_ISGID;
}

int data_kill_priv(struct core *c, struct node *n, unsigned kill)
{
	int ret;

	clear_setid(n, kill);
	if (kill & CORE_KEEP_CAPABILITY || !(n->attr.flags & NODE_CAPABILITY))
		return 0;
	ret = index_xattr_remove(c->index, n->ino, "security.capability");
	if (ret && ret != -ENODATA)
		return ret;
	n->attr.flags &= ~(uint32_t)NODE_CAPABILITY;
	atomic_store(&c->ns_dirty, true);
	return 0;
}

/* Bytes of the chunks that are made of n before a cut: whole buffers. Under n->lock. */
static uint32_t stream_chunk(struct core *c, const struct node *n)
{
	uint32_t chunk = policy_stream_chunk(&c->policy, atomic_load(&c->shrink), n->attr.size);

	return chunk < POOL_BLOCK ? POOL_BLOCK : chunk;
}

static int file_write(struct core_file *f, struct source src, size_t len, uint64_t off, unsigned flags)
{
	struct core *c = f->core;
	struct node *n = f->node;
	size_t claimed = len;
	bool stream;
	int ret = core_may_write(c);

	core_busy(c);
	if (ret || !len)
		return ret;
	ret = memory_wait(c, n, len);
	if (ret)
		return ret;
	for (;;) {
		size_t done = 0;

		{
			SCOPED_LOCK(&n->lock);
			if (flags & CORE_WRITE_APPEND && src.at == 0)
				off = n->attr.size;
			if (off >= CORE_SIZE_MAX || len > CORE_SIZE_MAX - off)
				ret = -EFBIG;
			if (!ret)
				ret = data_kill_priv(c, n, flags);
			if (!ret)
				ret = write_locked(c, n, &src, len, off, &done);
			if (ret == -EFBIG)
				break;
			if (!(flags & CORE_KEEP_TIMES)) {
				n->attr.mtime = core_now(c);
				n->attr.ctime = n->attr.mtime;
			}
			node_touch(c, n);
			stream = n->unsealed >= stream_chunk(c, n);
		}
		if (stream)
			seal_stream(c, n);
		memory_release(c, n, done);
		claimed -= done;
		off += done;
		len -= done;
		if (ret != -EAGAIN)
			break;
		ret = cut_wait(c, NULL); /* the arena is full of small dirty pieces: make them clean */
		if (ret)
			break;
	}
	memory_release(c, n, claimed);
	if (!ret && f->flags & (O_SYNC | O_DSYNC))
		ret = cut_wait(c, n);
	return ret;
}

static int write_measured(struct core_file *f, struct source src, size_t len, uint64_t off, unsigned flags)
{
	struct metrics *m = f->core->metrics;
	uint64_t begin = metrics_now(m);
	int ret = file_write(f, src, len, off, flags);

	(void)metrics_lap(m, METRIC_WRITE_SECONDS, begin);
	metrics_add(m, METRIC_WRITE_BYTES, ret ? 0 : len);
	return ret;
}

int core_file_write(struct core_file *f, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	void *one = (void *)(uintptr_t)buf; /* which is only read, as its size is SIZE_MAX */

	return write_measured(f, (struct source){.block = &one, .size = SIZE_MAX}, len, off, flags);
}

int core_file_write_blocks(struct core_file *f, void **block, size_t len, uint64_t off, unsigned flags)
{
	return write_measured(f, (struct source){.block = block, .size = POOL_BLOCK}, len, off, flags);
}

void seal_stream(struct core *c, struct node *n)
{
	struct seal_item item[PIPELINE_CHUNK_MAX / POOL_BLOCK];
	size_t count;

	do {
		(void)pthread_mutex_lock(&n->lock);
		struct piece *p = map_find(&n->map, n->full_from), *first = p;
		uint32_t want = stream_chunk(c, n), have = 0;

		count = 0;
		for (unsigned steps = 0; p && have < want && steps < STREAM_STEPS; p = map_next(p), steps++)
			if (p->kind == PIECE_BUFFER && !p->sealing && p->len == POOL_BLOCK)
				have += POOL_BLOCK;
		if (have >= want && !n->cutting) {
			for (p = first; count < want / POOL_BLOCK; p = map_next(p))
				if (p->kind == PIECE_BUFFER && !p->sealing && p->len == POOL_BLOCK) {
					n->full_from = p->off + p->len;
					seal_take(c, n, p, &item[count++]);
				}
		} else {
			n->unsealed = have;
		}
		(void)pthread_mutex_unlock(&n->lock);
		if (count && seal_submit(c, item, count, POLICY_STREAM, true, false, NULL)) {
			seal_settle(item, count);
			for (size_t i = 0; i < count; i++)
				node_put(c, n);
		}
	} while (count);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* A run of bytes of one extent, taken from the map under the lock and read after. */
struct read_run {
	uint64_t chunk, off; /* off: in the file */
	uint8_t *dst;
	uint32_t pos, len;
};
#define READ_RUNS 64

/* Copies what is in memory, fills holes and notes extents, from *off to end or until runs are full. Under n->lock. */
static int read_map(struct core *c, struct node *n, uint8_t *dst, uint64_t *off, uint64_t end, struct read_run *run,
                    size_t *runs)
{
	*runs = 0;
	while (*off < end && *runs < READ_RUNS) {
		struct piece *p;
		int ret = data_piece(c, n, *off, &p);
		uint64_t skip, k;

		if (ret)
			return ret;
		skip = *off - p->off;
		k = p->len - skip < end - *off ? p->len - skip : end - *off;
		if (p->kind == PIECE_HOLE)
			memset(dst, 0, k);
		else if (p->kind == PIECE_BUFFER)
			memcpy(dst, p->buffer->data + p->pos + skip, k);
		else
			run[(*runs)++] = (struct read_run){p->chunk, *off, dst, p->pos + (uint32_t)skip, (uint32_t)k};
		*off += k;
		dst += k;
	}
	return 0;
}

struct prefetch {
	struct core *core;
	struct node *node;
	uint64_t off;
};

static void prefetch_run(void *arg)
{
	struct prefetch *pf = arg;
	struct core *c = pf->core;
	uint64_t off = pf->off, end = off + PREFETCH_JOB;

	while (off < end) {
		struct piece *p, got;
		{
			SCOPED_LOCK(&pf->node->lock);
			if (off >= pf->node->attr.size || data_piece(c, pf->node, off, &p))
				break;
			got = *p;
		}
		uint64_t skip = off - got.off, len = got.len - skip < end - off ? got.len - skip : end - off;

		if (got.kind == PIECE_EXTENT)
			chunk_prefetch(c, got.chunk, got.pos + (uint32_t)skip, (uint32_t)len);
		off += len;
	}
	node_put(c, pf->node);
	free(pf);
}

/* Decodes ahead of a sequential reader that asks in small pieces; large ones the kernel reads ahead by itself. */
static void prefetch(struct core *c, struct node *n, uint64_t off)
{
	struct prefetch *pf = malloc(sizeof(*pf));

	if (!pf)
		return;
	*pf = (struct prefetch){c, n, off};
	node_ref(c, n);
	if (!pipeline_run(c->pipeline, prefetch_run, pf))
		return;
	node_put(c, n);
	free(pf);
}

/* One line a chunk and file in a minute: whoever reads it tries again, page by page. */
static void read_failed(struct core *c, const struct node *n, const struct read_run *run, const char *why)
{
	uint64_t now = core_monotonic(c), key = run->chunk ^ n->ino << 32;

	if (atomic_load(&c->bad_read) == key && now - atomic_load(&c->bad_read_at) < BAD_READ_QUIET)
		return;
	atomic_store(&c->bad_read, key);
	atomic_store(&c->bad_read_at, now);
	log_error(
	    "inode %llu cannot be read at bytes %llu to %llu: %s; unmount and run `apfs check --data` to see which "
	    "files are damaged, restore them from a backup",
	    (unsigned long long)n->ino, (unsigned long long)run->off, (unsigned long long)(run->off + run->len - 1),
	    why);
}

/* -EAGAIN, unless it is the last try: a chunk is gone; it was replaced and deleted since the map was read. */
static int read_runs(struct core *c, const struct read_run *run, size_t runs, struct node *n, bool last)
{
	for (size_t i = 0; i < runs; i++) {
		struct err e = {0};
		int ret = chunk_copy(c, run[i].chunk, run[i].pos, run[i].len, run[i].dst, &e);

		if (ret == -ENOENT && !last)
			return -EAGAIN;
		if (ret == -ENOENT)
			(void)err_set(&e, ret, ERR_FORMAT, "the index knows no chunk %llu",
			              (unsigned long long)run[i].chunk);
		if (ret == -ENOMEM)
			return ret;
		if (ret) {
			metrics_add(c->metrics, METRIC_READ_ERRORS, 1);
			read_failed(c, n, &run[i], err_text(&e, ret));
			return -EIO;
		}
	}
	return 0;
}

ssize_t data_read(struct core_file *f, void *buf, size_t len, uint64_t off, bool access)
{
	struct core *c = f->core;
	struct node *n = f->node;
	struct read_run run[READ_RUNS];
	uint8_t *dst = buf;
	uint64_t pos = off, end = off, ahead = 0;
	int tries = 0;

	core_busy(c);
	do {
		size_t runs;
		uint64_t start = pos;
		int ret;
		{
			SCOPED_LOCK(&n->lock);
			end = off >= n->attr.size ? off : len < n->attr.size - off ? off + len : n->attr.size;
			if (pos == off && !tries) {
				n->streak = off == n->read_next ? n->streak + 1 : 0;
				n->read_next = off + len;
				if (n->streak >= 2 && len < PREFETCH_JOB &&
				    off / PREFETCH_JOB != (off + len) / PREFETCH_JOB)
					ahead = (off + len) / PREFETCH_JOB * PREFETCH_JOB + PREFETCH_JOB;
				if (access)
					node_accessed(c, n);
			}
			if (pos > end)
				break; /* truncated while we were reading */
			ret = read_map(c, n, dst + (pos - off), &pos, end, run, &runs);
		}
		if (!ret)
			ret = read_runs(c, run, runs, n, tries + 1 == READ_RETRIES);
		if (ret == -EAGAIN) {
			tries++;
			SCOPED_LOCK(&n->lock);
			map_drop_clean(&n->map); /* what was cached of the index may be old */
			pos = start;
			continue;
		}
		if (ret)
			return ret;
	} while (pos < end);
	if (ahead)
		prefetch(c, n, ahead);
	return (ssize_t)(end - off);
}

ssize_t core_file_read(struct core_file *f, void *buf, size_t len, uint64_t off)
{
	struct metrics *m = f->core->metrics;
	uint64_t begin = metrics_now(m);
	ssize_t ret = data_read(f, buf, len, off, true);

	(void)metrics_lap(m, METRIC_READ_SECONDS, begin);
	metrics_add(m, METRIC_READ_BYTES, ret < 0 ? 0 : (uint64_t)ret);
	return ret;
}
