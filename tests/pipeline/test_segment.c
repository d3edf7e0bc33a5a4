/* Segments: scanning, failing storage, syncing, deleting, opening and closing. */
#include "base/lock.h"
#include "pipeline/segment.h"
#include "tests/pipeline/rig.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A segment has one file name. */
static void test_names(void **state)
{
	uint8_t name[PIPELINE_SEGMENT_NAME] = {0x00, 0x1f, 0xa0, 0xff}, parsed[PIPELINE_SEGMENT_NAME];
	char path[SEGMENT_PATH], file[SEGMENT_PATH];

	(void)state;
	pipeline_segment_path(name, path, sizeof(path));
	(void)snprintf(file, sizeof(file), "%s", strrchr(path, '/') + 1);
	assert_true(pipeline_segment_name_parse(file, parsed));
	assert_memory_equal(parsed, name, sizeof(name));
	file[2] = ' ';
	assert_false(pipeline_segment_name_parse(file, parsed));
	file[2] = '+';
	assert_false(pipeline_segment_name_parse(file, parsed));
	file[2] = 'A';
	assert_false(pipeline_segment_name_parse(file, parsed));
	file[2] = 0;
	assert_false(pipeline_segment_name_parse(file, parsed));
	assert_false(pipeline_segment_name_parse("", parsed));
}

/* --- scanning ----------------------------------------------------------------------------------------------------- */

static void test_scan(void **state)
{
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk[3];
	struct rig_found f = {0};
	uint64_t end;
	struct rig r;
	char path[128];

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	for (unsigned i = 0; i < 3; i++)
		chunk[i] = rig_seal_small(&r, i, item);
	uint64_t id = chunk[0]->segment;
	assert_int_equal(pipeline_segment_scan(r.p, id, rig_note, &f, &end, NULL), 0);
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
	f = (struct rig_found){.ret = 17};
	assert_int_equal(pipeline_segment_scan(r.p, id, rig_note, &f, &end, NULL), 17);
	assert_int_equal(f.n, 2);
	f = (struct rig_found){.ret = -EINTR};
	assert_int_equal(pipeline_segment_scan(r.p, id, rig_note, &f, &end, NULL), -EINTR);
	assert_int_equal(pipeline_segment_scan(r.p, 99, rig_note, &f, &end, NULL), -ENOENT);

	/* Torn anywhere within the last record. */
	rig_segment_file(&r, id, path, sizeof(path));
	for (uint64_t len = chunk[2]->offset + chunk[2]->stored_len - 1; len >= chunk[2]->offset; len -= 7) {
		assert_int_equal(truncate(path, (off_t)len), 0);
		f = (struct rig_found){0};
		assert_int_equal(pipeline_segment_scan(r.p, id, rig_note, &f, &end, NULL), 0);
		assert_int_equal(f.n, 2);
		assert_int_equal(end, chunk[2]->offset);
	}
	/* Zeroes or noise where it should go on. */
	assert_int_equal(truncate(path, (off_t)chunk[2]->offset), 0);
	assert_int_equal(truncate(path, (off_t)chunk[2]->offset + 100000), 0);
	f = (struct rig_found){0};
	assert_int_equal(pipeline_segment_scan(r.p, id, rig_note, &f, &end, NULL), 0);
	assert_int_equal(f.n, 2);
	uint8_t noise[3000];
	rig_fill(RIG_RANDOM, 5, noise, sizeof(noise));
	rig_file_write(path, noise, sizeof(noise), chunk[2]->offset);
	f = (struct rig_found){0};
	assert_int_equal(pipeline_segment_scan(r.p, id, rig_note, &f, &end, NULL), 0);
	assert_int_equal(f.n, 2);

	faulty_arm(&r.faulty, FAULTY_PREAD, 3, -EIO, true);
	struct err e = {0};
	assert_int_equal(pipeline_segment_scan(r.p, id, rig_note, &f, &end, &e), -EIO);
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
	before = rig_seal_small(&r, 0, item);
	faulty_arm(&r.faulty, FAULTY_PWRITE, 0, code, true);
	assert_int_equal(rig_seal(&r, item, 3, "lz4", 4096, false, &none), code);
	assert_int_equal(pipeline_segment_get(r.p, before->segment, &seg), 0);
	assert_false(seg.open);
	assert_int_equal(seg.size, before->offset + before->stored_len);
	rig_segment_file(&r, before->segment, path, sizeof(path));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, seg.size);
	after = rig_seal_small(&r, 1, item);
	assert_int_not_equal(after->segment, before->segment);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(rig_read_or_fail(&r, before, rig_small[0]), 0);
	assert_int_equal(rig_read_or_fail(&r, after, rig_small[1]), 0);
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

/* A segment that is ended while chunks are on their way to it is cut by the last of them, also by one that fails. */
static void test_trim_by_failed(void **state)
{
	uint8_t record[1000] = {0}, torn[500] = {1}, uuid[SUPERBLOCK_UUID] = {0};
	char path[SEGMENT_PATH], file[192];
	struct segment *first, *last;
	struct segment_store store;
	struct workers *workers;
	struct stat st;
	uint64_t off;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	assert_int_equal(workers_new(&(struct workers_options){.threads = 1, .contexts = 16}, &workers, NULL), 0);
	segment_store_init(&store, &(struct segment_store_options){.io = r.posix,
	                                                           .keyring = r.keyring,
	                                                           .workers = workers,
	                                                           .uuid = uuid,
	                                                           .suite = CIPHER_AES_256_GCM,
	                                                           .next_id = 1,
	                                                           .full = 1 << 20});
	assert_int_equal(segment_acquire(&store, PIPELINE_SEGMENT_FILE, 2000, &first, NULL), 0);
	assert_int_equal(segment_acquire(&store, PIPELINE_SEGMENT_FILE, 2000, &last, NULL), 0);
	assert_ptr_equal(first, last);
	pipeline_segment_path(first->name, path, sizeof(path));
	(void)snprintf(file, sizeof(file), "%s/%s", r.dir, path);
	assert_int_equal(segment_append(&store, first, 2000, record, sizeof(record), &off, NULL), 0);
	rig_file_write(file, torn, sizeof(torn), off + sizeof(record));
	segment_store_roll(&store, last->id);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_size, off + sizeof(record) + sizeof(torn));
	segment_release(&store, last, 2000);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_size, off + sizeof(record));
	workers_free(workers);
	segment_store_release(&store);
	rig_release(&r);
}

/* With many chunks on their way one write fails: each is reported once, and what was reported well is there. */
static void test_failing_under_load(void **state)
{
	enum { CHUNKS = 40, FRAMES = 12 };
	uint8_t *plain = malloc((size_t)FRAMES * 65536);
	struct pipeline_item item[FRAMES];
	struct rig_result *res = calloc(CHUNKS, sizeof(*res));
	struct pipeline_seal *rq = calloc(CHUNKS, sizeof(*rq));
	unsigned failed = 0;
	struct rig r;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	rig_fill_items(RIG_TEXT, 1, plain, item, FRAMES);
	faulty_arm(&r.faulty, FAULTY_PWRITE, 7, -ENOSPC, true);
	for (unsigned i = 0; i < CHUNKS; i++) {
		/* by workers, and right here */
		rq[i] = (struct pipeline_seal){.item = item,
		                               .nitems = i % 3 ? FRAMES : 2,
		                               .chunk_id = i,
		                               .frame_size = 65536,
		                               .choice = {CODEC_LZ4, 0}};
		rig_submit(&r, &rq[i], &res[i]);
	}
	for (unsigned i = 0; i < CHUNKS; i++) {
		int ret = rig_wait(&res[i]);
		if (ret)
			assert_int_equal(ret, -ENOSPC);
		else
			rig_check(&r, res[i].chunk, item, rq[i].nitems);
		failed += ret != 0;
		free(res[i].chunk);
	}
	assert_in_range(failed, 1, CHUNKS - 8);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	rig_release(&r);
	free(rq);
	free(res);
	free(plain);
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
	    {FAULTY_SYNC, -EIO, true},     {FAULTY_SYNC_DIR, -EIO, true},
	};

	(void)state;
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		for (unsigned after = 0;; after++) {
			struct pipeline_item item = {1, 0, 1000, rig_small[0]};
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
	chunk = rig_seal_small(&r, 0, item);
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
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), 0);
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
	free(rig_seal_small(&r, 0, item));
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 1); /* of the header */
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(pipeline_sync(r.p, NULL), 0);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 2);
	pipeline_segment_roll(r.p, 1);
	free(rig_seal_small(&r, 0, item));
	pipeline_segment_roll(r.p, 2);
	free(rig_seal_small(&r, 0, item));
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
		free(rig_seal_small(&r, 0, item));
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
	free(rig_seal_small(&r, 0, item));
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC), 1);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC_DIR), 3);
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_PWRITE), 2);

	/* Directories that are there already may be somebody's who did not get so far as to sync them. */
	for (unsigned xx = 0; xx < 256; xx++) {
		char dir[32];
		(void)snprintf(dir, sizeof(dir), "segments/%02x", xx);
		(void)!io_mkdir(r.posix, dir);
	}
	pipeline_free(r.p);
	assert_int_equal(pipeline_new(&r.options, &r.p, NULL), 0);
	free(rig_seal_small(&r, 0, item));
	assert_int_equal(faulty_calls(&r.faulty, FAULTY_SYNC_DIR), 6);
	rig_release(&r);
}

/* --- reading, deleting -------------------------------------------------------------------------------------------- */

/* Holds the next pread until it is let go. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool armed, reached, open, passed;
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
	g->passed = true;
}

struct late {
	struct rig *r;
	const struct pipeline_chunk *chunk;
	struct gate *gate;
};

static void *late_read(void *arg)
{
	const struct late *l = arg;

	return (void *)(intptr_t)rig_read_or_fail(l->r, l->chunk, rig_small[0]);
}

static void *late_delete(void *arg)
{
	const struct late *l = arg;
	int ret = pipeline_segment_delete(l->r->p, l->chunk->segment, NULL);

	SCOPED_LOCK(&l->gate->lock);
	return (void *)(intptr_t)(ret || !l->gate->passed);
}

/* Who reads finishes, others find nothing, and who deletes waits until the space is free. */
static void test_delete_while_read(void **state)
{
	struct gate g = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	struct pipeline_item item[3];
	struct pipeline_chunk *chunk;
	struct rig r;
	char path[128];
	pthread_t reader, deleter;
	void *ret;

	(void)state;
	rig_init(&r, CIPHER_AES_256_GCM);
	r.faulty.arg = &g;
	r.faulty.hook = gate_hook;
	chunk = rig_seal_small(&r, 0, item);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), -EBUSY);
	assert_int_equal(pipeline_segment_delete(r.p, 99, NULL), -ENOENT);
	pipeline_segment_roll(r.p, chunk->segment);
	rig_segment_file(&r, chunk->segment, path, sizeof(path));

	g.armed = true;
	struct late l = {&r, chunk, &g};
	assert_int_equal(pthread_create(&reader, NULL, late_read, &l), 0);
	(void)pthread_mutex_lock(&g.lock);
	while (!g.reached)
		(void)pthread_cond_wait(&g.cond, &g.lock);
	(void)pthread_mutex_unlock(&g.lock);
	assert_int_equal(pthread_create(&deleter, NULL, late_delete, &l), 0);
	while (!pipeline_segment_get(r.p, chunk->segment, &(struct pipeline_segment){0}))
		(void)usleep(1000);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), -ENOENT);
	(void)pthread_mutex_lock(&g.lock);
	g.open = true;
	(void)pthread_cond_broadcast(&g.cond);
	(void)pthread_mutex_unlock(&g.lock);
	(void)pthread_join(reader, &ret);
	assert_int_equal((intptr_t)ret, 0);
	(void)pthread_join(deleter, &ret);
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
	chunk = rig_seal_small(&r, 0, item);
	rig_remount(&r);
	faulty_arm(&r.faulty, FAULTY_UNLINK, 0, -EIO, true);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), -EIO);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), 0);
	rig_segment_file(&r, chunk->segment, path, sizeof(path));
	rig_remount(&r);
	assert_int_equal(pipeline_segment_get(r.p, chunk->segment, &(struct pipeline_segment){0}), -ENOENT);
	free(chunk);

	/* A file that somebody took away. */
	chunk = rig_seal_small(&r, 0, item);
	rig_segment_file(&r, chunk->segment, path, sizeof(path));
	rig_remount(&r);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), -ENOENT);
	assert_int_equal(pipeline_segment_delete(r.p, chunk->segment, NULL), 0);
	free(chunk);

	/* A failing read is no damage. */
	chunk = rig_seal_small(&r, 0, item);
	faulty_arm(&r.faulty, FAULTY_PREAD, 0, -EIO, true);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), -EIO);
	assert_int_equal(rig_read_or_fail(&r, chunk, rig_small[0]), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_scan),
	    cmocka_unit_test(test_failing_append),
	    cmocka_unit_test(test_trim_by_failed),
	    cmocka_unit_test(test_failing_under_load),
	    cmocka_unit_test(test_failing_creation),
	    cmocka_unit_test(test_failed_sync_is_final),
	    cmocka_unit_test(test_sync_only_what_is_dirty),
	    cmocka_unit_test(test_sync_is_shared),
	    cmocka_unit_test(test_durable_before_reported),
	    cmocka_unit_test(test_delete_while_read),
	    cmocka_unit_test(test_delete_fails),
	    cmocka_unit_test(test_many_segments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
