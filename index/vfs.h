/*
 * The sqlite3_vfs under the index: exactly two files, index.db and index.db-wal, on base's io vtable. Every other open
 * (rollback and statement journals, temporary files) is refused. There is no shared memory: with locking_mode=EXCLUSIVE
 * SQLite keeps the wal-index on the heap. One instance an index, registered under a name of its own. SQLite sees the
 * files as if they were plain; what lies in them is sealed page by page (page.c, slot.c).
 *
 * All functions but vfs_sync and vfs_size are called under the index's mutex, as SQLite's own calls are.
 */
#ifndef APFS_INDEX_VFS_H
#define APFS_INDEX_VFS_H

#include "index/index.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VFS_DB  "index.db"
#define VFS_WAL "index.db-wal"

#define VFS_BUFFER        ((size_t)128 << 10)
#define INDEX_FRAME_EXTRA 32  /* bytes of a WAL slot beside the page */
#define WAL_HEADER        32  /* as SQLite has it */
#define WAL_HEADER_SLOT   128 /* as it lies in the file */
#define WAL_CLEAR         512 /* bytes cleared at the front: one sector, with the header and the beginning of slot 1 */

struct vfs;

/* io is borrowed, the sealer copied; without one nothing is sealed. */
int vfs_new(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct vfs **out) MUST_CHECK;
/* The database must be closed. NULL is allowed. */
void vfs_free(struct vfs *v);
const char *vfs_name(const struct vfs *v);

/* The -errno of the last io call that failed since vfs_error_reset, or 0. */
int vfs_error(const struct vfs *v);
void vfs_error_reset(struct vfs *v);
/* The first damage that was met, a sentence; empty if none was. */
const char *vfs_damage(const struct vfs *v);

/* From now on nothing is written, synced or deleted: every such call of SQLite fails. */
void vfs_stop(struct vfs *v);
/* Also after an fdatasync that failed. */
bool vfs_stopped(const struct vfs *v);

/* From the first: files are opened to read only. */
void vfs_read_only(struct vfs *v);

/* While set, xSync of the database syncs at once; otherwise only vfs_sync does. */
void vfs_sync_at_once(struct vfs *v, bool at_once);

/* Writes out what SQLite wrote and the VFS still buffers. Called when no transaction is being written. */
int vfs_flush(struct vfs *v) MUST_CHECK;

/* Bytes of the WAL in use since it was last restarted. */
uint64_t vfs_wal_used(const struct vfs *v);

/* Bytes that can be written to the WAL without allocating. */
uint64_t vfs_wal_room(const struct vfs *v);

/* Makes sure that `bytes` more can be written to the WAL without allocating. After -ENOSPC the WAL may have grown by
 * less. */
int vfs_wal_reserve(struct vfs *v, uint64_t bytes) MUST_CHECK;

/* Around a checkpoint. complete: every frame of the WAL is in the database file now. */
void vfs_checkpoint_begin(struct vfs *v);
void vfs_checkpoint_end(struct vfs *v, bool complete);

/* After the first read of a database has opened and recovered the WAL: its entry in the directory and its first
 * preallocated bytes become durable. recovered: its frames are all in the database file, which is durable. */
int vfs_wal_prepare(struct vfs *v, bool recovered) MUST_CHECK;

/* fdatasync of the WAL and, after a checkpoint, of the database. Any thread, without the index's mutex. */
int vfs_sync(struct vfs *v) MUST_CHECK;

/* Bytes of the two files. Any thread. */
void vfs_size(const struct vfs *v, uint64_t *db, uint64_t *wal);

/* --- between vfs.c and wal.c -------------------------------------------------------------------------------------- */

/* One of the two files, with a buffer that gathers what is written to it. */
struct vfs_half {
	struct io_file *f; /* NULL while closed, or missing and opened to read only */
	uint8_t *buf;
	uint64_t off; /* of the buffer's first byte in the file */
	size_t len;   /* bytes buffered */
	_Atomic uint64_t size;
};

/* What a crash would make of the WAL's header; see wal.c. */
enum vfs_wal_state { WAL_LIVE = 0, WAL_SPENT, WAL_CLEARED };

struct vfs {
	sqlite3_vfs vfs;
	char name[32];
	struct io *io;
	struct vfs_half db, wal;
	int error;
	_Atomic bool stopped;
	bool at_once;
	bool read_only; /* and stopped */
	bool in_checkpoint;
	bool no_allocate; /* STORE's filesystem cannot preallocate */
	uint64_t wal_used;
	uint64_t wal_read;   /* unsealed: the end of what SQLite has read: in recovery, one frame too many */
	uint64_t wal_filled; /* the WAL's blocks below this have been written once, not only allocated */

	/* What is sealed; see slot.c. */
	bool sealed;
	struct index_sealer sealer;
	uint32_t page_size;
	uint8_t *unit;                  /* a page or slot as it lies in the file */
	uint8_t *frame;                 /* a frame as SQLite has it, while it is written */
	size_t frame_have;              /* bytes of it */
	uint64_t frame_number;          /* 0: none */
	uint8_t wal_header[WAL_HEADER]; /* as SQLite has it; zeroes when there is none */
	uint64_t wal_end;               /* the last slot that is there */
	uint64_t wal_last;              /* the slot that was written last */
	char damage[200];

	/* Slots that belong to transactions that have been committed, and of those the ones that are durable. */
	_Atomic uint64_t wal_committed, wal_durable;

	/* Held over an fdatasync; a restart of the WAL waits for it. Protects what follows. */
	pthread_mutex_t sync_lock;
	enum vfs_wal_state state;
	bool db_unsynced;
	bool header_unsynced;
	_Atomic uint64_t wal_writes; /* changed under the index's mutex only */
	uint64_t wal_synced;         /* the value of wal_writes that the last fdatasync covers */
};

/* Records a failed io call and gives SQLite's code for it. */
int vfs_fail(struct vfs *v, int error, int rc);
int vfs_half_flush(struct vfs *v, struct vfs_half *h) MUST_CHECK;
/* Reads what is in the file and in the buffer: the count, less than len only at the end, or -errno. */
ssize_t vfs_half_read(struct vfs *v, struct vfs_half *h, void *buf, size_t len, uint64_t off) MUST_CHECK;
/* Room in the buffer for len bytes, 65,568 at most, that go to `off`. They are in it once h->len has grown by len. */
int vfs_half_room(struct vfs *v, struct vfs_half *h, size_t len, uint64_t off, uint8_t **room) MUST_CHECK;
/* Notes damage, logs it, and gives SQLite's code for it. */
int vfs_damaged(struct vfs *v, const char *fmt, ...) PRINTF(2, 3);
/* SQLite's code for bytes that cannot be read: once it is open, one that spoils the statement only. SQLITE_IOERR would
 * roll the transaction back, and SQLITE_CORRUPT keeps it from changing anything more. */
int vfs_unread(struct vfs *v, int error);
/* Called before SQLite writes at `off` of the WAL: 0 or -errno. */
int vfs_wal_before_write(struct vfs *v, uint64_t off) MUST_CHECK;
/* xSync of either file: 0 or -errno. */
int vfs_half_sync(struct vfs *v, struct vfs_half *h) MUST_CHECK;

#endif
