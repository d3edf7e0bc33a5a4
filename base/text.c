#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static bool controls(uint32_t c)
{
	return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x061C || c == 0x200E || c == 0x200F ||
	       (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

/* The length of the UTF-8 character at s, 0 where there is none; RFC 3629, section 4. */
static size_t decode(const char *s, uint32_t *out)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const uint8_t *p = (const uint8_t *)s;
	size_t n = p[0] < 0x80             ? 1
	           : (p[0] & 0xE0) == 0xC0 ? 2
	           : (p[0] & 0xF0) == 0xE0 ? 3
	           : (p[0] & 0xF8) == 0xF0 ? 4
	                                   : 0;
	uint32_t c = n < 2 ? p[0] : p[0] & (0x7Fu >> n);

	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xC0) != 0x80)
			return 0; /* the zero at the end too */
		c = c << 6 | (p[i] & 0x3F);
	}
	*out = c;
	return n && (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) ? 0 : n;
}

size_t text_character(const char *s)
{
	uint32_t c = 0;
	size_t n = decode(s, &c);

	return controls(c) ? 0 : n;
}

size_t text_show(const char *s, char out[TEXT_SHOWN])
{
	size_t n = *s == '\\' ? 0 : text_character(s);

	if (!n) {
		(void)snprintf(out, TEXT_SHOWN, "\\x%02x", (unsigned)(uint8_t)*s);
		return 1;
	}
	memcpy(out, s, n);
	out[n] = 0;
	return n;
}

void text_json(FILE *f, const char *s)
{
	(void)fputc('"', f);
	while (*s) {
		uint32_t c = 0;
		size_t n = decode(s, &c);

		if (!n)
			(void)fprintf(f, "\\udc%02x", (unsigned)(uint8_t)*s);
		else if (c < 0x10000 && controls(c))
			(void)fprintf(f, "\\u%04x", (unsigned)c);
		else
			(void)fprintf(f, "%s%.*s", *s == '"' || *s == '\\' ? "\\" : "", (int)n, s);
		s += n ? n : 1;
	}
	(void)fputc('"', f);
}
