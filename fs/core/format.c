/* Making a store. */
#include "fs/core/reserve.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE_SIZE_DEFAULT 4096u
#define RESERVE_SHARE     16u /* of the free space at most */

static const char readme[] =
    "This directory is an apfs store: the backing directory of an encrypted, compressed filesystem.\n"
    "\n"
    "  superblock, superblock.bak   format, key slots (two copies)\n"
    "  index.db, index.db-wal       names, attributes, and where each file's data is\n"
    "  segments/                    file data, compressed and encrypted, in append-only files\n"
    "  quarantine/                  segments that a crash left without a reference\n"
    "  lock, superblock.lock        who has it mounted; held while key slots are changed\n"
    "  reserve                      space set aside so that a full disk can be emptied\n"
    "\n"
    "Mount it with:    apfs-mount THIS_DIRECTORY MOUNTPOINT\n"
    "Look at it with:  apfs info THIS_DIRECTORY\n"
    "\n"
    "Back up the directory as a whole, while it is not mounted. Do not edit, rename or delete anything in it: every\n"
    "file is needed. Without what opens one of its key slots nobody can read the data, and nobody can restore a\n"
    "forgotten passphrase.\n";

struct format_scan {
	bool foreign, superblock;
};

static bool ours(const char *name)
{
	static const char *const names[] = {"superblock",       "superblock.bak", "index.db",   "index.db-wal",
	                                    "index.db-journal", "segments",       "quarantine", CORE_FILE_RESERVE,
	                                    "README",           CORE_FILE_LOCK,   "lost+found"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(name, names[i]))
			return true;
	return strstr(name, ".new") != NULL; /* io_replace_file, interrupted */
}

static int format_look(void *arg, const char *name)
{
	struct format_scan *s = arg;

	/* The copy is written first: with either, the rest is there. */
	s->superblock |= !strcmp(name, "superblock") || !strcmp(name, "superblock.bak");
	s->foreign |= !ours(name);
	return 0;
}

static int make_dir(struct io *io, const char *name)
{
	int ret = io_mkdir(io, name);

	return ret == -EEXIST ? 0 : ret;
}

/* What a mount locks: on a full disk it could not make it. */
static int make_lock(struct io *io)
{
	struct io_file *f;
	int ret = io_open(io, CORE_FILE_LOCK, IO_WRITE | IO_CREATE, &f);

	if (!ret)
		io_close(f);
	return ret;
}

/* As far as there is room: a mount completes it. */
static int make_reserve(struct io *io)
{
	struct io *reserve;
	struct io_space s;
	int ret = reserve_new(io, &reserve);

	if (ret)
		return ret;
	if (!io_space(io, &s))
		reserve_grow(reserve, s.avail / RESERVE_SHARE);
	io_free(reserve);
	return 0;
}

static int make_root(struct io *io, const struct core_format *f, const struct index_sealer *sealer, struct err *e)
{
	struct index_inode root = {.ino = CORE_ROOT, .nlink = 2, .parent = CORE_ROOT, .generation = 1};
	struct index *ix;
	int ret = index_open(io, PAGE_SIZE_DEFAULT, sealer, &ix, e);

	if (ret)
		return ret;
	root.mode = S_IFDIR | (f->mode & 07777);
	root.uid = f->uid;
	root.gid = f->gid;
	root.btime = clock_system.now(&clock_system);
	root.atime = root.mtime = root.ctime = root.btime;
	ret = index_inode_put(ix, &root);
	if (!ret)
		ret = index_commit(ix, e);
	if (ret) {
		index_abandon(ix);
		return ret;
	}
	return index_close(ix, e);
}

/* What a run that was interrupted before the superblock left is made again. */
static int remove_index(struct io *io)
{
	static const char *const files[] = {"index.db-wal", "index.db-journal", "index.db"};
	int ret = 0;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && (!ret || ret == -ENOENT); i++)
		ret = io_unlink(io, files[i]);
	return ret == -ENOENT ? 0 : ret;
}

/* Everything but the superblock. */
static int make_files(struct io *io, const struct core_format *f, const struct index_sealer *sealer, struct err *e)
{
	int ret = make_dir(io, "segments");

	if (!ret)
		ret = make_dir(io, "quarantine");
	if (!ret)
		ret = remove_index(io);
	if (!ret)
		ret = io_replace_file(io, "README", 0, readme, sizeof(readme) - 1);
	if (!ret)
		ret = make_lock(io);
	if (!ret)
		ret = make_reserve(io);
	if (!ret)
		ret = index_create(io, PAGE_SIZE_DEFAULT, sealer, e);
	return ret ? ret : make_root(io, f, sealer, e);
}

int core_format(struct io *io, const struct core_format *f, const void *pass, size_t pass_len, struct err *e)
{
	struct format_scan scan = {0};
	const struct secret secret = {f->pass_type ? f->pass_type : SECRET_PASSPHRASE, pass, pass_len};
	const struct superblock_slot first = {.secret = &secret, .kdf = {f->kdf_ops, f->kdf_mem}};
	struct superblock *sb = NULL;
	struct keyring *k = NULL;
	struct index_seal seal = {0};
	int ret = keys_init(e);

	if (ret)
		return ret;
	ret = io_list(io, "", format_look, &scan);
	if (ret)
		return err_set(e, ret, ERR_IO, "STORE cannot be listed: %s", strerror(-ret));
	if (scan.superblock)
		return err_set(e, -EEXIST, ERR_USAGE, "the directory is an apfs store already");
	if (scan.foreign)
		return err_set(e, -ENOTEMPTY, ERR_USAGE, "the directory is not empty");
	ret = superblock_new(io, (enum cipher_suite)f->suite, PAGE_SIZE_DEFAULT, &first, &sb, &k, e);
	if (ret)
		return ret;
	ret = index_seal_init(&seal, sb, k, e);
	if (!ret)
		ret = make_files(io, f, &seal.index, e);
	/* The superblock comes last: with it, the store is whole. */
	if (!ret)
		ret = superblock_write(io, sb, e);
	if (!ret)
		ret = io_sync_dir(io, "");
	index_seal_release(&seal);
	keyring_free(k);
	superblock_free(sb);
	return ret ? err_set(e, ret, ERR_IO, "the store could not be made: %s", strerror(-ret)) : 0;
}
