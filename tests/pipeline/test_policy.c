#include "pipeline/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

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
		uint32_t limit, frame;
	} table[] = {
	    {0, 0, POLICY_PACKED, MIB, 64 * KIB},
	    {256 * KIB - 1, 4 * KIB, POLICY_PACKED, MIB, 64 * KIB},
	    {256 * KIB, 16 * KIB, POLICY_RANDOM, MIB, 16 * KIB},
	    {256 * KIB, 16 * KIB + 1, POLICY_PACKED, MIB, 64 * KIB},
	    {MIB, 64 * KIB, POLICY_STREAM, MIB, 64 * KIB},
	    {20 * GB, 64 * KIB, POLICY_STREAM, 16 * MIB, 64 * KIB},
	    {20 * GB, 4 * KIB, POLICY_RANDOM, MIB, 16 * KIB}, /* its frame table stays small */
	    {20 * GB, UINT64_MAX, POLICY_STREAM, 16 * MIB, 64 * KIB},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		enum policy_kind kind = policy_kind(table[i].size, table[i].len);

		assert_int_equal(kind, table[i].kind);
		assert_int_equal(policy_chunk_limit(kind, table[i].size, 256 * MIB), table[i].limit);
		assert_int_equal(policy_frame_size(kind), table[i].frame);
	}
}

static void test_codec(void **state)
{
	static const struct {
		struct codec_choice in;
		enum policy_kind kind;
		int level;
	} table[] = {
	    {{CODEC_ZSTD, 0}, POLICY_STREAM, -1}, {{CODEC_ZSTD, 0}, POLICY_PACKED, 5},
	    {{CODEC_ZSTD, 0}, POLICY_RANDOM, -1}, {{CODEC_ZSTD, 7}, POLICY_PACKED, 7},
	    {{CODEC_LZ4, 0}, POLICY_PACKED, 0},   {{CODEC_STORED, 0}, POLICY_STREAM, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct codec_choice out = policy_codec(table[i].in, table[i].kind);

		assert_int_equal(out.codec, table[i].in.codec);
		assert_int_equal(out.level, table[i].level);
	}
}

static void test_workers(void **state)
{
	static const unsigned table[][2] = {{0, 1}, {1, 1},   {2, 2},   {3, 2},   {4, 3},
	                                    {8, 7}, {33, 32}, {34, 32}, {256, 32}};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(policy_workers(table[i][0]), table[i][1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_chunk_size), cmocka_unit_test(test_chunk_size_grows), cmocka_unit_test(test_kind),
	    cmocka_unit_test(test_codec),      cmocka_unit_test(test_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
