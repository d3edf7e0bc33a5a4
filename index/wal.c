/*
 * When the index's files are synced, and why a crash at any moment is harmless.
 *
 * SQLite under synchronous=NORMAL relies on three syncs, all of them around a checkpoint. Each can be kept away from
 * the index's mutex, or is rare, as long as these orders hold:
 *
 *  1. WAL before database. A checkpoint copies frames into the database file; if such a page reached the disk while its
 *     frame did not, recovery would find a database of two times. So the xSync of the WAL that SQLite does before it
 *     copies is a real one (nothing to do when all frames are synced already, which of those found at open nobody
 *     knows).
 *
 *  2. Database before restart. Until the copied pages are durable, the frames are the only good copy. The database's
 *     xSync at the end of a checkpoint is only noted; vfs_sync does it later, outside the mutex. A crash before it
 *     loses nothing: the WAL's header and frames are untouched and recovery replays all of them, over whatever
 *     subset of the copied pages reached the disk. The frames are overwritten only after SQLite has restarted the
 *     WAL, which it does by writing a header with a new salt at offset 0: that write syncs the database first if it
 *     is still unsynced.
 *
 *  3. New header before new frames. If new frames overwrote old ones while the old header was still on the disk,
 *     recovery would replay the old frames that are left, an old state of some pages, over a newer database. So after a
 *     checkpoint, and after the database, vfs_sync overwrites the header (and the beginning of slot 1, in the same
 *     sector) with zeroes and syncs the WAL: now the disk holds a WAL that is empty whatever its frames are, and the
 *     new header and new frames may reach it in any order (a frame is valid only under its header's salt). The sync of
 *     the header that SQLite asks for is then nothing. If a commit restarts the WAL before vfs_sync came, that sync is
 *     real.
 *
 *     While the header is zero (WAL_CLEARED), SQLite must not append behind the old frames, for they would be lost. It
 *     cannot: everything is checkpointed and there is no other reader, so its next write restarts the WAL. Should it
 *     ever, the write is refused.
 *
 * The commit itself needs no sync: vfs_sync makes all frames durable that were written before it, in any order, since
 * recovery stops at the first frame whose slot does not open, or whose checksum, chained from the header on, does not
 * hold. The preallocated tail is zeroes or slots of another salt and ends recovery in the same way.
 *
 * wal_durable, which new slots carry (slot.c), counts only frames of committed transactions that an fdatasync covers:
 * SQLite may still overwrite frames of the open one. Both counters begin anew with the WAL.
 *
 * sync_lock orders vfs_sync against a restart; index mutex first, sync_lock second.
 */
#include "base/lock.h"
#include "index/sealed.h"

#include <errno.h>
#include <string.h>

#define WAL_STEP  ((uint64_t)4 << 20) /* the WAL grows by this much */
#define WAL_FILL  ((uint64_t)1 << 20) /* and is filled by this much */
#define WAL_SMALL ((uint64_t)256 << 10)

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* fdatasync, of which a failure is final. */
static int sync_file(struct vfs *v, struct io_file *f)
{
	int ret = io_sync(f);

	if (ret)
		vfs_stop(v);
	return ret;
}

static int sync_db(struct vfs *v)
{
	if (!v->db_unsynced)
		return 0;
	int ret = sync_file(v, v->db.f);
	if (!ret)
		v->db_unsynced = false;
	return ret;
}

static int sync_wal(struct vfs *v)
{
	/* In this order: all that was committed is among the writes. */
	uint64_t committed = atomic_load(&v->wal_committed), writes = atomic_load(&v->wal_writes);
	int ret = writes == v->wal_synced ? 0 : sync_file(v, v->wal.f);

	if (ret)
		return ret;
	v->wal_synced = writes;
	atomic_store(&v->wal_durable, committed);
	return 0;
}

int vfs_wal_before_write(struct vfs *v, uint64_t off)
{
	if (off != 0)
		return v->state == WAL_CLEARED ? -EIO : 0;

	SCOPED_LOCK(&v->sync_lock);
	if (v->state != WAL_CLEARED) {
		int ret = sync_db(v);
		if (ret)
			return ret;
		v->header_unsynced = true;
	}
	v->state = WAL_LIVE;
	v->wal_used = 0;
	atomic_store(&v->wal_committed, 0);
	atomic_store(&v->wal_durable, 0);
	return 0;
}

int vfs_half_sync(struct vfs *v, struct vfs_half *h)
{
	int ret = vfs_half_flush(v, h);

	if (ret)
		return ret;
	SCOPED_LOCK(&v->sync_lock);
	if (h == &v->db) {
		v->db_unsynced = true;
		return v->at_once ? sync_db(v) : 0;
	}
	if (!v->in_checkpoint && !v->header_unsynced)
		return 0;
	ret = sync_wal(v);
	if (!ret)
		v->header_unsynced = false;
	return ret;
}

int vfs_sync(struct vfs *v)
{
	static const uint8_t zero[WAL_CLEAR];

	SCOPED_LOCK(&v->sync_lock);
	if (vfs_stopped(v))
		return -EIO;
	if (v->state == WAL_SPENT) {
		int ret = sync_db(v);
		if (ret)
			return ret;
		/* Without room for it (STORE may be copy on write) the restart syncs its header instead. */
		ret = io_pwrite(v->wal.f, zero, sizeof(zero), 0);
		if (ret)
			return err_is_no_space(ret) ? sync_wal(v) : ret;
		ret = sync_file(v, v->wal.f);
		if (ret)
			return ret;
		/* No frame was written meanwhile: the first would have been a header and waited for sync_lock. */
		v->wal_synced = atomic_load(&v->wal_writes);
		v->state = WAL_CLEARED;
		return 0;
	}
	int ret = sync_wal(v);
	return ret ? ret : sync_db(v);
}

void vfs_checkpoint_begin(struct vfs *v)
{
	v->in_checkpoint = true;
}

void vfs_checkpoint_end(struct vfs *v, bool complete)
{
	v->in_checkpoint = false;
	if (!complete)
		return;
	SCOPED_LOCK(&v->sync_lock);
	if (v->state == WAL_LIVE)
		v->state = WAL_SPENT;
	v->wal_used = 0;
}

uint64_t vfs_wal_used(const struct vfs *v)
{
	return v->wal_used;
}

uint64_t vfs_wal_room(const struct vfs *v)
{
	uint64_t size = atomic_load(&v->wal.size), used = v->wal_used + WAL_HEADER_SLOT;

	return size > used ? size - used : 0;
}

/* Writes zeroes to [from, to) of the WAL. */
static int wal_fill(struct vfs *v, uint64_t from, uint64_t to)
{
	static const uint8_t zero[65536];

	while (from < to) {
		size_t n = to - from < sizeof(zero) ? (size_t)(to - from) : sizeof(zero);
		int ret = io_pwrite(v->wal.f, zero, n, from);
		if (ret)
			return ret;
		from += n;
		if (from > atomic_load(&v->wal.size))
			atomic_store(&v->wal.size, from);
		v->wal_filled = max_u64(v->wal_filled, from);
	}
	return 0;
}

/* Grows the WAL to `to` bytes that no later write has to allocate. */
static int wal_grow(struct vfs *v, uint64_t to)
{
	uint64_t size = atomic_load(&v->wal.size);

	if (!v->no_allocate) {
		int ret = io_allocate(v->wal.f, size, to - size);
		if (!ret)
			atomic_store(&v->wal.size, to);
		if (ret != -EOPNOTSUPP)
			return ret;
		v->no_allocate = true;
	}
	return wal_fill(v, size, to);
}

int vfs_wal_reserve(struct vfs *v, uint64_t bytes)
{
	uint64_t need = v->wal_used + bytes + WAL_HEADER_SLOT;

	if (need > atomic_load(&v->wal.size)) {
		int ret = wal_grow(v, (need + WAL_STEP - 1) / WAL_STEP * WAL_STEP);
		/* The last space there is, some of it perhaps given up for this: not a byte more, and by writing it. */
		if (err_is_no_space(ret))
			ret = wal_fill(v, atomic_load(&v->wal.size), need);
		if (ret)
			return ret;
	}
	/* fdatasync of a block that was only allocated waits for the journal of STORE's filesystem; one that was
	 * written before does not. Worth it for small commits, which wait for each fdatasync, and only once around the
	 * WAL. */
	if (bytes > WAL_SMALL || need <= v->wal_filled)
		return 0;
	uint64_t from = max_u64(v->wal_filled, v->wal_used + WAL_HEADER_SLOT), size = atomic_load(&v->wal.size);
	return wal_fill(v, from, from + WAL_FILL < size ? from + WAL_FILL : size);
}

int vfs_wal_prepare(struct vfs *v, bool recovered)
{
	if (!v->wal.f)
		return -EIO;
	if (!recovered) {
		/* What recovery has replayed must not be filled over. */
		v->wal_used = v->wal_filled = v->sealed ? slot_offset(v, v->wal_end + 1) : v->wal_read;
		return 0;
	}
	v->wal_used = 0;
	pthread_mutex_lock(&v->sync_lock);
	v->state = WAL_SPENT;
	pthread_mutex_unlock(&v->sync_lock);
	/* First of all: a header over frames that are partly cut off or filled over would bring back an old state. */
	int ret = vfs_sync(v);
	if (ret)
		return ret;
	if (v->state != WAL_CLEARED) { /* no room for it: all stays until the restart */
		v->wal_filled = atomic_load(&v->wal.size);
		return io_sync_dir(v->io, "");
	}
	/* A transaction larger than usual may have left a large file. */
	if (atomic_load(&v->wal.size) > 8 * WAL_STEP) {
		ret = io_truncate(v->wal.f, WAL_STEP);
		if (ret)
			return ret;
		atomic_store(&v->wal.size, WAL_STEP);
	}
	ret = vfs_wal_reserve(v, WAL_SMALL);
	if (ret && !err_is_no_space(ret)) /* the commits will see */
		return ret;
	return io_sync_dir(v->io, "");
}
