#include "pipeline/metrics.h"
#include "tests/base/cmocka_all.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct metrics *fresh(void)
{
	struct metrics *m;

	assert_int_equal(metrics_new(&clock_system, &m), 0);
	return m;
}

static bool ends_with(const char *s, const char *end)
{
	size_t a = strlen(s), b = strlen(end);

	return a >= b && !strcmp(s + a - b, end);
}

/* Every metric has a name of its own, in the form that its unit asks for, and a help text. */
static void test_registry(void **state)
{
	(void)state;
	for (int i = 0; i < METRIC_COUNT; i++) {
		const struct metric_info *info = metric_info((enum metric)i);

		assert_non_null(info->name);
		assert_true(*info->help);
		assert_int_equal(strncmp(info->name, "apfs_", 5), 0);
		assert_int_equal(strspn(info->name, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(info->name));
		assert_int_equal(ends_with(info->name, "_total"), info->type == METRIC_COUNTER);
		assert_int_equal(ends_with(info->name, "_seconds"), info->unit == METRIC_NS);
		assert_int_equal(ends_with(info->name, "_ratio"), info->unit == METRIC_PPM);
		if (info->unit == METRIC_BYTES)
			assert_true(ends_with(info->name, "_bytes") || ends_with(info->name, "_bytes_total"));
		assert_int_equal(ends_with(info->name, "_steps"), info->unit == METRIC_STEPS);
		if (info->type == METRIC_HISTOGRAM)
			assert_int_equal(info->unit, METRIC_NS);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(info->name, metric_info((enum metric)k)->name);
	}
}

static void test_off(void **state)
{
	struct metrics_histogram h;

	(void)state;
	metrics_add(NULL, METRIC_CHUNKS, 1);
	metrics_set(NULL, METRIC_WORKERS, 1);
	metrics_observe(NULL, METRIC_CPU_WAIT, 1);
	assert_int_equal(metrics_now(NULL), 0);
	assert_int_equal(metrics_lap(NULL, METRIC_CPU_WAIT, 0), 0);
	metrics_io_end(NULL, METRIC_IO_WAIT, metrics_io_begin(NULL));
	assert_int_equal(metrics_io_busy(NULL), 0);
	assert_int_equal(metrics_value(NULL, METRIC_CPU_WAIT), 0);
	assert_int_equal(metrics_sum(NULL, METRIC_CPU_WAIT), 0);
	assert_int_equal(metrics_percentile(NULL, METRIC_CPU_WAIT, 0.5), 0);
	metrics_histogram_get(NULL, METRIC_CPU_WAIT, &h);
	assert_int_equal(h.count, 0);
	metrics_free(NULL);
}

static void test_values(void **state)
{
	struct metrics *m = fresh();

	(void)state;
	metrics_add(m, METRIC_CHUNKS, 2);
	metrics_add(m, METRIC_CHUNKS, 3);
	metrics_set(m, METRIC_WORKERS, 7);
	metrics_set(m, METRIC_WORKERS, 4);
	metrics_observe(m, METRIC_CPU_WAIT, 100);
	metrics_observe(m, METRIC_CPU_WAIT, 50);
	assert_int_equal(metrics_value(m, METRIC_CHUNKS), 5);
	assert_int_equal(metrics_value(m, METRIC_WORKERS), 4);
	assert_int_equal(metrics_value(m, METRIC_CPU_WAIT), 2);
	assert_int_equal(metrics_sum(m, METRIC_CPU_WAIT), 150);
	assert_int_equal(metrics_value(m, METRIC_IO_WAIT), 0);
	metrics_free(m);
}

/* --- percentiles -------------------------------------------------------------------------------------------------- */

static uint64_t rng = 88172645463325252u;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static uint64_t draw(int kind)
{
	switch (kind) {
	case 0:
		return next() % 1000;
	case 1:
		return next() >> next() % 64; /* every octave */
	case 2:
		return 150000 + next() % 1000; /* one octave */
	default:
		return next() % 100 ? next() % 1000000 : 100000000 + next() % 5000000000u; /* a tail beyond 100 ms */
	}
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Against the sorted values themselves: the one of that rank is in the same bucket, which is 1/16 wide at most. */
static void test_percentiles(void **state)
{
	enum { N = 20000 };
	static const double q[] = {0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
	static uint64_t value[N];

	(void)state;
	for (int kind = 0; kind < 4; kind++) {
		struct metrics *m = fresh();

		for (size_t i = 0; i < N; i++) {
			value[i] = draw(kind);
			metrics_observe(m, METRIC_IO_WAIT, value[i]);
		}
		qsort(value, N, sizeof(value[0]), compare);
		for (size_t i = 0; i < sizeof(q) / sizeof(q[0]); i++) {
			size_t rank = 0;

			while (rank + 1 < N && (double)(rank + 1) < q[i] * N)
				rank++;
			uint64_t want = value[rank], got = metrics_percentile(m, METRIC_IO_WAIT, q[i]);
			assert_true((got > want ? got - want : want - got) <= want / 16);
		}
		metrics_free(m);
	}
}

/* Every power of two, its neighbours and the largest value have buckets in order, so nothing is too large. */
static void test_buckets(void **state)
{
	(void)state;
	for (unsigned shift = 0; shift < 64; shift++) {
		for (int d = -1; d <= 1; d++) {
			struct metrics *m = fresh();
			struct metrics_histogram h;
			uint64_t bound = (uint64_t)1 << shift, v = bound + (uint64_t)d;

			metrics_observe(m, METRIC_IO_WAIT, v);
			metrics_histogram_get(m, METRIC_IO_WAIT, &h);
			assert_int_equal(metrics_histogram_below(&h, bound), v < bound);
			uint64_t got = metrics_histogram_percentile(&h, 0.5);
			assert_true((got > v ? got - v : v - got) <= v / 16);
			metrics_free(m);
		}
	}
	struct metrics *m = fresh();

	metrics_observe(m, METRIC_IO_WAIT, UINT64_MAX);
	assert_true(metrics_percentile(m, METRIC_IO_WAIT, 0.99) > UINT64_MAX - UINT64_MAX / 16);
	metrics_free(m);
}

static void test_since(void **state)
{
	struct metrics *m = fresh();
	struct metrics_histogram then, now;

	(void)state;
	for (int i = 0; i < 1000; i++)
		metrics_observe(m, METRIC_IO_WAIT, 1000);
	metrics_histogram_get(m, METRIC_IO_WAIT, &then);
	for (int i = 0; i < 10; i++)
		metrics_observe(m, METRIC_IO_WAIT, 1000000);
	metrics_histogram_get(m, METRIC_IO_WAIT, &now);
	metrics_histogram_since(&now, &then);
	assert_int_equal(now.count, 10);
	assert_int_equal(now.sum, 10000000);
	assert_in_range(metrics_histogram_percentile(&now, 0.01), 930000, 1070000);
	metrics_histogram_since(&now, &now);
	assert_int_equal(metrics_histogram_percentile(&now, 0.5), 0);
	metrics_free(m);
}

/* --- threads and time --------------------------------------------------------------------------------------------- */

static void *count(void *arg)
{
	for (unsigned i = 0; i < 20000; i++) {
		metrics_add(arg, METRIC_CHUNKS, 2);
		metrics_observe(arg, METRIC_IO_WAIT, i);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct metrics *m = fresh();
	pthread_t thread[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count, m), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
	assert_int_equal(metrics_value(m, METRIC_CHUNKS), 160000);
	assert_int_equal(metrics_value(m, METRIC_IO_WAIT), 80000);
	assert_int_equal(metrics_sum(m, METRIC_IO_WAIT), (uint64_t)4 * 19999 * 10000);
	metrics_free(m);
}

struct hand_clock {
	struct clock clock; /* the first member */
	uint64_t now;
};

static uint64_t hand_monotonic(const struct clock *c)
{
	return ((const struct hand_clock *)c)->now;
}

/* STORE is busy while any operation is under way, and the time counts once. */
static void test_io_busy(void **state)
{
	struct hand_clock c = {.clock = {.monotonic = hand_monotonic}, .now = 1000};
	struct metrics *m;

	(void)state;
	assert_int_equal(metrics_new(&c.clock, &m), 0);
	uint64_t a = metrics_io_begin(m);
	c.now = 1100;
	uint64_t b = metrics_io_begin(m);
	c.now = 1300;
	assert_int_equal(metrics_io_busy(m), 300);
	metrics_io_end(m, METRIC_APPEND_SECONDS, a);
	c.now = 1400;
	metrics_io_end(m, METRIC_FETCH_SECONDS, b);
	c.now = 9000;
	assert_int_equal(metrics_io_busy(m), 400);
	assert_int_equal(metrics_sum(m, METRIC_APPEND_SECONDS), 300);
	assert_int_equal(metrics_sum(m, METRIC_FETCH_SECONDS), 300);
	b = metrics_io_begin(m);
	c.now = 9100;
	assert_int_equal(metrics_io_busy(m), 500);
	metrics_io_end(m, METRIC_SYNC_SECONDS, b);
	assert_int_equal(metrics_io_busy(m), 500);
	assert_int_equal(metrics_lap(m, METRIC_OPEN_SECONDS, 9000), 9100);
	assert_int_equal(metrics_sum(m, METRIC_OPEN_SECONDS), 100);
	metrics_free(m);
}

/* Paused they are as if there were none, and what an operation on STORE begins then does not end as one that counts. */
static void test_pause(void **state)
{
	struct hand_clock c = {.clock = {.monotonic = hand_monotonic}, .now = 1000};
	struct metrics *m;

	(void)state;
	assert_int_equal(metrics_new(&c.clock, &m), 0);
	metrics_pause(m, true);
	metrics_add(m, METRIC_CHUNKS, 1);
	metrics_observe(m, METRIC_OPEN_SECONDS, 5);
	assert_int_equal(metrics_now(m), 0);
	uint64_t begin = metrics_io_begin(m);
	metrics_pause(m, false);
	c.now = 2000;
	metrics_io_end(m, METRIC_APPEND_SECONDS, begin);
	assert_int_equal(metrics_value(m, METRIC_CHUNKS), 0);
	assert_int_equal(metrics_sum(m, METRIC_OPEN_SECONDS), 0);
	assert_int_equal(metrics_sum(m, METRIC_APPEND_SECONDS), 0);
	assert_int_equal(metrics_io_busy(m), 0);
	metrics_add(m, METRIC_CHUNKS, 1);
	assert_int_equal(metrics_value(m, METRIC_CHUNKS), 1);
	metrics_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_registry),    cmocka_unit_test(test_off),     cmocka_unit_test(test_values),
	    cmocka_unit_test(test_percentiles), cmocka_unit_test(test_buckets), cmocka_unit_test(test_since),
	    cmocka_unit_test(test_threads),     cmocka_unit_test(test_io_busy), cmocka_unit_test(test_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
