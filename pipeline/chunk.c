#include "pipeline/chunk.h"

#include "base/cursor.h"

#include <errno.h>
#include <string.h>

/* The first byte of every part's associated data. */
enum chunk_domain { DOMAIN_HEADER = 1, DOMAIN_TABLE = 2, DOMAIN_FRAME = 3 };

#define AAD_MAX 64

struct aad {
	uint8_t buf[AAD_MAX];
	struct cursor c;
};

static void aad_begin(struct aad *a, enum chunk_domain domain, const struct chunk_key *k)
{
	a->c = cursor_writer(a->buf, sizeof(a->buf));
	cursor_put8(&a->c, (uint8_t)domain);
	cursor_put(&a->c, k->uuid, SUPERBLOCK_UUID);
}

static void aad_header(struct aad *a, const struct chunk_key *k)
{
	aad_begin(a, DOMAIN_HEADER, k);
	cursor_put(&a->c, k->name, PIPELINE_SEGMENT_NAME);
}

static void aad_table(struct aad *a, const struct chunk_key *k, uint64_t chunk)
{
	aad_begin(a, DOMAIN_TABLE, k);
	cursor_put64(&a->c, chunk);
}

static void aad_frame(struct aad *a, const struct chunk_key *k, const struct chunk_frame_id *id)
{
	aad_begin(a, DOMAIN_FRAME, k);
	cursor_put64(&a->c, id->chunk);
	cursor_put32(&a->c, id->number);
	cursor_put8(&a->c, id->last);
	cursor_put8(&a->c, id->codec);
	cursor_put32(&a->c, id->plain_len);
}

static size_t aad_len(const struct aad *a)
{
	return sizeof(a->buf) - cursor_left(&a->c);
}

static int part_seal(struct cipher_ctx *ctx, const struct chunk_key *k, const struct aad *a, const uint8_t *nonce,
                     const void *in, size_t len, uint8_t *out)
{
	size_t nonce_len = cipher_nonce_len(k->suite);

	memcpy(out, nonce, nonce_len);
	return cipher_seal(ctx, k->suite, k->key, nonce, a->buf, aad_len(a), in, len, out + nonce_len);
}

/* len counts nonce and tag. */
static int part_open(struct cipher_ctx *ctx, const struct chunk_key *k, const struct aad *a, const uint8_t *in,
                     size_t len, void *out)
{
	size_t nonce_len = cipher_nonce_len(k->suite);

	return cipher_open(ctx, k->suite, k->key, in, a->buf, aad_len(a), in + nonce_len, len - nonce_len, out);
}

int chunk_header_seal(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *nonce,
                      const struct chunk_header *h, uint8_t *out)
{
	uint8_t plain[CHUNK_HEADER_PLAIN];
	struct cursor c = cursor_writer(plain, sizeof(plain));
	struct aad a;

	cursor_put64(&c, h->id);
	cursor_put64(&c, h->sequence);
	cursor_put32(&c, h->stored_len);
	cursor_put32(&c, h->plain_len);
	cursor_put32(&c, h->table_len);
	cursor_put32(&c, h->nframes);
	cursor_put32(&c, h->nranges);
	if (c.bad)
		return -EIO;
	aad_header(&a, k);
	return part_seal(ctx, k, &a, nonce, plain, sizeof(plain), out);
}

/* Whether the lengths of a header are within the limits and can be true together. */
static bool header_valid(enum cipher_suite suite, const struct chunk_header *h)
{
	uint64_t data_len;

	if (!h->plain_len || h->plain_len > PIPELINE_CHUNK_MAX)
		return false;
	if (!h->nframes || h->nframes > CHUNK_FRAMES_MAX || h->nframes > h->plain_len)
		return false;
	if (!h->nranges || h->nranges > CHUNK_RANGES_MAX || h->nranges > h->plain_len)
		return false;
	if (h->table_len > CHUNK_TABLE_MAX ||
	    h->table_len < (uint64_t)h->nranges * CHUNK_RANGE_MIN + (uint64_t)h->nframes * CHUNK_ENTRY)
		return false;
	if (h->stored_len < chunk_data_start(suite, h->table_len))
		return false;
	data_len = h->stored_len - chunk_data_start(suite, h->table_len);
	return data_len > (uint64_t)h->nframes * chunk_overhead(suite) &&
	       data_len <= (uint64_t)h->nframes * chunk_overhead(suite) + h->plain_len;
}

int chunk_header_open(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *in, struct chunk_header *h)
{
	uint8_t plain[CHUNK_HEADER_PLAIN];
	struct aad a;

	aad_header(&a, k);
	int ret = part_open(ctx, k, &a, in, sizeof(plain) + chunk_overhead(k->suite), plain);
	if (ret)
		return ret;

	struct cursor c = cursor_reader(plain, sizeof(plain));
	h->id = cursor_get64(&c);
	h->sequence = cursor_get64(&c);
	h->stored_len = cursor_get32(&c);
	h->plain_len = cursor_get32(&c);
	h->table_len = cursor_get32(&c);
	h->nframes = cursor_get32(&c);
	h->nranges = cursor_get32(&c);
	return !c.bad && header_valid(k->suite, h) ? 0 : -EBADMSG;
}

/* The range that begins with items[i], and the item after it. */
static size_t range_next(const struct pipeline_item *item, size_t nitems, size_t i, struct pipeline_range *r)
{
	*r = (struct pipeline_range){.ino = item[i].ino, .off = item[i].off, .len = item[i].len};
	for (i++; i < nitems && item[i].ino == r->ino && item[i].off == r->off + r->len; i++)
		r->len += item[i].len;
	return i;
}

static uint64_t varint_len(uint64_t v)
{
	uint64_t n = 1;

	for (; v >= 0x80; v >>= 7)
		n++;
	return n;
}

void chunk_ranges_count(const struct pipeline_item *item, size_t nitems, uint32_t *nranges, uint64_t *bytes)
{
	struct pipeline_range r;

	*nranges = 0;
	*bytes = 0;
	for (size_t i = 0; i < nitems;) {
		i = range_next(item, nitems, i, &r);
		++*nranges;
		*bytes += varint_len(r.ino) + varint_len(r.off) + varint_len(r.len);
	}
}

int chunk_table_seal(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *nonce,
                     const struct chunk_header *h, const struct pipeline_item *item, size_t nitems,
                     const struct pipeline_frame *frame, uint8_t *out)
{
	uint8_t *plain = out + cipher_nonce_len(k->suite);
	struct cursor c = cursor_writer(plain, h->table_len);
	struct pipeline_range r;
	struct aad a;

	for (size_t i = 0; i < nitems;) {
		i = range_next(item, nitems, i, &r);
		cursor_put_varint(&c, r.ino);
		cursor_put_varint(&c, r.off);
		cursor_put_varint(&c, r.len);
	}
	for (uint32_t i = 0; i < h->nframes; i++) {
		cursor_put32(&c, frame[i].plain_len);
		cursor_put32(&c, frame[i].stored_len);
		cursor_put8(&c, frame[i].codec);
	}
	if (c.bad || cursor_left(&c))
		return -EIO;
	aad_table(&a, k, h->id);
	return part_seal(ctx, k, &a, nonce, plain, h->table_len, out);
}

int chunk_table_open(struct cipher_ctx *ctx, const struct chunk_key *k, const struct chunk_header *h, const uint8_t *in,
                     uint8_t *plain)
{
	struct aad a;

	aad_table(&a, k, h->id);
	return part_open(ctx, k, &a, in, (size_t)h->table_len + chunk_overhead(k->suite), plain);
}

static bool ranges_parse(struct cursor *c, const struct chunk_header *h, struct pipeline_range *range)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < h->nranges; i++) {
		uint64_t ino = cursor_get_varint(c), off = cursor_get_varint(c), len = cursor_get_varint(c);

		if (c->bad || !len || len > h->plain_len || off > (uint64_t)INT64_MAX - len)
			return false;
		range[i] = (struct pipeline_range){.ino = ino, .off = off, .len = (uint32_t)len};
		sum += len;
	}
	return sum == h->plain_len;
}

int chunk_table_parse(enum cipher_suite suite, const struct chunk_header *h, const uint8_t *plain,
                      struct pipeline_range *range, struct pipeline_frame *frame)
{
	struct cursor c = cursor_reader(plain, h->table_len);
	uint64_t sum = 0, stored = chunk_data_start(suite, h->table_len);

	if (!ranges_parse(&c, h, range))
		return -EBADMSG;
	for (uint32_t i = 0; i < h->nframes; i++) {
		frame[i].plain_len = cursor_get32(&c);
		frame[i].stored_len = cursor_get32(&c);
		frame[i].codec = cursor_get8(&c);
		if (c.bad || !chunk_frame_valid(suite, &frame[i]))
			return -EBADMSG;
		sum += frame[i].plain_len;
		stored += frame[i].stored_len;
	}
	return !cursor_left(&c) && sum == h->plain_len && stored == h->stored_len ? 0 : -EBADMSG;
}

int chunk_frame_seal(struct cipher_ctx *ctx, const struct chunk_key *k, const uint8_t *nonce,
                     const struct chunk_frame_id *id, const void *in, uint32_t len, uint8_t *out)
{
	struct aad a;

	aad_frame(&a, k, id);
	return part_seal(ctx, k, &a, nonce, in, len, out);
}

int chunk_frame_open(struct cipher_ctx *ctx, const struct chunk_key *k, const struct chunk_frame_id *id,
                     const uint8_t *in, uint32_t stored_len, void *out)
{
	struct aad a;

	aad_frame(&a, k, id);
	return part_open(ctx, k, &a, in, stored_len, out);
}

bool chunk_frame_valid(enum cipher_suite suite, const struct pipeline_frame *f)
{
	uint32_t overhead = chunk_overhead(suite);

	if (!f->plain_len || f->plain_len > PIPELINE_FRAME_MAX || f->codec >= CODEC_COUNT || f->stored_len <= overhead)
		return false;
	if (f->codec == CODEC_STORED)
		return f->stored_len == f->plain_len + overhead;
	return f->stored_len < f->plain_len + overhead;
}
