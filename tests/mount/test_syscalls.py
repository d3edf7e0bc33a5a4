"""System calls on the mount, and their errors."""

import ctypes
import errno
import mmap
import os
import random
import socket
import stat
import threading

from apfsmount import MIB, Volume, check, get, main, need, put, run

LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100
ROOT = os.getuid() == 0


def renameat2(old, new, flags):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fails(code, function, *args, **more):
    try:
        function(*args, **more)
    except OSError as e:
        check(e.errno == code, f"{function.__name__}{args}: {e}, not {errno.errorcode[code]}")
        return
    raise AssertionError(f"{function.__name__}{args} succeeded, not {errno.errorcode[code]}")


def same(found, expected):
    check(found == expected, f"{found!r}, not {expected!r}")


def opens(v):
    p = v.path("f")
    fd = os.open(p, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    same(stat.S_IMODE(os.fstat(fd).st_mode), 0o640)
    fails(errno.EEXIST, os.open, p, os.O_CREAT | os.O_EXCL | os.O_RDWR)
    os.write(fd, b"0123456789")
    os.close(fd)
    fd = os.open(p, os.O_RDWR | os.O_TRUNC)
    same(os.fstat(fd).st_size, 0)
    os.close(fd)
    fails(errno.ENOENT, os.open, v.path("none"), os.O_RDONLY)
    fails(errno.ENOTDIR, os.open, v.path("f", "x"), os.O_RDONLY)
    fails(errno.EISDIR, os.open, v.mnt, os.O_RDWR)
    fails(errno.ENOTDIR, os.open, p, os.O_RDONLY | os.O_DIRECTORY)
    fails(errno.ENAMETOOLONG, os.open, v.path("n" * 256), os.O_CREAT | os.O_RDWR)
    put(v.path("n" * 255))
    fd = os.open(p, os.O_RDONLY)
    fails(errno.EBADF, os.write, fd, b"x")
    os.close(fd)
    fd = os.open(p, os.O_WRONLY)
    fails(errno.EBADF, os.read, fd, 1)
    os.close(fd)
    os.symlink("loop", v.path("loop"))
    fails(errno.ELOOP, os.open, v.path("loop"), os.O_RDONLY)
    fails(errno.ELOOP, os.open, v.path("loop"), os.O_RDONLY | os.O_NOFOLLOW)


def appends(v):
    p = v.path("log")
    fds = [os.open(p, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644) for _ in range(2)]

    def work(fd, letter):
        for _ in range(2000):
            os.write(fd, letter * 7 + b"\n")

    threads = [threading.Thread(target=work, args=(fd, letter)) for fd, letter in zip(fds, (b"a", b"b"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for fd in fds:
        os.close(fd)
    lines = get(p).splitlines()
    same(len(lines), 4000)
    same(sorted(set(lines)), [b"a" * 7, b"b" * 7])
    v.remount()
    same(get(p).splitlines(), lines)


def renames(v):
    for name in ("a", "b"):
        os.mkdir(v.path(name))
    put(v.path("a", "f"), b"1")
    put(v.path("b", "f"), b"2")
    fails(errno.EEXIST, renameat2, v.path("a", "f"), v.path("b", "f"), RENAME_NOREPLACE)
    renameat2(v.path("a", "f"), v.path("b", "f"), RENAME_EXCHANGE)
    same((get(v.path("a", "f")), get(v.path("b", "f"))), (b"2", b"1"))
    renameat2(v.path("a"), v.path("b", "f"), RENAME_EXCHANGE)
    same(get(v.path("b", "f", "f")), b"2")
    same(get(v.path("a")), b"1")
    fails(errno.ENOENT, renameat2, v.path("a"), v.path("none"), RENAME_EXCHANGE)
    renameat2(v.path("a"), v.path("c"), RENAME_NOREPLACE)
    fails(errno.ENOENT, os.rename, v.path("a"), v.path("d"))
    fails(errno.EINVAL, os.rename, v.path("b"), v.path("b", "f", "x"))
    fails(errno.ENOTEMPTY, os.rename, v.path("b", "f"), v.path("b"))
    fails(errno.ENOTDIR, os.rename, v.path("b"), v.path("c"))
    fails(errno.EISDIR, os.rename, v.path("c"), v.path("b"))
    os.mkdir(v.path("e"))
    os.rename(v.path("b"), v.path("e"))
    same(sorted(os.listdir(v.path("e"))), ["f"])
    fails(errno.ENOTEMPTY, os.rmdir, v.path("e"))
    fails(errno.EISDIR, os.unlink, v.path("e"))
    fails(errno.ENOTDIR, os.rmdir, v.path("c"))
    fd = os.open(v.path("c"), os.O_RDONLY)
    put(v.path("new"), b"3")
    os.rename(v.path("new"), v.path("c"))
    same(os.read(fd, 9), b"1")
    same(os.fstat(fd).st_nlink, 0)
    os.close(fd)
    same(get(v.path("c")), b"3")


def times(v):
    p = v.path("f")
    put(p)
    for ns in ((0, 1), (-1, -999999999999999999), (10**18 + 123456789, 16 * 10**18 + 5), (4294967296 * 10**9, 1)):
        os.utime(p, ns=ns)
        st = os.stat(p)
        same((st.st_atime_ns, st.st_mtime_ns), ns)
        v.remount()
        st = os.stat(p)
        same((st.st_atime_ns, st.st_mtime_ns), ns)

    class Timespec(ctypes.Structure):
        _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]

    now, omit = (1 << 30) - 1, (1 << 30) - 2
    before = os.stat(p)
    same(LIBC.utimensat(AT_FDCWD, os.fsencode(p), (Timespec * 2)(Timespec(0, omit), Timespec(5, 7)), 0), 0)
    st = os.stat(p)
    same((st.st_atime_ns, st.st_mtime_ns), (before.st_atime_ns, 5 * 10**9 + 7))
    same(LIBC.utimensat(AT_FDCWD, os.fsencode(p), (Timespec * 2)(Timespec(0, now), Timespec(0, omit)), 0), 0)
    st = os.stat(p)
    check(st.st_atime_ns > 10**18 and st.st_mtime_ns == 5 * 10**9 + 7, "UTIME_NOW and UTIME_OMIT")
    os.utime(p, ns=(1, 2))
    with open(p, "ab") as f:
        f.write(b"more")
    check(os.stat(p).st_mtime_ns > 10**18, "a write leaves the time of modification")
    os.utime(p, ns=(1, 2))
    with open(p, "ab") as f:
        f.write(b"more")
        f.flush()
        os.utime(f.fileno(), ns=(3, 4))
    v.remount()
    same(os.stat(p).st_mtime_ns, 4)
    os.utime(v.mnt, ns=(1, 2))
    os.mkdir(v.path("d"))
    check(os.stat(v.mnt).st_mtime_ns > 10**18, "a new name leaves its directory's times")
    os.symlink("x", v.path("l"))
    os.utime(v.path("l"), ns=(11, 12), follow_symlinks=False)
    v.remount()
    same(os.lstat(v.path("l")).st_mtime_ns, 12)


def kinds(v):
    os.mkfifo(v.path("fifo"), 0o620)
    s = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(v.mnt)
    s.bind("socket")
    os.chdir(here)
    s.close()
    expected = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}
    if ROOT:
        os.mknod(v.path("char"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(v.path("block"), stat.S_IFBLK | 0o600, os.makedev(300, 70000))
        expected |= {"char": stat.S_IFCHR, "block": stat.S_IFBLK}
    v.remount()
    for name, kind in expected.items():
        same(stat.S_IFMT(os.lstat(v.path(name)).st_mode), kind)
    if ROOT:
        same(os.lstat(v.path("char")).st_rdev, os.makedev(1, 3))
        same(os.lstat(v.path("block")).st_rdev, os.makedev(300, 70000))
    found = []
    reader = threading.Thread(target=lambda: found.append(get(v.path("fifo"))))
    reader.start()
    put(v.path("fifo"), b"through")
    reader.join()
    same(found, [b"through"])


def links(v):
    put(v.path("f"), b"data")
    os.mkdir(v.path("d"))
    os.link(v.path("f"), v.path("d", "g"))
    same(os.stat(v.path("f")).st_nlink, 2)
    same(os.stat(v.path("f")).st_ino, os.stat(v.path("d", "g")).st_ino)
    fails(errno.EEXIST, os.link, v.path("f"), v.path("d", "g"))
    fails(errno.EPERM, os.link, v.path("d"), v.path("e"))
    with open(v.path("d", "g"), "ab") as f:
        f.write(b" more")
    same(get(v.path("f")), b"data more")
    os.unlink(v.path("f"))
    same(get(v.path("d", "g")), b"data more")
    same(os.stat(v.path("d")).st_nlink, 2)
    os.mkdir(v.path("d", "sub"))
    same(os.stat(v.path("d")).st_nlink, 3)
    os.symlink("t" * 4000, v.path("s"))
    v.remount()
    same(os.readlink(v.path("s")), "t" * 4000)
    same(os.stat(v.path("d", "g")).st_nlink, 1)
    same(os.stat(v.path("d")).st_nlink, 3)


def owners(v):
    if not ROOT:
        return
    os.mkdir(v.path("d"))
    os.chown(v.path("d"), 1000, 2000)
    os.chmod(v.path("d"), 0o2775)
    put(v.path("d", "f"))
    same((os.stat(v.path("d", "f")).st_uid, os.stat(v.path("d", "f")).st_gid), (0, 2000))
    os.mkdir(v.path("d", "sub"))
    same(stat.S_IMODE(os.stat(v.path("d", "sub")).st_mode) & 0o2000, 0o2000)
    os.chmod(v.path("d", "f"), 0o6755)
    os.chown(v.path("d", "f"), 5, 5)
    same(stat.S_IMODE(os.stat(v.path("d", "f")).st_mode), 0o755)
    os.chmod(v.mnt, 0o1777)
    os.chmod(v.path("d", "f"), 0o6777)
    script = f"""
import os, sys
os.setgid(1234); os.setuid(1234)
with open({v.path('d', 'f')!r}, "r+b") as f: f.write(b"changed")
try:
    os.unlink({v.path('root')!r})
except PermissionError:
    sys.exit(0)
sys.exit(1)
"""
    put(v.path("root"))
    for folder in (v.root, v.mnt):
        os.chmod(folder, os.stat(folder).st_mode | 0o755)
    status, out = run("python3", "-c", script, status=None)
    if "PermissionError" in out and v.path("d", "f") in out:
        raise AssertionError(f"allow_other does not let others in: {out}")
    same((status, out), (0, ""))
    same(stat.S_IMODE(os.stat(v.path("d", "f")).st_mode), 0o777)  # not root's write: the set-id bits are gone


def attributes(v):
    p = v.path("f")
    put(p)
    names = {"user.a": b"1", "user." + "n" * 250: b"long", "user.empty": b"", "user.big": bytes(range(256)) * 200}
    if ROOT:
        names |= {"trusted.t": b"\0", "security.s": b"s"}
    for name, value in names.items():
        os.setxattr(p, name, value)
    fails(errno.EEXIST, os.setxattr, p, "user.a", b"2", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, p, "user.none", b"2", os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, p, "user.none")
    fails(errno.ENODATA, os.removexattr, p, "user.none")
    os.symlink("nothing", v.path("l"))
    fails(errno.EPERM, os.setxattr, v.path("l"), "user.a", b"1", follow_symlinks=False)
    v.remount()
    same({n: os.getxattr(p, n) for n in os.listxattr(p)}, names)
    buf = ctypes.create_string_buffer(2)
    same(LIBC.getxattr(os.fsencode(p), b"user.big", buf, 2), -1)
    same(ctypes.get_errno(), errno.ERANGE)
    os.removexattr(p, "user.a")
    check("user.a" not in os.listxattr(p), "a removed attribute is listed")


def acls(v):
    os.mkdir(v.path("d"))
    run("setfacl", "-m", "u:1000:rwx,g:7:r,d:u:1000:rwx,d:g::rx,d:o::-", v.path("d"))
    old = os.umask(0o077)
    put(v.path("d", "f"))
    os.mkdir(v.path("d", "sub"))
    os.umask(old)
    text = run("getfacl", "-pcn", v.path("d", "f"))
    check("user:1000:rwx\t" in text and "mask::rw-" in text and "other::---" in text, f"inherited: {text}")
    text = run("getfacl", "-pcn", v.path("d", "sub"))
    check("default:user:1000:rwx" in text and "user:1000:rwx" in text, f"inherited by a directory: {text}")
    os.chmod(v.path("d", "f"), 0o640)
    check("mask::r--" in run("getfacl", "-pcn", v.path("d", "f")), "chmod leaves the mask")
    run("setfacl", "-m", "m::rwx", v.path("d", "f"))
    same(stat.S_IMODE(os.stat(v.path("d", "f")).st_mode), 0o670)
    before = run("getfacl", "-pcnR", v.path("d"))
    v.remount()
    same(run("getfacl", "-pcnR", v.path("d")), before)
    run("setfacl", "-bR", v.path("d"))
    same([n for n in os.listxattr(v.path("d"))], [])


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


def unlinked(v):
    p = v.path("u")
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"still")
    os.unlink(p)
    fails(errno.ENOENT, os.stat, p)
    os.write(fd, b" here")
    os.fsync(fd)
    same(os.pread(fd, 100, 0), b"still here")
    same(os.fstat(fd).st_nlink, 0)
    os.ftruncate(fd, 5)
    same(os.pread(fd, 100, 0), b"still")
    os.close(fd)
    os.mkdir(v.path("d"))
    fd = os.open(v.path("d"), os.O_RDONLY)
    os.rmdir(v.path("d"))
    same(os.listdir(fd), [])
    os.close(fd)


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


def in_turn(*parts):
    """Each on a mount of its own."""

    def test(part):
        def call():
            need("setfacl", "getfacl")
            with Volume("-o", "allow_other") as v:
                part(v)

        call.__name__ = part.__name__
        return call

    return [test(p) for p in parts]


main(
    *in_turn(
        opens, appends, renames, times, kinds, links, owners, attributes, acls, sparse, maps, unlinked, many_names
    )
)
