/*
 * A whole volume over an index with hostile rows. Input: changes of rows, each u8 table, u8 row that is copied, u16
 * which of its columns get another value (bit 15: the row is deleted instead), then those values: u8 type, and its
 * bytes. Then the volume is opened, everything read, changed and removed.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_io.h"

#include "fs/core/core.h"
#include "fs/core/index_seal.h"
#include "index/db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define COLUMNS_MAX 24
#define NODES_MAX   64u
#define PAGE        4096u

static const char key[] = "a recovery key has just 32 bytes";
static const struct secret secret = {SECRET_RECOVERY, key, KEYS_LEN};

static int open_core(struct io *io, struct core **c)
{
	const struct core_options o = {
	    .io = io,
	    .pass = key,
	    .pass_len = KEYS_LEN,
	    .pass_type = SECRET_RECOVERY,
	    .memory = 32 << 20,
	    .commit_interval_ms = 3600000,
	    .compress = {CODEC_LZ4, 0},
	    .workers = 1,
	};

	return core_open(&o, c, NULL);
}

/* --- a volume with something of everything ------------------------------------------------------------------------ */

static void put_data(struct core *c, uint64_t ino, size_t len, uint64_t off)
{
	static uint8_t data[100000];
	struct core_file *f;

	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * i >> 7);
	must(!core_file_open(c, ino, O_RDWR, &f));
	must(!core_file_write(f, data, len, off, 0));
	core_file_close(f);
}

static struct io *make(void)
{
	const struct core_format f = {.pass_type = SECRET_RECOVERY, .mode = 0755};
	const struct core_cred cred = {0};
	struct io *io = mem_new();
	struct core_attr dir, a;
	struct core *c;

	must(!core_format(io, &f, key, KEYS_LEN, NULL) && !open_core(io, &c));
	must(!core_mknod(c, &cred, CORE_ROOT, "file", S_IFREG | 0644, 0, &a));
	put_data(c, a.ino, 100000, 0);
	put_data(c, a.ino, 5000, 200000);
	must(!core_setxattr(c, a.ino, "user.name", "value", 5, 0));
	core_forget(c, a.ino, 1);
	must(!core_sync(c));
	must(!core_mknod(c, &cred, CORE_ROOT, "dir", S_IFDIR | 0755, 0, &dir));
	must(!core_mknod(c, &cred, dir.ino, "small", S_IFREG | 0644, 0, &a));
	put_data(c, a.ino, 300, 0);
	must(!core_fsync(c, a.ino, false)); /* an inline chunk */
	core_forget(c, a.ino, 1);
	must(!core_symlink(c, &cred, dir.ino, "soft", "../file", &a));
	core_forget(c, a.ino, 1);
	core_forget(c, dir.ino, 1);
	must(!core_close(c, NULL));
	return io;
}

/* --- hostile rows ------------------------------------------------------------------------------------------------- */

static void bind_input(sqlite3_stmt *st, int column, struct cursor *in)
{
	size_t len;
	uint8_t type = cursor_get8(in), *bytes;

	switch (type % 6) {
	case 0:
		(void)sqlite3_bind_int64(st, column, (int64_t)cursor_get64(in));
		break;
	case 1:
		(void)sqlite3_bind_int64(st, column, cursor_get8(in));
		break;
	case 2:
		(void)sqlite3_bind_double(st, column, (double)cursor_get64(in));
		break;
	case 3:
		(void)sqlite3_bind_zeroblob(st, column, cursor_get32(in) % (1 << 20));
		break;
	default:
		bytes = fuzz_take(in, cursor_get8(in), &len);
		if (type % 6 == 4)
			(void)sqlite3_bind_text(st, column, (const char *)bytes, (int)len, SQLITE_TRANSIENT);
		else
			(void)sqlite3_bind_blob(st, column, bytes, (int)len, SQLITE_TRANSIENT);
		free(bytes);
	}
}

static sqlite3_stmt *prepare(struct index *ix, const char *format, const char *table)
{
	sqlite3_stmt *st = NULL;
	char sql[256];

	(void)snprintf(sql, sizeof(sql), format, table);
	must(sqlite3_prepare_v2(ix->db, sql, -1, &st, NULL) == SQLITE_OK);
	return st;
}

/* "?, ?, ..." */
static void marks(char *out, int n)
{
	for (int i = 0; i < n; i++)
		out += sprintf(out, i ? ",?" : "?");
}

static void change_row(struct index *ix, struct cursor *in)
{
	static const char *const tables[] = {"meta",   "inode", "symlink",      "dirent", "xattr",
	                                     "extent", "chunk", "inline_chunk", "segment"};
	const char *table = tables[cursor_get8(in) % (sizeof(tables) / sizeof(tables[0]))];
	uint8_t row = cursor_get8(in);
	uint16_t which = cursor_get16(in);
	sqlite3_stmt *from = prepare(ix, "SELECT * FROM %s LIMIT 1 OFFSET ?", table), *to;
	char format[64 + 2 * COLUMNS_MAX] = "INSERT OR REPLACE INTO %s VALUES(";
	int n = sqlite3_column_count(from);

	must(n <= COLUMNS_MAX);
	(void)sqlite3_bind_int(from, 1, row % 8);
	bool found = sqlite3_step(from) == SQLITE_ROW;
	if (which & 0x8000) {
		to = prepare(ix, "DELETE FROM %s WHERE (SELECT count(*) FROM inode) > ?", table);
		(void)sqlite3_bind_int(to, 1, row % 8);
	} else {
		marks(format + strlen(format), n);
		to = prepare(ix, strcat(format, ")"), table);
		for (int i = 0; i < n; i++) {
			if (which & 1 << i % 15)
				bind_input(to, i + 1, in);
			else if (found)
				(void)sqlite3_bind_value(to, i + 1, sqlite3_column_value(from, i));
		}
	}
	(void)sqlite3_step(to); /* a constraint may be in the way */
	(void)sqlite3_finalize(to);
	(void)sqlite3_finalize(from);
}

static bool change_rows(struct io *io, struct cursor *in)
{
	struct superblock *sb;
	struct keyring *k;
	struct index_seal seal;
	struct index *ix;

	must(!superblock_open(io, &sb, NULL) && !superblock_unlock(sb, &secret, &k, NULL));
	must(!index_seal_init(&seal, sb, k, NULL));
	must(!index_open(io, PAGE, &seal.index, &ix, NULL));
	for (unsigned i = 0; i < 16 && cursor_left(in); i++)
		change_row(ix, in);
	int ret = index_commit(ix, NULL);
	if (ret)
		index_abandon(ix);
	else
		must(!index_close(ix, NULL));
	index_seal_release(&seal);
	keyring_free(k);
	superblock_free(sb);
	return !ret;
}

/* --- all that a mount may do with it ------------------------------------------------------------------------------ */

struct walk {
	struct core *c;
	struct {
		uint64_t parent, ino;
		char name[256];
	} at[NODES_MAX];
	unsigned n;
	uint64_t parent;
};

static int found_entry(void *arg, const struct core_entry *e)
{
	struct walk *w = arg;

	if (!strcmp(e->name, ".") || !strcmp(e->name, ".."))
		return 0;
	must(e->name[0] && strlen(e->name) < sizeof(w->at[0].name) && !strchr(e->name, '/'));
	if (w->n == NODES_MAX)
		return 1;
	w->at[w->n].parent = w->parent;
	(void)snprintf(w->at[w->n++].name, sizeof(w->at[0].name), "%s", e->name);
	return 0;
}

static void use_data(struct core *c, uint64_t ino, uint64_t size)
{
	static uint8_t buf[131072];
	const uint64_t places[] = {0, 70000, size / 2, size - 5, (uint64_t)INT64_MAX - 100};
	struct core_file *f;
	uint64_t at;

	if (core_file_open(c, ino, O_RDWR, &f))
		return;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		must(core_file_read(f, buf, sizeof(buf), places[i]) <= (ssize_t)sizeof(buf));
		must(core_file_seek(f, places[i], SEEK_HOLE, &at) <= 0);
	}
	must(core_file_write(f, "new", 3, 2, 0) <= 0);
	core_file_close(f);
}

static void use_inode(struct core *c, uint64_t ino, const struct core_attr *a)
{
	static char buf[65536];
	struct core_attr set = {.size = 100}, out;
	size_t len = sizeof(buf);
	char *text = NULL;

	if (!core_readlink(c, ino, buf, sizeof(buf)))
		must(strlen(buf) < 4096);
	if (!core_listxattr(c, ino, buf, &len))
		must(len <= sizeof(buf));
	len = sizeof(buf);
	must(core_getxattr(c, ino, "user.name", buf, &len) <= 0);
	must(core_setxattr(c, ino, "user.other", "value", 5, 0) <= 0);
	if (!core_info(c, ino, &text))
		free(text);
	if (S_ISREG(a->mode)) {
		use_data(c, ino, a->size);
		must(core_setattr(c, ino, CORE_SET_SIZE, &set, &out) <= 0);
	}
	set.mode = 0600;
	must(core_setattr(c, ino, CORE_SET_MODE, &set, &out) <= 0);
	must(core_fsync(c, ino, false) <= 0);
}

static void use_all(struct core *c)
{
	static struct walk w;
	const struct core_cred cred = {0};
	struct core_statfs st;
	struct core_attr a;

	w = (struct walk){.c = c, .parent = CORE_ROOT};
	must(core_readdir(c, CORE_ROOT, 0, false, found_entry, &w) <= 0);
	for (unsigned i = 0; i < w.n; i++) {
		if (core_lookup(c, w.at[i].parent, w.at[i].name, &a))
			continue;
		w.parent = w.at[i].ino = a.ino;
		if (S_ISDIR(a.mode)) {
			must(core_readdir(c, a.ino, 0, false, found_entry, &w) <= 0);
			if (!core_mknod(c, &cred, a.ino, "made", S_IFREG | 0644, 0, &a))
				core_forget(c, a.ino, 1);
		} else {
			use_inode(c, a.ino, &a);
		}
	}
	must(core_statfs(c, &st) <= 0);
	must(core_sync(c) <= 0);
	for (unsigned i = w.n; i-- > 0;) {
		if (w.at[i].ino)
			core_forget(c, w.at[i].ino, 1);
		if (core_unlink(c, w.at[i].parent, w.at[i].name))
			must(core_rmdir(c, w.at[i].parent, w.at[i].name) <= 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct io *pristine;
	struct cursor in = cursor_reader(data, len);
	struct core *c;

	fuzz_begin();
	if (!pristine)
		pristine = make();
	struct io *io = mem_copy(pristine);
	if (change_rows(io, &in)) {
		for (int i = 0; i < 2 && !open_core(io, &c); i++) {
			use_all(c);
			must(core_close(c, NULL) <= 0);
		}
	}
	io_free(io);
	return 0;
}
