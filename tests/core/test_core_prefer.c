/* user.apfs.compression and user.apfs.priority: which values they take, who inherits them, and what they change. */
#include "fs/core/compact.h"
#include "tests/core/support.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define COMPRESSION "user.apfs.compression"
#define PRIORITY    "user.apfs.priority"
#define MIB         ((size_t)1 << 20)

static int set(struct fixture *f, uint64_t ino, const char *name, const char *value)
{
	return core_setxattr(f->core, ino, name, value, strlen(value), 0);
}

/* The value, "" if there is none. */
static const char *value_of(struct fixture *f, uint64_t ino, const char *name)
{
	static char value[64];
	size_t len = sizeof(value) - 1;
	int ret = core_getxattr(f->core, ino, name, value, &len);

	assert_true(ret == 0 || ret == -ENODATA);
	value[ret ? 0 : len] = 0;
	return value;
}

/* A part of core_info's text: the codecs of the file's frames. */
static void assert_codecs(struct fixture *f, uint64_t ino, const char *codec, const char *not_codec)
{
	char *text = NULL, *frames;

	assert_int_equal(core_info(f->core, ino, &text), 0);
	frames = strstr(text, "codecs:");
	assert_non_null(frames);
	*strchr(frames, '\n') = 0;
	if (!strstr(frames, codec) || strstr(frames, not_codec))
		fail_msg("'%s', not %s", frames, codec);
	free(text);
}

static void put_text(struct fixture *f, uint64_t ino, size_t len, uint64_t off)
{
	char *buf = malloc(len);

	assert_non_null(buf);
	for (size_t i = 0; i < len; i++)
		buf[i] = (char)('a' + i % 7 + i / 100 % 19);
	put(f, ino, buf, len, off);
	free(buf);
}

static void test_values(void **state)
{
	static const char *const good[] = {"off", "lz4", "zstd", "zstd:19", "zstd:-1", "brotli:4"};
	static const char *const bad[] = {"",       "rar",  "zstd:99",
	                                  "zstd:0", "lz4 ", "zstd:0000000000000000000000000000000000003"};
	struct fixture *f = *state;
	uint64_t ino = make(f, CORE_ROOT, "f", S_IFREG | 0644);

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(set(f, ino, COMPRESSION, good[i]), 0);
		assert_string_equal(value_of(f, ino, COMPRESSION), good[i]);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(set(f, ino, COMPRESSION, bad[i]), -EINVAL);
	assert_int_equal(core_setxattr(f->core, ino, COMPRESSION, "lz4", 4, 0), -EINVAL); /* with its zero */
	assert_string_equal(value_of(f, ino, COMPRESSION), "brotli:4");
	assert_int_equal(set(f, ino, PRIORITY, "ratio"), 0);
	assert_int_equal(set(f, ino, PRIORITY, "fast"), -EINVAL);
	assert_string_equal(value_of(f, ino, PRIORITY), "ratio");
	assert_int_equal(set(f, ino, "user.apfs.info", "x"), -EPERM);
	assert_int_equal(set(f, ino, "user.apfs.compressions", "lz4"), -EPERM);
	assert_int_equal(core_removexattr(f->core, ino, COMPRESSION), 0);
	assert_int_equal(core_removexattr(f->core, ino, COMPRESSION), -ENODATA);
	assert_string_equal(value_of(f, ino, PRIORITY), "ratio");
}

static void test_inheritance(void **state)
{
	struct fixture *f = *state;
	const struct core_cred cred = {0};
	uint64_t dir = make(f, CORE_ROOT, "d", S_IFDIR | 0755), before = make(f, dir, "before", S_IFREG | 0644);
	struct core_attr link;
	size_t len = 0;

	assert_int_equal(set(f, dir, COMPRESSION, "lz4"), 0);
	assert_int_equal(set(f, dir, PRIORITY, "speed"), 0);
	fixture_remount(f);
	uint64_t sub = make(f, dir, "sub", S_IFDIR | 0755), file = make(f, sub, "file", S_IFREG | 0644);
	assert_string_equal(value_of(f, before, COMPRESSION), "");
	assert_string_equal(value_of(f, sub, COMPRESSION), "lz4");
	assert_string_equal(value_of(f, file, COMPRESSION), "lz4");
	assert_string_equal(value_of(f, file, PRIORITY), "speed");
	assert_int_equal(core_symlink(f->core, &cred, dir, "link", "file", &link), 0);
	assert_int_equal(core_listxattr(f->core, link.ino, NULL, &len), 0);
	assert_int_equal(len, 0);
	/* what is there keeps its own */
	assert_int_equal(core_removexattr(f->core, dir, COMPRESSION), 0);
	assert_int_equal(core_rename(f->core, sub, "file", CORE_ROOT, "file", 0), 0);
	fixture_remount(f);
	assert_string_equal(value_of(f, file, COMPRESSION), "lz4");
	assert_string_equal(value_of(f, make(f, dir, "after", S_IFREG | 0644), COMPRESSION), "");
	assert_string_equal(value_of(f, find(f, dir, "after"), PRIORITY), "speed");
	uint64_t outside = make(f, CORE_ROOT, "outside", S_IFREG | 0644);
	assert_int_equal(core_listxattr(f->core, outside, NULL, &len), 0);
	assert_int_equal(len, 0);
}

/* Small files that one cut takes together do not share a chunk unless they are to be stored alike. */
static void test_codecs(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "d", S_IFDIR | 0755), plain = make(f, CORE_ROOT, "plain", S_IFREG | 0644);

	assert_int_equal(set(f, dir, COMPRESSION, "lz4"), 0);
	uint64_t small = make(f, dir, "small", S_IFREG | 0644), large = make(f, dir, "large", S_IFREG | 0644);
	uint64_t held = make(f, dir, "held", S_IFREG | 0644);
	assert_int_equal(set(f, held, COMPRESSION, "brotli:2"), 0);
	put_text(f, plain, 20000, 0);
	put_text(f, small, 20000, 0);
	put_text(f, held, 20000, 0);
	for (size_t i = 0; i < 4; i++)
		put_text(f, large, MIB, i * MIB);
	sync_all(f);
	assert_codecs(f, plain, "zstd", "lz4");
	assert_codecs(f, small, "lz4", "zstd");
	assert_codecs(f, held, "brotli", "lz4");
	assert_codecs(f, large, "lz4", "zstd");
	/* it holds for what is written from then on */
	assert_int_equal(set(f, small, COMPRESSION, "zstd:3"), 0);
	put_text(f, small, 20000, 0);
	sync_all(f);
	assert_codecs(f, small, "zstd", "lz4");
	fixture_remount(f);
	put_text(f, held, 30000, 0);
	sync_all(f);
	assert_codecs(f, held, "brotli", "zstd");
	assert_int_equal(core_removexattr(f->core, held, COMPRESSION), 0);
	put_text(f, held, 30000, 0);
	sync_all(f);
	assert_codecs(f, held, "zstd", "brotli");
}

static void test_compaction(void **state)
{
	struct fixture *f = *state;
	uint64_t files[2] = {make(f, CORE_ROOT, "a", S_IFREG | 0644), make(f, CORE_ROOT, "b", S_IFREG | 0644)};
	uint64_t drop = make(f, CORE_ROOT, "c", S_IFREG | 0644);

	assert_int_equal(set(f, files[0], COMPRESSION, "lz4"), 0);
	for (int i = 0; i < 2; i++)
		put_text(f, files[i], 50000, 0);
	put_text(f, drop, 2 * MIB, 0);
	sync_all(f);
	for (int remount = 0; remount < 2; remount++) {
		assert_int_equal(core_removexattr(f->core, files[remount], COMPRESSION), remount ? -ENODATA : 0);
		assert_int_equal(set(f, files[remount], COMPRESSION, "brotli"), 0);
		fixture_remount(f); /* the maps are gone, and the segment can be a victim */
		put_text(f, drop, 2 * MIB, 0);
		sync_all(f);
		assert_int_equal(compact_run(f->core, true), 0);
		assert_codecs(f, files[remount], "brotli", "lz4");
		assert_codecs(f, files[1], remount ? "brotli" : "zstd", "lz4");
	}
}

static double ratio_of(struct fixture *f, uint64_t ino)
{
	char *text = NULL, *ratio;

	assert_int_equal(core_info(f->core, ino, &text), 0);
	ratio = strstr(text, "ratio:");
	assert_non_null(ratio);
	double r = strtod(ratio + strlen("ratio:"), NULL);
	free(text);
	return r;
}

/* Words in no order: a fast level finds less of them than a high one. */
static void put_words(struct fixture *f, uint64_t ino, size_t len)
{
	char *buf = malloc(len + 16);
	uint64_t rng = rng_seed(7);
	size_t n = 0;

	assert_non_null(buf);
	while (n < len) {
		uint64_t word = rng_below(&rng, 3000) * 0x9e3779b97f4a7c15;

		for (unsigned i = 0; i < 3 + word % 7; i++)
			buf[n++] = (char)('a' + (word >> (8 * i + 5) % 64) % 26);
		buf[n++] = ' ';
	}
	for (size_t off = 0; off < len; off += MIB)
		put(f, ino, buf + off, len - off < MIB ? len - off : MIB, off);
	free(buf);
}

/* What has not been changed for an hour is compressed harder when it is moved; a level that somebody chose is kept. */
static void test_cold(void **state)
{
	struct fixture *f = *state;
	double hot, cold, fixed, after;

	f->options.compress = (struct codec_choice){CODEC_ZSTD, 0};
	fixture_remount(f);
	uint64_t ino = make(f, CORE_ROOT, "a", S_IFREG | 0644), held = make(f, CORE_ROOT, "b", S_IFREG | 0644);
	assert_int_equal(set(f, held, COMPRESSION, "zstd:1"), 0);
	put_words(f, ino, 2 * MIB);
	put_words(f, held, 2 * MIB);
	for (int aged = 0; aged < 2; aged++) {
		uint64_t drop = make(f, CORE_ROOT, aged ? "c" : "d", S_IFREG | 0644);
		struct clock_time now = test_clock_now(&f->clock);

		put_words(f, drop, MIB);
		sync_all(f);
		hot = ratio_of(f, ino);
		fixed = ratio_of(f, held);
		now.sec += aged ? 200 : 3500;
		test_clock_set(&f->clock, now);
		assert_int_equal(core_unlink(f->core, CORE_ROOT, aged ? "c" : "d"), 0);
		core_forget(f->core, drop, 1);
		sync_all(f);
		assert_int_equal(compact_run(f->core, true), 0);
		cold = ratio_of(f, ino);
		after = ratio_of(f, held);
		assert_true(aged ? cold > hot * 1.05 : cold < hot * 1.01 && cold > hot * 0.99);
		assert_true(after < fixed * 1.01 && after > fixed * 0.99);
	}
}

/* What was given when mounting comes first. */
static void test_fixed(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make(f, CORE_ROOT, "f", S_IFREG | 0644);

	assert_int_equal(set(f, ino, COMPRESSION, "lz4"), 0);
	f->options.compress = (struct codec_choice){CODEC_ZSTD, 1};
	f->options.compress_fixed = true;
	fixture_remount(f);
	put_text(f, ino, 20000, 0);
	sync_all(f);
	assert_codecs(f, ino, "zstd", "lz4");
	f->options.compress_fixed = false;
	fixture_remount(f);
	put_text(f, ino, 20000, 0);
	sync_all(f);
	assert_codecs(f, ino, "lz4", "zstd");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_values),     TEST(test_inheritance), TEST(test_codecs),
	    TEST(test_compaction), TEST(test_cold),        TEST(test_fixed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
