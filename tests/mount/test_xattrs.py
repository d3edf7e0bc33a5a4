"""Extended attributes: namespaces, flags, sizes, who sees and who changes them."""

import ctypes
import errno
import os
import random

from apfsmount import check, put, wait_for
from calls import CAP_SYS_ADMIN, LIBC, PLAIN, User, each, fails, same, syscall

USER = User(1000)


def create_and_replace(v):
    p = v.path("f")
    put(p)
    fails(errno.ENODATA, os.getxattr, p, "user.a")
    fails(errno.ENODATA, os.removexattr, p, "user.a")
    fails(errno.ENODATA, os.setxattr, p, "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(p, "user.a", b"1", os.XATTR_CREATE)
    fails(errno.EEXIST, os.setxattr, p, "user.a", b"2", os.XATTR_CREATE)
    os.setxattr(p, "user.a", b"22", os.XATTR_REPLACE)
    same(os.getxattr(p, "user.a"), b"22")
    os.setxattr(p, "user.a", b"")
    same(os.getxattr(p, "user.a"), b"")
    same(os.listxattr(p), ["user.a"])
    fails(errno.EINVAL, os.setxattr, p, "user.a", b"1", 4)
    before = os.stat(p)
    wait_for(lambda: os.setxattr(p, "user.b", b"2") or os.stat(p).st_ctime_ns > before.st_ctime_ns, 5, "ctime stays")
    same(os.stat(p).st_mtime_ns, before.st_mtime_ns)
    os.removexattr(p, "user.a")
    v.remount()
    same({n: os.getxattr(p, n) for n in os.listxattr(p)}, {"user.b": b"2"})
    for make in (os.mkdir, os.mkfifo):
        make(v.path(make.__name__))
        os.setxattr(v.path(make.__name__), "trusted.t", b"t")
        same(os.listxattr(v.path(make.__name__)), ["trusted.t"])
    fails(errno.ENOENT, os.getxattr, v.path("none"), "user.a")


def sizes(v):
    """0 asks for the length, too little room is ERANGE, and a value may have 64 KiB."""
    p = v.path("f")
    put(p)
    os.setxattr(p, "user.a", b"12345")
    os.setxattr(p, "user.bc", b"")
    raw, name = os.fsencode(p), b"user.a"
    room = ctypes.create_string_buffer(70000)
    same(LIBC.getxattr(raw, name, None, 0), 5)
    same(LIBC.listxattr(raw, None, 0), 15)
    fails(errno.ERANGE, syscall, "getxattr", raw, name, room, 4)
    fails(errno.ERANGE, syscall, "listxattr", raw, room, 14)
    same((syscall("getxattr", raw, name, room, 5), room.raw[:5]), (5, b"12345"))
    same((syscall("listxattr", raw, room, 15), sorted(room.raw[:15].split(b"\0"))), (15, [b"", b"user.a", b"user.bc"]))
    same(LIBC.getxattr(raw, b"user.bc", room, 70000), 0)
    fails(errno.E2BIG, os.setxattr, p, "user.big", bytes(65537))
    fails(errno.ERANGE, os.setxattr, p, "user." + "n" * 251, b"x")
    fails(errno.ERANGE, os.getxattr, p, "")
    longest = "user." + "n" * 250
    os.setxattr(p, longest, b"long")
    same(os.getxattr(p, longest), b"long")
    if PLAIN:
        return  # all of ext4's fit in one block
    rng = random.Random(1)
    values = {f"user.{n}": rng.randbytes(n) for n in (1, 255, 4095, 4096, 4097, 40000, 65535, 65536)}
    for n, value in values.items():
        os.setxattr(p, n, value)
    fails(errno.ERANGE, syscall, "getxattr", raw, b"user.65536", room, 65535)
    v.remount()
    same({n: os.getxattr(p, n) for n in values}, values)


def many(v):
    p = v.path("f")
    put(p)
    names = [f"user.attribute {n}" for n in range(30 if PLAIN else 2000)]
    for n in names:
        os.setxattr(p, n, n.encode())
    same(sorted(os.listxattr(p)), sorted(names))
    v.remount()
    same(sorted(os.listxattr(p)), sorted(names))
    for n in names:
        os.removexattr(p, n)
    same(os.listxattr(p), [])
    odd = b"user.\xff\x01 =\\"
    os.setxattr(p, odd, b"\0\xff")
    same((os.listxattr(p), os.getxattr(p, odd)), ([os.fsdecode(odd)], b"\0\xff"))


def namespaces(v):
    p = v.path("f")
    put(p)
    for name in ("foo.bar", "plain", "system.foo", "users.a", "User.a", "trusted", "btrfs.x", "os2.x"):
        fails(errno.EOPNOTSUPP, os.setxattr, p, name, b"1")
        fails(errno.EOPNOTSUPP, os.getxattr, p, name)
        fails(errno.EOPNOTSUPP, os.removexattr, p, name)
    for name in ("user.", "trusted.", "security."):
        fails(errno.EINVAL, os.setxattr, p, name, b"1")
        fails(errno.EINVAL, os.getxattr, p, name)
        fails(errno.EINVAL, os.removexattr, p, name)
    for name in ("user.a", "trusted.a", "security.a"):
        os.setxattr(p, name, b"1")
        same(os.getxattr(p, name), b"1")
    os.symlink("f", v.path("l"))
    os.mkfifo(v.path("p"))
    os.mknod(v.path("c"), 0o20666, os.makedev(1, 3))
    for name in ("l", "p", "c"):  # user attributes belong to files and directories
        q = v.path(name)
        fails(errno.EPERM, os.setxattr, q, "user.a", b"1", follow_symlinks=False)
        fails(errno.ENODATA, os.getxattr, q, "user.a", follow_symlinks=False)
        fails(errno.EPERM, os.removexattr, q, "user.a", follow_symlinks=False)
        os.setxattr(q, "trusted.a", b"2", follow_symlinks=False)
        same(os.listxattr(q, follow_symlinks=False), ["trusted.a"])
    same(os.getxattr(v.path("l"), "user.a"), b"1")
    fd = os.open(p, os.O_RDONLY)
    os.setxattr(fd, "user.fd", b"1")
    os.unlink(p)
    same(sorted(os.listxattr(fd)), ["security.a", "trusted.a", "user.a", "user.fd"])
    os.removexattr(fd, "user.fd")
    os.close(fd)


def by_privilege(v):
    p = v.path("f")
    put(p)
    os.chmod(p, 0o644)
    for name in ("user.a", "trusted.a", "security.a"):
        os.setxattr(p, name, b"1")
    same(sorted(os.listxattr(p)), ["security.a", "trusted.a", "user.a"])
    for user in (USER, User(1000, apart=True)):
        same(sorted(user.does(os.listxattr, p)), ["security.a", "user.a"])
        user.fails(errno.EPERM, os.setxattr, p, "trusted.a", b"2")
    same(USER.does(LIBC.listxattr, os.fsencode(p), None, 0), 18)
    USER.fails(errno.ENODATA, os.getxattr, p, "trusted.a")
    USER.fails(errno.EPERM, os.removexattr, p, "trusted.a")
    same(USER.does(os.getxattr, p, "security.a"), b"1")
    USER.fails(errno.EPERM, os.setxattr, p, "security.a", b"2")
    USER.fails(errno.EPERM, os.removexattr, p, "security.a")
    same(USER.does(os.getxattr, p, "user.a"), b"1")
    USER.fails(errno.EACCES, os.setxattr, p, "user.a", b"2")
    USER.fails(errno.EACCES, os.removexattr, p, "user.a")
    os.chmod(p, 0o600)
    USER.fails(errno.EACCES, os.getxattr, p, "user.a")
    same(sorted(USER.does(os.listxattr, p)), ["security.a", "user.a"])
    weak = User(0, without=[CAP_SYS_ADMIN])
    weak.fails(errno.EPERM, os.setxattr, p, "trusted.a", b"2")
    same(sorted(weak.does(os.listxattr, p)), ["security.a", "user.a"])
    os.mkdir(v.path("d"))
    os.chmod(v.path("d"), 0o1777)  # of a sticky directory only the owner changes them
    USER.fails(errno.EPERM, os.setxattr, v.path("d"), "user.a", b"1")
    os.chmod(v.path("d"), 0o777)
    USER.does(os.setxattr, v.path("d"), "user.a", b"1")


if __name__ == "__main__":
    each(create_and_replace, sizes, many, namespaces, by_privilege)
