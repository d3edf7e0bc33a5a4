/* What only tests of the index call. */
#ifndef APFS_INDEX_HOOKS_H
#define APFS_INDEX_HOOKS_H

#include "index/index.h"

/* A checkpoint runs when the WAL holds this many bytes (16 MiB unless told). */
void index_checkpoint_every(struct index *ix, uint64_t bytes);

#endif
