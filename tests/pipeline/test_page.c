/* Sealed pages and WAL slots: the worked example of docs/FORMAT.md, and what is bound to each. */
#include "pipeline/keyring.h"
#include "pipeline/page.h"

#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE 1024
#define KEPT (PAGE - 40)

static char *example; /* of FORMAT.md */
static uint8_t uuid[16];
static struct keyring *keyring;
static struct page_sealer *sealer;

/* The hex digits between back quotes after `label`. */
static void value(const char *label, uint8_t *out, size_t len)
{
	const char *p = strstr(example, label);
	size_t n = 0;

	if (!p)
		fail_msg("FORMAT.md has no \"%s\"", label);
	p = strchr(p, '`');
	assert_non_null(p);
	p++;
	assert_int_equal(strspn(p, "0123456789abcdef"), 2 * len);
	assert_int_equal(sodium_hex2bin(out, len, p, 2 * len, NULL, &n, NULL), 0);
}

static void make_page(uint8_t *page)
{
	for (unsigned i = 0; i < KEPT; i++)
		page[i] = (uint8_t)(i % 251);
}

static size_t make_aad(const char *name, uint64_t number, size_t number_len, uint8_t aad[27])
{
	size_t len = 16;

	memcpy(aad, uuid, 16);
	for (; *name; name++)
		aad[len++] = (uint8_t)*name;
	for (size_t i = 0; i < number_len; i++)
		aad[len++] = (uint8_t)(number >> 8 * i);
	return len;
}

/* By libsodium, from the table's keys alone; what comes out is opened by the sealer under test. */
static void check_example(const char *name, enum page_kind kind, uint64_t number, const char *nonce_label,
                          const char *begin_label, const char *tag_label, const uint8_t *plain, size_t len)
{
	uint8_t key[32], nonce[24], begin[32], tag[16], aad[27], sealed[PAGE + 64], out[PAGE + 64];
	size_t aad_len = make_aad(name, number, kind == PAGE_DB ? 4 : 8, aad);

	value(kind == PAGE_DB ? "| key of pages |" : "| key of slots |", key, 32);
	value(nonce_label, nonce, 24);
	value(begin_label, begin, 32);
	value(tag_label, tag, 16);
	assert_int_equal(
	    crypto_aead_xchacha20poly1305_ietf_encrypt(sealed, NULL, plain, len, aad, aad_len, NULL, nonce, key), 0);
	assert_memory_equal(sealed, begin, 32);
	assert_memory_equal(sealed + len, tag, 16);
	assert_int_equal(page_sealer_open(sealer, kind, number, nonce, sealed, len, out), 0);
	assert_memory_equal(out, plain, len);
}

static void test_example(void **state)
{
	uint8_t plain[PAGE + 64] = {0}, slot[72], header[32], out[32];

	(void)state;
	make_page(plain);
	check_example("db", PAGE_DB, 3, "| page: nonce |", "| page: first 32 bytes |", "| page: tag |", plain, KEPT);

	value("| slot 0, 72 bytes |", slot, 72);
	value("| WAL header |", header, 32);
	assert_int_equal(page_sealer_open(sealer, PAGE_WAL, 0, slot, slot + 24, 32, out), 0);
	assert_memory_equal(out, header, 32);

	value("| frame header |", plain, 24);
	make_page(plain + 24);
	memset(plain + 24 + KEPT, 0, 8);
	check_example("wal", PAGE_WAL, 1, "| slot 1: nonce |", "| slot 1: 32 bytes at 24 |", "| slot 1: tag |", plain,
	              24 + KEPT + 8);
}

/* What is sealed here opens there, in place or not; nonces do not repeat. */
static void test_round_trip(void **state)
{
	static uint8_t nonces[1000][24];
	uint8_t key[32], plain[PAGE], sealed[PAGE + 16], out[PAGE], aad[27];
	size_t aad_len;

	(void)state;
	value("| key of pages |", key, 32);
	make_page(plain);
	for (uint32_t n = 0; n < 1000; n++) {
		assert_int_equal(page_sealer_seal(sealer, PAGE_DB, n, plain, KEPT, nonces[n], sealed), 0);
		aad_len = make_aad("db", n, 4, aad);
		assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, sealed, KEPT + 16, aad,
		                                                            aad_len, nonces[n], key),
		                 0);
		assert_memory_equal(out, plain, KEPT);
		for (uint32_t i = 0; i < n; i++)
			assert_memory_not_equal(nonces[i], nonces[n], 24);
	}
	memcpy(sealed, plain, KEPT);
	assert_int_equal(page_sealer_seal(sealer, PAGE_WAL, UINT64_MAX, sealed, KEPT, nonces[0], sealed), 0);
	assert_memory_not_equal(sealed, plain, KEPT);
	assert_int_equal(page_sealer_open(sealer, PAGE_WAL, UINT64_MAX, nonces[0], sealed, KEPT, sealed), 0);
	assert_memory_equal(sealed, plain, KEPT);
}

static void refuse(struct page_sealer *s, enum page_kind kind, uint64_t number, const uint8_t *nonce,
                   const uint8_t *sealed, size_t len)
{
	static const uint8_t zero[PAGE];
	uint8_t out[PAGE];

	memset(out, 1, sizeof(out));
	assert_int_equal(page_sealer_open(s, kind, number, nonce, sealed, len, out), -EBADMSG);
	assert_memory_equal(out, zero, len); /* no plaintext */
}

/* Another number, kind, store, key or length does not open, nor does any flipped bit. */
static void test_binding(void **state)
{
	uint8_t plain[PAGE], sealed[PAGE + 16], nonce[24];
	struct page_sealer *other;

	(void)state;
	make_page(plain);
	assert_int_equal(page_sealer_seal(sealer, PAGE_DB, 7, plain, KEPT, nonce, sealed), 0);
	refuse(sealer, PAGE_DB, 8, nonce, sealed, KEPT);
	refuse(sealer, PAGE_WAL, 7, nonce, sealed, KEPT);
	refuse(sealer, PAGE_DB, 7, nonce, sealed, KEPT - 1);
	for (size_t i = 0; i < KEPT + 16; i++) {
		sealed[i] ^= (uint8_t)(1u << i % 8);
		refuse(sealer, PAGE_DB, 7, nonce, sealed, KEPT);
		sealed[i] ^= (uint8_t)(1u << i % 8);
	}
	for (size_t i = 0; i < 24; i++) {
		nonce[i] ^= 1;
		refuse(sealer, PAGE_DB, 7, nonce, sealed, KEPT);
		nonce[i] ^= 1;
	}
	uuid[3] ^= 1;
	assert_int_equal(page_sealer_new(keyring, 1, uuid, &other), 0);
	uuid[3] ^= 1;
	refuse(other, PAGE_DB, 7, nonce, sealed, KEPT);
	page_sealer_free(other);
	assert_int_equal(page_sealer_new(keyring, 2, uuid, &other), 0);
	refuse(other, PAGE_DB, 7, nonce, sealed, KEPT);
	page_sealer_free(other);
	assert_int_equal(page_sealer_new(keyring, 3, uuid, &other), -ENOKEY);
}

static int setup(void **state)
{
	uint8_t *key;

	(void)state;
	if (keys_init(NULL) || keyring_new(&keyring))
		return -1;
	key = keyring_add(keyring, 2);
	memset(key, 2, KEYS_LEN);
	key = keyring_add(keyring, 1);
	value("master key of epoch 1 |", key, KEYS_LEN);
	sodium_hex2bin(uuid, 16, "9d6df8b30de44d2e8a3399b685066d8a", 32, NULL, NULL, NULL);
	return page_sealer_new(keyring, 1, uuid, &sealer);
}

static int teardown(void **state)
{
	(void)state;
	page_sealer_free(sealer);
	keyring_free(keyring);
	free(example);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_example),
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_binding),
	};
	FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;

	example = calloc(1, 1 << 20);
	if (!f || !example || !fread(example, 1, (1 << 20) - 1, f) || fclose(f))
		return 2;
	return cmocka_run_group_tests(tests, setup, teardown);
}
