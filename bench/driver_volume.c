#include "bench/driver.h"

#include "base/storage.h"
#include "fs/core/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PASS  "bench"
#define PIECE ((size_t)1 << 20) /* bytes of a call, as the kernel sends them */

/* format DIR: a store in an empty directory, with the cheapest key derivation. */
int driver_format(struct driver *d, char **arg, unsigned n)
{
	const struct core_format f = {.kdf_ops = 1, .kdf_mem = 8u << 20, .mode = 0755};
	struct io *io;
	int ret = io_posix_new(arg[0], &io, &d->err);

	(void)n;
	if (ret)
		return ret;
	ret = core_format(io, &f, PASS, strlen(PASS), &d->err);
	io_free(io);
	return ret;
}

static int no_sync(struct io_file *f)
{
	(void)f;
	return 0;
}

static int no_write(struct io_file *f, const void *buf, size_t len, uint64_t off)
{
	(void)f, (void)buf, (void)len, (void)off;
	return 0;
}

/* What the segments of a volume that stores nothing are: open files whose writes are taken for done. */
static struct {
	const struct io_ops *posix;
	struct io_ops ops;
	struct io io;
} nowhere = {.io = {&nowhere.ops}};

static int open_nowhere(struct io *io, const char *path, unsigned flags, struct io_file **out)
{
	int ret = nowhere.posix->open(io, path, flags, out);

	if (!ret && !strncmp(path, "segments/", strlen("segments/")))
		(*out)->io = &nowhere.io;
	return ret;
}

static void store_nothing(struct driver *d)
{
	nowhere.posix = d->io->ops;
	d->ops.sync = no_sync;
	nowhere.ops = d->ops;
	nowhere.ops.pwrite = no_write;
	d->ops.open = open_nowhere;
}

/* NAME=VALUE, or NAME, of driver_open. */
static int open_option(struct driver *d, struct core_options *o, const char *text)
{
	const char *value = strchr(text, '=');
	uint64_t size = 0;
	char name[16];

	(void)snprintf(name, sizeof(name), "%.*s", value ? (int)(value - text) : 15, text);
	value = value ? value + 1 : "0";
	if (!strcmp(name, "noflush"))
		d->ops.sync = no_sync;
	else if (!strcmp(name, "nostore"))
		store_nothing(d);
	else if (!strcmp(name, "nogovernance"))
		o->no_governance = true;
	else if (!strcmp(name, "nofeedback"))
		o->no_feedback = true;
	else if (!strcmp(name, "nometrics"))
		o->no_metrics = true;
	else if (!strcmp(name, "codec"))
		return codec_choice_parse(value, &o->compress);
	else if (!strcmp(name, "priority"))
		return policy_priority_parse(value, &o->priority);
	int ret = driver_size(d, value, UINT32_MAX, &size);
	if (!strcmp(name, "chunk"))
		o->chunk_size = size;
	else if (!strcmp(name, "workers"))
		o->workers = (unsigned)size;
	else if (!strcmp(name, "memory"))
		o->memory = size;
	else if (!strcmp(name, "mmap"))
		o->map_max = size;
	else if (strncmp(name, "no", 2) != 0)
		ret = -EINVAL;
	return ret;
}

/* open DIR [codec=CHOICE] [priority=PRIORITY] [chunk=BYTES] [workers=N] [memory=BYTES] [mmap=BYTES] [noflush] [nostore]
 * [nogovernance] [nofeedback] [nometrics]. nostore: no segment is written, nothing flushed. */
int driver_open(struct driver *d, char **arg, unsigned n)
{
	struct core_options o = {
	    .pass = PASS, .pass_len = strlen(PASS), .compress = {CODEC_AUTO, 0}, .compact_on_demand = true};
	int ret = d->core ? -EBUSY : io_posix_new(arg[0], &d->io, &d->err);

	if (ret)
		return ret;
	d->ops = *d->io->ops;
	for (unsigned i = 1; i < n && !ret; i++)
		ret = open_option(d, &o, arg[i]);
	d->io->ops = &d->ops;
	o.io = d->io;
	o.storage = storage_detect(arg[0], &storage_system);
	if (!ret)
		ret = io_lock(d->io);
	if (!ret)
		ret = core_open(&o, &d->core, &d->err);
	if (ret)
		io_free(d->io);
	return ret;
}

/* metrics on|off: of the open volume, whose memory and threads stay the same. */
int driver_metrics(struct driver *d, char **arg, unsigned n)
{
	(void)n;
	if (!d->core || !d->core->metrics || (strcmp(arg[0], "on") != 0 && strcmp(arg[0], "off") != 0))
		return -EINVAL;
	metrics_pause(d->core->metrics, !strcmp(arg[0], "off"));
	return 0;
}

int driver_close(struct driver *d, char **arg, unsigned n)
{
	(void)arg, (void)n;
	if (!d->core)
		return -EINVAL;
	int ret = core_close(d->core, &d->err);
	d->core = NULL;
	io_free(d->io);
	return ret;
}

/* Writes size bytes of the data, from place on and around, as one file, and makes it durable. */
static int write_one(struct driver *d, const char *name, uint64_t size, size_t place)
{
	const struct core_cred cred = {0, 0, 0};
	struct core_attr a;
	struct core_file *f;
	int ret = core_mknod(d->core, &cred, CORE_ROOT, name, S_IFREG | 0644, 0, &a);

	if (ret)
		return ret;
	ret = core_file_open(d->core, a.ino, O_WRONLY, &f);
	if (!ret) {
		for (uint64_t off = 0, len; off < size && !ret; off += len, place += len) {
			place %= d->len;
			len = size - off < PIECE ? size - off : PIECE;
			len = len < d->len - place ? len : d->len - place;
			ret = core_file_write(f, d->data + place, len, off, 0);
		}
		if (!ret)
			ret = core_fsync(d->core, a.ino, false);
		core_file_close(f);
	}
	core_forget(d->core, a.ino, 1);
	return ret;
}

/* write NAME SIZE COUNT: files NAME.0 and so on, each durable before the next. */
int driver_write(struct driver *d, char **arg, unsigned n)
{
	struct pipeline_stats from, to;
	uint64_t size = 0, count = 0;
	char name[64];
	int ret = driver_size(d, arg[1], UINT64_MAX / 2, &size);

	(void)n;
	if (!ret)
		ret = driver_size(d, arg[2], 1u << 20, &count);
	if (!ret && (!d->core || !d->len))
		ret = -EINVAL;
	if (ret)
		return ret;
	pipeline_stats_get(d->core->pipeline, &from);
	double begin = driver_now(), cpu = driver_cpu();
	for (uint64_t i = 0; i < count && !ret; i++) {
		(void)snprintf(name, sizeof(name), "%.40s.%llu", arg[0], (unsigned long long)i);
		ret = write_one(d, name, size, (size_t)(i * size % d->len));
	}
	double spent = driver_now() - begin;
	cpu = driver_cpu() - cpu;
	pipeline_stats_get(d->core->pipeline, &to);
	driver_answer(d, "\"seconds\": %.6f, \"cpu\": %.6f, \"plain\": %llu, \"stored\": %llu, \"chunks\": %llu", spent,
	              cpu, (unsigned long long)(to.sealed_plain - from.sealed_plain),
	              (unsigned long long)(to.sealed_stored - from.sealed_stored),
	              (unsigned long long)(to.chunks - from.chunks));
	return ret;
}

/* remove NAME COUNT: and gives their space back. */
int driver_remove(struct driver *d, char **arg, unsigned n)
{
	uint64_t count = 0;
	char name[64];
	int ret = driver_size(d, arg[1], 1u << 20, &count);

	(void)n;
	if (!ret && !d->core)
		ret = -EINVAL;
	for (uint64_t i = 0; i < count && !ret; i++) {
		(void)snprintf(name, sizeof(name), "%.40s.%llu", arg[0], (unsigned long long)i);
		ret = core_unlink(d->core, CORE_ROOT, name);
	}
	return ret ? ret : core_sync(d->core);
}

static int read_random(struct core_file *f, uint64_t size, uint64_t count, uint8_t *buf)
{
	uint64_t x = 88172645463325252u;

	for (uint64_t i = 0; i < count; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		ssize_t n = core_file_read(f, buf, 4096, x % (size / 4096) * 4096);
		if (n < 0)
			return (int)n;
	}
	return 0;
}

static int read_all(struct core_file *f, uint64_t size, uint8_t *buf)
{
	for (uint64_t off = 0; off < size; off += PIECE) {
		ssize_t n = core_file_read(f, buf, PIECE, off);
		if (n < 0)
			return (int)n;
	}
	return 0;
}

/* read NAME sequential|random COUNT: the file NAME once from end to end, or COUNT times 4 KiB of it. */
int driver_read(struct driver *d, char **arg, unsigned n)
{
	struct core_attr a;
	struct core_file *f;
	uint64_t count = 0;
	bool random = !strcmp(arg[1], "random");
	int ret = driver_size(d, arg[2], UINT32_MAX, &count);

	(void)n;
	uint8_t *buf = malloc(PIECE);
	if (!ret && (!d->core || !buf))
		ret = buf ? -EINVAL : -ENOMEM;
	if (!ret)
		ret = core_lookup(d->core, CORE_ROOT, arg[0], &a);
	if (!ret) {
		memset(buf, 0, PIECE);
		double begin = driver_now(), cpu = driver_cpu();
		ret = core_file_open(d->core, a.ino, O_RDONLY, &f);
		if (!ret) {
			ret = random ? read_random(f, a.size, count, buf) : read_all(f, a.size, buf);
			core_file_close(f);
		}
		driver_answer(d, "\"seconds\": %.6f, \"cpu\": %.6f, \"bytes\": %llu", driver_now() - begin,
		              driver_cpu() - cpu, (unsigned long long)(random ? count * 4096 : a.size));
		core_forget(d->core, a.ino, 1);
	}
	free(buf);
	return ret;
}
