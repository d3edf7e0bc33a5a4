#include "base/text.h"
#include "tests/base/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *text, *shown, *json;
} table[] = {
    {"plain", "plain", "\"plain\""},
    {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80",
     "\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\""},
    {"a\\b\"c", "a\\x5cb\"c", "\"a\\\\b\\\"c\""},
    {"\x1b[2J\n\x7f", "\\x1b[2J\\x0a\\x7f", "\"\\u001b[2J\\u000a\\u007f\""},
    {"\xc2\x9b", "\\xc2\\x9b", "\"\\u009b\""},
    {"txt.\xe2\x80\xae"
     "exe",
     "txt.\\xe2\\x80\\xaeexe", "\"txt.\\u202eexe\""}, /* right to left */
    {"\xef\xbb\xbf", "\\xef\\xbb\\xbf", "\"\\ufeff\""},
    {"\xff\xc3", "\\xff\\xc3", "\"\\udcff\\udcc3\""},
    {"\xc0\x80\xed\xa0\x80", "\\xc0\\x80\\xed\\xa0\\x80", "\"\\udcc0\\udc80\\udced\\udca0\\udc80\""},
    {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80", "\"\\udcf4\\udc90\\udc80\\udc80\""},
    {"\xe2\x82", "\\xe2\\x82", "\"\\udce2\\udc82\""},
};

static void test_shown(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char all[128] = "", one[TEXT_SHOWN];

		for (const char *s = table[i].text; *s;) {
			s += text_show(s, one);
			(void)strcat(all, one);
		}
		assert_string_equal(all, table[i].shown);
	}
}

static void test_json(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char *text = NULL;
		size_t len = 0;
		FILE *f = open_memstream(&text, &len);

		assert_non_null(f);
		text_json(f, table[i].text);
		assert_int_equal(fclose(f), 0);
		assert_string_equal(text, table[i].json);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_shown), cmocka_unit_test(test_json)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
