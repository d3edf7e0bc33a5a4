/* Tokens: how many, in which order, handed over to whom; holds; the books. */
#include "pipeline/governor.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static void nap(long us)
{
	const struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
}

static struct governor *make(unsigned cpu, unsigned io, struct metrics *m)
{
	struct governor *g = NULL;

	assert_int_equal(governor_new(&(struct governor_options){.tokens = {cpu, io}, .metrics = m}, &g), 0);
	return g;
}

/* Until so many wait. */
static void await(const struct governor *g, enum governor_kind kind, unsigned n)
{
	while (governor_waiting(g, kind) < n)
		nap(100);
	nap(2000); /* until the last one is in the queue too, all but surely */
}

/* --- counts ------------------------------------------------------------------------------------------------------- */

static void test_books(void **state)
{
	struct governor *g = make(3, 5, NULL);

	(void)state;
	assert_int_equal(governor_tokens(g, GOVERNOR_CPU), 3);
	assert_int_equal(governor_tokens(g, GOVERNOR_IO), 5);
	assert_int_equal(governor_cpu_threads(g, 8), 3);
	assert_int_equal(governor_cpu_threads(g, 2), 2);
	governor_enter(g, GOVERNOR_CPU);
	governor_enter(g, GOVERNOR_IO);
	governor_enter(g, GOVERNOR_IO);
	assert_int_equal(governor_held(g, GOVERNOR_CPU), 1);
	assert_int_equal(governor_held(g, GOVERNOR_IO), 2);
	assert_int_equal(governor_waiting(g, GOVERNOR_IO), 0);
	governor_leave(g, GOVERNOR_IO);
	governor_leave(g, GOVERNOR_CPU);
	governor_leave(g, GOVERNOR_IO);
	assert_int_equal(governor_held(g, GOVERNOR_CPU), 0);
	assert_int_equal(governor_held(g, GOVERNOR_IO), 0);
	governor_free(g);
}

/* Without a governor nothing waits. */
static void test_none(void **state)
{
	struct governor_hold h = {0};

	(void)state;
	for (int i = 0; i < 100; i++)
		governor_enter(NULL, GOVERNOR_CPU);
	governor_leave(NULL, GOVERNOR_CPU);
	governor_hold_begin(&h);
	assert_false(h.held);
	governor_hold_end(&h);
	assert_int_equal(governor_tokens(NULL, GOVERNOR_CPU), 0);
	assert_int_equal(governor_cpu_threads(NULL, 8), 8);
	assert_int_equal(governor_held(NULL, GOVERNOR_CPU), 0);
	governor_free(NULL);
}

struct crowd {
	struct governor *g;
	atomic_int inside[GOVERNOR_KINDS], most[GOVERNOR_KINDS];
	unsigned turns;
};

static void visit(struct crowd *c, enum governor_kind kind)
{
	governor_enter(c->g, kind);
	int n = atomic_fetch_add(&c->inside[kind], 1) + 1, most = atomic_load(&c->most[kind]);
	while (n > most && !atomic_compare_exchange_weak(&c->most[kind], &most, n))
		;
	nap(20);
	atomic_fetch_sub(&c->inside[kind], 1);
	governor_leave(c->g, kind);
}

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;

	for (unsigned i = 0; i < c->turns; i++) {
		visit(c, GOVERNOR_CPU);
		visit(c, GOVERNOR_IO);
	}
	return NULL;
}

/* Never more inside than there are tokens, all of them used, none lost, and every wait is observed. */
static void test_counts(void **state)
{
	enum { THREADS = 16, TURNS = 400 };
	struct crowd c = {.turns = TURNS};
	pthread_t thread[THREADS];
	struct metrics *m;

	(void)state;
	assert_int_equal(metrics_new(&clock_system, &m), 0);
	c.g = make(3, 5, m);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, crowd_main, &c), 0);
	for (int i = 0; i < THREADS; i++)
		(void)pthread_join(thread[i], NULL);
	assert_int_equal(atomic_load(&c.most[GOVERNOR_CPU]), 3);
	assert_int_equal(atomic_load(&c.most[GOVERNOR_IO]), 5);
	for (enum governor_kind k = 0; k < GOVERNOR_KINDS; k++) {
		assert_int_equal(governor_held(c.g, k), 0);
		assert_int_equal(governor_waiting(c.g, k), 0);
	}
	assert_int_equal(metrics_value(m, METRIC_CPU_WAIT), THREADS * TURNS);
	assert_int_equal(metrics_value(m, METRIC_IO_WAIT), THREADS * TURNS);
	assert_true(metrics_sum(m, METRIC_CPU_WAIT) > 0);
	governor_free(c.g);
	metrics_free(m);
}

/* --- order -------------------------------------------------------------------------------------------------------- */

struct guest {
	struct governor *g;
	atomic_uint *served;
	unsigned turn; /* in which it was served */
	pthread_t thread;
};

static void *guest_main(void *arg)
{
	struct guest *me = arg;

	governor_enter(me->g, GOVERNOR_CPU);
	me->turn = atomic_fetch_add(me->served, 1);
	governor_leave(me->g, GOVERNOR_CPU);
	return NULL;
}

/* First come, first served. */
static void test_order(void **state)
{
	enum { GUESTS = 12 };
	struct governor *g = make(1, 1, NULL);
	struct guest guest[GUESTS];
	atomic_uint served = 0;

	(void)state;
	governor_enter(g, GOVERNOR_CPU);
	for (unsigned i = 0; i < GUESTS; i++) {
		guest[i] = (struct guest){.g = g, .served = &served};
		assert_int_equal(pthread_create(&guest[i].thread, NULL, guest_main, &guest[i]), 0);
		await(g, GOVERNOR_CPU, i + 1);
	}
	assert_int_equal(atomic_load(&served), 0);
	governor_leave(g, GOVERNOR_CPU);
	for (unsigned i = 0; i < GUESTS; i++) {
		(void)pthread_join(guest[i].thread, NULL);
		assert_int_equal(guest[i].turn, i);
	}
	governor_free(g);
}

/* Who gives a token back and asks again comes after those who wait, although it runs and they do not. */
static void test_hand_over(void **state)
{
	struct governor *g = make(1, 1, NULL);
	atomic_uint served = 0;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct guest guest[2];

		governor_enter(g, GOVERNOR_CPU);
		for (unsigned i = 0; i < 2; i++) {
			guest[i] = (struct guest){.g = g, .served = &served};
			assert_int_equal(pthread_create(&guest[i].thread, NULL, guest_main, &guest[i]), 0);
		}
		while (governor_waiting(g, GOVERNOR_CPU) < 2)
			nap(10);
		governor_leave(g, GOVERNOR_CPU);
		governor_enter(g, GOVERNOR_CPU);
		/* A guest that had not reached the queue yet may come after: the other one was there. */
		assert_true(atomic_load(&served) >= 2 * round + 1);
		governor_leave(g, GOVERNOR_CPU);
		for (unsigned i = 0; i < 2; i++)
			(void)pthread_join(guest[i].thread, NULL);
		assert_int_equal(atomic_load(&served), 2 * round + 2);
	}
	governor_free(g);
}

struct rival {
	struct governor_hold hold;
	atomic_bool *stop;
	uint64_t runs;
	pthread_t thread;
};

static void spin(uint64_t ns)
{
	uint64_t end = clock_system.monotonic(&clock_system) + ns;

	while (clock_system.monotonic(&clock_system) < end)
		;
}

static void *rival_main(void *arg)
{
	struct rival *me = arg;

	while (!atomic_load(me->stop)) {
		governor_hold_begin(&me->hold);
		spin(50000);
		me->runs++;
	}
	governor_hold_end(&me->hold);
	return NULL;
}

/* Equal rivals for one token get equal shares, holds and all. */
static void test_shares(void **state)
{
	enum { RIVALS = 4 };
	struct governor *g = make(1, 1, NULL);
	struct rival rival[RIVALS];
	atomic_bool stop = false;
	uint64_t least = UINT64_MAX, most = 0;

	(void)state;
	for (int i = 0; i < RIVALS; i++) {
		rival[i] = (struct rival){.hold = {.governor = g}, .stop = &stop};
		assert_int_equal(pthread_create(&rival[i].thread, NULL, rival_main, &rival[i]), 0);
	}
	nap(800000);
	atomic_store(&stop, true);
	for (int i = 0; i < RIVALS; i++) {
		(void)pthread_join(rival[i].thread, NULL);
		least = rival[i].runs < least ? rival[i].runs : least;
		most = rival[i].runs > most ? rival[i].runs : most;
	}
	/* Shares of time are equal; the machine may take a rival off the CPU in the midst of a slice. */
	assert_true(least > 0);
	assert_true(most <= least + least / 2 + 40);
	assert_int_equal(governor_held(g, GOVERNOR_CPU), 0);
	governor_free(g);
}

/* --- holds -------------------------------------------------------------------------------------------------------- */

static void test_hold(void **state)
{
	struct governor *g = make(1, 1, NULL);
	struct governor_hold h = {.governor = g};
	atomic_uint served = 0;
	struct guest guest = {.g = g, .served = &served};

	(void)state;
	governor_hold_end(&h);
	governor_hold_begin(&h);
	governor_hold_begin(&h);
	assert_int_equal(governor_held(g, GOVERNOR_CPU), 1);
	assert_int_equal(pthread_create(&guest.thread, NULL, guest_main, &guest), 0);
	await(g, GOVERNOR_CPU, 1);
	governor_hold_begin(&h); /* sees the guest, and has a slice from here on */
	assert_int_equal(atomic_load(&served), 0);
	nap((long)(GOVERNOR_SLICE / 1000) + 100);
	assert_int_equal(atomic_load(&served), 0);
	governor_hold_begin(&h); /* after it */
	assert_int_equal(atomic_load(&served), 1);
	assert_true(h.held);
	(void)pthread_join(guest.thread, NULL);
	governor_hold_end(&h);
	governor_hold_end(&h);
	assert_int_equal(governor_held(g, GOVERNOR_CPU), 0);
	governor_free(g);
}

struct reader {
	struct governor_hold hold;
	atomic_bool *stop;
	uint64_t runs;
	pthread_t thread;
};

/* Asks again and again, as soon as it has what it asked for. */
static void *reader_main(void *arg)
{
	struct reader *me = arg;

	me->hold.urgent = true;
	while (!atomic_load(me->stop)) {
		governor_hold_begin(&me->hold);
		spin(20000);
		governor_hold_end(&me->hold);
		me->runs++;
	}
	return NULL;
}

/* Short runs that somebody waits for wait for one run of each other thread's at most, not for slices, and two such
 * threads that never stop leave the others their half. */
static void test_urgent(void **state)
{
	enum { RIVALS = 4, READERS = 2 };
	struct governor *g = make(1, 1, NULL);
	struct rival rival[RIVALS];
	struct reader reader[READERS];
	atomic_bool stop = false;
	uint64_t runs = 0, reads = 0;

	(void)state;
	for (int i = 0; i < RIVALS; i++) {
		rival[i] = (struct rival){.hold = {.governor = g}, .stop = &stop};
		assert_int_equal(pthread_create(&rival[i].thread, NULL, rival_main, &rival[i]), 0);
	}
	for (int i = 0; i < READERS; i++) {
		reader[i] = (struct reader){.hold = {.governor = g}, .stop = &stop};
		assert_int_equal(pthread_create(&reader[i].thread, NULL, reader_main, &reader[i]), 0);
	}
	nap(400000);
	atomic_store(&stop, true);
	for (int i = 0; i < RIVALS; i++) {
		(void)pthread_join(rival[i].thread, NULL);
		runs += rival[i].runs;
	}
	for (int i = 0; i < READERS; i++) {
		(void)pthread_join(reader[i].thread, NULL);
		reads += reader[i].runs;
	}
	/* In turn, but for what a thread that is woken late lets pass. */
	assert_true(reads >= runs / 4);
	assert_true(runs >= reads / 4);
	assert_int_equal(governor_held(g, GOVERNOR_CPU), 0);
	assert_int_equal(governor_waiting(g, GOVERNOR_CPU), 0);
	governor_free(g);
}

static void nothing(int signo)
{
	(void)signo;
}

/* A signal does not make a waiter believe that it has a token. */
static void test_signals(void **state)
{
	struct sigaction act = {.sa_handler = nothing}, old;
	struct governor *g = make(1, 1, NULL);
	atomic_uint served = 0;
	struct guest guest = {.g = g, .served = &served};

	(void)state;
	assert_int_equal(sigaction(SIGUSR1, &act, &old), 0);
	governor_enter(g, GOVERNOR_CPU);
	assert_int_equal(pthread_create(&guest.thread, NULL, guest_main, &guest), 0);
	await(g, GOVERNOR_CPU, 1);
	for (int i = 0; i < 20; i++) {
		(void)pthread_kill(guest.thread, SIGUSR1);
		nap(500);
		assert_int_equal(atomic_load(&served), 0);
	}
	governor_leave(g, GOVERNOR_CPU);
	(void)pthread_join(guest.thread, NULL);
	assert_int_equal(atomic_load(&served), 1);
	assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
	governor_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_books), cmocka_unit_test(test_none),      cmocka_unit_test(test_counts),
	    cmocka_unit_test(test_order), cmocka_unit_test(test_hand_over), cmocka_unit_test(test_shares),
	    cmocka_unit_test(test_hold),  cmocka_unit_test(test_signals),   cmocka_unit_test(test_urgent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
