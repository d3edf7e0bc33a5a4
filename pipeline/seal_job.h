/* Within the pipeline: one chunk on its way into a record. Its frames may be made by several threads at once. */
#ifndef APFS_PIPELINE_SEAL_JOB_H
#define APFS_PIPELINE_SEAL_JOB_H

#include "pipeline/seal.h"

/* How a frame is made; what becomes of it is in the chunk. */
struct seal_frame {
	size_t item;     /* where its plaintext begins: this item, */
	uint32_t skip;   /* after these bytes of it */
	uint32_t place;  /* of its worst case in the buffer */
	uint32_t len;    /* bytes to be sealed */
	const void *src; /* where they are */
};

struct seal_job {
	struct sealer *sealer;
	struct pipeline_seal *rq;
	struct workers_job work;
	TAILQ_ENTRY(seal_job) link;
	uint64_t owner, turn; /* the file of its first item, and where that puts it in the queue */
	struct arena_piece piece;
	bool pooled; /* it has gone through the queue and has a piece */
	bool late;   /* sealed only when everything is compressed, because its length decides under which key */

	uint8_t *buf;
	uint32_t worst; /* bytes of the record at most */
	uint32_t table_len, nranges;
	uint32_t overhead, nonce_len;

	struct segment *seg; /* NULL until it is known */
	uint32_t promised;   /* to seg */
	struct chunk_key key;
	struct pipeline_chunk *chunk;

	atomic_uint left; /* steps not finished */
	atomic_int ret;
	struct err e; /* its owner is who set ret */

	uint8_t *nonces; /* header, table, frames */
	struct seal_frame frame[];
};

/* Checks and plans a request. The caller sets the steps, and gives the job a buffer of `worst` bytes before they run.
 */
int seal_job_new(struct sealer *s, struct pipeline_seal *rq, struct seal_job **out, struct err *e) MUST_CHECK;
void seal_job_free(struct seal_job *job);
/* Pins the segment, where it is known already. */
void seal_job_begin(struct seal_job *job);
/* Makes frame i. Any thread, each frame once. */
void seal_job_frame(struct seal_job *job, uint32_t i, struct worker_ctx *ctx);
/* With all frames made: puts the record together and where it belongs. */
void seal_job_complete(struct seal_job *job, struct worker_ctx *ctx);
/* The first failure is the job's: what follows does nothing. Any thread. */
void seal_job_fail(struct seal_job *job, int ret, const struct err *e);

#endif
