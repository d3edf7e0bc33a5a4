/*
 * The benchmarks' own process: it reads a command a line from standard input, runs it and answers with a line of JSON,
 * {"error": "..."} if it fails. So the scripts beside it can interleave what they compare.
 */
#ifndef APFS_BENCH_DRIVER_H
#define APFS_BENCH_DRIVER_H

#include "base/io.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define DRIVER_ARGS 12

struct driver {
	uint8_t *data; /* what is compressed, sealed and written: prefaulted */
	size_t len;
	double least; /* seconds that a measurement of units takes at least */
	struct io *io;
	struct core *core; /* the open volume */
	struct io_ops ops; /* of io, where some are replaced */
	char answer[512];
	struct err err;
};

/* A command: its arguments in, d->answer out. 0 or -errno, with d->err filled where there is more to say. */
typedef int (*driver_fn)(struct driver *d, char **arg, unsigned n);

/* driver_units.c: codecs and ciphers by themselves, and the pipeline on storage that keeps nothing or a directory. */
int driver_codec(struct driver *d, char **arg, unsigned n);
int driver_cipher(struct driver *d, char **arg, unsigned n);
int driver_bare(struct driver *d, char **arg, unsigned n);
int driver_pipe(struct driver *d, char **arg, unsigned n);

/* driver_volume.c: files in a volume, without FUSE. */
int driver_format(struct driver *d, char **arg, unsigned n);
int driver_open(struct driver *d, char **arg, unsigned n);
int driver_write(struct driver *d, char **arg, unsigned n);
int driver_read(struct driver *d, char **arg, unsigned n);
int driver_remove(struct driver *d, char **arg, unsigned n);
int driver_metrics(struct driver *d, char **arg, unsigned n);
int driver_close(struct driver *d, char **arg, unsigned n);

/* Seconds: that passed since some time, and that all threads of the process have worked. */
double driver_now(void);
double driver_cpu(void);
/* "65536", "64K": bytes, at most max; the command fails with -EINVAL if not. */
int driver_size(struct driver *d, const char *text, uint64_t max, uint64_t *out) MUST_CHECK;

#define driver_answer(d, ...) ((void)snprintf((d)->answer, sizeof((d)->answer), __VA_ARGS__))

#endif
