#include "pipeline/segment.h"

#include "base/lock.h"
#include "pipeline/keys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int segment_compare(const struct segment *a, const struct segment *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

RB_GENERATE_INTERNAL(segment_tree, segment, by_id, segment_compare, __attribute__((unused)) static)

void pipeline_segment_path(const uint8_t name[PIPELINE_SEGMENT_NAME], char *buf, size_t len)
{
	char hex[2 * PIPELINE_SEGMENT_NAME + 1];

	for (size_t i = 0; i < PIPELINE_SEGMENT_NAME; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", name[i]);
	(void)snprintf(buf, len, "segments/%.2s/%s", hex, hex);
}

bool pipeline_segment_name_parse(const char *file, uint8_t name[PIPELINE_SEGMENT_NAME])
{
	const size_t len = 2 * (size_t)PIPELINE_SEGMENT_NAME;

	if (strspn(file, "0123456789abcdef") != len || file[len])
		return false;
	for (size_t i = 0; i < PIPELINE_SEGMENT_NAME; i++) {
		unsigned byte = 0;

		(void)sscanf(file + 2 * i, "%2x", &byte);
		name[i] = (uint8_t)byte;
	}
	return true;
}

void segment_store_init(struct segment_store *s, const struct segment_store_options *o)
{
	memset(s, 0, sizeof(*s));
	s->io = o->io;
	s->keyring = o->keyring;
	s->workers = o->workers;
	s->governor = o->governor;
	s->metrics = o->metrics;
	memcpy(s->uuid, o->uuid, sizeof(s->uuid));
	s->suite = o->suite;
	s->next_id = o->next_id;
	s->full = o->full;
	s->map_max = o->map_max;
	s->read_only = o->read_only;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->created, NULL);
	(void)pthread_cond_init(&s->synced, NULL);
	(void)pthread_cond_init(&s->unpinned, NULL);
	RB_INIT(&s->by_id);
	TAILQ_INIT(&s->idle);
	TAILQ_INIT(&s->dirty);
	TAILQ_INIT(&s->made);
}

struct segment *segment_new(enum pipeline_segment_kind kind)
{
	struct segment *seg = calloc(1, sizeof(*seg));

	if (!seg)
		return NULL;
	seg->kind = kind;
	(void)pthread_mutex_init(&seg->opening, NULL);
	return seg;
}

void segment_free(struct segment *seg)
{
	io_close(seg->file);
	keys_secret_free(seg->key);
	(void)pthread_mutex_destroy(&seg->opening);
	free(seg);
}

void segment_store_release(struct segment_store *s)
{
	char path[SEGMENT_PATH];
	struct segment *seg;

	if (s->ready) {
		/* Nothing was ever written to it. If it cannot be removed the next mount finds it empty. */
		pipeline_segment_path(s->ready->name, path, sizeof(path));
		(void)!io_unlink(s->io, path);
		segment_free(s->ready);
	}
	while ((seg = RB_MIN(segment_tree, &s->by_id))) {
		RB_REMOVE(segment_tree, &s->by_id, seg);
		segment_free(seg);
	}
	(void)pthread_cond_destroy(&s->unpinned);
	(void)pthread_cond_destroy(&s->synced);
	(void)pthread_cond_destroy(&s->created);
	(void)pthread_mutex_destroy(&s->lock);
}

int segment_store_insert_locked(struct segment_store *s, struct segment *seg)
{
	if (RB_INSERT(segment_tree, &s->by_id, seg))
		return -EEXIST;
	if (seg->id >= s->next_id)
		s->next_id = seg->id + 1;
	return 0;
}

int segment_store_add(struct segment_store *s, const struct pipeline_segment *in)
{
	if (in->header_len > PIPELINE_HEADER_MAX || (unsigned)in->kind > PIPELINE_SEGMENT_INLINE ||
	    in->id == UINT64_MAX)
		return -EINVAL;
	if (in->kind == PIPELINE_SEGMENT_INLINE && !in->header_len)
		return -EINVAL;

	struct segment *seg = segment_new(in->kind);
	if (!seg)
		return -ENOMEM;
	seg->id = in->id;
	memcpy(seg->name, in->name, sizeof(seg->name));
	seg->epoch = in->epoch;
	seg->header_len = in->header_len;
	memcpy(seg->header, in->header, in->header_len);
	seg->size = in->size;

	SCOPED_LOCK(&s->lock);
	int ret = segment_store_insert_locked(s, seg);
	if (ret)
		segment_free(seg);
	return ret;
}

static struct segment *find_locked(struct segment_store *s, uint64_t id)
{
	struct segment key = {.id = id};

	return RB_FIND(segment_tree, &s->by_id, &key);
}

static void info_locked(const struct segment *seg, struct pipeline_segment *out)
{
	*out = (struct pipeline_segment){
	    .id = seg->id,
	    .kind = seg->kind,
	    .epoch = seg->epoch,
	    .header_len = seg->header_len,
	    .size = seg->size,
	    .open = seg->current || seg->writers,
	};
	memcpy(out->name, seg->name, sizeof(out->name));
	memcpy(out->header, seg->header, seg->header_len);
}

int segment_store_info(struct segment_store *s, uint64_t id, struct pipeline_segment *out)
{
	SCOPED_LOCK(&s->lock);
	const struct segment *seg = find_locked(s, id);

	if (!seg)
		return -ENOENT;
	info_locked(seg, out);
	return 0;
}

size_t segment_store_made(struct segment_store *s, uint64_t from, struct pipeline_segment *out, size_t max)
{
	const struct segment *seg;
	size_t n = 0;

	SCOPED_LOCK(&s->lock);
	TAILQ_FOREACH (seg, &s->made, made_link) {
		if (n == max)
			break;
		if (seg->id >= from)
			info_locked(seg, &out[n++]);
	}
	return n;
}

/* --- opening and closing ------------------------------------------------------------------------------------------ */

static void idle_remove_locked(struct segment_store *s, struct segment *seg)
{
	if (seg->idle)
		TAILQ_REMOVE(&s->idle, seg, idle_link);
	seg->idle = false;
}

/* Closes the segments that were idle longest while more than enough are open. */
void segment_evict_locked(struct segment_store *s)
{
	struct segment *seg;

	while (s->nopen > SEGMENT_OPEN_MAX && (seg = TAILQ_LAST(&s->idle, segment_list))) {
		idle_remove_locked(s, seg);
		s->mapped -= seg->mapped;
		io_close(seg->file);
		keys_secret_free(seg->key);
		seg->file = NULL;
		seg->key = NULL;
		seg->map_tried = false;
		seg->mapped = 0;
		s->nopen--;
	}
}

void segment_put_locked(struct segment_store *s, struct segment *seg)
{
	--seg->refs;
	if (seg->gone)
		(void)pthread_cond_broadcast(&s->unpinned);
	if (seg->refs)
		return;
	if (seg->gone) {
		s->nopen -= seg->key != NULL;
		s->mapped -= seg->mapped;
		segment_free(seg);
	} else if (seg->key && !seg->current && !seg->dirty) {
		seg->idle = true;
		TAILQ_INSERT_HEAD(&s->idle, seg, idle_link);
		segment_evict_locked(s);
	}
}

void segment_put(struct segment_store *s, struct segment *seg)
{
	SCOPED_LOCK(&s->lock);
	segment_put_locked(s, seg);
}

struct chunk_key segment_chunk_key(const struct segment_store *s, const struct segment *seg)
{
	return (struct chunk_key){.key = seg->key, .uuid = s->uuid, .name = seg->name, .suite = seg->suite};
}

/* What opening yields, before the segment has it. */
struct opened {
	struct io_file *file;
	uint8_t *key;
	struct segment_header h;
	uint16_t header_len;
	uint8_t header[PIPELINE_HEADER_MAX];
};

static int open_file(struct segment_store *s, const struct segment *seg, const char *path, struct opened *o,
                     struct err *e)
{
	int ret = io_open(s->io, path, IO_READ, &o->file);

	if (ret)
		return err_set(e, ret, ERR_IO, "%s: %s", path,
		               ret == -ENOENT ? "the segment is missing" : err_text(NULL, ret));
	governor_enter(s->governor, GOVERNOR_IO);
	ssize_t n = io_pread(o->file, o->header, SEGMENT_HEADER_LEN, 0);
	governor_leave(s->governor, GOVERNOR_IO);
	if (n < 0)
		return err_set(e, (int)n, ERR_IO, "%s: %s", path, err_text(NULL, (int)n));
	o->header_len = (uint16_t)n;
	if (seg->header_len && (seg->header_len != n || memcmp(seg->header, o->header, (size_t)n) != 0))
		return err_set(e, -EBADMSG, ERR_AUTH, "%s: not the header that the index knows", path);
	return 0;
}

static int open_any(struct segment_store *s, const struct segment *seg, struct opened *o, struct err *e)
{
	char path[SEGMENT_PATH];
	int ret = 0;

	pipeline_segment_path(seg->name, path, sizeof(path));
	if (seg->kind == PIPELINE_SEGMENT_FILE) {
		ret = open_file(s, seg, path, o, e);
	} else {
		o->header_len = seg->header_len;
		memcpy(o->header, seg->header, seg->header_len);
	}
	if (ret)
		return ret;
	o->key = keys_secret_alloc(CIPHER_KEY);
	if (!o->key)
		return err_set(e, -ENOMEM, ERR_MEMORY, "%s: no memory for the segment's key", path);
	ret = segment_header_open(s->keyring, s->uuid, o->header, o->header_len, path, &o->h, o->key, e);
	if (!ret && (o->h.kind != seg->kind || memcmp(o->h.name, seg->name, sizeof(seg->name)) != 0))
		ret = err_set(e, -EBADMSG, ERR_AUTH, "%s: the header is another segment's", path);
	return ret;
}

/* Opens a pinned segment unless another thread has done so meanwhile. */
static int segment_open(struct segment_store *s, struct segment *seg, struct err *e)
{
	struct opened o = {0};

	SCOPED_LOCK(&seg->opening);
	(void)pthread_mutex_lock(&s->lock);
	bool done = seg->key != NULL;
	(void)pthread_mutex_unlock(&s->lock);
	if (done)
		return 0;

	int ret = open_any(s, seg, &o, e);
	if (ret) {
		io_close(o.file);
		keys_secret_free(o.key);
		return ret;
	}
	SCOPED_LOCK(&s->lock);
	seg->file = o.file;
	seg->key = o.key;
	seg->suite = o.h.suite;
	seg->epoch = o.h.epoch;
	seg->header_len = o.header_len;
	memcpy(seg->header, o.header, o.header_len);
	s->nopen++;
	segment_evict_locked(s);
	return 0;
}

/* Has a pinned, open segment that nobody appends to any more read through a mapping, if there is room for it. It is
 * mapped for as long as it is open. */
static void segment_map(struct segment_store *s, struct segment *seg)
{
	(void)pthread_mutex_lock(&s->lock);
	bool now = seg->file && !seg->map_tried && !seg->current && !seg->writers && seg->size &&
	           seg->size <= s->map_max - s->mapped;
	if (now) {
		seg->map_tried = true;
		seg->mapped = seg->size;
		s->mapped += seg->mapped;
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (!now || !io_map(seg->file, seg->mapped))
		return;

	SCOPED_LOCK(&s->lock);
	s->mapped -= seg->mapped;
	seg->mapped = 0;
}

int segment_get(struct segment_store *s, uint64_t id, struct segment **out, struct err *e)
{
	(void)pthread_mutex_lock(&s->lock);
	struct segment *seg = find_locked(s, id);
	bool open = seg && seg->key;
	if (seg) {
		seg->refs++;
		idle_remove_locked(s, seg);
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (!seg)
		return err_set(e, -ENOENT, ERR_FORMAT, "segment %llu is not known", (unsigned long long)id);

	int ret = open ? 0 : segment_open(s, seg, e);
	if (ret) {
		segment_put(s, seg);
		return ret;
	}
	if (s->map_max)
		segment_map(s, seg);
	*out = seg;
	return 0;
}

/* --- deleting ----------------------------------------------------------------------------------------------------- */

int segment_store_delete(struct segment_store *s, uint64_t id, struct err *e)
{
	char path[SEGMENT_PATH];
	int ret = 0;

	(void)pthread_mutex_lock(&s->lock);
	struct segment *seg = find_locked(s, id);
	if (!seg)
		ret = err_set(e, -ENOENT, ERR_USAGE, "segment %llu is not known", (unsigned long long)id);
	else if (seg->current || seg->writers)
		ret = err_set(e, -EBUSY, ERR_USAGE, "segment %llu is being written", (unsigned long long)id);
	else if (s->read_only)
		ret = err_set(e, -EROFS, ERR_USAGE, "the store is read-only");
	if (seg && !ret) {
		seg->refs++;
		idle_remove_locked(s, seg);
	}
	(void)pthread_mutex_unlock(&s->lock);
	if (!seg || ret)
		return ret;

	if (seg->kind == PIPELINE_SEGMENT_FILE) {
		pipeline_segment_path(seg->name, path, sizeof(path));
		ret = io_unlink(s->io, path);
		if (ret == -ENOENT)
			ret = 0;
		if (ret)
			(void)err_set(e, ret, ERR_IO, "%s: %s", path, err_text(NULL, ret));
	}

	SCOPED_LOCK(&s->lock);
	if (!ret && !seg->gone) {
		seg->gone = true;
		RB_REMOVE(segment_tree, &s->by_id, seg);
		if (seg->made)
			TAILQ_REMOVE(&s->made, seg, made_link);
		if (seg->dirty)
			TAILQ_REMOVE(&s->dirty, seg, dirty_link);
		seg->dirty = false;
		/* Its space is free once nobody has it open: whoever deletes it on a full disk is about to use that. */
		while (seg->refs > 1)
			lock_wait(&s->unpinned, &s->lock);
	}
	segment_put_locked(s, seg);
	return ret;
}
