/* Every function over rows, with its errors; and all of it again after closing and opening. */
#include "tests/index/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void test_inode(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in = some_inode(5, 1), out;
	uint64_t orphan[4];
	size_t n;

	(void)state;
	assert_int_equal(index_inode_get(ix, 5, &out), -ENOENT);
	assert_int_equal(index_inode_put(ix, &in), 0);
	assert_int_equal(index_inode_get(ix, 5, &out), 0);
	assert_true(same_inode(&in, &out));
	for (int64_t change = 1000; change >= -3000; change -= 2000) {
		in.blocks = change < 0 && in.blocks <= (uint64_t)-change ? 1 : in.blocks + (uint64_t)change;
		assert_int_equal(index_inode_blocks(ix, 5, change), 0);
		assert_int_equal(index_inode_get(ix, 5, &out), 0);
		assert_true(same_inode(&in, &out));
	}
	assert_int_equal(in.blocks, 1);
	assert_int_equal(index_inode_blocks(ix, 6, 1), 0);
	assert_int_equal(index_inode_get(ix, 6, &out), -ENOENT);
	in.size = 3;
	in.nlink = 0;
	assert_int_equal(index_inode_put(ix, &in), 0);
	assert_int_equal(index_inode_orphans(ix, orphan, 4, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(orphan[0], 5);
	for (uint64_t i = 10; i < 20; i++) {
		in.ino = i;
		assert_int_equal(index_inode_put(ix, &in), 0);
	}
	assert_int_equal(index_inode_orphans(ix, orphan, 4, &n), 0);
	assert_int_equal(n, 4);
	close_index(ix);

	ix = open_index(io);
	assert_int_equal(index_inode_get(ix, 5, &out), 0);
	assert_int_equal(out.size, 3);
	assert_int_equal(index_inode_delete(ix, 5), 0);
	assert_int_equal(index_inode_delete(ix, 5), 0);
	assert_int_equal(index_inode_get(ix, 5, &out), -ENOENT);
	close_index(ix);
	io_free(io);
}

static void test_inode_delete_takes_all(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in = some_inode(5, 1);
	struct index_extent x;
	size_t len = 0, n;

	(void)state;
	assert_int_equal(index_inode_put(ix, &in), 0);
	assert_int_equal(index_symlink_put(ix, 5, "target", 6), 0);
	assert_int_equal(index_xattr_set(ix, 5, "user.a", "1", 1), 0);
	put_chunk(ix, 1);
	/* More extents than are cleared in one step. */
	for (uint64_t i = 0; i < 1000; i++) {
		x = (struct index_extent){i * 8192, 4096, 1, (uint32_t)(999 - i) * 1024};
		assert_int_equal(index_extent_set(ix, 5, &x), 0);
	}
	commit_index(ix);
	struct index_totals t;
	assert_int_equal(index_totals(ix, &t), 0);
	assert_int_equal(t.chunks, 1);
	assert_int_equal(t.live, 1000);
	assert_int_equal(t.logical, 1000 * 4096);
	assert_int_equal(index_inode_delete(ix, 5), 0);
	assert_int_equal(index_symlink_get(ix, 5, NULL, &len), -ENOENT);
	assert_int_equal(index_xattr_get(ix, 5, "user.a", NULL, &len), -ENODATA);
	assert_int_equal(index_extent_list(ix, 5, 0, UINT64_MAX, &x, 1, &n), 0);
	assert_int_equal(n, 0);
	commit_index(ix);
	assert_int_equal(index_totals(ix, &t), 0);
	assert_int_equal(t.chunks, 0);
	assert_int_equal(t.live, 0);
	ok(index_check(ix, &ok_err));
	close_index(ix);
	io_free(io);
}

static void test_symlink(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	char big[4096], buf[4096];
	size_t len;

	(void)state;
	memset(big, 'x', sizeof(big));
	assert_int_equal(index_symlink_put(ix, 3, "", 0), -EINVAL);
	assert_int_equal(index_symlink_put(ix, 3, big, 4096), -ENAMETOOLONG);
	assert_int_equal(index_symlink_put(ix, 3, big, 4095), 0);
	len = 4094;
	assert_int_equal(index_symlink_get(ix, 3, buf, &len), -ERANGE);
	assert_int_equal(len, 4095);
	assert_int_equal(index_symlink_get(ix, 3, buf, &len), 0);
	assert_memory_equal(buf, big, 4095);
	assert_int_equal(index_symlink_get(ix, 4, buf, &len), -ENOENT);
	index_abandon(ix);
	io_free(io);
}

struct listing {
	size_t n, stop;
	uint64_t last, with_inode;
	char names[600];
};

static int list_one(void *arg, const struct index_dirent *d, const struct index_inode *inode)
{
	struct listing *l = arg;

	assert_true(d->cookie > l->last);
	l->last = d->cookie;
	if (inode) {
		assert_int_equal(inode->ino, d->ino);
		l->with_inode++;
	}
	if (l->n < sizeof(l->names) - 1)
		l->names[l->n] = d->name[0];
	return ++l->n == l->stop;
}

static void test_dirent(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_dirent d, out;
	struct index_inode in = some_inode(101, 1);

	(void)state;
	d = some_dirent("a", 101, 3);
	assert_int_equal(index_dirent_get(ix, 1, "a", 1, &out), -ENOENT);
	assert_int_equal(index_dirent_add(ix, 1, &d), 0);
	assert_int_equal(index_dirent_add(ix, 1, &d), -EEXIST);
	d = some_dirent("b", 102, 3); /* the cookie is taken */
	assert_int_equal(index_dirent_add(ix, 1, &d), -EEXIST);
	assert_false(index_failed(ix));
	d.cookie = 9;
	assert_int_equal(index_dirent_add(ix, 1, &d), 0);
	d = some_dirent("c", 103, 5);
	assert_int_equal(index_dirent_add(ix, 1, &d), 0);
	assert_int_equal(index_dirent_add(ix, 2, &d), 0);
	d.name_len = 0;
	assert_int_equal(index_dirent_add(ix, 1, &d), -EINVAL);
	assert_int_equal(index_dirent_get(ix, 1, "a", 256, &out), -ENAMETOOLONG);
	assert_int_equal(index_inode_put(ix, &in), 0);

	struct listing l = {0};
	assert_int_equal(index_dirent_list(ix, 1, 0, true, list_one, &l), 0);
	assert_string_equal(l.names, "acb");
	assert_int_equal(l.with_inode, 1);
	l = (struct listing){.last = 3, .stop = 1};
	assert_int_equal(index_dirent_list(ix, 1, 3, false, list_one, &l), 0);
	assert_string_equal(l.names, "c");
	l = (struct listing){0};
	assert_int_equal(index_dirent_list(ix, 1, UINT64_MAX, false, list_one, &l), 0);
	assert_int_equal(l.n, 0);

	assert_int_equal(index_dirent_set(ix, 1, "a", 1, 102, 4), 0);
	assert_int_equal(index_dirent_set(ix, 1, "z", 1, 102, 4), -ENOENT);
	assert_int_equal(index_dirent_rename(ix, 1, "z", 1, "y", 1), -ENOENT);
	assert_int_equal(index_dirent_rename(ix, 1, "a", 1, "", 0), -EINVAL);
	assert_int_equal(index_dirent_rename(ix, 1, "a", 1, "zz", 2), 0);
	assert_int_equal(index_dirent_get(ix, 1, "a", 1, &out), -ENOENT);
	assert_int_equal(index_dirent_rename(ix, 1, "zz", 2, "b", 1), -EEXIST);
	assert_int_equal(index_dirent_rename(ix, 1, "zz", 2, "a", 1), 0);
	assert_int_equal(index_dirent_get(ix, 1, "a", 1, &out), 0);
	assert_int_equal(out.ino, 102);
	assert_int_equal(out.cookie, 3);
	assert_int_equal(out.type, 4);
	assert_int_equal(out.name_len, 1);
	assert_string_equal(out.name, "a");
	assert_int_equal(index_dirent_remove(ix, 1, "a", 1), 0);
	assert_int_equal(index_dirent_remove(ix, 1, "a", 1), -ENOENT);
	close_index(ix);
	ix = open_index(io);
	assert_int_equal(index_dirent_get(ix, 1, "a", 1, &out), -ENOENT);
	assert_int_equal(index_dirent_get(ix, 2, "c", 1, &out), 0);
	close_index(ix);
	io_free(io);
}

/* A name cannot hold '/' or 0. */
static bool in_name(unsigned byte)
{
	return byte != '/' && byte;
}

/* Names are bytes: every value, every length, none equal to another. */
static void test_names(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_dirent d = {.ino = 1}, out;

	(void)state;
	for (unsigned i = 0; i < 256; i++) {
		d.cookie = 3 + i;
		d.name_len = 2;
		d.name[0] = in_name(i) ? (char)i : 'a';
		d.name[1] = in_name(i) ? 'b' : (char)(i + 1);
		assert_int_equal(index_dirent_add(ix, 1, &d), 0);
	}
	for (unsigned len = 1; len <= 255; len++) {
		memset(d.name, 0xff, 255);
		d.cookie = 1000 + len;
		d.ino = len;
		d.name_len = (uint8_t)len;
		assert_int_equal(index_dirent_add(ix, 2, &d), 0);
	}
	close_index(ix);
	ix = open_index(io);
	for (unsigned i = 0; i < 256; i++) {
		const char name[2] = {in_name(i) ? (char)i : 'a', in_name(i) ? 'b' : (char)(i + 1)};
		assert_int_equal(index_dirent_get(ix, 1, name, 2, &out), 0);
		assert_int_equal(out.cookie, 3 + i);
		assert_memory_equal(out.name, name, 2);
	}
	for (unsigned len = 1; len <= 255; len++) {
		assert_int_equal(index_dirent_get(ix, 2, d.name, len, &out), 0);
		assert_int_equal(out.ino, len);
	}
	close_index(ix);
	io_free(io);
}

static void test_xattr(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	size_t len = 0, max = 65536;
	uint8_t *big = malloc(max + 1), *buf = malloc(max);
	char names[64], longname[300];

	(void)state;
	assert_non_null(big);
	assert_non_null(buf);
	for (size_t i = 0; i < max; i++)
		big[i] = (uint8_t)(i * 7);
	memset(longname, 'n', sizeof(longname));
	longname[256] = '\0';
	assert_int_equal(index_xattr_get(ix, 5, "user.b", NULL, &len), -ENODATA);
	assert_int_equal(index_xattr_set(ix, 5, "", "x", 1), -EINVAL);
	assert_int_equal(index_xattr_set(ix, 5, longname, "x", 1), -ERANGE);
	assert_int_equal(index_xattr_set(ix, 5, "user.b", big, max + 1), -E2BIG);
	assert_int_equal(index_xattr_set(ix, 5, "user.b", big, max), 0);
	assert_int_equal(index_xattr_set(ix, 5, "user.a", NULL, 0), 0);
	assert_int_equal(index_xattr_set(ix, 5, "user.a", "", 0), 0);
	assert_int_equal(index_xattr_set(ix, 6, "user.c", "c", 1), 0);
	close_index(ix);

	ix = open_index(io);
	assert_int_equal(index_xattr_get(ix, 5, "user.b", NULL, &len), 0);
	assert_int_equal(len, max);
	len = max - 1;
	assert_int_equal(index_xattr_get(ix, 5, "user.b", buf, &len), -ERANGE);
	assert_int_equal(len, max);
	assert_int_equal(index_xattr_get(ix, 5, "user.b", buf, &len), 0);
	assert_memory_equal(buf, big, max);
	len = 8;
	assert_int_equal(index_xattr_get(ix, 5, "user.a", buf, &len), 0);
	assert_int_equal(len, 0);
	len = 0;
	assert_int_equal(index_xattr_list(ix, 5, NULL, &len), 0);
	assert_int_equal(len, 14);
	len = 13;
	assert_int_equal(index_xattr_list(ix, 5, names, &len), -ERANGE);
	assert_int_equal(len, 14);
	assert_int_equal(index_xattr_list(ix, 5, names, &len), 0);
	assert_memory_equal(names, "user.a\0user.b", 14);
	assert_int_equal(index_xattr_remove(ix, 5, "user.a"), 0);
	assert_int_equal(index_xattr_remove(ix, 5, "user.a"), -ENODATA);
	assert_int_equal(index_xattr_set(ix, 5, "user.b", "short", 5), 0);
	len = max;
	assert_int_equal(index_xattr_get(ix, 5, "user.b", buf, &len), 0);
	assert_int_equal(len, 5);
	close_index(ix);
	io_free(io);
	free(big);
	free(buf);
}

static void test_meta(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	uint64_t v;

	(void)state;
	assert_int_equal(index_meta_get(ix, "next", 42, &v), 0);
	assert_int_equal(v, 42);
	assert_int_equal(index_meta_set(ix, "next", UINT64_MAX), 0);
	assert_int_equal(index_meta_set(ix, "schema", 2), -EINVAL);
	assert_int_equal(index_meta_set(ix, "", 2), -EINVAL);
	close_index(ix);
	ix = open_index(io);
	assert_int_equal(index_meta_get(ix, "next", 42, &v), 0);
	assert_true(v == UINT64_MAX);
	close_index(ix);
	io_free(io);
}

static void test_chunk(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_chunk c;
	struct index_extent x = {0, 4096, 7, 0};
	uint8_t buf[8];

	(void)state;
	put_chunk(ix, 7);
	put_chunk(ix, 8); /* never mapped */
	assert_int_equal(index_extent_set(ix, 3, &x), 0);
	assert_int_equal(index_chunk_get(ix, 8, &c, buf, sizeof(buf)), 0);
	commit_index(ix);
	assert_int_equal(index_chunk_get(ix, 8, &c, buf, sizeof(buf)), -ENOENT);
	assert_int_equal(index_chunk_get(ix, 7, &c, buf, 3), -ERANGE);
	assert_int_equal(index_chunk_get(ix, 7, &c, buf, sizeof(buf)), 0);
	assert_int_equal(c.segment, 1);
	assert_int_equal(c.offset, 7000);
	assert_int_equal(c.stored_len, 1000);
	assert_int_equal(c.plain_len, 1 << 20);
	assert_int_equal(c.data_start, 40);
	assert_int_equal(c.sequence, 12);
	assert_int_equal(c.frames_len, 4);
	assert_ptr_equal(c.frames, buf);
	assert_false(c.is_inline);
	assert_null(c.inline_data);
	c.id = 0;
	assert_int_equal(index_chunk_put(ix, &c), -EINVAL);
	index_abandon(ix);
	io_free(io);
}

static uint64_t live_of(struct index *ix, uint64_t id)
{
	struct index_segment s;
	size_t n;

	commit_index(ix);
	ok(index_check(ix, &ok_err));
	assert_int_equal(index_segment_list(ix, id - 1, &s, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(s.id, id);
	return s.live;
}

/* What is mapped of a chunk of 1 MiB in 1,000 bytes, and how much of the segment that is. */
static void test_live(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in = some_inode(3, 0);
	struct index_extent whole = {0, 1 << 20, 7, 0}, part = {1 << 20, 1 << 19, 7, 0}, hole = {.len = 1 << 19};

	(void)state;
	put_chunk(ix, 7);
	assert_int_equal(index_inode_put(ix, &in), 0);
	assert_int_equal(index_extent_set(ix, 3, &whole), 0);
	assert_int_equal(live_of(ix, 1), 1000);
	/* Mapped again: it cannot be worth more than it is. */
	assert_int_equal(index_extent_set(ix, 3, &part), 0);
	assert_int_equal(live_of(ix, 1), 1000);
	assert_int_equal(index_extent_set(ix, 3, &hole), 0);
	assert_int_equal(live_of(ix, 1), 1000);
	hole.off = 1 << 19;
	assert_int_equal(index_extent_set(ix, 3, &hole), 0);
	assert_int_equal(live_of(ix, 1), 500);
	/* The middle of an extent goes, without one going. */
	hole = (struct index_extent){(1 << 20) + 1, (1 << 19) - 2, 0, 0};
	assert_int_equal(index_extent_set(ix, 3, &hole), 0);
	assert_int_equal(live_of(ix, 1), 1);
	assert_int_equal(index_inode_delete(ix, 3), 0);
	assert_int_equal(live_of(ix, 1), 0);
	close_index(ix);
	io_free(io);
}

static uint64_t unsure_of(struct index *ix, uint64_t segment)
{
	uint64_t id, bytes;

	return index_unsure_next(ix, segment - 1, &id, &bytes) || id != segment ? 0 : bytes;
}

static void map(struct index *ix, uint64_t ino, uint64_t chunk, uint32_t chunk_off, uint64_t off, uint64_t len)
{
	const struct index_extent x = {off, len, chunk, chunk_off};

	assert_int_equal(index_extent_set(ix, ino, &x), 0);
}

/* What `live` may hide: never less than what it does, and nothing where nothing is shared. */
static void test_unsure(void **state)
{
	const uint64_t half = 1 << 19, whole = 1 << 20;
	struct io *io;
	struct index *ix = new_index(&io);
	uint64_t id, bytes;

	(void)state;
	put_chunk(ix, 7);
	for (uint64_t ino = 3; ino <= 5; ino++) {
		struct index_inode in = some_inode(ino, 0);

		assert_int_equal(index_inode_put(ix, &in), 0);
	}
	map(ix, 3, 7, 0, 0, whole);
	assert_int_equal(live_of(ix, 1), 1000);
	map(ix, 3, 0, 0, half, 9000);
	assert_true(live_of(ix, 1) < 1000);
	assert_int_equal(unsure_of(ix, 1), 0);
	map(ix, 3, 7, half, half, 9000);
	assert_int_equal(live_of(ix, 1), 1000);
	index_unsure_clear(ix, 1);
	/* Of three that share it one loses half, which the others have. */
	map(ix, 4, 7, 0, 0, whole);
	map(ix, 5, 7, 0, 0, whole);
	assert_int_equal(live_of(ix, 1), 1000);
	assert_int_equal(unsure_of(ix, 1), 0);
	map(ix, 3, 0, 0, 0, half);
	assert_int_equal(live_of(ix, 1), 1000);
	assert_int_equal(unsure_of(ix, 1), 500);
	index_unsure_clear(ix, 1);
	/* The others, too: it is dead, and does not show. */
	map(ix, 4, 0, 0, 0, half);
	map(ix, 5, 0, 0, 0, half);
	assert_int_equal(live_of(ix, 1), 1000);
	assert_true(unsure_of(ix, 1) >= 500);
	/* One alone has the rest: it shows. Others then hide it again. */
	map(ix, 4, 0, 0, half, half);
	map(ix, 5, 0, 0, half, half);
	assert_int_equal(live_of(ix, 1), 500);
	index_unsure_clear(ix, 1);
	map(ix, 4, 7, half, half, half);
	assert_int_equal(live_of(ix, 1), 1000);
	assert_int_equal(unsure_of(ix, 1), 500);
	/* Half is cloned and half goes within one transaction: the counts are the same. */
	index_unsure_clear(ix, 1);
	map(ix, 5, 7, half, half, half);
	map(ix, 4, 0, 0, half, half);
	assert_int_equal(live_of(ix, 1), 1000);
	assert_int_equal(unsure_of(ix, 1), 500);
	/* What is added stays until it is cleared, or the segment goes. */
	index_unsure_add(ix, 9, 1);
	index_unsure_add(ix, 8, INDEX_UNKNOWN);
	index_unsure_add(ix, 8, 5);
	assert_int_equal(index_unsure_next(ix, 1, &id, &bytes), 0);
	assert_int_equal(id, 8);
	assert_int_equal(bytes, INDEX_UNKNOWN);
	assert_int_equal(index_segment_delete(ix, 8), 0);
	assert_int_equal(index_unsure_next(ix, 1, &id, &bytes), 0);
	assert_int_equal(id, 9);
	index_unsure_clear(ix, 9);
	assert_int_equal(index_unsure_next(ix, 1, &id, &bytes), -ENOENT);
	close_index(ix);
	io_free(io);
}

static void test_inline_chunk(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	static uint8_t record[32768], buf[32768];
	struct index_chunk c = {.id = 7, .segment = 2, .stored_len = sizeof(record), .plain_len = 4096};
	struct index_extent x = {0, 4096, 7, 0};
	struct index_totals t;
	size_t len = 0;

	(void)state;
	memset(record, 0xa5, sizeof(record));
	c.inline_data = record;
	put_segment(ix, 2);
	assert_int_equal(index_chunk_put(ix, &c), 0);
	assert_int_equal(index_extent_set(ix, 3, &x), 0);
	commit_index(ix);
	assert_int_equal(index_inline_get(ix, 8, buf, &len), -ENOENT);
	assert_int_equal(index_inline_get(ix, 7, buf, &len), 0);
	assert_int_equal(len, sizeof(record));
	len = 5;
	assert_int_equal(index_inline_get(ix, 7, buf, &len), -ERANGE);
	assert_int_equal(index_inline_get(ix, 7, buf, &len), 0);
	assert_memory_equal(buf, record, sizeof(record));
	assert_int_equal(index_totals(ix, &t), 0);
	assert_int_equal(t.inline_bytes, sizeof(record));
	assert_int_equal(index_chunk_get(ix, 7, &c, NULL, 0), 0);
	assert_true(c.is_inline);

	/* It moves to a segment: the record goes, the extents stay. */
	c.segment = 1;
	c.stored_len = 500;
	assert_int_equal(index_chunk_put(ix, &c), 0);
	commit_index(ix);
	assert_int_equal(index_inline_get(ix, 7, buf, &len), -ENOENT);
	struct index_segment s[3];
	size_t n;
	assert_int_equal(index_segment_list(ix, 0, s, 3, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(s[0].live, 500);
	assert_int_equal(s[0].chunks, 1);
	assert_int_equal(s[1].live, 0);
	assert_int_equal(s[1].chunks, 0);

	/* And goes with its last extent. */
	x.chunk = 0;
	assert_int_equal(index_extent_set(ix, 3, &x), 0);
	commit_index(ix);
	assert_int_equal(index_chunk_get(ix, 7, &c, NULL, 0), -ENOENT);
	assert_int_equal(index_segment_empty(ix, s, 3, &n), 0);
	assert_int_equal(n, 2);
	ok(index_check(ix, &ok_err));
	close_index(ix);
	io_free(io);
}

static void test_segment(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_segment s[4], in = {.id = 4, .state = INDEX_SEGMENT_INLINE, .header_len = 128};
	size_t n;

	(void)state;
	for (size_t i = 0; i < 128; i++)
		in.header[i] = (uint8_t)i;
	memset(in.name, 0x11, sizeof(in.name));
	assert_int_equal(index_segment_put(ix, &in), 0);
	put_segment(ix, 2);
	assert_int_equal(index_segment_list(ix, 0, s, 2, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(s[1].id, 2);
	assert_int_equal(index_segment_list(ix, 2, s, 4, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(s[0].state, INDEX_SEGMENT_INLINE);
	assert_int_equal(s[0].header_len, 128);
	assert_memory_equal(s[0].header, in.header, 128);
	assert_memory_equal(s[0].name, in.name, 16);
	in.id = 2;
	in.state = INDEX_SEGMENT_SEALED;
	in.total = 99;
	in.epoch = 55;
	assert_int_equal(index_segment_put(ix, &in), 0);
	assert_int_equal(index_segment_list(ix, 1, s, 1, &n), 0);
	assert_int_equal(s[0].state, INDEX_SEGMENT_SEALED);
	assert_int_equal(s[0].total, 99);
	assert_int_equal(s[0].epoch, 7);
	assert_int_equal(index_segment_delete(ix, 4), 0);
	assert_int_equal(index_segment_delete(ix, 4), 0);
	in.header_len = 129;
	assert_int_equal(index_segment_put(ix, &in), -EINVAL);
	assert_int_equal(index_segment_empty(ix, s, 1, &n), 0);
	assert_int_equal(n, 1);
	index_abandon(ix);
	io_free(io);
}

static int count_chunk(void *arg, const struct index_chunk *c)
{
	uint64_t *sum = arg;

	*sum = *sum * 10 + c->id;
	return *sum > 1000 ? -EINTR : 0;
}

static void test_file_chunks(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	uint64_t sum = 0;

	(void)state;
	for (uint64_t i = 0; i < 9; i++) {
		struct index_extent x = {i * 8192, 4096, 1 + i % 3, (uint32_t)(i * 4096)};
		put_chunk(ix, 1 + i % 3);
		assert_int_equal(index_extent_set(ix, 3, &x), 0);
	}
	assert_int_equal(index_file_chunks(ix, 3, count_chunk, &sum), 0);
	assert_int_equal(sum, 123);
	assert_int_equal(index_file_chunks(ix, 3, count_chunk, &sum), -EINTR);
	index_abandon(ix);
	io_free(io);
}

/* Extents and chunks that name rows which do not exist stop the commit. */
static void test_dangling(void **state)
{
	struct index_extent x = {0, 4096, 99, 0};
	struct index_chunk c = {.id = 99, .segment = 55, .stored_len = 10, .plain_len = 4096};
	struct io *io;
	struct index *ix = new_index(&io);
	struct err e = {0};

	(void)state;
	assert_int_equal(index_extent_set(ix, 3, &x), 0);
	assert_int_equal(index_commit(ix, &e), -EINVAL);
	assert_true(index_failed(ix));
	assert_int_equal(index_extent_set(ix, 3, &x), -EIO);
	assert_int_equal(index_close(ix, NULL), -EIO);

	ix = open_index(io);
	put_segment(ix, 1);
	assert_int_equal(index_chunk_put(ix, &c), 0);
	assert_int_equal(index_extent_set(ix, 3, &x), 0);
	err_reset(&e);
	assert_int_equal(index_commit(ix, &e), -EINVAL);
	assert_int_equal(index_close(ix, NULL), -EIO);
	io_free(io);
}

/* index_check finds what does not add up. */
static void test_check(void **state)
{
	struct io *io;
	struct index *ix = new_index(&io);
	struct index_inode in = some_inode(5, 1), root = some_inode(1, 2);
	struct index_dirent d = some_dirent("n", 5, 3);
	struct err e = {0};

	(void)state;
	root.mode = S_IFDIR | 0755;
	assert_int_equal(index_inode_put(ix, &root), 0);
	ok(index_check(ix, &ok_err));
	assert_int_equal(index_dirent_add(ix, 1, &d), 0);
	assert_int_equal(index_check(ix, &e), -EUCLEAN);
	assert_non_null(strstr(e.text, "no row"));
	assert_int_equal(index_inode_put(ix, &in), 0);
	ok(index_check(ix, &ok_err));
	in.nlink = 2;
	assert_int_equal(index_inode_put(ix, &in), 0);
	err_reset(&e);
	assert_int_equal(index_check(ix, &e), -EUCLEAN);
	assert_non_null(strstr(e.text, "links"));
	index_abandon(ix);
	io_free(io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_inode),        cmocka_unit_test(test_inode_delete_takes_all),
	    cmocka_unit_test(test_symlink),      cmocka_unit_test(test_dirent),
	    cmocka_unit_test(test_names),        cmocka_unit_test(test_xattr),
	    cmocka_unit_test(test_meta),         cmocka_unit_test(test_chunk),
	    cmocka_unit_test(test_live),         cmocka_unit_test(test_unsure),
	    cmocka_unit_test(test_inline_chunk), cmocka_unit_test(test_segment),
	    cmocka_unit_test(test_file_chunks),  cmocka_unit_test(test_dangling),
	    cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
