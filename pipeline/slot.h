/*
 * Within the pipeline: a key slot, which wraps the root key under a passphrase. A record is SLOT_SIZE bytes of the
 * superblock; docs/FORMAT.md has its layout.
 */
#ifndef APFS_PIPELINE_SLOT_H
#define APFS_PIPELINE_SLOT_H

#include "pipeline/superblock.h"

#define SLOT_SIZE 256

enum { SLOT_EMPTY = 0, SLOT_PASSPHRASE = 1 };

/* What of a record can be read without a key. */
uint32_t slot_type(const uint8_t record[SLOT_SIZE]);
struct superblock_kdf slot_kdf(const uint8_t record[SLOT_SIZE]);

/* Puts defaults for zeroes and checks the bounds: -ERANGE. */
int slot_kdf_resolve(struct superblock_kdf *kdf, struct err *e) MUST_CHECK;

/* What a record is bound to. */
struct slot_place {
	const uint8_t *uuid; /* SUPERBLOCK_UUID bytes */
	uint32_t number;
};

/* Writes a passphrase slot. kdf is resolved. -ENOMEM when the machine is too small for it. */
int slot_seal(uint8_t record[SLOT_SIZE], struct slot_place at, struct superblock_kdf kdf, const void *pass,
              size_t pass_len, const uint8_t root[KEYS_LEN], struct err *e) MUST_CHECK;

/* Unwraps the root key into root (guarded memory). -EKEYREJECTED: another passphrase, or a record that is damaged.
 * -ERANGE: the cost is outside the bounds, nothing was tried. -ENOMEM as above. */
int slot_open(const uint8_t record[SLOT_SIZE], struct slot_place at, const void *pass, size_t pass_len,
              uint8_t root[KEYS_LEN], struct err *e) MUST_CHECK;

#endif
