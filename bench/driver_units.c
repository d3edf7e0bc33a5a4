#include "bench/driver.h"

#include "pipeline/chunk.h"
#include "pipeline/keyring.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#define IN_FLIGHT 8 /* chunks that the pipeline is given at once */

/* What a frame must become to be kept compressed, as pipeline/seal_job.c has it. */
static size_t worthwhile(size_t len)
{
	return len > 2048 ? len - len / 32 : len > 64 ? len - 64 : 0;
}

/* One thread's means: what the pipeline's workers have. */
struct unit {
	struct codec_ctx *codec;
	struct cipher_ctx *cipher;
	struct codec_choice choice;
	enum cipher_suite suite;
	uint8_t key[CIPHER_KEY], nonce[CIPHER_NONCE_MAX];
	size_t frame;
	uint8_t *packed, *sealed, *plain;
	uint32_t *packed_len; /* of each frame; 0: stored */
};

static void unit_release(struct unit *u)
{
	codec_ctx_free(u->codec);
	cipher_ctx_free(u->cipher);
	free(u->packed);
	free(u->sealed);
	free(u->plain);
	free(u->packed_len);
}

/* packed and sealed hold all of the data, at the places of its frames, so that opening and decompressing have input. */
static int unit_init(struct driver *d, struct unit *u, size_t frame)
{
	size_t frames = (d->len + frame - 1) / frame;

	if (!d->len)
		return err_set(&d->err, -ENODATA, ERR_USAGE, "no data yet");
	u->frame = frame;
	u->packed = calloc(1, d->len);
	u->sealed = calloc(1, d->len + frames * CIPHER_TAG);
	u->plain = calloc(1, frame);
	u->packed_len = calloc(frames, sizeof(*u->packed_len));
	if (!u->packed || !u->sealed || !u->plain || !u->packed_len)
		return -ENOMEM;
	int ret = codec_ctx_new(&u->codec);
	return ret ? ret : cipher_ctx_new(&u->cipher);
}

typedef int (*unit_fn)(struct driver *d, struct unit *u, size_t i, size_t off, size_t len);

static int unit_compress(struct driver *d, struct unit *u, size_t i, size_t off, size_t len)
{
	int n = codec_compress(u->codec, u->choice, d->data + off, len, u->packed + off, worthwhile(len));

	u->packed_len[i] = n > 0 ? (uint32_t)n : 0;
	return n < 0 ? n : 0;
}

static int unit_decompress(struct driver *d, struct unit *u, size_t i, size_t off, size_t len)
{
	if (!u->packed_len[i]) {
		memcpy(u->plain, d->data + off, len);
		return 0;
	}
	return codec_decompress(u->codec, u->choice.codec, u->packed + off, u->packed_len[i], u->plain, len);
}

static int unit_seal(struct driver *d, struct unit *u, size_t i, size_t off, size_t len)
{
	return cipher_seal(u->cipher, u->suite, u->key, u->nonce, &i, sizeof(i), d->data + off, len,
	                   u->sealed + off + i * CIPHER_TAG);
}

static int unit_open(struct driver *d, struct unit *u, size_t i, size_t off, size_t len)
{
	(void)d;
	return cipher_open(u->cipher, u->suite, u->key, u->nonce, &i, sizeof(i), u->sealed + off + i * CIPHER_TAG,
	                   len + CIPHER_TAG, u->plain);
}

static int unit_both(struct driver *d, struct unit *u, size_t i, size_t off, size_t len)
{
	int ret = unit_compress(d, u, i, off, len);
	const uint8_t *src = u->packed_len[i] ? u->packed + off : d->data + off;

	return ret ? ret
	           : cipher_seal(u->cipher, u->suite, u->key, u->nonce, &i, sizeof(i), src,
	                         u->packed_len[i] ? u->packed_len[i] : len, u->sealed + off + i * CIPHER_TAG);
}

/* Does it to all frames once to warm up, then again and again for as long as a measurement takes: MB/s of plaintext. */
static int unit_measure(struct driver *d, struct unit *u, unit_fn fn, double *speed)
{
	double begin = 0, spent = 0;
	size_t passes = 0;

	for (; passes < 2 || spent < d->least; passes++) {
		if (passes == 1)
			begin = driver_now();
		for (size_t i = 0, off = 0; off < d->len; i++, off += u->frame) {
			int ret = fn(d, u, i, off, d->len - off < u->frame ? d->len - off : u->frame);
			if (ret)
				return ret;
		}
		spent = passes ? driver_now() - begin : 0;
	}
	*speed = (double)d->len * (double)(passes - 1) / 1e6 / spent;
	return 0;
}

static double unit_stored(const struct driver *d, const struct unit *u)
{
	size_t sum = 0;

	for (size_t i = 0, off = 0; off < d->len; i++, off += u->frame)
		sum += u->packed_len[i] ? u->packed_len[i] : d->len - off < u->frame ? d->len - off : u->frame;
	return 100.0 * (double)sum / (double)d->len;
}

/* Frames of a size that is given as text, one way and back: MB/s of plaintext. */
static int unit_ways(struct driver *d, struct unit *u, const char *size, unit_fn there, unit_fn back, double speed[2])
{
	uint64_t frame = 0;
	int ret = driver_size(d, size, PIPELINE_FRAME_MAX, &frame);

	if (!ret)
		ret = unit_init(d, u, frame);
	if (!ret)
		ret = unit_measure(d, u, there, &speed[0]);
	return ret ? ret : unit_measure(d, u, back, &speed[1]);
}

/* codec CHOICE FRAME: MB/s of plaintext, and what is stored in percent. */
int driver_codec(struct driver *d, char **arg, unsigned n)
{
	__attribute__((cleanup(unit_release))) struct unit u = {0};
	double speed[2];
	int ret = codec_choice_parse(arg[0], &u.choice);

	(void)n;
	if (!ret)
		ret = unit_ways(d, &u, arg[1], unit_compress, unit_decompress, speed);
	if (!ret)
		driver_answer(d, "\"encode\": %.1f, \"decode\": %.1f, \"stored\": %.2f", speed[0], speed[1],
		              unit_stored(d, &u));
	return ret;
}

/* cipher SUITE FRAME: MB/s. */
int driver_cipher(struct driver *d, char **arg, unsigned n)
{
	__attribute__((cleanup(unit_release))) struct unit u = {0};
	double speed[2];
	int ret = cipher_suite_parse(arg[0], &u.suite);

	(void)n;
	if (!ret)
		ret = unit_ways(d, &u, arg[1], unit_seal, unit_open, speed);
	if (!ret)
		driver_answer(d, "\"seal\": %.1f, \"open\": %.1f", speed[0], speed[1]);
	return ret;
}

/* bare CHOICE SUITE: codec and cipher of 64 KiB frames, with nothing around them: MB/s. */
int driver_bare(struct driver *d, char **arg, unsigned n)
{
	__attribute__((cleanup(unit_release))) struct unit u = {0};
	double speed = 0;
	int ret = codec_choice_parse(arg[0], &u.choice);

	(void)n;
	if (!ret)
		ret = cipher_suite_parse(arg[1], &u.suite);
	if (!ret)
		ret = unit_init(d, &u, PIPELINE_FRAME_MAX);
	if (!ret)
		ret = unit_measure(d, &u, unit_both, &speed);
	if (!ret)
		driver_answer(d, "\"speed\": %.1f, \"stored\": %.2f", speed, unit_stored(d, &u));
	return ret;
}

/* --- the pipeline ------------------------------------------------------------------------------------------------- */

struct slot {
	struct pipeline_seal rq;
	struct feed *feed;
	struct slot *next; /* a free one */
	struct pipeline_item item[PIPELINE_CHUNK_MAX / PIPELINE_FRAME_MAX];
};

struct feed {
	struct slot *slot, *unused;
	pthread_mutex_t lock;
	sem_t free;
	int ret;
	struct err e;
	struct codec_choice choice;
	size_t chunk;
	unsigned flight; /* chunks at once; 1: whole ones only */
	bool many;       /* handed to the workers, however few frames they have */
	uint64_t ids;
};

static void feed_done(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	struct slot *s = rq->arg;
	struct feed *f = s->feed;

	free(chunk);
	(void)pthread_mutex_lock(&f->lock);
	if (ret && !f->ret) {
		f->ret = ret;
		f->e = *e;
	}
	s->next = f->unused;
	f->unused = s;
	(void)pthread_mutex_unlock(&f->lock);
	(void)sem_post(&f->free);
}

static struct slot *feed_slot(struct feed *f)
{
	while (sem_wait(&f->free))
		;
	(void)pthread_mutex_lock(&f->lock);
	struct slot *s = f->unused;
	f->unused = s->next;
	(void)pthread_mutex_unlock(&f->lock);
	return s;
}

/* Seals all of the data once, as one file, and waits for it. */
static int feed_pass(struct driver *d, struct feed *f, struct pipeline *p)
{
	for (size_t off = 0, len; off < d->len; off += len) {
		len = d->len - off < f->chunk ? d->len - off : f->chunk;
		if (off && len < f->chunk && f->flight == 1)
			break;
		struct slot *s = feed_slot(f);
		size_t items = 0;

		for (size_t at = 0; at < len; at += PIPELINE_FRAME_MAX)
			s->item[items++] = (struct pipeline_item){
			    1, off + at, (uint32_t)(len - at < PIPELINE_FRAME_MAX ? len - at : PIPELINE_FRAME_MAX),
			    d->data + off + at};
		s->rq = (struct pipeline_seal){.item = s->item,
		                               .nitems = items,
		                               .chunk_id = ++f->ids,
		                               .sequence = f->ids,
		                               .choice = f->choice,
		                               .frame_size = PIPELINE_FRAME_MAX,
		                               .many = f->many,
		                               .done = feed_done,
		                               .arg = s};
		pipeline_seal_submit(p, &s->rq);
	}
	for (unsigned i = 0; i < f->flight; i++)
		while (sem_wait(&f->free))
			;
	for (unsigned i = 0; i < f->flight; i++)
		(void)sem_post(&f->free);
	if (f->ret)
		d->err = f->e;
	return f->ret;
}

static int feed_init(struct feed *f)
{
	f->slot = calloc(f->flight, sizeof(*f->slot));
	if (!f->slot)
		return -ENOMEM;
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)sem_init(&f->free, 0, f->flight);
	for (unsigned i = 0; i < f->flight; i++) {
		f->slot[i].feed = f;
		f->slot[i].next = f->unused;
		f->unused = &f->slot[i];
	}
	return 0;
}

static int feed_measure(struct driver *d, struct feed *f, struct pipeline *p)
{
	struct pipeline_stats from, to;
	double begin, cpu;
	size_t passes = 0;
	int ret = feed_pass(d, f, p);

	pipeline_stats_get(p, &from);
	begin = driver_now();
	cpu = driver_cpu();
	while (!ret && (!passes || driver_now() - begin < d->least)) {
		ret = feed_pass(d, f, p);
		passes++;
	}
	double spent = driver_now() - begin;
	pipeline_stats_get(p, &to);
	double mb = (double)(to.sealed_plain - from.sealed_plain) / 1e6;
	if (!ret)
		driver_answer(d, "\"speed\": %.1f, \"cpu_speed\": %.1f, \"stored\": %.2f", mb / spent,
		              mb / (driver_cpu() - cpu),
		              100.0 * (double)(to.sealed_stored - from.sealed_stored) /
		                  (double)(to.sealed_plain - from.sealed_plain));
	return ret;
}

static int swallow(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	(void)f, (void)buf, (void)len, (void)off;
	return 0;
}

static int pipe_run(struct driver *d, struct pipeline_options *o, struct feed *f)
{
	struct keyring *keyring;
	struct pipeline *p;
	int ret = keyring_new(&keyring);

	if (ret)
		return ret;
	uint8_t *master = keyring_add(keyring, 1);
	ret = master ? keyring_set_epoch(keyring, 1) : -ENOMEM;
	o->keyring = keyring;
	if (!ret)
		ret = feed_init(f);
	if (!ret)
		ret = pipeline_new(o, &p, &d->err);
	if (!ret) {
		ret = feed_measure(d, f, p);
		pipeline_free(p);
	}
	free(f->slot);
	keyring_free(keyring);
	return ret;
}

/* pipe CHOICE SUITE WORKERS CHUNK DIR [discard] [one] [many]: the pipeline with its segments in DIR, or with every
 * write to them taken for done: MB/s. Nothing is synced. WORKERS 0: as many as the policy has. one: the next chunk when
 * the last is done; many: each is handed to the workers. */
int driver_pipe(struct driver *d, char **arg, unsigned n)
{
	struct pipeline_options o = {.next_segment = 1};
	struct feed f = {.flight = IN_FLIGHT};
	uint64_t chunk = 0, workers = 0;
	int ret = codec_choice_parse(arg[0], &f.choice);

	if (!ret)
		ret = cipher_suite_parse(arg[1], &o.suite);
	if (!ret)
		ret = driver_size(d, arg[2], 32, &workers);
	if (!ret)
		ret = driver_size(d, arg[3], PIPELINE_CHUNK_MAX, &chunk);
	if (!ret && (!d->len || chunk < PIPELINE_FRAME_MAX))
		ret = -EINVAL;
	if (!ret)
		ret = io_posix_new(arg[4], &o.io, &d->err);
	if (ret)
		return ret;
	o.workers = (unsigned)workers;
	f.chunk = chunk;
	struct io_ops ops = *o.io->ops;
	for (unsigned i = 5; i < n; i++) {
		ops.pwrite = strcmp(arg[i], "discard") ? ops.pwrite : swallow;
		f.flight = strcmp(arg[i], "one") ? f.flight : 1;
		f.many |= !strcmp(arg[i], "many");
	}
	o.io->ops = &ops;
	ret = pipe_run(d, &o, &f);
	io_free(o.io);
	return ret;
}
