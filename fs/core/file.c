/* Open files. */
#include "fs/core/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

int core_file_open(struct core *c, uint64_t ino, int flags, struct core_file **out)
{
	struct core_file *f = calloc(1, sizeof(*f));
	int ret;

	if (!f)
		return -ENOMEM;
	f->core = c;
	f->flags = flags;
	f->writer = (flags & O_ACCMODE) != O_RDONLY;
	ret = f->writer ? core_may_write(c) : 0;
	if (!ret)
		ret = node_get(c, ino, &f->node);
	if (ret) {
		free(f);
		return ret;
	}
	{
		struct node *n = f->node;

		SCOPED_LOCK(&n->lock);
		if (S_ISDIR(n->attr.mode) && f->writer)
			ret = -EISDIR;
		if (!ret && f->writer)
			n->writers++;
	}
	if (ret) {
		node_put(c, f->node);
		free(f);
		return ret;
	}
	SCOPED_LOCK(&c->table_lock);
	f->node->opens++;
	*out = f;
	return 0;
}

void core_file_close(struct core_file *f)
{
	struct core *c = f->core;
	struct node *n = f->node;
	bool last, nameless;

	{
		SCOPED_LOCK(&c->table_lock);
		last = --n->opens == 0;
	}
	{
		SCOPED_LOCK(&n->lock);
		n->writers -= f->writer;
		nameless = n->attr.nlink == 0;
		if (last)
			data_forget(n);
	}
	if (nameless)
		node_reap_logged(c, n);
	node_put(c, n);
	free(f);
}
