/* Within the pipeline: how keys are derived and kept. */
#ifndef APFS_PIPELINE_KEYRING_H
#define APFS_PIPELINE_KEYRING_H

#include "pipeline/keys.h"

#define KEYRING_EPOCHS 32 /* master keys at most */

/* Purposes of keys that no keyring hands out; enum key_purpose goes on below 64. */
enum { KEY_SLOT_WRAP = 64, KEY_SLOT_COMMIT = 65, KEY_SLOT_RECOVERY = 66 };

/* BLAKE2b-256 keyed with `key` over purpose, epoch, id_len (4 bytes each) and id; id_len at most 64. */
#define KEYS_ID_MAX 64
void keys_derive(const uint8_t key[KEYS_LEN], uint32_t purpose, uint32_t epoch, const void *id, size_t id_len,
                 uint8_t out[KEYS_LEN]);

/* An empty keyring: no epoch, a root key of zeroes to be filled in through keyring_root. */
int keyring_new(struct keyring **out) MUST_CHECK;
uint8_t *keyring_root(struct keyring *k);
/* NULL once it is forgotten. */
const uint8_t *keyring_root_known(const struct keyring *k);
/* Where the master key of a new epoch goes; NULL when that epoch is 0 or known, or there is no room. */
uint8_t *keyring_add(struct keyring *k, uint32_t epoch) MUST_CHECK;
/* NULL for an unknown epoch. */
const uint8_t *keyring_master(const struct keyring *k, uint32_t epoch);
/* -ENOKEY for an unknown epoch. */
int keyring_set_epoch(struct keyring *k, uint32_t epoch) MUST_CHECK;

#endif
