/* That the pipeline holds the tokens that it should, and none that it should not: codecs, ciphers and STORE look. */
#include "pipeline/cipher.h"
#include "tests/pipeline/rig.h"
#include "tests/pipeline/wrap_codec.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES_MAX = 40 };

static struct governor *governor;
static atomic_bool alone; /* one thread at a time does anything: held tokens are its own */
static atomic_uint running[GOVERNOR_KINDS], most[GOVERNOR_KINDS], runs[GOVERNOR_KINDS];

static void run_begin(enum governor_kind kind)
{
	unsigned n = atomic_fetch_add(&running[kind], 1) + 1, seen = atomic_load(&most[kind]);

	while (n > seen && !atomic_compare_exchange_weak(&most[kind], &seen, n))
		;
	atomic_fetch_add(&runs[kind], 1);
	if (!governor)
		return;
	if (n > governor_tokens(governor, kind) || !governor_held(governor, kind))
		abort();
	if (alone && governor_held(governor, kind == GOVERNOR_CPU ? GOVERNOR_IO : GOVERNOR_CPU))
		abort();
}

static void run_end(enum governor_kind kind)
{
	atomic_fetch_sub(&running[kind], 1);
}

int __real_cipher_seal(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce,
                       const void *aad, size_t aad_len, const void *in, size_t len, void *out);
int __wrap_cipher_seal(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce,
                       const void *aad, size_t aad_len, const void *in, size_t len, void *out);
int __wrap_cipher_seal(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce,
                       const void *aad, size_t aad_len, const void *in, size_t len, void *out)
{
	run_begin(GOVERNOR_CPU);
	int ret = __real_cipher_seal(ctx, suite, key, nonce, aad, aad_len, in, len, out);
	run_end(GOVERNOR_CPU);
	return ret;
}

int __real_cipher_open(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce,
                       const void *aad, size_t aad_len, const void *in, size_t len, void *out);
int __wrap_cipher_open(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce,
                       const void *aad, size_t aad_len, const void *in, size_t len, void *out);
int __wrap_cipher_open(struct cipher_ctx *ctx, enum cipher_suite suite, const uint8_t *key, const uint8_t *nonce,
                       const void *aad, size_t aad_len, const void *in, size_t len, void *out)
{
	run_begin(GOVERNOR_CPU);
	int ret = __real_cipher_open(ctx, suite, key, nonce, aad, aad_len, in, len, out);
	run_end(GOVERNOR_CPU);
	return ret;
}

int __wrap_codec_compress(struct codec_ctx *ctx, struct codec_choice choice, const void *src, size_t len, void *dst,
                          size_t cap)
{
	run_begin(GOVERNOR_CPU);
	int ret = __real_codec_compress(ctx, choice, src, len, dst, cap);
	run_end(GOVERNOR_CPU);
	return ret;
}

int __wrap_codec_decompress(struct codec_ctx *ctx, enum codec_id codec, const void *src, size_t len, void *dst,
                            size_t plain_len)
{
	run_begin(GOVERNOR_CPU);
	int ret = __real_codec_decompress(ctx, codec, src, len, dst, plain_len);
	run_end(GOVERNOR_CPU);
	return ret;
}

static void look(void *arg, enum faulty_op op)
{
	(void)arg;
	if (op != FAULTY_PREAD && op != FAULTY_PWRITE && op != FAULTY_SYNC)
		return;
	run_begin(GOVERNOR_IO);
	run_end(GOVERNOR_IO);
}

static void begin(struct rig *r, unsigned cpu, unsigned io)
{
	for (int i = 0; i < GOVERNOR_KINDS; i++)
		most[i] = runs[i] = 0;
	rig_init(r, CIPHER_AUTO);
	pipeline_free(r->p);
	governor = NULL;
	if (cpu)
		assert_int_equal(governor_new(&(struct governor_options){.tokens = {cpu, io}}, &governor), 0);
	r->options.governor = governor;
	assert_int_equal(pipeline_new(&r->options, &r->p, NULL), 0);
	r->faulty.hook = look;
}

static void end(struct rig *r)
{
	for (enum governor_kind k = 0; k < GOVERNOR_KINDS; k++)
		assert_int_equal(governor_held(governor, k), 0);
	rig_release(r);
	governor_free(governor);
	governor = NULL;
}

static void seal_and_read(struct rig *r, uint64_t id, enum rig_data kind, size_t frames, uint8_t *buf)
{
	struct pipeline_item item[FRAMES_MAX];
	struct rig_result res;
	struct pipeline_seal rq = {.item = item,
	                           .nitems = frames,
	                           .chunk_id = id,
	                           .sequence = id,
	                           .frame_size = PIPELINE_FRAME_MAX,
	                           .to_inline = frames == 1};

	rig_fill_items(kind, (uint32_t)id, buf, item, frames);
	assert_int_equal(codec_choice_parse("zstd", &rq.choice), 0);
	rig_submit(r, &rq, &res);
	assert_int_equal(rig_wait(&res), 0);
	assert_int_equal(pipeline_sync(r->p, NULL), 0);
	rig_check(r, res.chunk, item, frames);
	free(res.chunk);
}

/* One thread, chunks that it seals itself: of each kind of token one or none. */
static void test_alone(void **state)
{
	uint8_t *buf = malloc(FRAMES_MAX * (size_t)65536);
	struct rig r;

	(void)state;
	assert_non_null(buf);
	begin(&r, 1, 1);
	alone = true;
	for (uint64_t id = 1; id < 20; id++)
		seal_and_read(&r, id, id % 3, 1 + id % 9, buf);
	rig_remount(&r); /* what is read is opened first */
	alone = false;
	assert_true(runs[GOVERNOR_CPU] > 100);
	assert_true(runs[GOVERNOR_IO] > 40);
	end(&r);
	free(buf);
}

struct crowd {
	struct rig *r;
	uint64_t id;
	pthread_t thread;
};

static void *crowd_main(void *arg)
{
	struct crowd *me = arg;
	uint8_t *buf = malloc(FRAMES_MAX * (size_t)65536);

	assert_non_null(buf);
	for (uint64_t i = 0; i < 12; i++)
		seal_and_read(me->r, me->id + i, i % 3, 1 + (me->id * 7 + i * 5) % FRAMES_MAX, buf);
	free(buf);
	return NULL;
}

static void run_crowd(struct rig *r)
{
	struct crowd crowd[8];

	for (unsigned i = 0; i < 8; i++) {
		crowd[i] = (struct crowd){.r = r, .id = 100 * (i + 1)};
		assert_int_equal(pthread_create(&crowd[i].thread, NULL, crowd_main, &crowd[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++)
		(void)pthread_join(crowd[i].thread, NULL);
}

/* Workers, submitters and readers at once: never more than there are tokens. */
static void test_crowd(void **state)
{
	struct rig r;

	(void)state;
	begin(&r, 2, 3);
	run_crowd(&r);
	assert_int_equal(most[GOVERNOR_CPU], 2);
	assert_in_range(most[GOVERNOR_IO], 1, 3);
	end(&r);
}

/* A failing STORE gives tokens back too. */
static void test_failure(void **state)
{
	static uint8_t buf[20 * 65536];
	struct pipeline_item item[20];
	struct pipeline_chunk *chunk = NULL;
	struct rig r;

	(void)state;
	begin(&r, 1, 1);
	rig_fill_items(RIG_TEXT, 1, buf, item, 20);
	faulty_arm(&r.faulty, FAULTY_PWRITE, 0, -EIO, false);
	for (size_t n = 1; n <= 20; n += 19)
		assert_int_equal(rig_seal(&r, item, n, "zstd", PIPELINE_FRAME_MAX, false, &chunk), -EIO);
	faulty_arm(&r.faulty, FAULTY_PWRITE, 0, 0, false);
	assert_int_equal(rig_seal(&r, item, 20, "zstd", PIPELINE_FRAME_MAX, false, &chunk), 0);
	faulty_arm(&r.faulty, FAULTY_PREAD, 0, -EIO, false);
	assert_int_equal(pipeline_read_frame(r.p, chunk, NULL, 3, buf, NULL), -EIO);
	faulty_arm(&r.faulty, FAULTY_SYNC, 0, -EIO, false);
	assert_int_equal(pipeline_sync(r.p, NULL), -EIO);
	free(chunk);
	end(&r);
}

/* The switch: without a governor threads do as they like. */
static void test_ungoverned(void **state)
{
	struct rig r;

	(void)state;
	begin(&r, 0, 0);
	run_crowd(&r);
	assert_true(most[GOVERNOR_CPU] > 2);
	end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_alone),
	    cmocka_unit_test(test_crowd),
	    cmocka_unit_test(test_failure),
	    cmocka_unit_test(test_ungoverned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
