/* apfs stats MOUNT [--watch[=SECONDS]] [--json | --prometheus] */
#include "base/option.h"
#include "fs/fuse/session.h"
#include "tools/commands.h"
#include "tools/control.h"
#include "tools/mounted.h"
#include "tools/stats_view.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>

#define HEAD_EVERY 20u /* lines of rates */

struct stats_options {
	const char *path, *question;
	uint64_t watch_ms; /* 0: once */
	bool text;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct stats_options *o = state->input;

	switch (key) {
	case 'j':
		o->question = "json";
		o->text = false;
		return 0;
	case 'p':
		o->question = "prometheus";
		o->text = false;
		return 0;
	case 'w':
		o->watch_ms = 1000;
		if (arg && (option_parse_duration(arg, &o->watch_ms) || o->watch_ms < 10 || o->watch_ms > 3600000))
			argp_error(state, "'%s' is not a time from 10ms to 1h", arg);
		return 0;
	default:
		return command_argument_parse(key, arg, state, "MOUNT", &o->path);
	}
}

static int socket_path(const struct mounted *m, char *path, size_t size, struct err *e)
{
	ssize_t n = fgetxattr(m->dir, SESSION_XATTR_CONTROL, path, size - 1);

	if (n < 0)
		return err_set(e, -EIO, ERR_IO, "the mount has no control socket%s%s",
		               errno == ENODATA ? ", its log says why" : ": ", errno == ENODATA ? "" : strerror(errno));
	path[n] = 0;
	return 0;
}

static int show(const struct stats_options *o, const char *answer, struct stats *last, unsigned round, struct err *e)
{
	struct stats now;

	if (!o->text) {
		(void)fputs(answer, stdout);
		return 0;
	}
	if (stats_parse(answer, &now))
		return err_set(e, -EPROTO, ERR_FORMAT, "the mount counts other things: it is of another version");
	if (!o->watch_ms) {
		stats_print(&now, stdout);
	} else if (round) {
		if (round % HEAD_EVERY == 1)
			stats_print_rates_head(stdout);
		stats_print_rates(last, &now, stdout);
	}
	*last = now;
	return 0;
}

static int stats(const struct stats_options *o, struct mounted *m, struct err *e)
{
	const struct timespec pause = {(time_t)(o->watch_ms / 1000), (long)(o->watch_ms % 1000) * 1000000};
	struct stats last;
	char path[PATH_MAX];
	int ret = socket_path(m, path, sizeof(path), e);

	mounted_release(m); /* who watches does not keep it from being unmounted */
	for (unsigned round = 0; !ret; round++) {
		char *answer = NULL;

		ret = control_ask(path, o->question, &answer, e);
		if (!ret)
			ret = show(o, answer, &last, round, e);
		free(answer);
		if (!ret && (fflush(stdout) || ferror(stdout)))
			ret = err_set(e, -EIO, ERR_IO, "cannot write: %s", strerror(errno));
		if (!o->watch_ms)
			break;
		(void)nanosleep(&pause, NULL);
	}
	return ret;
}

int cmd_stats(int argc, char **argv)
{
	static const struct argp_option options[] = {
	    {"watch", 'w', "TIME", OPTION_ARG_OPTIONAL, "Go on, every TIME (1s): rates, or what is asked for below", 0},
	    {"json", 'j', NULL, 0, "One object a line", 0},
	    {"prometheus", 'p', NULL, 0, "Prometheus's text format", 0},
	    {0}};
	static const struct argp argp = {
	    options,
	    parse,
	    "MOUNT",
	    "Shows what MOUNT has counted since it was mounted: bytes, time and speed of each "
	    "stage, waiting times, how busy it is.\v" EXIT_STATUS_HELP,
	    NULL,
	    NULL,
	    NULL};
	struct stats_options o = {.question = "json", .text = true};
	struct mounted m;
	struct err e = {0};

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	int ret = mounted_open(o.path, &m, &e);
	enum exit_status status = mounted_status(ret);
	if (!ret) {
		ret = stats(&o, &m, &e);
		status = mounted_status(ret);
	}
	if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], o.path, err_text(&e, ret));
	mounted_release(&m);
	return (int)status;
}
