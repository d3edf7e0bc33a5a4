#include "pipeline/codec.h"

#include <brotli/encode.h>
#include <errno.h>
#include <lz4.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include <cmocka.h>

#define UNIT 65536u

static struct codec_ctx *ctx;
static uint8_t text[UNIT], noise[UNIT], packed[2 * UNIT], plain[UNIT + 64];

static uint64_t rng_state = 0x9E3779B97F4A7C15u;

static uint32_t rng(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 32);
}

/* Text with the statistics of a word list: compressible, never quite periodic. */
static void fill_text(uint8_t *out, size_t len)
{
	static const char *const words[] = {"static ", "int ", "struct ", "return ", "inode",   "->",
	                                    "(",       ")",    ";\n\t",   "offset ", "length ", "= ",
	                                    "if ",     "else", "{\n",     "}\n",     "const ",  "void ",
	                                    "buffer ", "the ", "segment", "_",       "chunk"};
	size_t at = 0;

	while (at < len) {
		const char *w = words[rng() % (sizeof(words) / sizeof(words[0]))];

		while (*w && at < len)
			out[at++] = (uint8_t)*w++;
		if (at < len && rng() % 4 == 0)
			out[at++] = (uint8_t)('a' + rng() % 26);
	}
}

static void fill_noise(uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)rng();
}

static const char *const choices[] = {"lz4",    "lz4:-8",  "lz4:1",    "lz4:3",    "lz4:9",
                                      "lz4:12", "zstd",    "zstd:-5",  "zstd:1",   "zstd:3",
                                      "zstd:9", "zstd:19", "brotli:1", "brotli:4", "brotli:11"};

static void test_round_trip(void **state)
{
	static const size_t sizes[] = {1, 2, 13, 100, 1000, 4096, 16384, 40000, UNIT};

	(void)state;
	for (size_t c = 0; c < sizeof(choices) / sizeof(choices[0]); c++) {
		struct codec_choice choice;

		assert_int_equal(codec_choice_parse(choices[c], &choice), 0);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			size_t len = sizes[i];
			int n = codec_compress(ctx, choice, text, len, packed, sizeof(packed));

			assert_true(n > 0);
			assert_true(len < 1000 || (size_t)n < len);
			memset(plain, 0xA5, sizeof(plain));
			assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n, plain, len), 0);
			assert_memory_equal(plain, text, len);
			assert_int_equal(plain[len], 0xA5);
		}
	}
}

/* A result larger than cap is refused, one that is kept never exceeds it. */
static void test_cap(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof(choices) / sizeof(choices[0]); c++) {
		struct codec_choice choice;
		int full, n;

		assert_int_equal(codec_choice_parse(choices[c], &choice), 0);
		assert_int_equal(codec_compress(ctx, choice, noise, UNIT, packed, UNIT - UNIT / 16), 0);
		full = codec_compress(ctx, choice, text, UNIT, packed, sizeof(packed));
		assert_true(full > 0);
		for (size_t cap = 0; cap < (size_t)full; cap += 1 + (size_t)full / 7) {
			memset(packed, 0xA5, sizeof(packed));
			assert_int_equal(codec_compress(ctx, choice, text, UNIT, packed, cap), 0);
			assert_int_equal(packed[cap], 0xA5);
		}
		assert_int_equal(codec_compress(ctx, choice, text, UNIT, packed, (size_t)full - 1), 0);
		n = codec_compress(ctx, choice, text, UNIT, packed, (size_t)full + 1024);
		assert_true(n > 0 && n <= full + 1024);
	}
}

/* Every length but the right one is refused, and nothing is written past the room given. */
static void test_bounds(void **state)
{
	(void)state;
	for (int codec = CODEC_LZ4; codec < CODEC_COUNT; codec++) {
		struct codec_choice choice = {(enum codec_id)codec, 0};
		size_t len = 20000;
		int n = codec_compress(ctx, choice, text, len, packed, sizeof(packed));

		assert_true(n > 0);
		for (size_t wrong = 1; wrong < UNIT; wrong += 997) {
			memset(plain, 0xA5, sizeof(plain));
			assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n, plain, wrong),
			                 wrong == len ? 0 : -EBADMSG);
			assert_int_equal(plain[wrong], 0xA5);
		}
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n, plain, len - 1), -EBADMSG);
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n, plain, len + 1), -EBADMSG);
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n - 1, plain, len), -EBADMSG);
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n + 1, plain, len), -EBADMSG);
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, 0, plain, len), -EBADMSG);
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n, plain, 0), -EBADMSG);
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n, plain, UNIT + 1), -EBADMSG);
	}
}

/* Damaged and random input: an answer, and no byte beyond plain_len. Sanitizers see the rest. */
static void test_damage(void **state)
{
	uint8_t *small = malloc(3000), *room = malloc(9000);

	(void)state;
	for (int codec = CODEC_LZ4; codec < CODEC_COUNT; codec++) {
		struct codec_choice choice = {(enum codec_id)codec, 0};
		int n = codec_compress(ctx, choice, text, 9000, packed, sizeof(packed));

		assert_true(n > 0 && n < 9000);
		for (unsigned round = 0; round < 3000; round++) {
			uint8_t *copy = malloc((size_t)n);

			memcpy(copy, packed, (size_t)n);
			for (unsigned k = 0; k <= rng() % 3; k++)
				copy[rng() % (unsigned)n] ^= (uint8_t)(1u << rng() % 8);
			(void)!codec_decompress(ctx, choice.codec, copy, (size_t)n, room, 9000);
			free(copy);
			fill_noise(small, 3000);
			(void)!codec_decompress(ctx, choice.codec, small, 1 + rng() % 3000, room, 1 + rng() % 9000);
		}
		assert_int_equal(codec_decompress(ctx, choice.codec, packed, (size_t)n, room, 9000), 0);
		assert_memory_equal(room, text, 9000);
	}
	free(small);
	free(room);
}

/* A few KiB that claim to be a lot more than a frame: refused, and nothing of that size is allocated. */
static void test_bomb(void **state)
{
	static uint8_t bomb[1u << 20], zeroes[64u << 20];
	size_t len[CODEC_COUNT] = {0}, at[CODEC_COUNT] = {0}, end = 0;
	struct codec_ctx *fresh;

	(void)state;
	len[CODEC_LZ4] = (size_t)LZ4_compress_default((char *)zeroes, (char *)bomb, sizeof(zeroes), sizeof(bomb));
	end += at[CODEC_ZSTD] = len[CODEC_LZ4];
	len[CODEC_ZSTD] = ZSTD_compress(bomb + end, sizeof(bomb) - end, zeroes, sizeof(zeroes), 19);
	end += len[CODEC_ZSTD];
	at[CODEC_BROTLI] = end;
	len[CODEC_BROTLI] = sizeof(bomb) - end;
	assert_true(
	    BrotliEncoderCompress(5, 24, BROTLI_MODE_GENERIC, sizeof(zeroes), zeroes, &len[CODEC_BROTLI], bomb + end));
	assert_int_equal(codec_ctx_new(&fresh), 0);
	struct mallinfo2 before = mallinfo2();
	for (int i = CODEC_LZ4; i < CODEC_COUNT; i++) {
		assert_in_range(len[i], 1, sizeof(zeroes) / 200);
		assert_int_equal(codec_decompress(fresh, (enum codec_id)i, bomb + at[i], len[i], plain, UNIT),
		                 -EBADMSG);
		assert_int_equal(codec_decompress(fresh, (enum codec_id)i, bomb + at[i], len[i], plain, UNIT + 1),
		                 -EBADMSG);
		assert_int_equal(codec_decompress(fresh, (enum codec_id)i, bomb + at[i], len[i], plain, 1u << 26),
		                 -EBADMSG);
	}
	struct mallinfo2 after = mallinfo2();
	assert_in_range(after.uordblks + after.hblkhd, 0, before.uordblks + before.hblkhd + (3u << 20));
	codec_ctx_free(fresh);
}

static void test_stored_and_unknown(void **state)
{
	struct codec_choice stored = {CODEC_STORED, 0}, unknown = {(enum codec_id)9, 0};
	struct codec_choice far = {CODEC_ZSTD, 23};

	(void)state;
	assert_int_equal(codec_compress(ctx, stored, text, UNIT, packed, sizeof(packed)), 0);
	assert_int_equal(codec_decompress(ctx, CODEC_STORED, text, 100, plain, 100), 0);
	assert_memory_equal(plain, text, 100);
	assert_int_equal(codec_decompress(ctx, CODEC_STORED, text, 100, plain, 99), -EBADMSG);
	assert_int_equal(codec_compress(ctx, unknown, text, UNIT, packed, sizeof(packed)), -EINVAL);
	assert_int_equal(codec_decompress(ctx, unknown.codec, text, 100, plain, 100), -EBADMSG);
	assert_int_equal(codec_compress(ctx, far, text, UNIT, packed, sizeof(packed)), -EINVAL);
	assert_int_equal(codec_compress(ctx, stored, text, 0, packed, sizeof(packed)), -EINVAL);
	assert_int_equal(codec_compress(ctx, stored, text, UNIT + 1, packed, sizeof(packed)), -EINVAL);
	assert_null(codec_name(CODEC_COUNT));
	assert_null(codec_name((enum codec_id) - 1));
}

static void test_choices(void **state)
{
	static const struct {
		const char *text;
		int ret;
		enum codec_id codec;
		int level;
		const char *formatted;
	} table[] = {
	    {"off", 0, CODEC_STORED, 0, "off"},
	    {"lz4", 0, CODEC_LZ4, 0, "lz4"},
	    {"zstd", 0, CODEC_ZSTD, 0, "zstd"},
	    {"zstd:0", -ERANGE, CODEC_STORED, 0, NULL},
	    {"lz4:-0", -ERANGE, CODEC_STORED, 0, NULL},
	    {"zstdx:3", -EINVAL, CODEC_STORED, 0, NULL},
	    {"zstd:3", 0, CODEC_ZSTD, 3, "zstd:3"},
	    {"zstd:-1", 0, CODEC_ZSTD, -1, "zstd:-1"},
	    {"brotli:4", 0, CODEC_BROTLI, 4, "brotli:4"},
	    {"zstd:20", -ERANGE, CODEC_STORED, 0, NULL},
	    {"zstd:-6", -ERANGE, CODEC_STORED, 0, NULL},
	    {"brotli:12", -ERANGE, CODEC_STORED, 0, NULL},
	    {"zstd:99999999999999999999", -EINVAL, CODEC_STORED, 0, NULL},
	    {"zstd:", -EINVAL, CODEC_STORED, 0, NULL},
	    {"zstd: 3", -EINVAL, CODEC_STORED, 0, NULL},
	    {"zstd:3x", -EINVAL, CODEC_STORED, 0, NULL},
	    {"zst", -EINVAL, CODEC_STORED, 0, NULL},
	    {"zstdx", -EINVAL, CODEC_STORED, 0, NULL},
	    {"off:1", -EINVAL, CODEC_STORED, 0, NULL},
	    {"", -EINVAL, CODEC_STORED, 0, NULL},
	};
	char buf[32];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct codec_choice c = {CODEC_COUNT, 77};

		assert_int_equal(codec_choice_parse(table[i].text, &c), table[i].ret);
		if (table[i].ret) {
			assert_int_equal(c.level, 77);
			continue;
		}
		assert_int_equal(c.codec, table[i].codec);
		assert_int_equal(c.level, table[i].level);
		assert_string_equal(codec_choice_format(c, buf, sizeof(buf)), table[i].formatted);
	}
}

/* What is made of a frame does not depend on what the context was used for before. */
static void test_context_keeps_nothing(void **state)
{
	static const struct codec_choice levels[] = {
	    {CODEC_ZSTD, 1}, {CODEC_ZSTD, 3}, {CODEC_ZSTD, -5}, {CODEC_LZ4, 1}};
	static uint8_t fresh[2 * UNIT];
	struct codec_ctx *other;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct codec_choice choice = levels[rng() % 4];
		size_t len = rng() % 2 ? UNIT : 16384 - rng() % 4096;
		int n = codec_compress(ctx, choice, text, len, packed, sizeof(packed));

		assert_int_equal(codec_ctx_new(&other), 0);
		assert_int_equal(codec_compress(other, choice, text, len, fresh, sizeof(fresh)), n);
		assert_memory_equal(packed, fresh, (size_t)n);
		codec_ctx_free(other);
	}
}

static void fill_base64(uint8_t *out, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(i % 77 == 76 ? '\n' : digits[rng() % 64]);
}

static void test_incompressible(void **state)
{
	static const size_t sizes[] = {1024, 4096, 5000, 16384, 32768, UNIT};
	static uint8_t buf[UNIT];
	struct codec_choice zstd = {CODEC_ZSTD, 3};

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		size_t len = sizes[round % 6];

		fill_noise(buf, len);
		assert_true(codec_looks_incompressible(buf, len));
		fill_text(buf, len);
		assert_false(codec_looks_incompressible(buf, len));
		fill_base64(buf, len);
		assert_false(codec_looks_incompressible(buf, len));
		/* noise with an eighth of zeroes */
		fill_noise(buf, len);
		memset(buf + rng() % (len - len / 8), 0, len / 8);
		assert_false(codec_looks_incompressible(buf, len));
	}
	for (size_t i = 0, at = 0; i < 4 && at < UNIT; i++) { /* zstd's own output */
		static uint8_t many[UNIT];
		int n;

		fill_text(many, UNIT);
		n = codec_compress(ctx, zstd, many, UNIT, buf, UNIT);
		assert_true(n > 4096);
		assert_true(codec_looks_incompressible(buf, (size_t)n));
	}
	for (size_t i = 0; i < UNIT; i++) /* uniform bytes, yet periodic */
		buf[i] = (uint8_t)i;
	assert_false(codec_looks_incompressible(buf, UNIT));
	fill_noise(buf, 8192);
	for (size_t at = 8192; at < UNIT; at += 8192)
		memcpy(buf + at, buf, 8192);
	assert_false(codec_looks_incompressible(buf, UNIT));
	memset(buf, 0, UNIT);
	assert_false(codec_looks_incompressible(buf, UNIT));
	fill_noise(buf, 256);
	assert_false(codec_looks_incompressible(buf, 256)); /* too little to tell */
}

/* A real program: a unit that is called incompressible must hardly compress. */
static void test_incompressible_elf(void **state)
{
	static uint8_t buf[UNIT];
	struct codec_choice zstd = {CODEC_ZSTD, 3};
	FILE *f = fopen("/proc/self/exe", "rb");
	size_t n;

	(void)state;
	assert_non_null(f);
	while ((n = fread(buf, 1, UNIT, f)) > 0) {
		int packed_len = codec_compress(ctx, zstd, buf, n, packed, sizeof(packed));

		assert_true(packed_len > 0);
		if (codec_looks_incompressible(buf, n))
			assert_true((size_t)packed_len > n - n / 16);
	}
	(void)fclose(f);
}

static int set_up(void **state)
{
	(void)state;
	fill_text(text, sizeof(text));
	fill_noise(noise, sizeof(noise));
	return codec_ctx_new(&ctx) ? -1 : 0;
}

static int tear_down(void **state)
{
	(void)state;
	codec_ctx_free(ctx);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_cap),
	    cmocka_unit_test(test_bounds),         cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_bomb),           cmocka_unit_test(test_stored_and_unknown),
	    cmocka_unit_test(test_choices),        cmocka_unit_test(test_context_keeps_nothing),
	    cmocka_unit_test(test_incompressible), cmocka_unit_test(test_incompressible_elf),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
