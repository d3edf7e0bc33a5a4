/*
 * What is left of keys in the memory of a process that has closed a volume: nothing. A child, whose memory is not ours,
 * tells which bytes to look for, and tells them masked, so that looking does not find itself.
 */
#include "base/log.h"
#include "fs/core/core.h"
#include "pipeline/keyring.h"
#include "pipeline/superblock.h"
#include "tests/core/support.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MASK 0xA5u

enum { PASS, ROOT, MASTER, DATABASE, WAL, SEGMENTS, NEEDLES = SEGMENTS + 8 };

struct needles {
	unsigned count;
	uint8_t masked[NEEDLES][KEYS_LEN];
};

static void mask(uint8_t *out, const uint8_t *in)
{
	for (size_t i = 0; i < KEYS_LEN; i++)
		out[i] = in[i] ^ MASK;
}

/* --- the child ---------------------------------------------------------------------------------------------------- */

struct finding {
	const struct keyring *k;
	struct io *io;
	struct needles *n;
};

/* docs/FORMAT.md: the salt is at 48 of the header. */
static int add_segment(void *arg, const char *path, uint64_t size)
{
	struct finding *f = arg;
	uint8_t header[104], key[KEYS_LEN];

	if (strncmp(path, "segments/", 9) != 0 || size < sizeof(header) || f->n->count == NEEDLES)
		return 0;
	if (sim_raw_read(f->io, path, header, sizeof(header), 0) != sizeof(header))
		return -EIO;
	int ret = keyring_subkey(f->k, 1, KEY_SEGMENT, header + 48, 24, key);
	mask(f->n->masked[f->n->count++], key);
	return ret;
}

static int find_keys(struct io *io, const struct secret *pass, struct needles *n)
{
	struct finding f = {.io = io, .n = n};
	uint8_t key[KEYS_LEN];
	struct superblock *sb;
	struct keyring *k;
	int ret = superblock_open(io, &sb, NULL);

	if (!ret)
		ret = superblock_unlock(sb, pass, &k, NULL);
	if (ret)
		return ret;
	f.k = k;
	mask(n->masked[ROOT], keyring_root(k));
	mask(n->masked[MASTER], keyring_master(k, 1));
	ret = keyring_subkey(k, 1, KEY_DATABASE, "db", 2, key);
	mask(n->masked[DATABASE], key);
	if (!ret)
		ret = keyring_subkey(k, 1, KEY_DATABASE, "wal", 3, key);
	mask(n->masked[WAL], key);
	n->count = SEGMENTS;
	return ret ? ret : sim_raw_walk(io, add_segment, &f);
}

/* Forks; pass is masked here, and plain in the child only. The child has a copy of the disk, because a thread of ours
 * may hold the lock of this one when it is made. */
static void ask_child(struct io *io, const uint8_t masked_pass[KEYS_LEN], struct needles *n)
{
	struct io *copy = sim_clone(io);
	int fds[2], status;

	assert_non_null(copy);
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		uint8_t pass[KEYS_LEN];

		mask(pass, masked_pass);
		if (find_keys(copy, &(struct secret){SECRET_PASSPHRASE, pass, KEYS_LEN}, n))
			_exit(1);
		_exit(write(fds[1], n, sizeof(*n)) != (ssize_t)sizeof(*n));
	}
	(void)close(fds[1]);
	assert_int_equal(read(fds[0], n, sizeof(*n)), sizeof(*n));
	(void)close(fds[0]);
	io_free(copy);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	memcpy(n->masked[PASS], masked_pass, KEYS_LEN);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

#define WINDOW ((size_t)1 << 20)

static uint8_t window[WINDOW + KEYS_LEN];

static bool is_here(const uint8_t *at, const uint8_t masked[KEYS_LEN])
{
	for (size_t i = 0; i < KEYS_LEN; i++) {
		if ((at[i] ^ MASK) != masked[i])
			return false;
	}
	return true;
}

static void look_at(size_t len, const struct needles *n, unsigned found[NEEDLES])
{
	for (unsigned k = 0; k < n->count; k++) {
		const uint8_t *at = window, *end = window + len;

		while (end - at >= KEYS_LEN) {
			at = memchr(at, n->masked[k][0] ^ MASK, (size_t)(end - at) - KEYS_LEN + 1);
			if (!at)
				break;
			found[k] += is_here(at++, n->masked[k]);
		}
	}
}

static void look_through(int mem, uint64_t from, uint64_t to, const struct needles *n, unsigned found[NEEDLES])
{
	while (from < to) {
		size_t want = to - from < sizeof(window) ? (size_t)(to - from) : sizeof(window);
		ssize_t got = pread(mem, window, want, (off_t)from);

		if (got <= 0)
			return;
		look_at((size_t)got, n, found);
		if ((size_t)got <= KEYS_LEN)
			return;
		from += (size_t)got - (from + (size_t)got < to ? KEYS_LEN - 1 : 0);
	}
}

/* All memory of this process but the window itself. */
static void look(const struct needles *n, unsigned found[NEEDLES])
{
	int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512], mode[8];
	unsigned long from, to, own = (unsigned long)window;

	assert_true(mem >= 0 && maps);
	memset(found, 0, NEEDLES * sizeof(*found));
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 || mode[0] != 'r' || strstr(line, "[v"))
			continue;
		if (own >= from && own < to) {
			look_through(mem, from, own, n, found);
			from = own + sizeof(window);
		}
		look_through(mem, from, to, n, found);
	}
	(void)fclose(maps);
	(void)close(mem);
	keys_wipe(window, sizeof(window));
}

/* --- the volume --------------------------------------------------------------------------------------------------- */

/* Data for segments and for the index, written, read and synced. */
static void work(struct core *c)
{
	const struct core_cred cred = {0};
	static char data[3 << 20];
	struct core_file *file;
	struct core_attr attr;

	for (unsigned i = 0; i < 3; i++) {
		const size_t len = i ? sizeof(data) : 1000;
		char name[8];

		(void)snprintf(name, sizeof(name), "f%u", i);
		memset(data, 'a' + (int)i, sizeof(data));
		assert_int_equal(core_mknod(c, &cred, CORE_ROOT, name, S_IFREG | 0600, 0, &attr), 0);
		assert_int_equal(core_file_open(c, attr.ino, O_RDWR, &file), 0);
		assert_int_equal(core_file_write(file, data, len, 0, 0), 0);
		assert_int_equal(core_fsync(c, attr.ino, false), 0);
		assert_int_equal(core_file_read(file, data, len, 0), len);
		core_file_close(file);
	}
}

static void test_nothing_is_left(void **state)
{
	const struct core_format format = {
	    .suite = (int)(intptr_t)*state, .kdf_ops = 1, .kdf_mem = 8 << 20, .mode = 0755};
	uint8_t masked_pass[KEYS_LEN], *pass;
	struct core_options options = {.pass_len = KEYS_LEN, .memory = 32 << 20, .commit_interval_ms = 3600000};
	struct needles n = {0};
	unsigned found[NEEDLES];
	struct io *io;
	struct core *c;

	if (SLOW_BUILD)
		skip(); /* sanitizers' own memory is more than can be looked through */
	io = sim_new();
	pass = keys_secret_alloc(KEYS_LEN);
	assert_non_null(pass);
	keys_random(pass, KEYS_LEN);
	mask(masked_pass, pass);
	assert_int_equal(core_format(io, &format, pass, KEYS_LEN, NULL), 0);
	options.io = io;
	options.pass = pass;
	assert_int_equal(core_open(&options, &c, NULL), 0);
	keys_secret_free(pass);
	work(c);
	ask_child(io, masked_pass, &n);
	assert_true(n.count >= SEGMENTS + 1);
	look(&n, found);
	assert_int_equal(found[PASS], 0);
	assert_int_equal(found[ROOT], 0);   /* no longer needed */
	assert_int_equal(found[MASTER], 1); /* which shows that it would be found */
	assert_true(found[DATABASE] && found[WAL] && found[SEGMENTS]);
	assert_int_equal(core_close(c, NULL), 0);
	look(&n, found);
	for (unsigned i = 0; i < n.count; i++) {
		if (found[i])
			print_message("key %u is there %u times\n", i, found[i]);
	}
	for (unsigned i = 0; i < n.count; i++)
		assert_int_equal(found[i], 0);
	io_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_prestate(test_nothing_is_left, (void *)CIPHER_AES_256_GCM),
	    cmocka_unit_test_prestate(test_nothing_is_left, (void *)CIPHER_CHACHA20_POLY1305),
	    cmocka_unit_test_prestate(test_nothing_is_left, (void *)CIPHER_XCHACHA20_POLY1305),
	};

	if (keys_init(NULL) || log_init(LOG_T_FILE, "/dev/null", LOG_L_WARN))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
