/* The pipeline as its caller sees it: what is sealed comes back, from wherever and by whomever it was submitted. */
#include "base/lock.h"
#include "tests/pipeline/rig.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1u << 20)

/* Items of these lengths over one buffer; offsets of successive items of one inode adjoin. */
static size_t make_items(struct pipeline_item *item, const uint32_t *len, size_t n, uint8_t *data)
{
	size_t off = 0;

	for (size_t i = 0; i < n; i++) {
		item[i] = (struct pipeline_item){.ino = 7 + i / 3, .off = off, .len = len[i], .data = data + off};
		off += len[i];
	}
	return off;
}

static void round_trip(struct rig *r, const struct pipeline_item *item, size_t n, const char *codec,
                       uint32_t frame_size, bool to_inline)
{
	struct pipeline_chunk *chunk;
	uint64_t sum = 0, frames = 0;

	assert_int_equal(rig_seal(r, item, n, codec, frame_size, to_inline, &chunk), 0);
	for (size_t i = 0; i < n; i++)
		sum += item[i].len;
	assert_int_equal(chunk->plain_len, sum);
	for (uint32_t i = 0; i < chunk->nframes; i++) {
		assert_true(chunk->frame[i].plain_len <= frame_size);
		frames += chunk->frame[i].stored_len;
	}
	assert_int_equal(frames + chunk->data_start, chunk->stored_len);
	assert_int_equal(chunk->inline_data != NULL, to_inline && chunk->stored_len <= PIPELINE_INLINE_MAX);
	rig_check(r, chunk, item, n);
	/* Frame by frame too. */
	uint8_t *one = malloc(PIPELINE_FRAME_MAX);
	for (uint32_t i = 0; i < chunk->nframes; i += 1 + chunk->nframes / 5)
		assert_int_equal(pipeline_read_frame(r->p, chunk, chunk->inline_data, i, one, NULL), 0);
	free(one);
	free(chunk);
}

static void sizes_and_shapes(struct rig *r, const char *codec, enum rig_data kind)
{
	static const uint32_t shapes[][12] = {
	    {1},
	    {4096},
	    {65536},
	    {65535, 1, 1},
	    {65536, 65536, 65536},
	    {100, 200, 300, 5000, 17, 60000, 40000, 1, 2, 3},
	    {16384, 16384, 16384, 16384, 1, 65536, 65536, 20000, 65536, 30000, 65536, 9},
	};
	static const uint32_t frame_sizes[] = {4096, 16384, 65536};
	struct pipeline_item item[12];
	uint8_t *data = malloc(MIB);

	rig_fill(kind, 3, data, MIB);
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
		size_t n = 0;
		while (n < 12 && shapes[s][n])
			n++;
		(void)make_items(item, shapes[s], n, data);
		for (size_t f = 0; f < 3; f++) {
			round_trip(r, item, n, codec, frame_sizes[f], false);
			round_trip(r, item, n, codec, frame_sizes[f], true);
		}
	}
	free(data);
}

static void test_round_trips(void **state)
{
	static const enum cipher_suite suites[] = {CIPHER_AES_256_GCM, CIPHER_CHACHA20_POLY1305,
	                                           CIPHER_XCHACHA20_POLY1305};
	static const char *const codecs[] = {"off", "lz4", "zstd", "brotli:2"};

	(void)state;
	for (size_t s = 0; s < 3; s++) {
		struct rig r;
		rig_init(&r, suites[s]);
		for (size_t c = 0; c < 4; c++) {
			sizes_and_shapes(&r, codecs[c], RIG_TEXT);
			if (s == 0) {
				sizes_and_shapes(&r, codecs[c], RIG_RANDOM);
				sizes_and_shapes(&r, codecs[c], RIG_ZEROES);
			}
		}
		rig_release(&r);
	}
}

/* The largest chunk, and one byte more. */
static void test_chunk_limits(void **state)
{
	size_t n = PIPELINE_CHUNK_MAX / PIPELINE_FRAME_MAX;
	struct pipeline_item *item = calloc(n + 1, sizeof(*item));
	uint8_t *data = malloc(PIPELINE_CHUNK_MAX);
	struct pipeline_chunk *chunk;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	rig_fill(RIG_TEXT, 1, data, PIPELINE_CHUNK_MAX / 2);
	rig_fill(RIG_RANDOM, 1, data + PIPELINE_CHUNK_MAX / 2, PIPELINE_CHUNK_MAX / 2);
	for (size_t i = 0; i < n; i++)
		item[i] = (struct pipeline_item){5, i * PIPELINE_FRAME_MAX, PIPELINE_FRAME_MAX,
		                                 data + i * PIPELINE_FRAME_MAX};
	item[n] = (struct pipeline_item){6, 0, 1, data};
	round_trip(&r, item, n, "zstd", 65536, false);
	round_trip(&r, item, n, "lz4", 4096, true);
	assert_int_equal(rig_seal(&r, item, n + 1, "zstd", 65536, false, &chunk), -EINVAL);
	assert_int_equal(rig_seal(&r, item, 0, "zstd", 65536, false, &chunk), -EINVAL);
	assert_int_equal(rig_seal(&r, item, 1, "zstd", 65537, false, &chunk), -EINVAL);
	assert_int_equal(rig_seal(&r, item, 1, "zstd", 1000, false, &chunk), -EINVAL);
	item[0].len = 0;
	assert_int_equal(rig_seal(&r, item, 1, "zstd", 65536, false, &chunk), -EINVAL);
	item[0].len = 65537;
	assert_int_equal(rig_seal(&r, item, 1, "zstd", 65536, false, &chunk), -EINVAL);
	item[0].len = 2;
	item[0].off = INT64_MAX - 1;
	assert_int_equal(rig_seal(&r, item, 1, "zstd", 65536, false, &chunk), -EINVAL);
	rig_release(&r);
	free(item);
	free(data);
}

/* As many ranges as bytes: a long table, frames of thousands of items. */
static void test_tiny_items(void **state)
{
	size_t n = 200000;
	struct pipeline_item *item = calloc(n, sizeof(*item));
	uint8_t *data = malloc(n);
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_CHACHA20_POLY1305);
	rig_fill(RIG_TEXT, 4, data, n);
	for (size_t i = 0; i < n; i++)
		item[i] = (struct pipeline_item){i, i * 3, 1, data + i};
	round_trip(&r, item, n, "zstd", 65536, false);
	round_trip(&r, item, 2000, "zstd", 65536, true);
	rig_release(&r);
	free(item);
	free(data);
}

static void test_incompressible_is_stored(void **state)
{
	uint8_t *data = malloc(65536);
	struct pipeline_item item = {1, 0, 65536, data};
	struct pipeline_chunk *chunk;
	struct pipeline_stats st;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	rig_fill(RIG_RANDOM, 1, data, 65536);
	assert_int_equal(rig_seal(&r, &item, 1, "zstd", 65536, false, &chunk), 0);
	assert_int_equal(chunk->frame[0].codec, CODEC_STORED);
	assert_int_equal(chunk->frame[0].stored_len, 65536 + 28);
	free(chunk);
	rig_fill(RIG_ZEROES, 1, data, 65536);
	assert_int_equal(rig_seal(&r, &item, 1, "zstd", 65536, false, &chunk), 0);
	assert_int_equal(chunk->frame[0].codec, CODEC_ZSTD);
	assert_true(chunk->stored_len < 300);
	rig_check(&r, chunk, &item, 1);
	pipeline_stats_get(r.p, &st);
	assert_int_equal(st.chunks, 2);
	assert_int_equal(st.frames, 2);
	assert_int_equal(st.frames_stored, 1);
	assert_int_equal(st.frames_read, 1);
	assert_int_equal(st.sealed_plain, 131072);
	assert_int_equal(st.bytes_read, chunk->frame[0].stored_len);
	free(chunk);
	rig_release(&r);
	free(data);
}

/* Everything is readable by the next mount, inline chunks included. */
static void test_remount(void **state)
{
	uint8_t *data = malloc(MIB);
	struct pipeline_item item[16];
	struct pipeline_chunk *big, *small;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_XCHACHA20_POLY1305);
	rig_fill_items(RIG_TEXT, 9, data, item, 16);
	assert_int_equal(rig_seal(&r, item, 16, "zstd", 65536, false, &big), 0);
	assert_int_equal(rig_seal(&r, item, 1, "zstd", 65536, true, &small), 0);
	assert_non_null(small->inline_data);
	assert_int_equal(small->offset, 0);
	assert_int_not_equal(small->segment, big->segment);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	rig_remount(&r);
	rig_check(&r, big, item, 16);
	rig_check(&r, small, item, 1);
	free(big);
	free(small);
	rig_release(&r);
	free(data);
}

static void test_read_only(void **state)
{
	uint8_t data[100] = {0};
	struct pipeline_item item = {1, 0, 100, data};
	struct pipeline_chunk *chunk, *none;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AUTO);
	assert_int_equal(rig_seal(&r, &item, 1, "zstd", 4096, false, &chunk), 0);
	r.options.read_only = true;
	rig_remount(&r);
	assert_int_equal(rig_seal(&r, &item, 1, "zstd", 4096, false, &none), -EROFS);
	assert_int_equal(rig_seal(&r, &item, 1, "zstd", 4096, true, &none), -EROFS);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), -EROFS);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	rig_check(&r, chunk, &item, 1);
	free(chunk);
	rig_release(&r);
}

/* --- many at once ------------------------------------------------------------------------------------------------- */

#define LOAD_ITEMS 24u

struct load {
	struct rig *r;
	uint32_t seed;
	unsigned left;   /* chunks to submit from done() */
	unsigned frames; /* items of the next chunk: both below and above what goes to the workers */
	atomic_uint *pending;
	atomic_uint_fast64_t *ids;
	struct pipeline_item item[LOAD_ITEMS];
	uint8_t *data;
	struct pipeline_seal rq;
	unsigned depth;
};

static void load_submit(struct load *l)
{
	for (unsigned i = 0; i < l->frames; i++) {
		l->item[i] = (struct pipeline_item){l->seed, i * 65536u, 65536, l->data + i * 65536u};
		rig_fill(i % 4 == 3 ? RIG_RANDOM : RIG_TEXT, l->seed + i, l->data + i * 65536u, 65536);
	}
	l->rq.nitems = l->frames;
	l->rq.chunk_id = atomic_fetch_add(l->ids, 1);
	l->rq.to_inline = l->frames == 1;
	pipeline_seal_submit(l->r->p, &l->rq);
}

static void load_done(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	struct load *l = rq->arg;

	if (ret)
		fail_msg("%s", err_text(e, ret));
	/* The stack must not deepen with every chunk that a done() submits. */
	assert_int_equal(l->depth, 0);
	l->depth++;
	rig_check(l->r, chunk, l->item, l->frames);
	free(chunk);
	l->depth--;
	if (!l->left--) {
		atomic_fetch_sub(l->pending, 1);
		return;
	}
	l->frames = l->frames * 5 % LOAD_ITEMS + 1;
	l->seed++;
	load_submit(l);
}

struct by_whom {
	pthread_t thread;
	atomic_bool done;
};

static void note_thread(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	struct by_whom *by = rq->arg;

	(void)e;
	assert_int_equal(ret, 0);
	free(chunk);
	by->thread = pthread_self();
	atomic_store(&by->done, true);
}

/* A few frames are sealed by who brings them, unless there are more chunks to come: then the workers share them. */
static void test_by_whom(void **state)
{
	uint8_t *data = malloc(3 * 65536);
	struct pipeline_item item[3];
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AUTO);
	rig_fill_items(RIG_TEXT, 1, data, item, 3);
	for (unsigned many = 0; many < 2; many++) {
		struct by_whom by = {0};
		struct pipeline_seal rq = {
		    .item = item,
		    .nitems = 3,
		    .chunk_id = many + 1,
		    .sequence = many + 1,
		    .choice = {CODEC_ZSTD, 1},
		    .frame_size = 65536,
		    .many = many,
		    .done = note_thread,
		    .arg = &by,
		};

		pipeline_seal_submit(r.p, &rq);
		if (!many)
			assert_true(atomic_load(&by.done));
		while (!atomic_load(&by.done))
			(void)usleep(1000);
		assert_int_equal(pthread_equal(by.thread, pthread_self()) != 0, !many);
	}
	rig_release(&r);
	free(data);
}

static void *load_main(void *arg)
{
	load_submit(arg);
	return NULL;
}

static void *sync_main(void *arg)
{
	struct load *l = arg;

	while (atomic_load(l->pending)) {
		assert_int_equal(pipeline_sync(l->r->p, NULL), 0);
		(void)usleep(2000);
	}
	return NULL;
}

static void test_submit_from_done(void **state)
{
	enum { LOADS = 5, CHAIN = 20 };
	struct load load[LOADS];
	pthread_t thread[LOADS + 2];
	atomic_uint pending = LOADS;
	atomic_uint_fast64_t ids = 1;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	for (unsigned i = 0; i < LOADS; i++) {
		load[i] = (struct load){.r = &r,
		                        .seed = i * 1000,
		                        .left = CHAIN,
		                        .frames = 1 + i * 5,
		                        .pending = &pending,
		                        .ids = &ids,
		                        .data = malloc(LOAD_ITEMS * 65536u)};
		load[i].rq = (struct pipeline_seal){.item = load[i].item,
		                                    .frame_size = 65536,
		                                    .choice = {CODEC_LZ4, 0},
		                                    .done = load_done,
		                                    .arg = &load[i]};
		assert_int_equal(pthread_create(&thread[i], NULL, load_main, &load[i]), 0);
	}
	assert_int_equal(pthread_create(&thread[LOADS], NULL, sync_main, &load[0]), 0);
	assert_int_equal(pthread_create(&thread[LOADS + 1], NULL, sync_main, &load[0]), 0);
	for (unsigned i = 0; i < LOADS + 2; i++)
		(void)pthread_join(thread[i], NULL);
	pipeline_free(r.p);
	assert_int_equal(atomic_load(&pending), 0);
	assert_int_equal(atomic_load(&ids), 1 + LOADS * (CHAIN + 1));
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	for (unsigned i = 0; i < LOADS; i++)
		free(load[i].data);
	rig_release(&r);
}

/* More than the queue and the arena hold at once, from one thread. */
static void test_flood(void **state)
{
	enum { CHUNKS = 24, FRAMES = 64 };
	uint8_t *data = malloc((size_t)FRAMES * 65536);
	struct pipeline_item *item = calloc(FRAMES, sizeof(*item));
	struct rig_result *res = calloc(CHUNKS, sizeof(*res));
	struct pipeline_seal *rq = calloc(CHUNKS, sizeof(*rq));
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	rig_fill_items(RIG_TEXT, 1, data, item, FRAMES);
	for (size_t i = 0; i < CHUNKS; i++) {
		rq[i] = (struct pipeline_seal){
		    .item = item, .nitems = FRAMES, .chunk_id = i, .frame_size = 65536, .choice = {CODEC_LZ4, 0}};
		rig_submit(&r, &rq[i], &res[i]);
	}
	for (size_t i = 0; i < CHUNKS; i++) {
		assert_int_equal(rig_wait(&res[i]), 0);
		if (i % 8 == 0)
			rig_check(&r, res[i].chunk, item, FRAMES);
		free(res[i].chunk);
	}
	rig_release(&r);
	free(rq);
	free(res);
	free(item);
	free(data);
}

/* --- segments as the caller sees them ----------------------------------------------------------------------------- */

/* 64 MiB fill a segment, the next one follows, ids ascend and every one is listed. */
static void test_segments_roll(void **state)
{
	enum { CHUNKS = 20 };
	size_t n = 128;
	uint8_t *data = malloc(n * 65536);
	struct pipeline_item *item = calloc(n, sizeof(*item));
	struct pipeline_chunk *chunk[CHUNKS];
	struct pipeline_segment seg[8];
	struct stat st;
	char path[128];
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	rig_fill_items(RIG_RANDOM, 1, data, item, n);
	for (size_t i = 0; i < CHUNKS; i++) {
		assert_int_equal(rig_seal(&r, item, n, "off", 65536, false, &chunk[i]), 0);
		size_t listed = pipeline_segment_new_since(r.p, chunk[i]->segment, seg, 8);
		assert_int_equal(listed, 1);
		assert_int_equal(seg[0].id, chunk[i]->segment);
	}
	size_t nseg = pipeline_segment_new_since(r.p, 0, seg, 8);
	assert_int_equal(nseg, 3); /* 160 MiB and a little */
	for (size_t i = 0; i < nseg; i++) {
		assert_int_equal(seg[i].id, i + 1);
		assert_int_equal(seg[i].kind, PIPELINE_SEGMENT_FILE);
		assert_int_equal(seg[i].open, i == nseg - 1);
		assert_true(seg[i].size < PIPELINE_SEGMENT_SIZE + PIPELINE_CHUNK_MAX);
		rig_segment_file(&r, seg[i].id, path, sizeof(path));
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, seg[i].size);
	}
	assert_true(seg[0].size >= PIPELINE_SEGMENT_SIZE - 128 * 65536 - 100000);
	assert_int_equal(pipeline_segment_new_since(r.p, 2, seg, 1), 1);
	assert_int_equal(seg[0].id, 2);
	pipeline_segment_roll(r.p, 3);
	assert_int_equal(pipeline_segment_get(r.p, 3, &seg[0]), 0);
	assert_false(seg[0].open);
	assert_int_equal(pipeline_segment_get(r.p, 77, &seg[0]), -ENOENT);
	for (size_t i = 0; i < CHUNKS; i++) {
		if (i % 6 == 0)
			rig_check(&r, chunk[i], item, n);
		free(chunk[i]);
	}
	rig_release(&r);
	free(item);
	free(data);
}

static void count_task(void *arg)
{
	atomic_fetch_add((atomic_uint *)arg, 1);
}

static void test_run(void **state)
{
	atomic_uint n = 0;
	struct rig r;
	int queued = 0;

	(void)state;
	rig_init(&r, CIPHER_AUTO);
	for (int i = 0; i < 100; i++)
		queued += pipeline_run(r.p, count_task, &n) == 0;
	pipeline_free(r.p);
	assert_int_equal(atomic_load(&n), queued);
	assert_int_equal(queued, 100);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	rig_release(&r);
}

/* An unused segment made ahead does not stay behind. */
static void test_no_leftovers(void **state)
{
	uint8_t *data = malloc(40u * MIB / 8);
	struct pipeline_item item[80];
	struct pipeline_chunk *chunk;
	char command[256];
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AUTO);
	rig_fill_items(RIG_RANDOM, 1, data, item, 80);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(rig_seal(&r, item, 80, "off", 65536, false, &chunk), 0);
		free(chunk);
	}
	pipeline_free(r.p);
	assert_true(faulty_calls(&r.faulty, FAULTY_UNLINK) == 1);
	(void)snprintf(command, sizeof(command), "test $(find %s/segments -type f | wc -l) = 1", r.dir);
	assert_int_equal(system(command), 0);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	rig_release(&r);
	free(data);
}

/* A stream is on its way to the device before anybody syncs it, a small write is not. */
static void test_write_behind(void **state)
{
	uint8_t *data = malloc(80 * 65536);
	struct pipeline_item item[80];
	struct pipeline_chunk *chunk;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AUTO);
	rig_fill_items(RIG_RANDOM, 1, data, item, 80);
	assert_int_equal(rig_seal(&r, item, 2, "off", 65536, false, &chunk), 0);
	free(chunk);
	assert_int_equal(r.faulty.behind, 0);
	assert_int_equal(rig_seal(&r, item, 80, "off", 65536, false, &chunk), 0);
	assert_int_equal(r.faulty.behind, chunk->offset + chunk->stored_len);
	free(chunk);
	rig_release(&r);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trips),      cmocka_unit_test(test_chunk_limits),
	    cmocka_unit_test(test_tiny_items),       cmocka_unit_test(test_incompressible_is_stored),
	    cmocka_unit_test(test_remount),          cmocka_unit_test(test_read_only),
	    cmocka_unit_test(test_submit_from_done), cmocka_unit_test(test_flood),
	    cmocka_unit_test(test_segments_roll),    cmocka_unit_test(test_run),
	    cmocka_unit_test(test_no_leftovers),     cmocka_unit_test(test_by_whom),
	    cmocka_unit_test(test_write_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
