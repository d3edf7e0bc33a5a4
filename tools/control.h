/*
 * The control socket: a Unix socket in a directory that only the mounting user can enter, at which the process that
 * serves a mount answers questions. One question a connection: a line, to which the answer is all that follows; an
 * answer that begins with '!' says why there is none.
 *   json, prometheus    the metrics (metrics_text.h)
 * Root and the mounting user are answered, others cut off; so is who takes longer than a second.
 */
#ifndef APFS_TOOLS_CONTROL_H
#define APFS_TOOLS_CONTROL_H

#include "base/err.h"

#include <stddef.h>

struct core;
struct control;

/* Makes the socket and the thread that answers. core: borrowed. */
int control_new(struct core *core, struct control **out, struct err *e) MUST_CHECK;
/* The socket's path. */
const char *control_path(const struct control *c);
/* Waits for nobody who asks. NULL is allowed. */
void control_free(struct control *c);

/* From another process: the answer to a question at a socket, malloc'd and ended by a zero. -EACCES: neither root nor
 * the mounting user asks. -EPROTO: there is no such answer, *e says why. -ETIMEDOUT: none has come. -ENOTCONN: the
 * mount is gone. */
int control_ask(const char *path, const char *question, char **answer, struct err *e) MUST_CHECK;

#endif
