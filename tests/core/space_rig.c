#include "tests/core/space_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PASS "full"

/* --- the volume --------------------------------------------------------------------------------------------------- */

int srig_open(struct srig *r, bool read_only)
{
	const struct core_options o = {.io = r->io,
	                               .pass = PASS,
	                               .pass_len = strlen(PASS),
	                               .memory = r->memory,
	                               .commit_interval_ms = 3600 * 1000,
	                               .compress = {CODEC_ZSTD, -1},
	                               .compact_on_demand = r->on_demand,
	                               .read_only = read_only};

	return core_open(&o, &r->core, NULL);
}

void srig_init(struct srig *r, uint64_t disk, uint64_t memory)
{
	const struct core_format format = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};

	memset(r, 0, sizeof(*r));
	r->io = sim_new();
	r->rng = rng_seed(7);
	r->memory = memory;
	sim_limit(r->io, disk);
	assert_int_equal(core_format(r->io, &format, PASS, strlen(PASS), NULL), 0);
	assert_int_equal(srig_open(r, false), 0);
}

void srig_release(struct srig *r)
{
	if (r->core)
		assert_int_equal(core_close(r->core, NULL), 0);
	io_free(r->io);
}

void srig_leave(struct srig *r, uint64_t bytes)
{
	sim_limit(r->io, sim_used(r->io) + bytes);
}

bool srig_full(int ret)
{
	return ret == -ENOSPC || ret == -EDQUOT;
}

void srig_may_lack(int ret)
{
	assert_true(!ret || srig_full(ret));
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static void make_block(const struct srig *r, unsigned id, unsigned block, uint32_t version, uint8_t *buf)
{
	uint64_t state = rng_seed(((uint64_t)id << 48 | (uint64_t)block << 32 | version) + 1);

	memset(buf, 0, BLOCK);
	if (version)
		fill_random(&state, buf, r->compressible ? 64 : BLOCK);
}

char *srig_name(unsigned id)
{
	static char name[2][32];
	static unsigned turn;

	turn ^= 1;
	(void)snprintf(name[turn], sizeof(name[turn]), "f%u", id);
	return name[turn];
}

int srig_create(struct srig *r, const char *name, uint64_t *ino)
{
	const struct core_cred cred = {0};
	struct core_attr a;
	int ret = core_mknod(r->core, &cred, CORE_ROOT, name, S_IFREG | 0644, 0, &a);

	*ino = a.ino;
	if (!ret)
		core_forget(r->core, a.ino, 1);
	return ret;
}

uint64_t srig_lookup(struct srig *r, const char *name)
{
	struct core_attr a;

	if (core_lookup(r->core, CORE_ROOT, name, &a))
		return 0;
	core_forget(r->core, a.ino, 1);
	return a.ino;
}

int srig_write(struct srig *r, unsigned id, unsigned from, unsigned to)
{
	struct srig_file *f = &r->file[id];
	static uint8_t buf[BLOCK];
	struct core_file *file;
	uint64_t ino;
	int ret = 0;

	if (!f->exists) {
		ret = srig_create(r, srig_name(id), &ino);
		if (ret)
			return ret;
		*f = (struct srig_file){.exists = true};
	} else {
		ino = srig_lookup(r, srig_name(id));
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

void srig_scatter(struct srig *r, unsigned id)
{
	for (unsigned i = 1; i < BLOCKS; i += 2)
		assert_int_equal(srig_write(r, id, i, i + 1), 0);
}

int srig_sync_file(struct srig *r, unsigned id)
{
	int ret = core_fsync(r->core, srig_lookup(r, srig_name(id)), false);

	if (!ret) {
		memcpy(r->file[id].durable, r->file[id].version, sizeof(r->file[id].durable));
		r->file[id].named = true;
	}
	return ret;
}

int srig_sync(struct srig *r)
{
	int ret = core_sync(r->core);

	for (unsigned i = 0; i < FILES && !ret; i++) {
		memcpy(r->file[i].durable, r->file[i].version, sizeof(r->file[i].durable));
		r->file[i].named = r->file[i].exists;
	}
	return ret;
}

int srig_erase(struct srig *r, unsigned id)
{
	int ret = core_unlink(r->core, CORE_ROOT, srig_name(id));

	if (!ret)
		r->file[id] = (struct srig_file){0};
	return ret;
}

void srig_verify(struct srig *r, bool crashed)
{
	static uint8_t got[BLOCK], want[BLOCK];

	for (unsigned id = 0; id < FILES; id++) {
		struct srig_file *f = &r->file[id];
		uint64_t ino = srig_lookup(r, srig_name(id));
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

void srig_power_cut(struct srig *r, uint64_t seed)
{
	core_abandon(r->core);
	sim_crash(r->io, seed);
	assert_int_equal(srig_open(r, false), 0);
	srig_verify(r, true);
	/* What there is is what it is from now on. */
	for (unsigned i = 0; i < FILES; i++)
		if (srig_lookup(r, srig_name(i)))
			assert_int_equal(core_unlink(r->core, CORE_ROOT, srig_name(i)), 0);
	memset(r->file, 0, sizeof(r->file));
}

struct core_statfs srig_df(struct srig *r)
{
	struct core_statfs s;

	assert_int_equal(core_statfs(r->core, &s), 0);
	assert_true(s.avail <= s.free && s.free <= s.blocks);
	return s;
}
