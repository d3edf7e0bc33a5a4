#include "index/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define LISTED_MAX    20    /* findings shown of one kind */
#define PROGRESS_OPS  20000 /* SQLite's instructions between two calls of progress */
#define INTEGRITY_ROW "PRAGMA integrity_check(20)"

void verify_finding(struct verify *vf, const char *fmt, ...)
{
	char text[240];
	va_list ap;

	if (vf->listed++ > LISTED_MAX)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	vf->v->finding(vf->v->arg, vf->listed > LISTED_MAX ? "and more of this kind" : text);
}

/* What becomes of a failed statement: only a stop and want of memory end the run. */
static int failure(struct verify *vf)
{
	int rc = sqlite3_errcode(vf->ix->db);

	if (vf->stopped)
		return -EINTR;
	if (rc == SQLITE_NOMEM)
		return -ENOMEM;
	verify_finding(vf, "the index cannot be read: %s", sqlite3_errmsg(vf->ix->db));
	return 0;
}

int verify_prepare(struct verify *vf, const char *sql, sqlite3_stmt **st)
{
	vfs_error_reset(vf->ix->vfs);
	if (sqlite3_prepare_v2(vf->ix->db, sql, -1, st, NULL) == SQLITE_OK)
		return 0;
	*st = NULL;
	return failure(vf);
}

int verify_row(struct verify *vf, sqlite3_stmt *st)
{
	int rc = st ? sqlite3_step(st) : SQLITE_DONE;

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : failure(vf);
}

/* Each finds a row only in an index that is wrong; its first column says where. All run in the order of a key and look
 * up others by theirs: nothing is sorted or kept. */
struct question {
	bool tree;
	const char *what, *sql;
};

static const struct question questions[] = {
    {false, "chunk in a segment that has no row",
     "SELECT id FROM chunk c WHERE NOT EXISTS (SELECT 1 FROM segment WHERE id = c.segment)"},
    {false, "inline chunk without its record",
     "SELECT id FROM chunk c WHERE inlined AND NOT EXISTS (SELECT 1 FROM inline_chunk WHERE id = c.id)"},
    {false, "record of no inline chunk",
     "SELECT id FROM inline_chunk r WHERE NOT EXISTS (SELECT 1 FROM chunk WHERE id = r.id AND inlined)"},
    {false, "record of the wrong length, of inline chunk",
     "SELECT c.id FROM chunk c CROSS JOIN inline_chunk r ON r.id = c.id WHERE c.inlined "
     "AND length(r.data) <> c.stored_len"},
    {false, "extents of an inode that has no row",
     "SELECT ino FROM extent x WHERE NOT EXISTS (SELECT 1 FROM inode WHERE ino = x.ino)"},
    {false, "extended attributes of an inode that has no row",
     "SELECT ino FROM xattr x WHERE NOT EXISTS (SELECT 1 FROM inode WHERE ino = x.ino)"},
    {false, "symlink target of an inode that has no row",
     "SELECT ino FROM symlink x WHERE NOT EXISTS (SELECT 1 FROM inode WHERE ino = x.ino)"},
    {true, "no root directory, inode",
     "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM inode WHERE ino = 1 AND (mode & 61440) = 16384 AND parent = 1)"},
    {true, "impossible mode or size, of inode",
     "SELECT ino FROM inode WHERE (mode & 61440) NOT IN (4096, 8192, 16384, 24576, 32768, 40960, 49152) OR size < 0 "
     "OR ino < 1"},
    {true, "extents of an inode that is no file",
     "SELECT ino FROM inode i WHERE (mode & 61440) <> 32768 AND EXISTS (SELECT 1 FROM extent WHERE ino = i.ino)"},
    {true, "symbolic link without its target, inode",
     "SELECT ino FROM inode i WHERE (mode & 61440) = 40960 "
     "AND size IS NOT (SELECT length(target) FROM symlink WHERE ino = i.ino)"},
    {true, "target of an inode that is no symbolic link",
     "SELECT s.ino FROM symlink s CROSS JOIN inode i ON i.ino = s.ino WHERE (i.mode & 61440) <> 40960"},
    {true, "extended attributes that its row denies, of inode",
     "SELECT ino FROM xattr x WHERE EXISTS (SELECT 1 FROM inode WHERE ino = x.ino AND NOT flags & 1)"},
    {true, "impossible extended attribute, of inode",
     "SELECT ino FROM xattr WHERE length(name) NOT BETWEEN 1 AND 255 OR length(value) > 65536"},
    {true, "impossible name in directory",
     "SELECT parent FROM dirent WHERE length(name) NOT BETWEEN 1 AND 255 OR instr(name, x'2f') OR instr(name, x'00') "
     "OR name IN (x'2e', x'2e2e')"},
    {true, "number given out beyond its ceiling: inode",
     "SELECT m FROM (SELECT max(ino) AS m FROM inode) WHERE m > 1 AND m >= (SELECT value FROM meta WHERE key = "
     "'next_ino')"},
    {true, "number given out beyond its ceiling: chunk",
     "SELECT m FROM (SELECT max(id) AS m FROM chunk) WHERE m >= (SELECT value FROM meta WHERE key = 'next_chunk')"},
    {true, "number given out beyond its ceiling: sequence",
     "SELECT m FROM (SELECT max(sequence) AS m FROM chunk) WHERE m >= (SELECT value FROM meta WHERE key = "
     "'next_sequence')"},
    {true, "number given out beyond its ceiling: cookie",
     "SELECT m FROM (SELECT max(cookie) AS m FROM dirent) WHERE m >= (SELECT value FROM meta WHERE key = "
     "'next_cookie')"},
};

#define QUESTIONS (sizeof(questions) / sizeof(questions[0]))

static int ask(struct verify *vf, const struct question *q)
{
	SCOPED_FINALIZE st = NULL;
	uint64_t last = UINT64_MAX;
	int ret = verify_prepare(vf, q->sql, &st);

	while (!ret && (ret = verify_row(vf, st)) > 0) {
		uint64_t where = stmt_u64(st, 0);

		if (where != last)
			verify_finding(vf, "%s %" PRIu64, q->what, where);
		last = where;
		ret = 0;
		if (vf->listed > LISTED_MAX)
			break;
	}
	return ret;
}

static int ask_all(struct verify *vf)
{
	int ret = 0;

	for (size_t i = 0; i < QUESTIONS && !ret; i++, vf->step++) {
		vf->listed = 0;
		if (vf->v->tree || !questions[i].tree)
			ret = ask(vf, &questions[i]);
	}
	return ret;
}

static int integrity(struct verify *vf)
{
	SCOPED_FINALIZE st = NULL;
	int ret = verify_prepare(vf, INTEGRITY_ROW, &st);

	while (!ret && (ret = verify_row(vf, st)) > 0) {
		const char *text = (const char *)sqlite3_column_text(st, 0);

		if (!text || sqlite3_stricmp(text, "ok") != 0)
			verify_finding(vf, "integrity_check: %s", text ? text : "no result");
		ret = 0;
	}
	return ret;
}

static int on_progress(void *arg)
{
	struct verify *vf = arg;

	if (vf->v->progress && vf->v->progress(vf->v->arg, vf->step * 1000 / vf->steps))
		vf->stopped = true;
	return vf->stopped;
}

/* The tree comes last: what is wrong below it shows there too. */
static int run(struct verify *vf)
{
	int (*const scans[])(struct verify *) = {integrity, verify_extents, verify_segments,
	                                         ask_all,   verify_names,   verify_directories};
	const unsigned nscans = vf->v->tree ? 6 : 5;
	int ret = 0;

	vf->steps = nscans + (unsigned)QUESTIONS;
	for (unsigned i = 0; i < nscans && !ret; i++, vf->step++) {
		vf->listed = 0;
		ret = scans[i](vf);
		if (!ret && on_progress(vf))
			ret = -EINTR;
	}
	return ret;
}

int index_verify(struct index *ix, const struct index_verify *v, struct index_totals_checked *out)
{
	struct verify vf = {.ix = ix, .v = v, .totals = out};
	struct err e = {0};

	SCOPED_LOCK(&ix->lock);
	*out = (struct index_totals_checked){0};
	int ret = write_begin(ix);
	if (ret)
		return ret;
	ret = counts_apply(ix, &e);
	if (ret) {
		verify_finding(&vf, "%s", err_text(&e, ret));
		return index_fail(ix, ret) == -ENOMEM ? -ENOMEM : 0;
	}
	sqlite3_progress_handler(ix->db, PROGRESS_OPS, on_progress, &vf);
	ret = run(&vf);
	sqlite3_progress_handler(ix->db, 0, NULL, NULL);
	return ret;
}
