/* apfs compact MOUNT [--all] */
#include "base/option.h"
#include "fs/fuse/session.h"
#include "tools/commands.h"
#include "tools/mounted.h"
#include "tools/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>

#define POLL_NS 100000000

struct compact_options {
	const char *path;
	bool all;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct compact_options *o = state->input;

	if (key == 'a') {
		o->all = true;
		return 0;
	}
	return command_argument_parse(key, arg, state, "MOUNT", &o->path);
}

/* What the mount says of itself: see SESSION_XATTR_COMPACT. */
struct status {
	char state[16];
	uint64_t done, total, freed;
	int error;
};

static int status_get(const struct mounted *m, struct status *s, struct err *e)
{
	char text[256];
	ssize_t n = fgetxattr(m->dir, SESSION_XATTR_COMPACT, text, sizeof(text) - 1);

	if (n < 0)
		return err_set(e, -errno, ERR_IO, "the mount does not answer: %s", strerror(errno));
	text[n] = 0;
	if (sscanf(text, "%15s done=%" SCNu64 " total=%" SCNu64 " freed=%" SCNu64 " error=%d", s->state, &s->done,
	           &s->total, &s->freed, &s->error) != 5)
		return err_set(e, -EPROTO, ERR_FORMAT, "the mount answers with something else");
	return 0;
}

static int compact_set(const struct mounted *m, const char *value, struct err *e)
{
	if (!fsetxattr(m->dir, SESSION_XATTR_COMPACT, value, strlen(value), 0))
		return 0;
	return err_set(e, -errno, ERR_IO, "%s",
	               errno == EPERM   ? "only root and the user who mounted it may do that"
	               : errno == EBUSY ? "it is being compacted already"
	                                : strerror(errno));
}

/* Until it has ended by itself or because of a signal. */
static int compact_wait(const struct mounted *m, struct status *s, struct err *e)
{
	const struct timespec pause = {0, POLL_NS};
	struct progress p;
	bool stopped = false;
	int ret;

	progress_begin(&p, "compacting", true);
	for (;;) {
		ret = status_get(m, s, e);
		if (ret || strcmp(s->state, "running") != 0)
			break;
		progress_update(&p, s->done, s->total);
		if (interrupted && !stopped) {
			ret = compact_set(m, "stop", e);
			stopped = true;
		}
		if (ret)
			break;
		(void)nanosleep(&pause, NULL);
	}
	progress_clear(&p);
	return ret;
}

static int compact(const struct mounted *m, bool all, struct err *e)
{
	const struct sigaction action = {.sa_handler = on_signal};
	struct status s = {0};
	char text[32];

	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	/* What the kernel holds may overwrite what is stored. */
	int ret = mounted_sync(m, e);
	if (!ret)
		ret = compact_set(m, all ? "all" : "", e);
	if (!ret)
		ret = compact_wait(m, &s, e);
	if (ret)
		return ret;
	(void)printf("%s (%" PRIu64 " bytes) freed%s\n", option_format_size(s.freed, text, sizeof(text)), s.freed,
	             s.error == ECANCELED ? ", stopped before the end" : "");
	if (s.error && s.error != ECANCELED)
		return err_set(e, -s.error, ERR_IO, "it ended early: %s", strerror(s.error));
	return 0;
}

int cmd_compact(int argc, char **argv)
{
	static const struct argp_option options[] = {{"all", 'a', NULL, 0, "Also segments of which little is dead", 0},
	                                             {0}};
	static const struct argp argp = {
	    options,
	    parse,
	    "MOUNT",
	    "Gives back the space of what was overwritten and deleted in MOUNT, which happens by itself while nobody "
	    "uses it. Ctrl-C ends it early; nothing is lost by that.\v" EXIT_STATUS_HELP,
	    NULL,
	    NULL,
	    NULL};
	struct compact_options o = {0};
	struct mounted m;
	struct err e = {0};

	(void)argp_parse(&argp, argc, argv, 0, NULL, &o);
	int ret = mounted_open(o.path, &m, &e);
	enum exit_status status = mounted_status(ret);
	if (ret == 0) {
		ret = compact(&m, o.all, &e);
		status = ret ? EXIT_SYSTEM : EXIT_OK;
	}
	if (ret)
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], o.path, err_text(&e, ret));
	mounted_release(&m);
	return (int)status;
}
