/* What tests do with the insides of a volume. Apart from the rest: uthash is set up otherwise in fs/core. */
#ifndef APFS_TESTS_CORE_INSIDE_H
#define APFS_TESTS_CORE_INSIDE_H

#include "fs/core/core.h"

/* index_verify of an open volume: the first finding. */
int inside_check(struct core *c, struct err *e) MUST_CHECK;
/* core_check with all data of a store that is not open, whose passphrase it is. */
int inside_check_store(struct io *io, const void *pass, size_t len, struct err *e) MUST_CHECK;
/* Says that an inode has so many links. */
void inside_set_links(struct core *c, uint64_t ino, uint32_t nlink);
/* The index checkpoints when its WAL holds this many bytes. */
void inside_checkpoint_every(struct core *c, uint64_t bytes);
/* Syncs everything, then compacts in this thread, until nothing is left to do. */
int inside_compact(struct core *c, bool all) MUST_CHECK;
/* The first half of a cut: extents are in the open transaction, rows are not. */
int inside_half_cut(struct core *c) MUST_CHECK;
/* Ends the segments that are appended to, as full ones would end. */
void inside_roll(struct core *c);

#endif
