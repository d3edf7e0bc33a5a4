/*
 * What libfuse does not say of the protocol. Debian 12's libfuse 3.14.0 leaves PARALLEL_DIROPS, HANDLE_KILLPRIV_V2 and
 * SETXATTR_EXT out of its answer to INIT (the first two mended in 3.17.1), and drops the kill-set-id flags of WRITE,
 * SETATTR and SETXATTR. So the session looks at each request before libfuse does, and at the answer to INIT before the
 * kernel does.
 */
#ifndef APFS_FS_FUSE_WIRE_H
#define APFS_FS_FUSE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* In the flags that libfuse hands to write, and in the mode that it hands to setattr: clear set-id bits. The kernel
 * asks for it where the caller lacks CAP_FSETID. */
#define WIRE_KILL_SUIDGID (1 << 30)
/* In the flags that it hands to setxattr: an ACL was set by somebody outside of the group, clear set-gid. */
#define WIRE_KILL_SGID (1 << 30)

struct wire {
	bool completes;         /* this libfuse's answer to INIT needs completing */
	size_t setxattr_lib;    /* bytes of struct fuse_setxattr_in that libfuse expects */
	size_t setxattr_kernel; /* and that the kernel sends */
	uint64_t init_unique;   /* of the INIT request; 0 once it is answered */
	uint32_t offered;       /* the kernel's INIT flags */
};

/* Looks at the version of libfuse that runs. */
void wire_init(struct wire *w);

/* Adapts a request of *len bytes, in a buffer with room for 8 more. Any thread once INIT has been answered. */
void wire_request(struct wire *w, void *buf, size_t *len);

/* Completes the answer to INIT; every other message is left alone. */
void wire_reply(struct wire *w, const struct iovec *iov, int count);

#endif
