/*
 * The superblock: uuid, features, suite, key slots and master keys, all under a MAC; kept twice (superblock,
 * superblock.bak). What can be read without a key is superblock_info; docs/FORMAT.md has the layout.
 */
#ifndef APFS_PIPELINE_SUPERBLOCK_H
#define APFS_PIPELINE_SUPERBLOCK_H

#include "base/io.h"
#include "pipeline/cipher.h"
#include "pipeline/keys.h"
#include "pipeline/label.h"

#define SUPERBLOCK_SLOTS 16
#define SUPERBLOCK_UUID  16

/* Argon2id's cost. Zeroes mean the defaults; floors and ceilings are compiled in. */
struct superblock_kdf {
	uint32_t ops;
	uint64_t mem; /* bytes */
};

struct superblock_slot_info {
	unsigned number;
	uint32_t type; /* enum secret_type, or one that this build does not know */
	struct superblock_kdf kdf;
	char label[LABEL_MAX + 1]; /* as it is on disk: label_escape it before it is shown */
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
	struct superblock_slot_info slot[SUPERBLOCK_SLOTS];
};

/* A key slot to be made. */
struct superblock_slot {
	const struct secret *secret;
	struct superblock_kdf kdf; /* of passphrases and key files */
	const char *label;         /* NULL: none; see pipeline/label.h */
};

struct superblock;

/* A new superblock with one key slot, in memory, and its keys, for a STORE that has none (-EEXIST). suite may be
 * CIPHER_AUTO. -ENOMEM with a text when the machine is too small for the cost. Both are the caller's to free. */
int superblock_new(struct io *io, enum cipher_suite suite, uint32_t page_size, const struct superblock_slot *first,
                   struct superblock **out, struct keyring **keyring, struct err *e) MUST_CHECK;
/* Writes what superblock_new made, durably, .bak first; a failure leaves neither file. */
int superblock_write(struct io *io, struct superblock *sb, struct err *e) MUST_CHECK;

/* Reads superblock, or superblock.bak where the first is missing or damaged. -ENOENT: not a store. -EPROTONOSUPPORT:
 * a newer format or an unknown required feature. -EBADMSG: both damaged. Free with superblock_free. */
int superblock_open(struct io *io, struct superblock **out, struct err *e) MUST_CHECK;
void superblock_free(struct superblock *sb);
const struct superblock_info *superblock_info(const struct superblock *sb);

/* Tries the secret on every slot of its type, then verifies the MAC. -EKEYREJECTED: no slot takes it (constant
 * behaviour). -EBADMSG: the slot opened but the MAC is wrong. *out is the caller's, to keyring_free. */
int superblock_unlock(struct superblock *sb, const struct secret *secret, struct keyring **out,
                      struct err *e) MUST_CHECK;
/* The number of the slot that took it. */
unsigned superblock_unlocked(const struct superblock *sb);

/*
 * Changes of key slots. STORE may be mounted: a lock of their own keeps them apart (-EBUSY), under which the superblock
 * is read again. sb was unlocked, which gave the keyring; the slot that it was unlocked with must be there still
 * (-ESTALE), as must the one that is to be changed. -EBADMSG: the other copy is whole and under another key. The new
 * superblock is durable on return, .bak first; after a failure either the old one or the new one counts.
 */

/* Makes a slot in an unused place: *number. -EXFULL: all are in use. -EINVAL, -ERANGE, -ENOMEM: as slots are made. */
int superblock_slot_add(struct io *io, struct superblock *sb, const struct keyring *k,
                        const struct superblock_slot *slot, unsigned *number, struct err *e) MUST_CHECK;
/* -ENXIO: it is not in use. -EPERM: it is the last one, or the one that sb was unlocked with: that another one can be
 * opened has to be shown first. */
int superblock_slot_remove(struct io *io, struct superblock *sb, const struct keyring *k, unsigned number,
                           struct err *e) MUST_CHECK;
/* Puts another secret into the slot that sb was unlocked with; its label stays unless there is a new one, and its cost
 * where the new one is zeroes. */
int superblock_slot_change(struct io *io, struct superblock *sb, const struct keyring *k,
                           const struct superblock_slot *slot, struct err *e) MUST_CHECK;

/* Writes a copy that is damaged, missing, older or under another key anew, from the one that was unlocked, and logs it:
 * call it once that one is known to be the right one for the rest of STORE. Nothing is touched where both are the same,
 * and nothing while another process is changing slots. */
int superblock_repair(struct io *io, struct superblock *sb, const struct keyring *k, struct err *e) MUST_CHECK;

#endif
