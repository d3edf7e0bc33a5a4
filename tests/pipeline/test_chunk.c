/* Chunk records as bytes: the worked example of docs/FORMAT.md, limits, hostile tables, the binding of every part. */
#include "base/cursor.h"
#include "pipeline/chunk.h"
#include "pipeline/keyring.h"
#include "tests/pipeline/rig.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *format_path;

/* --- the worked example ------------------------------------------------------------------------------------------- */

struct example {
	uint8_t bytes[1024];
	size_t len;
	uint8_t master[32], key[32];
	uint8_t header[36], table[64], frame[64];
	size_t header_len, table_len, frame_len;
	char file[64];
};

static size_t unhex(const char *text, uint8_t *out, size_t room)
{
	size_t n = strspn(text, "0123456789abcdef") / 2, len;

	assert_true(n <= room);
	assert_int_equal(sodium_hex2bin(out, room, text, 2 * n, NULL, &len, NULL), 0);
	return len;
}

/* The first text between back quotes after `label`. */
static const char *quoted(const char *text, const char *label)
{
	const char *p = strstr(text, label);

	if (!p)
		fail_msg("FORMAT.md has no \"%s\"", label);
	p = strchr(p + strlen(label), '`');
	assert_non_null(p);
	return p + 1;
}

static void example_load(struct example *ex)
{
	struct stat st;
	int fd = open(format_path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	char *text = calloc(1, (size_t)st.st_size + 1);
	assert_int_equal(read(fd, text, (size_t)st.st_size), st.st_size);
	(void)close(fd);

	memset(ex, 0, sizeof(*ex));
	const char *p = strstr(text, "**Worked example.** A segment");
	assert_non_null(p);
	assert_int_equal(unhex(quoted(p, "master key of epoch 1 is"), ex->master, 32), 32);
	p = strstr(p, "```\n") + 4;
	for (; strncmp(p, "```", 3) != 0; p = strchr(p, '\n') + 1) {
		char *end;
		assert_int_equal(strtoul(p, &end, 10), ex->len);
		ex->len += unhex(end + strspn(end, " "), ex->bytes + ex->len, sizeof(ex->bytes) - ex->len);
	}
	(void)sscanf(quoted(p, "| file |"), "%63[^`]", ex->file);
	assert_int_equal(unhex(quoted(p, "| segment key |"), ex->key, 32), 32);
	ex->header_len = unhex(quoted(p, "| record header, at 104 |"), ex->header, sizeof(ex->header));
	ex->table_len = unhex(quoted(p, "| table, at 168 |"), ex->table, sizeof(ex->table));
	ex->frame_len = unhex(quoted(p, "| frame 0, at 213 |"), ex->frame, sizeof(ex->frame));
	free(text);
}

/* BLAKE2b as FORMAT.md derives subkeys. */
static void subkey(const uint8_t *master, uint8_t purpose, const void *id, uint8_t id_len, uint8_t *out)
{
	uint8_t message[12 + 64] = {purpose, 0, 0, 0, 1, 0, 0, 0, id_len, 0, 0, 0}, person[16] = "apfs-subkey";

	memcpy(message + 12, id, id_len);
	assert_int_equal(
	    crypto_generichash_blake2b_salt_personal(out, 32, message, 12u + id_len, master, 32, NULL, person), 0);
}

/* A decoder from FORMAT.md alone, with libsodium's ciphers. */
static void open_part(const uint8_t *key, const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t plain_len,
                      const uint8_t *want)
{
	uint8_t plain[128];

	assert_int_equal(crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, in + 12, plain_len + 16, aad,
	                                                           aad_len, in, key),
	                 0);
	assert_memory_equal(plain, want, plain_len);
}

static void test_example_by_hand(void **state)
{
	struct example ex;
	uint8_t out[32], aad[64] = {1};

	(void)state;
	example_load(&ex);
	assert_int_equal(ex.len, 270);
	assert_memory_equal(ex.bytes, "APFSSEG1\1\0\0\2\1\0\0\0", 16);
	subkey(ex.master, 5, ex.bytes + 8, 64, out);
	assert_memory_equal(out, ex.bytes + 72, 32);
	subkey(ex.master, 1, ex.bytes + 48, 24, out);
	assert_memory_equal(out, ex.key, 32);

	memcpy(aad + 1, ex.bytes + 16, 32); /* uuid, name */
	assert_int_equal(ex.header_len, 36);
	open_part(ex.key, aad, 33, ex.bytes + 104, 36, ex.header);
	aad[0] = 2;
	memcpy(aad + 17, "\5\0\0\0\0\0\0\0", 8);
	assert_int_equal(ex.table_len, 17);
	open_part(ex.key, aad, 25, ex.bytes + 168, 17, ex.table);
	aad[0] = 3;
	memcpy(aad + 25, "\0\0\0\0\1\1\x39\1\0\0", 10);
	assert_int_equal(ex.frame_len, 29);
	open_part(ex.key, aad, 35, ex.bytes + 213, 29, ex.frame);
}

static int check_record(void *arg, const struct pipeline_record *r)
{
	const struct example *ex = arg;

	assert_int_equal(r->chunk_id, 5);
	assert_int_equal(r->sequence, 9);
	assert_int_equal(r->offset, 104);
	assert_int_equal(r->stored_len, ex->len - 104);
	assert_int_equal(r->plain_len, 313);
	assert_int_equal(r->nframes, 1);
	assert_int_equal(r->nranges, 2);
	assert_int_equal(r->range[0].ino, 2);
	assert_int_equal(r->range[0].off, 0);
	assert_int_equal(r->range[0].len, 13);
	assert_int_equal(r->range[1].ino, 7);
	assert_int_equal(r->range[1].off, 4096);
	assert_int_equal(r->range[1].len, 300);
	return 0;
}

/* The example as a file of a store: what was written once is read for ever. */
static void test_example_as_segment(void **state)
{
	struct pipeline_segment seg = {.id = 3};
	struct pipeline_chunk *chunk = calloc(1, sizeof(*chunk) + sizeof(chunk->frame[0]));
	struct io_file *f;
	struct example ex;
	struct rig r;
	char path[64];
	uint8_t data[313], want[313] = "hello, world\n";
	uint64_t end;

	(void)state;
	example_load(&ex);
	rig_init(&r, CIPHER_AES_256_GCM);
	pipeline_free(r.p);
	keyring_free(r.keyring);
	assert_int_equal(keyring_new(&r.keyring), 0);
	uint8_t *master = keyring_add(r.keyring, 1);
	assert_non_null(master);
	memcpy(master, ex.master, 32);
	assert_non_null(keyring_add(r.keyring, 2)); /* new data would be sealed under this */
	assert_int_equal(keyring_set_epoch(r.keyring, 2), 0);
	r.options.keyring = r.keyring;
	memcpy(r.options.uuid, ex.bytes + 16, 16);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);

	memcpy(seg.name, ex.bytes + 32, 16);
	pipeline_segment_path(seg.name, path, sizeof(path));
	assert_string_equal(path, ex.file);
	assert_int_equal(io_mkdir(r.posix, "segments"), 0);
	assert_int_equal(io_mkdir(r.posix, "segments/5e"), 0);
	assert_int_equal(io_open(r.posix, path, IO_WRITE | IO_CREATE, &f), 0);
	assert_int_equal(io_pwrite(f, ex.bytes, ex.len, 0), 0);
	io_close(f);
	assert_int_equal(pipeline_segment_add(r.p, &seg), 0);
	assert_int_equal(pipeline_segment_scan(r.p, 3, check_record, &ex, &end, NULL), 0);
	assert_int_equal(end, ex.len);

	*chunk = (struct pipeline_chunk){
	    .id = 5, .segment = 3, .offset = 104, .stored_len = 166, .plain_len = 313, .data_start = 109, .nframes = 1};
	chunk->frame[0] = (struct pipeline_frame){.plain_len = 313, .stored_len = 57, .codec = CODEC_LZ4};
	assert_int_equal(pipeline_read_frame(r.p, chunk, NULL, 0, data, NULL), 0);
	for (size_t i = 0; i < 300; i++)
		want[13 + i] = (uint8_t) "apfs"[i % 4];
	assert_memory_equal(data, want, sizeof(want));
	free(chunk);
	rig_release(&r);
}

/* --- bytes that lie ----------------------------------------------------------------------------------------------- */

static struct cipher_ctx *cipher;
static const uint8_t key_bytes[32] = {1, 2, 3}, uuid[16] = {4, 5}, name[16] = {6, 7};
static const struct chunk_key good_key = {key_bytes, uuid, name, CIPHER_AES_256_GCM};
static const uint8_t nonce[CIPHER_NONCE_MAX] = {9};

static const struct chunk_header good_header = {.id = 77,
                                                .sequence = 78,
                                                .stored_len = 2 * 28 + 36 + 17 + 57,
                                                .plain_len = 313,
                                                .table_len = 17,
                                                .nframes = 1,
                                                .nranges = 2};

static int header_trip(const struct chunk_header *h)
{
	uint8_t sealed[CHUNK_HEADER_PLAIN + CIPHER_NONCE_MAX + CIPHER_TAG];
	struct chunk_header got;

	assert_int_equal(chunk_header_seal(cipher, &good_key, nonce, h, sealed), 0);
	int ret = chunk_header_open(cipher, &good_key, sealed, &got);
	if (!ret) {
		assert_true(got.id == h->id && got.sequence == h->sequence);
		assert_true(got.stored_len == h->stored_len && got.plain_len == h->plain_len);
		assert_true(got.table_len == h->table_len && got.nframes == h->nframes && got.nranges == h->nranges);
	}
	return ret;
}

/* Even authentic headers are not believed. */
static void test_impossible_headers(void **state)
{
	struct chunk_header h;

	(void)state;
	assert_int_equal(header_trip(&good_header), 0);
#define TRY(change, want)                                \
	do {                                             \
		h = good_header;                         \
		change;                                  \
		assert_int_equal(header_trip(&h), want); \
	} while (0)
	TRY(h.id = UINT64_MAX, 0);
	TRY(h.plain_len = 0, -EBADMSG);
	TRY(h.plain_len = PIPELINE_CHUNK_MAX, 0);
	TRY(h.plain_len = PIPELINE_CHUNK_MAX + 1, -EBADMSG);
	TRY(h.plain_len = UINT32_MAX, -EBADMSG);
	TRY(h.nframes = 0, -EBADMSG);
	TRY(h.nframes = CHUNK_FRAMES_MAX + 1, -EBADMSG);
	TRY(h.nframes = UINT32_MAX, -EBADMSG);
	TRY(h.nframes = 2, -EBADMSG); /* no room in the table */
	TRY(h.nranges = 0, -EBADMSG);
	TRY(h.nranges = UINT32_MAX, -EBADMSG);
	TRY(h.nranges = CHUNK_RANGES_MAX + 1, -EBADMSG);
	TRY(h.nranges = 3, -EBADMSG);
	TRY(h.table_len = 0, -EBADMSG);
	TRY(h.table_len = CHUNK_TABLE_MAX + 1, -EBADMSG);
	TRY(h.table_len = UINT32_MAX, -EBADMSG);
	TRY(h.table_len = 100, -EBADMSG); /* nothing left for the frame */
	TRY(h.stored_len = 0, -EBADMSG);
	TRY(h.stored_len = 2 * 28 + 36 + 17 + 28, -EBADMSG);
	TRY(h.stored_len = 2 * 28 + 36 + 17 + 28 + 313, 0);
	TRY(h.stored_len = 2 * 28 + 36 + 17 + 28 + 314, -EBADMSG);
	TRY(h.stored_len = UINT32_MAX, -EBADMSG);
#undef TRY
}

/* A table of two ranges and a frame, with these values. */
struct raw_table {
	uint64_t ino[2], off[2], len[2];
	uint32_t plain_len, stored_len;
	uint8_t codec;
};

static int table_trip(const struct raw_table *t, struct chunk_header h)
{
	uint8_t plain[64];
	struct cursor c = cursor_writer(plain, sizeof(plain));
	struct pipeline_range range[2];
	struct pipeline_frame frame[1];

	for (int i = 0; i < 2; i++) {
		cursor_put_varint(&c, t->ino[i]);
		cursor_put_varint(&c, t->off[i]);
		cursor_put_varint(&c, t->len[i]);
	}
	cursor_put32(&c, t->plain_len);
	cursor_put32(&c, t->stored_len);
	cursor_put8(&c, t->codec);
	uint32_t table_len = (uint32_t)(sizeof(plain) - cursor_left(&c));
	h.stored_len += table_len - h.table_len;
	h.table_len = table_len;
	return chunk_table_parse(CIPHER_AES_256_GCM, &h, plain, range, frame);
}

static void test_impossible_tables(void **state)
{
	static const struct raw_table good = {{2, 7}, {0, 4096}, {13, 300}, 313, 57, CODEC_LZ4};
	struct raw_table t;

	(void)state;
	assert_int_equal(table_trip(&good, good_header), 0);
#define TRY(change, want)                                            \
	do {                                                         \
		t = good;                                            \
		change;                                              \
		assert_int_equal(table_trip(&t, good_header), want); \
	} while (0)
	TRY(t.ino[0] = UINT64_MAX, 0);
	TRY(t.off[0] = INT64_MAX - 13, 0);
	TRY(t.off[0] = INT64_MAX - 12, -EBADMSG);
	TRY(t.off[0] = UINT64_MAX, -EBADMSG);
	TRY(t.len[0] = 0, -EBADMSG);
	TRY(t.len[0] = 14, -EBADMSG);
	TRY(t.len[0] = UINT64_MAX - 286, -EBADMSG); /* the sum wraps to the right one */
	TRY(t.plain_len = 312, -EBADMSG);
	TRY(t.plain_len = 0, -EBADMSG);
	TRY(t.plain_len = 65537, -EBADMSG);
	TRY(t.stored_len = 56, -EBADMSG);
	TRY(t.stored_len = 28, -EBADMSG);
	TRY(t.stored_len = UINT32_MAX, -EBADMSG);
	TRY(t.codec = CODEC_COUNT, -EBADMSG);
	TRY(t.codec = CODEC_STORED, -EBADMSG);
	TRY(t.codec = CODEC_BROTLI, 0);
#undef TRY
}

/* Noise, and noise over a good table: no more than an error. The sanitizers watch. */
static void test_random_tables(void **state)
{
	struct pipeline_range *range = calloc(40, sizeof(*range));
	struct pipeline_frame *frame = calloc(8, sizeof(*frame));
	uint32_t x = 12345;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		uint8_t plain[120];
		struct chunk_header h = good_header;
		h.nranges = i % 30 + 1;
		h.nframes = i % 7 + 1;
		h.table_len = i % sizeof(plain);
		for (size_t j = 0; j < sizeof(plain); j++) {
			x = x * 1664525 + 1013904223;
			plain[j] = i & 1 ? (uint8_t)(x >> 24) : (uint8_t)((x >> 24) & 0x81);
		}
		assert_int_equal(chunk_table_parse(CIPHER_AES_256_GCM, &h, plain, range, frame), -EBADMSG);
	}
	free(range);
	free(frame);
}

/* --- binding ------------------------------------------------------------------------------------------------------ */

/* Each part opens with exactly what it was sealed with. */
static void test_binding(void **state)
{
	static const enum cipher_suite suites[] = {CIPHER_AES_256_GCM, CIPHER_CHACHA20_POLY1305,
	                                           CIPHER_XCHACHA20_POLY1305};
	static const uint8_t other[32] = {99};
	const struct chunk_frame_id id = {77, 3, false, CODEC_LZ4, 1000};
	uint8_t sealed[600], plain[600], text[500];

	(void)state;
	memset(text, 't', sizeof(text));
	for (int s = 0; s < 3; s++) {
		struct chunk_key k = good_key, wrong;
		struct chunk_header h = good_header, got;
		uint32_t overhead = chunk_overhead(k.suite = suites[s]);

		assert_int_equal(chunk_frame_seal(cipher, &k, nonce, &id, text, 500, sealed), 0);
		assert_int_equal(chunk_frame_open(cipher, &k, &id, sealed, 500 + overhead, plain), 0);
		assert_memory_equal(plain, text, 500);
#define FRAME(change)                                                                                            \
	do {                                                                                                     \
		struct chunk_frame_id i = id;                                                                    \
		wrong = k;                                                                                       \
		change;                                                                                          \
		assert_int_equal(chunk_frame_open(cipher, &wrong, &i, sealed, 500 + overhead, plain), -EBADMSG); \
		for (int z = 0; z < 500; z++)                                                                    \
			assert_int_equal(plain[z], 0);                                                           \
	} while (0)
		FRAME(i.chunk++);
		FRAME(i.number++);
		FRAME(i.last = true);
		FRAME(i.codec = CODEC_ZSTD);
		FRAME(i.plain_len++);
		FRAME(wrong.key = other);
		FRAME(wrong.uuid = other);
#undef FRAME
		wrong = k;
		wrong.name = other; /* frames are bound to their segment by its key */
		assert_int_equal(chunk_frame_open(cipher, &wrong, &id, sealed, 500 + overhead, plain), 0);

		h.stored_len += 3 * (overhead - 28);
		assert_int_equal(chunk_header_seal(cipher, &k, nonce, &h, sealed), 0);
		assert_int_equal(chunk_header_open(cipher, &k, sealed, &got), 0);
		wrong.name = other;
		assert_int_equal(chunk_header_open(cipher, &wrong, sealed, &got), -EBADMSG);
		wrong = k;
		wrong.uuid = other;
		assert_int_equal(chunk_header_open(cipher, &wrong, sealed, &got), -EBADMSG);

		const struct pipeline_item item[] = {{2, 0, 13, text}, {7, 4096, 200, text}, {7, 4296, 100, text}};
		const struct pipeline_frame frame = {313, 57 - 28 + overhead, CODEC_LZ4};
		struct pipeline_range range[2];
		struct pipeline_frame got_frame;
		assert_int_equal(chunk_table_seal(cipher, &k, nonce, &h, item, 3, &frame, sealed), 0);
		assert_int_equal(chunk_table_open(cipher, &k, &h, sealed, plain), 0);
		assert_int_equal(chunk_table_parse(k.suite, &h, plain, range, &got_frame), 0);
		assert_int_equal(range[1].len, 300); /* what adjoined is one */
		h.id++;
		assert_int_equal(chunk_table_open(cipher, &k, &h, sealed, plain), -EBADMSG);
		/* A table of another length than the header's is a bug, not a record. */
		h.table_len++;
		assert_int_equal(chunk_table_seal(cipher, &k, nonce, &h, item, 3, &frame, sealed), -EIO);
	}
}

static void test_ranges(void **state)
{
	static const struct {
		struct pipeline_item item[4];
		uint32_t n, ranges;
		uint64_t bytes;
	} cases[] = {
	    {{{1, 0, 10, NULL}}, 1, 1, 3},
	    {{{1, 0, 10, NULL}, {1, 10, 10, NULL}}, 2, 1, 3},
	    {{{1, 0, 10, NULL}, {1, 11, 10, NULL}}, 2, 2, 6},
	    {{{1, 10, 10, NULL}, {1, 0, 10, NULL}}, 2, 2, 6}, /* only forwards */
	    {{{1, 0, 10, NULL}, {2, 10, 10, NULL}}, 2, 2, 6},
	    {{{1, 0, 65536, NULL}, {1, 65536, 65536, NULL}, {300, 1u << 14, 1, NULL}}, 3, 2, 5 + 6},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint32_t n;
		uint64_t bytes;
		chunk_ranges_count(cases[i].item, cases[i].n, &n, &bytes);
		assert_int_equal(n, cases[i].ranges);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static int setup(void **state)
{
	(void)state;
	return keys_init(NULL) || cipher_ctx_new(&cipher);
}

static int teardown(void **state)
{
	(void)state;
	cipher_ctx_free(cipher);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_example_by_hand),
	    cmocka_unit_test(test_example_as_segment),
	    cmocka_unit_test(test_impossible_headers),
	    cmocka_unit_test(test_impossible_tables),
	    cmocka_unit_test(test_random_tables),
	    cmocka_unit_test(test_binding),
	    cmocka_unit_test(test_ranges),
	};

	if (argc != 2)
		return 2;
	format_path = argv[1];
	return cmocka_run_group_tests(tests, setup, teardown);
}
