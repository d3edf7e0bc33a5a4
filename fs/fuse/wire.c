#include "fs/fuse/wire.h"
#include "fs/fuse/internal.h"

#include <linux/fuse.h>
#include <string.h>

#define SETXATTR_EXTENDED sizeof(struct fuse_setxattr_in)

/* The kernel header that first had the extended layout. A libfuse made with an older one names an older protocol;
 * upstream's 3.13.0 to 3.14.0 were made with a newer one by mistake, and read the layout that they did not ask for. */
#define SETXATTR_EXTENDED_MINOR 33

void wire_init(struct wire *w)
{
	memset(w, 0, sizeof(*w));
	w->setxattr_kernel = FUSE_COMPAT_SETXATTR_IN_SIZE;
	w->setxattr_lib = FUSE_COMPAT_SETXATTR_IN_SIZE;
#if FUSE_VERSION < FUSE_MAKE_VERSION(3, 17)
	w->completes = fuse_version() < FUSE_MAKE_VERSION(3, 17);
#endif
}

static void adapt_setxattr(const struct wire *w, void *buf, size_t *len)
{
	struct fuse_in_header *in = buf;
	uint8_t *arg = (uint8_t *)buf + sizeof(*in);
	size_t fixed = sizeof(*in) + w->setxattr_kernel;

	if (*len < fixed)
		return;
	if (w->setxattr_kernel == SETXATTR_EXTENDED) {
		struct fuse_setxattr_in ext;

		memcpy(&ext, arg, sizeof(ext));
		ext.flags &= ~(uint32_t)WIRE_KILL_SGID;
		if (ext.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)
			ext.flags |= (uint32_t)WIRE_KILL_SGID;
		memcpy(arg, &ext, sizeof(ext));
	}
	if (w->setxattr_kernel != w->setxattr_lib) {
		memmove(arg + w->setxattr_lib, arg + w->setxattr_kernel, *len - fixed);
		*len = *len - w->setxattr_kernel + w->setxattr_lib;
		in->len = (uint32_t)*len;
	}
}

/* Puts the bit that libfuse drops where libfuse does not look. */
static void relay(uint32_t *flags, bool kill)
{
	*flags = (*flags & ~(uint32_t)WIRE_KILL_SUIDGID) | (kill ? (uint32_t)WIRE_KILL_SUIDGID : 0);
}

void wire_request(struct wire *w, void *buf, size_t *len)
{
	struct fuse_in_header *in = buf;
	void *arg = in + 1;
	size_t left = *len - sizeof(*in);

	switch (in->opcode) {
	case FUSE_INIT: {
		struct fuse_init_in *init = arg;

		if (left >= offsetof(struct fuse_init_in, flags) + sizeof(init->flags)) {
			w->init_unique = in->unique;
			w->offered = init->flags;
		}
		break;
	}
	case FUSE_SETATTR: {
		struct fuse_setattr_in *set = arg;

		if (left >= sizeof(*set))
			relay(&set->mode, set->valid & FATTR_KILL_SUIDGID);
		break;
	}
	case FUSE_WRITE: {
		struct fuse_write_in *wr = arg;

		if (left >= sizeof(*wr))
			relay(&wr->flags, wr->write_flags & FUSE_WRITE_KILL_SUIDGID);
		break;
	}
	case FUSE_SETXATTR:
		adapt_setxattr(w, buf, len);
		break;
	default:
		break;
	}
}

void wire_reply(struct wire *w, const struct iovec *iov, int count)
{
	const uint32_t add = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT;

	if (!w->init_unique || count < 2 || iov[0].iov_len != sizeof(struct fuse_out_header))
		return;
	const struct fuse_out_header *out = iov[0].iov_base;
	if (out->unique != w->init_unique)
		return;
	w->init_unique = 0;
	if (out->error || iov[1].iov_len < FUSE_COMPAT_22_INIT_OUT_SIZE)
		return;

	struct fuse_init_out *init = iov[1].iov_base;
	if (w->completes)
		init->flags |= w->offered & add;
	if (w->completes ? init->minor >= SETXATTR_EXTENDED_MINOR : (init->flags & FUSE_SETXATTR_EXT) != 0)
		w->setxattr_lib = SETXATTR_EXTENDED;
	if (init->flags & FUSE_SETXATTR_EXT)
		w->setxattr_kernel = SETXATTR_EXTENDED;
}
