#include "tests/crash/small.h"

#include "pipeline/superblock.h"
#include "tests/core/support.h"
#include "tests/sim/sim.h"
#include "tests/sim/tame.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define TEXT "what a file holds"

struct moment {
	struct io *copy;
	uint64_t number;
	unsigned class;
};

struct moments {
	struct moment *list;
	size_t count;
};

static void record(void *arg, struct io *copy, uint64_t number, unsigned class, const char *path)
{
	struct moments *m = arg;

	(void)path;
	m->list = realloc(m->list, (m->count + 1) * sizeof(struct moment));
	if (!m->list)
		abort();
	m->list[m->count++] = (struct moment){copy, number, class};
}

static void moments_release(struct moments *m)
{
	for (size_t i = 0; i < m->count; i++)
		io_free(m->list[i].copy);
	free(m->list);
	*m = (struct moments){0};
}

struct trial {
	const char *name;
	uint64_t seed, rng;
	const struct moment *moment;
	uint64_t image_seed;
	struct small_result done;
};

static void failed(const struct trial *t, const char *what, int ret, const struct err *e)
{
	print_error(
	    "%s seed %llu: power cut after operation %llu (%s), image %llu: %s: %s\nrun it again: crash_loop %s "
	    "%llu\n",
	    t->name, (unsigned long long)t->seed, (unsigned long long)t->moment->number,
	    sim_class_name(t->moment->class), (unsigned long long)t->image_seed, what, ret ? err_text(e, ret) : "",
	    t->name, (unsigned long long)t->seed);
	exit(1);
}

/* A copy of the moment without its power. */
static struct io *image_of(struct trial *t, const struct moment *m)
{
	struct io *image = sim_clone(m->copy);

	t->moment = m;
	t->image_seed = rng_next(&t->rng);
	if (t->image_seed % 16 == 0)
		sim_crash_last(image);
	else
		sim_crash(image, t->image_seed % 16 == 1 ? 0 : t->image_seed);
	t->done.images++;
	return image;
}

static int volume_open(struct io *io, const struct secret *s, struct core **c, struct err *e)
{
	const struct core_options o = {.io = io,
	                               .pass = s->data,
	                               .pass_len = s->len,
	                               .pass_type = s->type,
	                               .memory = 16u << 20,
	                               .commit_interval_ms = 3600 * 1000,
	                               .compress = {CODEC_ZSTD, -1},
	                               .workers = 2};

	return core_open(&o, c, e);
}

/* Writes the file, or finds it. */
static int volume_use(struct core *c, bool write)
{
	const struct core_cred cred = {0, 0, 0};
	struct core_attr attr;
	struct core_file *f;
	char back[sizeof(TEXT)];
	int ret = write ? core_mknod(c, &cred, CORE_ROOT, "file", S_IFREG | 0644, 0, &attr)
	                : core_lookup(c, CORE_ROOT, "file", &attr);

	if (!ret)
		ret = core_file_open(c, attr.ino, O_RDWR, &f);
	if (ret)
		return ret;
	if (write)
		ret = core_file_write(f, TEXT, sizeof(TEXT), 0, 0);
	else if (core_file_read(f, back, sizeof(back), 0) != sizeof(back) || memcmp(back, TEXT, sizeof(back)) != 0)
		ret = -EIO;
	core_file_close(f);
	return ret;
}

/* Opens the volume, uses it and closes it. */
static int volume_try(struct io *io, const struct secret *s, bool write, struct err *e)
{
	struct core *c;
	int ret = volume_open(io, s, &c, e), closed;

	if (ret)
		return ret;
	ret = volume_use(c, write);
	closed = core_close(c, e);
	return ret ? ret : closed;
}

/* --- formatting --------------------------------------------------------------------------------------------------- */

static const struct secret pass_a = {SECRET_PASSPHRASE, "passphrase a", 12};
static const struct secret pass_b = {SECRET_PASSPHRASE, "the passphrase b", 16};
static const struct core_format cheap = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};

static void init_judge(struct trial *t, struct io *image, unsigned depth);

static void init_cuts(struct trial *t, struct moments *m, unsigned images, unsigned depth)
{
	for (size_t i = 0; i < m->count; i++) {
		t->done.cuts++;
		for (unsigned k = 0; k < images; k++)
			init_judge(t, image_of(t, &m->list[i]), depth);
	}
	moments_release(m);
}

/* Either it is a store, or it can be made one; image is ours. */
static void init_judge(struct trial *t, struct io *image, unsigned depth)
{
	struct moments again = {0};
	struct err e = {0};
	int ret;

	if (depth)
		sim_record(image, record, &again);
	ret = core_format(image, &cheap, pass_a.data, pass_a.len, &e);
	sim_record(image, NULL, NULL);
	if (ret && ret != -EEXIST)
		failed(t, "formatting cannot be repeated", ret, &e);
	err_reset(&e);
	ret = volume_try(image, &pass_a, true, &e);
	if (!ret)
		ret = volume_try(image, &pass_a, false, &e);
	if (ret)
		failed(t, "the store does not open", ret, &e);
	io_free(image);
	if (!depth || rng_below(&t->rng, 60))
		moments_release(&again);
	else
		init_cuts(t, &again, 1, depth - 1);
}

/* What has returned is durable. */
static void init_done(struct trial *t, struct io *io, unsigned images)
{
	const struct moment done = {io, sim_count(io, SIM_ANY), SIM_SYNC_DIR};
	struct err e = {0};

	for (unsigned k = 0; k < images; k++) {
		struct io *image = image_of(t, &done);
		int ret = volume_try(image, &pass_a, true, &e);

		if (ret)
			failed(t, "a store that was made does not open", ret, &e);
		io_free(image);
	}
}

struct small_result small_init(uint64_t seed, unsigned images)
{
	struct trial t = {.name = "init", .seed = seed, .rng = rng_seed(seed)};
	struct io *io = sim_new();
	struct moments m = {0};

	tame(seed);
	sim_record(io, record, &m);
	assert_int_equal(core_format(io, &cheap, pass_a.data, pass_a.len, NULL), 0);
	sim_record(io, NULL, NULL);
	init_done(&t, io, 16 * images);
	io_free(io);
	init_cuts(&t, &m, images, 2);
	return t.done;
}

/* --- key slots ---------------------------------------------------------------------------------------------------- */

static const uint8_t recovery_key[KEYS_LEN] = {1, 2, 3};
static const struct secret recovery = {SECRET_RECOVERY, recovery_key, sizeof(recovery_key)};

struct unlocked {
	struct superblock *sb;
	struct keyring *k;
};

static struct unlocked unlock(struct io *io, const struct secret *s)
{
	struct unlocked u;

	assert_int_equal(superblock_open(io, &u.sb, NULL), 0);
	assert_int_equal(superblock_unlock(u.sb, s, &u.k, NULL), 0);
	return u;
}

static void lock(struct unlocked *u)
{
	keyring_free(u->k);
	superblock_free(u->sb);
}

enum change { CHANGE_PASSPHRASE, ADD_SLOT, REMOVE_SLOT, REPAIR, CHANGES };

/* The secrets that open the store before and after the change. */
static const struct secret *const before[CHANGES] = {&pass_a, &pass_b, &pass_b, &pass_b};
static const struct secret *const after[CHANGES] = {&pass_b, &recovery, &pass_b, &pass_b};

static int change_make(struct io *io, enum change change)
{
	const struct superblock_kdf kdf = {1, 8u << 20};
	const struct superblock_slot new_pass = {.secret = &pass_b, .kdf = kdf},
				     new_key = {.secret = &recovery, .label = "printed"};
	struct unlocked u = unlock(io, before[change]);
	unsigned number;
	int ret = 0;

	switch (change) {
	case CHANGE_PASSPHRASE:
		ret = superblock_slot_change(io, u.sb, u.k, &new_pass, NULL);
		break;
	case ADD_SLOT:
		ret = superblock_slot_add(io, u.sb, u.k, &new_key, &number, NULL);
		break;
	case REMOVE_SLOT:
		ret = superblock_slot_remove(io, u.sb, u.k, 1, NULL);
		break;
	default:
		ret = superblock_repair(io, u.sb, u.k, NULL);
	}
	lock(&u);
	return ret;
}

static void keys_judge(struct trial *t, struct io *image, enum change change)
{
	struct err e = {0}, other = {0};
	int ret = volume_try(image, before[change], false, &e);

	if (ret == -EKEYREJECTED && change == CHANGE_PASSPHRASE)
		ret = volume_try(image, after[change], false, &other);
	if (ret)
		failed(t, "no secret opens the store", ret, e.code ? &e : &other);
	io_free(image);
}

static void keys_done(struct trial *t, struct io *io, enum change change, unsigned images)
{
	const struct moment done = {io, sim_count(io, SIM_ANY), SIM_SYNC_DIR};
	struct err e = {0};

	for (unsigned k = 0; k < images; k++) {
		struct io *image = image_of(t, &done);
		int ret = volume_try(image, after[change], false, &e);

		if (!ret && change == CHANGE_PASSPHRASE &&
		    volume_try(image, before[change], false, NULL) != -EKEYREJECTED)
			failed(t, "the old passphrase opens the store", 0, NULL);
		if (ret)
			failed(t, "a change that was made is lost", ret, &e);
		io_free(image);
	}
}

struct small_result small_keys(uint64_t seed, unsigned images)
{
	struct trial t = {.name = "keys", .seed = seed, .rng = rng_seed(seed)};
	struct io *io = sim_new();

	tame(seed);
	assert_int_equal(core_format(io, &cheap, pass_a.data, pass_a.len, NULL), 0);
	assert_int_equal(volume_try(io, &pass_a, true, NULL), 0);
	for (enum change change = 0; change < CHANGES; change++) {
		struct moments m = {0};
		if (change == REPAIR)
			assert_int_equal(sim_raw_flip(io, rng_below(&t.rng, 2) ? "superblock" : "superblock.bak", 9000),
			                 0);
		sim_record(io, record, &m);
		assert_int_equal(change_make(io, change), 0);
		sim_record(io, NULL, NULL);
		assert_true(m.count > 5);
		for (size_t i = 0; i < m.count; i++) {
			t.done.cuts++;
			for (unsigned k = 0; k < images; k++)
				keys_judge(&t, image_of(&t, &m.list[i]), change);
		}
		moments_release(&m);
		keys_done(&t, io, change, 4 * images);
	}
	io_free(io);
	return t.done;
}
