#include "tests/core/inside.h"

#include "fs/core/volume.h"
#include "index/hooks.h"

int inside_check(struct core *c, struct err *e)
{
	return index_check(c->index, e);
}

void inside_checkpoint_every(struct core *c, uint64_t bytes)
{
	index_checkpoint_every(c->index, bytes);
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
