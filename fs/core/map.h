/*
 * The map of one inode: which bytes are where, as an interval tree of pieces that do not overlap. It holds everything
 * that is newer than the index (dirty pieces) and, as a cache, some of what the index says (clean ones). What lies
 * between pieces is unknown here and is asked of the index.
 *
 * Rule 3 of the order of writes (only what is unchanged since is installed) is the tree itself: a write replaces the
 * pieces it covers, so a sealed buffer is mapped only where a piece still refers to it.
 *
 * All functions run under the inode's lock.
 */
#ifndef APFS_FS_CORE_MAP_H
#define APFS_FS_CORE_MAP_H

#include "base/err.h"

#include <bsd/sys/tree.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct buffer;

enum piece_kind { PIECE_HOLE, PIECE_EXTENT, PIECE_BUFFER };

struct piece {
	RB_ENTRY(piece) link;
	TAILQ_ENTRY(piece) on_dirty; /* while dirty: a cut must not look at every clean piece */
	uint64_t off, len;
	uint64_t chunk;        /* PIECE_EXTENT */
	struct buffer *buffer; /* PIECE_BUFFER: holds a reference */
	uint64_t cut;          /* the cut whose snapshot holds this piece, 0 for none */
	uint32_t pos;          /* of the first byte, in the chunk's plaintext or in the buffer */
	uint8_t kind;
	bool dirty;   /* not in the index yet */
	bool sealing; /* PIECE_BUFFER: an item of a batch under way */
};

RB_HEAD(map_tree, piece);
TAILQ_HEAD(piece_list, piece);

struct map {
	struct map_tree tree;
	struct piece_list dirty_list; /* in no order */
	size_t count;                 /* of pieces */
	size_t dirty;                 /* of dirty pieces */
	atomic_size_t *all;           /* counts the pieces of many maps, or NULL */
};

void map_init(struct map *m, atomic_size_t *all);
void map_release(struct map *m);

/* The piece that holds off, else the first one after it, else NULL; and the successor of a piece. */
struct piece *map_find(struct map *m, uint64_t off);
struct piece *map_next(struct piece *p);
/* Where begins what no piece covers, before `next`, or before the end when that is NULL. */
uint64_t map_gap(struct map *m, struct piece *next);
/* The piece that ends exactly at off, or NULL. */
struct piece *map_before(struct map *m, uint64_t off);

/* Puts a piece like *like (its buffer reference is taken over on success) in place of whatever covers its range. The
 * tree is unchanged after -ENOMEM. Returns the piece through out, which may be NULL. */
int map_set(struct map *m, const struct piece *like, struct piece **out) MUST_CHECK;

/* Removes what covers [off, off + len), as if nothing were known of it. -ENOMEM: unchanged. */
int map_clear(struct map *m, uint64_t off, uint64_t len) MUST_CHECK;

/* Extends p by n bytes into [p end, p end + n), replacing what covers that. -ENOMEM: unchanged. */
int map_extend(struct map *m, struct piece *p, uint64_t n) MUST_CHECK;

/* Forgets the clean pieces in [off, off + len) that are extents of chunk: the index has moved them. */
void map_forget(struct map *m, uint64_t off, uint64_t len, uint64_t chunk);

/* Turns a buffer piece into an extent of chunk at pos, and joins it with its predecessor where that continues. */
void map_seal(struct map *m, struct piece *p, uint64_t chunk, uint32_t pos);

/* Marks clean what cut number `cut` took (0: forgets the mark instead, the pieces stay dirty). */
void map_cut_done(struct map *m, uint64_t cut, bool installed);

/* Forgets all clean pieces. */
void map_drop_clean(struct map *m);

#endif
