/* apfs info PATH */
#include "base/io.h"
#include "base/option.h"
#include "fs/fuse/session.h"
#include "pipeline/superblock.h"
#include "tools/commands.h"
#include "tools/mounted.h"
#include "tools/store.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

static void print_uuid(const uint8_t uuid[SUPERBLOCK_UUID])
{
	for (int i = 0; i < SUPERBLOCK_UUID; i++)
		(void)printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	(void)printf("\n");
}

static void print_store(const struct superblock_info *info)
{
	const char *suite = cipher_suite_name(info->suite);
	time_t created = (time_t)info->created;
	char text[64];
	struct tm tm;

	(void)printf("format:   %u, features %#llx\n", info->version, (unsigned long long)info->features);
	(void)printf("uuid:     ");
	print_uuid(info->uuid);
	if (gmtime_r(&created, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm))
		(void)printf("created:  %s\n", text);
	(void)printf("cipher:   %s\n", suite ? suite : "unknown");
	(void)printf("index:    pages of %u bytes\n", info->page_size);
	for (unsigned i = 0; i < info->slots; i++)
		command_print_slot(&info->slot[i]);
}

/* -ENOENT: it is not a store. */
static int info_store(const char *path, struct err *e)
{
	struct superblock *sb = NULL;
	struct io *io = NULL;

	int ret = io_posix_new(path, &io, e);
	if (ret == 0)
		ret = superblock_open(io, &sb, e);
	if (ret == 0) {
		print_store(superblock_info(sb));
		superblock_free(sb);
	}
	io_free(io);
	return ret;
}

/* -ENODATA: it is not under a mount of ours, or neither file nor directory. */
static int info_mounted(const char *path)
{
	char *text = malloc(XATTR_SIZE_MAX);
	if (!text)
		return -ENOMEM;

	ssize_t n = getxattr(path, SESSION_XATTR_INFO, text, XATTR_SIZE_MAX);
	int ret = n < 0 ? errno == EOPNOTSUPP ? -ENODATA : -errno : 0;
	if (n > 0) {
		(void)fwrite(text, 1, (size_t)n, stdout);
		if (text[n - 1] != '\n')
			(void)putchar('\n');
	}
	free(text);
	return ret;
}

static int info_any(const char *path, bool dir, struct err *e)
{
	int ret = dir ? info_store(path, e) : -ENOENT;

	if (ret != -ENOENT)
		return ret;
	err_reset(e);
	ret = info_mounted(path);
	if (ret == -ENODATA)
		return err_set(e, -ENOENT, ERR_USAGE, "neither a store nor a file or directory under an apfs mount");
	return ret ? err_set(e, ret, ERR_IO, "%s", strerror(-ret)) : 0;
}

int cmd_info(int argc, char **argv)
{
	const char *path = command_argument(
	    argc, argv, "PATH",
	    "Describes PATH: a store (format, uuid, cipher, key slots; no passphrase is needed), a mount "
	    "(files, bytes, ratio, segments), or a file or directory under a mount (chunks, "
	    "frames, codecs, ratio, and what decides them).\v" EXIT_STATUS_HELP);
	struct err e = {0};
	struct stat st;

	int ret = stat(path, &st) < 0 ? -errno : 0;
	if (ret == -EACCES && mounted_become_user(path))
		ret = stat(path, &st) < 0 ? -errno : 0;
	if (ret) {
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], path, strerror(-ret));
		return (int)store_status(ret);
	}
	/* A store may itself lie under a mount: it comes first, but for a mount's root. */
	if (st.st_ino == 1 && info_mounted(path) == 0)
		return EXIT_OK;
	ret = info_any(path, S_ISDIR(st.st_mode), &e);
	if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], path, err_text(&e, ret));
	return (int)store_status(ret);
}
