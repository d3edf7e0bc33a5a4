/* What is not as FORMAT.md says: damaged, tampered with, of another version, impossible. */
#include "tests/pipeline/superblock_rig.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

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
	    cmocka_unit_test(test_damage),   cmocka_unit_test(test_tampering), cmocka_unit_test(test_commitment),
	    cmocka_unit_test(test_versions), cmocka_unit_test(test_hostile),
	};

	return cmocka_run_group_tests(tests, sbrig_set_up, sbrig_tear_down);
}
