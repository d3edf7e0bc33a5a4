#include "base/option.h"
#include "tests/base/cmocka_all.h"

#include <errno.h>

struct row {
	const char *text;
	int ret;
	uint64_t value;
};

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

static void test_sizes(void **state)
{
	static const struct row rows[] = {
	    {"4096", 0, 4096},
	    {"0", 0, 0},
	    {"1b", 0, 1},
	    {"64K", 0, 64 * KIB},
	    {"64k", 0, 64 * KIB},
	    {"64KB", 0, 64 * KIB},
	    {"64kib", 0, 64 * KIB},
	    {"4.5M", 0, 4 * MIB + MIB / 2},
	    {"1GiB", 0, GIB},
	    {"2gb", 0, 2 * GIB},
	    {"0.25G", 0, GIB / 4},
	    {"0.3K", 0, 307},
	    {"1.00000000000000000000000001K", 0, KIB},
	    {"1T", 0, KIB * GIB},
	    {"8P", 0, 8 * MIB * GIB},
	    {"15E", 0, 15 * GIB * GIB},
	    {"18446744073709551615", 0, UINT64_MAX},
	    {"18446744073709551616", -ERANGE, 0},
	    {"99999999999999999999999", -ERANGE, 0},
	    {"16E", -ERANGE, 0},
	    {"15.9999999999E", 0, 15 * GIB * GIB + (uint64_t)((unsigned __int128)999999999 * GIB * GIB / 1000000000)},
	    {"", -EINVAL, 0},
	    {"K", -EINVAL, 0},
	    {"-1", -EINVAL, 0},
	    {"+1", -EINVAL, 0},
	    {" 1", -EINVAL, 0},
	    {"1 ", -EINVAL, 0},
	    {"1.5", -EINVAL, 0},
	    {"1.K", -EINVAL, 0},
	    {".5K", -EINVAL, 0},
	    {"1..5K", -EINVAL, 0},
	    {"1X", -EINVAL, 0},
	    {"1KX", -EINVAL, 0},
	    {"1KiBs", -EINVAL, 0},
	    {"0x10", -EINVAL, 0},
	    {"1e3", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t value = 0;
		int ret = option_parse_size(rows[i].text, &value);
		if (ret != rows[i].ret || value != rows[i].value)
			fail_msg("\"%s\": %d, %llu", rows[i].text, ret, (unsigned long long)value);
	}
}

static void test_durations(void **state)
{
	static const struct row rows[] = {
	    {"5", 0, 5000},     {"5s", 0, 5000},       {"250ms", 0, 250},
	    {"10m", 0, 600000}, {"1h", 0, 3600000},    {"0.5s", 0, 500},
	    {"1.5", 0, 1500},   {"1.5h", 0, 5400000},  {"0", 0, 0},
	    {"5S", 0, 5000},    {"1.5ms", -EINVAL, 0}, {"", -EINVAL, 0},
	    {"s", -EINVAL, 0},  {"5 s", -EINVAL, 0},   {"-5", -EINVAL, 0},
	    {"5d", -EINVAL, 0}, {"5sec", -EINVAL, 0},  {"18446744073709551615", -ERANGE, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t value = 0;
		int ret = option_parse_duration(rows[i].text, &value);
		if (ret != rows[i].ret || value != rows[i].value)
			fail_msg("\"%s\": %d, %llu", rows[i].text, ret, (unsigned long long)value);
	}
}

static void test_format(void **state)
{
	static const struct row rows[] = {
	    {"0B", 0, 0},
	    {"512B", 0, 512},
	    {"1023B", 0, 1023},
	    {"1.0KB", 0, 1024},
	    {"64.0KB", 0, 64 * KIB},
	    {"4.0MB", 0, 4 * MIB},
	    {"1.5MB", 0, MIB + MIB / 2},
	    {"1023.9KB", 0, MIB - 103},
	    {"1.0MB", 0, MIB - 1},
	    {"1.0GB", 0, GIB},
	    {"1.0EB", 0, GIB * GIB - 1},
	    {"16.0EB", 0, UINT64_MAX},
	};
	char buf[16];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(option_format_size(rows[i].value, buf, sizeof(buf)), rows[i].text);
	assert_string_equal(option_format_size(64 * KIB, buf, 4), "64.");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sizes),
	    cmocka_unit_test(test_durations),
	    cmocka_unit_test(test_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
