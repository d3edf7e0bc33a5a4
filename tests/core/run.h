/* One run of random operations on core and the model side by side. A difference fails the test, naming seed and step.
 */
#ifndef APFS_TESTS_CORE_RUN_H
#define APFS_TESTS_CORE_RUN_H

#include "tests/core/model.h"
#include "tests/core/support.h"

#include <pthread.h>

#define RUN_HANDLES 6
#define RUN_WRITE   ((size_t)1 << 20) /* the longest read and write */
#define RUN_EVENTS  256

struct run_handle {
	struct core_file *file; /* NULL: unused */
	uint64_t ino;
	int flags;
};

/* A rename over an existing file: what it put there is whole. */
struct run_event {
	uint64_t step, ino;
};

struct run {
	uint64_t seed, rng;
	unsigned steps;
	bool crashes; /* abandon without a sync: sizes stay small, history is kept */
	struct fixture fx;
	struct model *m;
	struct run_handle handle[RUN_HANDLES];
	char op[400]; /* what the current step does */
	uint8_t *a, *b;
	uint64_t budget;   /* bytes that may still be written */
	uint64_t last_ino; /* the highest inode number seen */
	bool syncs;        /* a thread commits all the time, or */
	bool compacts;     /* compacts */
	bool syncing;
	atomic_bool sync_stop;
	pthread_t syncer;
	/* for crashes */
	uint64_t *names;       /* the model's hash of names after each step */
	uint64_t *names_amid;  /* and in the midst of one that changes names twice, or as after the one before */
	uint64_t names_synced; /* names are durable up to this step */
	struct run_event event[RUN_EVENTS];
	size_t nevents;
	/* for who watches: before history is forgotten because it became durable; and before a failure ends the test */
	void (*on_synced)(struct run *r);
	void (*on_fail)(struct run *r);
};

void run_fail(struct run *r, const char *fmt, ...) PRINTF(2, 3);
/* Says what the step does, for the report of a failure (and at once with APFS_VERBOSE). */
void run_say(struct run *r, const char *fmt, ...) PRINTF(2, 3);
/* Results of core and model must agree. */
void run_expect(struct run *r, int core, int model);

uint64_t run_below(struct run *r, uint64_t n);
bool run_chance(struct run *r, unsigned percent);

/* Makes sure that the caller holds a reference to the inode, looking it up from the root if need be. */
void run_use(struct run *r, struct model_inode *i);
/* A live inode that pred takes, or NULL. */
struct model_inode *run_pick(struct run *r, bool (*pred)(const struct model_inode *i));
bool run_is_dir(const struct model_inode *i);
bool run_is_file(const struct model_inode *i);
bool run_is_link(const struct model_inode *i);
bool run_is_any(const struct model_inode *i);
/* A name in dir: mostly an existing one, or NULL when there is none and `existing` is set. */
const char *run_name(struct run *r, const struct model_inode *dir, bool existing);

void run_check_attr(struct run *r, const struct core_attr *a, struct model_inode *i);
void run_check_inode(struct run *r, struct model_inode *i); /* by core_getattr */
void run_check_range(struct run *r, struct core_file *f, struct model_inode *i, uint64_t off, size_t len);
void run_check_file(struct run *r, struct model_inode *i); /* all data, and holes */
void run_check_dir(struct run *r, struct model_inode *dir, bool with_attr, size_t piece);
void run_check_xattrs(struct run *r, struct model_inode *i);
void run_check_target(struct run *r, struct model_inode *i);
void run_check_tree(struct run *r);

/* A handle to write (or only read) with, opened if there is none; NULL when that does not work out. */
struct run_handle *run_handle_any(struct run *r, bool write);
/* Opens a new file, writes some data and closes it. */
void run_write_new(struct run *r, struct model_inode *i);
void run_close_all(struct run *r);
/* Forgets the open files of a volume that is about to be abandoned. */
void run_lose_all(struct run *r);

/* Begins and ends the thread, where the run has one; it must not run while the volume is closed. */
void run_sync_begin(struct run *r);
void run_sync_end(struct run *r);

/* One random operation each. */
typedef void (*run_op)(struct run *r);
struct run_choice {
	run_op op;
	unsigned weight;
};
/* One of n, by their weights. */
void run_op_random(struct run *r, const struct run_choice *choice, size_t n);
void run_op_create(struct run *r);
void run_op_tmpfile(struct run *r);
void run_op_symlink(struct run *r);
void run_op_link(struct run *r);
void run_op_unlink(struct run *r);
void run_op_rmdir(struct run *r);
void run_op_rename(struct run *r);
void run_op_lookup(struct run *r);
void run_op_forget(struct run *r);
void run_op_readdir(struct run *r);
void run_op_open(struct run *r);
void run_op_close(struct run *r);
void run_op_read(struct run *r);
void run_op_write(struct run *r);
void run_op_truncate(struct run *r);
void run_op_fallocate(struct run *r);
void run_op_clone(struct run *r);
void run_op_setattr(struct run *r);
void run_op_xattr(struct run *r);
void run_op_fsync(struct run *r);
/* Compaction of everything, or of what is worth it, of segments that have just ended. */
void run_op_compact(struct run *r);
/* A new file, written and renamed over another, and sometimes an fsync of a third: what it takes for a rename to become
 * durable before its data. */
void run_op_replace(struct run *r);

/* Everything is durable now; the data of one inode and all names are. */
void run_synced(struct run *r);
void run_synced_inode(struct run *r, struct model_inode *i);

/* Abandons without a sync, checks what is found against the history, and goes on with that. */
void run_crash(struct run *r);
/* The check alone, of the volume that r->fx has open: what was found, the caller's to free. */
struct model *run_judge(struct run *r);

/* Takes on the root's times as they are: those of creation are the system's clock. */
void run_adopt_root(struct run *r);

#endif
