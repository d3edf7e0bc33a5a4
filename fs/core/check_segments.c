#include "fs/core/check_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64u

static int segment_note(struct check *ck, const struct index_segment *row, struct check_segment **out)
{
	struct check_segment *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->id = row->id;
	s->has_file = row->state != INDEX_SEGMENT_INLINE;
	memcpy(s->name, row->name, sizeof(s->name));
	HASH_ADD(hh, ck->segments, id, sizeof(s->id), s);
	if (!s->hh.tbl) {
		free(s);
		return -ENOMEM;
	}
	*out = s;
	if (!s->has_file)
		return 0;
	HASH_ADD(by_name, ck->names, name, sizeof(s->name), s);
	return s->by_name.tbl ? 0 : -ENOMEM;
}

static int segment_check(struct check *ck, const struct index_segment *row, struct check_segment *s)
{
	struct pipeline_segment p = {.id = row->id, .epoch = row->epoch, .header_len = (uint16_t)row->header_len};
	struct io_stat st = {0};
	struct err e = {0};
	char path[64];

	memcpy(p.name, row->name, sizeof(p.name));
	memcpy(p.header, row->header, row->header_len);
	pipeline_segment_path(row->name, path, sizeof(path));
	if (s->has_file) {
		s->bad = io_stat(ck->io, path, &st);
		if (s->bad == -ENOENT && recover_back(ck->io, path, &st)) /* as the next mount does it */
			s->bad = 0;
		s->size = p.size = st.size;
		/* A crash came between the deletion of an empty segment's file and that of its row. */
		if (s->bad == -ENOENT && !row->chunks)
			return 0;
		if (s->bad == -ENOENT)
			check_finding(ck, CHECK_DATA, "%s is missing: files that use it have lost data", path);
		if (!s->bad && row->state == INDEX_SEGMENT_SEALED && st.size < row->total)
			check_finding(ck, CHECK_DATA, "%s has %llu bytes, not %llu: its end is missing", path,
			              (unsigned long long)st.size, (unsigned long long)row->total);
	} else {
		p.kind = PIPELINE_SEGMENT_INLINE;
	}
	int ret = pipeline_segment_add(ck->pipeline, &p);
	if (ret == -EINVAL || ret == -EEXIST) {
		check_finding(ck, CHECK_INDEX, "the row of segment %llu is damaged", (unsigned long long)row->id);
		s->bad = -EBADMSG;
		return 0;
	}
	if (ret || s->bad == -ENOENT)
		return ret;
	ret = pipeline_segment_verify(ck->pipeline, row->id, &e);
	if (ret == -ENOMEM)
		return ret;
	if (ret) {
		s->bad = ret;
		check_finding(ck, s->has_file ? CHECK_DATA : CHECK_INDEX, "%s%s", err_text(&e, ret),
		              row->chunks ? ": files that use it have lost data" : "");
	}
	return 0;
}

static int check_rows(struct check *ck)
{
	struct index_segment row[BATCH];
	uint64_t after = 0;
	size_t n;
	int ret;

	do {
		ret = index_segment_list(ck->index, after, row, BATCH, &n);
		if (ret == -EIO) {
			check_finding(ck, CHECK_INDEX, "the rows of segments cannot be read");
			return 0;
		}
		for (size_t i = 0; i < n && !ret; i++) {
			struct check_segment *s;

			after = row[i].id;
			ret = segment_note(ck, &row[i], &s);
			if (!ret)
				ret = segment_check(ck, &row[i], s);
		}
	} while (!ret && n == BATCH);
	return ret;
}

/* --- files -------------------------------------------------------------------------------------------------------- */

struct listing {
	struct check *ck;
	char dir[32];
	unsigned unknown;
	uint64_t unknown_bytes;
	unsigned quarantined;
};

static int list_segment(void *arg, const char *text)
{
	struct listing *l = arg;
	uint8_t name[PIPELINE_SEGMENT_NAME];
	struct check_segment *s = NULL;
	struct io_stat st;
	char path[128];

	if (pipeline_segment_name_parse(text, name))
		HASH_FIND(by_name, l->ck->names, name, sizeof(name), s);
	(void)snprintf(path, sizeof(path), "%s/%.64s", l->dir, text);
	if (!s && !io_stat(l->ck->io, path, &st)) {
		l->unknown++;
		l->unknown_bytes += st.size;
	}
	return 0;
}

static int list_dir(void *arg, const char *name)
{
	struct listing *l = arg;

	(void)snprintf(l->dir, sizeof(l->dir), "segments/%.16s", name);
	int ret = io_list(l->ck->io, l->dir, list_segment, l);
	return ret == -ENOTDIR || ret == -ENOENT ? 0 : ret;
}

static int list_quarantine(void *arg, const char *name)
{
	struct listing *l = arg;
	struct io_stat st;
	char path[128];

	(void)snprintf(path, sizeof(path), "quarantine/%.64s", name);
	if (!io_stat(l->ck->io, path, &st)) {
		l->quarantined++;
		l->ck->r->quarantined += st.size;
	}
	return 0;
}

static int check_listing(struct check *ck)
{
	struct listing l = {.ck = ck};
	int ret = io_list(ck->io, "segments", list_dir, &l);

	if (ret == -ENOENT)
		check_finding(ck, ck->names ? CHECK_DATA : CHECK_SPARE, "the directory segments is missing");
	if (!ret || ret == -ENOENT)
		ret = io_list(ck->io, "quarantine", list_quarantine, &l);
	if (l.unknown)
		check_finding(
		    ck, CHECK_NOTE,
		    "%u files in segments/ (%llu bytes) hold nothing that was committed; the next mount takes "
		    "them away",
		    l.unknown, (unsigned long long)l.unknown_bytes);
	if (l.quarantined)
		check_finding(
		    ck, CHECK_NOTE,
		    "%u files in quarantine/ (%llu bytes) are from interrupted mounts; a mount deletes them after "
		    "seven days",
		    l.quarantined, (unsigned long long)ck->r->quarantined);
	return ret == -ENOENT ? 0 : ret;
}

int check_segments(struct check *ck)
{
	int ret = check_rows(ck);

	return ret ? ret : check_listing(ck);
}

void check_segments_release(struct check *ck)
{
	struct check_segment *s, *next;

	HASH_CLEAR(by_name, ck->names);
	HASH_ITER (hh, ck->segments, s, next) {
		HASH_DEL(ck->segments, s);
		free(s);
	}
}
