#include "tests/pipeline/superblock_rig.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

/* The image is what FORMAT.md says, down to the master key. */
static void test_format(void **state)
{
	uint8_t image[SIZE], root[32], key[32], aad[32], master[32], subkey[32], expected[32], sum[32];
	static const uint8_t person[16] = "apfs-subkey", zero[SIZE];
	uint8_t message[13] = {KEY_SEGMENT, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 'x'};

	(void)state;
	sbrig_create(image);
	assert_memory_equal(image, "apfs-sb\n\x01\0\0\0\0\x20\0\0", 16);
	assert_memory_equal(image + 16, zero, 16);
	assert_int_equal(sbrig_get(image + 48, 4), CIPHER_XCHACHA20_POLY1305);
	assert_int_equal(sbrig_get(image + 52, 4), 4096);
	assert_int_equal(sbrig_get(image + 64, 4), 1);
	assert_int_equal(sbrig_get(image + 68, 4), 1);
	assert_int_equal(sbrig_get(image + 72, 8), 1);
	assert_memory_equal(image + 80, zero, SLOTS - 80);
	assert_memory_equal(image + SLOTS + 208, zero, MASTERS - SLOTS - 208);
	assert_memory_equal(image + MASTERS + 88, zero, MAC - MASTERS - 88);
	sbrig_decode_root(image, root);
	sbrig_derive(root, 3, "mac", key);
	(void)crypto_generichash(sum, 32, image, MAC, key, 32);
	assert_memory_equal(image + MAC, sum, 32);
	(void)crypto_generichash(sum, 32, image, CHECKSUM, NULL, 0);
	assert_memory_equal(image + CHECKSUM, sum, 32);
	sbrig_derive(root, 3, "master", key);
	memcpy(aad, image + 32, 16);
	memcpy(aad + 16, image + MASTERS, 16);
	assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(master, NULL, NULL, image + MASTERS + 40, 48, aad,
	                                                            32, image + MASTERS + 16, key),
	                 0);
	(void)crypto_generichash_blake2b_salt_personal(expected, 32, message, sizeof(message), master, 32, NULL,
	                                               person);
	assert_int_equal(sbrig_unlock(PASS, subkey), 0);
	assert_memory_equal(subkey, expected, 32);
}

/* The worked example of docs/FORMAT.md, made once and for all: what was written then opens now. */
static const struct {
	size_t at;
	const char *hex;
} example[] = {
    {0, "617066732d73620a010000000020000000000000000000000000000000000000"},
    {32, "9d6df8b30de44d2e8a3399b685066d8a0100000000100000de4a056b00000000"},
    {64, "01000000010000000100000000000000"},
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
    {8128, "2d129a72ecbc7c7c197d20ae32ad00043dfebeae6d8311d36be5426e2aced3d4"},
    {8160, "9f98ef07cc23cf65fb018366b59e73ec441403cb071c67027f68aa66b91fd054"},
};

static void test_example(void **state)
{
	uint8_t image[SIZE] = {0}, root[32], expected[32], subkey[KEYS_LEN];

	(void)state;
	for (size_t i = 0; i < sizeof(example) / sizeof(example[0]); i++)
		assert_int_equal(
		    sodium_hex2bin(image + example[i].at, 32, example[i].hex, strlen(example[i].hex), NULL, NULL, NULL),
		    0);
	sbrig_store_both(image, SIZE);
	assert_int_equal(sbrig_unlock("example", subkey), 0);
	assert_int_equal(sodium_hex2bin(expected, 32,
	                                "42536d23db5a528afd6734a43f057b9b54ec080d99b0a666fc07135c373e5fc2", 64, NULL,
	                                NULL, NULL),
	                 0);
	assert_memory_equal(subkey, expected, 32);
	assert_int_equal(sbrig_unlock(PASS, root), -EKEYREJECTED);
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
	sbrig_create(image);
	assert_int_equal(sbrig_open(&sb), 0);
	good = *superblock_info(sb);
	superblock_free(sb);
	for (size_t i = 0; i < SIZE; i++) {
		memcpy(bad, image, SIZE);
		bad[i] ^= (uint8_t)(1u << i % 8);
		sbrig_store("superblock", bad, SIZE);
		assert_int_equal(sbrig_open(&sb), 0); /* from .bak */
		assert_same_info(superblock_info(sb), &good);
		superblock_free(sb);
		if (i % 16 == 0) {
			sbrig_store("superblock.bak", bad, SIZE);
			assert_int_equal(sbrig_open(&sb), -EBADMSG);
			sbrig_store("superblock.bak", image, SIZE);
		}
	}
	sbrig_store("superblock", image, SIZE);
	for (size_t len = 0; len <= SIZE; len += len < 128 ? 1 : 61) { /* truncated */
		sbrig_store("superblock", image, len);
		assert_int_equal(sbrig_open(&sb), 0);
		superblock_free(sb);
		sbrig_store("superblock.bak", image, len);
		assert_int_equal(sbrig_open(&sb), -EBADMSG);
		sbrig_store("superblock.bak", image, SIZE);
	}
	assert_int_equal(io_unlink(sbrig_io, "superblock"), 0);
	assert_int_equal(sbrig_open(&sb), 0);
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
	sbrig_create(image);
	assert_int_equal(sbrig_unlock(PASS, a), 0);
	for (size_t i = 0; i < SIZE; i++) {
		if (!flip_here(i))
			continue;
		memcpy(bad, image, SIZE);
		bad[i] ^= (uint8_t)(1u << i % 8);
		sbrig_fix_checksum(bad, SIZE);
		sbrig_store("superblock", bad, SIZE);
		sbrig_store("superblock.bak", image, SIZE);
		ret = sbrig_unlock(PASS, b);
		/* a newer format is believed at once */
		assert_true(ret == 0 || ret == -EPROTONOSUPPORT);
		if (!ret)
			assert_memory_equal(a, b, KEYS_LEN);
		sbrig_store("superblock.bak", bad, SIZE);
		ret = sbrig_unlock(PASS, b);
		assert_true(ret == -EBADMSG || ret == -EKEYREJECTED || ret == -EPROTONOSUPPORT);
	}
}

/* A record that its passphrase opens but whose commitment is another key's is refused. */
static void test_commitment(void **state)
{
	uint8_t image[SIZE], root[32], key[32], wrap[32], aad[20 + SLOT_AAD], *slot = image + SLOTS;

	(void)state;
	sbrig_create(image);
	sbrig_decode_root(image, root);
	sbrig_slot_key(slot, key);
	sbrig_derive(key, 64, "", wrap);
	for (unsigned round = 0; round < 2; round++) {
		slot[40] ^= (uint8_t)round; /* round 0 shows that the forgery is otherwise right */
		sbrig_slot_aad(image, 0, aad);
		(void)crypto_aead_xchacha20poly1305_ietf_encrypt(slot + 160, NULL, root, 32, aad, sizeof(aad), NULL,
		                                                 slot + 136, wrap);
		sbrig_fix_mac(image, root);
		sbrig_store_both(image, SIZE);
		assert_int_equal(sbrig_unlock(PASS, key), round ? -EKEYREJECTED : 0);
	}
}

static void test_versions(void **state)
{
	static uint8_t longer[20000];
	uint8_t image[SIZE], good[SIZE], root[32], subkey[KEYS_LEN];
	struct superblock *sb;

	(void)state;
	sbrig_create(good);
	sbrig_decode_root(good, root);
	memcpy(image, good, SIZE);
	image[8] = 2;
	sbrig_fix_checksum(image, SIZE);
	sbrig_store("superblock", image, SIZE);
	assert_int_equal(sbrig_open(&sb), -EPROTONOSUPPORT); /* although .bak could be read */
	memcpy(longer, image, SIZE);
	sbrig_fix_checksum(longer, sizeof(longer));
	sbrig_store_both(longer, sizeof(longer));
	assert_int_equal(sbrig_open(&sb), -EPROTONOSUPPORT);
	longer[8] = 1; /* ours, but not of our length */
	sbrig_fix_checksum(longer, sizeof(longer));
	sbrig_store_both(longer, sizeof(longer));
	assert_int_equal(sbrig_open(&sb), -EBADMSG);
	memcpy(image, good, SIZE);
	image[23] = 0x80; /* a required feature */
	sbrig_fix_mac(image, root);
	sbrig_store_both(image, SIZE);
	assert_int_equal(sbrig_open(&sb), -EPROTONOSUPPORT);
	memcpy(image, good, SIZE);
	image[31] = 0x80;  /* a compatible one */
	image[300] = 0x80; /* with a field of its own */
	sbrig_fix_mac(image, root);
	sbrig_store_both(image, SIZE);
	assert_int_equal(sbrig_unlock(PASS, subkey), 0);
	memcpy(image, good, SIZE);
	sbrig_put(image + 48, 4, 4); /* a suite to come */
	sbrig_fix_mac(image, root);
	sbrig_store_both(image, SIZE);
	assert_int_equal(sbrig_open(&sb), -EPROTONOSUPPORT);
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
	sbrig_create(good);
	sbrig_decode_root(good, root);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		memcpy(image, good, SIZE);
		sbrig_put(image + table[i].at, table[i].value, table[i].len);
		sbrig_fix_mac(image, root);
		sbrig_store_both(image, SIZE);
		assert_int_equal(sbrig_unlock(PASS, subkey), table[i].ret);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_format),    cmocka_unit_test(test_example),    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_tampering), cmocka_unit_test(test_commitment), cmocka_unit_test(test_versions),
	    cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, sbrig_set_up, sbrig_tear_down);
}
