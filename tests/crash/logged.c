/* Errors that are logged, in a program linked with -Wl,--wrap=log_line. */
#include "base/lock.h"
#include "base/log.h"
#include "tests/crash/loop.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char text[512];
static bool any;

/* The linker sends calls of log_line here. NOLINTNEXTLINE(bugprone-reserved-identifier) */
void __wrap_log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);

/* NOLINTNEXTLINE(bugprone-reserved-identifier) */
void __wrap_log_line(enum log_level level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (getenv("APFS_VERBOSE"))
		(void)fprintf(stderr, "%s\n", line);
	if (level != LOG_L_ERROR)
		return;
	SCOPED_LOCK(&lock);
	if (!any)
		(void)snprintf(text, sizeof(text), "%s", line);
	any = true;
}

const char *loop_logged(void)
{
	SCOPED_LOCK(&lock);
	if (!any)
		return NULL;
	any = false;
	return text;
}
