#include "tests/tamper/bed.h"

#include "pipeline/pipeline.h"
#include "pipeline/superblock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PASS  "tamper"
#define NAMES 150

const struct secret bed_secret = {SECRET_PASSPHRASE, PASS, sizeof(PASS) - 1};

uint64_t bed_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void ok(int ret, const char *what)
{
	if (!ret)
		return;
	(void)fprintf(stderr, "%s: %s\n", what, strerror(-ret));
	abort();
}

/* Plain: nothing but what was asked for runs. */
int bed_open(struct io *io, bool read_only, struct core **out)
{
	const struct core_options o = {
	    .io = io,
	    .pass = PASS,
	    .pass_len = sizeof(PASS) - 1,
	    .memory = 16u << 20,
	    .commit_interval_ms = 3600 * 1000,
	    .compress = {CODEC_ZSTD, -1},
	    .workers = 1,
	    .noatime = true,
	    .read_only = read_only,
	};

	return core_open(&o, out, NULL);
}

/* --- content ------------------------------------------------------------------------------------------------------ */

struct maker {
	struct core *c;
	uint64_t rng;
};

static uint64_t make(struct maker *m, uint64_t dir, const char *name, uint32_t mode)
{
	const struct core_cred cred = {1000, 1000, 022};
	struct core_attr attr;

	ok(core_mknod(m->c, &cred, dir, name, mode, S_ISCHR(mode) ? 0x0103 : 0, &attr), name);
	core_forget(m->c, attr.ino, 1);
	return attr.ino;
}

static uint64_t lookup(struct maker *m, uint64_t dir, const char *name)
{
	struct core_attr attr;

	ok(core_lookup(m->c, dir, name, &attr), name);
	core_forget(m->c, attr.ino, 1);
	return attr.ino;
}

/* Random bytes, text, or zeroes. */
static void put(struct maker *m, uint64_t ino, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len + 8);
	uint64_t kind = bed_below(&m->rng, 8);
	struct core_file *f;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = bed_random(&m->rng);

		if (kind > 4)
			v = 0x2065727574637274u + (v % 5);
		memcpy(buf + i, &v, 8);
	}
	if (kind == 4)
		memset(buf, 0, len);
	ok(core_file_open(m->c, ino, O_RDWR, &f), "open");
	ok(core_file_write(f, buf, len, off, 0), "write");
	core_file_close(f);
	free(buf);
}

static void attribute(struct maker *m, uint64_t ino, const char *name, size_t len)
{
	uint8_t *value = malloc(len);

	memset(value, (int)bed_below(&m->rng, 256), len);
	ok(core_setxattr(m->c, ino, name, value, len, 0), name);
	free(value);
}

static void truncate_to(struct maker *m, uint64_t ino, uint64_t size)
{
	struct core_attr in = {.size = size}, out;

	ok(core_setattr(m->c, ino, CORE_SET_SIZE, &in, &out), "truncate");
}

static void make_kinds(struct maker *m)
{
	const struct core_cred cred = {1, 2, 0};
	char target[4000];
	struct core_attr attr;

	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	ok(core_symlink(m->c, &cred, CORE_ROOT, "long", target, &attr), "symlink");
	core_forget(m->c, attr.ino, 1);
	ok(core_symlink(m->c, &cred, CORE_ROOT, "short", "a/b", &attr), "symlink");
	core_forget(m->c, attr.ino, 1);
	(void)make(m, CORE_ROOT, "pipe", S_IFIFO | 0600);
	(void)make(m, CORE_ROOT, "device", S_IFCHR | 0600);
	uint64_t a = make(m, CORE_ROOT, "a", S_IFDIR | 0755), b = make(m, a, "b", S_IFDIR | 0700);
	uint64_t ino = make(m, b, "deep", S_IFREG | 0644);
	put(m, ino, 0, 5000);
	ok(core_link(m->c, ino, a, "link", &attr), "link");
	core_forget(m->c, attr.ino, 1);
	attribute(m, ino, "user.small", 20);
	attribute(m, ino, "user.large", 30000);
	attribute(m, a, "user.dir", 300);
	uint64_t names = make(m, CORE_ROOT, "names", S_IFDIR | 0755);
	for (unsigned i = 0; i < NAMES; i++) {
		char name[64];

		(void)snprintf(name, sizeof(name), "a name that is not very short %u", i * i);
		ino = make(m, names, name, S_IFREG | 0644);
		if (i % 3 == 0)
			put(m, ino, 0, 1 + (size_t)bed_below(&m->rng, 600));
	}
}

/* sync: some of them at once, small ones are then kept in the index. Each is a commit. */
static void make_files(struct maker *m, const char *prefix, bool sync)
{
	static const size_t sizes[] = {1, 100, 4095, 4096, 20000, 65536, 70000, 150000};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "%s%zu", prefix, sizes[i]);
		uint64_t ino = make(m, CORE_ROOT, name, S_IFREG | 0640);
		put(m, ino, 0, sizes[i]);
		if (sync && i % 2)
			ok(core_fsync(m->c, ino, false), "fsync");
		if (i % 3 == 0)
			put(m, ino, 3 * sizes[i], 1000); /* a hole between */
		if (i % 4 == 1)
			truncate_to(m, ino, sizes[i] / 2 + 1);
	}
}

/* Parts of what is there get other data, names and attributes. */
static void change(struct maker *m, const char *prefix)
{
	char name[32];

	(void)snprintf(name, sizeof(name), "%s70000", prefix);
	put(m, lookup(m, CORE_ROOT, name), 10000, 20000);
	(void)snprintf(name, sizeof(name), "%s4096", prefix);
	ok(core_unlink(m->c, CORE_ROOT, name), name);
	(void)snprintf(name, sizeof(name), "%s65536", prefix);
	ok(core_rename(m->c, CORE_ROOT, name, lookup(m, CORE_ROOT, "a"), name, 0), name);
	uint64_t names = lookup(m, CORE_ROOT, "names"), deep = lookup(m, lookup(m, CORE_ROOT, "a"), "link");
	attribute(m, deep, "user.small", 25);
	put(m, deep, 0, 200);
	(void)snprintf(name, sizeof(name), "%s and a new one", prefix);
	put(m, make(m, names, name, S_IFREG | 0600), 0, 900);
}

/* --- stores ------------------------------------------------------------------------------------------------------- */

static void add_slots(struct io *io)
{
	const struct superblock_kdf kdf = {1, 8u << 20};
	uint8_t key[KEYS_LEN] = {1, 2, 3};
	const struct secret more[2] = {{SECRET_PASSPHRASE, "second", 6}, {SECRET_RECOVERY, key, sizeof(key)}};
	struct superblock *sb;
	struct keyring *k;
	unsigned number;

	ok(superblock_open(io, &sb, NULL), "superblock_open");
	ok(superblock_unlock(sb, &bed_secret, &k, NULL), "superblock_unlock");
	for (int i = 0; i < 2; i++) {
		const struct superblock_slot slot = {.secret = &more[i], .kdf = kdf, .label = i ? "paper" : NULL};

		ok(superblock_slot_add(io, sb, k, &slot, &number, NULL), "superblock_slot_add");
	}
	keyring_free(k);
	superblock_free(sb);
}

static struct io *new_store(void)
{
	const struct core_format format = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};
	struct io *io = sim_new();

	ok(core_format(io, &format, PASS, sizeof(PASS) - 1, NULL), "core_format");
	return io;
}

static void begin(struct maker *m, struct io *io)
{
	ok(bed_open(io, false, &m->c), "core_open");
}

static void end(struct maker *m)
{
	ok(core_close(m->c, NULL), "core_close");
}

/* Four mounts, so that there are as many segments. */
static void make_store(struct bed *b, struct maker *m)
{
	struct io *io = new_store();

	begin(m, io);
	make_kinds(m);
	make_files(m, "x", true);
	end(m);
	begin(m, io);
	make_files(m, "y", true);
	facts_take(m->c, &b->state[0]);
	end(m);
	b->old = sim_clone(io);
	add_slots(io);
	begin(m, io);
	change(m, "x");
	make_files(m, "z", true);
	end(m);
	begin(m, io);
	facts_take(m->c, &b->state[1]);
	end(m);
	b->clean = sim_clone(io);
	begin(m, io);
	change(m, "y");
	ok(core_sync(m->c), "core_sync");
	facts_take(m->c, &b->state[2]);
	change(m, "z");
	make_files(m, "w", false);
	ok(core_sync(m->c), "core_sync");
	facts_take(m->c, &b->state[3]);
	b->crash = sim_clone(io);
	sim_crash(b->crash, 0);
	core_abandon(m->c);
	io_free(io);
}

/* --- what there is to tamper with --------------------------------------------------------------------------------- */

static int list_path(void *arg, const char *path, uint64_t size)
{
	struct bed *b = arg;

	if (!size || !strcmp(path, "README") || !strcmp(path, "reserve") || !strcmp(path, "lock"))
		return 0;
	for (size_t i = 0; i < b->npaths; i++)
		if (!strcmp(b->path[i], path))
			return 0;
	b->path = realloc(b->path, (b->npaths + 1) * sizeof(char *));
	b->path[b->npaths++] = strdup(path);
	return 0;
}

struct scan {
	struct bed *b;
	const char *path;
};

static int list_record(void *arg, const struct pipeline_record *r)
{
	struct scan *s = arg;
	struct bed *b = s->b;

	b->record = realloc(b->record, (b->nrecords + 1) * sizeof(b->record[0]));
	struct bed_record *out = &b->record[b->nrecords++];
	*out = (struct bed_record){.offset = r->offset, .len = r->stored_len};
	(void)snprintf(out->segment, sizeof(out->segment), "%s", s->path);
	return 0;
}

static void list_records(struct bed *b)
{
	struct superblock *sb;
	struct keyring *k;
	struct pipeline *p;
	uint64_t end_;

	ok(superblock_open(b->clean, &sb, NULL), "superblock_open");
	ok(superblock_unlock(sb, &bed_secret, &k, NULL), "superblock_unlock");
	struct pipeline_options o = {.io = b->clean,
	                             .keyring = k,
	                             .suite = superblock_info(sb)->suite,
	                             .workers = 1,
	                             .next_segment = 1000,
	                             .read_only = true};
	memcpy(o.uuid, superblock_info(sb)->uuid, sizeof(o.uuid));
	ok(pipeline_new(&o, &p, NULL), "pipeline_new");
	for (size_t i = 0; i < b->npaths; i++) {
		struct pipeline_segment s = {.id = i + 1, .kind = PIPELINE_SEGMENT_FILE};
		struct scan scan = {b, b->path[i]};
		uint64_t size;

		if (strncmp(b->path[i], "segments/", 9) != 0 || sim_raw_size(b->clean, b->path[i], &size))
			continue;
		for (size_t n = 0; n < sizeof(s.name); n++) {
			unsigned byte = 0;

			(void)sscanf(b->path[i] + strlen("segments/xx/") + 2 * n, "%2x", &byte);
			s.name[n] = (uint8_t)byte;
		}
		ok(pipeline_segment_add(p, &s), "pipeline_segment_add");
		ok(pipeline_segment_scan(p, s.id, list_record, &scan, &end_, NULL), "pipeline_segment_scan");
	}
	pipeline_free(p);
	keyring_free(k);
	superblock_free(sb);
}

void bed_init(struct bed *b, uint64_t seed)
{
	struct maker m = {.rng = seed};

	memset(b, 0, sizeof(*b));
	ok(keys_init(NULL), "keys_init");
	b->other = new_store();
	begin(&m, b->other);
	make_files(&m, "o", true);
	end(&m);
	make_store(b, &m);
	ok(sim_raw_walk(b->clean, list_path, b), "walk");
	ok(sim_raw_walk(b->crash, list_path, b), "walk");
	list_records(b);
	for (size_t i = 0; i < BED_STATES; i++)
		if (b->state[i].errors)
			abort();
}

void bed_release(struct bed *b)
{
	for (size_t i = 0; i < BED_STATES; i++)
		facts_release(&b->state[i]);
	for (size_t i = 0; i < b->npaths; i++)
		free(b->path[i]);
	free(b->path);
	free(b->record);
	io_free(b->old);
	io_free(b->clean);
	io_free(b->crash);
	io_free(b->other);
}
