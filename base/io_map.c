#include "base/io_map.h"

#include "base/lock.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

/* The handler looks these up, so they are never freed and all of it is atomic. */
struct io_map {
	atomic_uintptr_t start; /* 0: unused */
	atomic_size_t len;
	atomic_bool broken;
};

static struct io_map maps[IO_MAP_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before; /* who handles other SIGBUSes */

/* In a signal handler: puts zeroes where addr is mapped. */
static bool mend(uintptr_t addr)
{
	for (size_t i = 0; i < IO_MAP_MAX; i++) {
		uintptr_t start = atomic_load(&maps[i].start);
		size_t len = atomic_load(&maps[i].len);

		if (!start || addr < start || addr - start >= len)
			continue;
		atomic_store(&maps[i].broken, true);
		/* NOLINTNEXTLINE(performance-no-int-to-ptr): it is that of the mapping */
		return mmap((void *)start, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		       MAP_FAILED;
	}
	return false;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;
	bool mended = info->si_code > 0 && mend((uintptr_t)info->si_addr);

	errno = saved;
	if (mended)
		return;
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, info, context);
	} else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
		(void)signal(sig, SIG_DFL);
		(void)raise(sig);
	} else {
		before.sa_handler(sig);
	}
}

/* Looked at for every mapping: others may have put their own handler in its place. Under the lock. */
static void handle_sigbus(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK}, now;

	(void)sigaction(SIGBUS, NULL, &now);
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus)
		return;
	before = now;
	(void)sigemptyset(&sa.sa_mask);
	(void)sigaction(SIGBUS, &sa, NULL);
}

int io_map_new(int fd, size_t len, struct io_map **out)
{
	struct io_map *m = maps;

	SCOPED_LOCK(&lock);
	handle_sigbus();
	while (m < maps + IO_MAP_MAX && atomic_load(&m->start))
		m++;
	if (m == maps + IO_MAP_MAX)
		return -ENOSPC;
	void *start = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	if (start == MAP_FAILED)
		return -errno;
	atomic_store(&m->broken, false);
	atomic_store(&m->len, len);
	atomic_store(&m->start, (uintptr_t)start);
	*out = m;
	return 0;
}

void io_map_free(struct io_map *m)
{
	if (!m)
		return;
	SCOPED_LOCK(&lock);
	/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
	void *start = (void *)atomic_load(&m->start);

	/* Somebody else's memory may be there as soon as it is unmapped. */
	atomic_store(&m->start, 0);
	(void)munmap(start, atomic_load(&m->len));
}

bool io_map_read(struct io_map *m, void *buf, size_t len, uint64_t off)
{
	size_t have = atomic_load_explicit(&m->len, memory_order_relaxed);

	if (off > have || len > have - off || atomic_load(&m->broken))
		return false;
	/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
	memcpy(buf, (const char *)atomic_load_explicit(&m->start, memory_order_relaxed) + off, len);
	return !atomic_load(&m->broken);
}
