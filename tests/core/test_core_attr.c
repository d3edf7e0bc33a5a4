/* Attributes: modes, owners, times, extended attributes, ACLs. */
#include "tests/core/support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/posix_acl_xattr.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include <cmocka.h>

#define ACCESS_ACL  "system.posix_acl_access"
#define DEFAULT_ACL "system.posix_acl_default"

enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

static struct core_attr set(struct fixture *f, uint64_t ino, unsigned which, struct core_attr in)
{
	struct core_attr out = {0};

	assert_int_equal(core_setattr(f->core, ino, which, &in, &out), 0);
	return out;
}

static void assert_time(struct clock_time t, int64_t sec, uint32_t nsec)
{
	assert_int_equal(t.sec, sec);
	assert_int_equal(t.nsec, nsec);
}

static void test_creation(void **state)
{
	struct fixture *f = *state;
	const struct core_cred cred = {1000, 100, 027};
	struct core_attr a, dir;

	test_clock_set(&f->clock, (struct clock_time){1800000000, 999999999});
	assert_int_equal(core_mknod(f->core, &cred, CORE_ROOT, "f", S_IFREG | 0666, 0, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_int_equal(a.uid, 1000);
	assert_int_equal(a.gid, 100);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.size, 0);
	assert_int_equal(a.blocks, 0);
	assert_time(a.atime, 1800000000, 999999999);
	assert_time(a.mtime, 1800000000, 999999999);
	assert_time(a.ctime, 1800000000, 999999999);
	assert_time(a.btime, 1800000000, 999999999);
	dir = attr_of(f, CORE_ROOT);
	assert_time(dir.mtime, 1800000000, 999999999);
	assert_time(dir.ctime, 1800000000, 999999999);
	assert_int_equal(dir.mode, S_IFDIR | 0755);
	assert_int_equal(core_mknod(f->core, &cred, CORE_ROOT, "untyped", 0600, 0, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0600);
}

static void test_setgid_directory(void **state)
{
	struct fixture *f = *state;
	const struct core_cred cred = {1000, 100, 0};
	uint64_t dir = make(f, CORE_ROOT, "d", S_IFDIR | 0755);
	struct core_attr a;

	(void)set(f, dir, CORE_SET_MODE | CORE_SET_GID,
	          (struct core_attr){.mode = S_IFDIR | S_ISGID | 0775, .gid = 55});
	assert_int_equal(core_mknod(f->core, &cred, dir, "f", S_IFREG | 0664, 0, &a), 0);
	assert_int_equal(a.gid, 55);
	assert_int_equal(a.uid, 1000);
	assert_int_equal(a.mode, S_IFREG | 0664);
	assert_int_equal(core_mknod(f->core, &cred, dir, "sub", S_IFDIR | 0755, 0, &a), 0);
	assert_int_equal(a.gid, 55);
	assert_int_equal(a.mode, S_IFDIR | S_ISGID | 0755);
	assert_int_equal(core_symlink(f->core, &cred, dir, "l", "t", &a), 0);
	assert_int_equal(a.gid, 55);
}

static void test_modes(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644), dir = make(f, CORE_ROOT, "d", S_IFDIR | 01777);

	assert_int_equal(attr_of(f, dir).mode, S_IFDIR | 01777);
	for (uint32_t mode = 0; mode < 010000; mode += 0123) {
		assert_int_equal(set(f, file, CORE_SET_MODE, (struct core_attr){.mode = mode}).mode, S_IFREG | mode);
		assert_int_equal(attr_of(f, file).mode, S_IFREG | mode);
	}
	fixture_remount(f);
	assert_int_equal(attr_of(f, find(f, CORE_ROOT, "d")).mode, S_IFDIR | 01777);
}

/* set-id bits and capabilities end with a change of owner and, where the kernel says so, with a write or truncate. */
static void arm(struct fixture *f, uint64_t ino, uint32_t mode)
{
	(void)set(f, ino, CORE_SET_MODE, (struct core_attr){.mode = S_IFREG | mode});
	assert_int_equal(core_setxattr(f->core, ino, "security.capability", "caps", 4, 0), 0);
}

static void assert_armed(struct fixture *f, uint64_t ino, uint32_t mode)
{
	size_t len = 0;

	assert_int_equal(attr_of(f, ino).mode, S_IFREG | mode);
	assert_int_equal(core_getxattr(f->core, ino, "security.capability", NULL, &len), 0);
	assert_int_equal(len, 4);
}

static void assert_disarmed(struct fixture *f, uint64_t ino, uint32_t mode)
{
	size_t len = 0;

	assert_int_equal(attr_of(f, ino).mode, S_IFREG | mode);
	assert_int_equal(core_getxattr(f->core, ino, "security.capability", NULL, &len), -ENODATA);
}

static void test_setid_cleared(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0755), dir = make(f, CORE_ROOT, "d", S_IFDIR | 0755);
	struct core_file *h;

	assert_int_equal(core_file_open(f->core, file, O_RDWR, &h), 0);
	arm(f, file, 06755);
	assert_int_equal(core_file_write(h, "x", 1, 0, CORE_KILL_SUIDGID), 0);
	assert_disarmed(f, file, 0755);
	arm(f, file, 06744); /* sgid without group execute is no set-id */
	assert_int_equal(core_file_write(h, "x", 1, 0, CORE_KILL_SUIDGID), 0);
	assert_disarmed(f, file, 02744);
	arm(f, file, 06744); /* but it goes when somebody outside of the group writes */
	assert_int_equal(core_file_write(h, "x", 1, 0, CORE_KILL_SUIDGID | CORE_KILL_SGID), 0);
	assert_disarmed(f, file, 0744);
	(void)set(f, file, CORE_SET_MODE, (struct core_attr){.mode = S_IFREG | 06755});
	assert_int_equal(core_file_write(h, "y", 1, 0, CORE_KEEP_TIMES), 0);
	assert_int_equal(attr_of(f, file).mode, S_IFREG | 06755);
	arm(f, file, 06755); /* after a write that comes late: it takes set-id bits only if it says so */
	assert_int_equal(core_file_write(h, "x", 1, 0, CORE_KEEP_CAPABILITY), 0);
	assert_armed(f, file, 06755);
	assert_int_equal(core_file_write(h, "x", 1, 0, CORE_KEEP_CAPABILITY | CORE_KILL_SUIDGID), 0);
	assert_armed(f, file, 0755);
	arm(f, file, 06755);
	(void)set(f, file, CORE_SET_SIZE | CORE_KILL_SUIDGID, (struct core_attr){.size = 5});
	assert_disarmed(f, file, 0755);
	arm(f, file, 06755);
	(void)set(f, file, CORE_SET_UID, (struct core_attr){.uid = 7});
	assert_disarmed(f, file, 0755);
	core_file_close(h);
	(void)set(f, dir, CORE_SET_MODE, (struct core_attr){.mode = S_IFDIR | 06755});
	(void)set(f, dir, CORE_SET_UID | CORE_SET_GID, (struct core_attr){.uid = 7, .gid = 7});
	assert_int_equal(attr_of(f, dir).mode, S_IFDIR | 06755);
}

static void test_times(void **state)
{
	static const struct clock_time times[] = {{0, 0},
	                                          {0, 1},
	                                          {-1, 999999999},
	                                          {-2147483649, 5},
	                                          {(int64_t)1 << 32, 123456789},
	                                          {((int64_t)1 << 33) + 77, 999999999},
	                                          {253402300799, 1}};
	struct fixture *f = *state;
	uint64_t ino[7];
	char name[8];

	for (unsigned n = 0; n < 7; n++) {
		struct core_attr in = {.atime = times[n], .mtime = times[6 - n]}, out;

		(void)snprintf(name, sizeof(name), "f%u", n);
		ino[n] = make(f, CORE_ROOT, name, n % 2 ? S_IFREG : S_IFDIR);
		out = set(f, ino[n], CORE_SET_ATIME | CORE_SET_MTIME, in);
		assert_time(out.atime, times[n].sec, times[n].nsec);
	}
	test_clock_step(&f->clock);
	fixture_remount(f);
	for (unsigned n = 0; n < 7; n++) {
		struct core_attr a;

		(void)snprintf(name, sizeof(name), "f%u", n);
		a = attr_of(f, find(f, CORE_ROOT, name));
		assert_time(a.atime, times[n].sec, times[n].nsec);
		assert_time(a.mtime, times[6 - n].sec, times[6 - n].nsec);
		assert_time(a.ctime, 1700000000, 123456789);
		assert_time(a.btime, 1700000000, 123456789);
	}
}

static void test_times_change(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "d", S_IFDIR | 0755), file = make(f, dir, "f", S_IFREG | 0644);
	struct core_attr a;

	test_clock_set(&f->clock, (struct clock_time){1, 0});
	put(f, file, "abc", 3, 0);
	assert_time(attr_of(f, file).mtime, 1, 0);
	assert_time(attr_of(f, file).ctime, 1, 0);
	test_clock_set(&f->clock, (struct clock_time){2, 0});
	a = set(f, file, CORE_SET_MODE, (struct core_attr){.mode = S_IFREG | 0600});
	assert_time(a.mtime, 1, 0);
	assert_time(a.ctime, 2, 0);
	test_clock_set(&f->clock, (struct clock_time){3, 0});
	a = set(f, file, CORE_SET_SIZE, (struct core_attr){.size = 1});
	assert_time(a.mtime, 3, 0);
	assert_time(a.ctime, 3, 0);
	test_clock_set(&f->clock, (struct clock_time){4, 0});
	a = set(f, file, CORE_SET_ATIME | CORE_SET_ATIME_NOW, (struct core_attr){.atime = {99, 9}});
	assert_time(a.atime, 4, 0);
	assert_time(a.mtime, 3, 0);
	assert_time(a.ctime, 4, 0);
	test_clock_set(&f->clock, (struct clock_time){5, 0});
	assert_int_equal(core_rename(f->core, dir, "f", CORE_ROOT, "g", 0), 0);
	assert_time(attr_of(f, dir).mtime, 5, 0);
	assert_time(attr_of(f, CORE_ROOT).mtime, 5, 0);
	assert_time(attr_of(f, file).ctime, 5, 0);
	test_clock_set(&f->clock, (struct clock_time){6, 0});
	assert_int_equal(core_link(f->core, file, dir, "h", &a), 0);
	assert_time(a.ctime, 6, 0);
	test_clock_set(&f->clock, (struct clock_time){7, 0});
	assert_int_equal(core_unlink(f->core, dir, "h"), 0);
	assert_time(attr_of(f, file).ctime, 7, 0);
	assert_time(attr_of(f, dir).ctime, 7, 0);
	test_clock_set(&f->clock, (struct clock_time){8, 0});
	assert_int_equal(core_setxattr(f->core, file, "user.a", "b", 1, 0), 0);
	assert_time(attr_of(f, file).ctime, 8, 0);
	assert_time(attr_of(f, file).mtime, 3, 0);
}

/* The kernel's writeback: data without times, the times by setattr. */
static void test_times_cached_write(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	struct core_file *h;
	struct core_attr a;

	assert_int_equal(core_file_open(f->core, file, O_RDWR, &h), 0);
	(void)set(f, file, CORE_SET_MTIME | CORE_SET_CTIME, (struct core_attr){.mtime = {10, 1}, .ctime = {11, 2}});
	test_clock_set(&f->clock, (struct clock_time){2000000000, 0});
	assert_int_equal(core_file_write(h, "abc", 3, 100, CORE_KEEP_TIMES), 0);
	a = attr_of(f, file);
	assert_int_equal(a.size, 103);
	assert_time(a.mtime, 10, 1);
	assert_time(a.ctime, 11, 2);
	core_file_close(h);
	fixture_remount(f);
	assert_time(attr_of(f, find(f, CORE_ROOT, "f")).mtime, 10, 1);
}

static void test_xattr_errors(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	char buf[16];
	size_t len = sizeof(buf);
	static const struct {
		const char *name;
		int ret;
	} names[] = {{"foo.bar", -EOPNOTSUPP}, {"user", -EOPNOTSUPP},  {"system.other", -EOPNOTSUPP},
	             {"user.", -EINVAL},       {"security.", -EINVAL}, {"trusted.", -EINVAL}};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(core_setxattr(f->core, file, names[i].name, "1", 1, 0), names[i].ret);
		assert_int_equal(core_getxattr(f->core, file, names[i].name, buf, &len), names[i].ret);
		assert_int_equal(core_removexattr(f->core, file, names[i].name), names[i].ret);
	}
	assert_int_equal(core_getxattr(f->core, file, "user.none", buf, &len), -ENODATA);
	assert_int_equal(core_removexattr(f->core, file, "user.none"), -ENODATA);
	assert_int_equal(core_setxattr(f->core, file, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
	assert_int_equal(core_setxattr(f->core, file, "user.a", "12345", 5, XATTR_CREATE), 0);
	assert_int_equal(core_setxattr(f->core, file, "user.a", "1", 1, XATTR_CREATE), -EEXIST);
	len = 4;
	assert_int_equal(core_getxattr(f->core, file, "user.a", buf, &len), -ERANGE);
	len = 0;
	assert_int_equal(core_getxattr(f->core, file, "user.a", NULL, &len), 0);
	assert_int_equal(len, 5);
	len = 3;
	assert_int_equal(core_listxattr(f->core, file, buf, &len), -ERANGE);
	len = 0;
	assert_int_equal(core_listxattr(f->core, file, NULL, &len), 0);
	assert_int_equal(len, 7);
	assert_int_equal(core_removexattr(f->core, file, "user.a"), 0);
	len = sizeof(buf);
	assert_int_equal(core_listxattr(f->core, file, buf, &len), 0);
	assert_int_equal(len, 0);
}

static void test_xattr_many(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0644), rng = rng_seed(3);
	static char big[65536], got[65536];
	char name[300];
	size_t len;

	fill_random(&rng, big, sizeof(big));
	for (unsigned n = 0; n < 100; n++) {
		(void)snprintf(name, sizeof(name), "user.%u", n);
		assert_int_equal(core_setxattr(f->core, file, name, big + n, n * 100, 0), 0);
	}
	assert_int_equal(core_setxattr(f->core, file, "trusted.big", big, sizeof(big), 0), 0);
	memset(name, 'n', 255);
	memcpy(name, "user.", 5);
	name[255] = 0;
	assert_int_equal(core_setxattr(f->core, file, name, "long", 4, 0), 0);
	fixture_remount(f);
	file = find(f, CORE_ROOT, "f");
	len = sizeof(got);
	assert_int_equal(core_getxattr(f->core, file, name, got, &len), 0);
	assert_int_equal(len, 4);
	len = sizeof(got);
	assert_int_equal(core_getxattr(f->core, file, "trusted.big", got, &len), 0);
	assert_int_equal(len, sizeof(big));
	assert_memory_equal(got, big, sizeof(big));
	for (unsigned n = 0; n < 100; n++) {
		(void)snprintf(name, sizeof(name), "user.%u", n);
		len = sizeof(got);
		assert_int_equal(core_getxattr(f->core, file, name, got, &len), 0);
		assert_int_equal(len, n * 100);
		assert_memory_equal(got, big + n, len);
	}
}

/* --- ACLs --------------------------------------------------------------------------------------------------------- */

struct acl {
	size_t n;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} e[8];
};

static size_t acl_encode(const struct acl *acl, uint8_t *out)
{
	size_t len = 4;

	memcpy(out, "\2\0\0\0", 4);
	for (size_t n = 0; n < acl->n; n++) {
		memcpy(out + len, &acl->e[n].tag, 2);
		memcpy(out + len + 2, &acl->e[n].perm, 2);
		memcpy(out + len + 4, &acl->e[n].id, 4);
		len += 8;
	}
	return len;
}

static void acl_set(struct fixture *f, uint64_t ino, const char *name, const struct acl *acl)
{
	uint8_t buf[256];
	size_t len = acl_encode(acl, buf);

	assert_int_equal(core_setxattr(f->core, ino, name, buf, len, 0), 0);
}

static void assert_acl(struct fixture *f, uint64_t ino, const char *name, const struct acl *acl)
{
	uint8_t want[256], got[256];
	size_t len = sizeof(got), want_len = acl_encode(acl, want);

	assert_int_equal(core_getxattr(f->core, ino, name, got, &len), 0);
	assert_int_equal(len, want_len);
	assert_memory_equal(got, want, len);
}

static void assert_no_acl(struct fixture *f, uint64_t ino, const char *name)
{
	size_t len = 0;

	assert_int_equal(core_getxattr(f->core, ino, name, NULL, &len), -ENODATA);
}

#define NOBODY 0xffffffffu
#define ACL(u, id, x, g, m, o)                                                                                     \
	{                                                                                                          \
		5,                                                                                                 \
		{                                                                                                  \
			{USER_OBJ, (u), NOBODY}, {USER, (x), (id)}, {GROUP_OBJ, (g), NOBODY}, {MASK, (m), NOBODY}, \
			    {OTHER, (o), NOBODY},                                                                  \
		}                                                                                                  \
	}

static void test_acl_and_mode(void **state)
{
	const struct acl acl = ACL(6, 1000, 7, 4, 5, 1), after = ACL(7, 1000, 7, 4, 2, 4);
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0600);
	uint8_t buf[256];

	assert_no_acl(f, file, ACCESS_ACL);
	acl_set(f, file, ACCESS_ACL, &acl);
	assert_acl(f, file, ACCESS_ACL, &acl);
	assert_int_equal(attr_of(f, file).mode, S_IFREG | 0651); /* the group's bits are the mask */
	(void)set(f, file, CORE_SET_MODE, (struct core_attr){.mode = S_IFREG | 0724});
	assert_acl(f, file, ACCESS_ACL, &after);
	fixture_remount(f);
	file = find(f, CORE_ROOT, "f");
	assert_acl(f, file, ACCESS_ACL, &after);
	assert_int_equal(core_removexattr(f->core, file, ACCESS_ACL), 0);
	assert_no_acl(f, file, ACCESS_ACL);
	assert_int_equal(core_removexattr(f->core, file, ACCESS_ACL), 0);
	/* set by somebody outside of the group */
	(void)set(f, file, CORE_SET_MODE, (struct core_attr){.mode = S_IFREG | 06755});
	assert_int_equal(core_setxattr(f->core, file, ACCESS_ACL, buf, acl_encode(&acl, buf), CORE_XATTR_KILL_SGID), 0);
	assert_int_equal(attr_of(f, file).mode, S_IFREG | S_ISUID | 0651);
}

static void test_acl_inheritance(void **state)
{
	const struct acl def = ACL(7, 1000, 7, 5, 7, 4);
	const struct acl file_acl = ACL(6, 1000, 7, 5, 6, 4), dir_acl = ACL(7, 1000, 7, 5, 5, 0);
	const struct core_cred cred = {5, 5, 077};
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "d", S_IFDIR | 0755);
	struct core_attr a;

	acl_set(f, dir, DEFAULT_ACL, &def);
	assert_int_equal(attr_of(f, dir).mode, S_IFDIR | 0755);
	/* the umask is not applied; the permissions asked for are a ceiling */
	assert_int_equal(core_mknod(f->core, &cred, dir, "f", S_IFREG | 0666, 0, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0664);
	assert_acl(f, a.ino, ACCESS_ACL, &file_acl);
	assert_no_acl(f, a.ino, DEFAULT_ACL);
	assert_int_equal(core_mknod(f->core, &cred, dir, "sub", S_IFDIR | 0750, 0, &a), 0);
	assert_int_equal(a.mode, S_IFDIR | 0750);
	assert_acl(f, a.ino, ACCESS_ACL, &dir_acl);
	assert_acl(f, a.ino, DEFAULT_ACL, &def);
	assert_int_equal(core_symlink(f->core, &cred, dir, "l", "t", &a), 0);
	assert_no_acl(f, a.ino, ACCESS_ACL);
	assert_int_equal(core_removexattr(f->core, dir, DEFAULT_ACL), 0);
	assert_int_equal(core_mknod(f->core, &cred, dir, "g", S_IFREG | 0666, 0, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0600);
	assert_no_acl(f, a.ino, ACCESS_ACL);
}

static struct core *met; /* its next commit meets a chmod of met_ino */
static uint64_t met_ino;
static pthread_t met_thread;
static bool met_waits;
static int met_ret;

static void *meet(void *arg)
{
	const struct core_attr in = {.mode = S_IFREG | 0724};
	struct core_attr out;

	met_ret = core_setattr(arg, met_ino, CORE_SET_MODE, &in, &out);
	return NULL;
}

int __real_index_commit(struct index *ix, struct err *e);
int __wrap_index_commit(struct index *ix, struct err *e);
int __wrap_index_commit(struct index *ix, struct err *e)
{
	struct timespec until;

	if (met && pthread_create(&met_thread, NULL, meet, met) == 0) {
		met = NULL;
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
		met_waits = pthread_timedjoin_np(met_thread, NULL, &until) != 0;
	}
	return __real_index_commit(ix, e);
}

/* No commit comes between what a chmod changes of an ACL and the mode. */
static void test_acl_amid_commit(void **state)
{
	const struct acl acl = ACL(6, 1000, 7, 4, 5, 1);
	struct fixture *f = *state;

	met_ino = make(f, CORE_ROOT, "f", S_IFREG | 0600);
	acl_set(f, met_ino, ACCESS_ACL, &acl);
	met = f->core;
	sync_all(f);
	assert_null(met);
	if (met_waits)
		assert_int_equal(pthread_join(met_thread, NULL), 0);
	assert_int_equal(met_ret, 0);
	fixture_crash(f);
	assert_int_equal(attr_of(f, met_ino).mode, S_IFREG | 0651);
	assert_acl(f, met_ino, ACCESS_ACL, &acl);
}

static bool no_room; /* for the next attribute */

int __real_index_xattr_set(struct index *ix, uint64_t ino, const char *name, const void *value, size_t len);
int __wrap_index_xattr_set(struct index *ix, uint64_t ino, const char *name, const void *value, size_t len);
int __wrap_index_xattr_set(struct index *ix, uint64_t ino, const char *name, const void *value, size_t len)
{
	bool fails = no_room;

	no_room = false;
	return fails ? -ENOMEM : __real_index_xattr_set(ix, ino, name, value, len);
}

static void test_acl_refused(void **state)
{
	const struct acl acl = ACL(6, 1000, 7, 4, 5, 1);
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "f", S_IFREG | 0600);
	uint8_t buf[256];

	no_room = true;
	assert_int_equal(core_setxattr(f->core, file, ACCESS_ACL, buf, acl_encode(&acl, buf), 0), -ENOMEM);
	assert_int_equal(attr_of(f, file).mode, S_IFREG | 0600);
	assert_no_acl(f, file, ACCESS_ACL);
}

/* A default ACL of the three base entries: the umask is not applied, and no ACL is needed. */
static void test_acl_minimal(void **state)
{
	const struct acl def = {3, {{USER_OBJ, 7, NOBODY}, {GROUP_OBJ, 5, NOBODY}, {OTHER, 1, NOBODY}}};
	const struct core_cred cred = {5, 5, 077};
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "d", S_IFDIR | 0755);
	struct core_attr a;

	acl_set(f, dir, DEFAULT_ACL, &def);
	assert_int_equal(core_mknod(f->core, &cred, dir, "f", S_IFREG | 0666, 0, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_no_acl(f, a.ino, ACCESS_ACL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_creation),
	    TEST(test_setgid_directory),
	    TEST(test_modes),
	    TEST(test_setid_cleared),
	    TEST(test_times),
	    TEST(test_times_change),
	    TEST(test_times_cached_write),
	    TEST(test_xattr_errors),
	    TEST(test_xattr_many),
	    TEST(test_acl_and_mode),
	    TEST(test_acl_amid_commit),
	    TEST(test_acl_refused),
	    TEST(test_acl_inheritance),
	    TEST(test_acl_minimal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
