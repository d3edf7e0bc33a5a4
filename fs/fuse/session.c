#include "fs/fuse/session.h"
#include "base/log.h"
#include "fs/fuse/internal.h"
#include "fs/fuse/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define INIT_SECONDS 10 /* until the kernel's first request */
#define WAITS_MINOR  44 /* the protocol of Linux 6.16: pages under writeback are the page cache's own */

unsigned session_threads(unsigned wanted, uint64_t memory)
{
	uint64_t most = memory / (4 * (SESSION_BUFFER + SESSION_MAX_WRITE));
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned n = wanted ? wanted : 2 * (unsigned)(cores > 0 ? cores : 1);
	unsigned low = wanted ? 2 : 8; /* waiting for a commit holds a thread, and threads cost little */

	n = n < low ? low : n > 32 ? 32 : n;
	if (n > most)
		n = most < 2 ? 2 : (unsigned)most;
	return n;
}

/* Two threads stay free of writes. */
static unsigned writers_of(unsigned threads)
{
	return threads > 3 ? threads - 2 : 1;
}

unsigned session_spare(uint64_t memory, unsigned threads)
{
	uint64_t n = memory / (4 * SESSION_MAX_WRITE);
	unsigned most = SESSION_MAX_BACKGROUND - writers_of(threads);

	if (n < 2)
		return 2;
	return n > most ? most : (unsigned)n;
}

size_t session_blocks(unsigned threads, unsigned spare)
{
	return (threads + spare) * SESSION_BLOCKS;
}

uint64_t session_memory(unsigned threads, unsigned spare)
{
	return threads * SESSION_BUFFER + session_blocks(threads, spare) * POOL_BLOCK;
}

/* --- INIT --------------------------------------------------------------------------------------------------------- */

void session_op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct session *s = userdata;
	/*
	 * Without ATOMIC_O_TRUNC: there the kernel sets the size to 0 a second time once OPEN is answered, and tells
	 * nobody (fuse_do_setattr, ATTR_OPEN). What others have written or truncated by then it would no longer know
	 * of. Without ASYNC_DIO: what is read through the cache while an asynchronous write goes past it would stay
	 * there, and many small requests are slower with it.
	 */
	const unsigned want = FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK |
	                      FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_WRITEBACK_CACHE |
	                      FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS |
	                      FUSE_CAP_EXPLICIT_INVAL_DATA
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
	                      | FUSE_CAP_HANDLE_KILLPRIV_V2
#endif
#ifdef FUSE_CAP_SETXATTR_EXT
	                      | FUSE_CAP_SETXATTR_EXT
#endif
	    ;

	conn->want = want & conn->capable;
	conn->max_write = (unsigned)SESSION_MAX_WRITE;
	conn->max_readahead = (unsigned)SESSION_MAX_WRITE;
	/* Each write that the kernel sends from its cache finds a thread or a spare buffer. */
	unsigned room = s->max_writers + s->nspare;
	conn->max_background = room < SESSION_MAX_BACKGROUND ? room : SESSION_MAX_BACKGROUND;
	conn->congestion_threshold = conn->max_background * 3 / 4;
	conn->time_gran = 1;
	s->waits_for_writes = conn->proto_minor >= WAITS_MINOR;
	s->keeps_times = conn->want & FUSE_CAP_WRITEBACK_CACHE;
	s->no_opendir = conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT;
}

const struct fuse_lowlevel_ops session_ops = {
    .init = session_op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .release = op_release,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
    .copy_file_range = op_copy_file_range,
    .lseek = op_lseek,
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    .tmpfile = op_tmpfile,
#endif
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
    .statx = op_statx,
#endif
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    /* No flush: the ENOSYS that libfuse answers with saves a request per close. No locks: the kernel's are used. */
};

static ssize_t device_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

static ssize_t device_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct session *s = userdata;

	wire_reply(&s->wire, iov, count);
	return writev(fd, iov, count);
}

static void log_libfuse(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[512];

	(void)vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = 0;
	log_line(level <= FUSE_LOG_ERR ? LOG_L_WARN : LOG_L_DEBUG, "%s", line);
}

/* --- mounting ----------------------------------------------------------------------------------------------------- */

static int check_available(struct err *e)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return err_set(e, -ENXIO, ERR_USAGE, "there is no /dev/fuse here: load the kernel's module fuse");
	if (fd < 0)
		return err_set(e, -ENXIO, ERR_USAGE, "cannot open /dev/fuse: %s", strerror(errno));
	(void)close(fd);
	if (geteuid() == 0)
		return 0;
	const char *path = getenv("PATH");
	char *dirs = strdup(path ? path : "/usr/bin:/bin"), *save = NULL;
	bool found = access("/usr/bin/fusermount3", X_OK) == 0 || access("/bin/fusermount3", X_OK) == 0;
	for (char *dir = dirs ? strtok_r(dirs, ":", &save) : NULL; dir && !found; dir = strtok_r(NULL, ":", &save)) {
		char name[4096];

		(void)snprintf(name, sizeof(name), "%s/fusermount3", dir);
		found = access(name, X_OK) == 0;
	}
	free(dirs);
	if (!found)
		return err_set(e, -ENXIO, ERR_USAGE, "fusermount3 is missing: install the package fuse3");
	return 0;
}

/* Appends `-o name`, with what separates options escaped. */
static int add_option(struct fuse_args *args, const char *prefix, const char *value)
{
	size_t room = strlen(prefix) + 2 * strlen(value) + 1;
	char *text = malloc(room);
	if (!text)
		return -ENOMEM;
	char *p = stpcpy(text, prefix);

	for (; *value; value++) {
		if (*prefix && (*value == ',' || *value == '\\'))
			*p++ = '\\';
		*p++ = *value;
	}
	*p = 0;
	int ret = fuse_opt_add_arg(args, "-o") == 0 && fuse_opt_add_arg(args, text) == 0 ? 0 : -ENOMEM;
	free(text);
	return ret;
}

static int build_args(const struct session_params *p, struct fuse_args *args)
{
	int ret = fuse_opt_add_arg(args, "apfs") == 0 ? 0 : -ENOMEM;

	if (ret == 0)
		ret = add_option(args, "fsname=", p->source);
	if (ret == 0)
		ret = add_option(args, "", "subtype=apfs,default_permissions");
	if (ret == 0 && p->debug)
		ret = add_option(args, "", "debug");
	for (size_t i = 0; i < p->noptions && ret == 0; i++)
		ret = add_option(args, "", p->options[i]);
	return ret;
}

/* libfuse and fusermount3 explain a refusal on standard error only: it is caught here, and its first line kept. */
static int mount_caught(struct session *s, const char *mountpoint, char *text, size_t size)
{
	int caught = memfd_create("mount", MFD_CLOEXEC);
	int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);

	if (caught >= 0)
		(void)dup2(caught, STDERR_FILENO);
	fuse_set_log_func(NULL);
	int ret = fuse_session_mount(s->se, mountpoint);
	fuse_set_log_func(log_libfuse);
	if (saved >= 0) {
		(void)dup2(saved, STDERR_FILENO);
		(void)close(saved);
	}
	ssize_t n = caught >= 0 ? pread(caught, text, size - 1, 0) : 0;
	if (caught >= 0)
		(void)close(caught);
	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	return ret;
}

static int mount_it(struct session *s, const struct session_params *p, struct err *e)
{
	static const struct fuse_custom_io io = {.read = device_read, .writev = device_writev};
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	char text[160];

	fuse_set_log_func(log_libfuse);
	int ret = build_args(p, &args);
	if (ret == 0)
		s->se = fuse_session_new(&args, &session_ops, sizeof(session_ops), s);
	fuse_opt_free_args(&args);
	if (ret)
		return err_set(e, ret, ERR_MEMORY, "out of memory");
	if (!s->se)
		return err_set(e, -EINVAL, ERR_USAGE, "a mount option was not accepted");
	if (mount_caught(s, p->mountpoint, text, sizeof(text)) != 0)
		return err_set(e, -EPERM, ERR_USAGE, "%s", *text ? text : "the mount was refused");
	s->mounted = true;
	s->fd = fuse_session_fd(s->se);
	ret = fuse_session_custom_io(s->se, &io, s->fd);
	if (ret)
		return err_set(e, ret, ERR_MEMORY, "out of memory");
	return 0;
}

/* The kernel's first request, answered before there are threads: what it settles is read by all of them. */
static int handshake(struct session *s, struct err *e)
{
	struct pollfd pfd = {.fd = s->fd, .events = POLLIN};

	int ret = poll(&pfd, 1, INIT_SECONDS * 1000);
	if (ret == 0)
		return err_set(e, -ETIMEDOUT, ERR_IO, "the kernel does not talk to us");
	ret = serve_one(s, &s->request[0]);
	if (ret)
		return err_set(e, ret, ERR_IO, "the kernel ended the mount");
	if (fuse_session_exited(s->se))
		return err_set(e, -EPROTO, ERR_IO, "the kernel and libfuse do not agree on a protocol");
	return 0;
}

/* --- buffers ------------------------------------------------------------------------------------------------------ */

/* What the threads hold; a write that is set aside has its own. */
static size_t threads_hold(const struct session *s)
{
	return s->nthreads * (SESSION_BUFFER + SESSION_MAX_WRITE);
}

static int buffers_new(struct session *s, struct err *e)
{
	unsigned n = s->nthreads + s->nspare;

	s->request = calloc(n, sizeof(*s->request));
	s->thread = calloc(s->nthreads, sizeof(*s->thread));
	s->arena_len = s->nthreads * SESSION_BUFFER;
	void *arena = mmap(NULL, s->arena_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!s->request || !s->thread || arena == MAP_FAILED)
		return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for %u request buffers", n);
	s->arena = arena;
	(void)madvise(arena, s->arena_len, MADV_DONTDUMP); /* plaintext */
	budget_take(core_budget(s->core), BUDGET_RECEIVE, threads_hold(s));
	for (; s->nrequests < n; s->nrequests++) {
		struct request *rq = &s->request[s->nrequests];

		if (core_blocks_get(s->core, rq->block, SESSION_BLOCKS))
			return err_set(e, -ENOMEM, ERR_MEMORY, "no memory for %u request buffers", n);
		if (s->nrequests >= s->nthreads) {
			rq->next = s->spare;
			s->spare = rq;
			continue;
		}
		/* Those of the threads are faulted in now, not while a request waits. */
		for (unsigned b = 0; b < SESSION_BLOCKS; b++)
			memset(rq->block[b], 0, POOL_BLOCK);
	}
	memset(arena, 0, s->arena_len);
	return 0;
}

static void buffers_free(struct session *s)
{
	struct budget *b = core_budget(s->core);

	for (unsigned i = 0; i < s->nrequests; i++)
		core_blocks_put(s->core, s->request[i].block, SESSION_BLOCKS);
	for (const struct request *rq = s->parked; rq; rq = rq->next)
		budget_give(b, BUDGET_RECEIVE, SESSION_MAX_WRITE);
	if (s->arena) {
		budget_give(b, BUDGET_RECEIVE, threads_hold(s));
		(void)munmap(s->arena, s->arena_len);
	}
	free(s->request);
	free(s->thread);
}

/* --- the backing device's settings -------------------------------------------------------------------------------- */

static void set_bdi(const struct mountinfo *m, const char *name, const char *value)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/%s", m->major, m->minor, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		log_debug("cannot set %s: %s", path, strerror(errno));
	(void)close(fd);
}

/* What it is mounted as. As root: larger reads ahead, and room for the kernel to gather writes: FUSE starts with 1 % of
 * the memory. */
static void tune(struct session *s)
{
	struct mountinfo m;

	if (mountinfo_find(s->mountpoint, &m))
		return;
	s->device = makedev(m.major, m.minor);
	if (geteuid() != 0)
		return;
	set_bdi(&m, "read_ahead_kb", "1024");
	set_bdi(&m, "max_ratio", "100");
}

bool session_is_covered(const struct session *s)
{
	struct mountinfo m;

	return s->device && !mountinfo_find(s->mountpoint, &m) && makedev(m.major, m.minor) != s->device;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static int session_start(struct session *s, const struct session_params *p, struct err *e)
{
	int ret = check_available(e);

	if (ret)
		return ret;
	s->mountpoint = strdup(p->mountpoint);
	s->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!s->mountpoint || s->event < 0)
		return err_set(e, -ENOMEM, ERR_MEMORY, "out of memory");
	ret = buffers_new(s, e);
	if (ret == 0)
		ret = mount_it(s, p, e);
	if (ret == 0)
		ret = handshake(s, e);
	if (ret)
		return ret;
	ret = serve_start(s);
	if (ret)
		return err_set(e, ret, ERR_MEMORY, "cannot start threads: %s", strerror(-ret));
	tune(s);
	return 0;
}

int session_new(struct core *core, const struct session_params *p, struct session **out, struct err *e)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, ERR_MEMORY, "out of memory");

	s->core = core;
	s->config = p->config;
	s->control = p->control;
	s->idle_ms = p->idle_ms;
	s->metrics = core_metrics(core);
	s->fd = -1;
	s->event = -1;
	s->nthreads = p->threads;
	s->nspare = p->spare;
	s->max_writers = writers_of(s->nthreads);
	s->parked_end = &s->parked;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_mutex_init(&s->reading, NULL);
	(void)pthread_mutex_init(&s->drain_lock, NULL);
	(void)pthread_mutex_init(&s->handle_lock, NULL);
	(void)pthread_mutex_init(&s->beside_lock, NULL);
	(void)pthread_cond_init(&s->beside_cond, NULL);
	STAILQ_INIT(&s->left);
	LIST_INIT(&s->handles);
	STAILQ_INIT(&s->seeks);
	(void)pthread_cond_init(&s->seek_cond, NULL);
	(void)pthread_cond_init(&s->drained, NULL);
	wire_init(&s->wire);
	int ret = session_start(s, p, e);
	if (ret) {
		session_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

void session_free(struct session *s)
{
	if (!s)
		return;
	(void)serve_stop(s, 1);
	if (s->se) {
		if (s->mounted && !session_is_covered(s))
			fuse_session_unmount(s->se);
		(void)seek_stop(s, 1);
		fuse_session_destroy(s->se);
	}
	op_close_all(s);
	if (s->event >= 0)
		(void)close(s->event);
	buffers_free(s);
	(void)pthread_cond_destroy(&s->seek_cond);
	(void)pthread_cond_destroy(&s->drained);
	(void)pthread_cond_destroy(&s->beside_cond);
	(void)pthread_mutex_destroy(&s->beside_lock);
	(void)pthread_mutex_destroy(&s->handle_lock);
	(void)pthread_mutex_destroy(&s->drain_lock);
	(void)pthread_mutex_destroy(&s->reading);
	(void)pthread_mutex_destroy(&s->lock);
	free(s->mountpoint);
	free(s);
}
