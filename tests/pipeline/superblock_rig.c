#include "tests/pipeline/superblock_rig.h"

#include "base/log.h"
#include "tests/base/scratch.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct io *sbrig_io;
const struct superblock_kdf sbrig_cheap = {1, (uint64_t)8 << 20};

static char dir[SCRATCH_PATH];

uint64_t sbrig_get(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

void sbrig_load(const char *path, uint8_t *image)
{
	void *buf;
	size_t len;

	assert_int_equal(io_read_file(sbrig_io, path, 65536, &buf, &len), 0);
	assert_int_equal(len, SIZE);
	memcpy(image, buf, SIZE);
	free(buf);
}

void sbrig_store(const char *path, const uint8_t *image, size_t len)
{
	struct io_file *f;

	assert_int_equal(io_open(sbrig_io, path, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_truncate(f, len), 0);
	if (len)
		assert_int_equal(io_pwrite(f, image, len, 0), 0);
	io_close(f);
}

void sbrig_store_both(const uint8_t *image, size_t len)
{
	sbrig_store("superblock", image, len);
	sbrig_store("superblock.bak", image, len);
}

void sbrig_fix_checksum(uint8_t *image, size_t len)
{
	(void)crypto_generichash(image + len - 32, 32, image, len - 32, NULL, 0);
}

int sbrig_open(struct superblock **sb)
{
	struct err e;
	int ret;

	err_reset(&e);
	ret = superblock_open(sbrig_io, sb, &e);
	assert_int_equal(ret ? ret : 0, e.code);
	return ret;
}

int sbrig_unlock_secret(const struct secret *secret, uint8_t subkey[KEYS_LEN])
{
	struct superblock *sb;
	struct keyring *k;
	struct err e;
	int ret = sbrig_open(&sb);

	if (ret)
		return ret;
	err_reset(&e);
	ret = superblock_unlock(sb, secret, &k, &e);
	assert_int_equal(ret, e.code);
	if (!ret) {
		assert_int_equal(keyring_epoch(k), 1);
		assert_int_equal(keyring_subkey(k, 1, KEY_SEGMENT, "x", 1, subkey), 0);
		keyring_free(k);
	}
	superblock_free(sb);
	return ret;
}

int sbrig_unlock_with(const char *pass, size_t len, uint8_t subkey[KEYS_LEN])
{
	return sbrig_unlock_secret(&(struct secret){SECRET_PASSPHRASE, pass, len}, subkey);
}

int sbrig_unlock(const char *pass, uint8_t subkey[KEYS_LEN])
{
	return sbrig_unlock_with(pass, strlen(pass), subkey);
}

int sbrig_passwd(struct superblock *sb, const char *old_pass, const char *new_pass, struct err *e)
{
	const struct secret was = {SECRET_PASSPHRASE, old_pass, strlen(old_pass)};
	const struct secret is = {SECRET_PASSPHRASE, new_pass, strlen(new_pass)};
	struct keyring *k = NULL;
	int ret = superblock_unlock(sb, &was, &k, e);

	if (!ret)
		ret = superblock_slot_change(sbrig_io, sb, k, &(struct superblock_slot){.secret = &is}, e);
	keyring_free(k);
	return ret;
}

void sbrig_remove(void)
{
	int a = io_unlink(sbrig_io, "superblock"), b = io_unlink(sbrig_io, "superblock.bak");

	assert_true((!a || a == -ENOENT) && (!b || b == -ENOENT));
}

int sbrig_make(enum cipher_suite suite, uint32_t page_size, struct superblock_kdf kdf, const char *pass, size_t len,
               struct err *e)
{
	const struct secret secret = {SECRET_PASSPHRASE, pass, len};
	const struct superblock_slot first = {.secret = &secret, .kdf = kdf};
	struct superblock *sb;
	struct keyring *k;
	int ret = superblock_new(sbrig_io, suite, page_size, &first, &sb, &k, e);

	if (ret)
		return ret;
	assert_int_equal(superblock_info(sb)->index_epoch, 1);
	ret = superblock_write(sbrig_io, sb, e);
	keyring_free(k);
	superblock_free(sb);
	return ret;
}

void sbrig_create(uint8_t *image)
{
	struct err e;

	sbrig_remove();
	err_reset(&e);
	assert_int_equal(sbrig_make(CIPHER_XCHACHA20_POLY1305, 4096, sbrig_cheap, PASS, PASS_LEN, &e), 0);
	sbrig_load("superblock", image);
}

void sbrig_derive(const uint8_t *key, uint8_t purpose, const char *id, uint8_t *out)
{
	static const uint8_t person[16] = "apfs-subkey";
	const size_t id_len = strlen(id);
	uint8_t message[64] = {purpose, 0, 0, 0, 0, 0, 0, 0, (uint8_t)id_len};

	for (size_t i = 0; i < id_len; i++)
		message[12 + i] = (uint8_t)id[i];
	assert_int_equal(crypto_generichash_blake2b_salt_personal(out, 32, message, 12 + id_len, key, 32, NULL, person),
	                 0);
}

void sbrig_slot_key(const uint8_t *slot, uint8_t *out)
{
	assert_int_equal(crypto_pwhash(out, 32, PASS, PASS_LEN, slot + 24, sbrig_get(slot + 8, 4),
	                               sbrig_get(slot + 16, 8), crypto_pwhash_ALG_ARGON2ID13),
	                 0);
}

void sbrig_slot_aad(const uint8_t *image, uint8_t number, uint8_t aad[20 + SLOT_AAD])
{
	memcpy(aad, image + 32, 16);
	memset(aad + 16, 0, 4);
	aad[16] = number;
	memcpy(aad + 20, image + SLOTS + 256 * (size_t)number, SLOT_AAD);
}

void sbrig_open_slot(const uint8_t *image, uint8_t number, const uint8_t key[32], uint8_t root[32])
{
	const uint8_t *slot = image + SLOTS + 256 * (size_t)number;
	uint8_t wrap[32], commitment[32], aad[20 + SLOT_AAD];

	sbrig_derive(key, 64, "", wrap);
	sbrig_derive(key, 65, "", commitment);
	assert_memory_equal(commitment, slot + 40, 32);
	sbrig_slot_aad(image, number, aad);
	assert_int_equal(crypto_aead_xchacha20poly1305_ietf_decrypt(root, NULL, NULL, slot + 160, SLOT_SEALED, aad,
	                                                            sizeof(aad), slot + 136, wrap),
	                 0);
}

void sbrig_decode_root(const uint8_t *image, uint8_t root[32])
{
	uint8_t key[32];

	sbrig_slot_key(image + SLOTS, key);
	sbrig_open_slot(image, 0, key, root);
}

void sbrig_fix_mac(uint8_t *image, const uint8_t root[32])
{
	uint8_t key[32];

	sbrig_derive(root, 3, "mac", key);
	(void)crypto_generichash(image + MAC, 32, image, MAC, key, 32);
	sbrig_fix_checksum(image, SIZE);
}

void sbrig_put(uint8_t *p, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

int sbrig_set_up(void **state)
{
	(void)state;
	if (!scratch_new(dir) || keys_init(NULL) || io_posix_new(dir, &sbrig_io, NULL))
		return -1;
	return log_init(LOG_T_FILE, "/dev/null", LOG_L_WARN);
}

int sbrig_tear_down(void **state)
{
	(void)state;
	io_free(sbrig_io);
	log_release();
	scratch_free(dir);
	return 0;
}
