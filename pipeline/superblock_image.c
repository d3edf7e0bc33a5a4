#include "pipeline/superblock_image.h"

#include "base/cursor.h"
#include "pipeline/keyring.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define VERSION       1u
#define FEATURES_HERE 0u /* required features that this build knows */

/* The image's offsets. Magic, version and the checksum at the end stay where they are in every version. */
#define MAGIC_LEN     8
#define EPOCH_AT      64
#define GENERATION_AT 72
#define SLOTS_AT      512
#define MASTERS_AT    4608
#define MAC_AT        8128
#define CHECKSUM_LEN  32

#define MAC_LEN           32
#define MASTER_SIZE       96
#define MASTER_HEADER_LEN 16
#define NONCE_LEN         crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define WRAPPED_LEN       (KEYS_LEN + crypto_aead_xchacha20poly1305_ietf_ABYTES)
#define MASTER_AAD_LEN    (SUPERBLOCK_UUID + MASTER_HEADER_LEN)

_Static_assert(SLOTS_AT + SUPERBLOCK_SLOTS * SLOT_SIZE == MASTERS_AT, "slots end where master keys begin");
_Static_assert(MASTERS_AT + KEYRING_EPOCHS * MASTER_SIZE <= MAC_AT, "master keys end before the MAC");
_Static_assert(MAC_AT + MAC_LEN + CHECKSUM_LEN == IMAGE_SIZE, "the MAC and the checksum come last");

static const uint8_t magic[MAGIC_LEN] = "apfs-sb\n";

static void secret_cleanup(uint8_t **secret)
{
	keys_secret_free(*secret);
}

uint8_t *image_slot(uint8_t *image, unsigned number)
{
	return image + SLOTS_AT + (size_t)number * SLOT_SIZE;
}

uint64_t image_generation(const uint8_t *image)
{
	struct cursor c = cursor_reader(image + GENERATION_AT, 8);

	return cursor_get64(&c);
}

void image_set_generation(uint8_t *image, uint64_t generation)
{
	struct cursor c = cursor_writer(image + GENERATION_AT, 8);

	cursor_put64(&c, generation);
}

/* --- what can be read without a key ------------------------------------------------------------------------------ */

static void checksum(const uint8_t *image, size_t len, uint8_t out[CHECKSUM_LEN])
{
	(void)crypto_generichash(out, CHECKSUM_LEN, image, len - CHECKSUM_LEN, NULL, 0);
}

int image_info(const uint8_t *image, struct superblock_info *info, struct err *e)
{
	struct cursor c = cursor_reader(image, IMAGE_SIZE);
	uint8_t skipped[MAGIC_LEN];
	uint32_t size, suite;

	memset(info, 0, sizeof(*info));
	cursor_get(&c, skipped, sizeof(skipped));
	info->version = cursor_get32(&c);
	size = cursor_get32(&c);
	info->features = cursor_get64(&c);
	(void)cursor_get64(&c); /* compatible features need no understanding */
	cursor_get(&c, info->uuid, sizeof(info->uuid));
	suite = cursor_get32(&c);
	info->page_size = cursor_get32(&c);
	info->created = (int64_t)cursor_get64(&c);
	(void)cursor_get32(&c); /* the current epoch: see image_masters_open */
	info->index_epoch = cursor_get32(&c);
	if (info->features & ~(uint64_t)FEATURES_HERE)
		return err_set(e, -EPROTONOSUPPORT, ERR_FORMAT, "needs features that this version does not know");
	info->suite = (enum cipher_suite)suite;
	if (!cipher_nonce_len(info->suite))
		return err_set(e, -EPROTONOSUPPORT, ERR_FORMAT, "sealed with an unknown cipher suite %u", suite);
	if (c.bad || size != IMAGE_SIZE || info->page_size < IMAGE_PAGE_MIN || info->page_size > IMAGE_PAGE_MAX ||
	    info->page_size & (info->page_size - 1))
		return err_set(e, -EBADMSG, ERR_FORMAT, "damaged: impossible sizes");
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++) {
		struct superblock_slot_info *slot = &info->slot[info->slots];

		slot_describe(image + SLOTS_AT + (size_t)i * SLOT_SIZE, slot);
		slot->number = i;
		info->slots += slot->type != SLOT_EMPTY;
	}
	return 0;
}

int image_verify(const uint8_t *buf, size_t len, uint8_t image[IMAGE_SIZE], struct superblock_info *info, struct err *e)
{
	uint8_t sum[CHECKSUM_LEN];
	struct cursor c = cursor_reader(buf, len);
	uint32_t version;

	if (len < MAGIC_LEN + 8 + CHECKSUM_LEN || memcmp(buf, magic, MAGIC_LEN) != 0)
		return err_set(e, -EBADMSG, ERR_FORMAT, "not a superblock");
	checksum(buf, len, sum);
	if (memcmp(sum, buf + len - CHECKSUM_LEN, CHECKSUM_LEN) != 0)
		return err_set(e, -EBADMSG, ERR_FORMAT, "damaged: checksum");
	c.p += MAGIC_LEN;
	version = cursor_get32(&c);
	if (version != VERSION)
		return err_set(e, -EPROTONOSUPPORT, ERR_FORMAT, "format version %u, this program knows %u", version,
		               VERSION);
	if (len != IMAGE_SIZE)
		return err_set(e, -EBADMSG, ERR_FORMAT, "damaged: length");
	memcpy(image, buf, IMAGE_SIZE);
	return image_info(image, info, e);
}

/* --- MAC --------------------------------------------------------------------------------------------------------- */

static int image_mac(const uint8_t *image, const uint8_t *root, uint8_t mac[MAC_LEN])
{
	__attribute__((cleanup(secret_cleanup))) uint8_t *key = keys_secret_alloc(KEYS_LEN);

	if (!key)
		return -ENOMEM;
	keys_derive(root, KEY_SUPERBLOCK, 0, "mac", 3, key);
	(void)crypto_generichash(mac, MAC_LEN, image, MAC_AT, key, KEYS_LEN);
	return 0;
}

int image_authenticate(const uint8_t *image, const uint8_t root[KEYS_LEN])
{
	uint8_t mac[MAC_LEN];
	int ret = image_mac(image, root, mac);

	return !ret && sodium_memcmp(mac, image + MAC_AT, MAC_LEN) != 0 ? -EBADMSG : ret;
}

int image_finish(uint8_t *image, const uint8_t root[KEYS_LEN])
{
	int ret = image_mac(image, root, image + MAC_AT);

	if (!ret)
		checksum(image, IMAGE_SIZE, image + IMAGE_SIZE - CHECKSUM_LEN);
	return ret;
}

/* --- master keys ------------------------------------------------------------------------------------------------- */

struct master {
	uint32_t epoch;
	int64_t created;
	uint8_t nonce[NONCE_LEN], wrapped[WRAPPED_LEN];
};

static void master_aad(const uint8_t *record, const uint8_t *uuid, uint8_t aad[MASTER_AAD_LEN])
{
	memcpy(aad, uuid, SUPERBLOCK_UUID);
	memcpy(aad + SUPERBLOCK_UUID, record, MASTER_HEADER_LEN);
}

static void master_encode(uint8_t *record, const struct master *m)
{
	struct cursor c = cursor_writer(record, MASTER_SIZE);

	memset(record, 0, MASTER_SIZE);
	cursor_put32(&c, m->epoch);
	cursor_put32(&c, 0);
	cursor_put64(&c, (uint64_t)m->created);
	cursor_put(&c, m->nonce, sizeof(m->nonce));
	cursor_put(&c, m->wrapped, sizeof(m->wrapped));
}

static int master_seal(uint8_t *record, uint32_t epoch, int64_t created, const uint8_t *uuid, const uint8_t *root)
{
	__attribute__((cleanup(secret_cleanup))) uint8_t *keys = keys_secret_alloc((size_t)2 * KEYS_LEN);
	struct master m = {.epoch = epoch, .created = created};
	uint8_t aad[MASTER_AAD_LEN];

	if (!keys)
		return -ENOMEM;
	keys_derive(root, KEY_SUPERBLOCK, 0, "master", 6, keys);
	keys_random(keys + KEYS_LEN, KEYS_LEN);
	keys_random(m.nonce, sizeof(m.nonce));
	master_encode(record, &m);
	master_aad(record, uuid, aad);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(m.wrapped, NULL, keys + KEYS_LEN, KEYS_LEN, aad, sizeof(aad),
	                                                 NULL, m.nonce, keys);
	master_encode(record, &m);
	return 0;
}

static int master_open(const uint8_t *record, const uint8_t *uuid, const uint8_t *wrap_key, struct keyring *k)
{
	struct cursor c = cursor_reader(record, MASTER_SIZE);
	struct master m = {.epoch = cursor_get32(&c)};
	uint8_t aad[MASTER_AAD_LEN], *key;

	if (!m.epoch)
		return 0;
	(void)cursor_get32(&c);
	m.created = (int64_t)cursor_get64(&c);
	cursor_get(&c, m.nonce, sizeof(m.nonce));
	cursor_get(&c, m.wrapped, sizeof(m.wrapped));
	master_aad(record, uuid, aad);
	key = keyring_add(k, m.epoch);
	if (!key || crypto_aead_xchacha20poly1305_ietf_decrypt(key, NULL, NULL, m.wrapped, sizeof(m.wrapped), aad,
	                                                       sizeof(aad), m.nonce, wrap_key))
		return -EBADMSG;
	return 0;
}

int image_masters_open(const uint8_t *image, const uint8_t *uuid, struct keyring *k, struct err *e)
{
	__attribute__((cleanup(secret_cleanup))) uint8_t *wrap_key = keys_secret_alloc(KEYS_LEN);
	struct cursor c = cursor_reader(image + EPOCH_AT, 8);
	uint32_t current = cursor_get32(&c), of_index = cursor_get32(&c);
	int ret = 0;

	if (!wrap_key)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for keys");
	keys_derive(keyring_root(k), KEY_SUPERBLOCK, 0, "master", 6, wrap_key);
	for (size_t i = 0; i < KEYRING_EPOCHS && !ret; i++)
		ret = master_open(image + MASTERS_AT + i * MASTER_SIZE, uuid, wrap_key, k);
	if (ret || keyring_set_epoch(k, of_index) || keyring_set_epoch(k, current))
		return err_set(e, -EBADMSG, ERR_AUTH, "the superblock's master keys are damaged");
	return 0;
}

/* --- making ------------------------------------------------------------------------------------------------------ */

static void header_encode(uint8_t *image, const struct superblock_info *info, uint32_t epoch)
{
	struct cursor c = cursor_writer(image, SLOTS_AT);

	cursor_put(&c, magic, sizeof(magic));
	cursor_put32(&c, VERSION);
	cursor_put32(&c, IMAGE_SIZE);
	cursor_put64(&c, FEATURES_HERE);
	cursor_put64(&c, 0);
	cursor_put(&c, info->uuid, sizeof(info->uuid));
	cursor_put32(&c, (uint32_t)info->suite);
	cursor_put32(&c, info->page_size);
	cursor_put64(&c, (uint64_t)info->created);
	cursor_put32(&c, epoch);
	cursor_put32(&c, info->index_epoch);
	cursor_put64(&c, 1); /* generation */
}

int image_make(uint8_t *image, const struct superblock_info *info, const struct superblock_slot *first,
               const uint8_t root[KEYS_LEN], struct err *e)
{
	struct slot_place at = {info->uuid, 0};
	int ret;

	header_encode(image, info, 1);
	ret = slot_seal(image_slot(image, 0), at, first, root, e);
	if (!ret)
		ret = master_seal(image + MASTERS_AT, 1, info->created, info->uuid, root);
	return ret ? ret : image_finish(image, root);
}
