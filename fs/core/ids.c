/*
 * Inode numbers, cookies, chunk ids and sequences are never given out twice, crashes included. The index promises a
 * ceiling for each: numbers below it may have been used, so a mount begins at the last mount's ceiling. Chunk ids reach
 * the disk before the commit that names them, so their ceiling must be durable before they are used: it is raised, by
 * the commit before, when half of the room is gone.
 */
#include "fs/core/volume.h"

#include <errno.h>

#define ROOM ((uint64_t)1 << 20) /* numbers a promise covers */

static const struct {
	const char *key;
	size_t next, ceiling;
} ids[] = {
    {"next_ino", offsetof(struct core, next_ino), offsetof(struct core, ino_ceiling)},
    {"next_cookie", offsetof(struct core, next_cookie), offsetof(struct core, cookie_ceiling)},
    {"next_chunk", offsetof(struct core, next_chunk), offsetof(struct core, chunk_ceiling)},
    {"next_sequence", offsetof(struct core, next_sequence), offsetof(struct core, sequence_ceiling)},
};

#define IDS (sizeof(ids) / sizeof(ids[0]))

static atomic_uint_fast64_t *id_next(struct core *c, size_t i)
{
	return (atomic_uint_fast64_t *)(void *)((char *)c + ids[i].next);
}

static uint64_t *id_ceiling(struct core *c, size_t i)
{
	return (uint64_t *)(void *)((char *)c + ids[i].ceiling);
}

int ids_load(struct core *c)
{
	for (size_t i = 0; i < IDS; i++) {
		uint64_t v;
		/* 1 is the root directory; 0 to 2 are directory offsets of their own (dir.c). */
		int ret = index_meta_get(c->index, ids[i].key, 3, &v);

		if (ret)
			return ret;
		atomic_store(id_next(c, i), v);
		*id_ceiling(c, i) = v;
	}
	return 0;
}

int ids_reserve(struct core *c)
{
	for (size_t i = 0; i < IDS; i++) {
		uint64_t next = atomic_load(id_next(c, i));
		int ret;

		if (*id_ceiling(c, i) > next + ROOM / 2)
			continue;
		ret = index_meta_set(c->index, ids[i].key, next + ROOM);
		if (ret)
			return ret;
		*id_ceiling(c, i) = next + ROOM;
	}
	return 0;
}
