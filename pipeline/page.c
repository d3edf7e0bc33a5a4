#include "pipeline/page.h"

#include "base/cursor.h"

#include <errno.h>
#include <string.h>

#define NONCES 64 /* random numbers are fetched for so many units at a time */

/* The whole of it is one allocation of guarded memory. */
struct page_sealer {
	struct cipher_ctx *cipher;
	uint8_t key[2][KEYS_LEN];
	uint8_t uuid[PAGE_UUID];
	size_t nonces; /* unused ones, at the front */
	uint8_t nonce[NONCES][PAGE_NONCE];
};

static const struct {
	const char *id;
	size_t id_len, number_len;
} kinds[] = {[PAGE_DB] = {"db", 2, 4}, [PAGE_WAL] = {"wal", 3, 8}};

#define AAD_MAX (PAGE_UUID + 3 + 8)

int page_sealer_new(const struct keyring *k, uint32_t epoch, const uint8_t uuid[PAGE_UUID], struct page_sealer **out)
{
	struct page_sealer *s = keys_secret_alloc(sizeof(*s));
	int ret;

	if (!s)
		return -ENOMEM;
	ret = cipher_ctx_new(&s->cipher);
	for (int i = PAGE_DB; i <= PAGE_WAL && !ret; i++)
		ret = keyring_subkey(k, epoch, KEY_DATABASE, kinds[i].id, kinds[i].id_len, s->key[i]);
	if (ret) {
		page_sealer_free(s);
		return ret;
	}
	memcpy(s->uuid, uuid, PAGE_UUID);
	*out = s;
	return 0;
}

void page_sealer_free(struct page_sealer *s)
{
	if (!s)
		return;
	cipher_ctx_free(s->cipher);
	keys_secret_free(s);
}

static size_t unit_aad(const struct page_sealer *s, enum page_kind kind, uint64_t number, uint8_t aad[AAD_MAX])
{
	struct cursor c = cursor_writer(aad, AAD_MAX);

	cursor_put(&c, s->uuid, PAGE_UUID);
	cursor_put(&c, kinds[kind].id, kinds[kind].id_len);
	if (kinds[kind].number_len == 4)
		cursor_put32(&c, (uint32_t)number);
	else
		cursor_put64(&c, number);
	return AAD_MAX - cursor_left(&c);
}

int page_sealer_seal(struct page_sealer *s, enum page_kind kind, uint64_t number, const void *in, size_t len,
                     uint8_t nonce[PAGE_NONCE], void *out)
{
	uint8_t aad[AAD_MAX];
	size_t aad_len = unit_aad(s, kind, number, aad);

	if (!s->nonces) {
		keys_random(s->nonce, sizeof(s->nonce));
		s->nonces = NONCES;
	}
	memcpy(nonce, s->nonce[--s->nonces], PAGE_NONCE);
	return cipher_seal(s->cipher, CIPHER_XCHACHA20_POLY1305, s->key[kind], nonce, aad, aad_len, in, len, out);
}

int page_sealer_open(struct page_sealer *s, enum page_kind kind, uint64_t number, const uint8_t nonce[PAGE_NONCE],
                     const void *in, size_t len, void *out)
{
	uint8_t aad[AAD_MAX];
	size_t aad_len = unit_aad(s, kind, number, aad);

	return cipher_open(s->cipher, CIPHER_XCHACHA20_POLY1305, s->key[kind], nonce, aad, aad_len, in, len + PAGE_TAG,
	                   out);
}
