/* Storage classes in a made-up /sys. */
#include "base/storage.h"
#include "tests/base/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

struct tree {
	char dir[SCRATCH_PATH];
	char sysfs[SCRATCH_PATH + 8], mountinfo[SCRATCH_PATH + 16];
	struct storage_sources from;
};

static int tree_init(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t || !scratch_new(t->dir))
		return -1;
	(void)snprintf(t->sysfs, sizeof(t->sysfs), "%s/sys", t->dir);
	(void)snprintf(t->mountinfo, sizeof(t->mountinfo), "%s/mountinfo", t->dir);
	t->from = (struct storage_sources){t->sysfs, t->mountinfo};
	*state = t;
	return mkdir(t->sysfs, 0700);
}

static int tree_release(void **state)
{
	struct tree *t = *state;

	scratch_free(t->dir);
	free(t);
	return 0;
}

/* A file below sys/, and the directories that lead to it. */
static void put(struct tree *t, const char *path, const char *text)
{
	char full[512];

	(void)snprintf(full, sizeof(full), "%s/%s", t->sysfs, path);
	for (char *p = full + strlen(t->sysfs) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = 0;
		assert_true(!mkdir(full, 0700) || errno == EEXIST);
	}
	FILE *f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* A symbolic link below sys/, to another place there. */
static void put_link(struct tree *t, const char *path, const char *to)
{
	char full[512], target[512];

	put(t, path, "");
	(void)snprintf(full, sizeof(full), "%s/%s", t->sysfs, path);
	(void)snprintf(target, sizeof(target), "%s/%s", t->sysfs, to);
	assert_int_equal(unlink(full), 0);
	assert_int_equal(symlink(target, full), 0);
}

/* Makes what lies in the test's directory lie on that device. */
static void lies_on(struct tree *t, const char *device)
{
	char path[64];
	struct stat st;

	assert_int_equal(stat(t->dir, &st), 0);
	if (!major(st.st_dev))
		skip(); /* the test's directory has no device of its own */
	(void)snprintf(path, sizeof(path), "dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
	put_link(t, path, device);
}

static void expect(struct tree *t, enum storage_class storage)
{
	assert_int_equal(storage_detect(t->dir, &t->from), storage);
}

static void test_disks(void **state)
{
	struct tree *t = *state;

	put(t, "devices/sda/queue/rotational", "1\n");
	lies_on(t, "devices/sda");
	expect(t, STORAGE_HDD);
	put(t, "devices/sda/queue/rotational", "0\n");
	expect(t, STORAGE_SSD);
}

static void test_nvme(void **state)
{
	struct tree *t = *state;

	put(t, "devices/nvme0n1/queue/rotational", "0\n");
	put(t, "devices/nvme0n1/nvme0n1p2/partition", "2\n");
	lies_on(t, "devices/nvme0n1/nvme0n1p2");
	expect(t, STORAGE_NVME);
}

static void test_partition(void **state)
{
	struct tree *t = *state;

	put(t, "devices/sda/queue/rotational", "1\n");
	put(t, "devices/sda/sda1/partition", "1\n");
	lies_on(t, "devices/sda/sda1");
	expect(t, STORAGE_HDD);
}

/* A host that does not say what it has. */
static void test_virtual(void **state)
{
	struct tree *t = *state;

	put(t, "devices/vda/queue/rotational", "1\n");
	lies_on(t, "devices/vda");
	expect(t, STORAGE_SSD);
}

/* An encrypted volume on a mirror of partitions: the slowest counts, and the device-mapper's own word does not. */
static void test_layers(void **state)
{
	struct tree *t = *state;

	put(t, "devices/sda/queue/rotational", "1\n");
	put(t, "devices/sda/sda3/partition", "3\n");
	put(t, "devices/nvme0n1/queue/rotational", "0\n");
	put(t, "devices/md0/queue/rotational", "0\n");
	put_link(t, "devices/md0/slaves/nvme0n1", "devices/nvme0n1");
	put(t, "devices/dm-0/queue/rotational", "0\n");
	put_link(t, "devices/dm-0/slaves/md0", "devices/md0");
	lies_on(t, "devices/dm-0");
	expect(t, STORAGE_NVME);
	put_link(t, "devices/md0/slaves/sda3", "devices/sda/sda3");
	expect(t, STORAGE_HDD);
}

static void test_loop(void **state)
{
	struct tree *t = *state;
	char path[SCRATCH_PATH + 16];

	/* Its file lies on another device than itself: /proc has none, so nothing is known of it. */
	put(t, "devices/loop0/queue/rotational", "1\n");
	put(t, "devices/loop0/loop/backing_file", "/proc/self/status\n");
	lies_on(t, "devices/loop0");
	expect(t, STORAGE_SSD);
	/* A loop of loops ends. */
	(void)snprintf(path, sizeof(path), "%s/image\n", t->dir);
	put(t, "devices/loop0/loop/backing_file", path);
	path[strlen(path) - 1] = 0;
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fclose(f), 0);
	expect(t, STORAGE_SSD);
}

/* Of a filesystem whose files have no device of the kernel's, the mount's source counts. */
static void test_mount_source(void **state)
{
	struct tree *t = *state;
	struct statx st;

	assert_int_equal(statx(AT_FDCWD, "/proc", 0, STATX_BASIC_STATS | STATX_MNT_ID, &st), 0);
	assert_int_equal(st.stx_dev_major, 0);
	if (!(st.stx_mask & STATX_MNT_ID))
		skip();
	FILE *f = fopen(t->mountinfo, "w");
	assert_non_null(f);
	assert_true(fprintf(f, "1 0 0:1 / /x rw - ext4 /dev/nothing rw\n%llu 26 0:20 / /proc rw - btrfs /dev/null rw\n",
	                    (unsigned long long)st.stx_mnt_id) > 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(storage_detect("/proc", &t->from), STORAGE_SSD); /* no block device */
	assert_int_equal(storage_detect("/nowhere", &t->from), STORAGE_SSD);
}

/* Nothing known. */
static void test_unknown(void **state)
{
	expect(*state, STORAGE_SSD);
	assert_true(storage_detect("/", &storage_system) != STORAGE_AUTO);
}

static void test_names(void **state)
{
	enum storage_class c;

	(void)state;
	for (int i = 0; i < STORAGE_CLASSES; i++) {
		assert_int_equal(storage_class_parse(storage_class_name((enum storage_class)i), &c), 0);
		assert_int_equal(c, i);
	}
	assert_int_equal(storage_class_parse("floppy", &c), -EINVAL);
	assert_string_equal(storage_class_name(STORAGE_CLASSES), "unknown");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, tree_init, tree_release)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_disks),        TEST(test_nvme),    TEST(test_partition),
	    TEST(test_virtual),      TEST(test_layers),  TEST(test_loop),
	    TEST(test_mount_source), TEST(test_unknown), cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
