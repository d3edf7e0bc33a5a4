/* Key slots: what opens which, how they are changed, and what a tamperer can do with them. */
#include "pipeline/slot.h"
#include "tests/pipeline/superblock_rig.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static uint8_t file_bytes[SECRET_KEY_FILE_MAX + 1], recovery_bytes[SUPERBLOCK_SLOTS + 1][KEYS_LEN];

static const struct secret pass = {SECRET_PASSPHRASE, PASS, PASS_LEN}, next = {SECRET_PASSPHRASE, NEXT, NEXT_LEN},
			   keyfile = {SECRET_KEY_FILE, file_bytes, 1000};

static struct secret recovery(unsigned n)
{
	return (struct secret){SECRET_RECOVERY, recovery_bytes[n], KEYS_LEN};
}

/* How often Argon2id ran: the linker sends the pipeline's calls here. */
static unsigned hashed;

int __real_crypto_pwhash(unsigned char *out, unsigned long long outlen, const char *passwd, unsigned long long len,
                         const unsigned char *salt, unsigned long long ops, size_t mem, int alg);
int __wrap_crypto_pwhash(unsigned char *out, unsigned long long outlen, const char *passwd, unsigned long long len,
                         const unsigned char *salt, unsigned long long ops, size_t mem, int alg);

int __wrap_crypto_pwhash(unsigned char *out, unsigned long long outlen, const char *passwd, unsigned long long len,
                         const unsigned char *salt, unsigned long long ops, size_t mem, int alg)
{
	hashed++;
	return __real_crypto_pwhash(out, outlen, passwd, len, salt, ops, mem, alg);
}

/* --- changes, each with the store opened anew ----------------------------------------------------------------------
 */

struct opened {
	struct superblock *sb;
	struct keyring *k;
};

static int open_with(struct opened *o, const struct secret *with)
{
	*o = (struct opened){0};
	int ret = sbrig_open(&o->sb);
	return ret ? ret : superblock_unlock(o->sb, with, &o->k, NULL);
}

static void opened_release(struct opened *o)
{
	keyring_free(o->k);
	superblock_free(o->sb);
}

static int add_to(struct opened *o, const struct secret *fresh, const char *label, unsigned *number)
{
	const struct superblock_slot slot = {.secret = fresh, .kdf = sbrig_cheap, .label = label};
	struct err e = {0};
	int ret = superblock_slot_add(sbrig_io, o->sb, o->k, &slot, number, &e);

	assert_int_equal(e.code, ret);
	return ret;
}

static int add(const struct secret *with, const struct secret *fresh, const char *label, unsigned *number)
{
	struct opened o;
	int ret = open_with(&o, with);

	if (!ret)
		ret = add_to(&o, fresh, label, number);
	opened_release(&o);
	return ret;
}

static int remove_slot(const struct secret *with, unsigned number)
{
	struct opened o;
	int ret = open_with(&o, with);

	if (!ret)
		ret = superblock_slot_remove(sbrig_io, o.sb, o.k, number, NULL);
	opened_release(&o);
	return ret;
}

static int change(const struct secret *with, const struct secret *fresh, const char *label)
{
	struct opened o;
	int ret = open_with(&o, with);

	if (!ret)
		ret = superblock_slot_change(sbrig_io, o.sb, o.k,
		                             &(struct superblock_slot){.secret = fresh, .label = label}, NULL);
	opened_release(&o);
	return ret;
}

static int opens(const struct secret *with, unsigned *number)
{
	struct opened o;
	int ret = open_with(&o, with);

	if (!ret)
		*number = superblock_unlocked(o.sb);
	opened_release(&o);
	return ret;
}

static void assert_same_copies(uint64_t generation)
{
	uint8_t image[SIZE], bak[SIZE];

	sbrig_load("superblock", image);
	sbrig_load("superblock.bak", bak);
	assert_memory_equal(image, bak, SIZE);
	assert_int_equal(sbrig_get(image + 72, 8), generation);
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

/* Each type opens its slot and gives the same keys; a secret is tried on slots of its type only. */
static void test_types(void **state)
{
	const struct secret r = recovery(0), wrong_r = recovery(1);
	const struct secret bad[] = {{SECRET_PASSPHRASE, file_bytes, 1000},
	                             {SECRET_KEY_FILE, file_bytes, 999},
	                             {SECRET_KEY_FILE, recovery_bytes[0], KEYS_LEN},
	                             {SECRET_PASSPHRASE, recovery_bytes[0], KEYS_LEN},
	                             wrong_r};
	uint8_t image[SIZE], a[KEYS_LEN], b[KEYS_LEN];
	unsigned number = 99;

	(void)state;
	sbrig_create(image);
	assert_int_equal(sbrig_unlock(PASS, a), 0);
	assert_int_equal(add(&pass, &keyfile, NULL, &number), 0);
	assert_int_equal(number, 1);
	assert_same_copies(2);
	assert_int_equal(add(&keyfile, &r, NULL, &number), 0);
	assert_int_equal(number, 2);
	assert_same_copies(3);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(opens(&bad[i], &number), -EKEYREJECTED);
	assert_int_equal(sbrig_unlock_secret(&pass, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	assert_int_equal(sbrig_unlock_secret(&keyfile, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
	assert_int_equal(sbrig_unlock_secret(&r, b), 0);
	assert_memory_equal(a, b, KEYS_LEN);
}

/* The slot of a recovery key is what docs/FORMAT.md says. */
static void test_recovery_format(void **state)
{
	const struct secret r = recovery(0);
	uint8_t image[SIZE], root[32], found[32], key[32], message[28] = {66, [8] = 16};
	uint8_t *slot = image + SLOTS + 256;
	static const uint8_t person[16] = "apfs-subkey", zero[64];
	unsigned number;

	(void)state;
	sbrig_create(image);
	sbrig_decode_root(image, root);
	assert_int_equal(add(&pass, &r, "on paper", &number), 0);
	sbrig_load("superblock", image);
	assert_int_equal(sbrig_get(slot, 4), 3);
	assert_int_equal(sbrig_get(slot + 4, 4), 2);
	assert_memory_equal(slot + 8, zero, 16);
	assert_memory_equal(slot + 72, "on paper", 8);
	assert_memory_equal(slot + 80, zero, 56);
	memcpy(message + 12, slot + 24, 16);
	assert_int_equal(
	    crypto_generichash_blake2b_salt_personal(key, 32, message, 28, recovery_bytes[0], 32, NULL, person), 0);
	sbrig_open_slot(image, 1, key, found);
	assert_memory_equal(found, root, 32);
}

static void test_sixteen(void **state)
{
	uint8_t image[SIZE];
	struct opened o;
	unsigned number;

	(void)state;
	sbrig_create(image);
	for (unsigned i = 1; i < SUPERBLOCK_SLOTS; i++) {
		const struct secret r = recovery(i);

		assert_int_equal(add(&pass, &r, NULL, &number), 0);
		assert_int_equal(number, i);
	}
	const struct secret r2 = recovery(2), r16 = recovery(16), r9 = recovery(9);
	assert_int_equal(add(&pass, &r16, NULL, &number), -EXFULL);
	assert_same_copies(16);
	for (unsigned i = 1; i < SUPERBLOCK_SLOTS; i++) {
		const struct secret r = recovery(i);

		assert_int_equal(opens(&r, &number), 0);
		assert_int_equal(number, i);
	}
	assert_int_equal(remove_slot(&r2, 2), -EPERM);
	assert_int_equal(remove_slot(&r2, 16), -ENXIO);
	assert_int_equal(remove_slot(&r2, 9), 0);
	assert_int_equal(remove_slot(&r2, 9), -ENXIO);
	assert_int_equal(opens(&r9, &number), -EKEYREJECTED);
	assert_int_equal(add(&r2, &r16, NULL, &number), 0);
	assert_int_equal(number, 9);
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++)
		assert_int_equal(remove_slot(&r2, i), i == 2 ? -EPERM : 0);
	assert_int_equal(open_with(&o, &r2), 0);
	assert_int_equal(superblock_info(o.sb)->slots, 1);
	struct err e = {0};
	assert_int_equal(superblock_slot_remove(sbrig_io, o.sb, o.k, 2, &e), -EPERM);
	assert_non_null(strstr(e.text, "last"));
	opened_release(&o);
	assert_int_equal(opens(&pass, &number), -EKEYREJECTED);
	sbrig_load("superblock", image);
	for (size_t i = SLOTS; i < MASTERS; i++) /* nothing is left of what was removed */
		assert_true(image[i] == 0 || (i >= SLOTS + 512 && i < SLOTS + 768));
}

static void test_refused_secrets(void **state)
{
	const struct secret bad[] = {{SECRET_PASSPHRASE, "", 0},
	                             {SECRET_KEY_FILE, file_bytes, SECRET_KEY_FILE_MIN - 1},
	                             {SECRET_KEY_FILE, file_bytes, SECRET_KEY_FILE_MAX + 1},
	                             {SECRET_RECOVERY, file_bytes, KEYS_LEN - 1},
	                             {(enum secret_type)4, file_bytes, KEYS_LEN},
	                             {(enum secret_type)0, file_bytes, KEYS_LEN}};
	const struct secret least = {SECRET_KEY_FILE, file_bytes, SECRET_KEY_FILE_MIN},
			    most = {SECRET_KEY_FILE, file_bytes, SECRET_KEY_FILE_MAX};
	uint8_t image[SIZE];
	unsigned number;

	(void)state;
	sbrig_create(image);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(add(&pass, &bad[i], NULL, &number), -EINVAL);
	assert_int_equal(add(&pass, &keyfile, "two\nlines", &number), -EINVAL);
	assert_same_copies(1);
	assert_int_equal(add(&pass, &least, NULL, &number), 0);
	assert_int_equal(add(&least, &most, NULL, &number), 0);
	assert_int_equal(opens(&most, &number), 0);
	assert_int_equal(number, 2);
}

static void test_labels(void **state)
{
	static const char label[] = "sixty-three bytes of label, which is as many as there can be.\xC3\xBC";
	uint8_t image[SIZE];
	struct superblock *sb;
	unsigned number;

	(void)state;
	assert_int_equal(strlen(label), LABEL_MAX);
	sbrig_create(image);
	assert_int_equal(add(&pass, &next, label, &number), 0);
	assert_int_equal(sbrig_open(&sb), 0);
	assert_string_equal(superblock_info(sb)->slot[0].label, "");
	assert_string_equal(superblock_info(sb)->slot[1].label, label);
	superblock_free(sb);
	/* a change keeps it, unless there is a new one, and the cost too */
	const struct secret third = {SECRET_PASSPHRASE, "third", 5};
	assert_int_equal(change(&next, &third, NULL), 0);
	assert_int_equal(opens(&next, &number), -EKEYREJECTED);
	assert_int_equal(change(&third, &next, "other"), 0);
	assert_int_equal(sbrig_open(&sb), 0);
	assert_string_equal(superblock_info(sb)->slot[1].label, "other");
	assert_int_equal(superblock_info(sb)->slot[1].kdf.mem, sbrig_cheap.mem);
	assert_int_equal(superblock_info(sb)->slot[1].kdf.ops, sbrig_cheap.ops);
	superblock_free(sb);
	/* without its zero at the end */
	sbrig_load("superblock", image);
	memset(image + SLOTS + 72, 'x', 64);
	sbrig_fix_checksum(image, SIZE);
	sbrig_store_both(image, SIZE);
	assert_int_equal(sbrig_open(&sb), 0);
	assert_int_equal(strlen(superblock_info(sb)->slot[0].label), LABEL_MAX);
	superblock_free(sb);
}

/* A wrong secret is tried on every slot of its type, and what is said does not tell how far it came. */
static void test_wrong_secret(void **state)
{
	const struct secret wrong = {SECRET_PASSPHRASE, "wrong", 5}, wrong_file = {SECRET_KEY_FILE, file_bytes, 32};
	uint8_t image[SIZE], good[SIZE], root[32];
	struct err e[5] = {0};
	struct superblock *sb;
	struct keyring *k;
	unsigned number;

	(void)state;
	sbrig_create(image);
	sbrig_decode_root(image, root);
	for (unsigned i = 0; i < 3; i++) {
		const struct secret r = recovery(i);

		assert_int_equal(add(&pass, i % 2 ? &r : &next, NULL, &number), 0);
	}
	sbrig_load("superblock", good);
	for (unsigned i = 0; i < 5; i++) {
		memcpy(image, good, SIZE);
		if (i == 1)
			image[SLOTS + 160] ^= 1; /* the sealed root key */
		if (i == 2)
			image[SLOTS + 40] ^= 1; /* the commitment */
		if (i == 3)
			image[SLOTS + 3 * 256 + 30] ^= 1; /* the salt of another one */
		if (i == 4)
			memset(image + SLOTS, 0, 256);
		sbrig_fix_mac(image, root);
		sbrig_store_both(image, SIZE);
		assert_int_equal(sbrig_open(&sb), 0);
		hashed = 0;
		assert_int_equal(superblock_unlock(sb, &wrong, &k, &e[i]), -EKEYREJECTED);
		assert_int_equal(hashed, i == 4 ? 2 : 3);
		assert_string_equal(e[i].text, e[0].text);
		superblock_free(sb);
	}
	assert_int_equal(sbrig_open(&sb), 0);
	hashed = 0;
	assert_int_equal(superblock_unlock(sb, &wrong_file, &k, NULL), -EKEYREJECTED);
	assert_int_equal(hashed, 0);
	superblock_free(sb);
}

/* A slot whose cost is out of bounds is refused before anything is allocated for it; the others are tried. */
static void test_bounds(void **state)
{
	static const struct {
		size_t at;
		uint64_t value;
		size_t len;
	} table[] = {
	    {8, 0, 4},
	    {8, 65, 4},
	    {8, UINT32_MAX, 4},
	    {16, 0, 8},
	    {16, ((uint64_t)8 << 20) - 1024, 8},
	    {16, ((uint64_t)8 << 20) + 1, 8},
	    {16, ((uint64_t)4 << 30) + 1024, 8},
	    {16, UINT64_MAX, 8},
	    {4, 0, 4},
	    {4, 2, 4}, /* a passphrase without stretching */
	    {4, 3, 4},
	};
	uint8_t good[SIZE], image[SIZE], root[32];
	struct superblock *sb;
	unsigned number;

	(void)state;
	sbrig_create(good);
	sbrig_decode_root(good, root);
	assert_int_equal(add(&pass, &keyfile, NULL, &number), 0);
	sbrig_load("superblock", good);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		memcpy(image, good, SIZE);
		sbrig_put(image + SLOTS + table[i].at, table[i].value, table[i].len);
		sbrig_fix_mac(image, root);
		sbrig_store_both(image, SIZE);
		hashed = 0;
		assert_int_equal(opens(&pass, &number), -EKEYREJECTED);
		assert_int_equal(hashed, 0);
		assert_int_equal(opens(&keyfile, &number), 0);
		assert_int_equal(sbrig_open(&sb), 0); /* it is still listed */
		assert_int_equal(superblock_info(sb)->slots, 2);
		superblock_free(sb);
	}
}

/* Slots moved to another number, another store, another type or another label do not open. */
static void test_swapped(void **state)
{
	const struct secret r = recovery(0);
	uint8_t one[SIZE], two[SIZE], image[SIZE], root[32], *slot = image + SLOTS;
	unsigned number;

	(void)state;
	sbrig_create(two);
	sbrig_create(one);
	sbrig_decode_root(one, root);
	assert_int_equal(add(&pass, &r, "label", &number), 0);
	sbrig_load("superblock", one);
	for (unsigned i = 0; i < 5; i++) {
		memcpy(image, one, SIZE);
		if (i == 0) { /* the two change places */
			memcpy(slot, one + SLOTS + 256, 256);
			memcpy(slot + 256, one + SLOTS, 256);
		} else if (i == 1) { /* that of another store, of the same passphrase */
			memcpy(slot, two + SLOTS, 256);
			memset(slot + 256, 0, 256);
		} else if (i == 2) {
			slot[0] = slot[256] = 2; /* key files */
		} else if (i == 3) {
			slot[72] = slot[256 + 72] ^= 1;
		} else { /* the uuid */
			image[32] ^= 1;
		}
		sbrig_fix_mac(image, root);
		sbrig_store_both(image, SIZE);
		assert_int_equal(opens(&pass, &number), -EKEYREJECTED);
		assert_int_equal(opens(&r, &number), -EKEYREJECTED);
	}
	/* without the MAC's key the rest is as it was, and refused, where a slot is taken away or brought back */
	memcpy(image, one, SIZE);
	memset(slot + 256, 0, 256);
	sbrig_fix_checksum(image, SIZE);
	sbrig_store_both(image, SIZE);
	assert_int_equal(opens(&pass, &number), -EBADMSG);
}

/* Two processes that both had the superblock unlocked before either changed it. */
static void test_beside(void **state)
{
	const struct secret r0 = recovery(0), r1 = recovery(1), r2 = recovery(2);
	struct opened a, b;
	struct io_file *lock;
	uint8_t image[SIZE];
	unsigned number;

	(void)state;
	sbrig_create(image);
	assert_int_equal(add(&pass, &r0, NULL, &number), 0);
	assert_int_equal(open_with(&a, &pass), 0);
	assert_int_equal(open_with(&b, &r0), 0);
	assert_int_equal(add_to(&a, &r1, NULL, &number), 0);
	assert_int_equal(add_to(&b, &r2, NULL, &number), 0);
	assert_int_equal(number, 3);
	assert_same_copies(4);
	/* b sees neither that a has gone from slot 1 to another secret nor that its own slot is gone, until it asks */
	assert_int_equal(superblock_slot_remove(sbrig_io, a.sb, a.k, 2, NULL), 0);
	assert_int_equal(add_to(&a, &next, NULL, &number), 0);
	assert_int_equal(number, 2);
	assert_int_equal(superblock_slot_remove(sbrig_io, b.sb, b.k, 2, NULL), -ESTALE);
	assert_int_equal(superblock_slot_remove(sbrig_io, a.sb, a.k, 1, NULL), 0);
	assert_int_equal(add_to(&b, &r1, NULL, &number), -ESTALE);
	assert_int_equal(opens(&next, &number), 0);
	assert_int_equal(opens(&r2, &number), 0);
	assert_int_equal(opens(&r0, &number), -EKEYREJECTED);
	/* one at a time */
	assert_int_equal(io_open(sbrig_io, "superblock.lock", IO_WRITE | IO_LOCK, &lock), 0);
	assert_int_equal(add_to(&a, &r1, NULL, &number), -EBUSY);
	assert_int_equal(superblock_slot_remove(sbrig_io, a.sb, a.k, 3, NULL), -EBUSY);
	io_close(lock);
	assert_int_equal(add_to(&a, &r1, NULL, &number), 0);
	keyring_forget_root(a.k);
	assert_int_equal(add_to(&a, &r0, NULL, &number), -ENOKEY);
	opened_release(&a);
	opened_release(&b);
}

static int repair(const struct secret *with)
{
	struct opened o;
	int ret = open_with(&o, with);

	if (!ret)
		ret = superblock_repair(sbrig_io, o.sb, o.k, NULL);
	opened_release(&o);
	return ret;
}

/* The copy that is not the good one, in all the ways it can be. */
static void test_repair(void **state)
{
	static const char *const paths[] = {"superblock", "superblock.bak"};
	uint8_t first[SIZE], good[SIZE], bad[SIZE], other[SIZE], found[SIZE];
	const struct secret r = recovery(0);
	struct io_file *lock;
	unsigned number;

	(void)state;
	sbrig_create(other);
	assert_int_equal(change(&pass, &next, NULL), 0);
	sbrig_load("superblock", other);
	sbrig_create(first);
	assert_int_equal(add(&pass, &r, NULL, &number), 0);
	sbrig_load("superblock", good);
	for (unsigned copy = 0; copy < 2; copy++) {
		for (unsigned kind = 0; kind < 7; kind++) {
			size_t len = SIZE;

			sbrig_store_both(good, SIZE);
			memcpy(bad, kind == 4 ? other : kind == 5 ? first : good, SIZE);
			if (kind == 0)
				bad[700] ^= 1; /* damaged */
			if (kind == 1)
				len = 100; /* cut short */
			if (kind == 2)
				len = 0;
			if (kind == 3) { /* forged */
				bad[SLOTS + 512] ^= 1;
				sbrig_fix_checksum(bad, SIZE);
			} /* 4: of another store, 5: older, 6: gone */
			sbrig_store(paths[copy], bad, len);
			if (kind == 6)
				assert_int_equal(io_unlink(sbrig_io, paths[copy]), 0);
			if (kind == 0) { /* not while another process changes slots: it writes both */
				assert_int_equal(io_open(sbrig_io, "superblock.lock", IO_WRITE | IO_LOCK, &lock), 0);
				assert_int_equal(repair(&pass), 0);
				io_close(lock);
				sbrig_load(paths[copy], found);
				assert_memory_equal(found, bad, SIZE);
			}
			assert_int_equal(repair(&pass), 0);
			for (unsigned i = 0; i < 2; i++) {
				sbrig_load(paths[i], found);
				assert_memory_equal(found, good, SIZE);
			}
		}
	}
	/* an older first copy whose secret the newer one has not any more: whoever opened it is not locked out */
	sbrig_store("superblock", first, SIZE);
	assert_int_equal(repair(&r), 0);
	assert_int_equal(remove_slot(&r, 0), 0);
	sbrig_store("superblock", first, SIZE);
	assert_int_equal(repair(&pass), 0);
	sbrig_load("superblock.bak", found);
	assert_memory_equal(found, first, SIZE);
	/* a copy of a newer format is not ours to touch */
	memcpy(bad, first, SIZE);
	bad[8] = 2;
	sbrig_fix_checksum(bad, SIZE);
	sbrig_store("superblock.bak", bad, SIZE);
	assert_int_equal(repair(&pass), 0);
	sbrig_load("superblock.bak", found);
	assert_memory_equal(found, bad, SIZE);
}

/* Nor is a copy of a newer format, when slots change. */
static void test_newer_sibling(void **state)
{
	uint8_t image[SIZE], newer[SIZE], found[SIZE];
	unsigned number;

	(void)state;
	sbrig_create(image);
	memcpy(newer, image, SIZE);
	newer[8] = 2;
	sbrig_fix_checksum(newer, SIZE);
	sbrig_store("superblock.bak", newer, SIZE);
	assert_int_equal(opens(&pass, &number), 0);
	assert_int_equal(add(&pass, &next, NULL, &number), -EPROTONOSUPPORT);
	assert_int_equal(change(&pass, &next, NULL), -EPROTONOSUPPORT);
	assert_int_equal(remove_slot(&pass, 1), -EPROTONOSUPPORT);
	sbrig_load("superblock", found);
	assert_memory_equal(found, image, SIZE);
	sbrig_load("superblock.bak", found);
	assert_memory_equal(found, newer, SIZE);
}

/* The first copy of another store that the same passphrase opens: only a mount can tell which one is the right one. */
static void test_foreign(void **state)
{
	uint8_t one[SIZE], two[SIZE], found[SIZE];
	unsigned number;

	(void)state;
	sbrig_create(one);
	sbrig_create(two);
	for (unsigned i = 0; i < 2; i++) {
		sbrig_store("superblock", i ? one : two, SIZE);
		sbrig_store("superblock.bak", i ? two : one, SIZE);
		assert_int_equal(add(&pass, &next, NULL, &number), -EBADMSG);
		assert_int_equal(change(&pass, &next, NULL), -EBADMSG);
		assert_int_equal(remove_slot(&pass, 0), -EBADMSG);
		sbrig_load("superblock", found);
		assert_memory_equal(found, i ? one : two, SIZE);
		sbrig_load("superblock.bak", found);
		assert_memory_equal(found, i ? two : one, SIZE);
	}
	assert_int_equal(repair(&pass), 0);
	sbrig_load("superblock.bak", found);
	assert_memory_equal(found, one, SIZE);
}

static int set_up(void **state)
{
	int ret = sbrig_set_up(state);

	keys_random(file_bytes, sizeof(file_bytes));
	keys_random(recovery_bytes, sizeof(recovery_bytes));
	return ret;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_types),         cmocka_unit_test(test_recovery_format),
	    cmocka_unit_test(test_sixteen),       cmocka_unit_test(test_refused_secrets),
	    cmocka_unit_test(test_labels),        cmocka_unit_test(test_wrong_secret),
	    cmocka_unit_test(test_bounds),        cmocka_unit_test(test_swapped),
	    cmocka_unit_test(test_beside),        cmocka_unit_test(test_repair),
	    cmocka_unit_test(test_newer_sibling), cmocka_unit_test(test_foreign),
	};

	return cmocka_run_group_tests(tests, set_up, sbrig_tear_down);
}
