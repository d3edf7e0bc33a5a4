/* What is done to a store. */
#include "tests/tamper/round.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE     4096u
#define WAL_HEAD 128u
#define WAL_SLOT (PAGE + 32u)

#define DOING(r, ...) (void)snprintf((r)->what + strlen((r)->what), sizeof((r)->what) - strlen((r)->what), __VA_ARGS__)

/* --- picking ------------------------------------------------------------------------------------------------------ */

static bool is_wal(const char *path)
{
	return !strcmp(path, "index.db-wal");
}

/* A file that the store has, all kinds as often. */
static const char *pick(struct round *r, uint64_t *size)
{
	const char *path;

	do {
		path = r->b->path[bed_below(&r->rng, r->b->npaths)];
	} while (sim_raw_size(r->io, path, size) || !*size);
	return path;
}

static const char *pick_segment(struct round *r, uint64_t *size)
{
	const char *path;

	do {
		path = pick(r, size);
	} while (strncmp(path, "segments/", 9) != 0);
	return path;
}

static void *grab(struct round *r, struct io *from, const char *path, uint64_t off, size_t len)
{
	void *buf = calloc(1, len + 1);

	(void)r;
	if (!buf || sim_raw_read(from, path, buf, len, off) < 0)
		abort();
	return buf;
}

static void drop(struct round *r, const char *path, const void *buf, size_t len, uint64_t off)
{
	if (sim_raw_write(r->io, path, buf, len, off))
		round_fail(r, "sim_raw_write");
}

/* Copies len bytes of one file of the store over another place. */
static void copy_over(struct round *r, const char *from, uint64_t a, const char *to, uint64_t b, size_t len)
{
	void *buf = grab(r, r->io, from, a, len);

	drop(r, to, buf, len, b);
	free(buf);
}

static void swap_places(struct round *r, const char *path, uint64_t a, uint64_t b, size_t len)
{
	void *x = grab(r, r->io, path, a, len), *y = grab(r, r->io, path, b, len);

	drop(r, path, y, len, a);
	drop(r, path, x, len, b);
	free(x);
	free(y);
}

/* --- bits --------------------------------------------------------------------------------------------------------- */

/* The WAL is preallocated: most flips would hit what was never written. */
static uint64_t used_size(struct round *r, const char *path, uint64_t size)
{
	uint8_t *buf = grab(r, r->io, path, 0, size);

	while (size > 1 && !buf[size - 1])
		size--;
	free(buf);
	return size;
}

void round_flip(struct round *r)
{
	uint64_t size;
	const char *path = pick(r, &size);
	uint64_t bit = bed_below(&r->rng, 8 * used_size(r, path, size));

	r->allowed = is_wal(path) ? STATES : REAL;
	DOING(r, "bit %llu of %s", (unsigned long long)bit, path);
	if (sim_raw_flip(r->io, path, bit))
		round_fail(r, "sim_raw_flip");
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static void cut_file(struct round *r)
{
	uint64_t size;
	const char *path = pick(r, &size);
	uint64_t to = bed_below(&r->rng, used_size(r, path, size));

	r->allowed = is_wal(path) ? STATES : REAL;
	DOING(r, "%s cut to %llu bytes", path, (unsigned long long)to);
	(void)!sim_raw_truncate(r->io, path, to);
}

static void remove_file(struct round *r)
{
	uint64_t size;
	const char *path = pick(r, &size);

	r->allowed = is_wal(path) ? STATES : REAL;
	DOING(r, "%s removed", path);
	(void)!sim_raw_remove(r->io, path);
}

static void extend_file(struct round *r)
{
	uint64_t size;
	const char *path = pick(r, &size);
	uint8_t junk[5000];

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (uint8_t)bed_random(&r->rng);
	DOING(r, "%s made longer", path);
	drop(r, path, junk, 1 + bed_below(&r->rng, sizeof(junk) - 1), size);
}

static void zero_range(struct round *r)
{
	uint64_t size;
	const char *path = pick(r, &size);
	uint64_t used = used_size(r, path, size), off = bed_below(&r->rng, used);
	size_t len = 1 + (size_t)bed_below(&r->rng, used - off);
	void *zeroes = calloc(1, len);

	r->allowed = is_wal(path) ? STATES : REAL;
	DOING(r, "%zu bytes at %llu of %s zeroed", len, (unsigned long long)off, path);
	drop(r, path, zeroes, len, off);
	free(zeroes);
}

static void swap_segments(struct round *r)
{
	uint64_t size;
	const char *a = pick_segment(r, &size), *b = pick_segment(r, &size);

	DOING(r, "%s and %s swapped", a, b);
	(void)!sim_raw_swap(r->io, a, b);
}

/* Any bytes over any others, in one file or two. */
static void copy_bytes(struct round *r)
{
	uint64_t from_size, to_size;
	const char *from = pick(r, &from_size), *to = bed_below(&r->rng, 2) ? from : pick(r, &to_size);

	(void)!sim_raw_size(r->io, to, &to_size);
	uint64_t a = bed_below(&r->rng, used_size(r, from, from_size)),
		 b = bed_below(&r->rng, used_size(r, to, to_size));
	uint64_t room = from_size - a < to_size - b ? from_size - a : to_size - b;
	size_t len = 1 + (size_t)bed_below(&r->rng, room < 10000 ? room : 10000);

	r->allowed = is_wal(to) ? STATES : REAL;
	DOING(r, "%zu bytes at %llu of %s over %llu of %s", len, (unsigned long long)a, from, (unsigned long long)b,
	      to);
	copy_over(r, from, a, to, b, len);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

static const struct bed_record *pick_record(struct round *r)
{
	return &r->b->record[bed_below(&r->rng, r->b->nrecords)];
}

static void copy_record(struct round *r)
{
	const struct bed_record *a = pick_record(r), *b = pick_record(r);
	size_t len = a->len < b->len && bed_below(&r->rng, 2) ? a->len : b->len;

	DOING(r, "the record at %llu of %s over that at %llu of %s", (unsigned long long)a->offset, a->segment,
	      (unsigned long long)b->offset, b->segment);
	copy_over(r, a->segment, a->offset, b->segment, b->offset, len);
}

static void append_record(struct round *r)
{
	const struct bed_record *a = pick_record(r), *b = pick_record(r);
	uint64_t size;

	if (sim_raw_size(r->io, b->segment, &size))
		return;
	DOING(r, "the record at %llu of %s appended to %s", (unsigned long long)a->offset, a->segment, b->segment);
	copy_over(r, a->segment, a->offset, b->segment, size, a->len);
}

static void zero_record(struct round *r)
{
	const struct bed_record *a = pick_record(r);
	void *zeroes = calloc(1, a->len);

	DOING(r, "the record at %llu of %s zeroed", (unsigned long long)a->offset, a->segment);
	drop(r, a->segment, zeroes, a->len, a->offset);
	free(zeroes);
}

/* --- pages and slots ---------------------------------------------------------------------------------------------- */

static void pages(struct round *r)
{
	uint64_t size = 0;
	void *zeroes = calloc(1, PAGE);

	(void)!sim_raw_size(r->io, "index.db", &size);
	uint64_t n = size / PAGE, a = bed_below(&r->rng, n), b = bed_below(&r->rng, n);

	switch (bed_below(&r->rng, 4)) {
	case 0:
		DOING(r, "pages %llu and %llu swapped", (unsigned long long)a + 1, (unsigned long long)b + 1);
		swap_places(r, "index.db", a * PAGE, b * PAGE, PAGE);
		break;
	case 1:
		DOING(r, "page %llu over %llu", (unsigned long long)a + 1, (unsigned long long)b + 1);
		copy_over(r, "index.db", a * PAGE, "index.db", b * PAGE, PAGE);
		break;
	case 2:
		DOING(r, "page %llu zeroed", (unsigned long long)a + 1);
		drop(r, "index.db", zeroes, PAGE, a * PAGE);
		break;
	default:
		DOING(r, "index.db cut to %llu pages", (unsigned long long)a);
		(void)!sim_raw_truncate(r->io, "index.db", a * PAGE);
	}
	free(zeroes);
}

static void slots(struct round *r)
{
	uint64_t size = 0;
	void *zeroes = calloc(1, WAL_SLOT);

	r->allowed = STATES;
	(void)!sim_raw_size(r->io, "index.db-wal", &size);
	if (size < WAL_HEAD + 2 * WAL_SLOT) {
		free(zeroes);
		pages(r);
		return;
	}
	uint64_t n = (used_size(r, "index.db-wal", size) - WAL_HEAD) / WAL_SLOT;
	uint64_t a = WAL_HEAD + bed_below(&r->rng, n) * WAL_SLOT, b = WAL_HEAD + bed_below(&r->rng, n) * WAL_SLOT;

	switch (bed_below(&r->rng, 5)) {
	case 0:
		DOING(r, "slots at %llu and %llu swapped", (unsigned long long)a, (unsigned long long)b);
		swap_places(r, "index.db-wal", a, b, WAL_SLOT);
		break;
	case 1:
		DOING(r, "slot at %llu over %llu", (unsigned long long)a, (unsigned long long)b);
		copy_over(r, "index.db-wal", a, "index.db-wal", b, WAL_SLOT);
		break;
	case 2:
		DOING(r, "slot at %llu zeroed", (unsigned long long)a);
		drop(r, "index.db-wal", zeroes, WAL_SLOT, a);
		break;
	case 3:
		DOING(r, "the WAL's header zeroed");
		drop(r, "index.db-wal", zeroes, WAL_HEAD, 0);
		break;
	default:
		DOING(r, "the WAL cut at %llu", (unsigned long long)a);
		(void)!sim_raw_truncate(r->io, "index.db-wal", a);
	}
	free(zeroes);
}

/* --- superblocks and other stores --------------------------------------------------------------------------------- */

static void superblocks(struct round *r)
{
	static const char *const copy[2] = {"superblock", "superblock.bak"};
	const char *path = copy[bed_below(&r->rng, 2)];
	void *old = grab(r, r->b->old, path, 0, 8192), *other = grab(r, r->b->other, path, 0, 8192);

	switch (bed_below(&r->rng, 5)) {
	case 0:
		DOING(r, "an older %s", path);
		drop(r, path, old, 8192, 0);
		break;
	case 1:
		DOING(r, "two older superblocks");
		drop(r, copy[0], old, 8192, 0);
		drop(r, copy[1], old, 8192, 0);
		break;
	case 2:
		DOING(r, "another store's %s", path);
		drop(r, path, other, 8192, 0);
		break;
	case 3:
		DOING(r, "another store's superblocks");
		drop(r, copy[0], other, 8192, 0);
		drop(r, copy[1], other, 8192, 0);
		break;
	default:
		DOING(r, "half of an older %s", path);
		drop(r, path, old, 4096, bed_below(&r->rng, 2) * 4096);
	}
	free(old);
	free(other);
}

static void foreign_file(struct round *r)
{
	static const char *const names[] = {"index.db", "index.db", "superblock"};
	const char *path = names[bed_below(&r->rng, 3)];
	uint64_t size = 0;

	(void)!sim_raw_size(r->b->other, path, &size);
	void *buf = grab(r, r->b->other, path, 0, size);
	DOING(r, "another store's %s", path);
	(void)!sim_raw_truncate(r->io, path, 0);
	drop(r, path, buf, size, 0);
	free(buf);
}

/* One file, or one page, as it once was. */
static void old_file(struct round *r)
{
	static const char *const names[] = {"index.db", "index.db-wal"};
	struct io *from = bed_below(&r->rng, 2) ? r->b->old : r->crash ? r->b->clean : r->b->crash;
	const char *path = names[bed_below(&r->rng, 2)];
	uint64_t size = 0;

	r->allowed = MIXED;
	DOING(r, "an older %s", path);
	if (sim_raw_size(from, path, &size)) {
		(void)!sim_raw_remove(r->io, path);
		return;
	}
	void *buf = grab(r, from, path, 0, size);
	if (bed_below(&r->rng, 2) && !is_wal(path)) {
		uint64_t page = bed_below(&r->rng, size / PAGE);

		DOING(r, " (page %llu)", (unsigned long long)page + 1);
		drop(r, path, (uint8_t *)buf + page * PAGE, PAGE, page * PAGE);
	} else if (sim_raw_size(r->io, path, &size) == 0) {
		(void)!sim_raw_truncate(r->io, path, 0);
		(void)!sim_raw_size(from, path, &size);
		drop(r, path, buf, size, 0);
	}
	free(buf);
}

void round_change(struct round *r)
{
	static void (*const kinds[])(struct round *) = {
	    cut_file,    remove_file, extend_file, zero_range, swap_segments, copy_bytes,  copy_record,  append_record,
	    zero_record, pages,       pages,       slots,      slots,         superblocks, foreign_file, old_file,
	};

	kinds[bed_below(&r->rng, sizeof(kinds) / sizeof(kinds[0]))](r);
}
