#include "pipeline/pipeline.h"

#include "base/lock.h"
#include "pipeline/policy.h"
#include "pipeline/read.h"
#include "pipeline/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pipeline {
	struct workers *workers;
	struct segment_store store;
	struct sealer sealer;
	struct reader reader;
	atomic_uint_fast64_t frames_read, bytes_read;
};

#define LENT_MAX 24u /* contexts: so many threads at most are in storage with one */

static unsigned default_workers(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	return policy_pool(cores < 1 ? 1 : (unsigned)cores);
}

/* A quarter at most is what the workers work in, a quarter what is lent to others, but for the least that there must be
 * of both, and the rest, more than a third, is for records: the bytes of those. */
static size_t memory_divide(const struct pipeline_options *o, struct workers_options *w)
{
	uint64_t memory = o->memory ? o->memory : PIPELINE_MEMORY;

	if (memory < PIPELINE_MEMORY_MIN)
		memory = PIPELINE_MEMORY_MIN;
	uint64_t threads = memory / 4 / WORKER_PLAIN, lent = memory / 4 / (WORKER_PLAIN + WORKER_SPAN);
	if (w->threads > threads)
		w->threads = (unsigned)threads;
	w->contexts = lent < 2 ? 2 : lent > LENT_MAX ? LENT_MAX : (unsigned)lent;
	threads = w->threads < WORKERS_MIN ? WORKERS_MIN : w->threads;
	memory -= threads * WORKER_PLAIN + w->contexts * (WORKER_PLAIN + WORKER_SPAN);
	return memory / 4096 * 4096;
}

int pipeline_new(const struct pipeline_options *o, struct pipeline **out, struct err *e)
{
	enum cipher_suite suite = cipher_suite_choose(o->suite);

	if (!cipher_nonce_len(suite))
		return err_set(e, -EINVAL, ERR_USAGE, "unknown cipher suite %d", (int)o->suite);
	struct pipeline *p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for the pipeline");
	struct workers_options w = {
	    .threads = o->workers ? o->workers : default_workers(), .governor = o->governor, .budget = o->budget};
	size_t records = memory_divide(o, &w);
	int ret = workers_new(&w, &p->workers, e);
	if (!ret) {
		ret = sealer_init(&p->sealer, &p->store, p->workers, records, o->budget);
		if (ret)
			(void)err_set(e, ret, ERR_MEMORY, "no memory for the pipeline's buffers");
	}
	if (ret) {
		workers_free(p->workers);
		free(p);
		return ret;
	}
	segment_store_init(&p->store, &(struct segment_store_options){
					  .io = o->io,
					  .keyring = o->keyring,
					  .workers = p->workers,
					  .governor = o->governor,
					  .uuid = o->uuid,
					  .suite = suite,
					  .next_id = o->next_segment,
					  .full = o->segment_size ? o->segment_size : PIPELINE_SEGMENT_SIZE,
					  .map_max = o->map_max,
					  .read_only = o->read_only,
					  .metrics = o->metrics,
				      });
	p->reader = (struct reader){.store = &p->store, .workers = p->workers};
	*out = p;
	return 0;
}

void pipeline_free(struct pipeline *p)
{
	if (!p)
		return;
	sealer_drain(&p->sealer);
	workers_free(p->workers);
	sealer_release(&p->sealer);
	segment_store_release(&p->store);
	free(p);
}

void pipeline_seal_submit(struct pipeline *p, struct pipeline_seal *rq)
{
	sealer_submit(&p->sealer, rq);
}

int pipeline_sync(struct pipeline *p, struct err *e)
{
	return segment_store_sync(&p->store, e);
}

bool pipeline_failed(struct pipeline *p)
{
	return segment_store_failed(&p->store);
}

unsigned pipeline_workers(const struct pipeline *p)
{
	return workers_count(p->workers);
}

void pipeline_workers_set(struct pipeline *p, unsigned threads)
{
	workers_limit(p->workers, threads);
}

int pipeline_run(struct pipeline *p, void (*fn)(void *arg), void *arg)
{
	return workers_run(p->workers, fn, arg);
}

void pipeline_run_wait(struct pipeline *p)
{
	workers_tasks_wait(p->workers);
}

int pipeline_read_frames(struct pipeline *p, const struct pipeline_chunk *chunk, const void *inline_data, uint32_t n,
                         uint32_t count, void *out, struct err *e)
{
	uint64_t stored;
	int ret = reader_frames(&p->reader, chunk, inline_data, n, count, out, &stored, e);

	if (!ret) {
		atomic_fetch_add_explicit(&p->frames_read, count, memory_order_relaxed);
		atomic_fetch_add_explicit(&p->bytes_read, stored, memory_order_relaxed);
	}
	return ret;
}

int pipeline_read_frame(struct pipeline *p, const struct pipeline_chunk *chunk, const void *inline_data, uint32_t n,
                        void *out, struct err *e)
{
	return pipeline_read_frames(p, chunk, inline_data, n, 1, out, e);
}

int pipeline_segment_add(struct pipeline *p, const struct pipeline_segment *s)
{
	return segment_store_add(&p->store, s);
}

size_t pipeline_segment_new_since(struct pipeline *p, uint64_t from, struct pipeline_segment *out, size_t max)
{
	return segment_store_made(&p->store, from, out, max);
}

int pipeline_segment_get(struct pipeline *p, uint64_t id, struct pipeline_segment *out)
{
	return segment_store_info(&p->store, id, out);
}

void pipeline_segment_roll(struct pipeline *p, uint64_t id)
{
	segment_store_roll(&p->store, id);
}

int pipeline_segment_delete(struct pipeline *p, uint64_t id, struct err *e)
{
	return segment_store_delete(&p->store, id, e);
}

int pipeline_segment_scan(struct pipeline *p, uint64_t id, int (*fn)(void *arg, const struct pipeline_record *r),
                          void *arg, uint64_t *valid_end, struct err *e)
{
	return scan_segment(&p->store, id, fn, arg, valid_end, e);
}

int pipeline_segment_verify(struct pipeline *p, uint64_t id, struct err *e)
{
	struct segment *seg;
	int ret = segment_get(&p->store, id, &seg, e);

	if (!ret)
		segment_put(&p->store, seg);
	return ret;
}

int pipeline_verifier_new(struct pipeline *p, struct pipeline_verifier **out)
{
	return verifier_new(&p->store, out);
}

static uint64_t load(const atomic_uint_fast64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

void pipeline_stats_get(struct pipeline *p, struct pipeline_stats *out)
{
	*out = (struct pipeline_stats){
	    .sealed_plain = load(&p->sealer.plain),
	    .sealed_stored = load(&p->sealer.stored),
	    .chunks = load(&p->sealer.chunks),
	    .frames = load(&p->sealer.frames),
	    .frames_stored = load(&p->sealer.frames_stored),
	    .frames_read = load(&p->frames_read),
	    .bytes_read = load(&p->bytes_read),
	};
	SCOPED_LOCK(&p->store.lock);
	out->syncs = p->store.syncs;
}

void pipeline_gauges(struct pipeline *p)
{
	struct metrics *m = p->store.metrics;
	uint64_t plain = metrics_value(m, METRIC_CHUNK_PLAIN_BYTES);
	uint64_t stored = metrics_value(m, METRIC_CHUNK_STORED_BYTES);

	if (stored)
		metrics_set(m, METRIC_COMPRESSION_RATIO, (uint64_t)((double)plain / (double)stored * 1e6));
	metrics_set(m, METRIC_WORKERS, workers_count(p->workers));
	metrics_set(m, METRIC_WORKERS_ACTIVE, workers_active(p->workers));
	SCOPED_LOCK(&p->sealer.lock);
	metrics_set(m, METRIC_QUEUE_BYTES, p->sealer.queued);
	metrics_set(m, METRIC_QUEUE_JOBS, p->sealer.jobs);
}
