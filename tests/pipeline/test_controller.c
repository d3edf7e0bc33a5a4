/* The controller on simulated machines: what it is told follows from where it stands. */
#include "pipeline/controller.h"
#include "pipeline/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define MB     1e6
#define LEVELS 5
#define MIDDLE 2 /* level 0 */

#define HISTORY 16u

struct machine {
	double storage;       /* bytes a second it takes */
	double speed[LEVELS]; /* plaintext bytes a second and core, by level */
	double ratio[LEVELS]; /* stored share */
	unsigned cores, knee; /* more workers than the knee bring nothing */
	double stolen;        /* share of the CPU that others use */
	double noise;         /* share by which samples differ */
	unsigned memory;      /* per mille */
	unsigned lag;         /* samples until a level has an effect */
	int levels[HISTORY];  /* by sample */
	unsigned samples;
	uint64_t seed, now;
	struct controller c;
};

/* zstd -5, -3, -1, 1, 3 on text, on two cores, and storage that is not felt. */
static const struct machine usual = {
    .storage = 2000 * MB,
    .speed = {480 * MB, 430 * MB, 393 * MB, 354 * MB, 303 * MB},
    .ratio = {0.40, 0.36, 0.316, 0.272, 0.258},
    .cores = 2,
    .knee = 32,
    .noise = 0.015,
    .seed = 88172645463325252u,
};

static struct machine *begin(struct machine *m, int lowest, int highest, unsigned workers)
{
	const struct controller_limits limits = {lowest, highest, POLICY_SHRINK_MAX, 1, workers, m->cores};

	controller_init(&m->c, &limits);
	return m;
}

static double noisy(struct machine *m, double v)
{
	m->seed ^= m->seed << 13;
	m->seed ^= m->seed >> 7;
	m->seed ^= m->seed << 17;
	return v * (1 + m->noise * (((double)(m->seed >> 11) / (double)((uint64_t)1 << 52)) - 1));
}

static double threads(const struct machine *m)
{
	unsigned n = m->c.state.workers;

	n = n < m->cores ? n : m->cores;
	return n < m->knee ? n : m->knee;
}

/* That which is being sealed. */
static int level_now(const struct machine *m)
{
	unsigned lag = m->lag < m->samples ? m->lag : m->samples;

	return lag ? m->levels[(m->samples - lag) % HISTORY] : MIDDLE + m->c.state.level;
}

static double throughput(const struct machine *m)
{
	int level = level_now(m);
	double cpu = threads(m) * m->speed[level] * (1 - m->stolen), io = m->storage / m->ratio[level];

	return cpu < io ? cpu : io;
}

/* The number of decisions in that many samples. */
static unsigned run(struct machine *m, unsigned samples)
{
	unsigned changes = 0;

	for (unsigned i = 0; i < samples; i++) {
		m->levels[m->samples++ % HISTORY] = MIDDLE + m->c.state.level;
		int level = level_now(m);
		double bytes = noisy(m, throughput(m)), io = bytes * m->ratio[level] / m->storage;

		m->now += CONTROLLER_INTERVAL;
		const struct controller_sample s = {
		    .at = m->now,
		    .ns = CONTROLLER_INTERVAL,
		    .bytes = (uint64_t)(bytes * CONTROLLER_INTERVAL / 1e9),
		    .queued = (uint64_t)(bytes * m->lag * CONTROLLER_INTERVAL / 1e9),
		    .cpu_ns = (uint64_t)(bytes / m->speed[level] / (1 - m->stolen) * CONTROLLER_INTERVAL),
		    .io = (unsigned)(1000 * (io < 1 ? io : 1)),
		    .scarce = (unsigned)(1000 * m->stolen),
		    .memory = m->memory,
		};
		changes += controller_step(&m->c, &s);
	}
	return changes;
}

static enum controller_reason last_reason(const struct machine *m)
{
	assert_true(m->c.decisions > 0);
	return m->c.ring[(m->c.decisions - 1) % CONTROLLER_RING].reason;
}

/* Storage of 50 MB/s: a higher level within seconds, more bytes a second, and then quiet. */
static void test_slow_storage(void **state)
{
	struct machine m = usual;
	double before;

	(void)state;
	m.storage = 50 * MB;
	before = throughput(begin(&m, -2, 2, 2));
	(void)run(&m, 20); /* 10 s */
	assert_int_equal(m.c.state.level, 2);
	assert_true(throughput(&m) > 1.2 * before);
	assert_true(run(&m, 1200) <= 8); /* ten minutes: workers may be tried */
	assert_int_equal(m.c.state.level, 2);
}

/* Only as far as the priority goes, and not at all where the user has named a level. */
static void test_limits(void **state)
{
	struct machine m = usual;

	(void)state;
	m.storage = 20 * MB;
	(void)run(begin(&m, 0, 1, 2), 100);
	assert_int_equal(m.c.state.level, 1);
	m.stolen = 0.5;
	m.storage = 2000 * MB;
	(void)run(begin(&m, 0, 0, 2), 100);
	assert_int_equal(m.c.state.level, 0);
	assert_int_equal(m.c.decisions, 0);
}

/* What the user has set stays: level, chunks, workers. */
static void test_fixed(void **state)
{
	const struct controller_limits limits = {.least = 2, .workers = 2, .tokens = 2};
	struct machine m = usual;

	(void)state;
	controller_init(&m.c, &limits);
	m.memory = 900;
	for (m.storage = 10 * MB; m.storage < 3000 * MB; m.storage *= 2)
		assert_int_equal(run(&m, 100), 0);
	m.stolen = 0.6;
	assert_int_equal(run(&m, 100), 0);
}

/* The CPU at its limit because of us is no reason to give up ratio; because of others it is. */
static void test_cpu(void **state)
{
	struct machine m = usual;

	(void)state;
	assert_int_equal(run(begin(&m, -2, 2, 2), 600), 0);
	m.stolen = 0.5;
	(void)run(&m, 20);
	assert_int_equal(m.c.state.level, -2);
	assert_true(run(&m, 1200) <= 2);
	m.stolen = 0; /* they have gone */
	(void)run(&m, 20);
	assert_int_equal(m.c.state.level, 0);
	assert_int_equal(last_reason(&m), CONTROLLER_CPU_FREE);
	assert_int_equal(run(&m, 600), 0);
}

/* Storage that becomes fast: back to where it began. */
static void test_back(void **state)
{
	struct machine m = usual;

	(void)state;
	m.storage = 50 * MB;
	(void)run(begin(&m, -2, 2, 2), 20);
	assert_int_equal(m.c.state.level, 2);
	m.storage = 2000 * MB;
	(void)run(&m, 60);
	assert_int_equal(m.c.state.level, 0);
	assert_true(run(&m, 1200) <= 2);
}

static void settles_between(unsigned lag)
{
	for (double storage = 60 * MB; storage < 400 * MB; storage += 10 * MB) {
		struct machine m = usual;

		m.storage = storage;
		m.noise = 0.04;
		m.lag = lag;
		(void)run(begin(&m, -2, 2, 2), 60);
		double best = 0;

		m.lag = 0;
		for (int level = 0; level <= 2; level++) {
			struct machine other = m;

			other.c.state.level = level;
			other.c.state.workers = 2;
			best = throughput(&other) > best ? throughput(&other) : best;
		}
		assert_true(throughput(&m) > 0.85 * best);
		m.lag = lag;
		assert_true(run(&m, 1200) <= 40); /* in ten minutes */
	}
}

/* Where the level above makes the CPU the bottleneck, it does not go to and fro for ever. */
static void test_between(void **state)
{
	(void)state;
	settles_between(0);
}

/* Nor where seconds of data are queued with the level of before. */
static void test_queued(void **state)
{
	(void)state;
	settles_between(8);
}

/* More workers as long as they bring something; fewer where storage cannot take what they make. */
static void test_workers(void **state)
{
	struct machine m = usual;

	(void)state;
	m.cores = 8;
	m.knee = 3;
	(void)begin(&m, 0, 0, 8);
	m.c.state.workers = 1;
	(void)run(&m, 200);
	assert_in_range(m.c.state.workers, 3, 4);
	assert_true(run(&m, 1200) <= 20);

	m = usual;
	m.cores = 8;
	m.storage = 100 * MB; /* what one core makes */
	(void)run(begin(&m, 0, 0, 8), 400);
	assert_in_range(m.c.state.workers, 1, 2);
	assert_true(throughput(&m) > 0.95 * 100 * MB / m.ratio[MIDDLE]);
	m.storage = 2000 * MB;
	(void)run(&m, 400);
	assert_int_equal(m.c.state.workers, 8);
}

/* Above 80 % of the memory smaller and fewer, below 70 % back, between them nothing. */
static void test_memory(void **state)
{
	struct machine m = usual;

	(void)state;
	m.memory = 750;
	assert_int_equal(run(begin(&m, 0, 0, 2), 100), 0);
	m.memory = 810;
	(void)run(&m, 5);
	assert_int_equal(m.c.state.shrink, 2);
	assert_int_equal(m.c.state.workers, 2); /* the CPU is what is slow */
	m.storage = 50 * MB;
	(void)run(&m, 20);
	assert_int_equal(m.c.state.workers, 1);
	assert_int_equal(m.c.state.shrink, POLICY_SHRINK_MAX);
	assert_int_equal(last_reason(&m), CONTROLLER_MEMORY);
	m.storage = 2000 * MB;
	(void)run(&m, 20);
	assert_int_equal(m.c.state.workers, 2); /* now they free it */
	m.memory = 790;                         /* a limit with some play */
	assert_int_equal(run(&m, 100), 0);
	m.memory = 700;
	assert_int_equal(run(&m, 100), 0);
	for (unsigned i = 0; i < 100; i++) { /* what comes and goes with commits */
		m.memory = i % 4 ? 500 : 790;
		assert_int_equal(run(&m, 1), 0);
	}
	m.memory = 690;
	(void)run(&m, 30);
	assert_int_equal(m.c.state.shrink, 0);
	assert_int_equal(m.c.state.workers, 2);
	assert_int_equal(last_reason(&m), CONTROLLER_MEMORY_FREE);
	assert_int_equal(run(&m, 100), 0);
}

/* Nothing is learnt from a trickle, from a pause, or from nothing. */
static void test_no_load(void **state)
{
	struct machine m = usual;
	const struct controller_sample samples[] = {
	    {.at = 1, .ns = CONTROLLER_INTERVAL, .bytes = 1000, .io = 1000},
	    {.at = 2, .ns = 100 * CONTROLLER_INTERVAL, .bytes = 1u << 30, .io = 1000},
	    {.at = 3, .ns = 0, .bytes = 1u << 30, .io = 1000},
	};

	(void)state;
	(void)begin(&m, -2, 2, 2);
	for (unsigned i = 0; i < 300; i++)
		assert_false(controller_step(&m.c, &samples[i % 3]));
}

/* What was decided is remembered, the newest of it. */
static void test_ring(void **state)
{
	struct machine m = usual;

	(void)state;
	(void)begin(&m, 0, 0, 2);
	for (unsigned i = 0; i < 40; i++) {
		unsigned samples = 0;

		m.memory = i % 2 ? 600 : 900;
		while (!run(&m, 1))
			assert_true(++samples < 8);
	}
	assert_int_equal(m.c.decisions, 40);
	assert_int_equal(m.c.ring[39 % CONTROLLER_RING].at, m.now);
	assert_int_equal(m.c.ring[39 % CONTROLLER_RING].reason, CONTROLLER_MEMORY_FREE);
	for (int i = 0; i < CONTROLLER_REASONS; i++)
		assert_string_not_equal(controller_reason_text((enum controller_reason)i), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_slow_storage), cmocka_unit_test(test_limits),  cmocka_unit_test(test_fixed),
	    cmocka_unit_test(test_cpu),          cmocka_unit_test(test_back),    cmocka_unit_test(test_between),
	    cmocka_unit_test(test_queued),       cmocka_unit_test(test_workers), cmocka_unit_test(test_memory),
	    cmocka_unit_test(test_no_load),      cmocka_unit_test(test_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
