"""STORE on other filesystems: ext4, XFS, Btrfs, tmpfs, overlayfs, and over sshfs, which reaches a server of SFTP that is a
child of ours. (NFS needs a server in the kernel.)"""

import contextlib
import errno
import mmap
import os
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time

from apfsmount import (
    MIB,
    SANITIZED,
    Volume,
    check,
    compare,
    describe,
    errno_of,
    linux_files,
    main,
    mounted,
    need,
    put,
    run,
    say,
    tool,
    wait_for,
)
from fusemount import disk_usage

SFTP_SERVER = "/usr/lib/openssh/sftp-server"


def unmount(path):
    wait_for(lambda: not mounted(path) or run("umount", path, status=None)[0] == 0, 20, f"{path} stays busy")


@contextlib.contextmanager
def on_disk(kind, folder, path, *options, size=512 * MIB):
    need(f"mkfs.{kind}", "losetup", "/dev/loop-control", root=True)
    disk = os.path.join(folder, "image")
    with open(disk, "wb") as f:
        f.truncate(size)
    run(f"mkfs.{kind}", "-q", *options, disk)
    run("mount", "-o", "loop", disk, path)
    try:
        yield
    finally:
        unmount(path)


@contextlib.contextmanager
def on_tmpfs(_kind, _folder, path):
    need(root=True)
    run("mount", "-t", "tmpfs", "-o", "size=512M,mode=755", "tmpfs", path)
    try:
        yield
    finally:
        unmount(path)


@contextlib.contextmanager
def on_overlay(_kind, folder, path):
    """On a tmpfs, as containers may have it, because overlayfs does not lie on every filesystem."""
    need(root=True)
    base = os.path.join(folder, "base")
    os.mkdir(base)
    with on_tmpfs("tmpfs", folder, base):
        for name in ("lower", "upper", "work"):
            os.mkdir(os.path.join(base, name))
        layers = ",".join(f"{n}dir={os.path.join(base, n)}" for n in ("lower", "upper", "work"))
        run("mount", "-t", "overlay", "-o", layers, "overlay", path)
        try:
            yield
        finally:
            unmount(path)


@contextlib.contextmanager
def on_sshfs(_kind, folder, path):
    need("sshfs", SFTP_SERVER)
    there = os.path.join(folder, "there")
    os.mkdir(there)
    ours, theirs = socket.socketpair()
    with ours, theirs, subprocess.Popen([SFTP_SERVER], stdin=theirs, stdout=theirs) as server:
        argv = ["sshfs", "-f", "-o", "passive,idmap=none", f":{there}", path]
        with subprocess.Popen(argv, stdin=ours, stdout=ours) as client:
            ours.close()
            theirs.close()
            wait_for(lambda: mounted(path) or client.poll() is not None, 20, "sshfs does not mount")
            check(client.poll() is None, f"sshfs ended with {client.returncode}")
            try:
                yield
                unmount(path)
            finally:
                subprocess.run(["umount", "-l", path], check=False, stderr=subprocess.DEVNULL)
                client.wait(20)
                server.wait(20)


def load(v, tree, rng):
    """Small files, a large one overwritten at random, a database: each made durable, some deleted."""
    run("cp", "-a", tree, v.path("tree"))
    with open(v.path("large"), "wb") as f:
        f.write(rng.randbytes(12 * MIB))
    with open(v.path("large"), "r+b") as f:
        for _ in range(40):
            f.seek(rng.randrange(12 * MIB))
            f.write(rng.randbytes(rng.randrange(9000)))
            if rng.random() < 0.3:
                f.flush()
                os.fsync(f.fileno())
    with contextlib.closing(sqlite3.connect(v.path("db"), isolation_level=None)) as db:
        check(db.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal", "no WAL")
        db.execute("CREATE TABLE t (v BLOB)")
        for _ in range(20):
            db.execute("INSERT INTO t VALUES (?)", (rng.randbytes(3000),))
    for number in range(3):
        with open(v.path(f"gone{number}"), "wb") as f:
            f.write(rng.randbytes(3 * MIB))
    v.sync()
    for number in range(3):
        os.unlink(v.path(f"gone{number}"))


def work(kind, tree, place):
    with Volume(mount=False) as outer:
        path = os.path.join(outer.root, "disk")
        os.mkdir(path)
        with place(kind, outer.root, path), Volume("--mmap", "64M", store=os.path.join(path, "store")) as v:
            rng = random.Random(kind)
            load(v, tree, rng)
            expected = describe(v.mnt)
            v.remount()
            compare(expected, describe(v.mnt))
            shutil.rmtree(v.path("tree", "kernel"))
            v.sync()
            expected = describe(v.mnt)
            with open(v.path("unsynced"), "wb") as f:
                f.write(rng.randbytes(MIB))
            v.kill()
            v.mount()
            found = describe(v.mnt)
            found.pop(b"unsynced", None)
            compare(expected, found)
            run(tool("apfs"), "compact", "--all", v.mnt)
            compare(expected, {k: item for k, item in describe(v.mnt).items() if k != b"unsynced"})
            v.umount()
            run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store)
            log = v.log_tail()
            check("cannot" not in log and "failed" not in log, f"{kind}: the log tells of errors:\n{log}")
            say(f"{kind}: good")


def each(place, *kinds):
    with linux_files(200 if SANITIZED else 500) as tree:
        for kind in kinds:
            work(kind, tree, place)


def disks():
    each(on_disk, "ext4", "xfs", "btrfs")


def memory():
    each(on_tmpfs, "tmpfs")
    each(on_overlay, "overlay")


def sshfs():
    each(on_sshfs, "sshfs")


# Direct writes, each of which waits: the daemon's threads come to be stuck in them, one after the other.
WRITER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
page = mmap.mmap(-1, 65536)
page.write(os.urandom(65536))
while True:
    os.write(fd, page)
"""
ASKER = """
import os, sys
for n in range(300):
    assert not os.path.exists(f"{sys.argv[1]}/none{n}")
    assert os.stat(sys.argv[1] + "/small").st_size == 1000
    os.mkdir(f"{sys.argv[1]}/d{n}")
    fd = os.open(sys.argv[1] + "/small", os.O_RDONLY | os.O_DIRECT)
    assert os.pread(fd, 4096, 0) == bytes(1000)
    os.close(fd)
"""


def bytes_written(pid):
    with open(f"/proc/{pid}/io", encoding="ascii") as f:
        return int(re.search(r"^wchar: (\d+)$", f.read(), re.MULTILINE)[1])


def frozen():
    """While STORE's filesystem stands still, who asks for what the daemon has in memory is answered."""
    need("fsfreeze", root=True)
    with Volume(mount=False) as outer:
        path = os.path.join(outer.root, "disk")
        os.mkdir(path)
        with on_disk("ext4", outer.root, path), Volume("--commit-interval", "1h", "--memory", "64M",
                                                       store=os.path.join(path, "store")) as v:
            os.close(os.open(v.path("small"), os.O_CREAT))
            with open(v.path("small"), "wb") as f:
                f.write(bytes(1000))
            os.sync()
            writers = []
            run("fsfreeze", "--freeze", path)
            try:
                for n in range(3):
                    writers.append(subprocess.Popen([sys.executable, "-c", WRITER, v.path(f"big{n}")]))
                written, end = [0, 0], time.monotonic() + 60
                while written[0] != written[1] or written[1] <= MIB:
                    check(time.monotonic() < end, "the writers have not begun, or do not come to stand still")
                    time.sleep(2)
                    written = [written[1], sum(bytes_written(w.pid) for w in writers)]
                subprocess.run([sys.executable, "-c", ASKER, v.mnt], check=True, timeout=60)
            finally:
                run("fsfreeze", "--unfreeze", path)
                for writer in writers:
                    writer.kill()
                    writer.wait()
            say(f"the writers stood still after {written[0] >> 20} MiB")


def thin():
    """A disk that for a while has less than it says. What STORE was told to begin with is lost where nobody waits for it; by
    the time of the fsync nothing is wrong any more, and it fails all the same."""
    need(root=True)
    more = random.Random(7).randbytes(40 * MIB)
    with Volume(mount=False) as outer:
        base, path = (os.path.join(outer.root, n) for n in ("base", "disk"))
        os.mkdir(base)
        os.mkdir(path)
        with (
            on_tmpfs("tmpfs", outer.root, base),
            # A journal, or a segment that is begun meanwhile, would tell too.
            on_disk("ext4", base, path, "-O", "^has_journal", size=16384 * MIB),
            Volume("--commit-interval", "1h", "--memory", "512M", store=os.path.join(path, "store")) as v,
        ):
            put(v.path("first"), more[: 4 * MIB])
            v.sync()
            os.sync()
            run("mount", "-o", f"remount,size={(disk_usage(base) >> 20) + 24}M", base)
            fd = os.open(v.path("more"), os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
            try:
                with mmap.mmap(-1, len(more)) as aligned:
                    aligned.write(more)
                    check(os.write(fd, aligned) == len(more), "a short write")
                wait_for(lambda: os.statvfs(base).f_bavail == 0, 20, "nothing is written before the fsync")
                time.sleep(1)
                run("mount", "-o", "remount,size=512M", base)
                told = errno_of(lambda: os.fsync(fd))
                check(told in (errno.EIO, errno.ENOSPC, errno.EROFS), f"fsync of what is lost: {told}")
            finally:
                os.close(fd)
            check(errno_of(lambda: os.mkdir(v.path("later"))) == errno.EROFS, "the volume goes on")
            check("making segments durable failed: syncing segments/" in v.log_tail(), v.log_tail())
            v.kill()


main(disks, memory, sshfs, frozen, thin)
