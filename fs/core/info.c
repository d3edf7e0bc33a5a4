/* What `apfs info` says of a mounted volume and of a file. */
#include "base/cursor.h"
#include "base/option.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct tally {
	uint64_t chunks, stored, plain, inlined;
	uint64_t codec[CODEC_COUNT]; /* frames */
};

static int tally_chunk(void *arg, const struct index_chunk *row)
{
	struct tally *t = arg;
	struct cursor cur = cursor_reader(row->frames, row->frames_len);
	uint64_t n = cursor_get_varint(&cur);

	t->chunks++;
	t->stored += row->stored_len;
	t->plain += row->plain_len;
	t->inlined += row->is_inline;
	for (uint64_t i = 0; i < n && !cur.bad; i++) {
		uint8_t codec;

		(void)cursor_get_varint(&cur);
		(void)cursor_get_varint(&cur);
		codec = cursor_get8(&cur);
		if (!cur.bad && codec < CODEC_COUNT)
			t->codec[codec]++;
	}
	return 0;
}

static void print_size(FILE *f, const char *what, uint64_t bytes)
{
	char text[32];

	(void)fprintf(f, "%-16s %s (%" PRIu64 " bytes)\n", what, option_format_size(bytes, text, sizeof(text)), bytes);
}

static int info_file(struct core *c, struct node *n, FILE *f)
{
	struct tally t = {0};
	struct core_attr a;
	int ret;

	{
		SCOPED_LOCK(&n->lock);
		node_attr(n, &a);
	}
	(void)fprintf(f, "%-16s %" PRIu64 "\n", "inode:", a.ino);
	print_size(f, "size:", a.size);
	if (!S_ISREG(a.mode))
		return 0;
	ret = index_file_chunks(c->index, n->ino, tally_chunk, &t);
	if (ret)
		return ret;
	print_size(f, "stored (about):", a.blocks * 512);
	(void)fprintf(f, "%-16s %" PRIu64 " (%" PRIu64 " in the index)\n", "chunks:", t.chunks, t.inlined);
	(void)fprintf(f, "%-16s", "frames:");
	for (int i = 0; i < CODEC_COUNT; i++)
		if (t.codec[i])
			(void)fprintf(f, " %s %" PRIu64, codec_name((enum codec_id)i), t.codec[i]);
	(void)fprintf(f, "\n");
	if (t.stored)
		(void)fprintf(f, "%-16s %.2f (of its chunks, which may hold other files too)\n",
		              "ratio:", (double)t.plain / (double)t.stored);
	return 0;
}

static int info_volume(struct core *c, FILE *f)
{
	const struct superblock_info *sb = superblock_info(c->sb);
	struct index_totals t;
	uint64_t db, wal;
	char choice[32];
	int ret = index_totals(c->index, &t);

	if (ret)
		return ret;
	index_size(c->index, &db, &wal);
	(void)fprintf(f, "%-16s ", "uuid:");
	for (size_t i = 0; i < sizeof(sb->uuid); i++)
		(void)fprintf(f, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", sb->uuid[i]);
	(void)fprintf(f, "\n%-16s %s\n", "cipher:", cipher_suite_name(sb->suite));
	(void)fprintf(f, "%-16s %s\n", "compression:", codec_choice_format(c->opt.compress, choice, sizeof(choice)));
	(void)fprintf(f, "%-16s %" PRIu64 "\n", "inodes:", t.inodes);
	print_size(f, "logical:", t.logical);
	print_size(f, "live:", t.live + t.inline_bytes);
	if (t.live + t.inline_bytes)
		(void)fprintf(f, "%-16s %.2f\n", "ratio:", (double)t.logical / (double)(t.live + t.inline_bytes));
	(void)fprintf(f, "%-16s %" PRIu64 "\n", "chunks:", t.chunks);
	(void)fprintf(f, "%-16s %" PRIu64 "\n", "segments:", t.segments);
	print_size(f, "segment bytes:", t.stored);
	print_size(f, "dead bytes:", t.stored > t.live ? t.stored - t.live : 0);
	print_size(f, "index:", db + wal);
	print_size(f, "memory limit:", c->opt.memory);
	print_size(f, "memory in use:", core_memory_used(c));
	if (core_failed(c))
		(void)fprintf(f, "%-16s read-only since an error (%s); see the log\n",
		              "state:", strerror(-core_failed(c)));
	return 0;
}

int core_info(struct core *c, uint64_t ino, char **text)
{
	char *buf = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&buf, &len);
	struct node *n;
	int ret;

	if (!f)
		return -ENOMEM;
	ret = node_get(c, ino, &n);
	if (!ret) {
		ret = ino == CORE_ROOT ? info_volume(c, f) : info_file(c, n, f);
		node_put(c, n);
	}
	if (fclose(f) && !ret)
		ret = -ENOMEM;
	if (ret)
		free(buf);
	else
		*text = buf;
	return ret;
}
