#include "base/lock.h"
#include "pipeline/keys.h"
#include "pipeline/segment.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WRITE_BEHIND ((uint64_t)4 << 20) /* bytes appended that STORE is told of at once */

static enum err_domain domain_of(int ret)
{
	return err_is_no_space(ret) ? ERR_SPACE : ERR_IO;
}

/* Nothing is written after a failed sync: what is durable is unknown from then on. */
static void store_fail_locked(struct segment_store *s, int ret, const char *what)
{
	if (s->failed)
		return;
	s->failed = ret;
	(void)err_set(&s->failure, ret, domain_of(ret), "syncing %s failed: %s", what, err_text(NULL, ret));
}

static int failed_locked(const struct segment_store *s, struct err *e)
{
	return err_set(e, s->failed, s->failure.domain, "%s", s->failure.text);
}

/* --- making segments ---------------------------------------------------------------------------------------------- */

static int sync_dir(struct segment_store *s, const char *path, struct err *e)
{
	int ret = io_sync_dir(s->io, path);

	if (!ret)
		return 0;
	SCOPED_LOCK(&s->lock);
	store_fail_locked(s, ret, *path ? path : "the store's directory");
	return failed_locked(s, e);
}

/* Makes a directory, which may exist, and its entry durable. */
static int make_dir(struct segment_store *s, const char *path, const char *parent, struct err *e)
{
	int ret = io_mkdir(s->io, path);

	if (ret && ret != -EEXIST)
		return err_set(e, ret, domain_of(ret), "%s: %s", path, err_text(NULL, ret));
	return sync_dir(s, parent, e);
}

/* The directory segments/xx. That it exists says nothing: a mount that was killed may have made it and not synced, so
 * each one is synced once a mount. */
static int make_dirs(struct segment_store *s, uint8_t first, const char *dir, struct err *e)
{
	uint64_t *word = &s->dirs[first / 64], bit = (uint64_t)1 << first % 64;

	if (*word & bit)
		return 0;
	int ret = make_dir(s, "segments", "", e);
	if (!ret)
		ret = make_dir(s, dir, "segments", e);
	if (!ret)
		*word |= bit;
	return ret;
}

/* Makes the file and its directory durable: only then may anything refer to it. */
static int make_file(struct segment_store *s, struct segment *seg, const char *path, struct err *e)
{
	char dir[SEGMENT_PATH];

	(void)snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') - path), path);
	int ret = make_dirs(s, seg->name[0], dir, e);
	if (ret)
		return ret;
	ret = io_open(s->io, path, IO_WRITE | IO_CREATE | IO_EXCL, &seg->file);
	if (ret)
		return err_set(e, ret, domain_of(ret), "%s: %s", path, err_text(NULL, ret));
	ret = io_pwrite(seg->file, seg->header, seg->header_len, 0);
	if (ret) {
		(void)err_set(e, ret, domain_of(ret), "%s: %s", path, err_text(NULL, ret));
	} else if ((ret = io_sync(seg->file))) {
		SCOPED_LOCK(&s->lock);
		store_fail_locked(s, ret, path);
		ret = failed_locked(s, e);
	}
	if (!ret)
		ret = sync_dir(s, dir, e);
	if (ret)
		(void)!io_unlink(s->io, path);
	return ret;
}

/* A new segment, durable if it has a file, without an id yet. */
static int segment_make(struct segment_store *s, enum pipeline_segment_kind kind, struct segment **out, struct err *e)
{
	char path[SEGMENT_PATH];
	struct segment_header h;
	struct segment *seg = segment_new(kind);
	int ret = -ENOMEM;

	if (seg)
		seg->key = keys_secret_alloc(CIPHER_KEY);
	if (seg && seg->key)
		ret = segment_header_make(s->keyring, s->uuid, kind, s->suite, &h, seg->header, seg->key);
	if (ret) {
		if (seg)
			segment_free(seg);
		(void)err_set(e, ret, ERR_MEMORY, "cannot make a segment: %s", err_text(NULL, ret));
		return ret;
	}
	memcpy(seg->name, h.name, sizeof(seg->name));
	seg->suite = h.suite;
	seg->epoch = h.epoch;
	seg->header_len = SEGMENT_HEADER_LEN;
	if (kind == PIPELINE_SEGMENT_FILE) {
		pipeline_segment_path(seg->name, path, sizeof(path));
		governor_enter(s->governor, GOVERNOR_IO);
		ret = make_file(s, seg, path, e);
		governor_leave(s->governor, GOVERNOR_IO);
		seg->end = seg->size = seg->synced = seg->header_len;
	}
	if (ret)
		segment_free(seg);
	else
		*out = seg;
	return ret;
}

/* Gives a new segment its id and makes it the one that chunks go to. */
static void activate_locked(struct segment_store *s, struct segment *seg)
{
	seg->id = s->next_id;
	/* Cannot exist: ids up to next_id were given out or added before. */
	(void)!segment_store_insert_locked(s, seg);
	seg->made = true;
	TAILQ_INSERT_TAIL(&s->made, seg, made_link);
	seg->current = true;
	s->nopen++;
	if (seg->kind == PIPELINE_SEGMENT_FILE)
		s->current = seg;
	else
		s->current_inline = seg;
	s->prepare_failed = false;
	segment_evict_locked(s);
}

/* Makes the next segment, unless somebody does or has. Called with the lock, which is released meanwhile. */
static int make_ready_locked(struct segment_store *s, struct err *e)
{
	struct segment *seg = NULL;

	s->creating = true;
	(void)pthread_mutex_unlock(&s->lock);
	int ret = segment_make(s, PIPELINE_SEGMENT_FILE, &seg, e);
	(void)pthread_mutex_lock(&s->lock);
	s->creating = false;
	s->ready = seg;
	(void)pthread_cond_broadcast(&s->created);
	return ret;
}

static void prepare_task(void *arg)
{
	struct segment_store *s = arg;

	SCOPED_LOCK(&s->lock);
	s->preparing = false;
	if (!s->ready && !s->creating && !s->failed)
		s->prepare_failed = make_ready_locked(s, NULL) != 0;
}

/* Has the next segment made in the background early: what makes it durable waits behind all that the device is writing
 * just then, up to 0.2 s, in which a stream fills several. */
static void prepare_locked(struct segment_store *s)
{
	if (!s->current || s->current->end < s->full / 16)
		return;
	if (s->ready || s->creating || s->preparing || s->prepare_failed)
		return;
	s->preparing = !workers_run(s->workers, prepare_task, s);
}

/* A retired segment keeps what has been reported: not the torn record behind it, nor what STORE's filesystem has set
 * aside for a file that grows (XFS: as much again, as long as the file is open). Releases the lock meanwhile. */
static void trim_locked(struct segment_store *s, struct segment *seg)
{
	uint64_t size = seg->end = seg->size;

	(void)pthread_mutex_unlock(&s->lock);
	(void)!io_truncate(seg->file, size);
	(void)pthread_mutex_lock(&s->lock);
}

static void retire_locked(struct segment_store *s, struct segment *seg)
{
	if (!seg->current)
		return;
	seg->current = false;
	if (s->current == seg)
		s->current = NULL;
	else
		s->current_inline = NULL;
	seg->refs++;
	segment_put_locked(s, seg);
}

/* The same, and trims it, unless chunks are on their way to it: then the last one does. Releases the lock meanwhile. */
static void close_locked(struct segment_store *s, struct segment *seg)
{
	seg->refs++;
	retire_locked(s, seg);
	if (seg->file && !seg->writers)
		trim_locked(s, seg);
	segment_put_locked(s, seg);
}

/* --- sealing into one --------------------------------------------------------------------------------------------- */

/* Whether the current segment will be full with what is under way, whose size is guessed from what went before. */
static bool full_locked(const struct segment_store *s, const struct segment *seg)
{
	uint64_t expected = seg->promised;

	if (seg->settled)
		expected = seg->promised * (seg->end - seg->header_len) / seg->settled;
	return seg->end + expected >= s->full;
}

static int current_file_locked(struct segment_store *s, struct err *e)
{
	if (s->current && full_locked(s, s->current))
		close_locked(s, s->current);
	while (!s->current) {
		if (s->failed)
			return failed_locked(s, e);
		if (s->ready) {
			struct segment *seg = s->ready;
			s->ready = NULL;
			activate_locked(s, seg);
		} else if (s->creating) {
			lock_wait(&s->created, &s->lock);
		} else {
			int ret = make_ready_locked(s, e);
			if (ret)
				return ret;
		}
	}
	return 0;
}

static int current_inline_locked(struct segment_store *s, struct err *e)
{
	struct segment *seg = NULL;

	if (s->current_inline)
		return 0;
	int ret = segment_make(s, PIPELINE_SEGMENT_INLINE, &seg, e);
	if (!ret)
		activate_locked(s, seg);
	return ret;
}

int segment_acquire(struct segment_store *s, enum pipeline_segment_kind kind, uint32_t worst, struct segment **out,
                    struct err *e)
{
	bool inlined = kind == PIPELINE_SEGMENT_INLINE;

	if (s->read_only)
		return err_set(e, -EROFS, ERR_USAGE, "the store is read-only");
	SCOPED_LOCK(&s->lock);
	if (s->failed)
		return failed_locked(s, e);
	int ret = inlined ? current_inline_locked(s, e) : current_file_locked(s, e);
	if (ret)
		return ret;
	struct segment *seg = inlined ? s->current_inline : s->current;
	seg->refs++;
	seg->writers++;
	seg->promised += worst;
	*out = seg;
	return 0;
}

/* The last writer of a retired segment trims it, whether it has written or failed. */
static void release_locked(struct segment_store *s, struct segment *seg, uint32_t worst)
{
	if (seg->file && !seg->current && seg->writers == 1)
		trim_locked(s, seg);
	seg->promised -= worst;
	seg->writers--;
	segment_put_locked(s, seg);
}

void segment_release(struct segment_store *s, struct segment *seg, uint32_t worst)
{
	SCOPED_LOCK(&s->lock);
	release_locked(s, seg, worst);
}

static int write_failed_locked(const struct segment *seg, struct err *e)
{
	char path[SEGMENT_PATH];

	pipeline_segment_path(seg->name, path, sizeof(path));
	return err_set(e, seg->failed, domain_of(seg->failed), "writing to %s failed: %s", path,
	               err_text(NULL, seg->failed));
}

static void appended_locked(struct segment_store *s, struct segment *seg, uint64_t end)
{
	if (end > seg->size)
		seg->size = end;
	if (!seg->dirty)
		TAILQ_INSERT_TAIL(&s->dirty, seg, dirty_link);
	seg->dirty = true;
	prepare_locked(s);
}

/* Where what is to be written behind begins, if with this append it is enough; else the end. So storage works while a
 * file is still being written, and not only when its fsync waits: the kernel would let gigabytes lie. */
static uint64_t behind_locked(struct segment *seg)
{
	uint64_t from = seg->behind;

	if (seg->end < from + WRITE_BEHIND)
		return seg->end;
	seg->behind = seg->end;
	return from;
}

int segment_append(struct segment_store *s, struct segment *seg, uint32_t worst, const void *record, uint32_t len,
                   uint64_t *off, struct err *e)
{
	SCOPED_LOCK(&s->lock);
	int ret = s->failed ? failed_locked(s, e) : seg->failed ? write_failed_locked(seg, e) : 0;
	if (!ret) {
		*off = seg->end;
		seg->end += len;
		seg->settled += worst;
		seg->promised -= worst;
		worst = 0;
		uint64_t end = seg->end, behind = behind_locked(seg);
		(void)pthread_mutex_unlock(&s->lock);
		governor_enter(s->governor, GOVERNOR_IO);
		uint64_t begin = metrics_io_begin(s->metrics);
		ret = io_pwrite(seg->file, record, len, *off);
		if (!ret && behind < end)
			io_write_behind(seg->file, behind, end - behind);
		metrics_io_end(s->metrics, METRIC_APPEND_SECONDS, begin);
		governor_leave(s->governor, GOVERNOR_IO);
		metrics_add(s->metrics, METRIC_APPEND_BYTES, ret ? 0 : len);
		(void)pthread_mutex_lock(&s->lock);
		if (ret) {
			if (!seg->failed)
				seg->failed = ret;
			retire_locked(s, seg);
			(void)err_set(e, ret, domain_of(ret), "writing a chunk to segment %llu failed: %s",
			              (unsigned long long)seg->id, err_text(NULL, ret));
		} else {
			appended_locked(s, seg, *off + len);
		}
	}
	release_locked(s, seg, worst);
	return ret;
}

void segment_store_roll(struct segment_store *s, uint64_t id)
{
	SCOPED_LOCK(&s->lock);

	if (s->current && s->current->id == id)
		close_locked(s, s->current);
	else if (s->current_inline && s->current_inline->id == id)
		retire_locked(s, s->current_inline);
}

/* --- syncing ------------------------------------------------------------------------------------------------------ */

/* One round: every dirty segment, outside the lock. What is appended meanwhile makes them dirty again. */
static void sync_round_locked(struct segment_store *s)
{
	struct segment *seg;
	int ret = 0;

	s->syncing = true;
	s->rounds_begun++;
	while (!ret && (seg = TAILQ_FIRST(&s->dirty))) {
		/* One that turns dirty again joins the end of the list: it would not hurt to sync it twice, but this
		 * round must end. */
		if (seg->sync_round == s->rounds_begun)
			break;
		seg->sync_round = s->rounds_begun;
		TAILQ_REMOVE(&s->dirty, seg, dirty_link);
		seg->dirty = false;
		seg->refs++;
		uint64_t size = seg->size;
		(void)pthread_mutex_unlock(&s->lock);
		governor_enter(s->governor, GOVERNOR_IO);
		uint64_t begin = metrics_io_begin(s->metrics);
		ret = io_sync(seg->file);
		metrics_io_end(s->metrics, METRIC_SYNC_SECONDS, begin);
		governor_leave(s->governor, GOVERNOR_IO);
		(void)pthread_mutex_lock(&s->lock);
		s->syncs++;
		if (!ret) {
			metrics_add(s->metrics, METRIC_SYNC_BYTES, size - seg->synced);
			seg->synced = size;
		} else {
			char path[SEGMENT_PATH];
			pipeline_segment_path(seg->name, path, sizeof(path));
			store_fail_locked(s, ret, path);
		}
		segment_put_locked(s, seg);
	}
	s->syncing = false;
	s->rounds_done = s->rounds_begun;
	(void)pthread_cond_broadcast(&s->synced);
}

int segment_store_sync(struct segment_store *s, struct err *e)
{
	SCOPED_LOCK(&s->lock);
	/* What was reported before this call is dirty, or in the round under way. */
	uint64_t need = s->rounds_begun + !TAILQ_EMPTY(&s->dirty);

	while (s->rounds_done < need && !s->failed) {
		if (s->syncing)
			lock_wait(&s->synced, &s->lock);
		else
			sync_round_locked(s);
	}
	return s->failed ? failed_locked(s, e) : 0;
}

bool segment_store_failed(struct segment_store *s)
{
	SCOPED_LOCK(&s->lock);

	return s->failed != 0;
}
