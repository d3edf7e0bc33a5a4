#include "pipeline/slot.h"

#include "base/cursor.h"
#include "pipeline/keyring.h"
#include "pipeline/label.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <string.h>
#include <sys/sysinfo.h>

enum { KDF_ARGON2ID = 1, KDF_BLAKE2B = 2 };

#define OPS_MIN     1u
#define OPS_DEFAULT 3u
#define OPS_MAX     64u
#define MEM_MIN     ((uint64_t)8 << 20)
#define MEM_DEFAULT ((uint64_t)256 << 20)
#define MEM_MAX     ((uint64_t)4 << 30)

#define LABEL_LEN   (LABEL_MAX + 1)
#define SALT_LEN    crypto_pwhash_SALTBYTES
#define NONCE_LEN   crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define WRAPPED_LEN (KEYS_LEN + crypto_aead_xchacha20poly1305_ietf_ABYTES)

/* Everything before the nonce is associated data, after the uuid and the slot's number. */
#define HEADER_LEN 136
#define AAD_LEN    (SUPERBLOCK_UUID + 4 + HEADER_LEN)

struct slot {
	uint32_t type, kdf_type;
	struct superblock_kdf kdf;
	uint8_t salt[SALT_LEN], commitment[KEYS_LEN], label[LABEL_LEN], nonce[NONCE_LEN], wrapped[WRAPPED_LEN];
};

/* Guarded memory: what a secret becomes. */
struct slot_secrets {
	uint8_t slot_key[KEYS_LEN], wrap_key[KEYS_LEN], commitment[KEYS_LEN], root[KEYS_LEN];
};

static void slot_decode(const uint8_t *record, struct slot *s)
{
	struct cursor c = cursor_reader(record, SLOT_SIZE);

	s->type = cursor_get32(&c);
	s->kdf_type = cursor_get32(&c);
	s->kdf.ops = cursor_get32(&c);
	(void)cursor_get32(&c);
	s->kdf.mem = cursor_get64(&c);
	cursor_get(&c, s->salt, sizeof(s->salt));
	cursor_get(&c, s->commitment, sizeof(s->commitment));
	cursor_get(&c, s->label, sizeof(s->label));
	cursor_get(&c, s->nonce, sizeof(s->nonce));
	cursor_get(&c, s->wrapped, sizeof(s->wrapped));
}

static void slot_encode(uint8_t *record, const struct slot *s)
{
	struct cursor c = cursor_writer(record, SLOT_SIZE);

	memset(record, 0, SLOT_SIZE);
	cursor_put32(&c, s->type);
	cursor_put32(&c, s->kdf_type);
	cursor_put32(&c, s->kdf.ops);
	cursor_put32(&c, 0);
	cursor_put64(&c, s->kdf.mem);
	cursor_put(&c, s->salt, sizeof(s->salt));
	cursor_put(&c, s->commitment, sizeof(s->commitment));
	cursor_put(&c, s->label, sizeof(s->label));
	cursor_put(&c, s->nonce, sizeof(s->nonce));
	cursor_put(&c, s->wrapped, sizeof(s->wrapped));
}

static void slot_aad(const uint8_t *record, struct slot_place at, uint8_t aad[AAD_LEN])
{
	struct cursor c = cursor_writer(aad, AAD_LEN);

	cursor_put(&c, at.uuid, SUPERBLOCK_UUID);
	cursor_put32(&c, at.number);
	cursor_put(&c, record, HEADER_LEN);
}

void slot_describe(const uint8_t record[SLOT_SIZE], struct superblock_slot_info *out)
{
	struct slot s;

	slot_decode(record, &s);
	*out = (struct superblock_slot_info){.type = s.type};
	if (s.kdf_type == KDF_ARGON2ID)
		out->kdf = s.kdf;
	memcpy(out->label, s.label, LABEL_MAX);
}

static bool kdf_allowed(struct superblock_kdf kdf)
{
	return kdf.ops >= OPS_MIN && kdf.ops <= OPS_MAX && kdf.mem >= MEM_MIN && kdf.mem <= MEM_MAX &&
	       kdf.mem % 1024 == 0;
}

int slot_kdf_resolve(struct superblock_kdf *kdf, struct err *e)
{
	if (!kdf->ops)
		kdf->ops = OPS_DEFAULT;
	if (!kdf->mem)
		kdf->mem = MEM_DEFAULT;
	if (!kdf_allowed(*kdf))
		return err_set(e, -ERANGE, ERR_USAGE,
		               "Argon2id takes %u to %u passes over %u MiB to %u MiB in whole KiB", OPS_MIN, OPS_MAX,
		               (unsigned)(MEM_MIN >> 20), (unsigned)(MEM_MAX >> 20));
	return 0;
}

/* Bytes of main memory that a derivation may take; UINT64_MAX where the kernel does not say. */
static uint64_t memory_usable(void)
{
	struct sysinfo si;
	uint64_t total;

	if (sysinfo(&si))
		return UINT64_MAX;
	total = (uint64_t)si.totalram * si.mem_unit;
	return total - total / 4;
}

static int argon2id(const struct slot *s, const struct secret *secret, uint8_t key[KEYS_LEN], struct err *e)
{
	uint64_t usable = memory_usable();
	unsigned mib = (unsigned)(s->kdf.mem >> 20);

	/* libsodium populates its memory at once: without asking first that would wake the kernel's OOM killer. */
	if (s->kdf.mem > usable || s->kdf.mem > SIZE_MAX)
		return err_set(e, -ENOMEM, ERR_MEMORY,
		               "the key slot's Argon2id needs %u MiB of memory, this machine can spare %" PRIu64 " MiB",
		               mib, usable >> 20);
	if (crypto_pwhash(key, KEYS_LEN, secret->data, secret->len, s->salt, s->kdf.ops, (size_t)s->kdf.mem,
	                  crypto_pwhash_ALG_ARGON2ID13))
		return err_set(e, -ENOMEM, ERR_MEMORY, "the key slot's Argon2id cannot get %u MiB of memory", mib);
	return 0;
}

/* How the slots of a type derive; 0 for an unknown type. */
static uint32_t kdf_type_of(uint32_t type)
{
	if (type == SECRET_PASSPHRASE || type == SECRET_KEY_FILE)
		return KDF_ARGON2ID;
	return type == SECRET_RECOVERY ? KDF_BLAKE2B : 0;
}

/* The secret's slot key, and from it the wrapping key and the commitment. */
static int secrets_derive(struct slot_secrets *k, const struct slot *s, const struct secret *secret, struct err *e)
{
	if (s->kdf_type == KDF_ARGON2ID) {
		int ret = argon2id(s, secret, k->slot_key, e);

		if (ret)
			return ret;
	} else {
		/* 256 random bits need no stretching */
		keys_derive(secret->data, KEY_SLOT_RECOVERY, 0, s->salt, SALT_LEN, k->slot_key);
	}
	keys_derive(k->slot_key, KEY_SLOT_WRAP, 0, NULL, 0, k->wrap_key);
	keys_derive(k->slot_key, KEY_SLOT_COMMIT, 0, NULL, 0, k->commitment);
	return 0;
}

static int secret_check(const struct secret *secret, struct err *e)
{
	switch (secret->type) {
	case SECRET_PASSPHRASE:
		return secret->len ? 0 : err_set(e, -EINVAL, ERR_USAGE, "the passphrase is empty");
	case SECRET_KEY_FILE:
		if (secret->len < SECRET_KEY_FILE_MIN || secret->len > SECRET_KEY_FILE_MAX)
			return err_set(e, -EINVAL, ERR_USAGE, "a key file has %zu bytes to %zu MiB",
			               SECRET_KEY_FILE_MIN, SECRET_KEY_FILE_MAX >> 20);
		return 0;
	case SECRET_RECOVERY:
		return secret->len == KEYS_LEN ? 0 : err_set(e, -EINVAL, ERR_USAGE, "not a recovery key");
	}
	return err_set(e, -EINVAL, ERR_USAGE, "no such kind of key slot");
}

static int slot_prepare(const struct superblock_slot *slot, struct slot *s, struct err *e)
{
	int ret = secret_check(slot->secret, e);

	*s = (struct slot){.type = slot->secret->type, .kdf_type = kdf_type_of(slot->secret->type)};
	if (!ret && s->kdf_type == KDF_ARGON2ID) {
		s->kdf = slot->kdf;
		ret = slot_kdf_resolve(&s->kdf, e);
	}
	if (!ret && slot->label) {
		ret = label_check(slot->label, e);
		if (!ret)
			memcpy(s->label, slot->label, strlen(slot->label));
	}
	keys_random(s->salt, sizeof(s->salt));
	keys_random(s->nonce, sizeof(s->nonce));
	return ret;
}

int slot_seal(uint8_t record[SLOT_SIZE], struct slot_place at, const struct superblock_slot *slot,
              const uint8_t root[KEYS_LEN], struct err *e)
{
	struct slot_secrets *k;
	uint8_t aad[AAD_LEN];
	struct slot s;
	int ret = slot_prepare(slot, &s, e);

	if (ret)
		return ret;
	k = keys_secret_alloc(sizeof(*k));
	if (!k)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for keys");
	ret = secrets_derive(k, &s, slot->secret, e);
	if (!ret) {
		memcpy(s.commitment, k->commitment, sizeof(s.commitment));
		slot_encode(record, &s);
		slot_aad(record, at, aad);
		(void)crypto_aead_xchacha20poly1305_ietf_encrypt(s.wrapped, NULL, root, KEYS_LEN, aad, sizeof(aad),
		                                                 NULL, s.nonce, k->wrap_key);
		slot_encode(record, &s);
	}
	keys_secret_free(k);
	return ret;
}

int slot_open(const uint8_t record[SLOT_SIZE], struct slot_place at, const struct secret *secret,
              uint8_t root[KEYS_LEN], struct err *e)
{
	struct slot_secrets *k;
	uint8_t aad[AAD_LEN];
	struct slot s;
	int ret, bad;

	slot_decode(record, &s);
	if (s.type != secret->type || !s.kdf_type || s.kdf_type != kdf_type_of(s.type) ||
	    (s.kdf_type == KDF_ARGON2ID && !kdf_allowed(s.kdf)))
		return err_set(e, -ERANGE, ERR_KEY, "key slot %u asks for a cost that this build does not accept",
		               at.number);
	if (secret_check(secret, NULL))
		return -EKEYREJECTED;
	k = keys_secret_alloc(sizeof(*k));
	if (!k)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for keys");
	ret = secrets_derive(k, &s, secret, e);
	if (!ret) {
		/* A tag alone does not commit to the key: records could be made that several secrets open. */
		bad = sodium_memcmp(s.commitment, k->commitment, KEYS_LEN);
		slot_aad(record, at, aad);
		bad |= crypto_aead_xchacha20poly1305_ietf_decrypt(k->root, NULL, NULL, s.wrapped, WRAPPED_LEN, aad,
		                                                  sizeof(aad), s.nonce, k->wrap_key);
		if (bad)
			ret = -EKEYREJECTED;
		else
			memcpy(root, k->root, KEYS_LEN);
	}
	keys_secret_free(k);
	return ret;
}
