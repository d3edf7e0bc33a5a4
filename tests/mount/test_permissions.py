"""Who may do what: every operation as owner, as one of the group, by a supplementary group, and as anybody else."""

import errno
import os
import stat

from apfsmount import check, get, put
from calls import CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, User, each, same

OWNER, MEMBER, OTHER = User(1001, 2001), User(1002, 2001), User(1003, 2003)
BY_GROUP = User(1004, 2004, groups=[5, 2001, 6])


def create(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def write_open(path):
    os.close(os.open(path, os.O_WRONLY))


def read_open(path):
    os.close(os.open(path, os.O_RDONLY))


def attempt(call, *args):
    """0 or the errno."""
    try:
        call(*args)
        return 0
    except OSError as e:
        return e.errno


def of_files(v):
    """Read, write and execute, by the class that one is of."""
    p = v.path("f")
    put(p)
    os.chown(p, 1001, 2001)
    calls = (
        (4, read_open),
        (2, write_open),
        (2, lambda q: os.truncate(q, 3)),
        (6, lambda q: os.close(os.open(q, os.O_RDWR))),
        (6, lambda q: os.close(os.open(q, os.O_RDONLY | os.O_TRUNC))),
    )

    def attempts():
        return [attempt(call, p) for _, call in calls], [os.access(p, need) for need in (4, 2, 1)]

    for shift, users in ((6, [OWNER]), (3, [MEMBER, BY_GROUP]), (0, [OTHER])):
        for bits in range(8):
            os.chmod(p, 0o777 & ~(7 << shift) | bits << shift)
            expected = [0 if need & bits == need else errno.EACCES for need, _ in calls]
            for user in users:
                same(user.does(attempts), (expected, [bits & n == n for n in (4, 2, 1)]), f"{user.uid}: {bits} << {shift}")
    os.chmod(p, 0o000)
    read_open(p)
    write_open(p)
    check(os.access(p, os.R_OK | os.W_OK) and not os.access(p, os.X_OK), "root")
    User(0, without=[CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH]).fails(errno.EACCES, read_open, p)
    os.chmod(p, 0o077)  # an owner is not also one of the group
    OWNER.fails(errno.EACCES, read_open, p)


def in_directories(v):
    """Search, list and change names."""
    d = v.path("d")
    os.mkdir(d)
    os.chown(d, 1001, 2001)
    put(os.path.join(d, "f"))
    os.mkdir(os.path.join(d, "sub"))
    os.symlink("f", os.path.join(d, "l"))
    os.chmod(os.path.join(d, "f"), 0o666)
    changes = {
        "create": lambda: create(os.path.join(d, "x")) or os.unlink(os.path.join(d, "x")),
        "mkdir": lambda: os.mkdir(os.path.join(d, "x")) or os.rmdir(os.path.join(d, "x")),
        "symlink": lambda: os.symlink("y", os.path.join(d, "x")) or os.unlink(os.path.join(d, "x")),
        "mkfifo": lambda: os.mkfifo(os.path.join(d, "x")) or os.unlink(os.path.join(d, "x")),
        "link": lambda: os.link(os.path.join(d, "f"), os.path.join(d, "x")) or os.unlink(os.path.join(d, "x")),
        "rename": lambda: os.rename(os.path.join(d, "f"), os.path.join(d, "x"))
        or os.rename(os.path.join(d, "x"), os.path.join(d, "f")),
    }
    removals = {"unlink": lambda: os.unlink(os.path.join(d, "f")), "rmdir": lambda: os.rmdir(os.path.join(d, "sub"))}
    searches = {
        "stat": lambda: os.stat(os.path.join(d, "f")),
        "open": lambda: read_open(os.path.join(d, "f")),
        "readlink": lambda: os.readlink(os.path.join(d, "l")),
        "chdir": lambda: os.chdir(d),
    }
    for shift, users in ((6, [OWNER]), (3, [BY_GROUP]), (0, [OTHER])):
        for bits in range(8):
            os.chmod(d, 0o777 & ~(7 << shift) | bits << shift)

            def attempts(bits=bits):
                all_changes = changes if bits & 3 == 3 else changes | removals
                kinds = {"change": all_changes, "search": searches, "list": {"list": lambda: os.listdir(d)}}
                return {(kind, name): attempt(call) for kind, calls in kinds.items() for name, call in calls.items()}

            for user in users:
                for (kind, name), code in user.does(attempts).items():
                    need = {"change": 3, "search": 1, "list": 4}[kind]
                    same(code, 0 if bits & need == need else errno.EACCES, f"{name} with {bits} << {shift}")
    os.chmod(d, 0o755)
    OTHER.fails(errno.ENOENT, os.stat, os.path.join(d, "none"))
    OTHER.fails(errno.EACCES, create, os.path.join(d, "x"))
    OTHER.fails(errno.EEXIST, os.mkdir, os.path.join(d, "sub"))
    os.chmod(d, 0o000)
    OTHER.fails(errno.EACCES, os.stat, os.path.join(d, "none"))
    create(os.path.join(d, "by root"))


def two_directories(v):
    """rename and link need both."""
    for name in ("from", "to"):
        os.mkdir(v.path(name))
        os.chown(v.path(name), 1001, 2001)
    put(v.path("from", "f"))
    os.mkdir(v.path("from", "sub"))
    os.chown(v.path("from", "f"), 1001, 2001)
    for name in ("from", "to"):
        os.chmod(v.path(name), 0o555)
        OWNER.fails(errno.EACCES, os.rename, v.path("from", "f"), v.path("to", "f"))
        os.chmod(v.path(name), 0o755)
    os.chmod(v.path("to"), 0o555)
    OWNER.fails(errno.EACCES, os.link, v.path("from", "f"), v.path("to", "f"))
    os.chmod(v.path("to"), 0o755)
    # a directory that changes its parent is written too
    OWNER.fails(errno.EACCES, os.rename, v.path("from", "sub"), v.path("to", "sub"))
    OWNER.does(os.rename, v.path("from", "sub"), v.path("from", "sub2"))
    os.chown(v.path("from", "sub2"), 1001, 2001)
    OWNER.does(os.rename, v.path("from", "sub2"), v.path("to", "sub"))
    OWNER.does(os.link, v.path("from", "f"), v.path("to", "f"))
    OWNER.does(os.rename, v.path("from", "f"), v.path("to", "g"))


def attributes(v):
    p = v.path("f")
    put(p)
    os.chown(p, 1001, 2001)
    os.chmod(p, 0o666)
    for user in (MEMBER, OTHER, User(0, without=[CAP_FOWNER])):
        user.fails(errno.EPERM, os.chmod, p, 0o600)
    for user in (OWNER, MEMBER, OTHER, User(0, without=[CAP_CHOWN])):
        user.fails(errno.EPERM, os.chown, p, 1003, -1)
        user.fails(errno.EPERM, os.chown, p, -1, 2999)
    OWNER.does(os.chown, p, 1001, 2001)
    OWNER.does(os.chown, p, -1, -1)
    OTHER.does(os.chown, p, -1, -1)
    User(1001, 2001, groups=[2004]).does(os.chown, p, -1, 2004)
    same((os.stat(p).st_uid, os.stat(p).st_gid), (1001, 2004))
    BY_GROUP.fails(errno.EPERM, os.chown, p, -1, 2004)
    OWNER.does(os.chmod, p, 0o4711)
    v.remount()
    same((stat.S_IMODE(os.stat(p).st_mode), os.stat(p).st_gid), (0o4711, 2004))
    for ids in ((2**32 - 2, 2**32 - 2), (65536, 10**9), (0, 0)):
        os.chown(p, *ids)
        v.remount()
        same((os.stat(p).st_uid, os.stat(p).st_gid), ids)
    os.chown(p, -1, -1)
    same((os.stat(p).st_uid, os.stat(p).st_gid), (0, 0))


def made_by(v):
    """Owner, group and mode of what is made; the umask."""
    os.chmod(v.mnt, 0o777)
    for umask, expected in ((0o000, (0o666, 0o777)), (0o022, (0o644, 0o755)), (0o077, (0o600, 0o700)), (0o777, (0, 0))):
        user = User(1001, 2001, groups=[2002], umask=umask)

        def make():
            os.close(os.open(v.path("f"), os.O_CREAT | os.O_WRONLY, 0o666))
            os.mkdir(v.path("d"), 0o777)
            os.mkfifo(v.path("p"), 0o666)
            os.symlink("x", v.path("l"))

        user.does(make)
        v.remount()
        modes = [stat.S_IMODE(os.lstat(v.path(n)).st_mode) for n in "fdpl"]
        same(modes, [expected[0], expected[1], expected[0], 0o777], f"umask {umask:o}")
        same({(os.lstat(v.path(n)).st_uid, os.lstat(v.path(n)).st_gid) for n in "fdpl"}, {(1001, 2001)})
        for n in "fpl":
            os.unlink(v.path(n))
        os.rmdir(v.path("d"))


def changes_take_effect(v):
    """What the kernel remembers of a path ends with the right to it; what is open stays open."""
    os.mkdir(v.path("d"))
    p = v.path("d", "f")
    put(p, b"data")
    os.chmod(p, 0o644)

    def work():
        fd = os.open(p, os.O_RDONLY)
        os.stat(p)
        return os.read(fd, 9)

    same(OTHER.does(work), b"data")
    os.chmod(v.path("d"), 0o700)
    OTHER.fails(errno.EACCES, os.stat, p)
    os.chmod(v.path("d"), 0o711)
    same(OTHER.does(get, p), b"data")
    OTHER.fails(errno.EACCES, os.listdir, v.path("d"))
    os.chown(p, 1003, 2003)
    os.chmod(p, 0o600)
    same(OTHER.does(get, p), b"data")
    MEMBER.fails(errno.EACCES, get, p)
    fd = os.open(p, os.O_RDWR)
    os.chmod(p, 0)
    same(os.write(fd, b"DATA"), 4)
    os.close(fd)


if __name__ == "__main__":
    each(of_files, in_directories, two_directories, attributes, made_by, changes_take_effect)
