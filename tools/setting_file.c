/* Configuration files. */
#include "tools/setting.h"

#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSTEM_FILE "/etc/apfs.conf"
#define USER_FILE   "apfs/apfs.conf" /* under ~/.config */

/* A file being read. libinih goes on after an error: the first one counts. */
struct reading {
	struct settings *s;
	FILE *f;
	const char *path;
	unsigned line;
	unsigned set[SETTING_COUNT]; /* in which line */
	struct err e;
};

static int wrong(struct reading *r, const char *text)
{
	return err_set(&r->e, -EINVAL, ERR_USAGE, "%s:%u: %s", r->path, r->line, text);
}

/* As fgets, and counts lines. One that does not fit the buffer would be taken for two, and one that is indented for a
 * part of the one before. */
static char *read_line(char *buf, int len, void *arg)
{
	struct reading *r = arg;
	size_t blanks;

	if (r->e.code || !fgets(buf, len, r->f))
		return NULL;
	r->line++;
	if (!strchr(buf, '\n') && !feof(r->f)) {
		(void)wrong(r, "the line is too long");
		return NULL;
	}
	blanks = strspn(buf, " \t");
	memmove(buf, buf + blanks, strlen(buf + blanks) + 1);
	return buf;
}

static int take(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;
	enum setting_id id = setting_find(name, strlen(name));
	char where[PATH_MAX + 16], text[160];
	struct err e = {0};

	if (*section) {
		(void)wrong(r, "there are no sections here");
	} else if (id == SETTING_COUNT) {
		(void)snprintf(text, sizeof(text), "there is no setting '%.100s'", name);
		(void)wrong(r, text);
	} else if (r->set[id]) {
		(void)snprintf(text, sizeof(text), "%s is set in line %u already", name, r->set[id]);
		(void)wrong(r, text);
	} else {
		(void)snprintf(where, sizeof(where), "%s:%u", r->path, r->line);
		r->set[id] = r->line;
		if (settings_set(r->s, id, value, SETTING_FROM_FILE, where, &e))
			(void)wrong(r, err_text(&e, e.code));
	}
	return r->e.code == 0;
}

int settings_read_stream(struct settings *s, FILE *f, const char *path, struct err *e)
{
	struct reading r = {.s = s, .f = f, .path = path};
	int bad = ini_parse_stream(read_line, &r, take, &r);

	if (!r.e.code && ferror(f))
		(void)err_set(&r.e, -EIO, ERR_IO, "%s cannot be read", path);
	if (!r.e.code && bad > 0) {
		r.line = (unsigned)bad;
		(void)wrong(&r, "neither NAME = VALUE nor a comment");
	}
	if (r.e.code && e)
		*e = r.e;
	return r.e.code;
}

int settings_read(struct settings *s, const char *path, struct err *e)
{
	FILE *f = fopen(path, "re");
	int ret;

	if (!f)
		return err_set(e, -errno, ERR_USAGE, "%s: %s", path, strerror(errno));
	ret = settings_read_stream(s, f, path, e);
	(void)fclose(f);
	return ret;
}

static int read_if_there(struct settings *s, const char *path, struct err *e)
{
	struct err mine = {0};
	int ret = settings_read(s, path, &mine);

	/* After setpriv(1) and the like HOME may be somebody else's, which one cannot look into. */
	if (ret == -ENOENT || ret == -ENOTDIR || (ret == -EACCES && access(path, F_OK)))
		return 0;
	if (ret)
		*e = mine;
	return ret;
}

int settings_read_all(struct settings *s, const char *path, struct err *e)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	char own[PATH_MAX];
	int ret;

	if (path)
		return settings_read(s, path, e);
	ret = read_if_there(s, SYSTEM_FILE, e);
	if (ret || (!(config && *config == '/') && !(home && *home == '/')))
		return ret;
	if (config && *config == '/')
		(void)snprintf(own, sizeof(own), "%s/%s", config, USER_FILE);
	else
		(void)snprintf(own, sizeof(own), "%s/.config/%s", home, USER_FILE);
	return read_if_there(s, own, e);
}
