/*
 * Keys: passphrase -> Argon2id -> unwraps the root key in a slot -> epochs of master keys -> subkeys by keyed BLAKE2b.
 * All key material lives in libsodium's guarded memory and is wiped by keyring_free.
 */
#ifndef APFS_PIPELINE_KEYS_H
#define APFS_PIPELINE_KEYS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define KEYS_LEN 32

/* What a subkey is for; the numbers are part of the format. */
enum key_purpose { KEY_SEGMENT = 1, KEY_DATABASE = 2, KEY_SUPERBLOCK = 3, KEY_LOCAL_STATE = 4, KEY_SEGMENT_COMMIT = 5 };

struct keyring;

/* The current epoch, which new data is sealed under. */
uint32_t keyring_epoch(const struct keyring *k);

/* Derives the subkey of (epoch, purpose, id[id_len]), id_len at most 64. out is the caller's to wipe. -ENOKEY for an
 * unknown epoch. Any thread. */
int keyring_subkey(const struct keyring *k, uint32_t epoch, enum key_purpose purpose, const void *id, size_t id_len,
                   uint8_t out[KEYS_LEN]) MUST_CHECK;

void keyring_free(struct keyring *k);

/* Fills buf with random bytes. Any thread. */
void keys_random(void *buf, size_t len);
/* Overwrites buf in a way the compiler keeps. */
void keys_wipe(void *buf, size_t len);
/* Guarded, locked memory for a secret; NULL when there is none. keys_secret_free wipes it. */
void *keys_secret_alloc(size_t len) MUST_CHECK;
void keys_secret_free(void *secret);
/* One-time set-up of the crypto libraries; call before anything else here. */
int keys_init(struct err *e) MUST_CHECK;

#endif
