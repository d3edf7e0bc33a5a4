/*
 * The fuzz targets. Each is one file that defines LLVMFuzzerTestOneInput: with libFuzzer (preset fuzz) a fuzzer, and
 * with replay.c in every build a test that runs its corpus. An input never depends on the one before.
 */
#ifndef APFS_TESTS_FUZZ_FUZZ_H
#define APFS_TESTS_FUZZ_FUZZ_H

#include "base/cursor.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* What must hold whatever the input is. */
#define must(x)                  \
	do {                     \
		if (!(x))        \
			abort(); \
	} while (0)

/* The next n bytes of the input, or what is left of them, in a block of their own with no byte to spare, so that a
 * sanitizer sees every access beyond; the caller's to free. */
uint8_t *fuzz_take(struct cursor *in, size_t n, size_t *len);

/* Applies edits of the input to a buffer until the input ends: u32 place (taken modulo the length), u8 length, then as
 * many bytes. */
void fuzz_edit(struct cursor *in, uint8_t *buf, size_t len);

/* Called first by every target: quiet log. */
void fuzz_begin(void);

#endif
