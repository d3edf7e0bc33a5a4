/* An io over another one that counts calls, fails chosen ones, and can be held up or slowed down. */
#ifndef APFS_TESTS_PIPELINE_FAULTY_H
#define APFS_TESTS_PIPELINE_FAULTY_H

#include "base/io.h"

#include <pthread.h>

enum faulty_op {
	FAULTY_OPEN,
	FAULTY_PREAD,
	FAULTY_PWRITE,
	FAULTY_SYNC,
	FAULTY_UNLINK,
	FAULTY_MKDIR,
	FAULTY_SYNC_DIR,
	FAULTY_TRUNCATE,
	FAULTY_SIZE,
	FAULTY_OPS
};

struct faulty {
	struct io io;
	struct io *inner; /* borrowed */
	pthread_mutex_t lock;
	unsigned calls[FAULTY_OPS];
	enum faulty_op op; /* which fails */
	unsigned after;    /* that many more calls of it succeed */
	int code;          /* 0: none fails */
	bool once;         /* only the one */
	uint64_t rate;     /* bytes a second that are written at most; 0: as many as can be */
	uint64_t free_at;  /* monotonic ns: what is being written will have been by then */
	uint64_t behind;   /* bytes that io_write_behind was called for */
	/* Called before each operation, without a lock. */
	void (*hook)(void *arg, enum faulty_op op);
	void *arg;
};

void faulty_init(struct faulty *f, struct io *inner);
void faulty_release(struct faulty *f);
/* The call of op after the next `after` fails with code, and, unless once, so do all that follow. */
void faulty_arm(struct faulty *f, enum faulty_op op, unsigned after, int code, bool once);
unsigned faulty_calls(struct faulty *f, enum faulty_op op);

#endif
