/* Names: what POSIX says of creating, linking, renaming, removing and listing them. */
#include "tests/core/inside.h"
#include "tests/core/support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const struct core_cred root_cred = {0, 0, 0};

static void test_errors(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "dir", S_IFDIR | 0755), file = make(f, dir, "file", S_IFREG | 0644);
	struct core_attr a;
	char name[300];

	assert_int_equal(core_lookup(f->core, dir, "none", &a), -ENOENT);
	assert_int_equal(core_lookup(f->core, file, "x", &a), -ENOTDIR);
	assert_int_equal(core_mknod(f->core, &root_cred, dir, "file", S_IFREG, 0, &a), -EEXIST);
	assert_int_equal(core_mknod(f->core, &root_cred, file, "x", S_IFREG, 0, &a), -ENOTDIR);
	assert_int_equal(core_symlink(f->core, &root_cred, dir, "file", "t", &a), -EEXIST);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "dir"), -EISDIR);
	assert_int_equal(core_unlink(f->core, dir, "none"), -ENOENT);
	assert_int_equal(core_rmdir(f->core, CORE_ROOT, "dir"), -ENOTEMPTY);
	assert_int_equal(core_rmdir(f->core, dir, "file"), -ENOTDIR);
	assert_int_equal(core_rmdir(f->core, dir, "none"), -ENOENT);
	assert_int_equal(core_link(f->core, dir, CORE_ROOT, "l", &a), -EPERM);
	assert_int_equal(core_link(f->core, file, CORE_ROOT, "dir", &a), -EEXIST);
	memset(name, 'x', 256);
	name[256] = 0;
	assert_int_equal(core_lookup(f->core, dir, name, &a), -ENAMETOOLONG);
	assert_int_equal(core_mknod(f->core, &root_cred, dir, name, S_IFREG, 0, &a), -ENAMETOOLONG);
	assert_int_equal(core_link(f->core, file, dir, name, &a), -ENAMETOOLONG);
	assert_int_equal(core_rename(f->core, dir, "file", dir, name, 0), -ENAMETOOLONG);
	name[255] = 0;
	assert_int_equal(attr_of(f, make(f, dir, name, S_IFREG)).nlink, 1);
	assert_int_equal(core_mknod(f->core, &root_cred, dir, "a/b", S_IFREG, 0, &a), -EINVAL);
	assert_int_equal(core_getattr(f->core, 99999999, &a), -ENOENT);
}

static void test_rename_errors(void **state)
{
	struct fixture *f = *state;
	uint64_t a = make(f, CORE_ROOT, "a", S_IFDIR | 0755), b = make(f, a, "b", S_IFDIR | 0755);

	(void)make(f, b, "c", S_IFREG | 0644);
	(void)make(f, CORE_ROOT, "file", S_IFREG | 0644);
	(void)make(f, CORE_ROOT, "empty", S_IFDIR | 0755);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "a", b, "x", 0), -EINVAL);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "a", a, "x", 0), -EINVAL);
	assert_int_equal(core_rename(f->core, a, "b", CORE_ROOT, "a", 0), -ENOTEMPTY);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "file", CORE_ROOT, "a", 0), -EISDIR);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "a", CORE_ROOT, "file", 0), -ENOTDIR);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "empty", a, "b", 0), -ENOTEMPTY);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "none", a, "x", 0), -ENOENT);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "file", b, "c", RENAME_NOREPLACE), -EEXIST);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "file", b, "none", RENAME_EXCHANGE), -ENOENT);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "a", a, "b", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(core_rename(f->core, a, "b", CORE_ROOT, "a", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "file", b, "c", RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "file", b, "c", RENAME_WHITEOUT), -EINVAL);
	assert_int_equal(core_rename(f->core, CORE_ROOT, "file", CORE_ROOT, "file", 0), 0);
}

static void test_whiteouts(void **state)
{
	struct fixture *f = *state;
	const struct core_cred cred = {.uid = 7, .gid = 8};
	uint64_t a = make(f, CORE_ROOT, "a", S_IFDIR | 0755), file = make(f, a, "file", S_IFREG | 0600);
	uint64_t dir = make(f, a, "dir", S_IFDIR | 0755), b = make(f, CORE_ROOT, "b", S_IFDIR | 02755);
	struct core_attr out;

	assert_int_equal(core_rename_whiteout(f->core, &cred, a, "file", b, "moved", RENAME_EXCHANGE), -EINVAL);
	assert_int_equal(core_rename_whiteout(f->core, &cred, a, "none", b, "moved", 0), -ENOENT);
	assert_int_equal(core_rename_whiteout(f->core, &cred, a, "file", b, "moved", RENAME_NOREPLACE), 0);
	assert_int_equal(core_rename_whiteout(f->core, &cred, a, "dir", b, "dir", 0), 0);
	for (int round = 0; round < 2; round++) {
		out = attr_of(f, find(f, a, "file"));
		assert_int_equal(out.mode, S_IFCHR);
		assert_int_equal(out.rdev, 0);
		assert_int_equal(out.nlink, 1);
		assert_int_equal(out.uid, 7);
		assert_int_equal(out.gid, 8);
		assert_int_equal(find(f, b, "moved"), file);
		assert_int_equal(find(f, b, "dir"), dir);
		assert_int_equal(attr_of(f, a).nlink, 2);
		assert_int_equal(attr_of(f, b).nlink, 3);
		assert_int_equal(core_rmdir(f->core, CORE_ROOT, "a"), -ENOTEMPTY);
		fixture_remount(f);
		a = find(f, CORE_ROOT, "a");
		b = find(f, CORE_ROOT, "b");
	}
	/* over another; the group of a set-gid directory */
	assert_int_equal(core_rename_whiteout(f->core, &cred, b, "moved", a, "file", 0), 0);
	assert_int_equal(find(f, a, "file"), file);
	assert_int_equal(attr_of(f, find(f, b, "moved")).gid, 0);
	assert_int_equal(core_unlink(f->core, b, "moved"), 0);
}

static void test_links_max(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "file", S_IFREG | 0600);
	struct core_attr out;

	inside_set_links(f->core, file, ((uint32_t)1 << 31) - 1);
	assert_int_equal(core_link(f->core, file, CORE_ROOT, "last", &out), 0);
	assert_int_equal(out.nlink, (uint32_t)1 << 31);
	assert_int_equal(core_link(f->core, file, CORE_ROOT, "more", &out), -EMLINK);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "last"), 0);
	inside_set_links(f->core, file, 1);
	assert_int_equal(core_link(f->core, file, CORE_ROOT, "more", &out), 0);
}

static void test_nameless(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "d", S_IFDIR | 02775);
	struct core_file *h;
	struct core_attr a, lost, out;
	char buf[4];

	assert_int_equal(core_tmpfile(f->core, &root_cred, dir, 0640, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_int_equal(a.nlink, 0);
	assert_int_equal(core_tmpfile(f->core, &root_cred, dir, 0640, &lost), 0);
	assert_int_equal(core_tmpfile(f->core, &root_cred, a.ino, 0640, &out), -ENOTDIR);
	assert_int_equal(core_rmdir(f->core, CORE_ROOT, "d"), 0);
	assert_int_equal(core_tmpfile(f->core, &root_cred, dir, 0640, &out), -ENOENT);
	dir = make(f, CORE_ROOT, "e", S_IFDIR | 0755);
	assert_int_equal(core_file_open(f->core, a.ino, O_RDWR, &h), 0);
	assert_int_equal(core_file_write(h, "data", 4, 0, 0), 0);
	assert_int_equal(core_sync(f->core), 0);
	assert_int_equal(core_link(f->core, a.ino, dir, "f", &out), 0);
	assert_int_equal(out.nlink, 1);
	core_forget(f->core, a.ino, 2);
	core_file_close(h);
	core_forget(f->core, lost.ino, 1);
	assert_int_equal(core_getattr(f->core, lost.ino, &out), -ENOENT);
	fixture_remount(f);
	assert_int_equal(find(f, find(f, CORE_ROOT, "e"), "f"), a.ino);
	assert_int_equal(core_file_open(f->core, a.ino, O_RDONLY, &h), 0);
	assert_int_equal(core_file_read(h, buf, 4, 0), 4);
	assert_memory_equal(buf, "data", 4);
	core_file_close(h);
	/* one that had a name gets no other; and one that nobody named is gone after a crash */
	assert_int_equal(core_file_open(f->core, a.ino, O_RDONLY, &h), 0);
	assert_int_equal(core_unlink(f->core, find(f, CORE_ROOT, "e"), "f"), 0);
	assert_int_equal(core_link(f->core, a.ino, CORE_ROOT, "again", &out), -ENOENT);
	core_file_close(h);
	assert_int_equal(core_tmpfile(f->core, &root_cred, CORE_ROOT, 0600, &lost), 0);
	assert_int_equal(core_sync(f->core), 0);
	fixture_remount(f);
	assert_int_equal(core_getattr(f->core, lost.ino, &out), -ENOENT);
}

static void test_rename_moves(void **state)
{
	struct fixture *f = *state;
	uint64_t a = make(f, CORE_ROOT, "a", S_IFDIR | 0755), b = make(f, CORE_ROOT, "b", S_IFDIR | 0755);
	uint64_t sub = make(f, a, "sub", S_IFDIR | 0755), one = make(f, a, "one", S_IFREG | 0600);
	uint64_t two = make(f, b, "two", S_IFREG | 0600);
	struct core_attr out;

	assert_int_equal(core_rename(f->core, a, "sub", b, "sub", RENAME_NOREPLACE), 0);
	assert_int_equal(attr_of(f, a).nlink, 2);
	assert_int_equal(attr_of(f, b).nlink, 3);
	assert_int_equal(core_rename(f->core, a, "one", b, "two", RENAME_EXCHANGE), 0);
	assert_int_equal(find(f, a, "one"), two);
	assert_int_equal(find(f, b, "two"), one);
	assert_int_equal(core_rename(f->core, a, "one", b, "sub", RENAME_EXCHANGE), 0);
	assert_int_equal(find(f, a, "one"), sub);
	assert_int_equal(attr_of(f, a).nlink, 3);
	assert_int_equal(attr_of(f, b).nlink, 2);
	assert_int_equal(core_rename(f->core, b, "sub", b, "two", 0), 0);
	assert_int_equal(find(f, b, "two"), two);
	assert_int_equal(attr_of(f, one).nlink, 0);
	/* two names of one inode: renaming one to the other does nothing */
	assert_int_equal(core_link(f->core, two, b, "again", &out), 0);
	assert_int_equal(core_rename(f->core, b, "again", b, "two", 0), 0);
	assert_int_equal(find(f, b, "again"), two);
	assert_int_equal(attr_of(f, two).nlink, 2);
}

static void test_link_counts(void **state)
{
	struct fixture *f = *state;
	uint64_t file = make(f, CORE_ROOT, "file", S_IFREG | 0644);
	struct core_attr a;
	char name[32];

	for (unsigned n = 0; n < 2000; n++) {
		(void)snprintf(name, sizeof(name), "link%u", n);
		assert_int_equal(core_link(f->core, file, CORE_ROOT, name, &a), 0);
	}
	assert_int_equal(a.nlink, 2001);
	put(f, file, "data", 4, 0);
	fixture_remount(f);
	assert_int_equal(find(f, CORE_ROOT, "link1234"), file);
	assert_int_equal(attr_of(f, file).nlink, 2001);
	for (unsigned n = 0; n < 2000; n++) {
		(void)snprintf(name, sizeof(name), "link%u", n);
		assert_int_equal(core_unlink(f->core, CORE_ROOT, name), 0);
	}
	assert_int_equal(attr_of(f, file).nlink, 1);
	assert_int_equal(get(f, file, name, 32, 0), 4);
	assert_memory_equal(name, "data", 4);
}

static void test_odd_names(void **state)
{
	struct fixture *f = *state;
	uint64_t ino[255];
	char name[2] = {0};

	for (unsigned c = 1; c < 256; c++) {
		if (c == '/' || c == '.')
			continue;
		name[0] = (char)c;
		ino[c - 1] = make(f, CORE_ROOT, name, S_IFREG | 0644);
	}
	fixture_remount(f);
	for (unsigned c = 1; c < 256; c++) {
		if (c == '/' || c == '.')
			continue;
		name[0] = (char)c;
		assert_int_equal(find(f, CORE_ROOT, name), ino[c - 1]);
	}
}

static void test_symlink(void **state)
{
	struct fixture *f = *state;
	char target[4096], got[4097];
	struct core_attr a;

	memset(target, 't', 4095);
	target[4095] = 0;
	assert_int_equal(core_symlink(f->core, &root_cred, CORE_ROOT, "long", target, &a), 0);
	assert_int_equal(a.size, 4095);
	assert_int_equal(a.mode, S_IFLNK | 0777);
	fixture_remount(f);
	assert_int_equal(find(f, CORE_ROOT, "long"), a.ino);
	assert_int_equal(core_readlink(f->core, a.ino, got, sizeof(got)), 0);
	assert_string_equal(got, target);
	assert_int_equal(core_readlink(f->core, make(f, CORE_ROOT, "f", S_IFREG), got, sizeof(got)), -EINVAL);
}

/* --- listing ------------------------------------------------------------------------------------------------------ */

#define KEPT 3000

struct churn {
	struct fixture *f;
	unsigned char seen[KEPT];
	unsigned left;
	uint64_t next;
	bool dots;
};

static int churn_entry(void *arg, const struct core_entry *e)
{
	struct churn *c = arg;
	unsigned n;

	if (!c->left)
		return 1;
	c->left--;
	assert_true(e->next > c->next);
	c->next = e->next;
	if (sscanf(e->name, "kept%u", &n) == 1 && n < KEPT)
		c->seen[n]++;
	return 0;
}

/* Entries that stay are listed exactly once, whatever comes and goes between the pieces; also after a remount. */
static void test_listing_while_changing(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "dir", S_IFDIR | 0755), rng = rng_seed(7);
	struct churn c = {.f = f};
	unsigned temp = 0;
	char name[32];

	for (unsigned n = 0; n < KEPT; n++) {
		(void)snprintf(name, sizeof(name), "kept%u", n);
		(void)make(f, dir, name, S_IFREG);
		(void)snprintf(name, sizeof(name), "gone%u", n);
		(void)make(f, dir, name, S_IFREG);
	}
	for (unsigned piece = 0;; piece++) {
		unsigned asked = 1 + (unsigned)rng_below(&rng, 200);

		c.left = asked;
		assert_int_equal(core_readdir(f->core, dir, c.next, false, churn_entry, &c), 0);
		if (c.left == asked || piece > 100000)
			break;
		for (unsigned n = 0; n < 10; n++) {
			(void)snprintf(name, sizeof(name), "gone%u", (unsigned)rng_below(&rng, KEPT));
			int ret = core_unlink(f->core, dir, name);
			assert_true(!ret || ret == -ENOENT);
		}
		if (piece % 3 == 0 && temp < 500) {
			(void)snprintf(name, sizeof(name), "temp%u", temp++);
			(void)make(f, dir, name, S_IFREG);
		}
		if (piece == 20) {
			fixture_remount(f);
			dir = find(f, CORE_ROOT, "dir");
		}
	}
	for (unsigned n = 0; n < KEPT; n++)
		assert_int_equal(c.seen[n], 1);
}

static int count_entry(void *arg, const struct core_entry *e)
{
	unsigned *n = arg;

	if (e->attr && e->name[0] != '.')
		assert_int_equal(e->attr->ino, e->ino);
	++*n;
	return 0;
}

static void test_listing_with_attributes(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;
	char name[32];

	for (unsigned k = 0; k < 1000; k++) {
		(void)snprintf(name, sizeof(name), "f%u", k);
		(void)make(f, CORE_ROOT, name, k % 2 ? S_IFREG : S_IFDIR);
	}
	assert_int_equal(core_readdir(f->core, CORE_ROOT, 0, true, count_entry, &n), 0);
	assert_int_equal(n, 1002);
	fixture_remount(f);
	n = 0;
	assert_int_equal(core_readdir(f->core, CORE_ROOT, 0, true, count_entry, &n), 0);
	assert_int_equal(n, 1002);
	n = 0;
	assert_int_equal(core_readdir(f->core, find(f, CORE_ROOT, "f1"), 0, true, count_entry, &n), -ENOTDIR);
}

static uint64_t unloaded; /* the inode that is found neither in memory nor, for want of it, in the index */

struct node *__real_node_peek(struct core *c, uint64_t ino);
struct node *__wrap_node_peek(struct core *c, uint64_t ino);
struct node *__wrap_node_peek(struct core *c, uint64_t ino)
{
	return ino == unloaded ? NULL : __real_node_peek(c, ino);
}

int __real_node_get(struct core *c, uint64_t ino, struct node **out);
int __wrap_node_get(struct core *c, uint64_t ino, struct node **out);
int __wrap_node_get(struct core *c, uint64_t ino, struct node **out)
{
	return ino == unloaded ? -ENOMEM : __real_node_get(c, ino, out);
}

static int count_without(void *arg, const struct core_entry *e)
{
	if (!e->attr) {
		assert_int_equal(e->ino, unloaded);
		assert_string_equal(e->name, "f1");
		assert_int_equal(e->type, S_IFREG);
		++*(unsigned *)arg;
	}
	return 0;
}

/* An entry of which the attributes cannot be had is listed all the same. */
static void test_listing_without_memory(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	for (char name[] = "f0"; name[1] < '4'; name[1]++)
		(void)make(f, CORE_ROOT, name, S_IFREG);
	unloaded = find(f, CORE_ROOT, "f1");
	int ret = core_readdir(f->core, CORE_ROOT, 0, true, count_without, &n);
	unloaded = 0;
	assert_int_equal(ret, 0);
	assert_int_equal(n, 1);
}

/* A directory that is removed while it is open is empty and takes no names. */
static void test_removed_directory(void **state)
{
	struct fixture *f = *state;
	uint64_t dir = make(f, CORE_ROOT, "dir", S_IFDIR | 0755);
	struct core_attr a;

	assert_int_equal(core_rmdir(f->core, CORE_ROOT, "dir"), 0);
	assert_int_equal(attr_of(f, dir).nlink, 0);
	assert_int_equal(core_mknod(f->core, &root_cred, dir, "x", S_IFREG, 0, &a), -ENOENT);
	assert_int_equal(core_lookup(f->core, dir, "x", &a), -ENOENT);
	core_forget(f->core, dir, 1);
	assert_int_equal(core_getattr(f->core, dir, &a), -ENOENT);
}

/* By number, any inode; without a name only who has it already, and the lookup leaves no reference behind. */
static void test_by_number(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = make(f, CORE_ROOT, "f", S_IFREG | 0644);
	struct core_attr a;

	assert_int_equal(core_lookup(f->core, ino, ".", &a), 0);
	assert_int_equal(a.ino, ino);
	core_forget(f->core, ino, 1);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "f"), 0);
	assert_int_equal(core_lookup(f->core, ino, ".", &a), -ENOENT);
	assert_int_equal(attr_of(f, ino).nlink, 0);
	core_forget(f->core, ino, 1);
	assert_int_equal(core_getattr(f->core, ino, &a), -ENOENT);
}

static void test_special_files(void **state)
{
	struct fixture *f = *state;
	static const uint32_t kind[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
	struct core_attr a;
	char name[8];

	for (unsigned n = 0; n < 4; n++) {
		(void)snprintf(name, sizeof(name), "s%u", n);
		assert_int_equal(
		    core_mknod(f->core, &root_cred, CORE_ROOT, name, kind[n] | 0620, n < 2 ? 0 : 0x12345, &a), 0);
	}
	fixture_remount(f);
	for (unsigned n = 0; n < 4; n++) {
		(void)snprintf(name, sizeof(name), "s%u", n);
		assert_int_equal(core_lookup(f->core, CORE_ROOT, name, &a), 0);
		assert_int_equal(a.mode, kind[n] | 0620);
		assert_int_equal(a.rdev, n < 2 ? 0 : 0x12345);
	}
}

/* What is deleted or truncated when a cut has its extents, but not yet its row. */
static void test_within_a_cut(void **state)
{
	struct fixture *f = *state;
	uint64_t deleted = make(f, CORE_ROOT, "deleted", S_IFREG | 0644);
	uint64_t emptied = make(f, CORE_ROOT, "emptied", S_IFREG | 0644);
	struct core_attr in = {.size = 0}, out;
	uint8_t buf[64], zero[64] = {0};
	struct err e = {0};

	memset(buf, 'x', sizeof(buf));
	put(f, deleted, buf, sizeof(buf), 0);
	put(f, emptied, buf, sizeof(buf), 0);
	assert_int_equal(inside_half_cut(f->core), 0);
	assert_int_equal(core_unlink(f->core, CORE_ROOT, "deleted"), 0);
	assert_int_equal(core_setattr(f->core, emptied, CORE_SET_SIZE, &in, &out), 0);
	sync_all(f);
	if (inside_check(f->core, &e))
		fail_msg("%s", e.text);
	in.size = sizeof(buf);
	assert_int_equal(core_setattr(f->core, emptied, CORE_SET_SIZE, &in, &out), 0);
	fixture_remount(f);
	assert_int_equal(get(f, find(f, CORE_ROOT, "emptied"), buf, sizeof(buf), 0), sizeof(buf));
	assert_memory_equal(buf, zero, sizeof(buf));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_errors),
	    TEST(test_rename_errors),
	    TEST(test_rename_moves),
	    TEST(test_whiteouts),
	    TEST(test_nameless),
	    TEST(test_links_max),
	    TEST(test_link_counts),
	    TEST(test_odd_names),
	    TEST(test_symlink),
	    TEST(test_listing_while_changing),
	    TEST(test_listing_with_attributes),
	    TEST(test_listing_without_memory),
	    TEST(test_removed_directory),
	    TEST(test_by_number),
	    TEST(test_special_files),
	    TEST(test_within_a_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
