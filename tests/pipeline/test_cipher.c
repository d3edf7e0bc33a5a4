#include "pipeline/cipher.h"

#include <errno.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LADIES                                                                                                         \
	"4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966204920636f756c64206f" \
	"6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73637265656e20776f756c64"   \
	"2062652069742e"

/* Published vectors: the GCM specification's test cases 13, 14 and 16, RFC 8439 2.8.2, draft-irtf-cfrg-xchacha A.3.1.
 */
static const struct vector {
	enum cipher_suite suite;
	const char *key, *nonce, *aad, *plain, *sealed;
} vectors[] = {
    {CIPHER_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {CIPHER_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "", "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
    {CIPHER_AES_256_GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
     "ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
     "bcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
    {CIPHER_CHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
     "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7", LADIES,
     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
     "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
     "61161ae10b594f09e26a7e902ecbd0600691"},
    {CIPHER_XCHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
     "404142434445464748494a4b4c4d4e4f5051525354555657", "50515253c0c1c2c3c4c5c6c7", LADIES,
     "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216"
     "cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13"
     "b52ec0875924c1c7987947deafd8780acf49"},
};

static struct cipher_ctx *ctx;

static size_t unhex(const char *hex, uint8_t *out, size_t cap)
{
	size_t len = 0;

	assert_int_equal(sodium_hex2bin(out, cap, hex, strlen(hex), NULL, &len, NULL), 0);
	return len;
}

static void test_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		const struct vector *v = &vectors[i];
		uint8_t key[32], nonce[24], aad[64], plain[256], sealed[256], out[256];
		size_t aad_len = unhex(v->aad, aad, sizeof(aad)), len = unhex(v->plain, plain, sizeof(plain));

		assert_int_equal(unhex(v->key, key, sizeof(key)), CIPHER_KEY);
		assert_int_equal(unhex(v->nonce, nonce, sizeof(nonce)), cipher_nonce_len(v->suite));
		assert_int_equal(unhex(v->sealed, sealed, sizeof(sealed)), len + CIPHER_TAG);
		assert_int_equal(cipher_seal(ctx, v->suite, key, nonce, aad, aad_len, plain, len, out), 0);
		assert_memory_equal(out, sealed, len + CIPHER_TAG);
		assert_int_equal(cipher_open(ctx, v->suite, key, nonce, aad, aad_len, sealed, len + CIPHER_TAG, out),
		                 0);
		assert_memory_equal(out, plain, len);
	}
}

/* What libsodium makes of it; false where it lacks AES instructions. */
static bool reference_seal(enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce, const uint8_t *aad,
                           size_t aad_len, const uint8_t *in, size_t len, uint8_t *out)
{
	switch (suite) {
	case CIPHER_AES_256_GCM:
		if (!crypto_aead_aes256gcm_is_available())
			return false;
		(void)crypto_aead_aes256gcm_encrypt(out, NULL, in, len, aad, aad_len, NULL, nonce, key);
		return true;
	case CIPHER_CHACHA20_POLY1305:
		(void)crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, in, len, aad, aad_len, NULL, nonce, key);
		return true;
	default:
		(void)crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, in, len, aad, aad_len, NULL, nonce, key);
		return true;
	}
}

/* Random lengths, keys kept and changed, suites and directions interleaved, so that a remembered key schedule that is
 * not the right one shows. */
static void test_cross_check(void **state)
{
	static const size_t sizes[] = {0, 1, 15, 16, 17, 63, 64, 65, 255, 4096, 16384, 65536};
	static uint8_t in[65536], out[65536 + CIPHER_TAG], ref[65536 + CIPHER_TAG];
	uint8_t keys[3][CIPHER_KEY], nonce[CIPHER_NONCE_MAX], aad[48];

	(void)state;
	randombytes_buf(keys, sizeof(keys));
	randombytes_buf(in, sizeof(in));
	for (unsigned i = 0; i < 2000; i++) {
		enum cipher_suite suite = (enum cipher_suite)(1 + randombytes_uniform(3));
		const uint8_t *key = keys[randombytes_uniform(3)];
		size_t len = i % 2 ? sizes[randombytes_uniform(12)] : randombytes_uniform(2000);
		size_t aad_len = randombytes_uniform(sizeof(aad) + 1);

		randombytes_buf(nonce, sizeof(nonce));
		randombytes_buf(aad, sizeof(aad));
		if (!reference_seal(suite, key, nonce, aad, aad_len, in, len, ref))
			continue;
		assert_int_equal(cipher_seal(ctx, suite, key, nonce, aad, aad_len, in, len, out), 0);
		assert_memory_equal(out, ref, len + CIPHER_TAG);
		/* in place */
		assert_int_equal(cipher_open(ctx, suite, key, nonce, aad, aad_len, ref, len + CIPHER_TAG, ref), 0);
		assert_memory_equal(ref, in, len);
		assert_int_equal(cipher_seal(ctx, suite, key, nonce, aad, aad_len, ref, len, ref), 0);
		assert_memory_equal(ref, out, len + CIPHER_TAG);
		if (i % 50 == 0)
			randombytes_buf(keys[randombytes_uniform(3)], CIPHER_KEY);
	}
}

static void assert_refused(enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce, const void *aad,
                           size_t aad_len, const uint8_t *sealed, size_t len)
{
	uint8_t out[128], zero[128] = {0};

	memset(out, 0xA5, sizeof(out));
	assert_int_equal(cipher_open(ctx, suite, key, nonce, aad, aad_len, sealed, len, out), -EBADMSG);
	if (len >= CIPHER_TAG)
		assert_memory_equal(out, zero, len - CIPHER_TAG);
}

static void test_tampering(void **state)
{
	uint8_t key[CIPHER_KEY], nonce[CIPHER_NONCE_MAX], aad[8], in[64], sealed[64 + CIPHER_TAG], out[64];

	(void)state;
	randombytes_buf(key, sizeof(key));
	randombytes_buf(nonce, sizeof(nonce));
	randombytes_buf(aad, sizeof(aad));
	randombytes_buf(in, sizeof(in));
	for (int s = CIPHER_AES_256_GCM; s <= CIPHER_XCHACHA20_POLY1305; s++) {
		enum cipher_suite suite = (enum cipher_suite)s;

		assert_int_equal(cipher_seal(ctx, suite, key, nonce, aad, sizeof(aad), in, sizeof(in), sealed), 0);
		for (size_t bit = 0; bit < sizeof(sealed) * 8; bit++) {
			sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_refused(suite, key, nonce, aad, sizeof(aad), sealed, sizeof(sealed));
			sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		for (size_t bit = 0; bit < cipher_nonce_len(suite) * 8; bit++) {
			nonce[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_refused(suite, key, nonce, aad, sizeof(aad), sealed, sizeof(sealed));
			nonce[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		key[0] ^= 1;
		assert_refused(suite, key, nonce, aad, sizeof(aad), sealed, sizeof(sealed));
		key[0] ^= 1;
		assert_refused(suite, key, nonce, aad, sizeof(aad) - 1, sealed, sizeof(sealed));
		assert_refused(suite, key, nonce, NULL, 0, sealed, sizeof(sealed));
		for (size_t len = 0; len < sizeof(sealed); len++)
			assert_refused(suite, key, nonce, aad, sizeof(aad), sealed, len);
		/* and a refusal leaves the context usable */
		assert_int_equal(cipher_open(ctx, suite, key, nonce, aad, sizeof(aad), sealed, sizeof(sealed), out), 0);
		assert_memory_equal(out, in, sizeof(in));
	}
}

static void test_names(void **state)
{
	enum cipher_suite suite = CIPHER_AUTO, chosen = cipher_suite_choose(CIPHER_AUTO);
	uint8_t key[CIPHER_KEY] = {0}, nonce[CIPHER_NONCE_MAX] = {0}, out[CIPHER_TAG];

	(void)state;
	for (int s = CIPHER_AUTO; s <= CIPHER_XCHACHA20_POLY1305; s++) {
		assert_int_equal(cipher_suite_parse(cipher_suite_name((enum cipher_suite)s), &suite), 0);
		assert_int_equal(suite, s);
	}
	assert_int_equal(cipher_suite_parse("aes", &suite), -EINVAL);
	assert_int_equal(cipher_suite_parse("", &suite), -EINVAL);
	assert_null(cipher_suite_name((enum cipher_suite)4));
	assert_null(cipher_suite_name((enum cipher_suite) - 1));
	assert_int_equal(cipher_nonce_len((enum cipher_suite)99), 0);
	assert_int_equal(cipher_nonce_len(CIPHER_AUTO), 0);
	assert_true(chosen == CIPHER_AES_256_GCM || chosen == CIPHER_CHACHA20_POLY1305);
	assert_int_equal(chosen == CIPHER_AES_256_GCM, crypto_aead_aes256gcm_is_available());
	assert_int_equal(cipher_suite_choose(CIPHER_XCHACHA20_POLY1305), CIPHER_XCHACHA20_POLY1305);
	assert_int_equal(cipher_seal(ctx, (enum cipher_suite)7, key, nonce, NULL, 0, NULL, 0, out), -EINVAL);
	assert_int_equal(cipher_open(ctx, CIPHER_AUTO, key, nonce, NULL, 0, out, sizeof(out), out), -EINVAL);
}

static int set_up(void **state)
{
	(void)state;
	return sodium_init() < 0 || cipher_ctx_new(&ctx) ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	cipher_ctx_free(ctx);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_vectors),
	    cmocka_unit_test(test_cross_check),
	    cmocka_unit_test(test_tampering),
	    cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
