#include "base/cursor.h"
#include "tests/base/cmocka_all.h"

#include <string.h>

static void test_little_endian(void **state)
{
	static const uint8_t want[15] = {0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f,
	                                 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08};
	uint8_t buf[15];
	struct cursor w = cursor_writer(buf, sizeof(buf));

	(void)state;
	cursor_put8(&w, 0x01);
	cursor_put16(&w, 0x0203);
	cursor_put32(&w, 0x04050607);
	cursor_put64(&w, 0x08090a0b0c0d0e0f);
	assert_false(w.bad);
	assert_int_equal(cursor_left(&w), 0);
	assert_memory_equal(buf, want, sizeof(want));

	struct cursor r = cursor_reader(buf, sizeof(buf));
	assert_int_equal(cursor_get8(&r), 0x01);
	assert_int_equal(cursor_get16(&r), 0x0203);
	assert_int_equal(cursor_get32(&r), 0x04050607);
	assert_true(cursor_get64(&r) == 0x08090a0b0c0d0e0f);
	assert_false(r.bad);
	assert_int_equal(cursor_left(&r), 0);
}

static void test_get_past_end(void **state)
{
	static const uint8_t buf[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct cursor r = cursor_reader(buf, 7);
	uint8_t out[4] = {9, 9, 9, 9};

	(void)state;
	assert_true(cursor_get64(&r) == 0);
	assert_true(r.bad);
	/* Once bad, always bad, though a byte would fit. */
	assert_int_equal(cursor_get8(&r), 0);
	assert_int_equal(cursor_left(&r), 0);
	cursor_get(&r, out, sizeof(out));
	assert_memory_equal(out, "\0\0\0\0", 4);
}

static void test_put_past_end(void **state)
{
	uint8_t buf[8];
	struct cursor w = cursor_writer(buf, 3);

	(void)state;
	memset(buf, 0xee, sizeof(buf));
	cursor_put32(&w, 0);
	assert_true(w.bad);
	cursor_put8(&w, 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0xee);
}

static void test_bytes(void **state)
{
	uint8_t buf[5];
	char out[6];
	struct cursor w = cursor_writer(buf, sizeof(buf));

	(void)state;
	cursor_put(&w, "hello", 5);
	cursor_put(&w, "", 0);
	assert_false(w.bad);
	cursor_put(&w, "x", 1);
	assert_true(w.bad);

	struct cursor r = cursor_reader(buf, sizeof(buf));
	cursor_get(&r, out, sizeof(out));
	assert_true(r.bad);
}

static void test_huge_length(void **state)
{
	uint8_t buf[4] = {0};
	struct cursor w = cursor_writer(buf, sizeof(buf));

	(void)state;
	cursor_put8(&w, 1);
	cursor_put(&w, buf, SIZE_MAX - 1);
	assert_true(w.bad);
	assert_ptr_equal(w.p, buf + 1);
}

static void test_empty(void **state)
{
	struct cursor r = cursor_reader(NULL, 0);

	(void)state;
	assert_false(r.bad);
	cursor_get(&r, NULL, 0);
	assert_false(r.bad);
	assert_int_equal(cursor_get8(&r), 0);
	assert_true(r.bad);
}

static void test_varint_round_trip(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit <= 64; bit++) {
		uint64_t edge = bit == 64 ? 0 : (uint64_t)1 << bit;
		for (int delta = -1; delta <= 1; delta++) {
			uint64_t v = edge + (uint64_t)(int64_t)delta;
			uint8_t buf[10];
			struct cursor w = cursor_writer(buf, sizeof(buf));
			cursor_put_varint(&w, v);
			assert_false(w.bad);
			size_t len = (size_t)(w.p - buf);

			struct cursor r = cursor_reader(buf, len);
			assert_true(cursor_get_varint(&r) == v);
			assert_false(r.bad);
			assert_int_equal(cursor_left(&r), 0);

			struct cursor cut = cursor_reader(buf, len - 1);
			assert_true(cursor_get_varint(&cut) == 0);
			assert_true(cut.bad);

			struct cursor small = cursor_writer(buf, len - 1);
			cursor_put_varint(&small, v);
			assert_true(small.bad);
			assert_ptr_equal(small.p, buf);
		}
	}
}

static void test_varint_overflow(void **state)
{
	static const uint8_t max[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01};
	static const uint8_t over[10] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
	static const uint8_t longer[11] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00};
	static const uint8_t longer2[11] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x81, 0x00};
	struct cursor r = cursor_reader(max, sizeof(max));

	(void)state;
	assert_true(cursor_get_varint(&r) == UINT64_MAX);
	assert_false(r.bad);

	r = cursor_reader(over, sizeof(over));
	assert_true(cursor_get_varint(&r) == 0);
	assert_true(r.bad);
	r = cursor_reader(longer, sizeof(longer));
	assert_true(cursor_get_varint(&r) == 0);
	assert_true(r.bad);
	r = cursor_reader(longer2, sizeof(longer2));
	assert_true(cursor_get_varint(&r) == 0);
	assert_true(r.bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_little_endian),     cmocka_unit_test(test_get_past_end),
	    cmocka_unit_test(test_put_past_end),      cmocka_unit_test(test_bytes),
	    cmocka_unit_test(test_huge_length),       cmocka_unit_test(test_empty),
	    cmocka_unit_test(test_varint_round_trip), cmocka_unit_test(test_varint_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
