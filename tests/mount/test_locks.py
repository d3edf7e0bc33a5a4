"""flock, POSIX and open-file-description locks, which the kernel keeps: between processes, and what ends them."""

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
import time

from apfsmount import check, put, wait_for
from calls import each, fails, in_child, same, syscall

OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38


def lock(kind, start=0, length=0):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def record(fd, command, kind, start=0, length=0):
    """fcntl; the kind that is in the way (F_UNLCK: none), where, and whose."""
    out = struct.unpack("hhqqi4x", fcntl.fcntl(fd, command, lock(kind, start, length)))
    return out[0], *out[2:]


class Holder:
    """A process that does something with a file of its own and then waits."""

    def __init__(self, path, does):
        into, out = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            signal.setitimer(signal.ITIMER_REAL, 0)
            fd = os.open(path, os.O_RDWR)
            does(fd)
            os.write(out, b"x")
            time.sleep(600)
            os._exit(0)
        os.close(out)
        os.read(into, 1)
        os.close(into)

    def end(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


@contextlib.contextmanager
def opened(path, flags=os.O_RDWR):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def interrupted(wait, fd):
    """A waiting call gives EINTR when a signal comes, in a process of its own."""

    def work():
        signal.signal(signal.SIGALRM, lambda *_: None)
        syscall("siginterrupt", signal.SIGALRM, 1)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        begin = time.monotonic()
        try:
            wait(fd)
        except OSError as e:
            return e.errno, time.monotonic() - begin
        return 0, 0

    code, took = in_child(work)
    same(code, errno.EINTR)
    check(took < 5, f"only after {took:.1f} s")


def flocks(v):
    p = v.path("f")
    put(p)
    with opened(p) as a, opened(p, os.O_RDONLY) as b:
        fcntl.flock(a, fcntl.LOCK_SH)
        fcntl.flock(b, fcntl.LOCK_SH)
        fails(errno.EAGAIN, fcntl.flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(b, fcntl.LOCK_UN)
        fcntl.flock(a, fcntl.LOCK_EX)
        fails(errno.EAGAIN, fcntl.flock, b, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with opened(p) as again:
            fails(errno.EAGAIN, fcntl.flock, again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        copy = os.dup(a)  # one open file
        fcntl.flock(copy, fcntl.LOCK_SH)
        fcntl.flock(b, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(copy)
    with opened(p) as fd, Holder(p, lambda mine: fcntl.flock(mine, fcntl.LOCK_EX)) as other:
        fails(errno.EAGAIN, fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        interrupted(lambda mine: syscall("flock", mine, fcntl.LOCK_EX), fd)
        os.unlink(p)
        fails(errno.EAGAIN, fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other.end()  # killed
        fcntl.flock(fd, fcntl.LOCK_EX)
    with opened(v.mnt, os.O_RDONLY) as d, opened(v.mnt, os.O_RDONLY) as e:
        fcntl.flock(d, fcntl.LOCK_EX)
        fails(errno.EAGAIN, fcntl.flock, e, fcntl.LOCK_SH | fcntl.LOCK_NB)


def records(v):
    p = v.path("f")
    put(p, bytes(100))
    with opened(p) as fd:
        with Holder(p, lambda mine: record(mine, fcntl.F_SETLK, fcntl.F_WRLCK, 10, 20)) as other:
            same(record(fd, fcntl.F_GETLK, fcntl.F_WRLCK, 0, 100), (fcntl.F_WRLCK, 10, 20, other.pid))
            same(record(fd, fcntl.F_GETLK, fcntl.F_RDLCK, 29, 1)[0], fcntl.F_WRLCK)
            same(record(fd, fcntl.F_GETLK, fcntl.F_WRLCK, 30, 0)[0], fcntl.F_UNLCK)
            fails(errno.EAGAIN, record, fd, fcntl.F_SETLK, fcntl.F_RDLCK, 0, 11)
            record(fd, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 10)
            record(fd, fcntl.F_SETLK, fcntl.F_WRLCK, 30, 0)  # to the end and beyond
            interrupted(lambda mine: fcntl_wait(mine, fcntl.F_SETLKW), fd)
            other.end()
            fcntl_wait(fd, fcntl.F_SETLKW)
        os.close(os.open(p, os.O_RDONLY))  # closing any descriptor of the file ends a process's locks on it
        with Holder(p, lambda mine: record(mine, fcntl.F_SETLK, fcntl.F_WRLCK)):
            fails(errno.EAGAIN, record, fd, fcntl.F_SETLK, fcntl.F_WRLCK)
    with opened(p, os.O_RDONLY) as fd:
        fails(errno.EBADF, record, fd, fcntl.F_SETLK, fcntl.F_WRLCK)
        record(fd, fcntl.F_SETLK, fcntl.F_RDLCK)
        fails(errno.EINVAL, record, fd, fcntl.F_SETLK, fcntl.F_RDLCK, -1, 1)


def fcntl_wait(fd, command):
    """F_SETLKW of all of the file, without Python's own way with EINTR."""
    buf = ctypes.create_string_buffer(lock(fcntl.F_WRLCK))
    syscall("fcntl", fd, command, buf)


def deadlock(v):
    p = v.path("f")
    put(p, bytes(10))

    def waits():
        fd = os.open(p, os.O_RDWR)
        record(fd, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 1)
        parent, child = os.pipe()
        pid = os.fork()
        if not pid:
            fd = os.open(p, os.O_RDWR)
            record(fd, fcntl.F_SETLK, fcntl.F_WRLCK, 1, 1)
            os.write(child, b"x")
            record(fd, fcntl.F_SETLKW, fcntl.F_WRLCK, 0, 1)
            os._exit(0)
        os.read(parent, 1)
        wait_for(lambda: waiting(pid), 10, "the other does not wait")
        try:
            record(fd, fcntl.F_SETLKW, fcntl.F_WRLCK, 1, 1)
            code = 0
        except OSError as e:
            code = e.errno
        record(fd, fcntl.F_SETLK, fcntl.F_UNLCK)
        os.waitpid(pid, 0)
        return code

    same(in_child(waits), errno.EDEADLK)


def waiting(pid):
    with open(f"/proc/{pid}/wchan", encoding="ascii") as f:
        if "lock" in f.read():
            return True
    with open(f"/proc/{pid}/syscall", encoding="ascii") as f:
        return f.read().startswith("72 ")  # fcntl


def of_open_files(v):
    p = v.path("f")
    put(p, bytes(100))
    with opened(p) as a, opened(p) as b:
        record(a, OFD_SETLK, fcntl.F_WRLCK, 0, 50)
        fails(errno.EAGAIN, record, b, OFD_SETLK, fcntl.F_WRLCK, 49, 1)  # of one process
        same(record(b, OFD_GETLK, fcntl.F_WRLCK, 0, 100), (fcntl.F_WRLCK, 0, 50, -1))
        record(b, OFD_SETLK, fcntl.F_WRLCK, 50, 50)
        os.close(os.open(p, os.O_RDWR))  # which leaves them
        fails(errno.EAGAIN, record, b, OFD_SETLK, fcntl.F_WRLCK, 49, 1)
        interrupted(lambda mine: fcntl_wait(mine, OFD_SETLKW), b)
        copy = os.dup(a)
        os.close(copy)
        fails(errno.EAGAIN, record, b, OFD_SETLK, fcntl.F_WRLCK, 0, 1)
        fails(errno.EAGAIN, record, b, fcntl.F_SETLK, fcntl.F_WRLCK, 0, 1)  # a POSIX lock conflicts too
    with opened(p) as fd, Holder(p, lambda mine: record(mine, OFD_SETLK, fcntl.F_WRLCK)) as other:
        fails(errno.EAGAIN, record, fd, OFD_SETLK, fcntl.F_WRLCK)
        other.end()
        fcntl_wait(fd, OFD_SETLKW)


if __name__ == "__main__":
    each(flocks, records, deadlock, of_open_files, root=False)
