"""Runs the steps of a random sequence in a directory, and tells all that shows of them."""

import ctypes
import errno
import hashlib
import os
import resource
import signal
import socket
import stat
import struct
import time

from calls import LIBC, statx
from sequences import ACCESS, DEFAULT, OLD, SLOTS, USERS, Bad, Fd, Out

ALL_CAPABILITIES = (1 << 41) - 1
FCHMODAT2, OPENAT2, FACCESSAT2, GETDENTS64 = 452, 437, 439, 217 if os.uname().machine == "x86_64" else 61
SYSCALLS = {"fchmodat2": FCHMODAT2, "openat2": OPENAT2, "faccessat2": FACCESSAT2, "getdents64": GETDENTS64}
SHOWN = {"read", "pread", "getxattr", "lgetxattr", "fgetxattr", "readlinkat", "getcwd"}
LISTED = {"listxattr", "llistxattr", "flistxattr"}
NUMBERLESS = {"openat", "openat2", "getdents64"}  # a success has a number that says nothing
STATX = (
    ("mode", 2, "<H", 0x1C), ("uid", 8, "<I", 0x14), ("gid", 16, "<I", 0x18), ("nlink", 4, "<I", 0x10), ("size", 0x200, "<Q", 0x28),
    ("ctime", 0x80, "<qI", 0x60), ("mtime", 0x40, "<qI", 0x70),
)  # fmt: skip
LONG = {"lseek", "read", "pread", "write", "pwrite", "copy_file_range", "sendfile", "readahead", "readlinkat", "getcwd"}


def set_capabilities(effective):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    LIBC.capget(header, data)
    for half in range(2):
        data[3 * half] = effective >> 32 * half & data[3 * half + 1]
    if LIBC.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def known(path, alone):
    """Of what the kernel caches, each asked for alone, or all at once: then it asks anew if one of them may be old."""
    try:
        whole = None if alone else statx(path, sum(mask for _, mask, _, _ in STATX))
        return [(name, *struct.unpack_from(form, whole or statx(path, mask), at)) for name, mask, form, at in STATX]
    except OSError:
        return None


class Runner:
    """Runs steps in the directory that is / here; it has to be a process of its own."""

    def __init__(self):
        self.slots = [-1] * SLOTS
        self.signals = 0
        self.before, self.paths = {}, []
        os.chdir("/")
        signal.signal(signal.SIGXFSZ, self.count)

    def count(self, *_):
        self.signals += 1

    def become(self, step):
        uid, gid, groups = USERS[step.who]
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, 0)
        if step.capabilities is not None:
            set_capabilities(step.capabilities)
        os.umask(step.umask)
        if step.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (step.limit, resource.RLIM_INFINITY))

    @staticmethod
    def be_root():
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        set_capabilities(ALL_CAPABILITIES)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def argument(self, arg):
        if isinstance(arg, Fd):
            return ctypes.c_long(self.slots[arg])
        if isinstance(arg, Out):
            return ctypes.create_string_buffer(int(arg)) if arg else None
        if isinstance(arg, Bad):
            return ctypes.c_void_p(1)
        return ctypes.c_long(arg) if isinstance(arg, int) else arg

    def call(self, step):
        """(what it gives, errno, bytes)"""
        args = [self.argument(a) for a in step.args]
        if step.name == "lseek" and (fd := self.slots[step.args[0]]) >= 0 and stat.S_ISDIR(os.fstat(fd).st_mode):
            return "where a directory's positions end is the filesystem's business"
        if step.name == "truncate" and self.has_size(*step.args):
            return "which times this changes is the filesystem's business"
        if step.name.endswith("removexattr") and self.lacks_acl(step):
            return "which times this changes is the filesystem's business"
        self.signals = 0
        self.become(step)
        try:
            special = getattr(self, f"do_{step.name}", None)
            ctypes.set_errno(0)
            if special:
                ret = special(*args)
            elif step.name in SYSCALLS:
                extra = [ctypes.c_long(step.args[1])] if step.name == "getdents64" else []
                ret = LIBC.syscall(ctypes.c_long(SYSCALLS[step.name]), *args, *extra)
            else:
                function = getattr(LIBC, step.name)
                function.restype = ctypes.c_long if step.name in LONG or "xattr" in step.name else ctypes.c_int
                ret = function(*args)
            code = ctypes.get_errno()
        finally:
            self.be_root()
        if step.name == "getcwd":
            ret = 0 if ret else -1
        elif step.name == "posix_fadvise":
            ret, code = (-1, ret) if ret else (0, 0)
        return self.told(step, args, ret, code)

    @staticmethod
    def has_size(path, size):
        try:
            st = os.stat(path) if isinstance(path, bytes) else None
            return st is not None and stat.S_ISREG(st.st_mode) and st.st_size == size
        except OSError:
            return False

    def lacks_acl(self, step):
        """Removing an ACL that is not there succeeds, and after a success the kernel's FUSE sets ctime."""
        what, name = step.args[:2]
        if name not in (ACCESS, DEFAULT) or isinstance(what, Bad) or what is None:
            return False
        what = self.slots[what] if isinstance(what, Fd) else what
        try:
            os.getxattr(what, name, follow_symlinks=step.name != "lremovexattr")
        except OSError as e:
            return e.errno == errno.ENODATA
        return False

    def told(self, step, args, ret, code):
        if step.slot is not None and ret >= 0:
            if step.slot < 0:
                os.close(ret)
            else:
                if self.slots[step.slot] >= 0:
                    os.close(self.slots[step.slot])
                self.slots[step.slot] = ret
        if step.name == "close" and ret == 0:
            self.slots[step.args[0]] = -1
        if step.name == "getdents64" and ret > 0:
            os.lseek(self.slots[step.args[0]], 0, os.SEEK_SET)
        if ret < 0:
            return errno.errorcode.get(code, code), self.signals
        shown = b""
        room = [a for a, b in zip(args, step.args) if isinstance(b, Out) and a is not None]
        if room and step.name in SHOWN:
            shown = room[0].value if step.name == "getcwd" else room[0].raw[:ret]
            if len(shown) > 5000:
                shown = hashlib.blake2b(shown, digest_size=8).digest()
        elif room and step.name in LISTED:
            shown = b" ".join(sorted(room[0].raw[:ret].split(b"\0")))
        return 0 if step.name in NUMBERLESS else ret, self.signals, shown

    @staticmethod
    def failing(call):
        try:
            call()
            return 0
        except OSError as e:
            ctypes.set_errno(e.errno)
            return -1

    def do_bind(self, path):
        with socket.socket(socket.AF_UNIX) as s:
            return self.failing(lambda: s.bind(path))

    @staticmethod
    def do_execveat(at, path, flags):
        pid = os.fork()
        if not pid:
            argv = (ctypes.c_char_p * 2)(b"x", None)
            LIBC.execveat(at, path, argv, argv, flags)
            os._exit(ctypes.get_errno())
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        ctypes.set_errno(status if status > 0 else 0)
        return -1

    @staticmethod
    def do_inotify_add_watch(path, mask):
        fd = LIBC.inotify_init1(0)
        ret = LIBC.inotify_add_watch(fd, path, mask)
        os.close(fd)
        return min(ret, 0)

    @staticmethod
    def do_name_to_handle_at(at, path, flags):
        room, mount = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 140), ctypes.c_int()
        return LIBC.name_to_handle_at(at, path, room, ctypes.byref(mount), flags)

    # what shows afterwards

    def stamp(self, key, ns):
        """A time that somebody has set counts as it is; of others, whether they have changed since the last look."""
        if self.exactly or ns < OLD:
            return ns
        old = self.before.get(key)
        self.seen[key] = ns
        return "same" if old == ns else "now"

    def inode(self, path, numbers, pauses):
        st = os.lstat(path)
        kind = stat.S_IFMT(st.st_mode)
        number = numbers.setdefault(st.st_ino, len(numbers))
        item = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, number]
        for name in ("atime", "mtime", "ctime"):
            told = self.stamp((st.st_ino, name), getattr(st, f"st_{name}_ns"))
            item.append(told if pauses or not isinstance(told, str) else "now")
        if kind == stat.S_IFREG:
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
            item += [st.st_size, hashlib.blake2b(os.pread(fd, 200000, 0), digest_size=6).hexdigest()]
            os.close(fd)
        elif kind == stat.S_IFLNK:
            item += [st.st_size, os.readlink(path)[:100]]
        elif kind != stat.S_IFDIR:
            item += [st.st_size, st.st_rdev]
        names = sorted(os.listxattr(path, follow_symlinks=False))
        item += [(n, os.getxattr(path, n, follow_symlinks=False)) for n in names]
        return item, kind

    def look(self, pauses, exactly=False):
        """{path: all of it}, and the open files."""
        alone = {path: known(path, True) for path in self.paths}
        self.seen, self.exactly = {}, exactly
        numbers, tree, todo = {}, {}, [b"/"]
        tree[b"/"] = self.inode(b"/", numbers, pauses)[0]
        while todo:
            folder = todo.pop()
            with os.scandir(folder) as it:
                entries = sorted(it, key=lambda e: e.name)
            for e in entries:
                tree[e.path], kind = self.inode(e.path, numbers, pauses)
                if e.inode() != os.lstat(e.path).st_ino:
                    tree[e.path].append("another number in the listing")
                if e.is_dir(follow_symlinks=False) != (kind == stat.S_IFDIR) or e.is_symlink() != (kind == stat.S_IFLNK):
                    tree[e.path].append("another type in the listing")
                if kind == stat.S_IFDIR:
                    todo.append(e.path)
        for n, fd in enumerate(self.slots):
            if fd >= 0:
                st = os.fstat(fd)
                flags = LIBC.fcntl(fd, 3)
                at = self.failing(lambda fd=fd: os.lseek(fd, 0, os.SEEK_CUR)) or os.lseek(fd, 0, os.SEEK_CUR)
                is_dir = stat.S_ISDIR(st.st_mode)
                tree[f"slot {n}".encode()] = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, *([] if is_dir else [st.st_size, at]), oct(flags)]
        for path in alone.keys() & tree.keys():
            if alone[path] and alone[path] != known(path, False):
                tree[path].append(f"the kernel knew {alone[path]}, not {known(path, False)}")
        self.before, self.paths = self.seen, [path for path in tree if path.startswith(b"/")]
        return tree

    def run(self, steps, every):
        """What each step gave; and, every so many steps and at the end, what shows."""
        told = []
        self.look(False)
        for n, step in enumerate(steps):
            if step.pause:
                time.sleep(0.012)  # ticks of the kernel's coarse clock
            told.append((self.call(step), self.look(step.pause) if n % every == 0 or n + 1 == len(steps) else None))
        return told
