#include "pipeline/policy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define MB  ((uint64_t)1000000)
#define GB  (1000 * MB)

static void test_chunk_size(void **state)
{
	static const struct {
		uint64_t size, memory, chunk;
	} table[] = {
	    {0, GIB, 64 * KIB},
	    {1, GIB, 64 * KIB},
	    {MB, GIB, 64 * KIB},
	    {3 * MB, GIB, 64 * KIB},
	    {4 * MB, GIB, 128 * KIB},
	    {10 * MB - 1, GIB, 128 * KIB},
	    {10 * MB, GIB, 256 * KIB},
	    {31 * MB, GIB, 256 * KIB},
	    {32 * MB, GIB, 512 * KIB},
	    {100 * MB - 1, GIB, 512 * KIB},
	    {100 * MB, GIB, MIB},
	    {316 * MB, GIB, MIB},
	    {317 * MB, GIB, 2 * MIB},
	    {GB - 1, GIB, 2 * MIB},
	    {GB, GIB, 4 * MIB},
	    {3 * GB, GIB, 4 * MIB},
	    {4 * GB, GIB, 8 * MIB},
	    {10 * GB - 1, GIB, 8 * MIB},
	    {10 * GB, GIB, 16 * MIB},
	    {UINT64_MAX, UINT64_MAX, 16 * MIB},
	    /* never more than a sixteenth of the memory, never less than 4 KiB */
	    {10 * GB, 256 * MIB, 16 * MIB},
	    {10 * GB, 256 * MIB - 1, 8 * MIB},
	    {10 * GB, 64 * MIB, 4 * MIB},
	    {10 * GB, 16 * MIB, MIB},
	    {10 * MB, 64 * MIB, 256 * KIB},
	    {0, 512 * KIB, 32 * KIB},
	    {0, 64 * KIB, 4 * KIB},
	    {0, 1, 4 * KIB},
	    {GB, 0, 4 * KIB},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(policy_chunk_size(table[i].size, table[i].memory), table[i].chunk);
}

/* Over all sizes: a power of two within bounds that does not shrink as a file grows. */
static void test_chunk_size_grows(void **state)
{
	uint32_t last = 0;

	(void)state;
	for (uint64_t size = 1; size < UINT64_MAX / 2; size += size / 50 + 1) {
		uint32_t chunk = policy_chunk_size(size, 256 * MIB);

		assert_true(chunk >= 4 * KIB && chunk <= 16 * MIB);
		assert_int_equal(chunk & (chunk - 1), 0);
		assert_true(chunk >= last && (!last || chunk <= 2 * last));
		last = chunk;
	}
}

static void test_kind(void **state)
{
	static const struct {
		uint64_t size, len;
		enum policy_kind kind;
		uint32_t frame;
	} table[] = {
	    {0, 0, POLICY_PACKED, 64 * KIB},
	    {256 * KIB - 1, 4 * KIB, POLICY_PACKED, 64 * KIB},
	    {256 * KIB, 16 * KIB, POLICY_RANDOM, 16 * KIB},
	    {256 * KIB, 16 * KIB + 1, POLICY_PACKED, 64 * KIB},
	    {MIB, 64 * KIB, POLICY_STREAM, 64 * KIB},
	    {20 * GB, 64 * KIB, POLICY_STREAM, 64 * KIB},
	    {20 * GB, 4 * KIB, POLICY_RANDOM, 16 * KIB},
	    {20 * GB, UINT64_MAX, POLICY_STREAM, 64 * KIB},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		enum policy_kind kind = policy_kind(table[i].size, table[i].len);

		assert_int_equal(kind, table[i].kind);
		assert_int_equal(policy_frame_size(kind), table[i].frame);
	}
}

/* By storage, memory, setting, and what is short. */
static void test_chunk_limits(void **state)
{
	static const struct {
		struct policy p;
		unsigned shrink;
		enum policy_kind kind;
		uint64_t size;
		uint32_t stream, cut;
	} table[] = {
	    {{STORAGE_AUTO, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, MB, MIB, MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, MB, MIB, MIB},
	    {{STORAGE_HDD, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, MB, 4 * MIB, 4 * MIB},
	    {{STORAGE_NVME, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, MB, 256 * KIB, MIB},
	    {{STORAGE_NVME, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, 50 * MB, 512 * KIB, MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, 500 * MB, 2 * MIB, 2 * MIB},
	    {{STORAGE_HDD, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, 500 * MB, 4 * MIB, 4 * MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 0, POLICY_STREAM, 20 * GB, 16 * MIB, 16 * MIB},
	    {{STORAGE_SSD, 2, 64 * MIB, 0, 0}, 0, POLICY_STREAM, 20 * GB, 4 * MIB, 4 * MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 0, POLICY_PACKED, 1000, MIB, MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 0, POLICY_RANDOM, 20 * GB, 16 * MIB, 256 * KIB},
	    {{STORAGE_HDD, 2, 256 * MIB, 0, 0}, 0, POLICY_RANDOM, 20 * GB, 16 * MIB, 256 * KIB},
	    /* while memory is short */
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 1, POLICY_STREAM, 20 * GB, 8 * MIB, 8 * MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 1, POLICY_PACKED, 0, MIB, MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 4, POLICY_STREAM, 20 * GB, MIB, MIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 0, 0}, 4, POLICY_STREAM, MB, MIB, MIB},
	    {{STORAGE_NVME, 2, 256 * MIB, 0, 0}, 4, POLICY_STREAM, 50 * MB, 512 * KIB, MIB},
	    {{STORAGE_NVME, 2, 256 * MIB, 0, 0}, 4, POLICY_STREAM, 500 * MB, MIB, MIB},
	    {{STORAGE_HDD, 2, 256 * MIB, 0, 0}, 4, POLICY_STREAM, 20 * GB, 4 * MIB, 4 * MIB},
	    /* a setting holds, within what a chunk can be and memory allows */
	    {{STORAGE_SSD, 2, 256 * MIB, 1, 0}, 0, POLICY_STREAM, 20 * GB, 4 * KIB, 4 * KIB},
	    {{STORAGE_SSD, 2, 256 * MIB, 64 * KIB, 0}, 4, POLICY_PACKED, 0, 64 * KIB, 64 * KIB},
	    {{STORAGE_HDD, 2, 256 * MIB, 100000, 0}, 0, POLICY_STREAM, MB, 64 * KIB, 64 * KIB},
	    {{STORAGE_SSD, 2, 256 * MIB, MIB, 0}, 0, POLICY_RANDOM, 20 * GB, MIB, MIB},
	    {{STORAGE_SSD, 2, 4 * GIB, 512 * MIB, 0}, 0, POLICY_STREAM, 0, 16 * MIB, 16 * MIB},
	    {{STORAGE_SSD, 2, 64 * MIB, 512 * MIB, 0}, 0, POLICY_STREAM, 0, 4 * MIB, 4 * MIB},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		assert_int_equal(policy_stream_chunk(&table[i].p, table[i].shrink, table[i].size), table[i].stream);
		assert_int_equal(policy_chunk_limit(&table[i].p, table[i].shrink, table[i].kind, table[i].size),
		                 table[i].cut);
	}
}

static void test_codec(void **state)
{
	static const struct {
		struct codec_choice in;
		enum policy_priority priority;
		enum policy_kind kind;
		enum policy_sample sample;
		int step;
		struct codec_choice out;
	} table[] = {
	    /* the priority chooses the codec */
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_STREAM, POLICY_SAMPLE_USUAL, 0, {CODEC_ZSTD, 1}},
	    {{CODEC_AUTO, 0}, POLICY_SPEED, POLICY_STREAM, POLICY_SAMPLE_USUAL, 0, {CODEC_LZ4, 1}},
	    {{CODEC_AUTO, 0}, POLICY_RATIO, POLICY_STREAM, POLICY_SAMPLE_USUAL, 0, {CODEC_BROTLI, 4}},
	    /* what is named is kept */
	    {{CODEC_STORED, 0}, POLICY_RATIO, POLICY_STREAM, POLICY_SAMPLE_USUAL, 2, {CODEC_STORED, 0}},
	    {{CODEC_ZSTD, 7}, POLICY_SPEED, POLICY_PACKED, POLICY_SAMPLE_DENSE, -2, {CODEC_ZSTD, 7}},
	    {{CODEC_LZ4, 0}, POLICY_RATIO, POLICY_PACKED, POLICY_SAMPLE_USUAL, 0, {CODEC_LZ4, 1}},
	    {{CODEC_ZSTD, 0}, POLICY_SPEED, POLICY_STREAM, POLICY_SAMPLE_USUAL, 0, {CODEC_ZSTD, 1}},
	    /* small files are packed with a higher level, what was written at random is not */
	    {{CODEC_ZSTD, 0}, POLICY_BALANCED, POLICY_PACKED, POLICY_SAMPLE_USUAL, 0, {CODEC_ZSTD, 5}},
	    {{CODEC_ZSTD, 0}, POLICY_BALANCED, POLICY_RANDOM, POLICY_SAMPLE_USUAL, 0, {CODEC_ZSTD, 1}},
	    /* the controller's steps, within what the priority allows */
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_STREAM, POLICY_SAMPLE_USUAL, 1, {CODEC_ZSTD, 2}},
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_STREAM, POLICY_SAMPLE_USUAL, 2, {CODEC_ZSTD, 3}},
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_STREAM, POLICY_SAMPLE_USUAL, 9, {CODEC_ZSTD, 3}},
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_STREAM, POLICY_SAMPLE_USUAL, -9, {CODEC_ZSTD, -5}},
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_PACKED, POLICY_SAMPLE_USUAL, -1, {CODEC_ZSTD, 3}},
	    {{CODEC_AUTO, 0}, POLICY_SPEED, POLICY_STREAM, POLICY_SAMPLE_USUAL, 2, {CODEC_LZ4, 3}},
	    {{CODEC_AUTO, 0}, POLICY_SPEED, POLICY_STREAM, POLICY_SAMPLE_USUAL, -2, {CODEC_LZ4, -16}},
	    {{CODEC_AUTO, 0}, POLICY_RATIO, POLICY_STREAM, POLICY_SAMPLE_USUAL, -2, {CODEC_BROTLI, 2}},
	    {{CODEC_AUTO, 0}, POLICY_RATIO, POLICY_STREAM, POLICY_SAMPLE_USUAL, 2, {CODEC_BROTLI, 6}},
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_RANDOM, POLICY_SAMPLE_USUAL, 2, {CODEC_ZSTD, 1}},
	    /* a level is no use where there is nothing to gain */
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_PACKED, POLICY_SAMPLE_DENSE, 2, {CODEC_ZSTD, -5}},
	    {{CODEC_AUTO, 0}, POLICY_RATIO, POLICY_PACKED, POLICY_SAMPLE_DENSE, 2, {CODEC_BROTLI, 1}},
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_PACKED, POLICY_SAMPLE_PLAIN, 2, {CODEC_ZSTD, -1}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct codec_choice out =
		    policy_codec(table[i].in, table[i].priority, table[i].kind, table[i].sample, table[i].step);

		assert_int_equal(out.codec, table[i].out.codec);
		assert_int_equal(out.level, table[i].out.level);
	}
	assert_int_equal(policy_level_lowest((struct codec_choice){CODEC_AUTO, 0}, POLICY_BALANCED), -2);
	assert_int_equal(policy_level_highest((struct codec_choice){CODEC_AUTO, 0}, POLICY_SPEED), 1);
	assert_int_equal(policy_level_lowest((struct codec_choice){CODEC_ZSTD, 3}, POLICY_BALANCED), 0);
	assert_int_equal(policy_level_highest((struct codec_choice){CODEC_STORED, 0}, POLICY_BALANCED), 0);
}

/* Every codec takes every level that the policy may choose. */
static void test_codec_cold(void **state)
{
	static const struct {
		struct codec_choice choice;
		enum policy_priority priority;
		enum policy_sample sample;
		struct codec_choice want;
	} table[] = {
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_SAMPLE_USUAL, {CODEC_ZSTD, 9}},
	    {{CODEC_AUTO, 0}, POLICY_SPEED, POLICY_SAMPLE_USUAL, {CODEC_LZ4, 9}},
	    {{CODEC_AUTO, 0}, POLICY_RATIO, POLICY_SAMPLE_USUAL, {CODEC_BROTLI, 9}},
	    {{CODEC_LZ4, 0}, POLICY_BALANCED, POLICY_SAMPLE_USUAL, {CODEC_LZ4, 9}},
	    /* it would gain nothing */
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_SAMPLE_DENSE, {CODEC_ZSTD, -5}},
	    {{CODEC_AUTO, 0}, POLICY_BALANCED, POLICY_SAMPLE_PLAIN, {CODEC_ZSTD, -1}},
	    /* named by the user */
	    {{CODEC_ZSTD, 3}, POLICY_RATIO, POLICY_SAMPLE_USUAL, {CODEC_ZSTD, 3}},
	    {{CODEC_STORED, 0}, POLICY_RATIO, POLICY_SAMPLE_USUAL, {CODEC_STORED, 0}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct codec_choice got = policy_codec_cold(table[i].choice, table[i].priority, table[i].sample);

		assert_int_equal(got.codec, table[i].want.codec);
		assert_int_equal(got.level, table[i].want.level);
	}
}

static void test_levels_exist(void **state)
{
	static const enum codec_id codecs[] = {CODEC_AUTO, CODEC_LZ4, CODEC_ZSTD, CODEC_BROTLI};
	static uint8_t in[4096], out[4096];
	struct codec_ctx *ctx;

	(void)state;
	assert_int_equal(codec_ctx_new(&ctx), 0);
	for (unsigned n = 0; n < 4 * 3 * 3 * 3 * 5; n++) {
		struct codec_choice choice = {codecs[n % 4], 0};

		choice = policy_codec(choice, n / 4 % 3, n / 12 % 3, n / 36 % 3, (int)(n / 108) - 2);
		assert_true(codec_compress(ctx, choice, in, sizeof(in), out, sizeof(out)) > 0);
	}
	codec_ctx_free(ctx);
}

/* Deterministic bytes below `range`. */
static void fill(uint8_t *buf, size_t len, unsigned range)
{
	uint64_t x = 88172645463325252u;

	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf[i] = (uint8_t)((x >> 20) % range);
	}
}

static void test_sample(void **state)
{
	static uint8_t buf[65536];

	(void)state;
	assert_int_equal(policy_sample(buf, sizeof(buf), false), POLICY_SAMPLE_PLAIN);
	assert_int_equal(policy_sample(buf, 511, false), POLICY_SAMPLE_USUAL); /* too little to say */
	fill(buf, sizeof(buf), 256);
	assert_int_equal(policy_sample(buf, sizeof(buf), false), POLICY_SAMPLE_DENSE);
	assert_int_equal(policy_sample(buf, 600, false), POLICY_SAMPLE_DENSE);
	fill(buf, sizeof(buf), 200); /* 7.6 bits: dense only if the name says so, too */
	assert_int_equal(policy_sample(buf, sizeof(buf), false), POLICY_SAMPLE_USUAL);
	assert_int_equal(policy_sample(buf, sizeof(buf), true), POLICY_SAMPLE_DENSE);
	fill(buf, sizeof(buf), 60); /* 5.9 bits: whatever the name says */
	assert_int_equal(policy_sample(buf, sizeof(buf), true), POLICY_SAMPLE_USUAL);
}

static void test_names(void **state)
{
	static const char *const dense[] = {"a.zip", "film.MKV", "x.tar.zst", ".jpg", "a.b.c.PNG"};
	static const char *const other[] = {"zip", "a.c", "", ".", "jpg", "a.zip.txt", "a.zi", "a.zipp"};

	(void)state;
	for (size_t i = 0; i < sizeof(dense) / sizeof(dense[0]); i++)
		assert_true(policy_name_is_dense(dense[i]));
	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
		assert_false(policy_name_is_dense(other[i]));
}

static void test_priority(void **state)
{
	enum policy_priority p;

	(void)state;
	for (int i = 0; i < POLICY_PRIORITIES; i++) {
		assert_int_equal(policy_priority_parse(policy_priority_name((enum policy_priority)i), &p), 0);
		assert_int_equal(p, i);
	}
	assert_int_equal(policy_priority_parse("fast", &p), -EINVAL);
	assert_string_equal(policy_priority_name(POLICY_PRIORITIES), "unknown");
}

static void test_tokens(void **state)
{
	static const unsigned cpu[][2] = {{0, 1}, {1, 1}, {2, 2}, {3, 2}, {4, 3}, {8, 7}, {256, 255}};
	static const struct {
		enum storage_class storage;
		unsigned tokens;
		uint32_t request;
	} io[] = {
	    {STORAGE_AUTO, 12, MIB},
	    {STORAGE_HDD, 4, 4 * MIB},
	    {STORAGE_SSD, 12, MIB},
	    {STORAGE_NVME, 24, 256 * KIB},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cpu) / sizeof(cpu[0]); i++)
		assert_int_equal(policy_cpu_tokens(cpu[i][0]), cpu[i][1]);
	for (size_t i = 0; i < sizeof(io) / sizeof(io[0]); i++) {
		assert_int_equal(policy_io_tokens(io[i].storage), io[i].tokens);
		assert_int_equal(policy_request(io[i].storage), io[i].request);
	}
}

static void test_workers_size(void **state)
{
	static const struct {
		uint64_t size;
		unsigned workers;
	} table[] = {
	    {0, 4},        {1, 9},        {5 * MB, 9},   {6 * MB, 9},  {7 * MB, 8},     {12 * MB, 7},
	    {22 * MB, 6},  {37 * MB, 6},  {38 * MB, 5},  {50 * MB, 5}, {125 * MB, 5},   {126 * MB, 4},
	    {300 * MB, 4}, {795 * MB, 4}, {796 * MB, 3}, {2 * GB, 3},  {UINT64_MAX, 3},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(policy_workers_size(table[i].size), table[i].workers);
}

static void test_workers_cap(void **state)
{
	static const struct {
		unsigned workers;
		uint32_t frames;
		unsigned tokens, cores, capped;
	} table[] = {
	    {9, 1000, 15, 16, 9},     /* nothing caps */
	    {9, 4, 15, 16, 4},        /* frames */
	    {9, 1000, 3, 4, 3},       /* tokens */
	    {9, 1000, 1000, 4, 8},    /* twice the cores */
	    {99, 1000, 1000, 99, 32}, /* the most there are */
	    {9, 0, 0, 0, 1},          {0, 10, 10, 10, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(policy_workers_cap(table[i].workers, table[i].frames, table[i].tokens, table[i].cores),
		                 table[i].capped);
}

static void test_workers(void **state)
{
	static const struct {
		unsigned cores, set;
		uint64_t size;
		uint32_t frames;
		unsigned workers;
	} table[] = {
	    {2, 0, 5 * MB, 16, 2},   {4, 0, 5 * MB, 16, 3},    {16, 0, 5 * MB, 16, 9}, {16, 0, 50 * MB, 16, 5},
	    {16, 0, 2 * GB, 256, 3}, {16, 0, 5 * MB, 4, 4},    {16, 0, 0, 16, 4},      {16, 12, 2 * GB, 256, 12},
	    {2, 12, 2 * GB, 256, 2}, {64, 32, 2 * GB, 20, 20}, {1, 0, 5 * MB, 16, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct policy p = {.cores = table[i].cores, .workers = table[i].set};

		assert_int_equal(policy_workers(&p, table[i].size, table[i].frames), table[i].workers);
	}
	static const unsigned pool[][2] = {{0, 1}, {1, 1}, {2, 2}, {3, 2}, {4, 3}, {8, 7}, {33, 32}, {256, 32}};
	for (size_t i = 0; i < sizeof(pool) / sizeof(pool[0]); i++)
		assert_int_equal(policy_pool(pool[i][0]), pool[i][1]);
	assert_int_equal(policy_workers_work(POLICY_WORK_CPU, 6, STORAGE_HDD), 6);
	assert_int_equal(policy_workers_work(POLICY_WORK_STORAGE, 6, STORAGE_HDD), 4);
	assert_int_equal(policy_workers_work(POLICY_WORK_STORAGE, 6, STORAGE_NVME), 24);
	assert_int_equal(policy_workers_work(POLICY_WORK_MIXED, 6, STORAGE_NVME), 4);
}

#define LEVELS 128 /* of a codec, from -64 on */

static void mark(bool levels[CODEC_COUNT][LEVELS], struct codec_choice c)
{
	assert_in_range(c.level + LEVELS / 2, 0, LEVELS - 1);
	levels[c.codec][c.level + LEVELS / 2] = true;
}

static void mark_chosen(bool levels[CODEC_COUNT][LEVELS], struct codec_choice in, enum policy_priority priority)
{
	int lowest = policy_level_lowest(in, priority), highest = policy_level_highest(in, priority);

	for (int sample = POLICY_SAMPLE_USUAL; sample <= POLICY_SAMPLE_PLAIN; sample++) {
		for (int kind = POLICY_STREAM; kind <= POLICY_RANDOM; kind++)
			for (int step = lowest; step <= highest; step++)
				mark(levels, policy_codec(in, priority, (enum policy_kind)kind,
				                          (enum policy_sample)sample, step));
		mark(levels, policy_codec_cold(in, priority, (enum policy_sample)sample));
	}
}

/* Of bench/units.py: the strings of CODECS that have a level. */
static void mark_measured(bool levels[CODEC_COUNT][LEVELS])
{
	char line[512];
	bool within = false;
	FILE *f = fopen(UNITS, "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		within = within ? *line != '}' : !strcmp(line, "CODECS = {\n");
		for (char *save = NULL, *word = strtok_r(line, "\"", &save); within && word;
		     word = strtok_r(NULL, "\"", &save)) {
			struct codec_choice c;

			if (*word != ':' && strchr(word, ':')) {
				assert_int_equal(codec_choice_parse(word, &c), 0);
				mark(levels, c);
			}
		}
	}
	(void)fclose(f);
}

/* What is measured is what can be chosen: the numbers by which the levels were, stay numbers of these levels. */
static void test_levels_measured(void **state)
{
	static bool chosen[CODEC_COUNT][LEVELS], measured[CODEC_COUNT][LEVELS];
	static const enum codec_id codecs[] = {CODEC_AUTO, CODEC_LZ4, CODEC_ZSTD, CODEC_BROTLI};

	(void)state;
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++)
		for (int p = 0; p < POLICY_PRIORITIES; p++)
			mark_chosen(chosen, (struct codec_choice){.codec = codecs[i]}, (enum policy_priority)p);
	mark_measured(measured);
	for (int c = 0; c < CODEC_COUNT; c++)
		for (int i = 0; i < LEVELS; i++)
			if (chosen[c][i] != measured[c][i])
				fail_msg("%s:%d is %s", codec_name((enum codec_id)c), i - LEVELS / 2,
				         chosen[c][i] ? "not measured" : "measured, but never chosen");
}

static void test_inline(void **state)
{
	(void)state;
	assert_true(policy_inline(1));
	assert_true(policy_inline(9));
	assert_false(policy_inline(10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_chunk_size),  cmocka_unit_test(test_chunk_size_grows),
	    cmocka_unit_test(test_kind),        cmocka_unit_test(test_chunk_limits),
	    cmocka_unit_test(test_codec),       cmocka_unit_test(test_levels_exist),
	    cmocka_unit_test(test_codec_cold),  cmocka_unit_test(test_sample),
	    cmocka_unit_test(test_names),       cmocka_unit_test(test_priority),
	    cmocka_unit_test(test_tokens),      cmocka_unit_test(test_workers_size),
	    cmocka_unit_test(test_workers_cap), cmocka_unit_test(test_workers),
	    cmocka_unit_test(test_inline),      cmocka_unit_test(test_levels_measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
