/* apfs init STORE */
#include "base/option.h"
#include "fs/core/core.h"
#include "pipeline/cipher.h"
#include "pipeline/keys.h"
#include "tools/commands.h"
#include "tools/passphrase.h"
#include "tools/store.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum key { KEY_PASSFILE = 256, KEY_EXTPASS, KEY_CIPHER, KEY_KDF_OPS, KEY_KDF_MEM };

struct init_options {
	const char *path;
	struct passphrase_source pass;
	struct core_format format;
};

static const struct argp_option option_table[] = {
    {"passfile", KEY_PASSFILE, "FILE", 0, "Take the passphrase from the first line of FILE", 0},
    {"extpass", KEY_EXTPASS, "COMMAND", 0, "Take it from the first line that COMMAND prints", 0},
    {"cipher", KEY_CIPHER, "SUITE", 0, "auto, aes-256-gcm, chacha20-poly1305 or xchacha20-poly1305 (auto)", 0},
    {"kdf-ops", KEY_KDF_OPS, "N", 0, "Argon2id's passes", 0},
    {"kdf-mem", KEY_KDF_MEM, "SIZE", 0, "Argon2id's memory", 0},
    {0},
};

static void parse_cipher(struct argp_state *state, struct core_format *f, const char *arg)
{
	enum cipher_suite suite = CIPHER_AUTO;

	if (strcmp(arg, "auto") != 0 && cipher_suite_parse(arg, &suite))
		argp_error(state, "cipher: '%s' is unknown", arg);
	f->suite = (int)suite;
}

static void parse_ops(struct argp_state *state, struct core_format *f, const char *arg)
{
	char *end = NULL;
	unsigned long n = strtoul(arg, &end, 10);

	if (end == arg || *end || *arg == '-' || n < 1 || n > UINT32_MAX)
		argp_error(state, "kdf-ops: '%s' is not a number from 1", arg);
	f->kdf_ops = (uint32_t)n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct init_options *o = state->input;

	switch (key) {
	case KEY_PASSFILE:
		o->pass.file = arg;
		return 0;
	case KEY_EXTPASS:
		o->pass.command = arg;
		return 0;
	case KEY_CIPHER:
		parse_cipher(state, &o->format, arg);
		return 0;
	case KEY_KDF_OPS:
		parse_ops(state, &o->format, arg);
		return 0;
	case KEY_KDF_MEM:
		if (option_parse_size(arg, &o->format.kdf_mem))
			argp_error(state, "kdf-mem: '%s' is not a size, such as 64M", arg);
		return 0;
	default:
		return command_argument_parse(key, arg, state, "STORE", &o->path);
	}
}

static int make(const struct init_options *o, struct store *store, struct passphrase *pass, struct err *e)
{
	char prompt[512];

	int ret = store_check(store, NULL);
	if (ret != -ENOENT)
		return err_set(e, -EEXIST, ERR_USAGE, "there is a store already");
	(void)snprintf(prompt, sizeof(prompt), "New passphrase for %s: ", o->path);
	ret = passphrase_read(&o->pass, prompt, true, pass, e);
	return ret ? ret : core_format(store->io, &o->format, pass->data, pass->len, e);
}

int cmd_init(int argc, char **argv)
{
	static const struct argp argp = {
	    option_table, parse, "STORE", "Makes a store in STORE, an empty or missing directory.\v" EXIT_STATUS_HELP,
	    NULL,         NULL,  NULL};
	struct init_options o = {.format = {.uid = getuid(), .gid = getgid(), .mode = 0755}};
	struct passphrase pass = {0};
	struct store store = {0};
	struct err e = {0};

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	int ret = keys_init(&e);
	if (ret == 0)
		ret = store_open(o.path, true, &store, &e);
	if (ret == 0)
		ret = make(&o, &store, &pass, &e);
	if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], o.path, err_text(&e, ret));
	else
		(void)printf("Made the store %s.\n" STORE_INDEX_NOTE ".\nNext: apfs-mount %s MOUNTPOINT\n", o.path,
		             o.path);
	passphrase_release(&pass);
	store_release(&store);
	return ret && e.domain == ERR_KEY ? EXIT_NO_PASS : (int)store_status(ret);
}
