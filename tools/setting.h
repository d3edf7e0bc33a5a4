/*
 * Settings: what may be given on the command line of apfs-mount, as a mount option and in a configuration file. One
 * table (setting.c) has their names, kinds, limits, defaults and help; README.md's table is checked against it.
 *
 * A value given on the command line holds, else the one of the configuration file that was read last, else the default.
 * Everywhere "default" is a value too, which puts the default back; so is the word with which `unset` begins after a
 * '('.
 */
#ifndef APFS_TOOLS_SETTING_H
#define APFS_TOOLS_SETTING_H

#include "base/err.h"
#include "pipeline/cipher.h"
#include "pipeline/codec.h"
#include "pipeline/policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum setting_id {
	SETTING_MEMORY,
	SETTING_COMMIT_INTERVAL,
	SETTING_COMPRESS,
	SETTING_PRIORITY,
	SETTING_STORAGE,
	SETTING_CHUNK_SIZE,
	SETTING_NO_COMPACT,
	SETTING_IDLE,
	SETTING_THREADS,
	SETTING_WORKERS,
	SETTING_CPU_TOKENS,
	SETTING_IO_TOKENS,
	SETTING_NO_GOVERNANCE,
	SETTING_NO_FEEDBACK,
	SETTING_MMAP,
	SETTING_NO_METRICS,
	SETTING_METRICS_LISTEN,
	SETTING_CIPHER,
	SETTING_KDF_OPS,
	SETTING_KDF_MEM,
	SETTING_LOG,
	SETTING_LOG_LEVEL,
	SETTING_COUNT
};

enum setting_kind {
	SETTING_K_SIZE,     /* bytes */
	SETTING_K_DURATION, /* ms */
	SETTING_K_NUMBER,
	SETTING_K_SWITCH, /* yes or no; the name alone means yes */
	SETTING_K_WORD,   /* one of `words`; the number is its place there */
	SETTING_K_CODEC,
	SETTING_K_TEXT
};

/* Where --help lists it. */
enum setting_group { SETTING_G_MOUNT = 2, SETTING_G_STORE, SETTING_G_MESSAGES };

struct setting_def {
	const char *name; /* of the long option, of the mount option and of the key */
	const char *arg;  /* what --help calls its value; NULL: a switch */
	enum setting_kind kind;
	enum setting_group group;
	uint64_t low, high; /* of sizes, durations and numbers */
	const char *words;  /* separated by a space */
	/* The default as a value or, in parentheses, a word for it and what is done where nothing is set. */
	const char *unset;
	const char *help;
};

extern const struct setting_def setting_defs[SETTING_COUNT];

enum setting_source { SETTING_FROM_DEFAULT, SETTING_FROM_FILE, SETTING_FROM_COMMAND };

struct setting {
	enum setting_source source;
	char *where;     /* SETTING_FROM_FILE: "FILE:LINE" */
	bool given;      /* false: the default, which source and where may have put back */
	char *text;      /* as given; NULL: nothing is */
	char *effective; /* what holds, where that is known to be something else; NULL: text, or the default */
	uint64_t number; /* 0 where none is given and the default is no value */
	struct codec_choice codec;
};

struct settings {
	struct setting v[SETTING_COUNT];
};

/* The defaults. */
void settings_init(struct settings *s);
void settings_release(struct settings *s);

/* The setting of that name, in which '-' and '_' are the same; SETTING_COUNT if there is none. */
enum setting_id setting_find(const char *name, size_t len);

/* Sets a value, unless one of a higher source is there; text NULL (the name alone) is what only a switch takes. where
 * goes with SETTING_FROM_FILE. -EINVAL: not a value of this setting; *e names the setting and says why. */
int settings_set(struct settings *s, enum setting_id id, const char *text, enum setting_source source,
                 const char *where, struct err *e) MUST_CHECK;

static inline uint64_t settings_number(const struct settings *s, enum setting_id id)
{
	return s->v[id].number;
}

/* NULL: none is given. */
static inline const char *settings_text(const struct settings *s, enum setting_id id)
{
	return s->v[id].text;
}

/* CIPHER_AUTO unless a suite is set. */
enum cipher_suite settings_cipher(const struct settings *s);

/* Was a value given by whoever mounts, rather than found in a file? */
static inline bool settings_commanded(const struct settings *s, enum setting_id id)
{
	return s->v[id].given && s->v[id].source == SETTING_FROM_COMMAND;
}

/* Notes what is used where nothing is set, or instead of what is: shown by settings_print. */
int settings_effective(struct settings *s, enum setting_id id, const char *text) MUST_CHECK;

/* One line for each setting of a mount: name, effective value, where it comes from and, where another was asked for,
 * that. */
void settings_print(const struct settings *s, FILE *f);

/* setting_file.c: reads a configuration file of lines NAME = VALUE. -ENOENT: there is none. -EINVAL: *e names file and
 * line, and says what is wrong. */
int settings_read(struct settings *s, const char *path, struct err *e) MUST_CHECK;
/* The same from a stream; path is its name. */
int settings_read_stream(struct settings *s, FILE *f, const char *path, struct err *e) MUST_CHECK;
/* Reads `path` or, if that is NULL, /etc/apfs.conf and then the user's own, as far as they exist. */
int settings_read_all(struct settings *s, const char *path, struct err *e) MUST_CHECK;

#endif
