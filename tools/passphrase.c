#include "tools/passphrase.h"
#include "pipeline/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* Reads up to a newline or the end, byte by byte: what follows the line is left for the next reader. */
static int read_line(int fd, struct passphrase *out, struct err *e)
{
	out->len = 0;
	for (;;) {
		char c = 0;
		ssize_t n = read(fd, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, ERR_KEY, "cannot read the passphrase: %s", strerror(errno));
		if (n == 0 || c == '\n')
			return 0;
		if (out->len == PASSPHRASE_MAX)
			return err_set(e, -E2BIG, ERR_KEY, "the passphrase is longer than %d bytes", PASSPHRASE_MAX);
		out->data[out->len++] = c;
	}
}

static int from_file(const char *path, struct passphrase *out, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return err_set(e, -errno, ERR_KEY, "cannot open the passphrase file %s: %s", path, strerror(errno));

	int ret = read_line(fd, out, e);
	(void)close(fd);
	if (ret == 0 && out->len == 0)
		return err_set(e, -ENODATA, ERR_KEY, "the passphrase file %s begins with an empty line", path);
	return ret;
}

static int spawn_shell(const char *command, int out_fd, pid_t *pid)
{
	char shell[] = "sh", flag[] = "-c", text[4096];
	char *argv[] = {shell, flag, text, NULL};
	posix_spawn_file_actions_t actions;

	if (snprintf(text, sizeof(text), "%s", command) >= (int)sizeof(text))
		return -E2BIG;
	int ret = posix_spawn_file_actions_init(&actions);
	if (ret)
		return -ret;
	ret = posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
	if (ret == 0)
		ret = posix_spawn(pid, "/bin/sh", &actions, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -ret;
}

static int from_command(const char *command, struct passphrase *out, struct err *e)
{
	int fds[2], status = 0;
	pid_t pid = -1;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set(e, -errno, ERR_KEY, "cannot make a pipe: %s", strerror(errno));
	int ret = spawn_shell(command, fds[1], &pid);
	(void)close(fds[1]);
	if (ret) {
		(void)close(fds[0]);
		return err_set(e, ret, ERR_KEY, "cannot run the passphrase command: %s", strerror(-ret));
	}
	ret = read_line(fds[0], out, e);
	(void)close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (ret == 0 && WIFEXITED(status) && WEXITSTATUS(status) != 0)
		return err_set(e, -EIO, ERR_KEY, "the passphrase command failed with status %d", WEXITSTATUS(status));
	if (ret == 0 && out->len == 0)
		return err_set(e, -ENODATA, ERR_KEY, "the passphrase command printed nothing");
	return ret;
}

/* --- terminal ----------------------------------------------------------------------------------------------------- */

/* Waits for a line or for a signal that would end us with the echo off: that one's number, 0, or -errno. */
static int wait_line(int tty, int sigfd)
{
	struct pollfd pfd[2] = {{.fd = tty, .events = POLLIN}, {.fd = sigfd, .events = POLLIN}};
	struct signalfd_siginfo info;

	if (poll(pfd, 2, -1) < 0)
		return -errno;
	if ((pfd[1].revents & POLLIN) && read(sigfd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		return (int)info.ssi_signo;
	return 0;
}

static int ask(int tty, int sigfd, const char *prompt, struct passphrase *out, struct err *e)
{
	if (dprintf(tty, "%s", prompt) < 0)
		return err_set(e, -errno, ERR_KEY, "cannot write to the terminal: %s", strerror(errno));
	int signo = wait_line(tty, sigfd);
	int ret = signo ? err_set(e, -EINTR, ERR_KEY, "interrupted") : read_line(tty, out, e);
	(void)dprintf(tty, "\n");
	return ret;
}

static int ask_twice(int tty, int sigfd, const char *prompt, struct passphrase *out, struct err *e)
{
	struct passphrase again = {.data = keys_secret_alloc(PASSPHRASE_MAX)};
	if (!again.data)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no guarded memory for a passphrase");

	int ret = ask(tty, sigfd, prompt, out, e);
	if (ret == 0 && out->len == 0)
		ret = err_set(e, -ENODATA, ERR_KEY, "the passphrase is empty");
	if (ret == 0)
		ret = ask(tty, sigfd, "The same again: ", &again, e);
	if (ret == 0 && (again.len != out->len || memcmp(again.data, out->data, out->len) != 0))
		ret = err_set(e, -EINVAL, ERR_KEY, "the two passphrases differ");
	passphrase_release(&again);
	return ret;
}

static int from_terminal(const char *prompt, bool twice, struct passphrase *out, struct err *e)
{
	struct termios old, quiet;
	sigset_t mask, old_mask;

	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (tty < 0 || tcgetattr(tty, &old) < 0) {
		if (tty >= 0)
			(void)close(tty);
		return err_set(e, -ENOTTY, ERR_KEY, "there is no terminal to ask for the passphrase at");
	}
	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGHUP);
	(void)sigaddset(&mask, SIGQUIT);
	(void)sigprocmask(SIG_BLOCK, &mask, &old_mask);
	int sigfd = signalfd(-1, &mask, SFD_CLOEXEC);
	quiet = old;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	(void)tcsetattr(tty, TCSAFLUSH, &quiet);
	int ret = twice ? ask_twice(tty, sigfd, prompt, out, e) : ask(tty, sigfd, prompt, out, e);
	(void)tcsetattr(tty, TCSAFLUSH, &old);
	if (sigfd >= 0)
		(void)close(sigfd);
	(void)sigprocmask(SIG_SETMASK, &old_mask, NULL);
	(void)close(tty);
	if (ret == 0 && out->len == 0)
		return err_set(e, -ENODATA, ERR_KEY, "the passphrase is empty");
	return ret;
}

static int from_stdin(struct passphrase *out, struct err *e)
{
	int ret = read_line(STDIN_FILENO, out, e);

	if (ret == 0 && out->len == 0)
		return err_set(e, -ENODATA, ERR_KEY,
		               "no passphrase: standard input is neither a terminal nor holds one (see --passfile)");
	return ret;
}

int passphrase_read(const struct passphrase_source *src, const char *prompt, bool twice, struct passphrase *out,
                    struct err *e)
{
	out->len = 0;
	out->data = keys_secret_alloc(PASSPHRASE_MAX);
	if (!out->data)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no guarded memory for a passphrase");
	if (src->file)
		return from_file(src->file, out, e);
	if (src->command)
		return from_command(src->command, out, e);
	if (isatty(STDIN_FILENO))
		return from_terminal(prompt, twice, out, e);
	return from_stdin(out, e);
}

void passphrase_release(struct passphrase *p)
{
	keys_secret_free(p->data);
	p->data = NULL;
	p->len = 0;
}
