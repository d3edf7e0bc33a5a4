"""copy_file_range as a clone: at once, without taking space, and independent; and the programs that use it.

APFS_REFEREE=DIR runs it in a directory of another filesystem instead, one with reflinks where space is looked at.
"""

import errno
import fcntl
import os
import random
import stat
import threading
import time

from apfsmount import MIB, NIGHTLY, SANITIZED, check, file_hash, get, main, need, put, run, tool
from test_sparse import KEEP_SIZE, PUNCH_HOLE, REFEREE, ROOT, fails, fallocate, place, same

FICLONE, FICLONERANGE = 0x40049409, 0x4020940D


def clone(src, dst, length, off=None, to=None):
    """All of it, however many calls that takes."""
    done = 0
    while done < length:
        n = os.copy_file_range(
            src, dst, length - done, None if off is None else off + done, None if to is None else to + done
        )
        if not n:
            break
        done += n
    return done


def copy(src, dst):
    a, b = os.open(src, os.O_RDONLY), os.open(dst, os.O_CREAT | os.O_RDWR, 0o644)
    same(clone(a, b, os.fstat(a).st_size), os.fstat(a).st_size)
    os.close(a)
    os.close(b)


def checked(v):
    """Unmounts, looks at every byte of STORE, and mounts."""
    if REFEREE:
        return
    v.umount()
    run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store)
    v.mount()


def quick():
    """A large file: milliseconds, and no space."""
    size = (1024 if NIGHTLY else 32 if SANITIZED else 128) * MIB
    rng = random.Random(11)
    with place() as v:
        src = v.path("src")
        with open(src, "wb") as f:
            block = rng.randbytes(4 * MIB)
            for n in range(size // len(block)):
                f.write(n.to_bytes(8, "little") + block[8:])
        v.sync()
        want = file_hash(src)
        before = None if REFEREE else v.usage()
        begin = time.monotonic()
        copy(src, v.path("dst"))
        took = time.monotonic() - begin
        check(SANITIZED or took < 0.5, f"cloning {size // MIB} MiB took {took:.3f} s")
        run("cp", "--reflink=auto", src, v.path("cp"))
        run("cp", src, v.path("cp2"))
        for n in range(30):
            copy(v.path("dst"), v.path(f"dst{n}"))
        v.sync()
        if before:
            check(v.usage() - before < 8 * MIB, f"clones took {(v.usage() - before) / MIB:.1f} MiB")
        for name in ("dst", "cp", "cp2", "dst29"):
            check(file_hash(v.path(name)) == want, f"{name} differs")
        os.unlink(src)
        for n in range(29):
            os.unlink(v.path(f"dst{n}"))
        checked(v)
        for name in ("dst", "cp", "cp2", "dst29"):
            check(file_hash(v.path(name)) == want, f"{name} differs without its source")


def answers():
    with place() as v:
        p, q = v.path("p"), v.path("q")
        data = random.Random(2).randbytes(300000)
        put(p, data)
        put(q, b"")
        a, b = os.open(p, os.O_RDWR), os.open(q, os.O_RDWR)
        same(os.copy_file_range(a, b, 0, 0, 0), 0)
        same(os.copy_file_range(a, b, 100, 300000, 0), 0)
        same(os.copy_file_range(a, b, 100, 299990, 5), 10)
        same(get(q), bytes(5) + data[-10:])
        same(os.copy_file_range(a, b, 1 << 40, 0, 0), 300000)
        same(get(q), data)
        fails(errno.EINVAL, os.copy_file_range, a, a, 100, 0, 50)
        same(os.copy_file_range(a, a, 100, 0, 100), 100)
        same(os.copy_file_range(a, a, 1000, 0, 400000), 1000)
        data = data[:100] + data[:100] + data[200:] + bytes(100000)
        data += data[:1000]
        same(get(p), data)
        # offsets of the files themselves
        os.lseek(a, 1000, os.SEEK_SET)
        os.lseek(b, 0, os.SEEK_SET)
        same(os.copy_file_range(a, b, 500), 500)
        same((os.lseek(a, 0, os.SEEK_CUR), os.lseek(b, 0, os.SEEK_CUR)), (1500, 500))
        same(get(q)[:500], data[1000:1500])
        ro, wo = os.open(p, os.O_RDONLY), os.open(q, os.O_WRONLY)
        fails(errno.EBADF, os.copy_file_range, wo, b, 1)
        fails(errno.EBADF, os.copy_file_range, a, ro, 1)
        ap = os.open(q, os.O_WRONLY | os.O_APPEND)
        fails(errno.EBADF, os.copy_file_range, a, ap, 1)
        folder = os.open(v.mnt, os.O_RDONLY)
        fails(errno.EISDIR, os.copy_file_range, folder, b, 1)
        pipe = os.pipe()
        fails(errno.EINVAL, os.copy_file_range, pipe[0], b, 1)
        for request, arg in ((FICLONE, a), (FICLONERANGE, a.to_bytes(8, "little") + bytes(24))):
            if not REFEREE:  # the kernel does not hand it on to FUSE
                fails(errno.EOPNOTSUPP, fcntl.ioctl, b, request, arg)
        for fd in (a, b, ro, wo, ap, folder, *pipe):
            os.close(fd)
        v.remount()
        same(get(p), data)
        status, out = run("cp", "--reflink=always", p, v.path("r"), status=None)
        check(REFEREE or (status and "not supported" in out), f"cp --reflink=always: {status} {out}")


def marks():
    """Times and set-id bits of the target; and nothing of the source changes."""
    with place() as v:
        p, q = v.path("p"), v.path("q")
        put(p, b"s" * 100000)
        put(q, b"")
        os.utime(p, ns=(5, 6))
        os.utime(q, ns=(5, 6))
        before = os.stat(p)
        copy(p, q)
        after = os.stat(p)
        same((after.st_mtime_ns, after.st_ctime_ns, after.st_size), (6, before.st_ctime_ns, 100000))
        st = os.stat(q)
        check(st.st_mtime_ns > 10**18 and st.st_size == 100000 and st.st_blocks > 0, f"{st}")
        v.remount()
        same((os.stat(q).st_mtime_ns, os.stat(p).st_mtime_ns), (st.st_mtime_ns, 6))
        if ROOT:
            os.chmod(q, 0o6777)
            os.chmod(p, 0o644)
            script = f"""
import os
os.setgid(1234); os.setuid(1234)
a, b = os.open({p!r}, os.O_RDONLY), os.open({q!r}, os.O_RDWR)
assert os.copy_file_range(a, b, 100) == 100
"""
            run("python3", "-c", script)
            same(stat.S_IMODE(os.stat(q).st_mode), 0o777)


def synchronous():
    """Into a file that was opened for synchronous writes: there when the call returns, whatever becomes of the daemon."""
    if REFEREE:
        return
    with place("--commit-interval", "1h") as v:
        data = random.Random(3).randbytes(300000)
        put(v.path("src"), data)
        flags = {"sync": os.O_SYNC, "dsync": os.O_DSYNC}
        for name in flags:
            put(v.path(name), data[::-1])
        v.sync()
        src = os.open(v.path("src"), os.O_RDONLY)
        for name, flag in flags.items():
            for path in (v.path(name), v.path(name + "_new")):
                fd = os.open(path, os.O_CREAT | os.O_WRONLY | flag)
                same(clone(src, fd, 200000, 0, 4096), 200000)
                os.close(fd)
            fd = os.open(v.path(name), os.O_WRONLY | flag)
            fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 250000, 20000)
            os.close(fd)
        os.close(src)
        v.kill()
        v.mount()
        for name in flags:
            want = data[::-1][:4096] + data[:200000] + data[::-1][204096:250000] + bytes(20000) + data[::-1][270000:]
            check(get(v.path(name)) == want, f"{name} is not what it was when the calls returned")
            check(get(v.path(name + "_new")) == bytes(4096) + data[:200000], f"{name}_new is not, either")


class Shadow:
    """Files of the mount, and what each must hold."""

    def __init__(self, v, rng, names):
        self.v, self.rng = v, rng
        self.data = {name: bytearray() for name in names}
        self.fd = {name: os.open(v.path(name), os.O_CREAT | os.O_RDWR, 0o644) for name in names}

    def pick(self):
        return self.rng.choice(list(self.data))

    def span(self, size):
        off = self.rng.randrange(size + 1)
        length = self.rng.choice((1, 500, 4096, 40000, 300000, 2 * MIB))
        if self.rng.random() < 0.5:
            off, length = off // 4096 * 4096, (length + 4095) // 4096 * 4096
        return off, length

    def put(self, name, off, new):
        data = self.data[name]
        if len(data) < off:
            data.extend(bytes(off - len(data)))
        data[off : off + len(new)] = new

    def step(self):
        name, dice = self.pick(), self.rng.random()
        data, fd = self.data[name], self.fd[name]
        off, length = self.span(len(data))
        if dice < 0.3 or len(data) < 1000:
            new = self.rng.randbytes(min(length, 300000))
            os.pwrite(fd, new, off)
            self.put(name, off, new)
        elif dice < 0.75:
            other = self.pick()
            to, _ = self.span(len(self.data[other]))
            if self.rng.random() < 0.3:
                off, to, length = 0, 0, len(data)
            length = min(length, len(data) - off)
            if not length or (other == name and off < to + length and to < off + length):
                return
            new = bytes(data[off : off + length])
            same(clone(fd, self.fd[other], length, off, to), length)
            self.put(other, to, new)
        elif dice < 0.85:
            fallocate(fd, PUNCH_HOLE | KEEP_SIZE, off, length)
            end = min(off + length, len(data))
            data[off:end] = bytes(end - off)
        elif dice < 0.92:
            os.ftruncate(fd, off)
            del data[off:]
        elif dice < 0.96:
            os.fsync(fd)
        else:
            self.compare(name)
        if len(data) > 8 * MIB:
            os.ftruncate(fd, MIB)
            del data[MIB:]

    def compare(self, name):
        fd, data = self.fd[name], self.data[name]
        same(os.fstat(fd).st_size, len(data))
        check(os.pread(fd, len(data), 0) == data, f"{name} differs")

    def all(self):
        for name in self.data:
            self.compare(name)

    def reopen(self):
        for name in self.fd:
            self.fd[name] = os.open(self.v.path(name), os.O_RDWR)

    def close(self):
        for fd in self.fd.values():
            os.close(fd)


def churn():
    """Clones of clones and of ranges, written to, punched and cut, over remounts, kills and compaction."""
    rng = random.Random(21)
    with place("--commit-interval", "1s") if not REFEREE else place() as v:
        s = Shadow(v, rng, "abcde")
        for turn in range(12 if NIGHTLY else 4):
            for _ in range(30 if SANITIZED else 120):
                s.step()
            s.all()
            if turn % 4 == 1 and not REFEREE:
                v.sync()
                s.close()
                v.kill()
                v.mount()
            else:
                s.close()
                v.remount()
            s.reopen()
            s.all()
            if not REFEREE and turn % 2:
                run(tool("apfs"), "compact", "--all", v.mnt)
                s.all()
        s.close()
        checked(v)


def written():
    """A file that is being written while it is cloned: whole writes, in each place what was there at some time."""
    with place() as v:
        src = v.path("src")
        size = 4 * MIB
        put(src, b"\0" * size)
        stop = threading.Event()

        def work():
            fd = os.open(src, os.O_RDWR)
            n = 0
            while not stop.is_set():
                n = n % 250 + 1
                for off in range(0, size, 65536):
                    os.pwrite(fd, bytes([n]) * 65536, off)
            os.close(fd)

        writer = threading.Thread(target=work)
        writer.start()
        try:
            for n in range(10):
                copy(src, v.path(f"c{n}"))
        finally:
            stop.set()
            writer.join()
        found = [get(v.path(f"c{n}")) for n in range(10)]
        for data in found:
            same(len(data), size)
            for off in range(0, size, 4096):
                check(data[off : off + 4096] == data[off : off + 1] * 4096, f"a torn page at {off}")
        v.remount()
        check(found == [get(v.path(f"c{n}")) for n in range(10)], "clones differ after a remount")


def copies():
    """Trees: cp -a of files that were only just written, and of old ones."""
    need("cp", "diff")
    rng = random.Random(5)
    with place() as v:
        os.mkdir(v.path("tree"))
        for n in range(400):
            put(v.path("tree", f"f{n}"), rng.randbytes(rng.choice((0, 10, 3000, 20000, 150000))))
        for name in ("new", "old", "older"):
            run("cp", "-a", "--reflink=auto", v.path("tree"), v.path(name))
            run("diff", "-r", v.path("tree"), v.path(name))
            v.remount()
        run("rm", "-r", v.path("tree"))
        checked(v)
        run("diff", "-r", v.path("new"), v.path("older"))


if __name__ == "__main__":
    main(quick, answers, marks, synchronous, churn, written, copies)
