/*
 * The pipeline: lists of ranges in, sealed chunks in segments out, and frames back. It knows nothing of the index; the
 * caller records what it is given. docs/FORMAT.md has the layouts of segments, chunk records and frames.
 */
#ifndef APFS_PIPELINE_PIPELINE_H
#define APFS_PIPELINE_PIPELINE_H

#include "base/budget.h"
#include "base/io.h"
#include "pipeline/codec.h"
#include "pipeline/governor.h"
#include "pipeline/metrics.h"
#include "pipeline/superblock.h"

#include <stdbool.h>

#define PIPELINE_FRAME_MIN    4096u                /* plaintext bytes that a frame can be asked to be filled to */
#define PIPELINE_FRAME_MAX    65536u               /* plaintext bytes */
#define PIPELINE_CHUNK_MIN    4096u                /* plaintext bytes, but for what a file's end leaves */
#define PIPELINE_CHUNK_MAX    (16u << 20)          /* plaintext bytes */
#define PIPELINE_INLINE_MAX   32768u               /* sealed bytes of a chunk kept in the index */
#define PIPELINE_SEGMENT_SIZE ((uint64_t)64 << 20) /* nominal; the last chunk may overshoot */
#define PIPELINE_SEGMENT_NAME 16                   /* bytes, random; hexadecimal in the file name */
#define PIPELINE_MEMORY       ((uint64_t)64 << 20)
#define PIPELINE_MEMORY_MIN   ((uint64_t)4 << 20)
#define PIPELINE_HEADER_MAX   128 /* bytes of a segment's header */

struct pipeline;

struct pipeline_options {
	struct io *io;                 /* borrowed */
	const struct keyring *keyring; /* borrowed */
	uint8_t uuid[SUPERBLOCK_UUID];
	enum cipher_suite suite; /* what new segments are sealed with */
	unsigned workers;        /* threads that seal, 0: the default for this machine */
	uint64_t next_segment;   /* the first segment id never used */
	uint64_t segment_size;   /* bytes, 0: PIPELINE_SEGMENT_SIZE */
	uint64_t map_max;        /* bytes of segments that are mapped for reading; 0: pread */
	uint64_t memory;         /* bytes for records and buffers, 0: PIPELINE_MEMORY; PIPELINE_MEMORY_MIN at least */
	bool read_only;
	struct governor *governor; /* borrowed; NULL: threads use the machine as they like */
	struct budget *budget;     /* borrowed; NULL: that memory is not counted */
	struct metrics *metrics;   /* borrowed; NULL: nothing is measured */
};

int pipeline_new(const struct pipeline_options *o, struct pipeline **out, struct err *e) MUST_CHECK;
/* Waits for what is under way; nothing may be submitted any more. */
void pipeline_free(struct pipeline *p);

/* One piece of plaintext to seal. Data of successive items is packed into frames; an item does not straddle frames,
 * but one longer than a frame begins a frame and is cut into as many as it fills. An item's place in the chunk's
 * plaintext is the sum of the lengths before it. Successive items of one inode that adjoin become one range of the
 * chunk's record. */
struct pipeline_item {
	uint64_t ino, off;
	uint32_t len; /* 1 to PIPELINE_FRAME_MAX */
	const void *data;
};

struct pipeline_frame {
	uint32_t plain_len, stored_len; /* stored_len counts nonce and tag */
	uint8_t codec;
};

/* A sealed chunk, as the index must remember it. Plain data, one allocation, the caller's to free(). */
struct pipeline_chunk {
	uint64_t id, segment;
	uint64_t offset;     /* of the record in the segment; 0 when inline */
	uint32_t stored_len; /* of the whole record */
	uint32_t plain_len;
	uint32_t data_start; /* of the first frame within the record */
	uint32_t nframes;
	void *inline_data; /* points into this allocation: the record's stored_len bytes; NULL in a segment */
	struct pipeline_frame frame[];
};

/* A request to seal. Everything it points to is the caller's and stays unchanged until `done`. */
struct pipeline_seal {
	const struct pipeline_item *item;
	size_t nitems;
	uint64_t chunk_id; /* never used before */
	uint64_t sequence; /* recorded, rises with every seal of the volume */
	struct codec_choice choice;
	uint32_t frame_size; /* plaintext bytes a frame is filled to, PIPELINE_FRAME_MIN to PIPELINE_FRAME_MAX */
	unsigned workers;    /* threads that may work on its frames at once; 0: all */
	bool many;           /* one of many: handed to the workers however few frames it has */
	bool to_inline;      /* keep the record out of segments if its stored_len is at most PIPELINE_INLINE_MAX */
	/* Called once, from a worker or, where the chunk has fewer than 10 frames and is not one of many or the request
	 * is impossible, from within pipeline_seal_submit, with no lock of the pipeline held. ret is 0 and chunk the
	 * callee's, or -errno with the origin in e. May submit again: that is then done by a worker. */
	void (*done)(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e);
	void *arg; /* the caller's */
};

/* Seals and appends. All failures are reported through done: -EINVAL and -E2BIG for what no chunk can hold, or that
 * `memory` has no room for (a quarter of it always fits), -EROFS,
 * what storage said (the segment is then never appended to again, and every chunk that was on its way to it fails
 * too), and what pipeline_sync failed with, once it has. Never waits for other chunks. Any thread. */
void pipeline_seal_submit(struct pipeline *p, struct pipeline_seal *rq);

/* Makes every chunk whose done() has returned 0 before this call durable: fdatasync of each segment appended to. A
 * failure is final (-EIO or what the device said). Any thread; concurrent calls share. */
int pipeline_sync(struct pipeline *p, struct err *e) MUST_CHECK;

/* Whether a sync has failed, of what was appended or of a segment that was to be begun: nothing is written any more. */
bool pipeline_failed(struct pipeline *p);

/* Threads that seal; and how many of them may at once, 1 to all, which is how it begins. */
unsigned pipeline_workers(const struct pipeline *p);
void pipeline_workers_set(struct pipeline *p, unsigned threads);

/* Runs fn(arg) on the worker pool: prefetch and other work that may wait. -EAGAIN when the queue is full. */
int pipeline_run(struct pipeline *p, void (*fn)(void *arg), void *arg) MUST_CHECK;
/* Waits until all of that has run. */
void pipeline_run_wait(struct pipeline *p);

/* Reads, opens and decompresses frame number n of a chunk into out (frame[n].plain_len bytes). inline_data says where
 * the record is if the chunk is inline. -EBADMSG: damaged or not authentic. -ENOENT: the segment is gone. Any thread:
 * contexts come from a small cache. */
int pipeline_read_frame(struct pipeline *p, const struct pipeline_chunk *chunk, const void *inline_data, uint32_t n,
                        void *out, struct err *e) MUST_CHECK;

/* As pipeline_read_frame for the frames [n, n + count) to consecutive places of out, with one read of the segment for
 * every 700 KiB or so. After a failure all of out is zeroes, or untouched. */
int pipeline_read_frames(struct pipeline *p, const struct pipeline_chunk *chunk, const void *inline_data, uint32_t n,
                         uint32_t count, void *out, struct err *e) MUST_CHECK;

/* --- segments ---------------------------------------------------------------------------------------------------- */

enum pipeline_segment_kind { PIPELINE_SEGMENT_FILE = 0, PIPELINE_SEGMENT_INLINE = 1 };

/* What the index must remember of a segment. An inline segment has no file: its header lives in the index. */
struct pipeline_segment {
	uint64_t id;
	uint64_t size; /* bytes appended so far, header included; 0 when inline */
	enum pipeline_segment_kind kind;
	uint32_t epoch;
	uint8_t name[PIPELINE_SEGMENT_NAME];
	bool open; /* being appended to by this mount */
	uint16_t header_len;
	uint8_t header[PIPELINE_HEADER_MAX];
};

/* Makes a segment of an earlier mount known, so that its chunks can be read. Its file is opened on first use. With a
 * header_len the file's header must be that header; with 0 (a file found by recovery) name and kind are enough.
 * -EEXIST: the id is known. -EINVAL: impossible. */
int pipeline_segment_add(struct pipeline *p, const struct pipeline_segment *s) MUST_CHECK;

/* Segments made by this mount with id >= from, in order, at most max: the count. A segment is listed as soon as a
 * chunk in it can have been reported. */
size_t pipeline_segment_new_since(struct pipeline *p, uint64_t from, struct pipeline_segment *out, size_t max);

/* Fills *out; -ENOENT if unknown. */
int pipeline_segment_get(struct pipeline *p, uint64_t id, struct pipeline_segment *out) MUST_CHECK;

/* Ends appending to an open segment: the next chunk starts another. Chunks being sealed still reach it, and it is
 * `open` until then. */
void pipeline_segment_roll(struct pipeline *p, uint64_t id);

/* Deletes a segment's file, which must not be open for appending (-EBUSY), and forgets it. Frames being read from it
 * finish first: it returns when the space is free. -ENOENT if it is not known; a file that is gone already is no error.
 */
int pipeline_segment_delete(struct pipeline *p, uint64_t id, struct err *e) MUST_CHECK;

/* The file of a segment, as "segments/xx/<32 hex digits>". */
void pipeline_segment_path(const uint8_t name[PIPELINE_SEGMENT_NAME], char *buf, size_t len);
/* The name of a segment from that of its file; false where that is none. */
bool pipeline_segment_name_parse(const char *file, uint8_t name[PIPELINE_SEGMENT_NAME]);

/* --- scanning, for recovery and check ---------------------------------------------------------------------------- */

struct pipeline_range {
	uint64_t ino, off;
	uint32_t len;
};

struct pipeline_record {
	uint64_t chunk_id, sequence, offset;
	uint32_t stored_len, plain_len, nframes, nranges;
	const struct pipeline_range *range; /* valid during the call */
};

/* Calls fn for each valid record of a known segment's file, in order, and stops at the first that is not (all of its
 * parts are authenticated); *valid_end is where that is. A non-zero return of fn ends the scan and is the result; fn
 * may call the pipeline. Records may follow that were appended while an earlier one was still being written. */
int pipeline_segment_scan(struct pipeline *p, uint64_t id, int (*fn)(void *arg, const struct pipeline_record *r),
                          void *arg, uint64_t *valid_end, struct err *e) MUST_CHECK;

/* Opens a segment's file, or an inline segment, and checks its header. -ENOENT: the file is missing. */
int pipeline_segment_verify(struct pipeline *p, uint64_t id, struct err *e) MUST_CHECK;

/* Looks at records one at a time, with buffers that are kept. One thread at a time each. */
struct pipeline_verifier;
int pipeline_verifier_new(struct pipeline *p, struct pipeline_verifier **out) MUST_CHECK;
void pipeline_verifier_free(struct pipeline_verifier *v); /* NULL is allowed */

/* Reads header and table of a chunk's record and compares them with what the caller knows of the chunk; frames are not
 * read. out->range is valid until the next call. -EBADMSG: damaged, or not what *chunk says. */
int pipeline_verify_record(struct pipeline_verifier *v, const struct pipeline_chunk *chunk, uint64_t sequence,
                           const void *inline_data, struct pipeline_record *out, struct err *e) MUST_CHECK;

/* --- counters ---------------------------------------------------------------------------------------------------- */

struct pipeline_stats {
	uint64_t sealed_plain, sealed_stored;   /* bytes */
	uint64_t chunks, frames, frames_stored; /* sealed; frames_stored were incompressible */
	uint64_t frames_read, bytes_read;       /* stored bytes */
	uint64_t syncs;                         /* of segments */
};
void pipeline_stats_get(struct pipeline *p, struct pipeline_stats *out);

/* Brings the gauges of the metrics up to date: queue, workers, ratio. */
void pipeline_gauges(struct pipeline *p);

#endif
