/* Full disks: what is accepted fits, what was deleted gives its space back, and nothing that is there is harmed. On a
 * simulated STORE whose size the tests choose and change: to make it smaller is what other users of a disk do. */
#include "tests/core/support.h"
#include "tests/sim/sim.h"

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

#define PASS   "full"
#define KIB    1024u
#define MIB    ((uint64_t)1 << 20)
#define DISK   (64 * MIB)
#define BLOCK  (16 * KIB)
#define BLOCKS 128u /* of a file at most */
#define FILES  64u

/* What a file must hold: block i is what make_block says for version[i]; durable[i] is the version that was last
 * synced. */
struct file {
	bool exists, named; /* named: an fsync or sync came since it was made */
	unsigned blocks;    /* its size */
	uint32_t version[BLOCKS], durable[BLOCKS];
};

struct rig {
	struct io *io;
	struct core *core;
	struct file file[FILES];
	uint64_t rng, memory;
	bool compressible;
};

/* --- the volume --------------------------------------------------------------------------------------------------- */

static int open_volume(struct rig *r, bool read_only)
{
	const struct core_options o = {.io = r->io,
	                               .pass = PASS,
	                               .pass_len = strlen(PASS),
	                               .memory = r->memory,
	                               .commit_interval_ms = 3600 * 1000,
	                               .compress = {CODEC_ZSTD, -1},
	                               .read_only = read_only};

	return core_open(&o, &r->core, NULL);
}

static void rig_init(struct rig *r, uint64_t disk, uint64_t memory)
{
	const struct core_format format = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};

	memset(r, 0, sizeof(*r));
	r->io = sim_new();
	r->rng = rng_seed(7);
	r->memory = memory;
	sim_limit(r->io, disk);
	assert_int_equal(core_format(r->io, &format, PASS, strlen(PASS), NULL), 0);
	assert_int_equal(open_volume(r, false), 0);
}

static void rig_release(struct rig *r)
{
	if (r->core)
		assert_int_equal(core_close(r->core, NULL), 0);
	io_free(r->io);
}

/* Others use the disk: this much is left. */
static void leave(struct rig *r, uint64_t bytes)
{
	sim_limit(r->io, sim_used(r->io) + bytes);
}

static bool full(int ret)
{
	return ret == -ENOSPC || ret == -EDQUOT;
}

static void may_lack(int ret)
{
	assert_true(!ret || full(ret));
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static void make_block(const struct rig *r, unsigned id, unsigned block, uint32_t version, uint8_t *buf)
{
	uint64_t state = rng_seed(((uint64_t)id << 48 | (uint64_t)block << 32 | version) + 1);

	memset(buf, 0, BLOCK);
	if (version)
		fill_random(&state, buf, r->compressible ? 64 : BLOCK);
}

static char *name_of(unsigned id)
{
	static char name[2][32];
	static unsigned turn;

	turn ^= 1;
	(void)snprintf(name[turn], sizeof(name[turn]), "f%u", id);
	return name[turn];
}

static int create(struct rig *r, const char *name, uint64_t *ino)
{
	const struct core_cred cred = {0};
	struct core_attr a;
	int ret = core_mknod(r->core, &cred, CORE_ROOT, name, S_IFREG | 0644, 0, &a);

	*ino = a.ino;
	if (!ret)
		core_forget(r->core, a.ino, 1);
	return ret;
}

static uint64_t lookup(struct rig *r, const char *name)
{
	struct core_attr a;

	if (core_lookup(r->core, CORE_ROOT, name, &a))
		return 0;
	core_forget(r->core, a.ino, 1);
	return a.ino;
}

/* Writes new versions of blocks [from, to) of a file, made if need be. */
static int write_blocks(struct rig *r, unsigned id, unsigned from, unsigned to)
{
	struct file *f = &r->file[id];
	static uint8_t buf[BLOCK];
	struct core_file *file;
	uint64_t ino;
	int ret = 0;

	if (!f->exists) {
		ret = create(r, name_of(id), &ino);
		if (ret)
			return ret;
		*f = (struct file){.exists = true};
	} else {
		ino = lookup(r, name_of(id));
	}
	assert_int_equal(core_file_open(r->core, ino, O_RDWR, &file), 0);
	for (unsigned i = from; i < to && !ret; i++) {
		make_block(r, id, i, f->version[i] + 1, buf);
		ret = core_file_write(file, buf, BLOCK, (uint64_t)i * BLOCK, 0);
		if (ret)
			break;
		f->version[i]++;
		if (i >= f->blocks)
			f->blocks = i + 1;
	}
	core_file_close(file);
	return ret;
}

/* 1 MiB, in every second block: it stays in memory until a cut takes it. */
static void write_scattered(struct rig *r, unsigned id)
{
	for (unsigned i = 1; i < BLOCKS; i += 2)
		assert_int_equal(write_blocks(r, id, i, i + 1), 0);
}

static int sync_file(struct rig *r, unsigned id)
{
	int ret = core_fsync(r->core, lookup(r, name_of(id)), false);

	if (!ret) {
		memcpy(r->file[id].durable, r->file[id].version, sizeof(r->file[id].durable));
		r->file[id].named = true;
	}
	return ret;
}

static int sync_volume(struct rig *r)
{
	int ret = core_sync(r->core);

	for (unsigned i = 0; i < FILES && !ret; i++) {
		memcpy(r->file[i].durable, r->file[i].version, sizeof(r->file[i].durable));
		r->file[i].named = r->file[i].exists;
	}
	return ret;
}

static int erase(struct rig *r, unsigned id)
{
	int ret = core_unlink(r->core, CORE_ROOT, name_of(id));

	if (!ret)
		r->file[id] = (struct file){0};
	return ret;
}

/* Every file has the versions that it must; after a crash, of blocks that were not synced also any version since. */
static void verify(struct rig *r, bool crashed)
{
	static uint8_t got[BLOCK], want[BLOCK];

	for (unsigned id = 0; id < FILES; id++) {
		struct file *f = &r->file[id];
		uint64_t ino = lookup(r, name_of(id));
		struct core_file *file;

		if (!f->exists) {
			if (!crashed && ino)
				fail_msg("file %u should not be there", id);
			continue;
		}
		if (crashed && !f->named && !ino)
			continue;
		assert_int_not_equal(ino, 0);
		assert_int_equal(core_file_open(r->core, ino, O_RDONLY, &file), 0);
		for (unsigned i = 0; i < f->blocks; i++) {
			ssize_t n = core_file_read(file, got, BLOCK, (uint64_t)i * BLOCK);
			uint32_t v = f->version[i], oldest = crashed ? f->durable[i] : v;
			bool same = false;

			if (n < (ssize_t)BLOCK) {
				assert_true(n >= 0 && !oldest);
				continue;
			}
			do {
				make_block(r, id, i, v, want);
				same = !memcmp(got, want, BLOCK);
			} while (!same && v-- > oldest);
			if (!same)
				fail_msg("file %u block %u: none of versions %u to %u", id, i, oldest, f->version[i]);
		}
		core_file_close(file);
	}
}

static void power_cut(struct rig *r, uint64_t seed)
{
	core_abandon(r->core);
	sim_crash(r->io, seed);
	assert_int_equal(open_volume(r, false), 0);
	verify(r, true);
	/* What there is is what it is from now on. */
	for (unsigned i = 0; i < FILES; i++)
		if (lookup(r, name_of(i)))
			assert_int_equal(core_unlink(r->core, CORE_ROOT, name_of(i)), 0);
	memset(r->file, 0, sizeof(r->file));
}

static struct core_statfs df(struct rig *r)
{
	struct core_statfs s;

	assert_int_equal(core_statfs(r->core, &s), 0);
	assert_true(s.avail <= s.free && s.free <= s.blocks);
	return s;
}

/* --- tests -------------------------------------------------------------------------------------------------------- */

/* Until the disk is full: files, overwrites, renames, some synced. */
static void fill(struct rig *r)
{
	int ret = 0;

	for (unsigned step = 0; step < 5000; step++) {
		unsigned id = (unsigned)rng_below(&r->rng, FILES), kind = (unsigned)rng_below(&r->rng, 10);
		unsigned from = (unsigned)rng_below(&r->rng, BLOCKS), n = 1 + (unsigned)rng_below(&r->rng, 32);
		struct file *f = &r->file[id];

		if (kind < 7) {
			unsigned to = from + n < BLOCKS ? from + n : BLOCKS;

			ret = write_blocks(r, id, f->blocks ? from : 0, f->blocks ? to : n);
		} else if (kind < 8 && f->exists) {
			ret = sync_file(r, id);
		} else if (kind < 9 && f->exists) {
			ret = core_rename(r->core, CORE_ROOT, name_of(id), CORE_ROOT, "moved", 0);
			if (!ret)
				ret = core_rename(r->core, CORE_ROOT, "moved", CORE_ROOT, name_of(id), 0);
			if (full(ret) && lookup(r, "moved")) {
				assert_int_equal(core_unlink(r->core, CORE_ROOT, "moved"), 0);
				*f = (struct file){0};
			}
		}
		if (full(ret))
			return;
		assert_int_equal(ret, 0);
	}
	fail_msg("the disk does not become full");
}

static void erase_all(struct rig *r)
{
	for (unsigned i = 0; i < FILES; i++)
		if (r->file[i].exists)
			assert_int_equal(erase(r, i), 0);
}

/* Fill, verify, sometimes crash, delete: the space comes back each time, at once. */
static void test_cycles(void **state)
{
	struct rig r;
	unsigned cycles = (unsigned)env_number("APFS_NIGHTLY", 0) ? 100 : SLOW_BUILD ? 2 : 6;
	uint64_t empty;

	(void)state;
	rig_init(&r, DISK, 16 * MIB);
	assert_int_equal(core_sync(r.core), 0);
	empty = df(&r).avail;
	for (unsigned i = 0; i < cycles; i++) {
		fill(&r);
		assert_true(df(&r).avail < 64);
		verify(&r, false);
		assert_int_equal(sync_volume(&r), 0);
		if (i % 3 == 1)
			power_cut(&r, i);
		if (i % 3 == 2) {
			/* `rm big; cp other` works without waiting for anything. */
			unsigned most = 0;

			for (unsigned k = 0; k < FILES; k++)
				most = r.file[k].blocks > r.file[most].blocks ? k : most;
			assert_int_equal(erase(&r, most), 0);
			(void)df(&r);
		}
		verify(&r, false);
		erase_all(&r);
		/* A third of the disk, which is only free after what was deleted is. */
		for (unsigned k = 0; k < 10; k++)
			assert_int_equal(write_blocks(&r, k, 0, BLOCKS), 0);
		verify(&r, false);
		erase_all(&r);
		assert_int_equal(sync_volume(&r), 0);
		assert_int_equal(sync_volume(&r), 0);
		print_message("cycle %u: %llu of %llu blocks are free\n", i, (unsigned long long)df(&r).avail,
		              (unsigned long long)empty);
		assert_true(df(&r).avail > empty - 2048);
	}
	rig_release(&r);
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
		struct rig r;
		uint64_t ino;

		rig_init(&r, 0, 16 * MIB);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(write_blocks(&r, i, 0, 16), 0);
		assert_int_equal(core_mknod(r.core, &cred, CORE_ROOT, "d", S_IFDIR | 0755, 0, &b), 0);
		core_forget(r.core, b.ino, 1);
		assert_int_equal(sync_volume(&r), 0);
		if (left % (3 * step) == 0) { /* with a WAL and a reserve as a mount finds them */
			assert_int_equal(core_close(r.core, NULL), 0);
			leave(&r, left);
			assert_int_equal(open_volume(&r, false), 0);
		} else {
			leave(&r, left);
		}
		may_lack(write_blocks(&r, 0, 4, 8));
		may_lack(write_blocks(&r, 20, 0, 16));
		may_lack(write_blocks(&r, 21, 0, 1));
		may_lack(core_symlink(r.core, &cred, CORE_ROOT, "s", "target", &b));
		may_lack(core_link(r.core, lookup(&r, name_of(1)), CORE_ROOT, "l", &b));
		if (lookup(&r, "l"))
			assert_int_equal(core_unlink(r.core, CORE_ROOT, "l"), 0);
		may_lack(core_setxattr(r.core, lookup(&r, name_of(1)), "user.x", "value", 5, 0));
		assert_int_equal(core_rmdir(r.core, CORE_ROOT, "d"), 0);
		ino = lookup(&r, name_of(2));
		assert_int_equal(core_setattr(r.core, ino, CORE_SET_MODE | CORE_SET_MTIME_NOW, &a, &b), 0);
		assert_int_equal(core_setattr(r.core, ino, CORE_SET_SIZE, &a, &b), 0);
		r.file[2].blocks = 1;
		assert_int_equal(core_rename(r.core, CORE_ROOT, name_of(3), CORE_ROOT, name_of(4), 0), 0);
		r.file[3] = r.file[4] = (struct file){0};
		assert_int_equal(core_unlink(r.core, CORE_ROOT, name_of(4)), 0);
		assert_int_equal(erase(&r, 5), 0);
		assert_int_equal(sync_volume(&r), 0);
		assert_int_equal(core_failed(r.core), 0);
		verify(&r, false);
		power_cut(&r, left / step);
		assert_int_equal(core_sync(r.core), 0);
		rig_release(&r);
	}
}

/* Others take what was promised to data that is written already: the data waits, what is deleted does not, and makes
 * room for it. quota: in a way that nobody could foresee. */
static void others(bool quota)
{
	struct rig r;

	rig_init(&r, 0, 64 * MIB);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(write_blocks(&r, i, 0, BLOCKS), 0);
	assert_int_equal(sync_volume(&r), 0);
	/* The next mount begins a segment of its own. */
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_int_equal(open_volume(&r, false), 0);
	for (unsigned i = 30; i < 41; i++)
		write_scattered(&r, i);
	if (quota)
		sim_quota(r.io, sim_used(r.io));
	else
		leave(&r, 0);
	/* More than half of the reserve. */
	assert_int_equal(sync_volume(&r), quota ? -EDQUOT : -ENOSPC);
	assert_int_equal(write_blocks(&r, 30, 0, 1), -ENOSPC);
	if (!quota)
		assert_int_equal(df(&r).avail, 0);
	verify(&r, false);
	assert_int_equal(erase(&r, 0), 0);
	assert_true(full(core_sync(r.core)));
	for (unsigned i = 1; i < 20; i++)
		assert_int_equal(erase(&r, i), 0);
	assert_int_equal(sync_volume(&r), 0);
	verify(&r, false);
	/* With what they leave of the margin, too, it goes on as before. */
	sim_limit(r.io, 0);
	assert_int_equal(write_blocks(&r, 40, 0, 16), 0);
	power_cut(&r, 0);
	rig_release(&r);
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
	struct rig r;

	(void)state;
	rig_init(&r, 0, 64 * MIB);
	assert_int_equal(write_blocks(&r, 0, 0, 4), 0);
	assert_int_equal(write_blocks(&r, 1, 0, 4), 0);
	assert_int_equal(sync_volume(&r), 0);
	for (unsigned i = 10; i < 21; i++) /* more than half of the reserve */
		write_scattered(&r, i);
	leave(&r, 0);
	assert_int_equal(erase(&r, 0), 0);
	assert_true(full(core_sync(r.core)));
	core_abandon(r.core);
	sim_crash(r.io, 0);
	assert_int_equal(open_volume(&r, false), 0);
	assert_int_equal(lookup(&r, name_of(0)), 0);
	assert_int_not_equal(lookup(&r, name_of(1)), 0);
	verify(&r, true);
	rig_release(&r);
}

/* Data that compresses is accepted as long as it fits once it is compressed. */
static void test_compressible(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, DISK, 16 * MIB);
	r.compressible = true;
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < FILES; i++) /* 128 MiB */
			assert_int_equal(write_blocks(&r, i, 0, BLOCKS), 0);
	leave(&r, 12 * MIB); /* and no more than a little above the margin is left */
	for (unsigned i = 0; i < FILES; i++)
		assert_int_equal(write_blocks(&r, i, 0, BLOCKS), 0);
	verify(&r, false);
	rig_release(&r);
}

/* What statfs says can be written can be; when it says nothing, nothing can. */
static void test_df(void **state)
{
	struct rig r;
	unsigned id = 0;

	(void)state;
	rig_init(&r, DISK, 16 * MIB);
	for (;;) {
		uint64_t blocks = df(&r).avail * 4096 / BLOCK;
		unsigned n = blocks < BLOCKS ? (unsigned)blocks : BLOCKS;

		if (!n)
			break;
		assert_true(id < FILES);
		assert_int_equal(write_blocks(&r, id++, 0, n), 0);
	}
	leave(&r, 0);
	assert_int_equal(df(&r).avail, 0);
	assert_int_equal(write_blocks(&r, 0, 0, 1), -ENOSPC);
	verify(&r, false);
	sim_limit(r.io, DISK);
	rig_release(&r);
}

static uint64_t reserve_size(struct rig *r)
{
	struct io_stat st;

	return io_stat(r->io, "reserve", &st) ? 0 : st.stored;
}

/* The reserve is spent by those who may, and comes back with the space. */
static void reserve(bool allocate)
{
	struct rig r;
	uint64_t whole;

	rig_init(&r, DISK, 16 * MIB);
	if (!allocate)
		sim_no_allocate(r.io);
	whole = reserve_size(&r);
	assert_true(whole >= MIB);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(write_blocks(&r, i, 0, BLOCKS), 0);
	assert_int_equal(sync_volume(&r), 0);
	assert_int_equal(core_close(r.core, NULL), 0);
	leave(&r, 0);
	assert_int_equal(open_volume(&r, false), 0); /* the WAL needs some */
	assert_true(reserve_size(&r) < whole);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(erase(&r, i), 0);
	assert_int_equal(sync_volume(&r), 0);
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_true(reserve_size(&r) >= whole / 2);
	sim_limit(r.io, DISK);
	assert_int_equal(open_volume(&r, false), 0);
	assert_int_equal(reserve_size(&r), whole);
	rig_release(&r);
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
	struct rig r;
	uint64_t changes;

	(void)state;
	rig_init(&r, 0, 16 * MIB);
	assert_int_equal(write_blocks(&r, 0, 0, 16), 0);
	assert_int_equal(sync_volume(&r), 0);
	core_abandon(r.core); /* with a WAL to recover */
	sim_crash(r.io, 0);
	assert_int_equal(sim_raw_remove(r.io, "reserve"), 0);
	leave(&r, 0);
	changes = sim_count(r.io, SIM_CHANGE);
	assert_int_equal(open_volume(&r, true), 0);
	verify(&r, false);
	assert_int_equal(create(&r, "x", &a.ino), -EROFS);
	assert_int_equal(core_unlink(r.core, CORE_ROOT, name_of(0)), -EROFS);
	(void)df(&r);
	assert_int_equal(core_close(r.core, NULL), 0);
	assert_int_equal(sim_count(r.io, SIM_CHANGE), changes);
	/* With the WAL that a crash left there is a way to write, too; after a clean end there is none, and it says so.
	 */
	assert_int_equal(open_volume(&r, false), 0);
	verify(&r, false);
	assert_int_equal(core_close(r.core, NULL), 0);
	(void)!sim_raw_remove(r.io, "reserve");
	leave(&r, 0);
	r.core = NULL;
	assert_true(full(open_volume(&r, false)));
	leave(&r, 16 * MIB);
	assert_int_equal(open_volume(&r, false), 0);
	verify(&r, false);
	rig_release(&r);
}

/* Segments of an interrupted mount that nothing refers to are kept, but not at the price of a write. */
static void test_quarantine(void **state)
{
	struct io_stat st;
	struct rig r;
	uint64_t before;

	(void)state;
	rig_init(&r, DISK, 64 * MIB);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(write_blocks(&r, i, 0, BLOCKS), 0);
	core_abandon(r.core); /* nothing was committed, most was sealed */
	sim_restart(r.io);
	memset(r.file, 0, sizeof(r.file));
	assert_int_equal(open_volume(&r, false), 0);
	before = df(&r).avail;
	assert_int_equal(io_stat(r.io, "quarantine", &st), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(write_blocks(&r, i, 0, BLOCKS), 0);
	assert_true(before > 20 * BLOCKS * BLOCK / 4096);
	verify(&r, false);
	rig_release(&r);
}

static unsigned extents_left(struct rig *r)
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
	struct rig r;
	uint64_t ino, wal = 0;

	(void)state;
	rig_init(&r, DISK, 64 * MIB);
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(create(&r, "fragments", &ino), 0);
		assert_int_equal(core_file_open(r.core, ino, O_RDWR, &file), 0);
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(core_file_write(file, "x", 1, (uint64_t)i * 8192, 0), 0);
		core_file_close(file);
		assert_int_equal(core_sync(r.core), 0);
		assert_int_equal(extents_left(&r), count);
		assert_int_equal(core_close(r.core, NULL), 0);
		leave(&r, MIB / 2); /* with the reserve and the log, less than all the rows */
		assert_int_equal(open_volume(&r, false), 0);
		assert_int_equal(core_unlink(r.core, CORE_ROOT, "fragments"), 0);
		assert_int_equal(core_sync(r.core), 0);
		assert_int_equal(lookup(&r, "fragments"), 0);
		if (round) {
			core_abandon(r.core);
			sim_crash(r.io, 0);
			assert_int_equal(open_volume(&r, false), 0);
			assert_int_equal(lookup(&r, "fragments"), 0);
		} else {
			/* A refused write would wait for it. */
			(void)df(&r);
		}
		assert_int_equal(core_close(r.core, NULL), 0);
		assert_int_equal(open_volume(&r, false), 0);
		assert_int_equal(extents_left(&r), 0);
		assert_int_equal(sim_raw_size(r.io, "index.db-wal", &wal), 0);
		assert_true(wal <= 8 * MIB);
		sim_limit(r.io, DISK);
	}
	rig_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_reserve),
	    cmocka_unit_test(test_read_only),
	    cmocka_unit_test(test_df),
	    cmocka_unit_test(test_compressible),
	    cmocka_unit_test(test_others),

	    cmocka_unit_test(test_quarantine),
	    cmocka_unit_test(test_deleting_does_not_wait),
	    cmocka_unit_test(test_every_capacity),
	    cmocka_unit_test(test_cycles),
	    cmocka_unit_test(test_fragments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
