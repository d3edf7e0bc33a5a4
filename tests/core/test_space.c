/* Full disks: what is accepted fits, what was deleted gives its space back, and nothing that is there is harmed. On a
 * simulated STORE whose size the tests choose and change: to make it smaller is what other users of a disk do. */
#include "base/lock.h"
#include "fs/core/volume.h"
#include "tests/core/space_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Until the disk is full: files, overwrites, renames, some synced. */
static void fill(struct srig *r)
{
	int ret = 0;

	for (unsigned step = 0; step < 5000; step++) {
		unsigned id = (unsigned)rng_below(&r->rng, FILES), kind = (unsigned)rng_below(&r->rng, 10);
		unsigned from = (unsigned)rng_below(&r->rng, BLOCKS), n = 1 + (unsigned)rng_below(&r->rng, 32);
		struct srig_file *f = &r->file[id];

		if (kind < 7) {
			unsigned to = from + n < BLOCKS ? from + n : BLOCKS;

			ret = srig_write(r, id, f->blocks ? from : 0, f->blocks ? to : n);
		} else if (kind < 8 && f->exists) {
			ret = srig_sync_file(r, id);
		} else if (kind < 9 && f->exists) {
			ret = core_rename(r->core, CORE_ROOT, srig_name(id), CORE_ROOT, "moved", 0);
			if (!ret)
				ret = core_rename(r->core, CORE_ROOT, "moved", CORE_ROOT, srig_name(id), 0);
			if (srig_full(ret) && srig_lookup(r, "moved")) {
				assert_int_equal(core_unlink(r->core, CORE_ROOT, "moved"), 0);
				*f = (struct srig_file){0};
			}
		}
		if (srig_full(ret))
			return;
		assert_int_equal(ret, 0);
	}
	fail_msg("the disk does not become full");
}

static void erase_all(struct srig *r)
{
	for (unsigned i = 0; i < FILES; i++)
		if (r->file[i].exists)
			assert_int_equal(srig_erase(r, i), 0);
}

/* Fill, verify, sometimes crash, delete: the space comes back each time, at once. */
static void test_cycles(void **state)
{
	struct srig r;
	unsigned cycles = (unsigned)env_number("APFS_NIGHTLY", 0) ? 100 : SLOW_BUILD ? 2 : 6;
	uint64_t empty;

	(void)state;
	srig_init(&r, DISK, 16 * MIB);
	assert_int_equal(core_sync(r.core), 0);
	empty = srig_df(&r).avail;
	for (unsigned i = 0; i < cycles; i++) {
		fill(&r);
		assert_true(srig_df(&r).avail < 64);
		srig_verify(&r, false);
		assert_int_equal(srig_sync(&r), 0);
		if (i % 3 == 1)
			srig_power_cut(&r, i);
		if (i % 3 == 2) {
			/* `rm big; cp other` works without waiting for anything. */
			unsigned most = 0;

			for (unsigned k = 0; k < FILES; k++)
				most = r.file[k].blocks > r.file[most].blocks ? k : most;
			assert_int_equal(srig_erase(&r, most), 0);
			(void)srig_df(&r);
		}
		srig_verify(&r, false);
		erase_all(&r);
		/* A third of the disk, which is only free after what was deleted is. */
		for (unsigned k = 0; k < 10; k++)
			assert_int_equal(srig_write(&r, k, 0, BLOCKS), 0);
		srig_verify(&r, false);
		erase_all(&r);
		assert_int_equal(srig_sync(&r), 0);
		assert_int_equal(srig_sync(&r), 0);
		print_message("cycle %u: %llu of %llu blocks are free\n", i, (unsigned long long)srig_df(&r).avail,
		              (unsigned long long)empty);
		assert_true(srig_df(&r).avail > empty - 2048);
	}
	srig_release(&r);
}

/* Every operation with every little rest of space that others have left: what needs none succeeds, what needs some says
 * so, and whatever was accepted is there after a commit and a power cut. */
static void test_every_capacity(void **state)
{
	const struct core_cred cred = {0};
	uint64_t step = SLOW_BUILD ? 256 * KIB : 64 * KIB, most = 12 * MIB;

	(void)state;
	for (uint64_t left = 0; left <= most; left += left < MIB ? step : left < 4 * MIB ? 4 * step : 16 * step) {
		struct core_attr a = {.size = BLOCK, .mode = 0600}, b;
		struct srig r;
		uint64_t ino;

		srig_init(&r, 0, 16 * MIB);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(srig_write(&r, i, 0, 16), 0);
		assert_int_equal(core_mknod(r.core, &cred, CORE_ROOT, "d", S_IFDIR | 0755, 0, &b), 0);
		core_forget(r.core, b.ino, 1);
		assert_int_equal(srig_sync(&r), 0);
		if (left % (3 * step) == 0) { /* with a WAL and a reserve as a mount finds them */
			assert_int_equal(core_close(r.core, NULL), 0);
			srig_leave(&r, left);
			assert_int_equal(srig_open(&r, false), 0);
		} else {
			srig_leave(&r, left);
		}
		srig_may_lack(srig_write(&r, 0, 4, 8));
		srig_may_lack(srig_write(&r, 20, 0, 16));
		srig_may_lack(srig_write(&r, 21, 0, 1));
		srig_may_lack(core_symlink(r.core, &cred, CORE_ROOT, "s", "target", &b));
		srig_may_lack(core_link(r.core, srig_lookup(&r, srig_name(1)), CORE_ROOT, "l", &b));
		if (srig_lookup(&r, "l"))
			assert_int_equal(core_unlink(r.core, CORE_ROOT, "l"), 0);
		srig_may_lack(core_setxattr(r.core, srig_lookup(&r, srig_name(1)), "user.x", "value", 5, 0));
		assert_int_equal(core_rmdir(r.core, CORE_ROOT, "d"), 0);
		ino = srig_lookup(&r, srig_name(2));
		assert_int_equal(core_setattr(r.core, ino, CORE_SET_MODE | CORE_SET_MTIME_NOW, &a, &b), 0);
		assert_int_equal(core_setattr(r.core, ino, CORE_SET_SIZE, &a, &b), 0);
		r.file[2].blocks = 1;
		assert_int_equal(core_rename(r.core, CORE_ROOT, srig_name(3), CORE_ROOT, srig_name(4), 0), 0);
		r.file[3] = r.file[4] = (struct srig_file){0};
		assert_int_equal(core_unlink(r.core, CORE_ROOT, srig_name(4)), 0);
		assert_int_equal(srig_erase(&r, 5), 0);
		assert_int_equal(srig_sync(&r), 0);
		assert_int_equal(core_failed(r.core), 0);
		srig_verify(&r, false);
		srig_power_cut(&r, left / step);
		assert_int_equal(core_sync(r.core), 0);
		srig_release(&r);
	}
}

/* Others take what was promised to data that is written already: the data waits, what is deleted does not, and makes
 * room for it. quota: in a way that nobody could foresee. */
static void others(bool quota)
{
	struct srig r;

	srig_init(&r, 0, 64 * MIB);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(srig_write(&r, i, 0, BLOCKS), 0);
	assert_int_equal(srig_sync(&r), 0);
	/* The next mount begins a segment of its own. */
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_int_equal(srig_open(&r, false), 0);
	for (unsigned i = 30; i < 41; i++)
		srig_scatter(&r, i);
	if (quota)
		sim_quota(r.io, sim_used(r.io));
	else
		srig_leave(&r, 0);
	/* More than half of the reserve. */
	assert_int_equal(srig_sync(&r), quota ? -EDQUOT : -ENOSPC);
	assert_int_equal(srig_write(&r, 30, 0, 1), -ENOSPC);
	if (!quota)
		assert_int_equal(srig_df(&r).avail, 0);
	srig_verify(&r, false);
	assert_int_equal(srig_erase(&r, 0), 0);
	assert_true(srig_full(core_sync(r.core)));
	for (unsigned i = 1; i < 20; i++)
		assert_int_equal(srig_erase(&r, i), 0);
	assert_int_equal(srig_sync(&r), 0);
	srig_verify(&r, false);
	/* With what they leave of the margin, too, it goes on as before. */
	sim_limit(r.io, 0);
	assert_int_equal(srig_write(&r, 40, 0, 16), 0);
	srig_power_cut(&r, 0);
	srig_release(&r);
}

static void test_others(void **state)
{
	(void)state;
	others(false);
	others(true);
}

/* What is deleted while data cannot be stored is durable at the next cut, and is not undone by a power cut. */
static void test_deleting_does_not_wait(void **state)
{
	struct srig r;

	(void)state;
	srig_init(&r, 0, 64 * MIB);
	assert_int_equal(srig_write(&r, 0, 0, 4), 0);
	assert_int_equal(srig_write(&r, 1, 0, 4), 0);
	assert_int_equal(srig_sync(&r), 0);
	for (unsigned i = 10; i < 21; i++) /* more than half of the reserve */
		srig_scatter(&r, i);
	srig_leave(&r, 0);
	assert_int_equal(srig_erase(&r, 0), 0);
	assert_true(srig_full(core_sync(r.core)));
	core_abandon(r.core);
	sim_crash(r.io, 0);
	assert_int_equal(srig_open(&r, false), 0);
	assert_int_equal(srig_lookup(&r, srig_name(0)), 0);
	assert_int_not_equal(srig_lookup(&r, srig_name(1)), 0);
	srig_verify(&r, true);
	srig_release(&r);
}

/* The same where the files that wait for room show data of a deleted one: they keep it, and the rest of them waits.
 * room: there is some again, before a power cut. */
static void deleting_clones(bool room)
{
	const uint64_t place = (uint64_t)BLOCKS * BLOCK; /* beyond what srig_verify looks at */
	static uint8_t want[BLOCK], got[BLOCK];
	struct core_file *from, *to;
	struct srig r;

	srig_init(&r, 0, 64 * MIB);
	assert_int_equal(srig_write(&r, 0, 0, 4), 0);
	assert_int_equal(srig_write(&r, 1, 0, 4), 0);
	assert_int_equal(srig_sync(&r), 0);
	for (unsigned i = 10; i < 21; i++)
		srig_scatter(&r, i);
	assert_int_equal(core_file_open(r.core, srig_lookup(&r, srig_name(1)), O_RDONLY, &from), 0);
	assert_int_equal(core_file_read(from, want, BLOCK, BLOCK), BLOCK);
	for (unsigned i = 10; i < 21; i++) {
		assert_int_equal(core_file_open(r.core, srig_lookup(&r, srig_name(i)), O_RDWR, &to), 0);
		assert_int_equal(core_file_clone(from, BLOCK, to, place, BLOCK, 0), BLOCK);
		core_file_close(to);
	}
	core_file_close(from);
	srig_leave(&r, 0);
	assert_int_equal(srig_erase(&r, 0), 0);
	assert_int_equal(srig_erase(&r, 1), 0);
	assert_true(srig_full(core_sync(r.core)));
	srig_verify(&r, false);
	if (room) {
		sim_limit(r.io, 0);
		assert_int_equal(srig_sync(&r), 0);
	}
	core_abandon(r.core);
	sim_crash(r.io, 0);
	assert_int_equal(srig_open(&r, false), 0);
	assert_int_equal(srig_lookup(&r, srig_name(0)), 0);
	assert_int_equal(srig_lookup(&r, srig_name(1)), 0);
	for (unsigned i = 10; i < 21; i++) {
		assert_int_equal(core_file_open(r.core, srig_lookup(&r, srig_name(i)), O_RDONLY, &to), 0);
		assert_int_equal(core_file_read(to, got, BLOCK, place), BLOCK);
		assert_memory_equal(got, want, BLOCK);
		core_file_close(to);
	}
	srig_verify(&r, true);
	srig_release(&r);
}

/* A dirty piece of a file that was sealed in one chunk with another's. */
static struct piece *piece_at(struct node *n, uint64_t off, enum piece_kind kind)
{
	struct piece *p = map_find(&n->map, off);

	assert_non_null(p);
	assert_int_equal(p->off, off);
	assert_int_equal(p->kind, kind);
	assert_true(p->dirty);
	return p;
}

/* A cut for want of room stores what a clone shares, and leaves the chunk alone that the clone's own data and another
 * file's were sealed in: installed for the one it could be deleted while the other refers to it. */
static void test_lean_cut_leaves_joint_chunks(void **state)
{
	const uint64_t place = (uint64_t)BLOCKS * BLOCK;
	struct core_file *from, *to;
	struct seal_item item[2];
	struct node *n[2];
	struct err e = {0};
	struct srig r;

	(void)state;
	srig_init(&r, 0, 64 * MIB);
	assert_int_equal(srig_write(&r, 0, 0, 4), 0);
	assert_int_equal(srig_sync(&r), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(srig_write(&r, 1 + i, 0, 1), 0);
		n[i] = node_peek(r.core, srig_lookup(&r, srig_name(1 + i)));
		assert_non_null(n[i]);
		SCOPED_LOCK(&n[i]->lock);
		seal_take(r.core, n[i], piece_at(n[i], 0, PIECE_BUFFER), &item[i]);
	}
	assert_int_equal(seal_submit(r.core, item, 2, POLICY_PACKED, true, false, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		SCOPED_LOCK(&n[i]->lock);
		seal_drain(r.core, n[i]);
	}
	uint64_t chunk = piece_at(n[0], 0, PIECE_EXTENT)->chunk;
	assert_int_equal(piece_at(n[1], 0, PIECE_EXTENT)->chunk, chunk);
	assert_int_equal(core_file_open(r.core, srig_lookup(&r, srig_name(0)), O_RDONLY, &from), 0);
	assert_int_equal(core_file_open(r.core, n[0]->ino, O_RDWR, &to), 0);
	assert_int_equal(core_file_clone(from, BLOCK, to, place, BLOCK, 0), BLOCK);
	core_file_close(from);
	core_file_close(to);
	(void)piece_at(n[0], place, PIECE_EXTENT);

	assert_int_equal(cut_round(r.core, CUT_LEAN, NULL, 0, &e), 0);
	assert_true(chunk_is_joint(r.core, chunk));
	struct piece *p = map_find(&n[0]->map, place);
	assert_true(!p || p->off > place || !p->dirty);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(piece_at(n[i], 0, PIECE_EXTENT)->chunk, chunk);
		node_put(r.core, n[i]);
	}
	assert_int_equal(srig_sync(&r), 0);
	assert_false(chunk_is_joint(r.core, chunk));
	core_abandon(r.core);
	sim_crash(r.io, 0);
	assert_int_equal(srig_open(&r, false), 0);
	srig_verify(&r, true);
	srig_release(&r);
}

static void test_deleting_clones_does_not_wait(void **state)
{
	(void)state;
	deleting_clones(false);
	deleting_clones(true);
}

static void reopen(struct srig *r)
{
	assert_int_equal(core_close(r->core, NULL), 0);
	assert_int_equal(srig_open(r, false), 0);
}

/* All of file id becomes that of two clones, which are made if need be; or it is compared with them. */
static void clones(struct srig *r, unsigned id, bool compare)
{
	static uint8_t want[BLOCKS * BLOCK], got[BLOCKS * BLOCK];
	struct core_file *from, *to;
	char name[16];
	uint64_t ino;

	assert_int_equal(core_file_open(r->core, srig_lookup(r, srig_name(id)), O_RDONLY, &from), 0);
	assert_int_equal(core_file_read(from, want, sizeof(want), 0), sizeof(want));
	for (unsigned i = 0; i < 2; i++) {
		(void)snprintf(name, sizeof(name), "c%u.%u", id, i);
		ino = srig_lookup(r, name);
		if (!ino)
			assert_int_equal(srig_create(r, name, &ino), 0);
		assert_int_equal(core_file_open(r->core, ino, O_RDWR, &to), 0);
		if (!compare)
			assert_int_equal(core_file_clone(from, 0, to, 0, sizeof(want), 0), sizeof(want));
		else
			assert_int_equal(core_file_read(to, got, sizeof(got), 0), sizeof(got));
		core_file_close(to);
		assert_true(!compare || !memcmp(want, got, sizeof(want)));
	}
	core_file_close(from);
}

/* A third of what is stored is in no file any more, but what clones share counts as live for each of them: it is found
 * before a write is refused. */
static void hidden(bool next_mount)
{
	unsigned made = 0, id = 20;
	struct srig r;

	srig_init(&r, DISK, 16 * MIB);
	r.on_demand = true;
	reopen(&r);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(srig_write(&r, i, 0, BLOCKS), 0); /* 2 MiB */
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(srig_sync(&r), 0);
		for (unsigned i = 0; i < 12; i++) {
			clones(&r, i, false);
			for (unsigned k = 0; !round && k < BLOCKS; k += 16)
				assert_int_equal(srig_write(&r, i, k, k + 8), 0);
		}
	}
	assert_int_equal(srig_sync(&r), 0);
	if (next_mount)
		reopen(&r);
	for (int ret = 0; !ret; made += !ret) {
		ret = srig_write(&r, id, made % BLOCKS, made % BLOCKS + 1);
		srig_may_lack(ret);
		id += made % BLOCKS == BLOCKS - 1;
		assert_true(id < FILES);
	}
	print_message("%llu MiB were written before the disk was full\n", (unsigned long long)made * BLOCK / MIB);
	assert_true(made * (uint64_t)BLOCK > 24 * MIB);
	srig_verify(&r, false);
	for (unsigned i = 0; i < 12; i++)
		clones(&r, i, true);
	srig_release(&r);
}

static void test_hidden(void **state)
{
	(void)state;
	hidden(false);
	hidden(true);
}

/* Data that compresses is accepted as long as it fits once it is compressed. */
static void test_compressible(void **state)
{
	struct srig r;

	(void)state;
	srig_init(&r, DISK, 16 * MIB);
	r.compressible = true;
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < FILES; i++) /* 128 MiB */
			assert_int_equal(srig_write(&r, i, 0, BLOCKS), 0);
	srig_leave(&r, 12 * MIB); /* and no more than a little above the margin is left */
	for (unsigned i = 0; i < FILES; i++)
		assert_int_equal(srig_write(&r, i, 0, BLOCKS), 0);
	srig_verify(&r, false);
	srig_release(&r);
}

/* What statfs says can be written can be; when it says nothing, nothing can. */
static void test_df(void **state)
{
	struct srig r;
	unsigned id = 0;

	(void)state;
	srig_init(&r, DISK, 16 * MIB);
	for (;;) {
		uint64_t blocks = srig_df(&r).avail * 4096 / BLOCK;
		unsigned n = blocks < BLOCKS ? (unsigned)blocks : BLOCKS;

		if (!n)
			break;
		assert_true(id < FILES);
		assert_int_equal(srig_write(&r, id++, 0, n), 0);
	}
	srig_leave(&r, 0);
	assert_int_equal(srig_df(&r).avail, 0);
	assert_int_equal(srig_write(&r, 0, 0, 1), -ENOSPC);
	srig_verify(&r, false);
	sim_limit(r.io, DISK);
	srig_release(&r);
}

static uint64_t reserve_size(struct srig *r)
{
	struct io_stat st;

	return io_stat(r->io, "reserve", &st) ? 0 : st.stored;
}

/* The reserve is spent by those who may, and comes back with the space. */
static void reserve(bool allocate)
{
	struct srig r;
	uint64_t whole;

	srig_init(&r, DISK, 16 * MIB);
	if (!allocate)
		sim_no_allocate(r.io);
	whole = reserve_size(&r);
	assert_true(whole >= MIB);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(srig_write(&r, i, 0, BLOCKS), 0);
	assert_int_equal(srig_sync(&r), 0);
	assert_int_equal(core_close(r.core, NULL), 0);
	srig_leave(&r, 0);
	assert_int_equal(srig_open(&r, false), 0); /* the WAL needs some */
	assert_true(reserve_size(&r) < whole);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(srig_erase(&r, i), 0);
	assert_int_equal(srig_sync(&r), 0);
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_true(reserve_size(&r) >= whole / 2);
	sim_limit(r.io, DISK);
	assert_int_equal(srig_open(&r, false), 0);
	assert_int_equal(reserve_size(&r), whole);
	srig_release(&r);
}

static void test_reserve(void **state)
{
	(void)state;
	reserve(true);
	reserve(false);
}

/* A mount that only reads needs nothing, and changes nothing. */
static void test_read_only(void **state)
{
	struct core_attr a;
	struct srig r;
	uint64_t changes;

	(void)state;
	srig_init(&r, 0, 16 * MIB);
	assert_int_equal(srig_write(&r, 0, 0, 16), 0);
	assert_int_equal(srig_sync(&r), 0);
	core_abandon(r.core); /* with a WAL to recover */
	sim_crash(r.io, 0);
	assert_int_equal(sim_raw_remove(r.io, "reserve"), 0);
	srig_leave(&r, 0);
	changes = sim_count(r.io, SIM_CHANGE);
	assert_int_equal(srig_open(&r, true), 0);
	srig_verify(&r, false);
	assert_int_equal(srig_create(&r, "x", &a.ino), -EROFS);
	assert_int_equal(core_unlink(r.core, CORE_ROOT, srig_name(0)), -EROFS);
	(void)srig_df(&r);
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_int_equal(sim_count(r.io, SIM_CHANGE), changes);
	/* With the WAL that a crash left there is a way to write, too; after a clean end there is none, and it says so.
	 */
	assert_int_equal(srig_open(&r, false), 0);
	srig_verify(&r, false);
	assert_int_equal(core_close(r.core, NULL), 0);
	(void)!sim_raw_remove(r.io, "reserve");
	srig_leave(&r, 0);
	r.core = NULL;
	assert_true(srig_full(srig_open(&r, false)));
	srig_leave(&r, 16 * MIB);
	assert_int_equal(srig_open(&r, false), 0);
	srig_verify(&r, false);
	srig_release(&r);
}

/* Where there is room for the data, but not for the commit, whoever asks again is not told that it has been made. */
static void test_commit_without_room(void **state)
{
	struct srig r;
	int ret = 0;

	(void)state;
	srig_init(&r, 0, 16 * MIB);
	assert_int_equal(srig_write(&r, 0, 0, BLOCKS), 0);
	assert_int_equal(srig_sync(&r), 0);
	assert_int_equal(sim_raw_remove(r.io, "reserve"), 0);
	sim_quota(r.io, sim_used(r.io));
	/* Small ones go to the index, and its log cannot grow. */
	for (unsigned i = 0; i < 5000 && !ret; i++) {
		unsigned block = (unsigned)rng_below(&r.rng, BLOCKS);

		assert_int_equal(srig_write(&r, 0, block, block + 1), 0);
		ret = srig_sync_file(&r, 0);
	}
	assert_true(srig_full(ret));
	for (unsigned i = 0; i < 3; i++)
		assert_true(srig_full(srig_sync_file(&r, 0)));
	assert_true(srig_full(srig_sync(&r)));
	core_abandon(r.core);
	sim_crash(r.io, 0);
	sim_quota(r.io, 0);
	assert_int_equal(srig_open(&r, false), 0);
	srig_verify(&r, true);
	srig_release(&r);
}

static unsigned extents_left(struct srig *r)
{
	char *text = NULL;
	const char *p;
	unsigned n;

	assert_int_equal(core_info(r->core, CORE_ROOT, &text), 0);
	p = strstr(text, "logical:");
	assert_non_null(p);
	p = strchr(p, '(');
	assert_non_null(p);
	n = (unsigned)strtoul(p + 1, NULL, 10);
	free(text);
	return n;
}

/* A file of very many extents is deleted in transactions that do not grow with it, and by the next mount to the end. */
static void test_fragments(void **state)
{
	const unsigned count = SLOW_BUILD ? 20000 : 120000;
	struct core_file *file;
	struct srig r;
	uint64_t ino, wal = 0;

	(void)state;
	srig_init(&r, DISK, 64 * MIB);
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(srig_create(&r, "fragments", &ino), 0);
		assert_int_equal(core_file_open(r.core, ino, O_RDWR, &file), 0);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(core_file_write(file, "x", 1, (uint64_t)i * 8192, 0), 0);
		core_file_close(file);
		assert_int_equal(core_sync(r.core), 0);
		assert_int_equal(extents_left(&r), count);
		assert_int_equal(core_close(r.core, NULL), 0);
		srig_leave(&r, MIB / 2); /* with the reserve and the log, less than all the rows */
		assert_int_equal(srig_open(&r, false), 0);
		assert_int_equal(core_unlink(r.core, CORE_ROOT, "fragments"), 0);
		assert_int_equal(core_sync(r.core), 0);
		assert_int_equal(srig_lookup(&r, "fragments"), 0);
		if (round) {
			core_abandon(r.core);
			sim_crash(r.io, 0);
			assert_int_equal(srig_open(&r, false), 0);
			assert_int_equal(srig_lookup(&r, "fragments"), 0);
		} else {
			/* A refused write would wait for it. */
			(void)srig_df(&r);
		}
		assert_int_equal(core_close(r.core, NULL), 0);
		assert_int_equal(srig_open(&r, false), 0);
		assert_int_equal(extents_left(&r), 0);
		assert_int_equal(sim_raw_size(r.io, "index.db-wal", &wal), 0);
		assert_true(wal <= 8 * MIB);
		sim_limit(r.io, DISK);
	}
	srig_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_reserve),
	    cmocka_unit_test(test_read_only),
	    cmocka_unit_test(test_df),
	    cmocka_unit_test(test_compressible),
	    cmocka_unit_test(test_others),
	    cmocka_unit_test(test_commit_without_room),

	    cmocka_unit_test(test_deleting_does_not_wait),
	    cmocka_unit_test(test_deleting_clones_does_not_wait),
	    cmocka_unit_test(test_lean_cut_leaves_joint_chunks),
	    cmocka_unit_test(test_hidden),
	    cmocka_unit_test(test_every_capacity),
	    cmocka_unit_test(test_cycles),
	    cmocka_unit_test(test_fragments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
