/* Whatever is done to the bytes of a segment or to what the index says of it: an error or the same data, never other.
 */
#include "pipeline/segment.h"
#include "tests/pipeline/rig.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
		chunk[i] = rig_seal_small(&r, i, item);
	rig_segment_file(&r, chunk[0]->segment, path, sizeof(path));
	uint8_t *bytes = rig_file_read(path, &len);
	assert_int_equal(len, chunk[1]->offset + chunk[1]->stored_len);

	for (size_t bit = 8 * chunk[0]->offset; bit < 8 * len; bit++) {
		size_t at = bit / 8;
		uint8_t flipped = (uint8_t)(bytes[at] ^ 1u << bit % 8);
		unsigned hit = at >= chunk[1]->offset;
		struct rig_found f = {0};
		uint64_t end;

		rig_file_write(path, &flipped, 1, at);
		bool in_frames = at >= chunk[hit]->offset + chunk[hit]->data_start;
		assert_int_equal(rig_read_or_fail(&r, chunk[hit], rig_small[hit]), in_frames ? -EBADMSG : 0);
		assert_int_equal(rig_read_or_fail(&r, chunk[!hit], rig_small[!hit]), 0);
		if (bit % 8 == at % 8) { /* every byte, and every bit of some */
			int ret = pipeline_segment_scan(r.p, chunk[0]->segment, rig_note, &f, &end, NULL);
			assert_int_equal(ret, 0);
			assert_int_equal(f.n, hit);
			assert_int_equal(end, chunk[hit]->offset);
		}
		rig_file_write(path, &bytes[at], 1, at);
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
	rig_file_write(path, bytes, len, 0);
	rig_remount(&r);
	assert_int_equal(rig_read_or_fail(&r, chunk[0], rig_small[0]), -EBADMSG);
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
	rig_fill(RIG_TEXT, 1, rig_small[0], sizeof(rig_small[0]));
	item = (struct pipeline_item){1, 0, 900, rig_small[0]};
	assert_int_equal(rig_seal(&r, &item, 1, "zstd", 4096, true, &chunk), 0);
	for (size_t bit = 0; bit < 8 * (size_t)chunk->stored_len; bit++) {
		((uint8_t *)chunk->inline_data)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), bit / 8 < chunk->data_start ? 0 : -EBADMSG);
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
	a = rig_seal_small(&r, 0, item);
	b = rig_seal_small(&r, 1, item);
	size_t size = sizeof(*a) + a->nframes * sizeof(a->frame[0]);
	c = malloc(size);
#define TRY(change, want)                                                      \
	do {                                                                   \
		memcpy(c, a, size);                                            \
		change;                                                        \
		assert_int_equal(rig_read_or_fail(&r, c, rig_small[0]), want); \
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
	free(rig_file_read(path, &len));
	assert_int_equal(truncate(path, (off_t)len - 1), 0);
	assert_int_equal(rig_read_or_fail(&r, b, rig_small[1]), -EBADMSG);
	assert_int_equal(rig_read_or_fail(&r, a, rig_small[0]), 0);
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
	struct rig_found f = {0};
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
	bytes = rig_file_read(path, &len);
	swapped = malloc(len);

	memcpy(swapped, bytes, len);
	size_t frame = chunk[0]->offset + chunk[0]->data_start, frame_len = chunk[0]->frame[0].stored_len;
	memcpy(swapped + frame, bytes + frame + frame_len, frame_len);
	memcpy(swapped + frame + frame_len, bytes + frame, frame_len);
	rig_file_write(path, swapped, len, 0);
	assert_int_equal(rig_read_or_fail(&r, chunk[0], plain[0]), -EBADMSG);
	assert_int_equal(rig_read_or_fail(&r, chunk[1], plain[1]), 0);

	memcpy(swapped, bytes, len);
	memcpy(swapped + chunk[0]->offset, bytes + chunk[1]->offset, chunk[1]->stored_len);
	memcpy(swapped + chunk[1]->offset, bytes + chunk[0]->offset, chunk[0]->stored_len);
	rig_file_write(path, swapped, len, 0);
	assert_int_equal(rig_read_or_fail(&r, chunk[0], plain[0]), -EBADMSG);
	assert_int_equal(rig_read_or_fail(&r, chunk[1], plain[1]), -EBADMSG);
	/* A scan takes each record for what it says itself, wherever it lies. */
	assert_int_equal(pipeline_segment_scan(r.p, chunk[0]->segment, rig_note, &f, &end, NULL), 0);
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
	chunk = rig_seal_small(&r, 0, item);
	assert_int_equal(pipeline_segment_get(r.p, chunk->segment, &seg), 0);
	assert_int_equal(seg.epoch, 1);

	r.options.uuid[3] ^= 1;
	rig_remount(&r);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), -EBADMSG);
	r.options.uuid[3] ^= 1;

	struct keyring *other = rig_keyring(0x43);
	r.options.keyring = other;
	pipeline_free(r.p);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	assert_int_equal(pipeline_segment_add(r.p, &seg), 0);
	assert_int_equal(pipeline_segment_add(r.p, &seg), -EEXIST);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), -EBADMSG);
	r.options.keyring = r.keyring;

	pipeline_free(r.p);
	keyring_free(other);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	seg.header[50] ^= 1;
	assert_int_equal(pipeline_segment_add(r.p, &seg), 0);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), -EBADMSG);
	/* Found by recovery: nothing is known but the name. */
	seg.id = chunk->segment = 50;
	seg.header_len = 0;
	assert_int_equal(pipeline_segment_add(r.p, &seg), 0);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), 0);
	assert_int_equal(pipeline_segment_get(r.p, 50, &seg), 0);
	assert_int_equal(seg.header_len, SEGMENT_HEADER_LEN);
	/* What is made next has an id of its own. */
	free(chunk);
	chunk = rig_seal_small(&r, 1, item);
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
		bytes = rig_file_read(path, &len);
		assert_null(memmem(bytes, len, canary, 8));
		assert_null(memmem(bytes, len, &item.ino, 8));
		assert_null(memmem(bytes, len, &item.off, 4));
		assert_null(memmem(bytes, len, &chunk->id, 8));
		free(bytes);
		free(chunk);
	}
	rig_release(&r);
}

/* Reads a chunk in a worker, which blocks signals. */
struct background {
	struct rig *r;
	const struct pipeline_chunk *chunk;
	atomic_int ret; /* 1: not yet */
};

static void read_behind(void *arg)
{
	struct background *b = arg;
	struct err e = {0};
	uint8_t *data;

	atomic_store(&b->ret, rig_read(b->r, b->chunk, &data, &e));
	free(data);
}

static unsigned mapped_segments(const struct rig *r)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[4096];
	unsigned found = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found += strstr(line, r->dir) != NULL;
	(void)fclose(f);
	return found;
}

/* Segments that are mapped, and damaged or cut short while they are: an error as any other, in any thread. */
static void test_mapped(void **state)
{
	static uint8_t plain[4][4 * 65536];
	struct pipeline_item item[4][4];
	struct pipeline_chunk *chunk[4];
	struct pipeline_segment seg;
	struct rig r;
	char path[128];
	size_t len;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	for (unsigned i = 0; i < 4; i++) {
		rig_fill_items(RIG_RANDOM, i, plain[i], item[i], 4);
		assert_int_equal(rig_seal(&r, item[i], 4, "off", 65536, false, &chunk[i]), 0);
		pipeline_segment_roll(r.p, chunk[i]->segment);
	}
	assert_int_equal(pipeline_segment_get(r.p, chunk[0]->segment, &seg), 0);
	r.options.map_max = 3 * seg.size; /* not the fourth */
	rig_remount(&r);
	for (unsigned n = 0; n < 2; n++)
		for (unsigned i = 0; i < 4; i++)
			rig_check(&r, chunk[i], item[i], 4);
	assert_int_equal(mapped_segments(&r), 3);

	/* A bit that flips under the mapping is seen, and so is that it is right again. */
	rig_segment_file(&r, chunk[0]->segment, path, sizeof(path));
	uint8_t *bytes = rig_file_read(path, &len);
	for (size_t at = chunk[0]->offset + chunk[0]->data_start; at < len; at += 1009) {
		uint8_t flipped = (uint8_t)(bytes[at] ^ 1u << at % 8);

		rig_file_write(path, &flipped, 1, at);
		assert_int_equal(rig_read_or_fail(&r, chunk[0], plain[0]), -EBADMSG);
		rig_check(&r, chunk[1], item[1], 4);
		rig_file_write(path, &bytes[at], 1, at);
		rig_check(&r, chunk[0], item[0], 4);
	}
	free(bytes);
	assert_int_equal(mapped_segments(&r), 3);

	for (unsigned i = 0; i < 2; i++) {
		rig_segment_file(&r, chunk[i]->segment, path, sizeof(path));
		assert_int_equal(truncate(path, (off_t)chunk[i]->offset + 70000), 0);
	}
	assert_int_equal(rig_read_or_fail(&r, chunk[0], plain[0]), -EBADMSG);
	struct background b = {.r = &r, .chunk = chunk[1]};
	atomic_init(&b.ret, 1);
	assert_int_equal(pipeline_run(r.p, read_behind, &b), 0);
	while (atomic_load(&b.ret) == 1)
		(void)usleep(1000);
	assert_int_equal(atomic_load(&b.ret), -EBADMSG);
	rig_check(&r, chunk[2], item[2], 4);

	/* A deleted one gives its room to another. */
	assert_int_equal(pipeline_segment_delete(r.p, chunk[2]->segment, NULL), 0);
	rig_check(&r, chunk[3], item[3], 4);
	assert_int_equal(mapped_segments(&r), 1); /* of the other two zeroes have taken the place */
	for (unsigned i = 0; i < 4; i++)
		free(chunk[i]);
	rig_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_flipped_bits), cmocka_unit_test(test_flipped_inline),
	    cmocka_unit_test(test_wrong_index),  cmocka_unit_test(test_swapped),
	    cmocka_unit_test(test_foreign),      cmocka_unit_test(test_no_plaintext),
	    cmocka_unit_test(test_mapped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
