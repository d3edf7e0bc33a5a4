/*
 * Where a passphrase comes from: a file's first line, a command's first line of output, the terminal with the echo
 * off, or the next line of standard input where that is not a terminal. Never the command line or the environment.
 */
#ifndef APFS_TOOLS_PASSPHRASE_H
#define APFS_TOOLS_PASSPHRASE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define PASSPHRASE_MAX 4096 /* bytes */

struct passphrase_source {
	const char *file;    /* NULL: not from a file */
	const char *command; /* NULL: not from a command */
};

struct passphrase {
	char *data; /* guarded memory, not zero-terminated */
	size_t len;
};

/* Reads it. prompt is shown at a terminal, where it is asked for twice if `twice`. keys_init() comes first.
 * *out is released by passphrase_release, also after a failure. -EINTR: the user gave up. */
int passphrase_read(const struct passphrase_source *src, const char *prompt, bool twice, struct passphrase *out,
                    struct err *e) MUST_CHECK;
void passphrase_release(struct passphrase *p);

#endif
