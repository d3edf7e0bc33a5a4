#include "fs/fuse/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

/* Undoes the octal escapes of mountinfo (space, tab, newline, backslash), in place. */
static void unescape(char *s)
{
	char *out = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
		    s[3] <= '7') {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 4;
		} else {
			*out++ = *s++;
		}
	}
	*out = 0;
}

/* "rw,user_id=1000,group_id=1000,...": the number of an option; 0 if it is not there. */
static unsigned option_number(const char *options, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = options; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, name, len) == 0 && p[len] == '=')
			return (unsigned)strtoul(p + len + 1, NULL, 10);
	}
	return 0;
}

/* One line: "36 35 98:0 /root /mount/point options tags - type source options". */
static bool parse_line(char *line, const char *path, struct mountinfo *out)
{
	char *save = NULL, *dev = NULL, *point = NULL, *dash = strstr(line, " - ");
	char *field = strtok_r(line, " ", &save);

	for (int n = 0; field && n <= 4; n++, field = strtok_r(NULL, " ", &save)) {
		if (n == 2)
			dev = field;
		if (n == 4)
			point = field;
	}
	if (!dev || !point || !dash)
		return false;
	unescape(point);
	if (strcmp(point, path) != 0)
		return false;

	char *end = NULL;
	out->major = (unsigned)strtoul(dev, &end, 10);
	out->minor = *end == ':' ? (unsigned)strtoul(end + 1, NULL, 10) : 0;
	const char *type = dash + 3;
	size_t len = strcspn(type, " ");
	if (len >= sizeof(out->type))
		len = sizeof(out->type) - 1;
	memcpy(out->type, type, len);
	out->type[len] = 0;
	const char *options = strrchr(type, ' '); /* the last field; what stands before it has no blanks */
	out->uid = option_number(options, "user_id");
	out->gid = option_number(options, "group_id");
	return true;
}

int mountinfo_find(const char *path, struct mountinfo *out)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	if (!f)
		return -errno;

	char *line = NULL;
	size_t room = 0;
	struct mountinfo one;
	int ret = -ENOENT;

	while (getline(&line, &room, f) > 0) {
		if (!parse_line(line, path, &one))
			continue;
		*out = one; /* later lines lie on top */
		ret = 0;
	}
	free(line);
	(void)fclose(f);
	return ret;
}

bool mountinfo_is_apfs(const struct mountinfo *m)
{
	return strcmp(m->type, "fuse.apfs") == 0;
}

/* fusermount3 is silenced: the caller says what happened. */
static int fusermount(const char *path, bool lazy)
{
	char program[] = "fusermount3", unmount[] = "-u", quiet[] = "-q", detach[] = "-z", end[] = "--";
	char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	char *argv[8];
	int n = 0;

	argv[n++] = program;
	argv[n++] = unmount;
	argv[n++] = quiet;
	if (lazy)
		argv[n++] = detach;
	argv[n++] = end;
	argv[n++] = copy;
	argv[n] = NULL;

	posix_spawn_file_actions_t actions;
	pid_t pid = -1;
	int status = 0;
	int ret = posix_spawn_file_actions_init(&actions);
	if (ret == 0) {
		ret = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
		if (ret == 0)
			ret = posix_spawnp(&pid, program, &actions, NULL, argv, environ);
		(void)posix_spawn_file_actions_destroy(&actions);
	}
	free(copy);
	if (ret != 0)
		return -ret;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return -EBUSY; /* fusermount3 does not say why; not being mounted or not ours is looked at before */
}

int mountinfo_unmount(const char *path, bool lazy)
{
	if (umount2(path, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	return fusermount(path, lazy);
}
