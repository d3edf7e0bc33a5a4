#include "tests/index/support.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void ok_at(int ret, const struct err *e, const char *file, int line)
{
	if (!ret)
		return;
	(void)fprintf(stderr, "%s\n", err_text(e, ret));
	_assert_int_equal((LargestIntegralType)ret, 0, file, line);
}

/* --- sealing, by what docs/FORMAT.md says --------------------------------------------------------------------------
 */

static const uint8_t uuid[16] = "uuid of a store", key[2][32] = {"key of pages", "key of slots"};

static size_t make_aad(enum index_unit unit, uint64_t number, uint8_t aad[32])
{
	static const char *const names[] = {"db", "wal"};
	size_t name = strlen(names[unit]), len = unit == INDEX_PAGE ? 4 : 8;

	memcpy(aad, uuid, 16);
	memcpy(aad + 16, names[unit], name);
	for (size_t i = 0; i < len; i++)
		aad[16 + name + i] = (uint8_t)(number >> 8 * i);
	return 16 + name + len;
}

static int seal(void *arg, enum index_unit unit, uint64_t number, const void *in, size_t len,
                uint8_t nonce[INDEX_NONCE], void *out)
{
	uint8_t aad[32];

	(void)arg;
	randombytes_buf(nonce, INDEX_NONCE);
	return crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, in, len, aad, make_aad(unit, number, aad), NULL,
	                                                  nonce, key[unit]);
}

int test_unit_open(void *arg, enum index_unit unit, uint64_t number, const uint8_t nonce[INDEX_NONCE], const void *in,
                   size_t len, void *out)
{
	uint8_t aad[32];

	(void)arg;
	int ret = crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, in, len + INDEX_TAG, aad,
	                                                     make_aad(unit, number, aad), nonce, key[unit]);
	return ret ? -EBADMSG : 0;
}

void test_page_open(const uint8_t *page, size_t size, uint32_t number, uint8_t *out)
{
	size_t len = size - INDEX_RESERVE;
	uint8_t sealed[65536];

	memcpy(sealed, page, len);
	memcpy(sealed + len, page + size - INDEX_TAG, INDEX_TAG);
	assert_int_equal(test_unit_open(NULL, INDEX_PAGE, number, page + len, sealed, len, out), 0);
}

static const struct index_sealer sodium_sealer = {seal, test_unit_open, NULL};
const struct index_sealer *test_sealer = &sodium_sealer;

void test_seal_index(bool sealed)
{
	test_sealer = sealed ? &sodium_sealer : NULL;
}

/* ------------------------------------------------------------------------------------------------------------------ */

struct index *open_index(struct io *io)
{
	struct index *ix = NULL;
	struct err e = {0};

	ok_at(index_open(io, PAGE, test_sealer, &ix, &e), &e, __FILE__, __LINE__);
	return ix;
}

struct index *new_index(struct io **io)
{
	struct err e = {0};

	*io = sim_new();
	ok_at(index_create(*io, PAGE, test_sealer, &e), &e, __FILE__, __LINE__);
	struct index *ix = open_index(*io);
	put_segment(ix, 1);
	return ix;
}

void close_index(struct index *ix)
{
	struct err e = {0};

	ok_at(index_close(ix, &e), &e, __FILE__, __LINE__);
}

void commit_index(struct index *ix)
{
	struct err e = {0};

	ok_at(index_commit(ix, &e), &e, __FILE__, __LINE__);
}

void put_segment(struct index *ix, uint64_t id)
{
	struct index_segment s = {.id = id, .name = {(uint8_t)id}, .epoch = 7, .total = 5000, .header_len = 3};

	memcpy(s.header, "abc", 3);
	assert_int_equal(index_segment_put(ix, &s), 0);
}

void put_chunk(struct index *ix, uint64_t id)
{
	static const uint8_t frames[] = {1, 2, 3, 4};
	struct index_chunk c = {
	    .id = id,
	    .segment = 1,
	    .offset = id * 1000,
	    .stored_len = 1000,
	    .plain_len = 1 << 20,
	    .data_start = 40,
	    .sequence = id + 5,
	    .frames = frames,
	    .frames_len = sizeof(frames),
	};

	assert_int_equal(index_chunk_put(ix, &c), 0);
}

struct index_inode some_inode(uint64_t ino, uint32_t nlink)
{
	return (struct index_inode){
	    .ino = ino,
	    .mode = S_IFREG | 0644,
	    .nlink = nlink,
	    .uid = 1000,
	    .gid = UINT32_MAX,
	    .rdev = 0x12345678,
	    .flags = INDEX_INODE_XATTRS,
	    .size = (uint64_t)1 << 60,
	    .blocks = 77,
	    .generation = UINT64_MAX,
	    .atime = {INT64_MIN, 999999999},
	    .mtime = {INT64_MAX, 1},
	    .ctime = {-1, 0},
	    .btime = {1700000000, 123456789},
	};
}

static bool same_time(const struct clock_time *a, const struct clock_time *b)
{
	return a->sec == b->sec && a->nsec == b->nsec;
}

bool same_inode(const struct index_inode *a, const struct index_inode *b)
{
	return !memcmp(a, b, offsetof(struct index_inode, atime)) && same_time(&a->atime, &b->atime) &&
	       same_time(&a->mtime, &b->mtime) && same_time(&a->ctime, &b->ctime) && same_time(&a->btime, &b->btime);
}

struct index_dirent some_dirent(const char *name, uint64_t ino, uint64_t cookie)
{
	struct index_dirent d = {.ino = ino, .cookie = cookie, .type = 8, .name_len = (uint8_t)strlen(name)};

	memcpy(d.name, name, strlen(name));
	return d;
}

unsigned rounds(unsigned n)
{
	const char *nightly = getenv("APFS_NIGHTLY");

	if (nightly && *nightly && *nightly != '0')
		return 20 * n;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	n = (n + 3) / 4;
#endif
	return n;
}
