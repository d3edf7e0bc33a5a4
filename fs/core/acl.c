/*
 * POSIX ACLs as the kernel passes them in extended attributes (linux/posix_acl_xattr.h, version 2, little-endian). The
 * kernel enforces them; mode, inheritance and chmod are the filesystem's. Rules: POSIX 1003.1e draft 17, section 23.
 */
#include "base/cursor.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <string.h>
#include <sys/stat.h>

#define ACL_ENTRIES_MAX 1024u
#define ACL_HEADER      4u
#define ACL_ENTRY       8u
#define ACL_BYTES_MAX   (ACL_HEADER + ACL_ENTRIES_MAX * ACL_ENTRY)

struct acl_walk {
	struct cursor cur;
	uint8_t *perm; /* of the current entry, for writing */
	uint16_t tag, bits;
};

static int walk_begin(struct acl_walk *w, const void *acl, size_t len)
{
	w->cur = cursor_reader(acl, len);
	if (len > ACL_BYTES_MAX || len < ACL_HEADER || (len - ACL_HEADER) % ACL_ENTRY)
		return -EINVAL;
	return cursor_get32(&w->cur) == POSIX_ACL_XATTR_VERSION ? 0 : -EOPNOTSUPP;
}

static bool walk_next(struct acl_walk *w)
{
	if (!cursor_left(&w->cur))
		return false;
	w->tag = cursor_get16(&w->cur);
	w->perm = w->cur.p;
	w->bits = cursor_get16(&w->cur);
	(void)cursor_get32(&w->cur);
	return true;
}

static void walk_set(struct acl_walk *w, uint32_t bits)
{
	w->perm[0] = (uint8_t)(bits & 7);
	w->perm[1] = 0;
	w->bits = (uint16_t)(bits & 7);
}

int acl_check(const void *acl, size_t len)
{
	struct acl_walk w;
	unsigned owner = 0, group = 0, other = 0, mask = 0, named = 0;
	int ret = walk_begin(&w, acl, len);

	if (ret)
		return ret;
	while (walk_next(&w)) {
		if (w.bits & ~7u)
			return -EINVAL;
		switch (w.tag) {
		case ACL_USER_OBJ:
			owner++;
			break;
		case ACL_GROUP_OBJ:
			group++;
			break;
		case ACL_OTHER:
			other++;
			break;
		case ACL_MASK:
			mask++;
			break;
		case ACL_USER:
		case ACL_GROUP:
			named++;
			break;
		default:
			return -EINVAL;
		}
	}
	if (owner != 1 || group != 1 || other != 1 || mask > 1 || (named && !mask))
		return -EINVAL;
	return 0;
}

int acl_to_mode(const void *acl, size_t len, uint32_t *mode, bool *trivial)
{
	struct acl_walk w;
	uint32_t m = *mode & ~0777u, group = 0, mask = 0;
	bool has_mask = false;
	int ret = acl_check(acl, len);

	if (ret)
		return ret;
	*trivial = len == ACL_HEADER + 3 * ACL_ENTRY;
	(void)walk_begin(&w, acl, len);
	while (walk_next(&w)) {
		if (w.tag == ACL_USER_OBJ)
			m |= (uint32_t)w.bits << 6;
		else if (w.tag == ACL_OTHER)
			m |= w.bits;
		else if (w.tag == ACL_GROUP_OBJ)
			group = w.bits;
		else if (w.tag == ACL_MASK) {
			mask = w.bits;
			has_mask = true;
		}
	}
	*mode = m | (has_mask ? mask : group) << 3;
	return 0;
}

static bool has_tag(const void *acl, size_t len, uint16_t tag)
{
	struct acl_walk w;

	if (walk_begin(&w, acl, len))
		return false;
	while (walk_next(&w))
		if (w.tag == tag)
			return true;
	return false;
}

int acl_chmod(void *acl, size_t len, uint32_t mode)
{
	struct acl_walk w;
	uint16_t group = has_tag(acl, len, ACL_MASK) ? ACL_MASK : ACL_GROUP_OBJ;
	int ret = acl_check(acl, len);

	if (ret)
		return ret;
	(void)walk_begin(&w, acl, len);
	while (walk_next(&w)) {
		if (w.tag == ACL_USER_OBJ)
			walk_set(&w, mode >> 6);
		else if (w.tag == group)
			walk_set(&w, mode >> 3);
		else if (w.tag == ACL_OTHER)
			walk_set(&w, mode);
	}
	return 0;
}

/* The default ACL's classes are narrowed to what the creating call's mode allows, and the mode becomes the result
 * (draft 23.5.3). */
static void inherit_mode(void *acl, size_t len, uint32_t *mode)
{
	struct acl_walk w;
	uint16_t group = has_tag(acl, len, ACL_MASK) ? ACL_MASK : ACL_GROUP_OBJ;
	uint32_t m = *mode;

	(void)walk_begin(&w, acl, len);
	while (walk_next(&w)) {
		unsigned shift = w.tag == ACL_USER_OBJ ? 6 : w.tag == group ? 3 : 0;

		if (w.tag != ACL_USER_OBJ && w.tag != group && w.tag != ACL_OTHER)
			continue;
		walk_set(&w, w.bits & (m >> shift));
		m = (m & ~(7u << shift)) | (uint32_t)w.bits << shift;
	}
	*mode = m;
}

int acl_inherit(struct core *c, const struct index_inode *parent, uint64_t ino, uint32_t umask, uint32_t *mode,
                bool *has_xattr)
{
	uint8_t acl[ACL_BYTES_MAX];
	size_t len = sizeof(acl);
	int ret = -ENODATA;

	*has_xattr = false;
	if (parent->flags & INDEX_INODE_XATTRS)
		ret = index_xattr_get(c->index, parent->ino, ACL_DEFAULT, acl, &len);
	if (ret == -ENODATA || (!ret && acl_check(acl, len))) {
		*mode &= ~(umask & 0777);
		return 0;
	}
	if (!ret && S_ISDIR(*mode)) {
		ret = index_xattr_set(c->index, ino, ACL_DEFAULT, acl, len);
		*has_xattr = true;
	}
	if (ret)
		return ret;
	inherit_mode(acl, len, mode);
	if (len == ACL_HEADER + 3 * ACL_ENTRY)
		return 0;
	*has_xattr = true;
	return index_xattr_set(c->index, ino, ACL_ACCESS, acl, len);
}
