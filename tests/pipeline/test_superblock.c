#include "base/log.h"
#include "pipeline/slot.h"
#include "pipeline/superblock.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

/* Offsets from docs/FORMAT.md, written down again so that a change of the format shows. */
#define SIZE        8192
#define SLOTS       512
#define MASTERS     4608
#define MAC         8128
#define CHECKSUM    8160
#define SLOT_AAD    136
#define SLOT_SEALED 48

#define PASS     "correct horse"
#define PASS_LEN (sizeof(PASS) - 1)
#define NEXT     "battery staple"
#define NEXT_LEN (sizeof(NEXT) - 1)

static const struct superblock_kdf cheap = {1, (uint64_t)8 << 20};
static char dir[64];
static struct io *io;

static uint64_t le(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

static void load(const char *path, uint8_t *image)
{
	void *buf;
	size_t len;

	assert_int_equal(io_read_file(io, path, 65536, &buf, &len), 0);
	assert_int_equal(len, SIZE);
	memcpy(image, buf, SIZE);
	free(buf);
}

static void store(const char *path, const uint8_t *image, size_t len)
{
	struct io_file *f;

	assert_int_equal(io_open(io, path, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_truncate(f, len), 0);
	if (len)
		assert_int_equal(io_pwrite(f, image, len, 0), 0);
	io_close(f);
}

static void store_both(const uint8_t *image, size_t len)
{
	store("superblock", image, len);
	store("superblock.bak", image, len);
}

static void fix_checksum(uint8_t *image, size_t len)
{
	(void)crypto_generichash(image + len - 32, 32, image, len - 32, NULL, 0);
}

static int try_open(struct superblock **sb)
{
	struct err e;
	int ret;

	err_reset(&e);
	ret = superblock_open(io, sb, &e);
	assert_int_equal(ret ? ret : 0, e.code);
	return ret;
}

/* Opens and unlocks; the subkey is what a test compares. */
static int try_unlock_with(const char *pass, size_t len, uint8_t subkey[KEYS_LEN])
{
	struct superblock *sb;
	struct keyring *k;
	struct err e;
	int ret = try_open(&sb);

	if (ret)
		return ret;
	err_reset(&e);
	ret = superblock_unlock(sb, pass, len, &k, &e);
	assert_int_equal(ret, e.code);
	if (!ret) {
		assert_int_equal(keyring_epoch(k), 1);
		assert_int_equal(keyring_subkey(k, 1, KEY_SEGMENT, "x", 1, subkey), 0);
		keyring_free(k);
	}
	superblock_free(sb);
	return ret;
}

static int try_unlock(const char *pass, uint8_t subkey[KEYS_LEN])
{
	return try_unlock_with(pass, strlen(pass), subkey);
}

static void remove_both(void)
{
	int a = io_unlink(io, "superblock"), b = io_unlink(io, "superblock.bak");

	assert_true((!a || a == -ENOENT) && (!b || b == -ENOENT));
}

static void create(uint8_t *image)
{
	struct err e;

	remove_both();
	err_reset(&e);
	assert_int_equal(superblock_create(io, CIPHER_XCHACHA20_POLY1305, 4096, cheap, PASS, PASS_LEN, &e), 0);
	load("superblock", image);
}

/* BLAKE2b as FORMAT.md derives subkeys. */
static void derive(const uint8_t *key, uint8_t purpose, const char *id, uint8_t *out)
{
	static const uint8_t person[16] = "apfs-subkey";
	const size_t id_len = strlen(id);
	uint8_t message[64] = {purpose, 0, 0, 0, 0, 0, 0, 0, (uint8_t)id_len};

	for (size_t i = 0; i < id_len; i++)
		message[12 + i] = (uint8_t)id[i];
	assert_int_equal(crypto_generichash_blake2b_salt_personal(out, 32, message, 12 + id_len, key, 32, NULL, person),
	                 0);
}

/* The slot key of slot 0, from the record's own parameters. */
static void slot_key(const uint8_t *slot, uint8_t *out)
{
	assert_int_equal(crypto_pwhash(out, 32, PASS, PASS_LEN, slot + 24, le(slot + 8, 4), le(slot + 16, 8),
	                               crypto_pwhash_ALG_ARGON2ID13),
	                 0);
}

/* The associated data of slot `number`: uuid, number, the record's header. */
static void slot_aad(const uint8_t *image, uint8_t number, uint8_t aad[20 + SLOT_AAD])
{
	memcpy(aad, image + 32, 16);
	memset(aad + 16, 0, 4);
	aad[16] = number;
	memcpy(aad + 20, image + SLOTS + 256 * (size_t)number, SLOT_AAD);
}

/* A decoder from FORMAT.md alone: the root key through slot 0. */
static void decode_root(const uint8_t *image, uint8_t root[32])
{
	const uint8_t *slot = image + SLOTS;
	uint8_t key[32], wrap[32], commitment[32], aad[20 + SLOT_AAD];

	slot_key(slot, key);
	derive(key, 64, "", wrap);
	derive(key, 65, "", commitment);
	assert_memory_equal(commitment, slot + 40, 32);
	slot_aad(image, 0, aad);
	assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(root, NULL, NULL, slot + 160, SLOT_SEALED, aad,
	                                                            sizeof(aad), slot + 136, wrap),
	                 0);
}

static void fix_mac(uint8_t *image, const uint8_t root[32])
{
	uint8_t key[32];

	derive(root, 3, "mac", key);
	(void)crypto_generichash(image + MAC, 32, image, MAC, key, 32);
	fix_checksum(image, SIZE);
}

static void test_create(void **state)
{
	uint8_t image[SIZE], bak[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	const struct superblock_info *info;
	struct superblock *sb;
	struct err e;

	(void)state;
	assert_int_equal(try_open(&sb), -ENOENT);
	create(image);
	load("superblock.bak", bak);
	assert_memory_equal(image, bak, SIZE);
	err_reset(&e);
	assert_int_equal(superblock_create(io, CIPHER_AUTO, 4096, cheap, PASS, PASS_LEN, &e), -EEXIST);
	assert_int_equal(try_open(&sb), 0);
	info = superblock_info(sb);
	assert_int_equal(info->version, 1);
	assert_int_equal(info->features, 0);
	assert_int_equal(info->suite, CIPHER_XCHACHA20_POLY1305);
	assert_int_equal(info->page_size, 4096);
	assert_true(info->created > 1600000000);
	assert_int_equal(info->slots, 1);
	assert_int_equal(info->slot[0].number, 0);
	assert_int_equal(info->slot[0].type, 1);
	assert_int_equal(info->slot[0].kdf.ops, cheap.ops);
	assert_int_equal(info->slot[0].kdf.mem, cheap.mem);
	assert_memory_equal(info->uuid, image + 32, 16);
	superblock_free(sb);
	superblock_free(NULL);
	assert_int_equal(try_unlock(PASS, a), 0);
	assert_int_equal(try_unlock(PASS, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	assert_int_equal(try_unlock("correct horsf", a), -EKEYREJECTED);
	assert_int_equal(try_unlock_with(PASS, PASS_LEN - 1, a), -EKEYREJECTED);
	assert_int_equal(try_unlock("", a), -EKEYREJECTED);
	create(image);
	assert_memory_not_equal(image, bak, SIZE);
	assert_int_equal(try_unlock(PASS, a), 0);
	assert_memory_not_equal(a, b, KEYS_LEN);
}

static void test_create_refuses(void **state)
{
	static const struct {
		enum cipher_suite suite;
		uint32_t page;
		struct superblock_kdf kdf;
		size_t pass_len;
		int ret;
	} table[] = {
	    {(enum cipher_suite)4, 4096, {1, (uint64_t)8 << 20}, 3, -EINVAL},
	    {CIPHER_AUTO, 0, {1, (uint64_t)8 << 20}, 3, -EINVAL},
	    {CIPHER_AUTO, 5000, {1, (uint64_t)8 << 20}, 3, -EINVAL},
	    {CIPHER_AUTO, 131072, {1, (uint64_t)8 << 20}, 3, -EINVAL},
	    {CIPHER_AUTO, 4096, {65, (uint64_t)8 << 20}, 3, -ERANGE},
	    {CIPHER_AUTO, 4096, {1, ((uint64_t)8 << 20) - 1024}, 3, -ERANGE},
	    {CIPHER_AUTO, 4096, {1, ((uint64_t)8 << 20) + 1}, 3, -ERANGE},
	    {CIPHER_AUTO, 4096, {1, ((uint64_t)4 << 30) + 1024}, 3, -ERANGE},
	    {CIPHER_AUTO, 4096, {1, UINT64_MAX - 1023}, 3, -ERANGE},
	    {CIPHER_AUTO, 4096, {1, (uint64_t)8 << 20}, 0, -EINVAL},
	};
	struct superblock *sb;
	struct err e;

	(void)state;
	remove_both();
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		err_reset(&e);
		assert_int_equal(
		    superblock_create(io, table[i].suite, table[i].page, table[i].kdf, "abc", table[i].pass_len, &e),
		    table[i].ret);
		assert_int_equal(e.code, table[i].ret);
	}
	assert_int_equal(try_open(&sb), -ENOENT); /* nothing was written */
}

static void test_default_cost(void **state)
{
	struct superblock_kdf none = {0, 0};
	struct superblock *sb;
	uint8_t subkey[KEYS_LEN];

	(void)state;
	remove_both();
	assert_int_equal(superblock_create(io, CIPHER_AUTO, 8192, none, PASS, PASS_LEN, NULL), 0);
	assert_int_equal(try_open(&sb), 0);
	assert_int_equal(superblock_info(sb)->slot[0].kdf.ops, 3);
	assert_int_equal(superblock_info(sb)->slot[0].kdf.mem, 256 << 20);
	assert_int_equal(superblock_info(sb)->page_size, 8192);
	assert_int_equal(superblock_info(sb)->suite, cipher_suite_choose(CIPHER_AUTO));
	superblock_free(sb);
	assert_int_equal(try_unlock(PASS, subkey), 0);
}

/* The image is what FORMAT.md says, down to the master key. */
static void test_format(void **state)
{
	uint8_t image[SIZE], root[32], key[32], aad[32], master[32], subkey[32], expected[32], sum[32];
	static const uint8_t person[16] = "apfs-subkey", zero[SIZE];
	uint8_t message[13] = {KEY_SEGMENT, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 'x'};

	(void)state;
	create(image);
	assert_memory_equal(image, "apfs-sb\n\x01\0\0\0\0\x20\0\0", 16);
	assert_memory_equal(image + 16, zero, 16);
	assert_int_equal(le(image + 48, 4), CIPHER_XCHACHA20_POLY1305);
	assert_int_equal(le(image + 52, 4), 4096);
	assert_int_equal(le(image + 64, 4), 1);
	assert_int_equal(le(image + 72, 8), 1);
	assert_memory_equal(image + 80, zero, SLOTS - 80);
	assert_memory_equal(image + SLOTS + 208, zero, MASTERS - SLOTS - 208);
	assert_memory_equal(image + MASTERS + 88, zero, MAC - MASTERS - 88);
	decode_root(image, root);
	derive(root, 3, "mac", key);
	(void)crypto_generichash(sum, 32, image, MAC, key, 32);
	assert_memory_equal(image + MAC, sum, 32);
	(void)crypto_generichash(sum, 32, image, CHECKSUM, NULL, 0);
	assert_memory_equal(image + CHECKSUM, sum, 32);
	derive(root, 3, "master", key);
	memcpy(aad, image + 32, 16);
	memcpy(aad + 16, image + MASTERS, 16);
	assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(master, NULL, NULL, image + MASTERS + 40, 48, aad,
	                                                            32, image + MASTERS + 16, key),
	                 0);
	(void)crypto_generichash_blake2b_salt_personal(expected, 32, message, sizeof(message), master, 32, NULL,
	                                               person);
	assert_int_equal(try_unlock(PASS, subkey), 0);
	assert_memory_equal(subkey, expected, 32);
}

/* The worked example of docs/FORMAT.md, made once and for all: what was written then opens now. */
static const struct {
	size_t at;
	const char *hex;
} example[] = {
    {0, "617066732d73620a010000000020000000000000000000000000000000000000"},
    {32, "9d6df8b30de44d2e8a3399b685066d8a0100000000100000de4a056b00000000"},
    {64, "01000000000000000100000000000000"},
    {512, "010000000100000001000000000000000000800000000000ae930d5e55b65e61"},
    {544, "37c0b1ce49f58eb63d0e2dfd0e34851ac0d3d3a1caa8cfe05a1c021c34686f31"},
    {576, "11ad89c769de4bfd000000000000000000000000000000000000000000000000"},
    {608, "0000000000000000000000000000000000000000000000000000000000000000"},
    {640, "00000000000000002e421f549762aea39e5b4dad29a4bfdabcc7f0e09eb9f3ee"},
    {672, "2d86dd58ff2075abedec4524b649ad2a207aa32b9e130f2743ede6ef3d9f700b"},
    {704, "88a09f2e80e2a93b2f31f85b165c8b9a"},
    {4608, "0100000000000000de4a056b0000000008a233b39891005612e12060ca96e94d"},
    {4640, "43d4c70512e209a63a1a1e9058c3d2d6ef6e91892517bd63d6e95d80325a7e34"},
    {4672, "47ea7cc68020c0ae6410dc9fc7e3699a4107acf49ac38243"},
    {8128, "9e161ad133c600a64337a86dae06a372b42c3ead16507b4794a17f4eef87a8c8"},
    {8160, "15e0ebd7d1b24e1808cb2f0938200a9a8c7ac58727ed0d8ccc254457a9c3548e"},
};

static void test_example(void **state)
{
	uint8_t image[SIZE] = {0}, root[32], expected[32], subkey[KEYS_LEN];

	(void)state;
	for (size_t i = 0; i < sizeof(example) / sizeof(example[0]); i++)
		assert_int_equal(
		    sodium_hex2bin(image + example[i].at, 32, example[i].hex, strlen(example[i].hex), NULL, NULL, NULL),
		    0);
	store_both(image, SIZE);
	assert_int_equal(try_unlock("example", subkey), 0);
	assert_int_equal(sodium_hex2bin(expected, 32,
	                                "42536d23db5a528afd6734a43f057b9b54ec080d99b0a666fc07135c373e5fc2", 64, NULL,
	                                NULL, NULL),
	                 0);
	assert_memory_equal(subkey, expected, 32);
	assert_int_equal(try_unlock(PASS, root), -EKEYREJECTED);
}

static void test_passwd(void **state)
{
	uint8_t before[SIZE], after[SIZE], bak[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	struct superblock *sb;
	struct keyring *k;
	struct err e;

	(void)state;
	create(before);
	assert_int_equal(try_unlock(PASS, a), 0);
	assert_int_equal(try_open(&sb), 0);
	err_reset(&e);
	assert_int_equal(superblock_passwd(io, sb, "wrong", 5, NEXT, NEXT_LEN, cheap, &e), -EKEYREJECTED);
	err_reset(&e);
	assert_int_equal(superblock_passwd(io, sb, PASS, PASS_LEN, "", 0, cheap, &e), -EINVAL);
	load("superblock", after);
	assert_memory_equal(before, after, SIZE);
	assert_int_equal(superblock_passwd(io, sb, PASS, PASS_LEN, NEXT, NEXT_LEN, cheap, NULL), 0);
	/* the object at hand follows, and so do both copies */
	assert_int_equal(superblock_unlock(sb, PASS, PASS_LEN, &k, NULL), -EKEYREJECTED);
	assert_int_equal(superblock_unlock(sb, NEXT, NEXT_LEN, &k, NULL), 0);
	keyring_free(k);
	superblock_free(sb);
	load("superblock", after);
	load("superblock.bak", bak);
	assert_memory_equal(after, bak, SIZE);
	assert_int_equal(le(after + 72, 8), 2);
	assert_memory_not_equal(after + SLOTS + 24, before + SLOTS + 24, 16); /* a fresh salt */
	assert_memory_equal(after + MASTERS, before + MASTERS, MAC - MASTERS);
	assert_int_equal(try_unlock(PASS, b), -EKEYREJECTED);
	assert_int_equal(try_unlock(NEXT, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	/* cut between the two writes: .bak is new, the first copy old, and both passphrases lead in */
	store("superblock", before, SIZE);
	assert_int_equal(try_unlock(PASS, b), 0);
	assert_int_equal(try_unlock(NEXT, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	/* the next change ends that */
	assert_int_equal(try_open(&sb), 0);
	assert_int_equal(superblock_passwd(io, sb, NEXT, NEXT_LEN, "third", 5, cheap, NULL), 0);
	superblock_free(sb);
	assert_int_equal(try_unlock(PASS, b), -EKEYREJECTED);
	assert_int_equal(try_unlock(NEXT, b), -EKEYREJECTED);
	assert_int_equal(try_unlock("third", b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
}

static void test_two_slots(void **state)
{
	uint8_t image[SIZE], root[32], a[KEYS_LEN], b[KEYS_LEN];
	struct superblock *sb;

	(void)state;
	create(image);
	decode_root(image, root);
	assert_int_equal(slot_seal(image + SLOTS + (size_t)5 * 256, (struct slot_place){image + 32, 5}, cheap, NEXT,
	                           NEXT_LEN, root, NULL),
	                 0);
	image[SLOTS + 9 * 256] = 77; /* of a type that is still to come: passed over, and kept */
	image[SLOTS + 9 * 256 + 200] = 78;
	fix_mac(image, root);
	store_both(image, SIZE);
	assert_int_equal(try_unlock(PASS, a), 0);
	assert_int_equal(try_unlock(NEXT, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	assert_int_equal(try_unlock("neither", b), -EKEYREJECTED);
	assert_int_equal(try_open(&sb), 0);
	assert_int_equal(superblock_info(sb)->slots, 3);
	assert_int_equal(superblock_info(sb)->slot[1].number, 5);
	assert_int_equal(superblock_info(sb)->slot[2].type, 77);
	assert_int_equal(superblock_passwd(io, sb, NEXT, NEXT_LEN, "third", 5, cheap, NULL), 0);
	superblock_free(sb);
	assert_int_equal(try_unlock(PASS, b), 0);
	assert_int_equal(try_unlock("third", b), 0);
	assert_int_equal(try_unlock(NEXT, b), -EKEYREJECTED);
	load("superblock", image);
	assert_int_equal(image[SLOTS + 9 * 256 + 200], 78);
	/* a record moved to another slot does not open there */
	memcpy(image + SLOTS + 256, image + SLOTS, 256);
	memset(image + SLOTS, 0, 256);
	fix_mac(image, root);
	store_both(image, SIZE);
	assert_int_equal(try_unlock(PASS, b), -EKEYREJECTED);
}

static void assert_same_info(const struct superblock_info *a, const struct superblock_info *b)
{
	assert_memory_equal(a, b, sizeof(*a));
}

/* Damage, as a disk does it: every byte of the first copy, and of both. */
static void test_damage(void **state)
{
	uint8_t image[SIZE], bad[SIZE];
	struct superblock_info good;
	struct superblock *sb;

	(void)state;
	create(image);
	assert_int_equal(try_open(&sb), 0);
	good = *superblock_info(sb);
	superblock_free(sb);
	for (size_t i = 0; i < SIZE; i++) {
		memcpy(bad, image, SIZE);
		bad[i] ^= (uint8_t)(1u << i % 8);
		store("superblock", bad, SIZE);
		assert_int_equal(try_open(&sb), 0); /* from .bak */
		assert_same_info(superblock_info(sb), &good);
		superblock_free(sb);
		if (i % 16 == 0) {
			store("superblock.bak", bad, SIZE);
			assert_int_equal(try_open(&sb), -EBADMSG);
			store("superblock.bak", image, SIZE);
		}
	}
	store("superblock", image, SIZE);
	for (size_t len = 0; len <= SIZE; len += len < 128 ? 1 : 61) { /* truncated */
		store("superblock", image, len);
		assert_int_equal(try_open(&sb), 0);
		superblock_free(sb);
		store("superblock.bak", image, len);
		assert_int_equal(try_open(&sb), -EBADMSG);
		store("superblock.bak", image, SIZE);
	}
	assert_int_equal(io_unlink(io, "superblock"), 0);
	assert_int_equal(try_open(&sb), 0);
	superblock_free(sb);
}

/* The bytes that an attacker's flips are tried on: all that mean something, every third in turn, and a few others. */
static bool flip_here(size_t i)
{
	if (i >= CHECKSUM)
		return false; /* made right afterwards */
	if (i < 80 || i >= MAC || (i >= SLOTS && i < SLOTS + 208) || (i >= MASTERS && i < MASTERS + 88))
		return i % 3 == 0 || i < 80;
	return i % 397 == 0;
}

/* Tampering, with the checksum made right again: whatever is changed is refused, or the untouched sibling serves. */
static void test_tampering(void **state)
{
	uint8_t image[SIZE], bad[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	int ret;

	(void)state;
	create(image);
	assert_int_equal(try_unlock(PASS, a), 0);
	for (size_t i = 0; i < SIZE; i++) {
		if (!flip_here(i))
			continue;
		memcpy(bad, image, SIZE);
		bad[i] ^= (uint8_t)(1u << i % 8);
		fix_checksum(bad, SIZE);
		store("superblock", bad, SIZE);
		store("superblock.bak", image, SIZE);
		ret = try_unlock(PASS, b);
		/* a newer format is believed at once */
		assert_true(ret == 0 || ret == -EPROTONOSUPPORT);
		if (!ret)
			assert_memory_equal(a, b, KEYS_LEN);
		store("superblock.bak", bad, SIZE);
		ret = try_unlock(PASS, b);
		assert_true(ret == -EBADMSG || ret == -EKEYREJECTED || ret == -EPROTONOSUPPORT);
	}
}

/* A record that its passphrase opens but whose commitment is another key's is refused. */
static void test_commitment(void **state)
{
	uint8_t image[SIZE], root[32], key[32], wrap[32], aad[20 + SLOT_AAD], *slot = image + SLOTS;

	(void)state;
	create(image);
	decode_root(image, root);
	slot_key(slot, key);
	derive(key, 64, "", wrap);
	for (unsigned round = 0; round < 2; round++) {
		slot[40] ^= (uint8_t)round; /* round 0 shows that the forgery is otherwise right */
		slot_aad(image, 0, aad);
		(void)crypto_aead_xchacha20poly1305_ietf_encrypt(slot + 160, NULL, root, 32, aad, sizeof(aad), NULL,
		                                                 slot + 136, wrap);
		fix_mac(image, root);
		store_both(image, SIZE);
		assert_int_equal(try_unlock(PASS, key), round ? -EKEYREJECTED : 0);
	}
}

static void put(uint8_t *p, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static void test_versions(void **state)
{
	static uint8_t longer[20000];
	uint8_t image[SIZE], good[SIZE], root[32], subkey[KEYS_LEN];
	struct superblock *sb;

	(void)state;
	create(good);
	decode_root(good, root);
	memcpy(image, good, SIZE);
	image[8] = 2;
	fix_checksum(image, SIZE);
	store("superblock", image, SIZE);
	assert_int_equal(try_open(&sb), -EPROTONOSUPPORT); /* although .bak could be read */
	memcpy(longer, image, SIZE);
	fix_checksum(longer, sizeof(longer));
	store_both(longer, sizeof(longer));
	assert_int_equal(try_open(&sb), -EPROTONOSUPPORT);
	longer[8] = 1; /* ours, but not of our length */
	fix_checksum(longer, sizeof(longer));
	store_both(longer, sizeof(longer));
	assert_int_equal(try_open(&sb), -EBADMSG);
	memcpy(image, good, SIZE);
	image[23] = 0x80; /* a required feature */
	fix_mac(image, root);
	store_both(image, SIZE);
	assert_int_equal(try_open(&sb), -EPROTONOSUPPORT);
	memcpy(image, good, SIZE);
	image[31] = 0x80;  /* a compatible one */
	image[300] = 0x80; /* with a field of its own */
	fix_mac(image, root);
	store_both(image, SIZE);
	assert_int_equal(try_unlock(PASS, subkey), 0);
	memcpy(image, good, SIZE);
	put(image + 48, 4, 4); /* a suite to come */
	fix_mac(image, root);
	store_both(image, SIZE);
	assert_int_equal(try_open(&sb), -EPROTONOSUPPORT);
}

/* What no honest writer leaves, with MAC and checksum right: refused without a crash, an allocation or a wait. */
static void test_hostile(void **state)
{
	static const struct {
		size_t at;
		uint64_t value;
		size_t len;
		int ret;
	} table[] = {
	    {12, 0, 4, -EBADMSG},
	    {12, UINT32_MAX, 4, -EBADMSG},
	    {52, 0, 4, -EBADMSG},
	    {52, 4097, 4, -EBADMSG},
	    {52, UINT32_MAX, 4, -EBADMSG},
	    {52, 1u << 31, 4, -EBADMSG},
	    {64, 2, 4, -EBADMSG},             /* no such epoch */
	    {64, 0, 4, -EBADMSG},             /* the epoch that is none */
	    {MASTERS, 0, 4, -EBADMSG},        /* no epoch at all */
	    {MASTERS + 96, 1, 4, -EBADMSG},   /* an epoch twice */
	    {SLOTS + 4, 2, 4, -EKEYREJECTED}, /* another way to derive */
	    {SLOTS + 8, 0, 4, -EKEYREJECTED}, /* passes */
	    {SLOTS + 8, UINT32_MAX, 4, -EKEYREJECTED},
	    {SLOTS + 16, 0, 8, -EKEYREJECTED}, /* memory */
	    {SLOTS + 16, UINT64_MAX, 8, -EKEYREJECTED},
	    {SLOTS + 16, (uint64_t)1 << 40, 8, -EKEYREJECTED},
	    {SLOTS, 0, 4, -EKEYREJECTED}, /* no slot */
	};
	uint8_t good[SIZE], image[SIZE], root[32], subkey[KEYS_LEN];

	(void)state;
	create(good);
	decode_root(good, root);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		memcpy(image, good, SIZE);
		put(image + table[i].at, table[i].value, table[i].len);
		fix_mac(image, root);
		store_both(image, SIZE);
		assert_int_equal(try_unlock(PASS, subkey), table[i].ret);
	}
}

/* A cost beyond what can be had is said to be that, not a wrong passphrase. Sanitizers map too much for a limit. */
static void test_no_memory(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	(void)state;
	skip();
#else
	struct rlimit was, low = {(rlim_t)1 << 30, (rlim_t)1 << 30};
	uint8_t image[SIZE], root[32], subkey[KEYS_LEN];
	struct superblock *sb;
	struct err e;

	(void)state;
	create(image);
	decode_root(image, root);
	put(image + SLOTS + 16, (uint64_t)2 << 30, 8);
	fix_mac(image, root);
	store_both(image, SIZE);
	assert_int_equal(getrlimit(RLIMIT_AS, &was), 0);
	low.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_AS, &low), 0);
	assert_int_equal(try_unlock(PASS, subkey), -ENOMEM);
	assert_int_equal(try_open(&sb), 0);
	err_reset(&e);
	assert_int_equal(superblock_passwd(io, sb, PASS, PASS_LEN, NEXT, NEXT_LEN, cheap, &e), -ENOMEM);
	assert_non_null(strstr(e.text, "2048 MiB"));
	superblock_free(sb);
	assert_int_equal(setrlimit(RLIMIT_AS, &was), 0);
#endif
}

/* The one operation that fails: the rename to this path. */
static const struct io_ops *real_ops;
static const char *fail_path;

static int failing_rename(struct io *i, const char *from, const char *to)
{
	return fail_path && !strcmp(to, fail_path) ? -ENOSPC : real_ops->rename(i, from, to);
}

static void test_write_fails(void **state)
{
	static const char *const paths[] = {"superblock.bak", "superblock"};
	struct io_ops failing = *io->ops;
	uint8_t image[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	struct superblock *sb;

	(void)state;
	failing.rename = failing_rename;
	real_ops = io->ops;
	for (size_t i = 0; i < 2; i++) {
		remove_both();
		io->ops = &failing;
		fail_path = paths[i];
		assert_int_equal(superblock_create(io, CIPHER_AUTO, 4096, cheap, PASS, PASS_LEN, NULL), -ENOSPC);
		assert_int_equal(try_open(&sb), -ENOENT); /* nothing is in the way of another try */
		fail_path = NULL;
		create(image);
		assert_int_equal(try_unlock(PASS, a), 0);
		fail_path = paths[i];
		assert_int_equal(try_open(&sb), 0);
		assert_int_equal(superblock_passwd(io, sb, PASS, PASS_LEN, NEXT, NEXT_LEN, cheap, NULL), -ENOSPC);
		superblock_free(sb);
		io->ops = real_ops;
		assert_int_equal(try_unlock(PASS, b), 0); /* the old one goes on */
		assert_memory_equal(a, b, KEYS_LEN);
	}
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/apfs-test-superblock-XXXXXX");
	if (!mkdtemp(dir) || keys_init(NULL) || io_posix_new(dir, &io, NULL))
		return -1;
	return log_init(LOG_T_FILE, "/dev/null", LOG_L_WARN);
}

static int tear_down(void **state)
{
	(void)state;
	io_free(io);
	log_release();
	return nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_create),       cmocka_unit_test(test_create_refuses),
	    cmocka_unit_test(test_default_cost), cmocka_unit_test(test_format),
	    cmocka_unit_test(test_example),      cmocka_unit_test(test_passwd),
	    cmocka_unit_test(test_two_slots),    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_tampering),    cmocka_unit_test(test_commitment),
	    cmocka_unit_test(test_versions),     cmocka_unit_test(test_hostile),
	    cmocka_unit_test(test_no_memory),    cmocka_unit_test(test_write_fails),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
