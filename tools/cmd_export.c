/* apfs export-index STORE FILE */
#include "fs/core/index_seal.h"
#include "tools/commands.h"
#include "tools/unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct export_options {
	const char *store, *file;
	struct secret_source secret;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct export_options *o = state->input;

	if (key == ARGP_KEY_INIT) {
		state->child_inputs[0] = &o->secret;
		return 0;
	}
	if (key == ARGP_KEY_ARG && o->store)
		return command_argument_parse(key, arg, state, "FILE", &o->file);
	if (key == ARGP_KEY_END && !o->file)
		argp_error(state, "STORE and FILE are needed");
	return command_argument_parse(key, arg, state, "STORE", &o->store);
}

static int make_file(const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_set(e, -EIO, ERR_USAGE, "%s cannot be made: %s", path, strerror(errno));
	(void)close(fd);
	return 0;
}

/* An unfinished copy is removed. */
static int export(struct index *ix, const char *path, struct err *e)
{
	int ret = make_file(path, e);

	if (ret)
		return ret;
	ret = index_export(ix, path, e);
	if (ret)
		(void)unlink(path);
	return ret;
}

static int run(const struct export_options *o, struct unlocked *u, struct err *e)
{
	struct index_seal seal = {0};
	struct index *ix = NULL;
	int ret = unlock_open(u, &o->secret, e);

	if (!ret)
		ret = store_lock(&u->store, e);
	if (!ret)
		ret = store_claim(&u->store, true, e);
	if (!ret)
		ret = index_seal_init(&seal, u->sb, u->keys, e);
	if (!ret)
		ret = index_open_read(u->store.io, superblock_info(u->sb)->page_size, &seal.index, &ix, e);
	if (!ret) {
		ret = export(ix, o->file, e);
		index_abandon(ix);
	}
	index_seal_release(&seal);
	return ret;
}

static const struct argp_child children[] = {{&secret_argp, 0, NULL, 1}, {0}};

int cmd_export(int argc, char **argv)
{
	static const struct argp argp = {
	    NULL,
	    parse,
	    "STORE FILE",
	    "Writes the index of STORE, which must not be mounted, to FILE, which must not "
	    "exist: an SQLite database, not encrypted. STORE is only "
	    "read.\v" EXIT_STATUS_HELP,
	    children,
	    NULL,
	    NULL};
	struct export_options o = {0};
	struct unlocked u = {.program = argv[0]};
	struct err e = {0};

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	u.path = o.store;
	int ret = run(&o, &u, &e);
	if (!ret)
		(void)printf("%s holds the index of %s as plaintext: names, attributes, the tree. Delete it when you "
		             "are done.\n",
		             o.file, o.store);
	return unlock_end(&u, ret, &e);
}
