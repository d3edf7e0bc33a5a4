"""A filesystem for STORE on a loop device whose power can be cut: what was written and not flushed is lost.

Two ways, each with something that the other lacks:

  shutdown   the filesystem itself stops (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN) without writing its log: all dirty
             pages and all of the log that was not flushed are gone
  forget     the loop device lies over forgetful_disk (see there): a random part of the unflushed writes of the device
             is undone or torn, so that later writes may be there and earlier ones not
"""

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
import time

from apfsmount import MIB, Failure, check, mounted, need, run, say, wait_for

FORGETFUL = os.path.join(os.environ.get("APFS_BUILD") or "build/dev", "tests/mount/forgetful_disk")
GOINGDOWN = 0x8004587D  # _IOR('X', 125, u32): the same for ext4 and xfs
NO_LOG_FLUSH = 2
SIZE = 512 * MIB
LIBC = ctypes.CDLL(None)
SYNC_FILE_RANGE_WRITE = 2


def need_disk(kind, *programs):
    need("losetup", f"mkfs.{kind}", "/dev/loop-control", *programs, root=True)


class Disk:
    """with Disk("ext4", "forget", folder) as d: a filesystem mounted at d.path; cut() and repower() in turn."""

    def __init__(self, kind, way, folder, size=SIZE, options=()):
        self.way = way
        self.image = os.path.join(folder, f"{kind}.image")
        self.device = os.path.join(folder, f"{kind}.device")
        self.path = os.path.join(folder, kind)
        self.loop = None
        self.process = None
        os.mkdir(self.path)
        os.mkdir(self.device)
        with open(self.image, "wb") as f:
            f.truncate(size)
        run(f"mkfs.{kind}", "-q", *options, self.image)

    def __enter__(self):
        try:
            self.attach()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *_):
        self.release()

    def attach(self):
        source = self.image
        if self.way == "forget":
            self.process = subprocess.Popen([FORGETFUL, self.image, self.device])
            wait_for(lambda: mounted(self.device) or self.process.poll() is not None, 20, "forgetful_disk does not mount")
            check(self.process.poll() is None, "forgetful_disk ended")
            source = os.path.join(self.device, "disk")
        self.loop = run("losetup", "--find", "--show", source).strip()
        run("mount", self.loop, self.path)

    def write_back(self, rng):
        """Has the filesystem write dirty pages of some files to the device, without a flush: so they are at stake."""
        files = [os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names]
        for path in rng.sample(files, min(len(files), 8)):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR)
                LIBC.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE)
                os.close(fd)

    def order(self, seed, wanted):
        with open(os.path.join(self.device, "cut"), "wb", buffering=0) as f:
            f.write(b"%d %d" % (seed, wanted))

    def cut(self, rng):
        """The power goes. The filesystem stays mounted, and gives errors."""
        if self.way == "forget":
            seed, wanted = rng.getrandbits(30), rng.choice((1, 2, 4, 8, 16, 32, 64))
            while not os.stat(os.path.join(self.device, "cut")).st_size:
                self.order(seed, wanted)
                time.sleep(0.2)
                wanted //= 2
            return
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, GOINGDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def repower(self):
        """Nothing may use the filesystem any more. It is mounted anew, which replays its journal."""
        self.detach()
        self.attach()

    def detach(self):
        for path in (self.path, self.device):
            if mounted(path):
                # Whoever had files open there may not be gone yet.
                wait_for(lambda p=path: run("umount", p, status=None)[0] == 0, 20, f"{path} stays busy")
            if path == self.path and self.loop:
                run("losetup", "--detach", self.loop)
                self.loop = None
        if self.process:
            self.process.wait(20)
            self.process = None

    def release(self):
        with contextlib.suppress(Failure, subprocess.TimeoutExpired):
            self.detach()
            return
        for argv in (("umount", "-l", self.path), ("losetup", "--detach", str(self.loop)), ("umount", "-l", self.device)):
            subprocess.run(argv, check=False, stderr=subprocess.DEVNULL)
        if self.process:
            self.process.kill()
            self.process.wait()
        say(f"{self.path} was still in use, its loop device goes with whoever uses it")
