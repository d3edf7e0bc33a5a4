/* A store in a temporary directory with a superblock whose bytes a test reads, changes and puts back, and the keys
 * decoded from docs/FORMAT.md alone. */
#ifndef APFS_TESTS_PIPELINE_SUPERBLOCK_RIG_H
#define APFS_TESTS_PIPELINE_SUPERBLOCK_RIG_H

#include "pipeline/keys.h"
#include "pipeline/superblock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Offsets from docs/FORMAT.md, written down again so that a change of the format shows. */
#define SIZE        8192
#define SLOTS       512
#define MASTERS     4608
#define MAC         8128
#define CHECKSUM    8160
#define SLOT_AAD    136
#define SLOT_SEALED 48

/* What sbrig_create takes, and another. */
#define PASS     "correct horse"
#define PASS_LEN (sizeof(PASS) - 1)
#define NEXT     "battery staple"
#define NEXT_LEN (sizeof(NEXT) - 1)

extern struct io *sbrig_io;
extern const struct superblock_kdf sbrig_cheap;

/* For cmocka_run_group_tests. */
int sbrig_set_up(void **state);
int sbrig_tear_down(void **state);

/* superblock_new and superblock_write. */
int sbrig_make(enum cipher_suite suite, uint32_t page_size, struct superblock_kdf kdf, const char *pass, size_t len,
               struct err *e) MUST_CHECK;
/* A new superblock, and its image. */
void sbrig_create(uint8_t *image);
/* Both copies, whether they are there or not. */
void sbrig_remove(void);
void sbrig_load(const char *path, uint8_t *image);
void sbrig_store(const char *path, const uint8_t *image, size_t len);
void sbrig_store_both(const uint8_t *image, size_t len);

int sbrig_open(struct superblock **sb);
/* Opens and unlocks; the subkey is what a test compares. */
int sbrig_unlock(const char *pass, uint8_t subkey[KEYS_LEN]);
int sbrig_unlock_secret(const struct secret *secret, uint8_t subkey[KEYS_LEN]);
int sbrig_unlock_with(const char *pass, size_t len, uint8_t subkey[KEYS_LEN]);

/* Unlocks with one passphrase and puts another in its place. */
int sbrig_passwd(struct superblock *sb, const char *old_pass, const char *new_pass, struct err *e) MUST_CHECK;

/* Little-endian numbers of n bytes. */
uint64_t sbrig_get(const uint8_t *p, size_t n);
void sbrig_put(uint8_t *p, uint64_t v, size_t n);

/* BLAKE2b as FORMAT.md derives subkeys. */
void sbrig_derive(const uint8_t *key, uint8_t purpose, const char *id, uint8_t *out);
/* The slot key of slot 0 and PASS, from the record's own parameters. */
void sbrig_slot_key(const uint8_t *slot, uint8_t *out);
/* The associated data of slot `number`: uuid, number, the record's header. */
void sbrig_slot_aad(const uint8_t *image, uint8_t number, uint8_t aad[20 + SLOT_AAD]);
/* Decoders from FORMAT.md alone: the root key through slot `number`, whose key is at hand, and through slot 0. */
void sbrig_open_slot(const uint8_t *image, uint8_t number, const uint8_t key[32], uint8_t root[32]);
void sbrig_decode_root(const uint8_t *image, uint8_t root[32]);
/* Make a changed image right again. */
void sbrig_fix_checksum(uint8_t *image, size_t len);
void sbrig_fix_mac(uint8_t *image, const uint8_t root[32]);

#endif
