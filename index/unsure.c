/*
 * What of a segment's live bytes may be dead: `live` counts bytes that several extents map for each of them, up to all
 * of a chunk. What is dead there shows only in the extents themselves, which are too many to be read at each commit.
 * Here is, for each segment, how much it can be at most: count.c adds what commits may have left, and compaction sets
 * it right when it has looked. In memory only: after a mount nothing is known of what was there before.
 */
#include "base/array.h"
#include "index/db.h"

#include <errno.h>
#include <string.h>

/* The first entry of `segment` or of one above. */
static size_t lower_bound(const struct index *ix, uint64_t segment)
{
	size_t low = 0, high = ix->nunsure;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (ix->unsure[mid].segment < segment)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

void unsure_add(struct index *ix, uint64_t segment, uint64_t bytes)
{
	size_t at = lower_bound(ix, segment);

	if (!bytes)
		return;
	if (at == ix->nunsure || ix->unsure[at].segment != segment) {
		if (array_grow(&ix->unsure, &ix->unsure_room, ix->nunsure, sizeof(*ix->unsure)))
			return; /* the next mount looks at it */
		memmove(&ix->unsure[at + 1], &ix->unsure[at], (ix->nunsure++ - at) * sizeof(*ix->unsure));
		ix->unsure[at] = (struct unsure){.segment = segment};
	}
	if (__builtin_add_overflow(ix->unsure[at].bytes, bytes, &ix->unsure[at].bytes))
		ix->unsure[at].bytes = INDEX_UNKNOWN;
}

void unsure_clear(struct index *ix, uint64_t segment)
{
	size_t at = lower_bound(ix, segment);

	if (at == ix->nunsure || ix->unsure[at].segment != segment)
		return;
	memmove(&ix->unsure[at], &ix->unsure[at + 1], (--ix->nunsure - at) * sizeof(*ix->unsure));
}

void index_unsure_add(struct index *ix, uint64_t segment, uint64_t bytes)
{
	SCOPED_LOCK(&ix->lock);
	unsure_add(ix, segment, bytes);
}

void index_unsure_clear(struct index *ix, uint64_t segment)
{
	SCOPED_LOCK(&ix->lock);
	unsure_clear(ix, segment);
}

int index_unsure_next(struct index *ix, uint64_t after, uint64_t *segment, uint64_t *bytes)
{
	SCOPED_LOCK(&ix->lock);
	size_t at = after < UINT64_MAX ? lower_bound(ix, after + 1) : ix->nunsure;

	if (at == ix->nunsure)
		return -ENOENT;
	*segment = ix->unsure[at].segment;
	*bytes = ix->unsure[at].bytes;
	return 0;
}
