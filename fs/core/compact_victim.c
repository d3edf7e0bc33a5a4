/* Which segment to compact next. */
#include "base/array.h"
#include "fs/core/compact.h"

#include <errno.h>
#include <stdlib.h>

#define BATCH        64u
#define SHARED_BATCH 32u /* segments of which all extents are read at once */
#define MAP_BITS     (8 * sizeof(uint64_t))

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

/* Whether the rule admits a segment of which so much is live. What has been appended since the index was told is not
 * counted as dead. */
static bool admits(struct core *c, const struct compact_rule *rule, const struct index_segment *row, uint64_t live,
                   struct compact_victim *out)
{
	struct pipeline_segment s;
	uint64_t dead;

	if (row->id > rule->last || row->state == INDEX_SEGMENT_INLINE || !row->chunks ||
	    pipeline_segment_get(c->pipeline, row->id, &s) || (s.open && !rule->open))
		return false;
	dead = s.size > live ? s.size - live : 0;
	*out = (struct compact_victim){row->id, s.size, live, s.open};
	return dead >= rule->dead_bytes && dead * 100 >= rule->dead * s.size;
}

static int consider(struct core *c, const struct compact_rule *rule, const struct index_segment *row,
                    struct candidates *l)
{
	struct compact_victim v;
	int ret = 0;

	if (row->state == INDEX_SEGMENT_INLINE && row->id <= rule->last)
		l->inline_live += row->live;
	else if (admits(c, rule, row, row->live, &v)) {
		ret = array_grow(&l->v, &l->room, l->n, sizeof(*l->v));
		if (!ret)
			l->v[l->n++] = v;
	}
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

/* Marks bytes [from, to): how many were not yet. */
static uint64_t mark(uint64_t *map, uint64_t from, uint64_t to)
{
	uint64_t fresh = 0;

	while (from < to) {
		uint64_t bit = from % MAP_BITS, n = min_u64(MAP_BITS - bit, to - from);
		uint64_t mask = (UINT64_MAX >> (MAP_BITS - n)) << bit;

		fresh += (unsigned)__builtin_popcountll(mask & ~map[from / MAP_BITS]);
		map[from / MAP_BITS] |= mask;
		from += n;
	}
	return fresh;
}

/* Adds the stored bytes that a chunk counts as live and nobody maps. However many extents it has, it takes no more
 * memory. */
static int chunk_hidden(struct core *c, const struct index_chunk *row, uint64_t *hidden)
{
	uint64_t counted = min_u64(row->mapped, row->plain_len), found = 0, *map;
	struct index_owned_extent e[BATCH];
	size_t n = 0;
	int ret;

	if (row->refs < 2)
		return 0;
	if (!row->plain_len || row->plain_len > PIPELINE_CHUNK_MAX)
		return -EUCLEAN;
	map = calloc(row->plain_len / MAP_BITS + 1, sizeof(*map));
	if (!map)
		return -ENOMEM;
	do {
		ret =
		    index_chunk_extents(c->index, row->id, n ? e[n - 1].ino : 0, n ? e[n - 1].x.off : 0, e, BATCH, &n);
		for (size_t i = 0; i < n && !ret; i++)
			found += mark(map, e[i].x.chunk_off, min_u64(e[i].x.chunk_off + e[i].x.len, row->plain_len));
	} while (!ret && n == BATCH);
	free(map);
	*hidden += counted > found ? (counted - found) * row->stored_len / row->plain_len : 0;
	return ret;
}

static int segment_hidden(struct core *c, uint64_t segment, uint64_t *hidden)
{
	struct index_chunk row[BATCH];
	uint64_t after = 0;
	size_t n;
	int ret;

	*hidden = 0;
	do {
		ret = index_segment_chunks(c->index, segment, after, row, BATCH, &n);
		for (size_t i = 0; i < n && !ret; i++) {
			after = row[i].id;
			ret = chunk_hidden(c, &row[i], hidden);
		}
	} while (!ret && n == BATCH);
	return ret;
}

/* Takes what is hidden off the row's live bytes, and the index then knows how much it is. */
static int look(struct core *c, struct index_segment *row)
{
	uint64_t hidden;
	int ret;

	index_unsure_clear(c->index, row->id);
	ret = segment_hidden(c, row->id, &hidden);
	if (!ret)
		index_unsure_add(c->index, row->id, hidden);
	if (ret == -ENOMEM)
		index_unsure_add(c->index, row->id, INDEX_UNKNOWN);
	row->live -= min_u64(row->live, hidden);
	return ret;
}

bool compact_has_room(struct core *c, uint64_t live)
{
	if (!space_claim_scratch(c, live, 0))
		return false;
	space_unclaim(c, live);
	return true;
}

int compact_choose_shared(struct core *c, const struct compact_rule *rule, const uint64_t *skip, size_t nskip,
                          uint64_t *after, struct compact_victim *out)
{
	struct index_segment row;
	uint64_t unsure;
	size_t n;

	for (unsigned looked = 0; looked < SHARED_BATCH;) {
		int ret = index_unsure_next(c->index, *after, after, &unsure);

		if (ret)
			return ret;
		if ((rule->known && unsure == INDEX_UNKNOWN) || skipped(*after, skip, nskip))
			continue;
		ret = index_segment_list(c->index, *after - 1, &row, 1, &n);
		if (ret)
			return ret;
		if (!n || row.id != *after || !admits(c, rule, &row, row.live - min_u64(row.live, unsure), out))
			continue;
		looked++;
		ret = look(c, &row);
		if (ret == -ENOMEM)
			return ret;
		/* What cannot be read is for apfs check. */
		if (!ret && admits(c, rule, &row, row.live, out) && compact_has_room(c, row.live))
			return 0;
	}
	return -EAGAIN;
}
