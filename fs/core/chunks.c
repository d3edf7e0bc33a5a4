#include "base/cursor.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKS_IDLE_MAX  8192u
#define FRAMES_MAX       8192u /* a chunk of 16 MiB of the smallest frames that packing makes */
#define FRAME_ENTRY_MAX  11u   /* two varints of 32 bits and a byte */
#define FRAMES_BUF_SMALL 4096u

struct chunk_table {
	pthread_mutex_t lock;
	struct chunk *table;
	TAILQ_HEAD(, chunk) lru, fresh; /* lru: refs 0 and not fresh */
	size_t idle;
};

int chunk_table_new(struct chunk_table **out)
{
	struct chunk_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	(void)pthread_mutex_init(&t->lock, NULL);
	TAILQ_INIT(&t->lru);
	TAILQ_INIT(&t->fresh);
	*out = t;
	return 0;
}

static void chunk_free(struct chunk *k)
{
	free(k->p);
	free(k);
}

void chunk_table_free(struct chunk_table *t)
{
	struct chunk *k, *next;

	if (!t)
		return;
	HASH_ITER (hh, t->table, k, next) {
		HASH_DEL(t->table, k);
		chunk_free(k);
	}
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
}

/* Takes p over on success. */
static int chunk_new(struct pipeline_chunk *p, struct chunk **out)
{
	struct chunk *k = calloc(1, sizeof(*k) + (p->nframes + 1) * sizeof(k->start[0]));

	if (!k)
		return -ENOMEM;
	k->id = p->id;
	k->p = p;
	for (uint32_t i = 0; i < p->nframes; i++)
		k->start[i + 1] = k->start[i] + p->frame[i].plain_len;
	*out = k;
	return 0;
}

int chunk_add_fresh(struct core *c, struct pipeline_chunk *p, uint64_t sequence, uint64_t born, bool shared)
{
	struct chunk_table *t = c->chunks;
	struct chunk *k;
	int ret = chunk_new(p, &k);

	if (ret) {
		free(p);
		return ret;
	}
	k->sequence = sequence;
	k->born = born;
	k->fresh = true;
	k->shared = shared;
	SCOPED_LOCK(&t->lock);
	HASH_ADD(hh, t->table, id, sizeof(k->id), k);
	if (!k->hh.tbl) {
		chunk_free(k);
		return -ENOMEM;
	}
	TAILQ_INSERT_TAIL(&t->fresh, k, on_fresh);
	return 0;
}

int chunk_row_decode(const struct index_chunk *row, struct pipeline_chunk **out)
{
	struct cursor cur = cursor_reader(row->frames, row->frames_len);
	uint64_t nframes = cursor_get_varint(&cur);
	struct pipeline_chunk *p;
	uint64_t plain = 0;

	if (cur.bad || !nframes || nframes > FRAMES_MAX)
		return -EBADMSG;
	p = calloc(1, sizeof(*p) + nframes * sizeof(p->frame[0]));
	if (!p)
		return -ENOMEM;
	for (uint64_t i = 0; i < nframes; i++) {
		uint64_t plain_len = cursor_get_varint(&cur);
		uint64_t stored_len = cursor_get_varint(&cur);

		if (!plain_len || plain_len > PIPELINE_FRAME_MAX || stored_len > 2 * (uint64_t)PIPELINE_FRAME_MAX)
			cur.bad = true;
		p->frame[i].plain_len = (uint32_t)plain_len;
		p->frame[i].stored_len = (uint32_t)stored_len;
		p->frame[i].codec = cursor_get8(&cur);
		plain += plain_len;
	}
	if (cur.bad || plain != row->plain_len) {
		free(p);
		return -EBADMSG;
	}
	p->id = row->id;
	p->segment = row->segment;
	p->offset = row->offset;
	p->stored_len = row->stored_len;
	p->plain_len = row->plain_len;
	p->data_start = row->data_start;
	p->nframes = (uint32_t)nframes;
	*out = p;
	return 0;
}

/* The frame table as the index keeps it (docs/FORMAT.md, "Index"): malloc'd. */
static int frames_encode(const struct pipeline_chunk *p, void **out, size_t *len)
{
	size_t room = 10 + (size_t)p->nframes * FRAME_ENTRY_MAX;
	uint8_t *buf = malloc(room);
	struct cursor cur;

	if (!buf)
		return -ENOMEM;
	cur = cursor_writer(buf, room);
	cursor_put_varint(&cur, p->nframes);
	for (uint32_t i = 0; i < p->nframes; i++) {
		cursor_put_varint(&cur, p->frame[i].plain_len);
		cursor_put_varint(&cur, p->frame[i].stored_len);
		cursor_put8(&cur, p->frame[i].codec);
	}
	*out = buf;
	*len = room - cursor_left(&cur);
	return 0;
}

static int chunk_load(struct core *c, uint64_t id, struct chunk **out)
{
	uint8_t small[FRAMES_BUF_SMALL];
	uint8_t *large = NULL;
	struct index_chunk row;
	struct pipeline_chunk *p = NULL;
	int ret = index_chunk_get(c->index, id, &row, small, sizeof(small));

	if (ret == -ERANGE) {
		large = malloc(CHUNK_ROW_FRAMES);
		ret = large ? index_chunk_get(c->index, id, &row, large, CHUNK_ROW_FRAMES) : -ENOMEM;
	}
	if (!ret)
		ret = chunk_row_decode(&row, &p);
	free(large);
	if (ret) {
		if (ret == -EBADMSG)
			log_error("index: chunk %llu has a malformed frame table; run `apfs check`",
			          (unsigned long long)id);
		return ret;
	}
	ret = chunk_new(p, out);
	if (ret)
		free(p);
	else
		(*out)->in_row = row.is_inline;
	return ret;
}

static struct chunk *chunk_find(struct chunk_table *t, uint64_t id)
{
	struct chunk *k;

	HASH_FIND(hh, t->table, &id, sizeof(id), k);
	if (k && k->refs++ == 0 && !k->fresh) {
		TAILQ_REMOVE(&t->lru, k, lru);
		t->idle--;
	}
	return k;
}

int chunk_get(struct core *c, uint64_t id, struct chunk **out)
{
	struct chunk_table *t = c->chunks;
	struct chunk *k, *fresh;
	int ret;

	{
		SCOPED_LOCK(&t->lock);
		*out = chunk_find(t, id);
		if (*out)
			return 0;
	}
	ret = chunk_load(c, id, &fresh);
	if (ret)
		return ret;
	SCOPED_LOCK(&t->lock);
	k = chunk_find(t, id); /* somebody else may have loaded it meanwhile */
	if (k) {
		chunk_free(fresh);
	} else {
		k = fresh;
		k->refs = 1;
		HASH_ADD(hh, t->table, id, sizeof(k->id), k);
		if (!k->hh.tbl) {
			chunk_free(k);
			return -ENOMEM;
		}
	}
	*out = k;
	return 0;
}

/* Under the table's lock: an idle chunk joins the LRU, the oldest one leaves. */
static void chunk_idle(struct chunk_table *t, struct chunk *k)
{
	struct chunk *old;

	TAILQ_INSERT_TAIL(&t->lru, k, lru);
	if (++t->idle <= CHUNKS_IDLE_MAX)
		return;
	old = TAILQ_FIRST(&t->lru);
	TAILQ_REMOVE(&t->lru, old, lru);
	t->idle--;
	HASH_DEL(t->table, old);
	chunk_free(old);
}

void chunk_put(struct core *c, struct chunk *k)
{
	SCOPED_LOCK(&c->chunks->lock);

	if (--k->refs == 0 && !k->fresh)
		chunk_idle(c->chunks, k);
}

int chunk_install(struct core *c, uint64_t id)
{
	struct chunk_table *t = c->chunks;
	struct chunk *k;
	struct index_chunk row;
	void *frames;
	int ret;

	{
		SCOPED_LOCK(&t->lock);
		HASH_FIND(hh, t->table, &id, sizeof(id), k);
		if (!k || !k->fresh)
			return 0; /* the index has it */
	}
	row = (struct index_chunk){
	    .id = k->id,
	    .segment = k->p->segment,
	    .offset = k->p->offset,
	    .stored_len = k->p->stored_len,
	    .plain_len = k->p->plain_len,
	    .data_start = k->p->data_start,
	    .sequence = k->sequence,
	    .inline_data = k->p->inline_data,
	    .is_inline = k->p->inline_data != NULL,
	};
	ret = frames_encode(k->p, &frames, &row.frames_len);
	if (ret)
		return ret;
	row.frames = frames;
	ret = index_chunk_put(c->index, &row);
	free(frames);
	if (ret)
		return ret;
	SCOPED_LOCK(&t->lock);
	k->fresh = false;
	TAILQ_REMOVE(&t->fresh, k, on_fresh);
	if (!k->refs)
		chunk_idle(t, k);
	return 0;
}

void chunk_drop_stale(struct core *c, uint64_t cut)
{
	struct chunk_table *t = c->chunks;
	struct chunk *k, *next;

	SCOPED_LOCK(&t->lock);
	for (k = TAILQ_FIRST(&t->fresh); k; k = next) {
		next = TAILQ_NEXT(k, on_fresh);
		if (k->born >= cut || k->refs)
			continue;
		TAILQ_REMOVE(&t->fresh, k, on_fresh);
		HASH_DEL(t->table, k);
		chunk_free(k);
	}
}

void chunk_forget(struct core *c, uint64_t id)
{
	struct chunk_table *t = c->chunks;
	struct chunk *k;

	SCOPED_LOCK(&t->lock);
	HASH_FIND(hh, t->table, &id, sizeof(id), k);
	if (!k || !k->fresh || k->refs)
		return;
	TAILQ_REMOVE(&t->fresh, k, on_fresh);
	HASH_DEL(t->table, k);
	chunk_free(k);
}

bool chunk_is_joint(struct core *c, uint64_t id)
{
	struct chunk *k;

	SCOPED_LOCK(&c->chunks->lock);
	HASH_FIND(hh, c->chunks->table, &id, sizeof(id), k);
	return k && k->fresh && k->shared;
}

bool chunk_fresh_in(struct core *c, uint64_t segment)
{
	struct chunk *k;

	SCOPED_LOCK(&c->chunks->lock);
	TAILQ_FOREACH (k, &c->chunks->fresh, on_fresh)
		if (k->p->segment == segment)
			return true;
	return false;
}

uint32_t chunk_frame_at(const struct chunk *k, uint32_t pos)
{
	uint32_t lo = 0, hi = k->p->nframes;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (k->start[mid] <= pos)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* Runs of whole frames that nobody has decoded yet go straight to dst, with one read. */
static uint32_t whole_frames(struct core *c, const struct chunk *k, uint32_t frame, uint32_t pos, uint32_t end)
{
	uint32_t n = 0;

	if (k->start[frame] != pos)
		return 0;
	while (frame + n < k->p->nframes && k->start[frame + n + 1] <= end && !frame_cache_has(c, k->id, frame + n))
		n++;
	return n;
}

int chunk_copy(struct core *c, uint64_t id, uint32_t pos, uint32_t len, uint8_t *dst, struct err *e)
{
	struct chunk *k;
	uint32_t end = pos + len;
	int ret = chunk_get(c, id, &k);

	if (ret)
		return ret;
	if (end < pos || end > k->p->plain_len) {
		chunk_put(c, k);
		return err_set(e, -EBADMSG, ERR_FORMAT, "an extent lies outside chunk %llu", (unsigned long long)id);
	}
	while (pos < end && !ret) {
		uint32_t frame = chunk_frame_at(k, pos);
		uint32_t whole = whole_frames(c, k, frame, pos, end);
		uint32_t n = (whole                       ? k->start[frame + whole]
		              : k->start[frame + 1] < end ? k->start[frame + 1]
		                                          : end) -
		             pos;

		if (whole) {
			metrics_add(c->metrics, METRIC_CACHE_MISSES, whole);
			ret = frame_read(c, k, frame, whole, dst, e);
		} else {
			struct cached_frame *f;
			const uint8_t *data;

			ret = frame_cache_get(c, k, frame, &f, &data, e);
			if (!ret) {
				memcpy(dst, data + (pos - k->start[frame]), n);
				frame_cache_put(c, f);
			}
		}
		pos += n;
		dst += n;
	}
	chunk_put(c, k);
	return ret;
}

int frame_read(struct core *c, struct chunk *k, uint32_t frame, uint32_t count, void *out, struct err *e)
{
	size_t len = PIPELINE_INLINE_MAX;
	void *record;
	int ret;

	/* A fresh inline chunk holds its record itself; a row's is fetched, it is 32 KiB at the most. */
	if (!k->in_row)
		return pipeline_read_frames(c->pipeline, k->p, k->p->inline_data, frame, count, out, e);
	record = malloc(len);
	if (!record)
		return -ENOMEM;
	ret = index_inline_get(c->index, k->id, record, &len);
	if (!ret && len != k->p->stored_len)
		ret = err_set(e, -EBADMSG, ERR_FORMAT, "inline chunk %llu has the wrong length",
		              (unsigned long long)k->id);
	if (!ret)
		ret = pipeline_read_frames(c->pipeline, k->p, record, frame, count, out, e);
	free(record);
	return ret;
}

void chunk_prefetch(struct core *c, uint64_t id, uint32_t pos, uint32_t len)
{
	struct chunk *k;
	uint32_t end;

	if (chunk_get(c, id, &k))
		return;
	end = pos + len < k->p->plain_len ? pos + len : k->p->plain_len;
	for (uint32_t f = chunk_frame_at(k, pos); f < k->p->nframes && k->start[f] < end; f++) {
		struct cached_frame *cf;
		const uint8_t *data;

		if (!frame_cache_has(c, id, f) && !frame_cache_get(c, k, f, &cf, &data, NULL))
			frame_cache_put(c, cf);
	}
	chunk_put(c, k);
}

static int by_pos(const void *a, const void *b)
{
	const struct index_owned_extent *x = a, *y = b;

	if (x->x.chunk_off != y->x.chunk_off)
		return x->x.chunk_off < y->x.chunk_off ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

int chunk_extents(struct index *ix, uint64_t id, size_t most, struct index_owned_extent **out, size_t *n)
{
	size_t room = 256, got = 0;
	int ret = 0;

	*out = NULL;
	*n = 0;
	do {
		struct index_owned_extent *x = realloc(*out, room * sizeof(*x));
		const struct index_owned_extent *last;

		if (!x)
			return -ENOMEM;
		*out = x;
		last = *n ? &x[*n - 1] : NULL;
		ret =
		    index_chunk_extents(ix, id, last ? last->ino : 0, last ? last->x.off : 0, x + *n, room - *n, &got);
		*n += got;
		if (*n < room)
			break;
		room *= 4;
	} while (!ret && *n < most);
	qsort(*out, *n, sizeof(**out), by_pos);
	return ret;
}
