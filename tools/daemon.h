/*
 * Becoming a daemon the safe way round: the child does all the work, its terminal still there for the passphrase, and
 * the parent waits until the child reports that the mount answers, or what went wrong.
 */
#ifndef APFS_TOOLS_DAEMON_H
#define APFS_TOOLS_DAEMON_H

#include "base/err.h"
#include "tools/exit_status.h"

#include <stdbool.h>

struct daemon {
	const char *program;
	int report; /* the pipe to the parent; -1 in the foreground */
	bool foreground;
	void (*mounted)(const void *arg); /* the parent calls it before it exits with success; NULL: nothing */
	const void *arg;
};

/* Sets d up, all but mounted and arg, which are the caller's, and forks unless in the foreground. Returns in the
 * process that goes on; the parent exits in here with what the child reports. */
void daemon_begin(struct daemon *d, const char *program, bool foreground);

/* Cuts the child off the terminal's session, once it has asked what it had to ask. */
void daemon_detach(struct daemon *d);

/* Prints "program: text" to standard error (in the background: the parent does) and returns status. Ends the report
 * unless status is EXIT_OK, which may be followed by more. */
enum exit_status daemon_say(struct daemon *d, enum exit_status status, const char *fmt, ...) PRINTF(3, 4);

/* All is well: the parent exits with 0, and the terminal is given up. */
void daemon_ready(struct daemon *d);

#endif
