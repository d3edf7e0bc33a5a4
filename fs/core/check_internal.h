/* What the files of core_check share. */
#ifndef APFS_FS_CORE_CHECK_INTERNAL_H
#define APFS_FS_CORE_CHECK_INTERNAL_H

#include "fs/core/check.h"
#include "fs/core/volume.h"

/* A segment of the index, and what is wrong with its file. */
struct check_segment {
	UT_hash_handle hh, by_name;
	uint64_t id, size; /* size of the file */
	uint8_t name[PIPELINE_SEGMENT_NAME];
	bool has_file;
	int bad; /* 0 or why none of it can be read */
};

struct damaged_file; /* check_files.c */

struct check {
	const struct check_options *o;
	struct check_result *r;
	struct io *io; /* the overlay */
	struct superblock *sb;
	struct keyring *keyring;
	struct index_seal seal;
	struct index *index;
	struct pipeline *pipeline;
	struct check_segment *segments, *names;

	pthread_mutex_t lock; /* what follows and the callbacks, while threads run */
	struct damaged_file *files;
	unsigned nfiles;
	bool files_left_out;
	uint64_t after, total, done; /* the last chunk handed out; bytes of records */
	int ret;                     /* why the threads end early */
};

/* Reports, and counts. */
void check_finding(struct check *ck, enum check_kind kind, const char *fmt, ...) PRINTF(3, 4);
/* True once the caller wants to stop. */
bool check_progress(struct check *ck, const char *what, bool bytes, uint64_t done, uint64_t total);

/* check_segments.c: makes the segments known, compares files and rows. */
int check_segments(struct check *ck) MUST_CHECK;
void check_segments_release(struct check *ck);

/* check_chunks.c: every chunk. */
int check_chunks(struct check *ck) MUST_CHECK;

/* check_files.c: notes that bytes [from, to) of a chunk are lost. *used: of a file. */
int check_damage(struct check *ck, uint64_t chunk, uint32_t from, uint32_t to, bool *used) MUST_CHECK;
/* Finds names for the damaged files and reports them. */
int check_files(struct check *ck) MUST_CHECK;
void check_files_release(struct check *ck);

#endif
