/* Feedback on a real volume: a STORE that is slowed down, processors that others use, and what the user has fixed. */
#include "base/lock.h"
#include "base/log.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/support.h"
#include "tests/pipeline/faulty.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB      ((size_t)1 << 20)
#define FRAME    65536u
#define DATA     (8 * MIB)
#define FILE_MAX (64 * MIB) /* bytes of a file, of which there are as many as it takes */
#define WRITERS  3u

static uint8_t *data;

static bool nightly(void)
{
	return getenv("APFS_NIGHTLY") != NULL;
}

/* Each frame is put together from 2,500 words of 8 letters of its own: the higher the level, the more of them are found
 * again. zstd -1 stores 73 %, 1 50 %, 3 41 %. */
static int data_make(void **state)
{
	uint64_t rng = rng_seed(3);

	(void)state;
	data = malloc(DATA);
	if (!data)
		return -1;
	for (size_t at = 0; at < DATA; at += FRAME) {
		uint8_t words[2500][8];

		fill_random(&rng, words, sizeof(words));
		for (size_t i = 0; i < sizeof(words); i++)
			((uint8_t *)words)[i] = (uint8_t)('0' + ((uint8_t *)words)[i] % 64);
		for (size_t i = 0; i < FRAME; i += 8)
			memcpy(data + at + i, words[rng_below(&rng, 2500)], 8);
	}
	return 0;
}

static int data_free(void **state)
{
	(void)state;
	free(data);
	return 0;
}

struct bed {
	char dir[SCRATCH_PATH];
	struct io *disk;
	struct faulty slow;
	struct fixture f;
};

static void bed_init(struct bed *b, struct codec_choice choice)
{
	struct err e = {0};

	memset(b, 0, sizeof(*b));
	assert_non_null(scratch_new(b->dir));
	assert_int_equal(io_posix_new(b->dir, &b->disk, &e), 0);
	faulty_init(&b->slow, b->disk);
	fixture_init_on(&b->f, &b->slow.io);
	b->f.options.compress = choice;
	b->f.options.memory = 32 * MIB; /* what is queued keeps the level that it was queued with */
	b->f.options.no_feedback = false;
}

static void bed_rate(struct bed *b, uint64_t rate)
{
	SCOPED_LOCK(&b->slow.lock);
	b->slow.rate = rate;
}

/* rate: bytes a second that STORE takes; 0: as many as it can. */
static void bed_open(struct bed *b, uint64_t rate)
{
	assert_int_equal(fixture_open(&b->f), 0);
	bed_rate(b, rate);
}

static void bed_release(struct bed *b)
{
	bed_rate(b, 0);
	fixture_abandon(&b->f);
	faulty_release(&b->slow);
	io_free(b->disk);
	scratch_free(b->dir);
}

static uint64_t value(struct bed *b, enum metric id)
{
	return metrics_value(core_metrics(b->f.core), id);
}

struct writer {
	struct core *core;
	double seconds;
	unsigned id;
	pthread_t thread;
};

/* A file after the other, of which the last is kept. */
static void *writer_main(void *arg)
{
	struct writer *w = arg;
	const struct core_cred cred = {0, 0, 0};
	uint64_t begin = clock_system.monotonic(&clock_system), off = 0;
	struct core_file *file = NULL;
	struct core_attr attr;
	char name[32];

	(void)snprintf(name, sizeof(name), "f%u", w->id);
	while ((double)(clock_system.monotonic(&clock_system) - begin) < w->seconds * 1e9) {
		if (!file || off == FILE_MAX) {
			if (file)
				core_file_close(file);
			(void)!core_unlink(w->core, CORE_ROOT, name);
			assert_int_equal(core_mknod(w->core, &cred, CORE_ROOT, name, S_IFREG | 0644, 0, &attr), 0);
			assert_int_equal(core_file_open(w->core, attr.ino, O_RDWR, &file), 0);
			core_forget(w->core, attr.ino, 1);
			off = 0;
		}
		assert_int_equal(core_file_write(file, data + off % DATA, MIB, off, 0), 0);
		off += MIB;
	}
	core_file_close(file);
	return NULL;
}

/* Several threads, as the kernel brings data: one that compresses itself lets storage wait meanwhile. */
static void write_for(struct bed *b, double seconds)
{
	struct writer w[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.core = b->f.core, .seconds = seconds, .id = i};
		assert_int_equal(pthread_create(&w[i].thread, NULL, writer_main, &w[i]), 0);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		(void)pthread_join(w[i].thread, NULL);
}

/* What `apfs info` tells of feedback. */
static void told(struct bed *b, char *buf, size_t len)
{
	char *info, *from, *to;

	assert_int_equal(core_info(b->f.core, CORE_ROOT, &info), 0);
	from = strstr(info, "feedback:");
	assert_non_null(from);
	to = strstr(from, "memory limit:");
	assert_non_null(to);
	(void)snprintf(buf, len, "%.*s", (int)(to - from), from);
	free(info);
}

/* The level, which is the same wherever it is shown. */
static int level(struct bed *b)
{
	char text[2048];
	int steps;

	told(b, text, sizeof(text));
	print_message("%s", text);
	assert_int_equal(sscanf(text, "feedback: level %d", &steps), 1);
	assert_int_equal((int64_t)value(b, METRIC_FEEDBACK_LEVEL), steps);
	return steps;
}

/* Storage is told of a stream's data while it is written: at most the last of each segment waits for its sync. */
static void test_write_behind(void **state)
{
	uint64_t appended;
	struct bed b;

	(void)state;
	bed_init(&b, (struct codec_choice){CODEC_STORED, 0});
	bed_open(&b, 0);
	do {
		write_for(&b, 0.5);
		assert_int_equal(core_sync(b.f.core), 0);
		appended = value(&b, METRIC_APPEND_BYTES);
	} while (appended <= 32 * MIB);
	assert_true(b.slow.behind > appended / 2);
	bed_release(&b);
}

struct outcome {
	int level;
	double rate, ratio; /* plaintext bytes a second; stored bytes for each */
};

/* Once it has come to level `until`, or has had the time for it. What is sealed counts: memory takes more at first. */
static struct outcome slowly(struct codec_choice choice, uint64_t rate, int until, double seconds)
{
	struct outcome o;
	struct bed b;

	bed_init(&b, choice);
	bed_open(&b, rate);
	for (unsigned i = 0; i < 15 && level(&b) < until; i++)
		write_for(&b, 2);
	write_for(&b, 2); /* what was queued before */
	uint64_t begin = clock_system.monotonic(&clock_system);
	uint64_t plain = value(&b, METRIC_CHUNK_PLAIN_BYTES), stored = value(&b, METRIC_CHUNK_STORED_BYTES);
	write_for(&b, seconds);
	double spent = (double)(clock_system.monotonic(&clock_system) - begin) / 1e9;
	plain = value(&b, METRIC_CHUNK_PLAIN_BYTES) - plain;
	o.rate = (double)plain / spent;
	o.ratio = (double)(value(&b, METRIC_CHUNK_STORED_BYTES) - stored) / (double)plain;
	o.level = level(&b);
	bed_release(&b);
	print_message("%.1f MB/s, %.0f %% stored\n", o.rate / 1e6, 100 * o.ratio);
	return o;
}

/* A STORE that takes little: the level rises, and with it what users get, beyond what level 1 gives them. */
static void test_slow_storage(void **state)
{
	uint64_t rate = (SLOW_BUILD ? 3 : nightly() ? 50 : 8) * 1000000; /* 50 takes two processors of our own */
	double seconds = nightly() ? 20 : 6;
	struct outcome adaptive = slowly((struct codec_choice){CODEC_AUTO, 0}, rate, 2, seconds);
	struct outcome fixed = slowly((struct codec_choice){CODEC_ZSTD, 1}, rate, 0, seconds);

	(void)state;
	assert_int_equal(fixed.level, 0);
	assert_true(adaptive.level > 0);
	assert_true(adaptive.ratio < 0.9 * fixed.ratio);
	assert_true(adaptive.rate > fixed.rate);
}

static pid_t spinner_start(void)
{
	pid_t parent = getpid(), pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(1);
	for (volatile unsigned turn = 0;; turn++)
		;
}

/* Processors that others use: the level falls below where it began. */
static void test_scarce_cpu(void **state)
{
	pid_t spinner[64];
	unsigned n = 4 * (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	struct bed b;
	int reached = 0;

	(void)state;
	if (SLOW_BUILD && !nightly())
		skip(); /* it takes the processors from all tests beside it, and shows no more than without sanitizers
		         */
	n = n < 64 ? n : 64;
	for (unsigned i = 0; i < n; i++)
		spinner[i] = spinner_start();
	bed_init(&b, (struct codec_choice){CODEC_AUTO, 0});
	bed_open(&b, 0);
	for (unsigned i = 0; i < 20 && reached >= 0;
	     i++) { /* what else the machine does may keep the writers from bringing data */
		write_for(&b, 3);
		reached = level(&b);
	}
	bed_release(&b);
	for (unsigned i = 0; i < n; i++) {
		(void)kill(spinner[i], SIGKILL);
		(void)waitpid(spinner[i], NULL, 0);
	}
	assert_true(reached < 0);
}

/* Where the user has set all that could be moved, nothing is; where feedback is off, it says so. */
static void test_fixed(void **state)
{
	char text[2048];
	struct bed b;

	(void)state;
	bed_init(&b, (struct codec_choice){CODEC_ZSTD, 1});
	b.f.options.chunk_size = MIB;
	b.f.options.workers = 2;
	bed_open(&b, 5000000);
	write_for(&b, 3);
	told(&b, text, sizeof(text));
	assert_string_equal(text, "feedback:        level +0, large chunks 1/1, 2 workers; moved 0 times\n");
	assert_int_equal(value(&b, METRIC_FEEDBACK_DECISIONS), 0);
	bed_rate(&b, 0);
	assert_int_equal(fixture_close(&b.f), 0);
	b.f.options.no_feedback = true;
	assert_int_equal(fixture_open(&b.f), 0);
	assert_int_equal(value(&b, METRIC_FEEDBACK_WORKERS), 0);
	told(&b, text, sizeof(text));
	assert_string_equal(text, "feedback:        off\n");
	bed_release(&b);
}

static bool logged(const char *path, const char *what)
{
	char line[1024];
	bool found = false;
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found |= strstr(line, what) != NULL;
	(void)fclose(f);
	return found;
}

/* One file alone never has 80 % of the memory. Where STORE takes a write every two seconds it is told nevertheless. */
static void test_one_held_up(void **state)
{
	static const char alert[] = "of the memory for unsaved data is in use, and 1 in 20 waits";
	char path[] = "/tmp/apfs-adapt-XXXXXX";
	struct writer w = {.seconds = 1};
	struct bed b;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(log_init(LOG_T_FILE, path, LOG_L_WARN), 0);
	bed_init(&b, (struct codec_choice){CODEC_STORED, 0});
	b.f.options.sample_ms = 50;
	bed_open(&b, 40 * MIB);
	w.core = b.f.core;
	(void)writer_main(&w);
	assert_true(value(&b, METRIC_MEMORY_WAIT) > 0);
	assert_false(logged(path, alert)); /* it waits, but an ordinary copy does */
	bed_rate(&b, 0);
	assert_int_equal(core_sync(b.f.core), 0);
	bed_rate(&b, MIB / 2);
	w.seconds = 8; /* once: the file of a second time would come on top of what is left of the first */
	(void)writer_main(&w);
	assert_true(logged(path, alert));
	bed_release(&b);
	assert_int_equal(log_init(LOG_T_STDERR, NULL, LOG_L_WARN), 0);
	(void)close(fd);
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_slow_storage), cmocka_unit_test(test_scarce_cpu),  cmocka_unit_test(test_fixed),
	    cmocka_unit_test(test_write_behind), cmocka_unit_test(test_one_held_up),
	};

	return cmocka_run_group_tests(tests, data_make, data_free);
}
