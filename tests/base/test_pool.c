#include "base/pool.h"
#include "tests/base/cmocka_all.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_sizes(void **state)
{
	(void)state;
	assert_int_equal(pool_size(1), 4096);
	assert_int_equal(pool_size(4096), 4096);
	assert_int_equal(pool_size(4097), 8192);
	assert_int_equal(pool_size(16384), 16384);
	assert_int_equal(pool_size(32769), 65536);
	assert_int_equal(pool_size(65536), 65536);
	assert_int_equal(pool_size(0), 0);
	assert_int_equal(pool_size(65537), 0);
}

static void test_rounding(void **state)
{
	struct pool *p;

	(void)state;
	assert_int_equal(pool_new(0, &p), -EINVAL);
	assert_int_equal(pool_new(1, &p), 0);
	assert_int_equal(pool_total(p), POOL_BLOCK);
	assert_null(pool_get(p, 0));
	assert_null(pool_get(p, POOL_BLOCK + 1));
	pool_free(p);
	pool_free(NULL);
}

/* Every class can fill the arena, and gives all of it back for every other. */
static void test_exhaustion(void **state)
{
	enum { BLOCKS = 5 };
	struct pool *p;
	char *piece[BLOCKS * 16];

	(void)state;
	assert_int_equal(pool_new(BLOCKS * POOL_BLOCK, &p), 0);
	for (int round = 0; round < 2; round++) {
		for (size_t len = 4096; len <= POOL_BLOCK; len *= 2) {
			size_t n = BLOCKS * POOL_BLOCK / len;
			for (size_t i = 0; i < n; i++) {
				piece[i] = pool_get(p, len);
				assert_non_null(piece[i]);
				memset(piece[i], (int)i, len);
				assert_int_equal(pool_used(p), (i + 1) * len);
			}
			assert_null(pool_get(p, len));
			assert_null(pool_get(p, 1));
			for (size_t i = 0; i < n; i++) {
				for (size_t k = 0; k < len; k += 512)
					assert_int_equal((unsigned char)piece[i][k], i);
			}
			/* Out of order: odd ones first. */
			for (size_t i = 1; i < n; i += 2)
				pool_put(p, piece[i], len);
			for (size_t i = 0; i < n; i += 2)
				pool_put(p, piece[i], len);
			assert_int_equal(pool_used(p), 0);
		}
	}
	pool_free(p);
}

static void test_block_returns_when_its_pieces_do(void **state)
{
	struct pool *p;
	void *piece[16];

	(void)state;
	assert_int_equal(pool_new(POOL_BLOCK, &p), 0);
	for (int i = 0; i < 16; i++)
		piece[i] = pool_get(p, 4096);
	assert_null(pool_get(p, 8192));
	for (int i = 0; i < 15; i++)
		pool_put(p, piece[i], 4000);
	assert_null(pool_get(p, 8192)); /* still of the class of 4 KiB */
	pool_put(p, piece[15], 4096);
	void *half = pool_get(p, 20000);
	assert_non_null(half);
	pool_put(p, half, 20000);
	pool_free(p);
}

/* What was used before is used again: the fresh part of the arena stays untouched. */
static void test_reuse(void **state)
{
	struct pool *p;

	(void)state;
	assert_int_equal(pool_new(64 * POOL_BLOCK, &p), 0);
	char *a = pool_get(p, POOL_BLOCK);
	char *b = pool_get(p, 4096);
	pool_put(p, a, POOL_BLOCK);
	for (int i = 0; i < 100; i++) {
		char *c = pool_get(p, POOL_BLOCK);
		assert_ptr_equal(c, a);
		char *d = pool_get(p, 4096);
		assert_ptr_equal(d, b + 4096);
		pool_put(p, d, 4096);
		pool_put(p, c, POOL_BLOCK);
	}
	pool_put(p, b, 4096);
	pool_free(p);
}

/* The child's way of ending: true when it was abort. */
static int ends_in_abort(void (*fn)(struct pool *p), struct pool *p)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		(void)signal(SIGABRT, SIG_DFL);
		(void)close(STDERR_FILENO);
		fn(p);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void put_twice(struct pool *p)
{
	void *a = pool_get(p, 4096);

	pool_put(p, a, 4096);
	pool_put(p, a, 4096);
}

static void put_as_another_class(struct pool *p)
{
	void *a = pool_get(p, 4096);

	pool_put(p, a, 8192);
}

static void put_something_else(struct pool *p)
{
	int here;

	pool_put(p, &here, 4096);
}

static void test_wrong_puts(void **state)
{
	struct pool *p;

	(void)state;
	assert_int_equal(pool_new(4 * POOL_BLOCK, &p), 0);
	void *held = pool_get(p, 4096);
	assert_true(ends_in_abort(put_twice, p));
	assert_true(ends_in_abort(put_as_another_class, p));
	assert_true(ends_in_abort(put_something_else, p));
	pool_put(p, held, 4096);
	pool_free(p);
}

#define THREADS 4
#define ROUNDS  20000
#define ARENA   4 /* blocks: less than one thread alone comes to want */
#define HELD    24

struct worker {
	struct pool *p;
	unsigned seed;
	unsigned got, failed;
};

/* Holds random pieces, each filled with a mark of its own, and finds the marks unchanged. */
static void *work(void *arg)
{
	struct worker *w = arg;
	struct {
		unsigned char *mem;
		size_t len;
		unsigned char mark;
	} held[HELD] = {{0}};

	for (int i = 0; i < ROUNDS; i++) {
		unsigned slot = (unsigned)rand_r(&w->seed) % HELD;
		if (held[slot].mem) {
			unsigned char *mem = held[slot].mem;
			if (mem[0] != held[slot].mark || mem[held[slot].len - 1] != held[slot].mark)
				return "a piece was changed by another owner";
			pool_put(w->p, mem, held[slot].len);
			held[slot].mem = NULL;
			continue;
		}
		size_t len = (size_t)1 << (12 + (unsigned)rand_r(&w->seed) % 5);
		len -= (unsigned)rand_r(&w->seed) % 2048;
		held[slot].mem = pool_get(w->p, len);
		if (!held[slot].mem) {
			w->failed++;
			continue;
		}
		w->got++;
		held[slot].len = len;
		held[slot].mark = (unsigned char)rand_r(&w->seed);
		held[slot].mem[0] = held[slot].mark;
		held[slot].mem[len - 1] = held[slot].mark;
	}
	for (unsigned i = 0; i < HELD; i++) {
		if (held[i].mem)
			pool_put(w->p, held[i].mem, held[i].len);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct pool *p;
	pthread_t thread[THREADS];
	struct worker worker[THREADS];
	unsigned failed = 0;

	(void)state;
	assert_int_equal(pool_new(ARENA * POOL_BLOCK, &p), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		worker[i] = (struct worker){.p = p, .seed = i + 1};
		assert_int_equal(pthread_create(&thread[i], NULL, work, &worker[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		void *complaint;
		assert_int_equal(pthread_join(thread[i], &complaint), 0);
		if (complaint)
			fail_msg("%s", (const char *)complaint);
		assert_true(worker[i].got > 0);
		failed += worker[i].failed;
	}
	assert_true(failed > 0);
	assert_int_equal(pool_used(p), 0);
	void *whole[ARENA];
	for (size_t i = 0; i < ARENA; i++) {
		whole[i] = pool_get(p, POOL_BLOCK);
		assert_non_null(whole[i]);
	}
	for (size_t i = 0; i < ARENA; i++)
		pool_put(p, whole[i], POOL_BLOCK);
	pool_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sizes),      cmocka_unit_test(test_rounding),
	    cmocka_unit_test(test_exhaustion), cmocka_unit_test(test_block_returns_when_its_pieces_do),
	    cmocka_unit_test(test_reuse),      cmocka_unit_test(test_wrong_puts),
	    cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
