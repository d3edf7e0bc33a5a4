#include "pipeline/read.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* One reading of some frames. */
struct reading {
	struct segment *seg;
	struct chunk_key key;
	const struct pipeline_chunk *chunk;
	struct worker_ctx *ctx;
	struct governor *governor;
	struct metrics *metrics;
	uint8_t *out;
};

static int damaged(const struct reading *rd, enum err_domain domain, const char *what, struct err *e)
{
	char path[SEGMENT_PATH];

	pipeline_segment_path(rd->seg->name, path, sizeof(path));
	return err_set(e, -EBADMSG, domain, "%s%s: chunk %llu: %s", path,
	               rd->seg->kind == PIPELINE_SEGMENT_INLINE ? " (kept in the index)" : "",
	               (unsigned long long)rd->chunk->id, what);
}

/* Checks what the index says of the frames up to n + count. *off is where frame n begins in the record, *plain the
 * plaintext of the frames asked for. */
static int locate(const struct reading *rd, uint32_t n, uint32_t count, uint32_t *off, size_t *plain, struct err *e)
{
	const struct pipeline_chunk *c = rd->chunk;
	uint64_t pos = c->data_start;

	if (c->nframes > CHUNK_FRAMES_MAX || c->stored_len > INT32_MAX ||
	    c->offset > (uint64_t)INT64_MAX - c->stored_len)
		return damaged(rd, ERR_FORMAT, "the index has impossible bounds", e);
	*plain = 0;
	for (uint32_t i = 0; i < n + count; i++) {
		const struct pipeline_frame *f = &c->frame[i];
		if (!chunk_frame_valid(rd->key.suite, f))
			return damaged(rd, ERR_FORMAT, "the index has an impossible frame", e);
		if (i == n)
			*off = (uint32_t)pos;
		if (i >= n)
			*plain += f->plain_len;
		pos += f->stored_len;
		if (pos > c->stored_len)
			return damaged(rd, ERR_FORMAT, "the index has frames beyond the record", e);
	}
	return 0;
}

static int open_frame(struct reading *rd, uint32_t i, const uint8_t *in, uint8_t *out, struct err *e)
{
	const struct pipeline_frame *f = &rd->chunk->frame[i];
	const struct chunk_frame_id id = {
	    .chunk = rd->chunk->id,
	    .number = i,
	    .last = i + 1 == rd->chunk->nframes,
	    .codec = f->codec,
	    .plain_len = f->plain_len,
	};
	uint8_t *payload = f->codec == CODEC_STORED ? out : rd->ctx->plain;
	char what[64];
	governor_hold_begin(&rd->ctx->cpu);
	uint64_t begin = metrics_now(rd->metrics);
	int ret = chunk_frame_open(rd->ctx->cipher, &rd->key, &id, in, f->stored_len, payload);

	begin = metrics_lap(rd->metrics, METRIC_OPEN_SECONDS, begin);
	metrics_add(rd->metrics, METRIC_OPEN_BYTES, f->stored_len);
	if (ret == -EBADMSG) {
		(void)snprintf(what, sizeof(what), "frame %u is not authentic", i);
		return damaged(rd, ERR_AUTH, what, e);
	}
	if (!ret && f->codec != CODEC_STORED) {
		ret = codec_decompress(rd->ctx->codec, (enum codec_id)f->codec, payload,
		                       f->stored_len - chunk_overhead(rd->key.suite), out, f->plain_len);
		(void)metrics_lap(rd->metrics, METRIC_DECOMPRESS_SECONDS, begin);
		metrics_add(rd->metrics, METRIC_DECOMPRESS_BYTES, f->plain_len);
	}
	if (ret == -EBADMSG) {
		(void)snprintf(what, sizeof(what), "frame %u does not decompress", i);
		return damaged(rd, ERR_CODEC, what, e);
	}
	return ret ? err_set(e, ret, ERR_CODEC, "cannot open a frame: %s", err_text(NULL, ret)) : 0;
}

/* Reads the stored bytes of as many frames from n as the span buffer holds, at most count: *got of them. */
static int fetch(struct reading *rd, uint32_t n, uint32_t count, uint32_t off, uint32_t *got, size_t *len,
                 struct err *e)
{
	*len = 0;
	for (*got = 0; *got < count; ++*got) {
		uint32_t stored = rd->chunk->frame[n + *got].stored_len;
		if (stored > WORKER_SPAN - *len)
			break;
		*len += stored;
	}
	governor_hold_end(&rd->ctx->cpu);
	governor_enter(rd->governor, GOVERNOR_IO);
	uint64_t begin = metrics_io_begin(rd->metrics);
	ssize_t r = io_pread(rd->seg->file, rd->ctx->span, *len, rd->chunk->offset + off);
	metrics_io_end(rd->metrics, METRIC_FETCH_SECONDS, begin);
	governor_leave(rd->governor, GOVERNOR_IO);
	metrics_add(rd->metrics, METRIC_FETCH_BYTES, r < 0 ? 0 : (uint64_t)r);
	if (r < 0) {
		char path[SEGMENT_PATH];
		pipeline_segment_path(rd->seg->name, path, sizeof(path));
		return err_set(e, (int)r, ERR_IO, "reading %s: %s", path, err_text(NULL, (int)r));
	}
	return (size_t)r < *len ? damaged(rd, ERR_FORMAT, "the segment ends within it", e) : 0;
}

static int read_frames(struct reading *rd, const uint8_t *inline_data, uint32_t n, uint32_t count, uint32_t off,
                       struct err *e)
{
	uint8_t *out = rd->out;

	while (count) {
		const uint8_t *in = inline_data ? inline_data + off : rd->ctx->span;
		uint32_t got = count;
		size_t len = 0;
		int ret = inline_data ? 0 : fetch(rd, n, count, off, &got, &len, e);

		for (; got && !ret; got--, n++, count--) {
			ret = open_frame(rd, n, in, out, e);
			in += rd->chunk->frame[n].stored_len;
			out += rd->chunk->frame[n].plain_len;
		}
		if (ret)
			return ret;
		off += (uint32_t)len;
	}
	return 0;
}

int reader_frames(struct reader *r, const struct pipeline_chunk *chunk, const void *inline_data, uint32_t n,
                  uint32_t count, void *out, uint64_t *stored, struct err *e)
{
	struct reading rd = {.chunk = chunk, .governor = r->store->governor, .metrics = r->store->metrics, .out = out};
	uint32_t off = 0;
	size_t plain = 0;

	*stored = 0;
	if (n > chunk->nframes || count > chunk->nframes - n)
		return err_set(e, -EINVAL, ERR_USAGE, "chunk %llu has no frame %u", (unsigned long long)chunk->id, n);
	if (!count)
		return 0;
	int ret = segment_get(r->store, chunk->segment, &rd.seg, e);
	if (ret)
		return ret;
	rd.key = segment_chunk_key(r->store, rd.seg);
	if ((rd.seg->kind == PIPELINE_SEGMENT_INLINE) != (inline_data != NULL))
		ret = damaged(&rd, ERR_FORMAT, "the index has it in a segment of the wrong kind", e);
	if (!ret)
		ret = locate(&rd, n, count, &off, &plain, e);
	if (!ret) {
		rd.ctx = workers_borrow(r->workers);
		if (!rd.ctx)
			ret = err_set(e, -ENOMEM, ERR_MEMORY, "no memory to read a chunk");
	}
	if (rd.ctx) {
		rd.ctx->cpu.urgent = true;
		ret = read_frames(&rd, inline_data, n, count, off, e);
		workers_return(r->workers, rd.ctx);
		if (ret)
			memset(out, 0, plain);
		for (uint32_t i = n; i < n + count && !ret; i++)
			*stored += chunk->frame[i].stored_len;
	}
	segment_put(r->store, rd.seg);
	return ret;
}
