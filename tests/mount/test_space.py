"""Space comes back: after rm -rf of everything and a sync, STORE is as large as an empty one, nearly."""

import os
import random

from apfsmount import MIB, SANITIZED, Volume, check, main, need, run, say, text


def all_removed():
    need("rm")
    rng = random.Random(3)
    with Volume() as v:
        empty = v.usage()
        for number in range(500 if SANITIZED else 3000):
            folder = v.path(f"d{number % 50}")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f"f{number}"), "wb") as f:
                f.write(text(rng, rng.randrange(20000)))
        for number in range(4):
            with open(v.path(f"big{number}"), "wb") as f:
                for _ in range(16 if SANITIZED else 64):
                    f.write(rng.randbytes(MIB))
        v.sync()
        full = v.usage()
        check(full > empty + (40 if SANITIZED else 200) * MIB, f"STORE takes {full} bytes, which is too little")
        run("sh", "-c", 'rm -rf "$1"/*', "sh", v.mnt)
        v.sync()
        after = v.usage()
        say(f"empty {empty >> 10} KiB, full {full >> 10} KiB, after rm -rf {after >> 10} KiB")
        allowed = max(0.05 * empty, 64 * MIB)
        check(after <= empty + allowed, f"STORE takes {after} bytes after rm -rf, {empty} when it was empty")
        v.remount()
        v.sync()
        v.umount()
        check(v.usage() <= empty + allowed, "STORE grew by a remount")


def statfs():
    """The truth about the disk below."""
    need()
    with Volume() as v:
        here, below = os.statvfs(v.mnt), os.statvfs(v.store)
        check(here.f_blocks > 0 and here.f_namemax == 255, f"statvfs says {here}")
        total = here.f_blocks * here.f_frsize / (below.f_blocks * below.f_frsize)
        check(0.9 <= total <= 1.1, f"the mount is {total:.2f} times as large as the disk")
        check(here.f_bavail * here.f_frsize <= below.f_bavail * below.f_frsize + 64 * MIB, "more room than the disk has")


main(all_removed, statfs)
