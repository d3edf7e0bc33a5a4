/* The command line of apfs-mount, also as mount.fuse.apfs. */
#ifndef APFS_TOOLS_MOUNT_OPTIONS_H
#define APFS_TOOLS_MOUNT_OPTIONS_H

#include "base/log.h"
#include "pipeline/cipher.h"
#include "pipeline/codec.h"
#include "tools/secret.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOUNT_OPTIONS_FUSE 32

struct mount_options {
	const char *program;
	const char *store, *mountpoint;
	bool foreground, init, read_only, noatime, no_compact, debug;
	bool fake; /* mount -f: check the arguments, mount nothing */
	struct secret_source secret;
	uint64_t memory;
	uint32_t commit_interval_ms;
	struct codec_choice compress;
	unsigned threads, workers;
	enum cipher_suite cipher;
	uint32_t kdf_ops;
	uint64_t kdf_mem;
	const char *log; /* NULL: where the mode says; "stderr", "journal" or a file */
	enum log_level log_level;
	const char *fuse[MOUNT_OPTIONS_FUSE]; /* options for the kernel and libfuse */
	size_t nfuse;
	char *words[MOUNT_OPTIONS_FUSE]; /* what the pointers above may point into */
	size_t nwords;
};

/* Fills *o from the command line, exits with EXIT_USAGE and a line where it is wrong, with 0 after --help. */
void mount_options_parse(struct mount_options *o, int argc, char **argv);
void mount_options_release(struct mount_options *o);

#endif
