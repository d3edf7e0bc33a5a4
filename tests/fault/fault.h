/*
 * The fault loop: a short script of operations on a volume in a simulated STORE, run again and again with the N-th
 * operation on STORE, or the N-th allocation, failing, for N = 1, 2, 3, … until a run meets no fault. Each call must
 * succeed or give the error that was injected; afterwards the volume goes on, and shows what the calls reported, or has
 * stopped and said so. After a power cut and after a clean end the store opens again, is clean, and holds what was
 * reported durable.
 */
#ifndef APFS_TESTS_FAULT_FAULT_H
#define APFS_TESTS_FAULT_FAULT_H

#include "tests/core/run.h"
#include "tests/sim/sim.h"

#define FAULT_STEPS  4000
#define FAULT_DOUBTS 16

/* What fails. */
struct fault_kind {
	const char *name;
	struct sim_fault fault; /* nth aside */
	bool memory;            /* allocations instead */
	bool basic;             /* slow builds try these only */
};

struct job;

struct scenario {
	const char *name;
	void (*prepare)(struct job *j); /* once, on a fresh volume; NULL: there is none */
	void (*run)(struct job *j);
	bool crashed;                           /* run begins with what a power cut leaves of the prepared volume */
	bool alone;                             /* run opens the volume itself */
	void (*judge)(struct job *j, bool hit); /* instead of what the loop does after each run */
};

/* A write that failed: any of its blocks may have been written. */
struct doubt {
	uint64_t ino, since; /* the step before it */
	struct clock_time mtime, ctime;
};

struct job {
	struct run run; /* the first member */
	const struct scenario *scenario;
	const struct fault_kind *kind;
	uint64_t nth;
	bool armed;
	unsigned stopped; /* runs after which the volume had stopped */
	struct doubt doubt[FAULT_DOUBTS];
	size_t doubts;
	struct io *base;        /* STORE as prepared */
	struct model *prepared; /* and its model */
};

/* What they are named after is in these lists; each ends with an empty one. */
extern const struct scenario scenarios_names[], scenarios_data[], scenarios_volume[], scenarios_store[];

/* --- calls of core ------------------------------------------------------------------------------------------------ */

/* Only between these do allocations fail. */
void job_enter(struct job *j);
void job_leave(struct job *j);
/* The result of a call that reads, or that changes something. */
#define CALL(j, call)                         \
	({                                    \
		job_enter(j);                 \
		__typeof__(call) got_ = call; \
		job_leave(j);                 \
		got_;                         \
	})
#define CHANGE(j, call)                         \
	({                                      \
		int stopped_ = job_stopped(j);  \
		int did_ = CALL(j, call);       \
		job_refused(j, stopped_, did_); \
		did_;                           \
	})

/* Whether the fault has happened. */
bool job_hit(const struct job *j);
/* True for success, false for an error that the fault explains; anything else fails the test. A volume that has stopped
 * shows what was last committed: false, too. */
bool job_did(struct job *j, ssize_t ret);
/* -errno when the volume has stopped; it refuses every change then. */
int job_stopped(const struct job *j);
void job_refused(struct job *j, int stopped, int ret);

/* --- loop.c: for scenarios that judge themselves --------------------------------------------------------------------
 */

/* Opens the volume of r->fx.disk, without faults. */
void judge_opens(struct job *j);
/* The volume, as it is open, is the prepared one, clean, and can be used; it is closed then. */
void judge_prepared(struct job *j);

/* --- ops.c: what scripts are made of ------------------------------------------------------------------------------ */

/* A step of the model: until the end of the block, which has r. */
#define STEP(j, ...)                                                          \
	step_begin(j);                                                        \
	__attribute__((cleanup(step_end), unused)) struct run *r = &(j)->run; \
	run_say(r, __VA_ARGS__)
void step_begin(struct job *j);
void step_end(struct run **r);

/* Before the volume's first step. */
void op_begin(struct job *j);
/* Looks the path up from the root, cold or not. NULL: a fault came between. */
struct model_inode *op_walk(struct job *j, const char *path);
/* Parents must exist. NULL: a fault came between. */
struct model_inode *op_make(struct job *j, const char *path, uint32_t mode);
struct model_inode *op_symlink(struct job *j, const char *path, const char *target);
/* The kernel has no use for it any more. */
void op_forget_inode(struct job *j, struct model_inode *i);
void op_link(struct job *j, const char *path, const char *new_path);
void op_unlink(struct job *j, const char *path);
void op_rmdir(struct job *j, const char *path);
void op_rename(struct job *j, const char *from, const char *to, unsigned flags);
/* Data is chosen by the step; flags of open(2). */
void op_write(struct job *j, const char *path, size_t len, uint64_t off, int flags);
/* Of what no failed write has touched. */
void op_clone(struct job *j, const char *from, uint64_t off, const char *to, uint64_t to_off, size_t len);
void op_punch(struct job *j, const char *path, size_t len, uint64_t off);
/* count blocks of 4 KiB at random within the first `within` bytes, through one open file. */
void op_scatter(struct job *j, const char *path, unsigned count, uint64_t within);
/* Whatever can be read is right. */
void op_read(struct job *j, const char *path);
void op_truncate(struct job *j, const char *path, uint64_t size);
void op_chmod(struct job *j, const char *path, uint32_t mode);
void op_chown(struct job *j, const char *path, uint32_t uid, uint32_t gid);
void op_utimes(struct job *j, const char *path);
void op_setxattr(struct job *j, const char *path, const char *name, size_t len);
/* A codec and a priority that what is made in this directory begins with. */
void op_prefer(struct job *j, const char *path);
void op_removexattr(struct job *j, const char *path, const char *name);
void op_getxattr(struct job *j, const char *path, const char *name);
void op_list(struct job *j, const char *path, bool with_attr);
void op_readlink(struct job *j, const char *path);
void op_statfs(struct job *j);
void op_info(struct job *j, const char *path);
void op_fsync(struct job *j, const char *path);
void op_sync(struct job *j);
/* All of it that is to be done, at once. */
void op_compact(struct job *j);
/* Gives back all references to the inode. */
void op_forget(struct job *j, const char *path);
/* Opens it, removes its name, reads, and closes it. */
void op_unlink_open(struct job *j, const char *path);
/* The volume as a whole: false when a fault came between, and it is closed. */
bool op_open(struct job *j);
void op_close(struct job *j);

/* The usual tree. */
void op_usual_tree(struct job *j);
/* After the faults: what failed writes have left becomes the model's state. */
void op_settle_doubts(struct job *j);

#endif
