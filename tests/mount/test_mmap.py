"""Mappings, and their coherence with read, write, truncate and O_DIRECT; many writers in one file.

APFS_REFEREE=DIR runs it in a directory of another filesystem instead.
"""

import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import threading

from apfsmount import MIB, check, get, main, put, run
from test_sparse import REFEREE, fails, place, same

PAGE = mmap.PAGESIZE


def aligned(data):
    """A buffer that O_DIRECT takes."""
    buf = mmap.mmap(-1, (len(data) + PAGE - 1) // PAGE * PAGE)
    buf[: len(data)] = data
    return buf


def reopened(path, flags):
    return os.open(path, os.O_RDWR | flags)


def coherent():
    """Random stores, writes and direct writes, each seen by the two other ways at once."""
    rng = random.Random(31)
    with place() as v:
        p = v.path("f")
        size = 64 * PAGE
        expected = bytearray(rng.randbytes(size))
        put(p, expected)
        for _ in range(3):
            fd, direct = reopened(p, 0), reopened(p, os.O_DIRECT)
            with mmap.mmap(fd, size) as m, mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as r:
                for n in range(150):
                    off = rng.randrange(size // PAGE) * PAGE
                    length = min(rng.choice((1, 2, 5)) * PAGE, size - off)
                    new = rng.randbytes(length)
                    if n % 3 == 0:
                        m[off : off + length] = new
                    elif n % 3 == 1:
                        same(os.pwritev(direct, [memoryview(aligned(new))[:length]], off), length)
                    else:
                        odd = rng.randrange(PAGE)
                        new = new[odd:]
                        off += odd
                        same(os.pwrite(fd, new, off), len(new))
                    expected[off : off + len(new)] = new
                    check(os.pread(fd, len(new), off) == new, f"step {n}: read")
                    check(m[off : off + len(new)] == new and r[off : off + len(new)] == new, f"step {n}: mappings")
                    buf = mmap.mmap(-1, size)
                    same(os.preadv(direct, [buf], 0), size)
                    check(buf[:] == expected, f"step {n}: direct read")
                    buf.close()
            os.close(fd)
            os.close(direct)
            v.remount()
            check(get(p) == expected, "other data after a remount")


def private():
    with place() as v:
        p = v.path("f")
        put(p, b"0123456789" * 1000)
        fd = os.open(p, os.O_RDONLY)
        with mmap.mmap(fd, 10000, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m:
            m[0:5] = b"abcde"
            same(m[0:10], b"abcde56789")
            same(os.pread(fd, 10, 0), b"0123456789")
        os.close(fd)
        v.remount()
        same(get(p), b"0123456789" * 1000)


def rights():
    with place() as v:
        p = v.path("f")
        put(p, b"x" * PAGE)
        fd = os.open(p, os.O_RDONLY)
        fails(errno.EACCES, mmap.mmap, fd, PAGE, mmap.MAP_SHARED, mmap.PROT_WRITE)
        mmap.mmap(fd, PAGE, mmap.MAP_PRIVATE, mmap.PROT_WRITE).close()
        os.close(fd)
        fd = os.open(p, os.O_WRONLY)
        fails(errno.EACCES, mmap.mmap, fd, PAGE, mmap.MAP_SHARED, mmap.PROT_WRITE)
        os.close(fd)
        fd = os.open(v.mnt, os.O_RDONLY)
        fails(errno.ENODEV, mmap.mmap, fd, PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ)
        os.close(fd)
        # a program runs from the mount, and cannot be written to meanwhile
        run("cp", "/bin/sleep", v.path("sleep"))
        job = subprocess.Popen([v.path("sleep"), "60"])
        try:
            os.stat(f"/proc/{job.pid}/exe")
            while os.readlink(f"/proc/{job.pid}/exe") != v.path("sleep"):
                pass
            fails(errno.ETXTBSY, os.open, v.path("sleep"), os.O_WRONLY)
        finally:
            job.kill()
            job.wait()


def truncated():
    """Beyond the end: SIGBUS; what is cut and grows again is zeroes, in the mapping too."""
    with place() as v:
        p = v.path("f")
        put(p, b"x" * (4 * PAGE))
        fd = os.open(p, os.O_RDWR)
        with mmap.mmap(fd, 4 * PAGE) as m:
            os.ftruncate(fd, PAGE + 100)
            same(m[PAGE : PAGE + 200], b"x" * 100 + bytes(100))
            script = f"""
import mmap, os
fd = os.open({p!r}, os.O_RDWR)
m = mmap.mmap(fd, {PAGE})
os.ftruncate(fd, 0)
m[0]
"""
            os.ftruncate(fd, 4 * PAGE)
            same(m[:], b"x" * (PAGE + 100) + bytes(3 * PAGE - 100))
            m[2 * PAGE : 2 * PAGE + 5] = b"again"
            same(os.pread(fd, 5, 2 * PAGE), b"again")
            m[PAGE + 50 : PAGE + 60] = b"y" * 10
            os.ftruncate(fd, PAGE + 55)
            os.ftruncate(fd, 2 * PAGE)
            same(os.pread(fd, PAGE, PAGE), b"x" * 50 + b"y" * 5 + bytes(PAGE - 55))
        os.close(fd)
        v.remount()
        same(get(p), b"x" * (PAGE + 50) + b"y" * 5 + bytes(PAGE - 55))
        same(subprocess.run([sys.executable, "-c", script], check=False).returncode, -signal.SIGBUS)


def extended():
    """A mapping larger than the file: what is appended appears in it."""
    with place() as v:
        p = v.path("f")
        fd = os.open(p, os.O_CREAT | os.O_RDWR, 0o644)
        os.ftruncate(fd, 10 * PAGE)
        with mmap.mmap(fd, 10 * PAGE) as m:
            os.ftruncate(fd, 10)
            for n in range(1, 10):
                os.pwrite(fd, bytes([n]) * PAGE, n * PAGE)
                same(m[n * PAGE : n * PAGE + PAGE], bytes([n]) * PAGE)
        os.close(fd)
        v.remount()
        same(get(p), bytes(PAGE) + b"".join(bytes([n]) * PAGE for n in range(1, 10)))


def synced():
    """What msync has returned for survives the daemon's SIGKILL; so does what was written by way of O_DSYNC."""
    rng = random.Random(33)
    with place() as v:
        p = v.path("f")
        expected = bytearray(rng.randbytes(2 * MIB))
        put(p, expected)
        v.sync()
        for _ in range(3):
            fd = os.open(p, os.O_RDWR)
            m = mmap.mmap(fd, len(expected))
            for _ in range(20):
                off = rng.randrange(len(expected) - 10000)
                new = rng.randbytes(10000)
                m[off : off + len(new)] = new
                expected[off : off + len(new)] = new
            m.flush()
            dsync = os.open(p, os.O_WRONLY | os.O_DSYNC)
            os.pwrite(dsync, b"durable", 12345)
            expected[12345:12352] = b"durable"
            os.close(dsync)
            if REFEREE:
                m.close()
                os.close(fd)
                continue
            v.kill()
            m.close()
            os.close(fd)
            v.mount()
            check(get(p) == expected, "what was synced is not there")


WRITER = """
import mmap, os, random, sys
path, me, all, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rng = random.Random(me)
fd = os.open(path, os.O_RDWR)
slot = 1500
size = os.fstat(fd).st_size
m = mmap.mmap(fd, size)
for n in range(me, size // slot, all):
    data = bytes([me + 1]) * slot
    if how == "map" or (how == "both" and n % 2):
        m[n * slot : (n + 1) * slot] = data
    elif n % 3:
        assert os.pwrite(fd, data, n * slot) == slot
    else:
        parts = [data[:7], data[7:100], data[100:]]
        assert os.pwritev(fd, parts, n * slot, os.RWF_DSYNC if n % 300 == 0 else 0) == slot
        back = [bytearray(100), bytearray(slot - 100)]
        assert os.preadv(fd, back, n * slot) == slot and b"".join(back) == data
"""


def writers():
    """Processes that write neighbouring pieces of one file, in the same pages, by write and by mappings."""
    with place() as v:
        for how in ("write", "map", "both"):
            p = v.path(how)
            size, count = 3000 * 1500, 3
            with open(p, "wb") as f:
                f.truncate(size)
            jobs = [
                subprocess.Popen([sys.executable, "-c", WRITER, p, str(n), str(count), how]) for n in range(count)
            ]
            same([job.wait() for job in jobs], [0] * count)
            want = b"".join(bytes([n % count + 1]) * 1500 for n in range(size // 1500))
            check(get(p) == want, f"{how}: another content")
            v.remount()
            check(get(p) == want, f"{how}: another content after a remount")


def appended():
    """Appenders beside one who reads: every line is there, whole, in order."""
    with place() as v:
        p = v.path("f")
        put(p, b"")

        def work(name):
            fd = os.open(p, os.O_WRONLY | os.O_APPEND)
            for n in range(1500):
                os.write(fd, b"%c %05d " % (name, n) + b"z" * 91 + b"\n")
            os.close(fd)

        threads = [threading.Thread(target=work, args=(name,)) for name in b"abc"]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            check(b"\0" not in get(p), "a gap between lines")
        for t in threads:
            t.join()
        for _ in range(2):
            lines = get(p).splitlines()
            for name in b"abc":
                same([int(x[2:7]) for x in lines if x[0] == name], list(range(1500)))
            v.remount()


if __name__ == "__main__":
    main(coherent, private, rights, truncated, extended, synced, writers, appended)
