/* Who is about to wait says so before, once, and who need not does not. */
#include "base/io.h"
#include "base/lock.h"
#include "tests/base/cmocka_all.h"
#include "tests/base/scratch.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static atomic_uint called;
static pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER; /* what the thread that waits holds until it is called */

static void let_go(void *arg)
{
	atomic_fetch_add(&called, 1);
	if (arg)
		(void)pthread_mutex_unlock(arg);
}

static void hook(void *arg)
{
	atomic_store(&called, 0);
	wait_hook = (struct wait_hook){let_go, arg};
}

static void test_once(void **state)
{
	(void)state;
	wait_begin(); /* nobody's */
	assert_false(wait_is_hooked());
	hook(NULL);
	assert_true(wait_is_hooked());
	wait_begin();
	wait_begin();
	assert_int_equal(atomic_load(&called), 1);
	assert_false(wait_unhook());
	hook(NULL);
	assert_true(wait_unhook());
	wait_begin();
	assert_int_equal(atomic_load(&called), 0);
}

/* --- locks: each of two threads holds what the other wants, until one lets go ----------------------------------------
 */

static pthread_mutex_t wanted = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool set;

static void *needs_other(void *arg)
{
	SCOPED_LOCK(&wanted);
	atomic_store((atomic_bool *)arg, true);
	(void)pthread_mutex_lock(&other);
	(void)pthread_mutex_unlock(&other);
	return NULL;
}

static void test_lock(void **state)
{
	atomic_bool held = false;
	pthread_t t;

	(void)state;
	hook(NULL);
	{
		SCOPED_LOCK(&wanted); /* nobody has it */
	}
	assert_true(wait_unhook());
	assert_int_equal(atomic_load(&called), 0);
	(void)pthread_mutex_lock(&other);
	hook(&other);
	assert_int_equal(pthread_create(&t, NULL, needs_other, &held), 0);
	while (!atomic_load(&held))
		;
	{
		SCOPED_LOCK(&wanted);
	}
	(void)pthread_join(t, NULL);
	assert_int_equal(atomic_load(&called), 1);
}

static void *sets(void *arg)
{
	(void)arg;
	(void)pthread_mutex_lock(&other);
	(void)pthread_mutex_unlock(&other);
	SCOPED_LOCK(&wanted);
	set = true;
	(void)pthread_cond_signal(&cond);
	return NULL;
}

static void test_condition(void **state)
{
	pthread_t t;

	(void)state;
	(void)pthread_mutex_lock(&other);
	hook(&other);
	assert_int_equal(pthread_create(&t, NULL, sets, NULL), 0);
	{
		SCOPED_LOCK(&wanted);
		while (!set)
			lock_wait(&cond, &wanted);
	}
	(void)pthread_join(t, NULL);
	assert_int_equal(atomic_load(&called), 1);
}

/* --- STORE -------------------------------------------------------------------------------------------------------- */

static char bytes[65536], got[65536]; /* what is in the file, and what is read */

static void reads_all(struct io_file *f)
{
	memset(got, 0, sizeof(got));
	assert_int_equal(io_pread(f, got, sizeof(got), 0), sizeof(got));
	assert_memory_equal(got, bytes, sizeof(got));
}

/* Reads all of it when the page cache has what is below `from` only. */
static void reads_what_is_dropped(struct io_file *f, const char *path, size_t from)
{
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(posix_fadvise(fd, (off_t)from, 0, POSIX_FADV_DONTNEED), 0);
	(void)close(fd);
	hook(NULL);
	reads_all(f);
	if (wait_unhook())
		print_message("the filesystem of %s keeps what it is told to drop\n", path);
}

static void test_io(void **state)
{
	char dir[SCRATCH_PATH], path[2 * SCRATCH_PATH];
	struct io *io = NULL;
	struct io_file *f = NULL;

	(void)state;
	assert_true(scratch_new(dir));
	assert_int_equal(io_posix_new(dir, &io, NULL), 0);
	hook(NULL);
	assert_int_equal(io_open(io, "f", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(atomic_load(&called), 1);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i / 4096 + i);
	hook(NULL);
	assert_int_equal(io_pwrite(f, bytes, sizeof(bytes), 0), 0);
	assert_int_equal(atomic_load(&called), 1);
	hook(NULL);
	assert_int_equal(io_sync(f), 0);
	assert_int_equal(atomic_load(&called), 1);
	/* What the page cache has is there at once. */
	hook(NULL);
	reads_all(f);
	assert_int_equal(io_pread(f, got, sizeof(got), 60000), sizeof(got) - 60000);
	assert_memory_equal(got, bytes + 60000, sizeof(got) - 60000);
	if (wait_unhook()) { /* this filesystem can tell */
		(void)snprintf(path, sizeof(path), "%s/f", dir);
		reads_what_is_dropped(f, path, 0);
		reads_what_is_dropped(f, path, sizeof(bytes) / 2); /* some of it is there at once */
	}
	io_close(f);
	io_free(io);
	scratch_free(dir);
}

/* It may stand still (fsfreeze), or its directory be read from the disk. */
#define LETS_OTHERS(call)                                  \
	do {                                               \
		hook(NULL);                                \
		assert_int_equal((call), 0);               \
		assert_int_equal(atomic_load(&called), 1); \
	} while (0)

static int any_name(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return 0;
}

static void test_io_names(void **state)
{
	char dir[SCRATCH_PATH];
	struct io *io = NULL;
	struct io_file *f = NULL;

	(void)state;
	assert_true(scratch_new(dir));
	assert_int_equal(io_posix_new(dir, &io, NULL), 0);
	LETS_OTHERS(io_mkdir(io, "d"));
	LETS_OTHERS(io_open(io, "d/f", IO_WRITE | IO_CREATE, &f));
	LETS_OTHERS(io_truncate(f, 10000));
	LETS_OTHERS(io_allocate(f, 0, 20000));
	LETS_OTHERS((io_write_behind(f, 0, 10000), 0));
	LETS_OTHERS(io_rename(io, "d/f", "d/g"));
	LETS_OTHERS(io_sync_dir(io, "d"));
	LETS_OTHERS(io_list(io, "d", any_name, NULL));
	LETS_OTHERS(io_unlink(io, "d/g"));
	io_close(f);
	io_free(io);
	scratch_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_once), cmocka_unit_test(test_lock),     cmocka_unit_test(test_condition),
	    cmocka_unit_test(test_io),   cmocka_unit_test(test_io_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
