/*
 * The superblock: uuid, features, suite, key slots and master keys, all under a MAC; kept twice (superblock,
 * superblock.bak). What can be read without a key is superblock_info; docs/FORMAT.md has the layout.
 */
#ifndef APFS_PIPELINE_SUPERBLOCK_H
#define APFS_PIPELINE_SUPERBLOCK_H

#include "base/io.h"
#include "pipeline/cipher.h"
#include "pipeline/keys.h"

#define SUPERBLOCK_SLOTS 16
#define SUPERBLOCK_UUID  16

/* Argon2id's cost. Zeroes mean the defaults; floors and ceilings are compiled in. */
struct superblock_kdf {
	uint32_t ops;
	uint64_t mem; /* bytes */
};

struct superblock_info {
	uint32_t version;
	uint64_t features;
	uint8_t uuid[SUPERBLOCK_UUID];
	enum cipher_suite suite;
	uint32_t page_size;   /* of the index, bytes */
	int64_t created;      /* seconds since the epoch */
	uint32_t index_epoch; /* of the master key that the index is sealed under */
	unsigned slots;       /* in use */
	struct {
		unsigned number, type; /* type 1: passphrase */
		struct superblock_kdf kdf;
	} slot[SUPERBLOCK_SLOTS];
};

struct superblock;

/* A new superblock with one passphrase slot, in memory, and its keys, for a STORE that has none (-EEXIST). suite may be
 * CIPHER_AUTO. -ENOMEM with a text when the machine is too small for the cost. Both are the caller's to free. */
int superblock_new(struct io *io, enum cipher_suite suite, uint32_t page_size, struct superblock_kdf kdf,
                   const void *pass, size_t pass_len, struct superblock **out, struct keyring **keyring,
                   struct err *e) MUST_CHECK;
/* Writes what superblock_new made, durably, .bak first; a failure leaves neither file. */
int superblock_write(struct io *io, struct superblock *sb, struct err *e) MUST_CHECK;

/* Reads superblock, or superblock.bak where the first is missing or damaged. -ENOENT: not a store. -EPROTONOSUPPORT:
 * a newer format or an unknown required feature. -EBADMSG: both damaged. Free with superblock_free. */
int superblock_open(struct io *io, struct superblock **out, struct err *e) MUST_CHECK;
void superblock_free(struct superblock *sb);
const struct superblock_info *superblock_info(const struct superblock *sb);

/* Tries the passphrase on every slot, then verifies the MAC. -EKEYREJECTED: no slot takes it (constant behaviour).
 * -EBADMSG: the slot opened but the MAC is wrong. *out is the caller's, to keyring_free. */
int superblock_unlock(struct superblock *sb, const void *pass, size_t pass_len, struct keyring **out,
                      struct err *e) MUST_CHECK;

/* Rewrites the slot that takes `old` with `new_pass`, durably, .bak first. */
int superblock_passwd(struct io *io, struct superblock *sb, const void *old, size_t old_len, const void *new_pass,
                      size_t new_len, struct superblock_kdf kdf, struct err *e) MUST_CHECK;

#endif
