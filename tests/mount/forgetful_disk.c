/*
 * A disk that forgets: one file, MOUNTPOINT/disk, whose bytes are those of IMAGE. Writes since the last flush (fsync)
 * are remembered. At a power cut a random part of them is undone, some are torn at a sector, and from then on
 * everything fails with EIO. Writing "SEED N" to MOUNTPOINT/cut orders one: at the first write or flush that finds N
 * writes not flushed; at once if N is 0. The size of that file is 1 after the cut. A loop device over MOUNTPOINT/disk
 * passes flushes on.
 *
 * usage: forgetful_disk IMAGE MOUNTPOINT    (stays in the foreground)
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512

struct change {
	off_t off;
	size_t len;
	char *old, *new;
};

static int image;
static off_t size;
static bool dead;
static unsigned seed, wanted; /* of an ordered cut; 0: none */
static struct change *changes;
static size_t count, room;

/* Image and memory are this test's own: if they fail there is no test. */
static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void image_read(char *buf, size_t len, off_t off)
{
	if (pread(image, buf, len, off) != (ssize_t)len)
		abort();
}

static void image_write(const char *buf, size_t len, off_t off)
{
	if (pwrite(image, buf, len, off) != (ssize_t)len)
		abort();
}

static void remember(const char *buf, size_t len, off_t off)
{
	if (count == room) {
		room = room ? 2 * room : 1024;
		changes = must(realloc(changes, room * sizeof(*changes)));
	}
	struct change *c = &changes[count++];
	*c = (struct change){.off = off, .len = len, .old = must(malloc(len)), .new = must(malloc(len))};
	image_read(c->old, len, off);
	memcpy(c->new, buf, len);
}

static void forget(void)
{
	for (size_t i = 0; i < count; i++) {
		free(changes[i].old);
		free(changes[i].new);
	}
	count = 0;
}

/* The writes since the last flush reach the medium in any order, or not at all. */
static void cut(void)
{
	static const int kept_percent[] = {0, 20, 50, 80, 97, 100};

	srandom(seed);
	int percent = kept_percent[random() % 6];
	size_t kept = 0, torn = 0;
	for (size_t i = count; i-- > 0;)
		image_write(changes[i].old, changes[i].len, changes[i].off);
	for (size_t i = 0; i < count; i++) {
		size_t len = changes[i].len;
		if (random() % 100 >= percent)
			continue;
		kept++;
		if (len > SECTOR && random() % 8 == 0) {
			len = (size_t)random() % (len / SECTOR) * SECTOR;
			torn++;
		}
		image_write(changes[i].new, len, changes[i].off);
	}
	fprintf(stderr, "cut: %zu writes were not flushed, %zu of them kept, %zu of those torn\n", count, kept, torn);
	forget();
	dead = true;
	wanted = 0;
}

/* At each write and flush. */
static void cut_if_due(void)
{
	if (wanted && count >= wanted)
		cut();
}

static bool is_disk(const char *path)
{
	return strcmp(path, "/disk") == 0;
}

static int disk_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	*st = (struct stat){.st_mode = S_IFREG | 0600, .st_nlink = 1};
	if (strcmp(path, "/") == 0)
		st->st_mode = S_IFDIR | 0700;
	else if (is_disk(path))
		st->st_size = size;
	else if (strcmp(path, "/cut") == 0)
		st->st_size = dead;
	else
		return -ENOENT;
	return 0;
}

static int disk_open(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	fi->direct_io = 1;
	return 0;
}

static int disk_read(const char *path, char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	if (!is_disk(path) || dead)
		return -EIO;
	if (off >= size)
		return 0;
	if ((off_t)len > size - off)
		len = (size_t)(size - off);
	image_read(buf, len, off);
	return (int)len;
}

static int disk_write(const char *path, const char *buf, size_t len, off_t off, struct fuse_file_info *fi)
{
	char text[32] = "";

	(void)fi;
	if (!is_disk(path)) {
		memcpy(text, buf, len < sizeof(text) ? len : sizeof(text) - 1);
		char *next = text;
		seed = (unsigned)strtoul(text, &next, 10);
		wanted = (unsigned)strtoul(next, NULL, 10);
		if (!wanted && !dead)
			cut();
		return (int)len;
	}
	if (dead || off > size || (off_t)len > size - off)
		return -EIO;
	remember(buf, len, off);
	image_write(buf, len, off);
	cut_if_due();
	return dead ? -EIO : (int)len;
}

static int disk_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)path, (void)datasync, (void)fi;
	cut_if_due();
	if (dead)
		return -EIO;
	forget();
	return 0;
}

static int disk_truncate(const char *path, off_t to, struct fuse_file_info *fi)
{
	(void)path, (void)to, (void)fi;
	return 0; /* O_TRUNC of "cut" */
}

int main(int argc, char **argv)
{
	static const struct fuse_operations ops = {
	    .getattr = disk_getattr,
	    .open = disk_open,
	    .read = disk_read,
	    .write = disk_write,
	    .fsync = disk_fsync,
	    .truncate = disk_truncate,
	};
	char *args[] = {argv[0], "-f", "-s", "-o", "fsname=forgetful_disk,attr_timeout=0", argv[2], NULL};
	struct stat st;

	if (argc != 3) {
		fprintf(stderr, "usage: forgetful_disk IMAGE MOUNTPOINT\n");
		return 2;
	}
	image = open(argv[1], O_RDWR | O_CLOEXEC);
	if (image < 0 || fstat(image, &st)) {
		perror(argv[1]);
		return 1;
	}
	size = st.st_size;
	return fuse_main(6, args, &ops, NULL);
}
