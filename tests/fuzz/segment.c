/*
 * Segments: header, records by scanning, frames by what a hostile index says. What is behind a seal is sealed here, so
 * that the parser and not the cipher meets the input.
 *
 * Input: u8 suite (modulo 3), u8 what, then by what modulo 3
 *   0  a segment's header after the magic, up to its salt; what's bit 7: the commitment is made to fit
 *   1  records, each: u8 flags, u16 id, 28 bytes of header, then frames (flag 1: made consistent) or a raw table
 *   2  a chunk as the index might have it, and which frames to read
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_io.h"

#include "pipeline/keyring.h"
#include "pipeline/segment.h"

#include <stdio.h>
#include <string.h>

#define PATH_ROOM  64
#define OUT_MAX    ((size_t)4 << 20)
#define FRAMES_MAX 16u

static const uint8_t uuid[SUPERBLOCK_UUID] = "the uuid of it";
static const uint8_t nonce[CIPHER_NONCE_MAX];

static struct {
	struct io *io;
	struct keyring *keyring;
	struct pipeline *p;
	struct cipher_ctx *cipher;
	struct codec_ctx *codec;
	uint64_t next_id;
} rig;

static void rig_end(void)
{
	pipeline_free(rig.p);
	keyring_free(rig.keyring);
	cipher_ctx_free(rig.cipher);
	codec_ctx_free(rig.codec);
	io_free(rig.io);
}

static void rig_begin(void)
{
	if (rig.p)
		return;
	rig.io = mem_new();
	must(!keyring_new(&rig.keyring) && keyring_add(rig.keyring, 1) && !keyring_set_epoch(rig.keyring, 1));
	struct pipeline_options o = {.io = rig.io, .keyring = rig.keyring, .workers = 1, .next_segment = 1u << 30};
	memcpy(o.uuid, uuid, sizeof(o.uuid));
	must(!pipeline_new(&o, &rig.p, NULL));
	must(!cipher_ctx_new(&rig.cipher) && !codec_ctx_new(&rig.codec));
	rig.next_id = 1;
	must(!atexit(rig_end));
}

/* --- a segment being written -------------------------------------------------------------------------------------- */

struct image {
	uint8_t *data;
	size_t len, room;
	struct segment_header h;
	uint8_t key[CIPHER_KEY];
	struct chunk_key k;
};

static uint8_t *image_grow(struct image *im, size_t n)
{
	if (im->len + n > im->room) {
		im->room = 2 * (im->len + n);
		im->data = realloc(im->data, im->room);
		must(im->data);
	}
	im->len += n;
	return im->data + im->len - n;
}

static void image_begin(struct image *im, enum pipeline_segment_kind kind, enum cipher_suite suite)
{
	*im = (struct image){0};
	uint8_t *header = image_grow(im, SEGMENT_HEADER_LEN);

	must(!segment_header_make(rig.keyring, uuid, kind, suite, &im->h, header, im->key));
	im->k = (struct chunk_key){im->key, uuid, im->h.name, suite};
}

/* A table as its bytes say. */
static void table_seal(struct image *im, uint64_t chunk, const uint8_t *table, size_t len)
{
	size_t n = cipher_nonce_len(im->k.suite);
	uint8_t aad[25] = {2};
	struct cursor c = cursor_writer(aad + 17, 8);
	uint8_t *out = image_grow(im, len + n + CIPHER_TAG);

	memcpy(aad + 1, uuid, sizeof(uuid));
	cursor_put64(&c, chunk);
	memcpy(out, nonce, n);
	must(!cipher_seal(rig.cipher, im->k.suite, im->key, nonce, aad, sizeof(aad), table, len, out + n));
}

struct raw_frame {
	struct pipeline_frame f;
	uint8_t *data;
	size_t len;
};

/* u8 codec (bit 7: compressed here), u16 length of the plaintext less 1, u16 length, bytes. */
static void frame_read(struct cursor *in, uint32_t overhead, struct raw_frame *out)
{
	uint8_t how = cursor_get8(in);
	uint32_t plain = cursor_get16(in) + 1u;
	uint16_t want = cursor_get16(in);

	out->data = fuzz_take(in, want, &out->len);
	out->f = (struct pipeline_frame){.plain_len = plain, .codec = how & 7};
	if ((how & 0x80) && out->len && out->f.codec < CODEC_COUNT) {
		uint8_t *packed = malloc(out->len);
		struct codec_choice choice = {(enum codec_id)out->f.codec, 0};

		must(packed);
		int n = codec_compress(rig.codec, choice, out->data, out->len, packed, out->len);
		out->f.plain_len = (uint32_t)out->len;
		if (n > 0) {
			free(out->data);
			out->data = packed;
			out->len = (size_t)n;
		} else {
			out->f.codec = CODEC_STORED;
			free(packed);
		}
	}
	out->f.stored_len = (uint32_t)out->len + overhead;
}

/* A record whose header and table fit its frames: u8 number of frames, frames; one range. */
static void record_consistent(struct image *im, struct cursor *in, struct chunk_header *h)
{
	uint32_t overhead = chunk_overhead(im->k.suite);
	struct raw_frame raw[FRAMES_MAX];
	uint8_t table[32 + CHUNK_ENTRY * FRAMES_MAX];
	struct cursor t = cursor_writer(table, sizeof(table));

	h->nframes = 1 + cursor_get8(in) % FRAMES_MAX;
	h->nranges = 1;
	h->plain_len = h->stored_len = 0;
	for (uint32_t i = 0; i < h->nframes; i++) {
		frame_read(in, overhead, &raw[i]);
		h->plain_len += raw[i].f.plain_len;
		h->stored_len += raw[i].f.stored_len;
	}
	cursor_put_varint(&t, h->id);
	cursor_put_varint(&t, 4096);
	cursor_put_varint(&t, h->plain_len);
	for (uint32_t i = 0; i < h->nframes; i++) {
		cursor_put32(&t, raw[i].f.plain_len);
		cursor_put32(&t, raw[i].f.stored_len);
		cursor_put8(&t, raw[i].f.codec);
	}
	h->table_len = (uint32_t)(sizeof(table) - cursor_left(&t));
	h->stored_len += chunk_data_start(im->k.suite, h->table_len);
	must(!chunk_header_seal(rig.cipher, &im->k, nonce, h, image_grow(im, CHUNK_HEADER_PLAIN + overhead)));
	table_seal(im, h->id, table, h->table_len);
	for (uint32_t i = 0; i < h->nframes; i++) {
		struct chunk_frame_id id = {h->id, i, i + 1 == h->nframes, raw[i].f.codec, raw[i].f.plain_len};

		must(!chunk_frame_seal(rig.cipher, &im->k, nonce, &id, raw[i].data, (uint32_t)raw[i].len,
		                       image_grow(im, raw[i].f.stored_len)));
		free(raw[i].data);
	}
}

/* Whatever the input says, with u16 bytes of table, u16 bytes of frames. */
static void record_raw(struct image *im, struct cursor *in, const struct chunk_header *h)
{
	uint32_t overhead = chunk_overhead(im->k.suite);
	uint16_t want = cursor_get16(in);
	size_t len;
	uint8_t *bytes = fuzz_take(in, want, &len);

	must(!chunk_header_seal(rig.cipher, &im->k, nonce, h, image_grow(im, CHUNK_HEADER_PLAIN + overhead)));
	table_seal(im, h->id, bytes, len);
	free(bytes);
	want = cursor_get16(in);
	bytes = fuzz_take(in, want, &len);
	if (len)
		memcpy(image_grow(im, len), bytes, len);
	free(bytes);
}

static void record(struct image *im, struct cursor *in)
{
	uint8_t flags = cursor_get8(in);
	struct chunk_header h = {
	    .id = cursor_get16(in),
	    .sequence = cursor_get64(in),
	    .stored_len = cursor_get32(in),
	    .plain_len = cursor_get32(in),
	    .table_len = cursor_get32(in),
	    .nframes = cursor_get32(in),
	    .nranges = cursor_get32(in),
	};

	if (flags & 1)
		record_consistent(im, in, &h);
	else
		record_raw(im, in, &h);
}

/* --- the three kinds of input ------------------------------------------------------------------------------------- */

static uint64_t segment_add(const struct image *im, enum pipeline_segment_kind kind)
{
	struct pipeline_segment s = {.id = rig.next_id++, .kind = kind, .epoch = 1, .size = im->len};
	char path[PATH_ROOM];

	memcpy(s.name, im->h.name, sizeof(s.name));
	if (kind == PIPELINE_SEGMENT_INLINE) {
		s.size = 0;
		s.header_len = SEGMENT_HEADER_LEN;
		memcpy(s.header, im->data, SEGMENT_HEADER_LEN);
	} else {
		pipeline_segment_path(s.name, path, sizeof(path));
		mem_put(rig.io, path, im->data, im->len);
	}
	must(!pipeline_segment_add(rig.p, &s));
	return s.id;
}

static void header_input(struct cursor *in, bool commit)
{
	uint8_t bytes[SEGMENT_HEADER_LEN] = "APFSSEG1", key[CIPHER_KEY];
	struct segment_header h;
	size_t len = sizeof(bytes) - cursor_get8(in) % 3;

	cursor_get(in, bytes + 8, 64);
	if (in->bad)
		return;
	if (commit)
		must(!keyring_subkey(rig.keyring, 1, KEY_SEGMENT_COMMIT, bytes + 8, 64, bytes + 72));
	uint8_t *exact = malloc(len);
	must(exact);
	memcpy(exact, bytes, len);
	int ret = segment_header_open(rig.keyring, uuid, exact, len, "a segment", &h, key, NULL);
	must(ret || (h.kind <= PIPELINE_SEGMENT_INLINE && cipher_nonce_len(h.suite)));
	free(exact);
}

static int record_seen(void *arg, const struct pipeline_record *r)
{
	uint64_t sum = 0;

	(void)arg;
	for (uint32_t i = 0; i < r->nranges; i++)
		sum += r->range[i].len;
	must(sum == r->plain_len && r->plain_len <= PIPELINE_CHUNK_MAX);
	return 0;
}

static void scan_input(struct cursor *in, enum cipher_suite suite)
{
	struct image im;
	uint64_t end = 0;

	image_begin(&im, PIPELINE_SEGMENT_FILE, suite);
	while (cursor_left(in) && im.len < OUT_MAX)
		record(&im, in);
	uint64_t id = segment_add(&im, PIPELINE_SEGMENT_FILE);
	must(!pipeline_segment_scan(rig.p, id, record_seen, NULL, &end, NULL));
	must(end >= SEGMENT_HEADER_LEN && end <= im.len);
	must(!pipeline_segment_delete(rig.p, id, NULL));
	free(im.data);
}

/* Within what fs/core lets pass: frames of at most 64 KiB. The record is a consistent one, which the input's idea of
 * it may or may not fit. */
static void read_input(struct cursor *in, enum cipher_suite suite)
{
	uint8_t flags = cursor_get8(in);
	enum pipeline_segment_kind kind = flags & 1 ? PIPELINE_SEGMENT_INLINE : PIPELINE_SEGMENT_FILE;
	struct pipeline_chunk *c = calloc(1, sizeof(*c) + FRAMES_MAX * sizeof(c->frame[0]));
	struct chunk_header h = {.id = 7};
	struct image im;
	size_t plain = 0;

	must(c);
	image_begin(&im, kind, suite);
	c->offset = cursor_get64(in);
	c->stored_len = cursor_get32(in);
	c->data_start = cursor_get32(in);
	c->nframes = 1 + cursor_get8(in) % FRAMES_MAX;
	for (uint32_t i = 0; i < c->nframes; i++) {
		c->frame[i].plain_len = cursor_get16(in) + 1u;
		c->frame[i].stored_len = cursor_get32(in) % (2 * PIPELINE_FRAME_MAX);
		c->frame[i].codec = cursor_get8(in);
		plain += c->frame[i].plain_len;
	}
	uint32_t n = cursor_get8(in), count = cursor_get8(in);
	record_consistent(&im, in, &h);
	c->id = 7;
	c->segment = segment_add(&im, kind);
	c->plain_len = (uint32_t)plain;
	if (flags & 2) /* where it really is */
		c->offset = kind == PIPELINE_SEGMENT_FILE ? SEGMENT_HEADER_LEN : 0;
	if (flags & 4) {
		c->stored_len = h.stored_len;
		c->data_start = chunk_data_start(suite, h.table_len);
	}
	uint8_t *out = malloc(plain), *data = NULL;
	must(out);
	if (kind == PIPELINE_SEGMENT_INLINE) {
		c->stored_len %= PIPELINE_INLINE_MAX + 1;
		data = calloc(1, c->stored_len ? c->stored_len : 1);
		must(data);
		size_t have = im.len - SEGMENT_HEADER_LEN;
		memcpy(data, im.data + SEGMENT_HEADER_LEN, have < c->stored_len ? have : c->stored_len);
	}
	must(pipeline_read_frames(rig.p, c, flags & 8 ? NULL : data, n, count, out, NULL) <= 0);
	must(!pipeline_segment_delete(rig.p, c->segment, NULL));
	free(out);
	free(data);
	free(im.data);
	free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cursor in = cursor_reader(data, len);

	fuzz_begin();
	rig_begin();
	enum cipher_suite suite = (enum cipher_suite)(1 + cursor_get8(&in) % 3);
	uint8_t what = cursor_get8(&in);
	switch ((what & 0x7f) % 3) {
	case 0:
		header_input(&in, what & 0x80);
		break;
	case 1:
		scan_input(&in, suite);
		break;
	default:
		read_input(&in, suite);
	}
	return 0;
}
