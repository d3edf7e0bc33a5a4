"""The power of the disk that holds STORE is cut at a random moment of a mixed load, again and again: afterwards the
mount succeeds by itself, what was synced is intact, the rest is old or new, and no name dangles. See powerdisk.py for
the cuts, killdriver.py for the load and what is verified; its journals lie on another disk."""

import errno
import os
import random
import shutil
import tempfile
import time

import killdriver
from apfsmount import NIGHTLY, Volume, check, compare, describe, main, run, seed
from powerdisk import FORGETFUL, Disk, need_disk

ROUNDS = int(os.environ.get("APFS_ROUNDS") or (10 if NIGHTLY else 1))  # each way of each filesystem
WORKERS = 3
# What the load may meet once the power is gone: the volume turns read-only, or is killed.
ENDS = (errno.EIO, errno.EROFS, *killdriver.DEAD)


class Rounds:
    """The rounds of one disk: what each leaves must still be there after the next."""

    def __init__(self, v, disk, rng):
        self.v, self.disk, self.rng = v, disk, rng
        self.number = 0
        self.kept = {}  # of the round before: folder, and what it held after its cut

    def run(self):
        v, rng, number = self.v, self.rng, self.number
        folder = v.path(f"round{number}")
        os.mkdir(folder)
        v.sync()
        load = killdriver.Load(folder, v.root, number, WORKERS, rng, rng.choice((1, 0.1, 0.01)))
        try:
            load.wait_for_start()
            end = time.monotonic() + rng.random() * 2
            while time.monotonic() < end:
                self.disk.write_back(rng)
                time.sleep(0.05)
            check(load.runs(), "the load ended before the cut")
            self.disk.cut(rng)
            if rng.random() < 0.5:
                # Sooner or later the daemon notices, and the volume turns read-only.
                end = time.monotonic() + rng.choice((0.3, 3, 10))
                while load.runs() and time.monotonic() < end:
                    time.sleep(0.02)
        finally:
            v.kill()
            load.end()
        load.check_ends(ENDS)
        self.disk.repower()
        v.mount()
        self.verify(folder, load)
        self.number += 1

    def verify(self, folder, load):
        run("ls", "-lR", self.v.mnt)
        load.verify(f"round {self.number}")
        for kept, tree in self.kept.items():
            compare(tree, describe(kept))
            shutil.rmtree(kept)
        self.kept = {folder: describe(folder)}


def cuts(kind, way):
    need_disk(kind, "ls")
    check(os.path.exists(FORGETFUL), f"{FORGETFUL} is not built")
    rng = random.Random(seed())
    with (
        tempfile.TemporaryDirectory(prefix="apfs-power-") as folder,
        Disk(kind, way, folder) as disk,
        Volume("--commit-interval", "500ms", store=f"{disk.path}/store") as v,
    ):
        rounds = Rounds(v, disk, rng)
        for _ in range(ROUNDS):
            rounds.run()
        v.umount()


def ext4_shutdown():
    cuts("ext4", "shutdown")


def ext4_forgets():
    cuts("ext4", "forget")


def xfs_shutdown():
    cuts("xfs", "shutdown")


def xfs_forgets():
    cuts("xfs", "forget")


def btrfs_forgets():
    cuts("btrfs", "forget")


main(ext4_shutdown, ext4_forgets, xfs_shutdown, xfs_forgets, btrfs_forgets)
