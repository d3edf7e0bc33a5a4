#include "tests/pipeline/rig.h"

#include "base/lock.h"
#include "pipeline/keyring.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct keyring *rig_keyring(uint8_t fill)
{
	struct keyring *k;

	assert_int_equal(keys_init(NULL), 0);
	assert_int_equal(keyring_new(&k), 0);
	uint8_t *master = keyring_add(k, 1);
	assert_non_null(master);
	memset(master, fill, KEYS_LEN);
	assert_int_equal(keyring_set_epoch(k, 1), 0);
	return k;
}

void rig_init(struct rig *r, enum cipher_suite suite)
{
	struct err e = {0};

	memset(r, 0, sizeof(*r));
	assert_non_null(scratch_new(r->dir));
	assert_int_equal(io_posix_new(r->dir, &r->posix, &e), 0);
	faulty_init(&r->faulty, r->posix);
	r->keyring = rig_keyring(0x42);
	r->options = (struct pipeline_options){
	    .io = &r->faulty.io,
	    .keyring = r->keyring,
	    .suite = suite,
	    .workers = 3,
	    .next_segment = 1,
	};
	memset(r->options.uuid, 0xab, sizeof(r->options.uuid));
	assert_int_equal(pipeline_new(&r->options, &r->p, &e), 0);
	r->chunk_id = 1000;
}

void rig_release(struct rig *r)
{
	pipeline_free(r->p);
	keyring_free(r->keyring);
	faulty_release(&r->faulty);
	io_free(r->posix);
	scratch_free(r->dir);
}

void rig_remount(struct rig *r)
{
	struct pipeline_segment known[64];
	size_t n = pipeline_segment_new_since(r->p, 0, known, 64);

	pipeline_free(r->p);
	r->options.next_segment = n ? known[n - 1].id + 1 : 1;
	assert_int_equal(pipeline_new(&r->options, &r->p, NULL), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(pipeline_segment_add(r->p, &known[i]), 0);
}

static uint32_t next_random(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	*x ^= *x << 5;
	return *x;
}

void rig_fill(enum rig_data kind, uint32_t seed, void *buf, size_t len)
{
	static const char *const words[] = {"static ", "int ", "return ", "struct segment *",
	                                    "{\n\t",   ";\n",  "if (",    ")"};
	uint32_t x = seed * 2654435761u + 1;
	uint8_t *p = buf;

	if (!x)
		x = 1;
	for (size_t i = 0; i < len;) {
		if (kind == RIG_TEXT) {
			const char *w = words[next_random(&x) >> 29];
			for (; *w && i < len; w++)
				p[i++] = (uint8_t)*w;
		} else {
			p[i++] = kind == RIG_RANDOM ? (uint8_t)(next_random(&x) >> 13) : 0;
		}
	}
}

void rig_fill_items(enum rig_data kind, uint32_t seed, void *buf, struct pipeline_item *item, size_t n)
{
	rig_fill(kind, seed, buf, n * 65536);
	for (size_t i = 0; i < n; i++)
		item[i] = (struct pipeline_item){1, i * 65536, 65536, (uint8_t *)buf + i * 65536};
}

static void note_result(struct pipeline_seal *rq, int ret, struct pipeline_chunk *chunk, const struct err *e)
{
	struct rig_result *res = rq->arg;

	SCOPED_LOCK(&res->lock);
	res->ret = ret;
	res->chunk = chunk;
	if (e)
		res->e = *e;
	res->done = true;
	(void)pthread_cond_signal(&res->cond);
}

void rig_submit(struct rig *r, struct pipeline_seal *rq, struct rig_result *res)
{
	memset(res, 0, sizeof(*res));
	(void)pthread_mutex_init(&res->lock, NULL);
	(void)pthread_cond_init(&res->cond, NULL);
	rq->done = note_result;
	rq->arg = res;
	pipeline_seal_submit(r->p, rq);
}

int rig_wait(struct rig_result *res)
{
	(void)pthread_mutex_lock(&res->lock);
	while (!res->done)
		(void)pthread_cond_wait(&res->cond, &res->lock);
	(void)pthread_mutex_unlock(&res->lock);
	(void)pthread_cond_destroy(&res->cond);
	(void)pthread_mutex_destroy(&res->lock);
	return res->ret;
}

int rig_seal(struct rig *r, const struct pipeline_item *item, size_t n, const char *codec, uint32_t frame_size,
             bool to_inline, struct pipeline_chunk **chunk)
{
	struct rig_result res;
	struct pipeline_seal rq = {
	    .item = item,
	    .nitems = n,
	    .chunk_id = r->chunk_id++,
	    .sequence = r->chunk_id * 2,
	    .frame_size = frame_size,
	    .to_inline = to_inline,
	};

	assert_int_equal(codec_choice_parse(codec, &rq.choice), 0);
	rig_submit(r, &rq, &res);
	int ret = rig_wait(&res);
	if (ret) {
		assert_null(res.chunk);
		assert_int_equal(res.e.code, ret);
	} else {
		assert_non_null(res.chunk);
		assert_int_equal(res.chunk->id, rq.chunk_id);
	}
	*chunk = res.chunk;
	return ret;
}

int rig_read(struct rig *r, const struct pipeline_chunk *chunk, uint8_t **data, struct err *e)
{
	*data = malloc(chunk->plain_len);
	assert_non_null(*data);
	memset(*data, 0x5a, chunk->plain_len);
	return pipeline_read_frames(r->p, chunk, chunk->inline_data, 0, chunk->nframes, *data, e);
}

void rig_check(struct rig *r, const struct pipeline_chunk *chunk, const struct pipeline_item *item, size_t n)
{
	struct err e = {0};
	uint8_t *data;
	size_t off = 0;

	int ret = rig_read(r, chunk, &data, &e);
	if (ret)
		fail_msg("reading chunk %llu: %s", (unsigned long long)chunk->id, err_text(&e, ret));
	for (size_t i = 0; i < n; i++) {
		assert_true(off + item[i].len <= chunk->plain_len);
		assert_memory_equal(data + off, item[i].data, item[i].len);
		off += item[i].len;
	}
	assert_int_equal(off, chunk->plain_len);
	free(data);
}

void rig_segment_file(struct rig *r, uint64_t id, char *buf, size_t len)
{
	struct pipeline_segment s;
	char path[64];

	assert_int_equal(pipeline_segment_get(r->p, id, &s), 0);
	pipeline_segment_path(s.name, path, sizeof(path));
	(void)snprintf(buf, len, "%s/%s", r->dir, path);
}

uint8_t rig_small[4][3000];

struct pipeline_chunk *rig_seal_small(struct rig *r, unsigned i, struct pipeline_item item[3])
{
	struct pipeline_chunk *chunk;

	rig_fill(RIG_TEXT, i, rig_small[i], sizeof(rig_small[i]));
	item[0] = (struct pipeline_item){100 + i, 0, 1000, rig_small[i]};
	item[1] = (struct pipeline_item){100 + i, 5000, 500, rig_small[i] + 1000};
	item[2] = (struct pipeline_item){200 + i, 0, 1500, rig_small[i] + 1500};
	assert_int_equal(rig_seal(r, item, 3, "lz4", 4096, false, &chunk), 0);
	return chunk;
}

uint8_t *rig_file_read(const char *path, size_t *len)
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

void rig_file_write(const char *path, const void *buf, size_t len, size_t off)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, buf, len, (off_t)off), len);
	(void)close(fd);
}

int rig_read_or_fail(struct rig *r, const struct pipeline_chunk *chunk, const uint8_t *want)
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

int rig_note(void *arg, const struct pipeline_record *rec)
{
	struct rig_found *f = arg;

	assert_true(f->n < 4 && rec->nranges <= 4);
	f->rec[f->n] = *rec;
	memcpy(f->range[f->n], rec->range, rec->nranges * sizeof(rec->range[0]));
	return ++f->n == 2 ? f->ret : 0;
}
