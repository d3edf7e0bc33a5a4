/*
 * Somebody changes an unmounted STORE: single bits (`flips`), and pieces with some structure (`structured`). It is then
 * mounted and all of it read. What is read must be what was written, or an error; nothing may crash or hang. What
 * reading found must be found by a check too.
 *
 * What is allowed beyond that, since there is no memory of which state is the newest (docs/SECURITY.md): where the WAL
 * was changed, an earlier committed state; where old but genuine files or pages were put in, any mixture of what was
 * once there.
 */
#include "base/log.h"
#include "fs/core/check.h"
#include "tests/core/support.h"
#include "tests/sim/tame.h"
#include "tests/tamper/round.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WATCHDOG 120 /* seconds */

static struct {
	unsigned rounds, refused, errors, found, written;
} tally;

static char now_doing[400];

static void on_alarm(int sig)
{
	(void)sig;
	(void)!write(STDERR_FILENO, "hangs: ", 7);
	(void)!write(STDERR_FILENO, now_doing, strlen(now_doing));
	_exit(1);
}

void round_fail(const struct round *r, const char *why)
{
	(void)fprintf(stderr, "%s store, %s: %s\n", r->crash ? "crashed" : "clean", r->what, why);
	exit(1);
}

/* --- judging ------------------------------------------------------------------------------------------------------ */

static void compare(struct round *r, const struct facts *found)
{
	const struct facts *state = r->b->state;
	const char *why = facts_differ(found, &state[r->crash ? 3 : 1], NULL);

	if (why && r->allowed == STATES)
		for (int i = 0; i < BED_STATES && why; i++)
			why = facts_differ(found, &state[i], NULL);
	if (why && r->allowed == MIXED)
		why = facts_invented(found, state, BED_STATES);
	if (why)
		round_fail(r, why);
}

static void on_finding(void *arg, enum check_kind kind, const char *text)
{
	(void)arg, (void)kind, (void)text;
}

static void on_file(void *arg, const struct check_file *f)
{
	(void)arg, (void)f;
}

/* True when the check finds damage, or cannot even begin. */
static bool check_finds(struct round *r)
{
	const struct check_options o = {
	    .io = r->io, .secret = &bed_secret, .data = true, .threads = 2, .finding = on_finding, .file = on_file};
	struct check_result result;
	int ret = core_check(&o, &result, NULL);

	return ret || result.worst > CHECK_NOTE;
}

/* --- going on with a damaged store -------------------------------------------------------------------------------- */

#define NEW_DATA "written to a damaged store"

/* What these change is not held against the real state. */
static const char *const touched[] = {"", "new", "names", "names/new", "x1", "x20000", "x150000", NULL};

static int write_and_forget(struct core *c, uint64_t ino, uint64_t off)
{
	struct core_file *f;
	int ret = core_file_open(c, ino, O_RDWR, &f);

	if (!ret) {
		ret = core_file_write(f, NEW_DATA, sizeof(NEW_DATA), off, 0);
		core_file_close(f);
	}
	core_forget(c, ino, 1);
	return ret;
}

static int write_new(struct core *c, uint64_t dir, const char *name)
{
	const struct core_cred cred = {0, 0, 0};
	struct core_attr attr;
	int ret = core_mknod(c, &cred, dir, name, S_IFREG | 0600, 0, &attr);

	return ret ? ret : write_and_forget(c, attr.ino, 0);
}

static int overwrite(struct core *c, const char *name)
{
	struct core_attr attr;
	int ret = core_lookup(c, CORE_ROOT, name, &attr);

	return ret ? ret : write_and_forget(c, attr.ino, 5000);
}

static bool shows_new(const struct facts *found, const char *path)
{
	const struct fact *f = facts_find(found, path);

	return f && !f->err && f->pieces && !f->piece_err[0] && !memcmp(f->data, NEW_DATA, sizeof(NEW_DATA));
}

/* Writes to it, closes it or lets it crash, and looks again: what was not touched is as before, and what was made
 * durable is there. *c is another volume then, or NULL. */
static void go_on(struct round *r, struct core **c)
{
	struct facts found;
	struct core_attr dir;
	bool in_root = !write_new(*c, CORE_ROOT, "new"), in_names = false;

	if (!core_lookup(*c, CORE_ROOT, "names", &dir)) {
		in_names = !write_new(*c, dir.ino, "new");
		core_forget(*c, dir.ino, 1);
	}
	(void)!core_unlink(*c, CORE_ROOT, "x1");
	(void)!overwrite(*c, "x20000");
	(void)!overwrite(*c, "x150000");
	bool durable = !core_sync(*c);
	if (bed_below(&r->rng, 2))
		(void)!core_close(*c, NULL);
	else
		core_abandon(*c);
	sim_crash(r->io, 0);
	if (bed_open(r->io, false, c)) {
		*c = NULL;
		return;
	}
	facts_take(*c, &found);
	const char *why = facts_differ(&found, &r->b->state[r->crash ? 3 : 1], touched);
	if (why)
		round_fail(r, why);
	if (durable && !found.errors &&
	    ((in_root && !shows_new(&found, "new")) || (in_names && !shows_new(&found, "names/new"))))
		round_fail(r, "what was written to the damaged store and synced is lost");
	tally.written += durable;
	facts_release(&found);
}

static void judge(struct round *r)
{
	struct facts found = {0};
	struct core *c;

	(void)snprintf(now_doing, sizeof(now_doing), "%s\n", r->what);
	(void)alarm(WATCHDOG);
	bool damaged = check_finds(r), read_only = bed_below(&r->rng, 4) == 0;
	int ret = bed_open(r->io, read_only, &c);
	tally.rounds++;
	tally.found += damaged;
	if (ret) {
		tally.refused++;
	} else {
		facts_take(c, &found);
		compare(r, &found);
		if (r->allowed == REAL && !read_only)
			go_on(r, &c);
		if (c)
			core_abandon(c);
		tally.errors += found.errors != 0;
	}
	if (!damaged && (ret || found.errors))
		round_fail(r, "apfs check finds nothing in a store that cannot be read");
	facts_release(&found);
	(void)alarm(0);
}

static void run(struct bed *b, uint64_t seed, void (*tamper)(struct round *r))
{
	struct round r = {.b = b, .rng = seed};

	r.crash = bed_below(&r.rng, 2);
	r.io = sim_clone(r.crash ? b->crash : b->clean);
	int n = snprintf(r.what, sizeof(r.what), "seed %llu: ", (unsigned long long)seed);
	(void)n;
	tamper(&r);
	judge(&r);
	io_free(r.io);
}

/* --- main --------------------------------------------------------------------------------------------------------- */

static unsigned long from_environment(const char *name, unsigned long fallback)
{
	const char *text = getenv(name);

	return text && *text ? strtoul(text, NULL, 10) : fallback;
}

int main(int argc, char **argv)
{
	bool nightly = getenv("APFS_NIGHTLY"), flips = argc > 1 && !strcmp(argv[1], "flips");
	unsigned long few = SLOW_BUILD ? 40 : 200, usual = nightly ? (SLOW_BUILD ? 300 : 2500) : few;
	unsigned long rounds = from_environment("APFS_ROUNDS", flips ? usual * 3 / 2 : usual);
	unsigned long seed = from_environment("APFS_SEED", 1);
	struct bed b;

	if (argc != 2 || (!flips && strcmp(argv[1], "structured") != 0)) {
		(void)fprintf(stderr, "usage: tamper flips|structured (APFS_SEED, APFS_ROUNDS, APFS_NIGHTLY)\n");
		return 2;
	}
	if (log_init(LOG_T_FILE, getenv("APFS_LOG") ? getenv("APFS_LOG") : "/dev/null", LOG_L_DEBUG))
		return 2;
	(void)signal(SIGALRM, on_alarm);
	tame(7);
	bed_init(&b, 7);
	for (unsigned long i = 0; i < rounds; i++)
		run(&b, seed + i, flips ? round_flip : round_change);
	(void)printf("%u rounds: %u stores refused, %u with errors, %u written to; the check found damage in %u\n",
	             tally.rounds, tally.refused, tally.errors, tally.written, tally.found);
	bed_release(&b);
	return tally.errors && tally.found ? 0 : 1;
}
