/* Scripts that do something to a whole store, which no volume has open. */
#include "pipeline/superblock.h"
#include "tests/core/inside.h"
#include "tests/fault/fault.h"

#include <errno.h>
#include <string.h>

static const struct secret pass_a = {SECRET_PASSPHRASE, "correct horse", 13}; /* the fixture's */
static const struct secret pass_b = {SECRET_PASSPHRASE, "battery staple", 14};

static void open_with(struct job *j, const struct secret *s)
{
	j->run.fx.options.pass = s->data;
	j->run.fx.options.pass_len = s->len;
}

/* --- formatting --------------------------------------------------------------------------------------------------- */

static const struct core_format cheap = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};
static bool formatted;

static void format(struct job *j)
{
	struct err e = {0};

	run_say(&j->run, "format");
	formatted = job_did(j, CALL(j, core_format(j->run.fx.disk, &cheap, pass_a.data, pass_a.len, &e)));
}

/* It is a store, or can be made one; after a power cut, too. */
static void judge_formatted(struct job *j, bool hit)
{
	struct run *r = &j->run;
	struct err e = {0};

	(void)hit;
	sim_crash(r->fx.disk, j->nth % 4 ? j->nth : 0);
	r->fx.options = (struct core_options){.memory = 8u << 20, .workers = 2, .commit_interval_ms = 3600 * 1000};
	open_with(j, &pass_a);
	run_say(r, "format again");
	int ret = core_format(r->fx.disk, &cheap, pass_a.data, pass_a.len, &e);
	if (formatted ? ret != -EEXIST : ret && ret != -EEXIST)
		run_fail(r, "formatting again: %s", err_text(&e, ret));
	judge_opens(j);
	run_adopt_root(r);
	judge_prepared(j);
}

/* --- key slots ---------------------------------------------------------------------------------------------------- */

static bool added, changed;

/* A second passphrase, then another one in the place of the first. */
static void change_keys(struct job *j)
{
	const struct superblock_slot b = {.secret = &pass_b, .kdf = {.ops = 1, .mem = 8u << 20}};
	struct io *io = j->run.fx.disk;
	struct superblock *sb = NULL;
	struct keyring *k = NULL;
	struct err e = {0};
	unsigned number;

	run_say(&j->run, "changing keys");
	added = changed = false;
	if (job_did(j, CALL(j, superblock_open(io, &sb, &e))) &&
	    job_did(j, CALL(j, superblock_unlock(sb, &pass_a, &k, &e)))) {
		added = job_did(j, CALL(j, superblock_slot_add(io, sb, k, &b, &number, &e)));
		changed = job_did(j, CALL(j, superblock_slot_change(io, sb, k, &b, &e)));
	}
	keyring_free(k);
	superblock_free(sb);
}

/* What returned counts, and a failure leaves one or the other. */
static void judge_keys(struct job *j, bool hit)
{
	const struct secret *accepted = changed || added ? &pass_b : &pass_a;
	struct run *r = &j->run;

	(void)hit;
	sim_crash(r->fx.disk, j->nth % 4 ? j->nth : 0);
	run_say(r, "opening with the %s passphrase", accepted == &pass_a ? "first" : "second");
	open_with(j, accepted);
	if (!op_open(j))
		run_fail(r, "it is not accepted");
	judge_prepared(j);
	open_with(j, &pass_a);
}

/* --- checking ----------------------------------------------------------------------------------------------------- */

static void check(struct job *j)
{
	struct err e = {0};

	run_say(&j->run, "check");
	/* What cannot be read is a finding, and findings are -EUCLEAN here. */
	int ret = CALL(j, inside_check_store(j->run.fx.disk, pass_a.data, pass_a.len, &e));
	if (ret != -EUCLEAN || !job_hit(j))
		(void)job_did(j, ret);
}

/* It has changed nothing. */
static void judge_checked(struct job *j, bool hit)
{
	(void)hit;
	sim_restart(j->run.fx.disk);
	judge_opens(j);
	judge_prepared(j);
}

const struct scenario scenarios_store[] = {
    {.name = "format", .run = format, .alone = true, .judge = judge_formatted},
    {.name = "keys", .prepare = op_usual_tree, .run = change_keys, .alone = true, .judge = judge_keys},
    {.name = "check", .prepare = op_usual_tree, .run = check, .alone = true, .judge = judge_checked},
    {0}};
