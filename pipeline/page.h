/*
 * Seals the units of a database: pages and slots of its write-ahead log, with XChaCha20-Poly1305 whatever the suite
 * (docs/FORMAT.md, section Index). What a unit holds is the caller's; bound to it are the store, the kind of the unit
 * and its number.
 */
#ifndef APFS_PIPELINE_PAGE_H
#define APFS_PIPELINE_PAGE_H

#include "pipeline/cipher.h"
#include "pipeline/keys.h"

#define PAGE_NONCE CIPHER_NONCE_MAX
#define PAGE_TAG   CIPHER_TAG
#define PAGE_UUID  16

enum page_kind { PAGE_DB = 0, PAGE_WAL = 1 };

/* Holds keys, in guarded memory, and a working context: one thread at a time. */
struct page_sealer;

/* Derives the keys of `epoch`: -ENOKEY when there is no such master key. The keyring is not used afterwards. */
int page_sealer_new(const struct keyring *k, uint32_t epoch, const uint8_t uuid[PAGE_UUID],
                    struct page_sealer **out) MUST_CHECK;
/* Wipes the keys. NULL is allowed. */
void page_sealer_free(struct page_sealer *s);

/* Seals len bytes of `in` under a fresh random nonce: out gets len bytes of ciphertext, then the tag. in == out is
 * allowed. number is below 2^32 for PAGE_DB. -EIO if libcrypto fails. */
int page_sealer_seal(struct page_sealer *s, enum page_kind kind, uint64_t number, const void *in, size_t len,
                     uint8_t nonce[PAGE_NONCE], void *out) MUST_CHECK;

/* Opens len bytes of ciphertext, which the tag follows, to out; in == out is allowed. -EBADMSG when they are not
 * authentic: out is then zeroed. */
int page_sealer_open(struct page_sealer *s, enum page_kind kind, uint64_t number, const uint8_t nonce[PAGE_NONCE],
                     const void *in, size_t len, void *out) MUST_CHECK;

#endif
