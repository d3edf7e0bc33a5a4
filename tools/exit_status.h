/* The exit statuses of apfs-mount and apfs; --help lists them. They are part of the interface: only add. */
#ifndef APFS_TOOLS_EXIT_STATUS_H
#define APFS_TOOLS_EXIT_STATUS_H

enum exit_status {
	EXIT_OK = 0,
	EXIT_USAGE = 1,            /* wrong options or arguments */
	EXIT_SYSTEM = 2,           /* anything without a number of its own: I/O error, out of memory */
	EXIT_NOT_STORE = 10,       /* STORE is missing, or is not a store */
	EXIT_WRONG_PASS = 11,      /* wrong passphrase, key file or recovery key */
	EXIT_NO_PASS = 12,         /* none could be read, or a recovery key is mistyped */
	EXIT_IN_USE = 13,          /* STORE is in use */
	EXIT_NEWER = 14,           /* STORE has a newer format */
	EXIT_DAMAGED = 15,         /* STORE is damaged */
	EXIT_EXISTS = 16,          /* init: STORE is a store already, or not empty */
	EXIT_TOO_SMALL = 17,       /* not enough memory to derive the key */
	EXIT_SLOT = 18,            /* a key slot: not in use, the last one, or none is left */
	EXIT_NO_MOUNTPOINT = 20,   /* MOUNTPOINT is missing or not a directory */
	EXIT_BUSY_MOUNTPOINT = 21, /* something is mounted on MOUNTPOINT */
	EXIT_NESTED = 22,          /* MOUNTPOINT lies inside STORE, or STORE inside MOUNTPOINT */
	EXIT_NO_FUSE = 23,         /* FUSE is not available */
	EXIT_REFUSED = 24,         /* the mount was refused */
	EXIT_NOT_MOUNT = 30,       /* not an apfs mount, or not any more */
	EXIT_BUSY = 31,            /* umount: files are open */
	EXIT_TIMEOUT = 32,         /* umount: unmounted, but the process goes on */
	EXIT_CHECK_SPARE = 40,     /* check: only what is kept twice is damaged, all files are in order */
	EXIT_CHECK_DATA = 41,      /* check: data of files is damaged */
	EXIT_CHECK_INDEX = 42,     /* check: the index is damaged */
	EXIT_CHECK_STOPPED = 43    /* check: stopped before the end, nothing was found up to there */
};

#define EXIT_STATUS_HELP                                       \
	"Exit status:\n"                                       \
	"   0  success\n"                                      \
	"   1  wrong options or arguments\n"                   \
	"   2  other failure\n"                                \
	"  10  STORE is missing or not a store\n"              \
	"  11  wrong passphrase, key file or recovery key\n"   \
	"  12  none could be read, or it is mistyped\n"        \
	"  13  STORE is in use\n"                              \
	"  14  STORE has a newer format\n"                     \
	"  15  STORE is damaged\n"                             \
	"  16  STORE exists already or is not empty\n"         \
	"  17  not enough memory to derive the key\n"          \
	"  18  key slot: unused, the last one, or none left\n" \
	"  20  MOUNTPOINT is missing or not a directory\n"     \
	"  21  something is mounted on MOUNTPOINT\n"           \
	"  22  MOUNTPOINT lies inside STORE or the reverse\n"  \
	"  23  FUSE is not available\n"                        \
	"  24  the mount was refused\n"                        \
	"  30  not an apfs mount, or not any more\n"           \
	"  31  busy: files are open\n"                         \
	"  32  the mount's process did not end in time\n"      \
	"  40  check: only a spare copy is damaged\n"          \
	"  41  check: data of files is damaged\n"              \
	"  42  check: the index is damaged\n"                  \
	"  43  check: stopped; no damage found up to there"

#endif
