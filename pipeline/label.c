#include "pipeline/label.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Control characters, line and paragraph separators, and what changes the direction of writing. */
static bool controls(uint32_t c)
{
	return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x061C || c == 0x200E || c == 0x200F ||
	       (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

/* How many bytes the character at s has; 0 if it is none, or one that controls. */
static size_t character(const char *s)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const uint8_t *p = (const uint8_t *)s;
	size_t n = p[0] < 0x80             ? 1
	           : (p[0] & 0xE0) == 0xC0 ? 2
	           : (p[0] & 0xF0) == 0xE0 ? 3
	           : (p[0] & 0xF8) == 0xF0 ? 4
	                                   : 0;
	uint32_t c;

	if (n < 2)
		return n && !controls(p[0]) ? n : 0;
	c = p[0] & (0x7Fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xC0) != 0x80)
			return 0; /* the zero at the end too */
		c = c << 6 | (p[i] & 0x3F);
	}
	return c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF) || controls(c) ? 0 : n;
}

int label_check(const char *label, struct err *e)
{
	if (strlen(label) > LABEL_MAX)
		return err_set(e, -EINVAL, ERR_USAGE, "the label is longer than %d bytes", LABEL_MAX);
	while (*label) {
		size_t n = character(label);

		if (!n)
			return err_set(e, -EINVAL, ERR_USAGE, "the label is not UTF-8, or has control characters");
		label += n;
	}
	return 0;
}

const char *label_escape(const char *label, char out[LABEL_SHOWN_SIZE])
{
	char *to = out;

	for (size_t i = 0; i < LABEL_MAX && label[i];) {
		size_t n = label[i] == '\\' ? 0 : character(label + i);

		if (n) {
			memcpy(to, label + i, n);
			to += n;
			i += n;
		} else {
			to += snprintf(to, 5, "\\x%02x", (unsigned)(uint8_t)label[i++]);
		}
	}
	*to = 0;
	return out;
}
