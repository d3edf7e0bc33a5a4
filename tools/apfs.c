/* apfs COMMAND ...: everything about stores and mounts but mounting. */
#include "tools/commands.h"
#include "tools/process.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *argp_program_version = "apfs " APFS_VERSION;

static const struct {
	const char *name, *args, *text;
	int (*run)(int argc, char **argv);
} commands[] = {
    {"init", "STORE", "make a new store", cmd_init},
    {"info", "PATH", "describe a store, a mount, or a file under a mount", cmd_info},
    {"passwd", "STORE", "change the passphrase of a store", cmd_passwd},
    {"key", "STORE", "add, remove, list and test what opens a store", cmd_key},
    {"check", "STORE", "look for damage in a store", cmd_check},
    {"compact", "MOUNT", "give back the space of what was overwritten and deleted", cmd_compact},
    {"config", "MOUNT", "show the settings of a mount, and where they come from", cmd_config},
    {"export-index", "STORE", "write a plaintext copy of a store's index", cmd_export},
    {"stats", "MOUNT", "show what a mount has counted: speed, waiting, how busy it is", cmd_stats},
    {"sync", "MOUNT", "make everything written to a mount durable", cmd_sync},
    {"umount", "MOUNT", "unmount, and wait until all of it is durable", cmd_umount},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void help(FILE *f)
{
	(void)fprintf(f, "Usage: apfs COMMAND [OPTION...] ARGUMENT\n"
	                 "A compressing and encrypting filesystem; apfs-mount mounts a store.\n\n");
	for (size_t i = 0; i < COMMANDS; i++)
		(void)fprintf(f, "  %-12s %-6s  %s\n", commands[i].name, commands[i].args, commands[i].text);
	(void)fprintf(f, "\n  apfs COMMAND --help says more.\n\n%s\n", EXIT_STATUS_HELP);
}

const char *command_argument(int argc, char **argv, const char *args_doc, const char *doc)
{
	const struct argp argp = {NULL, NULL, args_doc, doc, NULL, NULL, NULL};
	int index = 0;

	(void)argp_parse(&argp, argc, argv, 0, &index, NULL);
	if (argc - index != 1) {
		(void)fprintf(stderr, "%s: one %s is needed (see %s --help)\n", argv[0], args_doc, argv[0]);
		exit(EXIT_USAGE);
	}
	return argv[index];
}

error_t command_argument_parse(int key, char *arg, struct argp_state *state, const char *name, const char **argument)
{
	switch (key) {
	case ARGP_KEY_ARG:
		if (*argument)
			argp_error(state, "too many arguments");
		*argument = arg;
		return 0;
	case ARGP_KEY_END:
		if (!*argument)
			argp_error(state, "%s is needed", name);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Without mount.fuse.apfs in /sbin, mount(8) has mount.fuse run "apfs STORE MOUNTPOINT -o OPTIONS". */
static bool called_by_mount_fuse(int argc, char **argv)
{
	struct stat st;

	return argc >= 3 && strchr(argv[1], '/') && stat(argv[1], &st) == 0 && S_ISDIR(st.st_mode);
}

/* apfs-mount lies next to us; there may be no PATH to find it by. */
static int run_mount(char **argv)
{
	char path[PATH_MAX + 16], name[] = "apfs-mount";
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);

	path[n > 0 ? n : 0] = 0;
	char *slash = strrchr(path, '/');
	(void)snprintf(slash ? slash + 1 : path, sizeof(name), "%s", name);
	argv[0] = name;
	(void)execv(path, argv);
	(void)execvp(name, argv);
	perror("apfs: cannot run apfs-mount");
	return EXIT_SYSTEM;
}

static int run_command(int argc, char **argv)
{
	for (size_t i = 0; i < COMMANDS; i++) {
		char name[32];

		if (strcmp(argv[1], commands[i].name) != 0)
			continue;
		(void)snprintf(name, sizeof(name), "apfs %s", commands[i].name);
		argv[1] = name;
		return commands[i].run(argc - 1, argv + 1);
	}
	if (called_by_mount_fuse(argc, argv))
		return run_mount(argv);
	(void)fprintf(stderr, "apfs: there is no command '%s' (see apfs --help)\n", argv[1]);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *program = slash ? slash + 1 : argv[0];

	process_harden();
	argp_err_exit_status = EXIT_USAGE;
	if (strncmp(program, "umount.", 7) == 0)
		return cmd_umount_helper(argc, argv);
	if (argc < 2) {
		help(stderr);
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "-?") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		help(stdout);
		return EXIT_OK;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		(void)puts(argp_program_version);
		return EXIT_OK;
	}
	return run_command(argc, argv);
}
