"""Open files: flags of open and of single writes, writers beside each other, files without a name."""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import stat
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

from apfsmount import MIB, check, get, put
from calls import AT_EMPTY_PATH, AT_FDCWD, LIBC, PLAIN, User, each, fails, in_child, libfuse, same, syscall

RWF_NOWAIT, RWF_APPEND, RWF_NOAPPEND = 8, 16, 32
ANN = User(1001)


def exclusive(v):
    p = v.path("f")
    os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    fails(errno.EEXIST, os.open, p, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.mkdir(v.path("d"))
    fails(errno.EEXIST, os.open, v.path("d"), os.O_CREAT | os.O_EXCL)
    for target in ("nothing", "f"):
        os.symlink(target, v.path("l"))
        fails(errno.EEXIST, os.open, v.path("l"), os.O_CREAT | os.O_EXCL)
        os.unlink(v.path("l"))
    os.symlink("made", v.path("l"))
    os.close(os.open(v.path("l"), os.O_CREAT | os.O_WRONLY))
    check(stat.S_ISREG(os.stat(v.path("made")).st_mode), "a symlink to nothing is followed by O_CREAT")
    # of many that try, one wins
    wins = 0
    for n in range(10):
        out, into = os.pipe()
        pids = []
        for _ in range(4):
            pids.append(os.fork())
            if not pids[-1]:
                try:
                    os.open(v.path(f"race {n}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                    os.write(into, b"x")
                finally:
                    os._exit(0)
        os.close(into)
        for pid in pids:
            os.waitpid(pid, 0)
        wins += len(os.read(out, 100))
        os.close(out)
    same(wins, 10)


def kinds(v):
    put(v.path("f"), b"data")
    os.mkdir(v.path("d"))
    os.symlink("f", v.path("l"))
    os.mkfifo(v.path("p"))
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_CREAT | os.O_RDWR):
        fails(errno.EISDIR, os.open, v.path("d"), flags)
    fails(errno.ENOTDIR, os.open, v.path("f"), os.O_DIRECTORY)
    fails(errno.ENOTDIR, os.open, v.path("f", "x"), os.O_RDONLY)
    fails(errno.ENOTDIR, os.open, v.path("f/"), os.O_RDONLY)
    fails(errno.EISDIR, os.open, v.path("new/"), os.O_CREAT | os.O_WRONLY)
    fails(errno.ELOOP, os.open, v.path("l"), os.O_RDONLY | os.O_NOFOLLOW)
    fails(errno.ENXIO, os.open, v.path("p"), os.O_WRONLY | os.O_NONBLOCK)
    fd = os.open(v.path("l"), os.O_PATH | os.O_NOFOLLOW)
    check(stat.S_ISLNK(os.fstat(fd).st_mode), "O_PATH of a symlink")
    fails(errno.EBADF, os.read, fd, 1)
    os.close(fd)
    fd = os.open(v.path("f"), os.O_RDONLY)
    fails(errno.EBADF, os.write, fd, b"x")
    fails(errno.EINVAL, os.ftruncate, fd, 1)
    os.close(fd)
    fd = os.open(v.path("f"), os.O_WRONLY)
    fails(errno.EBADF, os.read, fd, 1)
    os.close(fd)
    fd = os.open(v.path("d"), os.O_RDONLY)
    fails(errno.EISDIR, os.read, fd, 1)
    os.fsync(fd)
    os.close(fd)
    fails(errno.EISDIR, os.truncate, v.path("d"), 0)
    fails(errno.EINVAL, os.truncate, v.path("f"), -1)
    os.chmod(v.path("f"), 0o644)
    fails(errno.EPERM, ANN.does, os.open, v.path("f"), os.O_RDONLY | os.O_NOATIME)
    os.close(os.open(v.path("f"), os.O_RDONLY | os.O_NOATIME))
    fails(errno.ETXTBSY, run_while_written, v)


def run_while_written(v):
    p = v.path("program")
    put(p, b"#!/bin/sh\nexit 0\n")
    os.chmod(p, 0o755)
    with open(p, "ab"):
        in_child(lambda: os.execv(p, [p]))


def creation_mode(v):
    """The mode of open counts for later opens, not for the descriptor that creates."""
    os.chmod(v.mnt, 0o1777)
    for flags in (os.O_WRONLY, os.O_RDWR):
        same(ANN.does(create_closed, v, flags), 4)


def create_closed(v, flags):
    os.chdir(v.mnt)
    fd = os.open("closed", os.O_CREAT | os.O_EXCL | flags, 0o000)
    done = os.write(fd, b"data")
    os.close(fd)
    os.unlink("closed")
    return done


def appends(v):
    """Records of several processes: each whole, none lost, in the order of each writer."""
    p = v.path("log")
    put(p)
    pids = []
    for writer in range(4):
        pids.append(os.fork())
        if not pids[-1]:
            fd = os.open(p, os.O_WRONLY | os.O_APPEND)
            for n in range(500):
                os.write(fd, b"%d %4d %s\n" % (writer, n, b"x" * (n % 97)))
            os._exit(0)
    for pid in pids:
        same(os.waitpid(pid, 0)[1], 0)
    lines = get(p)[4:].splitlines()
    for writer in range(4):
        same([x for x in lines if x.startswith(b"%d" % writer)], [b"%d %4d %s" % (writer, n, b"x" * (n % 97)) for n in range(500)])
    same(len(lines), 2000)
    v.remount()
    same(get(p)[4:].splitlines(), lines)


def append_flag(v):
    p = v.path("f")
    put(p, b"12345")
    a, b = (os.open(p, os.O_RDWR | flag) for flag in (os.O_APPEND, 0))
    os.lseek(a, 0, os.SEEK_SET)
    os.write(a, b"67")
    same((get(p), os.lseek(a, 0, os.SEEK_CUR)), (b"1234567", 7))
    os.pwrite(a, b"8", 0)  # Linux appends here too
    same(get(p), b"12345678")
    os.pwrite(b, b"0", 0)
    os.lseek(b, 0, os.SEEK_END)
    os.write(b, b"9")
    os.write(a, b"A")
    same(get(p), b"023456789A")
    os.ftruncate(b, 3)
    os.write(a, b"x")
    same(get(p), b"023x")
    fcntl.fcntl(b, fcntl.F_SETFL, os.O_APPEND)
    os.pwrite(b, b"y", 0)
    same(get(p), b"023xy")
    os.close(a)
    os.close(b)


def flags_of_one_write(v):
    p = v.path("f")
    put(p, b"12345")
    fd = os.open(p, os.O_RDWR)
    same(os.pwritev(fd, [b"6", b"78"], 0, RWF_APPEND), 3)
    same(get(p), b"12345678")
    same(os.lseek(fd, 0, os.SEEK_CUR), 0)
    same(os.pwritev(fd, [b"9"], -1, RWF_APPEND), 1)
    same((get(p), os.lseek(fd, 0, os.SEEK_CUR)), (b"123456789", 9))
    same(os.pwritev(fd, [b"ab"], 0, os.RWF_DSYNC), 2)
    same(os.pwritev(fd, [b"cd"], 2, os.RWF_SYNC | os.RWF_HIPRI), 2)
    room = bytearray(4)
    same((os.preadv(fd, [room], 0, os.RWF_HIPRI), bytes(room)), (4, b"abcd"))
    fails(errno.EOPNOTSUPP, os.pwritev, fd, [b"x"], 0, 1 << 20)
    fails(errno.EOPNOTSUPP, os.preadv, fd, [room], 0, 1 << 20)
    if not PLAIN:  # it might have to wait, so it is refused
        fails(errno.EOPNOTSUPP, os.preadv, fd, [room], 0, RWF_NOWAIT)
        fails(errno.EOPNOTSUPP, os.pwritev, fd, [b"x"], 0, RWF_NOWAIT)
    same(get(p), b"abcd56789")
    os.close(fd)
    fd = os.open(p, os.O_RDWR | os.O_APPEND)
    try:
        os.pwritev(fd, [b"A"], 0, RWF_NOAPPEND)
        same(get(p), b"Abcd56789")
    except OSError as e:
        same(e.errno, errno.EOPNOTSUPP)  # before Linux 6.9
    os.close(fd)


def synchronous(v):
    """What was written so survives the daemon."""
    expected = {}
    for name, flags, each_write in (
        ("sync", os.O_SYNC, 0),
        ("dsync", os.O_DSYNC, 0),
        ("rwf_sync", 0, os.RWF_SYNC),
        ("rwf_dsync", 0, os.RWF_DSYNC),
        ("direct", os.O_DSYNC | os.O_DIRECT, 0),
        ("append", os.O_DSYNC | os.O_APPEND, 0),
    ):
        fd = os.open(v.path(name), os.O_CREAT | os.O_WRONLY | flags)
        for n in range(3):
            with mmap.mmap(-1, 4096) as page:
                page[:] = bytes([65 + n]) * 4096
                same(os.pwritev(fd, [page], 4096 * n, each_write), 4096)
        os.close(fd)
        expected[name] = b"".join(bytes([65 + n]) * 4096 for n in range(3))
    if not PLAIN:
        v.kill(signal.SIGKILL)
        v.mount()
    same({name: get(v.path(name)) for name in expected}, expected)


def direct(v):
    p = v.path("f")
    fd = os.open(p, os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    cached = os.open(p, os.O_RDWR)
    with mmap.mmap(-1, 64 << 10) as room:
        room[:] = b"d" * len(room)
        os.pwrite(fd, room, 0)
        same(os.pread(cached, 4, 4096), b"dddd")
        os.pwrite(cached, b"cached", 8192)
        same(os.preadv(fd, [room], 0), len(room))
        same(room[8190:8200], b"ddcacheddd")
        room[:4096] = b"e" * 4096
        os.pwrite(fd, memoryview(room)[:4096], 8192)
        same(os.pread(cached, 6, 8192), b"eeeeee")
        same(os.preadv(fd, [room], 1 << 20), 0)
    os.close(fd)
    os.close(cached)
    v.remount()
    same(get(p)[8190:8194], b"ddee")


def asynchronous(v):
    """What is read through the cache while direct writes are under way does not stay there once they are done."""
    p, size, each = v.path("f"), 640 << 10, 64 << 10
    put(p, bytes(size))
    direct, cached = os.open(p, os.O_RDWR | os.O_DIRECT), os.open(p, os.O_RDONLY)
    context, events = ctypes.c_ulong(), ctypes.create_string_buffer(32 * (size // each))
    io_setup, io_destroy, io_submit, io_getevents = (206, 207, 209, 208) if os.uname().machine == "x86_64" else (0, 1, 2, 4)
    over = threading.Event()

    def call(number, *args):
        check(LIBC.syscall(number, *args) >= 0, f"system call {number}")

    def reads():
        while not over.is_set():
            for off in range(0, size, 4096):
                os.pread(cached, 4096, off)

    call(io_setup, size // each, ctypes.byref(context))
    with mmap.mmap(-1, each) as room, ThreadPoolExecutor(2) as pool:
        address = ctypes.addressof(ctypes.c_char.from_buffer(room))
        readers = [pool.submit(reads) for _ in range(2)]
        try:
            for n in range(200):
                room[:] = bytes([n % 255 + 1]) * each
                held = []  # struct iocb, IOCB_CMD_PWRITE
                for off in range(0, size, each):
                    block = struct.pack("<QIIHhIQQqQII", 0, 0, 0, 1, 0, direct, address, each, off, 0, 0, 0)
                    held.append(ctypes.create_string_buffer(block, 64))
                call(io_submit, context, len(held), (ctypes.c_void_p * len(held))(*map(ctypes.addressof, held)))
                call(io_getevents, context, len(held), len(held), events, None)
                check(os.pread(cached, size, 0) == room[:] * (size // each), f"stale data after write {n}")
        finally:
            over.set()
            for reader in readers:
                reader.result()
            call(io_destroy, context)
    os.close(direct)
    os.close(cached)


def two_handles(v):
    """Size and content are one for all descriptors, at once."""
    p = v.path("f")
    put(p, b"")
    a, b = os.open(p, os.O_RDWR), os.open(p, os.O_RDWR)
    for n in range(50):
        os.pwrite(a, b"%5d" % n, 5 * n)
        same((os.fstat(b).st_size, os.stat(p).st_size), (5 * n + 5,) * 2)
        same(os.pread(b, 9, 5 * n), b"%5d" % n)
    os.ftruncate(b, 7)
    same((os.fstat(a).st_size, os.pread(a, 100, 0)), (7, b"    0  "))
    os.ftruncate(a, 12)
    same(os.pread(b, 100, 0), b"    0  " + bytes(5))
    os.truncate(p, 3)
    os.pwrite(b, b"z", 6)
    same(os.pread(a, 100, 0), b"   " + bytes(3) + b"z")
    os.pwrite(a, b"q" * 5000, 100)
    os.close(os.open(p, os.O_WRONLY | os.O_TRUNC))
    same((os.fstat(a).st_size, os.pread(b, 10, 0)), (0, b""))
    os.pwrite(a, b"end", 4095)
    same(os.pread(b, 5000, 0), bytes(4095) + b"end")
    os.close(a)
    os.close(b)
    v.remount()
    same(get(p), bytes(4095) + b"end")


def cut_by_many(v):
    """O_TRUNC beside others' truncate: the kernel and the daemon end with the same size."""
    p = v.path("f")
    put(p)
    cuts = [lambda: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC))] + 3 * [lambda: os.truncate(p, 5000)]
    with ThreadPoolExecutor(len(cuts)) as pool:
        for _ in range(3000):
            for cut in [pool.submit(cut) for cut in cuts]:
                cut.result()
            size = os.stat(p).st_size
            if not PLAIN:
                info = os.getxattr(p, "user.apfs.info").decode()
                check(f"({size} bytes)\nstored" in info, f"the kernel knows {size} bytes, the daemon\n{info}")


def limits(v):
    p = v.path("f")
    put(p)
    fd = os.open(p, os.O_RDWR)
    fails(errno.EINVAL, os.pread, fd, 1, -1)
    fails(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
    if not PLAIN:  # whose files end earlier
        os.ftruncate(fd, (1 << 63) - 1)
        same(os.fstat(fd).st_size, (1 << 63) - 1)
        same(os.pwrite(fd, b"z", (1 << 63) - 2), 1)
        same(os.pread(fd, 1, (1 << 63) - 2), b"z")
        os.ftruncate(fd, 4)
    import resource  # pylint: disable=import-outside-toplevel

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        fails(errno.EFBIG, os.ftruncate, fd, MIB + 1)
        fails(errno.EFBIG, os.pwrite, fd, b"x", MIB)
        return os.pwrite(fd, b"xyz", MIB - 2)

    same(in_child(limited), 2)
    same(os.fstat(fd).st_size, MIB)
    os.close(fd)


def nameless(v):
    """O_TMPFILE, where libfuse knows of it: from 3.17 on."""
    flags = os.O_TMPFILE | os.O_RDWR
    if not PLAIN and libfuse(v) < 317:
        fails(errno.EOPNOTSUPP, os.open, v.mnt, flags)
        same(os.listdir(v.mnt), [])
        return
    fd = os.open(v.mnt, flags, 0o640)
    os.write(fd, b"data")
    same((os.listdir(v.mnt), os.fstat(fd).st_nlink, stat.S_IMODE(os.fstat(fd).st_mode)), ([], 0, 0o640))
    syscall("linkat", fd, b"", AT_FDCWD, v.path("named"), AT_EMPTY_PATH)
    os.close(fd)
    v.remount()
    same(get(v.path("named")), b"data")
    fd = os.open(v.mnt, flags | os.O_EXCL)
    fails(errno.ENOENT, syscall, "linkat", fd, b"", AT_FDCWD, v.path("x"), AT_EMPTY_PATH)
    os.close(fd)
    fails(errno.ENOTDIR, os.open, v.path("named"), flags)


def unlinked(v):
    p = v.path("u")
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"still")
    os.unlink(p)
    fails(errno.ENOENT, os.stat, p)
    os.write(fd, b" here")
    os.fsync(fd)
    same((os.pread(fd, 100, 0), os.fstat(fd).st_nlink), (b"still here", 0))
    os.fchmod(fd, 0o600)
    os.utime(fd, (1, 2))
    os.setxattr(fd, "user.a", b"1")
    same((os.fstat(fd).st_mtime, os.getxattr(fd, "user.a")), (2, b"1"))
    fails(errno.ENOENT, syscall, "linkat", fd, b"", AT_FDCWD, v.path("back"), AT_EMPTY_PATH)
    put(p, b"another")
    same((os.pread(fd, 100, 0), get(p)), (b"still here", b"another"))
    over = os.open(p, os.O_RDWR)
    put(v.path("new"), b"new")
    os.rename(v.path("new"), p)
    os.write(over, b"ANOTHER")
    same((get(p), os.pread(over, 9, 0), os.fstat(over).st_nlink), (b"new", b"ANOTHER", 0))
    os.close(over)
    os.close(fd)


if __name__ == "__main__":
    each(
        exclusive,
        kinds,
        creation_mode,
        appends,
        append_flag,
        flags_of_one_write,
        synchronous,
        direct,
        asynchronous,
        two_handles,
        cut_by_many,
        limits,
        nameless,
        unlinked,
    )
