/* The command line of apfs-mount, also as mount.fuse.apfs. */
#ifndef APFS_TOOLS_MOUNT_OPTIONS_H
#define APFS_TOOLS_MOUNT_OPTIONS_H

#include "tools/secret.h"
#include "tools/setting.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOUNT_OPTIONS_FUSE 32

struct mount_options {
	const char *program;
	const char *store, *mountpoint;
	bool foreground, init, read_only, noatime, debug;
	bool fake;    /* mount -f: check the arguments, mount nothing */
	bool remount; /* change the mount that is there */
	struct secret_source secret;
	const char *config; /* NULL: the files where configurations are */
	struct settings settings;
	const char *fuse[MOUNT_OPTIONS_FUSE]; /* options for the kernel and libfuse */
	size_t nfuse;
	char *words[MOUNT_OPTIONS_FUSE]; /* what the pointers above may point into */
	size_t nwords;
};

/* Fills *o from the command line and configuration files, exits with EXIT_USAGE and a line where it is wrong, with 0
 * after --help. */
void mount_options_parse(struct mount_options *o, int argc, char **argv);
void mount_options_release(struct mount_options *o);

#endif
