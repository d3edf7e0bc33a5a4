/* The simulated STORE itself: what a power cut may take and what not, faults, limits, and the same results as POSIX. */
#include "tests/base/cmocka_all.h"
#include "tests/base/scratch.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <string.h>

#define SEEDS 400

static void put(struct io *io, const char *path, const char *text, bool sync)
{
	struct io_file *f;

	assert_int_equal(io_open(io, path, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_pwrite(f, text, strlen(text), 0), 0);
	if (sync)
		assert_int_equal(io_sync(f), 0);
	io_close(f);
}

/* The file's text, or "-" where there is none. */
static const char *text(struct io *io, const char *path)
{
	static char buf[256];
	ssize_t n = sim_raw_read(io, path, buf, sizeof(buf) - 1, 0);

	if (n < 0)
		return "-";
	buf[n] = 0;
	return buf;
}

static void test_sync(void **state)
{
	struct io *io = sim_new();

	(void)state;
	put(io, "a", "old", true);
	put(io, "b", "gone", true);
	assert_int_equal(io_sync_dir(io, ""), 0);
	put(io, "a", "new", false);
	put(io, "c", "unnamed", true);
	assert_int_equal(io_unlink(io, "b"), 0);
	assert_string_equal(text(io, "a"), "new");
	assert_string_equal(text(io, "b"), "-");
	sim_crash(io, 0);
	assert_string_equal(text(io, "a"), "old");
	assert_string_equal(text(io, "b"), "gone");
	assert_string_equal(text(io, "c"), "-");
	put(io, "a", "new", true);
	assert_int_equal(io_unlink(io, "b"), 0);
	put(io, "c", "named", true);
	assert_int_equal(io_sync_dir(io, ""), 0);
	sim_crash(io, 0);
	assert_string_equal(text(io, "a"), "new");
	assert_string_equal(text(io, "b"), "-");
	assert_string_equal(text(io, "c"), "named");
	assert_string_equal(sim_names(io), "a b c ");
	io_free(io);
}

/* A directory that was never synced takes with it what is in it. */
static void test_directories(void **state)
{
	struct io *io = sim_new(), *copy;

	(void)state;
	assert_int_equal(io_mkdir(io, "d"), 0);
	put(io, "d/a", "text", true);
	assert_int_equal(io_sync_dir(io, "d"), 0);
	copy = sim_clone(io);
	sim_crash(copy, 0);
	assert_string_equal(text(copy, "d/a"), "-");
	io_free(copy);
	assert_int_equal(io_sync_dir(io, ""), 0);
	sim_crash(io, 0);
	assert_string_equal(text(io, "d/a"), "text");
	io_free(io);
}

/* A rename is whole, and durable once both directories are. */
static void test_rename(void **state)
{
	struct io *io = sim_new();
	unsigned before = 0, after = 0;

	(void)state;
	assert_int_equal(io_mkdir(io, "d"), 0);
	put(io, "a", "new", true);
	put(io, "d/b", "old", true);
	assert_int_equal(io_sync_dir(io, ""), 0);
	assert_int_equal(io_sync_dir(io, "d"), 0);
	assert_int_equal(io_rename(io, "a", "d/b"), 0);
	for (unsigned synced = 0; synced < 2; synced++) {
		for (uint64_t seed = 0; seed < SEEDS; seed++) {
			struct io *copy = sim_clone(io);
			sim_crash(copy, seed);
			bool moved = !strcmp(text(copy, "a"), "-");
			assert_string_equal(text(copy, "d/b"), moved ? "new" : "old");
			moved ? after++ : before++;
			io_free(copy);
		}
		assert_true(before > 10 && after > 10);
		assert_int_equal(io_sync_dir(io, synced ? "" : "d"), 0);
	}
	sim_crash(io, 0);
	assert_string_equal(text(io, "a"), "-");
	assert_string_equal(text(io, "d/b"), "new");
	io_free(io);
}

/* The changes of one name keep their order; those of others do not. */
static void test_names(void **state)
{
	unsigned seen[3] = {0}, only_second = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct io *io = sim_new();
		put(io, "a.new", "one", true);
		assert_int_equal(io_rename(io, "a.new", "a"), 0);
		put(io, "b", "text", true);
		put(io, "a.new", "two", true);
		assert_int_equal(io_rename(io, "a.new", "a"), 0);
		sim_crash(io, seed);
		const char *a = text(io, "a");
		unsigned is = !strcmp(a, "one") ? 1 : !strcmp(a, "two") ? 2 : 0;
		assert_true(is || !strcmp(a, "-"));
		if (is == 2)
			assert_string_equal(text(io, "a.new"), "-");
		seen[is]++;
		only_second += !is && !strcmp(text(io, "b"), "text");
		io_free(io);
	}
	assert_true(seen[0] > 10 && seen[1] > 10 && seen[2] > 10 && only_second > 0);
}

/* What one crash left of three pending writes of 8 sectors: 'a' under 'b' and 'c', which overlap in the middle. */
static void look(struct io *io, unsigned *whole, unsigned *torn, unsigned *swapped)
{
	char buf[12 * 512];
	unsigned count[4] = {0};

	assert_int_equal(sim_raw_read(io, "f", buf, sizeof(buf), 0), sizeof(buf));
	for (size_t i = 0; i < 12; i++) {
		for (size_t k = 1; k < 512; k++)
			assert_int_equal(buf[i * 512 + k], buf[i * 512]);
		const char *kinds = "oabc", *kind = strchr(kinds, buf[i * 512]);
		assert_non_null(kind);
		assert_true(*kind != 'b' || i < 8);
		assert_true(*kind != 'c' || i >= 4);
		count[kind - kinds]++;
	}
	*whole += count[0] == 12 || (count[2] == 4 && count[3] == 8);
	*torn += count[1] && count[0];
	*swapped += count[3] == 8 && !count[2];
}

static void test_torn(void **state)
{
	unsigned whole = 0, torn = 0, swapped = 0;
	char buf[12 * 512];
	struct io_file *f;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct io *io = sim_new();
		assert_int_equal(io_open(io, "f", IO_WRITE | IO_CREATE, &f), 0);
		memset(buf, 'o', sizeof(buf));
		assert_int_equal(io_pwrite(f, buf, sizeof(buf), 0), 0);
		assert_int_equal(io_sync(f), 0);
		assert_int_equal(io_sync_dir(io, ""), 0);
		memset(buf, 'a', sizeof(buf));
		assert_int_equal(io_pwrite(f, buf, sizeof(buf), 0), 0);
		memset(buf, 'b', sizeof(buf));
		assert_int_equal(io_pwrite(f, buf, 8 * 512, 0), 0);
		memset(buf, 'c', sizeof(buf));
		assert_int_equal(io_pwrite(f, buf, 8 * 512, 4 * 512), 0);
		io_close(f);
		struct io *again = sim_clone(io);
		sim_crash(io, seed);
		sim_crash(again, seed);
		assert_int_equal(sim_raw_read(again, "f", buf, sizeof(buf), 0), sizeof(buf));
		char other[sizeof(buf)];
		assert_int_equal(sim_raw_read(io, "f", other, sizeof(other), 0), sizeof(other));
		assert_memory_equal(buf, other, sizeof(buf));
		look(io, &whole, &torn, &swapped);
		io_free(io);
		io_free(again);
	}
	assert_true(whole > 20 && torn > 20 && swapped > 5);
}

/* Sizes are pending too, and a size may be durable without the bytes. */
static void test_sizes(void **state)
{
	unsigned zeroes = 0, longer = 0;

	(void)state;
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct io *io = sim_new();
		struct io_file *f;
		char byte;
		uint64_t size;
		put(io, "f", "0123456789", true);
		assert_int_equal(io_sync_dir(io, ""), 0);
		assert_int_equal(io_open(io, "f", IO_WRITE, &f), 0);
		assert_int_equal(io_truncate(f, 4), 0);
		assert_int_equal(io_pwrite(f, "x", 1, 4096), 0);
		assert_int_equal(io_allocate(f, 8000, 1000), 0);
		io_close(f);
		sim_crash(io, seed);
		assert_int_equal(sim_raw_size(io, "f", &size), 0);
		assert_true(size == 10 || size == 4 || size == 4097 || size == 9000);
		longer += size == 9000;
		if (size >= 4097) {
			assert_int_equal(sim_raw_read(io, "f", &byte, 1, 4096), 1);
			assert_true(byte == 'x' || byte == 0);
			zeroes += !byte;
		}
		if (!seed)
			assert_int_equal(size, 10);
		io_free(io);
	}
	assert_true(zeroes > 5 && longer > 20);
}

static void test_clone(void **state)
{
	struct io *io = sim_new(), *copy;

	(void)state;
	put(io, "a", "old", true);
	assert_int_equal(io_sync_dir(io, ""), 0);
	put(io, "a", "pending", false);
	copy = sim_clone(io);
	put(io, "a", "changed", true);
	put(copy, "b", "other", true);
	assert_string_equal(text(copy, "a"), "pending");
	assert_string_equal(text(io, "b"), "-");
	sim_crash(copy, 0);
	assert_string_equal(text(copy, "a"), "old");
	io_free(io);
	assert_string_equal(text(copy, "a"), "old");
	io_free(copy);
}

static void test_file_lock(struct io *io)
{
	struct io_file *f, *g;

	assert_int_equal(io_open(io, "lock", IO_WRITE | IO_CREATE | IO_LOCK, &f), 0);
	assert_int_equal(io_open(io, "lock", IO_WRITE | IO_LOCK, &g), -EBUSY);
	io_close(f);
	assert_int_equal(io_open(io, "lock", IO_READ | IO_LOCK, &f), 0);
	assert_int_equal(io_open(io, "lock", IO_READ | IO_LOCK, &g), 0);
	io_close(f);
	assert_int_equal(io_open(io, "lock", IO_WRITE | IO_LOCK, &f), -EBUSY);
	io_close(g);
	assert_int_equal(io_open(io, "lock", IO_WRITE | IO_LOCK, &f), 0);
	io_close(f);
}

static void test_faults(void **state)
{
	struct io *io = sim_new();
	struct io_file *f;
	char buf[8];

	(void)state;
	assert_int_equal(io_open(io, "f", IO_WRITE | IO_CREATE, &f), 0);
	sim_arm(io, &(struct sim_fault){.classes = SIM_WRITE, .nth = 2, .error = -EIO, .percent = 50});
	assert_int_equal(io_pwrite(f, "abcd", 4, 0), 0);
	assert_false(sim_failed(io));
	assert_int_equal(io_sync(f), 0);
	assert_int_equal(io_pwrite(f, "efgh", 4, 4), -EIO);
	assert_true(sim_failed(io));
	assert_string_equal(text(io, "f"), "abcdef");
	assert_int_equal(io_pwrite(f, "efgh", 4, 4), 0);
	sim_arm(io, &(struct sim_fault){.classes = SIM_READ | SIM_STAT, .nth = 1, .error = -EINTR, .lasting = true});
	assert_int_equal(io_pread(f, buf, 1, 0), -EINTR);
	assert_int_equal(io_pread(f, buf, 1, 0), -EINTR);
	assert_int_equal(io_sync(f), 0);
	sim_arm(io, NULL);
	assert_int_equal(io_pread(f, buf, 8, 0), 8);
	assert_int_equal(sim_count(io, SIM_READ), 3);
	assert_int_equal(sim_count(io, SIM_WRITE | SIM_SYNC), 5);
	assert_int_equal(io_lock(io), 0);
	assert_int_equal(io_lock(io), -EBUSY);
	test_file_lock(io);
	/* The power goes: nothing after it happens, itself perhaps. */
	sim_arm(io, &(struct sim_fault){.classes = SIM_CHANGE, .nth = 1, .cut = true});
	assert_int_equal(io_pwrite(f, "ABCD", 4, 0), -EIO);
	assert_int_equal(io_pwrite(f, "....", 4, 4), -EIO);
	assert_int_equal(io_sync(f), -EIO);
	assert_int_equal(io_sync_dir(io, ""), -EIO);
	assert_int_equal(io_pread(f, buf, 8, 0), -EIO);
	io_close(f);
	assert_string_equal(text(io, "f"), "ABCDefgh");
	sim_crash(io, 0);
	assert_string_equal(text(io, "f"), "-");
	assert_int_equal(io_lock(io), 0);
	io_free(io);
}

/* After a failed sync what was pending may be lost, and a later sync does not bring it back. */
static void test_failed_sync(void **state)
{
	unsigned lost = 0, kept = 0;

	(void)state;
	for (unsigned n = 0; n < 20; n++) {
		struct io *io = sim_new();
		struct io_file *f;
		put(io, "f", "old", true);
		assert_int_equal(io_sync_dir(io, ""), 0);
		assert_int_equal(io_open(io, "f", IO_WRITE, &f), 0);
		for (unsigned k = 0; k <= n; k++) {
			assert_int_equal(io_pwrite(f, k & 1 ? "one" : "two", 3, 0), 0);
			sim_arm(io, &(struct sim_fault){.classes = SIM_SYNC, .nth = 1, .error = -EIO});
			assert_int_equal(io_sync(f), -EIO);
		}
		assert_string_equal(text(io, "f"), n & 1 ? "one" : "two");
		io_close(f);
		sim_crash(io, 1);
		strcmp(text(io, "f"), n & 1 ? "one" : "two") ? lost++ : kept++;
		io_free(io);
	}
	assert_true(lost && kept);
}

static void test_limit(void **state)
{
	struct io *io = sim_new();
	struct io_space space;
	struct io_file *f, *g;
	char buf[8192] = {1};
	uint64_t size;

	(void)state;
	sim_limit(io, 16384);
	assert_int_equal(io_open(io, "f", IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_open(io, "g", IO_WRITE | IO_CREATE, &g), 0);
	assert_int_equal(io_allocate(f, 0, 8192), 0);
	assert_int_equal(io_pwrite(f, buf, sizeof(buf), 0), 0);
	assert_int_equal(io_truncate(f, 1 << 20), 0);
	assert_int_equal(io_allocate(g, 0, 8193), -ENOSPC);
	assert_int_equal(io_pwrite(g, buf, 4096, 0), 0);
	assert_int_equal(io_pwrite(g, buf, 8192, 4000), -ENOSPC);
	assert_int_equal(sim_raw_size(io, "g", &size), 0);
	assert_int_equal(size, 8192);
	assert_int_equal(io_space(io, &space), 0);
	assert_true(space.total == 16384 && space.avail == 0);
	/* Bytes that are allocated can be written; a file that is open takes its space until it is closed. */
	assert_int_equal(io_pwrite(f, buf, sizeof(buf), 0), 0);
	assert_int_equal(io_unlink(io, "f"), 0);
	assert_int_equal(io_pwrite(g, buf, 4096, 8192), -ENOSPC);
	io_close(f);
	assert_int_equal(io_pwrite(g, buf, 4096, 8192), 0);
	sim_quota(io, 16384);
	assert_int_equal(io_pwrite(g, buf, 8192, 12288), -EDQUOT);
	assert_int_equal(io_space(io, &space), 0);
	assert_true(space.avail > 1u << 30);
	io_close(g);
	io_free(io);
}

static void count_copies(void *arg, struct io *copy, uint64_t number, unsigned class, const char *path)
{
	unsigned *seen = arg;

	assert_true(number && class & SIM_CHANGE && *path == 'f');
	assert_true(*sim_class_name(class));
	*seen = *seen * 10 + (strcmp(text(copy, "f"), "-") ? (unsigned)strlen(text(copy, "f")) : 9);
	io_free(copy);
}

static void test_record(void **state)
{
	struct io *io = sim_new();
	unsigned seen = 0;

	(void)state;
	sim_record(io, count_copies, &seen);
	put(io, "f", "abc", true);
	assert_string_equal(text(io, "f"), "abc");
	assert_int_equal(io_unlink(io, "f"), 0);
	sim_record(io, NULL, NULL);
	put(io, "f", "abc", true);
	assert_int_equal(seen, 339); /* the first of 0339 */
	io_free(io);
}

static int walk(void *arg, const char *path, uint64_t size)
{
	char *all = arg;

	(void)snprintf(all + strlen(all), 64, "%s %u, ", path, (unsigned)size);
	return 0;
}

static void test_raw(void **state)
{
	struct io *io = sim_new(), *to = sim_new();
	char all[256] = "";

	(void)state;
	assert_int_equal(io_mkdir(io, "d"), 0);
	put(io, "d/b", "bb", false);
	put(io, "a", "aaa", false);
	assert_int_equal(sim_raw_walk(io, walk, all), 0);
	assert_string_equal(all, "a 3, d/b 2, ");
	assert_int_equal(sim_raw_swap(io, "a", "d/b"), 0);
	assert_int_equal(sim_raw_copy(io, "a", "d/c"), 0);
	assert_string_equal(text(io, "d/c"), "bb");
	assert_int_equal(sim_raw_flip(io, "a", 8), 0);
	assert_string_equal(text(io, "a"), "bc");
	assert_string_equal(text(io, "d/c"), "bb");
	assert_int_equal(sim_raw_flip(io, "a", 16), -ERANGE);
	assert_int_equal(sim_raw_truncate(io, "d/b", 1), 0);
	assert_int_equal(sim_raw_export(io, to), 0);
	assert_string_equal(text(to, "d/b"), "a");
	assert_string_equal(text(to, "d/c"), "bb");
	assert_int_equal(sim_raw_remove(io, "a"), 0);
	assert_int_equal(sim_raw_remove(io, "d"), -ENOENT);
	assert_string_equal(text(io, "a"), "-");
	io_free(io);
	io_free(to);
}

/* --- the same as POSIX -------------------------------------------------------------------------------------------- */

struct pair {
	struct io *sim, *posix;
	struct io_file *file[2];
	char paths[8][8];
	unsigned seed;
};

static unsigned roll(struct pair *p, unsigned n)
{
	return (unsigned)rand_r(&p->seed) % n;
}

static const char *any_path(struct pair *p)
{
	return p->paths[roll(p, 8)];
}

static int count_names(void *arg, const char *name)
{
	*(unsigned *)arg += (unsigned)strlen(name) * 1000 + 1;
	return 0;
}

static void both_stat(struct pair *p)
{
	struct io_stat a, b;
	unsigned sum[2] = {0};
	const char *path = any_path(p);
	int ret = io_stat(p->sim, path, &a);

	assert_int_equal(ret, io_stat(p->posix, path, &b));
	if (!ret)
		assert_true(a.dir == b.dir && (a.dir || a.size == b.size));
	assert_int_equal(io_list(p->sim, path, count_names, &sum[0]), io_list(p->posix, path, count_names, &sum[1]));
	assert_int_equal(sum[0], sum[1]);
}

static void both_open(struct pair *p)
{
	static const unsigned flags[] = {IO_READ, IO_WRITE, IO_WRITE | IO_CREATE, IO_WRITE | IO_CREATE | IO_EXCL};
	unsigned how = flags[roll(p, 4)];
	const char *path = any_path(p);

	io_close(p->file[0]);
	io_close(p->file[1]);
	p->file[0] = p->file[1] = NULL;
	int ret = io_open(p->sim, path, how, &p->file[0]);
	assert_int_equal(ret, io_open(p->posix, path, how, &p->file[1]));
	if (!ret && how == IO_READ) {
		io_close(p->file[0]);
		io_close(p->file[1]);
		p->file[0] = p->file[1] = NULL;
	}
}

static void both_file(struct pair *p)
{
	char a[9000], b[9000];
	uint64_t off = roll(p, 20000), size[2];
	size_t len = roll(p, 9000);

	if (!p->file[0])
		return;
	memset(a, (int)roll(p, 256), sizeof(a));
	switch (roll(p, 4)) {
	case 0:
		assert_int_equal(io_truncate(p->file[0], off), io_truncate(p->file[1], off));
		break;
	case 1:
		assert_int_equal(io_allocate(p->file[0], off, len + 1), io_allocate(p->file[1], off, len + 1));
		break;
	default:
		assert_int_equal(io_pwrite(p->file[0], a, len, off), io_pwrite(p->file[1], a, len, off));
	}
	off = roll(p, 20000);
	ssize_t n = io_pread(p->file[0], a, len, off);
	assert_int_equal(n, io_pread(p->file[1], b, len, off));
	assert_memory_equal(a, b, (size_t)n);
	assert_true(!io_size(p->file[0], &size[0]) && !io_size(p->file[1], &size[1]) && size[0] == size[1]);
}

static void test_posix(void **state)
{
	static const char *const paths[8] = {"a", "b", "d", "e", "d/a", "d/b", "e/d", "a/b"};
	struct pair p = {.sim = sim_new(), .seed = 1};
	char dir[SCRATCH_PATH];

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		(void)snprintf(p.paths[i], sizeof(p.paths[i]), "%s", paths[i]);
	assert_true(scratch_new(dir));
	assert_int_equal(io_posix_new(dir, &p.posix, NULL), 0);
	for (unsigned i = 0; i < 20000; i++) {
		const char *path = any_path(&p), *to = any_path(&p);
		switch (roll(&p, 8)) {
		case 0:
			assert_int_equal(io_unlink(p.sim, path), io_unlink(p.posix, path));
			break;
		case 1:
			assert_int_equal(io_rename(p.sim, path, to), io_rename(p.posix, path, to));
			break;
		case 2:
			if (roll(&p, 4) == 0)
				assert_int_equal(io_mkdir(p.sim, path), io_mkdir(p.posix, path));
			break;
		case 3:
			assert_int_equal(io_sync_dir(p.sim, path), io_sync_dir(p.posix, path));
			break;
		case 4:
			both_stat(&p);
			break;
		case 5:
			both_open(&p);
			break;
		default:
			both_file(&p);
		}
	}
	io_close(p.file[0]);
	io_close(p.file[1]);
	io_free(p.sim);
	io_free(p.posix);
	scratch_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sync),  cmocka_unit_test(test_directories), cmocka_unit_test(test_rename),
	    cmocka_unit_test(test_names), cmocka_unit_test(test_torn),        cmocka_unit_test(test_sizes),
	    cmocka_unit_test(test_clone), cmocka_unit_test(test_faults),      cmocka_unit_test(test_failed_sync),
	    cmocka_unit_test(test_limit), cmocka_unit_test(test_record),      cmocka_unit_test(test_raw),
	    cmocka_unit_test(test_posix),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
