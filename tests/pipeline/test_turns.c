/* What files have queued goes in turns. */
#include "tests/pipeline/rig.h"
#include "tests/pipeline/wrap_codec.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { TURN_ITEMS = 12, TURN_JOBS = 60, TURN_OTHERS = 3 };

struct turn {
	struct pipeline_seal rq;
	struct pipeline_item item[TURN_ITEMS];
	atomic_uint *done;
};

static atomic_uint runs, first[TURN_OTHERS]; /* of codecs: all, and which was the first of each late job; 0: none yet */

/* With one token one at a time. What is compressed says whose it is. */
int __wrap_codec_compress(struct codec_ctx *ctx, struct codec_choice choice, const void *src, size_t len, void *dst,
                          size_t cap)
{
	unsigned number = atomic_fetch_add(&runs, 1) + 1, late = *(const uint8_t *)src, none = 0;

	if (late)
		(void)atomic_compare_exchange_strong(&first[late - 1], &none, number);
	return __real_codec_compress(ctx, choice, src, len, dst, cap);
}

static void note_turn(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	struct turn *t = rq->arg;

	(void)e;
	assert_int_equal(ret, 0);
	free(chunk);
	atomic_fetch_add(t->done, 1);
}

static void turn_submit(struct rig *r, struct turn *t, uint8_t late, uint64_t id, atomic_uint *done)
{
	static uint8_t data[TURN_OTHERS + 1][PIPELINE_FRAME_MIN];

	data[late][0] = late;
	for (unsigned i = 0; i < TURN_ITEMS; i++)
		t->item[i] =
		    (struct pipeline_item){late ? 2 : 1, i * PIPELINE_FRAME_MIN, PIPELINE_FRAME_MIN, data[late]};
	t->done = done;
	t->rq = (struct pipeline_seal){
	    .item = t->item,
	    .nitems = TURN_ITEMS,
	    .chunk_id = id,
	    .sequence = id,
	    .choice = {CODEC_ZSTD, 1},
	    .frame_size = PIPELINE_FRAME_MIN,
	    .done = note_turn,
	    .arg = t,
	};
	pipeline_seal_submit(r->p, &t->rq);
}

/* One that comes late with little does not wait for all that another has. */
static void test_turns(void **state)
{
	static struct turn many[TURN_JOBS], few[TURN_OTHERS];
	struct governor *g;
	atomic_uint done = 0;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AUTO);
	pipeline_free(r.p);
	assert_int_equal(governor_new(&(struct governor_options){.tokens = {1, 1}}, &g), 0);
	r.options.governor = g;
	r.options.workers = 2;
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	governor_enter(g, GOVERNOR_CPU); /* nothing moves until all is queued */
	for (unsigned i = 0; i < TURN_JOBS; i++)
		turn_submit(&r, &many[i], 0, i + 1, &done);
	for (unsigned i = 0; i < TURN_OTHERS; i++)
		turn_submit(&r, &few[i], (uint8_t)(i + 1), TURN_JOBS + i + 1, &done);
	governor_leave(g, GOVERNOR_CPU);
	while (atomic_load(&done) < TURN_JOBS + TURN_OTHERS)
		(void)usleep(1000);
	for (unsigned i = 0; i < TURN_OTHERS; i++)
		assert_in_range(first[i], 1,
		                TURN_JOBS / 2 * TURN_ITEMS); /* about where the 6th to the 10th job begin */
	rig_release(&r);
	governor_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_turns)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
