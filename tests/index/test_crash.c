/* Power cuts at random moments, between and within calls, through many checkpoints and restarts of the WAL. */
#include "tests/index/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Works until something fails or the steps are used up. */
static void live(struct history *h, struct io *io, unsigned steps, unsigned *seed)
{
	struct index *ix = NULL;

	if (index_open(io, PAGE, test_sealer, &ix, NULL)) {
		assert_true(sim_failed(io));
		return;
	}
	index_checkpoint_every(ix, 32768u << ((unsigned)rand_r(seed) % 4));
	if (!sim_failed(io))
		history_verify(h, ix);
	int ret = 0;
	for (unsigned i = 0; i < steps && !ret; i++) {
		ret = history_work(h, ix);
		if (!ret)
			ret = history_commit(h, ix);
		if (!ret && rand_r(seed) % 3)
			ret = history_sync(h, ix);
	}
	assert_true(!ret || sim_failed(io));
	if (!ret && rand_r(seed) % 3 == 0) {
		ret = index_close(ix, NULL);
		if (!ret)
			h->synced = h->committed;
		return;
	}
	if (!ret)
		(void)history_work(h, ix);
	index_abandon(ix);
}

static void run(unsigned seed)
{
	struct history h = {.seed = seed, .next = 1};
	struct io *io;

	close_index(new_index(&io));
	if (seed % 5 == 0)
		sim_no_allocate(io);
	for (unsigned cut = 0; cut < 12; cut++) {
		unsigned steps = (unsigned)rand_r(&seed) % 20;
		/* Half of the cuts come in the midst of a call, from where on nothing reaches the disk. */
		if (rand_r(&seed) & 1)
			sim_fail(io, 1 + (unsigned)rand_r(&seed) % (10 + steps * 8), -EIO, true);
		live(&h, io, steps, &seed);
		sim_crash(io, (unsigned)rand_r(&seed) % 4 ? (unsigned)rand_r(&seed) : 0);
		struct index *ix = open_index(io);
		history_verify(&h, ix);
		index_abandon(ix);
	}
	io_free(io);
}

static void test_power_cuts(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= rounds(25); seed++) {
		print_message("seed %u\n", seed);
		run(seed);
	}
}

/* What a crash of the process alone leaves: everything committed, nothing else. */
static void test_process_crash(void **state)
{
	struct history h = {.seed = 3, .next = 1};
	struct io *io;
	struct index *ix = new_index(&io);

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(history_work(&h, ix), 0);
		assert_int_equal(history_commit(&h, ix), 0);
	}
	assert_int_equal(history_work(&h, ix), 0);
	index_abandon(ix);
	ix = open_index(io);
	h.synced = h.committed;
	h.next--;
	history_verify(&h, ix);
	close_index(ix);
	io_free(io);
}

/* A database file that a cut has torn anywhere, its first page too, opens as long as the WAL has the pages. */
static void test_torn_checkpoint(void **state)
{
	(void)state;
	for (unsigned n = 1; n < 60; n++) {
		struct history h = {.seed = n, .next = 1};
		struct io *io;
		struct index *ix = new_index(&io);
		for (unsigned i = 0; i < 6; i++) {
			assert_int_equal(history_work(&h, ix), 0);
			assert_int_equal(history_commit(&h, ix), 0);
			assert_int_equal(history_sync(&h, ix), 0);
		}
		index_checkpoint_every(ix, 1);
		assert_int_equal(history_work(&h, ix), 0);
		sim_fail(io, n, -EIO, true);
		(void)history_commit(&h, ix);
		(void)history_sync(&h, ix);
		index_abandon(ix);
		sim_crash(io, n + 1000);
		ix = open_index(io);
		history_verify(&h, ix);
		close_index(ix);
		io_free(io);
	}
}

static void transaction(struct history *h, struct index *ix, bool sync)
{
	assert_int_equal(history_work(h, ix), 0);
	assert_int_equal(history_commit(h, ix), 0);
	if (sync)
		assert_int_equal(history_sync(h, ix), 0);
}

/* After a restart of the WAL the old frames must not come back, even if of the new ones only the last reach the disk:
 * with a sync between checkpoint and restart, and without one. */
static void test_restart(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 40; n++) {
		struct history h = {.seed = n, .next = 1};
		struct io *io;
		struct index *ix = new_index(&io);
		for (unsigned i = 0; i < 8; i++)
			transaction(&h, ix, true);
		index_checkpoint_every(ix, 1);
		transaction(&h, ix, n & 1);
		index_checkpoint_every(ix, 1 << 30);
		transaction(&h, ix, false);
		transaction(&h, ix, false);
		index_abandon(ix);
		sim_crash_last(io);
		ix = open_index(io);
		history_verify(&h, ix);
		close_index(ix);
		io_free(io);
	}
}

/* --- power cuts in the recovery of what a killed process has left ------------------------------------------------- */

#define MOMENTS 512

struct moments {
	struct io *copy[MOMENTS];
	size_t count;
};

static void keep_moment(void *arg, struct io *copy, uint64_t number, unsigned class, const char *path)
{
	struct moments *m = arg;

	(void)number;
	(void)class;
	(void)path;
	assert_true(m->count < MOMENTS);
	m->copy[m->count++] = copy;
}

/* A process that was killed between commit and fdatasync: its frames may be in the kernel's cache only. The store, as
 * the next one finds it. */
static struct io *killed(struct history *h, bool checkpointed)
{
	struct io *io;
	struct index *ix = new_index(&io);

	for (unsigned i = 0; i < 6; i++)
		transaction(h, ix, true);
	if (checkpointed) {
		index_checkpoint_every(ix, 1);
		transaction(h, ix, true);
		index_checkpoint_every(ix, 1 << 30);
	}
	for (unsigned i = 0; i < 3; i++)
		transaction(h, ix, false);
	index_abandon(ix);
	sim_restart(io);
	return io;
}

/* What a cut at this moment leaves, several times: number 0 loses what was not synced, 1 all but the last writes. */
static void cut_moment(const struct history *was, struct io *copy, unsigned images)
{
	for (unsigned n = 0; n < images; n++) {
		struct history h = *was;
		struct io *image = sim_clone(copy);
		if (n == 1)
			sim_crash_last(image);
		else
			sim_crash(image, n);
		struct index *ix = open_index(image);
		history_verify(&h, ix);
		index_abandon(ix);
		io_free(image);
	}
}

/* Pages that recovery copies must not reach the disk before the frames that it read from the kernel's cache. */
static void test_cut_in_recovery(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= rounds(3); seed++) {
		struct history h = {.seed = seed, .next = 1};
		struct io *io = killed(&h, seed & 1);
		struct moments m = {.count = 0};
		sim_record(io, keep_moment, &m);
		index_abandon(open_index(io));
		sim_record(io, NULL, NULL);
		for (size_t i = 0; i < m.count; i++) {
			cut_moment(&h, m.copy[i], 8);
			io_free(m.copy[i]);
		}
		io_free(io);
	}
}

/* The recovery lacked room for the database's growth: what an fsync after it answers for is durable. */
static void test_cut_after_recovery_without_room(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= rounds(8); seed++) {
		struct history h = {.seed = seed, .next = 1};
		struct io *io = killed(&h, true);
		sim_limit(io, sim_used(io));
		struct index *ix = open_index(io);
		assert_int_equal(history_sync(&h, ix), 0);
		index_abandon(ix);
		sim_limit(io, 0);
		cut_moment(&h, io, 12);
		io_free(io);
	}
}

/* Counts writes until the first one to the WAL. */
struct first_write {
	uint64_t writes;
	bool found;
};

static void find_wal(void *arg, struct io *copy, uint64_t number, unsigned class, const char *path)
{
	struct first_write *w = arg;

	(void)number;
	io_free(copy);
	if (w->found || class != SIM_WRITE)
		return;
	w->writes++;
	w->found = !strcmp(path, "index.db-wal");
}

/* How many writes it takes to open the index until the WAL's header is cleared. */
static uint64_t write_that_clears(struct io *io)
{
	struct first_write w = {0};
	struct io *trial = sim_clone(io);

	sim_record(trial, find_wal, &w);
	index_abandon(open_index(trial));
	sim_record(trial, NULL, NULL);
	assert_true(w.found);
	io_free(trial);
	return w.writes;
}

/* STORE is copy on write and full: the header cannot be cleared at open. Then its frames are not touched. */
static void header_stays(unsigned transactions, bool lasting)
{
	struct history h = {.seed = transactions, .next = 1};
	struct io *io;
	struct index *ix = new_index(&io);

	index_checkpoint_every(ix, 1 << 30);
	for (unsigned i = 0; i < transactions; i++)
		transaction(&h, ix, true);
	index_abandon(ix);
	sim_restart(io);
	sim_arm(io, &(struct sim_fault){SIM_WRITE, write_that_clears(io), -ENOSPC, lasting, 0, false});
	ix = open_index(io);
	assert_true(sim_failed(io));
	struct io *opened = sim_clone(io);
	cut_moment(&h, opened, 8);
	io_free(opened);
	sim_arm(io, NULL);
	transaction(&h, ix, false);
	transaction(&h, ix, false);
	index_abandon(ix);
	cut_moment(&h, io, 8);
	io_free(io);
}

static void test_header_stays(void **state)
{
	(void)state;
	header_stays(10, false);              /* a preallocation would fit */
	header_stays(HISTORY_MAX - 10, true); /* the WAL is so large that it would be cut */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_process_crash),
	    cmocka_unit_test(test_torn_checkpoint),
	    cmocka_unit_test(test_restart),
	    cmocka_unit_test(test_cut_in_recovery),
	    cmocka_unit_test(test_cut_after_recovery_without_room),
	    cmocka_unit_test(test_header_stays),
	    cmocka_unit_test(test_power_cuts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
