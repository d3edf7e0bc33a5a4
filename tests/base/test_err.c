#include "base/clock.h"
#include "base/err.h"
#include "tests/base/cmocka_all.h"

#include <errno.h>
#include <string.h>

static void test_first_origin_wins(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(err_set(&e, -EIO, ERR_IO, "segment %d\nis broken", 7), -EIO);
	int line = __LINE__ - 1;
	assert_int_equal(err_set(&e, -ENOSPC, ERR_SPACE, "later"), -ENOSPC);
	assert_int_equal(e.code, -EIO);
	assert_int_equal(e.domain, ERR_IO);
	assert_int_equal(e.line, line);
	assert_non_null(strstr(e.file, "test_err.c"));
	assert_string_equal(err_text(&e, -ENOSPC), "segment 7 is broken");

	err_reset(&e);
	assert_int_equal(e.code, 0);
	assert_int_equal(err_set(&e, -ENOSPC, ERR_SPACE, "now"), -ENOSPC);
	assert_string_equal(err_text(&e, -ENOSPC), "now");
}

static void test_nobody_reads(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, -EIO, ERR_IO, "x"), -EIO);
	err_reset(NULL);
	assert_string_equal(err_text(NULL, -ENOENT), "No such file or directory");
	assert_string_equal(err_text(NULL, -100000), "unknown error");
}

static void test_long_text(void **state)
{
	struct err e = {0};
	char text[1000];

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(err_set(&e, -EIO, ERR_IO, "%s", text), -EIO);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

static void test_system_clock(void **state)
{
	const struct clock *c = &clock_system;

	(void)state;
	assert_true(c->now(c).sec > 1600000000);
	assert_true(c->now(c).nsec < 1000000000);
	uint64_t a = c->monotonic(c);
	uint64_t b = c->monotonic(c);
	assert_true(b >= a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_first_origin_wins),
	    cmocka_unit_test(test_nobody_reads),
	    cmocka_unit_test(test_long_text),
	    cmocka_unit_test(test_system_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
