/* What tests do with the insides of a volume. Apart from the rest: uthash is set up otherwise in fs/core. */
#ifndef APFS_TESTS_CORE_INSIDE_H
#define APFS_TESTS_CORE_INSIDE_H

#include "fs/core/core.h"

/* index_check. */
int inside_check(struct core *c, struct err *e) MUST_CHECK;
/* The index checkpoints when its WAL holds this many bytes. */
void inside_checkpoint_every(struct core *c, uint64_t bytes);
/* Ends the segments that are appended to, as full ones would end. */
void inside_roll(struct core *c);

#endif
