/* apfs passwd STORE */
#include "tools/commands.h"
#include "tools/unlock.h"

#include <stdio.h>
#include <stdlib.h>

struct passwd_options {
	const char *path;
	struct secret_source old_secret, new_secret;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct passwd_options *o = state->input;

	if (key == ARGP_KEY_INIT) {
		state->child_inputs[0] = &o->old_secret;
		state->child_inputs[1] = &o->new_secret;
		return 0;
	}
	if (key == ARGP_KEY_END && (o->old_secret.keyfile || o->old_secret.recovery || o->new_secret.keyfile))
		argp_error(state, "passwd changes a passphrase; see apfs key for other secrets");
	return command_argument_parse(key, arg, state, "STORE", &o->path);
}

static const struct argp_child children[] = {{&secret_argp, 0, NULL, 1}, {&secret_new_argp, 0, NULL, 2}, {0}};

int cmd_passwd(int argc, char **argv)
{
	static const struct argp argp = {NULL,
	                                 parse,
	                                 "STORE",
	                                 "Changes a passphrase of STORE, which may be mounted. Without options the old "
	                                 "and the new one are asked for at "
	                                 "the terminal, or are two lines of standard input.\v" EXIT_STATUS_HELP,
	                                 children,
	                                 NULL,
	                                 NULL};
	struct passwd_options o = {0};
	struct unlocked u = {.program = argv[0]};
	struct secret_held held = {0};
	struct err e = {0};

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	u.path = o.path;
	/* The old passphrase is tried before the new one is asked for. */
	int ret = unlock_open(&u, &o.old_secret, &e);
	if (!ret)
		ret = unlock_read_new(&u, &o.new_secret, &held, &e);
	if (!ret)
		ret = superblock_slot_change(u.store.io, u.sb, u.keys,
		                             &(struct superblock_slot){.secret = &held.secret}, &e);
	if (!ret)
		(void)printf("The passphrase of %s is changed.\n", o.path);
	secret_release(&held);
	return unlock_end(&u, ret, &e);
}
