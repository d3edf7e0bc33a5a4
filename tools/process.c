#include "tools/process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

void process_harden(void)
{
	const struct rlimit none = {0, 0};
	int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);

	/* Should somebody raise the limit again, no memory of ours goes into a dump. Before the process is not
	 * dumpable: then its files in /proc belong to root. */
	if (fd >= 0) {
		if (write(fd, "0", 1) != 1)
			errno = 0; /* an old kernel: the rest must do */
		(void)close(fd);
	}
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)setrlimit(RLIMIT_CORE, &none);
}

void process_tune(void)
{
	struct rlimit files;

	/* Without it, freeing memory could make the kernel write back to us, who wait for it. Root only. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	/* A fresh page costs a fault, a reused one nothing. */
	(void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
	(void)mallopt(M_ARENA_MAX, 2);
}

void process_block_signals(void)
{
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t mask;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	(void)sigaction(SIGPIPE, &ignore, NULL);
}
