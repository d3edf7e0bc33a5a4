/*
 * Slots of the WAL. SQLite reads and writes a header of 32 bytes and frames of 24 bytes and a page; in the file there
 * is a slot for each, sealed, and larger. SQLite sees its own offsets.
 *
 * A frame's header and page come in two writes. The slot is sealed when it has both. A later write of one of them alone
 * (SQLite does this when a transaction rewrites a page that it had spilled) takes the rest from the slot.
 *
 * Each slot says how many slots of the same generation (the salt that SQLite draws when it begins the WAL anew) were
 * durable when it was sealed: slots of committed transactions that an fdatasync covers, which nothing overwrites any
 * more. So slot_recover, before SQLite replays the frames, can tell damage from what a power cut leaves: a slot that
 * does not open, but that a later slot says was durable, is damage, and opening fails rather than going back to an
 * older state without a word. Any other ends the WAL: it and what follows reads as zeroes.
 *
 * The header shares its sector with the beginning of slot 1, and both are cleared in one write (WAL_CLEAR). So a
 * header that does not open is damage, unless slot 1 is cleared: then it is what a failed write left of a new header.
 * And if slot 1 opens under a cleared header, the header of a new generation was on its way, of which nothing can have
 * been durable yet.
 */
#include "base/cursor.h"
#include "base/log.h"
#include "index/sealed.h"

#include <errno.h>
#include <string.h>

#define FRAME_HEADER 24
#define DURABLE      8
#define SLOT_EXTRA   (INDEX_NONCE + FRAME_HEADER - INDEX_RESERVE + DURABLE + INDEX_TAG)
_Static_assert(SLOT_EXTRA == INDEX_FRAME_EXTRA, "others reckon with the size of a slot");
#define HEADER_USED (INDEX_NONCE + WAL_HEADER + INDEX_TAG)
#define SALT        8 /* bytes, at 16 in the header and at 8 in each frame */

static uint32_t frame_size(const struct vfs *v)
{
	return FRAME_HEADER + v->page_size;
}

static uint32_t slot_size(const struct vfs *v)
{
	return v->page_size + SLOT_EXTRA;
}

/* What of a frame is in its slot: not the reserved bytes. */
static size_t frame_kept(const struct vfs *v)
{
	return frame_size(v) - INDEX_RESERVE;
}

uint64_t slot_offset(const struct vfs *v, uint64_t number)
{
	return WAL_HEADER_SLOT + (number - 1) * slot_size(v);
}

static uint64_t slots_in(const struct vfs *v, uint64_t size)
{
	return size < WAL_HEADER_SLOT ? 0 : (size - WAL_HEADER_SLOT) / slot_size(v);
}

uint64_t slot_size_seen(const struct vfs *v, uint64_t size)
{
	return size < WAL_HEADER_SLOT ? 0 : WAL_HEADER + slots_in(v, size) * frame_size(v);
}

uint64_t slot_size_stored(const struct vfs *v, uint64_t size)
{
	return size < WAL_HEADER ? 0 : slot_offset(v, (size - WAL_HEADER) / frame_size(v) + 1);
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

static bool salt_matches(const struct vfs *v, const uint8_t *frame)
{
	return !memcmp(frame + 8, v->wal_header + 16, SALT);
}

/* --- one slot ----------------------------------------------------------------------------------------------------- */

/* Opens a slot as it lies in the file; in place, behind the nonce. */
static int slot_open(const struct vfs *v, uint64_t number, uint8_t *slot)
{
	uint8_t *sealed = slot + INDEX_NONCE;

	if (all_zero(slot, INDEX_NONCE))
		return -EBADMSG; /* never written: spares a cipher run */
	return v->sealer.open(v->sealer.arg, INDEX_SLOT, number, slot, sealed, frame_kept(v) + DURABLE, sealed);
}

static uint64_t slot_durable(const struct vfs *v, const uint8_t *slot)
{
	struct cursor c = cursor_reader(slot + INDEX_NONCE + frame_kept(v), DURABLE);

	return cursor_get64(&c);
}

/* Reads a slot that must be there to v->unit, where the frame is *frame: SQLite's code. */
static int slot_load(struct vfs *v, uint64_t number, const uint8_t **frame)
{
	ssize_t n = vfs_half_read(v, &v->wal, v->unit, slot_size(v), slot_offset(v, number));

	*frame = v->unit + INDEX_NONCE;
	if (n < 0)
		return vfs_unread(v, (int)n);
	int ret = n == slot_size(v) ? slot_open(v, number, v->unit) : -EBADMSG;
	/* Without a salt: written by the open transaction after it rewrote a page, to be completed before it commits.
	 */
	if (!ret && !salt_matches(v, *frame) && !all_zero(*frame + 8, SALT))
		ret = -EBADMSG;
	if (ret == -EBADMSG)
		return vfs_damaged(v, "index.db-wal: frame %llu is damaged", (unsigned long long)number);
	return ret ? vfs_fail(v, ret, SQLITE_IOERR_READ) : SQLITE_OK;
}

int slot_read(struct vfs *v, void *buf, size_t len, uint64_t off)
{
	uint64_t number = off < WAL_HEADER ? 0 : (off - WAL_HEADER) / frame_size(v) + 1;
	size_t at = number ? (size_t)((off - WAL_HEADER) % frame_size(v)) : (size_t)off;
	const uint8_t *frame = v->wal_header;
	size_t kept = number ? frame_kept(v) : WAL_HEADER;

	if (at + len > (number ? frame_size(v) : WAL_HEADER))
		return vfs_fail(v, -EINVAL, SQLITE_IOERR_READ);
	memset(buf, 0, len);
	if (number > v->wal_end)
		return SQLITE_OK;
	int rc = number ? slot_load(v, number, &frame) : SQLITE_OK;
	if (rc == SQLITE_OK && at < kept)
		memcpy(buf, frame + at, len < kept - at ? len : kept - at);
	return rc;
}

/* Seals v->frame, which is complete. */
static int slot_seal(struct vfs *v, uint64_t number)
{
	static const uint8_t zero[INDEX_RESERVE];
	uint8_t *room, *end = v->frame + frame_kept(v);
	struct cursor durable = cursor_writer(end, DURABLE);

	if (memcmp(end, zero, INDEX_RESERVE) != 0)
		return -EUCLEAN; /* SQLite's checksum covers them, and recovery would find other bytes */
	int ret = vfs_half_room(v, &v->wal, slot_size(v), slot_offset(v, number), &room);
	if (ret)
		return ret;
	cursor_put64(&durable, atomic_load(&v->wal_durable));
	ret = v->sealer.seal(v->sealer.arg, INDEX_SLOT, number, v->frame, frame_kept(v) + DURABLE, room,
	                     room + INDEX_NONCE);
	if (ret)
		return ret;
	v->wal.len += slot_size(v);
	v->wal_last = number;
	if (number > v->wal_end)
		v->wal_end = number;
	if (slot_offset(v, number + 1) > v->wal_used)
		v->wal_used = slot_offset(v, number + 1);
	return 0;
}

/* A new header begins a new generation. It is written with zeroes over the beginning of slot 1; see above. */
static int header_write(struct vfs *v, const uint8_t *header)
{
	uint8_t *room;
	int ret = vfs_half_room(v, &v->wal, WAL_CLEAR, 0, &room);

	if (ret)
		return ret;
	memset(room, 0, WAL_CLEAR);
	ret = v->sealer.seal(v->sealer.arg, INDEX_SLOT, 0, header, WAL_HEADER, room, room + INDEX_NONCE);
	if (ret)
		return ret;
	v->wal.len += WAL_CLEAR;
	memcpy(v->wal_header, header, WAL_HEADER);
	v->wal_end = v->wal_last = v->frame_number = 0;
	v->wal_used = WAL_HEADER_SLOT;
	return 0;
}

/* Makes v->frame what the file has of a frame that is written again in part. */
static int frame_begin(struct vfs *v, uint64_t number, bool in_part)
{
	const uint8_t *old;

	v->frame_number = number;
	v->frame_have = 0;
	if (!in_part || number > v->wal_end)
		return 0;
	if (slot_load(v, number, &old) != SQLITE_OK)
		return -EIO;
	memcpy(v->frame, old, frame_kept(v));
	memset(v->frame + frame_kept(v), 0, INDEX_RESERVE);
	v->frame_have = frame_size(v);
	return 0;
}

int slot_write(struct vfs *v, const void *buf, size_t len, uint64_t off)
{
	if (!off && len == WAL_HEADER)
		return header_write(v, buf);
	if (off < WAL_HEADER)
		return -EINVAL;
	uint64_t number = (off - WAL_HEADER) / frame_size(v) + 1;
	size_t at = (size_t)((off - WAL_HEADER) % frame_size(v));
	if (at + len > frame_size(v))
		return -EINVAL;
	int ret = number == v->frame_number ? 0 : frame_begin(v, number, len < frame_size(v));
	if (!ret && at > v->frame_have)
		ret = -EINVAL;
	if (ret)
		return ret;
	memcpy(v->frame + at, buf, len);
	if (at + len > v->frame_have)
		v->frame_have = at + len;
	if (v->frame_have < frame_size(v))
		return 0;
	v->frame_number = 0;
	return slot_seal(v, number);
}

/* --- a WAL that was found ----------------------------------------------------------------------------------------- */

enum header_found { HEADER_NONE, HEADER_GOOD, HEADER_BAD };

struct scan {
	uint64_t slots;   /* in the file */
	uint64_t bad;     /* the first that does not open, or is of another generation */
	uint64_t durable; /* the highest claim */
	bool salted;      /* v->wal_header has the salt of the generation */
	bool first_zero;  /* slot 1 is cleared */
};

static int header_find(struct vfs *v, enum header_found *found)
{
	uint8_t *slot = v->unit, *sealed = slot + INDEX_NONCE;

	memset(slot, 0, HEADER_USED);
	memset(v->wal_header, 0, WAL_HEADER);
	*found = HEADER_NONE;
	ssize_t n = vfs_half_read(v, &v->wal, slot, HEADER_USED, 0);
	if (n < 0)
		return (int)n;
	if (all_zero(slot, HEADER_USED))
		return 0;
	int ret = v->sealer.open(v->sealer.arg, INDEX_SLOT, 0, slot, sealed, WAL_HEADER, sealed);
	*found = ret ? HEADER_BAD : HEADER_GOOD;
	if (!ret)
		memcpy(v->wal_header, sealed, WAL_HEADER);
	return ret == -EBADMSG ? 0 : ret;
}

static int scan_slot(struct vfs *v, struct scan *s, uint64_t number, uint8_t *slot)
{
	if (number == 1)
		s->first_zero = all_zero(slot, INDEX_NONCE);
	int ret = slot_open(v, number, slot);
	if (ret && ret != -EBADMSG)
		return ret;
	if (!ret && !s->salted) { /* slot 1 */
		memcpy(v->wal_header + 16, slot + INDEX_NONCE + 8, SALT);
		s->salted = true;
	}
	if (!ret && salt_matches(v, slot + INDEX_NONCE)) {
		uint64_t durable = slot_durable(v, slot);
		if (durable > s->durable)
			s->durable = durable;
	} else if (!s->bad) {
		s->bad = number;
	}
	return 0;
}

/* Opens all slots, or only the first where there is no salt to compare with. */
static int scan_slots(struct vfs *v, struct scan *s)
{
	size_t size = slot_size(v), many = VFS_BUFFER / size;
	int ret = 0;

	for (uint64_t at = 1; at <= s->slots && !ret && (at == 1 || s->salted); at += many) {
		ssize_t n = vfs_half_read(v, &v->wal, v->wal.buf, many * size, slot_offset(v, at));
		if (n < 0)
			return (int)n;
		for (uint64_t i = 0; i < (size_t)n / size && !ret && (at + i == 1 || s->salted); i++)
			ret = scan_slot(v, s, at + i, v->wal.buf + i * size);
	}
	if (!s->bad)
		s->bad = s->slots + 1;
	return ret;
}

int slot_recover(struct vfs *v)
{
	struct scan s = {.slots = slots_in(v, atomic_load(&v->wal.size)), .first_zero = true};
	enum header_found found;
	int ret = header_find(v, &found);

	s.salted = found == HEADER_GOOD;
	if (!ret)
		ret = scan_slots(v, &s);
	if (ret)
		return vfs_fail(v, ret, SQLITE_IOERR_READ);
	if (found == HEADER_GOOD) {
		v->wal_end = s.bad - 1;
		if (s.bad > s.durable)
			return SQLITE_OK;
		return vfs_damaged(v, "index.db-wal: frame %llu, which was durable, is damaged",
		                   (unsigned long long)s.bad);
	}
	v->wal_end = 0;
	memset(v->wal_header, 0, WAL_HEADER);
	if (s.durable || (found == HEADER_BAD && !s.first_zero))
		return vfs_damaged(v, "index.db-wal: its header is damaged");
	return SQLITE_OK;
}
