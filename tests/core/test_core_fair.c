/*
 * Fairness: a reader beside writers keeps its share, and who waits for one file to be on the disk does not wait for all
 * of them.
 *
 * A codec's run takes RUN of time here, and next to no CPU; what counts is the order in which runs are granted, and
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
#define PIECE   ((size_t)128 << 10)

static atomic_bool slow;          /* runs take their time */
static atomic_bool held, holding; /* none ends; one has begun */
static atomic_uint encodes, decodes;

static void run(atomic_uint *count)
{
	const struct timespec time = {.tv_nsec = RUN};

	if (!atomic_load(&slow))
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
	uint64_t ino;
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
	for (unsigned n = 0; !w->ret && !atomic_load(w->stop); n++) {
		memcpy(buf, &n, sizeof(n));
		w->ret = core_file_write(h, buf, PIECE, n % 2048 * PIECE, CORE_WRITE_CACHED);
	}
	if (h)
		core_file_close(h);
	free(buf);
	return NULL;
}

static void writers_start(struct fixture *f, struct writer *w, pthread_barrier_t *start, atomic_bool *stop)
{
	(void)pthread_barrier_init(start, NULL, WRITERS + 1);
	for (unsigned i = 0; i < WRITERS; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "w%u", i);
		w[i] = (struct writer){.f = f, .start = start, .stop = stop};
		w[i].ino = make(f, CORE_ROOT, name, S_IFREG | 0644);
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	(void)pthread_barrier_wait(start);
}

static void writers_end(struct writer *w, pthread_barrier_t *start)
{
	for (unsigned i = 0; i < WRITERS; i++) {
		(void)pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].ret, 0);
	}
	(void)pthread_barrier_destroy(start);
}

static void begin(struct fixture *f)
{
	f->options.memory = 64 * MIB;
	f->options.cpu_tokens = f->options.workers = 2;
	f->options.commit_interval_ms = 3600 * 1000;
	fixture_remount(f);
	encodes = decodes = 0;
	slow = true;
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
	begin(f);
	assert_int_equal(core_file_open(f->core, ino, O_RDONLY, &h), 0);
	writers_start(f, w, &start, &stop);
	while (atomic_load(&encodes) < 64)
		(void)usleep(1000);
	unsigned from = atomic_load(&encodes);
	for (unsigned n = 0; n < READS; n++)
		assert_int_equal(core_file_read(h, buf, 2 * FRAME, rng_below(&rng, FILE_MIB * MIB / FRAME - 1) * FRAME),
		                 2 * FRAME);
	unsigned mine = atomic_load(&decodes), others = atomic_load(&encodes) - from;
	atomic_store(&stop, true);
	writers_end(w, &start);
	core_file_close(h);
	free(buf);
	print_message("a reader: %u runs, and %u of four writers\n", mine, others);
	slow = false;
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
	begin(f);
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
	slow = false;
	assert_true(!running.ret && !one.ret && !all.ret);
	print_message("one file is on the disk after %u runs, all are after %u\n", one.runs, all.runs);
	assert_true(all.runs >= FILES);
	assert_true(one.runs < FILES / 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_reader),
	    TEST(test_fsync_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
