/* Within the pipeline: the image of a superblock, of which there are two copies. docs/FORMAT.md has the layout. */
#ifndef APFS_PIPELINE_SUPERBLOCK_IMAGE_H
#define APFS_PIPELINE_SUPERBLOCK_IMAGE_H

#include "pipeline/slot.h"

#include <stdbool.h>

#define IMAGE_SIZE     8192
#define IMAGE_PAGE_MIN 1024u /* of the index: what SQLite takes with 40 bytes of each page reserved */
#define IMAGE_PAGE_MAX 65536u

struct superblock {
	struct {
		int ret; /* 0: whole, authentic or not; else why it is of no use */
		uint8_t image[IMAGE_SIZE];
	} copy[2];       /* of the files superblock_paths */
	unsigned active; /* which of them info is from */
	unsigned slot;   /* that was unlocked */
	struct superblock_info info;
};

extern const char *const superblock_paths[2];

uint8_t *image_slot(uint8_t *image, unsigned number);
uint64_t image_generation(const uint8_t *image);
void image_set_generation(uint8_t *image, uint64_t generation);

/* Whether buf is a superblock of this version; copies it to image if so. */
int image_verify(const uint8_t *buf, size_t len, uint8_t image[IMAGE_SIZE], struct superblock_info *info,
                 struct err *e) MUST_CHECK;
/* What can be read of it without a key. */
int image_info(const uint8_t *image, struct superblock_info *info, struct err *e) MUST_CHECK;

/* -EBADMSG: the MAC is not that of the root key. */
int image_authenticate(const uint8_t *image, const uint8_t root[KEYS_LEN]) MUST_CHECK;
/* Writes MAC and checksum, after a change. */
int image_finish(uint8_t *image, const uint8_t root[KEYS_LEN]) MUST_CHECK;

/* Fills a keyring that has its root key. */
int image_masters_open(const uint8_t *image, const uint8_t *uuid, struct keyring *k, struct err *e) MUST_CHECK;

/* A whole image around a root key, with a fresh master key. */
int image_make(uint8_t *image, const struct superblock_info *info, const struct superblock_slot *first,
               const uint8_t root[KEYS_LEN], struct err *e) MUST_CHECK;

#endif
