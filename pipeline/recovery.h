/*
 * The text of a recovery key: 56 characters of Crockford's base32 in groups of four, the last of which are a checksum,
 * so that a typing error is told apart from another key. docs/FORMAT.md has it.
 */
#ifndef APFS_PIPELINE_RECOVERY_H
#define APFS_PIPELINE_RECOVERY_H

#include "pipeline/keys.h"

#define RECOVERY_TEXT_SIZE 70 /* 14 groups of 4 characters, 13 dashes, a zero */

/* Both buffers are the caller's to wipe. */
void recovery_encode(const uint8_t key[KEYS_LEN], char text[RECOVERY_TEXT_SIZE]);

/* Case, blanks and dashes do not matter; O is 0, I and L are 1, U is V. -EINVAL, with what is wrong in e (but nothing
 * of the text): a character that belongs to none, too few or too many, or a checksum that is not theirs. */
int recovery_decode(const char *text, size_t len, uint8_t key[KEYS_LEN], struct err *e) MUST_CHECK;

#endif
