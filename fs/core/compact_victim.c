/* Which segment to compact next. */
#include "base/array.h"
#include "fs/core/compact.h"

#include <errno.h>
#include <stdlib.h>

#define BATCH        64u
#define SHARED_BATCH 32u /* segments of which all extents are read at once */

struct candidates {
	struct compact_victim *v;
	size_t n, room;
	uint64_t inline_live, newest;
};

static bool skipped(uint64_t segment, const uint64_t *skip, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (skip[i] == segment)
			return true;
	return false;
}

/* A segment's row, as the index has it, and what has been appended since: not counted as dead. */
static int consider(struct core *c, const struct compact_rule *rule, const struct index_segment *row,
                    struct candidates *l)
{
	struct pipeline_segment s;
	uint64_t dead;

	if (pipeline_segment_get(c->pipeline, row->id, &s) || row->id > rule->last)
		return 0;
	if (row->state == INDEX_SEGMENT_INLINE) {
		l->inline_live += row->live;
		return 0;
	}
	dead = s.size > row->live ? s.size - row->live : 0;
	if (!row->chunks || (s.open && !rule->open) || dead < rule->dead_bytes || dead * 100 < rule->dead * s.size)
		return 0;
	int ret = array_grow(&l->v, &l->room, l->n, sizeof(*l->v));
	if (!ret)
		l->v[l->n++] = (struct compact_victim){row->id, s.size, row->live, s.open};
	return ret;
}

static int candidates(struct core *c, const struct compact_rule *rule, const uint64_t *skip, size_t nskip,
                      struct candidates *l)
{
	struct index_segment row[BATCH];
	uint64_t after = 0;
	size_t n;
	int ret;

	do {
		ret = index_segment_list(c->index, after, row, BATCH, &n);
		for (size_t i = 0; i < n && !ret; i++) {
			after = row[i].id;
			l->newest = after;
			if (!skipped(row[i].id, skip, nskip))
				ret = consider(c, rule, &row[i], l);
		}
	} while (!ret && n == BATCH);
	return ret;
}

/* What copying costs against what it gives, for how long it has been so: old data stays as it is, young data dies by
 * itself if one waits. */
static double score(const struct compact_victim *v, const struct compact_rule *rule, uint64_t newest)
{
	double dead = v->total > v->live ? (double)(v->total - v->live) : 0;

	if (rule->emptiest)
		return -(double)v->live;
	return dead / (double)(v->total + v->live) * (double)(newest - v->segment + 1);
}

uint64_t compact_dead(struct core *c, const struct compact_rule *rule, uint64_t live_max)
{
	struct candidates l = {0};
	uint64_t dead = 0;
	int ret = candidates(c, rule, NULL, 0, &l);

	for (size_t i = 0; i < l.n && !ret; i++)
		if (l.v[i].live <= live_max)
			dead += l.v[i].total - l.v[i].live;
	free(l.v);
	return dead;
}

int compact_choose(struct core *c, const struct compact_rule *rule, const uint64_t *skip, size_t nskip,
                   struct compact_victim *out, uint64_t *bytes)
{
	struct candidates l = {0};
	const struct compact_victim *best = NULL;
	int ret = candidates(c, rule, skip, nskip, &l);

	*bytes = 0;
	for (size_t i = 0; i < l.n && !ret; i++) {
		*bytes += l.v[i].live;
		if (!best || score(&l.v[i], rule, l.newest) > score(best, rule, l.newest))
			best = &l.v[i];
	}
	if (!ret && l.inline_live >= rule->inline_live && !skipped(0, skip, nskip)) {
		*bytes += l.inline_live;
		*out = (struct compact_victim){.total = l.inline_live, .live = l.inline_live};
	} else if (best) {
		*out = *best;
	} else if (!ret) {
		ret = -ENOENT;
	}
	free(l.v);
	return ret;
}

/* --- what is shared ----------------------------------------------------------------------------------------------- */

/* Stored bytes of a chunk that extents map, each once. */
static int chunk_live(struct core *c, const struct index_chunk *row, uint64_t *live)
{
	struct index_owned_extent *e;
	uint64_t covered = 0, bytes = 0;
	size_t n;
	int ret = chunk_extents(c->index, row->id, SIZE_MAX, &e, &n);

	for (size_t i = 0; i < n; i++) {
		uint64_t from = e[i].x.chunk_off > covered ? e[i].x.chunk_off : covered;
		uint64_t to = e[i].x.chunk_off + e[i].x.len;

		if (to > from) {
			bytes += to - from;
			covered = to;
		}
	}
	free(e);
	*live += min_u64(bytes, row->plain_len) * row->stored_len / row->plain_len;
	return ret;
}

/* The same of a segment. */
static int segment_live(struct core *c, uint64_t segment, uint64_t *live)
{
	struct index_chunk row[BATCH];
	uint64_t after = 0;
	size_t n;
	int ret;

	*live = 0;
	do {
		ret = index_segment_chunks(c->index, segment, after, row, BATCH, &n);
		for (size_t i = 0; i < n && !ret; i++) {
			after = row[i].id;
			ret = row[i].plain_len ? chunk_live(c, &row[i], live) : 0;
		}
	} while (!ret && n == BATCH);
	return ret;
}

int compact_choose_shared(struct core *c, const struct compact_rule *rule, const uint64_t *skip, size_t nskip,
                          uint64_t *after, struct compact_victim *out)
{
	struct index_segment row[SHARED_BATCH];
	size_t n;
	int ret = index_segment_list(c->index, *after, row, SHARED_BATCH, &n);

	for (size_t i = 0; i < n && !ret; i++) {
		struct candidates l = {0};

		*after = row[i].id;
		if (*after > rule->last)
			return -ENOENT;
		if (row[i].state == INDEX_SEGMENT_INLINE || !row[i].chunks || skipped(row[i].id, skip, nskip) ||
		    segment_live(c, row[i].id, &row[i].live))
			continue; /* what cannot be read is for apfs check */
		ret = consider(c, rule, &row[i], &l);
		bool found = !ret && l.n;
		if (found)
			*out = l.v[0];
		free(l.v);
		if (found)
			return 0;
	}
	return ret ? ret : n == SHARED_BATCH ? -EAGAIN : -ENOENT;
}
