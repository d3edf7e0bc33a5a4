/* What the files of this box share. */
#ifndef APFS_FS_FUSE_INTERNAL_H
#define APFS_FS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 314

#include "fs/core/core.h"
#include "fs/fuse/session.h"
#include "fs/fuse/wire.h"

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#define SESSION_MAX_WRITE      ((size_t)1 << 20) /* bytes of one READ or WRITE */
#define SESSION_HEADER         ((size_t)4096)    /* room for what comes before the data of a WRITE */
#define SESSION_BUFFER         (SESSION_HEADER + SESSION_MAX_WRITE)
#define SESSION_BLOCKS         (SESSION_MAX_WRITE / POOL_BLOCK)
#define SESSION_WRITE_HEAD     ((size_t)80)    /* a WRITE's header and arguments: what comes before its data */
#define BESIDE_MAX             ((size_t)65536) /* bytes of a frame */
#define SESSION_MAX_BACKGROUND 64u
#define SESSION_TIMEOUT        86400.0 /* seconds that the kernel may believe us: we are the only writer */

/* A request as it was read: the data of a WRITE in blocks that fs/core can keep. */
struct request {
	uint64_t head[SESSION_WRITE_HEAD / sizeof(uint64_t)];
	void *block[SESSION_BLOCKS];
	size_t len;
	unsigned epoch; /* of a WRITE: which count of session.writing it is in */
	uint64_t begin; /* when it was read */
	struct request *next;
};

/* An open file. The kernel does not promise to release all of them before the connection ends. */
struct handle {
	struct core_file *file;
	bool sync; /* opened O_SYNC or O_DSYNC */
	LIST_ENTRY(handle) link;
};

struct session {
	struct core *core;
	struct metrics *metrics; /* the volume's */
	struct fuse_session *se;
	int fd;                  /* the device; se owns it */
	pthread_mutex_t reading; /* held by the thread that reads the device, but for those that read freely */
	char *mountpoint;
	dev_t device;                 /* of what is mounted there; 0: not known */
	const char *config, *control; /* session_params */
	struct wire wire;
	bool mounted;
	bool waits_for_writes; /* the kernel waits for pages under way when it is to drop them */
	bool keeps_times;      /* the kernel does, of files: its writeback cache is on */
	bool no_opendir;       /* the kernel understands an opendir of ENOSYS */

	unsigned nthreads, nspare;
	pthread_t *thread;
	unsigned started;
	struct request *request; /* nthreads + nspare of them */
	unsigned nrequests;      /* that have their blocks */
	uint8_t *arena;          /* SESSION_BUFFER bytes for each thread */
	size_t arena_len;

	atomic_bool stopping;       /* workers are to end */
	atomic_bool gone;           /* the kernel has ended the connection */
	atomic_uint running, ended; /* workers that have begun, and that have ended */
	atomic_uint_fast64_t done;  /* requests answered: a sign of life */
	atomic_uint_fast64_t asked; /* of those, by who watches all mounts: nobody uses this one */
	uint64_t idle_ms;           /* session_params */
	int event;                  /* eventfd: gone, or the closing thread has finished */

	/* Writes may have to wait for memory. At most max_writers threads are inside of them; further ones are parked
	 * here, in blocks of their own, so that READ and FSYNC always find a thread. */
	pthread_mutex_t lock;
	pthread_cond_t drained;
	unsigned writers, max_writers;
	struct request *parked, **parked_end;
	struct request *spare;
	unsigned epoch;
	uint64_t writing[2]; /* WRITEs received and not answered, by epoch */
	pthread_mutex_t drain_lock;

	pthread_mutex_t handle_lock;
	LIST_HEAD(, handle) handles;

	/* beside.c */
	pthread_mutex_t beside_lock;
	pthread_cond_t beside_cond;
	uint64_t giving;    /* the inode whose data the kernel is given; 0: none */
	unsigned changes;   /* requests under way that may let somebody change a file's data */
	bool gives_nothing; /* any more */
	STAILQ_HEAD(, beside_request) left;

	/* seek.c; under lock */
	STAILQ_HEAD(, seek_job) seeks;
	pthread_cond_t seek_cond;
	pthread_t seek_thread;
	bool seek_started, seek_end;
};

/* --- session.c --- */
/* Something else is mounted over it by now: that is not ours to write back or to unmount. */
bool session_is_covered(const struct session *s);
extern const struct fuse_lowlevel_ops session_ops;
void session_op_init(void *userdata, struct fuse_conn_info *conn);

/* --- serve.c --- */
int serve_start(struct session *s) MUST_CHECK;
/* Reads one request and has it answered, in the calling thread: 0, -EAGAIN, or why the connection ended. */
int serve_one(struct session *s, struct request *rq) MUST_CHECK;
/* Makes the workers end; false if they did not within `seconds`. */
bool serve_stop(struct session *s, unsigned seconds);
/* Waits until every WRITE that the kernel had sent out before the call is answered, or for `seconds`. */
void serve_drain(struct session *s, unsigned seconds);
/* SESSION_MAX_WRITE bytes for the answer to the request that the calling thread works on. */
void *serve_reply_buffer(void);
/* The data of the WRITE that the calling thread works on, for core_file_write_blocks. */
void **serve_write_blocks(void);

/* --- beside.c --- */
enum beside_turn {
	BESIDE_FREE,   /* nothing to observe */
	BESIDE_CHANGE, /* beside_change_end follows its answer */
	BESIDE_LEFT    /* another thread answers it */
};
/* May this request, whose `bytes` lie in one piece, be worked on? */
enum beside_turn beside_turn(struct session *s, const struct request *rq, const void *bytes) MUST_CHECK;
void beside_change_end(struct session *s);
/* After a READ was answered: gives the kernel what was decoded beside it, through BESIDE_MAX bytes of buf. When true,
 * beside_left is called until it says false. */
bool beside_read(struct session *s, const struct request *rq, void *buf) MUST_CHECK;
/* Takes a request that was left meanwhile into rq and `bytes`; its answer and beside_change_end follow. */
bool beside_left(struct session *s, struct request *rq, void *bytes) MUST_CHECK;
/* Gives nothing any more, and waits for what is under way, for `seconds`. */
void beside_stop(struct session *s, unsigned seconds);

/* --- caller.c: what /proc says of who asks; a process that is gone may nothing --- */
/* In the user namespace of the mount. A daemon of an ordinary user is not told root's: root counts as incapable. */
bool caller_is_capable(fuse_req_t req, unsigned capability);
/* The file is set-gid, its group may not execute it, and the caller is not of the group: for such callers as must lose
 * set-id bits, that one too. */
bool caller_is_outside(fuse_req_t req, fuse_ino_t ino);

/* --- seek.c --- */
/* The workers have ended: so does the thread that seeks, false if it does not within `seconds`. */
bool seek_stop(struct session *s, unsigned seconds);

/* --- ops_*.c and seek.c: one function a request --- */
static inline struct session *op_session(fuse_req_t req)
{
	return fuse_req_userdata(req);
}
static inline struct core *op_core(fuse_req_t req)
{
	return op_session(req)->core;
}
struct core_file *op_file(const struct fuse_file_info *fi);
/* Closes what the kernel left open. */
void op_close_all(struct session *s);
struct core_cred op_cred(fuse_req_t req);
void op_stat(const struct core_attr *a, struct stat *st);
/* The kernel does not say when it holds data: a file without blocks that is open for writing may have some. */
bool op_blocks_unsure(const struct core_attr *a);
void op_entry(const struct core_attr *a, struct fuse_entry_param *e);
/* Answers with an inode that a reference was taken to, or with -errno. */
void op_reply_entry(fuse_req_t req, int ret, const struct core_attr *a);
/* ret is 0 or -errno. */
void op_reply(fuse_req_t req, int ret);

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
               unsigned int flags);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi);
#endif
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi);
#endif
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino, off_t off, struct fuse_file_info *fi, fuse_ino_t to_ino,
                        off_t to_off, struct fuse_file_info *to_fi, size_t len, int flags);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
