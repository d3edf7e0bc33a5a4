"""Nothing plain leaves the daemon. Random strings of 16 bytes are planted in data, names, targets of symbolic links and
extended attributes by a load during which the daemon is killed, again and again: none of them is found anywhere under
STORE, nor a header of SQLite; and the daemon opens no file for writing but below STORE."""

import contextlib
import os
import random
import re
import shutil
import subprocess
import threading
import time

from apfsmount import MIB, NIGHTLY, Volume, check, main, need, run, say, seed, text, tool, wait_for

ROUNDS = 30 if NIGHTLY else 4
KINDS = ("small", "synced", "large", "packed", "rewritten", "removed", "name", "folder", "target", "xattr", "value", "gone")
SQLITE = b"SQLite format 3"


class Canaries:
    """One string for each kind of place, planted many times."""

    def __init__(self, rng):
        self.rng = rng
        self.at = {}
        for kind in KINDS:
            data = rng.randbytes(64).replace(b"\0", b"").replace(b"/", b"")
            self.at[kind] = data[:16]
            check(len(self.at[kind]) == 16, "too few random bytes")

    def data(self, kind, size):
        """Half of it compressible."""
        filler = self.rng.randbytes(300) if self.rng.random() < 0.5 else text(self.rng, 300)
        piece = self.at[kind] + filler
        return (piece * (size // len(piece) + 1))[: max(size, 16)]

    def write(self, path, kind, size, flags=0):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
        with contextlib.closing(os.fdopen(fd, "wb", buffering=0)) as f:
            f.write(self.data(kind, size))

    def plant(self, root, number):
        """Once in every kind of place."""
        rng, at = self.rng, self.at
        tag = b"%d." % number
        folder = os.path.join(os.fsencode(root), tag + at["folder"])
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, tag)
        self.write(path + b"small", "small", rng.randrange(2000))
        self.write(path + b"synced", "synced", rng.randrange(20000), os.O_SYNC)
        self.write(path + b"large", "large", rng.randrange(MIB))
        for n in range(10):
            self.write(path + b"packed%d" % n, "packed", rng.randrange(8000))
        self.write(path + b"rewritten", "rewritten", 100000)
        with open(path + b"rewritten", "r+b") as f:
            for _ in range(10):
                f.seek(rng.randrange(100000))
                f.write(self.data("rewritten", 500))
        self.write(path + b"removed", "removed", 50000)
        if rng.random() < 0.1:
            fd = os.open(folder, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        os.unlink(path + b"removed")
        self.write(path + at["name"], "small", 100)
        os.symlink(b"to/" + at["target"], path + b"link")
        os.symlink(at["target"] * 60, path + b"long link")
        os.setxattr(path + b"small", b"user." + at["xattr"], at["value"] * rng.randrange(1, 100))
        self.write(path + at["gone"], "gone", 100)
        os.rename(path + at["gone"], path + b"other")

    def look_for(self, top):
        """In every file below it, and in their names."""
        for folder, _, names in os.walk(os.fsencode(top)):
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
                    data = path + f.read()
                    for kind, canary in self.at.items():
                        check(canary not in data, f"a canary ({kind}) is in {path!r}")
                    check(SQLITE not in data, f"a header of SQLite is in {path!r}")


def load(canaries, v, started):
    """Until the daemon dies."""
    number = 0
    with contextlib.suppress(OSError):
        while True:
            canaries.plant(v.mnt, number % 200)
            number += 1
            started.set()
            if number % 200 == 0:
                for name in os.listdir(v.mnt):
                    shutil.rmtree(v.path(name))


def kills():
    need()
    rng = random.Random(seed())
    canaries = Canaries(rng)
    with Volume("--commit-interval", "300ms") as v:
        for number in range(ROUNDS):
            started = threading.Event()
            thread = threading.Thread(target=load, args=(canaries, v, started))
            thread.start()
            check(started.wait(60), "the load does not start")
            time.sleep(rng.random() * 2)
            canaries.look_for(v.store)  # while it is mounted
            check_open_files(v)
            v.kill()
            thread.join()
            canaries.look_for(v.store)
            v.mount()
            run("ls", "-lR", v.mnt)
            for name in os.listdir(v.mnt):
                shutil.rmtree(v.path(name))
            if number % 2:
                v.remount()
        canaries.plant(v.mnt, 0)
        v.umount()
        canaries.look_for(v.store)
        check_planted(canaries, v)


def check_planted(canaries, v):
    """The search does find what is there: an exported index, which is plain, holds what is no file data."""
    plain = os.path.join(v.root, "plain.db")
    run(tool("apfs"), "export-index", "--passfile", v.passfile, v.store, plain)
    with open(plain, "rb") as f:
        data = f.read()
    for kind in ("name", "folder", "target", "xattr", "value"):
        check(canaries.at[kind] in data, f"the canary ({kind}) was not planted")
    check(SQLITE in data, "the exported index is no SQLite database")


def check_open_files(v):
    """Regular files that the daemon holds are in STORE, or its log, and none is a removed one."""
    allowed = (v.store + "/", v.log)
    for fd in os.listdir(f"/proc/{v.daemon.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            path = os.readlink(f"/proc/{v.daemon.pid}/fd/{fd}")
            known = path == v.store or path.startswith(allowed) or path.startswith(("/dev/", "/proc/", "/sys/"))
            check(known or not path.startswith("/"), f"the daemon holds {path}")


OPEN = re.compile(rb'(?:open|openat|openat2|creat)\((?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)", ?([^)]*)\)')


def traced():
    """All that the daemon opens for writing, from its start to its end, as strace tells: nothing but STORE's files and
    devices. No file is made without a name either."""
    need("strace")
    rng = random.Random(seed())
    canaries = Canaries(rng)
    with Volume(mount=False) as v:
        trace = os.path.join(v.root, "trace")
        calls = "trace=execve,open,openat,openat2,creat,memfd_create,mknod,mknodat"
        argv = ["strace", "-f", "-y", "-s", "4096", "-e", calls, "-o", trace, "--"]
        argv += [tool("apfs-mount"), "-f", "--passfile", v.passfile, "--commit-interval", "200ms", v.store, v.mnt]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
            wait_for(lambda: os.path.ismount(v.mnt), 60, "the mount did not appear")
            for number in range(20):
                canaries.plant(v.mnt, number)
            for name in os.listdir(v.mnt):
                shutil.rmtree(v.path(name))
            canaries.plant(v.mnt, 1)
            run(tool("apfs"), "umount", v.mnt)
            tracer.wait(60)
        with open(trace, "rb") as f:
            lines = f.read().splitlines()
        daemon = lines[0].split()[0]
        others = {line.split()[0] for line in lines if b" execve(" in line} - {daemon}  # mount(8)
        opened = 0
        for line in lines:
            if line.split()[0] in others:
                continue
            # memfd "mount" catches what libfuse says about a mount that fails.
            made = b"mknod" in line or b"memfd_create" in line.replace(b'memfd_create("mount"', b"")
            check(not made, f"the daemon makes a file: {line!r}")
            match = OPEN.search(line)
            if not match or not re.search(rb"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE", match[3]) or b" = -1 " in line:
                continue
            opened += 1
            folder, name = os.fsdecode(match[1] or b""), os.fsdecode(match[2])
            path = os.path.normpath(os.path.join(folder, name))
            check(path.startswith((v.store + "/", "/dev/", "/proc/", "/sys/")), f"the daemon writes {path}: {line!r}")
        say(f"{opened} files were opened for writing")
        check(opened >= 3, "the trace shows too little")
        canaries.look_for(v.store)


main(kills, traced)
