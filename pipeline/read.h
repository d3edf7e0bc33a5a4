/* Within the pipeline: frames back from segments, and scanning them. */
#ifndef APFS_PIPELINE_READ_H
#define APFS_PIPELINE_READ_H

#include "pipeline/segment.h"

struct reader {
	struct segment_store *store;
	struct workers *workers;
};

int reader_frames(struct reader *r, const struct pipeline_chunk *chunk, const void *inline_data, uint32_t n,
                  uint32_t count, void *out, uint64_t *stored, struct err *e) MUST_CHECK;

int scan_segment(struct segment_store *s, uint64_t id, int (*fn)(void *arg, const struct pipeline_record *r), void *arg,
                 uint64_t *valid_end, struct err *e) MUST_CHECK;

int verifier_new(struct segment_store *s, struct pipeline_verifier **out) MUST_CHECK;

#endif
