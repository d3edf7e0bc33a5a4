/*
 * What requests bring to fs/core: names, attributes, offsets, lengths. Input: operations, each u8 which, u8 inode, then
 * its arguments; names are u8 length and bytes. The store is closed, opened again and walked at the end.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_io.h"

#include "fs/core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define INODES  16u
#define OPS_MAX 200u
#define DATA    65536u

static const char key[] = "a recovery key has just 32 bytes"; /* needs no Argon2id */
static const struct core_cred cred = {1000, 1000, 022};

struct state {
	struct core *c;
	uint64_t ino[INODES]; /* referenced once each; 0: unused */
	char name[320], other[320];
	uint8_t data[DATA];
};

static struct io *pristine(void)
{
	static struct io *io;
	const struct core_format f = {.pass_type = SECRET_RECOVERY, .mode = 0755};

	if (!io) {
		io = mem_new();
		must(!core_format(io, &f, key, strlen(key), NULL));
	}
	return io;
}

static void open_core(struct state *s, struct io *io)
{
	const struct core_options o = {
	    .io = io,
	    .pass = key,
	    .pass_len = strlen(key),
	    .pass_type = SECRET_RECOVERY,
	    .memory = 32 << 20,
	    .commit_interval_ms = 3600000,
	    .compress = {CODEC_LZ4, 0},
	    .workers = 1,
	    .no_compact = true,
	    .no_feedback = true,
	};

	must(!core_open(&o, &s->c, NULL));
}

static void get_name(struct cursor *in, char name[320])
{
	size_t n = cursor_get8(in), left = cursor_left(in);

	if (n > left)
		n = left;
	memset(name, 0, 320);
	cursor_get(in, name, n);
	if (n == 255)
		memset(name + n, 'x', 10); /* longer than any name may be */
}

/* An error is a small negative number. */
static int sane(int64_t ret)
{
	must(ret >= 0 || ret >= -200);
	return (int)ret;
}

static void keep(struct state *s, const struct core_attr *a)
{
	for (unsigned i = 1; i < INODES; i++) {
		if (s->ino[i])
			continue;
		s->ino[i] = a->ino;
		return;
	}
	core_forget(s->c, a->ino, 1);
}

static void op_make(struct state *s, struct cursor *in, uint64_t parent)
{
	uint32_t mode = cursor_get32(in);
	struct core_attr a;

	get_name(in, s->name);
	if (!sane(core_mknod(s->c, &cred, parent, s->name, mode, mode, &a)))
		keep(s, &a);
}

static void op_symlink(struct state *s, struct cursor *in, uint64_t parent)
{
	struct core_attr a;
	char target[4200], back[4200];
	uint16_t len = cursor_get16(in);

	get_name(in, s->name);
	get_name(in, s->other);
	memset(target, 'y', sizeof(target));
	memcpy(target, s->other, strlen(s->other));
	target[len < strlen(s->other) ? strlen(s->other) : len % sizeof(target)] = 0;
	target[sizeof(target) - 1] = 0;
	if (sane(core_symlink(s->c, &cred, parent, s->name, target, &a)))
		return;
	must(!core_readlink(s->c, a.ino, back, sizeof(back)) && !strcmp(target, back));
	keep(s, &a);
}

static void op_names(struct state *s, struct cursor *in, uint8_t which, uint64_t parent)
{
	uint64_t other = s->ino[cursor_get8(in) % INODES];
	struct core_attr a;

	get_name(in, s->name);
	switch (which) {
	case 0:
		if (!sane(core_lookup(s->c, parent, s->name, &a)))
			keep(s, &a);
		break;
	case 1:
		if (other && !sane(core_link(s->c, other, parent, s->name, &a)))
			core_forget(s->c, a.ino, 1);
		break;
	case 2:
		(void)sane(core_unlink(s->c, parent, s->name));
		break;
	case 3:
		(void)sane(core_rmdir(s->c, parent, s->name));
		break;
	default:
		get_name(in, s->other);
		if (other)
			(void)sane(core_rename(s->c, parent, s->name, other, s->other, which & 3));
	}
}

static void op_xattr(struct state *s, struct cursor *in, uint64_t ino)
{
	uint8_t which = cursor_get8(in);
	size_t len = cursor_get16(in), n;

	get_name(in, s->name);
	uint8_t *value = fuzz_take(in, len, &n);
	size_t room = len;
	char *out = malloc(len + 1);
	must(out);
	switch (which & 3) {
	case 0:
		(void)sane(core_setxattr(s->c, ino, s->name, value, n, which >> 2 & 3));
		break;
	case 1:
		if (!sane(core_getxattr(s->c, ino, s->name, out, &room)))
			must(!len || room <= len);
		break;
	case 2:
		(void)sane(core_removexattr(s->c, ino, s->name));
		break;
	default:
		if (!sane(core_listxattr(s->c, ino, out, &room)))
			must(!len || room <= len);
	}
	free(out);
	free(value);
}

static void op_setattr(struct state *s, struct cursor *in, uint64_t ino)
{
	struct core_attr set = {0}, a;
	unsigned which = cursor_get16(in) & 1023u;

	set.mode = cursor_get32(in);
	set.uid = cursor_get32(in);
	set.size = cursor_get64(in);
	set.mtime.sec = (int64_t)cursor_get64(in);
	set.mtime.nsec = cursor_get32(in) % 1000000000;
	(void)sane(core_setattr(s->c, ino, which, &set, &a));
}

static void op_file(struct state *s, struct cursor *in, uint64_t ino)
{
	uint8_t which = cursor_get8(in);
	uint64_t off = cursor_get64(in), at = 0;
	size_t len = cursor_get16(in);
	struct core_file *f;

	if (!(which & 0x80))
		off %= 1 << 20;
	if (sane(core_file_open(s->c, ino, which & 1 ? O_RDONLY : O_RDWR, &f)))
		return;
	memset(s->data, which, len);
	if (which & 2)
		(void)sane(core_file_write(f, s->data, len, off, which >> 4 & 7));
	else if (which & 4)
		(void)sane(core_file_seek(f, off, which & 8 ? SEEK_DATA : SEEK_HOLE, &at));
	else
		must(core_file_read(f, s->data, len, off) <= (ssize_t)len);
	core_file_close(f);
	if ((which & 0x70) == 0x70)
		must(!sane(core_fsync(s->c, ino, false)));
}

static int list_entry(void *arg, const struct core_entry *e)
{
	unsigned *left = arg;

	must(e->name[0] && strlen(e->name) <= 255 && !strchr(e->name, '/'));
	return --*left == 0;
}

static void op_list(struct state *s, struct cursor *in, uint64_t ino)
{
	unsigned left = 1 + cursor_get8(in);

	(void)sane(core_readdir(s->c, ino, cursor_get64(in), false, list_entry, &left));
}

static void op_info(struct state *s, uint64_t ino)
{
	struct core_statfs st;
	char *text = NULL;

	if (!sane(core_info(s->c, ino, &text)))
		free(text);
	must(!core_statfs(s->c, &st));
}

static void op(struct state *s, struct cursor *in)
{
	uint8_t which = cursor_get8(in), at = cursor_get8(in) % INODES;
	uint64_t ino = s->ino[at];

	if (!ino)
		ino = CORE_ROOT;
	switch (which % 8) {
	case 0:
		op_make(s, in, ino);
		break;
	case 1:
		op_symlink(s, in, ino);
		break;
	case 2:
		op_names(s, in, (which >> 3) % 8, ino);
		break;
	case 3:
		op_xattr(s, in, ino);
		break;
	case 4:
		op_setattr(s, in, ino);
		break;
	case 5:
		op_file(s, in, ino);
		break;
	case 6:
		op_list(s, in, ino);
		break;
	default:
		if (which & 8)
			op_info(s, ino);
		else if (at && s->ino[at]) {
			core_forget(s->c, s->ino[at], 1);
			s->ino[at] = 0;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct state s;
	struct cursor in = cursor_reader(data, len);
	unsigned left = 1000;

	fuzz_begin();
	struct io *io = mem_copy(pristine());
	memset(s.ino, 0, sizeof(s.ino));
	s.ino[0] = CORE_ROOT;
	open_core(&s, io);
	for (unsigned i = 0; i < OPS_MAX && cursor_left(&in); i++)
		op(&s, &in);
	for (unsigned i = 1; i < INODES; i++) {
		if (s.ino[i])
			core_forget(s.c, s.ino[i], 1);
	}
	must(!core_failed(s.c));
	must(!core_close(s.c, NULL));
	open_core(&s, io);
	must(!core_readdir(s.c, CORE_ROOT, 0, false, list_entry, &left));
	must(!core_close(s.c, NULL));
	io_free(io);
	return 0;
}
