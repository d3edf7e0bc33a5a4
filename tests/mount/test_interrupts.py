"""Signals: a call that one interrupts gives EINTR or is done, killed processes end, and what they leave is whole."""

import errno
import mmap
import os
import random
import signal
import time

from apfsmount import MIB, check, drop_caches, file_hash, get, put, wait_for
from calls import PLAIN, each, in_child, same, syscall


def start(work):
    pid = os.fork()
    if not pid:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def ended(pid, seconds, what):
    """Its status; a process that does not end in time is told with what it waits for."""

    def gone():
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            statuses.append(status)
        return found

    statuses = []
    try:
        wait_for(gone, seconds, f"{what} still runs")
    except BaseException:
        with open(f"/proc/{pid}/wchan", encoding="ascii") as f:
            print(f"process {pid} is in {f.read()}")
        raise
    return statuses[0]


def signalled(interval=0.002):
    """Signals from now on, whose handler does not restart calls."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    syscall("siginterrupt", signal.SIGALRM, 1)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)


def calls_go_on(v):
    """Under a rain of signals everything is written and read that a program asks for; it may have to ask again."""
    p = v.path("f")
    data = random.Random(1).randbytes(16 * MIB)

    def writes(flags):
        signalled()
        fd = os.open(p, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | flags)
        at = 0
        with mmap.mmap(-1, len(data)) as room:
            room[:] = data
            with memoryview(room) as view:
                while at < len(data):
                    with view[at : at + MIB] as piece:
                        at += os.pwrite(fd, piece, at)
        os.fsync(fd)
        os.close(fd)

    def reads(flags):
        signalled()
        fd = os.open(p, os.O_RDONLY | flags)
        with mmap.mmap(-1, MIB) as room:
            for at in range(0, len(data), MIB):
                got = os.preadv(fd, [room], at)
                check(got > 0 and room[:got] == data[at : at + got], f"other data at {at}")
        os.close(fd)

    def names():
        signalled()
        for n in range(300):
            os.mkdir(v.path(f"d{n}"))
            os.rename(v.path(f"d{n}"), v.path(f"e{n}"))
            put(v.path(f"e{n}", "f"))
            os.unlink(v.path(f"e{n}", "f"))
            os.rmdir(v.path(f"e{n}"))

    for flags in (0, os.O_DIRECT, os.O_DSYNC):
        in_child(lambda flags=flags: writes(flags))
        if not PLAIN:
            drop_caches()
        in_child(lambda flags=flags: reads(flags & os.O_DIRECT))
    in_child(names)
    same(os.listdir(v.mnt), ["f"])
    v.remount()
    check(get(p) == data, "other data after a remount")


def workers(v, size):
    def writer():
        data = os.urandom(size)
        n = 0
        while True:
            n += 1
            put(v.path(f"w{n % 8}"), data)

    def syncer():
        fd = os.open(v.path("s"), os.O_CREAT | os.O_WRONLY)
        while True:
            os.write(fd, b"x" * 4000)
            os.fsync(fd)

    def reader():
        while True:
            fd = os.open(v.path("big"), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            while os.read(fd, MIB):
                pass
            os.close(fd)

    def namer():
        while True:
            os.mkdir(v.path("n"))
            os.listdir(v.mnt)
            os.rmdir(v.path("n"))

    return {work.__name__: work for work in (writer, syncer, reader, namer)}


def killed(v):
    """Processes that are killed in the midst of anything are gone at once, and take nothing with them."""
    put(v.path("big"), os.urandom(16 * MIB))
    before = file_hash(v.path("big"))
    for sig in (signal.SIGKILL, signal.SIGTERM):
        pids = {name: start(work) for name, work in workers(v, 4 * MIB).items()}
        time.sleep(0.7)
        for pid in pids.values():
            os.kill(pid, sig)
        for name, pid in pids.items():
            same(ended(pid, 10, name), sig, name)
        if os.path.exists(v.path("n")):
            os.rmdir(v.path("n"))
        put(v.path("after"), b"after")
    same(file_hash(v.path("big")), before)
    v.remount()
    same((file_hash(v.path("big")), get(v.path("after"))), (before, b"after"))


def daemon_killed(v):
    """Whoever waits for a daemon that dies gets an error, not a wait without end."""
    put(v.path("big"), os.urandom(4 * MIB))
    v.sync()

    def told(work):
        def call():
            try:
                work()
            except OSError as e:
                check(e.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO), f"{work.__name__}: {e}")

        return call

    pids = {name: start(told(work)) for name, work in workers(v, MIB).items()}
    time.sleep(0.5)
    v.daemon.send_signal(signal.SIGKILL)
    for name, pid in pids.items():
        same(ended(pid, 20, name), 0, name)
    v.kill()
    v.mount()
    same(len(get(v.path("big"))), 4 * MIB)


if __name__ == "__main__":
    each(calls_go_on, killed, *([] if PLAIN else [daemon_killed]), root=False)
