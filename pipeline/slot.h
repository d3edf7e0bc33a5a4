/*
 * Within the pipeline: a key slot, which wraps the root key under a secret. A record is SLOT_SIZE bytes of the
 * superblock; docs/FORMAT.md has its layout.
 */
#ifndef APFS_PIPELINE_SLOT_H
#define APFS_PIPELINE_SLOT_H

#include "pipeline/superblock.h"

#define SLOT_SIZE  256
#define SLOT_EMPTY 0u /* the type of an unused one */

/* What of a record can be read without a key; number is the caller's to set. */
void slot_describe(const uint8_t record[SLOT_SIZE], struct superblock_slot_info *out);

/* Puts defaults for zeroes and checks the bounds: -ERANGE. */
int slot_kdf_resolve(struct superblock_kdf *kdf, struct err *e) MUST_CHECK;

/* What a record is bound to. */
struct slot_place {
	const uint8_t *uuid; /* SUPERBLOCK_UUID bytes */
	uint32_t number;
};

/* Writes a record. -EINVAL: a secret or label that no slot takes. -ERANGE: a cost out of bounds. -ENOMEM when the
 * machine is too small for it. */
int slot_seal(uint8_t record[SLOT_SIZE], struct slot_place at, const struct superblock_slot *slot,
              const uint8_t root[KEYS_LEN], struct err *e) MUST_CHECK;

/* Unwraps the root key into root (guarded memory). -EKEYREJECTED: another secret, or a record that is damaged.
 * -ERANGE: a slot of another type, or a cost outside the bounds: nothing was tried. -ENOMEM as above. */
int slot_open(const uint8_t record[SLOT_SIZE], struct slot_place at, const struct secret *secret,
              uint8_t root[KEYS_LEN], struct err *e) MUST_CHECK;

#endif
