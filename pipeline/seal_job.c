#include "pipeline/seal_job.h"

#include "pipeline/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- planning ----------------------------------------------------------------------------------------------------- */

static int check_request(const struct pipeline_seal *rq, uint32_t *plain_len, struct err *e)
{
	uint64_t sum = 0;

	if (!rq->nitems || rq->frame_size < PIPELINE_FRAME_MIN || rq->frame_size > PIPELINE_FRAME_MAX)
		return err_set(e, -EINVAL, ERR_USAGE, "a chunk without items or with frames of %u bytes",
		               rq->frame_size);
	for (size_t i = 0; i < rq->nitems && sum <= PIPELINE_CHUNK_MAX; i++) {
		const struct pipeline_item *it = &rq->item[i];
		if (!it->len || it->len > PIPELINE_FRAME_MAX || it->off > (uint64_t)INT64_MAX - it->len)
			return err_set(e, -EINVAL, ERR_USAGE, "an item of %u bytes at %llu", it->len,
			               (unsigned long long)it->off);
		sum += it->len;
	}
	if (sum > PIPELINE_CHUNK_MAX)
		return err_set(e, -EINVAL, ERR_USAGE, "a chunk of more than %u bytes", PIPELINE_CHUNK_MAX);
	*plain_len = (uint32_t)sum;
	return 0;
}

/* The length of the frame that begins at *skip of *item, and where the one after it begins. An item that does not fit
 * what is left of a frame begins another; only one longer than a whole frame is cut. */
static uint32_t plan_frame(const struct pipeline_seal *rq, size_t *item, uint32_t *skip)
{
	uint32_t len = 0;

	while (*item < rq->nitems) {
		uint32_t left = rq->item[*item].len - *skip;

		if (left > rq->frame_size - len) {
			if (len)
				break;
			*skip += rq->frame_size;
			return rq->frame_size;
		}
		len += left;
		*skip = 0;
		++*item;
	}
	return len;
}

static uint32_t count_frames(const struct pipeline_seal *rq)
{
	uint32_t n = 0, skip = 0;

	for (size_t item = 0; item < rq->nitems; n++)
		(void)plan_frame(rq, &item, &skip);
	return n;
}

static void plan(struct seal_job *job)
{
	struct pipeline_chunk *chunk = job->chunk;
	uint32_t skip = 0, place = chunk->data_start;
	size_t item = 0;

	for (uint32_t i = 0; i < chunk->nframes; i++) {
		job->frame[i] = (struct seal_frame){.item = item, .skip = skip, .place = place};
		chunk->frame[i] = (struct pipeline_frame){.plain_len = plan_frame(job->rq, &item, &skip)};
		place += chunk->frame[i].plain_len + job->overhead;
	}
	job->worst = place;
}

void seal_job_free(struct seal_job *job)
{
	free(job->chunk);
	free(job);
}

static struct seal_job *job_alloc(uint32_t nframes, size_t nonce_len)
{
	size_t frames = nframes * sizeof(struct seal_frame), nonces = ((size_t)nframes + 2) * nonce_len;
	struct seal_job *job = calloc(1, sizeof(*job) + frames + nonces);

	if (!job)
		return NULL;
	job->nonces = (uint8_t *)job + sizeof(*job) + frames;
	keys_random(job->nonces, nonces);
	job->chunk = calloc(1, sizeof(*job->chunk) + nframes * sizeof(job->chunk->frame[0]));
	if (job->chunk)
		return job;
	free(job);
	return NULL;
}

int seal_job_new(struct sealer *s, struct pipeline_seal *rq, struct seal_job **out, struct err *e)
{
	enum cipher_suite suite = s->store->suite;
	uint32_t plain_len = 0, nranges = 0;
	uint64_t ranges_len = 0;
	int ret = check_request(rq, &plain_len, e);

	if (ret)
		return ret;
	chunk_ranges_count(rq->item, rq->nitems, &nranges, &ranges_len);
	uint32_t nframes = count_frames(rq);
	if (nranges > CHUNK_RANGES_MAX || ranges_len > CHUNK_TABLE_MAX - CHUNK_ENTRY * nframes)
		return err_set(e, -E2BIG, ERR_USAGE, "a chunk of %u ranges", nranges);
	struct seal_job *job = job_alloc(nframes, cipher_nonce_len(suite));
	if (!job)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory to seal a chunk");
	job->sealer = s;
	job->rq = rq;
	job->owner = rq->item->ino;
	job->overhead = chunk_overhead(suite);
	job->nonce_len = (uint32_t)cipher_nonce_len(suite);
	job->nranges = nranges;
	job->table_len = (uint32_t)ranges_len + CHUNK_ENTRY * nframes;
	job->chunk->id = rq->chunk_id;
	job->chunk->plain_len = plain_len;
	job->chunk->nframes = nframes;
	job->chunk->data_start = chunk_data_start(suite, job->table_len);
	plan(job);
	if (job->worst > s->arena.size && job->worst > WORKER_SPAN) {
		seal_job_free(job);
		return err_set(e, -E2BIG, ERR_USAGE, "there is no memory for a chunk of %u bytes", plain_len);
	}
	job->late = rq->to_inline && job->worst > PIPELINE_INLINE_MAX;

	atomic_init(&job->left, nframes);
	*out = job;
	return 0;
}

/* --- frames ------------------------------------------------------------------------------------------------------- */

/* The first failure is the job's. */
void seal_job_fail(struct seal_job *job, int ret, const struct err *e)
{
	int none = 0;

	if (atomic_compare_exchange_strong(&job->ret, &none, ret))
		job->e = *e;
}

static bool seal_job_failed(const struct seal_job *job)
{
	return atomic_load_explicit(&job->ret, memory_order_relaxed) != 0;
}

/* Pins the segment whose key the job is sealed under. */
static void job_acquire(struct seal_job *job, bool to_inline, uint32_t worst)
{
	struct segment_store *store = job->sealer->store;
	struct err e = {0};
	int ret =
	    segment_acquire(store, to_inline ? PIPELINE_SEGMENT_INLINE : PIPELINE_SEGMENT_FILE, worst, &job->seg, &e);

	if (ret) {
		job->seg = NULL;
		seal_job_fail(job, ret, &e);
		return;
	}
	job->promised = worst;
	job->key = segment_chunk_key(store, job->seg);
}

/* A frame's plaintext: the caller's memory where it lies in one piece, else gathered into buf. */
static const void *frame_source(const struct seal_job *job, const struct seal_frame *f, uint32_t len, uint8_t *buf)
{
	const struct pipeline_item *it = &job->rq->item[f->item];
	uint32_t skip = f->skip, done = 0;

	if (it->len - skip >= len)
		return (const uint8_t *)it->data + skip;
	for (; done < len; it++) {
		uint32_t n = it->len - skip < len - done ? it->len - skip : len - done;
		memcpy(buf + done, (const uint8_t *)it->data + skip, n);
		done += n;
		skip = 0;
	}
	return buf;
}

/* What compressing must yield to be worth decompressing: 3 % off, and 64 bytes. */
static size_t worthwhile(uint32_t len)
{
	uint32_t gain = len / 32 > 64 ? len / 32 : 64;

	return len > gain ? len - gain : 0;
}

/* Fast codecs give up on incompressible data about as fast as the guess from a sample takes (codec.h). */
static bool worth_trying(struct codec_choice choice, const void *src, uint32_t len)
{
	bool slow = choice.level > (choice.codec == CODEC_BROTLI ? 1 : 4);

	return choice.codec != CODEC_STORED && !(slow && codec_looks_incompressible(src, len));
}

static int frame_pack(struct seal_job *job, uint32_t i, struct worker_ctx *ctx)
{
	struct seal_frame *f = &job->frame[i];
	struct pipeline_frame *out = &job->chunk->frame[i];
	uint8_t *room = job->buf + f->place + job->nonce_len;
	size_t cap = worthwhile(out->plain_len);
	int n = 0;

	f->src = frame_source(job, f, out->plain_len, ctx->plain);
	if (cap && worth_trying(job->rq->choice, f->src, out->plain_len))
		n = codec_compress(ctx->codec, job->rq->choice, f->src, out->plain_len, room, cap);
	if (n < 0 && n != -ENOMEM) /* without memory to compress it is stored as it is */
		return n;
	out->codec = n > 0 ? (uint8_t)job->rq->choice.codec : CODEC_STORED;
	f->len = n > 0 ? (uint32_t)n : out->plain_len;
	if (n > 0) {
		f->src = room;
	} else if (job->late && f->src == ctx->plain) {
		memcpy(room, f->src, f->len);
		f->src = room;
	}
	out->stored_len = f->len + job->overhead;
	return 0;
}

static int frame_seal(struct seal_job *job, uint32_t i, struct worker_ctx *ctx)
{
	struct metrics *m = job->sealer->store->metrics;
	uint64_t begin = metrics_now(m);
	const struct seal_frame *f = &job->frame[i];
	const struct pipeline_frame *frame = &job->chunk->frame[i];
	struct chunk_frame_id id = {
	    .chunk = job->chunk->id,
	    .number = i,
	    .last = i + 1 == job->chunk->nframes,
	    .codec = frame->codec,
	    .plain_len = frame->plain_len,
	};

	int ret = chunk_frame_seal(ctx->cipher, &job->key, job->nonces + (size_t)(i + 2) * job->nonce_len, &id, f->src,
	                           f->len, job->buf + f->place);
	(void)metrics_lap(m, METRIC_SEAL_SECONDS, begin);
	metrics_add(m, METRIC_SEAL_BYTES, f->len);
	return ret;
}

static void seal_failed(struct seal_job *job, int ret, const char *what)
{
	struct err e = {0};

	(void)err_set(&e, ret, ERR_CODEC, "cannot %s chunk %llu: %s", what, (unsigned long long)job->chunk->id,
	              err_text(NULL, ret));
	seal_job_fail(job, ret, &e);
}

void seal_job_frame(struct seal_job *job, uint32_t i, struct worker_ctx *ctx)
{
	struct metrics *m = job->sealer->store->metrics;
	uint64_t begin;
	int ret;

	if (seal_job_failed(job))
		return;
	governor_hold_begin(&ctx->cpu);
	begin = metrics_now(m);
	ret = frame_pack(job, i, ctx);
	(void)metrics_lap(m, METRIC_COMPRESS_SECONDS, begin);
	metrics_add(m, METRIC_COMPRESS_BYTES, job->chunk->frame[i].plain_len);
	if (ret) {
		seal_failed(job, ret, "compress");
		return;
	}
	ret = job->late ? 0 : frame_seal(job, i, ctx);
	if (ret)
		seal_failed(job, ret, "seal");
}

/* --- the record --------------------------------------------------------------------------------------------------- */

/* Closes the gaps that compression left between the frames. */
static void compact(struct seal_job *job)
{
	uint32_t pos = job->chunk->data_start;

	for (uint32_t i = 0; i < job->chunk->nframes; i++) {
		uint32_t len = job->chunk->frame[i].stored_len;
		if (pos != job->frame[i].place)
			memmove(job->buf + pos, job->buf + job->frame[i].place, len);
		pos += len;
	}
}

static int assemble(struct seal_job *job, struct worker_ctx *ctx)
{
	const struct chunk_header h = {
	    .id = job->chunk->id,
	    .sequence = job->rq->sequence,
	    .stored_len = job->chunk->stored_len,
	    .plain_len = job->chunk->plain_len,
	    .table_len = job->table_len,
	    .nframes = job->chunk->nframes,
	    .nranges = job->nranges,
	};
	uint8_t *table = job->buf + CHUNK_HEADER_PLAIN + job->overhead;

	governor_hold_begin(&ctx->cpu);
	compact(job);
	int ret = chunk_header_seal(ctx->cipher, &job->key, job->nonces, &h, job->buf);
	if (ret)
		return ret;
	return chunk_table_seal(ctx->cipher, &job->key, job->nonces + job->nonce_len, &h, job->rq->item,
	                        job->rq->nitems, job->chunk->frame, table);
}

/* The record becomes part of the chunk's own allocation. */
static int keep_inline(struct seal_job *job, struct err *e)
{
	size_t head = sizeof(*job->chunk) + job->chunk->nframes * sizeof(job->chunk->frame[0]);
	struct pipeline_chunk *chunk = realloc(job->chunk, head + job->chunk->stored_len);

	if (!chunk)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for an inline chunk");
	job->chunk = chunk;
	chunk->inline_data = (uint8_t *)chunk + head;
	memcpy(chunk->inline_data, job->buf, chunk->stored_len);
	return 0;
}

static uint32_t record_len(const struct seal_job *job)
{
	uint32_t len = job->chunk->data_start;

	for (uint32_t i = 0; i < job->chunk->nframes; i++)
		len += job->chunk->frame[i].stored_len;
	return len;
}

/* Seals what had to wait for the length of the record. */
static void seal_late(struct seal_job *job, struct worker_ctx *ctx)
{
	uint32_t len = job->chunk->stored_len;

	governor_hold_end(&ctx->cpu); /* a segment may have to be made */
	job_acquire(job, len <= PIPELINE_INLINE_MAX, len);
	governor_hold_begin(&ctx->cpu);
	for (uint32_t i = 0; i < job->chunk->nframes && !seal_job_failed(job); i++) {
		int ret = frame_seal(job, i, ctx);
		if (ret)
			seal_failed(job, ret, "seal");
	}
}

/* With all frames made: puts the record together and where it belongs. */
void seal_job_complete(struct seal_job *job, struct worker_ctx *ctx)
{
	struct segment_store *store = job->sealer->store;
	struct err e = {0};

	if (!seal_job_failed(job))
		job->chunk->stored_len = record_len(job);
	if (!seal_job_failed(job) && job->late)
		seal_late(job, ctx);
	int ret = seal_job_failed(job) ? 0 : assemble(job, ctx);
	if (ret)
		seal_failed(job, ret, "seal");
	governor_hold_end(&ctx->cpu);
	if (!job->seg)
		return;
	job->chunk->segment = job->seg->id;
	if (seal_job_failed(job) || job->seg->kind == PIPELINE_SEGMENT_INLINE) {
		ret = seal_job_failed(job) ? 0 : keep_inline(job, &e);
		segment_release(store, job->seg, job->promised);
	} else {
		ret = segment_append(store, job->seg, job->promised, job->buf, job->chunk->stored_len,
		                     &job->chunk->offset, &e);
	}
	if (ret)
		seal_job_fail(job, ret, &e);
}

void seal_job_begin(struct seal_job *job)
{
	if (!job->late)
		job_acquire(job, job->rq->to_inline, job->worst);
}
