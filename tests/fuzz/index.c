/*
 * The index's two files under a cipher that hides nothing, so that SQLite and the VFS meet the input. Input: u8 flags,
 * then edits (fuzz_edit) of index.db and index.db-wal, one behind the other, as they lie in STORE. Flag 1: there is no
 * log; flag 2: the frames' checksums are made to fit; flag 4: the log is cut in the middle; flag 8: the first page's
 * header is left alone. A unit whose tag begins with an odd byte does not open.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_io.h"

#include "index/index.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE         1024u
#define SLOT         (PAGE + 32u)
#define SLOT_0       128u
#define FRAME_HEADER 24u
#define FILES        24u
#define WAL_LEN      (SLOT_0 + 40u * SLOT) /* what is kept of the log: more than it has */

static int seal(void *arg, enum index_unit unit, uint64_t number, const void *in, size_t len,
                uint8_t nonce[INDEX_NONCE], void *out)
{
	(void)arg;
	(void)unit;
	(void)number;
	memset(nonce, 1, INDEX_NONCE);
	memmove(out, in, len);
	memset((uint8_t *)out + len, 0, INDEX_TAG);
	return 0;
}

static int unseal(void *arg, enum index_unit unit, uint64_t number, const uint8_t nonce[INDEX_NONCE], const void *in,
                  size_t len, void *out)
{
	(void)arg;
	(void)unit;
	(void)number;
	(void)nonce;
	bool bad = ((const uint8_t *)in)[len] & 1;

	memmove(out, in, len);
	return bad ? -EBADMSG : 0;
}

static const struct index_sealer sealer = {seal, unseal, NULL};

/* --- a small index, with a log ------------------------------------------------------------------------------------ */

static struct {
	uint8_t *data;
	size_t db, wal;
} good;

static void put_file(struct index *ix, uint64_t n)
{
	static const uint8_t frames[] = {1, 0xe8, 7, 0x90, 3, 1};
	struct index_inode inode = {
	    .ino = n, .mode = S_IFREG | 0644, .nlink = 1, .size = 500, .flags = 1, .generation = n};
	struct index_dirent d = {.ino = n, .cookie = n, .type = 8};
	struct index_extent x = {.len = 500, .chunk = n};
	struct index_chunk c = {
	    .id = n,
	    .segment = 1,
	    .offset = 1000 * n,
	    .stored_len = 500,
	    .plain_len = 1000,
	    .data_start = 100,
	    .sequence = n,
	    .frames = frames,
	    .frames_len = sizeof(frames),
	    .inline_data = n % 4 ? NULL : good.data,
	};

	d.name_len = (uint8_t)snprintf(d.name, sizeof(d.name), "a file with the number %u", (unsigned)n);
	must(!index_inode_put(ix, &inode) && !index_dirent_add(ix, 1, &d) && !index_chunk_put(ix, &c));
	must(!index_extent_set(ix, n, &x) && !index_xattr_set(ix, n, "user.name", d.name, d.name_len));
	if (n % 5 == 0)
		must(!index_symlink_put(ix, n, d.name, d.name_len));
}

static void begin(void)
{
	struct index_inode root = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2, .parent = 1, .size = FILES};
	struct index_segment s = {.id = 1, .total = 100000, .header_len = 104};
	struct io *io = mem_new();
	struct index *ix;
	size_t len;

	good.data = calloc(1, 2048);
	must(good.data && !index_create(io, PAGE, &sealer, NULL));
	must(!index_open(io, PAGE, &sealer, &ix, NULL));
	must(!index_inode_put(ix, &root) && !index_segment_put(ix, &s) && !index_meta_set(ix, "next_ino", 100));
	for (uint64_t n = 2; n < FILES; n++)
		put_file(ix, n);
	must(!index_commit(ix, NULL) && !index_close(ix, NULL));
	must(!index_open(io, PAGE, &sealer, &ix, NULL));
	put_file(ix, FILES);
	must(!index_commit(ix, NULL) && !index_sync(ix, NULL));
	must(!index_dirent_remove(ix, 1, "a file with the number 7", 24) && !index_inode_delete(ix, 7));
	must(!index_commit(ix, NULL));
	free(good.data);
	(void)mem_get(io, "index.db", &good.db);
	good.wal = WAL_LEN;
	good.data = calloc(1, good.db + good.wal);
	must(good.data);
	memcpy(good.data, mem_get(io, "index.db", &len), good.db);
	const uint8_t *wal = mem_get(io, "index.db-wal", &len);
	memcpy(good.data + good.db, wal, len < good.wal ? len : good.wal);
	index_abandon(ix);
	io_free(io);
}

/* --- SQLite's checksums ------------------------------------------------------------------------------------------- */

static uint32_t get_be(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void add(uint32_t s[2], const uint8_t *p, size_t len, bool big)
{
	for (size_t i = 0; i < len; i += 8) {
		uint32_t a = get_be(p + i), b = get_be(p + i + 4);

		s[0] += (big ? a : __builtin_bswap32(a)) + s[1];
		s[1] += (big ? b : __builtin_bswap32(b)) + s[0];
	}
}

static void fix_checksums(uint8_t *wal)
{
	static const uint8_t zero[INDEX_RESERVE];
	uint8_t *h = wal + INDEX_NONCE;
	bool big = h[3] & 1;
	uint32_t s[2] = {0, 0};

	add(s, h, 24, big);
	put_be(h + 24, s[0]);
	put_be(h + 28, s[1]);
	for (uint8_t *slot = wal + SLOT_0; slot + SLOT <= wal + good.wal; slot += SLOT) {
		uint8_t *f = slot + INDEX_NONCE;

		if (!get_be(f)) /* behind the last frame */
			break;
		add(s, f, 8, big);
		add(s, f + FRAME_HEADER, PAGE - INDEX_RESERVE, big);
		add(s, zero, sizeof(zero), big);
		put_be(f + 16, s[0]);
		put_be(f + 20, s[1]);
	}
}

/* --- everything that is read and written -------------------------------------------------------------------------- */

static int seen_dirent(void *arg, const struct index_dirent *d, const struct index_inode *inode)
{
	unsigned *n = arg;

	(void)inode;
	must(d->name_len && !memchr(d->name, 0, d->name_len) && !memchr(d->name, '/', d->name_len));
	return ++*n > 1000;
}

static int seen_chunk(void *arg, const struct index_chunk *c)
{
	unsigned *n = arg;

	must(!c->frames_len || c->frames);
	return ++*n > 1000;
}

static void read_file(struct index *ix, uint64_t ino)
{
	static uint8_t buf[65536];
	struct index_inode inode;
	struct index_chunk chunk;
	struct index_extent x[8];
	size_t n = 0, len = sizeof(buf);
	unsigned count = 0;

	must(index_inode_get(ix, ino, &inode) <= 0);
	must(index_dirent_list(ix, ino, 0, true, seen_dirent, &count) <= 0 || count > 1000);
	count = 0;
	must(index_file_chunks(ix, ino, seen_chunk, &count) <= 0 || count > 1000);
	if (!index_extent_list(ix, ino, 0, INDEX_OFFSET_MAX, x, 8, &n))
		must(n <= 8);
	if (!index_symlink_get(ix, ino, (char *)buf, &len))
		must(len <= sizeof(buf));
	len = sizeof(buf);
	if (!index_xattr_list(ix, ino, (char *)buf, &len))
		must(len <= sizeof(buf) && (!len || !buf[len - 1]));
	len = sizeof(buf);
	if (!index_xattr_get(ix, ino, "user.name", buf, &len))
		must(len <= sizeof(buf));
	len = sizeof(buf);
	if (!index_inline_get(ix, ino, buf, &len))
		must(len <= sizeof(buf));
	if (!index_chunk_get(ix, ino, &chunk, buf, sizeof(buf)))
		must(chunk.frames_len <= sizeof(buf));
}

static void read_all(struct index *ix)
{
	struct index_segment s[4];
	struct index_totals totals;
	struct index_dirent d;
	uint64_t ino[8], value;
	size_t n;

	for (uint64_t i = 1; i <= FILES + 1; i++)
		read_file(ix, i);
	must(index_dirent_get(ix, 1, "a file with the number 3", 24, &d) <= 0);
	must(index_inode_orphans(ix, ino, 8, &n) <= 0);
	must(index_segment_list(ix, 0, s, 4, &n) <= 0);
	must(index_segment_empty(ix, s, 4, &n) <= 0);
	must(index_meta_get(ix, "next_ino", 1, &value) <= 0);
	must(index_totals(ix, &totals) <= 0);
	must(index_check(ix, NULL) <= 0);
}

static void write_all(struct index *ix)
{
	struct index_inode inode = {.ino = 50, .mode = S_IFREG, .nlink = 1};
	struct index_dirent d = {.ino = 50, .cookie = 5000, .type = 8, .name_len = 3, .name = "new"};

	must(index_inode_put(ix, &inode) <= 0);
	must(index_dirent_add(ix, 1, &d) <= 0);
	for (uint64_t i = 2; i < FILES; i += 3) {
		struct index_extent x = {.off = 100, .len = 200, .chunk = i & 1 ? 0 : 2, .chunk_off = 7};

		must(index_extent_set(ix, i, &x) <= 0);
		must(index_inode_delete(ix, i + 1) <= 0);
		must(index_xattr_set(ix, i, "user.other", "value", 5) <= 0);
	}
	must(index_dirent_remove(ix, 1, "a file with the number 3", 24) <= 0);
	must(index_meta_set(ix, "next_ino", 101) <= 0);
	if (!index_commit(ix, NULL))
		must(index_sync(ix, NULL) <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor in = cursor_reader(data, len);
	struct index *ix;

	fuzz_begin();
	if (!good.data)
		begin();
	uint8_t flags = cursor_get8(&in);
	uint8_t *copy = malloc(good.db + good.wal);
	must(copy);
	memcpy(copy, good.data, good.db + good.wal);
	fuzz_edit(&in, copy, good.db + good.wal);
	if (flags & 8)
		memcpy(copy, good.data, 100);
	if (flags & 2)
		fix_checksums(copy + good.db);
	struct io *io = mem_new();
	mem_put(io, "index.db", copy, good.db);
	if (!(flags & 1))
		mem_put(io, "index.db-wal", copy + good.db, flags & 4 ? good.wal / 2 : good.wal);
	free(copy);
	if (!index_open(io, PAGE, &sealer, &ix, NULL)) {
		read_all(ix);
		write_all(ix);
		if (flags & 16)
			index_abandon(ix);
		else
			must(index_close(ix, NULL) <= 0);
	}
	io_free(io);
	return 0;
}
