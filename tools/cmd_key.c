/* apfs key add|remove|list|test|recovery STORE */
#include "base/option.h"
#include "base/text.h"
#include "tools/commands.h"
#include "tools/unlock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum key { KEY_LABEL = 256, KEY_JSON };

struct key_options {
	const struct argp_child *children; /* of the command's argp: secret, fresh, kdf, as far as it has them */
	const char *path;
	long slot; /* -1: not given */
	const char *label;
	bool json;
	struct secret_source secret, fresh;
	struct superblock_kdf kdf;
};

static const struct argp_option label_options[] = {
    {"label", KEY_LABEL, "TEXT", 0, "A label of up to 63 bytes, which anybody who sees the store can read", 4}, {0}};
static const struct argp_option list_options[] = {{"json", KEY_JSON, NULL, 0, "As JSON", 0}, {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct key_options *o = state->input;
	void *const inputs[] = {&o->secret, &o->fresh, &o->kdf};
	struct err e = {0};

	switch (key) {
	case ARGP_KEY_INIT:
		for (size_t i = 0; i < 3 && o->children && o->children[i].argp; i++)
			state->child_inputs[i] = inputs[i];
		return 0;
	case KEY_LABEL:
		if (label_check(arg, &e))
			argp_error(state, "%s", err_text(&e, e.code));
		o->label = arg;
		return 0;
	case KEY_JSON:
		o->json = true;
		return 0;
	default:
		return command_argument_parse(key, arg, state, "STORE", &o->path);
	}
}

/* STORE SLOT */
static error_t parse_remove(int key, char *arg, struct argp_state *state)
{
	struct key_options *o = state->input;
	char *end = NULL;

	if (key == ARGP_KEY_ARG && o->path && o->slot < 0) {
		o->slot = strtol(arg, &end, 10);
		if (end == arg || *end || o->slot < 0 || o->slot >= SUPERBLOCK_SLOTS)
			argp_error(state, "'%s' is not the number of a slot", arg);
		return 0;
	}
	if (key == ARGP_KEY_END && o->path && o->slot < 0)
		argp_error(state, "SLOT is needed");
	return parse(key, arg, state);
}

static unsigned passphrases(const struct superblock_info *info)
{
	unsigned n = 0;

	for (unsigned i = 0; i < info->slots; i++)
		n += info->slot[i].type == SECRET_PASSPHRASE;
	return n;
}

/* --- the commands ------------------------------------------------------------------------------------------------- */

static int add(struct unlocked *u, const struct key_options *o, struct err *e)
{
	struct secret_held held = {0};
	const struct superblock_slot slot = {.secret = &held.secret, .kdf = o->kdf, .label = o->label};
	unsigned number = 0;
	int ret = unlock_open(u, &o->secret, e);

	if (!ret)
		ret = unlock_read_new(u, &o->fresh, &held, e);
	if (!ret)
		ret = superblock_slot_add(u->store.io, u->sb, u->keys, &slot, &number, e);
	if (!ret)
		(void)printf("Slot %u takes the new %s.\n", number, secret_type_name(held.secret.type));
	secret_release(&held);
	return ret;
}

static int remove_slot(struct unlocked *u, const struct key_options *o, struct err *e)
{
	int ret = unlock_open(u, &o->secret, e);
	unsigned before = ret ? 0 : passphrases(superblock_info(u->sb));

	if (!ret)
		ret = superblock_slot_remove(u->store.io, u->sb, u->keys, (unsigned)o->slot, e);
	if (!ret)
		(void)printf("Slot %ld is removed.\n", o->slot);
	if (!ret && before && !passphrases(superblock_info(u->sb)))
		(void)fprintf(stderr, "%s: %s: warning: no passphrase opens this store any more\n", u->program,
		              o->path);
	return ret;
}

static int test(struct unlocked *u, const struct key_options *o, struct err *e)
{
	int ret = unlock_open(u, &o->secret, e);

	if (!ret)
		(void)printf("Slot %u takes this %s.\n", superblock_unlocked(u->sb), secret_type_name(u->type));
	return ret;
}

static int recovery(struct unlocked *u, const struct key_options *o, struct err *e)
{
	int ret = unlock_open(u, &o->secret, e);

	return ret ? ret : unlock_add_recovery(u, o->label, e);
}

static void print_json(const struct superblock_info *info)
{
	char shown[LABEL_SHOWN_SIZE];

	(void)printf("{\"slots\": [");
	for (unsigned i = 0; i < info->slots; i++) {
		const struct superblock_slot_info *s = &info->slot[i];
		const char *name = secret_type_name(s->type);
		const char *label = label_check(s->label, NULL) ? label_escape(s->label, shown) : s->label;

		(void)printf(
		    "%s{\"slot\": %u, \"type\": \"%s\", \"ops\": %u, \"mem\": %llu, \"label\": ", i ? ", " : "",
		    s->number, name ? name : "unknown", s->kdf.ops, (unsigned long long)s->kdf.mem);
		text_json(stdout, label);
		(void)printf("}");
	}
	(void)printf("]}\n");
}

static int list(struct unlocked *u, const struct key_options *o, struct err *e)
{
	int ret = keys_init(e);

	if (!ret)
		ret = store_open_beside(u->path, &u->store, e);
	if (!ret)
		ret = superblock_open(u->store.io, &u->sb, e);
	if (!ret && o->json)
		print_json(superblock_info(u->sb));
	for (unsigned i = 0; !ret && !o->json && i < superblock_info(u->sb)->slots; i++)
		command_print_slot(&superblock_info(u->sb)->slot[i]);
	return ret;
}

void command_print_slot(const struct superblock_slot_info *slot)
{
	const char *name = secret_type_name(slot->type);
	char size[32], label[LABEL_SHOWN_SIZE];

	(void)printf("slot %-2u:  %s", slot->number, name ? name : "unknown kind");
	if (slot->kdf.ops)
		(void)printf(", Argon2id with %u passes over %s", slot->kdf.ops,
		             option_format_size(slot->kdf.mem, size, sizeof(size)));
	if (*slot->label)
		(void)printf(", \"%s\"", label_escape(slot->label, label));
	(void)printf("\n");
}

/* --- which of them ------------------------------------------------------------------------------------------------ */

static const struct argp_child add_children[] = {
    {&secret_argp, 0, NULL, 1}, {&secret_new_argp, 0, NULL, 2}, {&secret_kdf_argp, 0, NULL, 3}, {0}};
static const struct argp_child unlock_children[] = {{&secret_argp, 0, NULL, 1}, {0}};

#define MAY_BE_MOUNTED " STORE may be mounted."

static const struct {
	const char *name, *text; /* for the list of commands */
	int (*run)(struct unlocked *u, const struct key_options *o, struct err *e);
	struct argp argp;
} commands[] = {
    {"add",
     "make a slot for a new passphrase or key file",
     add,
     {label_options, parse, "STORE",
      "Makes a key slot for a new passphrase or key file. What opens the store now is asked for first." MAY_BE_MOUNTED
      "\v" EXIT_STATUS_HELP,
      add_children, NULL, NULL}},
    {"remove",
     "remove a slot, with what opens another one",
     remove_slot,
     {NULL, parse_remove, "STORE SLOT",
      "Removes the key slot with the number SLOT (see apfs key list). The store is opened with what another slot "
      "takes, so "
      "that there is one left that can be opened." MAY_BE_MOUNTED "\v" EXIT_STATUS_HELP,
      unlock_children, NULL, NULL}},
    {"list",
     "list the slots",
     list,
     {list_options, parse, "STORE",
      "Lists the key slots of STORE. No key is needed, and so the list is not proven either.\v" EXIT_STATUS_HELP, NULL,
      NULL, NULL}},
    {"test",
     "tell which slot takes a secret",
     test,
     {NULL, parse, "STORE", "Tells which key slot takes a secret. Nothing is changed.\v" EXIT_STATUS_HELP,
      unlock_children, NULL, NULL}},
    {"recovery",
     "make a slot for a recovery key, and print it",
     recovery,
     {label_options, parse, "STORE",
      "Makes a random recovery key and a slot for it, and prints it, once." MAY_BE_MOUNTED "\v" EXIT_STATUS_HELP,
      unlock_children, NULL, NULL}},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(FILE *f)
{
	(void)fprintf(
	    f, "Usage: apfs key COMMAND [OPTION...] STORE\nKey slots: what opens a store. There are up to %d.\n\n",
	    SUPERBLOCK_SLOTS);
	for (size_t i = 0; i < COMMANDS; i++)
		(void)fprintf(f, "  %-8s  %s\n", commands[i].name, commands[i].text);
	(void)fprintf(f, "\n  apfs key COMMAND --help says more.\n\n%s\n", EXIT_STATUS_HELP);
}

int cmd_key(int argc, char **argv)
{
	struct key_options o = {.slot = -1};
	struct unlocked u = {0};
	struct err e = {0};
	char name[32];

	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "-?") == 0) {
		help(argc < 2 ? stderr : stdout);
		return argc < 2 ? EXIT_USAGE : EXIT_OK;
	}
	for (size_t i = 0; i < COMMANDS; i++) {
		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		(void)snprintf(name, sizeof(name), "%s %s", argv[0], commands[i].name);
		argv[1] = name;
		o.children = commands[i].argp.children;
		(void)argp_parse(&commands[i].argp, argc - 1, argv + 1, 0, NULL, &o);
		u.program = name;
		u.path = o.path;
		return unlock_end(&u, commands[i].run(&u, &o, &e), &e);
	}
	(void)fprintf(stderr, "%s: there is no command '%s' (see %s --help)\n", argv[0], argv[1], argv[0]);
	return EXIT_USAGE;
}
