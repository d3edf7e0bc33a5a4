/*
 * Errors: every fallible function returns 0 or -errno and must be checked. The origin (place, domain, text) travels in
 * a struct err owned by the operation, never through globals. An err pointer may be NULL when nobody will read it.
 */
#ifndef APFS_BASE_ERR_H
#define APFS_BASE_ERR_H

#include <errno.h>
#include <stdbool.h>

#define MUST_CHECK   __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))

enum err_domain {
	ERR_NONE = 0,
	ERR_IO,     /* the backing storage failed */
	ERR_FORMAT, /* bytes of STORE are not what docs/FORMAT.md says */
	ERR_AUTH,   /* bytes of STORE fail authentication */
	ERR_CODEC,  /* a frame does not decompress */
	ERR_INDEX,  /* SQLite reported an error */
	ERR_KEY,    /* passphrase, key slot */
	ERR_SPACE,  /* no space, quota */
	ERR_MEMORY, /* allocation failed */
	ERR_USAGE,  /* the caller's arguments */
	ERR_BUSY    /* in use by somebody else */
};

struct err {
	int code; /* -errno, 0 while unset */
	enum err_domain domain;
	int line;
	const char *file;
	char text[240]; /* one line, no newline, no plaintext names */
};

/* Records the origin in *e (if e is not NULL and still unset) and returns code, so that `return err_set(...)` reads
 * well. code is negative. Thread: the owner of e. */
#define err_set(e, code, domain, ...) err_set_at((e), (code), (domain), __FILE__, __LINE__, __VA_ARGS__)
int err_set_at(struct err *e, int code, enum err_domain domain, const char *file, int line, const char *fmt, ...)
    PRINTF(6, 7);

/* Whether an error means that there is no room, on the disk or in a quota. */
static inline bool err_is_no_space(int code)
{
	return code == -ENOSPC || code == -EDQUOT;
}

/* Forgets what *e holds. */
void err_reset(struct err *e);

/* The text of the origin, or strerror's word for code where nothing was recorded. Valid as long as *e. */
const char *err_text(const struct err *e, int code);

#endif
