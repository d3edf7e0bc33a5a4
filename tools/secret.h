/*
 * What opens a store, as the options of a command name it: a passphrase, a key file, or a recovery key, which is read
 * as a passphrase is.
 */
#ifndef APFS_TOOLS_SECRET_H
#define APFS_TOOLS_SECRET_H

#include "pipeline/superblock.h"
#include "tools/passphrase.h"

#include <argp.h>

struct secret_source {
	struct passphrase_source pass;
	const char *keyfile; /* NULL: none */
	bool recovery;       /* what pass gives is a recovery key */
};

/* Children of a command's argp. Their inputs are a struct secret_source (--passfile, --extpass, --keyfile,
 * --recovery-key), one for a new secret (--new-passfile, --new-extpass, --new-keyfile), and a struct superblock_kdf
 * (--kdf-ops, --kdf-mem). */
extern const struct argp secret_argp, secret_new_argp, secret_kdf_argp;

struct secret_held {
	struct secret secret; /* points into memory; valid if memory is not NULL */
	void *memory;         /* guarded */
};

/* Reads it; the prompt names the store. `fresh`: it is a new one, asked for twice at a terminal. keys_init() comes
 * first. *out is released by secret_release, also after a failure. -EINTR: the user gave up. */
int secret_read(const struct secret_source *src, const char *store, bool fresh, struct secret_held *out,
                struct err *e) MUST_CHECK;
void secret_release(struct secret_held *s);

/* What is wrong with options that exclude each other, or NULL. */
const char *secret_source_check(const struct secret_source *src);
enum secret_type secret_source_type(const struct secret_source *src);

#endif
