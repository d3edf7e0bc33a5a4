#include "tests/core/inside.h"

#include "fs/core/check.h"
#include "fs/core/compact.h"
#include "fs/core/volume.h"

#include <errno.h>

static void index_finding(void *arg, const char *text)
{
	(void)err_set(arg, -EUCLEAN, ERR_FORMAT, "%s", text);
}

int inside_check(struct core *c, struct err *e)
{
	const struct index_verify v = {.tree = true, .finding = index_finding, .arg = e};
	struct index_totals_checked totals;
	int ret = index_verify(c->index, &v, &totals);

	return ret ? ret : e->code;
}

static void store_finding(void *arg, enum check_kind kind, const char *text)
{
	if (kind > CHECK_NOTE)
		(void)err_set(arg, -EUCLEAN, ERR_FORMAT, "%s", text);
}

static void store_file(void *arg, const struct check_file *f)
{
	(void)err_set(arg, -EUCLEAN, ERR_FORMAT, "inode %llu is damaged", (unsigned long long)f->ino);
}

int inside_check_store(struct io *io, const void *pass, size_t len, struct err *e)
{
	const struct secret secret = {SECRET_PASSPHRASE, pass, len};
	const struct check_options o = {.io = io,
	                                .secret = &secret,
	                                .data = true,
	                                .threads = 1,
	                                .finding = store_finding,
	                                .file = store_file,
	                                .arg = e};
	struct check_result r;
	int ret = core_check(&o, &r, e);

	return ret ? ret : e->code;
}

void inside_checkpoint_every(struct core *c, uint64_t bytes)
{
	index_checkpoint_every(c->index, bytes);
}

int inside_compact(struct core *c, bool all)
{
	return compact_run(c, all);
}

int inside_half_cut(struct core *c)
{
	struct err e = {0};

	return cut_round(c, CUT_FULL, NULL, 0, &e);
}

void inside_roll(struct core *c)
{
	struct pipeline_segment s[64];
	uint64_t from = 0;
	size_t n;

	do {
		n = pipeline_segment_new_since(c->pipeline, from, s, 64);
		for (size_t i = 0; i < n; i++) {
			from = s[i].id + 1;
			if (s[i].open)
				pipeline_segment_roll(c->pipeline, s[i].id);
		}
	} while (n == 64);
}

void inside_set_links(struct core *c, uint64_t ino, uint32_t nlink)
{
	struct node *n;

	if (node_get(c, ino, &n))
		return;
	{
		SCOPED_LOCK(&n->lock);
		n->attr.nlink = nlink;
	}
	node_put(c, n);
}
