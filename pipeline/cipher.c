#include "pipeline/cipher.h"

#include <errno.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* The nonce of libcrypto's two AEADs; XChaCha20's is the HChaCha20 input and the last 8 bytes of this. */
#define INNER_NONCE 12

enum engine { ENGINE_AES = 0, ENGINE_CHACHA = 1, ENGINE_COUNT = 2 };
enum direction { OPEN = 0, SEAL = 1 };

static const struct suite {
	const char *name;
	size_t nonce_len;
	enum engine engine;
} suites[] = {
    [CIPHER_AES_256_GCM] = {"aes-256-gcm", 12, ENGINE_AES},
    [CIPHER_CHACHA20_POLY1305] = {"chacha20-poly1305", 12, ENGINE_CHACHA},
    [CIPHER_XCHACHA20_POLY1305] = {"xchacha20-poly1305", 24, ENGINE_CHACHA},
};

static const char *const engine_names[ENGINE_COUNT] = {
    [ENGINE_AES] = "AES-256-GCM", [ENGINE_CHACHA] = "ChaCha20-Poly1305"};

/* One libcrypto context, which keeps the schedule of `key` while `keyed`. */
struct lane {
	EVP_CIPHER_CTX *evp;
	bool keyed;
	uint8_t key[CIPHER_KEY];
};

struct cipher_ctx {
	struct lane lane[ENGINE_COUNT][2];
};

static const struct suite *suite_get(enum cipher_suite suite)
{
	size_t n = (size_t)suite;

	if (n >= sizeof(suites) / sizeof(suites[0]) || !suites[n].name)
		return NULL;
	return &suites[n];
}

const char *cipher_suite_name(enum cipher_suite suite)
{
	const struct suite *s = suite_get(suite);

	if (suite == CIPHER_AUTO)
		return "auto";
	return s ? s->name : NULL;
}

int cipher_suite_parse(const char *name, enum cipher_suite *suite)
{
	for (int i = CIPHER_AUTO; i <= CIPHER_XCHACHA20_POLY1305; i++) {
		if (!strcmp(name, cipher_suite_name((enum cipher_suite)i))) {
			*suite = (enum cipher_suite)i;
			return 0;
		}
	}
	return -EINVAL;
}

static bool cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
	unsigned long caps = getauxval(AT_HWCAP);

	return (caps & HWCAP_AES) && (caps & HWCAP_PMULL);
#else
	return false;
#endif
}

enum cipher_suite cipher_suite_choose(enum cipher_suite suite)
{
	if (suite != CIPHER_AUTO)
		return suite;
	return cpu_has_aes() ? CIPHER_AES_256_GCM : CIPHER_CHACHA20_POLY1305;
}

size_t cipher_nonce_len(enum cipher_suite suite)
{
	const struct suite *s = suite_get(suite);

	return s ? s->nonce_len : 0;
}

/* libcrypto does not say that it was for want of memory; malloc does. errno was 0 before. */
static int refused(void)
{
	return errno == ENOMEM ? -ENOMEM : -EIO;
}

static int lane_init(struct lane *l, const EVP_CIPHER *cipher, enum direction dir)
{
	l->evp = EVP_CIPHER_CTX_new();
	if (!l->evp)
		return -ENOMEM;
	errno = 0;
	return EVP_CipherInit_ex2(l->evp, cipher, NULL, NULL, dir, NULL) == 1 ? 0 : refused();
}

int cipher_ctx_new(struct cipher_ctx **out)
{
	struct cipher_ctx *ctx;
	int ret = 0;

	if (sodium_init() < 0) /* guarded memory needs it; done once, whoever comes first */
		return -EIO;
	ctx = sodium_malloc(sizeof(*ctx));
	if (!ctx)
		return -ENOMEM;
	memset(ctx, 0, sizeof(*ctx));
	for (int i = 0; i < ENGINE_COUNT && !ret; i++) {
		errno = 0;
		EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, engine_names[i], NULL);

		if (!cipher)
			ret = refused();
		if (!ret)
			ret = lane_init(&ctx->lane[i][OPEN], cipher, OPEN);
		if (!ret)
			ret = lane_init(&ctx->lane[i][SEAL], cipher, SEAL);
		EVP_CIPHER_free(cipher); /* the contexts hold their own references */
	}
	if (ret) {
		ERR_clear_error();
		cipher_ctx_free(ctx);
		return ret;
	}
	*out = ctx;
	return 0;
}

void cipher_ctx_free(struct cipher_ctx *ctx)
{
	if (!ctx)
		return;
	for (int i = 0; i < ENGINE_COUNT; i++) {
		EVP_CIPHER_CTX_free(ctx->lane[i][OPEN].evp);
		EVP_CIPHER_CTX_free(ctx->lane[i][SEAL].evp);
	}
	sodium_free(ctx);
}

/* Sets key and nonce, rescheduling only for another key than the last. */
static bool lane_begin(struct lane *l, const uint8_t *key, const uint8_t *nonce, enum direction dir)
{
	bool same = l->keyed && !CRYPTO_memcmp(l->key, key, CIPHER_KEY);

	l->keyed = EVP_CipherInit_ex2(l->evp, NULL, same ? NULL : key, nonce, dir, NULL) == 1;
	if (l->keyed && !same)
		memcpy(l->key, key, CIPHER_KEY);
	return l->keyed;
}

static bool lane_update(struct lane *l, void *out, const void *in, size_t len)
{
	int done = 0;

	if (!len)
		return true;
	return EVP_CipherUpdate(l->evp, out, &done, in, (int)len) == 1 && (size_t)done == len;
}

/* Finds the lane for a suite and readies it: for XChaCha20 that is ChaCha20 under the subkey of
 * draft-irtf-cfrg-xchacha. */
static int lane_ready(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce,
                      enum direction dir, struct lane **out)
{
	const struct suite *s = suite_get(suite);
	uint8_t subkey[CIPHER_KEY], inner[INNER_NONCE] = {0};
	struct lane *l;
	bool ok;

	if (!s)
		return -EINVAL;
	l = &ctx->lane[s->engine][dir];
	if (suite == CIPHER_XCHACHA20_POLY1305) {
		(void)crypto_core_hchacha20(subkey, nonce, key, NULL);
		memcpy(inner + 4, nonce + crypto_core_hchacha20_INPUTBYTES, sizeof(inner) - 4);
		ok = lane_begin(l, subkey, inner, dir);
		sodium_memzero(subkey, sizeof(subkey));
	} else {
		ok = lane_begin(l, key, nonce, dir);
	}
	*out = l;
	return ok ? 0 : -EIO;
}

int cipher_seal(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t key[CIPHER_KEY], const uint8_t *nonce,
                const void *aad, size_t aad_len, const void *in, size_t len, void *out)
{
	struct lane *l;
	uint8_t *tag = (uint8_t *)out + len;
	int none = 0, ret;

	if (len > INT_MAX || aad_len > INT_MAX)
		return -EINVAL;
	ret = lane_ready(ctx, suite, key, nonce, SEAL, &l);
	if (ret == -EINVAL)
		return ret;
	if (ret || !lane_update(l, NULL, aad, aad_len) || !lane_update(l, out, in, len) ||
	    EVP_CipherFinal_ex(l->evp, tag, &none) != 1 ||
	    EVP_CIPHER_CTX_ctrl(l->evp, EVP_CTRL_AEAD_GET_TAG, CIPHER_TAG, tag) != 1) {
		ERR_clear_error();
		return -EIO;
	}
	return 0;
}

int cipher_open(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t key[CIPHER_KEY], const uint8_t *nonce,
                const void *aad, size_t aad_len, const void *in, size_t len, void *out)
{
	size_t plain = len - CIPHER_TAG;
	uint8_t tag[CIPHER_TAG], scrap[CIPHER_TAG];
	struct lane *l;
	int none = 0, ret;

	if (len < CIPHER_TAG)
		return -EBADMSG;
	if (plain > INT_MAX || aad_len > INT_MAX)
		return -EINVAL;
	ret = lane_ready(ctx, suite, key, nonce, OPEN, &l);
	if (ret == -EINVAL)
		return ret;
	memcpy(tag, (const uint8_t *)in + plain, CIPHER_TAG);
	if (ret || EVP_CIPHER_CTX_ctrl(l->evp, EVP_CTRL_AEAD_SET_TAG, CIPHER_TAG, tag) != 1 ||
	    !lane_update(l, NULL, aad, aad_len)) {
		ret = -EIO;
	} else if (!lane_update(l, out, in, plain) || EVP_CipherFinal_ex(l->evp, scrap, &none) != 1) {
		ret = -EBADMSG; /* libcrypto has written the plaintext by now, authentic or not */
	}
	if (ret) {
		memset(out, 0, plain);
		ERR_clear_error();
	}
	return ret;
}
