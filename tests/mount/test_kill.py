"""The daemon is killed at a random moment of a mixed load, again and again: each remount succeeds by itself, what was
synced is intact, the rest is old or new, and no name dangles. See killdriver.py for the load and what is verified."""

import os
import random
import shutil
import sqlite3
import subprocess
import time

import killdriver
from apfsmount import NIGHTLY, SANITIZED, Volume, check, compare, describe, main, need, run, seed, tool

ROUNDS = int(os.environ.get("APFS_ROUNDS") or (300 if NIGHTLY else 5))
WORKERS = 3


def integrity_check(v):
    """Of the index as the dead daemon left it: exporting it only reads."""
    copy = os.path.join(v.root, "index.copy")
    run(tool("apfs"), "export-index", "--passfile", v.passfile, v.store, copy)
    db = sqlite3.connect(copy)
    result = db.execute("PRAGMA integrity_check").fetchone()[0]
    db.close()
    os.unlink(copy)
    return result


def kill_while(v, rng):
    """At a random moment of a mount or of an unmount."""
    if rng.random() < 0.5:
        v.start()
        time.sleep(rng.random() * 0.06)
        v.kill()
        return
    v.mount()
    with open(v.path("dirty"), "wb") as f:
        f.write(rng.randbytes(rng.randrange(1 << 20)))
    with subprocess.Popen([tool("apfs"), "umount", v.mnt], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        time.sleep(rng.random() * 0.06)
        v.kill()


def one_round(v, number, rng):
    folder = v.path(f"round{number}")
    os.mkdir(folder)
    load = killdriver.Load(folder, v.root, number, WORKERS, rng, rng.choice((1, 1, 0.1)))
    try:
        load.wait_for_start()
        time.sleep(rng.random() * (0.5 if rng.random() < 0.8 else 4))
        check(load.runs(), "the load ended before the kill")
        v.kill()
    finally:
        load.end()
    load.check_ends()
    while rng.random() < 0.3:
        kill_while(v, rng)
    result = integrity_check(v)
    check(result == "ok", f"the index after the kill: {result}")
    v.mount()
    run("ls", "-lR", v.mnt)
    load.verify(f"round {number}")


def kills():
    need("ls")
    rng = random.Random(seed())
    interval = ("--commit-interval", "1s") if SANITIZED else ("--commit-interval", "500ms")
    with Volume(*interval) as v:
        kept = {}  # of the round before: folder, and what it held after its kill
        for number in range(ROUNDS):
            one_round(v, number, rng)
            for folder, tree in kept.items():
                compare(tree, describe(folder))
                shutil.rmtree(folder)
            folder = v.path(f"round{number}")
            kept = {folder: describe(folder)}
        v.umount()
        check(integrity_check(v) == "ok", "the index after the unmount")
        v.mount()
        for folder, tree in kept.items():
            compare(tree, describe(folder))


def kill_after_fsync():
    """A file, fsync, SIGKILL at once: always there."""
    need("ls")
    rng = random.Random(seed())
    with Volume() as v:
        for number in range(3 if SANITIZED else 6):
            expected = {}
            for name in range(rng.randrange(1, 6)):
                data = rng.randbytes(rng.randrange(200000))
                expected[f"{number}.{name}"] = data
                with open(v.path(f"{number}.{name}"), "wb", buffering=0) as f:
                    f.write(data)
                    os.fsync(f.fileno())
            v.kill()
            v.mount()
            for name, data in expected.items():
                with open(v.path(name), "rb") as f:
                    check(f.read() == data, f"{name} was synced and is lost")


main(kill_after_fsync, kills)
