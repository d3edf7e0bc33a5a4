"""A tiny disk is filled through the mount with files, overwrites and renames, and emptied, again and again; the daemon
is killed or unmounted while it is full. No byte that was synced is lost, nor one that was accepted if the end was clean;
no unlink fails; df tells what can be written; and the space comes back."""

import contextlib
import errno
import os
import random
import tempfile
import time

from apfsmount import MIB, NIGHTLY, SANITIZED, Failure, Volume, check, main, put, run, say, seed, text, tool, wait_for
from powerdisk import Disk, need_disk

CYCLES = int(os.environ.get("APFS_ROUNDS") or (100 if NIGHTLY else 2 if SANITIZED else 4))
BLOCK = 65536
SLACK = 24 * MIB  # what STORE may take more, once all was deleted, than when it was new
SPACE = (errno.ENOSPC, errno.EDQUOT)


def content(name, block, version):
    rng = random.Random(f"{name}/{block}/{version}")
    return text(rng, BLOCK) if (len(name) + version) % 8 == 0 else rng.randbytes(BLOCK)


class Block:
    """The newest version that was written, the last one known durable, and whether the newest is surely there."""

    def __init__(self):
        self.newest, self.durable, self.sure = 0, 0, True


class File:
    def __init__(self, blocks):
        self.named = False  # its name is durable
        self.blocks = [Block() for _ in range(blocks)]

    def written(self, numbers, ok, synced):
        for number in numbers:
            block = self.blocks[number]
            block.newest += 1
            block.sure = ok
            if ok and synced:
                block.durable = block.newest
        self.named = self.named or (ok and synced)


class Tree:
    """Files of random content below a mount, and what is known of them."""

    def __init__(self, v, rng, kind):
        self.v, self.rng, self.kind = v, rng, kind
        self.exact = kind != "btrfs"  # the disk's filesystem knows what it has room for; Btrfs does not: see sync()
        self.files = {}
        self.made = 0
        self.unlinks = 0

    def put(self, name, blocks, numbers, offset=0):
        """Writes the next versions of these blocks to the file `name`: the number of them, and what ended it."""
        fd = None
        try:
            fd = os.open(self.v.path(name), os.O_RDWR | os.O_CREAT, 0o600)
            for number in numbers:
                os.pwrite(fd, content(*blocks(number)), number * BLOCK + offset)
            synced = self.rng.random() < 0.3
            if synced:
                os.fsync(fd)
            done, fd = fd, None
            os.close(done)
            return True, synced
        except OSError as e:
            check(e.errno in SPACE, f"writing {name}: {e}")
            return False, False
        finally:
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)

    def create(self, size=None):
        name = f"f{self.made}"
        self.made += 1
        count = size or max(1, int(64 ** self.rng.random()))
        file = File(count)
        ok, synced = self.put(name, lambda n: (name, n, 1), range(count))
        if not ok:
            # Of what did not fit the application makes nothing; and what there is of it can be removed.
            if os.path.exists(self.v.path(name)):
                self.unlink(name)
            return False
        file.written(range(count), ok, synced)
        self.files[name] = file
        return True

    def overwrite(self):
        name = self.rng.choice(list(self.files))
        file = self.files[name]
        numbers = [n for n in range(len(file.blocks)) if self.rng.random() < 0.3]
        ok, synced = self.put(name, lambda n: (name, n, file.blocks[n].newest + 1), numbers)
        file.written(numbers, ok, synced)
        return ok

    def replace(self):
        """The usual way: a new file, renamed over the old one."""
        name = self.rng.choice(list(self.files))
        file = self.files[name]
        numbers = range(len(file.blocks))
        ok, synced = self.put("new", lambda n: (name, n, file.blocks[n].newest + 1), numbers)
        if not ok:
            if os.path.exists(self.v.path("new")):
                self.unlink("new")
            return False
        os.rename(self.v.path("new"), self.v.path(name))
        # Its data is durable, but under the old name perhaps not yet.
        file.written(numbers, True, False)
        return True

    def unlink(self, name):
        os.unlink(self.v.path(name))
        self.unlinks += 1
        self.files.pop(name, None)

    def fill(self):
        """Until a page does not fit."""
        misses = 0
        while misses < 3:
            kind = self.rng.random()
            if kind < 0.7 or not self.files:
                ok = self.create()
            else:
                ok = self.overwrite() if kind < 0.9 else self.replace()
            misses += not ok
        while self.create(1):
            pass

    def sync(self):
        if not sync(self):
            return
        for file in self.files.values():
            file.named = True
            for block in file.blocks:
                if block.sure:
                    block.durable = block.newest

    def verify(self, killed=False):
        for name in list(self.files):
            file = self.files[name]
            try:
                with open(self.v.path(name), "rb") as f:
                    for number, block in enumerate(file.blocks):
                        self.verify_block(name, number, block, f.read(BLOCK), killed)
            except FileNotFoundError:
                check(killed and not file.named, f"{name} is gone")
                del self.files[name]
        found = set(os.listdir(self.v.mnt))
        check(found >= set(self.files), f"not listed: {set(self.files) - found}")
        for name in found - set(self.files):
            check(killed, f"{name} should not be there")
            self.unlink(name)
        for block in (b for file in self.files.values() for b in file.blocks if killed):
            block.sure = block.durable == block.newest

    def verify_block(self, name, number, block, got, killed):
        oldest = block.durable if killed or not block.sure else block.newest
        for version in range(block.newest, oldest - 1, -1):
            if version == 0 and not got.strip(b"\0"):
                return  # a part of the file that was never written, or not there
            if got == content(name, number, version):
                return
        # A block that was being replaced is old or new in every page of it.
        pages = [got[i : i + 4096] for i in range(0, BLOCK, 4096)]
        versions = [content(name, number, v) if v else bytes(BLOCK) for v in range(oldest, block.newest + 1)]
        for i, page in enumerate(pages):
            olds = [v[i * 4096 : (i + 1) * 4096] for v in versions]
            if page not in olds and not (oldest == 0 and not page):
                raise Failure(f"{name}, page {i} of block {number}: none of the versions {oldest} to {block.newest}")
        check(oldest < block.newest, f"{name}, block {number}: not version {block.newest}")


def avail(v):
    st = os.statvfs(v.mnt)
    check(0 <= st.f_bavail <= st.f_bfree <= st.f_blocks, f"df says {st}")
    return st.f_bavail * st.f_frsize


def write_sized(v, name, size, rng):
    """Writes, syncs and removes a file of incompressible bytes: whether it did fit."""
    fd = None
    try:
        fd = os.open(v.path(name), os.O_WRONLY | os.O_CREAT, 0o600)
        while size > 0:
            size -= os.write(fd, rng.randbytes(min(size, MIB)))
        os.fsync(fd)
        return True
    except OSError as e:
        check(e.errno in SPACE, f"writing {name}: {e}")
        return False
    finally:
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)
            os.unlink(v.path(name))


def sync(tree):
    """The kernel tells of writes that failed once, to whoever asks first; what is there is durable nevertheless. Only
    where the filesystem below has not what it said, what was accepted may not fit: it stays in memory."""
    for last in (False, True):
        status, output = run(tool("apfs"), "sync", tree.v.mnt, status=None)
        if not status:
            return True
        check("No space left" in output and not (last and tree.exact), output)
    return False


def what_needs_no_space(tree):
    """While the disk is full."""
    v, names = tree.v, list(tree.files)
    os.chmod(v.path(names[0]), 0o640)
    os.utime(v.path(names[0]), (1, 1))
    for name in names[1:3]:
        os.truncate(v.path(name), BLOCK)
        del tree.files[name].blocks[1:]
    os.rename(v.path(names[1]), v.path(names[2]))  # over it
    tree.files.pop(names[1])
    tree.unlink(names[2])
    sync(tree)


def df_is_true(tree, end):
    v, rng = tree.v, tree.rng
    left = avail(v)
    if tree.kind == "ext4" or (tree.kind == "xfs" and end == "go on"):  # there a mount may find more
        check(left < 4 * MIB, f"df says that {left} bytes are left, but a page does not fit")
    if left == 0 and tree.exact:
        check(not write_sized(v, "more", 65536, rng), "df says that there is no room, but there is")
    # What is deleted can be written at once, without waiting for anything.
    names = list(tree.files)
    rng.shuffle(names)
    while left < 2 * MIB:
        tree.unlink(names.pop())
        left = avail(v)
    fits = write_sized(v, "again", left - 65536, rng)
    # On XFS a few MiB less than that have been seen to fit.
    check(fits or tree.kind != "ext4", f"df says that {left} bytes are left, but fewer do not fit")
    return len(tree.files)


def cycle(tree, number, empty):
    v, rng = tree.v, tree.rng
    tree.fill()
    if number % 4 == 1:
        tree.sync()
    end = ("kill", "go on", "remount", "kill later")[number % 4]
    if end == "kill":
        v.kill()
        v.mount()
    elif end == "remount" and sync(tree):
        v.remount()
    tree.verify(end == "kill")
    before = len(tree.files)
    gone = before - df_is_true(tree, end)
    tree.fill()
    what_needs_no_space(tree)
    if end == "kill later":
        v.kill()
        v.mount()
    tree.verify(end == "kill later")
    used = v.usage()
    names = list(tree.files)
    rng.shuffle(names)
    for name in names:
        tree.unlink(name)
    sync(tree)
    wait_for(lambda: v.usage() <= empty + SLACK, 20, f"STORE takes {v.usage()} bytes after all was deleted, {empty} when new")
    say(f"cycle {number}: {end}; full {used >> 20} MiB, in the end {v.usage() >> 20} MiB; {gone} of {before} files went for 2 MiB")


def attributes(v):
    """Only what is written in place again is without copy on write, and so without Btrfs's checksums."""
    put(v.path("file"), os.urandom(100000))
    v.sync()
    paths = {name: os.path.join(v.store, name) for name in ("index.db", "index.db-wal", "superblock")}
    for name, path in {**paths, "segment": v.segments()[0]}.items():
        flags = run("lsattr", path).split()[0]
        check(("C" in flags) == name.startswith("index.db"), f"{name}: {flags}")
    os.unlink(v.path("file"))


def cycles(kind, size, options=()):
    need_disk(kind)
    rng = random.Random(seed())
    with (
        tempfile.TemporaryDirectory(prefix="apfs-full-") as folder,
        Disk(kind, "shutdown", folder, size, options) as disk,
        Volume("--memory", "64M", store=f"{disk.path}/store") as v,
    ):
        if kind == "btrfs":
            attributes(v)
        tree = Tree(v, rng, kind)
        empty = v.usage()
        start = time.monotonic()
        for number in range(CYCLES):
            cycle(tree, number, empty)
        sync(tree)
        v.umount()
        say(f"{CYCLES} cycles, {tree.made} files, {tree.unlinks} unlinks, none failed; {time.monotonic() - start:.0f} s")


def ext4():
    cycles("ext4", 200 * MIB, ("-m", "0"))


def xfs():
    cycles("xfs", 320 * MIB)


def btrfs():
    cycles("btrfs", 512 * MIB)


if __name__ == "__main__":
    main(*((ext4, xfs, btrfs) if NIGHTLY else (ext4,)))
