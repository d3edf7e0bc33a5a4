#include "tests/core/support.h"

#include "pipeline/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* cmocka wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PASS         "correct horse"
#define WRITE_BLOCKS 16 /* of the longest write_blocks */

static struct clock_time clock_show(const struct clock *c)
{
	return test_clock_now((const struct test_clock *)c);
}

static uint64_t clock_monotonic(const struct clock *c)
{
	(void)c;
	return clock_system.monotonic(&clock_system);
}

void test_clock_init(struct test_clock *c, int64_t sec, uint32_t nsec)
{
	c->clock.now = clock_show;
	c->clock.monotonic = clock_monotonic;
	atomic_init(&c->sec, sec);
	atomic_init(&c->nsec, nsec);
}

void test_clock_set(struct test_clock *c, struct clock_time t)
{
	atomic_store(&c->sec, t.sec);
	atomic_store(&c->nsec, t.nsec);
}

void test_clock_step(struct test_clock *c)
{
	struct clock_time t = test_clock_now(c);

	t.sec++;
	t.nsec = (t.nsec + 7654321) % 1000000000;
	test_clock_set(c, t);
}

struct clock_time test_clock_now(const struct test_clock *c)
{
	return (struct clock_time){.sec = atomic_load(&c->sec), .nsec = atomic_load(&c->nsec)};
}

static void fixture_io(struct fixture *f)
{
	struct err e = {0};
	int ret = 0;

	f->io = f->disk;
	if (!f->disk)
		ret = io_posix_new(f->dir, &f->io, &e);
	if (ret)
		fail_msg("io_posix_new: %s", err_text(&e, ret));
	ret = f->disk ? 0 : io_lock(f->io);
	if (ret)
		fail_msg("io_lock: %s", strerror(-ret));
}

static void fixture_io_end(struct fixture *f)
{
	if (!f->disk)
		io_free(f->io);
	f->io = NULL;
}

static void fixture_format(struct fixture *f)
{
	const struct core_format format = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};
	struct err e = {0};
	int ret;

	test_clock_init(&f->clock, 1700000000, 123456789);
	fixture_io(f);
	ret = core_format(f->io, &format, PASS, strlen(PASS), &e);
	fixture_io_end(f);
	if (ret)
		fail_msg("core_format: %s", err_text(&e, ret));
	f->options = (struct core_options){
	    .pass = PASS,
	    .pass_len = strlen(PASS),
	    .memory = 32u << 20,
	    .blocks = (size_t)4 * WRITE_BLOCKS,
	    .commit_interval_ms = 3600 * 1000,
	    .compress = {CODEC_ZSTD, -1},
	    .no_compact = true,
	    .no_feedback = true, /* it goes by time */
	};
}

void fixture_init_on(struct fixture *f, struct io *disk)
{
	memset(f, 0, sizeof(*f));
	f->disk = disk;
	fixture_format(f);
}

void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	if (!scratch_new(f->dir))
		fail_msg("mkdtemp %s: %s", f->dir, strerror(errno));
	fixture_format(f);
}

int fixture_open(struct fixture *f)
{
	struct err e = {0};
	int ret;

	fixture_io(f);
	f->options.io = f->io;
	f->options.clock = &f->clock.clock;
	ret = core_open(&f->options, &f->core, &e);
	if (ret) {
		print_error("core_open: %s\n", err_text(&e, ret));
		fixture_io_end(f);
		f->core = NULL;
	}
	return ret;
}

int fixture_close(struct fixture *f)
{
	struct err e = {0};
	int ret = core_close(f->core, &e);

	if (ret)
		print_error("core_close: %s\n", err_text(&e, ret));
	fixture_io_end(f);
	f->core = NULL;
	return ret;
}

void fixture_abandon(struct fixture *f)
{
	core_abandon(f->core);
	fixture_io_end(f);
	f->core = NULL;
}

void fixture_remount(struct fixture *f)
{
	if (fixture_close(f) || fixture_open(f))
		fail_msg("remount failed");
}

void fixture_crash(struct fixture *f)
{
	if (f->core)
		fixture_abandon(f);
	if (fixture_open(f))
		fail_msg("open after a crash failed");
}

void fixture_discard(struct fixture *f)
{
	if (f->dir[0])
		scratch_free(f->dir);
	f->dir[0] = 0;
}

void fixture_release(struct fixture *f)
{
	if (f->core)
		fixture_abandon(f);
	fixture_discard(f);
}

/* nftw has no argument to hand on; the tests walk from one thread. */
static struct {
	uint64_t usage;
	const void *needle;
	size_t needle_len;
	bool found;
	char **paths;
	size_t npaths;
} walk;

static int walk_usage(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	if (flag == FTW_F && !(ftw->level == 1 && !strcmp(path + ftw->base, "reserve")))
		walk.usage += (uint64_t)st->st_blocks * 512;
	return 0;
}

void fixture_index_open(struct fixture *f, struct fixture_index *out)
{
	const struct secret pass = {SECRET_PASSPHRASE, PASS, strlen(PASS)};
	struct superblock *sb = NULL;
	struct keyring *k = NULL;
	struct err e = {0};
	int ret = io_posix_new(f->dir, &out->io, &e);

	if (!ret)
		ret = superblock_open(out->io, &sb, &e);
	if (!ret)
		ret = superblock_unlock(sb, &pass, &k, &e);
	if (!ret)
		ret = index_seal_init(&out->seal, sb, k, &e);
	if (!ret)
		ret = index_open(out->io, superblock_info(sb)->page_size, &out->seal.index, &out->index, &e);
	if (ret)
		fail_msg("opening the index: %s", err_text(&e, ret));
	keyring_free(k);
	superblock_free(sb);
}

void fixture_index_close(struct fixture_index *x)
{
	struct err e = {0};
	int ret = index_close(x->index, &e);

	if (ret)
		fail_msg("closing the index: %s", err_text(&e, ret));
	index_seal_release(&x->seal);
	io_free(x->io);
}

uint64_t fixture_disk_usage(const struct fixture *f, const char *sub)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, sub);
	walk.usage = 0;
	(void)nftw(path, walk_usage, 16, FTW_PHYS);
	return walk.usage;
}

static int walk_paths(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)ftw;
	if (flag != FTW_F || st->st_size <= SEGMENT_HEADER_LEN) /* one made ahead has a header alone */
		return 0;
	walk.paths = realloc(walk.paths, (walk.npaths + 1) * sizeof(*walk.paths));
	assert_non_null(walk.paths);
	walk.paths[walk.npaths] = strdup(path);
	assert_non_null(walk.paths[walk.npaths]);
	walk.npaths++;
	return 0;
}

char **fixture_segment_paths(const struct fixture *f, size_t *n)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/segments", f->dir);
	walk.paths = NULL;
	walk.npaths = 0;
	(void)nftw(path, walk_paths, 16, FTW_PHYS);
	*n = walk.npaths;
	return walk.paths;
}

unsigned fixture_segments(const struct fixture *f)
{
	size_t n;
	char **paths = fixture_segment_paths(f, &n);

	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
	return (unsigned)n;
}

static int walk_contains(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	void *map;
	int fd;

	if (flag != FTW_F || !st->st_size || !strcmp(path + ftw->base, "reserve"))
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	map = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	(void)close(fd);
	assert_ptr_not_equal(map, MAP_FAILED);
	if (memmem(map, (size_t)st->st_size, walk.needle, walk.needle_len))
		walk.found = true;
	(void)munmap(map, (size_t)st->st_size);
	return walk.found;
}

bool fixture_contains(const struct fixture *f, const char *sub, const void *needle, size_t len)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, sub);
	walk.needle = needle;
	walk.needle_len = len;
	walk.found = false;
	(void)nftw(path, walk_contains, 16, FTW_PHYS);
	return walk.found;
}

uint64_t rng_seed(uint64_t seed)
{
	uint64_t z = seed + 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return z ? z : 1;
}

uint64_t rng_next(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1du;
}

uint64_t rng_below(uint64_t *state, uint64_t n)
{
	return rng_next(state) % n;
}

void fill_random(uint64_t *state, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len) {
		uint64_t v = rng_next(state);
		size_t n = len < sizeof(v) ? len : sizeof(v);

		memcpy(p, &v, n);
		p += n;
		len -= n;
	}
}

static void fill_text(uint64_t *state, char *p, size_t len)
{
	static const char *const word[] = {"static ", "int ", "return ", "struct ",   "if (", ")\n\t",
	                                   "index",   "0;\n", "const ",  "uint64_t ", "= ",   "/* ",
	                                   "*/\n",    "the ", "file ",   "->"};

	while (len) {
		const char *w = word[rng_below(state, 16)];
		size_t n = strlen(w);

		if (n > len)
			n = len;
		memcpy(p, w, n);
		p += n;
		len -= n;
	}
}

void fill_data(uint64_t *state, void *buf, size_t len)
{
	switch (rng_below(state, 8)) {
	case 0:
	case 1:
	case 2:
		fill_random(state, buf, len);
		return;
	case 3:
		memset(buf, 0, len);
		return;
	case 4:
		memset(buf, (int)rng_below(state, 256), len);
		return;
	default:
		fill_text(state, buf, len);
	}
}

uint64_t env_number(const char *name, uint64_t fallback)
{
	const char *text = getenv(name);
	char *end;
	unsigned long long v;

	if (!text || !*text)
		return fallback;
	v = strtoull(text, &end, 10);
	return *end ? fallback : v;
}

int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	if (!f)
		return -1;
	fixture_init(f);
	if (!fixture_open(f))
		return 0;
	fixture_release(f); /* cmocka calls no teardown then */
	free(f);
	return -1;
}

int fixture_teardown(void **state)
{
	fixture_release(*state);
	free(*state);
	return 0;
}

uint64_t make(struct fixture *f, uint64_t parent, const char *name, uint32_t mode)
{
	const struct core_cred cred = {0, 0, 0};
	struct core_attr attr;
	int ret = core_mknod(f->core, &cred, parent, name, mode, 0, &attr);

	if (ret)
		fail_msg("mknod %s: %s", name, strerror(-ret));
	return attr.ino;
}

uint64_t find(struct fixture *f, uint64_t parent, const char *name)
{
	struct core_attr attr;
	int ret = core_lookup(f->core, parent, name, &attr);

	if (ret)
		fail_msg("lookup %s: %s", name, strerror(-ret));
	return attr.ino;
}

struct core_attr attr_of(struct fixture *f, uint64_t ino)
{
	struct core_attr attr = {0};
	int ret = core_getattr(f->core, ino, &attr);

	if (ret)
		fail_msg("getattr %llu: %s", (unsigned long long)ino, strerror(-ret));
	return attr;
}

void put(struct fixture *f, uint64_t ino, const void *buf, size_t len, uint64_t off)
{
	struct core_file *file;
	int ret = core_file_open(f->core, ino, O_RDWR, &file);

	if (ret)
		fail_msg("open %llu: %s", (unsigned long long)ino, strerror(-ret));
	ret = core_file_write(file, buf, len, off, 0);
	if (ret)
		fail_msg("write %llu: %s", (unsigned long long)ino, strerror(-ret));
	core_file_close(file);
}

int write_blocks(struct fixture *f, struct core_file *file, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	void *block[WRITE_BLOCKS];
	size_t n = (len + POOL_BLOCK - 1) / POOL_BLOCK;
	int ret;

	if (n > WRITE_BLOCKS)
		fail_msg("%zu bytes are too many", len);
	ret = core_blocks_get(f->core, block, n);
	if (ret)
		return ret;
	for (size_t at = 0, i = 0; at < len; at += POOL_BLOCK, i++)
		memcpy(block[i], (const uint8_t *)buf + at, len - at < POOL_BLOCK ? len - at : POOL_BLOCK);
	ret = core_file_write_blocks(file, block, len, off, flags);
	for (size_t i = 0; i < n; i++)
		memset(block[i], 0xee, POOL_BLOCK);
	core_blocks_put(f->core, block, n);
	return ret;
}

size_t get(struct fixture *f, uint64_t ino, void *buf, size_t len, uint64_t off)
{
	struct core_file *file;
	int ret = core_file_open(f->core, ino, O_RDONLY, &file);
	ssize_t n;

	if (ret)
		fail_msg("open %llu: %s", (unsigned long long)ino, strerror(-ret));
	n = core_file_read(file, buf, len, off);
	if (n < 0)
		fail_msg("read %llu: %s", (unsigned long long)ino, strerror((int)-n));
	core_file_close(file);
	return (size_t)n;
}

void sync_all(struct fixture *f)
{
	int ret = core_sync(f->core);

	if (ret)
		fail_msg("sync: %s", strerror(-ret));
}

void lose_file(struct core_file *file)
{
	static struct core_file **lost;
	static size_t count;

	lost = realloc(lost, (count + 1) * sizeof(struct core_file *));
	assert_non_null(lost);
	lost[count++] = file;
}
