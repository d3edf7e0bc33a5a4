"""Numbers that stay: of inodes, in handles as NFS uses them, and of the space that statfs and du tell of."""

import ctypes
import errno
import os
import random

from apfsmount import MIB, check, put, run
from calls import AT_EMPTY_PATH, AT_FDCWD, CAP_DAC_READ_SEARCH, PLAIN, User, each, fails, same, syscall


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


def handle_of(path):
    h, mount = Handle(128), ctypes.c_int()
    syscall("name_to_handle_at", AT_FDCWD, path, ctypes.byref(h), ctypes.byref(mount), 0)
    return h


def open_handle(v, h, flags=os.O_RDONLY):
    """By way of a directory of the mount that is opened anew."""
    mount = os.open(v.mnt, os.O_RDONLY)
    try:
        return syscall("open_by_handle_at", mount, ctypes.byref(h), flags)
    finally:
        os.close(mount)


def generation(path):
    """What handles hold beside the number."""
    h = handle_of(path)
    return bytes(h.data[: h.bytes])


def numbers(v):
    os.makedirs(v.path("d", "e"))
    for n in range(200):
        put(v.path("d", f"f{n}"))
    os.link(v.path("d", "f0"), v.path("d", "l"))
    os.symlink("f0", v.path("d", "s"))

    def all_of():
        paths = [v.mnt, v.path("d", "e"), *(v.path("d", n) for n in sorted(os.listdir(v.path("d"))))]
        return {p: (os.lstat(p).st_ino, generation(p)) for p in paths}

    before = all_of()
    same(len({n for n, _ in before.values()}), len(before) - 1)
    v.remount()
    same(all_of(), before)
    os.rename(v.path("d", "f1"), v.path("moved"))
    same(os.stat(v.path("moved")).st_ino, before[v.path("d", "f1")][0])
    for n in range(2, 100):  # numbers that were free are not taken again with the same generation
        os.unlink(v.path("d", f"f{n}"))
    for n in range(2, 100):
        put(v.path("d", f"f{n}"))
    old = {before[v.path("d", f"f{n}")] for n in range(2, 100)}
    check(not old & {(os.stat(p).st_ino, generation(p)) for p in (v.path("d", f"f{n}") for n in range(2, 100))}, "reused")
    v.remount()
    same(os.stat(v.path("moved")).st_ino, before[v.path("d", "f1")][0])


def handles(v):
    """They open what they were made of, whatever it is called by now, and nothing else after it is gone."""
    os.makedirs(v.path("d", "e"))
    put(v.path("d", "f"), b"data")
    put(v.path("d", "gone"), b"gone")
    os.symlink("f", v.path("d", "l"))
    made = {n: handle_of(v.path("d", n)) for n in ("f", "e", "l", "gone")} | {"root": handle_of(v.mnt)}
    os.rename(v.path("d", "f"), v.path("d", "e", "renamed"))
    for _ in range(2):
        fd = open_handle(v, made["f"], os.O_RDWR)
        same(os.pread(fd, 9, 0), b"data")
        os.pwrite(fd, b"DATA", 0)
        os.pwrite(fd, b"data", 0)
        same(os.fstat(fd).st_ino, os.stat(v.path("d", "e", "renamed")).st_ino)
        os.close(fd)
        fd = open_handle(v, made["e"])
        same(os.listdir(fd), ["renamed"])
        parent = os.open("..", os.O_RDONLY, dir_fd=fd)
        same(os.fstat(parent).st_ino, os.stat(v.path("d")).st_ino)
        os.close(parent)
        os.close(fd)
        fd = open_handle(v, made["root"])
        same(os.listdir(fd), ["d"])
        os.close(fd)
        fails(errno.ELOOP, open_handle, v, made["l"])
        fd = open_handle(v, made["l"], os.O_PATH)
        os.close(fd)
        v.remount()
    os.unlink(v.path("d", "gone"))
    fails(errno.ESTALE, open_handle, v, made["gone"])
    put(v.path("d", "gone"), b"another")
    fails(errno.ESTALE, open_handle, v, made["gone"])
    v.remount()
    fails(errno.ESTALE, open_handle, v, made["gone"])
    wrong = Handle.from_buffer_copy(made["f"])
    wrong.data[4] ^= 0x40
    fails(errno.ESTALE, open_handle, v, wrong)
    User(0, without=[CAP_DAC_READ_SEARCH]).fails(errno.EPERM, open_handle, v, made["f"])
    fails(errno.EOVERFLOW, syscall, "name_to_handle_at", AT_FDCWD, v.mnt, ctypes.byref(Handle(0)), ctypes.byref(ctypes.c_int()), 0)
    fd = os.open(v.path("d"), os.O_PATH)
    h, mount = Handle(128), ctypes.c_int()
    syscall("name_to_handle_at", fd, b"", ctypes.byref(h), ctypes.byref(mount), AT_EMPTY_PATH)
    same(bytes(h.data), bytes(handle_of(v.path("d")).data))
    os.close(fd)


def space(v):
    """statfs, df and du tell of the disk that STORE is on, and of what files take in it."""
    st = os.statvfs(v.mnt)
    check(st.f_blocks >= st.f_bfree >= st.f_bavail > 0 and st.f_frsize in (512, 1024, 4096), f"statvfs: {st}")
    check(st.f_namemax == 255 and st.f_files >= st.f_ffree > 0, f"names and files: {st}")
    rng = random.Random(5)
    put(v.path("random"), rng.randbytes(8 * MIB))
    put(v.path("zeroes"), bytes(8 * MIB))
    put(v.path("small"), b"x")
    put(v.path("empty"), b"")
    with open(v.path("hole"), "wb") as f:
        f.truncate(8 * MIB)
    if not PLAIN:
        v.sync()
        v.remount()
    blocks = {n: os.stat(v.path(n)).st_blocks * 512 for n in os.listdir(v.mnt)}
    check(8 * MIB <= blocks["random"] <= 8.3 * MIB, f"of random bytes: {blocks['random']}")
    check(0 < blocks["small"] <= 4096, f"of one byte: {blocks['small']}")
    same((blocks["empty"], blocks["hole"]), (0, 0))
    check(PLAIN or 0 < blocks["zeroes"] < MIB, f"of zeroes: {blocks['zeroes']}")
    apparent = sum(os.stat(v.path(n)).st_size for n in blocks) >> 10
    check(abs(int(run("du", "-s", "--apparent-size", "-k", v.mnt).split()[0]) - apparent) <= 9, "du --apparent-size")
    check(abs(int(run("du", "-s", "-k", v.mnt).split()[0]) - (sum(blocks.values()) >> 10)) <= 9, "du")
    if PLAIN:
        return
    under = os.statvfs(v.store)
    below, shown = under.f_blocks * under.f_frsize, st.f_blocks * st.f_frsize
    check(0.9 * below <= shown <= below, f"df says {shown} of a disk of {below}")
    st, under = os.statvfs(v.mnt), os.statvfs(v.store)  # others use the disk too, meanwhile
    check(st.f_bavail * st.f_frsize <= under.f_bavail * under.f_frsize + 256 * MIB, "more is free than the disk has")
    check(v.mnt in run("df", v.mnt), "df")


if __name__ == "__main__":
    each(numbers, handles, space)
