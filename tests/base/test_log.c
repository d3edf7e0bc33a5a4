#include "base/log.h"
#include "tests/base/cmocka_all.h"
#include "tests/base/scratch.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

static char dir[SCRATCH_PATH];
static char path[SCRATCH_PATH + 16];

static int set_up(void **state)
{
	(void)state;
	if (!scratch_new(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/log", dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	log_release();
	scratch_free(dir);
	return 0;
}

/* The file's text, zero-terminated. */
static size_t read_log(char *buf, size_t len)
{
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	size_t n = fread(buf, 1, len - 1, f);
	buf[n] = '\0';
	(void)fclose(f);
	return n;
}

static void test_lines_and_levels(void **state)
{
	char text[4096];
	struct stat st;

	(void)state;
	assert_int_equal(log_init(LOG_T_FILE, path, LOG_L_WARN), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	errno = EXDEV;
	log_error("one\ntwo\x1b[0m %d", 3);
	log_warn("four");
	log_info("not this");
	log_debug("nor this");
	assert_int_equal(errno, EXDEV);
	log_release();

	assert_true(read_log(text, sizeof(text)) > 0);
	assert_non_null(strstr(text, " error: one two [0m 3\n"));
	assert_non_null(strstr(text, " warning: four\n"));
	assert_null(strstr(text, "this"));

	/* Appended to, not replaced. */
	assert_int_equal(log_init(LOG_T_FILE, path, LOG_L_DEBUG), 0);
	log_debug("five");
	assert_true(read_log(text, sizeof(text)) > 0);
	assert_non_null(strstr(text, "four"));
	assert_non_null(strstr(text, " debug: five\n"));
}

static void test_long_line(void **state)
{
	char text[4096], longer[3000];

	(void)state;
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(log_init(LOG_T_FILE, path, LOG_L_INFO), 0);
	log_info("%s", longer);
	log_info("next");
	size_t n = read_log(text, sizeof(text));
	assert_true(n < 2000);
	assert_int_equal(text[n - 1], '\n');
	assert_non_null(strstr(text, "a\n"));
	assert_non_null(strstr(text, " info: next\n"));
}

static void test_failed_init_keeps_target(void **state)
{
	char text[4096], bad[SCRATCH_PATH + 32];

	(void)state;
	(void)snprintf(bad, sizeof(bad), "%s/absent/log", dir);
	assert_int_equal(log_init(LOG_T_FILE, path, LOG_L_INFO), 0);
	assert_int_equal(log_init(LOG_T_FILE, bad, LOG_L_ERROR), -ENOENT);
	log_info("still here");
	assert_true(read_log(text, sizeof(text)) > 0);
	assert_non_null(strstr(text, "still here"));
}

#define THREADS 4
#define LINES   200

static void *write_lines(void *arg)
{
	for (int i = 0; i < LINES; i++)
		log_info("thread %d line %03d end", *(int *)arg, i);
	return NULL;
}

static void test_threads_do_not_mix(void **state)
{
	pthread_t thread[THREADS];
	int id[THREADS];
	char line[256];
	int count = 0;

	(void)state;
	assert_int_equal(log_init(LOG_T_FILE, path, LOG_L_INFO), 0);
	for (int i = 0; i < THREADS; i++) {
		id[i] = i;
		assert_int_equal(pthread_create(&thread[i], NULL, write_lines, &id[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);

	FILE *f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		int t, n;
		const char *text = strstr(line, " info: thread ");
		assert_non_null(text);
		assert_int_equal(sscanf(text, " info: thread %d line %d end", &t, &n), 2);
		assert_int_equal(strcmp(text + strlen(text) - 5, " end\n"), 0);
		count++;
	}
	(void)fclose(f);
	assert_int_equal(count, THREADS * LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_lines_and_levels, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_long_line, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_failed_init_keeps_target, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_threads_do_not_mix, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
