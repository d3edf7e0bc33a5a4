/* The Nth call that changes something fails, for N = 1, 2, 3, ... until a run completes without. */
#include "tests/index/history.h"

#include <errno.h>
#include <string.h>

/* A life of the index: 0, or the first error that stopped it. The index is closed or abandoned. */
static int live(struct history *h, struct io *io, int error)
{
	struct index *ix = NULL;
	int ret = index_open(io, PAGE, test_sealer, &ix, NULL);

	if (ret)
		return ret;
	index_checkpoint_every(ix, 65536);
	for (unsigned i = 0; i < 12 && !ret; i++) {
		ret = history_work(h, ix);
		if (!ret)
			ret = history_commit(h, ix);
		/* No space in advance is no failure: the transaction is still there and can be committed later. */
		if (ret == -ENOSPC && !index_failed(ix) && error == -ENOSPC)
			ret = history_commit(h, ix);
		if (!ret && i % 2)
			ret = history_sync(h, ix);
	}
	if (ret) {
		assert_true(index_failed(ix));
		assert_int_equal(index_commit(ix, NULL), -EIO);
		assert_int_equal(index_sync(ix, NULL), -EIO);
		struct index_inode in = some_inode(1, 1);
		assert_int_equal(index_inode_put(ix, &in), -EIO);
		assert_int_equal(index_close(ix, NULL), -EIO);
		return ret;
	}
	ret = index_close(ix, NULL);
	if (!ret)
		h->synced = h->committed;
	return ret;
}

static void run_all(int error, bool sticky, bool power_cut)
{
	for (unsigned n = 1;; n++) {
		struct history h = {.seed = 5, .next = 1};
		struct io *io;

		close_index(new_index(&io));
		sim_fail(io, n, error, sticky);
		int ret = live(&h, io, error);
		bool hit = sim_failed(io);
		if (hit && ret)
			assert_int_equal(ret, error);
		sim_fail(io, 0, 0, false);
		if (power_cut)
			sim_crash(io, n);
		struct index *ix = open_index(io);
		history_verify(&h, ix);
		close_index(ix);
		io_free(io);
		if (!hit) {
			assert_int_equal(ret, 0);
			print_message("%u calls\n", n - 1);
			assert_true(n > 50);
			return;
		}
	}
}

static void test_eio(void **state)
{
	(void)state;
	run_all(-EIO, false, false);
	run_all(-EIO, true, false);
}

static void test_eio_power_cut(void **state)
{
	(void)state;
	run_all(-EIO, false, true);
}

static void test_enospc(void **state)
{
	(void)state;
	run_all(-ENOSPC, false, false);
	run_all(-ENOSPC, false, true);
}

static void test_create(void **state)
{
	(void)state;
	for (unsigned n = 1;; n++) {
		struct io *io = sim_new();
		sim_fail(io, n, -EIO, false);
		int ret = index_create(io, PAGE, test_sealer, NULL);
		if (!sim_failed(io)) {
			assert_int_equal(ret, 0);
			assert_int_equal(index_create(io, PAGE, test_sealer, NULL), -EEXIST);
			io_free(io);
			return;
		}
		assert_int_equal(ret, -EIO);
		/* It can be repeated, unless it had come to the end. */
		sim_crash(io, n);
		ret = index_create(io, PAGE, test_sealer, NULL);
		assert_true(ret == 0 || ret == -EEXIST);
		close_index(open_index(io));
		io_free(io);
	}
}

/* A full disk: the commit says so and keeps the transaction; with room again it goes on as if nothing had been. */
static void test_full(void **state)
{
	struct history h = {.seed = 9, .next = 1};
	struct io *io;
	struct index *ix = new_index(&io);
	struct err e = {0};
	uint64_t db, wal;
	unsigned refused = 0;

	(void)state;
	index_checkpoint_every(ix, (uint64_t)1 << 30);
	index_size(ix, &db, &wal);
	sim_limit(io, db + wal + 65536);
	for (unsigned i = 0; i < 400; i++) {
		assert_int_equal(history_work(&h, ix), 0);
		err_reset(&e);
		int ret = index_commit(ix, &e);
		if (ret) {
			assert_int_equal(ret, -ENOSPC);
			assert_int_equal(e.domain, ERR_SPACE);
			assert_false(index_failed(ix));
			refused++;
			sim_limit(io, 0);
			commit_index(ix);
			index_size(ix, &db, &wal);
			sim_limit(io, db + wal + 65536);
		}
		h.committed = h.next++;
	}
	assert_true(refused > 0);
	assert_int_equal(history_sync(&h, ix), 0);
	sim_limit(io, 0);
	close_index(ix);
	ix = open_index(io);
	history_verify(&h, ix);
	close_index(ix);
	io_free(io);
}

/* No room for the database to grow: the WAL holds everything meanwhile, across a crash too. */
static void test_full_checkpoint(void **state)
{
	struct history h = {.seed = 9, .next = 1};
	struct io *io;
	struct index *ix = new_index(&io);
	uint64_t db, wal;

	(void)state;
	index_size(ix, &db, &wal);
	sim_limit(io, db + wal + 1);
	index_checkpoint_every(ix, 300000);
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(history_work(&h, ix), 0);
		assert_int_equal(history_commit(&h, ix), 0);
		assert_int_equal(history_sync(&h, ix), 0);
	}
	index_abandon(ix);
	sim_crash(io, 1);
	ix = open_index(io);
	history_verify(&h, ix);
	/* Closing leaves the WAL, durably. */
	assert_int_equal(history_work(&h, ix), 0);
	assert_int_equal(history_commit(&h, ix), 0);
	h.synced = h.committed;
	close_index(ix);
	sim_crash(io, 0);
	ix = open_index(io);
	history_verify(&h, ix);
	sim_limit(io, 0);
	assert_int_equal(history_work(&h, ix), 0);
	assert_int_equal(history_commit(&h, ix), 0);
	close_index(ix);
	ix = open_index(io);
	history_verify(&h, ix);
	close_index(ix);
	io_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_create), cmocka_unit_test(test_eio),  cmocka_unit_test(test_eio_power_cut),
	    cmocka_unit_test(test_enospc), cmocka_unit_test(test_full), cmocka_unit_test(test_full_checkpoint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
