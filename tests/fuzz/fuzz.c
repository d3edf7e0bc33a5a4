#include "tests/fuzz/fuzz.h"

#include "base/log.h"
#include "pipeline/keys.h"

#include <string.h>

void fuzz_begin(void)
{
	static bool begun;

	if (begun)
		return;
	begun = true;
	must(!keys_init(NULL));
	must(!log_init(LOG_T_FILE, "/dev/null", LOG_L_ERROR));
}

uint8_t *fuzz_take(struct cursor *in, size_t n, size_t *len)
{
	size_t left = cursor_left(in);

	*len = n < left ? n : left;
	uint8_t *p = malloc(*len ? *len : 1);
	must(p);
	cursor_get(in, p, *len);
	return p;
}

void fuzz_edit(struct cursor *in, uint8_t *buf, size_t len)
{
	while (len && cursor_left(in)) {
		size_t at = cursor_get32(in) % len, n = cursor_get8(in), left = cursor_left(in);

		if (n > left)
			n = left;
		if (n > len - at)
			n = len - at;
		cursor_get(in, buf + at, n);
	}
}
