/* A store in a temporary directory with a known key, a pipeline on it, and short ways to seal, read and compare. */
#ifndef APFS_TESTS_PIPELINE_RIG_H
#define APFS_TESTS_PIPELINE_RIG_H

#include "pipeline/pipeline.h"
#include "tests/pipeline/faulty.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct rig {
	char dir[64];
	struct io *posix;
	struct faulty faulty;
	struct keyring *keyring;
	struct pipeline_options options;
	struct pipeline *p;
	uint64_t chunk_id;
};

void rig_init(struct rig *r, enum cipher_suite suite);
void rig_release(struct rig *r);
/* Ends the pipeline and starts another that knows the segments of the first. */
void rig_remount(struct rig *r);

/* A keyring of one epoch, 1, whose master key is bytes of `fill`. */
struct keyring *rig_keyring(uint8_t fill);

enum rig_data { RIG_ZEROES, RIG_TEXT, RIG_RANDOM };
/* len bytes that depend on seed alone. */
void rig_fill(enum rig_data kind, uint32_t seed, void *buf, size_t len);

/* What done() reports. */
struct rig_result {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int ret;
	struct pipeline_chunk *chunk;
	struct err e;
};
void rig_result_init(struct rig_result *res);
/* The done of requests whose arg is a rig_result. */
void rig_done(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e);
int rig_wait(struct rig_result *res);

/* Seals and waits. */
int rig_seal(struct rig *r, const struct pipeline_item *item, size_t n, const char *codec, uint32_t frame_size,
	     bool to_inline, struct pipeline_chunk **chunk);
/* Reads all of a chunk: -errno, or 0 with its plaintext in a fresh buffer. */
int rig_read(struct rig *r, const struct pipeline_chunk *chunk, uint8_t **data, struct err *e);
/* Fails the test unless the chunk holds the items' data. */
void rig_check(struct rig *r, const struct pipeline_chunk *chunk, const struct pipeline_item *item, size_t n);

/* The path in the directory of a segment's file. */
void rig_segment_file(struct rig *r, uint64_t id, char *buf, size_t len);

#endif
