/* apfs passwd STORE */
#include "base/option.h"
#include "pipeline/keys.h"
#include "pipeline/superblock.h"
#include "tools/commands.h"
#include "tools/passphrase.h"
#include "tools/store.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum key { KEY_PASSFILE = 256, KEY_EXTPASS, KEY_NEW_PASSFILE, KEY_NEW_EXTPASS };

struct passwd_options {
	const char *path;
	struct passphrase_source old_pass, new_pass;
};

static const struct argp_option option_table[] = {
    {"passfile", KEY_PASSFILE, "FILE", 0, "Take the old passphrase from the first line of FILE", 0},
    {"extpass", KEY_EXTPASS, "COMMAND", 0, "Take it from the first line that COMMAND prints", 0},
    {"new-passfile", KEY_NEW_PASSFILE, "FILE", 0, "Take the new passphrase from the first line of FILE", 0},
    {"new-extpass", KEY_NEW_EXTPASS, "COMMAND", 0, "Take it from the first line that COMMAND prints", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct passwd_options *o = state->input;

	switch (key) {
	case KEY_PASSFILE:
		o->old_pass.file = arg;
		return 0;
	case KEY_EXTPASS:
		o->old_pass.command = arg;
		return 0;
	case KEY_NEW_PASSFILE:
		o->new_pass.file = arg;
		return 0;
	case KEY_NEW_EXTPASS:
		o->new_pass.command = arg;
		return 0;
	default:
		return command_argument_parse(key, arg, state, "STORE", &o->path);
	}
}

/* The old passphrase is tried before the new one is asked for. *asking: a passphrase could not be read. */
static int change(const struct passwd_options *o, struct store *store, struct superblock *sb, bool *asking,
                  struct err *e)
{
	struct passphrase old_pass = {0}, new_pass = {0};
	struct keyring *ring = NULL;

	*asking = true;
	int ret = passphrase_read(&o->old_pass, "Old passphrase: ", false, &old_pass, e);
	if (ret == 0) {
		*asking = false;
		ret = superblock_unlock(sb, old_pass.data, old_pass.len, &ring, e);
		keyring_free(ring);
	}
	if (ret == 0) {
		ret = passphrase_read(&o->new_pass, "New passphrase: ", true, &new_pass, e);
		*asking = ret != 0;
	}
	if (ret == 0)
		ret = superblock_passwd(store->io, sb, old_pass.data, old_pass.len, new_pass.data, new_pass.len,
		                        (struct superblock_kdf){0}, e);
	passphrase_release(&old_pass);
	passphrase_release(&new_pass);
	return ret;
}

int cmd_passwd(int argc, char **argv)
{
	static const struct argp argp = {
	    option_table,
	    parse,
	    "STORE",
	    "Changes the passphrase of STORE, which must not be mounted. Without options both are "
	    "asked for at the terminal, or are two lines of standard input.\v" EXIT_STATUS_HELP,
	    NULL,
	    NULL,
	    NULL};
	struct passwd_options o = {0};
	struct superblock *sb = NULL;
	struct store store = {0};
	struct err e = {0};
	bool asking = false;

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	int ret = keys_init(&e);
	if (ret == 0)
		ret = store_open(o.path, false, &store, &e);
	if (ret == 0)
		ret = superblock_open(store.io, &sb, &e);
	if (ret == 0)
		ret = change(&o, &store, sb, &asking, &e);
	if (ret == -EKEYREJECTED)
		(void)fprintf(stderr, "%s: %s: wrong passphrase\n", argv[0], o.path);
	else if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], o.path, err_text(&e, ret));
	else
		(void)printf("The passphrase of %s is changed.\n", o.path);
	if (sb)
		superblock_free(sb);
	store_release(&store);
	return asking ? EXIT_NO_PASS : (int)store_status(ret);
}
