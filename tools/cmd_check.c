/* apfs check STORE */
#include "base/clock.h"
#include "base/option.h"
#include "fs/core/check.h"
#include "pipeline/keys.h"
#include "tools/check_report.h"
#include "tools/commands.h"
#include "tools/progress.h"
#include "tools/secret.h"
#include "tools/store.h"

#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum key { KEY_DATA = 256, KEY_JSON };

struct check_command {
	const char *path;
	struct secret_source source;
	bool data, json;
	struct progress progress;
	struct check_report report;
};

static const struct argp_option option_table[] = {
    {"data", KEY_DATA, NULL, 0, "Also read, open and decompress every record", 0},
    {"json", KEY_JSON, NULL, 0, "Print one JSON object instead of text", 0},
    {0},
};

static const struct argp_child children[] = {{&secret_argp, 0, NULL, 1}, {0}};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct check_command *c = state->input;

	switch (key) {
	case KEY_DATA:
		c->data = true;
		return 0;
	case KEY_JSON:
		c->json = true;
		return 0;
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &c->source;
		return 0;
	default:
		return command_argument_parse(key, arg, state, "STORE", &c->path);
	}
}

static void on_finding(void *arg, enum check_kind kind, const char *text)
{
	struct check_command *c = arg;

	progress_clear(&c->progress);
	check_report_finding(&c->report, kind, text);
}

static void on_file(void *arg, const struct check_file *f)
{
	struct check_command *c = arg;

	progress_clear(&c->progress);
	check_report_file(&c->report, f);
}

static bool on_progress(void *arg, const char *what, bool bytes, uint64_t done, uint64_t total)
{
	struct check_command *c = arg;

	if (!c->progress.what || strcmp(c->progress.what, what) != 0) {
		progress_clear(&c->progress);
		progress_begin(&c->progress, what, bytes);
	}
	progress_update(&c->progress, done, total);
	return interrupted;
}

static int run_check(struct check_command *c, struct store *store, struct check_result *r, bool *asking, struct err *e)
{
	const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
	struct secret_held held = {0};
	struct check_options o = {
	    .io = store->io,
	    .data = c->data,
	    .finding = on_finding,
	    .file = on_file,
	    .progress = on_progress,
	    .arg = c,
	};

	*asking = true;
	int ret = secret_read(&c->source, c->path, false, &held, e);
	if (!ret) {
		*asking = false;
		o.secret = &held.secret;
		/* A second one ends the program. */
		(void)sigaction(SIGINT, &action, NULL);
		(void)sigaction(SIGTERM, &action, NULL);
		ret = core_check(&o, r, e);
	}
	secret_release(&held);
	progress_clear(&c->progress);
	return ret;
}

static enum exit_status result_status(const struct check_result *r)
{
	switch (r->worst) {
	case CHECK_INDEX:
		return EXIT_CHECK_INDEX;
	case CHECK_DATA:
		return EXIT_CHECK_DATA;
	case CHECK_SPARE:
		return EXIT_CHECK_SPARE;
	default:
		return r->stopped ? EXIT_CHECK_STOPPED : EXIT_OK;
	}
}

int cmd_check(int argc, char **argv)
{
	static const struct argp argp = {
	    option_table,
	    parse,
	    "STORE",
	    "Checks STORE, which must not be mounted, and changes nothing in it: both superblocks, the index and all "
	    "that "
	    "it says of itself, segments, and with --data every record. Damaged files are listed by path and bytes, "
	    "counted from 0, the last one included. A store that a crash left as it was is in order."
	    "\v" EXIT_STATUS_HELP,
	    children,
	    NULL,
	    NULL};
	struct check_command c = {0};
	struct check_result r = {0};
	struct store store = {0};
	struct err e = {0};
	bool asking = false;
	uint64_t began = clock_system.monotonic(&clock_system);

	(void)argp_parse(&argp, argc, argv, 0, NULL, &c);
	c.report = (struct check_report){.json = c.json};
	int ret = keys_init(&e);
	if (!ret)
		ret = store_open(c.path, false, &store, &e);
	if (!ret)
		ret = store_check(&store, &e); /* before anybody is asked */
	if (!ret)
		ret = store_claim(&store, true, &e);
	if (!ret)
		ret = run_check(&c, &store, &r, &asking, &e);
	double seconds = (double)(clock_system.monotonic(&clock_system) - began) / 1e9;
	if (!ret)
		check_report_end(&c.report, &r, c.data, seconds, (int)result_status(&r));
	else if (ret == -EKEYREJECTED)
		(void)fprintf(stderr, "%s: %s: wrong %s\n", argv[0], c.path,
		              secret_type_name(secret_source_type(&c.source)));
	else
		(void)fprintf(stderr, "%s: %s: %s\n", argv[0], c.path, err_text(&e, ret));
	check_report_release(&c.report);
	store_release(&store);
	if (asking)
		return EXIT_NO_PASS;
	if (!ret && fflush(stdout))
		return EXIT_SYSTEM;
	return (int)(ret ? store_status(ret) : result_status(&r));
}
