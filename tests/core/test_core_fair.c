/*
 * Fairness: equal writers get on equally, a reader beside writers keeps its share, and who waits for one file to be on
 * the disk does not wait for all of them.
 *
 * A codec's run takes its time here, and next to no CPU; what counts is the order in which runs are granted, and
 * time is the number of runs so far. So it does not matter what else the machine does.
 */
#include "fs/core/volume.h"
#include "tests/core/support.h"
#include "tests/pipeline/wrap_codec.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB     ((size_t)1 << 20)
#define FRAME   ((size_t)64 << 10)
#define WRITERS 4u
#define RUN     10000000 /* ns: much more than a thread that is woken late loses */
#define RUN_FEW 1000000  /* the same where much is written */
#define PIECE   ((size_t)128 << 10)

static atomic_long run_time;      /* ns; 0: what it takes */
static atomic_bool held, holding; /* none ends; one has begun */
static atomic_uint encodes, decodes;

static void run(atomic_uint *count)
{
	const struct timespec time = {.tv_nsec = atomic_load(&run_time)};

	if (!time.tv_nsec)
		return;
	for (; atomic_load(&held); (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL))
		atomic_store(&holding, true);
	(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
	atomic_fetch_add(count, 1);
}

int __wrap_codec_compress(struct codec_ctx *ctx, struct codec_choice choice, const void *src, size_t len, void *dst,
                          size_t cap)
{
	run(&encodes);
	return __real_codec_compress(ctx, choice, src, len, dst, cap);
}

int __wrap_codec_decompress(struct codec_ctx *ctx, enum codec_id codec, const void *src, size_t len, void *dst,
                            size_t plain_len)
{
	run(&decodes);
	return __real_codec_decompress(ctx, codec, src, len, dst, plain_len);
}

/* --- writers ------------------------------------------------------------------------------------------------------ */

struct writer {
	struct fixture *f;
	pthread_barrier_t *start;
	atomic_bool *stop;
	uint64_t ino, amount;  /* bytes */
	_Atomic uint64_t done; /* bytes that were taken from it */
	int ret;
	pthread_t thread;
};

static void fill_text(uint8_t *buf, size_t len)
{
	static const char text[] = "the same text again, but for its beginning; ";

	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)text[i % (sizeof(text) - 1)];
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint8_t *buf = malloc(MIB);
	struct core_file *h = NULL;

	assert_non_null(buf);
	fill_text(buf, MIB);
	w->ret = core_file_open(w->f->core, w->ino, O_RDWR, &h);
	(void)pthread_barrier_wait(w->start);
	for (uint64_t at = 0; !w->ret && at < w->amount && !atomic_load(w->stop); at += PIECE) {
		memcpy(buf, &at, sizeof(at));
		w->ret = core_file_write(h, buf, PIECE, at, CORE_KEEP_TIMES);
		atomic_store(&w->done, at + PIECE);
	}
	atomic_store(w->stop, true);
	if (h)
		core_file_close(h);
	free(buf);
	return NULL;
}

/* n of them write until one has written `amount`, or somebody stops them. */
static void writers_start(struct fixture *f, struct writer *w, unsigned n, uint64_t amount, pthread_barrier_t *start,
                          atomic_bool *stop)
{
	(void)pthread_barrier_init(start, NULL, n + 1);
	for (unsigned i = 0; i < n; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "w%u of %p", i, (void *)w);
		w[i] = (struct writer){.f = f, .start = start, .stop = stop, .amount = amount};
		w[i].ino = make(f, CORE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	(void)pthread_barrier_wait(start);
}

static void writers_end(struct writer *w, unsigned n, pthread_barrier_t *start)
{
	for (unsigned i = 0; i < n; i++) {
		(void)pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].ret, 0);
	}
	(void)pthread_barrier_destroy(start);
}

static void begin(struct fixture *f, long run)
{
	f->options.memory = 64 * MIB;
	f->options.cpu_tokens = f->options.workers = 2;
	f->options.commit_interval_ms = 3600 * 1000;
	fixture_remount(f);
	encodes = decodes = 0;
	held = holding = false;
	run_time = run;
}

/* Four that are equal: when the first has written everything, the others have four fifths at least. */
static void test_writers(void **state)
{
	const uint64_t amount = (getenv("APFS_NIGHTLY") ? 1024 : 96) * MIB;
	struct fixture *f = *state;
	struct writer w[WRITERS];
	pthread_barrier_t start;
	atomic_bool stop = false;
	unsigned share, least = 100;

	begin(f, RUN_FEW);
	writers_start(f, w, WRITERS, amount, &start, &stop);
	writers_end(w, WRITERS, &start);
	run_time = 0;
	print_message("writers, of what the first has written:");
	for (unsigned i = 0; i < WRITERS; i++) {
		share = (unsigned)(w[i].done * 100 / amount);
		least = share < least ? share : least;
		print_message(" %u %%", share);
	}
	print_message("\n");
	if (least < 80)
		fail_msg("when the first of four equal writers is done, another has written %u %%", least);
}

static bool somebody_waits(struct core *c)
{
	SCOPED_LOCK(&c->memory_lock);

	return !TAILQ_EMPTY(&c->memory_queue);
}

/* One that has as much memory as it may have leaves some to one that comes, while nothing moves. */
static void test_latecomer(void **state)
{
	struct fixture *f = *state;
	struct writer first, late;
	pthread_barrier_t start, later;
	atomic_bool stop = false, late_stop = false;

	begin(f, RUN);
	held = true;
	writers_start(f, &first, 1, UINT64_MAX, &start, &stop);
	while (!somebody_waits(f->core))
		(void)usleep(1000);
	writers_start(f, &late, 1, 2 * MIB, &later, &late_stop);
	for (unsigned ms = 0; ms < 20000 && atomic_load(&late.done) < 2 * MIB; ms++)
		(void)usleep(1000);
	uint64_t got = atomic_load(&late.done);
	held = false;
	stop = late_stop = true;
	run_time = 0;
	writers_end(&first, 1, &start);
	writers_end(&late, 1, &later);
	assert_int_equal(got, 2 * MIB);
	assert_true(atomic_load(&first.done) > 12 * MIB); /* of 23 */
}

/* --- a reader ----------------------------------------------------------------------------------------------------- */

/* Beside four writers that never stop, the one reader has a fifth of the runs at least. */
static void test_reader(void **state)
{
	enum { FILE_MIB = 96, READS = 50 };
	struct fixture *f = *state;
	uint64_t ino = make(f, CORE_ROOT, "read", S_IFREG | 0644), rng = rng_seed(1);
	uint8_t *buf = malloc(MIB);
	struct writer w[WRITERS];
	struct core_file *h = NULL;
	pthread_barrier_t start;
	atomic_bool stop = false;

	assert_non_null(buf);
	for (unsigned n = 0; n < FILE_MIB; n++) {
		fill_text(buf, MIB);
		put(f, ino, buf, MIB, n * MIB);
	}
	sync_all(f);
	begin(f, RUN);
	assert_int_equal(core_file_open(f->core, ino, O_RDONLY, &h), 0);
	writers_start(f, w, WRITERS, UINT64_MAX, &start, &stop);
	while (atomic_load(&encodes) < 64)
		(void)usleep(1000);
	unsigned from = atomic_load(&encodes);
	for (unsigned n = 0; n < READS; n++)
		assert_int_equal(core_file_read(h, buf, 2 * FRAME, rng_below(&rng, FILE_MIB * MIB / FRAME - 1) * FRAME),
		                 2 * FRAME);
	unsigned mine = atomic_load(&decodes), others = atomic_load(&encodes) - from;
	atomic_store(&stop, true);
	writers_end(w, WRITERS, &start);
	core_file_close(h);
	free(buf);
	print_message("a reader: %u runs, and %u of four writers\n", mine, others);
	run_time = 0;
	assert_true(mine > READS);
	if (mine * 4 < others)
		fail_msg("a reader had %u runs while four writers had %u", mine, others);
}

/* --- waiting for the disk ----------------------------------------------------------------------------------------- */

struct sync {
	struct fixture *f;
	uint64_t ino;  /* 0: all */
	unsigned runs; /* when it was over */
	int ret;
	pthread_t thread;
};

static void *sync_main(void *arg)
{
	struct sync *s = arg;

	s->ret = s->ino ? core_fsync(s->f->core, s->ino, false) : core_sync(s->f->core);
	s->runs = atomic_load(&encodes);
	return NULL;
}

static unsigned syncs_queued(struct core *c)
{
	struct sync_request *rq;
	unsigned n = 0;

	SCOPED_LOCK(&c->sync_lock);
	STAILQ_FOREACH (rq, &c->sync_queue, link)
		n++;
	return n;
}

static void sync_start(struct fixture *f, struct sync *s, uint64_t ino)
{
	*s = (struct sync){.f = f, .ino = ino};
	assert_int_equal(pthread_create(&s->thread, NULL, sync_main, s), 0);
}

/* While one cut runs, others ask for one of everything and one file: that does not wait for everything. */
static void test_fsync_first(void **state)
{
	enum { FILES = 40, LEN = 60000 };
	struct fixture *f = *state;
	uint64_t ino[FILES];
	struct sync running, all, one;
	uint8_t buf[LEN];
	char name[32];

	fill_text(buf, LEN);
	begin(f, RUN);
	for (unsigned i = 0; i < FILES; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		ino[i] = make(f, CORE_ROOT, name, S_IFREG | 0644);
	}
	put(f, ino[0], buf, LEN, 0);
	held = true;
	sync_start(f, &running, 0);
	while (!atomic_load(&holding))
		(void)usleep(1000);
	for (unsigned i = 1; i < FILES; i++)
		put(f, ino[i], buf, LEN, 0);
	sync_start(f, &all, 0);
	while (syncs_queued(f->core) < 1)
		(void)usleep(1000);
	sync_start(f, &one, ino[1]);
	while (syncs_queued(f->core) < 2)
		(void)usleep(1000);
	held = false;
	(void)pthread_join(running.thread, NULL);
	(void)pthread_join(one.thread, NULL);
	(void)pthread_join(all.thread, NULL);
	run_time = 0;
	assert_true(!running.ret && !one.ret && !all.ret);
	print_message("one file is on the disk after %u runs, all are after %u\n", one.runs, all.runs);
	assert_true(all.runs >= FILES);
	assert_true(one.runs < FILES / 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_writers),
	    TEST(test_latecomer),
	    TEST(test_reader),
	    TEST(test_fsync_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
