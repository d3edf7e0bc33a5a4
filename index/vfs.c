#include "base/lock.h"
#include "base/log.h"
#include "index/sealed.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

struct file {
	sqlite3_file base;
	struct vfs *v;
	struct vfs_half *h;
};

int vfs_fail(struct vfs *v, int error, int rc)
{
	v->error = error;
	return err_is_no_space(error) ? SQLITE_FULL : rc;
}

int vfs_error(const struct vfs *v)
{
	return v->error;
}

void vfs_error_reset(struct vfs *v)
{
	v->error = 0;
}

const char *vfs_damage(const struct vfs *v)
{
	return v->damage;
}

int vfs_damaged(struct vfs *v, const char *fmt, ...)
{
	char text[sizeof(v->damage)];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("%s: run apfs check, or restore STORE from a backup", text);
	if (!*v->damage)
		memcpy(v->damage, text, sizeof(text));
	return vfs_fail(v, -EIO, SQLITE_CORRUPT);
}

int vfs_unread(struct vfs *v, int error)
{
	return vfs_fail(v, error, v->at_once ? SQLITE_IOERR_READ : SQLITE_PROTOCOL);
}

void vfs_stop(struct vfs *v)
{
	atomic_store(&v->stopped, true);
}

bool vfs_stopped(const struct vfs *v)
{
	return atomic_load(&v->stopped);
}

void vfs_read_only(struct vfs *v)
{
	v->read_only = true;
	vfs_stop(v);
}

void vfs_sync_at_once(struct vfs *v, bool at_once)
{
	v->at_once = at_once;
}

void vfs_size(const struct vfs *v, uint64_t *db, uint64_t *wal)
{
	*db = atomic_load(&v->db.size);
	*wal = atomic_load(&v->wal.size);
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static int half_write(struct vfs *v, struct vfs_half *h, const void *buf, size_t len, uint64_t off)
{
	int ret = io_pwrite(h->f, buf, len, off);

	if (ret)
		return ret;
	if (off + len > atomic_load(&h->size))
		atomic_store(&h->size, off + len);
	if (h == &v->wal) {
		if (off + len > v->wal_filled)
			v->wal_filled = off + len;
		atomic_fetch_add(&v->wal_writes, 1);
	}
	return 0;
}

int vfs_half_flush(struct vfs *v, struct vfs_half *h)
{
	size_t len = h->len;

	if (!len)
		return 0;
	h->len = 0;
	if (vfs_stopped(v))
		return -EIO;
	return half_write(v, h, h->buf, len, h->off);
}

int vfs_flush(struct vfs *v)
{
	int ret = vfs_half_flush(v, &v->wal);

	if (!ret)
		atomic_store(&v->wal_committed, v->wal_last);
	return ret ? ret : vfs_half_flush(v, &v->db);
}

static int file_close(sqlite3_file *base)
{
	struct file *file = (struct file *)base;
	struct vfs_half *h = file->h;
	int ret = vfs_half_flush(file->v, h);

	io_close(h->f);
	h->f = NULL;
	atomic_store(&h->size, 0);
	return ret ? vfs_fail(file->v, ret, SQLITE_IOERR_CLOSE) : SQLITE_OK;
}

static bool half_buffers(const struct vfs_half *h, uint64_t off, size_t len)
{
	return h->len && off < h->off + h->len && h->off < off + len;
}

ssize_t vfs_half_read(struct vfs *v, struct vfs_half *h, void *buf, size_t len, uint64_t off)
{
	if (half_buffers(h, off, len)) {
		int ret = vfs_half_flush(v, h);
		if (ret)
			return ret;
	}
	return h->f ? io_pread(h->f, buf, len, off) : 0;
}

static int file_read(sqlite3_file *base, void *buf, int amount, sqlite3_int64 offset)
{
	struct file *file = (struct file *)base;
	struct vfs_half *h = file->h;
	size_t len = (size_t)amount;
	uint64_t off = (uint64_t)offset;

	if (file->v->sealed)
		return h == &file->v->db ? page_read(file->v, buf, len, off) : slot_read(file->v, buf, len, off);
	ssize_t n = vfs_half_read(file->v, h, buf, len, off);
	if (n < 0)
		return vfs_fail(file->v, (int)n, SQLITE_IOERR_READ);
	if (h == &file->v->wal && off + (size_t)n > file->v->wal_read)
		file->v->wal_read = off + (size_t)n;
	if ((size_t)n == len)
		return SQLITE_OK;
	memset((char *)buf + n, 0, len - (size_t)n);
	return SQLITE_IOERR_SHORT_READ;
}

/* What continues the buffer is added to it; before anything else it is written. */
int vfs_half_room(struct vfs *v, struct vfs_half *h, size_t len, uint64_t off, uint8_t **room)
{
	if (len > VFS_BUFFER)
		return -EINVAL;
	if (h->len && (off != h->off + h->len || h->len + len > VFS_BUFFER)) {
		int ret = vfs_half_flush(v, h);
		if (ret)
			return ret;
	}
	if (!h->len)
		h->off = off;
	*room = h->buf + h->len;
	return 0;
}

static int plain_write(struct vfs *v, struct vfs_half *h, const void *buf, size_t len, uint64_t off)
{
	uint8_t *room;
	int ret = vfs_half_room(v, h, len, off, &room);

	if (ret)
		return ret;
	memcpy(room, buf, len);
	h->len += len;
	if (h == &v->wal && off + len > v->wal_used)
		v->wal_used = off + len;
	return 0;
}

static int half_put(struct vfs *v, struct vfs_half *h, const void *buf, size_t len, uint64_t off)
{
	if (!v->sealed)
		return plain_write(v, h, buf, len, off);
	return h == &v->db ? page_write(v, buf, len, off) : slot_write(v, buf, len, off);
}

static int file_write(sqlite3_file *base, const void *buf, int amount, sqlite3_int64 offset)
{
	struct file *file = (struct file *)base;
	struct vfs *v = file->v;
	size_t len = (size_t)amount;
	uint64_t off = (uint64_t)offset;

	int ret = vfs_stopped(v) ? -EIO : 0;
	if (!ret && file->h == &v->wal)
		ret = vfs_wal_before_write(v, off);
	if (!ret)
		ret = half_put(v, file->h, buf, len, off);
	return ret ? vfs_fail(v, ret, SQLITE_IOERR_WRITE) : SQLITE_OK;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
	struct file *file = (struct file *)base;
	struct vfs_half *h = file->h;
	uint64_t to = (uint64_t)size;

	if (file->v->sealed && h == &file->v->wal)
		to = slot_size_stored(file->v, to);
	int ret = vfs_stopped(file->v) ? -EIO : vfs_half_flush(file->v, h);
	if (!ret && to != atomic_load(&h->size)) {
		ret = io_truncate(h->f, to);
		if (!ret)
			atomic_store(&h->size, to);
	}
	return ret ? vfs_fail(file->v, ret, SQLITE_IOERR_TRUNCATE) : SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags)
{
	struct file *file = (struct file *)base;

	(void)flags;
	int ret = vfs_stopped(file->v) ? -EIO : vfs_half_sync(file->v, file->h);
	return ret ? vfs_fail(file->v, ret, SQLITE_IOERR_FSYNC) : SQLITE_OK;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *size)
{
	struct file *file = (struct file *)base;
	const struct vfs_half *h = file->h;
	uint64_t n = atomic_load(&h->size);

	if (h->len && h->off + h->len > n)
		n = h->off + h->len;
	if (file->v->sealed && h == &file->v->wal)
		n = slot_size_seen(file->v, n);
	*size = (sqlite3_int64)n;
	return SQLITE_OK;
}

/* STORE as a whole is locked by its mount. */
static int file_lock(sqlite3_file *base, int lock)
{
	(void)base;
	(void)lock;
	return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *base, int *held)
{
	(void)base;
	*held = 0;
	return SQLITE_OK;
}

/* A checkpoint announces how large the database will be: growing in one step is cheaper and tells early that there is
 * no room. SQLite ignores a failure here and meets it again in the write that needs the room. */
static int file_size_hint(struct file *file, uint64_t size)
{
	struct vfs *v = file->v;
	uint64_t now = atomic_load(&v->db.size);

	if (file->h != &v->db || v->no_allocate || vfs_stopped(v) || size <= now)
		return SQLITE_OK;
	int ret = io_allocate(v->db.f, now, size - now);
	if (!ret)
		atomic_store(&v->db.size, size);
	else if (ret == -EOPNOTSUPP)
		v->no_allocate = true;
	return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int op, void *arg)
{
	if (op == SQLITE_FCNTL_SIZE_HINT)
		return file_size_hint((struct file *)base, (uint64_t) * (sqlite3_int64 *)arg);
	return SQLITE_NOTFOUND;
}

static int file_sector_size(sqlite3_file *base)
{
	(void)base;
	return 4096;
}

/* Bytes next to the written ones survive a power cut: nearly every device, and SQLite's own assumption on unix. */
static int file_characteristics(sqlite3_file *base)
{
	(void)base;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* Version 1: neither shared memory nor xFetch. */
static const sqlite3_io_methods file_methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_lock,
    .xCheckReservedLock = file_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
};

/* --- the file system ---------------------------------------------------------------------------------------------- */

static int half_open(struct vfs *v, struct vfs_half *h, const char *path, unsigned flags)
{
	uint64_t size;

	if (h->f)
		return -EBUSY;
	int ret = io_open(v->io, path, flags, &h->f);
	if (ret)
		return ret;
	ret = io_size(h->f, &size);
	if (ret) {
		io_close(h->f);
		h->f = NULL;
		return ret;
	}
	h->len = 0;
	atomic_store(&h->size, size);
	return 0;
}

static int open_wal(struct vfs *v)
{
	int ret = -EIO;

	if (v->read_only)
		ret = half_open(v, &v->wal, VFS_WAL, IO_READ);
	else if (!vfs_stopped(v))
		ret = half_open(v, &v->wal, VFS_WAL, IO_WRITE | IO_CREATE | IO_REWRITTEN);
	if (ret && !(v->read_only && ret == -ENOENT))
		return vfs_fail(v, ret, SQLITE_CANTOPEN);
	int rc = v->sealed ? slot_recover(v) : SQLITE_OK;
	if (rc != SQLITE_OK) {
		io_close(v->wal.f);
		v->wal.f = NULL;
		return rc;
	}
	/* What is found may be in the kernel's cache only, if a process was killed before its fdatasync. */
	if (!v->read_only)
		atomic_fetch_add(&v->wal_writes, 1);
	return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *base, const char *path, sqlite3_file *out, int flags, int *out_flags)
{
	struct vfs *v = base->pAppData;
	struct file *file = (struct file *)out;
	int rc = SQLITE_CANTOPEN;

	file->base.pMethods = NULL;
	file->v = v;
	if (path && (flags & SQLITE_OPEN_MAIN_DB) && !strcmp(path, VFS_DB)) {
		int ret = half_open(v, &v->db, path, v->read_only ? IO_READ : IO_WRITE);
		file->h = &v->db;
		rc = ret ? vfs_fail(v, ret, SQLITE_CANTOPEN) : SQLITE_OK;
	} else if (path && (flags & SQLITE_OPEN_WAL) && !strcmp(path, VFS_WAL)) {
		file->h = &v->wal;
		rc = open_wal(v);
	} else {
		v->error = -EACCES;
	}
	if (rc != SQLITE_OK)
		return rc;
	file->base.pMethods = &file_methods;
	if (out_flags)
		*out_flags = flags;
	return SQLITE_OK;
}

/* SQLite deletes the WAL when it closes after a full checkpoint. */
static int vfs_delete(sqlite3_vfs *base, const char *path, int sync_dir)
{
	struct vfs *v = base->pAppData;

	(void)sync_dir;
	if (strcmp(path, VFS_WAL) != 0)
		return SQLITE_IOERR_DELETE_NOENT;
	int ret = vfs_stopped(v) || v->db_unsynced ? -EIO : io_unlink(v->io, path);
	if (ret == -ENOENT)
		return SQLITE_IOERR_DELETE_NOENT;
	if (!ret)
		ret = io_sync_dir(v->io, "");
	return ret ? vfs_fail(v, ret, SQLITE_IOERR_DELETE) : SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *base, const char *path, int flags, int *out)
{
	struct vfs *v = base->pAppData;
	struct io_stat st;

	(void)flags;
	*out = 0;
	if (strcmp(path, VFS_DB) != 0 && strcmp(path, VFS_WAL) != 0)
		return SQLITE_OK; /* there is never a rollback journal */
	int ret = io_stat(v->io, path, &st);
	if (ret && ret != -ENOENT)
		return vfs_fail(v, ret, SQLITE_IOERR_ACCESS);
	*out = !ret;
	return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *base, const char *path, int room, char *out)
{
	(void)base;
	int n = snprintf(out, (size_t)room, "%s", path);
	return n < 0 || n >= room ? SQLITE_CANTOPEN : SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *base, int len, char *out)
{
	(void)base;
	ssize_t n = getrandom(out, (size_t)len, 0);
	return n < 0 ? 0 : (int)n;
}

static int vfs_sleep(sqlite3_vfs *base, int us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000L};

	(void)base;
	(void)nanosleep(&t, NULL);
	return us;
}

static int vfs_time(sqlite3_vfs *base, sqlite3_int64 *ms)
{
	struct timespec t;

	(void)base;
	(void)clock_gettime(CLOCK_REALTIME, &t);
	/* Milliseconds since noon of the first day of the Julian calendar. */
	*ms = 210866760000000LL + t.tv_sec * 1000LL + t.tv_nsec / 1000000;
	return SQLITE_OK;
}

static int vfs_time_days(sqlite3_vfs *base, double *days)
{
	sqlite3_int64 ms = 0;
	int rc = vfs_time(base, &ms);

	*days = (double)ms / 86400000.0;
	return rc;
}

static int vfs_last_error(sqlite3_vfs *base, int len, char *text)
{
	struct vfs *v = base->pAppData;

	if (len > 0)
		text[0] = '\0';
	return -v->error;
}

const char *vfs_name(const struct vfs *v)
{
	return v->name;
}

int vfs_new(struct io *io, uint32_t page_size, const struct index_sealer *sealer, struct vfs **out)
{
	struct vfs *v = calloc(1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	v->io = io;
	v->page_size = page_size;
	v->sealed = sealer != NULL;
	if (sealer)
		v->sealer = *sealer;
	v->db.buf = malloc(VFS_BUFFER);
	v->wal.buf = malloc(VFS_BUFFER);
	v->unit = malloc((size_t)page_size + INDEX_FRAME_EXTRA);
	v->frame = malloc((size_t)page_size + INDEX_FRAME_EXTRA);
	(void)pthread_mutex_init(&v->sync_lock, NULL);
	(void)snprintf(v->name, sizeof(v->name), "apfs-%p", (void *)v);
	v->vfs = (sqlite3_vfs){
	    .iVersion = 2,
	    .szOsFile = sizeof(struct file),
	    .mxPathname = 64,
	    .zName = v->name,
	    .pAppData = v,
	    .xOpen = vfs_open,
	    .xDelete = vfs_delete,
	    .xAccess = vfs_access,
	    .xFullPathname = vfs_full_path,
	    .xRandomness = vfs_randomness,
	    .xSleep = vfs_sleep,
	    .xCurrentTime = vfs_time_days,
	    .xGetLastError = vfs_last_error,
	    .xCurrentTimeInt64 = vfs_time,
	};
	if (!v->db.buf || !v->wal.buf || !v->unit || !v->frame || sqlite3_vfs_register(&v->vfs, 0) != SQLITE_OK) {
		vfs_free(v);
		return -ENOMEM;
	}
	*out = v;
	return 0;
}

void vfs_free(struct vfs *v)
{
	if (!v)
		return;
	(void)sqlite3_vfs_unregister(&v->vfs);
	(void)pthread_mutex_destroy(&v->sync_lock);
	free(v->db.buf);
	free(v->wal.buf);
	free(v->unit);
	free(v->frame);
	free(v);
}
