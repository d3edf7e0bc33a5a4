/*
 * Compaction (docs/ARCHITECTURE.md, "Compaction"): what is live in a segment that is mostly dead is copied to new
 * chunks, a step at a time, so that the segment can go. A step is a `struct copy`:
 *
 *   copy_make       chooses extents (compact_plan.c), reads them and seals new chunks (compact_copy.c); nothing refers
 *                   to those yet
 *   cut_wait_copy   the next cut syncs the segments and, between its own installing and its COMMIT, calls copy_install
 *                   (compact_install.c), which remaps what the index still maps as it was read
 *   copy_free
 *
 * Only one thread makes copies at a time.
 */
#ifndef APFS_FS_CORE_COMPACT_H
#define APFS_FS_CORE_COMPACT_H

#include "fs/core/volume.h"

/* A walk through a victim, chunk by chunk. */
struct compact_pass {
	uint64_t segment; /* 0: the chunks that the index keeps */
	uint64_t after;   /* chunks up to this id are done */
	uint64_t last;    /* chunks above this id are left alone */
	uint32_t pos;     /* of the next chunk: what lies before it is done */
	bool thorough;    /* gather the fragments of files around those of the victim, and compress cold data harder */
	bool end;         /* nothing is left to visit */
};

/* An extent to move, or a part of one. */
struct copy_extent {
	uint64_t ino;
	struct index_extent x;
	bool merged; /* gathered with its neighbours */
};

/* Bytes of an old chunk, stored once however many extents map them; never more than a frame. */
struct copy_part {
	uint64_t chunk;    /* that they are read from, at pos */
	uint64_t ino, off; /* where in which file they are; of several places, one */
	uint64_t parent;   /* directory of the file, as far as known */
	uint64_t size;     /* of the file */
	const uint8_t *data;
	uint32_t pos, len;
	struct preference prefers;
	enum policy_kind kind;
	bool cold;   /* its file has not been changed for long: compress it harder */
	bool read;   /* data holds them */
	uint32_t to; /* number of the new chunk in the copy, and the place in it */
	uint32_t to_pos;
};

/* A part of a file whose extents have all been taken. */
struct copy_region {
	uint64_t ino, off, len;
};

struct copy_chunk {
	uint64_t id;
	struct copy_part **first;
	size_t parts;
	uint32_t len;
	uint32_t stored; /* bytes, once it is sealed */
};

/* A frame that cannot be read. */
struct copy_damage {
	uint64_t segment, chunk;
	int ret;
	struct err err;
};

#define COPY_REGIONS 16

struct copy {
	struct core *core;
	struct copy_extent *ext;
	size_t exts, exts_room;
	struct copy_part *part; /* by chunk and pos; no two overlap */
	size_t parts, parts_room;
	struct copy_part **order; /* as they are stored */
	struct copy_chunk *chunk;
	size_t chunks;
	struct copy_region region[COPY_REGIONS];
	size_t regions;
	uint64_t crowded; /* a chunk with more extents than ext has; 0: none */
	unsigned refused; /* regions that were not taken, for those who share their extents */
	uint8_t *buffer;  /* borrowed: room bytes for the parts */
	size_t room, used;
	size_t claimed;              /* bytes of STORE */
	struct copy_damage *damaged; /* one of each segment */
	size_t ndamaged;
	struct seal_group sealing;
	atomic_uint_fast64_t stored; /* bytes of the new chunks */
	bool again;                  /* it was installed, and ext is what was left of the crowded chunk's */
	bool installed;              /* or it was tried: not twice, when its cut is */
	int ret;                     /* of installing */
	uint64_t moved;              /* bytes of files that were remapped, once installed */
};

/* Copies the next extents of the victim, as many as fit room bytes of buffer (at least 256 KiB), and moves the pass on.
 * *out is NULL when the pass had nothing more. */
int copy_make(struct core *c, struct compact_pass *pass, uint8_t *buffer, size_t room, struct copy **out,
              struct err *e) MUST_CHECK;
/* What it moved is remapped, within the cut that has made its chunks durable: by that cut's leader. */
int copy_install(struct core *c, struct copy *copy) MUST_CHECK;
/* After it was installed: the next extents that map what was copied, where one time did not hold them all. False: there
 * are none, or *ret is what went wrong. */
bool copy_again(struct copy *copy, int *ret);
/* Forgets what was not installed. */
void copy_free(struct copy *copy);

/* compact_plan.c: fills ext and part. */
int copy_plan(struct copy *copy, struct compact_pass *pass) MUST_CHECK;
/* Fills ext with what is left of the extents of the crowded chunk. */
int copy_plan_rest(struct copy *copy) MUST_CHECK;

/* compact_victim.c: what is worth compacting. */
struct compact_victim {
	uint64_t segment; /* 0: the chunks that the index keeps */
	uint64_t total, live;
	bool open;
};
struct compact_rule {
	bool open;            /* the segment that is appended to may be one: it is closed first */
	bool emptiest;        /* prefer what has least to copy, not what promises most in the long run */
	bool known;           /* do not look for what clones have left where nothing is known of it yet */
	unsigned dead;        /* per cent of a segment that must be dead at least */
	uint64_t dead_bytes;  /* and how many bytes */
	uint64_t inline_live; /* bytes of chunks in the index that are worth moving */
	uint64_t last;        /* segments above this id are left alone */
};
/* The best victim, or -ENOENT. Segments in skip are passed over. *bytes: what is live in all that the rule admits. */
int compact_choose(struct core *c, const struct compact_rule *rule, const uint64_t *skip, size_t nskip,
                   struct compact_victim *out, uint64_t *bytes) MUST_CHECK;

/* What `live` does not tell: it counts what clones share for each of them, so that a chunk may look live that is mostly
 * dead. Looks at all extents of the next segments above *after that the rule might admit (index_unsure_next). A victim
 * is one whose live bytes there is room for. -EAGAIN: none of these is, but there are more; -ENOENT: there are none. */
int compact_choose_shared(struct core *c, const struct compact_rule *rule, const uint64_t *skip, size_t nskip,
                          uint64_t *after, struct compact_victim *out) MUST_CHECK;

/* Whether so many bytes can be copied: a victim that is moved by half only takes space. */
bool compact_has_room(struct core *c, uint64_t live);

/* Dead bytes in segments that the rule admits and of which at most live_max bytes are live. */
uint64_t compact_dead(struct core *c, const struct compact_rule *rule, uint64_t live_max);

/* For tests, without the background thread: compacts in the calling thread until there is nothing left, as
 * core_compact_start does. */
int compact_run(struct core *c, bool all) MUST_CHECK;

#endif
