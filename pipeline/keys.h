/*
 * Keys: a secret -> unwraps the root key in a slot -> epochs of master keys -> subkeys by keyed BLAKE2b. All key
 * material lives in libsodium's guarded memory and is wiped by keyring_free.
 */
#ifndef APFS_PIPELINE_KEYS_H
#define APFS_PIPELINE_KEYS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define KEYS_LEN 32

/* What a subkey is for; the numbers are part of the format. */
enum key_purpose { KEY_SEGMENT = 1, KEY_DATABASE = 2, KEY_SUPERBLOCK = 3, KEY_LOCAL_STATE = 4, KEY_SEGMENT_COMMIT = 5 };

/* What opens a key slot; the numbers are the types of slots in the format. */
enum secret_type { SECRET_PASSPHRASE = 1, SECRET_KEY_FILE = 2, SECRET_RECOVERY = 3 };

#define SECRET_KEY_FILE_MIN ((size_t)32) /* bytes */
#define SECRET_KEY_FILE_MAX ((size_t)8 << 20)

/* A passphrase's bytes, a key file's content, or a recovery key's KEYS_LEN bytes. Borrowed. */
struct secret {
	enum secret_type type;
	const void *data;
	size_t len;
};

/* "passphrase", "key file", "recovery key"; NULL for an unknown type. */
const char *secret_type_name(unsigned type);

struct keyring;

/* The current epoch, which new data is sealed under. */
uint32_t keyring_epoch(const struct keyring *k);

/* Derives the subkey of (epoch, purpose, id[id_len]), id_len at most 64. out is the caller's to wipe. -ENOKEY for an
 * unknown epoch. Any thread. */
int keyring_subkey(const struct keyring *k, uint32_t epoch, enum key_purpose purpose, const void *id, size_t id_len,
                   uint8_t out[KEYS_LEN]) MUST_CHECK;

/* Wipes the root key, which only changes of the superblock need: superblock_slot_* and superblock_repair fail
 * afterwards. */
void keyring_forget_root(struct keyring *k);
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
