#include "pipeline/superblock_image.h"

#include "base/log.h"
#include "pipeline/keyring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_MAX 65536 /* of another version */

const char *const superblock_paths[2] = {"superblock", "superblock.bak"};

static int copy_read(struct io *io, const char *path, uint8_t image[IMAGE_SIZE], struct superblock_info *info,
                     struct err *e)
{
	void *buf = NULL;
	size_t len = 0;
	int ret = io_read_file(io, path, IMAGE_MAX, &buf, &len);

	if (ret == -EFBIG)
		return err_set(e, -EBADMSG, ERR_FORMAT, "damaged: length");
	if (ret)
		return err_set(e, ret, ERR_IO, "cannot be read: %s", strerror(-ret));
	ret = image_verify(buf, len, image, info, e);
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
			return err_set(e, ret[i], why[i].domain, "%s: %s", superblock_paths[i],
			               err_text(&why[i], ret[i]));
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
		ret[i] = copy_read(io, superblock_paths[i], sb->copy[i].image, &info[i], &why[i]);
		sb->copy[i].ret = ret[i];
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

/* --- the root key ------------------------------------------------------------------------------------------------- */

/* The root key from whichever slot takes the secret. A wrong one is tried on all of its type, so that neither time nor
 * text tells how far it came. */
static int image_find_root(uint8_t *image, const uint8_t *uuid, const struct secret *secret, uint8_t *root,
                           unsigned *number, struct err *e)
{
	struct err why, first;
	int failed = 0;

	err_reset(&first);
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++) {
		struct slot_place at = {uuid, i};
		struct superblock_slot_info slot;

		slot_describe(image_slot(image, i), &slot);
		if (slot.type != secret->type)
			continue;
		err_reset(&why);
		int ret = slot_open(image_slot(image, i), at, secret, root, &why);
		if (!ret) {
			*number = i;
			return 0;
		}
		if (ret != -EKEYREJECTED) {
			log_warn("superblock: %s", err_text(&why, ret));
			first = failed ? first : why;
			failed = failed ? failed : ret;
		}
	}
	if (failed == -ENOMEM)
		return err_set(e, failed, ERR_MEMORY, "%s", err_text(&first, failed));
	return err_set(e, -EKEYREJECTED, ERR_KEY, "no key slot takes this %s", secret_type_name(secret->type));
}

static int image_unlock(uint8_t *image, const uint8_t *uuid, const struct secret *secret, uint8_t *root,
                        unsigned *number, struct err *e)
{
	int ret = image_find_root(image, uuid, secret, root, number, e);

	if (!ret)
		ret = image_authenticate(image, root);
	if (ret == -EBADMSG)
		return err_set(e, ret, ERR_AUTH, "the superblock is not authentic: it was changed without the key");
	return ret ? err_set(e, ret, ERR_KEY, "%s", err_text(NULL, ret)) : 0;
}

static void superblock_switch(struct superblock *sb, const struct superblock_info *info)
{
	sb->active = !sb->active;
	sb->info = *info;
}

/* A change of slots that was cut off between the two files counts, unless it took away what unlocks the older one. */
static void superblock_take_newer(struct superblock *sb, const uint8_t *root)
{
	uint8_t *here = sb->copy[sb->active].image, *other = sb->copy[!sb->active].image;
	struct superblock_info info;

	if (!sb->copy[!sb->active].ret && image_generation(other) > image_generation(here) &&
	    memcmp(image_slot(other, sb->slot), image_slot(here, sb->slot), SLOT_SIZE) == 0 &&
	    !image_info(other, &info, NULL) && !image_authenticate(other, root)) {
		log_warn("%s is newer than %s: using it", superblock_paths[!sb->active], superblock_paths[sb->active]);
		superblock_switch(sb, &info);
	}
}

/* Unlocks the active copy or, where that one fails and its sibling is another, the sibling, which is then active. */
static int superblock_root(struct superblock *sb, const struct secret *secret, uint8_t *root, struct err *e)
{
	uint8_t *other = sb->copy[!sb->active].image;
	struct superblock_info info;
	struct err why;
	int ret;

	err_reset(&why);
	ret = image_unlock(sb->copy[sb->active].image, sb->info.uuid, secret, root, &sb->slot, &why);
	if (!ret) {
		superblock_take_newer(sb, root);
		return 0;
	}
	if ((ret == -EKEYREJECTED || ret == -EBADMSG) && !sb->copy[!sb->active].ret &&
	    memcmp(sb->copy[0].image, sb->copy[1].image, IMAGE_SIZE) != 0 && !image_info(other, &info, NULL) &&
	    !image_unlock(other, info.uuid, secret, root, &sb->slot, NULL)) {
		log_warn("%s: %s; using %s", superblock_paths[sb->active], err_text(&why, ret),
		         superblock_paths[!sb->active]);
		superblock_switch(sb, &info);
		return 0;
	}
	return err_set(e, ret, why.domain, "%s", err_text(&why, ret));
}

int superblock_unlock(struct superblock *sb, const struct secret *secret, struct keyring **out, struct err *e)
{
	struct keyring *k;
	int ret = keyring_new(&k);

	if (ret)
		return err_set(e, ret, ERR_MEMORY, "no memory for keys");
	ret = superblock_root(sb, secret, keyring_root(k), e);
	if (!ret)
		ret = image_masters_open(sb->copy[sb->active].image, sb->info.uuid, k, e);
	if (ret) {
		keyring_free(k);
		return ret;
	}
	*out = k;
	return 0;
}

unsigned superblock_unlocked(const struct superblock *sb)
{
	return sb->slot;
}
