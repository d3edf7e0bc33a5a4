/* apfs init STORE */
#include "fs/core/core.h"
#include "pipeline/cipher.h"
#include "tools/commands.h"
#include "tools/setting.h"
#include "tools/unlock.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum key { KEY_CIPHER = 256, KEY_RECOVERY };

struct init_options {
	const char *path;
	bool recovery;
	struct secret_source secret;
	struct superblock_kdf kdf;
	struct core_format format;
};

static const struct argp_option option_table[] = {
    {"cipher", KEY_CIPHER, "SUITE", 0, "auto, aes-256-gcm, chacha20-poly1305 or xchacha20-poly1305 (auto)", 0},
    {"recovery", KEY_RECOVERY, NULL, 0, "Make a recovery key too, and print it", 0},
    {0},
};

static const struct argp_child children[] = {{&secret_argp, 0, NULL, 1}, {&secret_kdf_argp, 0, NULL, 2}, {0}};

static void parse_cipher(struct argp_state *state, struct core_format *f, const char *arg)
{
	enum cipher_suite suite = CIPHER_AUTO;

	if (strcmp(arg, "auto") != 0 && cipher_suite_parse(arg, &suite))
		argp_error(state, "cipher: '%s' is unknown", arg);
	f->suite = (int)suite;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct init_options *o = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &o->secret;
		state->child_inputs[1] = &o->kdf;
		return 0;
	case KEY_CIPHER:
		parse_cipher(state, &o->format, arg);
		return 0;
	case KEY_RECOVERY:
		o->recovery = true;
		return 0;
	case ARGP_KEY_END:
		if (o->secret.recovery)
			argp_error(state, "a recovery key is not chosen but made: with --recovery");
		/* fall through */
	default:
		return command_argument_parse(key, arg, state, "STORE", &o->path);
	}
}

/* What the command line leaves open. */
static int read_settings(struct init_options *o, struct err *e)
{
	struct settings s;

	settings_init(&s);
	int ret = settings_read_all(&s, NULL, e);
	if (!ret && !o->format.suite)
		o->format.suite = (int)settings_cipher(&s);
	if (!ret && !o->kdf.ops)
		o->kdf.ops = (uint32_t)settings_number(&s, SETTING_KDF_OPS);
	if (!ret && !o->kdf.mem)
		o->kdf.mem = settings_number(&s, SETTING_KDF_MEM);
	settings_release(&s);
	return ret;
}

static int make(struct init_options *o, struct unlocked *u, struct secret_held *held, struct err *e)
{
	int ret = keys_init(e);

	if (!ret)
		ret = store_open(o->path, true, &u->store, e);
	if (ret)
		return ret;
	if (store_check(&u->store, NULL) != -ENOENT)
		return err_set(e, -EEXIST, ERR_USAGE, "there is a store already");
	ret = unlock_read_new(u, &o->secret, held, e);
	if (ret)
		return ret;
	o->format.pass_type = held->secret.type;
	o->format.kdf_ops = o->kdf.ops;
	o->format.kdf_mem = o->kdf.mem;
	return core_format(u->store.io, &o->format, held->secret.data, held->secret.len, e);
}

/* The store is whole by then; should this fail, apfs key can do it again. */
static int add_recovery(struct unlocked *u, const struct secret_held *held, struct err *e)
{
	int ret = superblock_open(u->store.io, &u->sb, e);

	if (!ret)
		ret = superblock_unlock(u->sb, &held->secret, &u->keys, e);
	return ret ? ret : unlock_add_recovery(u, NULL, e);
}

int cmd_init(int argc, char **argv)
{
	static const struct argp argp = {
	    option_table, parse, "STORE", "Makes a store in STORE, an empty or missing directory.\v" EXIT_STATUS_HELP,
	    children,     NULL,  NULL};
	struct init_options o = {.format = {.uid = getuid(), .gid = getgid(), .mode = 0755}};
	struct unlocked u = {.program = argv[0]};
	struct secret_held held = {0};
	struct err e = {0};

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (read_settings(&o, &e)) {
		(void)fprintf(stderr, "%s: %s\n", argv[0], err_text(&e, e.code));
		return EXIT_USAGE;
	}
	u.path = o.path;
	int ret = make(&o, &u, &held, &e);
	if (!ret)
		(void)printf("Made the store %s.\nNext: apfs-mount %s MOUNTPOINT\n", o.path, o.path);
	if (!ret && o.recovery)
		ret = add_recovery(&u, &held, &e);
	secret_release(&held);
	return unlock_end(&u, ret, &e);
}
