/* A store of very many files: opening it takes no time that grows with their number, nor memory. The rows are written
 * to the index as mounts would have left them. */
#include "index/index.h"
#include "pipeline/pipeline.h"
#include "tests/core/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB         ((uint64_t)1 << 20)
#define IN_FOLDER   1000u /* files of a folder */
#define IN_CHUNK    50u   /* files of a chunk */
#define FILE_SIZE   3000u
#define IN_SEGMENT  1000u /* chunks of a segment */
#define CHUNK_BYTES 60000u
#define SECONDS     1.0
#define MEMORY      (96 * MIB) /* beyond what an empty store's volume takes */

static void must(int ret)
{
	assert_int_equal(ret, 0);
}

static void add_inode(struct index *ix, uint64_t ino, uint64_t parent, uint32_t mode, uint64_t size)
{
	const struct index_inode in = {.ino = ino,
	                               .mode = mode,
	                               .nlink = S_ISDIR(mode) ? 2 : 1,
	                               .size = size,
	                               .blocks = 4,
	                               .parent = parent,
	                               .generation = 1,
	                               .mtime = {1700000000, 0},
	                               .ctime = {1700000000, 0}};

	must(index_inode_put(ix, &in));
}

static void add_name(struct index *ix, uint64_t parent, uint64_t ino, uint32_t mode, const char *what, uint64_t number)
{
	struct index_dirent d = {.ino = ino, .cookie = ino, .type = (uint8_t)IFTODT(mode)};

	d.name_len = (uint8_t)snprintf(d.name, sizeof(d.name), "%s %llu", what, (unsigned long long)number);
	must(index_dirent_add(ix, parent, &d));
}

/* The row, and a file of that size without content. */
static void add_segment(struct fixture *f, struct index *ix, uint64_t id)
{
	struct index_segment s = {.id = id, .state = INDEX_SEGMENT_SEALED, .total = (uint64_t)IN_SEGMENT * CHUNK_BYTES};
	char path[64], full[SCRATCH_PATH + 64];

	memcpy(s.name, &id, sizeof(id));
	pipeline_segment_path(s.name, path, sizeof(path));
	(void)snprintf(full, sizeof(full), "%s/%.11s", f->dir, path);
	assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
	(void)snprintf(full, sizeof(full), "%s/%s", f->dir, path);
	int fd = open(full, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	must(ftruncate(fd, (off_t)s.total));
	(void)close(fd);
	must(index_segment_put(ix, &s));
}

static void add_chunk(struct fixture *f, struct index *ix, uint64_t id)
{
	static const uint8_t frames[8];
	const struct index_chunk c = {.id = id,
	                              .segment = 1 + id / IN_SEGMENT,
	                              .offset = id % IN_SEGMENT * CHUNK_BYTES,
	                              .stored_len = CHUNK_BYTES,
	                              .plain_len = IN_CHUNK * FILE_SIZE,
	                              .data_start = 100,
	                              .sequence = id,
	                              .frames = frames,
	                              .frames_len = sizeof(frames)};

	if (id % IN_SEGMENT == 0)
		add_segment(f, ix, c.segment);
	must(index_chunk_put(ix, &c));
}

static void add_file(struct fixture *f, struct index *ix, uint64_t number, uint64_t folder, uint64_t ino)
{
	const struct index_extent x = {.len = FILE_SIZE,
	                               .chunk = IN_SEGMENT + number / IN_CHUNK,
	                               .chunk_off = (uint32_t)(number % IN_CHUNK) * FILE_SIZE};

	if (number % IN_CHUNK == 0)
		add_chunk(f, ix, x.chunk);
	add_inode(ix, ino, folder, S_IFREG | 0644, FILE_SIZE);
	add_name(ix, folder, ino, S_IFREG, "file", number);
	must(index_extent_set(ix, ino, &x));
}

/* Files in folders of the root. */
static void generate(struct fixture *f, uint64_t files)
{
	uint64_t folders = (files + IN_FOLDER - 1) / IN_FOLDER, ino = 10, folder = 0;
	struct index_inode root;
	struct fixture_index x;
	struct err e = {0};

	fixture_index_open(f, &x);
	for (uint64_t number = 0; number < files; number++) {
		if (number % IN_FOLDER == 0) {
			uint64_t in = files - number < IN_FOLDER ? files - number : IN_FOLDER;

			folder = ino++;
			add_inode(x.index, folder, CORE_ROOT, S_IFDIR | 0755, in);
			add_name(x.index, CORE_ROOT, folder, S_IFDIR, "folder", number / IN_FOLDER);
		}
		add_file(f, x.index, number, folder, ino++);
		if (index_pending(x.index) > 8 * MIB)
			must(index_commit(x.index, &e));
	}
	must(index_inode_get(x.index, CORE_ROOT, &root));
	root.size = folders;
	root.nlink = (uint32_t)(2 + folders);
	must(index_inode_put(x.index, &root));
	must(index_meta_set(x.index, "next_ino", ino));
	must(index_meta_set(x.index, "next_cookie", ino));
	must(index_meta_set(x.index, "next_chunk", IN_SEGMENT + files / IN_CHUNK + 1));
	fixture_index_close(&x);
}

/* Bytes of this process that no file is behind. */
static uint64_t memory_used(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	unsigned long long kib = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %llu", &kib) == 1)
			break;
	(void)fclose(f);
	return (uint64_t)kib * 1024;
}

static double open_seconds(struct fixture *f)
{
	uint64_t begin = clock_system.monotonic(&clock_system);

	must(fixture_open(f));
	return (double)(clock_system.monotonic(&clock_system) - begin) / 1e9;
}

/* Some files, from the first to the last. */
static void look(struct fixture *f, uint64_t files)
{
	for (uint64_t number = 0; number < files; number += files / 500 + 1) {
		char name[64];

		(void)snprintf(name, sizeof(name), "folder %llu", (unsigned long long)(number / IN_FOLDER));
		uint64_t folder = find(f, CORE_ROOT, name);
		(void)snprintf(name, sizeof(name), "file %llu", (unsigned long long)number);
		uint64_t ino = find(f, folder, name);
		assert_int_equal(attr_of(f, ino).size, FILE_SIZE);
	}
}

static void test_open(void **state)
{
	uint64_t files = env_number("APFS_FILES", getenv("APFS_NIGHTLY") ? 10000000 : SLOW_BUILD ? 20000 : 150000);
	struct fixture *f = *state;

	uint64_t empty = memory_used();
	must(fixture_close(f));
	generate(f, files);
	for (int round = 0; round < 2; round++) {
		double seconds = open_seconds(f);
		uint64_t opened = memory_used();

		look(f, files);
		print_message("%llu files: open in %.3f s, with %.1f MiB more, %.1f after a look\n",
		              (unsigned long long)files, seconds, (double)((int64_t)(opened - empty)) / (double)MIB,
		              (double)((int64_t)(memory_used() - empty)) / (double)MIB);
		assert_true(SLOW_BUILD || seconds < SECONDS);
		assert_true(SLOW_BUILD || memory_used() < empty + MEMORY);
		must(fixture_close(f));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_open, fixture_setup, fixture_teardown)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
