"""POSIX ACLs: what they permit and forbid, what is inherited, and how they and the mode follow each other."""

import errno
import os
import stat
import struct

from apfsmount import check, get, need, put, run
from calls import PLAIN, RENAME_WHITEOUT, User, each, fails, renameat2, same

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF
ANN, BEN = User(1001, 2001), User(1002, 2002, groups=[2100])


def acl(*entries, version=2):
    """(tag, permissions[, id]) each."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *e, *([NOBODY] if len(e) == 2 else [])) for e in entries)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def minimal(bits):
    return acl((USER_OBJ, bits >> 6), (GROUP_OBJ, bits >> 3 & 7), (OTHER, bits & 7))


def extended(owner, user, group, mask, other, uid=1001):
    return acl((USER_OBJ, owner), (USER, user, uid), (GROUP_OBJ, group), (MASK, mask), (OTHER, other))


def enforced(v):
    p = v.path("f")
    put(p, b"secret")
    os.chmod(p, 0o600)
    ANN.fails(errno.EACCES, get, p)
    os.setxattr(p, ACCESS, extended(6, 4, 0, 4, 0))
    same(ANN.does(get, p), b"secret")
    ANN.fails(errno.EACCES, os.open, p, os.O_RDWR)
    BEN.fails(errno.EACCES, get, p)
    v.remount()
    same(ANN.does(get, p), b"secret")
    ANN.fails(errno.EACCES, os.open, p, os.O_RDWR)
    os.setxattr(p, ACCESS, extended(6, 6, 0, 4, 0))  # the mask counts
    ANN.fails(errno.EACCES, os.open, p, os.O_RDWR)
    same(ANN.does(get, p), b"secret")
    os.chmod(p, 0o660)  # and is the group's bits
    ANN.does(put, p, b"by ann")
    os.setxattr(p, ACCESS, acl((USER_OBJ, 6), (GROUP_OBJ, 0), (GROUP, 6, 2100), (MASK, 6), (OTHER, 0)))
    BEN.does(put, p, b"by ben")
    ANN.fails(errno.EACCES, get, p)
    os.setxattr(p, ACCESS, acl((USER_OBJ, 6), (USER, 0, 1001), (GROUP_OBJ, 6), (MASK, 6), (OTHER, 6)))
    ANN.fails(errno.EACCES, get, p)
    BEN.does(put, p, b"again")
    ANN.does(os.access, p, os.F_OK)
    os.removexattr(p, ACCESS)
    same(ANN.does(get, p), b"again")
    d = v.path("d")
    os.mkdir(d, 0o700)
    ANN.fails(errno.EACCES, put, os.path.join(d, "x"))
    os.setxattr(d, ACCESS, extended(7, 7, 0, 7, 0))
    ANN.does(put, os.path.join(d, "x"))
    same(os.stat(os.path.join(d, "x")).st_uid, 1001)
    BEN.fails(errno.EACCES, os.listdir, d)
    ANN.does(os.unlink, os.path.join(d, "x"))


def who_may_set(v):
    p = v.path("f")
    put(p)
    os.chown(p, 1001, 2001)
    ANN.does(os.setxattr, p, ACCESS, extended(6, 4, 0, 4, 0, uid=1002))
    BEN.fails(errno.EPERM, os.setxattr, p, ACCESS, extended(6, 6, 0, 6, 0, uid=1002))
    BEN.fails(errno.EPERM, os.removexattr, p, ACCESS)
    check(BEN.does(os.getxattr, p, ACCESS) == os.getxattr(p, ACCESS), "anybody may read it")
    same(BEN.does(os.listxattr, p), [ACCESS])
    ANN.does(os.removexattr, p, ACCESS)
    fails(errno.ENODATA, os.getxattr, p, ACCESS)
    fails(errno.ENODATA, os.getxattr, p, DEFAULT)
    os.removexattr(p, ACCESS)  # what is not there may be removed
    fails(errno.EACCES, os.setxattr, p, DEFAULT, minimal(0o755))
    os.symlink("f", v.path("l"))
    fails(errno.EOPNOTSUPP, os.setxattr, v.path("l"), ACCESS, minimal(0o755), follow_symlinks=False)


def wrong(v):
    p = v.path("f")
    put(p)
    os.mkdir(v.path("d"))
    bad = {
        "no mask": acl((USER_OBJ, 6), (USER, 4, 1), (GROUP_OBJ, 4), (OTHER, 4)),
        "no owner": acl((GROUP_OBJ, 4), (OTHER, 4)),
        "two owners": acl((USER_OBJ, 6), (USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 4)),
        "bits": acl((USER_OBJ, 8), (GROUP_OBJ, 4), (OTHER, 4)),
        "tag": acl((USER_OBJ, 6), (GROUP_OBJ, 4), (3, 1), (OTHER, 4)),
        "cut": minimal(0o644)[:-1],
        "short": b"\2\0",
    }
    for what, value in bad.items():
        for path, name in ((p, ACCESS), (v.path("d"), DEFAULT)):
            try:
                os.setxattr(path, name, value)
            except OSError as e:
                same(e.errno, errno.EINVAL, what)
            else:
                check(False, f"{what}: accepted")
    fails(errno.EOPNOTSUPP, os.setxattr, p, ACCESS, acl((USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 4), version=1))
    same(os.listxattr(p), [])
    same(mode(p), 0o644)


def with_the_mode(v):
    p = v.path("f")
    put(p)
    os.setxattr(p, ACCESS, minimal(0o751))
    same((mode(p), os.listxattr(p)), (0o751, []))  # no more than the mode says: not kept
    os.setxattr(p, ACCESS, extended(6, 7, 5, 3, 1))
    same(mode(p), 0o631)
    os.chmod(p, 0o4750)
    same(os.getxattr(p, ACCESS), extended(7, 7, 5, 5, 0))
    same(mode(p), 0o4750)
    os.setxattr(p, ACCESS, extended(7, 7, 5, 7, 0))
    same(mode(p), 0o4770)
    v.remount()
    same((mode(p), os.getxattr(p, ACCESS)), (0o4770, extended(7, 7, 5, 7, 0)))
    os.removexattr(p, ACCESS)
    same(mode(p), 0o4770)
    os.mkdir(v.path("d"))
    os.setxattr(v.path("d"), DEFAULT, minimal(0o700))  # leaves the directory's own mode
    same(mode(v.path("d")), 0o755)
    same(os.listxattr(v.path("d")), [DEFAULT])
    os.removexattr(v.path("d"), DEFAULT)
    os.removexattr(v.path("d"), DEFAULT)
    same(os.listxattr(v.path("d")), [])


def set_gid(v):
    """An owner outside of the group loses set-gid by an access ACL, as by chmod; root does not."""
    for kind in ("f", "d"):
        p = v.path(kind)
        if kind == "f":
            put(p)
        else:
            os.mkdir(p)
        os.chown(p, 1001, 2100)
        os.chmod(p, 0o2775)
        os.setxattr(p, ACCESS, extended(7, 7, 5, 7, 5))
        same(mode(p), 0o2775, kind)
        if kind == "d":
            ANN.does(os.setxattr, p, DEFAULT, extended(7, 7, 5, 7, 5))
            same(mode(p), 0o2775, "by a default ACL")
        ANN.does(os.setxattr, p, ACCESS, extended(7, 7, 5, 7, 5))
        same(mode(p), 0o775, kind)
        os.chmod(p, 0o2775)
        User(1001, 2001, groups=[2100]).does(os.setxattr, p, ACCESS, extended(7, 7, 5, 7, 5))
        same(mode(p), 0o2775, kind)
        ANN.does(os.chmod, p, 0o2755)
        same(mode(p), 0o755, kind)


def inherited(v):
    """The umask counts only where there is no default ACL."""
    bare, d = v.path("bare"), v.path("d")
    for path in (bare, d):
        os.mkdir(path)
        os.chmod(path, 0o777)
    os.setxattr(d, DEFAULT, extended(7, 7, 5, 7, 4))
    ben = User(1002, 2002, umask=0o077)

    def make(folder):
        os.close(os.open(os.path.join(folder, "f"), os.O_CREAT, 0o666))
        os.close(os.open(os.path.join(folder, "g"), os.O_CREAT, 0o600))
        os.mkdir(os.path.join(folder, "sub"), 0o770)
        os.mkfifo(os.path.join(folder, "p"), 0o666)
        os.symlink("f", os.path.join(folder, "l"))

    ben.does(make, bare)
    ben.does(make, d)
    v.remount()
    modes = {n: mode(os.path.join(bare, n)) for n in sorted(os.listdir(bare))}
    same(modes, {"f": 0o600, "g": 0o600, "l": 0o777, "p": 0o600, "sub": 0o700})
    same([os.listxattr(os.path.join(bare, n), follow_symlinks=False) for n in modes], [[]] * 5)
    modes = {n: mode(os.path.join(d, n)) for n in sorted(os.listdir(d))}
    same(modes, {"f": 0o664, "g": 0o600, "l": 0o777, "p": 0o664, "sub": 0o770})
    same(os.getxattr(os.path.join(d, "f"), ACCESS), extended(6, 7, 5, 6, 4))
    same(os.getxattr(os.path.join(d, "g"), ACCESS), extended(6, 7, 5, 0, 0))
    same(os.getxattr(os.path.join(d, "p"), ACCESS), extended(6, 7, 5, 6, 4))
    same(os.getxattr(os.path.join(d, "sub"), ACCESS), extended(7, 7, 5, 7, 0))
    same(os.getxattr(os.path.join(d, "sub"), DEFAULT), extended(7, 7, 5, 7, 4))
    same(os.listxattr(os.path.join(d, "f")), [ACCESS])
    same(os.listxattr(os.path.join(d, "l"), follow_symlinks=False), [])
    ANN.does(put, os.path.join(d, "f"), b"by ann")
    ANN.fails(errno.EACCES, put, os.path.join(d, "g"), b"by ann")
    renameat2(os.path.join(d, "p"), os.path.join(d, "q"), RENAME_WHITEOUT)
    v.remount()
    same((mode(os.path.join(d, "p")), os.getxattr(os.path.join(d, "p"), ACCESS)), (0, extended(0, 7, 5, 0, 0)))
    os.setxattr(d, DEFAULT, minimal(0o750))
    ben.does(put, os.path.join(d, "m"))
    same((mode(os.path.join(d, "m")), os.listxattr(os.path.join(d, "m"))), (0o640, []))
    os.rename(os.path.join(d, "f"), os.path.join(bare, "moved"))  # a name that moves keeps its own
    same(os.getxattr(os.path.join(bare, "moved"), ACCESS), extended(6, 7, 5, 6, 4))


def many_entries(v):
    """As many as the kernel passes on: 4,096 bytes of them."""
    p = v.path("f")
    put(p)
    count = 300 if PLAIN else 507
    users = [(USER, 4, uid) for uid in range(3000, 3000 + count)]
    value = acl((USER_OBJ, 6), *users, (GROUP_OBJ, 0), (MASK, 4), (OTHER, 0))
    os.setxattr(p, ACCESS, value)
    v.remount()
    same(os.getxattr(p, ACCESS), value)
    same(User(3000 + count - 1).does(get, p), b"data")
    User(3000 + count).fails(errno.EACCES, get, p)
    os.chmod(p, 0o600)
    User(3000).fails(errno.EACCES, get, p)


def tools(v):
    need("setfacl", "getfacl", "cp")
    os.mkdir(v.path("d"))
    run("setfacl", "-m", "u:1001:rwx,g:7:r,d:u:1001:rwx,d:g::rx,d:o::-", v.path("d"))
    put(v.path("d", "f"))
    os.mkdir(v.path("d", "sub"))
    before = run("getfacl", "-pcnR", v.path("d")).replace(v.path("d"), "")
    run("cp", "-a", v.path("d"), v.path("copy"))
    same(run("getfacl", "-pcnR", v.path("copy")).replace(v.path("copy"), ""), before)
    run("setfacl", "-bR", v.path("d"))
    same(os.listxattr(v.path("d")), [])


if __name__ == "__main__":
    each(enforced, who_may_set, wrong, with_the_mode, set_gid, inherited, many_entries, tools)
