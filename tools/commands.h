/* The subcommands of apfs. argv[0] is the name to show: "apfs init". Each returns an exit status. */
#ifndef APFS_TOOLS_COMMANDS_H
#define APFS_TOOLS_COMMANDS_H

#include "pipeline/superblock.h"
#include "tools/exit_status.h"

#include <argp.h>

int cmd_init(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_passwd(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_compact(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_stats(int argc, char **argv);
int cmd_sync(int argc, char **argv);
int cmd_umount(int argc, char **argv);
/* As umount(8) calls its helpers. */
int cmd_umount_helper(int argc, char **argv);

/* For a command with one argument and no options of its own: that argument, after --help and --version. */
const char *command_argument(int argc, char **argv, const char *args_doc, const char *doc);
/* For the parser of a command with one argument and options: what is not an option of its own goes here. */
error_t command_argument_parse(int key, char *arg, struct argp_state *state, const char *name, const char **argument);

/* A line about a key slot. */
void command_print_slot(const struct superblock_slot_info *slot);

#endif
