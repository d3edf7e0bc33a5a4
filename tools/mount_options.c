#include "tools/mount_options.h"
#include "base/option.h"
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
	KEY_MEMORY,
	KEY_COMMIT,
	KEY_COMPRESS,
	KEY_NO_COMPACT,
	KEY_THREADS,
	KEY_WORKERS,
	KEY_CIPHER,
	KEY_KDF_OPS,
	KEY_KDF_MEM,
	KEY_LOG,
	KEY_LOG_LEVEL,
	KEY_DEBUG,
	KEY_FOREGROUND = 'f',
	KEY_O = 'o'
};

static const struct argp_option option_table[] = {
    {NULL, 0, NULL, 0, "Passphrase (asked for at the terminal, or the next line of standard input):", 1},
    {"passfile", KEY_PASSFILE, "FILE", 0, "Take the first line of FILE", 1},
    {"extpass", KEY_EXTPASS, "COMMAND", 0, "Take the first line that COMMAND prints", 1},
    {"keyfile", KEY_KEYFILE, "FILE", 0, "A key file instead of a passphrase", 1},
    {"recovery-key", KEY_RECOVERY, NULL, 0, "A recovery key instead, read as a passphrase is", 1},
    {NULL, 0, NULL, 0, "Mounting:", 2},
    {"foreground", KEY_FOREGROUND, NULL, 0, "Stay in the foreground", 2},
    {"ro", KEY_RO, NULL, 0, "Mount read-only", 2},
    {NULL, KEY_O, "OPTION,...", 0,
     "Any long option without its dashes, and allow_other, allow_root, auto_unmount, dev, suid, nodev, nosuid, noexec, "
     "noatime, sync and the like",
     2},
    {"memory", KEY_MEMORY, "SIZE", 0, "Memory for file data (256M)", 2},
    {"commit-interval", KEY_COMMIT, "TIME", 0, "Make what was written durable at least this often (5s)", 2},
    {"compress", KEY_COMPRESS, "CODEC", 0, "off, lz4, zstd or brotli, and :LEVEL for a fixed one (zstd)", 2},
    {"no-compact", KEY_NO_COMPACT, NULL, 0,
     "Leave the space of overwritten data until apfs compact, or until STORE is full", 2},
    {"threads", KEY_THREADS, "N", 0, "Threads that answer the kernel, 2 to 32 (by the machine)", 2},
    {"workers", KEY_WORKERS, "N", 0, "Threads that compress and encrypt, 1 to 32 (by the machine)", 2},
    {NULL, 0, NULL, 0, "A new store:", 3},
    {"init", KEY_INIT, NULL, 0, "Make STORE if it is missing or empty, then mount it", 3},
    {"cipher", KEY_CIPHER, "SUITE", 0, "auto, aes-256-gcm, chacha20-poly1305 or xchacha20-poly1305 (auto)", 3},
    {"kdf-ops", KEY_KDF_OPS, "N", 0, "Argon2id's passes", 3},
    {"kdf-mem", KEY_KDF_MEM, "SIZE", 0, "Argon2id's memory", 3},
    {NULL, 0, NULL, 0, "Messages:", 4},
    {"log", KEY_LOG, "WHERE", 0, "journal, stderr or a file (journal; stderr in the foreground)", 4},
    {"log-level", KEY_LOG_LEVEL, "LEVEL", 0, "error, warn, info or debug (info)", 4},
    {"debug", KEY_DEBUG, NULL, 0, "Log every request; implies --log-level=debug", 4},
    {NULL, 0, NULL, 0, "Help:", -1},
    {0},
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

/* --- values ------------------------------------------------------------------------------------------------------- */

static uint64_t number(const struct mount_options *o, const char *name, const char *arg, uint64_t low, uint64_t high)
{
	char *end = NULL;

	errno = 0;
	unsigned long long v = strtoull(arg, &end, 10);
	if (errno || end == arg || *end || *arg == '-' || v < low || v > high)
		usage(o, "%s: '%s' is not a number from %llu to %llu", name, arg, (unsigned long long)low,
		      (unsigned long long)high);
	return v;
}

static uint64_t size(const struct mount_options *o, const char *name, const char *arg, uint64_t low)
{
	uint64_t v = 0;
	char text[32];

	if (option_parse_size(arg, &v))
		usage(o, "%s: '%s' is not a size, such as 64M", name, arg);
	if (v < low)
		usage(o, "%s: %s is the least", name, option_format_size(low, text, sizeof(text)));
	return v;
}

static uint32_t interval(const struct mount_options *o, const char *arg)
{
	uint64_t ms = 0;

	if (option_parse_duration(arg, &ms) || ms < 10 || ms > 3600000)
		usage(o, "commit-interval: '%s' is not a time from 10ms to 1h", arg);
	return (uint32_t)ms;
}

static enum log_level level(const struct mount_options *o, const char *arg)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(arg, names[i]) == 0)
			return (enum log_level)i;
	}
	usage(o, "log-level: '%s' is none of error, warn, info, debug", arg);
}

static void add_fuse(struct mount_options *o, const char *name)
{
	if (o->nfuse == MOUNT_OPTIONS_FUSE)
		usage(o, "too many mount options");
	o->fuse[o->nfuse++] = name;
}

static void set_data(struct mount_options *o, int key, const char *arg)
{
	switch (key) {
	case KEY_MEMORY:
		o->memory = size(o, "memory", arg, 32 << 20);
		break;
	case KEY_COMMIT:
		o->commit_interval_ms = interval(o, arg);
		break;
	case KEY_COMPRESS:
		if (codec_choice_parse(arg, &o->compress))
			usage(o, "compress: '%s' is none of off, lz4, zstd, brotli, or has an impossible level", arg);
		break;
	case KEY_CIPHER:
		o->cipher = CIPHER_AUTO;
		if (strcmp(arg, "auto") != 0 && cipher_suite_parse(arg, &o->cipher))
			usage(o, "cipher: '%s' is unknown", arg);
		break;
	case KEY_KDF_OPS:
		o->kdf_ops = (uint32_t)number(o, "kdf-ops", arg, 1, UINT32_MAX);
		break;
	case KEY_KDF_MEM:
		o->kdf_mem = size(o, "kdf-mem", arg, 8192);
		break;
	default:
		break;
	}
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
	case KEY_NO_COMPACT:
		o->no_compact = true;
		return true;
	case KEY_FOREGROUND:
		o->foreground = true;
		return true;
	case KEY_DEBUG:
		o->debug = true;
		o->log_level = LOG_L_DEBUG;
		return true;
	case KEY_THREADS:
		o->threads = (unsigned)number(o, "threads", arg, 2, 32);
		return true;
	case KEY_WORKERS:
		o->workers = (unsigned)number(o, "workers", arg, 1, 32);
		return true;
	case KEY_LOG:
		o->log = arg;
		return true;
	case KEY_LOG_LEVEL:
		o->log_level = level(o, arg);
		return true;
	case KEY_MEMORY:
	case KEY_COMMIT:
	case KEY_COMPRESS:
	case KEY_CIPHER:
	case KEY_KDF_OPS:
	case KEY_KDF_MEM:
		set_data(o, key, arg);
		return true;
	default:
		return false;
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
	static const char *const prefixes[] = {"context=", "fscontext=", "defcontext=", "rootcontext=", NULL};

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
	    "x-", "X-", "comment=", "user=", "uhelper=", "fsname=", "subtype=", NULL};

	return is_one_of(word, names, prefixes);
}

/* '-' and '_' are the same in the name of an option of ours. */
static const struct argp_option *find_option(const char *name, size_t len)
{
	for (const struct argp_option *t = option_table; t->name || t->key || t->doc; t++) {
		if (!t->name || strlen(t->name) != len)
			continue;
		size_t i = 0;
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
	const struct argp_option *t = find_option(word, len);

	if (t) {
		const char *value = word[len] ? word + len + 1 : NULL;

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
		usage(o, "remounting is not possible: unmount, then mount with other options");
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

void mount_options_parse(struct mount_options *o, int argc, char **argv)
{
	static const struct argp argp = {option_table, parse, "STORE MOUNTPOINT", doc, NULL, NULL, NULL};
	const char *slash = strrchr(argv[0], '/');

	memset(o, 0, sizeof(*o));
	o->program = slash ? slash + 1 : argv[0];
	o->memory = (uint64_t)256 << 20;
	o->compress.codec = CODEC_ZSTD;
	o->log_level = LOG_L_INFO;
	argp_err_exit_status = EXIT_USAGE;
	bool asks = argc == 2 && argv[1][0] == '-'; /* --help, --version */
	if (has_prefix(o->program, "mount.") && !asks)
		parse_helper(o, argc, argv);
	else
		(void)argp_parse(&argp, argc, argv, 0, NULL, o);
	const char *wrong = secret_source_check(&o->secret);
	if (wrong)
		usage(o, "%s", wrong);
	if (!o->init && (o->cipher != CIPHER_AUTO || o->kdf_ops || o->kdf_mem))
		usage(o, "cipher, kdf-ops and kdf-mem are chosen when a store is made: with --init");
}

void mount_options_release(struct mount_options *o)
{
	for (size_t i = 0; i < o->nwords; i++)
		free(o->words[i]);
	o->nwords = 0;
}
