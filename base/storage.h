/* What kind of device STORE lies on. */
#ifndef APFS_BASE_STORAGE_H
#define APFS_BASE_STORAGE_H

#include "base/err.h"

/* STORAGE_AUTO: not known, or to be found out. */
enum storage_class { STORAGE_AUTO = 0, STORAGE_HDD = 1, STORAGE_SSD = 2, STORAGE_NVME = 3, STORAGE_CLASSES = 4 };

const char *storage_class_name(enum storage_class storage);
/* "auto", "hdd", "ssd" or "nvme"; -EINVAL. */
int storage_class_parse(const char *text, enum storage_class *out) MUST_CHECK;

/* Where the kernel tells of devices and mounts: "/sys" and "/proc/self/mountinfo", or what a test has made. */
struct storage_sources {
	const char *sysfs, *mountinfo;
};
extern const struct storage_sources storage_system;

/* The class of the device beneath the file or directory `path`, through partitions, device-mapper, md and loop devices;
 * of several the slowest. SSD where that cannot be told: no device of its own (a network, memory), or a virtual disk,
 * whose "rotational" says nothing. */
enum storage_class storage_detect(const char *path, const struct storage_sources *from);

#endif
