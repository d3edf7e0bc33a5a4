"""Random sequences of system calls, made from a seed; runner.py runs them.

What a sequence does is settled before it runs, so two filesystems get the same one, and what they tell can be compared.
"""

import os
import stat
import struct

from calls import AT_EMPTY_PATH, AT_FDCWD

SLOTS = 4  # open files and directories
OLD = 10**18  # ns: earlier times are such as somebody has set
NAMES = (b"a", b"b", b"c", b"d", b"e")
USERS = ((0, 0, ()), (0, 0, ()), (0, 0, ()), (1001, 2001, (2003,)), (1002, 2002, (2003, 2001)), (1003, 2004, ()))
# CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETFCAP, MKNOD, SYS_ADMIN, LINUX_IMMUTABLE
CHOWN, FOWNER = 0, 3
CAPABILITIES = (CHOWN, 1, 2, FOWNER, 4, 31, 27, 21, 9)
MODES = (0o644, 0o755, 0o777, 0o600, 0, 0o4755, 0o2755, 0o1777, 0o6777, 0o2666, 0o2777, 0o6711, 0o444, 0o111, 0o177777)
IDS = (-1, 0, 1001, 1002, 1003, 2001, 2002, 2003, 65534)
SIZES = (0, 1, 10, 100, 4095, 4096, 4097, 10000, 70000)
OFFSETS = (0, 0, 1, 100, 4096, 5000, 65536, 1 << 20, 1 << 33)
EDGES = (-1, -(1 << 63))  # no more than ext4 has room for
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EACCESS = 0x100, 0x200, 0x400, 0x200


class Fd(int):
    """The descriptor in a slot, or -1."""

    def __repr__(self):
        return f"Fd({int(self)})"


class Out(int):
    """Room for that many bytes, shown afterwards as far as the call says that it filled it."""

    def __repr__(self):
        return f"Out({int(self)})"


class Data(bytes):
    def __repr__(self):
        return f"Data({len(self)})"


class Bad:
    """A pointer to nothing."""

    def __repr__(self):
        return "Bad()"


class Step:
    def __init__(self, who, name, args, slot=None):
        self.who, self.name, self.args, self.slot = who, name, args, slot
        self.umask, self.capabilities, self.limit, self.pause = 0o022, None, None, False

    def __repr__(self):
        uid = USERS[self.who][0]
        extra = "" if self.capabilities is None else f" with capabilities {self.capabilities:#x}"
        extra += "" if self.limit is None else f" limited to {self.limit}"
        into = "" if self.slot is None else f" -> slot {self.slot}"
        return f"{uid}{extra} umask {self.umask:03o}: {self.name}{self.args!r}{into}"


class Maker:
    def __init__(self, rng, steps, pauses):
        self.r = rng
        self.pauses = pauses
        self.steps = self.beginning() + [self.any() for _ in range(steps)]

    def beginning(self):
        """Something to work on, of several owners; the last slot has a directory."""
        r, steps = self.r, [Step(0, "mkdirat", (AT_FDCWD, name, 0o777)) for name in NAMES[:3]]
        for n, name in enumerate(a + b"/" + b for a in NAMES[:3] for b in NAMES[:3]):
            kind, args = r.choice((
                ("openat", (AT_FDCWD, name, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, r.choice((0o666, 0o644)))),
                ("openat", (AT_FDCWD, name, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, r.choice((0o666, 0o644)))),
                ("mkdirat", (AT_FDCWD, name, r.choice((0o777, 0o1777, 0o755)))),
                ("symlinkat", (self.path(0), AT_FDCWD, name)),
                ("mknodat", (AT_FDCWD, name, r.choice((stat.S_IFIFO, stat.S_IFSOCK)) | 0o666, 0)),
            ))  # fmt: skip
            steps.append(Step(r.randrange(len(USERS)), kind, args, n % SLOTS if kind == "openat" else None))
        steps.append(Step(0, "openat", (AT_FDCWD, r.choice(NAMES[:3]), os.O_DIRECTORY, 0), SLOTS - 1))
        for step in steps:
            step.umask = 0
        return steps

    def any(self):
        r = self.r
        name = r.choices(*WEIGHTS)[0]
        args, slot = getattr(self, name)()
        call = {"open_closed": "openat", "open2": "openat2"}.get(name, name)
        step = Step(r.randrange(len(USERS)), call, args, slot)
        step.umask = r.choice((0, 0, 0o022, 0o022, 0o022, 0o027, 0o077)) if r.random() < 0.98 else 0o777
        if r.random() < 0.15:
            step.capabilities = sum(1 << n for n in CAPABILITIES if r.random() < 0.4)
            # Of a set-id file ext4 takes that for a change of mode too, and the kernel's FUSE does not.
            if "chown" in call and step.capabilities & 1 << CHOWN:
                step.capabilities |= 1 << FOWNER
        if name in LIMITED and r.random() < 0.1:
            step.limit = r.choice((0, 50, 4096, 9000))
            # What gives EFBIG has cleared the set-id bits on ext4, and has not by the kernel's FUSE.
            if call == "fallocate":
                step.who, step.capabilities = 0, None
        step.pause = self.pauses
        return step

    def path(self, strange=0.03):
        r = self.r
        if r.random() < strange:
            return r.choice(STRANGE)
        parts = [r.choice(NAMES[:3]), r.choice(NAMES), r.choice(NAMES)][: r.choice((1, 2, 2, 2, 2, 2, 2, 3))]
        if r.random() < 0.06:
            parts.insert(r.randrange(len(parts) + 1), r.choice((b".", b"..", b"..")))
        return b"/" * (r.random() < 0.1) + b"/".join(parts) + b"/" * (r.random() < 0.05)

    def at(self):
        return Fd(self.r.choice((0, 3, 3, 3))) if self.r.random() < 0.12 else AT_FDCWD

    def fd(self):
        return Fd(self.r.randrange(SLOTS))

    def flags(self, *known, often=0):
        r = self.r
        x = r.random()
        return often if x < 0.6 else r.choice(known) if x < 0.96 else r.choice((0x8000, 0x10000, 1 << 30, sum(known)))

    def mode(self):
        return self.r.choice(MODES) if self.r.random() < 0.8 else self.r.getrandbits(12)

    def size(self):
        return self.r.choice(SIZES) if self.r.random() < 0.97 else self.r.choice(EDGES)

    def offset(self):
        return self.r.choice(OFFSETS) if self.r.random() < 0.97 else self.r.choice((*EDGES, (1 << 63) - 1))

    def data(self):
        return Data(self.r.randbytes(self.r.choice(SIZES)))

    # each: arguments, and the slot of what is opened

    def open_flags(self, more=()):
        r = self.r
        flags = r.choice((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, 3)) | os.O_NONBLOCK
        for flag, odds in ((os.O_CREAT, 0.4), (os.O_EXCL, 0.12), (os.O_TRUNC, 0.15), (os.O_APPEND, 0.15), (os.O_DIRECTORY, 0.12),
                           (os.O_NOFOLLOW, 0.1), (os.O_PATH, 0.05), (os.O_NOATIME, 0.05), (os.O_SYNC, 0.03),
                           (os.O_CLOEXEC, 0.1), *more):  # fmt: skip
            flags |= flag if r.random() < odds else 0
        return flags

    def openat(self):
        return (self.at(), self.path(), self.open_flags(), self.mode()), self.r.randrange(SLOTS)

    def open_closed(self):
        return (self.at(), self.path(), self.open_flags(((os.O_DIRECT, 0.3), (os.O_ASYNC, 0.1))), self.mode()), -1

    def open2(self):
        r = self.r
        mode = self.mode() if r.random() < 0.5 else 0
        how = struct.pack("<QQQ", self.open_flags(), mode, r.choice((0, 1, 2, 4, 8, 16, 12, 24, 64)))
        return (self.at(), self.path(), how, len(how)), r.randrange(SLOTS)

    def mkdirat(self):
        return (self.at(), self.path(), self.mode()), None

    def mknodat(self):
        kind = self.r.choice((0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, stat.S_IFLNK, 0o50000))
        return (self.at(), self.path(), kind | self.mode() & 0o7777, os.makedev(1, self.r.choice((3, 5, 300)))), None

    def symlinkat(self):
        r = self.r
        target = r.choice((b"t" * 4095, b"t" * 4096, b"t" * 60, b"")) if r.random() < 0.05 else self.path(0)
        return (target, self.at(), self.path()), None

    def linkat(self):
        return (self.at(), self.path(), self.at(), self.path(), self.flags(AT_SYMLINK_FOLLOW, AT_EMPTY_PATH)), None

    def unlinkat(self):
        return (self.at(), self.path(), self.flags(AT_REMOVEDIR)), None

    def renameat2(self):
        return (self.at(), self.path(), self.at(), self.path(), self.flags(1, 2, 4, 5)), None

    def fchmodat(self):
        return (self.at(), self.path(), self.mode(), 0), None

    def fchmodat2(self):
        return (self.at(), self.path(), self.mode(), self.flags(AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH)), None

    def fchmod(self):
        return (self.fd(), self.mode()), None

    def fchownat(self):
        ids = self.r.choice(IDS), self.r.choice(IDS)
        return (self.at(), self.path(), *ids, self.flags(AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH)), None

    def fchown(self):
        return (self.fd(), self.r.choice(IDS), self.r.choice(IDS)), None

    def truncate(self):
        return (self.path(), self.r.choice((self.size(), *OFFSETS))), None

    def ftruncate(self):
        return (self.fd(), self.r.choice((self.size(), *OFFSETS))), None

    def utimensat(self):
        r = self.r
        path = None if r.random() < 0.15 else self.path()
        stamps = [r.choice((r.randrange(OLD), -5 * 10**9 + 3, 7)) for _ in range(2)]
        pairs = [(s // 10**9, r.choice((s % 10**9,) * 5 + ((1 << 30) - 1, (1 << 30) - 2) * 2 + (10**9,))) for s in stamps]
        times = None if r.random() < 0.15 else struct.pack("<qqqq", *pairs[0], *pairs[1])
        flags = self.flags(AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH)
        return (self.fd() if path is None else self.at(), path, times, flags), None

    def faccessat2(self):
        return (self.at(), self.path(), self.r.choice((0, 1, 2, 4, 6, 7, 8, 5)), self.flags(AT_EACCESS, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH)), None

    def xattr_name(self):
        r = self.r
        if r.random() < 0.1:
            return r.choice((b"system.foo", b"foo", b"user.", b"", b"user." + b"x" * 250, b"user." + b"x" * 251, b"os2.a", None, b"user"))
        return r.choice((b"user.a", b"user.b", b"trusted.a", b"security.a", b"security.capability", ACCESS, ACCESS, DEFAULT, DEFAULT))

    def acl(self):
        r = self.r
        entries = [(1, r.randrange(8), -1), (4, r.randrange(8), -1), (32, r.randrange(8), -1)]
        named = [(tag, r.randrange(8), r.choice((1001, 1002, 2001, 2003))) for tag in (2, 8) if r.random() < 0.4]
        if named or r.random() < 0.3:
            entries += [*named, (16, r.randrange(8), -1)]
        if r.random() < 0.1:
            entries.pop(r.randrange(len(entries)))
        if r.random() < 0.05:
            entries.append(r.choice(((1, 7, -1), (3, 7, -1), (2, 9, 5))))
        entries.sort()
        return struct.pack("<I", r.choice((2,) * 30 + (1,))) + b"".join(struct.pack("<HHi", *e) for e in entries)

    def xattr_value(self, name):
        r = self.r
        if name in (ACCESS, DEFAULT):
            return self.acl() if r.random() < 0.95 else r.choice((b"", b"\2\0\0\0", b"12345"))
        if name == b"security.capability":
            return CAPABILITY if r.random() < 0.9 else b"123"
        return Data(r.randbytes(r.choice((0, 1, 20, 100))))

    def setxattr(self):
        name = self.xattr_name()
        value = self.xattr_value(name)
        return (self.path(), name, value, len(value), self.flags(1, 2)), None

    lsetxattr = setxattr

    def fsetxattr(self):
        args, slot = self.setxattr()
        return (self.fd(), *args[1:]), slot

    def getxattr(self):
        room = self.r.choice((0, 0, 5, 300, 300, 65536, 65537))
        return (self.path(), self.xattr_name(), Out(room), room), None

    lgetxattr = getxattr

    def fgetxattr(self):
        args, slot = self.getxattr()
        return (self.fd(), *args[1:]), slot

    def listxattr(self):
        room = self.r.choice((0, 5, 4096))
        return (self.path(), Out(room), room), None

    llistxattr = listxattr

    def flistxattr(self):
        args, slot = self.listxattr()
        return (self.fd(), *args[1:]), slot

    def removexattr(self):
        return (self.path(), self.xattr_name()), None

    lremovexattr = removexattr

    def fremovexattr(self):
        return (self.fd(), self.xattr_name()), None

    def fallocate(self):
        r = self.r
        length = r.choice((1, 4096, 10000, 65536)) if r.random() < 0.9 else r.choice((0, *EDGES))
        mode = r.choice((0, 0, 1, 3, 3, 16, 17)) if r.random() < 0.9 else r.choice((2, 19, 128))
        return (self.fd(), mode, r.choice((0, 0, 10, 4096, 5000, 65536)) if r.random() < 0.97 else -1, length), None

    def lseek(self):
        off = min(self.offset(), 1 << 40)  # the largest file of ext4 is smaller than ours
        return (self.fd(), off * self.r.choice((1, 1, -1)), self.r.choice((0, 1, 2, 2, 5, -1))), None

    def read(self):
        size = self.r.choice(SIZES)
        return (self.fd(), Out(size), size), None

    def pread(self):
        size = self.r.choice(SIZES)
        return (self.fd(), Out(size), size, self.offset()), None

    def write(self):
        data = self.data()
        return (self.fd(), data, len(data)), None

    def pwrite(self):
        data = self.data()
        return (self.fd(), data, len(data), self.offset()), None

    def readlinkat(self):
        size = self.r.choice((0, 1, 10, 4096))
        return (self.at(), self.path(), Out(size), size), None

    def statx(self):
        return (self.at(), self.path(), self.flags(AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, 0x2000, 0x4000, 0x6000), 0x7FF, Out(256)), None

    def getdents64(self):
        return (self.fd(), Out(self.r.choice((1, 4096)))), None

    def fsync(self):
        return (self.fd(),), None

    fdatasync = syncfs = close = fchdir = fsync

    def sync_file_range(self):
        return (self.fd(), self.offset(), self.size(), self.r.choice((0, 1, 2, 4, 7, 8))), None

    def posix_fadvise(self):
        return (self.fd(), self.offset(), self.size(), self.r.choice((0, 1, 2, 3, 4, 5, 9))), None

    def readahead(self):
        return (self.fd(), self.offset(), self.size()), None

    def copy_file_range(self):
        return (self.fd(), None, self.fd(), None, self.r.choice(SIZES), self.r.choice((0,) * 9 + (1,))), None

    def sendfile(self):
        return (self.fd(), self.fd(), None, self.r.choice(SIZES)), None

    def flock(self):
        return (self.fd(), self.r.choice((1, 2, 8, 3)) | 4), None

    def fcntl(self):
        r = self.r
        flags = r.choice((0, os.O_APPEND, os.O_NONBLOCK, os.O_APPEND | os.O_NONBLOCK, os.O_NOATIME, os.O_TRUNC))
        return (self.fd(), *r.choice(((3, 0), (4, flags | os.O_NONBLOCK), (1, 0), (99, 0)))), None

    def chdir(self):
        return (self.path() if self.r.random() < 0.5 else b"/",), None

    def getcwd(self):
        size = self.r.choice((1, 4096))
        return (Out(size), size), None

    def bind(self):
        return (self.path(0),), None

    def execveat(self):
        return (self.at(), self.path(), self.flags(AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH)), None

    def statfs(self):
        return (self.path(), Out(256)), None

    def inotify_add_watch(self):
        return (self.path(), self.r.choice((2, 0x100, 0x01000002, 0x02000002, 0))), None

    def name_to_handle_at(self):
        return (self.at(), self.path(), self.flags(AT_SYMLINK_FOLLOW, AT_EMPTY_PATH)), None


ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
STRANGE = (b"", None, Bad(), b"/", b".", b"..", b"n" * 255, b"n" * 256, b"a/" + b"n" * 256, b"./" * 2047 + b"a",
           b"./" * 2047 + b"ab", b"a//b", b"/..", b"a/./", b"b/..", b"..a")  # fmt: skip
LIMITED = {"write", "pwrite", "truncate", "ftruncate", "fallocate", "copy_file_range", "sendfile", "openat"}
WEIGHTS = tuple(zip(*{
    "openat": 16, "open_closed": 5, "open2": 2, "mkdirat": 6, "mknodat": 5, "symlinkat": 5, "linkat": 6, "unlinkat": 9,
    "renameat2": 10, "fchmodat": 5, "fchmodat2": 2, "fchmod": 3, "fchownat": 5, "fchown": 3, "truncate": 4, "ftruncate": 3,
    "utimensat": 5, "faccessat2": 4, "setxattr": 5, "lsetxattr": 2, "fsetxattr": 2, "getxattr": 3, "lgetxattr": 1,
    "fgetxattr": 1, "listxattr": 1, "llistxattr": 1, "flistxattr": 1, "removexattr": 3, "lremovexattr": 1,
    "fremovexattr": 1, "fallocate": 4, "lseek": 3, "read": 3, "pread": 3, "write": 5, "pwrite": 5, "readlinkat": 3,
    "statx": 2, "getdents64": 2, "fsync": 1, "fdatasync": 1, "syncfs": 0.2, "close": 1, "fchdir": 1, "sync_file_range": 0.5,
    "posix_fadvise": 0.5, "readahead": 0.5, "copy_file_range": 3, "sendfile": 1, "flock": 1, "fcntl": 2, "chdir": 3,
    "getcwd": 1, "bind": 1, "execveat": 0.5, "statfs": 0.5, "inotify_add_watch": 0.5, "name_to_handle_at": 0.5,
}.items()))  # fmt: skip
