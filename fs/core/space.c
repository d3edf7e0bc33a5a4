/*
 * Whether STORE has room (docs/ARCHITECTURE.md, "Space"). Nothing is accepted that might not fit; what is refused is
 * first given the space that a cut, old quarantined segments or compaction can find.
 */
#include "fs/core/reserve.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MIB             ((uint64_t)1 << 20)
#define AGE_NS          1000000000ull /* how long an answer about STORE's space is believed while there is plenty */
#define PLENTY          (1024 * MIB)
#define MARGIN_MIN      (8 * MIB)
#define MARGIN_MAX      (64 * MIB)       /* a segment: compaction copies into half of it */
#define MARGIN_SHARE    16u              /* of the disk at most */
#define SLACK           (64 * MIB)       /* short of space: less than this is left beyond the margin */
#define STORED_OVERHEAD 64u              /* of each buffer: nonces, tags, its share of the record's table */
#define RECORD_OVERHEAD 256u             /* of each 64 KiB written: a record's header and table */
#define NAME_BYTES      ((uint64_t)8192) /* what a new name takes in the index at worst */
#define PENDING_SHORT   (MIB / 2)        /* where space is short: of the index's pages in one transaction */
#define ROOM_SHORT      (2 * MIB)        /* and of the WAL free for the next one */
#define TELL_NS         60000000000ull
#define CUTS            4u /* that one write waits for while others use what they find */
#define CHECKPOINT      (16 * MIB)
#define SMALL_SHARE     64u /* of the disk at most, for the log and for a segment */
#define SEGMENT_MIN     (2 * MIB)
#define STATFS_BLOCK    4096u
#define DEAD_SHARE      8u  /* of dead bytes that compaction may not find */
#define STATFS_SHARE    64u /* of the room: records, tables and the index's rows, for large writes */

/* On a small disk everything is smaller: what is set aside, and what holds space until all of it is free. */
void space_init(struct core *c)
{
	struct io_space s;
	uint64_t total = io_space(c->io, &s) ? UINT64_MAX : s.total;

	c->space.margin = min_u64(MARGIN_MAX, total / SMALL_SHARE);
	if (c->space.margin < MARGIN_MIN)
		c->space.margin = min_u64(MARGIN_MIN, total / MARGIN_SHARE);
	c->space.slack = min_u64(SLACK, total / MARGIN_SHARE);
	c->space.checkpoint = min_u64(CHECKPOINT, total / SMALL_SHARE);
	c->space.segment = min_u64(PIPELINE_SEGMENT_SIZE, total / SMALL_SHARE + SEGMENT_MIN);
	index_checkpoint_every(c->index, c->space.checkpoint);
}

bool space_lacks(int ret)
{
	return err_is_no_space(ret);
}

/* --- what is needed, what is there -------------------------------------------------------------------------------- */

static uint64_t rows_dirty(struct core *c)
{
	SCOPED_LOCK(&c->table_lock);
	return c->dirty_nodes + atomic_load(&c->clone_rows);
}

/* Under memory_lock: bytes of STORE that what was accepted and `more` file data besides take at worst, were none of it
 * compressible. rows: of inodes and clones. */
static uint64_t need_locked(struct core *c, uint64_t rows, uint64_t more)
{
	uint64_t data = c->space.claimed + more, buffers = c->dirty_buffers + data / POOL_BLOCK;

	return budget_used(&c->budget, BUDGET_DIRTY) + data + (data / POOL_BLOCK + 1) * RECORD_OVERHEAD +
	       c->dirty_buffers * STORED_OVERHEAD + index_owed(c->index, rows + buffers);
}

static uint64_t need_now(struct core *c, uint64_t rows, uint64_t more)
{
	SCOPED_LOCK(&c->memory_lock);
	return need_locked(c, rows, more);
}

/* STORE's free bytes; UINT64_MAX when they cannot be learned: the write itself will tell. */
static uint64_t avail_now(struct core *c, uint64_t need)
{
	struct space *sp = &c->space;
	uint64_t now = core_monotonic(c);
	struct io_space s;

	{
		SCOPED_LOCK(&c->memory_lock);
		if (sp->avail >= need + PLENTY && now - sp->asked < AGE_NS)
			return sp->avail;
	}
	if (io_space(c->io, &s)) /* without the lock: it may ask a server */
		return UINT64_MAX;
	SCOPED_LOCK(&c->memory_lock);
	sp->avail = s.avail;
	sp->asked = now;
	return s.avail;
}

/* Under memory_lock: what is needed, where avail was learned when it was `before`: what has been stored meanwhile is
 * not in avail. */
static uint64_t need_after(struct core *c, uint64_t rows, uint64_t more, uint64_t before)
{
	uint64_t need = need_locked(c, rows, more);

	return need > before ? need : before;
}

/* Whether `more` bytes of file data, or of the index, fit and leave `margin`. claim: they are kept for the caller. */
static bool fits(struct core *c, uint64_t data, uint64_t index, uint64_t margin, bool claim)
{
	uint64_t rows = rows_dirty(c), before = need_now(c, rows, data), need;
	uint64_t avail = avail_now(c, before + index + margin);

	SCOPED_LOCK(&c->memory_lock);
	need = need_after(c, rows, data, before) + index + margin;
	atomic_store(&c->space.is_short, c->space.failed || avail < need + c->space.slack);
	if (avail < need || c->space.failed > (data ? SPACE_FOUND : SPACE_NO_DATA))
		return false;
	if (claim)
		c->space.claimed += data;
	return true;
}

void space_unclaim(struct core *c, size_t len)
{
	SCOPED_LOCK(&c->memory_lock);
	c->space.claimed -= len;
}

bool space_claim_scratch(struct core *c, size_t len, uint64_t rows)
{
	uint64_t all = rows_dirty(c) + rows, before = need_now(c, all, len), keep = c->space.margin / 2;
	uint64_t avail = avail_now(c, before + keep);

	SCOPED_LOCK(&c->memory_lock);
	if (avail < need_after(c, all, len, before) + keep)
		return false;
	c->space.claimed += len;
	return true;
}

/* --- quarantine --------------------------------------------------------------------------------------------------- */

struct oldest {
	struct io *io;
	char path[128];
	int64_t changed;
	uint64_t bytes, all;
};

static int look(void *arg, const char *name)
{
	struct oldest *o = arg;
	struct io_stat st;
	char path[128];

	(void)snprintf(path, sizeof(path), "quarantine/%.64s", name);
	if (io_stat(o->io, path, &st) || st.dir)
		return 0;
	o->all += st.stored;
	if (!*o->path || st.changed < o->changed) {
		(void)snprintf(o->path, sizeof(o->path), "%s", path);
		o->changed = st.changed;
		o->bytes = st.stored;
	}
	return 0;
}

void space_quarantine(struct core *c)
{
	struct oldest o = {.io = c->io};
	int ret = io_list(c->io, "quarantine", look, &o);

	atomic_store(&c->space.quarantine, ret ? 0 : o.all);
}

/* Nothing in the index ever named what is quarantined: it goes before a write is refused. */
static bool purge_oldest(struct core *c)
{
	struct oldest o = {.io = c->io};

	if (!atomic_load(&c->space.quarantine))
		return false;
	int ret = io_list(c->io, "quarantine", look, &o);
	if (!ret)
		ret = *o.path ? io_unlink(c->io, o.path) : -ENODATA;
	if (ret == -ENOENT)
		return true; /* somebody else did */
	if (ret) {
		atomic_store(&c->space.quarantine, 0);
		return false;
	}
	atomic_store(&c->space.quarantine, o.all - o.bytes);
	if (!atomic_exchange(&c->space.purging, true))
		log_warn(
		    "STORE is full: what interrupted mounts left in quarantine/, never referred to, is being deleted");
	return true;
}

/* --- finding room ------------------------------------------------------------------------------------------------- */

/* Is there anything that a cut could make smaller or delete? Where the last one failed for want of space, only if
 * something was deleted since, or after a while. */
static bool cut_helps(struct core *c)
{
	bool freed = atomic_load(&c->space.freed);
	uint64_t now = core_monotonic(c);

	SCOPED_LOCK(&c->memory_lock);
	if (c->space.failed)
		return freed || now - c->space.failed_at > AGE_NS;
	return freed || budget_used(&c->budget, BUDGET_DIRTY);
}

/* One attempt at finding room without giving anything up: false when there is none left to make. */
static bool find_room(struct core *c, unsigned *step)
{
	(void)reap_rest(c);
	if (*step < CUTS && cut_helps(c)) {
		++*step;
		(void)!cut_wait_space(c);
		return true;
	}
	return compact_find_room(c);
}

static int refuse(struct core *c)
{
	uint64_t now = core_monotonic(c);
	bool tell;

	{
		SCOPED_LOCK(&c->memory_lock);
		tell = !c->space.told_at || now - c->space.told_at > TELL_NS;
		if (tell)
			c->space.told_at = now;
	}
	if (tell)
		log_warn("STORE is full: writes are refused until files are deleted or its disk has more room");
	return -ENOSPC;
}

static int admit(struct core *c, uint64_t data, uint64_t index, uint64_t margin)
{
	unsigned step = 0;
	int ret = core_may_write(c);

	while (!ret && !fits(c, data, index, margin, data != 0)) {
		if (!find_room(c, &step) && !purge_oldest(c))
			return refuse(c);
		ret = core_may_write(c);
	}
	return ret;
}

int space_claim(struct core *c, size_t len)
{
	return admit(c, len, 0, c->space.margin);
}

/* Names may use half of the margin: with a file too many on a full disk, directories can still be sorted. */
int space_for_name(struct core *c, size_t bytes)
{
	int ret = admit(c, 0, NAME_BYTES + 2 * bytes, c->space.margin / 2);

	if (!ret)
		space_pause(c);
	return ret;
}

bool space_plenty(struct core *c)
{
	return fits(c, 0, NAME_BYTES, c->space.margin / 2, false) && !space_is_short(c);
}

void space_pause(struct core *c)
{
	if (c->opt.read_only || index_pending(c->index) < PENDING_SHORT)
		return;
	if (index_pending(c->index) > space_pending_max(c, SIZE_MAX))
		(void)!cut_wait(c, NULL);
}

size_t space_pending_max(struct core *c, size_t normal)
{
	(void)fits(c, 0, 0, c->space.margin, false); /* is it? */
	return space_is_short(c) ? PENDING_SHORT : normal;
}

/* --- what cuts tell ----------------------------------------------------------------------------------------------- */

void space_cut_begins(struct core *c)
{
	bool is_short = space_is_short(c);

	if (is_short != c->space.was_short)
		index_keep_room(c->index, is_short ? ROOM_SHORT : 0);
	c->space.was_short = is_short;
	c->space.cut_freed = atomic_exchange(&c->space.freed, false);
}

void space_cut_ended(struct core *c, int ret, int names, bool reclaimed)
{
	uint64_t now = core_monotonic(c);

	/* One that did not reclaim may have emptied segments, too. */
	if (ret ? c->space.cut_freed : !reclaimed)
		atomic_store(&c->space.freed, true);
	SCOPED_LOCK(&c->memory_lock);
	c->space.failed = !space_lacks(ret) ? SPACE_FOUND : space_lacks(names) ? SPACE_NO_NAMES : SPACE_NO_DATA;
	c->space.failed_at = now;
}

void space_refill(struct core *c)
{
	uint64_t need, avail;

	if (!reserve_lacks(c->io))
		return;
	need = need_now(c, rows_dirty(c), 0) + c->space.margin;
	avail = avail_now(c, need);
	if (avail > need && avail != UINT64_MAX)
		reserve_grow(c->io, avail - need);
}

void space_keep(struct core *c)
{
	struct io_space s;

	if (reserve_lacks(c->io) && !io_space(c->io, &s))
		reserve_grow(c->io, s.avail);
}

/* What was deleted or not yet compressed is space already, but nobody can see it; and where nothing is to be seen, a
 * write would look for more. */
static void look_for_room(struct core *c)
{
	unsigned step = 0;
	bool enough = fits(c, POOL_BLOCK, 0, c->space.margin, false);

	if (c->opt.read_only || core_may_write(c))
		return;
	if (enough && space_is_short(c) && cut_helps(c))
		(void)!cut_wait_space(c);
	while (!fits(c, POOL_BLOCK, 0, c->space.margin, false) && find_room(c, &step))
		;
}

/* --- statfs ------------------------------------------------------------------------------------------------------- */

int core_statfs(struct core *c, struct core_statfs *out)
{
	uint64_t rows, need, avail, dead = 0;
	struct io_space s;
	int ret;

	look_for_room(c);
	if (!c->opt.read_only && space_is_short(c))
		dead = compact_could_find(c, c->space.margin / 2);
	rows = rows_dirty(c);
	ret = io_space(c->io, &s);
	if (ret)
		return ret;
	{
		SCOPED_LOCK(&c->memory_lock);
		need = need_locked(c, rows, 0) + c->space.margin;
		avail = c->space.failed ? 0 : s.avail + atomic_load(&c->space.quarantine) + dead - dead / DEAD_SHARE;
	}
	avail = avail > need ? avail - need : 0;
	avail -= avail / STATFS_SHARE;
	*out = (struct core_statfs){.block_size = STATFS_BLOCK,
	                            .blocks = s.total / STATFS_BLOCK,
	                            .free = (s.free - s.avail + avail) / STATFS_BLOCK,
	                            .avail = avail / STATFS_BLOCK,
	                            .files = s.files,
	                            .files_free = avail ? s.files_free : 0};
	return 0;
}
