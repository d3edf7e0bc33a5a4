#include "tools/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the pipe: lines, each after a byte that says how it ends: '+' more follows, '!' the status byte, then the line;
 * '.' alone: the mount answers. */

static _Noreturn void parent_died(const struct daemon *d, pid_t child)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		(void)fprintf(stderr, "%s: the mount's process was killed by signal %d (%s)\n", d->program,
		              WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		(void)fprintf(stderr, "%s: the mount's process ended without a word\n", d->program);
	exit(EXIT_SYSTEM);
}

static _Noreturn void parent(const struct daemon *d, int fd, pid_t child)
{
	FILE *f = fdopen(fd, "r");
	char line[1024];

	if (!f)
		parent_died(d, child);
	for (;;) {
		int kind = fgetc(f);

		if (kind == '.') {
			if (d->mounted)
				d->mounted(d->arg);
			exit(EXIT_OK);
		}
		int status = kind == '!' ? fgetc(f) : EXIT_OK;
		if (kind == EOF || status == EOF || !fgets(line, sizeof(line), f))
			parent_died(d, child);
		(void)fprintf(stderr, "%s: %s", d->program, line);
		if (kind == '!')
			exit(status);
	}
}

void daemon_begin(struct daemon *d, const char *program, bool foreground)
{
	int fds[2];

	d->program = program;
	d->report = -1;
	d->foreground = foreground;
	if (foreground)
		return;
	if (pipe2(fds, O_CLOEXEC) < 0) {
		(void)fprintf(stderr, "%s: cannot make a pipe: %s\n", program, strerror(errno));
		exit(EXIT_SYSTEM);
	}
	pid_t child = fork();
	if (child < 0) {
		(void)fprintf(stderr, "%s: cannot fork: %s\n", program, strerror(errno));
		exit(EXIT_SYSTEM);
	}
	if (child > 0) {
		(void)close(fds[1]);
		parent(d, fds[0], child);
	}
	(void)close(fds[0]);
	d->report = fds[1];
}

void daemon_detach(struct daemon *d)
{
	if (d->foreground)
		return;
	(void)setsid();
	if (chdir("/") < 0)
		(void)daemon_say(d, EXIT_OK, "cannot leave the working directory: %s", strerror(errno));
}

static void send_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* the parent is gone: nobody to tell */
		data += n;
		len -= (size_t)n;
	}
}

enum exit_status daemon_say(struct daemon *d, enum exit_status status, const char *fmt, ...)
{
	char text[1000];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (d->foreground) {
		(void)fprintf(stderr, "%s: %s\n", d->program, text);
		return status;
	}
	const char head[2] = {status == EXIT_OK ? '+' : '!', (char)status};
	send_all(d->report, head, status == EXIT_OK ? 1 : 2);
	send_all(d->report, text, strlen(text));
	send_all(d->report, "\n", 1);
	return status;
}

void daemon_ready(struct daemon *d)
{
	if (d->foreground)
		return;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
			(void)dup2(null, fd);
		if (null > STDERR_FILENO)
			(void)close(null);
	}
	send_all(d->report, ".", 1);
	(void)close(d->report);
	d->report = -1;
}
