"""What the tests of system calls share: each on a mount of its own, as root and as ordinary users.

With APFS_PLAIN=DIR they run in a plain directory there, on which they must pass too: ext4 is the referee. PLAIN tells
the few that ask for more than it has.
"""

import ctypes
import errno
import os
import pickle
import shutil
import signal
import tempfile

from apfsmount import Failure, Volume, check, main, need

PLAIN = os.environ.get("APFS_PLAIN")
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SYS_ADMIN = 0, 1, 2, 3, 4, 27, 21


class Plain:
    """As a Volume, without one."""

    def __init__(self):
        self.root = self.mnt = tempfile.mkdtemp(prefix="apfs-plain-", dir=PLAIN)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.root)

    def path(self, *parts):
        return os.path.join(self.mnt, *parts)

    def remount(self):
        pass


def each(*tests, options=(), root=True, also=()):
    """Runs each with a volume of its own whose root directory anybody may search, and those of `also`, and exits."""

    def alone(test):
        def call():
            if not PLAIN:
                need(root=root)
            with Plain() if PLAIN else Volume("-o", "allow_other", *options) as v:
                for folder in (v.root, v.mnt):
                    os.chmod(folder, 0o755)
                test(v)

        call.__name__ = test.__name__
        return call

    main(*map(alone, tests), *also)


def same(found, expected, what=""):
    if found != expected:
        raise Failure(f"{what}{what and ': '}{repr(found)[:2000]}, not {repr(expected)[:2000]}")


def fails(code, function, *args, **more):
    try:
        function(*args, **more)
    except OSError as e:
        check(
            e.errno == code, f"{function.__name__}{args}: {errno.errorcode.get(e.errno)} ({e}), not {errno.errorcode[code]}"
        )
        return
    raise AssertionError(f"{function.__name__}{args} succeeded, not {errno.errorcode[code]}")


class User:
    """Somebody else: user.does(function, ...) calls it in a process of that user, gives its result, raises its OSError.

    without: capabilities (numbers) that a user 0 lacks. apart: in a user namespace of one's own, as its root."""

    def __init__(self, uid, gid=None, groups=(), umask=0o022, without=(), apart=False):
        self.uid, self.gid, self.groups, self.umask = uid, uid if gid is None else gid, groups, umask
        self.without, self.apart = without, apart

    def become(self):
        for number in self.without:
            syscall("prctl", 24, number, 0, 0, 0)  # PR_CAPBSET_DROP
        if self.without:
            drop_capabilities(self.without)
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        os.umask(self.umask)
        if self.apart:
            set_apart(self.uid, self.gid)

    def does(self, function, *args, **more):
        def work():
            self.become()
            return function(*args, **more)

        return in_child(work)

    def fails(self, code, function, *args, **more):
        def does(*_):
            return self.does(function, *args, **more)

        does.__name__ = f"user {self.uid}: {function.__name__}"
        fails(code, does, *args)


def in_child(work):
    """Calls it in a process of its own, for the result."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            try:
                answer = (True, work())
            except BaseException as e:  # pylint: disable=broad-except
                answer = (False, e if isinstance(e, OSError) else Failure(repr(e)))
            os.write(into, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(into)
    with open(out, "rb") as f:
        answer = f.read()
    os.waitpid(pid, 0)
    done, what = pickle.loads(answer)
    if not done:
        raise what
    return what


def drop_capabilities(numbers):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    syscall("capget", header, data)
    for number in numbers:
        for field in range(3):
            data[3 * (number // 32) + field] &= ~(1 << number % 32)
    syscall("capset", header, data)


def set_apart(uid, gid):
    """As `unshare --user --map-root-user`."""
    syscall("unshare", 0x10000000)  # CLONE_NEWUSER
    syscall("prctl", 4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: what is in /proc/self is ours again
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="utf-8") as f:
            f.write(text)


def syscall(name, *args):
    """A function of libc that gives -1 and errno."""
    ctypes.set_errno(0)
    args = [os.fsencode(a) if isinstance(a, str) else a for a in args]
    ret = getattr(LIBC, name)(*args)
    if ret < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return ret


def statx(path, mask):
    """The struct statx of a path, of a symlink itself: what the mask names is right in it."""
    room = ctypes.create_string_buffer(256)
    syscall("statx", AT_FDCWD, path, 0x100, mask, room)  # AT_SYMLINK_NOFOLLOW
    return room.raw


def renameat2(old, new, flags=0):
    syscall("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)


def libfuse(v):
    """The version that the daemon has: 317 is 3.17."""
    with open(f"/proc/{v.daemon.pid}/maps", encoding="utf-8") as f:
        lib = ctypes.CDLL(next(line.split()[-1] for line in f if "libfuse3.so" in line))
    lib.fuse_pkgversion.restype = ctypes.c_char_p
    major, minor = lib.fuse_pkgversion().split(b".")[:2]
    return int(major) * 100 + int(minor)
