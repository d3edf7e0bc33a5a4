"""Times and sizes: who may set them, what changes which, and that nothing late overwrites what was set."""

import ctypes
import errno
import os
import struct
import time

from apfsmount import MIB, Volume, check, drop_caches, get, need, put, run
from calls import AT_FDCWD, PLAIN, User, each, fails, libfuse, same, statx, syscall

ACL = bytes.fromhex("02000000 0100 0600 ffffffff 0400 0400 ffffffff 2000 0400 ffffffff")
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
ANN, BEN = User(1001), User(1002)
PAST = 5 * 10**9 + 7


class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


def utimens(path, atime, mtime):
    """(seconds, nanoseconds) each."""
    syscall("utimensat", AT_FDCWD, path, (Timespec * 2)(Timespec(*atime), Timespec(*mtime)), 0)


def utimens_null(path):
    syscall("utimensat", AT_FDCWD, path, None, 0)


def stamps(path):
    st = os.lstat(path)
    return st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns


def set_exactly(v):
    p = v.path("f")
    put(p)
    pairs = [(0, 1), (10**18 + 123456789, 15 * 10**18 + 5), (4294967296 * 10**9, 1), (-1, -5 * 10**9 + 3)]
    for ns in pairs if PLAIN else [*pairs, (-1, -999999999999999999)]:
        os.utime(p, ns=ns)
        same(stamps(p)[:2], ns)
        v.remount()
        same(stamps(p)[:2], ns)
    before = stamps(p)
    utimens(p, (0, OMIT), (5, 7))
    same(stamps(p)[:2], (before[0], PAST))
    begin = time.time_ns()
    utimens(p, (0, NOW), (0, OMIT))
    check(abs(stamps(p)[0] - begin) < 10**9 and stamps(p)[1] == PAST, "now, omit")
    before = stamps(p)
    time.sleep(0.02)
    utimens(p, (0, OMIT), (0, OMIT))
    same(stamps(p), before, "omit both")
    utimens(p, (1, 1), (2, 2))
    check(stamps(p)[2] > before[2], "setting times changes ctime")
    fails(errno.EINVAL, utimens, p, (0, 10**9), (0, 0))
    fails(errno.EINVAL, utimens, p, (0, -1), (0, 0))
    fails(errno.ENOENT, utimens, v.path("none"), (0, 0), (0, 0))
    os.mkfifo(v.path("fifo"))
    os.mkdir(v.path("d"))
    os.symlink("f", v.path("l"))
    for name in ("fifo", "d", "l"):
        os.utime(v.path(name), ns=(11, 12), follow_symlinks=False)
    v.remount()
    for name in ("fifo", "d", "l"):
        same(os.lstat(v.path(name)).st_mtime_ns, 12, name)
    same(stamps(p)[1], 2 * 10**9 + 2)


def who_may(v):
    p = v.path("f")
    put(p)
    os.chown(p, 1001, 1001)
    os.chmod(p, 0o644)
    BEN.fails(errno.EPERM, utimens, p, (1, 1), (2, 2))
    BEN.fails(errno.EACCES, utimens_null, p)
    BEN.fails(errno.EACCES, utimens, p, (0, NOW), (0, NOW))
    BEN.fails(errno.EPERM, utimens, p, (0, NOW), (0, OMIT))
    BEN.does(utimens, p, (0, OMIT), (0, OMIT))
    os.chmod(p, 0o666)
    BEN.does(utimens_null, p)
    BEN.does(utimens, p, (0, NOW), (0, NOW))
    BEN.fails(errno.EPERM, utimens, p, (0, NOW), (5, 5))
    BEN.fails(errno.EPERM, utimens, p, (1, 1), (2, 2))
    os.chmod(p, 0o400)
    ANN.does(utimens, p, (1, 1), (2, 2))
    ANN.does(utimens_null, p)


def changed_by(v):
    """Which of mtime and ctime an operation changes: of the file and of the directory."""
    d, p = v.path("d"), v.path("d", "f")
    os.mkdir(d)
    put(p, b"12345")
    fd = os.open(p, os.O_RDWR)

    def step(what, call, file="", folder=""):
        os.utime(p, ns=(1, 2))
        os.utime(d, ns=(1, 2))
        before = {"file": stamps(p), "folder": stamps(d)}
        time.sleep(0.011)  # a tick of the kernel's coarse clock
        call()
        for where, path, expected in (("file", p, file), ("folder", d, folder)):
            if not os.path.lexists(path):
                continue
            after = stamps(path)
            found = "".join(k for k, b, a in zip("mc", before[where][1:], after[1:]) if a != b)
            same(found, expected, f"{what}, of the {where}")

    step("write", lambda: os.pwrite(fd, b"x", 0), "mc")
    step("write of nothing", lambda: os.pwrite(fd, b"", 0))
    step("read", lambda: os.pread(fd, 1, 0))
    step("stat", lambda: os.stat(p))
    step("truncate", lambda: os.truncate(p, 3), "mc")
    step("ftruncate to the same size", lambda: os.ftruncate(fd, 3), "mc")
    step("open with O_TRUNC", lambda: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)), "mc")
    step("the same, of an empty file", lambda: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)), "mc")
    step("open with O_CREAT", lambda: os.close(os.open(p, os.O_WRONLY | os.O_CREAT)))
    step("chmod", lambda: os.chmod(p, 0o600), "c")
    step("chown", lambda: os.chown(p, 1, 1), "c")
    step("chown of nothing", lambda: os.chown(p, -1, -1), "c")
    step("chmod of the folder", lambda: os.chmod(d, 0o700), "", "c")
    step("chown of nothing of the folder", lambda: os.chown(d, -1, -1), "", "c")
    step("utime", lambda: os.utime(p, ns=(1, 2)), "c")
    step("setfacl", lambda: os.setxattr(p, "system.posix_acl_access", ACL), "c")
    step("setxattr", lambda: os.setxattr(p, "user.a", b"1"), "c")
    step("removexattr", lambda: os.removexattr(p, "user.a"), "c")
    step("link", lambda: os.link(p, v.path("d", "l")), "c", "mc")
    step("unlink of a link", lambda: os.unlink(v.path("d", "l")), "c", "mc")
    step("mkdir", lambda: os.mkdir(v.path("d", "sub")), "", "mc")
    step("rmdir", lambda: os.rmdir(v.path("d", "sub")), "", "mc")
    step("symlink", lambda: os.symlink("x", v.path("d", "s")), "", "mc")
    step("mkfifo", lambda: os.mkfifo(v.path("d", "p")), "", "mc")
    step("create", lambda: put(v.path("d", "n")), "", "mc")
    step("rename of another", lambda: os.rename(v.path("d", "n"), v.path("d", "n2")), "", "mc")
    step("rename away", lambda: os.rename(v.path("d", "n2"), v.path("n3")), "", "mc")
    step("rename over", lambda: os.rename(v.path("n3"), v.path("d", "p")), "", "mc")
    step("a failed unlink", lambda: fails(errno.ENOENT, os.unlink, v.path("d", "none")))
    step("rename", lambda: os.rename(p, p + "2") or os.rename(p + "2", p), "c", "mc")
    os.close(fd)
    v.remount()


def writeback():
    """All that the kernel holds is written and forgotten."""
    if not PLAIN:
        drop_caches()


def ftruncate(path, size):
    fd = os.open(path, os.O_WRONLY)
    os.ftruncate(fd, size)
    os.close(fd)


def authority(v):
    """What the kernel still holds of a file's data does not change a time that was set after."""
    for n in range(30):
        p = v.path(f"f{n}")
        with open(p, "wb") as f:
            f.write(b"x" * (n * 3001))
            f.flush()
            if n % 3 == 0:
                os.utime(p, ns=(1, 2))
            elif n % 3 == 1:
                os.utime(f.fileno(), ns=(1, 2))
            if n % 2:
                os.fsync(f.fileno())
        if n % 3 == 2:
            os.utime(p, ns=(1, 2))
        same(stamps(p)[1], 2, f"f{n}")
    writeback()
    same({stamps(v.path(f"f{n}"))[1] for n in range(30)}, {2}, "after writing back")
    v.remount()
    same({stamps(v.path(f"f{n}"))[1] for n in range(30)}, {2}, "after a remount")
    # truncate(2) to the size that there is changes no times (ext4: both), and ftruncate(2) both, later too
    for call, what in ((os.truncate, "mc" if PLAIN else ""), (ftruncate, "mc")):
        before = stamps(v.path("f9"))[1:]
        time.sleep(0.03)
        call(v.path("f9"), 9 * 3001)
        after = stamps(v.path("f9"))[1:]
        same("".join(k for k, b, a in zip("mc", before, after) if a != b), what, "to the same size")
        writeback()
        same(stamps(v.path("f9"))[1:], after, "after writing back")
    os.utime(v.path("f9"), ns=(1, 2))
    # a time that a write set is kept too, to the nanosecond
    before = {}
    for n in range(30):
        with open(v.path(f"f{n}"), "ab") as f:
            f.write(b"more")
        before[n] = stamps(v.path(f"f{n}"))[1:], os.stat(v.path(f"f{n}")).st_size
    time.sleep(0.05)
    writeback()
    same({n: (stamps(v.path(f"f{n}"))[1:], os.stat(v.path(f"f{n}")).st_size) for n in before}, before, "after writing back")
    v.remount()
    same({n: (stamps(v.path(f"f{n}"))[1:], os.stat(v.path(f"f{n}")).st_size) for n in before}, before, "after a remount")


def new_files(v):
    """A new file keeps the times that were told when it was made, however that was asked for."""
    ways = (os.O_EXCL, os.O_TRUNC, os.O_TRUNC | os.O_SYNC, os.O_APPEND)
    for n, flags in enumerate(ways):
        os.close(os.open(v.path(f"f{n}"), os.O_CREAT | os.O_RDWR | flags, 0o644))
    before = [stamps(v.path(f"f{n}")) for n in range(len(ways))]
    v.remount()
    same([stamps(v.path(f"f{n}")) for n in range(len(ways))], before)


def copied(v):
    """As tar and rsync leave it."""
    need("tar", "rsync")
    source = v.path("source")
    os.mkdir(source)
    for n in range(200):
        put(os.path.join(source, f"f{n}"), b"%d" % n * (n * 17))
        os.utime(os.path.join(source, f"f{n}"), ns=(10**18 + n, 10**18 + 1000 * n + 1))
    expected = {n: (os.stat(os.path.join(source, n)).st_mtime_ns, get(os.path.join(source, n))) for n in os.listdir(source)}
    run("tar", "--format=posix", "-C", source, "-cf", v.path("t.tar"), ".")
    os.mkdir(v.path("tar"))
    run("tar", "-C", v.path("tar"), "-xf", v.path("t.tar"))
    run("rsync", "-a", f"{source}/", v.path("rsync"))
    for _ in range(2):
        for name in ("tar", "rsync"):
            found = {n: (os.stat(v.path(name, n)).st_mtime_ns, get(v.path(name, n))) for n in os.listdir(v.path(name))}
            same(found.keys(), expected.keys())
            for n in expected:
                same(found[n], expected[n], n)
        same(run("rsync", "-ain", f"{source}/", v.path("rsync")), "")
        v.remount()


def sizes(v):
    """fstat knows at once what was written, and truncation and growth what lies between."""
    p = v.path("f")
    fd = os.open(p, os.O_CREAT | os.O_RDWR)
    size = 0
    for n in range(1, 40):
        os.write(fd, b"%d" % n * n)
        size += n * len(str(n))
        same(os.fstat(fd).st_size, size)
        check(os.fstat(fd).st_mtime_ns == os.stat(p).st_mtime_ns, "one time for all")
    os.ftruncate(fd, 10)
    os.ftruncate(fd, 4096 + 10)
    same(os.pread(fd, 8192, 5)[5:], bytes(4096))
    os.pwrite(fd, b"end", 3 * MIB)
    same((os.fstat(fd).st_size, os.pread(fd, 10, 4096)), (3 * MIB + 3, bytes(10)))
    os.ftruncate(fd, 3 * MIB)
    os.ftruncate(fd, 3 * MIB + 10)
    same(os.pread(fd, 20, 3 * MIB), bytes(10))
    os.close(fd)
    v.remount()
    data = get(p)
    same((len(data), data[:10], data.count(0)), (3 * MIB + 10, b"1223334444", 3 * MIB))
    same(os.stat(p).st_size, 3 * MIB + 10)


def access(v):
    """relatime of what reaches us: a read sets the time if it is older than the other two, or than a day."""
    p, d = v.path("f"), v.path("d")
    put(p, b"12345")
    os.mkdir(d)
    put(os.path.join(d, "x"))
    os.symlink("f", v.path("l"))
    reads = {p: lambda: get(p), d: lambda: os.listdir(d), v.path("l"): lambda: os.readlink(v.path("l"))}
    for path, read in reads.items():
        now = time.time_ns()
        os.utime(path, ns=(1, now), follow_symlinks=False)
        v.remount()
        time.sleep(0.02)
        read()
        check(stamps(path)[0] >= now, f"{path}: older than mtime")
        v.remount()
        atime = stamps(path)[0]
        check(atime >= now, f"{path}: kept")
        time.sleep(0.02)
        v.remount()
        read()
        same(stamps(path)[0], atime, f"{path}: newer than mtime and ctime")
        os.utime(path, ns=(now - 3 * 86400 * 10**9, 2), follow_symlinks=False)
        v.remount()
        read()
        check(stamps(path)[0] >= now, f"{path}: more than a day old")


def no_access():
    """With noatime reads leave it."""
    need()
    with Volume("-o", "noatime") as v:
        p, d = v.path("f"), v.path("d")
        put(p, b"12345")
        os.mkdir(d)
        os.symlink("f", v.path("l"))
        for path in (p, d, v.path("l")):
            os.utime(path, ns=(1, 2), follow_symlinks=False)
        for _ in range(2):
            v.remount()
            same((get(p), os.listdir(d), os.readlink(v.path("l"))), (b"12345", [], "f"))
            same([stamps(x)[0] for x in (p, d, v.path("l"))], [1, 1, 1])


def birth(v):
    """statx says when a file was made only where libfuse knows of it, from 3.18 on; before, the field is not claimed."""
    p = v.path("f")
    put(p)
    found = statx(p, 0xFFF)
    mask = struct.unpack_from("<I", found)[0]
    check(mask & 0x7FF == 0x7FF, f"the basic fields: {mask:#x}")
    if PLAIN or libfuse(v) >= 318:
        check(mask & 0x800, "no btime")
        seconds, nanoseconds = struct.unpack_from("<qI", found, 0x50)
        check(abs(seconds + nanoseconds / 1e9 - time.time()) < 60, "the time it was made")
    else:
        same(mask & 0x800, 0)


if __name__ == "__main__":
    each(set_exactly, who_may, changed_by, authority, new_files, copied, sizes, access, birth, also=() if PLAIN else [no_access])
