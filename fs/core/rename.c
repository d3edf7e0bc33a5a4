/* Renaming, under ns like every change of names. */
#include "fs/core/dir.h"

#include <dirent.h>
#include <errno.h>
#include <linux/fs.h>
#include <sys/stat.h>

struct rename {
	struct node *from_dir, *to_dir, *from, *to; /* to: NULL if the new name is free */
	const char *from_name, *to_name;
	size_t from_len, to_len;
	uint8_t from_type, to_type; /* DT_* */
	bool from_is_dir, to_is_dir;
	const struct core_cred *whiteout; /* whose device 0/0 takes the old name; NULL: none does */
};

/* Is `ino` the directory `dir` or below it? */
static int is_below(struct core *c, uint64_t ino, uint64_t dir, bool *below)
{
	*below = false;
	for (;;) {
		uint64_t up;
		int ret;

		if (ino == dir) {
			*below = true;
			return 0;
		}
		if (ino == CORE_ROOT)
			return 0;
		ret = dir_parent(c, ino, &up);
		if (ret)
			return ret;
		ino = up;
	}
}

static int rename_check(struct core *c, const struct rename *r, unsigned flags)
{
	bool below = false;
	int ret = 0;

	if (!r->to && flags & RENAME_EXCHANGE)
		return -ENOENT;
	if (r->to && flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (r->from == r->to)
		return 0;
	if (r->from_is_dir)
		ret = is_below(c, r->to_dir->ino, r->from->ino, &below);
	if (!ret && below)
		return -EINVAL;
	if (!ret && r->to && r->to_is_dir)
		ret = is_below(c, r->from_dir->ino, r->to->ino, &below);
	if (ret)
		return ret;
	if (flags & RENAME_EXCHANGE)
		return below ? -EINVAL : 0;
	if (below)
		return -ENOTEMPTY;
	if (!r->to)
		return 0;
	if (r->from_is_dir && !r->to_is_dir)
		return -ENOTDIR;
	if (!r->from_is_dir && r->to_is_dir)
		return -EISDIR;
	return r->to_is_dir ? dir_may_remove(r->to, true) : 0;
}

/* n lives in dir now. */
static void moved(struct core *c, struct node *n, const struct node *dir)
{
	SCOPED_LOCK(&n->lock);

	n->attr.parent = dir->ino;
	n->attr.ctime = core_now(c);
	node_touch(c, n);
}

static int rename_exchange(struct core *c, const struct rename *r)
{
	int subdirs = (int)r->to_is_dir - (int)r->from_is_dir;
	int ret = index_dirent_set(c->index, r->from_dir->ino, r->from_name, r->from_len, r->to->ino, r->to_type);

	if (!ret)
		ret = index_dirent_set(c->index, r->to_dir->ino, r->to_name, r->to_len, r->from->ino, r->from_type);
	if (ret)
		return core_stop(c, ret, NULL, "exchanging two names");
	moved(c, r->from, r->to_dir);
	moved(c, r->to, r->from_dir);
	dir_changed(c, r->from_dir, 0, subdirs);
	dir_changed(c, r->to_dir, 0, -subdirs);
	return 0;
}

static int whiteout_new(struct core *c, const struct rename *r, struct node **out)
{
	struct index_inode a = {.mode = S_IFCHR, .nlink = 1};
	int ret = dir_new_inode(c, r->from_dir, r->whiteout, &a);

	if (!ret)
		ret = node_create(c, &a, out);
	if (ret)
		dir_undo_inode(c, &a);
	return ret;
}

/* The old name goes, or comes to mean a whiteout. */
static int leave_name(struct core *c, const struct rename *r, const struct node *whiteout)
{
	if (whiteout)
		return index_dirent_set(c->index, r->from_dir->ino, r->from_name, r->from_len, whiteout->ino, DT_CHR);
	return index_dirent_remove(c->index, r->from_dir->ino, r->from_name, r->from_len);
}

/*
 * Who lists a directory is to see each entry once: a name that replaces another keeps that one's cookie, and one that
 * changes within its directory its own. A listing that renames what it reads would never end otherwise.
 */
static int move_name(struct core *c, const struct rename *r, const struct node *whiteout)
{
	uint64_t dir = r->to_dir->ino;
	int ret;

	if (r->to) {
		ret = index_dirent_set(c->index, dir, r->to_name, r->to_len, r->from->ino, r->from_type);
		if (!ret)
			ret = leave_name(c, r, whiteout);
		return ret ? core_stop(c, ret, NULL, "replacing a name") : 0;
	}
	if (dir == r->from_dir->ino && !whiteout)
		return index_dirent_rename(c->index, dir, r->from_name, r->from_len, r->to_name, r->to_len);
	ret = dir_add(c, dir, r->to_name, r->to_len, r->from->ino, DTTOIF(r->from_type));
	if (ret)
		return ret;
	ret = leave_name(c, r, whiteout);
	if (ret)
		dir_undo_add(c, dir, r->to_name, r->to_len);
	return ret;
}

static int rename_move(struct core *c, const struct rename *r)
{
	struct node *whiteout = NULL;
	int ret = r->whiteout ? whiteout_new(c, r, &whiteout) : 0;

	if (!ret)
		ret = move_name(c, r, whiteout);
	if (whiteout) {
		{
			SCOPED_LOCK(&whiteout->lock);
			whiteout->gone = ret != 0;
			if (!ret)
				node_touch(c, whiteout);
		}
		if (ret)
			dir_undo_inode(c, &whiteout->attr);
		node_put(c, whiteout);
	}
	if (ret)
		return ret;
	moved(c, r->from, r->to_dir);
	dir_changed(c, r->from_dir, r->whiteout ? 0 : -1, r->from_is_dir ? -1 : 0);
	dir_changed(c, r->to_dir, r->to ? 0 : 1, (r->from_is_dir ? 1 : 0) - (r->to_is_dir ? 1 : 0));
	if (!r->to)
		return 0;
	/* A file replaced by rename is whole, old or new: the commit of this rename must hold the data. */
	if (!r->from_is_dir)
		atomic_fetch_or(&r->from->due, DUE_ALL);
	dir_drop_link(c, r->to);
	return 0;
}

static int rename_find(struct core *c, struct rename *r)
{
	struct index_dirent d;
	int ret = index_dirent_get(c->index, r->from_dir->ino, r->from_name, r->from_len, &d);

	if (!ret)
		ret = node_get(c, d.ino, &r->from);
	if (ret)
		return ret;
	r->from_type = d.type;
	r->from_is_dir = d.type == DT_DIR;
	ret = index_dirent_get(c->index, r->to_dir->ino, r->to_name, r->to_len, &d);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	r->to_type = d.type;
	r->to_is_dir = d.type == DT_DIR;
	return node_get(c, d.ino, &r->to);
}

/* Only a name that there is not yet, or a new inode, needs space. */
static int rename_space(struct core *c, const struct rename *r, uint64_t new_parent)
{
	struct index_dirent d;

	if (space_plenty(c))
		return 0;
	if (r->whiteout || index_dirent_get(c->index, new_parent, r->to_name, r->to_len, &d) == -ENOENT)
		return space_for_name(c, 0);
	space_pause(c);
	return 0;
}

static int rename_names(struct core *c, const struct core_cred *whiteout, uint64_t parent, const char *name,
                        uint64_t new_parent, const char *new_name, unsigned flags)
{
	struct rename r = {.from_name = name, .to_name = new_name, .whiteout = whiteout};
	int ret = name_check(name, &r.from_len);

	if (!ret)
		ret = name_check(new_name, &r.to_len);
	if (ret)
		return ret;
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) || flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	ret = rename_space(c, &r, new_parent);
	if (ret)
		return ret;
	SCOPED_LOCK(&c->ns);
	ret = dir_get(c, parent, &r.from_dir);
	if (!ret)
		ret = dir_get(c, new_parent, &r.to_dir);
	if (!ret)
		ret = rename_find(c, &r);
	if (!ret)
		ret = rename_check(c, &r, flags);
	/* Two names of one inode: POSIX says that nothing happens. */
	if (!ret && r.from != r.to)
		ret = flags & RENAME_EXCHANGE ? rename_exchange(c, &r) : rename_move(c, &r);
	if (r.to)
		node_put(c, r.to);
	if (r.from)
		node_put(c, r.from);
	if (r.to_dir)
		node_put(c, r.to_dir);
	if (r.from_dir)
		node_put(c, r.from_dir);
	return ret;
}

int core_rename(struct core *c, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
                unsigned flags)
{
	return rename_names(c, NULL, parent, name, new_parent, new_name, flags);
}

int core_rename_whiteout(struct core *c, const struct core_cred *cred, uint64_t parent, const char *name,
                         uint64_t new_parent, const char *new_name, unsigned flags)
{
	return flags & RENAME_EXCHANGE ? -EINVAL : rename_names(c, cred, parent, name, new_parent, new_name, flags);
}
