/* A store in a temporary directory with a known key, a pipeline on it, and short ways to seal, read and compare. */
#ifndef APFS_TESTS_PIPELINE_RIG_H
#define APFS_TESTS_PIPELINE_RIG_H

#include "pipeline/pipeline.h"
#include "tests/base/scratch.h"
#include "tests/pipeline/faulty.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct rig {
	char dir[SCRATCH_PATH];
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

/* That for n items of 64 KiB, one after another in inode 1. */
void rig_fill_items(enum rig_data kind, uint32_t seed, void *buf, struct pipeline_item *item, size_t n);

/* What done() reports. */
struct rig_result {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int ret;
	struct pipeline_chunk *chunk;
	struct err e;
};
/* Sets done and arg of the request, and submits it. */
void rig_submit(struct rig *r, struct pipeline_seal *rq, struct rig_result *res);
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

uint8_t *rig_file_read(const char *path, size_t *len);
void rig_file_write(const char *path, const void *buf, size_t len, size_t off);

/* The plaintexts of rig_seal_small. */
extern uint8_t rig_small[4][3000];
/* Seals three ranges of rig_small[i], about a kilobyte stored, sequence twice the next chunk id. */
struct pipeline_chunk *rig_seal_small(struct rig *r, unsigned i, struct pipeline_item item[3]);
/* Reads a chunk that holds `want`: fails the test if it yields anything else but that or a clear error without any
 * plaintext. 0 or that error. */
int rig_read_or_fail(struct rig *r, const struct pipeline_chunk *chunk, const uint8_t *want);

/* What a scan finds. */
struct rig_found {
	unsigned n;
	struct pipeline_record rec[4];
	struct pipeline_range range[4][4];
	int ret; /* of the callback, for the second record */
};
/* For pipeline_segment_scan; arg is a struct rig_found. */
int rig_note(void *arg, const struct pipeline_record *rec);

#endif
