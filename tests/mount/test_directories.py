"""Listing directories: order, positions, and names that come and go meanwhile."""

import ctypes
import errno
import os
import random
import struct

from apfsmount import check, put
from calls import LIBC, PLAIN, each, fails, same, syscall


class Dirent(ctypes.Structure):
    _fields_ = [
        ("ino", ctypes.c_uint64),
        ("off", ctypes.c_int64),
        ("len", ctypes.c_uint16),
        ("type", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    ]


LIBC.opendir.restype = ctypes.c_void_p
LIBC.readdir.restype = ctypes.POINTER(Dirent)
LIBC.telldir.restype = ctypes.c_long
for function in (LIBC.readdir, LIBC.telldir, LIBC.rewinddir, LIBC.closedir):
    function.argtypes = [ctypes.c_void_p]
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Listing:
    """As opendir(3)."""

    def __init__(self, path):
        self.dir = LIBC.opendir(os.fsencode(path))
        check(self.dir, f"opendir {path}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        LIBC.closedir(self.dir)

    def next(self):
        entry = LIBC.readdir(self.dir)
        return os.fsdecode(entry.contents.name) if entry else None

    def rest(self):
        names = []
        while (name := self.next()) is not None:
            names.append(name)
        return names

    def tell(self):
        return LIBC.telldir(self.dir)

    def seek(self, position):
        LIBC.seekdir(self.dir, position)

    def rewind(self):
        LIBC.rewinddir(self.dir)


def names_of(path):
    with Listing(path) as d:
        return d.rest()


def fill(v, count):
    os.mkdir(v.path("d"))
    names = [f"{random.Random(n).randrange(10**9)} {n}" for n in range(count)]
    for name in names:
        os.mknod(v.path("d", name))
    return names


def in_order(v):
    """In the order in which they were made, by whatever name, and whatever goes."""
    names = fill(v, 3000)
    if PLAIN:
        same(sorted(names_of(v.path("d"))), sorted([".", "..", *names]))
        return
    same(names_of(v.path("d")), [".", "..", *names])
    v.remount()
    same(names_of(v.path("d")), [".", "..", *names])
    for name in names[::3]:
        os.unlink(v.path("d", name))
    put(v.path("d", names[0]))  # made anew: at the end
    os.rename(v.path("d", names[1]), v.path("d", names[4]))  # over another: in its place
    os.rename(v.path("d", names[2]), v.path("d", "renamed"))  # a new name: in its own
    os.rename(v.path("d", names[5]), v.path("moved"))
    os.rename(v.path("moved"), v.path("d", names[5]))  # out and in: at the end
    left = ["renamed", *(n for i, n in enumerate(names) if i % 3 and i not in (1, 2, 5)), names[0], names[5]]
    same(names_of(v.path("d")), [".", "..", *left])
    v.remount()
    same(names_of(v.path("d")), [".", "..", *left])


def positions(v):
    names = fill(v, 2000)
    with Listing(v.path("d")) as d:
        places = []
        while True:
            place = d.tell()
            name = d.next()
            if name is None:
                break
            places.append((place, name))
        same(sorted(n for _, n in places), sorted([".", "..", *names]))
        same(d.next(), None)
        rng = random.Random(3)
        for place, name in rng.sample(places, 200):
            d.seek(place)
            same(d.tell(), place)
            same(d.next(), name)
        d.rewind()
        same(d.rest(), [n for _, n in places])
        # what was removed may be listed until one begins anew, what follows is where it was
        removed = {name for _, name in places[500:1500]}
        for name in removed:
            os.unlink(v.path("d", name))
        d.seek(places[400][0])
        same([n for n in d.rest() if n not in removed], [n for _, n in places[400:500] + places[1500:]])
        d.seek(places[1000][0])  # the place of one that went
        same([n for n in d.rest() if n not in removed], [n for _, n in places[1500:]])
        put(v.path("d", "new"))
        d.rewind()
        same(sorted(d.rest()), sorted([n for _, n in places[:500] + places[1500:]] + ["new"]))
    with Listing(v.path("d")) as d:  # positions of another listing, and of another mount
        d.seek(places[400][0])
        same([d.next() for _ in range(3)], [n for _, n in places[400:403]])
    if not PLAIN:
        v.remount()
        with Listing(v.path("d")) as d:
            d.seek(places[400][0])
            same([d.next() for _ in range(3)], [n for _, n in places[400:403]])


def through_changes(v):
    """Each that stays is listed once, whatever comes and goes; two listings at once do not mind each other."""
    names = fill(v, 6000)
    stays, goes = set(names[::2]), names[1::2]
    seen, other = [], []
    with Listing(v.path("d")) as a, Listing(v.path("d")) as b:
        for n in range(10**6):
            name = a.next()
            if name is None:
                break
            seen.append(name)
            if n % 3 == 0 and (name := b.next()):
                other.append(name)
            if n % 2 == 0 and n // 2 < len(goes):
                os.unlink(v.path("d", goes[n // 2]))
            if n % 5 == 0 and n < 5000:
                os.mknod(v.path("d", f"new {n}"))
            if n % 35 == 0 and n < 5000:
                os.rename(v.path("d", f"new {n}"), v.path("d", f"moved {n}"))
        other += b.rest()
    for listed in (seen, other):
        same(len([n for n in listed if n in stays]), len(stays), "entries that stayed")
        same(stays - set(listed), set())
        same(len(listed), len(set(listed)), "twice")
    check(not set(goes[: len(seen) // 2]) & set(os.listdir(v.path("d"))), "removed names are listed")


def renaming(v):
    """A listing that renames what it reads comes to an end."""
    names = fill(v, 2000)
    with Listing(v.path("d")) as d:
        for n in range(10**6):
            if (name := d.next()) is None:
                break
            if name in (".", ".."):
                continue
            os.rename(v.path("d", name), v.path("d", "for a moment"))
            os.rename(v.path("d", "for a moment"), v.path("d", name if n % 2 else f"{n} new"))
    check(n < 3 * len(names), f"{n} entries")
    same(len(os.listdir(v.path("d"))), len(names))


def emptied(v):
    """As rm -r does it: removing what one reads."""
    fill(v, 5000)
    with Listing(v.path("d")) as d:
        while (name := d.next()) is not None:
            if name not in (".", ".."):
                os.unlink(v.path("d", name))
    same(os.listdir(v.path("d")), [])
    os.rmdir(v.path("d"))


def entries(v):
    """Numbers and kinds in the listing are those of the files."""
    os.mkdir(v.path("d"))
    os.mkdir(v.path("d", "sub"))
    put(v.path("d", "f"))
    os.symlink("f", v.path("d", "l"))
    os.mkfifo(v.path("d", "p"))
    for _ in range(2):
        with os.scandir(v.path("d")) as it:
            found = {e.name: (e.inode(), e.is_dir(follow_symlinks=False), e.is_symlink()) for e in it}
        expected = {n: (os.lstat(v.path("d", n)).st_ino, n == "sub", n == "l") for n in ("sub", "f", "l", "p")}
        same(found, expected)
        with Listing(v.path("d")) as d:
            dots = {}
            while entry := LIBC.readdir(d.dir):
                dots[entry.contents.name] = entry.contents.ino
        same((dots[b"."], dots[b".."]), (os.stat(v.path("d")).st_ino, os.stat(v.mnt).st_ino))
        v.remount()
    fails(errno.ENOTDIR, os.listdir, v.path("d", "f"))
    fd = os.open(v.path("d"), os.O_RDONLY | os.O_DIRECTORY)
    room = ctypes.create_string_buffer(4096)
    fails(errno.EINVAL, syscall, "getdents64", fd, room, 8)  # no entry fits
    check(syscall("getdents64", fd, room, 4096) > 0, "getdents64")
    ino, _, length, kind = struct.unpack_from("<QqHB", room.raw)
    check(ino and length >= 24 and kind == 4, "the first entry")
    os.close(fd)


if __name__ == "__main__":
    each(in_order, positions, through_changes, renaming, emptied, entries, root=False)
