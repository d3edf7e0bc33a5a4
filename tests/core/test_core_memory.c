/* The ceiling of memory: every pooled byte is counted, and what is counted stays below it, however many write. */
#include "base/budget.h"
#include "base/pool.h"
#include "pipeline/arena.h"
#include "tests/core/support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MIB         ((size_t)1 << 20)
#define LIMIT       (64 * MIB)
#define WRITERS_MAX 32u

/* --- a second account, kept where the memory is taken --------------------------------------------------------------
 */

static _Atomic size_t pooled, records, most;

static void witness(_Atomic size_t *what, size_t bytes)
{
	size_t now, seen = atomic_load(&most);

	atomic_fetch_add(what, bytes);
	now = atomic_load(&pooled) + atomic_load(&records);
	while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
		;
}

void *__real_pool_get(struct pool *p, size_t len);
void *__wrap_pool_get(struct pool *p, size_t len);
void *__wrap_pool_get(struct pool *p, size_t len)
{
	void *piece = __real_pool_get(p, len);

	if (piece)
		witness(&pooled, pool_size(len));
	return piece;
}

void __real_pool_put(struct pool *p, void *piece, size_t len);
void __wrap_pool_put(struct pool *p, void *piece, size_t len);
void __wrap_pool_put(struct pool *p, void *piece, size_t len)
{
	atomic_fetch_sub(&pooled, pool_size(len));
	__real_pool_put(p, piece, len);
}

uint8_t *__real_arena_get(struct arena *a, struct arena_piece *piece, size_t len);
uint8_t *__wrap_arena_get(struct arena *a, struct arena_piece *piece, size_t len);
uint8_t *__wrap_arena_get(struct arena *a, struct arena_piece *piece, size_t len)
{
	uint8_t *p = __real_arena_get(a, piece, len);

	if (p)
		witness(&records, piece->len);
	return p;
}

void __real_arena_put(struct arena *a, struct arena_piece *piece);
void __wrap_arena_put(struct arena *a, struct arena_piece *piece);
void __wrap_arena_put(struct arena *a, struct arena_piece *piece)
{
	atomic_fetch_sub(&records, piece->len);
	__real_arena_put(a, piece);
}

/* --- writers -------------------------------------------------------------------------------------------------------
 */

struct writer {
	struct fixture *f;
	uint64_t ino;
	unsigned mib, number;
	bool blocks; /* writes what it received in blocks of the pool */
	int ret;     /* 1: other data */
	pthread_t thread;
};

/* Half of it compresses. It depends on writer and place alone. */
static void fill(uint8_t *buf, unsigned number, unsigned n)
{
	static const char text[] = "what was written before is written again, ";
	uint64_t rng = rng_seed(number * 100000 + n);

	fill_random(&rng, buf, MIB / 2);
	for (size_t i = MIB / 2; i < MIB; i++)
		buf[i] = (uint8_t)text[(i + n) % (sizeof(text) - 1)];
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint8_t *buf = malloc(MIB), *got = malloc(MIB);
	struct core_file *h = NULL;

	w->ret = buf && got ? core_file_open(w->f->core, w->ino, O_RDWR, &h) : -ENOMEM;
	for (unsigned n = 0; n < w->mib && !w->ret; n++) {
		fill(buf, w->number, n);
		w->ret = w->blocks ? write_blocks(w->f, h, buf, MIB, n * MIB, CORE_KEEP_TIMES)
		                   : core_file_write(h, buf, MIB, n * MIB, CORE_KEEP_TIMES);
		if (!w->ret && n % 5 == 4) /* all over what is there already: small pieces */
			for (unsigned i = 0; i < 8 && !w->ret; i++)
				w->ret = core_file_write(h, buf + i * 65536 + 100, 3000, n * MIB + i * 65536 + 100,
				                         CORE_KEEP_TIMES);
	}
	for (unsigned n = 0; n < w->mib && !w->ret; n++) {
		fill(buf, w->number, n);
		for (unsigned i = 0; i < 16 && !w->ret; i++) /* not whole frames, so that the cache fills */
			w->ret = core_file_read(h, got + i * 65536, 65536, n * MIB + i * 65536) == 65536 ? 0 : 1;
		if (!w->ret && memcmp(buf, got, MIB) != 0)
			w->ret = 1;
	}
	if (h)
		core_file_close(h);
	free(buf);
	free(got);
	return NULL;
}

static void run(struct fixture *f, unsigned writers, unsigned mib)
{
	struct writer w[WRITERS_MAX];
	struct budget *b;
	uint64_t sum = 0;

	f->options.memory = LIMIT;
	if (!f->options.receive)
		f->options.blocks = 0; /* they are part of it */
	f->options.commit_interval_ms = 200;
	fixture_remount(f);
	b = core_budget(f->core);
	assert_int_equal(b->limit, LIMIT);
	atomic_store(&most, 0);
	budget_take(b, BUDGET_RECEIVE, f->options.receive);
	for (unsigned i = 0; i < writers; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "w%u-%u", writers, i);
		w[i] = (struct writer){.f = f, .mib = mib, .number = i, .blocks = f->options.receive != 0};
		w[i].ino = make(f, CORE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	for (unsigned i = 0; i < writers; i++)
		(void)pthread_join(w[i].thread, NULL);
	for (unsigned i = 0; i < writers; i++)
		if (w[i].ret)
			fail_msg("writer %u of %u: %s", i, writers, w[i].ret > 0 ? "other data" : strerror(-w[i].ret));
	if (budget_peak(b) > LIMIT || atomic_load(&most) > budget_peak(b))
		fail_msg("%u writers: %zu bytes were pooled and %llu counted of %zu", writers, atomic_load(&most),
		         (unsigned long long)budget_peak(b), LIMIT);
	assert_true(atomic_load(&most) > LIMIT / (SLOW_BUILD ? 32 : 8)); /* it has seen something */

	sync_all(f);
	budget_give(b, BUDGET_RECEIVE, f->options.receive);
	assert_int_equal(budget_used(b, BUDGET_DIRTY), 0);
	assert_int_equal(budget_used(b, BUDGET_RECORDS), 0);
	assert_int_equal(atomic_load(&records), 0);
	assert_true(budget_used(b, BUDGET_CONTEXTS) > 0);
	assert_int_equal(budget_used(b, BUDGET_CACHE), atomic_load(&pooled));
	for (int i = 0; i < BUDGET_KINDS; i++)
		sum += budget_used(b, (enum budget_kind)i);
	assert_int_equal(sum, budget_total(b));
	print_message("%u writers of %u MiB: %llu of %zu MiB at most\n", writers, mib,
	              (unsigned long long)budget_peak(b) >> 20, LIMIT >> 20);
}

static unsigned amount(unsigned mib)
{
	return getenv("APFS_NIGHTLY") ? 1024 : SLOW_BUILD ? (mib + 3) / 4 : mib;
}

static void test_one(void **state)
{
	run(*state, 1, amount(160));
}

static void test_four(void **state)
{
	run(*state, 4, amount(40));
}

static void test_many(void **state)
{
	run(*state, WRITERS_MAX, amount(6));
}

/* What the caller keeps for its requests is no more the volume's to use, and part of the ceiling. */
static void test_receive(void **state)
{
	struct fixture *f = *state;

	f->options.receive = 16 * MIB;
	f->options.blocks = 4 * MIB / POOL_BLOCK;
	run(f, 4, amount(20));
	f->options.receive = 60 * MIB; /* there must be something left */
	fixture_remount(f);
	assert_int_equal(core_budget(f->core)->limit, 76 * MIB);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_one),
	    TEST(test_four),
	    TEST(test_many),
	    TEST(test_receive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
