/* The table of settings, where values come from, and README.md's table of them. */
#include "tests/base/cmocka_all.h"
#include "tools/setting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

static int read_text(struct settings *s, const char *text, struct err *e)
{
	FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

	assert_non_null(f);
	int ret = settings_read_stream(s, f, "apfs.conf", e);
	(void)fclose(f);
	return ret;
}

static void test_table(void **state)
{
	(void)state;

	for (int id = 0; id < SETTING_COUNT; id++) {
		const struct setting_def *d = &setting_defs[id];
		struct settings s;

		assert_non_null(d->name);
		assert_int_equal(setting_find(d->name, strlen(d->name)), id);
		assert_int_equal(d->kind == SETTING_K_SWITCH, d->arg == NULL);
		settings_init(&s);
		if (*d->unset != '(') /* a default is a value */
			assert_int_equal(
			    settings_set(&s, (enum setting_id)id, d->unset, SETTING_FROM_COMMAND, NULL, NULL), 0);
		settings_release(&s);
	}
	assert_int_equal(setting_find("commit_interval", 15), SETTING_COMMIT_INTERVAL);
	assert_int_equal(setting_find("memor", 5), SETTING_COUNT);
	assert_int_equal(setting_find("memory!", 7), SETTING_COUNT);
}

static void test_defaults(void **state)
{
	struct settings s;
	(void)state;

	settings_init(&s);
	assert_int_equal(settings_number(&s, SETTING_MEMORY), 256 * MIB);
	assert_int_equal(settings_number(&s, SETTING_COMMIT_INTERVAL), 5000);
	assert_int_equal(settings_number(&s, SETTING_WORKERS), 0);
	assert_int_equal(settings_number(&s, SETTING_LOG_LEVEL), 2);
	assert_int_equal(settings_cipher(&s), CIPHER_AUTO);
	assert_null(settings_text(&s, SETTING_LOG));
	settings_release(&s);
}

static void test_values(void **state)
{
	static const struct {
		enum setting_id id;
		const char *text, *wrong; /* wrong: a part of what is said */
		uint64_t number;
	} rows[] = {
	    {SETTING_MEMORY, "32M", NULL, 32 * MIB},
	    {SETTING_MEMORY, "31M", "memory: 32.0MB is the least", 0},
	    {SETTING_MEMORY, "3 birds", "memory: '3 birds' is not a size", 0},
	    {SETTING_MEMORY, NULL, "memory needs a value", 0},
	    {SETTING_COMMIT_INTERVAL, "10ms", NULL, 10},
	    {SETTING_COMMIT_INTERVAL, "1h", NULL, 3600000},
	    {SETTING_COMMIT_INTERVAL, "9ms", "'9ms' is not a time from 10ms to 1h", 0},
	    {SETTING_COMMIT_INTERVAL, "61m", "not a time", 0},
	    {SETTING_MEMORY, "16T", NULL, 16384 * 1024 * MIB},
	    {SETTING_MEMORY, "15E", "memory: 16.0TB is the most", 0},
	    {SETTING_MEMORY, "100E", "memory: 16.0TB is the most", 0},
	    {SETTING_MMAP, "100E", "mmap: 16.0EB is the most", 0},
	    {SETTING_COMPRESS, "zstd:99", "compress: 'zstd:99': the levels of zstd are -5 to 19, without 0", 0},
	    {SETTING_COMPRESS, "lz4:0", "the levels of lz4 are -64 to 12, without 0", 0},
	    {SETTING_COMPRESS, "brotli:x", "the levels of brotli are 1 to 11", 0},
	    {SETTING_COMPRESS, "ZSTD", "compress: 'ZSTD': auto, off, lz4, zstd and brotli are known", 0},
	    {SETTING_NO_COMPACT, NULL, NULL, 1},
	    {SETTING_NO_COMPACT, "no", NULL, 0},
	    {SETTING_NO_COMPACT, "on", NULL, 1},
	    {SETTING_NO_COMPACT, "perhaps", "neither yes nor no", 0},
	    {SETTING_NO_FEEDBACK, "true", NULL, 1},
	    {SETTING_THREADS, "33", "threads: '33' is not a number from 2 to 32", 0},
	    {SETTING_THREADS, "-3", "not a number", 0},
	    {SETTING_THREADS, " 3", "not a number", 0},
	    {SETTING_WORKERS, "1", NULL, 1},
	    {SETTING_CIPHER, "aes", "cipher: 'aes' is none of auto", 0},
	    {SETTING_LOG, "", "log needs a value", 0},
	    {SETTING_IDLE, "0", "idle: '0' is not a time from 1s to 1000h or never", 0},
	    {SETTING_KDF_OPS, "x", "kdf-ops: 'x' is not a number from 1 to 4294967295", 0},
	    {SETTING_LOG_LEVEL, "error", NULL, 0},
	    {SETTING_LOG_LEVEL, "err", "none of error warn", 0},
	};
	(void)state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct settings s;
		struct err e = {0};

		settings_init(&s);
		int ret = settings_set(&s, rows[i].id, rows[i].text, SETTING_FROM_COMMAND, NULL, &e);
		assert_int_equal(ret, rows[i].wrong ? -EINVAL : 0);
		if (rows[i].wrong)
			assert_non_null(strstr(e.text, rows[i].wrong));
		else
			assert_int_equal(settings_number(&s, rows[i].id), rows[i].number);
		settings_release(&s);
	}
}

static void test_precedence(void **state)
{
	struct settings s;
	struct err e = {0};
	char *text = NULL;
	size_t len = 0;
	(void)state;

	settings_init(&s);
	assert_int_equal(settings_set(&s, SETTING_MEMORY, "64M", SETTING_FROM_COMMAND, NULL, &e), 0);
	assert_int_equal(read_text(&s, "memory = 128M\nworkers=3\n; a comment\n\n# another\n  no_compact = yes", &e),
	                 0);
	assert_int_equal(read_text(&s, "workers: 4\nlog = /var/log/apfs", &e), 0); /* the user's own */
	assert_int_equal(settings_number(&s, SETTING_MEMORY), 64 * MIB);
	assert_int_equal(settings_number(&s, SETTING_WORKERS), 4);
	assert_int_equal(settings_number(&s, SETTING_NO_COMPACT), 1);
	assert_true(settings_commanded(&s, SETTING_MEMORY));
	assert_false(settings_commanded(&s, SETTING_WORKERS));
	assert_int_equal(settings_effective(&s, SETTING_THREADS, "8"), 0);
	assert_int_equal(settings_effective(&s, SETTING_WORKERS, "2"), 0); /* less than is set */
	assert_int_equal(settings_effective(&s, SETTING_MEMORY, "64M"), 0);
	FILE *f = open_memstream(&text, &len);
	assert_non_null(f);
	settings_print(&s, f);
	(void)fclose(f);
	assert_non_null(strstr(text, "memory           64M                      command line\n"));
	assert_non_null(strstr(text, "workers          2                        apfs.conf:1; asked for 4\n"));
	assert_non_null(strstr(text, "no-compact       yes                      apfs.conf:6\n"));
	assert_non_null(strstr(text, "threads          8                        default\n"));
	assert_non_null(strstr(text, "log              /var/log/apfs            apfs.conf:2\n"));
	assert_null(strstr(text, "cipher")); /* of stores that are made */
	free(text);
	settings_release(&s);
}

static void test_wrong_files(void **state)
{
	static const struct {
		const char *text, *said;
	} rows[] = {
	    {"memory = 64M\nmemry = 1", "apfs.conf:2: there is no setting 'memry'"},
	    {"\n\nworkers = many", "apfs.conf:3: workers: 'many' is not a number from 1 to 32"},
	    {"workers", "apfs.conf:1: neither NAME = VALUE nor a comment"},
	    {"workers = ", "apfs.conf:1: workers: '' is not a number"},
	    {"[apfs]\nworkers = 1", "apfs.conf:2: there are no sections here"},
	    {"workers = 1\nthreads = 2\nworkers = 1", "apfs.conf:3: workers is set in line 1 already"},
	    {"workers = 1\n threads = 99", "apfs.conf:2: threads: '99'"}, /* indented: no part of the line before */
	    {"passfile = x", "apfs.conf:1: there is no setting 'passfile'"},
	    {"memory = 1K\nworkers = 99", "apfs.conf:1: memory: 32.0MB is the least"}, /* the first error counts */
	};
	char long_line[600];
	struct settings s;
	struct err e = {0};
	(void)state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		err_reset(&e);
		settings_init(&s);
		assert_int_equal(read_text(&s, rows[i].text, &e), -EINVAL);
		if (strncmp(e.text, rows[i].said, strlen(rows[i].said)) != 0)
			fail_msg("'%s', not '%s'", e.text, rows[i].said);
		settings_release(&s);
	}
	memset(long_line, 'x', sizeof(long_line) - 1);
	long_line[sizeof(long_line) - 1] = 0;
	memcpy(long_line, "log = ", 6);
	err_reset(&e);
	settings_init(&s);
	assert_int_equal(read_text(&s, long_line, &e), -EINVAL);
	assert_string_equal(e.text, "apfs.conf:1: the line is too long");
	err_reset(&e);
	assert_int_equal(settings_read_all(&s, "/nonexistent/apfs.conf", &e), -ENOENT);
	assert_non_null(strstr(e.text, "/nonexistent/apfs.conf: No such file"));
	settings_release(&s);
}

/* What a file says of a setting is taken back by "default", and by the word for it; switches and all. */
static void test_put_back(void **state)
{
	static const struct {
		enum setting_id id;
		const char *file, *word;
	} rows[] = {
	    {SETTING_MEMORY, "memory = 64M", NULL},
	    {SETTING_COMMIT_INTERVAL, "commit-interval = 1s", NULL},
	    {SETTING_COMPRESS, "compress = lz4:3", NULL},
	    {SETTING_PRIORITY, "priority = ratio", NULL},
	    {SETTING_STORAGE, "storage = hdd", "auto"},
	    {SETTING_CHUNK_SIZE, "chunk-size = 1M", "auto"},
	    {SETTING_NO_COMPACT, "no-compact = yes", "no"},
	    {SETTING_IDLE, "idle = 10m", "never"},
	    {SETTING_THREADS, "threads = 3", "auto"},
	    {SETTING_WORKERS, "workers = 3", "auto"},
	    {SETTING_CPU_TOKENS, "cpu-tokens = 3", "auto"},
	    {SETTING_IO_TOKENS, "io-tokens = 3", "auto"},
	    {SETTING_NO_GOVERNANCE, "no-governance = yes", "no"},
	    {SETTING_NO_FEEDBACK, "no-feedback = yes", "no"},
	    {SETTING_MMAP, "mmap = 1G", "0"},
	    {SETTING_NO_METRICS, "no-metrics = yes", "no"},
	    {SETTING_METRICS_LISTEN, "metrics-listen = [::1]:9", "off"},
	    {SETTING_CIPHER, "cipher = aes-256-gcm", "auto"},
	    {SETTING_KDF_OPS, "kdf-ops = 9", "3"},
	    {SETTING_KDF_MEM, "kdf-mem = 1G", "256M"},
	    {SETTING_LOG, "log = stderr", "auto"},
	    {SETTING_LOG_LEVEL, "log-level = debug", NULL},
	};
	struct settings fresh;
	(void)state;

	settings_init(&fresh);
	assert_int_equal(sizeof(rows) / sizeof(rows[0]), SETTING_COUNT);
	for (size_t i = 0; i < 2 * SETTING_COUNT; i++) {
		enum setting_id id = rows[i / 2].id;
		const char *word = i % 2 ? rows[i / 2].word : "default";
		const struct setting *clean = &fresh.v[id];
		struct settings s;
		struct err e = {0};

		if (!word)
			continue;
		settings_init(&s);
		assert_int_equal(read_text(&s, rows[i / 2].file, &e), 0);
		assert_true(s.v[id].given);
		if (settings_set(&s, id, word, SETTING_FROM_COMMAND, NULL, &e))
			fail_msg("%s = %s: %s", setting_defs[id].name, word, e.text);
		assert_int_equal(s.v[id].source, SETTING_FROM_COMMAND);
		assert_int_equal(s.v[id].number, clean->number);
		assert_memory_equal(&s.v[id].codec, &clean->codec, sizeof(clean->codec));
		if (*setting_defs[id].unset == '(' || !strcmp(word, "default")) {
			assert_false(settings_commanded(&s, id));
			assert_null(settings_text(&s, id));
			assert_int_equal(settings_effective(&s, id, "found"), 0);
			assert_string_equal(s.v[id].effective, "found");
		}
		settings_release(&s);
	}
	settings_release(&fresh);
}

/* The user's own file is found, and a missing one is no error. */
static void test_own_file(void **state)
{
	char dir[] = "/tmp/apfs-setting-XXXXXX", path[128];
	struct settings s;
	struct err e = {0};
	(void)state;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(setenv("XDG_CONFIG_HOME", dir, 1), 0);
	settings_init(&s);
	assert_int_equal(settings_read_all(&s, NULL, &e), 0);
	assert_int_not_equal(s.v[SETTING_THREADS].source, SETTING_FROM_COMMAND);
	settings_release(&s);
	(void)snprintf(path, sizeof(path), "%s/apfs", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/apfs/apfs.conf", dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	(void)fputs("threads = 31\n", f);
	(void)fclose(f);
	settings_init(&s);
	assert_int_equal(settings_read_all(&s, NULL, &e), 0);
	assert_int_equal(settings_number(&s, SETTING_THREADS), 31);
	assert_non_null(strstr(s.v[SETTING_THREADS].where, dir));
	settings_release(&s);
	assert_int_equal(unlink(path), 0);
	(void)snprintf(path, sizeof(path), "%s/apfs", dir);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* Rows of README.md's table: every setting with its default, and no others. */
static void test_readme(void **state)
{
	char line[512], want[SETTING_COUNT][320];
	bool within = false, seen[SETTING_COUNT] = {false};
	FILE *f = fopen(README, "r");
	(void)state;

	assert_non_null(f);
	for (int id = 0; id < SETTING_COUNT; id++) {
		const struct setting_def *d = &setting_defs[id];
		size_t paren = *d->unset == '(';

		(void)snprintf(want[id], sizeof(want[id]), "| `%s%s%s` | %s | %.*s |\n", d->name, d->arg ? " = " : "",
		               d->arg ? d->arg : "", d->help, (int)(strlen(d->unset) - 2 * paren), d->unset + paren);
	}
	while (fgets(line, sizeof(line), f)) {
		within = strncmp(line, "## ", 3) == 0 ? strcmp(line, "## Settings\n") == 0 : within;
		if (!within || strncmp(line, "| `", 3) != 0)
			continue;
		int id = 0;
		while (id < SETTING_COUNT && strcmp(line, want[id]) != 0)
			id++;
		if (id == SETTING_COUNT)
			fail_msg("README.md has a row that the table of settings has not: %s", line);
		seen[id] = true;
	}
	for (int id = 0; id < SETTING_COUNT; id++)
		if (!seen[id])
			fail_msg("README.md lacks this row: %s", want[id]);
	(void)fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_table),      cmocka_unit_test(test_defaults),    cmocka_unit_test(test_values),
	    cmocka_unit_test(test_precedence), cmocka_unit_test(test_wrong_files), cmocka_unit_test(test_own_file),
	    cmocka_unit_test(test_put_back),   cmocka_unit_test(test_readme),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
