/* What a volume counts of itself agrees with what was written and read; and when it raises alerts. */
#include "fs/core/alerts.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static uint64_t value(struct fixture *f, enum metric id)
{
	return metrics_value(core_metrics(f->core), id);
}

static uint64_t segment_bytes(const struct fixture *f)
{
	uint64_t sum = 0;
	struct stat st;
	size_t n;
	char **path = fixture_segment_paths(f, &n);

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(stat(path[i], &st), 0);
		sum += (uint64_t)st.st_size;
		free(path[i]);
	}
	free(path);
	return sum;
}

static uint64_t frames(struct fixture *f)
{
	return value(f, METRIC_FRAMES_STORED) + value(f, METRIC_FRAMES_LZ4) + value(f, METRIC_FRAMES_ZSTD) +
	       value(f, METRIC_FRAMES_BROTLI);
}

/* Half text, half noise, and a small file whose chunk is a row of the index. */
static void write_files(struct fixture *f, uint8_t *data, size_t len, uint64_t ino[2])
{
	uint64_t rng = rng_seed(5);
	struct core_file *h;

	for (size_t i = 0; i < len / 2; i++)
		data[i] = (uint8_t) "the same words again and "[i % 25];
	fill_random(&rng, data + len / 2, len / 2);
	ino[0] = make(f, CORE_ROOT, "large", S_IFREG | 0644);
	assert_int_equal(core_file_open(f->core, ino[0], 1, &h), 0);
	for (size_t off = 0; off < len; off += MIB)
		assert_int_equal(core_file_write(h, data + off, MIB, off, 0), 0);
	core_file_close(h);
	sync_all(f);
	ino[1] = make(f, CORE_ROOT, "small", S_IFREG | 0644);
	put(f, ino[1], data, 1000, 0);
	assert_int_equal(core_fsync(f->core, ino[1], false), 0);
}

static void check_sealed(struct fixture *f, uint64_t len)
{
	assert_int_equal(value(f, METRIC_WRITE_BYTES), len);
	assert_int_equal(value(f, METRIC_COMPRESS_BYTES), len);
	assert_int_equal(value(f, METRIC_CHUNK_PLAIN_BYTES), len);
	assert_int_equal(value(f, METRIC_COMPRESS_SECONDS), frames(f));
	assert_int_equal(value(f, METRIC_SEAL_SECONDS), frames(f));
	assert_true(value(f, METRIC_FRAMES_STORED) >= len / 2 / 65536);
	assert_true(value(f, METRIC_FRAMES_ZSTD) >= len / 2 / 65536);
	assert_int_equal(value(f, METRIC_CHUNKS_INLINE), 1);
	assert_int_equal(value(f, METRIC_APPEND_SECONDS), value(f, METRIC_CHUNKS) - 1);
	/* The files are segment headers and what was appended; the rest of what is stored is in the index. */
	uint64_t appended = value(f, METRIC_APPEND_BYTES), inlined = value(f, METRIC_CHUNK_STORED_BYTES) - appended;
	assert_in_range(inlined, 100, 1200);
	assert_int_equal((segment_bytes(f) - appended) % 104, 0);
	assert_int_equal(value(f, METRIC_SYNC_BYTES), appended);
	assert_true(value(f, METRIC_SEAL_BYTES) < appended + inlined);
	assert_true(value(f, METRIC_SEAL_BYTES) > appended * 99 / 100);
	assert_in_range(value(f, METRIC_COMPRESSION_RATIO), 1900000, 2000000);
	assert_int_equal(value(f, METRIC_FSYNC_SECONDS), 1);
	assert_true(value(f, METRIC_CUT_SECONDS) >= 2);
	assert_int_equal(value(f, METRIC_INDEX_COMMIT_SECONDS), value(f, METRIC_INDEX_SYNC_SECONDS));
	assert_int_equal(value(f, METRIC_QUEUE_JOBS), 0);
	assert_int_equal(value(f, METRIC_QUEUE_BYTES), 0);
	assert_true(value(f, METRIC_WORKERS) >= 2);
}

static void test_sums(void **state)
{
	struct fixture *f = *state;
	size_t len = 8 * MIB;
	uint8_t *data = malloc(len), *back = malloc(len);
	uint64_t ino[2];

	assert_non_null(data);
	assert_non_null(back);
	write_files(f, data, len, ino);
	check_sealed(f, len + 1000);

	uint64_t stored = value(f, METRIC_APPEND_BYTES);
	fixture_remount(f);
	assert_int_equal(value(f, METRIC_WRITE_BYTES), 0);
	for (size_t off = 0; off < len; off += MIB)
		assert_int_equal(get(f, ino[0], back + off, MIB, off), MIB);
	assert_memory_equal(data, back, len);
	assert_int_equal(value(f, METRIC_READ_BYTES), len);
	assert_int_equal(value(f, METRIC_READ_SECONDS), len / MIB);
	assert_int_equal(value(f, METRIC_OPEN_BYTES), value(f, METRIC_FETCH_BYTES));
	assert_in_range(value(f, METRIC_FETCH_BYTES), stored * 99 / 100, stored);
	assert_int_equal(value(f, METRIC_OPEN_SECONDS), value(f, METRIC_CACHE_MISSES));
	assert_in_range(value(f, METRIC_DECOMPRESS_BYTES), len / 2, len / 2 + 65536);
	assert_int_equal(get(f, ino[0], back, 100, 5), 100);
	uint64_t missed = value(f, METRIC_CACHE_MISSES);
	assert_int_equal(get(f, ino[0], back, 100, 500), 100);
	assert_int_equal(value(f, METRIC_CACHE_MISSES), missed);
	assert_int_equal(value(f, METRIC_CACHE_HITS), 1);
	assert_true(value(f, METRIC_CACHE_BYTES) >= 65536);
	free(data);
	free(back);
}

static void test_off(void **state)
{
	struct fixture *f = *state;
	char buf[8];

	assert_int_equal(fixture_close(f), 0);
	f->options.no_metrics = true;
	assert_int_equal(fixture_open(f), 0);
	assert_null(core_metrics(f->core));
	uint64_t ino = make(f, CORE_ROOT, "f", S_IFREG | 0644);

	put(f, ino, "metrics", 7, 0);
	sync_all(f);
	assert_int_equal(get(f, ino, buf, sizeof(buf), 0), 7);
}

/* The thread that looks keeps the saturations: here every write is followed by a flush, so STORE is busy. */
static void test_saturation(void **state)
{
	struct fixture *f = *state;
	static uint8_t data[65536];
	uint64_t rng = rng_seed(7), ino;
	int tries = 0;

	assert_int_equal(fixture_close(f), 0);
	f->options.sample_ms = 20;
	assert_int_equal(fixture_open(f), 0);
	ino = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	fill_random(&rng, data, sizeof(data));
	do {
		put(f, ino, data, sizeof(data), 0);
		sync_all(f);
		assert_true(++tries < 20000);
	} while (!value(f, METRIC_CPU_SATURATION) || !value(f, METRIC_IO_SATURATION));
	assert_true(value(f, METRIC_CPU_SATURATION) <= 1000000);
	assert_true(value(f, METRIC_IO_SATURATION) <= 1000000);
	put(f, ino, data, sizeof(data), 0);
	while (!value(f, METRIC_MEMORY_SATURATION)) {
		const struct timespec pause = {.tv_nsec = 5000000};

		(void)nanosleep(&pause, NULL);
		assert_true(++tries < 40000);
	}
}

/* A token that is used all the time is all of the processors that there are for codecs, however many there are. */
static void test_one_token(void **state)
{
	struct fixture *f = *state;
	uint8_t *data = malloc(4 * MIB);
	uint64_t rng = rng_seed(8);
	int tries = 0;

	assert_non_null(data);
	for (size_t i = 0; i < 4 * MIB; i++)
		data[i] = (uint8_t)('a' + rng_below(&rng, 16));
	assert_int_equal(fixture_close(f), 0);
	f->options.sample_ms = 200;
	f->options.cpu_tokens = 1;
	f->options.compress = (struct codec_choice){CODEC_BROTLI, 9};
	assert_int_equal(fixture_open(f), 0);
	uint64_t ino = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	do {
		put(f, ino, data + (size_t)tries % 4 * MIB, MIB, (uint64_t)tries * MIB);
		assert_true(++tries < 300);
	} while (value(f, METRIC_CPU_SATURATION) < 850000);
	free(data);
}

/* --- alerts ------------------------------------------------------------------------------------------------------- */

#define MS  ((uint64_t)1000000)
#define SEC (1000 * MS)

static void test_alerts(void **state)
{
	static const struct {
		struct load load;
		uint64_t after; /* s since the last step */
		unsigned raised, tell;
	} step[] = {
	    {{.cpu = 0.9, .memory = 0.8, .io = 0.8, .io_p95 = 200 * MS}, 5, 0, 0}, /* the limits themselves */
	    {{.cpu = 0.91}, 5, 1, 1},
	    {{.cpu = 0.95}, 5, 0, 0}, /* it goes on */
	    {{.cpu = 0.85}, 5, 0, 0}, /* and wavers */
	    {{.cpu = 0.95}, 5, 0, 0},
	    {{.cpu = 0.1}, 5, 0, 0},  /* it ends */
	    {{.cpu = 0.95}, 5, 1, 0}, /* again, too soon to tell again */
	    {{.cpu = 0.1}, 600, 0, 0},
	    {{.cpu = 0.95}, 5, 1, 1},
	    {{.memory = 0.81}, 5, 2, 2},
	    {{.memory = 0.1}, 600, 0, 0},
	    {{.memory = 0.66, .wait_p95 = 999 * MS}, 5, 0, 0},  /* one file that comes faster than it is compressed */
	    {{.memory = 0.60, .wait_p95 = 5 * SEC}, 5, 0, 0},   /* that was before: there is room again */
	    {{.memory = 0.66, .wait_p95 = 1001 * MS}, 5, 2, 2}, /* one file that is held up */
	    {{.memory = 0.51, .wait_p95 = 2 * SEC}, 5, 0, 0},   /* it goes on */
	    {{.memory = 0.66, .wait_p95 = 20 * MS}, 5, 0, 0},   /* it ends */
	    {{.memory = 0.66, .wait_p95 = 2 * SEC}, 600, 2, 2},
	    {{.io = 0.99, .io_p95 = 99 * MS}, 5, 0, 0}, /* busy, but nobody waits long */
	    {{.io = 0.5, .io_p95 = 900 * MS}, 5, 0, 0},
	    {{.cpu = 0.99, .memory = 0.99, .io = 0.81, .io_p95 = 101 * MS}, 600, 7, 7},
	};
	struct alerts a = {0};
	uint64_t now = 0;
	unsigned tell;

	(void)state;
	for (size_t i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
		now += step[i].after * SEC;
		assert_int_equal(alerts_step(&a, &step[i].load, now, &tell), step[i].raised);
		assert_int_equal(tell, step[i].tell);
	}
}

/* The advice is one that helps: no faster codec where it is the fastest, no higher level where the CPU is full. */
static void test_advice(void **state)
{
	static const struct {
		enum alert alert;
		struct load load;
		enum codec_id codec;
		enum policy_priority priority;
		const char *has;
	} table[] = {
	    {ALERT_CPU, {.cpu = 0.97}, CODEC_ZSTD, POLICY_BALANCED, "97 %"},
	    {ALERT_CPU, {.cpu = 0.97}, CODEC_AUTO, POLICY_BALANCED, "--priority=speed needs less"},
	    {ALERT_CPU, {.cpu = 0.97}, CODEC_AUTO, POLICY_SPEED, "as fast as it gets"},
	    {ALERT_CPU, {.cpu = 0.97}, CODEC_ZSTD, POLICY_BALANCED, "--compress=lz4 needs less"},
	    {ALERT_CPU, {.cpu = 0.97}, CODEC_LZ4, POLICY_BALANCED, "as fast as it gets"},
	    {ALERT_CPU, {.cpu = 0.97}, CODEC_STORED, POLICY_BALANCED, "as fast as it gets"},
	    {ALERT_MEMORY,
	     {.memory = 0.9, .io = 0.9},
	     CODEC_AUTO,
	     POLICY_BALANCED,
	     "STORE's disk is what it waits for"},
	    {ALERT_MEMORY, {.memory = 0.9, .cpu = 0.9}, CODEC_ZSTD, POLICY_BALANCED, "faster with --compress=lz4;"},
	    {ALERT_MEMORY, {.memory = 0.9, .cpu = 0.9}, CODEC_LZ4, POLICY_BALANCED, "what it waits for; a larger"},
	    {ALERT_MEMORY,
	     {.memory = 0.9},
	     CODEC_AUTO,
	     POLICY_BALANCED,
	     "writers may wait: a larger --memory takes more"},
	    {ALERT_MEMORY,
	     {.memory = 0.66, .wait_p95 = 2500 * MS, .io = 0.9},
	     CODEC_AUTO,
	     POLICY_BALANCED,
	     "66 % of the memory for unsaved data is in use, and 1 in 20 waits for it takes over 2.5 s: STORE's disk"},
	    {ALERT_IO, {.io = 0.9, .io_p95 = 250 * MS}, CODEC_AUTO, POLICY_BALANCED, "over 250 ms"},
	    {ALERT_IO, {.io = 0.9, .io_p95 = 250 * MS}, CODEC_AUTO, POLICY_SPEED, "--priority=ratio writes less"},
	    {ALERT_IO, {.io = 0.9, .io_p95 = 250 * MS}, CODEC_AUTO, POLICY_RATIO, "a faster disk"},
	    {ALERT_IO, {.io = 0.9, .io_p95 = 250 * MS}, CODEC_ZSTD, POLICY_BALANCED, "--compress=zstd:9"},
	    {ALERT_IO, {.io = 0.9, .io_p95 = 250 * MS, .cpu = 0.8}, CODEC_ZSTD, POLICY_BALANCED, "a faster disk"},
	    {ALERT_IO, {.io = 0.9, .io_p95 = 250 * MS}, CODEC_BROTLI, POLICY_BALANCED, "a faster disk"},
	};
	char text[320];

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		alerts_text(table[i].alert, &table[i].load, (struct codec_choice){.codec = table[i].codec},
		            table[i].priority, text, sizeof(text));
		assert_non_null(strstr(text, table[i].has));
		assert_true(strlen(text) < sizeof(text) - 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_sums, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_off, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_saturation, fixture_setup, fixture_teardown),
	    cmocka_unit_test_setup_teardown(test_one_token, fixture_setup, fixture_teardown),
	    cmocka_unit_test(test_alerts),
	    cmocka_unit_test(test_advice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
