/* Crash loops without a model: what is left either is not a store yet, or opens. */
#ifndef APFS_TESTS_CRASH_SMALL_H
#define APFS_TESTS_CRASH_SMALL_H

#include <stdint.h>

struct small_result {
	uint64_t cuts, images;
};

/* Formatting; of the formatting that follows an interrupted one, too. */
struct small_result small_init(uint64_t seed, unsigned images);
/* Changing a passphrase, adding and removing key slots, and mending a damaged copy of the superblock. */
struct small_result small_keys(uint64_t seed, unsigned images);

#endif
