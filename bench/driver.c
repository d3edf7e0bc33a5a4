#include "bench/driver.h"

#include "base/option.h"
#include "pipeline/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double clock_seconds(clockid_t id)
{
	struct timespec t;

	(void)clock_gettime(id, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double driver_now(void)
{
	return clock_seconds(CLOCK_MONOTONIC);
}

double driver_cpu(void)
{
	return clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

int driver_size(struct driver *d, const char *text, uint64_t max, uint64_t *out)
{
	if (option_parse_size(text, out) || *out > max)
		return err_set(&d->err, -EINVAL, ERR_USAGE, "%s: no size, or more than %llu", text,
		               (unsigned long long)max);
	return 0;
}

/* A page that the kernel has filled costs the process a fault of its own when it is first read. */
static void touch(const uint8_t *data, size_t len)
{
	for (size_t at = 0; at < len; at += 4096)
		(void)*(const volatile uint8_t *)&data[at];
}

/* data PATH: what the other commands work on. */
static int driver_data(struct driver *d, char **arg, unsigned n)
{
	FILE *f = fopen(arg[0], "re");
	long len = -1;
	int ret = 0;

	(void)n;
	if (!f)
		return -errno;
	free(d->data);
	d->data = NULL;
	if (!fseek(f, 0, SEEK_END))
		len = ftell(f);
	if (len > 0)
		d->data = malloc((size_t)len);
	rewind(f);
	if (!d->data || fread(d->data, 1, (size_t)len, f) != (size_t)len)
		ret = len > 0 ? -EIO : -ENODATA;
	d->len = ret ? 0 : (size_t)len;
	touch(d->data, d->len);
	(void)fclose(f);
	driver_answer(d, "\"bytes\": %zu", d->len);
	return ret;
}

static const struct {
	const char *name;
	driver_fn fn;
	unsigned least; /* arguments */
} commands[] = {
    {"data", driver_data, 1},     {"codec", driver_codec, 2}, {"cipher", driver_cipher, 2},
    {"bare", driver_bare, 2},     {"pipe", driver_pipe, 5},   {"format", driver_format, 1},
    {"open", driver_open, 1},     {"write", driver_write, 3}, {"read", driver_read, 3},
    {"remove", driver_remove, 2}, {"close", driver_close, 0}, {"metrics", driver_metrics, 1},
};

static int run(struct driver *d, char *line)
{
	char *arg[DRIVER_ARGS + 1], *save = NULL;
	unsigned n = 0;

	for (char *word = strtok_r(line, " \n", &save); word && n <= DRIVER_ARGS; word = strtok_r(NULL, " \n", &save))
		arg[n++] = word;
	for (size_t i = 0; n && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(arg[0], commands[i].name) && n - 1 >= commands[i].least)
			return commands[i].fn(d, arg + 1, n - 1);
	return -EINVAL;
}

int main(void)
{
	struct driver d = {.least = 0.3};
	char *line = NULL;
	size_t room = 0;

	if (keys_init(NULL))
		return 1;
	while (getline(&line, &room, stdin) > 0) {
		d.answer[0] = '\0';
		d.err = (struct err){0};
		int ret = run(&d, line);
		if (ret)
			(void)printf("{\"error\": \"%s\"}\n", err_text(d.err.code ? &d.err : NULL, ret));
		else
			(void)printf("{%s}\n", d.answer);
		(void)fflush(stdout);
	}
	free(line);
	if (d.core && driver_close(&d, NULL, 0))
		return 1;
	free(d.data);
	return 0;
}
