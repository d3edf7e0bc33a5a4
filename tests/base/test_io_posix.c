#include "base/io.h"
#include "tests/base/cmocka_all.h"
#include "tests/base/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
	char dir[SCRATCH_PATH];
	struct io *io;
};

static int set_up(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	if (!fx || !scratch_new(fx->dir) || io_posix_new(fx->dir, &fx->io, NULL))
		return -1;
	*state = fx;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fx = *state;

	io_free(fx->io);
	scratch_free(fx->dir);
	free(fx);
	return 0;
}

static const char *in_dir(const struct fixture *fx, const char *name)
{
	static char path[2 * SCRATCH_PATH];

	(void)snprintf(path, sizeof(path), "%s/%s", fx->dir, name);
	return path;
}

static void test_new_errors(void **state)
{
	struct fixture *fx = *state;
	struct io *io;
	struct err e = {0};

	assert_int_equal(io_posix_new(in_dir(fx, "absent"), &io, &e), -ENOENT);
	assert_non_null(strstr(err_text(&e, -ENOENT), "absent: No such file"));
	assert_int_equal(e.domain, ERR_IO);
	assert_int_equal(io_posix_new("/dev/null", &io, NULL), -ENOTDIR);
	io_free(NULL);
	io_close(NULL);
}

static void test_read_write(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	char buf[64];
	uint64_t size;
	struct stat st;

	assert_int_equal(io_open(fx->io, "a", IO_READ, &f), -ENOENT);
	assert_int_equal(io_open(fx->io, "a", IO_WRITE | IO_CREATE | IO_EXCL, &f), 0);
	assert_int_equal(io_pwrite(f, "hello", 5, 10), 0);
	assert_int_equal(io_sync(f), 0);
	assert_int_equal(io_size(f, &size), 0);
	assert_int_equal(size, 15);
	assert_int_equal(io_pread(f, buf, sizeof(buf), 0), 15);
	assert_memory_equal(buf, "\0\0\0\0\0\0\0\0\0\0hello", 15);
	assert_int_equal(io_pread(f, buf, 3, 12), 3);
	assert_memory_equal(buf, "llo", 3);
	assert_int_equal(io_pread(f, buf, sizeof(buf), 15), 0);
	assert_int_equal(io_pread(f, buf, sizeof(buf), 1000), 0);
	assert_int_equal(io_truncate(f, 12), 0);
	assert_int_equal(io_size(f, &size), 0);
	assert_int_equal(size, 12);
	io_close(f);

	assert_int_equal(stat(in_dir(fx, "a"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(io_open(fx->io, "a", IO_WRITE | IO_CREATE | IO_EXCL, &f), -EEXIST);
	assert_int_equal(io_open(fx->io, "a", IO_READ, &f), 0);
	assert_int_equal(io_pwrite(f, "x", 1, 0), -EBADF);
	assert_int_equal(io_pread(f, buf, 2, 10), 2);
	io_close(f);
}

static void test_offsets_beyond_range(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	char c = 0;

	assert_int_equal(io_open(fx->io, "a", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_pread(f, &c, 1, UINT64_MAX), -EINVAL);
	assert_int_equal(io_pread(f, &c, 2, INT64_MAX - 1), -EINVAL);
	assert_int_equal(io_pwrite(f, &c, 1, UINT64_MAX), -EFBIG);
	assert_int_equal(io_pwrite(f, &c, 1, INT64_MAX), -EFBIG);
	assert_int_equal(io_truncate(f, UINT64_MAX), -EFBIG);
	assert_int_equal(io_allocate(f, UINT64_MAX, 1), -EFBIG);
	io_close(f);
}

static void test_allocate(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	struct io_stat st;
	uint64_t size;

	assert_int_equal(io_open(fx->io, "a", IO_WRITE | IO_CREATE, &f), 0);
	int ret = io_allocate(f, 0, 1 << 20);
	if (ret != -EOPNOTSUPP) {
		assert_int_equal(ret, 0);
		assert_int_equal(io_size(f, &size), 0);
		assert_int_equal(size, 1 << 20);
		assert_int_equal(io_stat(fx->io, "a", &st), 0);
		assert_int_equal(st.size, 1 << 20);
		assert_true(st.stored >= 1 << 20);
		assert_false(st.dir);
	}
	io_close(f);
}

/* A limit on the file size cuts a write short: the rest of it must fail, not be forgotten. */
static void test_short_write(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	struct rlimit old, limit;
	char buf[8192];
	uint64_t size;

	memset(buf, 'x', sizeof(buf));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = old;
	limit.rlim_cur = 5000;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(io_open(fx->io, "a", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	int ret = io_pwrite(f, buf, sizeof(buf), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	(void)signal(SIGXFSZ, SIG_DFL);
	assert_int_equal(ret, -EFBIG);
	assert_int_equal(io_size(f, &size), 0);
	assert_int_equal(size, 5000);
	io_close(f);
}

static int count_names(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return 0;
}

static int stop_at_once(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return -ECANCELED;
}

static void test_directories(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	struct io_stat st;
	int n = 0;

	assert_int_equal(io_mkdir(fx->io, "segments"), 0);
	assert_int_equal(io_mkdir(fx->io, "segments"), -EEXIST);
	assert_int_equal(io_mkdir(fx->io, "absent/ab"), -ENOENT);
	assert_int_equal(io_mkdir(fx->io, "segments/ab"), 0);
	assert_int_equal(io_open(fx->io, "segments/ab", IO_READ, &f), -EISDIR);
	assert_int_equal(io_open(fx->io, "segments/ab/1", IO_WRITE | IO_CREATE, &f), 0);
	io_close(f);
	assert_int_equal(io_open(fx->io, "segments/ab/2", IO_WRITE | IO_CREATE, &f), 0);
	io_close(f);
	assert_int_equal(io_sync_dir(fx->io, "segments/ab"), 0);
	assert_int_equal(io_sync_dir(fx->io, ""), 0);
	assert_int_equal(io_sync_dir(fx->io, "absent"), -ENOENT);
	assert_int_equal(io_sync_dir(fx->io, "segments/ab/1"), -ENOTDIR);

	assert_int_equal(io_list(fx->io, "segments/ab", count_names, &n), 0);
	assert_int_equal(n, 2);
	n = 0;
	assert_int_equal(io_list(fx->io, "", count_names, &n), 0);
	assert_int_equal(n, 1);
	n = 0;
	assert_int_equal(io_list(fx->io, "segments/ab", stop_at_once, &n), -ECANCELED);
	assert_int_equal(n, 1);
	assert_int_equal(io_list(fx->io, "absent", count_names, &n), -ENOENT);

	assert_int_equal(io_stat(fx->io, "segments", &st), 0);
	assert_true(st.dir);
	assert_int_equal(io_stat(fx->io, "", &st), 0);
	assert_true(st.dir);
	assert_int_equal(io_stat(fx->io, "absent", &st), -ENOENT);
}

static void test_names(void **state)
{
	struct fixture *fx = *state;
	const struct timespec old[2] = {{1, 0}, {1, 0}};
	struct io_file *f;
	struct io_stat st;

	assert_int_equal(io_open(fx->io, "a", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_pwrite(f, "a", 1, 0), 0);
	io_close(f);
	assert_int_equal(utimensat(AT_FDCWD, in_dir(fx, "a"), old, 0), 0);
	assert_int_equal(io_open(fx->io, "b", IO_WRITE | IO_CREATE, &f), 0);
	io_close(f);
	assert_int_equal(io_rename(fx->io, "a", "b"), 0);
	assert_int_equal(io_stat(fx->io, "a", &st), -ENOENT);
	assert_int_equal(io_stat(fx->io, "b", &st), 0);
	assert_int_equal(st.size, 1);
	assert_true(st.changed > 1); /* what counts is when it came here */
	assert_int_equal(io_rename(fx->io, "a", "b"), -ENOENT);
	assert_int_equal(io_unlink(fx->io, "b"), 0);
	assert_int_equal(io_unlink(fx->io, "b"), -ENOENT);
}

static void test_paths_stay_inside(void **state)
{
	static const char *const bad[] = {"/etc/passwd", "../x", "a/../../x", "..", ".", "a//b", "a/", "./a", "a/."};
	struct fixture *fx = *state;
	struct io_file *f;
	struct io_stat st;
	int n = 0;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(io_open(fx->io, bad[i], IO_WRITE | IO_CREATE, &f), -EINVAL);
		assert_int_equal(io_unlink(fx->io, bad[i]), -EINVAL);
		assert_int_equal(io_rename(fx->io, "a", bad[i]), -EINVAL);
		assert_int_equal(io_rename(fx->io, bad[i], "a"), -EINVAL);
		assert_int_equal(io_mkdir(fx->io, bad[i]), -EINVAL);
		assert_int_equal(io_sync_dir(fx->io, bad[i]), -EINVAL);
		assert_int_equal(io_list(fx->io, bad[i], count_names, &n), -EINVAL);
		assert_int_equal(io_stat(fx->io, bad[i], &st), -EINVAL);
	}
	assert_int_equal(io_open(fx->io, "", IO_READ, &f), -EINVAL);

	/* What somebody else planted in STORE is neither followed nor waited for. */
	assert_int_equal(symlink("/etc/passwd", in_dir(fx, "link")), 0);
	assert_int_equal(io_open(fx->io, "link", IO_READ, &f), -ELOOP);
	assert_int_equal(mkfifo(in_dir(fx, "fifo"), 0600), 0);
	assert_int_equal(io_open(fx->io, "fifo", IO_READ, &f), -EINVAL);
}

static void test_space(void **state)
{
	struct fixture *fx = *state;
	struct io_space s;

	assert_int_equal(io_space(fx->io, &s), 0);
	assert_true(s.total > 0);
	assert_true(s.avail <= s.free && s.free <= s.total);
}

/* In a process of its own: 0 when it gets the lock, the errno otherwise. */
static int lock_elsewhere(const char *dir)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct io *io;
		int ret = io_posix_new(dir, &io, NULL);
		if (!ret)
			ret = io_lock(io);
		_exit(-ret);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_lock(void **state)
{
	struct fixture *fx = *state;
	struct io *again;

	assert_int_equal(lock_elsewhere(fx->dir), 0);
	assert_int_equal(io_lock(fx->io), 0);
	assert_int_equal(io_lock(fx->io), 0); /* ours already */
	assert_int_equal(lock_elsewhere(fx->dir), EBUSY);
	assert_int_equal(io_posix_new(fx->dir, &again, NULL), 0);
	assert_int_equal(io_lock(again), -EBUSY);
	io_free(fx->io);
	fx->io = NULL;
	assert_int_equal(io_lock(again), 0);
	assert_int_equal(lock_elsewhere(fx->dir), EBUSY);
	fx->io = again;
}

/* A file that is open with IO_LOCK is closed to others with IO_LOCK, whoever holds STORE. */
static void test_lock_file(void **state)
{
	struct fixture *fx = *state;
	struct io_file *one, *two;

	assert_int_equal(io_open(fx->io, "f", IO_WRITE | IO_LOCK, &one), -ENOENT);
	assert_int_equal(io_open(fx->io, "f", IO_WRITE | IO_CREATE | IO_LOCK, &one), 0);
	assert_int_equal(io_open(fx->io, "f", IO_WRITE | IO_CREATE | IO_LOCK, &two), -EBUSY);
	assert_int_equal(io_open(fx->io, "f", IO_READ | IO_LOCK, &two), -EBUSY);
	assert_int_equal(io_open(fx->io, "f", IO_WRITE, &two), 0);
	io_close(two);
	assert_int_equal(lock_elsewhere(fx->dir), 0);
	io_close(one);
	assert_int_equal(io_open(fx->io, "f", IO_READ | IO_LOCK, &one), 0);
	assert_int_equal(io_open(fx->io, "f", IO_READ | IO_LOCK, &two), 0);
	io_close(one);
	assert_int_equal(io_open(fx->io, "f", IO_WRITE | IO_LOCK, &one), -EBUSY);
	io_close(two);
}

static void test_lock_ends_with_its_process(void **state)
{
	struct fixture *fx = *state;
	int ready[2];
	char c;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct io *io;
		if (io_posix_new(fx->dir, &io, NULL) || io_lock(io) || write(ready[1], "l", 1) != 1)
			_exit(1);
		(void)pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(io_lock(fx->io), -EBUSY);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(io_lock(fx->io), 0);
	(void)close(ready[0]);
	(void)close(ready[1]);
}

static void test_read_file(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	void *buf = NULL;
	size_t len;

	assert_int_equal(io_read_file(fx->io, "a", 100, &buf, &len), -ENOENT);
	assert_int_equal(io_open(fx->io, "a", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_read_file(fx->io, "a", 0, &buf, &len), 0);
	assert_int_equal(len, 0);
	free(buf);
	assert_int_equal(io_pwrite(f, "hello", 5, 0), 0);
	io_close(f);
	assert_int_equal(io_read_file(fx->io, "a", 5, &buf, &len), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(buf, "hello", 5);
	free(buf);
	assert_int_equal(io_read_file(fx->io, "a", 4, &buf, &len), -EFBIG);
}

static void check_file(struct io *io, const char *path, const char *want)
{
	void *buf;
	size_t len;

	assert_int_equal(io_read_file(io, path, 1000, &buf, &len), 0);
	assert_int_equal(len, strlen(want));
	assert_memory_equal(buf, want, len);
	free(buf);
}

static void test_replace_file(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	int n = 0;

	assert_int_equal(io_replace_file(fx->io, "a", 0, "first", 5), 0);
	check_file(fx->io, "a", "first");
	/* What an interrupted run left is no part of the result. */
	assert_int_equal(io_open(fx->io, "a.new", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_pwrite(f, "something longer", 16, 0), 0);
	io_close(f);
	assert_int_equal(io_replace_file(fx->io, "a", 0, "2nd", 3), 0);
	check_file(fx->io, "a", "2nd");
	assert_int_equal(io_list(fx->io, "", count_names, &n), 0);
	assert_int_equal(n, 1);

	assert_int_equal(io_mkdir(fx->io, "d"), 0);
	assert_int_equal(io_mkdir(fx->io, "d/e"), 0);
	assert_int_equal(io_replace_file(fx->io, "d/e/f", 0, "deep", 4), 0);
	check_file(fx->io, "d/e/f", "deep");
	assert_int_equal(io_replace_file(fx->io, "absent/f", 0, "x", 1), -ENOENT);
	/* A target that cannot be replaced: no temporary file stays. */
	assert_int_equal(io_replace_file(fx->io, "d/e", 0, "x", 1), -EISDIR);
	n = 0;
	assert_int_equal(io_list(fx->io, "d", count_names, &n), 0);
	assert_int_equal(n, 1);
	char name[300];
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(io_replace_file(fx->io, name, 0, "x", 1), -ENAMETOOLONG);
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

/* Signals without SA_RESTART while another thread does i/o: nothing may fail for them. */
static void *do_io(void *arg)
{
	struct fixture *fx = arg;
	struct io_file *f;
	static char buf[65536];

	if (io_open(fx->io, "s", IO_WRITE | IO_CREATE, &f))
		return "open";
	for (int i = 0; i < 200; i++) {
		if (io_pwrite(f, buf, sizeof(buf), (uint64_t)i * sizeof(buf)))
			return "pwrite";
		if (io_pread(f, buf, sizeof(buf), 0) != (ssize_t)sizeof(buf))
			return "pread";
		if (i % 50 == 0 && io_sync(f))
			return "sync";
	}
	io_close(f);
	return NULL;
}

static void test_signals(void **state)
{
	struct sigaction sa = {.sa_handler = on_signal}, old;
	pthread_t thread;
	void *failed = NULL;

	assert_int_equal(sigaction(SIGUSR1, &sa, &old), 0);
	assert_int_equal(pthread_create(&thread, NULL, do_io, *state), 0);
	while (pthread_tryjoin_np(thread, &failed) == EBUSY) {
		(void)pthread_kill(thread, SIGUSR1);
		(void)usleep(200);
	}
	assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
	if (failed)
		fail_msg("%s failed", (const char *)failed);
	assert_true(signals > 0);
}

/* Whether some file of the test's directory is mapped. */
static bool is_mapped(const struct fixture *fx)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[4096];
	bool found = false;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found = found || strstr(line, fx->dir);
	(void)fclose(f);
	return found;
}

/* A mapping that loses its pages is no reason for a signal: what the file has is read, and no more. */
static void test_map_truncated(void **state)
{
	struct fixture *fx = *state;
	static char buf[65536], got[65536];
	struct io_file *f, *other;

	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (char)(i * 7 / 3);
	assert_int_equal(io_open(fx->io, "f", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_map(f, 65536), -EINVAL); /* empty */
	assert_int_equal(io_pwrite(f, buf, sizeof(buf), 0), 0);
	assert_int_equal(io_open(fx->io, "f", IO_READ, &other), 0);
	assert_int_equal(io_map(f, 1 << 20), 0);
	assert_int_equal(io_map(f, 65536), -EINVAL);
	assert_int_equal(io_map(other, 8192), 0);
	assert_true(is_mapped(fx));
	assert_int_equal(io_pread(f, got, sizeof(got), 0), 65536);
	assert_memory_equal(got, buf, sizeof(buf));
	assert_int_equal(io_pread(f, got, 65536, 60000), 5536); /* beyond the mapping */
	assert_int_equal(io_pread(other, got, 8192, 4096), 8192);
	assert_memory_equal(got, buf + 4096, 8192);

	assert_int_equal(truncate(in_dir(fx, "f"), 10000), 0);
	memset(got, 1, sizeof(got));
	assert_int_equal(io_pread(f, got, sizeof(got), 0), 10000);
	assert_memory_equal(got, buf, 10000);
	assert_int_equal(io_pread(f, got, 100, 20000), 0);
	assert_int_equal(io_pread(f, got, 100, 5000), 100); /* from the file, now */
	assert_memory_equal(got, buf + 5000, 100);
	assert_int_equal(io_pread(other, got, 8192, 0), 8192); /* untouched */
	assert_memory_equal(got, buf, 8192);
	io_close(f);
	io_close(other);
	assert_false(is_mapped(fx));
}

/* More than can be mapped at a time are read otherwise, and places are used again. */
static void test_map_many(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f[300];
	unsigned mapped = 0;

	for (unsigned i = 0; i < 300; i++) {
		char byte = 0;

		assert_int_equal(io_open(fx->io, "f", IO_WRITE | IO_CREATE, &f[i]), 0);
		assert_int_equal(io_pwrite(f[i], "x", 1, 0), 0);
		int ret = io_map(f[i], 1);
		assert_true(!ret || ret == -ENOSPC);
		mapped += !ret;
		assert_int_equal(io_pread(f[i], &byte, 1, 0), 1);
		assert_int_equal(byte, 'x');
	}
	assert_int_equal(mapped, 256);
	io_close(f[7]);
	assert_int_equal(io_map(f[299], 1), 0);
	for (unsigned i = 0; i < 300; i++)
		if (i != 7)
			io_close(f[i]);
}

static void leave(int sig)
{
	(void)sig;
	_exit(77);
}

/* Somebody else's SIGBUS ends the process, or goes to who wants it, as if nothing were mapped. */
static void test_map_foreign(void **state)
{
	struct fixture *fx = *state;
	struct io_file *f;
	int status;

	assert_int_equal(io_open(fx->io, "f", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_pwrite(f, "x", 1, 0), 0);
	for (int sent = 0; sent < 2; sent++) {
		pid_t child = fork();
		if (!child) {
			(void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
			(void)signal(SIGBUS, sent ? SIG_DFL : leave);
			if (io_map(f, 1))
				_exit(1);
			(void)raise(SIGBUS);
			_exit(2);
		}
		assert_int_equal(waitpid(child, &status, 0), child);
		if (sent)
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
		else
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 77);
	}
	io_close(f);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_new_errors),    T(test_read_write),        T(test_offsets_beyond_range),
	    T(test_allocate),      T(test_short_write),       T(test_directories),
	    T(test_names),         T(test_paths_stay_inside), T(test_space),
	    T(test_lock),          T(test_lock_file),         T(test_lock_ends_with_its_process),
	    T(test_read_file),     T(test_replace_file),      T(test_signals),
	    T(test_map_truncated), T(test_map_many),          T(test_map_foreign),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
