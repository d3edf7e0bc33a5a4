"""The daemon is killed at a random moment of a mixed load, again and again: each remount succeeds by itself, what was
synced is intact, the rest is old or new, and no name dangles. See killdriver.py for the load and what is verified."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time

import killdriver
from apfsmount import NIGHTLY, SANITIZED, Failure, Volume, check, main, need, run, say, seed

ROUNDS = int(os.environ.get("APFS_ROUNDS") or (100 if NIGHTLY else 5))
WORKERS = 3


def integrity_check(v):
    """Of a copy of the index as the dead daemon left it."""
    copy = os.path.join(v.root, "copy")
    shutil.rmtree(copy, ignore_errors=True)
    os.mkdir(copy)
    for name in ("index.db", "index.db-wal"):
        if os.path.exists(os.path.join(v.store, name)):
            shutil.copy(os.path.join(v.store, name), copy)
    with open(os.path.join(copy, "index.db"), "rb") as f:
        if f.read(16) != b"SQLite format 3\0":
            return "sealed"
    db = sqlite3.connect(os.path.join(copy, "index.db"))
    result = db.execute("PRAGMA integrity_check").fetchone()[0]
    db.close()
    return result


def one_round(v, number, rng):
    folder = v.path(f"round{number}")
    os.mkdir(folder)
    journals = [os.path.join(v.root, f"journal{number}.{w}") for w in range(WORKERS)]
    load = [
        subprocess.Popen(
            [sys.executable, killdriver.__file__, os.path.join(folder, str(w)), journals[w], str(rng.getrandbits(60))],
            stderr=subprocess.PIPE,
        )
        for w in range(WORKERS)
    ]
    try:
        # No worker starts later than that, so that there is a load to be killed.
        end = time.monotonic() + 30
        while not all(os.path.exists(j) and os.path.getsize(j) > 1000 for j in journals):
            if time.monotonic() > end or any(p.poll() for p in load):
                raise Failure("the load does not start: " + "".join(p.stderr.read().decode() for p in load if p.poll()))
            time.sleep(0.02)
        time.sleep(rng.random() * (3 if rng.random() < 0.7 else 7))
        early = [p for p in load if p.poll() is not None]
        v.kill()
        check(not early, "the load ended before the kill")
    finally:
        for p in load:
            try:
                p.wait(20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
    for p in load:
        check(p.returncode == 0, f"the load failed before the kill: {p.stderr.read().decode()}")
    result = integrity_check(v)
    check(result in ("ok", "sealed"), f"the index after the kill: {result}")
    v.mount()
    run("ls", "-lR", v.mnt)
    for w, path in enumerate(journals):
        try:
            killdriver.Journal(path).verify(os.path.join(folder, str(w)))
        except killdriver.Damage as e:
            raise Failure(f"round {number}, worker {w}: {e}") from None
    events = sum(sum(1 for _ in open(j, "rb")) for j in journals)
    say(f"round {number}: {events} events")


def kills():
    need("ls")
    rng = random.Random(seed())
    interval = ("--commit-interval", "1s") if SANITIZED else ("--commit-interval", "500ms")
    with Volume(*interval) as v:
        for number in range(ROUNDS):
            one_round(v, number, rng)
            if number % 5 == 4:
                shutil.rmtree(v.path(f"round{number - 3}"))
        v.umount()
        check(integrity_check(v) in ("ok", "sealed"), "the index after the unmount")
        v.mount()
        shutil.rmtree(v.path(f"round{ROUNDS - 1}"))


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
