/* apfs init STORE */
#include "fs/core/core.h"
#include "tools/commands.h"
#include "tools/setting.h"
#include "tools/unlock.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum key { KEY_RECOVERY = 256, KEY_CONFIG, KEY_SETTING /* and the numbers of settings above */ };

struct init_options {
	const char *path, *config; /* config NULL: the files where configurations are */
	bool recovery;
	struct secret_source secret;
	struct settings settings;
};

static const struct argp_option option_table[] = {
    {"config", KEY_CONFIG, "FILE", 0, "Take settings from FILE, not from /etc/apfs.conf and ~/.config/apfs/apfs.conf",
     0},
    {"cipher", KEY_SETTING + SETTING_CIPHER, "SUITE", 0,
     "auto, aes-256-gcm, chacha20-poly1305 or xchacha20-poly1305 (auto)", 0},
    {"kdf-ops", KEY_SETTING + SETTING_KDF_OPS, "N", 0, "Argon2id's passes (3)", 0},
    {"kdf-mem", KEY_SETTING + SETTING_KDF_MEM, "SIZE", 0, "Argon2id's memory (256M)", 0},
    {"recovery", KEY_RECOVERY, NULL, 0, "Make a recovery key too, and print it", 0},
    {0},
};

static const struct argp_child children[] = {{&secret_argp, 0, NULL, 1}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct init_options *o = state->input;
	struct err e = {0};

	if (key >= KEY_SETTING && key < KEY_SETTING + SETTING_COUNT) {
		if (settings_set(&o->settings, (enum setting_id)(key - KEY_SETTING), arg, SETTING_FROM_COMMAND, NULL,
		                 &e))
			argp_error(state, "%s", err_text(&e, e.code));
		return 0;
	}
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &o->secret;
		return 0;
	case KEY_CONFIG:
		o->config = arg;
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

static int make(const struct init_options *o, struct unlocked *u, struct secret_held *held, struct err *e)
{
	struct core_format format = {
	    .suite = (int)settings_cipher(&o->settings),
	    .kdf_ops = (uint32_t)settings_number(&o->settings, SETTING_KDF_OPS),
	    .kdf_mem = settings_number(&o->settings, SETTING_KDF_MEM),
	    .uid = getuid(),
	    .gid = getgid(),
	    .mode = 0755,
	};
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
	format.pass_type = held->secret.type;
	return core_format(u->store.io, &format, held->secret.data, held->secret.len, e);
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
	struct init_options o = {0};
	struct unlocked u = {.program = argv[0]};
	struct secret_held held = {0};
	struct err e = {0};

	settings_init(&o.settings);
	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	if (settings_read_all(&o.settings, o.config, &e)) {
		(void)fprintf(stderr, "%s: %s\n", argv[0], err_text(&e, e.code));
		settings_release(&o.settings);
		return EXIT_USAGE;
	}
	u.path = o.path;
	int ret = make(&o, &u, &held, &e);
	if (!ret)
		(void)printf("Made the store %s.\nNext: apfs-mount %s MOUNTPOINT\n", o.path, o.path);
	if (!ret && o.recovery)
		ret = add_recovery(&u, &held, &e);
	secret_release(&held);
	settings_release(&o.settings);
	return unlock_end(&u, ret, &e);
}
