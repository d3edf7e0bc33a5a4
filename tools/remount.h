/* mount -o remount. */
#ifndef APFS_TOOLS_REMOUNT_H
#define APFS_TOOLS_REMOUNT_H

#include "tools/exit_status.h"
#include "tools/mount_options.h"

/* Changes of an apfs mount what the kernel decides alone: ro or rw, and dev, suid, exec and sync with their opposites.
 * Whatever else the options say stays as it was when the mount was made. A failure is said on standard error. */
enum exit_status remount(const struct mount_options *o);

#endif
