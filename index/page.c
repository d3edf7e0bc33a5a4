/*
 * Pages of the database. Every one is sealed, the first too: what SQLite reads of it before the WAL has been recovered
 * (the header's 100 bytes, to learn the page size) must not depend on it, as a checkpoint that was cut off may have
 * torn it while the WAL still has it.
 */
#include "base/log.h"
#include "index/sealed.h"

#include <errno.h>
#include <string.h>

static const uint8_t zero[INDEX_RESERVE];

int page_seal(const struct index_sealer *s, uint32_t size, uint32_t number, const uint8_t *in, uint8_t *out)
{
	size_t len = size - INDEX_RESERVE;
	uint8_t nonce[INDEX_NONCE];

	if (memcmp(in + len, zero, INDEX_RESERVE) != 0)
		return -EUCLEAN;
	int ret = s->seal(s->arg, INDEX_PAGE, number, in, len, nonce, out);
	memmove(out + len + INDEX_NONCE, out + len, INDEX_TAG);
	memcpy(out + len, nonce, INDEX_NONCE);
	return ret;
}

static int page_open(const struct vfs *v, uint32_t number, uint8_t *page)
{
	size_t len = v->page_size - INDEX_RESERVE;
	uint8_t nonce[INDEX_NONCE];

	memcpy(nonce, page + len, INDEX_NONCE);
	memmove(page + len, page + len + INDEX_NONCE, INDEX_TAG);
	int ret = v->sealer.open(v->sealer.arg, INDEX_PAGE, number, nonce, page, len, page);
	memset(page + len, 0, INDEX_RESERVE);
	return ret;
}

/* What SQLite has to know before it recovers the WAL, which has the first page. */
static void header_make_up(uint32_t size, uint8_t *page)
{
	memset(page, 0, size);
	memcpy(page, "SQLite format 3", 16);
	page[16] = (uint8_t)(size >> 8); /* 65536 is written as 1 */
	page[17] = (uint8_t)(size >> 16);
	page[18] = page[19] = 2; /* WAL */
	page[20] = INDEX_RESERVE;
}

int page_read(struct vfs *v, void *buf, size_t len, uint64_t off)
{
	uint32_t size = v->page_size, number = (uint32_t)(off / size) + 1;
	size_t at = (size_t)(off % size);
	bool whole = len == size;
	uint8_t *page = whole ? buf : v->unit;

	if (at + len > size || off / size >= UINT32_MAX)
		return vfs_fail(v, -EINVAL, SQLITE_IOERR_READ);
	ssize_t n = vfs_half_read(v, &v->db, page, size, off - at);
	if (n < 0)
		return vfs_unread(v, (int)n);
	int ret = (size_t)n == size ? page_open(v, number, page) : -EBADMSG;
	if (ret == -EBADMSG && !whole && number == 1) {
		header_make_up(size, page);
		ret = 0;
	}
	if (ret) {
		memset(buf, 0, len);
		return ret == -EBADMSG ? vfs_damaged(v, "index.db: page %u is damaged", number)
		                       : vfs_fail(v, ret, SQLITE_IOERR_READ);
	}
	if (!whole)
		memcpy(buf, page + at, len);
	return SQLITE_OK;
}

int page_write(struct vfs *v, const void *buf, size_t len, uint64_t off)
{
	uint32_t size = v->page_size;
	uint8_t *room;

	if (len != size || off % size || off / size >= UINT32_MAX)
		return -EINVAL;
	int ret = vfs_half_room(v, &v->db, size, off, &room);
	if (!ret)
		ret = page_seal(&v->sealer, size, (uint32_t)(off / size) + 1, buf, room);
	if (!ret)
		v->db.len += size;
	return ret;
}
