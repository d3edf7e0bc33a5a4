#include "pipeline/keyring.h"
#include "pipeline/keys.h"
#include "pipeline/label.h"
#include "pipeline/recovery.h"

#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* The key is the bytes 0 to 31. Made with Python, as docs/FORMAT.md says:
 * blake2b(pack("<III", purpose, epoch, len(id)) + id, key=key, digest_size=32, person=b"apfs-subkey") */
static const struct {
	uint32_t purpose, epoch;
	const char *id;
	size_t id_len;
	const char *subkey;
} vectors[] = {
    {KEY_SEGMENT, 1, "@ABCDEFGHIJKLMNOPQRSTUVW", 24,
     "7acfa458031ac43999699875afddd7945d89b0b0d9428d05f6de4f65a3c32360"},
    {KEY_DATABASE, 1, "", 0, "95ff4fba789fcdba2a2eef13206e26939ae1e9ea3528b271bc411e66bb7f6a32"},
    {KEY_SUPERBLOCK, 0, "mac", 3, "e2f0b838f4dd5b3e8f74b91a5239da87a2a6b6e3fa65d8266a915888f3573925"},
    {KEY_SUPERBLOCK, 0, "master", 6, "9761a02019946ee969b9e308a162e8d94380d8e8164e47d91a9c4e9bc023442d"},
    {KEY_SLOT_WRAP, 0, "", 0, "9fa0d0c609defe0dd48d33f8cad25faf8995b3773796649cf6f702d1c76148a3"},
    {KEY_SLOT_COMMIT, 0, "", 0, "9beca782570c3f0eca823ed6fb2135f6226e6ee1393436633119c3f5d32f6197"},
    {KEY_SLOT_RECOVERY, 0, "0123456789abcdef", 16, "aaeb5079761740d639cb884787092e3d0213899e30694f4a840de971b6eb14cf"},
    {KEY_LOCAL_STATE, 7, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 64,
     "7583b1a2d70c5662f69285188e51f40630fe4b9aadaca7cfe13872cd327b75e4"},
};

static void test_vectors(void **state)
{
	uint8_t key[KEYS_LEN], out[KEYS_LEN], expected[KEYS_LEN];

	(void)state;
	for (uint8_t i = 0; i < KEYS_LEN; i++)
		key[i] = i;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		assert_int_equal(sodium_hex2bin(expected, KEYS_LEN, vectors[i].subkey, 64, NULL, NULL, NULL), 0);
		keys_derive(key, vectors[i].purpose, vectors[i].epoch, vectors[i].id, vectors[i].id_len, out);
		assert_memory_equal(out, expected, KEYS_LEN);
	}
}

static void test_keyring(void **state)
{
	struct keyring *k;
	uint8_t *master, out[KEYS_LEN], expected[KEYS_LEN], id[KEYS_ID_MAX + 1] = {0};

	(void)state;
	assert_int_equal(keyring_new(&k), 0);
	assert_int_equal(keyring_epoch(k), 0);
	assert_int_equal(keyring_subkey(k, 0, KEY_SUPERBLOCK, "mac", 3, out), -ENOKEY); /* the root key gives none */
	assert_int_equal(keyring_set_epoch(k, 1), -ENOKEY);
	assert_null(keyring_add(k, 0));
	for (uint32_t epoch = 1; epoch <= KEYRING_EPOCHS; epoch++) {
		master = keyring_add(k, epoch * 10);
		assert_non_null(master);
		memset(master, (int)epoch, KEYS_LEN);
		assert_null(keyring_add(k, epoch * 10));
	}
	assert_null(keyring_add(k, 5)); /* full */
	assert_int_equal(keyring_set_epoch(k, 20), 0);
	assert_int_equal(keyring_epoch(k), 20);
	assert_int_equal(keyring_subkey(k, 30, KEY_SEGMENT, "salt", 4, out), 0);
	memset(expected, 3, KEYS_LEN);
	keys_derive(expected, KEY_SEGMENT, 30, "salt", 4, expected);
	assert_memory_equal(out, expected, KEYS_LEN);
	assert_int_equal(keyring_subkey(k, 31, KEY_SEGMENT, "salt", 4, out), -ENOKEY);
	assert_int_equal(keyring_subkey(k, 30, KEY_SEGMENT, id, KEYS_ID_MAX, out), 0);
	assert_int_equal(keyring_subkey(k, 30, KEY_SEGMENT, id, KEYS_ID_MAX + 1, out), -EINVAL);
	assert_int_equal(keyring_subkey(k, 30, KEY_SEGMENT, NULL, 0, out), 0);
	keyring_free(k);
	keyring_free(NULL);
}

/* The example of docs/FORMAT.md, and as people write it. */
static void test_recovery(void **state)
{
	static const char *const same[] = {
	    "000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFR-M1PA",
	    "ooog40r40m30e209l85gr38elw8l24gk2gahc5rr34dlp70x3rfrmlpa",
	    "  000G 40R4 0M30 E209 I85G R38E IW8I 24GK 2GAH C5RR 34DI P70X 3RFR MIPA ",
	};
	static const char *const other[] = {"", "00", "000G-40R4\n", "000G/40R4"};
	char text[RECOVERY_TEXT_SIZE], again[RECOVERY_TEXT_SIZE];
	uint8_t key[KEYS_LEN], out[KEYS_LEN];
	unsigned found = 0;
	struct err e;

	(void)state;
	for (uint8_t i = 0; i < KEYS_LEN; i++)
		key[i] = i;
	recovery_encode(key, text);
	assert_string_equal(text, same[0]);
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		memset(out, 0xFF, sizeof(out));
		assert_int_equal(recovery_decode(same[i], strlen(same[i]), out, NULL), 0);
		assert_memory_equal(out, key, KEYS_LEN);
	}
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
		err_reset(&e);
		assert_int_equal(recovery_decode(other[i], strlen(other[i]), out, &e), -EINVAL);
		assert_int_equal(e.domain, ERR_KEY);
	}
	assert_int_equal(recovery_decode(text, strlen(text) - 1, out, NULL), -EINVAL);
	/* each character mistyped as each other one, and each two neighbours exchanged: 2^-24 are not noticed */
	for (size_t at = 0; text[at]; at++) {
		for (const char *c = "0123456789ABCDEFGHJKMNPQRSTVWXYZ!"; *c && text[at] != '-'; c++) {
			memcpy(again, text, sizeof(again));
			again[at] = *c;
			found += *c != text[at] && !recovery_decode(again, strlen(again), out, NULL);
		}
		memcpy(again, text, sizeof(again));
		again[at] = text[at + 1] ? text[at + 1] : again[at];
		again[at + 1] = text[at + 1] ? text[at] : 0;
		found += again[at] != text[at] && again[at] != '-' && text[at] != '-' &&
		         !recovery_decode(again, strlen(again), out, NULL);
	}
	assert_int_equal(found, 0);
}

static void test_labels(void **state)
{
	static const char *const good[] = {"", "laptop", "\xC3\xBC \xE2\x82\xAC \xF0\x9F\x94\x91", "a \"b\""};
	static const struct {
		const char *label, *shown;
	} bad[] = {{"a\nb", "a\\x0ab"},
	           {"\x1B[2J", "\\x1b[2J"},
	           {"\x7F", "\\x7f"},
	           {"\xC2\x9B", "\\xc2\\x9b"},                   /* a control character of two bytes */
	           {"\xE2\x80\xAE", "\\xe2\\x80\\xae"},          /* right to left from here */
	           {"\xC0\xAF", "\\xc0\\xaf"},                   /* longer than need be */
	           {"\xED\xA0\x80", "\\xed\\xa0\\x80"},          /* a surrogate */
	           {"\xF4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond the last character */
	           {"ab\xE2\x82", "ab\\xe2\\x82"},               /* cut off */
	           {"\xFF", "\\xff"}};
	char shown[LABEL_SHOWN_SIZE], longest[LABEL_MAX + 2];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(label_check(good[i], NULL), 0);
		assert_string_equal(label_escape(good[i], shown), good[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(label_check(bad[i].label, NULL), -EINVAL);
		assert_string_equal(label_escape(bad[i].label, shown), bad[i].shown);
	}
	assert_string_equal(label_escape("a\\b", shown), "a\\x5cb");
	memset(longest, 'x', sizeof(longest));
	longest[LABEL_MAX + 1] = 0;
	assert_int_equal(label_check(longest, NULL), -EINVAL);
	longest[LABEL_MAX] = 0;
	assert_int_equal(label_check(longest, NULL), 0);
	memset(longest, 0x80, LABEL_MAX);
	assert_int_equal(strlen(label_escape(longest, shown)), LABEL_SHOWN_SIZE - 1);
}

static void test_secrets(void **state)
{
	static const uint8_t zero[100];
	uint8_t a[100] = {0}, b[100] = {0}, *secret = keys_secret_alloc(100);

	(void)state;
	assert_non_null(secret);
	assert_memory_equal(secret, zero, 100);
	keys_random(a, sizeof(a));
	keys_random(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	keys_wipe(a, sizeof(a));
	assert_memory_equal(a, zero, sizeof(a));
	keys_secret_free(secret);
	keys_secret_free(NULL);
}

static int set_up(void **state)
{
	(void)state;
	return keys_init(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_vectors), cmocka_unit_test(test_keyring), cmocka_unit_test(test_recovery),
	    cmocka_unit_test(test_labels),  cmocka_unit_test(test_secrets),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
