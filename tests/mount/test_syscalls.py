"""System calls about data: holes and maps."""

import errno
import mmap
import os
import random

from apfsmount import MIB, check, get, put
from calls import each, fails, same


def sparse(v):
    p = v.path("s")
    with open(p, "wb") as f:
        f.seek((1 << 53) - 1)
        f.write(b"z")
        f.seek(1 << 40)
        f.write(b"middle")
    v.remount()
    fd = os.open(p, os.O_RDONLY)
    same(os.fstat(fd).st_size, 1 << 53)
    same(os.pread(fd, 10, 1 << 40), b"middle\0\0\0\0")
    same(os.pread(fd, 4, (1 << 53) - 1), b"z")
    same(os.pread(fd, 4, 1 << 52), bytes(4))
    data = os.lseek(fd, 0, os.SEEK_DATA)
    check((1 << 40) - MIB <= data <= 1 << 40, f"the first data is at {data}")
    hole = os.lseek(fd, data, os.SEEK_HOLE)
    check((1 << 40) + 6 <= hole <= (1 << 40) + MIB, f"the hole after it is at {hole}")
    fails(errno.ENXIO, os.lseek, fd, 1 << 53, os.SEEK_DATA)
    os.close(fd)
    check(os.stat(p).st_blocks < 1000, "a sparse file takes blocks")
    os.truncate(p, 5)
    same(get(p), bytes(5))
    os.truncate(p, 100000)
    same(get(p), bytes(100000))


def maps(v):
    rng = random.Random(2)
    p = v.path("m")
    data = bytearray(rng.randbytes(3 * MIB + 123))
    put(p, data)
    with open(p, "r+b") as f:
        with mmap.mmap(f.fileno(), 0) as m:
            for _ in range(500):
                at = rng.randrange(len(data) - 100)
                piece = rng.randbytes(rng.randrange(1, 100))
                m[at : at + len(piece)] = piece
                data[at : at + len(piece)] = piece
            check(m[:] == data, "the mapping has other data")
            m.flush()
        check(get(p) == data, "read gives other data than was mapped")
        with mmap.mmap(f.fileno(), 0) as m:
            m[0:5] = b"begin"
            data[0:5] = b"begin"
    v.remount()
    check(get(p) == data, "other data after a remount")


def many_names(v):
    expected = {f"name {n}" for n in range(20000)}
    for name in expected:
        os.mknod(v.path(name))
    same(set(os.listdir(v.mnt)), expected)
    v.remount()
    same(set(os.listdir(v.mnt)), expected)
    # names that come and go while a listing is under way
    seen = []
    with os.scandir(v.mnt) as it:
        for n, entry in enumerate(it):
            seen.append(entry.name)
            if n % 40 == 0:
                os.unlink(v.path(f"name {n}"))
                put(v.path(f"new {n}"))
    same(len(seen), len(set(seen)))
    removed = {f"name {n}" for n in range(0, 20000, 40)}
    check(expected - removed <= set(seen), "names that stayed were not listed")
    check(not removed & set(os.listdir(v.mnt)), "removed names are listed")


if __name__ == "__main__":
    each(sparse, maps, many_names, root=False)
