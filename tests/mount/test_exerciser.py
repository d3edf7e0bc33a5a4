"""Random changes of files through the kernel's cache, mappings and direct I/O, compared with a copy in memory.

APFS_SEED repeats a run, as far as it is one process.
"""

import os
import random
import signal
import sys
import time

from apfsmount import NIGHTLY, Failure, Volume, main, need, run, say, seed, tool
from exerciser import Exerciser

SECONDS = int(os.environ.get("APFS_SECONDS") or (900 if NIGHTLY else 8))
ROUND = 600  # steps between two remounts


def checked(v):
    v.umount()
    run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store)


def alone():
    """One process, that copies between its files; a remount between two rounds."""
    need()
    number, end, done = seed(), time.monotonic() + SECONDS, 0
    with Volume("--commit-interval", "300ms") as v:
        while time.monotonic() < end:
            folder = v.path(f"s{number}")
            os.mkdir(folder)
            say(f"round {number}")
            e = Exerciser(random.Random(number), folder)
            e.run(ROUND)
            e.close()
            v.remount()
            e.verify()
            number, done = number + 1, done + 1
        checked(v)
    say(f"{done} rounds")


def worker(number, folder, end):
    os.mkdir(folder)
    e = Exerciser(random.Random(number), folder, files=3, room=4 << 20, longest=1 << 20)
    e.run(10**9, end)
    e.close()
    e.verify()


def several():
    """Some at once, each with files of its own, and little memory for all of them."""
    need()
    number, end = seed(), time.monotonic() + SECONDS
    with Volume("--memory", "32M", "--commit-interval", "200ms") as v:
        pids = []
        for n in range(4):
            pids.append(os.fork())
            if pids[-1]:
                continue
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                worker(number + n, v.path(f"w{n}"), end)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(1)
        if any([os.waitpid(pid, 0)[1] for pid in pids]):
            raise Failure("a worker failed")
        checked(v)


if __name__ == "__main__":
    main(alone, several)
