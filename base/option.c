#include "base/option.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A decimal number: whole + part / scale. */
struct number {
	uint64_t whole;
	uint64_t part;
	uint64_t scale;
};

static int parse_number(const char *text, struct number *n, const char **rest)
{
	const char *p = text;

	*n = (struct number){.scale = 1};
	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(n->whole, 10u, &n->whole) ||
		    __builtin_add_overflow(n->whole, (uint64_t)(*p - '0'), &n->whole))
			return -ERANGE;
	}
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return -EINVAL;
		/* Digits beyond the ninth are below every unit's resolution that anybody types. */
		for (; *p >= '0' && *p <= '9'; p++) {
			if (n->scale < 1000000000u) {
				n->part = n->part * 10 + (uint64_t)(*p - '0');
				n->scale *= 10;
			}
		}
	}
	*rest = p;
	return 0;
}

/* n * unit, rounded down. A fraction of the smallest unit means a mistake. */
static int scale_number(const struct number *n, uint64_t unit, uint64_t *out)
{
	if (unit == 1 && n->scale > 1)
		return -EINVAL;

	unsigned __int128 v = (unsigned __int128)n->whole * unit + (unsigned __int128)n->part * unit / n->scale;
	if (v > UINT64_MAX)
		return -ERANGE;
	*out = (uint64_t)v;
	return 0;
}

int option_parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGTPE";
	struct number n;
	const char *rest;
	uint64_t unit = 1;

	int ret = parse_number(text, &n, &rest);
	if (ret)
		return ret;
	if (*rest && strcasecmp(rest, "b") != 0) {
		char letter = *rest >= 'a' && *rest <= 'z' ? (char)(*rest - 'a' + 'A') : *rest;
		const char *at = strchr(units, letter);
		if (!at)
			return -EINVAL;
		rest++;
		if (*rest && strcasecmp(rest, "b") != 0 && strcasecmp(rest, "ib") != 0)
			return -EINVAL;
		unit = (uint64_t)1 << (10 * (unsigned)(at - units + 1));
	}
	return scale_number(&n, unit, bytes);
}

int option_parse_duration(const char *text, uint64_t *ms)
{
	static const struct {
		const char *suffix;
		uint64_t ms;
	} units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}};
	struct number n;
	const char *rest;

	int ret = parse_number(text, &n, &rest);
	if (ret)
		return ret;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcasecmp(rest, units[i].suffix) == 0)
			return scale_number(&n, units[i].ms, ms);
	}
	return -EINVAL;
}

const char *option_format_size(uint64_t bytes, char *buf, size_t len)
{
	static const char units[] = "KMGTPE";

	if (bytes < 1024) {
		(void)snprintf(buf, len, "%uB", (unsigned)bytes);
		return buf;
	}

	size_t u = 0;
	uint64_t unit = 1024;
	while (u + 2 < sizeof(units) && bytes / 1024 >= unit) {
		unit *= 1024;
		u++;
	}
	uint64_t whole = bytes / unit;
	uint64_t tenths = (bytes % unit * 10 + unit / 2) / unit;
	if (tenths == 10) {
		whole++;
		tenths = 0;
	}
	if (whole == 1024 && u + 2 < sizeof(units)) {
		whole = 1;
		u++;
	}
	(void)snprintf(buf, len, "%llu.%u%cB", (unsigned long long)whole, (unsigned)tenths, units[u]);
	return buf;
}
