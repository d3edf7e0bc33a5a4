/* What a file's or directory's own extended attributes say of how its data is to be stored. New files and directories
 * get those of their directory; what is there already keeps its own, also when it is renamed. */
#include "fs/core/volume.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define VALUE_MAX 32u

static const char *const names[] = {PREFER_COMPRESSION, PREFER_PRIORITY};

bool prefer_is_name(const char *name)
{
	return !strcmp(name, PREFER_COMPRESSION) || !strcmp(name, PREFER_PRIORITY);
}

/* Takes a value over into *p; -EINVAL. */
static int prefer_parse(const char *name, const void *value, size_t len, struct preference *p)
{
	char text[VALUE_MAX] = "";

	if (len >= sizeof(text) || memchr(value, 0, len))
		return -EINVAL;
	memcpy(text, value, len);
	if (strcmp(name, PREFER_COMPRESSION) != 0) {
		p->own_priority = true;
		return policy_priority_parse(text, &p->priority);
	}
	p->own_compress = true;
	return codec_choice_parse(text, &p->compress) ? -EINVAL : 0;
}

int prefer_check(const char *name, const void *value, size_t len)
{
	struct preference p;

	return prefer_parse(name, value, len, &p);
}

/* What was given when mounting comes before the attributes, those before configuration files. */
int prefer_of(struct core *c, uint64_t ino, uint32_t flags, struct preference *out)
{
	const struct preference mount = {.compress = c->opt.compress, .priority = c->opt.priority};

	*out = mount;
	if (!(flags & NODE_PREFERS))
		return 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct preference own = *out;
		uint8_t value[VALUE_MAX];
		size_t len = sizeof(value);
		int ret = index_xattr_get(c->index, ino, names[i], value, &len);

		if (ret && ret != -ENODATA && ret != -ERANGE)
			return ret;
		if (!ret && !prefer_parse(names[i], value, len, &own))
			*out = own;
	}
	if (c->opt.compress_fixed) {
		out->compress = mount.compress;
		out->own_compress = false;
	}
	if (c->opt.priority_fixed) {
		out->priority = mount.priority;
		out->own_priority = false;
	}
	return 0;
}

void prefer_node(struct core *c, struct node *n, struct preference *out)
{
	if (n->prefers_known) {
		*out = n->prefers;
		return;
	}
	/* What cannot be read does not keep data from being stored. */
	if (!prefer_of(c, n->ino, n->attr.flags, out)) {
		n->prefers = *out;
		n->prefers_known = true;
	}
}

int prefer_order(const struct preference *a, const struct preference *b)
{
	if (a->compress.codec != b->compress.codec)
		return a->compress.codec < b->compress.codec ? -1 : 1;
	if (a->compress.level != b->compress.level)
		return a->compress.level < b->compress.level ? -1 : 1;
	return (a->priority > b->priority) - (a->priority < b->priority);
}

int prefer_inherit(struct core *c, const struct index_inode *parent, struct index_inode *inode)
{
	if (!(parent->flags & NODE_PREFERS) || !(S_ISREG(inode->mode) || S_ISDIR(inode->mode)))
		return 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		uint8_t value[VALUE_MAX];
		size_t len = sizeof(value);
		int ret = index_xattr_get(c->index, parent->ino, names[i], value, &len);

		if (!ret) {
			inode->flags |= INDEX_INODE_XATTRS | NODE_PREFERS;
			ret = index_xattr_set(c->index, inode->ino, names[i], value, len);
		}
		if (ret && ret != -ENODATA)
			return ret;
	}
	return 0;
}
