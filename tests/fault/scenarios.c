/* The scripts: one for every class of operations. */
#include "tests/core/inside.h"
#include "tests/fault/fault.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

/* --- names -------------------------------------------------------------------------------------------------------- */

static void make_files(struct job *j)
{
	(void)op_make(j, "d/new1", S_IFREG | 0644);
	(void)op_make(j, "d/new2", S_IFIFO | 0600);
	op_fsync(j, "d/new1");
	(void)op_make(j, "e/new3", S_IFREG | 0600);
}

static void make_dirs(struct job *j)
{
	if (op_make(j, "d/dir1", S_IFDIR | 0755))
		(void)op_make(j, "d/dir1/inner", S_IFDIR | 0700);
	op_fsync(j, "d");
	(void)op_make(j, "e/dir2", S_IFDIR | 0755);
}

static void prepare_preferences(struct job *j)
{
	op_usual_tree(j);
	op_prefer(j, "d");
	op_sync(j);
}

/* The copies are made before the inode is. */
static void inherit(struct job *j)
{
	(void)op_make(j, "d/new1", S_IFREG | 0644);
	(void)op_make(j, "d/new2", S_IFIFO | 0600);
	if (op_make(j, "d/dir1", S_IFDIR | 0755))
		(void)op_make(j, "d/dir1/new3", S_IFREG | 0600);
	op_fsync(j, "d");
	op_prefer(j, "e");
	(void)op_make(j, "e/new4", S_IFREG | 0600);
}

static void make_symlinks(struct job *j)
{
	(void)op_symlink(j, "d/to1", "a target");
	op_sync(j);
	(void)op_symlink(j, "e/to2", "another/target/that/is/longer");
	op_readlink(j, "e/symlink");
}

static void make_links(struct job *j)
{
	op_link(j, "d/s2", "e/l2");
	op_fsync(j, "d/s2");
	op_link(j, "d/s3", "d/l3");
	op_link(j, "large", "e/large");
}

static void unlink_files(struct job *j)
{
	op_unlink(j, "d/s0"); /* has another name */
	op_unlink(j, "d/s4");
	op_forget(j, "d/s5");
	op_fsync(j, "d");
	op_unlink(j, "large");
	op_unlink(j, "inline");
	op_unlink(j, "e/symlink");
	op_unlink_open(j, "d/s6");
}

static void remove_dirs(struct job *j)
{
	op_rmdir(j, "d/sub");
	(void)op_make(j, "d/sub2", S_IFDIR | 0755);
	op_fsync(j, "d");
	op_rmdir(j, "d/sub2");
}

static void rename_new(struct job *j)
{
	op_rename(j, "d/s1", "e/moved", 0);
	op_rename(j, "d/sub", "e/sub", 0);
	op_fsync(j, "e");
	op_rename(j, "large", "d/large", RENAME_NOREPLACE);
	op_write(j, "d/large", 9000, 5000, 0);
}

static void rename_over(struct job *j)
{
	if (op_make(j, "d/temp", S_IFREG | 0644))
		op_write(j, "d/temp", 20000, 0, 0);
	op_rename(j, "d/temp", "d/s2", 0);
	op_fsync(j, "d/s3");
	op_rename(j, "d/s4", "large", 0);
	(void)op_make(j, "e/empty", S_IFDIR | 0755);
	op_rename(j, "d/sub", "e/empty", 0);
}

static void exchange(struct job *j)
{
	op_rename(j, "d/s1", "large", RENAME_EXCHANGE);
	op_fsync(j, "d");
	op_rename(j, "d/sub", "e/symlink", RENAME_EXCHANGE);
	op_read(j, "d/s1");
}

static void list(struct job *j)
{
	op_list(j, "d", true);
	op_list(j, "", false);
	op_list(j, "e", true);
	op_statfs(j);
}

const struct scenario scenarios_names[] = {{.name = "create", .prepare = op_usual_tree, .run = make_files},
                                           {.name = "mkdir", .prepare = op_usual_tree, .run = make_dirs},
                                           {.name = "inherit", .prepare = prepare_preferences, .run = inherit},
                                           {.name = "symlink", .prepare = op_usual_tree, .run = make_symlinks},
                                           {.name = "link", .prepare = op_usual_tree, .run = make_links},
                                           {.name = "unlink", .prepare = op_usual_tree, .run = unlink_files},
                                           {.name = "rmdir", .prepare = op_usual_tree, .run = remove_dirs},
                                           {.name = "rename", .prepare = op_usual_tree, .run = rename_new},
                                           {.name = "rename over", .prepare = op_usual_tree, .run = rename_over},
                                           {.name = "exchange", .prepare = op_usual_tree, .run = exchange},
                                           {.name = "list", .prepare = op_usual_tree, .run = list},
                                           {0}};

/* --- data and attributes ------------------------------------------------------------------------------------------ */

static void read_files(struct job *j)
{
	op_read(j, "large");
	op_read(j, "d/s3");
	op_read(j, "d/s4");
	op_read(j, "inline");
	op_info(j, "large");
	op_read(j, "large");
}

static void write_small(struct job *j)
{
	op_write(j, "d/s1", 300, 100, 0);
	op_write(j, "d/s2", 3000, 0, O_SYNC);
	if (op_make(j, "e/new", S_IFREG | 0644))
		op_write(j, "e/new", 100, 0, 0);
	op_fsync(j, "d/s1");
	op_write(j, "inline", 5000, 1000, 0);
	op_truncate(j, "d/s5", 0);
	op_write(j, "d/s5", 10, 0, 0);
}

static void write_large(struct job *j)
{
	if (op_make(j, "e/new", S_IFREG | 0644)) {
		op_write(j, "e/new", 1000000, 0, 0);
		op_write(j, "e/new", 700000, 1000000, 0);
		op_fsync(j, "e/new");
	}
	op_write(j, "large", 300000, 200000, 0);
	op_sync(j);
	op_write(j, "large", 1000000, 400000, 0);
}

static void write_scattered(struct job *j)
{
	op_scatter(j, "large", 30, 655360);
	op_fsync(j, "large");
	op_scatter(j, "large", 10, 655360);
	op_read(j, "large");
}

static void clone_files(struct job *j)
{
	op_write(j, "large", 28672, 98304, 0); /* of this there is a copy; in whole blocks, as the model knows them */
	if (op_make(j, "e/clone", S_IFREG | 0644))
		op_clone(j, "large", 0, "e/clone", 0, 700000);
	op_fsync(j, "d/s1");
	op_punch(j, "large", 90112, 200704);
	op_clone(j, "e/clone", 8192, "large", 299008, 49152);
	op_fsync(j, "large");
	op_unlink(j, "large"); /* what is shared is left to the clone */
	op_punch(j, "e/clone", 4096, 98304);
	op_sync(j);
	op_compact(j);
	op_read(j, "e/clone");
}

static void truncate_files(struct job *j)
{
	op_truncate(j, "large", 100001);
	op_truncate(j, "d/s7", 0);
	op_fsync(j, "large");
	op_truncate(j, "large", 500000);
	op_write(j, "large", 100, 300000, 0);
	op_truncate(j, "d/s6", 10);
	op_read(j, "large");
}

static void fsync_files(struct job *j)
{
	op_write(j, "d/s1", 4000, 0, 0);
	op_fsync(j, "d/s1");
	op_fsync(j, "d/s1");
	op_write(j, "d/s2", 40000, 0, 0);
	op_fsync(j, "d/s1");
	op_fsync(j, "d");
	op_write(j, "d/s3", 40, 0, 0);
	op_sync(j);
	op_sync(j);
}

static void set_attributes(struct job *j)
{
	op_chmod(j, "d/s1", 06755);
	op_chown(j, "d/s1", 7, 8);
	op_utimes(j, "large");
	op_fsync(j, "d/s1");
	op_chmod(j, "d", 01777);
	op_chown(j, "e/symlink", 9, 9);
}

static void set_xattrs(struct job *j)
{
	op_setxattr(j, "d/s2", "user.new", 50);
	op_setxattr(j, "d/s1", "user.long", 60000);
	op_getxattr(j, "d/s1", "user.short");
	op_fsync(j, "d/s2");
	op_removexattr(j, "d/s1", "user.long");
	op_setxattr(j, "d", "trusted.t", 0);
	op_getxattr(j, "d/s2", "user.new");
}

const struct scenario scenarios_data[] = {{.name = "read", .prepare = op_usual_tree, .run = read_files},
                                          {.name = "write small", .prepare = op_usual_tree, .run = write_small},
                                          {.name = "write large", .prepare = op_usual_tree, .run = write_large},
                                          {.name = "write scattered", .prepare = op_usual_tree, .run = write_scattered},
                                          {.name = "clone", .prepare = op_usual_tree, .run = clone_files},
                                          {.name = "truncate", .prepare = op_usual_tree, .run = truncate_files},
                                          {.name = "fsync", .prepare = op_usual_tree, .run = fsync_files},
                                          {.name = "setattr", .prepare = op_usual_tree, .run = set_attributes},
                                          {.name = "xattr", .prepare = op_usual_tree, .run = set_xattrs},
                                          {0}};

/* --- the volume --------------------------------------------------------------------------------------------------- */

static void open_volume(struct job *j)
{
	if (!op_open(j))
		return;
	op_read(j, "d/s1");
	op_write(j, "d/s1", 100, 0, O_SYNC);
}

static void close_volume(struct job *j)
{
	op_write(j, "large", 200000, 0, 0);
	op_unlink(j, "d/s2");
	(void)op_make(j, "e/new", S_IFREG | 0644);
	op_close(j);
}

/* For a power cut: data in segments that the index does not know, orphans, frames in the WAL. */
static void leave_work(struct job *j)
{
	op_usual_tree(j);
	op_write(j, "large", 100000, 100000, 0);
	op_unlink(j, "d/s2");
	op_sync(j);
	inside_roll(j->run.fx.core);
	op_write(j, "d/s5", 60000, 0, 0);
	op_fsync(j, "d/s5");
	op_write(j, "d/s6", 60000, 0, 0);
}

static void checkpoints(struct job *j)
{
	inside_checkpoint_every(j->run.fx.core, 1);
	op_chmod(j, "d/s1", 0600);
	op_sync(j);
	op_write(j, "d/s1", 5000, 0, 0);
	op_fsync(j, "d/s1");
	op_setxattr(j, "d/s3", "user.x", 20000);
	op_sync(j);
	(void)op_make(j, "e/new", S_IFREG | 0644);
	op_sync(j);
}

static void roll_segments(struct job *j)
{
	op_write(j, "large", 100000, 0, 0);
	op_fsync(j, "large");
	inside_roll(j->run.fx.core);
	op_write(j, "large", 100000, 100000, 0);
	op_fsync(j, "large");
	inside_roll(j->run.fx.core);
	op_write(j, "d/s1", 40000, 0, 0);
	op_sync(j);
}

static void reclaim_segments(struct job *j)
{
	op_unlink(j, "large");
	op_forget(j, "large");
	op_sync(j);
	op_write(j, "d/s1", 40000, 0, 0);
	op_sync(j);
	inside_roll(j->run.fx.core);
	op_unlink(j, "d/s1");
	op_unlink(j, "d/s2");
	op_sync(j);
	op_sync(j);
}

/* Segments of which most is dead. */
static void overwrite(struct job *j)
{
	op_usual_tree(j);
	for (unsigned n = 0; n < 4; n++) {
		inside_roll(j->run.fx.core);
		op_scatter(j, "large", 60, 655360);
		op_write(j, "d/s5", 30000, 0, 0);
		op_sync(j);
	}
	inside_roll(j->run.fx.core);
}

static void compact(struct job *j)
{
	op_write(j, "d/s1", 5000, 0, O_SYNC);
	op_compact(j);
	op_read(j, "large");
	op_scatter(j, "large", 4, 655360);
	op_compact(j);
	op_fsync(j, "large");
}

const struct scenario scenarios_volume[] = {
    {.name = "open", .prepare = op_usual_tree, .run = open_volume, .alone = true},
    {.name = "recover", .prepare = leave_work, .run = open_volume, .alone = true, .crashed = true},
    {.name = "close", .prepare = op_usual_tree, .run = close_volume},
    {.name = "checkpoint", .prepare = op_usual_tree, .run = checkpoints},
    {.name = "roll", .prepare = op_usual_tree, .run = roll_segments},
    {.name = "reclaim", .prepare = op_usual_tree, .run = reclaim_segments},
    {.name = "compact", .prepare = overwrite, .run = compact},
    {0}};
