#include "pipeline/superblock.h"

#include "base/clock.h"
#include "base/cursor.h"
#include "base/log.h"
#include "pipeline/keyring.h"
#include "pipeline/slot.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define VERSION       1u
#define FEATURES_HERE 0u /* required features that this build knows */
#define PAGE_MIN      512u
#define PAGE_MAX      65536u

/* The image's offsets. Magic, version and the checksum at the end stay where they are in every version. */
#define IMAGE_SIZE    8192
#define IMAGE_MAX     65536 /* of another version */
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
static const char *const paths[2] = {"superblock", "superblock.bak"};

struct copy {
	bool valid; /* structurally */
	uint8_t image[IMAGE_SIZE];
};

struct superblock {
	struct copy copy[2];
	unsigned active; /* which of them info is from */
	struct superblock_info info;
};

static void secret_cleanup(uint8_t **secret)
{
	keys_secret_free(*secret);
}

static uint8_t *slot_at(uint8_t *image, unsigned number)
{
	return image + SLOTS_AT + (size_t)number * SLOT_SIZE;
}

/* --- what can be read without a key ------------------------------------------------------------------------------ */

static void checksum(const uint8_t *image, size_t len, uint8_t out[CHECKSUM_LEN])
{
	(void)crypto_generichash(out, CHECKSUM_LEN, image, len - CHECKSUM_LEN, NULL, 0);
}

static int info_decode(const uint8_t *image, struct superblock_info *info, struct err *e)
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
	if (c.bad || size != IMAGE_SIZE || info->page_size < PAGE_MIN || info->page_size > PAGE_MAX ||
	    info->page_size & (info->page_size - 1))
		return err_set(e, -EBADMSG, ERR_FORMAT, "damaged: impossible sizes");
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++) {
		const uint8_t *record = image + SLOTS_AT + (size_t)i * SLOT_SIZE;

		if (slot_type(record) == SLOT_EMPTY)
			continue;
		info->slot[info->slots].number = i;
		info->slot[info->slots].type = slot_type(record);
		info->slot[info->slots++].kdf = slot_kdf(record);
	}
	return 0;
}

/* Whether buf is a superblock of this version; copies it to image if so. */
static int image_verify(const uint8_t *buf, size_t len, uint8_t image[IMAGE_SIZE], struct superblock_info *info,
                        struct err *e)
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
	return info_decode(image, info, e);
}

static int copy_read(struct io *io, const char *path, struct copy *copy, struct superblock_info *info, struct err *e)
{
	void *buf = NULL;
	size_t len = 0;
	int ret = io_read_file(io, path, IMAGE_MAX, &buf, &len);

	if (ret == -EFBIG)
		return err_set(e, -EBADMSG, ERR_FORMAT, "damaged: length");
	if (ret)
		return err_set(e, ret, ERR_IO, "cannot be read: %s", strerror(-ret));
	ret = image_verify(buf, len, copy->image, info, e);
	copy->valid = !ret;
	free(buf);
	return ret;
}

/* The one error that two unusable copies come to. */
static int open_failure(const int ret[2], const struct err why[2], struct err *e)
{
	if (ret[0] == -ENOENT && ret[1] == -ENOENT)
		return err_set(e, -ENOENT, ERR_FORMAT, "there is no superblock: not a store");
	for (unsigned i = 0; i < 2; i++) {
		if (ret[i] != -ENOENT && ret[i] != -EBADMSG)
			return err_set(e, ret[i], why[i].domain, "%s: %s", paths[i], err_text(&why[i], ret[i]));
	}
	return err_set(e, -EBADMSG, ERR_FORMAT, "superblock: %s; superblock.bak: %s", err_text(&why[0], ret[0]),
	               err_text(&why[1], ret[1]));
}

int superblock_open(struct io *io, struct superblock **out, struct err *e)
{
	struct superblock *sb = calloc(1, sizeof(*sb));
	struct superblock_info info[2];
	struct err why[2];
	int ret[2];

	if (!sb)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the superblock");
	for (unsigned i = 0; i < 2; i++) {
		err_reset(&why[i]);
		ret[i] = copy_read(io, paths[i], &sb->copy[i], &info[i], &why[i]);
	}
	/* A whole first copy of a newer format decides; its sibling may be a leftover. */
	if (ret[0] && (ret[0] == -EPROTONOSUPPORT || ret[1])) {
		free(sb);
		return open_failure(ret, why, e);
	}
	sb->active = ret[0] ? 1 : 0;
	if (ret[0])
		log_warn("superblock: %s; using superblock.bak", err_text(&why[0], ret[0]));
	else if (ret[1])
		log_warn("superblock.bak: %s", err_text(&why[1], ret[1]));
	sb->info = info[sb->active];
	*out = sb;
	return 0;
}

void superblock_free(struct superblock *sb)
{
	free(sb);
}

const struct superblock_info *superblock_info(const struct superblock *sb)
{
	return &sb->info;
}

/* --- the root key and what it guards ----------------------------------------------------------------------------- */

static int image_mac(const uint8_t *image, const uint8_t *root, uint8_t mac[MAC_LEN])
{
	__attribute__((cleanup(secret_cleanup))) uint8_t *key = keys_secret_alloc(KEYS_LEN);

	if (!key)
		return -ENOMEM;
	keys_derive(root, KEY_SUPERBLOCK, 0, "mac", 3, key);
	(void)crypto_generichash(mac, MAC_LEN, image, MAC_AT, key, KEYS_LEN);
	return 0;
}

/* Closes an image after a change. */
static int image_finish(uint8_t *image, const uint8_t *root)
{
	int ret = image_mac(image, root, image + MAC_AT);

	if (!ret)
		checksum(image, IMAGE_SIZE, image + IMAGE_SIZE - CHECKSUM_LEN);
	return ret;
}

/* The root key from whichever slot takes the passphrase; every slot is tried, so that the time does not tell which. */
static int image_find_root(uint8_t *image, const uint8_t *uuid, const void *pass, size_t pass_len, uint8_t *root,
                           unsigned *number, struct err *e)
{
	__attribute__((cleanup(secret_cleanup))) uint8_t *found = keys_secret_alloc(KEYS_LEN);
	struct err why, first;
	int failed = 0;
	bool taken = false;

	if (!found)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for keys");
	err_reset(&first);
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++) {
		struct slot_place at = {uuid, i};
		int ret;

		if (slot_type(slot_at(image, i)) != SLOT_PASSPHRASE)
			continue;
		err_reset(&why);
		ret = slot_open(slot_at(image, i), at, pass, pass_len, found, &why);
		if (!ret && !taken) {
			memcpy(root, found, KEYS_LEN);
			*number = i;
			taken = true;
		} else if (ret && ret != -EKEYREJECTED) {
			log_warn("superblock: %s", err_text(&why, ret));
			first = failed ? first : why;
			failed = failed ? failed : ret;
		}
	}
	if (taken)
		return 0;
	if (failed == -ENOMEM)
		return err_set(e, failed, ERR_MEMORY, "%s", err_text(&first, failed));
	return err_set(e, -EKEYREJECTED, ERR_KEY, "%s",
	               failed ? err_text(&first, failed) : "no key slot takes this passphrase");
}

static int image_unlock(uint8_t *image, const uint8_t *uuid, const void *pass, size_t pass_len, uint8_t *root,
                        unsigned *number, struct err *e)
{
	uint8_t mac[MAC_LEN];
	int ret = image_find_root(image, uuid, pass, pass_len, root, number, e);

	if (!ret)
		ret = image_mac(image, root, mac);
	if (!ret && sodium_memcmp(mac, image + MAC_AT, MAC_LEN) != 0)
		ret = err_set(e, -EBADMSG, ERR_AUTH, "the superblock is not authentic: it was changed without the key");
	return ret;
}

/* Unlocks the active copy or, where that one fails and its sibling is another, the sibling, which is then active. */
static int superblock_root(struct superblock *sb, const void *pass, size_t pass_len, uint8_t *root, unsigned *number,
                           struct err *e)
{
	struct copy *other = &sb->copy[!sb->active];
	struct superblock_info info;
	struct err why;
	int ret;

	err_reset(&why);
	ret = image_unlock(sb->copy[sb->active].image, sb->info.uuid, pass, pass_len, root, number, &why);
	if ((ret == -EKEYREJECTED || ret == -EBADMSG) && other->valid &&
	    memcmp(sb->copy[0].image, sb->copy[1].image, IMAGE_SIZE) != 0 && !info_decode(other->image, &info, NULL) &&
	    !image_unlock(other->image, info.uuid, pass, pass_len, root, number, NULL)) {
		log_warn("%s: %s; using %s", paths[sb->active], err_text(&why, ret), paths[!sb->active]);
		sb->active = !sb->active;
		sb->info = info;
		return 0;
	}
	return ret ? err_set(e, ret, why.domain, "%s", err_text(&why, ret)) : 0;
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

/* Fills a keyring that has its root key. */
static int image_masters_open(const uint8_t *image, const uint8_t *uuid, struct keyring *k, struct err *e)
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

int superblock_unlock(struct superblock *sb, const void *pass, size_t pass_len, struct keyring **out, struct err *e)
{
	struct keyring *k;
	unsigned number;
	int ret = keyring_new(&k);

	if (ret)
		return err_set(e, ret, ERR_MEMORY, "no memory for keys");
	ret = superblock_root(sb, pass, pass_len, keyring_root(k), &number, e);
	if (!ret)
		ret = image_masters_open(sb->copy[sb->active].image, sb->info.uuid, k, e);
	if (ret) {
		keyring_free(k);
		return ret;
	}
	*out = k;
	return 0;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

/* .bak first: until the second write is durable the first copy is the old one, whole. */
static int image_write(struct io *io, const uint8_t *image, struct err *e)
{
	for (int i = 1; i >= 0; i--) {
		int ret = io_replace_file(io, paths[i], image, IMAGE_SIZE);

		if (ret)
			return err_set(e, ret, ERR_IO, "%s cannot be written: %s", paths[i], strerror(-ret));
	}
	return 0;
}

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

/* A whole image around a root key. */
static int image_make(uint8_t *image, const struct superblock_info *info, struct superblock_kdf kdf, const void *pass,
                      size_t pass_len, const uint8_t *root, struct err *e)
{
	struct slot_place at = {info->uuid, 0};
	int ret;

	header_encode(image, info, 1);
	ret = slot_seal(slot_at(image, 0), at, kdf, pass, pass_len, root, e);
	if (!ret)
		ret = master_seal(image + MASTERS_AT, 1, info->created, info->uuid, root);
	return ret ? ret : image_finish(image, root);
}

/* Fills a superblock and a keyring that have nothing yet. */
static int superblock_make(struct superblock *sb, struct superblock_info *info, struct superblock_kdf kdf,
                           const void *pass, size_t pass_len, struct keyring *k, struct err *e)
{
	uint8_t *image = sb->copy[0].image;
	int ret;

	keys_random(info->uuid, sizeof(info->uuid));
	info->uuid[6] = (uint8_t)((info->uuid[6] & 0x0F) | 0x40); /* RFC 4122, version 4 */
	info->uuid[8] = (uint8_t)((info->uuid[8] & 0x3F) | 0x80);
	info->created = clock_system.now(&clock_system).sec;
	keys_random(keyring_root(k), KEYS_LEN);
	ret = image_make(image, info, kdf, pass, pass_len, keyring_root(k), e);
	if (!ret)
		ret = image_masters_open(image, info->uuid, k, e);
	if (!ret)
		ret = info_decode(image, &sb->info, e);
	sb->copy[1] = sb->copy[0];
	return ret;
}

int superblock_new(struct io *io, enum cipher_suite suite, uint32_t page_size, struct superblock_kdf kdf,
                   const void *pass, size_t pass_len, struct superblock **out, struct keyring **keyring, struct err *e)
{
	struct superblock_info info = {.suite = cipher_suite_choose(suite), .page_size = page_size, .index_epoch = 1};
	struct superblock *sb;
	struct keyring *k;
	struct io_stat st;
	int ret;

	if (!cipher_nonce_len(info.suite) || page_size < PAGE_MIN || page_size > PAGE_MAX ||
	    page_size & (page_size - 1))
		return err_set(e, -EINVAL, ERR_USAGE, "no such cipher suite or page size");
	for (unsigned i = 0; i < 2; i++) {
		ret = io_stat(io, paths[i], &st);
		if (ret != -ENOENT)
			return err_set(e, ret ? ret : -EEXIST, ERR_USAGE, "%s: %s", paths[i],
			               ret ? strerror(-ret) : "there is a store here already");
	}
	ret = slot_kdf_resolve(&kdf, e);
	if (ret)
		return ret;
	sb = calloc(1, sizeof(*sb));
	if (!sb || keyring_new(&k)) {
		free(sb);
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the superblock");
	}
	ret = superblock_make(sb, &info, kdf, pass, pass_len, k, e);
	if (ret) {
		keyring_free(k);
		superblock_free(sb);
		return ret;
	}
	*out = sb;
	*keyring = k;
	return 0;
}

int superblock_write(struct io *io, struct superblock *sb, struct err *e)
{
	int ret = image_write(io, sb->copy[sb->active].image, e);

	for (unsigned i = 0; i < 2; i++) {
		int left = ret ? io_unlink(io, paths[i]) : 0;

		if (left && left != -ENOENT)
			log_warn("%s: half a store is left behind: %s", paths[i], strerror(-left));
		sb->copy[i].valid = !ret;
	}
	return ret;
}

static void generation_advance(uint8_t *image)
{
	struct cursor r = cursor_reader(image + GENERATION_AT, 8), w = cursor_writer(image + GENERATION_AT, 8);

	cursor_put64(&w, cursor_get64(&r) + 1);
}

int superblock_passwd(struct io *io, struct superblock *sb, const void *old, size_t old_len, const void *new_pass,
                      size_t new_len, struct superblock_kdf kdf, struct err *e)
{
	__attribute__((cleanup(secret_cleanup))) uint8_t *root = keys_secret_alloc(KEYS_LEN);
	struct slot_place at = {sb->info.uuid, 0};
	uint8_t image[IMAGE_SIZE];
	int ret;

	if (!root)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for keys");
	ret = slot_kdf_resolve(&kdf, e);
	if (!ret)
		ret = superblock_root(sb, old, old_len, root, &at.number, e);
	if (ret)
		return ret;
	memcpy(image, sb->copy[sb->active].image, IMAGE_SIZE);
	ret = slot_seal(slot_at(image, at.number), at, kdf, new_pass, new_len, root, e);
	if (ret)
		return ret;
	generation_advance(image);
	ret = image_finish(image, root);
	if (!ret)
		ret = image_write(io, image, e);
	if (ret)
		return ret;
	for (unsigned i = 0; i < 2; i++) {
		memcpy(sb->copy[i].image, image, IMAGE_SIZE);
		sb->copy[i].valid = true;
	}
	return info_decode(image, &sb->info, e);
}
