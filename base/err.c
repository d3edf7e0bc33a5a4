#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set_at(struct err *e, int code, enum err_domain domain, const char *file, int line, const char *fmt, ...)
{
	if (!e || e->code)
		return code;

	int saved = errno;
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	for (char *c = e->text; *c; c++) {
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	}
	e->code = code;
	e->domain = domain;
	e->file = file;
	e->line = line;
	errno = saved;
	return code;
}

void err_reset(struct err *e)
{
	if (e)
		*e = (struct err){0};
}

const char *err_text(const struct err *e, int code)
{
	if (e && e->code && e->text[0])
		return e->text;

	/* Unlike strerror it shares no buffer between threads. */
	const char *text = strerrordesc_np(code < 0 ? -code : code);
	return text ? text : "unknown error";
}
