"""Holes: finding, allocating and making them, st_blocks, and the programs that look for holes.

APFS_REFEREE=DIR runs it in a directory of another filesystem instead, which shows what the tests demand.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import random
import stat
import tempfile
import time

from apfsmount import MIB, NIGHTLY, SANITIZED, Volume, check, file_hash, get, main, need, put, run, text, wait_for

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE, INSERT = 1, 2, 8, 16, 32
REFEREE = os.environ.get("APFS_REFEREE")
ROOT = os.getuid() == 0
BLOCK = 4096


class Plain:
    """A directory in the place of a mount."""

    def __init__(self, path):
        self.mnt = path

    def path(self, *parts):
        return os.path.join(self.mnt, *parts)

    def remount(self):
        os.sync()

    sync = remount


@contextlib.contextmanager
def place(*options):
    if REFEREE:
        with tempfile.TemporaryDirectory(dir=REFEREE) as folder:
            os.chmod(folder, 0o755)
            yield Plain(folder)
    else:
        with Volume("-o", "allow_other", *options) as v:
            for folder in (v.root, v.mnt):
                os.chmod(folder, 0o755)
            yield v


def fallocate(fd, mode, off, length):
    if LIBC.fallocate64(fd, mode, off, length):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fails(code, function, *args):
    try:
        function(*args)
    except OSError as e:
        check(e.errno == code, f"{function.__name__}{args}: {e}, not {errno.errorcode[code]}")
        return
    raise AssertionError(f"{function.__name__}{args} succeeded, not {errno.errorcode[code]}")


def same(found, expected):
    check(found == expected, f"{found!r}, not {expected!r}")


def blocks(path):
    return os.stat(path).st_blocks


def data_map(path):
    """What SEEK_DATA and SEEK_HOLE say."""
    found = []
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            same(e.errno, errno.ENXIO)
            break
        check(at <= begin < size, f"SEEK_DATA from {at} gives {begin}")
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        check(begin < at <= size, f"SEEK_HOLE from {begin} gives {at}")
        found.append((begin, at))
    os.close(fd)
    return found


def settled_map(path):
    """The same, once the last writer's close has been seen: until then all of a file may count as data."""
    for _ in range(100):
        found = data_map(path)
        if found != [(0, os.path.getsize(path))]:
            break
        time.sleep(0.02)
    return found


def write_at(path, *pieces, size=None):
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    for off, data in pieces:
        os.pwrite(fd, data, off)
    if size is not None:
        os.ftruncate(fd, size)
    os.close(fd)


def expect_data(path, pieces, granularity=65536):
    """Each piece is found as data, and what lies further than the granularity from all of them is not."""
    found = settled_map(path)
    for off, length in pieces:
        check(any(a <= off and off + length <= b for a, b in found), f"data at {off} is not found: {found}")
    for a, b in found:
        near = [(o, o + n) for o, n in pieces if o < b and a < o + n]
        check(near, f"data is found at {a} to {b}, and there is none")
        check(min(o for o, _ in near) - a <= granularity and b - max(e for _, e in near) <= granularity, f"{found}")


def seeks():
    with place() as v:
        rng = random.Random(1)
        p = v.path("f")
        pieces = [(0, 10000), (MIB, 1), (5 * MIB + 77, 200000), ((1 << 34) + 4096, 4096)]
        write_at(p, *((off, rng.randbytes(n)) for off, n in pieces), size=1 << 35)
        for _ in range(2):
            expect_data(p, pieces)
            v.remount()
        fd = os.open(p, os.O_RDWR)
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            fails(errno.ENXIO, os.lseek, fd, 1 << 35, whence)
            fails(errno.ENXIO, os.lseek, fd, (1 << 35) + 1, whence)
            fails(errno.ENXIO, os.lseek, fd, -1, whence)
        fails(errno.EINVAL, os.lseek, fd, 0, 9)
        os.close(fd)
        put(v.path("empty"), b"")
        os.truncate(v.path("empty"), MIB)
        wait_for(lambda: data_map(v.path("empty")) == [], 5, "a file that is one hole has data")


def seeks_unwritten():
    """What the kernel holds and nobody has been given yet is data: through the handle that wrote it, and others."""
    with place() as v:
        p = v.path("f")
        fd = os.open(p, os.O_CREAT | os.O_RDWR, 0o644)
        for n in range(40):
            off = n * 3 * MIB + 12345
            os.pwrite(fd, b"d" * 5000, off)
            other = os.open(p, os.O_RDONLY)
            for f in (fd, other):
                data = os.lseek(f, off, os.SEEK_DATA)
                same(data, off)
                begin = os.lseek(f, off - 2 * MIB if n else 0, os.SEEK_DATA)
                check(begin <= off, f"data at {off} is passed over for {begin}")
                hole = os.lseek(f, off, os.SEEK_HOLE)
                same(hole, off + 5000)
                fails(errno.ENXIO, os.lseek, f, off + 5000, os.SEEK_DATA)
                fails(errno.ENXIO, os.lseek, f, off + 5000, os.SEEK_HOLE)
            os.close(other)
        os.ftruncate(fd, 1 << 30)
        same(os.lseek(fd, (1 << 30) - 1, os.SEEK_HOLE), (1 << 30) - 1 if REFEREE else 1 << 30)
        os.ftruncate(fd, 100)
        fails(errno.ENXIO, os.lseek, fd, 100, os.SEEK_DATA)
        with mmap.mmap(fd, 100) as m:
            m[50:60] = b"0123456789"
            same(os.lseek(fd, 50, os.SEEK_DATA), 50)
        os.close(fd)
        # Many who write and seek at once.
        script = """
import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644)
end = 0
for n in range(60):
    os.pwrite(fd, bytes([n + 1]) * 9000, end)
    end += 9000
    assert os.lseek(fd, end - 9000, os.SEEK_DATA) == end - 9000
    assert os.lseek(fd, end - 1, os.SEEK_HOLE) == end
"""
        workers = [f"python3 -c '{script}' {v.path(str(n))} || exit 1 &" for n in range(12)]
        run("bash", "-c", "\n".join(workers) + "\nfor job in $(jobs -p); do wait $job || exit 1; done", timeout=120)


def allocates():
    with place() as v:
        p = v.path("f")
        fd = os.open(p, os.O_CREAT | os.O_RDWR, 0o644)
        fallocate(fd, 0, 0, 100000)
        same(os.fstat(fd).st_size, 100000)
        same(os.pread(fd, 100001, 0), bytes(100000))
        os.pwrite(fd, b"x" * 50000, 25000)
        fallocate(fd, 0, 0, 60000)
        fallocate(fd, KEEP_SIZE, 50000, 500000)
        same(os.fstat(fd).st_size, 100000)
        fallocate(fd, KEEP_SIZE, MIB, MIB)
        same(os.fstat(fd).st_size, 100000)
        fallocate(fd, 0, MIB, 17)
        same(os.fstat(fd).st_size, MIB + 17)
        same(os.pread(fd, MIB, 0), bytes(25000) + b"x" * 50000 + bytes(MIB - 75000))
        for mode in (0, KEEP_SIZE, ZERO_RANGE, PUNCH_HOLE | KEEP_SIZE):
            fails(errno.EINVAL, fallocate, fd, mode, 0, 0)
            fails(errno.EINVAL, fallocate, fd, mode, -1, 10)
            fails(errno.EINVAL, fallocate, fd, mode, 10, -1)
        fails(errno.EFBIG, fallocate, fd, 0, (1 << 63) - 10, 11)
        if not REFEREE:  # ext4 takes all the space that there is before it says so
            fails(errno.ENOSPC, fallocate, fd, 0, 0, 1 << 60)
        same(os.fstat(fd).st_size, MIB + 17)
        fails(errno.EOPNOTSUPP, fallocate, fd, PUNCH_HOLE, 0, BLOCK)
        fails(errno.EOPNOTSUPP, fallocate, fd, PUNCH_HOLE | ZERO_RANGE | KEEP_SIZE, 0, BLOCK)
        if not REFEREE:
            fails(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE, 0, BLOCK)
            fails(errno.EOPNOTSUPP, fallocate, fd, INSERT, 0, BLOCK)
        os.close(fd)
        fd = os.open(p, os.O_RDONLY)
        fails(errno.EBADF, fallocate, fd, 0, 0, BLOCK)
        os.close(fd)
        fails(errno.ESPIPE, fallocate, os.pipe()[1], 0, 0, BLOCK)
        v.remount()
        same(get(p), bytes(25000) + b"x" * 50000 + bytes(MIB + 17 - 75000))
        run("fallocate", "-l", "3M", v.path("tool"))
        same(os.path.getsize(v.path("tool")), 3 * MIB)


def zeroes():
    """Punching and zeroing against a copy in memory, with what is in the kernel's cache, mapped, and stored."""
    with place() as v:
        rng = random.Random(3)
        p = v.path("f")
        size = 2 * MIB + 1234
        expected = bytearray(rng.randbytes(size))
        put(p, expected)
        for turn in range(3):
            fd = os.open(p, os.O_RDWR)
            with mmap.mmap(fd, size) as m:
                for n in range(60):
                    off = rng.randrange(size)
                    length = rng.choice((1, 100, BLOCK, 10 * BLOCK, 100000))
                    if n % 2:
                        off -= off % BLOCK
                    if n % 3 == 0:
                        some = rng.randbytes(min(length, size - off))
                        if n % 2:
                            m[off : off + len(some)] = some
                        else:
                            os.pwrite(fd, some, off)
                        expected[off : off + len(some)] = some
                        continue
                    mode = rng.choice((PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE | KEEP_SIZE))
                    fallocate(fd, mode, off, length)
                    end = min(off + length, size)
                    expected[off:end] = bytes(end - off)
                    check(m[off:end] == bytes(end - off), "a mapping shows what was punched out")
                    if n % 20 == 7:
                        os.fsync(fd)
                check(m[:] == expected, "a mapping differs")
            same(os.fstat(fd).st_size, size)
            check(os.pread(fd, size, 0) == expected, f"turn {turn}: other data is read")
            os.close(fd)
            v.remount()
            check(get(p) == expected, f"turn {turn}: other data after a remount")
        fd = os.open(p, os.O_RDWR)
        fallocate(fd, ZERO_RANGE, size - 10, 1000)
        same(os.fstat(fd).st_size, size + 990)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, size + 5 * MIB, MIB)
        same(os.fstat(fd).st_size, size + 990)
        os.close(fd)
        expected[size - 10 :] = bytes(1000)
        v.remount()
        check(get(p) == expected, "zeroing the end")


def marks():
    """Times, and set-id bits, of the file that is changed."""
    with place() as v:
        p = v.path("f")
        put(p, b"x" * 20000)
        for mode in (0, KEEP_SIZE, ZERO_RANGE, PUNCH_HOLE | KEEP_SIZE):
            fd = os.open(p, os.O_RDWR)
            os.utime(fd, ns=(1, 2))
            before = os.fstat(fd).st_ctime_ns
            time.sleep(0.02)
            fallocate(fd, mode, 0, BLOCK)
            st = os.fstat(fd)
            check(st.st_mtime_ns > 10**18 and st.st_ctime_ns > before, f"mode {mode} leaves the times")
            os.close(fd)
            check(os.stat(p).st_mtime_ns > 10**18, f"closing after mode {mode} brings old times back")
        if not ROOT:
            return
        os.chmod(p, 0o6777)
        fd = os.open(p, os.O_RDWR)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, BLOCK)
        same(stat.S_IMODE(os.fstat(fd).st_mode), 0o6777)
        os.close(fd)
        for mode in (0, PUNCH_HOLE | KEEP_SIZE):
            os.chmod(p, 0o6777)
            script = f"""
import ctypes, os
os.setgid(1234); os.setuid(1234)
f = os.open({p!r}, os.O_RDWR)
assert ctypes.CDLL(None).fallocate64(f, {mode}, ctypes.c_int64(0), ctypes.c_int64(30000)) == 0
"""
            run("python3", "-c", script)
            same(stat.S_IMODE(os.stat(p).st_mode), 0o777)


def usage():
    """st_blocks: never 0 for data, at once; of what is stored; less after holes were made."""
    with place() as v:
        p = v.path("f")
        put(p, b"")
        wait_for(lambda: blocks(p) == 0, 5, "an empty file takes blocks")  # its writer's close has been seen
        same(blocks(p), 0)
        fd = os.open(p, os.O_WRONLY)
        os.write(fd, b"1")  # which the kernel holds
        check(os.fstat(fd).st_blocks > 0 and blocks(p) > 0, "right after a write, before anybody closes the file")
        new = os.open(v.path("new"), os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(new, b"1")
        check(os.fstat(new).st_blocks > 0, "right after the write of a new file")
        os.close(new)
        out = run("stat", "-c", "%b %s", p).split()
        check(int(out[0]) > 0 and out[1] == "1", f"right after a write: {out}")
        os.write(fd, b"2" * MIB)
        check(blocks(p) > 0, "right after a large write")
        os.fsync(fd)
        check(blocks(p) > 0, "after fsync")
        os.close(fd)
        check(blocks(p) > 0, "after close")
        v.remount()
        check(blocks(p) > 0, "after a remount")
        os.truncate(p, 0)
        same(blocks(p), 0)
        os.truncate(p, 1 << 40)
        check(blocks(p) <= 16, "a hole takes blocks")
        # what does not compress takes its size, within what a record adds
        rng = random.Random(5)
        q = v.path("random")
        put(q, rng.randbytes(4 * MIB))
        v.sync()
        for _ in range(2):
            check(4 * MIB <= 512 * blocks(q) <= 4.5 * MIB, f"4 MiB take {blocks(q)} blocks")
            v.remount()
        fd = os.open(q, os.O_RDWR)
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, MIB, 2 * MIB)
        check(2 * MIB <= 512 * blocks(q) <= 2.5 * MIB, f"after punching: {blocks(q)} blocks")
        os.close(fd)
        v.sync()
        v.remount()
        check(2 * MIB <= 512 * blocks(q) <= 2.5 * MIB, f"after punching and a remount: {blocks(q)} blocks")
        check(2048 <= int(run("du", "-k", q).split()[0]) <= 2560, "du")
        same(int(run("du", "-k", "--apparent-size", q).split()[0]), 4096)
        # a sparse file that is overwritten again and again
        s = v.path("image")
        write_at(s, size=1 << 32)
        for _ in range(6):
            fd = os.open(s, os.O_RDWR)
            os.pwrite(fd, rng.randbytes(MIB), 1 << 30)
            os.pwrite(fd, rng.randbytes(BLOCK), 3 << 30)
            os.fsync(fd)
            os.close(fd)
        v.sync()
        v.remount()
        check(MIB <= 512 * blocks(s) <= 1.5 * MIB, f"a MiB written six times takes {blocks(s)} blocks")
        os.truncate(s, 100)
        check(blocks(s) <= 16, "cut to a hole")


def programs():
    """Copies keep what there is and, where they are asked to, its holes; right after the write, too."""
    need("cp", "rsync", "tar", "qemu-img")
    rng = random.Random(7)
    with place() as v:
        pieces = [(3 * MIB, 300000), (7 * MIB + 5, 10), (13 * MIB, MIB)]
        wrote = [(off, text(rng, n) if n > 1000 else b"z" * n) for off, n in pieces]
        for turn in range(2):
            src = v.path(f"src{turn}")
            write_at(src, *wrote, size=(64 if NIGHTLY else 24) * MIB)
            copies(v, src, f"new{turn}")  # right after the write
            v.remount()
            copies(v, src, f"old{turn}")
            expect_data(src, pieces)
        # a file whose writer has not closed it
        src = v.path("open")
        fd = os.open(src, os.O_CREAT | os.O_RDWR, 0o644)
        for off, data in wrote:
            os.pwrite(fd, data, off)
        copies(v, src, "open")
        os.close(fd)


def copies(v, src, name):
    want = file_hash(src)
    size = os.path.getsize(src)
    for how in ("auto", "always", "never"):
        to = v.path(f"{name}.cp.{how}")
        run("cp", f"--sparse={how}", "--reflink=never", src, to)
        check(file_hash(to) == want, f"cp --sparse={how}")
        if how == "always":
            wait_for(lambda to=to: 512 * blocks(to) < 4 * MIB, 5, f"cp --sparse=always: {blocks(to)} blocks")
            check(len(settled_map(to)) > 1, "cp --sparse=always wrote zeroes")
    to = v.path(f"{name}.rsync")
    run("rsync", "-S", src, to)
    check(file_hash(to) == want, "rsync -S")
    check(len(settled_map(to)) > 1, "rsync -S wrote zeroes")
    folder, base = os.path.split(src)
    tar = v.path(f"{name}.tar")
    run("tar", "-C", folder, "-cSf", tar, base)
    out = v.path(f"{name}.untar")
    os.mkdir(out)
    run("tar", "-C", out, "-xSf", tar)
    check(file_hash(os.path.join(out, base)) == want, "tar -S")
    to = v.path(f"{name}.qcow2")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", src, to)
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", src, to)
    back = v.path(f"{name}.raw")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", to, back)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", src, back)
    check(os.path.getsize(back) >= size and get(back)[:size] == get(src), "qemu-img convert")
    check(512 * blocks(back) < 8 * MIB, "qemu-img wrote zeroes")
    run("fallocate", "-d", back)
    check(get(back)[:size] == get(src), "fallocate -d")


if __name__ == "__main__":
    # Sanitized, programs are long, and the calls that they make are those above.
    main(seeks, seeks_unwritten, allocates, zeroes, marks, usage, *([programs] if NIGHTLY or not SANITIZED else []))
