"""Names: what may be one, and what makes, moves and removes them, with the error of each that may not."""

import errno
import os
import shutil
import socket
import stat

from apfsmount import check, get, put
from calls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    CAP_MKNOD,
    PLAIN,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    User,
    each,
    fails,
    in_child,
    renameat2,
    same,
    syscall,
)

ANN, BEN = User(1001, 2001), User(1002, 2002)


def mkfile(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def mksocket(path):
    def work():
        os.chdir(os.path.dirname(path))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(os.path.basename(path))

    in_child(work)


def mklink(path):
    os.symlink("nowhere", path)


def mkdev(path):
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


MAKERS = {"file": mkfile, "dir": os.mkdir, "fifo": os.mkfifo, "socket": mksocket, "link": mklink, "dev": mkdev}


def as_bytes(v):
    mnt = os.fsencode(v.mnt)
    names = {bytes([n]) for n in range(1, 256)} - {b"/", b"."}
    names |= {b"...", b" ", b"a\nb", b"\xff" * 255, b"\xc3\xa9", b"e\xcc\x81", b"-rf", b"n" * 254, "☃".encode() * 85, b"..a"}
    for name in names:
        with open(os.path.join(mnt, name), "wb") as f:
            f.write(name)
    same(set(os.listdir(mnt)), names)
    v.remount()
    same(set(os.listdir(mnt)), names)
    same({get(os.path.join(mnt, name)) for name in names}, names)
    put(v.path("case"), b"1")
    put(v.path("CASE"), b"2")
    same(get(v.path("case")), b"1")
    for name in names:
        os.unlink(os.path.join(mnt, name))
    same(sorted(os.listdir(mnt)), [b"CASE", b"case"])


def too_long(v):
    long = v.path("n" * 256)
    put(v.path("f"))
    for what, call in {
        "open": lambda: os.open(long, os.O_RDONLY),
        "stat": lambda: os.stat(long),
        "unlink": lambda: os.unlink(long),
        "rmdir": lambda: os.rmdir(long),
        "rename": lambda: os.rename(v.path("f"), long),
        "rename from": lambda: os.rename(long, v.path("g")),
        "link": lambda: os.link(v.path("f"), long),
        "below": lambda: os.stat(os.path.join(long, "x")),
        **{f"make {k}": (lambda make=make: make(long)) for k, make in MAKERS.items() if k != "socket"},
    }.items():
        call.__name__ = what
        fails(errno.ENAMETOOLONG, call)
    fails(errno.ENAMETOOLONG, os.stat, v.mnt + "/." * 2048)
    fails(errno.ENAMETOOLONG, os.symlink, "t" * 4096, v.path("l"))
    fails(errno.ENOENT, os.symlink, "", v.path("l"))
    for length in (1, 59, 60, 255, 4094, 4095):
        os.symlink("t" * length, v.path(f"l{length}"))
    v.remount()
    for length in (1, 59, 60, 255, 4094, 4095):
        same(os.readlink(v.path(f"l{length}")), "t" * length)
        same(os.lstat(v.path(f"l{length}")).st_size, length)
    fails(errno.EINVAL, os.readlink, v.path("f"))
    os.mkdir(v.path("deep"))
    here = os.getcwd()
    os.chdir(v.path("deep"))
    for _ in range(40):  # deeper than a path can say
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    put("bottom", b"deep down")
    same(get("bottom"), b"deep down")
    os.chdir(here)
    shutil.rmtree(v.path("deep"))


def loops(v):
    os.symlink("b", v.path("a"))
    os.symlink("a", v.path("b"))
    os.symlink("self/x", v.path("self"))
    for p in (v.path("a"), v.path("self"), v.path("a", "x")):
        for call in (os.stat, os.listdir, os.rmdir if p.endswith("x") else os.stat, os.chmod, os.truncate):
            fails(errno.ELOOP, call, p, *([0] if call in (os.chmod, os.truncate) else []))
    put(v.path("end"), b"end")
    for n in range(40):
        os.symlink(f"l{n - 1}" if n else "end", v.path(f"l{n}"))
    same(get(v.path("l39")), b"end")
    os.symlink("l39", v.path("l40"))
    fails(errno.ELOOP, os.stat, v.path("l40"))
    same(os.readlink(v.path("l40")), "l39")
    os.rename(v.path("l40"), v.path("moved"))
    os.link(v.path("moved"), v.path("hard"), follow_symlinks=False)
    same((os.readlink(v.path("hard")), os.lstat(v.path("hard")).st_nlink), ("l39", 2))
    os.unlink(v.path("a"))
    fails(errno.ENOENT, os.stat, v.path("b"))


def not_found(v):
    put(v.path("f"))
    os.mkdir(v.path("d"))
    for what, (code, path) in {"none": (errno.ENOENT, v.path("none", "x")), "file": (errno.ENOTDIR, v.path("f", "x"))}.items():
        for name, make in MAKERS.items():
            if name != "socket":
                fails(code, make, path)
        for call in (os.stat, os.lstat, os.unlink, os.rmdir, os.readlink, os.listdir, os.listxattr):
            fails(code, call, path)
        for call in (lambda p=path: os.rename(p, v.path("y")), lambda p=path: os.rename(v.path("f"), p)):
            call.__name__ = f"rename, {what}"
            fails(code, call)
        fails(code, os.link, path, v.path("y"))
        fails(code, os.link, v.path("f"), path)
    for name, make in MAKERS.items():
        fails(errno.EADDRINUSE if name == "socket" else errno.EEXIST, make, v.path("d"))
        fails(errno.EADDRINUSE if name == "socket" else errno.EEXIST, make, v.path("f"))
    fails(errno.EEXIST, os.mkdir, v.path("d/."))
    fails(errno.EINVAL, os.rmdir, v.path("d/."))
    os.mkdir(v.path("d", "sub"))
    fails(errno.ENOTEMPTY, os.rmdir, v.path("d", "sub", ".."))
    fails(errno.ENOTEMPTY, os.rmdir, v.path("d"))
    fails(errno.EISDIR, os.unlink, v.path("d"))
    fails(errno.ENOTDIR, os.rmdir, v.path("f"))
    fails(errno.ENOTDIR, os.unlink, v.path("f/"))
    fails(errno.EBUSY, os.rename, v.path("d/."), v.path("x"))
    fails(errno.EBUSY, os.rename, v.path("d", "sub", ".."), v.path("x"))
    fails(errno.EBUSY, os.rename, v.path("f"), v.path("d", ".."))
    os.rmdir(v.path("d/sub/"))
    os.rename(v.path("d"), v.path("e/"))
    fails(errno.ENOTDIR, os.rename, v.path("f"), v.path("g/"))
    if not PLAIN:
        fails(errno.EBUSY, os.rmdir, v.mnt)
        fails(errno.EXDEV, os.rename, v.path("f"), os.path.join(v.root, "f"))
        fails(errno.EXDEV, os.link, v.path("f"), os.path.join(v.root, "f"))


def renames(v):
    """Every kind over every other."""
    for old, make_old in MAKERS.items():
        for new, make_new in MAKERS.items():
            a, b = v.path("a"), v.path("b")
            make_old(a)
            make_new(b)
            number, other = os.lstat(a).st_ino, os.lstat(b).st_ino
            fails(errno.EEXIST, renameat2, a, b, RENAME_NOREPLACE)
            renameat2(a, b, RENAME_EXCHANGE)
            same((os.lstat(a).st_ino, os.lstat(b).st_ino), (other, number))
            renameat2(a, b, RENAME_EXCHANGE)
            if old == "dir" and new != "dir":
                fails(errno.ENOTDIR, os.rename, a, b)
            elif old != "dir" and new == "dir":
                fails(errno.EISDIR, os.rename, a, b)
            else:
                os.rename(a, b)
                same((os.lstat(b).st_ino, os.listdir(v.mnt)), (number, ["b"]))
            for name in os.listdir(v.mnt):
                if os.path.isdir(v.path(name)):
                    os.rmdir(v.path(name))
                else:
                    os.unlink(v.path(name))
    a, b = v.path("a"), v.path("b")
    fails(errno.ENOENT, os.rename, a, b)
    put(a)
    fails(errno.ENOENT, renameat2, a, b, RENAME_EXCHANGE)
    fails(errno.EINVAL, renameat2, a, b, RENAME_EXCHANGE | RENAME_NOREPLACE)
    fails(errno.EINVAL, renameat2, a, b, RENAME_EXCHANGE | RENAME_WHITEOUT)
    fails(errno.EINVAL, renameat2, a, b, 64)
    renameat2(a, b, RENAME_NOREPLACE)
    os.link(b, a)
    os.rename(a, b)  # of one file: nothing happens
    same((sorted(os.listdir(v.mnt)), os.stat(a).st_nlink), (["a", "b"], 2))
    os.rename(a, a)
    fails(errno.EEXIST, renameat2, a, b, RENAME_NOREPLACE)
    renameat2(a, b, RENAME_EXCHANGE)
    os.makedirs(v.path("d", "e", "f"))
    fails(errno.EINVAL, os.rename, v.path("d"), v.path("d", "e", "x"))
    fails(errno.EINVAL, os.rename, v.path("d"), v.path("d", "x"))
    fails(errno.EINVAL, renameat2, v.path("d"), v.path("d", "e", "f"), RENAME_EXCHANGE)
    fails(errno.EINVAL, renameat2, v.path("d", "e", "f"), v.path("d"), RENAME_EXCHANGE)
    fails(errno.ENOTEMPTY, os.rename, v.path("d", "e", "f"), v.path("d"))
    fails(errno.ENOTEMPTY, os.rename, v.path("d", "e", "f"), v.path("d", "e"))
    os.mkdir(v.path("empty"))
    os.rename(v.path("d"), v.path("empty"))
    same(os.stat(v.path("empty")).st_nlink, 3)
    renameat2(v.path("empty", "e"), b, RENAME_EXCHANGE)  # of a directory and a file in another one
    same((os.stat(v.path("empty")).st_nlink, os.stat(b).st_nlink, os.stat(v.mnt).st_nlink), (2, 3, 4))
    same(os.stat(v.path("b", "..")).st_ino, os.stat(v.mnt).st_ino)
    os.mkdir(v.path("b", "g"))
    os.rename(v.path("b", "g"), v.path("empty", "g"))
    same((os.stat(v.path("empty")).st_nlink, os.stat(b).st_nlink), (3, 3))
    same(os.stat(v.path("empty", "g", "..")).st_ino, os.stat(v.path("empty")).st_ino)
    before = os.stat(v.path("empty", "e"))
    os.rename(v.path("empty", "e"), v.path("empty", "renamed"))
    after = os.stat(v.path("empty", "renamed"))
    check(after.st_ctime_ns >= before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns, "a rename changes ctime only")
    v.remount()
    same((os.stat(v.path("empty")).st_nlink, os.stat(b).st_nlink, os.stat(v.mnt).st_nlink), (3, 3, 4))


def whiteouts(v):
    """What overlayfs needs: the old name becomes a device 0/0."""
    os.mkdir(v.path("d"))

    def is_whiteout(path):
        st = os.lstat(path)
        return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0 and st.st_nlink == 1

    for kind, make in MAKERS.items():
        a, b = v.path(kind), v.path("d", kind)
        make(a)
        number = os.lstat(a).st_ino
        renameat2(a, b, RENAME_WHITEOUT)
        check(is_whiteout(a) and os.lstat(b).st_ino == number, f"of a {kind}")
    same(os.stat(v.path("d")).st_nlink, 3)
    same(os.stat(v.mnt).st_nlink, 3)
    put(v.path("x"), b"x")
    put(v.path("y"), b"y")
    renameat2(v.path("x"), v.path("y"), RENAME_WHITEOUT)  # over another, in one directory
    check(is_whiteout(v.path("x")) and get(v.path("y")) == b"x", "over another")
    fails(errno.EEXIST, renameat2, v.path("y"), v.path("d", "file"), RENAME_WHITEOUT | RENAME_NOREPLACE)
    renameat2(v.path("y"), v.path("z"), RENAME_WHITEOUT | RENAME_NOREPLACE)
    check(is_whiteout(v.path("y")), "without replacing")
    renameat2(v.path("y"), v.path("y2"), RENAME_WHITEOUT)  # of a whiteout
    check(is_whiteout(v.path("y")) and is_whiteout(v.path("y2")), "of a whiteout")
    names = sorted(os.listdir(v.mnt))
    v.remount()
    same(sorted(os.listdir(v.mnt)), names)
    check(all(is_whiteout(v.path(n)) for n in (*MAKERS, "x", "y", "y2")), "after a remount")
    os.unlink(v.path("x"))
    os.rename(v.path("z"), v.path("y"))
    same(get(v.path("y")), b"x")
    os.mkdir(v.path("ann"))
    os.chown(v.path("ann"), 1001, 2001)

    def as_ann():
        os.chdir(v.path("ann"))
        put("p")
        renameat2("p", "q", RENAME_WHITEOUT)
        st = os.lstat("p")
        return stat.S_ISCHR(st.st_mode), st.st_uid

    same(ANN.does(as_ann), (True, 1001))


def links(v):
    p = v.path("f")
    put(p, b"data")
    for n in range(300):
        os.link(p, v.path(f"l{n}"))
    same(os.stat(p).st_nlink, 301)
    fails(errno.EEXIST, os.link, p, v.path("l0"))
    os.mkdir(v.path("d"))
    fails(errno.EPERM, os.link, v.path("d"), v.path("e"))
    v.remount()
    same((os.stat(p).st_nlink, get(v.path("l299"))), (301, b"data"))
    ctime = os.stat(p).st_ctime_ns
    os.unlink(v.path("l0"))
    st = os.stat(p)
    check(st.st_nlink == 300 and st.st_ctime_ns >= ctime, "after an unlink")
    for kind in ("fifo", "socket", "dev", "link"):
        MAKERS[kind](v.path(kind))
        os.link(v.path(kind), v.path("d", kind), follow_symlinks=False)
        same(os.lstat(v.path(kind)).st_nlink, 2, kind)
    fd = os.open(p, os.O_PATH)
    syscall("linkat", fd, b"", AT_FDCWD, v.path("by fd"), AT_EMPTY_PATH)
    same(os.stat(v.path("by fd")).st_ino, st.st_ino)
    fails(errno.EEXIST, syscall, "linkat", fd, b"", AT_FDCWD, v.path("by fd"), AT_EMPTY_PATH)
    fails(errno.ENOENT, syscall, "linkat", fd, b"", AT_FDCWD, v.path("x"), 0)
    os.close(fd)
    fd = os.open(v.path("d"), os.O_PATH)
    fails(errno.EPERM, syscall, "linkat", fd, b"", AT_FDCWD, v.path("x"), AT_EMPTY_PATH)
    os.close(fd)


def sticky(v):
    d = v.path("d")
    os.mkdir(d)
    os.chmod(d, 0o1777)
    for name in ("a", "b", "over"):
        ANN.does(put, os.path.join(d, name))
    ANN.does(os.mkdir, os.path.join(d, "sub"))
    BEN.does(put, os.path.join(d, "ben"))
    BEN.fails(errno.EPERM, os.unlink, os.path.join(d, "a"))
    BEN.fails(errno.EPERM, os.rmdir, os.path.join(d, "sub"))
    BEN.fails(errno.EPERM, os.rename, os.path.join(d, "a"), os.path.join(d, "z"))
    BEN.fails(errno.EPERM, os.rename, os.path.join(d, "ben"), os.path.join(d, "over"))
    BEN.fails(errno.EPERM, renameat2, os.path.join(d, "ben"), os.path.join(d, "over"), RENAME_EXCHANGE)
    BEN.does(os.rename, os.path.join(d, "ben"), os.path.join(d, "ben2"))
    ANN.does(os.unlink, os.path.join(d, "a"))
    os.chown(d, 1002, 2002)
    BEN.does(os.unlink, os.path.join(d, "b"))  # the directory's owner
    os.chmod(d, 0o777)
    BEN.does(os.rename, os.path.join(d, "ben2"), os.path.join(d, "over"))


def removed_directory(v):
    os.mkdir(v.path("d"))
    fd = os.open(v.path("d"), os.O_RDONLY)

    def work():
        os.chdir(v.path("d"))
        os.rmdir(v.path("d"))
        fails(errno.ENOENT, os.getcwd)
        for make in (mkfile, os.mkdir, os.mkfifo, mklink):
            fails(errno.ENOENT, make, "x")
        fails(errno.ENOENT, os.rename, v.path("f"), "x")
        fails(errno.ENOENT, os.link, v.path("f"), "x")
        same(os.listdir("."), [])
        same(os.stat(".").st_nlink, 0)
        os.stat("..")

    put(v.path("f"))
    in_child(work)
    same((os.listdir(fd), os.fstat(fd).st_nlink), ([], 0))
    os.fchmod(fd, 0o700)
    os.fsync(fd)
    os.close(fd)
    os.mkdir(v.path("d"))
    os.mkdir(v.path("e"))
    fd = os.open(v.path("e"), os.O_RDONLY)
    os.rename(v.path("d"), v.path("e"))
    same(os.fstat(fd).st_nlink, 0)
    fails(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(fd)
    v.remount()
    same(sorted(os.listdir(v.mnt)), ["e", "f"])


def special(v):
    os.mkfifo(v.path("fifo"), 0o620)
    mksocket(v.path("socket"))
    os.mknod(v.path("char"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(v.path("block"), stat.S_IFBLK | 0o600, os.makedev(300, 70000))
    os.mknod(v.path("file"), stat.S_IFREG | 0o640)
    v.remount()
    kinds = {n: stat.S_IFMT(os.lstat(v.path(n)).st_mode) for n in os.listdir(v.mnt)}
    expected = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char": stat.S_IFCHR, "block": stat.S_IFBLK, "file": stat.S_IFREG}
    same(kinds, expected)
    same((os.lstat(v.path("char")).st_rdev, os.lstat(v.path("block")).st_rdev), (os.makedev(1, 3), os.makedev(300, 70000)))
    same((os.lstat(v.path("fifo")).st_size, os.lstat(v.path("fifo")).st_blocks), (0, 0))
    pid = os.fork()
    if not pid:
        with open(v.path("fifo"), "wb") as f:
            f.write(b"through")
        os._exit(0)
    same(get(v.path("fifo")), b"through")
    os.waitpid(pid, 0)
    fails(errno.ENXIO, os.open, v.path("socket"), os.O_RDONLY)
    fails(errno.EPERM, os.mknod, v.path("x"), stat.S_IFDIR | 0o755)
    fails(errno.EINVAL, os.mknod, v.path("x"), stat.S_IFLNK | 0o755)
    os.chmod(v.mnt, 0o777)
    for who in (ANN, User(0, without=[CAP_MKNOD])):
        who.fails(errno.EPERM, os.mknod, v.path("x"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
        who.fails(errno.EPERM, os.mknod, v.path("x"), stat.S_IFBLK | 0o600, os.makedev(1, 3))
        who.does(os.mknod, v.path("x"), stat.S_IFIFO | 0o600)
        os.unlink(v.path("x"))
    if os.statvfs(v.mnt).f_flag & os.ST_NODEV:
        fails(errno.EACCES, get, v.path("char"))
    else:
        same(get(v.path("char")), b"")


if __name__ == "__main__":
    each(as_bytes, too_long, loops, not_found, renames, whiteouts, links, sticky, removed_directory, special)
