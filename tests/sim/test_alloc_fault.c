#include "tests/base/cmocka_all.h"
#include "tests/sim/alloc_fault.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static void test_nth(void **state)
{
	(void)state;
	alloc_fault_arm(3, false, false);
	char *a = malloc(1), *b = calloc(1, 1), *c = strdup("c"), *d = strdup("d");
	bool failed = alloc_fault_disarm();
	assert_true(a && b && !c && d && failed);
	assert_int_equal(alloc_fault_count(), 4);
	alloc_fault_arm(1, true, false);
	char *e = realloc(NULL, 2);
	alloc_fault_pause();
	char *f = malloc(1);
	alloc_fault_resume();
	char *g = malloc(1);
	assert_true(alloc_fault_disarm());
	assert_true(!e && f && !g);
	free(a);
	free(b);
	free(d);
	free(f);
	alloc_fault_arm(1, false, false);
	assert_false(alloc_fault_disarm());
}

static void *allocate(void *arg)
{
	*(void **)arg = malloc(1);
	return NULL;
}

static void test_thread(void **state)
{
	void *p = NULL;
	pthread_t t;

	(void)state;
	alloc_fault_arm(2, true, true);
	int ret = pthread_create(&t, NULL, allocate, &p); /* the first of this thread */
	if (!ret)
		(void)pthread_join(t, NULL);
	char *q = malloc(1);
	assert_true(alloc_fault_disarm());
	assert_int_equal(ret, 0);
	assert_true(p && !q);
	free(p);
	alloc_fault_arm(1, false, false);
	assert_int_equal(pthread_create(&t, NULL, allocate, &p), EAGAIN);
	assert_true(alloc_fault_disarm());
}

static void test_sqlite(void **state)
{
	sqlite3 *db = NULL;
	unsigned failed = 0;

	(void)state;
	for (uint64_t n = 1;; n++) {
		alloc_fault_arm(n, false, false);
		int rc = sqlite3_open(":memory:", &db);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(db, "CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(10000))", NULL, NULL,
			                  NULL);
		bool hit = alloc_fault_disarm();
		(void)sqlite3_close(db);
		assert_true(rc == SQLITE_OK || (hit && rc == SQLITE_NOMEM));
		failed += rc != SQLITE_OK;
		if (!hit)
			break;
	}
	assert_true(failed > 10);
}

/* The simulated STORE has memory of its own. */
static void test_sim(void **state)
{
	struct io *io = sim_new();
	struct io_file *f;

	(void)state;
	alloc_fault_arm(1, true, false);
	int ret = io_open(io, "a", IO_WRITE | IO_CREATE, &f);
	if (!ret)
		ret = io_pwrite(f, "text", 4, 0);
	assert_false(alloc_fault_disarm());
	assert_int_equal(ret, 0);
	io_close(f);
	io_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_nth),
	    cmocka_unit_test(test_thread),
	    cmocka_unit_test(test_sqlite),
	    cmocka_unit_test(test_sim),
	};

	alloc_fault_sqlite();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
