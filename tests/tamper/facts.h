/* All that can be seen of a volume, taken down and compared: names, attributes, targets, extended attributes, data. */
#ifndef APFS_TESTS_TAMPER_FACTS_H
#define APFS_TESTS_TAMPER_FACTS_H

#include "fs/core/core.h"

#define FACTS_PIECE 16384u /* data is read in pieces, each of which may fail */

struct fact_xattr {
	char *name;
	void *value;
	size_t len;
	int err; /* -errno of reading it */
};

struct fact {
	char *path; /* "" is the root */
	uint64_t parent;
	struct core_attr attr;
	int err;      /* -errno of looking it up: nothing else is known then */
	int list_err; /* of a directory: of its listing, which is then not whole */
	char *target;
	int target_err;
	uint8_t *data;
	int *piece_err;
	size_t pieces;
	struct fact_xattr *xattr;
	size_t nxattrs;
	int xattr_err;
};

struct facts {
	struct fact *fact; /* in the order of the walk; sorted by path once it is over */
	size_t n, room;
	unsigned errors;
};

/* Walks the whole volume. Dies when memory runs out. */
void facts_take(struct core *c, struct facts *out);
void facts_release(struct facts *f);

/* What contradicts that `found` is `real`, where things could not be read apart: text, or NULL. Access times are not
 * looked at, nor paths that are in `touched` (NULL: none; a list that a NULL ends). */
const char *facts_differ(const struct facts *found, const struct facts *real, const char *const *touched);
const struct fact *facts_find(const struct facts *all, const char *path);
/* What was in none of n states: a name, an extended attribute, a target, or a block of data that is not zero. */
const char *facts_invented(const struct facts *found, const struct facts *states, size_t n);

#endif
