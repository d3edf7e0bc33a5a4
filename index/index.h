/*
 * The index: inodes, names, attributes, extents and chunks in one SQLite database in STORE, reached through a VFS of
 * ours on base's io vtable. One connection under one mutex; every function takes it, so any thread may call, and no
 * function is called from within a callback of another.
 *
 * A transaction is always open. What is written joins it; index_commit ends it and opens the next; nothing is durable
 * before the index_sync that follows. Only one thread commits. Functions return 0 or -errno; -EIO, -ENOSPC and -ENOMEM
 * from a function that writes may mean that SQLite rolled the transaction back: then index_failed turns true for good,
 * every later write and commit fails with -EIO, and the volume must stop as in a crash. A damaged row is -EIO too.
 */
#ifndef APFS_INDEX_INDEX_H
#define APFS_INDEX_INDEX_H

#include "base/clock.h"
#include "base/io.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct index;

#define INDEX_NAME_MAX   255
#define INDEX_OFFSET_MAX ((uint64_t)INT64_MAX) /* offsets and sizes are at most this */
#define INDEX_RESERVE    40                    /* bytes at the end of each page, for nonce and tag */
#define INDEX_PAGE_MIN   1024                  /* SQLite needs 480 bytes beside the reserved ones */
#define INDEX_NONCE      24
#define INDEX_TAG        16

/* What is sealed as one: a page of index.db, numbered from 1, or a slot of its WAL, numbered from 0, the header. */
enum index_unit { INDEX_PAGE = 0, INDEX_SLOT = 1 };

/* How the store seals the index. Both functions are called by one thread at a time, and return 0 or -errno. */
struct index_sealer {
	/* Seals len bytes of `in` to out, which gets as many of ciphertext and then the tag; in == out is allowed. */
	int (*seal)(void *arg, enum index_unit unit, uint64_t number, const void *in, size_t len,
	            uint8_t nonce[INDEX_NONCE], void *out);
	/* Opens len bytes of ciphertext, which the tag follows; in == out is allowed. -EBADMSG: not authentic. */
	int (*open)(void *arg, enum index_unit unit, uint64_t number, const uint8_t nonce[INDEX_NONCE], const void *in,
	            size_t len, void *out);
	void *arg;
};

/* Creates an empty index.db, durably. -EEXIST if there is one. Without a sealer (tests only) nothing is sealed. */
int index_create(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct err *e) MUST_CHECK;

/* Opens it, recovers the WAL, checks the schema version (-EPROTONOSUPPORT if newer) and begins a transaction. -EBADMSG:
 * damaged, or not sealed by this store. The sealer is copied; what its arg is must outlive the index. */
int index_open(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct index **out,
               struct err *e) MUST_CHECK;

/* The same to read only: nothing in STORE changes, what the WAL holds is seen, and no transaction is open. Functions
 * that write fail. Closed by index_abandon. */
int index_open_read(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct index **out,
                    struct err *e) MUST_CHECK;

/* Writes a plain SQLite database, not sealed, to an empty file of any filesystem. The index is open to read only.
 * -EBADMSG: a page is damaged. */
int index_export(struct index *ix, const char *path, struct err *e) MUST_CHECK;

/* Commits, checkpoints everything, deletes the WAL (but where there is no room to checkpoint, makes it durable) and
 * closes; after index_failed only closes. ix is freed. */
int index_close(struct index *ix, struct err *e) MUST_CHECK;
/* Closes as a crash would: what was not committed is gone, no checkpoint is made. */
void index_abandon(struct index *ix);

/* COMMIT, then BEGIN. Counts of chunks and segments are brought up to date first; chunks that no extent refers to any
 * more are removed. Runs a checkpoint when the WAL has grown enough. Not durable by itself. -ENOSPC with index_failed
 * still false: there is no room for the WAL; the transaction stays open and the commit can be tried again. -EINVAL: an
 * extent names a chunk, or a chunk a segment, that has no row. */
int index_commit(struct index *ix, struct err *e) MUST_CHECK;

/* From now on a checkpoint runs when the WAL holds this many bytes (16 MiB unless told). */
void index_checkpoint_every(struct index *ix, uint64_t bytes);
/* And when it has room for less than this many more (0 unless told) without growing. */
void index_keep_room(struct index *ix, uint64_t bytes);

/* Makes the last commit durable: fdatasync of the WAL outside the mutex (and of the database after a checkpoint). */
int index_sync(struct index *ix, struct err *e) MUST_CHECK;

bool index_failed(const struct index *ix);

/* Bytes of pages that the open transaction has changed (an estimate): the caller commits early when they are many. */
size_t index_pending(const struct index *ix);

/* Bytes by which the index's files may still grow for what was written to it, and for this many rows of extents or
 * inodes that are to be written before the next commit. An estimate that errs on the high side. Takes no lock. */
uint64_t index_owed(const struct index *ix, uint64_t rows);

/* --- checking (check.c, verify.c, lookup.c) ----------------------------------------------------------------------- */

/* PRAGMA integrity_check, counts and references between tables: 0 when clean, -EUCLEAN with the first finding
 * otherwise. Every inode must have been put. Holds the mutex. */
int index_check(struct index *ix, struct err *e) MUST_CHECK;

struct index_totals_checked {
	uint64_t inodes, names, extents, chunks, segments;
	uint64_t orphans; /* inodes without a name, which the next mount removes */
	uint64_t stored;  /* bytes of all chunk records */
};

struct index_verify {
	/* The filesystem's rules too: one tree of directories, their sizes and links, ceilings of numbers. */
	bool tree;
	/* Called for what is wrong: a line without names. Must not call the index. */
	void (*finding)(void *arg, const char *text);
	/* Called now and then; share is 0 to 1000. True stops. May be NULL. */
	bool (*progress)(void *arg, unsigned share);
	void *arg;
};

/* All that index_check looks at and, if asked to, more; goes on after findings. Memory is bounded: about 100 MiB, and
 * 24 bytes a directory. What cannot be read is a finding. -EINTR: stopped. Other errors: it could not run. */
int index_verify(struct index *ix, const struct index_verify *v, struct index_totals_checked *out) MUST_CHECK;

struct index_chunk;
/* The chunk with the lowest id above `after`; as index_chunk_get. */
int index_chunk_next(struct index *ix, uint64_t after, struct index_chunk *out, void *buf, size_t buf_len) MUST_CHECK;

/* A name that ino has in the directory parent, zero-terminated: reads the directory. -ENOENT. */
int index_name_of(struct index *ix, uint64_t parent, uint64_t ino, char name[INDEX_NAME_MAX + 1]) MUST_CHECK;
/* Every name of the volume, not zero-terminated; fn as above. */
int index_names_all(struct index *ix, int (*fn)(void *arg, uint64_t parent, uint64_t ino, const char *name, size_t len),
                    void *arg) MUST_CHECK;

/* --- counters kept in meta -------------------------------------------------------------------------------------- */

/* Named unsigned counters, e.g. the ceilings below which numbers were given out. Absent: *value = fallback. */
int index_meta_get(struct index *ix, const char *key, uint64_t fallback, uint64_t *value) MUST_CHECK;
int index_meta_set(struct index *ix, const char *key, uint64_t value) MUST_CHECK;

/* --- inodes ------------------------------------------------------------------------------------------------------- */

enum { INDEX_INODE_XATTRS = 1 /* may have extended attributes; unset: certainly none */ };

struct index_inode {
	uint64_t ino;
	uint32_t mode, nlink, uid, gid, rdev, flags;
	uint64_t size;   /* bytes; a symlink's: its target's length; a directory's: its number of entries */
	uint64_t blocks; /* estimate of 512-byte units stored */
	uint64_t parent; /* of a directory; else where its last name was made, 0 if unknown: a hint */
	uint64_t generation;
	struct clock_time atime, mtime, ctime, btime;
};

int index_inode_get(struct index *ix, uint64_t ino, struct index_inode *out) MUST_CHECK; /* -ENOENT */
int index_inode_put(struct index *ix, const struct index_inode *in) MUST_CHECK;          /* inserts or replaces */
/* Changes the blocks that the row counts, of which 1 stays. Absent is no error. */
int index_inode_blocks(struct index *ix, uint64_t ino, int64_t change) MUST_CHECK;
/* Removes the row with its symlink target, extended attributes and extents. Absent is no error. */
int index_inode_delete(struct index *ix, uint64_t ino) MUST_CHECK;
/* Inodes with nlink 0: files that were unlinked while open when the last mount ended. Up to max numbers: the count. */
int index_inode_orphans(struct index *ix, uint64_t *ino, size_t max, size_t *n) MUST_CHECK;

/* A symlink's target: bytes, no terminating zero. get: *len is the room in and the length out; -ERANGE, -ENOENT. */
int index_symlink_put(struct index *ix, uint64_t ino, const char *target, size_t len) MUST_CHECK;
int index_symlink_get(struct index *ix, uint64_t ino, char *target, size_t *len) MUST_CHECK;

/* --- names -------------------------------------------------------------------------------------------------------- */

struct index_dirent {
	uint64_t ino, cookie; /* cookie rises with creation: the readdir offset */
	uint8_t type;         /* DT_* of the inode */
	uint8_t name_len;
	char name[INDEX_NAME_MAX + 1];
};

int index_dirent_get(struct index *ix, uint64_t parent, const char *name, size_t len,
                     struct index_dirent *out) MUST_CHECK;                                           /* -ENOENT */
int index_dirent_add(struct index *ix, uint64_t parent, const struct index_dirent *d) MUST_CHECK;    /* -EEXIST */
int index_dirent_remove(struct index *ix, uint64_t parent, const char *name, size_t len) MUST_CHECK; /* -ENOENT */
/* Makes an existing name (its cookie stays) refer to another inode. -ENOENT */
int index_dirent_set(struct index *ix, uint64_t parent, const char *name, size_t len, uint64_t ino,
                     uint8_t type) MUST_CHECK;

/* Changes a name, which keeps its cookie. -ENOENT, -EEXIST */
int index_dirent_rename(struct index *ix, uint64_t parent, const char *name, size_t len, const char *new_name,
                        size_t new_len) MUST_CHECK;

/* Calls fn for the entries of parent with a cookie above `after`, in order of cookies, until there are no more or fn
 * returns non-zero (which is not an error). inode is the entry's row, or NULL where want_inodes is false or the row
 * is not written yet. fn runs under the index's mutex and must not call the index. */
typedef int (*index_dirent_fn)(void *arg, const struct index_dirent *d, const struct index_inode *inode);
int index_dirent_list(struct index *ix, uint64_t parent, uint64_t after, bool want_inodes, index_dirent_fn fn,
                      void *arg) MUST_CHECK;

/* --- extended attributes ------------------------------------------------------------------------------------------ */

/* get: *len is the room in (0: only ask) and the length out; -ENODATA, -ERANGE. */
int index_xattr_get(struct index *ix, uint64_t ino, const char *name, void *value, size_t *len) MUST_CHECK;
int index_xattr_set(struct index *ix, uint64_t ino, const char *name, const void *value, size_t len) MUST_CHECK;
int index_xattr_remove(struct index *ix, uint64_t ino, const char *name) MUST_CHECK; /* -ENODATA */
/* Names, each ending in a zero byte, one after the other; *len as in get. */
int index_xattr_list(struct index *ix, uint64_t ino, char *names, size_t *len) MUST_CHECK;

/* --- extents ------------------------------------------------------------------------------------------------------ */

struct index_extent {
	uint64_t off, len;  /* bytes of the file */
	uint64_t chunk;     /* 0 in index_extent_set: a hole */
	uint32_t chunk_off; /* bytes into the chunk's plaintext */
};

/* The extents that overlap [from, to), ascending, unclipped, at most max: *n. What lies between them is a hole. */
int index_extent_list(struct index *ix, uint64_t ino, uint64_t from, uint64_t to, struct index_extent *out, size_t max,
                      size_t *n) MUST_CHECK;
/* Maps [off, off + len) to x->chunk, or to a hole; what was there is cut, split or removed. The chunk's row must exist
 * by the next commit. Joins with a predecessor that it continues in file and chunk. */
int index_extent_set(struct index *ix, uint64_t ino, const struct index_extent *x) MUST_CHECK;
/* The same. *gone grows by the bytes of STORE, an estimate, that the file's part of what was there takes. */
int index_extent_replace(struct index *ix, uint64_t ino, const struct index_extent *x, uint64_t *gone) MUST_CHECK;

/* --- chunks and segments ------------------------------------------------------------------------------------------ */

struct index_chunk {
	uint64_t id, segment, offset;
	uint32_t stored_len, plain_len, data_start;
	bool is_inline;
	uint64_t sequence;
	const void *frames; /* the encoded frame table; in index_chunk_get valid as long as the caller's buffer */
	size_t frames_len;
	const void *inline_data; /* put: the sealed record if it is kept in the index, else NULL */
	uint64_t mapped;         /* out: the lengths of its extents together, as of the last commit */
	uint64_t refs;           /* out: how many they are */
};

/* Inserts a chunk whose segment has a row, or will by the next commit. A chunk that has a row already moves to where c
 * says, with its extents. */
int index_chunk_put(struct index *ix, const struct index_chunk *c) MUST_CHECK;
/* The frame table is copied to buf. -ENOENT; -ERANGE when it does not fit. */
int index_chunk_get(struct index *ix, uint64_t id, struct index_chunk *out, void *buf, size_t buf_len) MUST_CHECK;
/* The record of an inline chunk; *len is the room in and the length out. -ENOENT, -ERANGE. */
int index_inline_get(struct index *ix, uint64_t id, void *buf, size_t *len) MUST_CHECK;

enum index_segment_state {
	INDEX_SEGMENT_OPEN = 0,   /* appended to by the mount that made it */
	INDEX_SEGMENT_SEALED = 1, /* complete */
	INDEX_SEGMENT_INLINE = 3  /* no file; the header is in the row */
};

struct index_segment {
	uint64_t id;
	uint8_t name[16];
	uint32_t epoch;
	enum index_segment_state state;
	uint64_t total;  /* bytes of the file */
	uint64_t live;   /* stored bytes that extents map, estimated: kept by index_commit (docs/FORMAT.md) */
	uint64_t chunks; /* with extents: kept by index_commit */
	uint8_t header[128];
	size_t header_len;
};

/* Inserts, or updates state and total of an existing row (live and chunks are the index's own). */
int index_segment_put(struct index *ix, const struct index_segment *s) MUST_CHECK;
int index_segment_delete(struct index *ix, uint64_t id) MUST_CHECK;
/* Rows with id > after, ascending, at most max: *n. */
int index_segment_list(struct index *ix, uint64_t after, struct index_segment *out, size_t max, size_t *n) MUST_CHECK;
/* Of these, rows without live chunks. */
int index_segment_empty(struct index *ix, struct index_segment *out, size_t max, size_t *n) MUST_CHECK;

/* --- for compaction ----------------------------------------------------------------------------------------------- */

/* Chunks of a segment's file with id > after, ascending, at most max: *n. Without their frame tables. */
int index_segment_chunks(struct index *ix, uint64_t segment, uint64_t after, struct index_chunk *out, size_t max,
                         size_t *n) MUST_CHECK;
/* Likewise the chunks whose records are kept in the index, of whatever segment. */
int index_inline_chunks(struct index *ix, uint64_t after, struct index_chunk *out, size_t max, size_t *n) MUST_CHECK;

struct index_owned_extent {
	uint64_t ino;
	struct index_extent x;
};
/* The extents of a chunk, ascending by inode and offset, beginning after extent (ino, off) (0, 0: with the first). */
int index_chunk_extents(struct index *ix, uint64_t chunk, uint64_t ino, uint64_t off, struct index_owned_extent *out,
                        size_t max, size_t *n) MUST_CHECK;

/* `live` of a segment counts what several extents share for each of them. Of each segment the index knows how many of
 * these bytes are dead at most: what commits may have left since it was last cleared, and what was added. Kept in
 * memory: of segments that were there before index_open it knows nothing unless INDEX_UNKNOWN is added for them. */
#define INDEX_UNKNOWN UINT64_MAX
void index_unsure_add(struct index *ix, uint64_t segment, uint64_t bytes);
/* Before looking at its extents: what is lost meanwhile counts again. */
void index_unsure_clear(struct index *ix, uint64_t segment);
/* The next segment with id > after of which something may be dead, and how much. -ENOENT. */
int index_unsure_next(struct index *ix, uint64_t after, uint64_t *segment, uint64_t *bytes) MUST_CHECK;

/* Bytes [pos, pos + len) of one chunk's plaintext are bytes [to_pos, to_pos + len) of another's. */
struct index_move {
	uint64_t ino, off; /* where they are in the file */
	uint32_t len;
	uint64_t chunk, to;
	uint32_t pos, to_pos;
};
/* Remaps those bytes of the file that are still mapped so; *moved is how many. The new chunk's row must exist. gone: as
 * index_extent_replace. */
int index_extent_move(struct index *ix, const struct index_move *m, uint64_t *moved, uint64_t *gone) MUST_CHECK;

/* --- totals ------------------------------------------------------------------------------------------------------- */

struct index_totals {
	uint64_t inodes, chunks, segments;
	uint64_t logical;      /* bytes that extents map */
	uint64_t stored, live; /* bytes of segment files; those that extents map */
	uint64_t inline_bytes;
};
/* Reads whole tables: for `apfs info`, not for statfs. */
int index_totals(struct index *ix, struct index_totals *out) MUST_CHECK;
/* Stored bytes and codecs of one file are answered by its extents and their chunks: fn for each distinct chunk. */
int index_file_chunks(struct index *ix, uint64_t ino, int (*fn)(void *arg, const struct index_chunk *c),
                      void *arg) MUST_CHECK;
/* Bytes of the database and of its WAL. */
void index_size(struct index *ix, uint64_t *db, uint64_t *wal);

#endif
