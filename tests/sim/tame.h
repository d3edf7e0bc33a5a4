/*
 * What keeps a test from being quick and from repeating itself, tamed: linked with apfs_tame, Argon2id is as quick as a
 * hash (quick_kdf.c), keys stay out of guarded pages, and all randomness comes from a seed.
 */
#ifndef APFS_TESTS_SIM_TAME_H
#define APFS_TESTS_SIM_TAME_H

#include <stdint.h>

/* Before the first key. Again: the sequence begins anew. */
void tame(uint64_t seed);

#endif
