#include "base/log.h"
#include "base/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static struct {
	enum log_target target;
	enum log_level max;
	int fd; /* of LOG_T_FILE */
} log_state = {.target = LOG_T_STDERR, .max = LOG_L_INFO, .fd = -1};

static const struct {
	const char *word;
	int priority;
} levels[] = {
    [LOG_L_ERROR] = {"error", LOG_ERR},
    [LOG_L_WARN] = {"warning", LOG_WARNING},
    [LOG_L_INFO] = {"info", LOG_INFO},
    [LOG_L_DEBUG] = {"debug", LOG_DEBUG},
};

int log_init(enum log_target target, const char *path, enum log_level max)
{
	int fd = -1;

	if (target == LOG_T_FILE) {
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
		if (fd < 0)
			return -errno;
	}
	log_release();
	if (target == LOG_T_SYSLOG)
		openlog(program_invocation_short_name, LOG_PID | LOG_NDELAY, LOG_DAEMON);
	log_state.target = target;
	log_state.max = max;
	log_state.fd = fd;
	return 0;
}

void log_release(void)
{
	if (log_state.target == LOG_T_SYSLOG)
		closelog();
	if (log_state.fd >= 0)
		(void)close(log_state.fd);
	log_state.fd = -1;
	log_state.target = LOG_T_STDERR;
}

/* What precedes the text: the program on a terminal, the time in a file. */
static size_t put_prefix(char *buf, size_t size, enum log_level level)
{
	int n;

	if (log_state.target == LOG_T_STDERR) {
		n = snprintf(buf, size, "%s: %s: ", program_invocation_short_name, levels[level].word);
	} else if (log_state.target == LOG_T_FILE) {
		struct timespec ts;
		struct tm tm;
		(void)clock_gettime(CLOCK_REALTIME, &ts);
		(void)gmtime_r(&ts.tv_sec, &tm);
		n = snprintf(buf, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %ld %s: ", tm.tm_year + 1900,
		             tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000,
		             (long)getpid(), levels[level].word);
	} else {
		n = 0;
	}
	return n < 0 ? 0 : (size_t)n < size ? (size_t)n : size - 1;
}

/* One write a line, so that lines of several threads do not mix. Nowhere is left to report that it failed. */
static void write_line(int fd, const char *line, size_t len)
{
	wait_begin(); /* for whoever reads the log */
	while (len) {
		ssize_t n = write(fd, line, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		line += n;
		len -= (size_t)n;
	}
}

void log_line(enum log_level level, const char *fmt, ...)
{
	if (level > log_state.max)
		return;

	int saved = errno;
	char line[LINE_MAX_BYTES];
	size_t room = sizeof(line) - 1; /* for the newline */
	size_t start = put_prefix(line, room, level);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(line + start, room - start, fmt, ap);
	va_end(ap);
	size_t len = start + strlen(line + start);
	if (n < 0)
		len = start;
	for (size_t i = start; i < len; i++) {
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = ' ';
	}
	if (log_state.target == LOG_T_SYSLOG) {
		line[len] = '\0';
		syslog(levels[level].priority, "%s", line);
	} else {
		line[len++] = '\n';
		write_line(log_state.target == LOG_T_FILE ? log_state.fd : STDERR_FILENO, line, len);
	}
	errno = saved;
}
