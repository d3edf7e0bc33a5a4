"""Random changes of files in every way there is, each compared with a copy in memory.

An Exerciser works on the files of one directory: written, appended, mapped, direct, truncated, punched, zeroed, copied,
synced, opened anew and forgotten by the cache. What is read is compared at once, all of it from time to time; so are
sizes, times, holes, and the zeroes behind the end of a mapped file.
"""

import ctypes
import errno
import mmap
import os
import time

from apfsmount import Failure

PAGE = mmap.PAGESIZE
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
TICK = 50_000_000  # ns: no clock of the kernel's is coarser
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
for name in ("pread", "pwrite"):
    getattr(LIBC, name).restype = ctypes.c_long
    getattr(LIBC, name).argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
LIBC.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_uint]


def checked(ret):
    if ret:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class File:
    """One file, its open descriptors, its mapping, and what it must hold."""

    def __init__(self, path, room):
        self.path, self.room = path, room
        self.data = bytearray()
        self.history = []  # (operation, first byte, end)
        self.stamps = None  # mtime and ctime, where no change was made since
        self.address = None
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        self.open()

    def open(self):
        self.fd = os.open(self.path, os.O_RDWR)
        self.append = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)

    def close(self):
        self.unmap()
        for fd in (self.fd, self.append, self.direct):
            os.close(fd)

    def map(self):
        """Room for all that the file may grow to."""
        if not self.address:
            self.address = LIBC.mmap(None, self.room, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, self.fd, 0)
            if self.address == ctypes.c_void_p(-1).value:
                raise OSError(ctypes.get_errno(), "mmap")
        return self.address

    def unmap(self):
        if self.address:
            checked(LIBC.munmap(self.address, self.room))
            self.address = None

    @property
    def size(self):
        return len(self.data)

    def put(self, off, data):
        if off > self.size:
            self.data += bytes(off - self.size)
        self.data[off : off + len(data)] = data

    def cut(self, size):
        self.data = self.data[:size] + bytes(max(0, size - self.size))


class Exerciser:
    def __init__(self, rng, folder, files=2, room=1 << 20, longest=1 << 17):
        self.r, self.longest = rng, longest
        self.files = [File(os.path.join(folder, f"f{n}"), room) for n in range(files)]
        self.f = self.files[0]
        self.buffer = mmap.mmap(-1, room + PAGE)  # as O_DIRECT wants it
        self.began = 0

    # --- choosing -----------------------------------------------------------------------------------------------------

    def span(self, inside=True):
        """(offset, length): within the file, or within what it may grow to; often at pages, and at the end."""
        r, f = self.r, self.f
        end = f.size if inside else f.room
        off = r.choice((r.randrange(end), r.randrange(end), max(0, f.size - r.randrange(2 * PAGE)), 0))
        off = min(off, end - 1)
        length = r.choice((1, r.randrange(1, 100), r.randrange(1, 2 * PAGE), r.randrange(1, self.longest)))
        if r.random() < 0.4:
            off -= off % PAGE
        if r.random() < 0.4:
            length = max(PAGE, length - length % PAGE)
        return off, min(length, end - off)

    def fill(self, length):
        r = self.r
        return r.choice((r.randbytes(length), bytes([r.randrange(1, 256)]) * length, bytes(length)))

    # --- telling ------------------------------------------------------------------------------------------------------

    def note(self, what, off=0, end=1 << 62):
        self.f.history.append((what, off, end))
        del self.f.history[:-400]

    def differs(self, how, off, found, expected):
        at = next((n for n, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        byte = off + at
        lines = [f"{w} [{a}, {e})" for w, a, e in self.f.history if a <= byte < e or e == 1 << 62][-40:]
        raise Failure(
            f"{self.f.path}: {how}: byte {byte} of {self.f.size} ({len(found)} bytes, {len(expected)} expected): "
            f"{found[at : at + 16].hex()} is not {bytes(expected[at : at + 16]).hex()}; what concerned it:\n" + "\n".join(lines)
        )

    def compare(self, how, off, found):
        expected = self.f.data[off : off + len(found)]
        if found != expected:
            self.differs(how, off, found, expected)

    # --- changes ------------------------------------------------------------------------------------------------------

    def write(self):
        off, length = self.span(False)
        data = self.fill(length)
        self.note("write", off, off + length)
        half = self.r.randrange(length + 1)
        self.expect(length, os.pwritev(self.f.fd, [data[:half], data[half:]], off))
        self.f.put(off, data)

    def append(self):
        f = self.f
        length = min(self.span(False)[1], f.room - f.size)
        self.note("append", f.size, f.size + length)
        data = self.fill(length)
        self.expect(length, os.write(f.append, data))
        f.put(f.size, data)

    def write_direct(self):
        off, length = self.span(False)
        off -= off % PAGE
        length = (length + PAGE - 1) // PAGE * PAGE
        length = min(length, self.f.room - off)
        self.note("direct write", off, off + length)
        self.buffer[:length] = self.fill(length)
        self.expect(length, os.pwritev(self.f.direct, [memoryview(self.buffer)[:length]], off))
        self.f.put(off, self.buffer[:length])

    def apart(self):
        """(offset in the mapping, offset, length), of whole pages that do not overlap."""
        f, r = self.f, self.r
        pages = f.size // PAGE
        n = r.randrange(1, max(2, min(pages // 2, 20)))
        source = r.randrange(pages - n + 1)
        to = r.choice([p for p in (r.randrange(pages), source - n, source + n) if p >= 0 and abs(p - source) >= n] or [None])
        if to is None or (to + n) * PAGE > f.room:
            return None
        return source * PAGE, to * PAGE, n * PAGE

    def write_mapped(self):
        """A write of what the file itself maps."""
        f = self.f
        which = self.apart() if f.size >= 2 * PAGE else None
        self.unchanged = not which
        if not which:
            return
        source, off, length = which
        direct = self.r.random() < 0.5
        self.note(f"{'direct ' * direct}write from its own mapping at {source}", off, off + length)
        self.expect(length, LIBC.pwrite(f.direct if direct else f.fd, f.map() + source, length, off))
        f.put(off, f.data[source : source + length])

    def read_mapped(self):
        """A read into what the file itself maps."""
        f = self.f
        which = self.apart() if f.size >= 2 * PAGE else None
        if not which or which[1] + which[2] > f.size:  # what a direct read leaves behind its end is nobody's business
            return
        to, off, length = which
        direct = self.r.random() < 0.5
        self.note(f"{'direct ' * direct}read of {off} into its own mapping", to, to + length)
        n = LIBC.pread(f.direct if direct else f.fd, f.map() + to, length, off)
        self.expect(length, n)
        f.data[to : to + n] = f.data[off : off + n]

    def store(self):
        off, length = self.span()
        self.note("store", off, off + length)
        data = self.fill(length)
        ctypes.memmove(self.f.map() + off, data, length)
        self.f.data[off : off + length] = data

    def truncate(self):
        f = self.f
        size = self.r.choice((0, self.r.randrange(f.room), f.size // 2, max(0, f.size - self.r.randrange(PAGE))))
        if self.r.random() < 0.3:
            size -= size % PAGE
        self.unchanged = size == f.size
        if self.unchanged:  # which of truncate and ftruncate change the times then is the kernel's business
            return
        self.note(f"truncate from {f.size} to {size}", min(f.size, size))
        if self.r.random() < 0.5:
            os.ftruncate(f.fd, size)
        else:
            os.truncate(f.path, size)
        f.cut(size)

    def open_truncated(self):
        self.note("O_TRUNC")
        os.close(os.open(self.f.path, os.O_WRONLY | os.O_TRUNC))
        self.f.cut(0)

    def allocate(self):
        f, r = self.f, self.r
        mode = r.choice((0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE))
        off, length = self.span(False)
        self.note(f"fallocate {mode}", off, off + length)
        checked(LIBC.fallocate(f.fd, mode, off, length))
        end = min(off + length, f.size)
        if mode & (PUNCH_HOLE | ZERO_RANGE) and off < end:
            f.data[off:end] = bytes(end - off)
        if not mode & KEEP_SIZE:
            f.cut(max(f.size, off + length))

    def copy(self):
        """Within a file, and between two."""
        to, r = self.f, self.r
        source = self.f = r.choice(self.files)
        if not source.size:
            self.f, self.unchanged = to, True
            return
        off, length = self.span()
        self.f = to
        to_off = r.choice((off % to.room, r.randrange(to.room), min(to.size, to.room - 1), to.size // 2))
        length = min(length, to.room - to_off)
        self.note(f"copy_file_range from {os.path.basename(source.path)} {off}", to_off, to_off + length)
        if source is to and off < to_off + length and to_off < off + length:
            try:
                os.copy_file_range(source.fd, to.fd, length, off, to_off)
            except OSError as e:
                self.expect(errno.EINVAL, e.errno)
                self.unchanged = True
                return
            raise Failure("copying a range over itself succeeded")
        data = bytes(source.data[off : off + length])
        done = 0
        while done < length:
            n = os.copy_file_range(source.fd, to.fd, length - done, off + done, to_off + done)
            if n <= 0:
                raise Failure(f"copy_file_range gives {n} after {done} of {length}")
            done += n
        to.put(to_off, data)

    def send(self):
        """sendfile, by way of a pipe inside of the kernel."""
        to, r = self.f, self.r
        source = self.f = r.choice(self.files)
        if source is to or not source.size:
            self.f, self.unchanged = to, True
            return
        off, length = self.span()
        self.f = to
        to_off = r.choice((r.randrange(to.room), min(to.size, to.room - 1)))
        length = min(length, to.room - to_off)
        self.note(f"sendfile from {os.path.basename(source.path)} {off}", to_off, to_off + length)
        os.lseek(to.fd, to_off, os.SEEK_SET)
        done = 0
        while done < length:
            n = os.sendfile(to.fd, source.fd, off + done, length - done)
            if n <= 0:
                raise Failure(f"sendfile gives {n} after {done} of {length}")
            done += n
        to.put(to_off, source.data[off : off + length])

    def set_times(self):
        f = self.f
        self.note("utime")
        os.utime(f.path, ns=(7, self.r.randrange(10**18)))
        st = os.fstat(f.fd)
        f.stamps = st.st_mtime_ns, st.st_ctime_ns

    # --- looks --------------------------------------------------------------------------------------------------------

    def read(self):
        off, length = self.span()
        found = os.pread(self.f.fd, length, off)
        self.expect(length, len(found))
        self.compare("read", off, found)

    def read_direct(self):
        off, length = self.span()
        off -= off % PAGE
        length = (length + PAGE - 1) // PAGE * PAGE
        n = os.preadv(self.f.direct, [memoryview(self.buffer)[:length]], off)
        self.expect(min(length, self.f.size - off), n)
        self.compare("direct read", off, self.buffer[:n])

    def load(self):
        off, length = self.span()
        self.compare("load", off, ctypes.string_at(self.f.map() + off, length))

    def load_behind(self):
        """A page that has just been mapped has zeroes behind the end of the file."""
        f = self.f
        rest = -f.size % PAGE
        if not f.size or not rest or f.address:
            return
        found = ctypes.string_at(f.map() + f.size, rest)
        if any(found):
            self.differs("behind the end, mapped", f.size, found, bytes(rest))

    def read_past(self):
        self.expect(b"", os.pread(self.f.fd, 100, self.f.size + self.r.randrange(2 * PAGE)))
        at = max(0, self.f.size - 50)
        self.compare("read across the end", at, os.pread(self.f.fd, 1000, at))

    def holes(self):
        """Nothing but zeroes is in a hole."""
        f, at = self.f, 0
        while at < f.size:
            try:
                begin = os.lseek(f.fd, at, os.SEEK_DATA)
            except OSError as e:
                self.expect(errno.ENXIO, e.errno)
                begin = f.size
            if any(f.data[at:begin]):
                self.differs("a hole with data", at, bytes(begin - at), f.data[at:begin])
            at = os.lseek(f.fd, begin, os.SEEK_HOLE) if begin < f.size else begin

    def sync(self):
        f, r = self.f, self.r
        way = r.randrange(5)
        self.note(("fsync", "fdatasync", "msync", "sync_file_range", "O_DSYNC")[way])
        if way == 0:
            os.fsync(f.fd)
        elif way == 1:
            os.fdatasync(f.append)
        elif way == 2 and f.address:
            checked(LIBC.msync(f.address, f.room, 4))  # MS_SYNC
        elif way == 3:
            checked(LIBC.sync_file_range(f.fd, 0, 0, 7))

    def forget(self):
        self.note("forget")
        os.posix_fadvise(self.f.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def reopen(self):
        self.note("reopen")
        self.f.close()
        self.f.open()

    def unmap(self):
        self.note("unmap")
        self.f.unmap()

    def whole(self):
        f = self.f
        found = os.pread(f.fd, f.room, 0)
        self.compare("all of it", 0, found)
        self.expect(f.size, len(found))

    # --- running ------------------------------------------------------------------------------------------------------

    def expect(self, expected, found):
        if found != expected:
            raise Failure(f"{self.f.path}: {found!r}, not {expected!r}, after {self.f.history[-10:]}")

    def check_times(self, changes):
        f, st = self.f, os.fstat(self.f.fd)
        self.expect(f.size, st.st_size)
        now = st.st_mtime_ns, st.st_ctime_ns
        if changes and not self.unchanged:
            if min(now) < self.began - TICK:
                raise Failure(f"{f.path}: times {now} are older than the change of {self.began}: {f.history[-5:]}")
        elif f.stamps and now != f.stamps and not f.address:  # a mapping may have been written to
            raise Failure(f"{f.path}: times went from {f.stamps} to {now} without a change: {f.history[-5:]}")
        f.stamps = now
        if any(f.data) and not st.st_blocks:
            raise Failure(f"{f.path}: no blocks: {f.history[-5:]}")

    def step(self):
        r = self.r
        self.f = r.choice(self.files)
        self.unchanged = False
        call = r.choices(*WAYS)[0]
        if not self.f.size and call in NEED_DATA or call == "append" and self.f.size == self.f.room:
            return
        before = self.f.size
        self.began = time.time_ns()
        getattr(self, call)()
        if self.unchanged:
            self.expect(before, self.f.size)
        if call not in ("set_times", "store", "read_mapped"):
            self.check_times(call in CHANGES)
        else:
            self.f.stamps = None if call != "set_times" else self.f.stamps

    def run(self, steps, end=float("inf")):
        for n in range(steps):
            if time.monotonic() > end:
                break
            self.step()
            if n % 50 == 49:
                self.everything()
        self.everything()

    def everything(self):
        for self.f in self.files:
            self.whole()
            self.holes()

    def verify(self):
        """After a remount; the descriptors are those from before it."""
        for self.f in self.files:
            with open(self.f.path, "rb") as f:
                found = f.read()
            self.compare("after a remount", 0, found)
            self.expect(self.f.size, len(found))

    def close(self):
        for f in self.files:
            f.close()


CHANGES = {"write", "append", "write_direct", "truncate", "open_truncated", "allocate", "copy", "send", "write_mapped"}
NEED_DATA = {"store", "read", "read_direct", "load", "load_behind"}
WAYS = tuple(zip(*{
    "write": 12, "append": 5, "write_direct": 6, "store": 10, "write_mapped": 3, "read_mapped": 3, "truncate": 5, "open_truncated": 0.3,
    "allocate": 8, "copy": 7, "send": 2, "set_times": 1, "read": 10, "read_direct": 5, "load": 8, "load_behind": 3,
    "read_past": 2, "holes": 1, "sync": 4, "forget": 3, "reopen": 3, "unmap": 3, "whole": 1,
}.items()))  # fmt: skip
