#include "tests/index/history.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INODES 60
#define DIRS   4
#define NAMES  80

/* FNV-1a. */
static uint64_t mix(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		sum = (sum ^ p[i]) * 0x100000001b3;
	return sum;
}

static uint64_t mix_u64(uint64_t sum, uint64_t v)
{
	return mix(sum, &v, sizeof(v));
}

static int digest_dirent(void *arg, const struct index_dirent *d, const struct index_inode *inode)
{
	uint64_t *sum = arg;

	(void)inode;
	*sum = mix(mix_u64(mix_u64(*sum, d->cookie), d->ino), d->name, d->name_len);
	return 0;
}

static int digest_inode(struct index *ix, uint64_t ino, uint64_t *sum)
{
	static uint8_t value[65536];
	struct index_extent x[64];
	struct index_inode in;
	size_t n, len = sizeof(value);

	int ret = index_inode_get(ix, ino, &in);
	if (ret && ret != -ENOENT)
		return ret;
	*sum = ret ? mix_u64(*sum, ino) : mix_u64(mix_u64(*sum, in.ino), in.size);
	ret = index_xattr_get(ix, ino, "user.big", value, &len);
	if (ret && ret != -ENODATA)
		return ret;
	*sum = ret ? mix_u64(*sum, 1) : mix(*sum, value, len);
	ret = index_extent_list(ix, ino, 0, UINT64_MAX, x, 64, &n);
	for (size_t i = 0; i < n && !ret; i++)
		*sum = mix_u64(mix_u64(mix_u64(mix_u64(*sum, x[i].off), x[i].len), x[i].chunk), x[i].chunk_off);
	return ret;
}

static int digest(struct index *ix, uint64_t *sum)
{
	int ret = 0;

	*sum = 0xcbf29ce484222325;
	for (uint64_t ino = 1; ino <= INODES && !ret; ino++)
		ret = digest_inode(ix, ino, sum);
	for (uint64_t dir = 1; dir <= DIRS && !ret; dir++)
		ret = index_dirent_list(ix, dir, 0, false, digest_dirent, sum);
	return ret;
}

static int work_name(struct index *ix, uint64_t g, unsigned *seed)
{
	char name[32];
	uint64_t dir = 1 + (unsigned)rand_r(seed) % DIRS;
	unsigned n = (unsigned)rand_r(seed) % NAMES;

	(void)snprintf(name, sizeof(name), "name-%u-%u", n, n * n);
	struct index_dirent d = some_dirent(name, n, 3 + g * 1000 + (unsigned)rand_r(seed) % 1000);
	int ret = index_dirent_remove(ix, dir, name, strlen(name));
	if (ret && ret != -ENOENT)
		return ret;
	ret = rand_r(seed) & 1 ? index_dirent_add(ix, dir, &d) : 0;
	return ret == -EEXIST ? 0 : ret;
}

static int work_extent(struct index *ix, uint64_t g, unsigned *seed)
{
	struct index_chunk c = {.id = 1 + g, .segment = 1, .offset = g, .stored_len = 100, .plain_len = 1 << 20};
	struct index_extent x = {(uint64_t)(rand_r(seed) % 60) * 4096,
	                         (uint64_t)4096 * (1 + (unsigned)rand_r(seed) % 4), 1 + g,
	                         (unsigned)rand_r(seed) % 1000};

	if (rand_r(seed) % 4 == 0)
		x.chunk = 0;
	int ret = index_chunk_put(ix, &c);
	return ret ? ret : index_extent_set(ix, 1 + (unsigned)rand_r(seed) % INODES, &x);
}

static int work_one(struct index *ix, uint64_t g, unsigned *seed)
{
	static uint8_t value[65536];
	uint64_t ino = 1 + (unsigned)rand_r(seed) % INODES;
	struct index_inode in = some_inode(ino, 1);

	switch (rand_r(seed) % 8) {
	case 0:
		return rand_r(seed) % 8 ? 0 : index_inode_delete(ix, ino);
	case 1:
	case 2:
		return work_name(ix, g, seed);
	case 3:
	case 4:
		return work_extent(ix, g, seed);
	case 5:
		memset(value, (int)g, sizeof(value));
		size_t len = rand_r(seed) % 16 ? (size_t)(rand_r(seed) % 400) : (size_t)(rand_r(seed) % 65536);
		return index_xattr_set(ix, ino, "user.big", value, len);
	default:
		in.size = g * 1000 + (unsigned)rand_r(seed) % 1000;
		return index_inode_put(ix, &in);
	}
}

int history_work(struct history *h, struct index *ix)
{
	unsigned seed = h->seed * 7919 + (unsigned)h->next;
	unsigned n = 1 + (unsigned)rand_r(&seed) % 60;
	int ret = index_meta_set(ix, "history", h->next);

	for (unsigned i = 0; i < n && !ret; i++)
		ret = work_one(ix, h->next, &seed);
	return ret ? ret : digest(ix, &h->digest[h->next % HISTORY_MAX]);
}

int history_commit(struct history *h, struct index *ix)
{
	int ret = index_commit(ix, NULL);

	if (!ret)
		h->committed = h->next++;
	return ret;
}

int history_sync(struct history *h, struct index *ix)
{
	uint64_t committed = h->committed;
	int ret = index_sync(ix, NULL);

	if (!ret)
		h->synced = committed;
	return ret;
}

void history_verify(struct history *h, struct index *ix)
{
	struct err e = {0};
	uint64_t g, sum;

	/* Names here refer to no rows; the findings about counts and structure come first. */
	int ret = index_check(ix, &e);
	if (ret && !strstr(e.text, "no row, in directory") && !strstr(e.text, "name in directory") &&
	    !strstr(e.text, "links") && !strstr(e.text, "of an inode that has no row"))
		fail_msg("%s", e.text);
	assert_int_equal(index_meta_get(ix, "history", 0, &g), 0);
	if (g < h->synced || g > h->next)
		fail_msg("transaction %u found, %u synced, %u committed", (unsigned)g, (unsigned)h->synced,
		         (unsigned)h->committed);
	assert_int_equal(digest(ix, &sum), 0);
	if (g && sum != h->digest[g % HISTORY_MAX])
		fail_msg("not the state after transaction %u", (unsigned)g);
	h->committed = h->synced = g;
	h->next = g + 1;
}
