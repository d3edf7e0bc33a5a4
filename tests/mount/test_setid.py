"""Set-id bits and file capabilities: what takes them away, from whom, and what leaves them."""

import errno
import mmap
import os
import stat
import struct

from apfsmount import check, put
from calls import CAP_FSETID, User, each, fails, same, statx

CAPABILITY = "security.capability"
CAP_VALUE = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep
OWNER = User(1001, 2001)
MEMBER = User(1001, 2001, groups=[2100])
APART = User(1001, 2001, apart=True)
WEAK = User(0, groups=[2001], without=[CAP_FSETID])


def mode(path):
    """Asks for nothing else: the kernel may then answer with what it knows, and it starts programs by that."""
    return stat.S_IMODE(struct.unpack_from("<H", statx(path, 2), 0x1C)[0])  # STATX_MODE


def fresh(path, bits, uid=1001, gid=2001):
    put(path, b"x" * 100)
    os.chown(path, uid, gid)
    os.chmod(path, bits)
    put(os.path.join(os.path.dirname(path), "source"), b"y" * 100)
    same(mode(path), bits)  # the kernel knows it from now on
    return path


def write(path, flags=0):
    fd = os.open(path, os.O_WRONLY | flags)
    os.write(fd, b"new")
    os.close(fd)


def write_nothing(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"")
    os.close(fd)


def append(path):
    write(path, os.O_APPEND)


def write_directly(path):
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        os.write(fd, page)
    os.close(fd)


def truncate(path):
    os.truncate(path, 50)


def ftruncate(path):
    fd = os.open(path, os.O_WRONLY)
    os.ftruncate(fd, 50)
    os.close(fd)


def open_truncate(path):
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def allocate(path):
    fd = os.open(path, os.O_WRONLY)
    os.posix_fallocate(fd, 0, 200)
    os.close(fd)


def copy_into(path):
    source = os.open(os.path.join(os.path.dirname(path), "source"), os.O_RDONLY)
    fd = os.open(path, os.O_WRONLY)
    check(os.copy_file_range(source, fd, 50) > 0, "copy_file_range")
    os.close(fd)
    os.close(source)


CHANGES = (write, append, write_directly, truncate, ftruncate, open_truncate, allocate, copy_into)


def by_content(v):
    """A change of content by somebody without CAP_FSETID: suid goes, sgid too where the group may execute."""
    for change in CHANGES:
        for before, after in ((0o4777, 0o777), (0o6775, 0o775), (0o2755, 0o755), (0o6666, 0o2666), (0o1777, 0o1777)):
            what = f"{change.__name__} of {before:o}"
            p = fresh(v.path("f"), before, gid=2100)
            MEMBER.does(change, p)
            same(mode(p), after, f"{what} by the owner")
            for who in (WEAK, APART):
                p = fresh(v.path("f"), before)
                who.does(change, p)
                same(mode(p), after, f"{what} by a {'root apart' if who.apart else 'weak root'}")
            p = fresh(v.path("f"), before)
            change(p)
            same(mode(p), before, f"{what} by root")
        p = fresh(v.path("f"), 0o6777)
        User(7).does(change, p)
        same(mode(p), 0o777, f"{change.__name__} by others")
    p = fresh(v.path("f"), 0o6777)
    OWNER.does(write_nothing, p)
    same(mode(p), 0o6777, "no byte written")
    OWNER.does(write, p)
    v.remount()
    same(mode(p), 0o777)


def outside_the_group(v):
    """Where the group may not execute, sgid goes if the writer is not of the group."""
    for change in CHANGES:
        p = fresh(v.path("f"), 0o6666, gid=2100)
        OWNER.does(change, p)
        same(mode(p), 0o666, change.__name__)
    p = fresh(v.path("f"), 0o6666, gid=2001)
    OWNER.does(write, p)
    same(mode(p), 0o2666, "the group that one acts with")
    for change in CHANGES:
        p = fresh(v.path("f"), 0o6666, gid=2100)
        User(0, without=[CAP_FSETID]).does(change, p)
        same(mode(p), 0o666, f"{change.__name__} by root without CAP_FSETID")


def by_an_open_file(v):
    """The bits that come after open, and a second write."""
    p = fresh(v.path("f"), 0o644)

    def writes():
        fd = os.open(p, os.O_WRONLY)
        found = []
        for bits in (0o6755, 0o2755, 0o4711):
            os.chmod(p, bits)
            os.write(fd, b"12345")
            found.append(mode(p))
        os.write(fd, b"more")
        os.close(fd)
        return found

    same(OWNER.does(writes), [0o755, 0o755, 0o711])
    v.remount()
    same(mode(p), 0o711)


def by_owner(v):
    p = fresh(v.path("f"), 0o6755)
    os.chown(p, 5, 5)
    same(mode(p), 0o755, "chown by root")
    p = fresh(v.path("f"), 0o6755)
    os.chown(p, 1001, 2001)
    same(mode(p), 0o755, "chown to the same")
    p = fresh(v.path("f"), 0o6755)
    MEMBER.does(os.chown, p, -1, 2100)
    same((mode(p), os.stat(p).st_gid), (0o755, 2100), "chgrp by the owner")
    p = fresh(v.path("f"), 0o6745)
    os.chown(p, 5, 5)
    same(mode(p), 0o2745, "sgid without execution, by root")
    p = fresh(v.path("f"), 0o6745)
    User(0, without=[CAP_FSETID]).does(os.chown, p, 5, 5)
    same(mode(p), 0o745, "sgid without execution, by root without CAP_FSETID")
    p = fresh(v.path("f"), 0o6745, gid=2100)
    OWNER.does(os.chown, p, -1, 2001)
    same(mode(p), 0o745, "sgid without execution, of another group")
    p = fresh(v.path("f"), 0o6755)
    OWNER.fails(errno.EPERM, os.chown, p, -1, 2100)
    OWNER.fails(errno.EPERM, os.chown, p, 1002, -1)
    same(mode(p), 0o6755)
    os.mkdir(v.path("d"))
    os.chown(v.path("d"), 1001, 2001)
    os.chmod(v.path("d"), 0o6755)
    os.chown(v.path("d"), 5, 5)
    same(mode(v.path("d")), 0o6755, "a directory")
    os.symlink("f", v.path("l"))
    os.lchown(v.path("l"), 5, 6)
    same((os.lstat(v.path("l")).st_uid, os.lstat(v.path("l")).st_gid, os.stat(p).st_uid), (5, 6, 1001))


def by_mode(v):
    p = fresh(v.path("f"), 0o755, gid=2100)
    OWNER.does(os.chmod, p, 0o6755)
    same(mode(p), 0o4755, "an owner outside of the group")
    MEMBER.does(os.chmod, p, 0o6755)
    same(mode(p), 0o6755)
    User(7).fails(errno.EPERM, os.chmod, p, 0o755)
    OWNER.does(os.chmod, p, 0o1644)
    same(mode(p), 0o1644, "sticky, of a file")


def created(v):
    d = v.path("d")
    os.mkdir(d)
    os.chown(d, 0, 2100)
    os.chmod(d, 0o2777)

    def make(prefix):
        for name, bits in (("f", 0o2775), ("g", 0o2666), ("h", 0o6755)):
            os.close(os.open(f"{d}/{prefix}{name}", os.O_CREAT | os.O_WRONLY, bits))
        os.mkdir(f"{d}/{prefix}d", 0o775)
        os.mkfifo(f"{d}/{prefix}p", 0o664)
        os.symlink("x", f"{d}/{prefix}l")

    for who, prefix in ((OWNER, "o"), (MEMBER, "m"), (User(0), "r")):
        who.does(make, prefix)
    v.remount()
    found = {n: mode(f"{d}/{n}") for n in os.listdir(d)}
    same({n: found["o" + n] for n in "fghdpl"}, {"f": 0o755, "g": 0o2644, "h": 0o4755, "d": 0o2755, "p": 0o644, "l": 0o777})
    same({n: found["m" + n] for n in "fghdpl"}, {"f": 0o2755, "g": 0o2644, "h": 0o6755, "d": 0o2755, "p": 0o644, "l": 0o777})
    same({n: found["r" + n] for n in "fghdpl"}, {"f": 0o2755, "g": 0o2644, "h": 0o6755, "d": 0o2755, "p": 0o644, "l": 0o777})
    same({os.lstat(f"{d}/{n}").st_gid for n in found}, {2100})
    same(os.lstat(f"{d}/of").st_uid, 1001)


def capabilities(v):
    """Any change of content or owner takes them, root's too; names, times and mode leave them."""

    def kept(path, expected, what):
        found = CAPABILITY in os.listxattr(path)
        check(found == expected, f"{what}: the capability is {'there' if found else 'gone'}")
        fails(errno.ENODATA, os.getxattr, path, CAPABILITY) if not expected else same(os.getxattr(path, CAPABILITY), CAP_VALUE)

    def give():
        p = fresh(v.path("f"), 0o755)
        os.setxattr(p, CAPABILITY, CAP_VALUE)
        kept(p, True, "fresh")
        return p

    p = give()
    v.remount()
    kept(p, True, "a remount")
    for what, change in {
        "chmod": lambda: os.chmod(p, 0o711),
        "utime": lambda: os.utime(p, (1, 2)),
        "rename": lambda: os.rename(p, p + "2") or os.rename(p + "2", p),
        "link": lambda: os.link(p, p + "3"),
        "read": lambda: open(p, "rb").read(),
    }.items():
        change()
        kept(p, True, what)
    p = give()
    with open(p, "r+b", buffering=0) as f:
        f.write(b"still in the kernel's cache")
        kept(p, False, "a write")
        os.setxattr(p, CAPABILITY, CAP_VALUE)
        os.fsync(f)
        kept(p, True, "write-back of what was written before")
    v.remount()
    kept(p, True, "that, after a remount")
    for change in CHANGES:
        for who in (User(0), OWNER):
            p = give()
            who.does(change, p)
            kept(p, False, f"{change.__name__} by {who.uid}")
    p = give()
    os.chown(p, 0, 0)
    kept(p, False, "chown")
    p = give()
    write(p)
    v.remount()
    kept(p, False, "write, remount")
    p = give()
    fd = os.open(p, os.O_RDWR)
    os.write(fd, b"1")
    os.setxattr(p, CAPABILITY, CAP_VALUE)
    kept(p, True, "given between writes")
    os.write(fd, b"2")
    kept(p, False, "the second write")
    os.close(fd)
    OWNER.fails(errno.EPERM, os.setxattr, p, CAPABILITY, CAP_VALUE)


if __name__ == "__main__":
    each(by_content, outside_the_group, by_an_open_file, by_owner, by_mode, created, capabilities)
