#include "pipeline/read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STORED_MAX (PIPELINE_FRAME_MAX + CIPHER_NONCE_MAX + CIPHER_TAG)

enum { SCAN_VALID = 0, SCAN_STOP = 1 }; /* or -errno */

struct scan {
	struct segment *seg;
	struct chunk_key key;
	struct cipher_ctx *cipher;
	uint8_t *stored;       /* STORED_MAX bytes: a record header or a frame as it is in the file */
	uint8_t *plain;        /* and unsealed */
	uint64_t size;         /* of the file */
	const uint8_t *memory; /* instead of the file: an inline record */

	/* Grown to the needs of the largest record so far. */
	uint8_t *table;
	size_t table_room;
	struct pipeline_range *range;
	size_t range_room;
	struct pipeline_frame *frame;
	size_t frame_room;
};

/* Room for n elements; what it held is forgotten. */
static int room_for(void **buf, size_t *room, size_t n, size_t element)
{
	if (n <= *room)
		return 0;
	free(*buf);
	*buf = malloc(n * element);
	*room = *buf ? n : 0;
	return *buf ? 0 : -ENOMEM;
}

/* Damage ends a scan, it does not fail it. */
static int stop_if_damaged(int ret)
{
	return ret == -EBADMSG ? SCAN_STOP : ret;
}

static int scan_bytes(const struct scan *sc, uint64_t off, void *buf, size_t len)
{
	if (off > sc->size || len > sc->size - off)
		return SCAN_STOP;
	if (sc->memory) {
		memcpy(buf, sc->memory + off, len);
		return SCAN_VALID;
	}
	ssize_t n = io_pread(sc->seg->file, buf, len, off);
	if (n < 0)
		return (int)n;
	return (size_t)n == len ? SCAN_VALID : SCAN_STOP;
}

static int scan_header(const struct scan *sc, uint64_t off, struct chunk_header *h)
{
	int ret = scan_bytes(sc, off, sc->stored, CHUNK_HEADER_PLAIN + chunk_overhead(sc->key.suite));

	if (!ret)
		ret = stop_if_damaged(chunk_header_open(sc->cipher, &sc->key, sc->stored, h));
	if (!ret && h->stored_len > sc->size - off)
		ret = SCAN_STOP;
	return ret;
}

static int scan_table(struct scan *sc, uint64_t off, const struct chunk_header *h)
{
	uint32_t overhead = chunk_overhead(sc->key.suite);
	size_t len = (size_t)h->table_len + overhead;
	uint8_t *plain;
	int ret = room_for((void **)&sc->table, &sc->table_room, len, 1);

	if (!ret)
		ret = room_for((void **)&sc->range, &sc->range_room, h->nranges, sizeof(sc->range[0]));
	if (!ret)
		ret = room_for((void **)&sc->frame, &sc->frame_room, h->nframes, sizeof(sc->frame[0]));
	if (!ret)
		ret = scan_bytes(sc, off + CHUNK_HEADER_PLAIN + overhead, sc->table, len);
	if (ret)
		return ret;
	plain = sc->table + overhead - CIPHER_TAG; /* in place, behind the nonce */
	ret = chunk_table_open(sc->cipher, &sc->key, h, sc->table, plain);
	if (!ret)
		ret = chunk_table_parse(sc->key.suite, h, plain, sc->range, sc->frame);
	return stop_if_damaged(ret);
}

/* Only when all frames are authentic is a record whole: a crash may have kept any of its pages. */
static int scan_frames(const struct scan *sc, uint64_t off, const struct chunk_header *h)
{
	for (uint32_t i = 0; i < h->nframes; i++) {
		const struct pipeline_frame *f = &sc->frame[i];
		const struct chunk_frame_id id = {
		    .chunk = h->id,
		    .number = i,
		    .last = i + 1 == h->nframes,
		    .codec = f->codec,
		    .plain_len = f->plain_len,
		};
		int ret = scan_bytes(sc, off, sc->stored, f->stored_len);
		if (!ret)
			ret = stop_if_damaged(
			    chunk_frame_open(sc->cipher, &sc->key, &id, sc->stored, f->stored_len, sc->plain));
		if (ret)
			return ret;
		off += f->stored_len;
	}
	return SCAN_VALID;
}

static int scan_record(struct scan *sc, uint64_t off, struct pipeline_record *r)
{
	struct chunk_header h;
	int ret = scan_header(sc, off, &h);

	if (!ret)
		ret = scan_table(sc, off, &h);
	if (!ret)
		ret = scan_frames(sc, off + chunk_data_start(sc->key.suite, h.table_len), &h);
	if (ret)
		return ret;
	*r = (struct pipeline_record){
	    .chunk_id = h.id,
	    .sequence = h.sequence,
	    .offset = off,
	    .stored_len = h.stored_len,
	    .plain_len = h.plain_len,
	    .nframes = h.nframes,
	    .nranges = h.nranges,
	    .range = sc->range,
	};
	return SCAN_VALID;
}

static int scan_all(struct scan *sc, int (*fn)(void *arg, const struct pipeline_record *r), void *arg, uint64_t *off,
                    struct err *e)
{
	struct pipeline_record r;
	int ret = io_size(sc->seg->file, &sc->size);

	while (!ret && *off < sc->size) {
		ret = scan_record(sc, *off, &r);
		if (ret)
			break;
		ret = fn(arg, &r);
		if (ret)
			return ret;
		*off += r.stored_len;
	}
	if (ret < 0) {
		char path[SEGMENT_PATH];
		pipeline_segment_path(sc->seg->name, path, sizeof(path));
		return err_set(e, ret, ret == -ENOMEM ? ERR_MEMORY : ERR_IO, "scanning %s: %s", path,
		               err_text(NULL, ret));
	}
	return 0;
}

static int scan_init(struct scan *sc)
{
	sc->stored = malloc(STORED_MAX);
	sc->plain = malloc(PIPELINE_FRAME_MAX);
	return sc->stored && sc->plain ? cipher_ctx_new(&sc->cipher) : -ENOMEM;
}

static void scan_release(struct scan *sc)
{
	cipher_ctx_free(sc->cipher);
	free(sc->stored);
	free(sc->plain);
	free(sc->table);
	free(sc->range);
	free(sc->frame);
}

int scan_segment(struct segment_store *s, uint64_t id, int (*fn)(void *arg, const struct pipeline_record *r), void *arg,
                 uint64_t *valid_end, struct err *e)
{
	struct scan sc = {0};

	*valid_end = 0;
	int ret = segment_get(s, id, &sc.seg, e);
	if (ret)
		return ret;
	if (sc.seg->kind != PIPELINE_SEGMENT_FILE)
		ret = err_set(e, -EINVAL, ERR_USAGE, "segment %llu has no file", (unsigned long long)id);
	else if ((ret = scan_init(&sc)))
		(void)err_set(e, ret, ERR_MEMORY, "no memory to scan a segment");
	if (!ret) {
		sc.key = segment_chunk_key(s, sc.seg);
		*valid_end = sc.seg->header_len;
		ret = scan_all(&sc, fn, arg, valid_end, e);
	}
	scan_release(&sc);
	segment_put(s, sc.seg);
	return ret;
}

/* --- one record ----------------------------------------------------------------------------------------------------
 */

struct pipeline_verifier {
	struct segment_store *store;
	struct scan scan;
};

int verifier_new(struct segment_store *s, struct pipeline_verifier **out)
{
	struct pipeline_verifier *v = calloc(1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	v->store = s;
	int ret = scan_init(&v->scan);
	if (ret)
		pipeline_verifier_free(v);
	else
		*out = v;
	return ret;
}

void pipeline_verifier_free(struct pipeline_verifier *v)
{
	if (!v)
		return;
	scan_release(&v->scan);
	free(v);
}

/* What the record says of itself against what the index does: what differs, or NULL. */
static const char *compare(const struct scan *sc, const struct chunk_header *h, const struct pipeline_chunk *c,
                           uint64_t sequence)
{
	if (h->id != c->id)
		return "it is another chunk's";
	if (h->sequence != sequence)
		return "the index knows another sequence";
	if (h->stored_len != c->stored_len || h->plain_len != c->plain_len || h->nframes != c->nframes ||
	    chunk_data_start(sc->key.suite, h->table_len) != c->data_start)
		return "the index knows other lengths";
	for (uint32_t i = 0; i < c->nframes; i++) {
		const struct pipeline_frame *a = &sc->frame[i], *b = &c->frame[i];

		if (a->plain_len != b->plain_len || a->stored_len != b->stored_len || a->codec != b->codec)
			return "the index knows other frames";
	}
	return NULL;
}

static int record_open(struct scan *sc, const struct pipeline_chunk *c, struct chunk_header *h)
{
	int ret = sc->memory ? 0 : io_size(sc->seg->file, &sc->size);

	if (!ret)
		ret = scan_header(sc, c->offset, h);
	return ret ? ret : scan_table(sc, c->offset, h);
}

int pipeline_verify_record(struct pipeline_verifier *v, const struct pipeline_chunk *c, uint64_t sequence,
                           const void *inline_data, struct pipeline_record *out, struct err *e)
{
	struct scan *sc = &v->scan;
	struct chunk_header h;
	char path[SEGMENT_PATH];
	const char *what = "its header or its table is not authentic";
	int ret = segment_get(v->store, c->segment, &sc->seg, e);

	if (ret)
		return ret;
	sc->key = segment_chunk_key(v->store, sc->seg);
	sc->memory = inline_data;
	sc->size = inline_data ? c->stored_len : 0;
	pipeline_segment_path(sc->seg->name, path, sizeof(path));
	if ((sc->seg->kind == PIPELINE_SEGMENT_INLINE) != (inline_data != NULL) || (inline_data && c->offset)) {
		ret = SCAN_STOP;
		what = "it is in a segment of the wrong kind";
	} else {
		ret = record_open(sc, c, &h);
	}
	if (!ret && (what = compare(sc, &h, c, sequence)))
		ret = SCAN_STOP;
	segment_put(v->store, sc->seg);
	if (ret == SCAN_STOP)
		return err_set(e, -EBADMSG, ERR_FORMAT, "%s: record of chunk %llu: %s", path, (unsigned long long)c->id,
		               what);
	if (ret)
		return err_set(e, ret, ERR_IO, "%s: %s", path, err_text(NULL, ret));
	*out = (struct pipeline_record){
	    .chunk_id = h.id,
	    .sequence = h.sequence,
	    .offset = c->offset,
	    .stored_len = h.stored_len,
	    .plain_len = h.plain_len,
	    .nframes = h.nframes,
	    .nranges = h.nranges,
	    .range = sc->range,
	};
	return 0;
}
