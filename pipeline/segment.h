/*
 * Within the pipeline: the segments of a store. A segment that is written to has a writer count and is current until it
 * is full; every other one is opened when it is read, and at most SEGMENT_OPEN_MAX idle ones stay open. All functions
 * may be called from any thread; the store's lock is never held over storage, but to close files.
 */
#ifndef APFS_PIPELINE_SEGMENT_H
#define APFS_PIPELINE_SEGMENT_H

#include "pipeline/chunk.h"
#include "pipeline/workers.h"

#include <bsd/sys/tree.h>
#include <pthread.h>

#define SEGMENT_OPEN_MAX   256u
#define SEGMENT_HEADER_LEN 104u /* bytes of a header of version 1 */
#define SEGMENT_PATH       64u  /* room for a segment's path */

/* What a header says. */
struct segment_header {
	enum pipeline_segment_kind kind;
	enum cipher_suite suite;
	uint32_t epoch;
	uint8_t name[PIPELINE_SEGMENT_NAME];
};

/* Makes a fresh header with a random name and salt: SEGMENT_HEADER_LEN bytes; key gets the segment's key. */
int segment_header_make(const struct keyring *keyring, const uint8_t uuid[SUPERBLOCK_UUID],
                        enum pipeline_segment_kind kind, enum cipher_suite suite, struct segment_header *h,
                        uint8_t *bytes, uint8_t key[CIPHER_KEY]) MUST_CHECK;
/* Decodes and verifies one, and derives its key. -EPROTONOSUPPORT: a newer format. -EBADMSG: not a header of this
 * store. path is for the error's text. */
int segment_header_open(const struct keyring *keyring, const uint8_t uuid[SUPERBLOCK_UUID], const uint8_t *bytes,
                        size_t len, const char *path, struct segment_header *h, uint8_t key[CIPHER_KEY],
                        struct err *e) MUST_CHECK;

struct segment {
	uint64_t id;
	enum pipeline_segment_kind kind;
	uint8_t name[PIPELINE_SEGMENT_NAME];

	pthread_mutex_t opening; /* held while it is opened for reading; before the store's lock */

	/* Under the store's lock; file, key and suite do not change while refs is not 0 and key is set. */
	struct io_file *file; /* NULL while closed, and for ever if inline */
	uint8_t *key;         /* guarded memory; NULL while closed */
	enum cipher_suite suite;
	uint32_t epoch;
	uint16_t header_len;
	uint8_t header[PIPELINE_HEADER_MAX];
	unsigned refs;       /* readers, writers and the syncing thread */
	unsigned writers;    /* chunks being sealed under its key */
	bool map_tried;      /* since it was opened */
	uint64_t mapped;     /* bytes */
	bool current;        /* the one that new chunks go to */
	bool dirty, idle;    /* on the list of that name */
	bool made;           /* by this mount: on the list of that name */
	bool gone;           /* deleted: freed with the last reference */
	int failed;          /* the -errno of a write */
	uint64_t end;        /* where the next record goes */
	uint64_t size;       /* the end of what has been written */
	uint64_t synced;     /* and of what has been made durable */
	uint64_t behind;     /* up to where STORE was told to begin (io_write_behind) */
	uint64_t promised;   /* worst-case bytes of the chunks being sealed */
	uint64_t settled;    /* and of those that have been appended */
	uint64_t sync_round; /* that last had it */

	RB_ENTRY(segment) by_id;
	TAILQ_ENTRY(segment) idle_link, dirty_link, made_link;
};

struct segment_store {
	struct io *io;
	const struct keyring *keyring;
	struct workers *workers;
	struct governor *governor; /* held for each use of STORE that may take long; NULL: none */
	struct metrics *metrics;
	uint8_t uuid[SUPERBLOCK_UUID];
	enum cipher_suite suite;
	bool read_only;

	pthread_mutex_t lock;
	pthread_cond_t created;  /* creating became false */
	pthread_cond_t synced;   /* a round of syncing ended */
	pthread_cond_t unpinned; /* one that is gone lost a reference */
	RB_HEAD(segment_tree, segment) by_id;
	TAILQ_HEAD(segment_list, segment) idle, dirty, made; /* idle: open, unused, the latest first */
	unsigned nopen;
	uint64_t mapped, map_max; /* bytes of segments that are, and may be, mapped for reading */
	uint64_t next_id, full;   /* full: bytes from which on a segment takes no more */

	struct segment *current, *current_inline, *ready; /* ready: made ahead, not yet known by an id */
	bool creating;                                    /* by some thread */
	bool preparing;                                   /* queued as a task */
	bool prepare_failed;                              /* for the present current segment */

	uint64_t dirs[4]; /* the segments/xx that are known to be durable; the creating thread's */

	bool syncing;
	uint64_t rounds_begun, rounds_done;
	int failed; /* a sync failed: nothing is written any more */
	struct err failure;
	uint64_t syncs;
};

struct segment_store_options {
	struct io *io;
	const struct keyring *keyring;
	struct workers *workers;
	struct governor *governor;
	const uint8_t *uuid;
	enum cipher_suite suite;
	uint64_t next_id, full, map_max;
	bool read_only;
	struct metrics *metrics;
};

void segment_store_init(struct segment_store *s, const struct segment_store_options *o);
/* Nothing may be in use any more, and the workers' tasks be done. */
void segment_store_release(struct segment_store *s);

/* --- any segment (segment.c) ------------------------------------------------------------------------------------- */

int segment_store_add(struct segment_store *s, const struct pipeline_segment *in) MUST_CHECK;
int segment_store_info(struct segment_store *s, uint64_t id, struct pipeline_segment *out) MUST_CHECK;
size_t segment_store_made(struct segment_store *s, uint64_t from, struct pipeline_segment *out, size_t max);
int segment_store_delete(struct segment_store *s, uint64_t id, struct err *e) MUST_CHECK;

/* Pins a segment, opened and verified, until segment_put. -ENOENT if unknown or without its file. */
int segment_get(struct segment_store *s, uint64_t id, struct segment **out, struct err *e) MUST_CHECK;
void segment_put(struct segment_store *s, struct segment *seg);
/* What the chunks of a pinned, open segment are sealed with. */
struct chunk_key segment_chunk_key(const struct segment_store *s, const struct segment *seg);

/* For segment_write.c. */
struct segment *segment_new(enum pipeline_segment_kind kind);
void segment_free(struct segment *seg);
int segment_store_insert_locked(struct segment_store *s, struct segment *seg) MUST_CHECK;
void segment_put_locked(struct segment_store *s, struct segment *seg);
void segment_evict_locked(struct segment_store *s);

/* --- the ones that are written (segment_write.c) ------------------------------------------------------------------ */

/* Pins a segment to seal a chunk of at most `worst` bytes under its key, making one if need be. Every success is
 * followed by segment_append or segment_release. */
int segment_acquire(struct segment_store *s, enum pipeline_segment_kind kind, uint32_t worst, struct segment **out,
                    struct err *e) MUST_CHECK;
/* Appends a record to a segment file; *off is where. Unpins it in any case. */
int segment_append(struct segment_store *s, struct segment *seg, uint32_t worst, const void *record, uint32_t len,
                   uint64_t *off, struct err *e) MUST_CHECK;
/* Unpins without having appended: the chunk is inline or has failed. */
void segment_release(struct segment_store *s, struct segment *seg, uint32_t worst);

/* Ends appending to an open one; others are left alone. */
void segment_store_roll(struct segment_store *s, uint64_t id);
int segment_store_sync(struct segment_store *s, struct err *e) MUST_CHECK;
bool segment_store_failed(struct segment_store *s);

#endif
