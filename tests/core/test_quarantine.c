/* Segments that the index does not know: of a mount that was interrupted, or of a newer index than this one. */
#include "base/lock.h"
#include "fs/core/volume.h"
#include "tests/core/inside.h"
#include "tests/core/space_rig.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Ends a mount that has sealed so many MiB and committed nothing. */
static void interrupt(struct srig *r, unsigned mib)
{
	uint8_t *buf = malloc(MIB);
	struct core_file *file;
	struct node *n;
	uint64_t ino;

	assert_non_null(buf);
	fill_random(&r->rng, buf, MIB);
	assert_int_equal(srig_create(r, "interrupted", &ino), 0);
	assert_int_equal(core_file_open(r->core, ino, O_RDWR, &file), 0);
	for (unsigned i = 0; i < mib; i++)
		assert_int_equal(core_file_write(file, buf, MIB, i * MIB, 0), 0);
	core_file_close(file);
	n = node_peek(r->core, ino);
	assert_non_null(n);
	{
		SCOPED_LOCK(&n->lock);
		seal_drain(r->core, n);
	}
	node_put(r->core, n);
	core_abandon(r->core);
	sim_restart(r->io);
	free(buf);
}

/* Segments of an interrupted mount that nothing refers to are kept, but not at the price of a write. */
static void test_makes_room(void **state)
{
	struct srig r;
	uint64_t before;

	(void)state;
	srig_init(&r, DISK, 256 * MIB); /* so much that nothing is reason enough for a cut */
	interrupt(&r, 20);
	assert_int_equal(srig_open(&r, false), 0);
	before = srig_df(&r).avail;
	assert_true(atomic_load(&r.core->space.quarantine) > 16 * MIB);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(srig_write(&r, i, 0, BLOCKS), 0);
	assert_true(before > 20 * BLOCKS * BLOCK / 4096);
	assert_true(atomic_load(&r.core->space.quarantine) < 16 * MIB);
	srig_verify(&r, false);
	srig_release(&r);
}

struct age {
	struct io *io;
	const char *dir;
	int days;
};

static int set_age(void *arg, const char *path, uint64_t size)
{
	const struct age *a = arg;

	(void)size;
	return strncmp(path, a->dir, strlen(a->dir)) != 0
	           ? 0
	           : sim_raw_set_changed(a->io, path, time(NULL) - (time_t)a->days * 24 * 3600);
}

static unsigned entries;

static int count_entry(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	entries++;
	return 0;
}

/* How many files are in quarantine/ after a mount, if those of dir were last changed so many days before it. */
static unsigned quarantined(struct srig *r, const char *dir, int days)
{
	struct age age = {r->io, dir, days};

	assert_int_equal(sim_raw_walk(r->io, set_age, &age), 0);
	assert_int_equal(srig_open(r, false), 0);
	entries = 0;
	assert_int_equal(io_list(r->io, "quarantine", count_entry, NULL), 0);
	assert_int_equal(core_close(r->core, NULL), 0);
	r->core = NULL;
	return entries;
}

/* Quarantine lasts seven days from its beginning, however old a segment was then: that of an index which was replaced
 * by an older copy may be of last year. */
static void test_lasts(void **state)
{
	struct srig r;

	(void)state;
	srig_init(&r, DISK, 64 * MIB);
	interrupt(&r, 4);
	assert_in_range(quarantined(&r, "segments/", 300), 1, 10);
	assert_in_range(quarantined(&r, "quarantine/", 6), 1, 10);
	assert_int_equal(quarantined(&r, "quarantine/", 8), 0);
	srig_release(&r);
}

/* A mount with an older copy of the index takes nothing from the newer one, which may be put back. */
static void test_gives_back(void **state)
{
	static const char *const copy[] = {"index.old", "index.new"};
	struct err e = {0};
	struct srig r;

	(void)state;
	srig_init(&r, DISK, 64 * MIB);
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(srig_write(&r, 4 * i + k, 0, BLOCKS), 0);
		assert_int_equal(core_close(r.core, NULL), 0);
		assert_int_equal(sim_raw_copy(r.io, "index.db", copy[i]), 0);
		assert_int_equal(srig_open(&r, false), 0);
	}
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_int_equal(sim_raw_copy(r.io, copy[0], "index.db"), 0);
	assert_in_range(quarantined(&r, "segments/", 300), 1, 10);
	assert_int_equal(sim_raw_copy(r.io, copy[1], "index.db"), 0);
	assert_int_equal(inside_check_store(r.io, "full", 4, &e), 0);
	assert_int_equal(srig_open(&r, true), 0);
	srig_verify(&r, false);
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_int_equal(quarantined(&r, "quarantine/", 6), 0);
	assert_int_equal(srig_open(&r, false), 0);
	srig_verify(&r, false);
	srig_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_makes_room),
	    cmocka_unit_test(test_lasts),
	    cmocka_unit_test(test_gives_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
