#include "base/cursor.h"
#include "pipeline/keys.h"
#include "pipeline/segment.h"

#include <errno.h>
#include <string.h>

#define VERSION    1
#define MAGIC      "APFSSEG1"
#define MAGIC_LEN  8u
#define SALT       24u
#define BOUND_LEN  64u /* bytes between magic and commitment: all of them go into the commitment */
#define COMMIT_OFF (MAGIC_LEN + BOUND_LEN)

_Static_assert(COMMIT_OFF + KEYS_LEN == SEGMENT_HEADER_LEN, "the header's layout");
_Static_assert(SEGMENT_HEADER_LEN <= PIPELINE_HEADER_MAX, "the header's room");

/* Both are subkeys of the master key: the commitment says which key it is without telling anything of it. */
static int derive(const struct keyring *keyring, uint32_t epoch, const uint8_t *bytes, uint8_t commit[KEYS_LEN],
                  uint8_t key[CIPHER_KEY])
{
	int ret = keyring_subkey(keyring, epoch, KEY_SEGMENT, bytes + COMMIT_OFF - SALT, SALT, key);

	return ret ? ret : keyring_subkey(keyring, epoch, KEY_SEGMENT_COMMIT, bytes + MAGIC_LEN, BOUND_LEN, commit);
}

int segment_header_make(const struct keyring *keyring, const uint8_t uuid[SUPERBLOCK_UUID],
                        enum pipeline_segment_kind kind, enum cipher_suite suite, struct segment_header *h,
                        uint8_t *bytes, uint8_t key[CIPHER_KEY])
{
	struct cursor c = cursor_writer(bytes, SEGMENT_HEADER_LEN);
	uint8_t commit[KEYS_LEN], salt[SALT];

	*h = (struct segment_header){.kind = kind, .suite = suite, .epoch = keyring_epoch(keyring)};
	keys_random(h->name, sizeof(h->name));
	keys_random(salt, sizeof(salt));
	cursor_put(&c, MAGIC, MAGIC_LEN);
	cursor_put16(&c, VERSION);
	cursor_put8(&c, (uint8_t)kind);
	cursor_put8(&c, (uint8_t)suite);
	cursor_put32(&c, h->epoch);
	cursor_put(&c, uuid, SUPERBLOCK_UUID);
	cursor_put(&c, h->name, sizeof(h->name));
	cursor_put(&c, salt, sizeof(salt));
	int ret = derive(keyring, h->epoch, bytes, commit, key);
	if (ret)
		return ret;
	cursor_put(&c, commit, sizeof(commit));
	return c.bad ? -EIO : 0;
}

int segment_header_open(const struct keyring *keyring, const uint8_t uuid[SUPERBLOCK_UUID], const uint8_t *bytes,
                        size_t len, const char *path, struct segment_header *h, uint8_t key[CIPHER_KEY], struct err *e)
{
	struct cursor c = cursor_reader(bytes, len);
	uint8_t magic[MAGIC_LEN], owner[SUPERBLOCK_UUID], salt[SALT], commit[KEYS_LEN], want[KEYS_LEN];

	cursor_get(&c, magic, sizeof(magic));
	uint16_t version = cursor_get16(&c);
	if (c.bad || memcmp(magic, MAGIC, MAGIC_LEN) != 0)
		return err_set(e, -EBADMSG, ERR_FORMAT, "%s: not a segment", path);
	if (version != VERSION)
		return err_set(e, -EPROTONOSUPPORT, ERR_FORMAT, "%s: segment format %u is newer than this program",
		               path, version);
	uint8_t kind = cursor_get8(&c), suite = cursor_get8(&c);
	h->epoch = cursor_get32(&c);
	cursor_get(&c, owner, sizeof(owner));
	cursor_get(&c, h->name, sizeof(h->name));
	cursor_get(&c, salt, sizeof(salt));
	cursor_get(&c, commit, sizeof(commit));
	if (c.bad)
		return err_set(e, -EBADMSG, ERR_FORMAT, "%s: the segment's header is cut short", path);
	if (memcmp(owner, uuid, SUPERBLOCK_UUID) != 0)
		return err_set(e, -EBADMSG, ERR_FORMAT, "%s: the segment belongs to another store", path);
	h->kind = (enum pipeline_segment_kind)kind;
	h->suite = (enum cipher_suite)suite;

	int ret = derive(keyring, h->epoch, bytes, want, key);
	if (ret == -ENOKEY)
		return err_set(e, -EBADMSG, ERR_AUTH, "%s: no key of epoch %u", path, h->epoch);
	if (ret)
		return err_set(e, ret, ERR_KEY, "%s: cannot derive the segment's key", path);
	if (memcmp(want, commit, KEYS_LEN) != 0)
		return err_set(e, -EBADMSG, ERR_AUTH, "%s: the segment's header is not authentic", path);
	if (kind > PIPELINE_SEGMENT_INLINE || !cipher_nonce_len(h->suite))
		return err_set(e, -EPROTONOSUPPORT, ERR_FORMAT, "%s: unknown kind %u or suite %u", path, kind, suite);
	return 0;
}
