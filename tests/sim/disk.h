/* What the files of the simulator share. */
#ifndef APFS_TESTS_SIM_DISK_H
#define APFS_TESTS_SIM_DISK_H

#include "tests/sim/sim.h"

#include <pthread.h>
#include <stdatomic.h>

#define SIM_BLOCK  4096u
#define SIM_SECTOR 512u
#define SIM_NAME   64u
#define SIM_ROOT   1u /* number of the root directory; 0: none */

/* --- content.c: bytes of a file, shared by copies until written --------------------------------------------------- */

struct block {
	atomic_uint refs;
	uint8_t data[SIM_BLOCK];
};

struct content {
	atomic_uint refs;
	uint64_t size;
	size_t count, room; /* of blocks */
	size_t allocated;   /* that are not NULL; a NULL is a hole */
	struct block **block;
};

enum op_kind { OP_WRITE, OP_SIZE, OP_ALLOCATE };

/* A pending change of a file. The newest refers to the one before, so that copies share them. */
struct op {
	atomic_uint refs;
	struct op *before;
	uint64_t number; /* of the operation */
	enum op_kind kind;
	uint64_t off, len; /* of OP_SIZE: off is the size */
	uint8_t data[];
};

struct rng {
	uint64_t state;
};
uint64_t rng64(struct rng *r);
static inline bool rng_percent(struct rng *r, unsigned percent)
{
	return rng64(r) % 100 < percent;
}

void *sim_must(void *p);

struct content *content_new(void);
struct content *content_ref(struct content *c);
void content_unref(struct content *c);
size_t content_read(const struct content *c, void *buf, size_t len, uint64_t off);
/* These replace *c where it is shared. */
void content_write(struct content **c, const void *buf, size_t len, uint64_t off);
void content_resize(struct content **c, uint64_t size);
void content_allocate(struct content **c, uint64_t off, uint64_t len);
/* Blocks of [off, off + len) that are holes. */
size_t content_holes(const struct content *c, uint64_t off, uint64_t len);

struct op *op_new(enum op_kind kind, uint64_t number, const void *data, uint64_t off, uint64_t len, struct op *before);
void op_unref(struct op *op);
void op_apply(const struct op *op, struct content **c);
/* Some of its sectors; a size may come without the bytes. */
void op_apply_torn(const struct op *op, struct content **c, struct rng *r);

/* --- disk.c: names, nodes, power cuts ----------------------------------------------------------------------------- */

struct entry {
	char name[SIM_NAME];
	uint32_t node;
};

/* The names in a directory, shared by copies until changed. */
struct names {
	atomic_uint refs;
	size_t count, room;
	struct entry *entry;
};

struct node {
	bool dir;
	int locks;             /* files that are open with IO_LOCK; -1: one that writes */
	unsigned opens, links; /* links: names that programs see */
	int64_t changed;
	struct content *now, *durable; /* of a file */
	struct op *ops;                /* pending, newest first */
	struct names *names, *durable_names;
};

/* A pending change of names: one, or both of a rename. */
struct name_op {
	struct name_op *next; /* newer */
	uint64_t number;
	unsigned count;
	struct {
		uint32_t dir, node; /* node 0: the name goes */
		bool synced;        /* its directory was */
		char name[SIM_NAME];
	} change[2];
};

struct disk {
	struct node **node; /* by number */
	size_t nodes;
	struct name_op *name_ops, **name_ops_end; /* oldest first */
};

void disk_init(struct disk *d);
void disk_release(struct disk *d);
void disk_copy(struct disk *to, const struct disk *from);
struct node *disk_node(const struct disk *d, uint32_t number);
uint32_t disk_add(struct disk *d, bool dir);
/* Forgets what nothing leads to any more. */
void disk_sweep(struct disk *d);
uint64_t disk_used(const struct disk *d);

/* The node of a path or of its directory ("" is the root); 0: there is none, -errno says why. */
int disk_find(const struct disk *d, const char *path, uint32_t *node) MUST_CHECK;
int disk_find_parent(const struct disk *d, const char *path, uint32_t *dir, const char **name) MUST_CHECK;
uint32_t names_get(const struct names *n, const char *name);
struct names *names_ref(struct names *n);
void names_unref(struct names *n);

/* Changes a name at once, and pending: to 0 removes it. from: a rename takes that name away. */
void disk_link(struct disk *d, uint64_t number, uint32_t dir, const char *name, uint32_t node);
void disk_rename(struct disk *d, uint64_t number, uint32_t from, const char *from_name, uint32_t to,
                 const char *to_name, uint32_t node);
/* A change that is durable at once. */
void disk_link_raw(struct disk *d, uint32_t dir, const char *name, uint32_t node);

void disk_sync_file(struct node *n);
/* A failed one: some of it reached the disk, and nothing of it is pending any more. */
void disk_sync_file_failed(struct node *n, struct rng *r);
void disk_sync_dir(struct disk *d, uint32_t dir);

void disk_crash(struct disk *d, uint64_t seed);
void disk_crash_last(struct disk *d);

/* --- sim.c -------------------------------------------------------------------------------------------------------- */

struct sim {
	struct io io;
	pthread_mutex_t lock; /* of all */
	struct disk disk;
	struct rng rng;
	uint64_t count[SIM_CLASSES], number;
	struct sim_fault fault; /* nth 0: none armed */
	atomic_bool failed;
	bool dead, locked, no_allocate;
	uint64_t limit;
	int limit_error;
	char *paths;
	size_t paths_len;
	sim_record_fn record;
	void *record_arg;
};

struct sim_file {
	struct io_file file;
	uint32_t node;
	int lock; /* its part of the node's locks */
	char path[SIM_NAME * 3];
};

static inline struct sim *sim_of(const struct io *io)
{
	return (struct sim *)io;
}

#endif
