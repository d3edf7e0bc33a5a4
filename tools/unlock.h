/*
 * A store whose superblock is unlocked, to change its key slots. It is not locked: it may be mounted meanwhile.
 */
#ifndef APFS_TOOLS_UNLOCK_H
#define APFS_TOOLS_UNLOCK_H

#include "tools/secret.h"
#include "tools/store.h"

struct unlocked {
	const char *program, *path; /* for messages */
	struct store store;
	struct superblock *sb;
	struct keyring *keys;
	enum secret_type type; /* of the secret */
	bool asking;           /* what went wrong is that a secret could not be read */
};

/* Opens, reads the secret, unlocks. *u is released by unlock_end, also after a failure. */
int unlock_open(struct unlocked *u, const struct secret_source *src, struct err *e) MUST_CHECK;
/* Reads a new secret. */
int unlock_read_new(struct unlocked *u, const struct secret_source *src, struct secret_held *out,
                    struct err *e) MUST_CHECK;
/* Makes a slot for a new recovery key, and prints it. */
int unlock_add_recovery(struct unlocked *u, const char *label, struct err *e) MUST_CHECK;
/* The exit status, after a line if ret is not 0; releases *u. */
int unlock_end(struct unlocked *u, int ret, const struct err *e);

#endif
