/* Making and changing superblocks. */
#include "pipeline/superblock_image.h"

#include "base/clock.h"
#include "base/log.h"
#include "pipeline/keyring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* .bak first: until the second write is durable the first copy is the old one, whole. */
static int image_write(struct io *io, const uint8_t *image, struct err *e)
{
	for (int i = 1; i >= 0; i--) {
		int ret = io_replace_file(io, superblock_paths[i], 0, image, IMAGE_SIZE);

		if (ret)
			return err_set(e, ret, ERR_IO, "%s cannot be written: %s", superblock_paths[i], strerror(-ret));
	}
	return 0;
}

/* Fills a superblock and a keyring that have nothing yet. */
static int superblock_make(struct superblock *sb, struct superblock_info *info, const struct superblock_slot *first,
                           struct keyring *k, struct err *e)
{
	uint8_t *image = sb->copy[0].image;
	int ret;

	keys_random(info->uuid, sizeof(info->uuid));
	info->uuid[6] = (uint8_t)((info->uuid[6] & 0x0F) | 0x40); /* RFC 4122, version 4 */
	info->uuid[8] = (uint8_t)((info->uuid[8] & 0x3F) | 0x80);
	info->created = clock_system.now(&clock_system).sec;
	keys_random(keyring_root(k), KEYS_LEN);
	ret = image_make(image, info, first, keyring_root(k), e);
	if (!ret)
		ret = image_masters_open(image, info->uuid, k, e);
	if (!ret)
		ret = image_info(image, &sb->info, e);
	sb->copy[1] = sb->copy[0];
	return ret;
}

int superblock_new(struct io *io, enum cipher_suite suite, uint32_t page_size, const struct superblock_slot *first,
                   struct superblock **out, struct keyring **keyring, struct err *e)
{
	struct superblock_info info = {.suite = cipher_suite_choose(suite), .page_size = page_size, .index_epoch = 1};
	struct superblock *sb;
	struct keyring *k;
	struct io_stat st;
	int ret;

	if (!cipher_nonce_len(info.suite) || page_size < IMAGE_PAGE_MIN || page_size > IMAGE_PAGE_MAX ||
	    page_size & (page_size - 1))
		return err_set(e, -EINVAL, ERR_USAGE, "no such cipher suite or page size");
	for (unsigned i = 0; i < 2; i++) {
		ret = io_stat(io, superblock_paths[i], &st);
		if (ret != -ENOENT)
			return err_set(e, ret ? ret : -EEXIST, ERR_USAGE, "%s: %s", superblock_paths[i],
			               ret ? strerror(-ret) : "there is a store here already");
	}
	sb = calloc(1, sizeof(*sb));
	if (!sb || keyring_new(&k)) {
		free(sb);
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the superblock");
	}
	ret = superblock_make(sb, &info, first, k, e);
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
		int left = ret ? io_unlink(io, superblock_paths[i]) : 0;

		if (left && left != -ENOENT)
			log_warn("%s: half a store is left behind: %s", superblock_paths[i], strerror(-left));
		sb->copy[i].ret = ret ? -ENOENT : 0;
	}
	return ret;
}

/* --- changing slots ----------------------------------------------------------------------------------------------- */

#define LOCK "superblock.lock" /* the two files are replaced: a lock on them would be one on what is gone */

static void lock_release(struct io_file **lock)
{
	io_close(*lock);
}

static int lock_take(struct io *io, struct io_file **lock, struct err *e)
{
	int ret = io_open(io, LOCK, IO_WRITE | IO_CREATE | IO_LOCK, lock);

	if (ret == -EBUSY)
		return err_set(e, ret, ERR_BUSY, "another process is changing the key slots");
	return ret ? err_set(e, ret, ERR_IO, LOCK " cannot be opened: %s", strerror(-ret)) : 0;
}

/* Which copy is the one that sb was unlocked with or, where that one is gone, the newest that is authentic. */
static int copy_choose(struct superblock *now, const uint8_t *before, const uint8_t *root)
{
	int best = -EBADMSG;

	for (int i = 0; i < 2; i++) {
		const uint8_t *image = now->copy[i].image;
		int ret = now->copy[i].ret ? -EBADMSG : image_authenticate(image, root);

		if (ret == -ENOMEM)
			return ret;
		if (!ret && memcmp(image, before, IMAGE_SIZE) == 0)
			return i;
		if (!ret && (best < 0 || image_generation(image) > image_generation(now->copy[best].image)))
			best = i;
	}
	return best;
}

/* Reads both copies again. */
static int superblock_reload(struct io *io, struct superblock *sb, const uint8_t *root, struct err *e)
{
	struct superblock *now;
	int ret = superblock_open(io, &now, e);

	if (ret)
		return ret;
	int chosen = copy_choose(now, sb->copy[sb->active].image, root);
	if (chosen < 0)
		ret = err_set(e, chosen, ERR_AUTH, "the superblock is not authentic any more");
	else
		ret = image_info(now->copy[chosen].image, &now->info, e);
	if (!ret) {
		now->active = (unsigned)chosen;
		now->slot = sb->slot;
		*sb = *now;
	}
	superblock_free(now);
	return ret;
}

static bool slot_same(uint8_t *a, uint8_t *b, unsigned number)
{
	return memcmp(image_slot(a, number), image_slot(b, number), SLOT_SIZE) == 0;
}

/* Whether the other copy is there to be written anew: not where it is of a newer format, or could not be looked at. */
static bool copy_mendable(const struct superblock *sb)
{
	int ret = sb->copy[!sb->active].ret;

	return ret == -ENOENT || ret == -EBADMSG || ret == -EIO ||
	       (!ret && memcmp(sb->copy[0].image, sb->copy[1].image, IMAGE_SIZE) != 0);
}

/* Makes both copies the one that counts: what a change that was cut off left must not come back after the next. */
static int copy_mend(struct io *io, struct superblock *sb, struct err *e)
{
	const char *path = superblock_paths[!sb->active];

	if (!copy_mendable(sb))
		return 0;
	int ret = io_replace_file(io, path, 0, sb->copy[sb->active].image, IMAGE_SIZE);
	if (ret)
		return err_set(e, ret, ERR_IO, "%s cannot be written: %s", path, strerror(-ret));
	memcpy(sb->copy[!sb->active].image, sb->copy[sb->active].image, IMAGE_SIZE);
	sb->copy[!sb->active].ret = 0;
	log_warn("%s was damaged or out of date: written anew from %s", path, superblock_paths[sb->active]);
	return 0;
}

/* Whether the other copy may be written over. Not if it is of a newer format or nobody knows what it is; and a whole
 * one under another root key may be the right one, and what was unlocked a stray of another store. */
static int copy_check(const struct superblock *sb, const uint8_t *root, struct err *e)
{
	int ret = sb->copy[!sb->active].ret;

	if (ret && copy_mendable(sb))
		return 0;
	if (ret)
		return err_set(e, ret, ret == -EPROTONOSUPPORT ? ERR_FORMAT : ERR_IO,
		               "%s is of a newer format or cannot be read: it is not written over",
		               superblock_paths[!sb->active]);
	ret = image_authenticate(sb->copy[!sb->active].image, root);
	if (ret == -EBADMSG)
		return err_set(
		    e, ret, ERR_AUTH,
		    "superblock and superblock.bak are under different keys: mount the store once, which puts "
		    "the right one in both places");
	return ret;
}

/* Takes the lock and reads the superblock again. `number` is the slot that it is about, or the one that was unlocked.
 */
static int change_begin(struct io *io, struct superblock *sb, const struct keyring *k, unsigned number,
                        struct io_file **lock, struct err *e)
{
	const uint8_t *root = keyring_root_known(k);
	uint8_t before[IMAGE_SIZE], *now = sb->copy[sb->active].image;

	if (!root)
		return err_set(e, -ENOKEY, ERR_KEY, "the root key is not at hand any more");
	int ret = lock_take(io, lock, e);
	if (ret)
		return ret;
	memcpy(before, now, IMAGE_SIZE);
	ret = superblock_reload(io, sb, root, e);
	if (ret)
		return ret;
	now = sb->copy[sb->active].image;
	if (!slot_same(now, before, sb->slot) || !slot_same(now, before, number))
		return err_set(e, -ESTALE, ERR_BUSY, "another process has changed the key slot meanwhile");
	return 0;
}

/* The same, and gives the image to change. */
static int change_image(struct io *io, struct superblock *sb, const struct keyring *k, unsigned number, uint8_t *image,
                        struct io_file **lock, struct err *e)
{
	int ret = change_begin(io, sb, k, number, lock, e);

	if (!ret)
		ret = copy_check(sb, keyring_root_known(k), e);
	if (!ret)
		ret = copy_mend(io, sb, e);
	memcpy(image, sb->copy[sb->active].image, IMAGE_SIZE);
	return ret;
}

/* .bak first: until the second write is durable the first copy is the old one, whole. */
static int change_commit(struct io *io, struct superblock *sb, const struct keyring *k, uint8_t *image, struct err *e)
{
	image_set_generation(image, image_generation(image) + 1);
	int ret = image_finish(image, keyring_root_known(k));
	if (!ret)
		ret = image_write(io, image, e);
	for (unsigned i = 0; i < 2 && !ret; i++) {
		memcpy(sb->copy[i].image, image, IMAGE_SIZE);
		sb->copy[i].ret = 0;
	}
	return ret ? ret : image_info(image, &sb->info, e);
}

/* Seals a slot and opens it again: what would not open must not take the place of what does. */
static int slot_install(struct superblock *sb, const struct keyring *k, uint8_t *image, unsigned number,
                        const struct superblock_slot *slot, struct err *e)
{
	struct slot_place at = {sb->info.uuid, number};
	uint8_t *root = keys_secret_alloc(KEYS_LEN);

	if (!root)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for keys");
	int ret = slot_seal(image_slot(image, number), at, slot, keyring_root_known(k), e);
	if (!ret) {
		ret = slot_open(image_slot(image, number), at, slot->secret, root, e);
		if (ret == -EKEYREJECTED || (!ret && memcmp(root, keyring_root_known(k), KEYS_LEN) != 0))
			ret = err_set(e, -EIO, ERR_KEY,
			              "the new key slot does not open: this machine's memory may be bad");
	}
	keys_secret_free(root);
	return ret;
}

int superblock_slot_add(struct io *io, struct superblock *sb, const struct keyring *k,
                        const struct superblock_slot *slot, unsigned *number, struct err *e)
{
	__attribute__((cleanup(lock_release))) struct io_file *lock = NULL;
	struct superblock_slot_info there;
	uint8_t image[IMAGE_SIZE];
	unsigned n = 0;
	int ret = change_image(io, sb, k, sb->slot, image, &lock, e);

	if (ret)
		return ret;
	for (; n < SUPERBLOCK_SLOTS; n++) {
		slot_describe(image_slot(image, n), &there);
		if (there.type == SLOT_EMPTY)
			break;
	}
	if (n == SUPERBLOCK_SLOTS)
		return err_set(e, -EXFULL, ERR_USAGE, "all %d key slots are in use", SUPERBLOCK_SLOTS);
	ret = slot_install(sb, k, image, n, slot, e);
	if (!ret)
		ret = change_commit(io, sb, k, image, e);
	*number = n;
	return ret;
}

/* How many slots there are that this build can open. */
static unsigned slots_usable(const struct superblock_info *info)
{
	unsigned n = 0;

	for (unsigned i = 0; i < info->slots; i++)
		n += secret_type_name(info->slot[i].type) != NULL;
	return n;
}

int superblock_slot_remove(struct io *io, struct superblock *sb, const struct keyring *k, unsigned number,
                           struct err *e)
{
	__attribute__((cleanup(lock_release))) struct io_file *lock = NULL;
	struct superblock_slot_info there = {.type = SLOT_EMPTY};
	uint8_t image[IMAGE_SIZE];

	if (number >= SUPERBLOCK_SLOTS)
		return err_set(e, -ENXIO, ERR_USAGE, "key slots have the numbers 0 to %d", SUPERBLOCK_SLOTS - 1);
	int ret = change_image(io, sb, k, number, image, &lock, e);
	if (ret)
		return ret;
	slot_describe(image_slot(image, number), &there);
	if (there.type == SLOT_EMPTY)
		return err_set(e, -ENXIO, ERR_USAGE, "key slot %u is not in use", number);
	if (number == sb->slot && slots_usable(&sb->info) == 1)
		return err_set(e, -EPERM, ERR_USAGE, "the last key slot cannot be removed");
	if (number == sb->slot)
		return err_set(e, -EPERM, ERR_USAGE,
		               "key slot %u is the one that was opened: to remove it, open another one", number);
	memset(image_slot(image, number), 0, SLOT_SIZE);
	return change_commit(io, sb, k, image, e);
}

int superblock_slot_change(struct io *io, struct superblock *sb, const struct keyring *k,
                           const struct superblock_slot *slot, struct err *e)
{
	__attribute__((cleanup(lock_release))) struct io_file *lock = NULL;
	struct superblock_slot changed = *slot;
	struct superblock_slot_info there;
	uint8_t image[IMAGE_SIZE];
	int ret = change_image(io, sb, k, sb->slot, image, &lock, e);

	if (ret)
		return ret;
	slot_describe(image_slot(image, sb->slot), &there);
	if (!changed.kdf.ops)
		changed.kdf.ops = there.kdf.ops;
	if (!changed.kdf.mem)
		changed.kdf.mem = there.kdf.mem;
	if (!changed.label)
		changed.label = there.label;
	ret = slot_install(sb, k, image, sb->slot, &changed, e);
	return ret ? ret : change_commit(io, sb, k, image, e);
}

int superblock_repair(struct io *io, struct superblock *sb, const struct keyring *k, struct err *e)
{
	__attribute__((cleanup(lock_release))) struct io_file *lock = NULL;

	if (!copy_mendable(sb))
		return 0;
	int ret = change_begin(io, sb, k, sb->slot, &lock, e);
	if (ret == -EBUSY || ret == -ESTALE)
		return 0; /* whoever changes slots writes both */
	return ret ? ret : copy_mend(io, sb, e);
}
