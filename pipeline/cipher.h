/*
 * AEAD suites. Bulk sealing goes through libcrypto; XChaCha20-Poly1305 is HChaCha20 (libsodium) and libcrypto's
 * ChaCha20-Poly1305 (draft-irtf-cfrg-xchacha). Keys are 32 bytes, tags 16. Suite numbers are part of the format.
 */
#ifndef APFS_PIPELINE_CIPHER_H
#define APFS_PIPELINE_CIPHER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cipher_suite {
	CIPHER_AUTO = 0, /* never on disk: AES-256-GCM where the CPU has AES, else ChaCha20-Poly1305 */
	CIPHER_AES_256_GCM = 1,
	CIPHER_CHACHA20_POLY1305 = 2,
	CIPHER_XCHACHA20_POLY1305 = 3
};

#define CIPHER_KEY       32
#define CIPHER_TAG       16
#define CIPHER_NONCE_MAX 24

/* A suite's lower-case name ("aes-256-gcm"), or NULL for an unknown number; and back: -EINVAL if unknown. */
const char *cipher_suite_name(enum cipher_suite suite);
int cipher_suite_parse(const char *name, enum cipher_suite *suite) MUST_CHECK;
/* What CIPHER_AUTO means on this machine; any other suite is returned as it is. */
enum cipher_suite cipher_suite_choose(enum cipher_suite suite);
/* 12 or 24 bytes; 0 for an unknown suite. */
size_t cipher_nonce_len(enum cipher_suite suite);

/* A thread's working context: it remembers the key schedule of the last key. One thread at a time. */
struct cipher_ctx;
int cipher_ctx_new(struct cipher_ctx **out) MUST_CHECK;
void cipher_ctx_free(struct cipher_ctx *ctx);

/* Seals len bytes of in to out, which has room for len + CIPHER_TAG: ciphertext, then tag. in == out is allowed.
 * -EIO if libcrypto fails. */
int cipher_seal(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t key[CIPHER_KEY], const uint8_t *nonce,
                const void *aad, size_t aad_len, const void *in, size_t len, void *out) MUST_CHECK;

/* Opens len bytes (ciphertext and tag) of in to out, which has room for len - CIPHER_TAG. -EBADMSG when they are not
 * authentic: out is then zeroed, never plaintext. */
int cipher_open(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t key[CIPHER_KEY], const uint8_t *nonce,
                const void *aad, size_t aad_len, const void *in, size_t len, void *out) MUST_CHECK;

#endif
