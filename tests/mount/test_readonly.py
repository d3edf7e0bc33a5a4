"""Read-only mounts write nothing to STORE: after a clean end and after a crash, on media that can be written and on media
that cannot. And the lock on STORE's file `lock`, which is what other machines see of a mount."""

import contextlib
import errno
import fcntl
import os
import socket

from apfsmount import (
    MIB,
    SANITIZED,
    Volume,
    errno_of,
    check,
    compare,
    describe,
    file_hash,
    get,
    main,
    mounted,
    need,
    put,
    run,
    tool,
    wait_for,
)

IN_USE = 13


def fill(v):
    os.mkdir(v.path("d"))
    for number in range(50):
        put(v.path("d", f"f{number}"), f"{number} ".encode() * 1000 * (number % 7))
    put(v.path("large"), os.urandom(8 * MIB))
    os.symlink("large", v.path("link"))
    os.setxattr(v.path("large"), "user.name", b"value")
    os.mkfifo(v.path("fifo"))


def image(store):
    """Everything about STORE's files but when they were read."""
    found = {}
    for folder, dirs, names in os.walk(store):
        for name in [".", *dirs, *names]:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            content = file_hash(path) if name in names else None
            found[path] = (st.st_mode, st.st_ino, st.st_nlink, st.st_size, st.st_mtime_ns, st.st_ctime_ns, content)
    return found


def same_image(before, after):
    for path in sorted(before.keys() | after.keys()):
        check(before.get(path) == after.get(path), f"{path} was {before.get(path)}, is {after.get(path)}")


def refusals(v):
    """Every change is refused with EROFS."""
    f, d = v.path("large"), v.path("d")
    for name, call in {
        "open for writing": lambda: os.open(f, os.O_RDWR),
        "open with O_TRUNC": lambda: os.open(f, os.O_RDONLY | os.O_TRUNC),
        "create": lambda: os.open(v.path("new"), os.O_CREAT | os.O_WRONLY),
        "mkdir": lambda: os.mkdir(v.path("new")),
        "mknod": lambda: os.mkfifo(v.path("new")),
        "symlink": lambda: os.symlink("x", v.path("new")),
        "link": lambda: os.link(f, v.path("new")),
        "unlink": lambda: os.unlink(f),
        "rmdir": lambda: os.rmdir(d),
        "rename": lambda: os.rename(f, v.path("new")),
        "truncate": lambda: os.truncate(f, 1),
        "chmod": lambda: os.chmod(f, 0o600),
        "chown": lambda: os.chown(f, 1, 1),
        "utime": lambda: os.utime(f),
        "setxattr": lambda: os.setxattr(f, "user.x", b"y"),
        "removexattr": lambda: os.removexattr(f, "user.name"),
        "compaction": lambda: os.setxattr(v.mnt, "user.apfs.compact", b""),
    }.items():
        check(errno_of(call) == errno.EROFS, f"{name}: {errno.errorcode.get(errno_of(call))}, not EROFS")
    check(not os.access(f, os.W_OK) and os.access(f, os.R_OK), "access(2) says something else")
    check(os.statvfs(v.mnt).f_flag & os.ST_RDONLY, "statvfs(2) says that it can be written")
    v.sync()


def reads(v, expected):
    """A read-only mount of what is there, with everything read and everything refused."""
    before = image(v.store)
    v.mount("--ro")
    compare(expected, describe(v.mnt))
    refusals(v)
    run(tool("apfs"), "info", v.mnt)
    v.umount()
    same_image(before, image(v.store))


def clean():
    need()
    with Volume() as v:
        fill(v)
        expected = describe(v.mnt)
        v.umount()
        reads(v, expected)
        v.mount("-o", "ro")
        compare(expected, describe(v.mnt))
        v.remount()
        compare(expected, describe(v.mnt))


def crash(v):
    """Leaves STORE as a crash does: a commit that only the log has, a deleted file that was open, a segment that no
    commit knows."""
    fill(v)
    with open(v.path("deleted"), "wb") as f:
        f.write(os.urandom(MIB))
        f.flush()
        os.fsync(f.fileno())
        os.unlink(f.name)
        v.sync()
        expected = describe(v.mnt)
        with open(v.path("lost"), "wb") as g:
            g.write(os.urandom(4 * MIB))
            g.flush()
            os.posix_fadvise(g.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # which has the kernel write it
        v.kill()
    return expected


def crashed():
    """After a crash: what was durable is there, twice the same, and STORE stays as the crash left it."""
    need()
    with Volume("--commit-interval", "1h") as v:
        expected = crash(v)
        wal = os.path.join(v.store, "index.db-wal")
        check(os.path.getsize(wal) > 0, "nothing is in the write-ahead log: this tests nothing")
        reads(v, expected)
        reads(v, expected)
        v.mount()
        compare(expected, describe(v.mnt))
        v.umount()
        run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store)
        reads(v, expected)


@contextlib.contextmanager
def media(folder):
    """An ext4 filesystem, and a function that makes it anew what cannot be written."""
    disk, path = os.path.join(folder, "image"), os.path.join(folder, "media")
    with open(disk, "wb") as f:
        f.truncate(256 * MIB)
    run("mkfs.ext4", "-q", disk)
    os.mkdir(path)
    run("mount", "-o", "loop", disk, path)

    def end():
        wait_for(lambda: not mounted(path) or run("umount", path, status=None)[0] == 0, 20, f"{path} stays busy")

    def protect():
        end()
        # Somebody's mount namespace may be a copy of ours from before, and keep the filesystem writable for a moment.
        wait_for(lambda: run("mount", "-o", "loop,ro", disk, path, status=None)[0] == 0, 20, f"{path} stays writable")

    try:
        yield path, protect
    finally:
        end()


def read_only_media():
    need("mkfs.ext4", "losetup", "/dev/loop-control", root=True)
    with Volume(mount=False) as outer, media(outer.root) as (path, protect):
        with Volume("--commit-interval", "1h", store=os.path.join(path, "store")) as v:
            expected = crash(v)
            protect()
            reads(v, expected)
            argv = (tool("apfs-mount"), "-f", "--passfile", v.passfile, v.store, v.mnt)
            out = run(*argv, status=2)
            check("--ro" in out and len(out.splitlines()) == 1, f"not what to do about it: {out}")
            run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store)


def machines():
    """What another machine that has STORE through a network sees, and what we see of it: the lock on `lock`."""
    need()
    with Volume() as v:
        note = os.path.join(v.store, "lock")
        fd = os.open(note, os.O_RDWR)
        check(get(note).decode() == f"{v.daemon.pid} {socket.gethostname()}\n", f"the note says {get(note)}")
        lock = lambda how: fcntl.flock(fd, how | fcntl.LOCK_NB)
        check(errno_of(lambda: lock(fcntl.LOCK_SH)) == errno.EAGAIN, "a mount does not hold it")
        v.umount()
        check(get(note) == b"", "the note stays")
        mounts = (tool("apfs-mount"), "-f", "--passfile", v.passfile, v.store, v.mnt)
        checks = (tool("apfs"), "check", "--passfile", v.passfile, v.store)
        lock(fcntl.LOCK_EX)
        for argv in (mounts, (*mounts, "--ro"), checks):
            check("in use" in run(*argv, status=IN_USE), "not said")
        lock(fcntl.LOCK_SH)
        run(*mounts, status=IN_USE)
        run(*checks)
        v.mount("--ro")
        v.umount()
        os.close(fd)
        # A crash leaves the note of a process that is gone.
        v.mount()
        v.kill()
        v.mount("--ro")
        out = run(*mounts[:-1], os.path.join(v.root), status=IN_USE)
        check("another process" in out, f"names a dead process: {out}")


def no_room():
    """On a disk without room for another file the lock is there, or takes the place of the reserve."""
    need(root=True)
    with Volume(mount=False) as outer:
        disk, note = os.path.join(outer.root, "disk"), os.path.join(outer.root, "disk", "store", "lock")
        os.mkdir(disk)
        run("mount", "-t", "tmpfs", "-o", "size=256m,nr_inodes=200", "none", disk)
        try:
            with Volume(mount=False, store=os.path.join(disk, "store")) as v:
                check(os.path.exists(note), "a new store has none")
                v.mount()
                put(v.path("f"))
                v.sync()
                v.kill()  # the next mount finds its log
                os.unlink(note)
                made = 0
                while not errno_of(lambda: put(os.path.join(disk, f"x{made}"))):
                    made += 1
                v.mount()
                with open(note, "rb") as f:
                    check(errno_of(lambda: fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)) == errno.EAGAIN, "not held")
                os.unlink(v.path("f"))
                v.kill()
                os.unlink(note)
                put(os.path.join(disk, f"x{made}"))
                argv = (tool("apfs-mount"), "-f", "--passfile", v.passfile, v.store, v.mnt)
                out = run(*argv, status=2)
                check("no room" in out and len(out.splitlines()) == 1, f"not what to do about it: {out}")
        finally:
            wait_for(lambda: run("umount", disk, status=None)[0] == 0, 20, f"{disk} stays busy")


def no_locks():
    """A filesystem without locks is refused, in words."""
    if SANITIZED:
        return  # they do not like to be traced
    need("strace", root=True)
    with Volume(mount=False) as v:
        trace = ("strace", "-f", "-qqq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK")
        argv = (tool("apfs-mount"), "-f", "--passfile", v.passfile, v.store, v.mnt)
        out = run(*trace, *argv, status=2)
        check("gives no lock" in out and len(out.splitlines()) == 1, out)
        v.mount()


main(clean, crashed, read_only_media, machines, no_room, no_locks)
