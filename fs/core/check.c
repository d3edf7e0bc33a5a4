#include "fs/core/check_internal.h"

#include "base/io_overlay.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUPERBLOCK_READ_MAX 65536u

static const char *const copies[2] = {"superblock", "superblock.bak"};

void check_finding(struct check *ck, enum check_kind kind, const char *fmt, ...)
{
	char text[320];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (kind > ck->r->worst)
		ck->r->worst = kind;
	ck->o->finding(ck->o->arg, kind, text);
}

bool check_progress(struct check *ck, const char *what, bool bytes, uint64_t done, uint64_t total)
{
	if (!ck->r->stopped && ck->o->progress && ck->o->progress(ck->o->arg, what, bytes, done, total))
		ck->r->stopped = true;
	return ck->r->stopped;
}

/* --- superblocks -------------------------------------------------------------------------------------------------- */

/* Whether a copy opens STORE by itself. */
static int copy_try(struct check *ck, int which, struct err *e)
{
	struct superblock *sb = NULL;
	struct keyring *keyring = NULL;
	struct io *alone = NULL;
	int ret = io_overlay_new(ck->o->io, &alone, e);

	if (!ret)
		ret = io_unlink(alone, copies[!which]);
	if (ret == -ENOENT)
		ret = 0;
	if (!ret)
		ret = superblock_open(alone, &sb, e);
	if (!ret)
		ret = superblock_unlock(sb, ck->o->secret, &keyring, e);
	keyring_free(keyring);
	superblock_free(sb);
	io_free(alone);
	return ret;
}

/* Two copies that are the same are both good: one of them has opened STORE. */
static int check_copies(struct check *ck)
{
	void *image[2] = {NULL, NULL};
	size_t len[2] = {0, 0};
	bool opens = true;

	for (int i = 0; i < 2; i++)
		if (io_read_file(ck->io, copies[i], SUPERBLOCK_READ_MAX, &image[i], &len[i]))
			image[i] = NULL;
	bool same = image[0] && image[1] && len[0] == len[1] && !memcmp(image[0], image[1], len[0]);
	free(image[0]);
	free(image[1]);
	if (same)
		return 0;
	for (int i = 0; i < 2; i++) {
		struct err e = {0};
		int ret = copy_try(ck, i, &e);

		if (ret == -ENOMEM)
			return ret;
		if (!ret)
			continue;
		opens = false;
		check_finding(ck, CHECK_SPARE, "%s is of no use: %s; the other copy opens STORE", copies[i],
		              ret == -ENOENT ? "it is missing" : err_text(&e, ret));
	}
	if (opens)
		check_finding(
		    ck, CHECK_SPARE,
		    "superblock and superblock.bak differ: a change of keys was cut off, or one is an older copy");
	return 0;
}

/* --- the index ---------------------------------------------------------------------------------------------------- */

static void on_index_finding(void *arg, const char *text)
{
	check_finding(arg, CHECK_INDEX, "%s", text);
}

static bool on_index_progress(void *arg, unsigned share)
{
	return check_progress(arg, "index", false, share, 1000);
}

/* Whether a failure to open the index means that it is damaged. */
static bool means_damage(int ret)
{
	return ret == -EUCLEAN || ret == -EBADMSG || ret == -EIO || ret == -ENOENT;
}

static int check_index(struct check *ck)
{
	const struct index_verify v = {
	    .tree = true, .finding = on_index_finding, .progress = on_index_progress, .arg = ck};
	struct index_totals_checked t;
	int ret = index_verify(ck->index, &v, &t);

	ck->r->inodes = t.inodes;
	ck->r->names = t.names;
	ck->r->chunks = t.chunks;
	ck->r->segments = t.segments;
	ck->r->orphans = t.orphans;
	ck->total = t.stored;
	if (t.orphans)
		check_finding(ck, CHECK_NOTE, "%llu deleted files were still open; the next mount removes them",
		              (unsigned long long)t.orphans);
	if (ret == -EINTR) {
		ck->r->stopped = true;
		return 0;
	}
	return ret;
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */

static int open_store(struct check *ck, struct err *e)
{
	int ret = keys_init(e);

	if (!ret)
		ret = io_overlay_new(ck->o->io, &ck->io, e);
	if (!ret)
		ret = superblock_open(ck->io, &ck->sb, e);
	if (!ret)
		ret = superblock_unlock(ck->sb, ck->o->secret, &ck->keyring, e);
	if (!ret)
		memcpy(ck->r->uuid, superblock_info(ck->sb)->uuid, sizeof(ck->r->uuid));
	return ret;
}

static int open_pipeline(struct check *ck, struct err *e)
{
	const struct superblock_info *info = superblock_info(ck->sb);
	struct pipeline_options o = {.io = ck->io,
	                             .keyring = ck->keyring,
	                             .suite = info->suite,
	                             .workers = 1,
	                             .next_segment = 1,
	                             .read_only = true};

	memcpy(o.uuid, info->uuid, sizeof(o.uuid));
	return pipeline_new(&o, &ck->pipeline, e);
}

static int check_all(struct check *ck, struct err *e)
{
	struct err why = {0};
	int ret = check_copies(ck);

	if (!ret)
		ret = index_seal_init(&ck->seal, ck->sb, ck->keyring, e);
	if (ret)
		return ret;
	ret = index_open(ck->io, superblock_info(ck->sb)->page_size, &ck->seal.index, &ck->index, &why);
	if (ret && means_damage(ret)) {
		ck->index = NULL;
		check_finding(ck, CHECK_INDEX, "the index cannot be opened: %s", err_text(&why, ret));
		return 0;
	}
	if (ret)
		return err_set(e, ret, why.domain, "%s", err_text(&why, ret));
	ret = check_index(ck);
	if (!ret)
		ret = open_pipeline(ck, e);
	if (!ret)
		ret = check_segments(ck);
	if (!ret && !ck->r->stopped)
		ret = check_chunks(ck);
	if (!ret)
		ret = check_files(ck);
	return ret ? err_set(e, ret, ERR_IO, "the check could not go on: %s", strerror(-ret)) : 0;
}

int core_check(const struct check_options *o, struct check_result *r, struct err *e)
{
	struct check ck = {.o = o, .r = r};

	*r = (struct check_result){.worst = CHECK_NOTE};
	(void)pthread_mutex_init(&ck.lock, NULL);
	int ret = open_store(&ck, e);
	if (!ret)
		ret = check_all(&ck, e);
	pipeline_free(ck.pipeline);
	if (ck.index)
		index_abandon(ck.index);
	index_seal_release(&ck.seal);
	check_segments_release(&ck);
	check_files_release(&ck);
	keyring_free(ck.keyring);
	superblock_free(ck.sb);
	io_free(ck.io);
	(void)pthread_mutex_destroy(&ck.lock);
	return ret;
}
