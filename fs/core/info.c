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

struct range {
	uint64_t least, most;
};

struct tally {
	uint64_t chunks, stored, plain, inlined, frames;
	struct range chunk, frame;   /* plaintext bytes */
	uint64_t codec[CODEC_COUNT]; /* frames */
};

static void widen(struct range *r, uint64_t value)
{
	if (!r->most || value < r->least)
		r->least = value;
	if (value > r->most)
		r->most = value;
}

static int tally_chunk(void *arg, const struct index_chunk *row)
{
	struct tally *t = arg;
	struct cursor cur = cursor_reader(row->frames, row->frames_len);
	uint64_t n = cursor_get_varint(&cur);

	t->chunks++;
	widen(&t->chunk, row->plain_len);
	t->stored += row->stored_len;
	t->plain += row->plain_len;
	t->inlined += row->is_inline;
	for (uint64_t i = 0; i < n && !cur.bad; i++) {
		uint64_t plain = cursor_get_varint(&cur);
		uint8_t codec;

		(void)cursor_get_varint(&cur);
		codec = cursor_get8(&cur);
		if (cur.bad || codec >= CODEC_COUNT)
			break;
		widen(&t->frame, plain);
		t->frames++;
		t->codec[codec]++;
	}
	return 0;
}

static void print_size(FILE *f, const char *what, uint64_t bytes)
{
	char text[32];

	(void)fprintf(f, "%-16s %s (%" PRIu64 " bytes)\n", what, option_format_size(bytes, text, sizeof(text)), bytes);
}

/* ", of 64.0KB to 1.0MB" */
static void print_range(FILE *f, const struct range *r)
{
	char least[32], most[32];

	if (!r->most)
		return;
	(void)fprintf(f, ", of %s", option_format_size(r->least, least, sizeof(least)));
	if (r->most != r->least)
		(void)fprintf(f, " to %s", option_format_size(r->most, most, sizeof(most)));
}

static void print_tally(FILE *f, const struct tally *t)
{
	(void)fprintf(f, "%-16s %" PRIu64, "chunks:", t->chunks);
	print_range(f, &t->chunk);
	(void)fprintf(f, " (%" PRIu64 " in the index)\n%-16s %" PRIu64, t->inlined, "frames:", t->frames);
	print_range(f, &t->frame);
	(void)fprintf(f, "\n%-16s", "codecs:");
	for (int i = 0; i < CODEC_COUNT; i++)
		if (t->codec[i])
			(void)fprintf(f, " %s %" PRIu64, codec_name((enum codec_id)i), t->codec[i]);
	(void)fprintf(f, "\n");
	if (t->stored)
		(void)fprintf(f, "%-16s %.2f (of its chunks, which may hold other files too)\n",
		              "ratio:", (double)t->plain / (double)t->stored);
}

/* A chunk holds a frame at least, or the whole of a small file, however small a size is set. */
static uint32_t chunk_least(uint32_t chunk, enum policy_kind kind, uint64_t size)
{
	uint64_t frame = policy_frame_size(kind);

	frame = size < frame ? size : frame;
	return chunk > frame ? chunk : (uint32_t)frame;
}

/* What the policies make of data of one kind. */
static void print_kind(struct core *c, FILE *f, const struct preference *p, enum policy_kind kind, uint64_t size)
{
	static const char *const how[] = {
	    [POLICY_STREAM] = "in sequence", [POLICY_PACKED] = "small files", [POLICY_RANDOM] = "at random"};
	unsigned shrink = atomic_load(&c->shrink);
	uint32_t chunk = kind == POLICY_STREAM ? policy_stream_chunk(&c->policy, shrink, size)
	                                       : policy_chunk_limit(&c->policy, shrink, kind, size);
	struct codec_choice codec =
	    policy_codec(p->compress, p->priority, kind, POLICY_SAMPLE_USUAL, atomic_load(&c->level));
	char chunks[32], frames[32], choice[32];

	(void)fprintf(f, "  %-14s %s, frames of %s, chunks of %s, by up to %u threads\n", how[kind],
	              codec_choice_format(codec, choice, sizeof(choice)),
	              option_format_size(policy_frame_size(kind), frames, sizeof(frames)),
	              option_format_size(chunk_least(chunk, kind, size), chunks, sizeof(chunks)),
	              policy_workers(&c->policy, kind == POLICY_STREAM ? size : 0, UINT32_MAX));
}

static void print_preference(FILE *f, const struct preference *p)
{
	char choice[32];

	(void)fprintf(f, "%-16s %s, %s\n", "compression:", codec_choice_format(p->compress, choice, sizeof(choice)),
	              p->own_compress ? "said by " PREFER_COMPRESSION : "the mount's");
	(void)fprintf(f, "%-16s %s, %s\n", "priority:", policy_priority_name(p->priority),
	              p->own_priority ? "said by " PREFER_PRIORITY : "the mount's");
}

/* Why a file is stored as it is: what is asked for, what the policies go by, and what they make of it. */
static void print_why(struct core *c, FILE *f, const struct preference *p, uint64_t size)
{
	enum policy_kind whole = policy_kind(size, UINT64_MAX);
	char len[32], memory[32];

	print_preference(f, p);
	(void)fprintf(f, "%-16s a size of %s, storage %s, %u cores, %s of memory\n",
	              "decided by:", option_format_size(size, len, sizeof(len)), storage_class_name(c->policy.storage),
	              c->policy.cores, option_format_size(c->policy.memory, memory, sizeof(memory)));
	adapt_print(c, f, false);
	(void)fprintf(f, "what is written now becomes (unless a sample says more of it):\n");
	print_kind(c, f, p, whole, size);
	if (policy_kind(size, 1) != whole)
		print_kind(c, f, p, POLICY_RANDOM, size);
}

static int info_file(struct core *c, struct node *n, FILE *f)
{
	struct tally t = {0};
	struct preference prefers;
	struct core_attr a;
	int ret;

	{
		SCOPED_LOCK(&n->lock);
		node_attr(n, &a);
		prefer_node(c, n, &prefers);
	}
	(void)fprintf(f, "%-16s %" PRIu64 "\n", "inode:", a.ino);
	print_size(f, "size:", a.size);
	if (S_ISDIR(a.mode)) {
		(void)fprintf(f, "new files and directories:\n");
		print_preference(f, &prefers);
	}
	if (!S_ISREG(a.mode))
		return 0;
	ret = index_file_chunks(c->index, n->ino, tally_chunk, &t);
	if (ret)
		return ret;
	print_size(f, "stored (about):", a.blocks * 512);
	print_tally(f, &t);
	print_why(c, f, &prefers, a.size);
	return 0;
}

static int info_volume(struct core *c, struct node *root, FILE *f)
{
	const struct superblock_info *sb = superblock_info(c->sb);
	struct index_totals t;
	struct preference prefers;
	uint64_t db, wal;
	int ret = index_totals(c->index, &t);

	if (ret)
		return ret;
	index_size(c->index, &db, &wal);
	(void)fprintf(f, "%-16s ", "uuid:");
	for (size_t i = 0; i < sizeof(sb->uuid); i++)
		(void)fprintf(f, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", sb->uuid[i]);
	(void)fprintf(f, "\n%-16s %s\n", "cipher:", cipher_suite_name(sb->suite));
	{
		SCOPED_LOCK(&root->lock);
		prefer_node(c, root, &prefers);
	}
	print_preference(f, &prefers);
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
	adapt_print(c, f, true);
	print_size(f, "memory limit:", c->budget.limit);
	print_size(f, "memory in use:", budget_total(&c->budget));
	print_size(f, "memory peak:", budget_peak(&c->budget));
	if (core_failed(c))
		(void)fprintf(f, "%-16s read-only since an error (%s); see the log\n",
		              "state:", strerror(-core_failed(c)));
	return 0;
}

void core_effective(const struct core *c, struct core_effective *out)
{
	uint32_t chunk = policy_stream_chunk(&c->policy, 0, 0);

	*out = (struct core_effective){
	    .workers = pipeline_workers(c->pipeline),
	    .cpu_tokens = governor_tokens(c->governor, GOVERNOR_CPU),
	    .io_tokens = governor_tokens(c->governor, GOVERNOR_IO),
	    .chunk_size = c->opt.chunk_size ? chunk_least(chunk, POLICY_STREAM, UINT64_MAX) : 0,
	};
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
		ret = ino == CORE_ROOT ? info_volume(c, n, f) : info_file(c, n, f);
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
