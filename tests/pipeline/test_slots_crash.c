/* Changes of key slots that are cut off at every operation: whoever could open the store still can. */
#include "base/log.h"
#include "pipeline/superblock.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OWNER, OTHER, FRESH, SECRETS }; /* slots 0 and 1, and what is added or put into slot 0 */

enum change { ADD, REMOVE, CHANGE, REPAIR, CHANGES };

static uint8_t bytes[SECRETS][KEYS_LEN];

static struct secret secret(unsigned n)
{
	return (struct secret){SECRET_RECOVERY, bytes[n], KEYS_LEN};
}

static struct io *store_make(void)
{
	const struct secret owner = secret(OWNER), other = secret(OTHER);
	const struct superblock_slot first = {.secret = &owner}, second = {.secret = &other};
	struct io *io = sim_new();
	struct superblock *sb;
	struct keyring *k;
	unsigned number;

	assert_int_equal(superblock_new(io, CIPHER_AUTO, 4096, &first, &sb, &k, NULL), 0);
	assert_int_equal(superblock_write(io, sb, NULL), 0);
	assert_int_equal(superblock_slot_add(io, sb, k, &second, &number, NULL), 0);
	keyring_free(k);
	superblock_free(sb);
	return io;
}

static int run(struct io *io, enum change what)
{
	const struct secret owner = secret(OWNER), fresh = secret(FRESH);
	const struct superblock_slot slot = {.secret = &fresh};
	struct superblock *sb = NULL;
	struct keyring *k = NULL;
	unsigned number;
	int ret = superblock_open(io, &sb, NULL);

	if (!ret)
		ret = superblock_unlock(sb, &owner, &k, NULL);
	if (!ret && what == ADD)
		ret = superblock_slot_add(io, sb, k, &slot, &number, NULL);
	if (!ret && what == REMOVE)
		ret = superblock_slot_remove(io, sb, k, 1, NULL);
	if (!ret && what == CHANGE)
		ret = superblock_slot_change(io, sb, k, &slot, NULL);
	if (!ret && what == REPAIR)
		ret = superblock_repair(io, sb, k, NULL);
	keyring_free(k);
	superblock_free(sb);
	return ret;
}

static bool opens(struct io *io, unsigned n, bool repair)
{
	const struct secret s = secret(n);
	struct superblock *sb;
	struct keyring *k;

	assert_int_equal(superblock_open(io, &sb, NULL), 0);
	int ret = superblock_unlock(sb, &s, &k, NULL);
	assert_true(ret == 0 || ret == -EKEYREJECTED);
	if (!ret && repair)
		assert_int_equal(superblock_repair(io, sb, k, NULL), 0);
	if (!ret)
		keyring_free(k);
	superblock_free(sb);
	return !ret;
}

static bool expected(enum change what, const bool open[SECRETS], bool done)
{
	switch (what) {
	case ADD:
		return open[OWNER] && open[OTHER] && (open[FRESH] || !done);
	case REMOVE:
		return open[OWNER] && (!open[OTHER] || !done) && !open[FRESH];
	case CHANGE:
		return open[OTHER] && (open[OWNER] || open[FRESH]) && (!done || (open[FRESH] && !open[OWNER]));
	default:
		return open[OWNER] && open[OTHER] && !open[FRESH];
	}
}

/* What a store may be like during or after a change, and that the next mount leaves two equal copies of it. */
static void inspect(struct io *io, enum change what, bool done)
{
	uint8_t a[9000], b[9000];
	bool open[SECRETS];

	for (unsigned n = 0; n < SECRETS; n++)
		open[n] = opens(io, n, false);
	assert_true(expected(what, open, done));
	unsigned who = 0;
	while (!open[who])
		who++;
	assert_true(opens(io, who, true));
	assert_int_equal(sim_raw_read(io, "superblock", a, sizeof(a), 0), 8192);
	assert_int_equal(sim_raw_read(io, "superblock.bak", b, sizeof(b), 0), 8192);
	assert_memory_equal(a, b, 8192);
	/* who mounted it is not locked out, and what was sure stays so */
	for (unsigned n = 0; n < SECRETS; n++)
		open[n] = opens(io, n, false);
	assert_true(open[who]);
	assert_true(expected(what, open, done));
}

struct cuts {
	enum change what;
	unsigned seeds, done;
};

static void at_each(void *arg, struct io *copy, uint64_t number, unsigned class, const char *path)
{
	struct cuts *c = arg;

	(void)number;
	(void)class;
	(void)path;
	for (unsigned seed = 0; seed < c->seeds; seed++) {
		struct io *io = sim_clone(copy);

		sim_crash(io, seed);
		inspect(io, c->what, false);
		io_free(io);
		c->done++;
	}
	io_free(copy);
}

/* A damaged copy for REPAIR to find. */
static void prepare(struct io *io, enum change what, unsigned round)
{
	if (what == REPAIR)
		assert_int_equal(sim_raw_flip(io, round % 2 ? "superblock" : "superblock.bak", 5000), 0);
}

static void test_power_cuts(void **state)
{
	const unsigned seeds = getenv("APFS_NIGHTLY") ? 1000 : 12;

	(void)state;
	for (unsigned round = 0; round < 2 * CHANGES; round++) {
		struct cuts c = {.what = (enum change)(round / 2), .seeds = seeds};
		struct io *io = store_make();

		prepare(io, c.what, round);
		sim_record(io, at_each, &c);
		assert_int_equal(run(io, c.what), 0);
		sim_record(io, NULL, NULL);
		assert_true(c.done >= seeds * (c.what == REPAIR ? 6 : 12));
		sim_crash(io, 0); /* and it is durable */
		inspect(io, c.what, true);
		io_free(io);
	}
}

/* Each operation fails, once or from then on: an error is returned, nobody is locked out, and it can be done again. */
static void test_faults(void **state)
{
	static const int errors[] = {-EIO, -ENOSPC};

	(void)state;
	for (unsigned round = 0; round < 4 * CHANGES; round++) {
		enum change what = (enum change)(round / 4);
		bool failed = true;

		for (uint64_t nth = 1; failed; nth++) {
			const struct sim_fault fault = {.classes = SIM_ANY & ~(unsigned)SIM_STAT,
			                                .nth = nth,
			                                .error = errors[round % 2],
			                                .lasting = round / 2 % 2,
			                                .percent = 50};
			struct io *io = store_make();

			prepare(io, what, round);
			sim_arm(io, &fault);
			int ret = run(io, what);
			failed = sim_failed(io);
			sim_arm(io, NULL);
			assert_true(ret <= 0 && (failed || !ret));
			struct io *cut = sim_clone(io);
			sim_crash(cut, nth);
			inspect(cut, what, !ret && what != REPAIR);
			io_free(cut);
			if (opens(io, OWNER, false)) {
				ret = run(io, what);
				/* what failed halfway may count, and then there is no slot to remove any more */
				assert_true(!ret || (what == REMOVE && ret == -ENXIO));
			}
			inspect(io, what, what != REPAIR);
			io_free(io);
		}
	}
}

static int set_up(void **state)
{
	(void)state;
	int ret = keys_init(NULL);

	keys_random(bytes, sizeof(bytes));
	return ret ? ret : log_init(LOG_T_FILE, "/dev/null", LOG_L_WARN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_power_cuts),
	    cmocka_unit_test(test_faults),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
