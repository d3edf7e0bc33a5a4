/* A store's lock and the note in its file `lock`: who is told to wait, for how long, and what becomes of the note. */
#include "tests/base/cmocka_all.h"
#include "tests/base/scratch.h"
#include "tests/sim/sim.h"

#include "tools/store.c"

#include <pthread.h>
#include <sys/wait.h>

struct held {
	char path[SCRATCH_PATH];
	struct io *io;      /* holds the lock */
	struct store other; /* who wants it */
};

static int setup(void **state)
{
	struct held *h = calloc(1, sizeof(*h));
	struct err e = {0};

	assert_non_null(h);
	assert_non_null(scratch_new(h->path));
	assert_int_equal(io_posix_new(h->path, &h->io, &e), 0);
	assert_int_equal(io_lock(h->io), 0);
	*state = h;
	return 0;
}

static int teardown(void **state)
{
	struct held *h = *state;

	store_release(&h->other);
	int ret = io_unlink(h->io, NOTE);
	io_free(h->io);
	assert_true(ret == 0 || ret == -ENOENT);
	assert_int_equal(rmdir(h->path), 0);
	scratch_free(h->path);
	free(h);
	return 0;
}

static void put_note(struct io *io, const char *text)
{
	struct io_file *f;

	assert_int_equal(io_open(io, NOTE, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_truncate(f, 0), 0);
	assert_int_equal(io_pwrite(f, text, strlen(text), 0), 0);
	io_close(f);
}

/* The note of a process. */
static void note_of(struct io *io, long pid, const char *more)
{
	char host[65] = "", text[NOTE_MAX];

	(void)gethostname(host, sizeof(host) - 1);
	(void)snprintf(text, sizeof(text), "%ld %s%s\n", pid, host, more);
	put_note(io, text);
}

static long dead_process(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return pid;
}

static void assert_refused(struct held *h, const char *text)
{
	struct timespec begin, end;
	struct err e = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	assert_int_equal(store_open(h->path, false, &h->other, &e), -EBUSY);
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	assert_non_null(strstr(e.text, text));
	assert_true((end.tv_sec - begin.tv_sec) * 1000 < ENDING_MS / 2); /* it was not waited for an end */
}

static void test_refused(void **state)
{
	struct held *h = *state;
	char text[64];

	note_of(h->io, getpid(), "");
	(void)snprintf(text, sizeof(text), "in use by process %d on ", (int)getpid());
	assert_refused(h, text);
}

/* What was killed while it ended left its note, and somebody else, who leaves none, holds the lock. */
static void test_stale(void **state)
{
	struct held *h = *state;

	note_of(h->io, dead_process(), ENDING);
	assert_refused(h, "in use by another process");
}

static void *let_go(void *arg)
{
	struct held *h = arg;
	const struct timespec more_than_notice = {.tv_sec = 1 + NOTICE_MS / 1000};

	(void)nanosleep(&more_than_notice, NULL);
	io_free(h->io);
	return NULL;
}

static void test_waits(void **state)
{
	struct held *h = *state;
	struct err e = {0};
	pthread_t thread;

	note_of(h->io, getpid(), ENDING);
	assert_int_equal(pthread_create(&thread, NULL, let_go, h), 0);
	int ret = store_open(h->path, false, &h->other, &e);
	(void)pthread_join(thread, NULL);
	assert_int_equal(io_posix_new(h->path, &h->io, &e), 0);
	assert_int_equal(ret, 0);
}

/* A note whose end was damaged is not waited for. */
static void test_flipped(void **state)
{
	struct store s = {.io = sim_new()};
	struct holder holder;
	uint64_t size;
	(void)state;

	note_of(s.io, getpid(), ENDING);
	read_note(&s, &holder);
	assert_true(holder.ending);
	assert_int_equal(holder.pid, getpid());
	assert_int_equal(sim_raw_size(s.io, NOTE, &size), 0);
	for (uint64_t bit = 8 * (size - strlen(ENDING "\n")); bit < 8 * size; bit++) {
		assert_int_equal(sim_raw_flip(s.io, NOTE, bit), 0);
		read_note(&s, &holder);
		assert_false(holder.ending);
		assert_int_equal(sim_raw_flip(s.io, NOTE, bit), 0);
	}
	io_free(s.io);
}

/* A full disk has room for it: the note is written over the one before. */
static void test_full_disk(void **state)
{
	struct store s = {.io = sim_new()};
	struct holder holder;
	struct err e = {0};
	(void)state;

	assert_int_equal(store_claim(&s, false, &e), 0);
	read_note(&s, &holder);
	assert_int_equal(holder.pid, getpid());
	assert_false(holder.ending);
	sim_limit(s.io, 1);
	store_ending(&s);
	read_note(&s, &holder);
	assert_int_equal(holder.pid, getpid());
	assert_true(holder.ending);
	store_release(&s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_refused), TEST(test_stale), TEST(test_waits), TEST(test_flipped), TEST(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
