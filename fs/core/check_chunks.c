/* Every chunk of the index: without `data` whether its record can be there, with it all of the record. */
#include "fs/core/check_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 8u

/* A thread's own. */
struct reader {
	struct check *ck;
	pthread_t thread;
	bool running;
	struct pipeline_verifier *verifier;
	uint8_t *frames; /* CHUNK_ROW_FRAMES bytes */
	uint8_t *record; /* of an inline chunk */
	uint8_t *plain;  /* PIPELINE_CHUNK_MAX bytes, with `data` */
};

/* One chunk being looked at. */
struct subject {
	struct pipeline_chunk *p;
	uint64_t sequence;
	const void *record; /* inline */
};

static const struct check_segment *segment_of(const struct check *ck, uint64_t id)
{
	const struct check_segment *s;

	HASH_FIND(hh, ck->segments, &id, sizeof(id), s);
	return s;
}

/* why 0: what is wrong has been said. */
static int report_damage(struct check *ck, const struct pipeline_chunk *p, uint32_t from, uint32_t to,
                         const struct err *e, int why)
{
	bool used;

	SCOPED_LOCK(&ck->lock);
	int ret = check_damage(ck, p->id, from, to, &used);
	if (why)
		check_finding(ck, used ? CHECK_DATA : CHECK_NOTE, "%s%s", err_text(e, why),
		              used ? "" : "; no file uses it any more");
	return ret;
}

/* --- the record against the extents ------------------------------------------------------------------------------- */

/* Whether all of an extent's bytes are of the file and the place that the record says; *i is a range that begins at
 * *pos of the plaintext, at or before the extent. */
static bool extent_matches(const struct pipeline_record *r, const struct index_owned_extent *e, uint32_t *i,
                           uint64_t *pos)
{
	const struct index_extent *x = &e->x;
	uint64_t at = x->chunk_off, end = at + x->len;

	while (*i < r->nranges && *pos + r->range[*i].len <= at)
		*pos += r->range[(*i)++].len;
	uint64_t begin = *pos;
	for (uint32_t k = *i; k < r->nranges && at < end; k++) {
		const struct pipeline_range *g = &r->range[k];

		if (g->ino != e->ino || g->off + (at - begin) != x->off + (at - x->chunk_off))
			return false;
		begin += g->len;
		at = begin;
	}
	return at >= end;
}

/* Clones map bytes that were sealed as another file's. */
static bool is_cloned(struct check *ck, uint64_t ino)
{
	struct index_inode row;

	return !index_inode_get(ck->index, ino, &row) && row.flags & NODE_CLONED;
}

static int compare_extents(struct check *ck, const struct subject *s, const struct pipeline_record *r)
{
	struct index_owned_extent *e;
	uint32_t i = 0;
	uint64_t pos = 0;
	size_t n;
	int ret = chunk_extents(ck->index, s->p->id, SIZE_MAX, &e, &n);

	for (size_t k = 0; k < n && !ret; k++) {
		if (extent_matches(r, &e[k], &i, &pos) || is_cloned(ck, e[k].ino))
			continue;
		SCOPED_LOCK(&ck->lock);
		check_finding(ck, CHECK_INDEX,
		              "inode %llu maps bytes of chunk %llu that its record says are other bytes",
		              (unsigned long long)e[k].ino, (unsigned long long)s->p->id);
		break;
	}
	free(e);
	return ret == -EIO ? 0 : ret; /* the check of the index has said so */
}

/* --- one chunk ---------------------------------------------------------------------------------------------------- */

/* Frame by frame, to name exactly what cannot be read. */
static int read_each(struct reader *rd, const struct subject *s)
{
	uint32_t pos = 0;
	int ret = 0;

	for (uint32_t i = 0; i < s->p->nframes && !ret; pos += s->p->frame[i++].plain_len) {
		struct err e = {0};

		ret = pipeline_read_frame(rd->ck->pipeline, s->p, s->record, i, rd->plain, &e);
		if (ret && ret != -ENOMEM)
			ret = report_damage(rd->ck, s->p, pos, pos + s->p->frame[i].plain_len, &e, ret);
	}
	return ret;
}

static int check_data(struct reader *rd, const struct subject *s)
{
	struct pipeline_record r;
	struct err e = {0};
	int ret = pipeline_verify_record(rd->verifier, s->p, s->sequence, s->record, &r, &e);

	if (!ret)
		ret = compare_extents(rd->ck, s, &r);
	if (ret && ret != -ENOMEM) {
		SCOPED_LOCK(&rd->ck->lock);
		check_finding(rd->ck, CHECK_SPARE, "%s: it could not be found without the index", err_text(&e, ret));
		ret = 0;
	}
	if (ret)
		return ret;
	ret = pipeline_read_frames(rd->ck->pipeline, s->p, s->record, 0, s->p->nframes, rd->plain, NULL);
	return ret && ret != -ENOMEM ? read_each(rd, s) : ret;
}

/* Frames beyond the end of the file are lost. */
static int check_end(struct check *ck, const struct subject *s, const struct check_segment *seg)
{
	uint64_t at = s->p->offset + s->p->data_start;
	struct err e = {0};
	uint32_t pos = 0;

	for (uint32_t i = 0; i < s->p->nframes; pos += s->p->frame[i++].plain_len) {
		at += s->p->frame[i].stored_len;
		if (at > seg->size)
			break;
	}
	int why = err_set(&e, -EBADMSG, ERR_FORMAT, "chunk %llu lies beyond the end of its segment",
	                  (unsigned long long)s->p->id);
	return report_damage(ck, s->p, pos, s->p->plain_len, &e, why);
}

static int check_subject(struct reader *rd, const struct subject *s)
{
	struct check *ck = rd->ck;
	const struct check_segment *seg = segment_of(ck, s->p->segment);

	if (!seg || seg->bad || seg->has_file != !s->record)
		return report_damage(ck, s->p, 0, s->p->plain_len, NULL, 0);
	if (ck->o->data)
		return check_data(rd, s);
	return seg->has_file && s->p->offset + s->p->stored_len > seg->size ? check_end(ck, s, seg) : 0;
}

/* A chunk whose row makes no sense. */
static int check_malformed(struct check *ck, const struct index_chunk *row)
{
	bool used;

	SCOPED_LOCK(&ck->lock);
	check_finding(ck, CHECK_INDEX, "the row of chunk %llu is damaged", (unsigned long long)row->id);
	return check_damage(ck, row->id, 0, UINT32_MAX, &used);
}

static int check_row(struct reader *rd, const struct index_chunk *row)
{
	struct check *ck = rd->ck;
	struct subject s = {.sequence = row->sequence};
	size_t len = PIPELINE_INLINE_MAX;
	int ret = chunk_row_decode(row, &s.p);

	if (ret == -EBADMSG)
		return check_malformed(ck, row);
	if (ret)
		return ret;
	if (row->offset > INT64_MAX - (uint64_t)UINT32_MAX || row->plain_len > PIPELINE_CHUNK_MAX) {
		free(s.p);
		return check_malformed(ck, row);
	}
	if (row->is_inline) {
		ret = index_inline_get(ck->index, row->id, rd->record, &len);
		s.record = rd->record;
		if (ret || len != row->stored_len) {
			free(s.p);
			return ret == -ENOMEM ? ret : check_malformed(ck, row);
		}
	}
	ret = check_subject(rd, &s);
	free(s.p);
	return ret;
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

/* Hands out the next chunk: -ENOENT when there is none. */
static int next_row(struct reader *rd, struct index_chunk *row)
{
	struct check *ck = rd->ck;

	SCOPED_LOCK(&ck->lock);
	if (ck->ret)
		return ck->ret;
	if (check_progress(ck, ck->o->data ? "data" : "chunks", ck->o->data, ck->done, ck->total))
		return -EINTR;
	int ret = index_chunk_next(ck->index, ck->after, row, rd->frames, CHUNK_ROW_FRAMES);
	if (ret == -EIO || ret == -ERANGE) {
		check_finding(ck, CHECK_INDEX, "the chunks after number %llu cannot be read",
		              (unsigned long long)ck->after);
		return -ENOENT;
	}
	if (ret)
		return ret;
	ck->after = row->id;
	return 0;
}

static void *reader_run(void *arg)
{
	struct reader *rd = arg;
	struct check *ck = rd->ck;
	struct index_chunk row;
	int ret;

	while (!(ret = next_row(rd, &row)) && !(ret = check_row(rd, &row))) {
		SCOPED_LOCK(&ck->lock);
		ck->done += row.stored_len;
		if (ck->o->data)
			ck->r->read += row.stored_len;
	}
	SCOPED_LOCK(&ck->lock);
	if (!ck->ret)
		ck->ret = ret;
	return NULL;
}

static int reader_init(struct reader *rd, struct check *ck)
{
	rd->ck = ck;
	rd->frames = malloc(CHUNK_ROW_FRAMES);
	rd->record = malloc(PIPELINE_INLINE_MAX);
	rd->plain = ck->o->data ? malloc(PIPELINE_CHUNK_MAX) : NULL;
	if (!rd->frames || !rd->record || (ck->o->data && !rd->plain))
		return -ENOMEM;
	return pipeline_verifier_new(ck->pipeline, &rd->verifier);
}

static void reader_release(struct reader *rd)
{
	pipeline_verifier_free(rd->verifier);
	free(rd->frames);
	free(rd->record);
	free(rd->plain);
}

static unsigned threads(const struct check *ck)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = ck->o->threads ? ck->o->threads : cores < 1 ? 1 : (unsigned)cores;

	return !ck->o->data ? 1 : n < THREADS_MAX ? n : THREADS_MAX;
}

int check_chunks(struct check *ck)
{
	struct reader reader[THREADS_MAX] = {0};
	unsigned n = threads(ck);
	int ret = 0;

	for (unsigned i = 0; i < n && !ret; i++)
		ret = reader_init(&reader[i], ck);
	/* This thread is one of them. */
	for (unsigned i = 1; i < n && !ret; i++)
		reader[i].running = !pthread_create(&reader[i].thread, NULL, reader_run, &reader[i]);
	if (!ret)
		(void)reader_run(&reader[0]);
	for (unsigned i = 0; i < n; i++) {
		if (reader[i].running)
			(void)pthread_join(reader[i].thread, NULL);
		reader_release(&reader[i]);
	}
	if (!ret)
		ret = ck->ret;
	return ret == -ENOENT || ret == -EINTR ? 0 : ret;
}
