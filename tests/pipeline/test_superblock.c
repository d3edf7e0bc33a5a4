#include "pipeline/slot.h"
#include "tests/pipeline/superblock_rig.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const struct secret pass = {SECRET_PASSPHRASE, PASS, PASS_LEN}, next = {SECRET_PASSPHRASE, NEXT, NEXT_LEN};

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

static void test_create(void **state)
{
	uint8_t image[SIZE], bak[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	const struct superblock_info *info;
	struct superblock *sb;
	struct err e;

	(void)state;
	assert_int_equal(sbrig_open(&sb), -ENOENT);
	sbrig_create(image);
	sbrig_load("superblock.bak", bak);
	assert_memory_equal(image, bak, SIZE);
	err_reset(&e);
	assert_int_equal(sbrig_make(CIPHER_AUTO, 4096, sbrig_cheap, PASS, PASS_LEN, &e), -EEXIST);
	assert_int_equal(sbrig_open(&sb), 0);
	info = superblock_info(sb);
	assert_int_equal(info->version, 1);
	assert_int_equal(info->features, 0);
	assert_int_equal(info->suite, CIPHER_XCHACHA20_POLY1305);
	assert_int_equal(info->page_size, 4096);
	assert_true(info->created > 1600000000);
	assert_int_equal(info->slots, 1);
	assert_int_equal(info->slot[0].number, 0);
	assert_int_equal(info->slot[0].type, 1);
	assert_int_equal(info->slot[0].kdf.ops, sbrig_cheap.ops);
	assert_int_equal(info->slot[0].kdf.mem, sbrig_cheap.mem);
	assert_memory_equal(info->uuid, image + 32, 16);
	superblock_free(sb);
	superblock_free(NULL);
	assert_int_equal(sbrig_unlock(PASS, a), 0);
	assert_int_equal(sbrig_unlock(PASS, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	assert_int_equal(sbrig_unlock("correct horsf", a), -EKEYREJECTED);
	assert_int_equal(sbrig_unlock_with(PASS, PASS_LEN - 1, a), -EKEYREJECTED);
	assert_int_equal(sbrig_unlock("", a), -EKEYREJECTED);
	sbrig_create(image);
	assert_memory_not_equal(image, bak, SIZE);
	assert_int_equal(sbrig_unlock(PASS, a), 0);
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
	sbrig_remove();
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		err_reset(&e);
		assert_int_equal(sbrig_make(table[i].suite, table[i].page, table[i].kdf, "abc", table[i].pass_len, &e),
		                 table[i].ret);
		assert_int_equal(e.code, table[i].ret);
	}
	assert_int_equal(sbrig_open(&sb), -ENOENT); /* nothing was written */
}

static void test_default_cost(void **state)
{
	struct superblock_kdf none = {0, 0};
	struct superblock *sb;
	uint8_t subkey[KEYS_LEN];

	(void)state;
	sbrig_remove();
	assert_int_equal(sbrig_make(CIPHER_AUTO, 8192, none, PASS, PASS_LEN, NULL), 0);
	assert_int_equal(sbrig_open(&sb), 0);
	assert_int_equal(superblock_info(sb)->slot[0].kdf.ops, 3);
	assert_int_equal(superblock_info(sb)->slot[0].kdf.mem, 256 << 20);
	assert_int_equal(superblock_info(sb)->page_size, 8192);
	assert_int_equal(superblock_info(sb)->suite, cipher_suite_choose(CIPHER_AUTO));
	superblock_free(sb);
	assert_int_equal(sbrig_unlock(PASS, subkey), 0);
}

static void test_passwd(void **state)
{
	uint8_t before[SIZE], after[SIZE], bak[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	struct superblock *sb;
	struct keyring *k;
	struct err e;

	(void)state;
	sbrig_create(before);
	assert_int_equal(sbrig_unlock(PASS, a), 0);
	assert_int_equal(sbrig_open(&sb), 0);
	err_reset(&e);
	assert_int_equal(sbrig_passwd(sb, "wrong", NEXT, &e), -EKEYREJECTED);
	err_reset(&e);
	assert_int_equal(sbrig_passwd(sb, PASS, "", &e), -EINVAL);
	sbrig_load("superblock", after);
	assert_memory_equal(before, after, SIZE);
	assert_int_equal(sbrig_passwd(sb, PASS, NEXT, NULL), 0);
	/* the object at hand follows, and so do both copies */
	assert_int_equal(superblock_unlock(sb, &pass, &k, NULL), -EKEYREJECTED);
	assert_int_equal(superblock_unlock(sb, &next, &k, NULL), 0);
	keyring_free(k);
	superblock_free(sb);
	sbrig_load("superblock", after);
	sbrig_load("superblock.bak", bak);
	assert_memory_equal(after, bak, SIZE);
	assert_int_equal(sbrig_get(after + 72, 8), 2);
	assert_memory_not_equal(after + SLOTS + 24, before + SLOTS + 24, 16); /* a fresh salt */
	assert_memory_equal(after + MASTERS, before + MASTERS, MAC - MASTERS);
	assert_int_equal(sbrig_unlock(PASS, b), -EKEYREJECTED);
	assert_int_equal(sbrig_unlock(NEXT, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	/* cut between the two writes: .bak is new, the first copy old, and both passphrases lead in */
	sbrig_store("superblock", before, SIZE);
	assert_int_equal(sbrig_unlock(PASS, b), 0);
	assert_int_equal(sbrig_unlock(NEXT, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	/* the next change ends that */
	assert_int_equal(sbrig_open(&sb), 0);
	assert_int_equal(sbrig_passwd(sb, NEXT, "third", NULL), 0);
	superblock_free(sb);
	assert_int_equal(sbrig_unlock(PASS, b), -EKEYREJECTED);
	assert_int_equal(sbrig_unlock(NEXT, b), -EKEYREJECTED);
	assert_int_equal(sbrig_unlock("third", b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
}

static void test_two_slots(void **state)
{
	uint8_t image[SIZE], root[32], a[KEYS_LEN], b[KEYS_LEN];
	struct superblock *sb;

	(void)state;
	sbrig_create(image);
	sbrig_decode_root(image, root);
	assert_int_equal(slot_seal(image + SLOTS + (size_t)5 * 256, (struct slot_place){image + 32, 5},
	                           &(struct superblock_slot){.secret = &next, .kdf = sbrig_cheap}, root, NULL),
	                 0);
	image[SLOTS + 9 * 256] = 77; /* of a type that is still to come: passed over, and kept */
	image[SLOTS + 9 * 256 + 200] = 78;
	sbrig_fix_mac(image, root);
	sbrig_store_both(image, SIZE);
	assert_int_equal(sbrig_unlock(PASS, a), 0);
	assert_int_equal(sbrig_unlock(NEXT, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	assert_int_equal(sbrig_unlock("neither", b), -EKEYREJECTED);
	assert_int_equal(sbrig_open(&sb), 0);
	assert_int_equal(superblock_info(sb)->slots, 3);
	assert_int_equal(superblock_info(sb)->slot[1].number, 5);
	assert_int_equal(superblock_info(sb)->slot[2].type, 77);
	assert_int_equal(sbrig_passwd(sb, NEXT, "third", NULL), 0);
	superblock_free(sb);
	assert_int_equal(sbrig_unlock(PASS, b), 0);
	assert_int_equal(sbrig_unlock("third", b), 0);
	assert_int_equal(sbrig_unlock(NEXT, b), -EKEYREJECTED);
	sbrig_load("superblock", image);
	assert_int_equal(image[SLOTS + 9 * 256 + 200], 78);
	/* a record moved to another slot does not open there */
	memcpy(image + SLOTS + 256, image + SLOTS, 256);
	memset(image + SLOTS, 0, 256);
	sbrig_fix_mac(image, root);
	sbrig_store_both(image, SIZE);
	assert_int_equal(sbrig_unlock(PASS, b), -EKEYREJECTED);
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
	sbrig_create(image);
	sbrig_decode_root(image, root);
	sbrig_put(image + SLOTS + 16, (uint64_t)2 << 30, 8);
	sbrig_fix_mac(image, root);
	sbrig_store_both(image, SIZE);
	assert_int_equal(getrlimit(RLIMIT_AS, &was), 0);
	low.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_AS, &low), 0);
	assert_int_equal(sbrig_unlock(PASS, subkey), -ENOMEM);
	assert_int_equal(sbrig_open(&sb), 0);
	err_reset(&e);
	assert_int_equal(sbrig_passwd(sb, PASS, NEXT, &e), -ENOMEM);
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
	struct io_ops failing = *sbrig_io->ops;
	uint8_t image[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	struct superblock *sb;

	(void)state;
	failing.rename = failing_rename;
	real_ops = sbrig_io->ops;
	for (size_t i = 0; i < 2; i++) {
		sbrig_remove();
		sbrig_io->ops = &failing;
		fail_path = paths[i];
		assert_int_equal(sbrig_make(CIPHER_AUTO, 4096, sbrig_cheap, PASS, PASS_LEN, NULL), -ENOSPC);
		assert_int_equal(sbrig_open(&sb), -ENOENT); /* nothing is in the way of another try */
		fail_path = NULL;
		sbrig_create(image);
		assert_int_equal(sbrig_unlock(PASS, a), 0);
		fail_path = paths[i];
		assert_int_equal(sbrig_open(&sb), 0);
		assert_int_equal(sbrig_passwd(sb, PASS, NEXT, NULL), -ENOSPC);
		superblock_free(sb);
		sbrig_io->ops = real_ops;
		assert_int_equal(sbrig_unlock(PASS, b), 0); /* the old one goes on */
		assert_memory_equal(a, b, KEYS_LEN);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_create),       cmocka_unit_test(test_create_refuses),
	    cmocka_unit_test(test_default_cost), cmocka_unit_test(test_passwd),
	    cmocka_unit_test(test_two_slots),    cmocka_unit_test(test_no_memory),
	    cmocka_unit_test(test_write_fails),  cmocka_unit_test(test_format),
	    cmocka_unit_test(test_example),
	};

	return cmocka_run_group_tests(tests, sbrig_set_up, sbrig_tear_down);
}
