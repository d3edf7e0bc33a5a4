#include "base/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

#define DEPTH_MAX 8 /* a loop device on a volume on an array on partitions */

const struct storage_sources storage_system = {"/sys", "/proc/self/mountinfo"};

static const char *const names[STORAGE_CLASSES] = {
    [STORAGE_AUTO] = "auto", [STORAGE_HDD] = "hdd", [STORAGE_SSD] = "ssd", [STORAGE_NVME] = "nvme"};

const char *storage_class_name(enum storage_class storage)
{
	return (unsigned)storage < STORAGE_CLASSES ? names[storage] : "unknown";
}

int storage_class_parse(const char *text, enum storage_class *out)
{
	for (unsigned i = 0; i < STORAGE_CLASSES; i++) {
		if (!strcmp(text, names[i])) {
			*out = (enum storage_class)i;
			return 0;
		}
	}
	return -EINVAL;
}

static enum storage_class class_of_path(const char *path, const struct storage_sources *from, int depth);

/* The first line of a file in a directory of sysfs, without its end. */
static bool read_line(const char *dir, const char *name, char *buf, size_t len)
{
	char path[PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
		return false;
	FILE *f = fopen(path, "re");
	if (!f)
		return false;
	bool got = fgets(buf, (int)len, f) != NULL;
	(void)fclose(f);
	if (got)
		buf[strcspn(buf, "\n")] = 0;
	return got;
}

/* Of what is known, the slowest. */
static enum storage_class slower(enum storage_class a, enum storage_class b)
{
	if (a == STORAGE_AUTO || b == STORAGE_AUTO)
		return a == STORAGE_AUTO ? b : a;
	return a < b ? a : b;
}

static enum storage_class class_of_device(const char *dir, const struct storage_sources *from, int depth);

/* What a device-mapper or md device is made of; AUTO where there is nothing. */
static enum storage_class class_of_slaves(const char *dir, const struct storage_sources *from, int depth)
{
	enum storage_class storage = STORAGE_AUTO;
	char path[PATH_MAX], real[PATH_MAX];
	struct dirent *d;

	if ((size_t)snprintf(path, sizeof(path), "%s/slaves", dir) >= sizeof(path))
		return STORAGE_AUTO;
	DIR *slaves = opendir(path);
	if (!slaves)
		return STORAGE_AUTO;
	while ((d = readdir(slaves))) {
		if (d->d_name[0] == '.' ||
		    (size_t)snprintf(path, sizeof(path), "%s/slaves/%s", dir, d->d_name) >= sizeof(path))
			continue;
		if (realpath(path, real))
			storage = slower(storage, class_of_device(real, from, depth + 1));
	}
	(void)closedir(slaves);
	return storage;
}

/* Disks of virtual machines, which are "rotational" unless the host says otherwise. */
static bool is_virtual(const char *name)
{
	static const char *const prefix[] = {"vd", "xvd"};

	for (size_t i = 0; i < sizeof(prefix) / sizeof(prefix[0]); i++)
		if (!strncmp(name, prefix[i], strlen(prefix[i])))
			return true;
	return false;
}

/* dir: the directory of sysfs of a disk or partition, without symbolic links. */
static enum storage_class class_of_device(const char *dir, const struct storage_sources *from, int depth)
{
	char disk[PATH_MAX], line[PATH_MAX];
	enum storage_class storage;

	if (depth > DEPTH_MAX || (size_t)snprintf(disk, sizeof(disk), "%s", dir) >= sizeof(disk))
		return STORAGE_AUTO;
	if (read_line(disk, "partition", line, sizeof(line))) {
		char *slash = strrchr(disk, '/');

		if (slash)
			*slash = 0;
	}
	storage = class_of_slaves(disk, from, depth);
	if (storage != STORAGE_AUTO)
		return storage;
	if (read_line(disk, "loop/backing_file", line, sizeof(line)))
		return class_of_path(line, from, depth + 1);
	const char *slash = strrchr(disk, '/'), *name = slash ? slash + 1 : disk;
	if (!strncmp(name, "nvme", 4))
		return STORAGE_NVME;
	if (!read_line(disk, "queue/rotational", line, sizeof(line)))
		return STORAGE_AUTO;
	if (!strcmp(line, "0"))
		return STORAGE_SSD;
	return is_virtual(name) ? STORAGE_AUTO : STORAGE_HDD;
}

static enum storage_class class_of_number(unsigned major, unsigned minor, const struct storage_sources *from, int depth)
{
	char path[PATH_MAX], real[PATH_MAX];

	if ((size_t)snprintf(path, sizeof(path), "%s/dev/block/%u:%u", from->sysfs, major, minor) >= sizeof(path) ||
	    !realpath(path, real))
		return STORAGE_AUTO;
	return class_of_device(real, from, depth);
}

/* The name of the device that is mounted as mount `id`, of a filesystem whose files have device numbers of their own.
 * A line is: id parent major:minor root mountpoint options [tag...] - type source options. */
static bool mounted_device(const struct storage_sources *from, uint64_t id, char *device, size_t len)
{
	FILE *f = fopen(from->mountinfo, "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	if (!f)
		return false;
	while (!found && getline(&line, &room, f) > 0) {
		const char *source = strstr(line, " - ");

		if (strtoull(line, NULL, 10) != id || !source)
			continue;
		source = strchr(source + 3, ' ');
		if (!source || source[1] != '/')
			break;
		size_t n = strcspn(++source, " \n");
		if (n < len) {
			memcpy(device, source, n);
			device[n] = 0;
			found = true;
		}
	}
	free(line);
	(void)fclose(f);
	return found;
}

static enum storage_class class_of_path(const char *path, const struct storage_sources *from, int depth)
{
	char device[PATH_MAX];
	struct statx st;
	struct stat dev;

	if (depth > DEPTH_MAX || statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_MNT_ID, &st))
		return STORAGE_AUTO;
	if (st.stx_dev_major)
		return class_of_number(st.stx_dev_major, st.stx_dev_minor, from, depth);
	if (!(st.stx_mask & STATX_MNT_ID) || !mounted_device(from, st.stx_mnt_id, device, sizeof(device)) ||
	    stat(device, &dev) || !S_ISBLK(dev.st_mode))
		return STORAGE_AUTO;
	return class_of_number(major(dev.st_rdev), minor(dev.st_rdev), from, depth);
}

enum storage_class storage_detect(const char *path, const struct storage_sources *from)
{
	enum storage_class storage = class_of_path(path, from, 0);

	return storage == STORAGE_AUTO ? STORAGE_SSD : storage;
}
