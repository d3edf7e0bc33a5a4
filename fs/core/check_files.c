/* Damaged bytes of chunks become ranges of files, and inode numbers become paths. */
#include "fs/core/check_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX  65536u /* damaged files that are listed */
#define RANGES_MAX 256u   /* of one file */
#define BY_HINT    64u    /* so few files are looked up by name, each in its directory */
#define DEPTH_MAX  4096u  /* directories one in another */

struct damaged_file {
	UT_hash_handle hh;
	uint64_t ino, parent; /* parent 0: no name found yet */
	char *name;
	struct check_range *range;
	size_t n, room;
	uint64_t bytes;
	bool more;
};

/* --- ranges ------------------------------------------------------------------------------------------------------- */

static int file_get(struct check *ck, uint64_t ino, struct damaged_file **out)
{
	struct damaged_file *f;

	HASH_FIND(hh, ck->files, &ino, sizeof(ino), f);
	*out = f;
	if (f || ck->nfiles == FILES_MAX) {
		ck->files_left_out |= !f;
		return 0;
	}
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->ino = ino;
	HASH_ADD(hh, ck->files, ino, sizeof(f->ino), f);
	if (!f->hh.tbl) {
		free(f);
		return -ENOMEM;
	}
	ck->nfiles++;
	*out = f;
	return 0;
}

static int file_add(struct damaged_file *f, uint64_t off, uint64_t len)
{
	f->bytes += len;
	if (f->n && f->range[f->n - 1].off + f->range[f->n - 1].len == off) {
		f->range[f->n - 1].len += len;
		return 0;
	}
	if (f->n == RANGES_MAX) {
		f->more = true;
		return 0;
	}
	if (f->n == f->room) {
		size_t room = f->room ? 2 * f->room : 4;
		struct check_range *bigger = realloc(f->range, room * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		f->range = bigger;
		f->room = room;
	}
	f->range[f->n++] = (struct check_range){off, len};
	return 0;
}

int check_damage(struct check *ck, uint64_t chunk, uint32_t from, uint32_t to, bool *used)
{
	struct index_owned_extent *e;
	size_t n;
	int ret = chunk_extents(ck->index, chunk, SIZE_MAX, &e, &n);

	if (ret == -EIO) /* the check of the index has said so */
		ret = 0;
	*used = false;
	for (size_t i = 0; i < n && !ret; i++) {
		const struct index_extent *x = &e[i].x;
		uint64_t start = from > x->chunk_off ? from - x->chunk_off : 0;
		uint64_t end = to > x->chunk_off ? to - x->chunk_off : 0;
		struct damaged_file *f;

		end = end < x->len ? end : x->len;
		if (start >= end)
			continue;
		*used = true;
		ret = file_get(ck, e[i].ino, &f);
		if (!ret && f)
			ret = file_add(f, x->off + start, end - start);
	}
	free(e);
	return ret;
}

static int range_order(const void *a, const void *b)
{
	const struct check_range *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Sorts, joins, and cuts what lies above the file's size. */
static void file_settle(struct damaged_file *f, uint64_t size)
{
	size_t n = 0;

	if (f->n)
		qsort(f->range, f->n, sizeof(f->range[0]), range_order);
	f->bytes = f->more ? f->bytes : 0;
	for (size_t i = 0; i < f->n; i++) {
		struct check_range g = f->range[i];

		if (g.off >= size)
			continue;
		if (g.len > size - g.off)
			g.len = size - g.off;
		f->bytes += f->more ? 0 : g.len;
		if (n && f->range[n - 1].off + f->range[n - 1].len == g.off)
			f->range[n - 1].len += g.len;
		else
			f->range[n++] = g;
	}
	f->n = n;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static int name_all(void *arg, uint64_t parent, uint64_t ino, const char *name, size_t len)
{
	struct check *ck = arg;
	struct damaged_file *f;

	HASH_FIND(hh, ck->files, &ino, sizeof(ino), f);
	if (!f || f->name)
		return 0;
	f->name = strndup(name, len);
	f->parent = parent;
	return f->name ? 0 : -ENOMEM;
}

/* By the directory that the inode's row hints at. */
static int name_hinted(struct check *ck, struct damaged_file *f, uint64_t hint)
{
	char name[INDEX_NAME_MAX + 1];
	int ret = hint ? index_name_of(ck->index, hint, f->ino, name) : -ENOENT;

	if (ret)
		return ret == -ENOMEM ? ret : 0;
	f->name = strdup(name);
	f->parent = hint;
	return f->name ? 0 : -ENOMEM;
}

static int names_find(struct check *ck)
{
	struct damaged_file *f, *next;
	bool missing = ck->nfiles > BY_HINT;
	int ret = 0;

	if (!missing) {
		HASH_ITER (hh, ck->files, f, next) {
			struct index_inode row;

			if (!ret && !index_inode_get(ck->index, f->ino, &row))
				ret = name_hinted(ck, f, row.parent);
			missing |= !f->name;
		}
	}
	if (!ret && missing)
		ret = index_names_all(ck->index, name_all, ck);
	return ret == -EIO ? 0 : ret;
}

/* Puts "/name" before what stands at *at of buf, which is filled from its end. */
static bool prepend(char *buf, size_t *at, const char *name)
{
	size_t len = strnlen(name, INDEX_NAME_MAX);

	if (*at < len + 1)
		return false;
	*at -= len;
	memcpy(buf + *at, name, len);
	buf[--*at] = '/';
	return true;
}

/* The path of a file that has a name; NULL when its directories do not lead to the root. */
static const char *path_of(struct check *ck, const struct damaged_file *f, char *buf, size_t room)
{
	size_t at = room - 1;
	uint64_t dir = f->parent;

	buf[at] = 0;
	if (!f->name || !prepend(buf, &at, f->name))
		return NULL;
	for (unsigned depth = 0; dir != CORE_ROOT; depth++) {
		char name[INDEX_NAME_MAX + 1];
		struct index_inode row;

		if (depth == DEPTH_MAX || index_inode_get(ck->index, dir, &row) ||
		    index_name_of(ck->index, row.parent, dir, name) || !prepend(buf, &at, name))
			return NULL;
		dir = row.parent;
	}
	return buf + at + 1;
}

static void report_file(struct check *ck, struct damaged_file *f, char *buf, size_t room)
{
	struct index_inode row;
	bool known = !index_inode_get(ck->index, f->ino, &row);

	file_settle(f, known ? row.size : INDEX_OFFSET_MAX);
	if ((!f->n && !f->more) || (known && !row.nlink))
		return; /* above the end, or of a file that is deleted already */
	const struct check_file out = {
	    .ino = f->ino,
	    .path = path_of(ck, f, buf, room),
	    .bytes = f->bytes,
	    .range = f->range,
	    .nranges = f->n,
	    .more = f->more,
	};
	ck->r->files++;
	ck->o->file(ck->o->arg, &out);
}

int check_files(struct check *ck)
{
	const size_t room = (size_t)1 << 20;
	struct damaged_file *f, *next;

	if (!ck->files)
		return 0;
	char *buf = malloc(room);
	int ret = buf ? names_find(ck) : -ENOMEM;
	if (!ret) {
		HASH_ITER (hh, ck->files, f, next)
			report_file(ck, f, buf, room);
	}
	if (!ret && ck->files_left_out)
		check_finding(ck, CHECK_DATA, "and more than %u files are damaged that are not listed", FILES_MAX);
	free(buf);
	return ret;
}

void check_files_release(struct check *ck)
{
	struct damaged_file *f, *next;

	HASH_ITER (hh, ck->files, f, next) {
		HASH_DEL(ck->files, f);
		free(f->name);
		free(f->range);
		free(f);
	}
}
