#include "tools/mount_options.h"
#include "tools/exit_status.h"

#include <argp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *argp_program_version = "apfs-mount " APFS_VERSION;

enum key {
	KEY_PASSFILE = 256,
	KEY_EXTPASS,
	KEY_KEYFILE,
	KEY_RECOVERY,
	KEY_INIT,
	KEY_RO,
	KEY_CONFIG,
	KEY_DEBUG,
	KEY_SETTING, /* and the numbers of settings above */
	KEY_FOREGROUND = 'f',
	KEY_O = 'o'
};

static const struct argp_option own_options[] = {
    {NULL, 0, NULL, 0, "Passphrase (asked for at the terminal, or the next line of standard input):", 1},
    {"passfile", KEY_PASSFILE, "FILE", 0, "Take the first line of FILE", 1},
    {"extpass", KEY_EXTPASS, "COMMAND", 0, "Take the first line that COMMAND prints", 1},
    {"keyfile", KEY_KEYFILE, "FILE", 0, "A key file instead of a passphrase", 1},
    {"recovery-key", KEY_RECOVERY, NULL, 0, "A recovery key instead, read as a passphrase is", 1},
    {NULL, 0, NULL, 0, "Mounting:", SETTING_G_MOUNT},
    {"foreground", KEY_FOREGROUND, NULL, 0, "Stay in the foreground", SETTING_G_MOUNT},
    {"ro", KEY_RO, NULL, 0, "Mount read-only", SETTING_G_MOUNT},
    {"config", KEY_CONFIG, "FILE", 0, "Read settings from FILE, not from /etc/apfs.conf and ~/.config/apfs/apfs.conf",
     SETTING_G_MOUNT},
    {NULL, KEY_O, "OPTION,...", 0,
     "Any long option without its dashes, and allow_other, allow_root, auto_unmount, dev, suid, nodev, nosuid, noexec, "
     "noatime, sync, fsname=NAME (STORE) and the like",
     SETTING_G_MOUNT},
    {NULL, 0, NULL, 0, "A new store:", SETTING_G_STORE},
    {"init", KEY_INIT, NULL, 0, "Make STORE if it is missing or empty, then mount it", SETTING_G_STORE},
    {NULL, 0, NULL, 0, "Messages:", SETTING_G_MESSAGES},
    {"debug", KEY_DEBUG, NULL, 0, "Log every request; implies --log-level=debug", SETTING_G_MESSAGES},
    {NULL, 0, NULL, 0, "Help:", -1},
};

#define OWN_OPTIONS (sizeof(own_options) / sizeof(own_options[0]))

/* Those and the settings, ended by an empty one. */
struct option_table {
	struct argp_option o[OWN_OPTIONS + SETTING_COUNT + 1];
	char help[SETTING_COUNT][200];
};

static const char doc[] =
    "Mounts STORE, the backing directory of a compressed and encrypted filesystem, on MOUNTPOINT as a plain tree of "
    "files."
    "\v" EXIT_STATUS_HELP "\n\n"
    "The mount ends with `apfs umount MOUNTPOINT', umount(8), or SIGTERM to the process. In /etc/fstab:\n"
    "  /path/of/STORE  /mnt/point  fuse.apfs  noauto,passfile=/path/of/FILE  0  0";

static _Noreturn void PRINTF(2, 3) usage(const struct mount_options *o, const char *fmt, ...)
{
	va_list ap;

	(void)fprintf(stderr, "%s: ", o->program);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fprintf(stderr, " (see %s --help)\n", o->program);
	exit(EXIT_USAGE);
}

/* --- options ------------------------------------------------------------------------------------------------------ */

static void table_fill(struct option_table *t)
{
	memset(t, 0, sizeof(*t));
	memcpy(t->o, own_options, sizeof(own_options));
	for (int id = 0; id < SETTING_COUNT; id++) {
		const struct setting_def *d = &setting_defs[id];
		bool paren = *d->unset == '(';

		(void)snprintf(t->help[id], sizeof(t->help[id]), "%s%s%s%s", d->help, d->arg ? paren ? " " : " (" : "",
		               d->arg ? d->unset : "", d->arg && !paren ? ")" : "");
		t->o[OWN_OPTIONS + (size_t)id] = (struct argp_option){
		    d->name,     KEY_SETTING + id, d->arg ? d->arg : "yes|no", d->arg ? 0 : OPTION_ARG_OPTIONAL,
		    t->help[id], d->group};
	}
}

static void set_setting(struct mount_options *o, enum setting_id id, const char *value)
{
	struct err e = {0};
	int ret = settings_set(&o->settings, id, value, SETTING_FROM_COMMAND, NULL, &e);

	if (ret)
		usage(o, "%s", err_text(&e, ret));
}

static void add_fuse(struct mount_options *o, const char *name)
{
	if (o->nfuse == MOUNT_OPTIONS_FUSE)
		usage(o, "too many mount options");
	o->fuse[o->nfuse++] = name;
}

static bool set(struct mount_options *o, int key, const char *arg)
{
	switch (key) {
	case KEY_PASSFILE:
		o->secret.pass.file = arg;
		return true;
	case KEY_EXTPASS:
		o->secret.pass.command = arg;
		return true;
	case KEY_KEYFILE:
		o->secret.keyfile = arg;
		return true;
	case KEY_RECOVERY:
		o->secret.recovery = true;
		return true;
	case KEY_INIT:
		o->init = true;
		return true;
	case KEY_RO:
		if (!o->read_only)
			add_fuse(o, "ro");
		o->read_only = true;
		return true;
	case KEY_CONFIG:
		o->config = arg;
		return true;
	case KEY_FOREGROUND:
		o->foreground = true;
		return true;
	case KEY_DEBUG:
		o->debug = true;
		return true;
	default:
		if (key < KEY_SETTING || key >= KEY_SETTING + SETTING_COUNT)
			return false;
		set_setting(o, (enum setting_id)(key - KEY_SETTING), arg);
		return true;
	}
}

/* --- -o ----------------------------------------------------------------------------------------------------------- */

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* names and prefixes end with NULL. */
static bool is_one_of(const char *word, const char *const *names, const char *const *prefixes)
{
	for (; *names; names++) {
		if (strcmp(word, *names) == 0)
			return true;
	}
	for (; *prefixes; prefixes++) {
		if (has_prefix(word, *prefixes))
			return true;
	}
	return false;
}

/* Words for the kernel or libfuse, which know them. */
static bool is_fuse_option(const char *word)
{
	static const char *const names[] = {"allow_other", "allow_root", "auto_unmount", "suid",  "nosuid", "dev",
	                                    "nodev",       "exec",       "noexec",       "async", "sync",   "dirsync",
	                                    "atime",       "noatime",    "rw",           NULL};
	static const char *const prefixes[] = {
	    "fsname=", "context=", "fscontext=", "defcontext=", "rootcontext=", NULL};

	return is_one_of(word, names, prefixes);
}

/* Words of fstab for mount(8) and systemd, and what holds anyway. */
static bool is_ignored(const char *word)
{
	static const char *const names[] = {"",
	                                    "defaults",
	                                    "auto",
	                                    "noauto",
	                                    "user",
	                                    "nouser",
	                                    "users",
	                                    "owner",
	                                    "group",
	                                    "nofail",
	                                    "_netdev",
	                                    "relatime",
	                                    "norelatime",
	                                    "strictatime",
	                                    "nostrictatime",
	                                    "diratime",
	                                    "nodiratime",
	                                    "lazytime",
	                                    "nolazytime",
	                                    "silent",
	                                    "loud",
	                                    "mand",
	                                    "nomand",
	                                    "iversion",
	                                    "noiversion",
	                                    "nonempty",
	                                    "default_permissions",
	                                    "nosymfollow",
	                                    "symfollow",
	                                    NULL};
	static const char *const prefixes[] = {
	    "x-", "X-", "comment=", "user=", "uhelper=", "subtype=", "user_id=", "group_id=", "max_read=", NULL};

	return is_one_of(word, names, prefixes);
}

/* '-' and '_' are the same in the name of an option of ours. */
static const struct argp_option *find_own(const char *name, size_t len)
{
	for (size_t k = 0; k < OWN_OPTIONS; k++) {
		const struct argp_option *t = &own_options[k];
		size_t i = 0;

		if (!t->name || strlen(t->name) != len)
			continue;
		while (i < len && (name[i] == t->name[i] || (name[i] == '_' && t->name[i] == '-')))
			i++;
		if (i == len)
			return t;
	}
	return NULL;
}

static void set_word(struct mount_options *o, const char *word)
{
	size_t len = strcspn(word, "=");
	const char *value = word[len] ? word + len + 1 : NULL;
	const struct argp_option *t = find_own(word, len);
	enum setting_id id = setting_find(word, len);

	if (id != SETTING_COUNT) {
		set_setting(o, id, value);
	} else if (t) {
		if (t->arg && !value)
			usage(o, "-o %s needs a value", word);
		if (!t->arg && value)
			usage(o, "-o %.*s takes no value", (int)len, word);
		(void)set(o, t->key, value);
	} else if (is_fuse_option(word)) {
		if (strcmp(word, "noatime") == 0)
			o->noatime = true;
		add_fuse(o, word);
	} else if (strcmp(word, "remount") == 0) {
		o->remount = true;
	} else if (!is_ignored(word)) {
		usage(o, "unknown option '%s'", word);
	}
}

/* Cuts at commas that no backslash escapes, in a copy that o keeps. */
static void set_words(struct mount_options *o, const char *text)
{
	if (o->nwords == MOUNT_OPTIONS_FUSE)
		usage(o, "too many mount options");
	char *word = strdup(text);
	if (!word)
		usage(o, "out of memory");
	o->words[o->nwords++] = word;

	while (word) {
		char *out = word, *in = word, *next = NULL;

		while (*in && !next) {
			if (in[0] == '\\' && in[1]) {
				*out++ = in[1];
				in += 2;
			} else if (*in == ',') {
				next = in + 1;
			} else {
				*out++ = *in++;
			}
		}
		*out = 0;
		set_word(o, word);
		word = next;
	}
}

/* --- the command line --------------------------------------------------------------------------------------------- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct mount_options *o = state->input;

	switch (key) {
	case KEY_O:
		set_words(o, arg);
		return 0;
	case ARGP_KEY_ARG:
		if (state->arg_num == 0)
			o->store = arg;
		else if (state->arg_num == 1)
			o->mountpoint = arg;
		else
			usage(o, "too many arguments");
		return 0;
	case ARGP_KEY_END:
		if (state->arg_num < 2)
			usage(o, "STORE and MOUNTPOINT are needed");
		return 0;
	default:
		return set(o, key, arg) ? 0 : ARGP_ERR_UNKNOWN;
	}
}

/* mount(8) calls its helpers as "mount.fuse.apfs STORE MOUNTPOINT [-sfnv] [-N NS] [-t TYPE] [-o OPTIONS]", where the
 * letters do not mean what they mean to apfs-mount. Like mount.fuse, root's mounts allow devices and set-id programs
 * unless told otherwise. */
static void parse_helper(struct mount_options *o, int argc, char **argv)
{
	int c;
	bool dev = true, suid = true;

	while ((c = getopt(argc, argv, "sfnvN:t:o:")) != -1) {
		if (c == 'f')
			o->fake = true;
		else if (c == 'o')
			set_words(o, optarg);
		else if (c == '?')
			exit(EXIT_USAGE);
	}
	if (argc - optind != 2)
		usage(o, "STORE and MOUNTPOINT are needed");
	o->store = argv[optind];
	o->mountpoint = argv[optind + 1];
	for (size_t i = 0; i < o->nfuse; i++) {
		if (strcmp(o->fuse[i], "nodev") == 0)
			dev = false;
		if (strcmp(o->fuse[i], "nosuid") == 0)
			suid = false;
	}
	if (geteuid() == 0 && dev)
		add_fuse(o, "dev");
	if (geteuid() == 0 && suid)
		add_fuse(o, "suid");
}

static void read_files(struct mount_options *o)
{
	struct err e = {0};
	int ret = settings_read_all(&o->settings, o->config, &e);

	if (ret) {
		(void)fprintf(stderr, "%s: %s\n", o->program, err_text(&e, ret));
		exit(EXIT_USAGE);
	}
}

void mount_options_parse(struct mount_options *o, int argc, char **argv)
{
	struct option_table table;
	const struct argp argp = {table.o, parse, "STORE MOUNTPOINT", doc, NULL, NULL, NULL};
	const char *slash = strrchr(argv[0], '/');

	memset(o, 0, sizeof(*o));
	settings_init(&o->settings);
	table_fill(&table);
	o->program = slash ? slash + 1 : argv[0];
	argp_err_exit_status = EXIT_USAGE;
	bool asks = argc == 2 && argv[1][0] == '-'; /* --help, --version */
	if (has_prefix(o->program, "mount.") && !asks)
		parse_helper(o, argc, argv);
	else
		(void)argp_parse(&argp, argc, argv, 0, NULL, o);
	const char *bad = secret_source_check(&o->secret);
	if (bad)
		usage(o, "%s", bad);
	if (o->debug)
		set_setting(o, SETTING_LOG_LEVEL, "debug");
	for (int id = 0; id < SETTING_COUNT; id++)
		if (setting_defs[id].group == SETTING_G_STORE && !o->init &&
		    settings_commanded(&o->settings, (enum setting_id)id))
			usage(o, "cipher, kdf-ops and kdf-mem are chosen when a store is made: with --init");
	read_files(o);
}

void mount_options_release(struct mount_options *o)
{
	for (size_t i = 0; i < o->nwords; i++)
		free(o->words[i]);
	o->nwords = 0;
	settings_release(&o->settings);
}
