/* The index's pages are sealed by the pipeline's page sealer, under the key that the superblock names. */
#ifndef APFS_FS_CORE_INDEX_SEAL_H
#define APFS_FS_CORE_INDEX_SEAL_H

#include "index/index.h"
#include "pipeline/page.h"
#include "pipeline/superblock.h"

struct index_seal {
	struct page_sealer *page;
	struct index_sealer index; /* for index_create and index_open */
};

/* The keyring is not used afterwards. *s outlives the index that is opened with it. */
int index_seal_init(struct index_seal *s, const struct superblock *sb, const struct keyring *k,
                    struct err *e) MUST_CHECK;
/* Wipes the keys. What is all zeroes is allowed. */
void index_seal_release(struct index_seal *s);

#endif
