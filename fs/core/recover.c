/*
 * What a mount does to a store before it serves: after a clean unmount next to nothing, after a crash the same. There
 * is no repair step that could be skipped or that has to be asked for.
 */
#include "fs/core/volume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH           64u
#define QUARANTINE_DAYS 7
#define DAY             ((int64_t)24 * 3600) /* seconds */
#define PENDING_MAX     ((size_t)1 << 20)    /* bytes of the index's pages */

struct known {
	UT_hash_handle hh;
	uint8_t name[PIPELINE_SEGMENT_NAME];
	bool seen;
};

struct scan {
	struct core *c;
	struct known *known;
	char dir[32];
	unsigned moved;
	int64_t now;
};

/* A large file's rows make a large transaction: it is not to grow with their number. */
static int recover_orphans(struct core *c, struct err *e)
{
	uint64_t ino[BATCH] = {0}, first;
	size_t n;
	int ret;

	do {
		first = ino[0];
		ret = index_inode_orphans(c->index, ino, BATCH, &n);
		if (!ret && n && ino[0] == first) {
			log_error("the index is damaged: deleted inode %llu stays listed; run apfs check, or restore "
			          "STORE from a "
			          "backup",
			          (unsigned long long)first);
			return 0;
		}
		for (size_t i = 0; i < n && !ret;) {
			bool more = false;

			ret = reap_step(c, ino[i], &more);
			i += !more;
			if (!ret && index_pending(c->index) > PENDING_MAX)
				ret = index_commit(c->index, e);
		}
	} while (!ret && n);
	return ret;
}

bool recover_back(struct io *io, const char *path, struct io_stat *st)
{
	const char *name = strrchr(path, '/') + 1;
	char from[128], dir[64];

	(void)snprintf(from, sizeof(from), "quarantine/%s", name);
	if (io_stat(io, from, st))
		return false;
	(void)snprintf(dir, sizeof(dir), "%.*s", (int)(name - path - 1), path);
	(void)!io_mkdir(io, dir); /* which may be there */
	return !io_rename(io, from, path);
}

/* Makes a segment of an earlier mount known to the pipeline. Nothing is ever appended to it again. */
static int recover_segment(struct core *c, struct index_segment *row, struct known **known)
{
	struct pipeline_segment s = {.id = row->id, .epoch = row->epoch, .header_len = (uint16_t)row->header_len};
	struct known *k;
	struct io_stat st;
	char path[64];
	int ret;

	if (row->header_len > sizeof(s.header))
		return -EBADMSG;
	s.kind = row->state == INDEX_SEGMENT_INLINE ? PIPELINE_SEGMENT_INLINE : PIPELINE_SEGMENT_FILE;
	memcpy(s.name, row->name, sizeof(s.name));
	memcpy(s.header, row->header, row->header_len);
	if (s.kind == PIPELINE_SEGMENT_FILE) {
		pipeline_segment_path(row->name, path, sizeof(path));
		ret = io_stat(c->io, path, &st);
		if (ret == -ENOENT && recover_back(c->io, path, &st)) {
			log_info("segment %s has come back from quarantine/: the index knows it", path);
			ret = 0;
		}
		if (ret == -ENOENT && !row->chunks) /* deleted, but its row was not yet */
			return c->opt.read_only ? 0 : index_segment_delete(c->index, row->id);
		if (ret)
			log_error(
			    "segment %s cannot be read (%s): the files that use it give errors; restore it into STORE",
			    path, strerror(-ret));
		s.size = ret ? row->total : st.size;
		k = calloc(1, sizeof(*k));
		if (!k)
			return -ENOMEM;
		memcpy(k->name, row->name, sizeof(k->name));
		HASH_ADD(hh, *known, name, sizeof(k->name), k);
		if (!k->hh.tbl) {
			free(k);
			return -ENOMEM;
		}
	}
	if (row->state == INDEX_SEGMENT_OPEN && !c->opt.read_only) {
		row->state = INDEX_SEGMENT_SEALED;
		row->total = s.size;
		ret = index_segment_put(c->index, row);
		if (ret)
			return ret;
	}
	return pipeline_segment_add(c->pipeline, &s);
}

static int recover_segments(struct core *c, struct known **known)
{
	struct index_segment row[BATCH];
	uint64_t after = 0;
	size_t n;
	int ret;

	do {
		ret = index_segment_list(c->index, after, row, BATCH, &n);
		for (size_t i = 0; i < n && !ret; i++) {
			after = row[i].id;
			ret = recover_segment(c, &row[i], known);
		}
	} while (!ret && n == BATCH);
	return ret;
}

/* A segment that the index does not know holds only data that no commit ever named: a crash came before it. It is kept
 * aside for a while rather than deleted, in case the index is an older copy that somebody restored. */
static int scan_file(void *arg, const char *text)
{
	struct scan *s = arg;
	uint8_t name[PIPELINE_SEGMENT_NAME];
	struct known *k = NULL;
	char from[128], to[128];
	struct io_stat st;
	int ret;

	if (pipeline_segment_name_parse(text, name))
		HASH_FIND(hh, s->known, name, sizeof(name), k);
	if (k)
		return 0;
	(void)snprintf(from, sizeof(from), "%s/%.64s", s->dir, text);
	(void)snprintf(to, sizeof(to), "quarantine/%.64s", text);
	if (!io_stat(s->c->io, from, &st) && st.size <= PIPELINE_HEADER_MAX)
		ret = io_unlink(s->c->io, from); /* made ahead, never used */
	else if (!(ret = io_rename(s->c->io, from, to)))
		s->moved++;
	if (ret)
		log_warn("unreferenced segment %s could not be moved to quarantine/: %s", from, strerror(-ret));
	return 0;
}

static int scan_dir(void *arg, const char *name)
{
	struct scan *s = arg;

	(void)snprintf(s->dir, sizeof(s->dir), "segments/%.16s", name);
	return io_list(s->c->io, s->dir, scan_file, s);
}

static int purge_file(void *arg, const char *name)
{
	struct scan *s = arg;
	struct io_stat st;
	char path[128];

	(void)snprintf(path, sizeof(path), "quarantine/%.64s", name);
	if (!io_stat(s->c->io, path, &st) && s->now - st.changed > QUARANTINE_DAYS * DAY && io_unlink(s->c->io, path))
		log_warn("old quarantined segment %s could not be deleted", path);
	return 0;
}

static int recover_files(struct core *c, struct known *known)
{
	struct scan s = {.c = c, .known = known, .now = clock_system.now(&clock_system).sec};
	int ret = io_list(c->io, "quarantine", purge_file, &s); /* before there is more: whatever comes stays for now */

	if (!ret || ret == -ENOENT)
		ret = io_list(c->io, "segments", scan_dir, &s);
	if (s.moved)
		log_info(
		    "%u segment(s) that an interrupted mount left without a reference were moved to quarantine/; they "
		    "are deleted after %d days",
		    s.moved, QUARANTINE_DAYS);
	return ret == -ENOENT ? 0 : ret;
}

int recover(struct core *c, struct err *e)
{
	struct known *known = NULL, *k, *next;
	int ret = recover_segments(c, &known);

	if (!ret && !c->opt.read_only)
		ret = recover_orphans(c, e);
	if (!ret && !c->opt.read_only)
		ret = recover_files(c, known);
	HASH_ITER (hh, known, k, next) {
		HASH_DEL(known, k);
		free(k);
	}
	return ret ? err_set(e, ret, ERR_IO, "STORE could not be recovered: %s", strerror(-ret)) : 0;
}

/* True when no chunk can be in the segment, which the index says is empty: none is on its way to it (after it has
 * stopped being appended to), and none is sealed but not in the index yet. In this order. */
static bool unused(struct core *c, const struct pipeline_segment *s)
{
	unsigned batches;

	if (s->open)
		pipeline_segment_roll(c->pipeline, s->id);
	{
		SCOPED_LOCK(&c->memory_lock);
		batches = c->batches;
	}
	return !batches && !chunk_fresh_in(c, s->id);
}

void reclaim_segments(struct core *c)
{
	struct index_segment row[BATCH];
	size_t n = 0;

	if (index_segment_empty(c->index, row, BATCH, &n))
		return;
	for (size_t i = 0; i < n; i++) {
		struct pipeline_segment s;
		struct err e = {0};
		int ret;

		if (pipeline_segment_get(c->pipeline, row[i].id, &s))
			continue;
		/* The key for inline chunks and a segment that is only its header are kept while they are in use. */
		if (s.open && (s.kind == PIPELINE_SEGMENT_INLINE || s.size <= PIPELINE_HEADER_MAX))
			continue;
		if (!unused(c, &s))
			continue;
		ret = pipeline_segment_delete(c->pipeline, row[i].id, &e);
		if (!ret)
			ret = index_segment_delete(c->index, row[i].id);
		metrics_add(c->metrics, METRIC_SEGMENTS_DELETED, !ret);
		if (ret && ret != -EBUSY)
			log_warn("an empty segment could not be deleted: %s", err_text(&e, ret));
	}
}
