#include "pipeline/keys.h"

#include "base/cursor.h"
#include "pipeline/keyring.h"

#include <errno.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>

/* The whole of it is one allocation of guarded memory. */
struct keyring {
	uint32_t current, count;
	bool forgotten; /* the root key */
	uint32_t epoch[KEYRING_EPOCHS];
	uint8_t root[KEYS_LEN];
	uint8_t master[KEYRING_EPOCHS][KEYS_LEN];
};

const char *secret_type_name(unsigned type)
{
	static const char *const names[] = {
	    [SECRET_PASSPHRASE] = "passphrase", [SECRET_KEY_FILE] = "key file", [SECRET_RECOVERY] = "recovery key"};

	return type < sizeof(names) / sizeof(names[0]) ? names[type] : NULL;
}

int keys_init(struct err *e)
{
	if (sodium_init() < 0)
		return err_set(e, -EIO, ERR_KEY, "libsodium cannot be set up: no source of random numbers");
	return 0;
}

void keys_random(void *buf, size_t len)
{
	randombytes_buf(buf, len);
}

void keys_wipe(void *buf, size_t len)
{
	sodium_memzero(buf, len);
}

void *keys_secret_alloc(size_t len)
{
	void *secret = sodium_malloc(len);

	if (secret)
		memset(secret, 0, len);
	return secret;
}

void keys_secret_free(void *secret)
{
	sodium_free(secret);
}

void keys_derive(const uint8_t key[KEYS_LEN], uint32_t purpose, uint32_t epoch, const void *id, size_t id_len,
                 uint8_t out[KEYS_LEN])
{
	static const uint8_t person[crypto_generichash_blake2b_PERSONALBYTES] = "apfs-subkey";
	uint8_t message[12 + KEYS_ID_MAX];
	struct cursor c = cursor_writer(message, sizeof(message));

	cursor_put32(&c, purpose);
	cursor_put32(&c, epoch);
	cursor_put32(&c, (uint32_t)id_len);
	cursor_put(&c, id, id_len);
	(void)crypto_generichash_blake2b_salt_personal(out, KEYS_LEN, message, sizeof(message) - cursor_left(&c), key,
	                                               KEYS_LEN, NULL, person);
}

int keyring_new(struct keyring **out)
{
	struct keyring *k = keys_secret_alloc(sizeof(*k));

	if (!k)
		return -ENOMEM;
	*out = k;
	return 0;
}

void keyring_free(struct keyring *k)
{
	keys_secret_free(k);
}

uint8_t *keyring_root(struct keyring *k)
{
	return k->root;
}

const uint8_t *keyring_root_known(const struct keyring *k)
{
	return k->forgotten ? NULL : k->root;
}

void keyring_forget_root(struct keyring *k)
{
	sodium_memzero(k->root, sizeof(k->root));
	k->forgotten = true;
}

const uint8_t *keyring_master(const struct keyring *k, uint32_t epoch)
{
	for (uint32_t i = 0; i < k->count; i++) {
		if (k->epoch[i] == epoch)
			return k->master[i];
	}
	return NULL;
}

uint8_t *keyring_add(struct keyring *k, uint32_t epoch)
{
	if (!epoch || k->count == KEYRING_EPOCHS || keyring_master(k, epoch))
		return NULL;
	k->epoch[k->count] = epoch;
	return k->master[k->count++];
}

int keyring_set_epoch(struct keyring *k, uint32_t epoch)
{
	if (!keyring_master(k, epoch))
		return -ENOKEY;
	k->current = epoch;
	return 0;
}

uint32_t keyring_epoch(const struct keyring *k)
{
	return k->current;
}

int keyring_subkey(const struct keyring *k, uint32_t epoch, enum key_purpose purpose, const void *id, size_t id_len,
                   uint8_t out[KEYS_LEN])
{
	const uint8_t *master = keyring_master(k, epoch);

	if (id_len > KEYS_ID_MAX)
		return -EINVAL;
	if (!master)
		return -ENOKEY;
	keys_derive(master, purpose, epoch, id, id_len, out);
	return 0;
}
