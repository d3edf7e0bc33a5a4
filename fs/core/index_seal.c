#include "fs/core/index_seal.h"

#include <errno.h>

_Static_assert((int)INDEX_PAGE == (int)PAGE_DB && (int)INDEX_SLOT == (int)PAGE_WAL, "units are numbered alike");
_Static_assert(INDEX_NONCE == PAGE_NONCE && INDEX_TAG == PAGE_TAG, "units are sealed alike");

static int unit_seal(void *arg, enum index_unit unit, uint64_t number, const void *in, size_t len,
                     uint8_t nonce[INDEX_NONCE], void *out)
{
	return page_sealer_seal(arg, (enum page_kind)unit, number, in, len, nonce, out);
}

static int unit_open(void *arg, enum index_unit unit, uint64_t number, const uint8_t nonce[INDEX_NONCE], const void *in,
                     size_t len, void *out)
{
	return page_sealer_open(arg, (enum page_kind)unit, number, nonce, in, len, out);
}

int index_seal_init(struct index_seal *s, const struct superblock *sb, const struct keyring *k, struct err *e)
{
	const struct superblock_info *info = superblock_info(sb);
	int ret = page_sealer_new(k, info->index_epoch, info->uuid, &s->page);

	if (ret)
		return err_set(e, ret, ret == -ENOMEM ? ERR_MEMORY : ERR_KEY, "keys of the index: %s",
		               err_text(NULL, ret));
	s->index = (struct index_sealer){unit_seal, unit_open, s->page};
	return 0;
}

void index_seal_release(struct index_seal *s)
{
	page_sealer_free(s->page);
	s->page = NULL;
}
