"""What the kernel is given beside what it reads: it comes, saves requests, and never takes the place of newer data."""

import contextlib
import errno
import itertools
import mmap
import multiprocessing
import os
import random
import struct
import time

from apfsmount import MIB, Volume, amount, check, errno_of, flip, get, main, put, seed, stats, text
from test_sparse import same

FRAME = 65536
BLOCK = 4096
PAUSE = 0.005
SECONDS = float(os.environ.get("APFS_SECONDS", "8"))


def given(v):
    return amount(stats(v)["apfs_cache_given_bytes_total"])


def wait_given(v, wanted):
    """It is given after the answer."""
    end = time.monotonic() + 20
    while given(v) < wanted and time.monotonic() < end:
        time.sleep(0.02)
    same(given(v), wanted)


@contextlib.contextmanager
def stored(data):
    """A volume with a file that the kernel has nothing of, its path, and a descriptor that reads it."""
    with Volume() as v:
        p = v.path("f")
        put(p, data)
        v.remount()
        with open(p, "rb", buffering=0) as f:
            yield v, p, f.fileno()


def arrives():
    data = text(random.Random(1), 4 * MIB)
    with stored(data) as (v, _, fd):
        same(os.pread(fd, 100, 2 * MIB + 20000), data[2 * MIB + 20000 :][:100])
        wait_given(v, FRAME)
        reads = amount(stats(v)["apfs_read_seconds"])
        for off in random.Random(2).sample(range(2 * MIB, 2 * MIB + FRAME, BLOCK), FRAME // BLOCK):
            same(os.pread(fd, BLOCK, off), data[off : off + BLOCK])
        same(amount(stats(v)["apfs_read_seconds"]), reads)
        # the file's end
        same(os.pread(fd, 10, 4 * MIB - 50000), data[4 * MIB - 50000 :][:10])
        wait_given(v, 2 * FRAME)
        same(os.pread(fd, FRAME, 4 * MIB - 100), data[-100:])
        same(os.fstat(fd).st_size, len(data))


def whole_pages():
    """What lies behind a file's end in its last page is nobody's: it is zero when the file becomes longer."""
    size = 2 * MIB + 5 * BLOCK - 1000
    data = text(random.Random(4), size)
    with stored(data) as (v, p, fd):
        same(os.pread(fd, 10, 2 * MIB + 100), data[2 * MIB + 100 :][:10])
        wait_given(v, 4 * BLOCK)
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
            same(m[2 * MIB :], data[2 * MIB :])
        with open(p, "r+b") as f:
            os.pwrite(f.fileno(), b"end", size + 500)
            same(os.pread(f.fileno(), BLOCK, size - 100), data[-100:] + bytes(500) + b"end")


def not_to_writers():
    """Nor while somebody else may write: what a program puts into the cache is not overwritten."""
    data = text(random.Random(3), MIB)
    with stored(data) as (v, p, fd):
        with open(p, "r+b"):
            same(os.pread(fd, 10, 500000), data[500000:500010])
            time.sleep(0.3)
            same(given(v), 0)
        same(os.pread(fd, 10, 800000), data[800000:800010])
        wait_given(v, FRAME)


def not_damaged():
    """Nothing of a frame that does not open, and what the others hold."""
    data = text(random.Random(5), MIB)
    with Volume() as v:
        p = v.path("f")
        put(p, data)
        v.umount()
        (segment,) = v.segments()
        flip(segment, os.path.getsize(segment) // 2)
        v.mount()
        lost = []
        with open(p, "rb", buffering=0) as f:
            for n, off in enumerate(range(20000, MIB, FRAME)):
                try:
                    same(os.pread(f.fileno(), 10, off), data[off : off + 10])
                except OSError as e:
                    same(e.errno, errno.EIO)
                    lost.append(off)
                wait_given(v, (n + 1 - len(lost)) * FRAME)
            check(len(lost) == 1, f"lost: {lost}")
            frame = lost[0] // FRAME * FRAME
            for off in range(0, MIB, BLOCK):
                if frame <= off < frame + FRAME:
                    same(errno_of(lambda at=off: os.pread(f.fileno(), BLOCK, at)), errno.EIO)
                else:
                    same(os.pread(f.fileno(), BLOCK, off), data[off : off + BLOCK])


def block(number, version):
    return struct.pack("<QQ", number, version) * (BLOCK // 16)


def until_end(begin, end, work, *args):
    rng = random.Random(begin)
    rounds = 0
    while time.monotonic() < end:
        work(rng, *args)
        rounds += 1
    check(rounds > 10, f"{work.__name__}: {rounds} rounds")


def read_around(rng, path, size):
    """Pages here and there, out of the kernel's cache now and then."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(rng.randrange(1, 40)):
            os.pread(fd, 16, rng.randrange(size // BLOCK) * BLOCK)
    finally:
        os.close(fd)


def write_own(rng, path, own, versions, pause):
    """A new version of one of the blocks that only this process writes, looked at through the same file and others."""
    time.sleep(rng.random() * pause) # now and then nobody has it open for writing
    number = rng.choice(own)
    old, new = block(number, versions[number]), block(number, versions[number] + 1)
    fd = os.open(path, os.O_RDWR)
    try:
        check(os.pread(fd, BLOCK, number * BLOCK) == old, f"block {number}: not version {versions[number]}")
        os.pwrite(fd, new, number * BLOCK)
        check(os.pread(fd, BLOCK, number * BLOCK) == new, f"block {number}: not what was written just now")
    finally:
        os.close(fd)
    versions[number] += 1
    fd = os.open(path, os.O_RDONLY)
    try:
        check(os.pread(fd, BLOCK, number * BLOCK) == new, f"block {number}: lost after close")
    finally:
        os.close(fd)


def cut_and_grow(rng, path, size):
    """The file's length, behind what the others write, without a handle for writing."""
    length = size + rng.randrange(0, FRAME)
    os.truncate(path, length)
    same(os.stat(path).st_size, length)
    with open(path, "rb") as f:
        f.seek(length - BLOCK // 2)
        same(len(f.read(BLOCK)), BLOCK // 2)
    same(os.stat(path).st_size, length)
    if rng.randrange(3) == 0:
        with open(path, "ab") as f:
            f.write(block(0, 0) * (FRAME // BLOCK))
            f.flush()
            os.fsync(f.fileno())


def killed():
    """The daemon amid of it: nobody hangs, and all is there after."""
    data = text(random.Random(6), 4 * MIB)
    for _ in range(4):
        with stored(data) as (v, p, _):
            fork = multiprocessing.get_context("fork")
            readers = [fork.Process(target=read_until_gone, args=(n, p, len(data))) for n in range(3)]
            for r in readers:
                r.start()
            time.sleep(0.5)
            check(given(v) > 0, "nothing was given")
            v.kill()
            for r in readers:
                r.join(30)
            same([r.exitcode for r in readers], [0] * len(readers))
            v.mount()
            same(get(p), data)


def read_until_gone(begin, path, size):
    rng = random.Random(begin)
    try:
        while True:
            read_around(rng, path, size)
    except OSError as e:
        same(e.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO), True)


def race(threads, writers, readers, cutters):
    size = 32 * FRAME
    with Volume("--threads", str(threads)) as v:
        p = v.path("f")
        put(p, b"".join(block(n, 0) for n in range(size // BLOCK)))
        v.remount()
        end = time.monotonic() + SECONDS
        fork = multiprocessing.get_context("fork")
        versions = fork.Array("Q", size // BLOCK, lock=False) # each one's by one writer
        begin = itertools.count(seed())
        own = [range(w, size // BLOCK, writers) for w in range(writers)]
        jobs = [fork.Process(target=until_end, args=(next(begin), end, write_own, p, o, versions, PAUSE * writers))
                for o in own]
        jobs += [fork.Process(target=until_end, args=(next(begin), end, read_around, p, size + FRAME // 2))
                 for _ in range(readers)]
        jobs += [fork.Process(target=until_end, args=(next(begin), end, cut_and_grow, p, size)) for _ in range(cutters)]
        for j in jobs:
            j.start()
        try:
            for j in jobs:
                j.join()
        finally:
            for j in jobs:
                j.kill()
        same([j.exitcode for j in jobs], [0] * len(jobs))
        check(given(v) > MIB, "hardly anything was given")
        v.remount()
        with open(p, "rb") as f:
            for number in range(size // BLOCK):
                check(f.read(BLOCK) == block(number, versions[number]), f"block {number}: other data after a remount")


def races():
    race(8, 2, 2, 1)


def races_of_many():
    """More writers than there are threads to answer them, and no room for one to wait."""
    race(4, 12, 4, 1)


if __name__ == "__main__":
    main(arrives, whole_pages, not_to_writers, not_damaged, killed, races, races_of_many)
