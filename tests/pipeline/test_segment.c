/* Segments: damage, swaps, failing storage, deleting, opening and closing. */
#include "base/lock.h"
#include "pipeline/segment.h"
#include "tests/pipeline/rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint8_t data[4][3000];

/* Seals items of three ranges, about a kilobyte stored. */
static struct pipeline_chunk *seal_small(struct rig *r, unsigned i, struct pipeline_item item[3])
{
	struct pipeline_chunk *chunk;

	rig_fill(RIG_TEXT, i, data[i], sizeof(data[i]));
	item[0] = (struct pipeline_item){100 + i, 0, 1000, data[i]};
	item[1] = (struct pipeline_item){100 + i, 5000, 500, data[i] + 1000};
	item[2] = (struct pipeline_item){200 + i, 0, 1500, data[i] + 1500};
	assert_int_equal(rig_seal(r, item, 3, "lz4", 4096, false, &chunk), 0);
	return chunk;
}

static uint8_t *file_read(const char *path, size_t *len)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*len = (size_t)st.st_size;
	uint8_t *buf = malloc(*len + 1);
	assert_int_equal(read(fd, buf, *len), *len);
	(void)close(fd);
	return buf;
}

static void file_write(const char *path, const void *buf, size_t len, size_t off)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, buf, len, (off_t)off), len);
	(void)close(fd);
}

/* 0 with the same data, or a clear error and nothing of the plaintext. */
static int read_same_or_fail(struct rig *r, const struct pipeline_chunk *chunk, const uint8_t *want)
{
	struct err e = {0};
	uint8_t *got;
	int ret = rig_read(r, chunk, &got, &e);

	if (!ret) {
		assert_memory_equal(got, want, chunk->plain_len);
	} else {
		assert_int_equal(e.code, ret);
		assert_true(strlen(e.text) > 0);
		for (uint32_t i = 0; i < chunk->plain_len; i++)
			assert_true(got[i] == 0 || got[i] == 0x5a);
	}
	free(got);
	return ret;
}

struct found {
	unsigned n;
	struct pipeline_record rec[4];
	struct pipeline_range range[4][4];
	int ret; /* of the callback, for the second record */
};

static int note(void *arg, const struct pipeline_record *rec)
{
	struct found *f = arg;

	assert_true(f->n < 4 && rec->nranges <= 4);
	f->rec[f->n] = *rec;
	memcpy(f->range[f->n], rec->range, rec->nranges * sizeof(rec->range[0]));
	return ++f->n == 2 ? f->ret : 0;
}

/* --- damage ------------------------------------------------------------------------------------------------------- */

static void flip_every_bit(enum cipher_suite suite)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk[2];
	struct rig r;
	char path[128];
	size_t len;

	rig_init(&r, suite);
	for (unsigned i = 0; i < 2; i++)
		chunk[i] = seal_small(&r, i, item);
	rig_segment_file(&r, chunk[0]->segment, path, sizeof(path));
	uint8_t *bytes = file_read(path, &len);
	assert_int_equal(len, chunk[1]->offset + chunk[1]->stored_len);

	for (size_t bit = 8 * chunk[0]->offset; bit < 8 * len; bit++) {
		size_t at = bit / 8;
		uint8_t flipped = (uint8_t)(bytes[at] ^ 1u << bit % 8);
		unsigned hit = at >= chunk[1]->offset;
		struct found f = {0};
		uint64_t end;

		file_write(path, &flipped, 1, at);
		bool in_frames = at >= chunk[hit]->offset + chunk[hit]->data_start;
		assert_int_equal(read_same_or_fail(&r, chunk[hit], data[hit]), in_frames ? -EBADMSG : 0);
		assert_int_equal(read_same_or_fail(&r, chunk[!hit], data[!hit]), 0);
		if (bit % 8 == at % 8) { /* every byte, and every bit of some */
			int ret = pipeline_segment_scan(r.p, chunk[0]->segment, note, &f, &end, NULL);
			assert_int_equal(ret, 0);
			assert_int_equal(f.n, hit);
			assert_int_equal(end, chunk[hit]->offset);
		}
		file_write(path, &bytes[at], 1, at);
	}
	/* The segment's header counts when the next mount opens it. */
	for (size_t at = 0; at < chunk[0]->offset; at++) {
		uint8_t key[CIPHER_KEY];
		struct segment_header h;
		struct err e = {0};
		bytes[at] ^= (uint8_t)(1u << at % 8);
		int ret = segment_header_open(r.keyring, r.options.uuid, bytes, SEGMENT_HEADER_LEN, "a", &h, key, &e);
		assert_int_equal(ret, at == 8 || at == 9 ? -EPROTONOSUPPORT : -EBADMSG);
		assert_int_equal(e.code, ret);
		bytes[at] ^= (uint8_t)(1u << at % 8);
		assert_int_equal(segment_header_open(r.keyring, r.options.uuid, bytes, at, "a", &h, key, NULL),
				 -EBADMSG);
	}
	bytes[70] ^= 1;
	file_write(path, bytes, len, 0);
	rig_remount(&r);
	assert_int_equal(read_same_or_fail(&r, chunk[0], data[0]), -EBADMSG);
	free(bytes);
	free(chunk[0]);
	free(chunk[1]);
	rig_release(&r);
}

static void test_flipped_bits(void **state)
{
	(void)state;
	flip_every_bit(CIPHER_AES_256_GCM);
	flip_every_bit(CIPHER_XCHACHA20_POLY1305);
}

static void test_flipped_inline(void **state)
{
	struct pipeline_item item;
	struct pipeline_chunk *chunk;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	rig_fill(RIG_TEXT, 1, data[0], sizeof(data[0]));
	item = (struct pipeline_item){1, 0, 900, data[0]};
	assert_int_equal(rig_seal(&r, &item, 1, "zstd", 4096, true, &chunk), 0);
	for (size_t bit = 0; bit < 8 * (size_t)chunk->stored_len; bit++) {
		((uint8_t *)chunk->inline_data)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(read_same_or_fail(&r, chunk, data[0]), bit / 8 < chunk->data_start ? 0 : -EBADMSG);
		((uint8_t *)chunk->inline_data)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	free(chunk);
	rig_release(&r);
}

/* Whatever else the index might say of a chunk: never other data. */
static void test_wrong_index(void **state)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *a, *b, *c;
	struct rig r;
	size_t len;
	char path[128];

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	a = seal_small(&r, 0, item);
	b = seal_small(&r, 1, item);
	size_t size = sizeof(*a) + a->nframes * sizeof(a->frame[0]);
	c = malloc(size);
#define TRY(change, want)                                                                                              \
	do {                                                                                                           \
		memcpy(c, a, size);                                                                                    \
		change;                                                                                                \
		assert_int_equal(read_same_or_fail(&r, c, data[0]), want);                                             \
	} while (0)
	TRY((void)0, 0);
	TRY(c->id++, -EBADMSG);
	TRY(c->offset = b->offset, -EBADMSG);
	TRY(c->offset++, -EBADMSG);
	TRY(c->offset += 100000, -EBADMSG);
	TRY(c->offset = UINT64_MAX - 5, -EBADMSG);
	TRY(c->offset = INT64_MAX, -EBADMSG);
	TRY(c->data_start--, -EBADMSG);
	TRY(c->data_start = UINT32_MAX, -EBADMSG);
	TRY(c->stored_len--, -EBADMSG);
	TRY(c->stored_len = UINT32_MAX; c->data_start = UINT32_MAX - 500, -EBADMSG);
	TRY(c->frame[0].codec = CODEC_ZSTD, -EBADMSG);
	TRY(c->frame[0].codec = CODEC_STORED, -EBADMSG);
	TRY(c->frame[0].codec = 9, -EBADMSG);
	TRY(c->frame[0].plain_len = 2999, -EBADMSG);
	TRY(c->frame[0].plain_len = 70000, -EBADMSG);
	TRY(c->frame[0].plain_len = 0, -EBADMSG);
	TRY(c->frame[0].stored_len--, -EBADMSG);
	TRY(c->frame[0].stored_len = 28, -EBADMSG);
	TRY(c->frame[0].stored_len = 0, -EBADMSG);
	TRY(c->frame[0].stored_len = UINT32_MAX, -EBADMSG);
	TRY(c->inline_data = c, -EBADMSG);
	TRY(c->segment = 99, -ENOENT);
	/* The last-frame flag: a chunk of one frame more. */
	c = realloc(c, size + sizeof(c->frame[0]));
	memcpy(c, a, size);
	c->nframes++;
	c->frame[1] = c->frame[0];
	uint8_t out[4096];
	assert_int_equal(pipeline_read_frame(r.p, c, NULL, 0, out, NULL), -EBADMSG);
	assert_int_equal(pipeline_read_frames(r.p, a, NULL, 1, 1, out, NULL), -EINVAL);
	assert_int_equal(pipeline_read_frames(r.p, a, NULL, 1, UINT32_MAX, out, NULL), -EINVAL);
	assert_int_equal(pipeline_read_frames(r.p, a, NULL, UINT32_MAX, 2, out, NULL), -EINVAL);
	c->nframes = UINT32_MAX;
	assert_int_equal(pipeline_read_frame(r.p, c, NULL, 0, out, NULL), -EBADMSG);

	/* A file cut short. */
	rig_segment_file(&r, a->segment, path, sizeof(path));
	free(file_read(path, &len));
	assert_int_equal(truncate(path, (off_t)len - 1), 0);
	assert_int_equal(read_same_or_fail(&r, b, data[1]), -EBADMSG);
	assert_int_equal(read_same_or_fail(&r, a, data[0]), 0);
	free(a);
	free(b);
	free(c);
	rig_release(&r);
}

/* Two frames of one chunk, then two records of one length, change places in the file. */
static void test_swapped(void **state)
{
	struct pipeline_item item[2];
	struct pipeline_chunk *chunk[2];
	uint8_t plain[2][8192], *bytes, *swapped;
	struct found f = {0};
	uint64_t end;
	struct rig r;
	char path[128];
	size_t len;

	(void)state;
	rig_init(&r, CIPHER_CHACHA20_POLY1305);
	for (unsigned i = 0; i < 2; i++) {
		rig_fill(RIG_RANDOM, i, plain[i], sizeof(plain[i]));
		item[0] = (struct pipeline_item){1, 0, 4096, plain[i]};
		item[1] = (struct pipeline_item){1, 4096, 4096, plain[i] + 4096};
		assert_int_equal(rig_seal(&r, item, 2, "off", 4096, false, &chunk[i]), 0);
		assert_int_equal(chunk[i]->nframes, 2);
	}
	assert_int_equal(chunk[0]->stored_len, chunk[1]->stored_len);
	rig_segment_file(&r, chunk[0]->segment, path, sizeof(path));
	bytes = file_read(path, &len);
	swapped = malloc(len);

	memcpy(swapped, bytes, len);
	size_t frame = chunk[0]->offset + chunk[0]->data_start, frame_len = chunk[0]->frame[0].stored_len;
	memcpy(swapped + frame, bytes + frame + frame_len, frame_len);
	memcpy(swapped + frame + frame_len, bytes + frame, frame_len);
	file_write(path, swapped, len, 0);
	assert_int_equal(read_same_or_fail(&r, chunk[0], plain[0]), -EBADMSG);
	assert_int_equal(read_same_or_fail(&r, chunk[1], plain[1]), 0);

	memcpy(swapped, bytes, len);
	memcpy(swapped + chunk[0]->offset, bytes + chunk[1]->offset, chunk[1]->stored_len);
	memcpy(swapped + chunk[1]->offset, bytes + chunk[0]->offset, chunk[0]->stored_len);
	file_write(path, swapped, len, 0);
	assert_int_equal(read_same_or_fail(&r, chunk[0], plain[0]), -EBADMSG);
	assert_int_equal(read_same_or_fail(&r, chunk[1], plain[1]), -EBADMSG);
	/* A scan takes each record for what it says itself, wherever it lies. */
	assert_int_equal(pipeline_segment_scan(r.p, chunk[0]->segment, note, &f, &end, NULL), 0);
	assert_int_equal(f.n, 2);
	assert_int_equal(f.rec[0].chunk_id, chunk[1]->id);
	assert_int_equal(end, len);
	free(bytes);
	free(swapped);
	free(chunk[0]);
	free(chunk[1]);
	rig_release(&r);
}

/* The header must be this store's, this key's, this name's. */
static void test_foreign(void **state)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk;
	struct pipeline_segment seg;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	chunk = seal_small(&r, 0, item);
	assert_int_equal(pipeline_segment_get(r.p, chunk->segment, &seg), 0);
	assert_int_equal(seg.epoch, 1);

	r.options.uuid[3] ^= 1;
	rig_remount(&r);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), -EBADMSG);
	r.options.uuid[3] ^= 1;

	struct keyring *other = rig_keyring(0x43);
	r.options.keyring = other;
	pipeline_free(r.p);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	assert_int_equal(pipeline_segment_add(r.p, &seg), 0);
	assert_int_equal(pipeline_segment_add(r.p, &seg), -EEXIST);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), -EBADMSG);
	r.options.keyring = r.keyring;

	pipeline_free(r.p);
	keyring_free(other);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	seg.header[50] ^= 1;
	assert_int_equal(pipeline_segment_add(r.p, &seg), 0);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), -EBADMSG);
	/* Found by recovery: nothing is known but the name. */
	seg.id = chunk->segment = 50;
	seg.header_len = 0;
	assert_int_equal(pipeline_segment_add(r.p, &seg), 0);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), 0);
	assert_int_equal(pipeline_segment_get(r.p, 50, &seg), 0);
	assert_int_equal(seg.header_len, SEGMENT_HEADER_LEN);
	/* What is made next has an id of its own. */
	free(chunk);
	chunk = seal_small(&r, 1, item);
	assert_int_equal(chunk->segment, 51);
	free(chunk);

	seg.id = 60;
	seg.header_len = PIPELINE_HEADER_MAX + 1;
	assert_int_equal(pipeline_segment_add(r.p, &seg), -EINVAL);
	seg.header_len = 0;
	seg.kind = PIPELINE_SEGMENT_INLINE;
	assert_int_equal(pipeline_segment_add(r.p, &seg), -EINVAL);
	seg.kind = 7;
	assert_int_equal(pipeline_segment_add(r.p, &seg), -EINVAL);
	rig_release(&r);
}

/* --- scanning ----------------------------------------------------------------------------------------------------- */

static void test_scan(void **state)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk[3];
	struct found f = {0};
	uint64_t end;
	struct rig r;
	char path[128];

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	for (unsigned i = 0; i < 3; i++)
		chunk[i] = seal_small(&r, i, item);
	uint64_t id = chunk[0]->segment;
	assert_int_equal(pipeline_segment_scan(r.p, id, note, &f, &end, NULL), 0);
	assert_int_equal(f.n, 3);
	assert_int_equal(end, chunk[2]->offset + chunk[2]->stored_len);
	for (unsigned i = 0; i < 3; i++) {
		const struct pipeline_record *rec = &f.rec[i];
		assert_int_equal(rec->chunk_id, chunk[i]->id);
		assert_int_equal(rec->sequence, (chunk[i]->id + 1) * 2);
		assert_int_equal(rec->offset, chunk[i]->offset);
		assert_int_equal(rec->stored_len, chunk[i]->stored_len);
		assert_int_equal(rec->plain_len, 3000);
		assert_int_equal(rec->nframes, chunk[i]->nframes);
		assert_int_equal(rec->nranges, 3);
		assert_int_equal(f.range[i][1].ino, 100 + i);
		assert_int_equal(f.range[i][1].off, 5000);
		assert_int_equal(f.range[i][1].len, 500);
	}
	f = (struct found){.ret = 17};
	assert_int_equal(pipeline_segment_scan(r.p, id, note, &f, &end, NULL), 17);
	assert_int_equal(f.n, 2);
	f = (struct found){.ret = -EINTR};
	assert_int_equal(pipeline_segment_scan(r.p, id, note, &f, &end, NULL), -EINTR);
	assert_int_equal(pipeline_segment_scan(r.p, 99, note, &f, &end, NULL), -ENOENT);

	/* Torn anywhere within the last record. */
	rig_segment_file(&r, id, path, sizeof(path));
	for (uint64_t len = chunk[2]->offset + chunk[2]->stored_len - 1; len >= chunk[2]->offset; len -= 7) {
		assert_int_equal(truncate(path, (off_t)len), 0);
		f = (struct found){0};
		assert_int_equal(pipeline_segment_scan(r.p, id, note, &f, &end, NULL), 0);
		assert_int_equal(f.n, 2);
		assert_int_equal(end, chunk[2]->offset);
	}
	/* Zeroes or noise where it should go on. */
	assert_int_equal(truncate(path, (off_t)chunk[2]->offset), 0);
	assert_int_equal(truncate(path, (off_t)chunk[2]->offset + 100000), 0);
	f = (struct found){0};
	assert_int_equal(pipeline_segment_scan(r.p, id, note, &f, &end, NULL), 0);
	assert_int_equal(f.n, 2);
	uint8_t noise[3000];
	rig_fill(RIG_RANDOM, 5, noise, sizeof(noise));
	file_write(path, noise, sizeof(noise), chunk[2]->offset);
	f = (struct found){0};
	assert_int_equal(pipeline_segment_scan(r.p, id, note, &f, &end, NULL), 0);
	assert_int_equal(f.n, 2);

	faulty_arm(&r.faulty, FAULTY_PREAD, 3, -EIO, true);
	struct err e = {0};
	assert_int_equal(pipeline_segment_scan(r.p, id, note, &f, &end, &e), -EIO);
	assert_int_equal(e.code, -EIO);
	for (unsigned i = 0; i < 3; i++)
		free(chunk[i]);
	rig_release(&r);
}

/* --- failing storage ---------------------------------------------------------------------------------------------- */

/* A failed append retires the segment; what was in it stays, what follows goes elsewhere. */
static void failing_append(int code)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *before, *none, *after;
	struct pipeline_segment seg;
	struct stat st;
	struct rig r;
	char path[128];

	rig_init(&r, CIPHER_AES_256_GCM);
	before = seal_small(&r, 0, item);
	faulty_arm(&r.faulty, FAULTY_PWRITE, 0, code, true);
	assert_int_equal(rig_seal(&r, item, 3, "lz4", 4096, false, &none), code);
	assert_int_equal(pipeline_segment_get(r.p, before->segment, &seg), 0);
	assert_false(seg.open);
	assert_int_equal(seg.size, before->offset + before->stored_len);
	rig_segment_file(&r, before->segment, path, sizeof(path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, seg.size);
	after = seal_small(&r, 1, item);
	assert_int_not_equal(after->segment, before->segment);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(read_same_or_fail(&r, before, data[0]), 0);
	assert_int_equal(read_same_or_fail(&r, after, data[1]), 0);
	free(before);
	free(after);
	rig_release(&r);
}

static void test_failing_append(void **state)
{
	(void)state;
	failing_append(-ENOSPC);
	failing_append(-EIO);
}

/* Every call that making a segment takes may fail: the chunk fails with that, and only a failed sync is final. */
static void test_failing_creation(void **state)
{
	static const struct {
		enum faulty_op op;
		int code;
		bool final;
	} cases[] = {
	    {FAULTY_OPEN, -EMFILE, false}, {FAULTY_PWRITE, -ENOSPC, false}, {FAULTY_MKDIR, -ENOSPC, false},
	    {FAULTY_SYNC, -EIO, true},	   {FAULTY_SYNC_DIR, -EIO, true},
	};

	(void)state;
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		for (unsigned after = 0;; after++) {
			struct pipeline_item item = {1, 0, 1000, data[0]};
			struct pipeline_chunk *chunk;
			struct rig r;
			rig_init(&r, CIPHER_AES_256_GCM);
			faulty_arm(&r.faulty, cases[c].op, after, cases[c].code, true);
			int ret = rig_seal(&r, &item, 1, "lz4", 4096, false, &chunk);
			free(chunk);
			if (ret)
				assert_int_equal(ret, cases[c].code);
			faulty_arm(&r.faulty, cases[c].op, 0, 0, true);
			int again = rig_seal(&r, &item, 1, "lz4", 4096, false, &chunk);
			assert_int_equal(again, ret && cases[c].final ? cases[c].code : 0);
			if (!again)
				rig_check(&r, chunk, &item, 1);
			free(chunk);
			assert_int_equal(pipeline_sync(r.p, NULL), again);
			rig_release(&r);
			if (!ret) {
				assert_true(after > 0);
				break;
			}
		}
	}
}

static void test_failed_sync_is_final(void **state)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk, *none;
	struct err e = {0};
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	chunk = seal_small(&r, 0, item);
	faulty_arm(&r.faulty, FAULTY_SYNC, 0, -ENOSPC, true);
	assert_int_equal(pipeline_sync(r.p, &e), -ENOSPC);
	assert_int_equal(e.code, -ENOSPC);
	assert_non_null(strstr(e.text, "segments/"));
	unsigned syncs = faulty_calls(&r.faulty, FAULTY_SYNC), writes = faulty_calls(&r.faulty, FAULTY_PWRITE);
	assert_int_equal(pipeline_sync(r.p, NULL), -ENOSPC);
	assert_int_equal(rig_seal(&r, item, 3, "lz4", 4096, false, &none), -ENOSPC);
	assert_int_equal(rig_seal(&r, item, 3, "lz4", 4096, true, &none), -ENOSPC);
	assert_int_equal(pipeline_sync(r.p, NULL), -ENOSPC);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), syncs);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_PWRITE), writes);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), 0);
	free(chunk);
	rig_release(&r);
}

static void test_sync_only_what_is_dirty(void **state)
{
	struct pipeline_item item[3];
	struct pipeline_stats st;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 0);
	free(seal_small(&r, 0, item));
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 1); /* of the header */
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 2);
	pipeline_segment_roll(r.p, 1);
	free(seal_small(&r, 0, item));
	pipeline_segment_roll(r.p, 2);
	free(seal_small(&r, 0, item));
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 6);
	pipeline_stats_get(r.p, &st);
	assert_int_equal(st.syncs, 3);
	rig_release(&r);
}

/* One after another by a slow device: who comes while the first is under way and has nothing new does not ask for
 * another. */
static void slow_sync_hook(void *arg, enum faulty_op op)
{
	(void)arg;
	if (op == FAULTY_SYNC)
		(void)usleep(30000);
}

static void *sync_once(void *arg)
{
	return (void *)(intptr_t)pipeline_sync(arg, NULL);
}

static void test_sync_is_shared(void **state)
{
	struct pipeline_item item[3];
	pthread_t thread[8];
	struct rig r;
	void *ret;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	r.faulty.hook = slow_sync_hook;
	for (unsigned round = 1; round <= 3; round++) {
		free(seal_small(&r, 0, item));
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(pthread_create(&thread[i], NULL, sync_once, r.p), 0);
		for (unsigned i = 0; i < 8; i++) {
			(void)pthread_join(thread[i], &ret);
			assert_int_equal((intptr_t)ret, 0);
		}
		assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 1 + round);
	}
	rig_release(&r);
}

/* At the time of the first report its segment's file, directory and their parents are durable. */
static void test_durable_before_reported(void **state)
{
	struct pipeline_item item[3];
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	free(seal_small(&r, 0, item));
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 1);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC_DIR), 3);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_PWRITE), 2);
	rig_release(&r);
}

/* --- reading, deleting ----------------------------------------------------------------------------------------------
 */

/* Holds the next pread until it is let go. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool armed, reached, open;
};

static void gate_hook(void *arg, enum faulty_op op)
{
	struct gate *g = arg;

	if (op != FAULTY_PREAD)
		return;
	SCOPED_LOCK(&g->lock);
	if (!g->armed)
		return;
	g->armed = false;
	g->reached = true;
	(void)pthread_cond_broadcast(&g->cond);
	while (!g->open)
		(void)pthread_cond_wait(&g->cond, &g->lock);
}

struct late_reader {
	struct rig *r;
	const struct pipeline_chunk *chunk;
};

static void *late_read(void *arg)
{
	const struct late_reader *l = arg;

	return (void *)(intptr_t)read_same_or_fail(l->r, l->chunk, data[0]);
}

static void test_delete_while_read(void **state)
{
	struct gate g = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk;
	struct rig r;
	char path[128];
	pthread_t thread;
	void *ret;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	r.faulty.arg = &g;
	r.faulty.hook = gate_hook;
	chunk = seal_small(&r, 0, item);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), -EBUSY);
	assert_int_equal(pipeline_segment_delete(r.p, 99, NULL), -ENOENT);
	pipeline_segment_roll(r.p, chunk->segment);
	rig_segment_file(&r, chunk->segment, path, sizeof(path));

	g.armed = true;
	struct late_reader l = {&r, chunk};
	assert_int_equal(pthread_create(&thread, NULL, late_read, &l), 0);
	(void)pthread_mutex_lock(&g.lock);
	while (!g.reached)
		(void)pthread_cond_wait(&g.cond, &g.lock);
	(void)pthread_mutex_unlock(&g.lock);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), -ENOENT);
	(void)pthread_mutex_lock(&g.lock);
	g.open = true;
	(void)pthread_cond_broadcast(&g.cond);
	(void)pthread_mutex_unlock(&g.lock);
	(void)pthread_join(thread, &ret);
	assert_int_equal((intptr_t)ret, 0);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), -ENOENT);
	assert_int_equal(pipeline_sync(r.p, NULL), 0); /* what was not synced is no longer owed */
	free(chunk);
	rig_release(&r);
}

static void test_delete_fails(void **state)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk;
	struct rig r;
	char path[128];

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	chunk = seal_small(&r, 0, item);
	rig_remount(&r);
	faulty_arm(&r.faulty, FAULTY_UNLINK, 0, -EIO, true);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), -EIO);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), 0);
	rig_segment_file(&r, chunk->segment, path, sizeof(path));
	rig_remount(&r);
	assert_int_equal(pipeline_segment_get(r.p, chunk->segment, &(struct pipeline_segment){0}), -ENOENT);
	free(chunk);

	/* A file that somebody took away. */
	chunk = seal_small(&r, 0, item);
	rig_segment_file(&r, chunk->segment, path, sizeof(path));
	rig_remount(&r);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), -ENOENT);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), 0);
	free(chunk);

	/* A failing read is no damage. */
	chunk = seal_small(&r, 0, item);
	faulty_arm(&r.faulty, FAULTY_PREAD, 0, -EIO, true);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), -EIO);
	assert_int_equal(read_same_or_fail(&r, chunk, data[0]), 0);
	free(chunk);
	rig_release(&r);
}

static unsigned open_segments(void)
{
	unsigned n = 0;
	char link[64], target[256];
	DIR *d = opendir("/proc/self/fd");

	assert_non_null(d);
	for (struct dirent *de; (de = readdir(d));) {
		(void)snprintf(link, sizeof(link), "/proc/self/fd/%.20s", de->d_name);
		ssize_t len = readlink(link, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = 0;
		n += strstr(target, "/segments/") && !strstr(target, "deleted");
	}
	(void)closedir(d);
	return n;
}

enum { MANY = 320 };

struct many {
	struct rig *r;
	struct pipeline_chunk **chunk;
	uint32_t seed;
};

static void *read_many(void *arg)
{
	struct many *m = arg;
	uint8_t want[1000], got[1000];

	for (unsigned i = 0; i < 2 * MANY; i++) {
		unsigned n = (m->seed + i * 7) % MANY;
		if (n % 16 == 0)
			continue; /* deleted meanwhile */
		rig_fill(RIG_TEXT, n, want, sizeof(want));
		assert_int_equal(pipeline_read_frame(m->r->p, m->chunk[n], NULL, 0, got, NULL), 0);
		assert_memory_equal(got, want, sizeof(want));
	}
	return NULL;
}

/* More segments than may be open, read by several threads while some are deleted. */
static void test_many_segments(void **state)
{
	struct pipeline_segment *known = calloc(MANY, sizeof(*known));
	struct pipeline_chunk *chunk[MANY];
	struct many many[3];
	pthread_t thread[3];
	uint8_t plain[1000];
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	for (unsigned i = 0; i < MANY; i++) {
		struct pipeline_item item = {1, 0, 1000, plain};
		rig_fill(RIG_TEXT, i, plain, sizeof(plain));
		assert_int_equal(rig_seal(&r, &item, 1, "lz4", 4096, false, &chunk[i]), 0);
		pipeline_segment_roll(r.p, chunk[i]->segment);
	}
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_in_range(open_segments(), 200, SEGMENT_OPEN_MAX);
	assert_int_equal(pipeline_segment_new_since(r.p, 0, known, MANY), MANY);
	pipeline_free(r.p);
	assert_int_equal(open_segments(), 0);
	r.options.next_segment = MANY + 1;
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(pipeline_segment_add(r.p, &known[i]), 0);
	for (unsigned t = 0; t < 3; t++) {
		many[t] = (struct many){&r, chunk, t * 100};
		assert_int_equal(pthread_create(&thread[t], NULL, read_many, &many[t]), 0);
	}
	for (unsigned i = 0; i < MANY; i += 16)
		assert_int_equal(pipeline_segment_delete(r.p, chunk[i]->segment, NULL), 0);
	for (unsigned t = 0; t < 3; t++)
		(void)pthread_join(thread[t], NULL);
	assert_in_range(open_segments(), 200, SEGMENT_OPEN_MAX);
	for (unsigned i = 0; i < MANY; i++)
		free(chunk[i]);
	free(known);
	rig_release(&r);
}

/* Nothing of the plaintext, and nothing that two segments have in common, but what the header has to say. */
static void test_no_plaintext(void **state)
{
	uint8_t canary[16], plain[60000], *bytes;
	struct pipeline_item item = {0x1122334455667788, 0x99aabbcc, sizeof(plain), plain};
	struct pipeline_chunk *chunk;
	struct rig r;
	char path[128];
	size_t len;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	rig_fill(RIG_RANDOM, 77, canary, sizeof(canary));
	for (size_t i = 0; i < sizeof(plain); i += 16)
		memcpy(plain + i, canary, 16);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(rig_seal(&r, &item, 1, i ? "zstd" : "off", 65536, false, &chunk), 0);
		rig_segment_file(&r, chunk->segment, path, sizeof(path));
		bytes = file_read(path, &len);
		assert_null(memmem(bytes, len, canary, 8));
		assert_null(memmem(bytes, len, &item.ino, 8));
		assert_null(memmem(bytes, len, &item.off, 4));
		assert_null(memmem(bytes, len, &chunk->id, 8));
		free(bytes);
		free(chunk);
	}
	rig_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_flipped_bits),
	    cmocka_unit_test(test_flipped_inline),
	    cmocka_unit_test(test_wrong_index),
	    cmocka_unit_test(test_swapped),
	    cmocka_unit_test(test_foreign),
	    cmocka_unit_test(test_scan),
	    cmocka_unit_test(test_failing_append),
	    cmocka_unit_test(test_failing_creation),
	    cmocka_unit_test(test_failed_sync_is_final),
	    cmocka_unit_test(test_sync_only_what_is_dirty),
	    cmocka_unit_test(test_sync_is_shared),
	    cmocka_unit_test(test_durable_before_reported),
	    cmocka_unit_test(test_delete_while_read),
	    cmocka_unit_test(test_delete_fails),
	    cmocka_unit_test(test_many_segments),
	    cmocka_unit_test(test_no_plaintext),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
