#include "tools/remount.h"
#include "tools/mounted.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

static unsigned long flag_of(const char *word)
{
	static const struct {
		const char *word;
		unsigned long flag;
	} flags[] = {
	    {"nodev", MS_NODEV},      {"nosuid", MS_NOSUID},   {"noexec", MS_NOEXEC},
	    {"sync", MS_SYNCHRONOUS}, {"dirsync", MS_DIRSYNC}, {"noatime", MS_NOATIME},
	};

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (strcmp(word, flags[i].word) == 0)
			return flags[i].flag;
	}
	return 0;
}

enum exit_status remount(const struct mount_options *o)
{
	unsigned long flags = MS_REMOUNT | (o->read_only ? MS_RDONLY : 0);
	struct mounted m;
	struct err e = {0};

	int ret = mounted_open(o->mountpoint, &m, &e);
	mounted_release(&m);
	if (ret) {
		(void)fprintf(stderr, "%s: %s: %s\n", o->program, o->mountpoint, err_text(&e, ret));
		return mounted_status(ret);
	}
	for (size_t i = 0; i < o->nfuse; i++)
		flags |= flag_of(o->fuse[i]);
	if (mount(o->store, o->mountpoint, "fuse.apfs", flags, NULL) == 0)
		return EXIT_OK;
	(void)fprintf(stderr, "%s: %s: cannot remount: %s\n", o->program, o->mountpoint, strerror(errno));
	return EXIT_REFUSED;
}
