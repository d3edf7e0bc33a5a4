"""The daemon's own memory (RssAnon) stays within --memory + 64 MiB, whatever goes through it."""

import hashlib
import os
import random
import re
import subprocess
import sys
import threading

from apfsmount import MIB, NIGHTLY, SANITIZED, Volume, check, main, need, run, say

MEMORY = 256
LIMIT = (MEMORY + 64) * MIB


def judge(v, what):
    say(f"{what}: peak {v.peak // MIB} MiB")
    check(SANITIZED or v.peak <= LIMIT, f"{what}: the daemon took {v.peak // MIB} MiB, more than {LIMIT // MIB}")
    check(v.peak > 0, "nothing was sampled")
    v.peak = 0


def judge_account(v, what):
    """What the daemon counts of the memory of file data, receive buffers and all, keeps to --memory itself."""
    info = dict(line.split(":", 1) for line in os.getxattr(v.mnt, "user.apfs.info").decode().splitlines() if ":" in line)
    limit, peak = (int(re.search(r"(\d+) bytes", info[f"memory {k}"]).group(1)) for k in ("limit", "peak"))
    say(f"{what}: {peak // MIB} MiB counted at most")
    check(limit == MEMORY * MIB and limit // (32 if SANITIZED else 8) < peak <= limit, f"{what}: {peak} bytes of {limit} were in use")


def stream_out(path, mib, number, plain_text=False):
    """Half of it compresses, or all of it. The hash of what was written."""
    rng = random.Random(number)
    blocks = [rng.randbytes(MIB), bytes(MIB // 2) + rng.randbytes(MIB // 2), b"text, text\n" * (MIB // 11 + 1), rng.randbytes(MIB)]
    if plain_text:
        blocks = blocks[2:3] * 4
    h = hashlib.blake2b()
    with open(path, "wb", buffering=0) as f:
        for n in range(mib):
            data = b"%08d" % n + blocks[n % 4][8:MIB]
            h.update(data)
            f.write(data)
        os.fsync(f.fileno())
    return h.digest()


def stream_in(path):
    h = hashlib.blake2b()
    with open(path, "rb", buffering=0) as f:
        while data := f.read(MIB):
            h.update(data)
    return h.digest()


def stream():
    need()
    mib = 4096 if NIGHTLY else 128 if SANITIZED else 1024
    with Volume("--memory", f"{MEMORY}M") as v:
        v.watch()
        written = stream_out(v.path("big"), mib, 1)
        v.unwatch()
        judge(v, f"{mib} MiB written")
        v.remount()
        v.watch()
        check(stream_in(v.path("big")) == written, "the file has other data")
        v.unwatch()
        judge(v, f"{mib} MiB read")


def write_beside(v, count, mib):
    """So many writers at once of so many MiB each; then everything is read."""
    hashes = [None] * count
    threads = [
        threading.Thread(target=lambda n=n: hashes.__setitem__(n, stream_out(v.path(f"w{n}"), mib, n, count > 4)))
        for n in range(count)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for n, expected in enumerate(hashes):
        check(expected and stream_in(v.path(f"w{n}")) == expected, f"w{n} has other data")
        os.unlink(v.path(f"w{n}"))


def writers():
    need()
    mib = 128 if SANITIZED else 512
    for count in (1, 4, 32):
        with Volume("--memory", f"{MEMORY}M") as v:
            v.watch()
            write_beside(v, count, 1024 if NIGHTLY else mib // count)
            if count == 4:
                random_writes(v.path("random"), 64 if SANITIZED else 256)
            v.unwatch()
            judge(v, f"{count} writers")
            judge_account(v, f"{count} writers")


def random_writes(path, mib):
    rng = random.Random(9)
    with open(path, "wb", buffering=0) as f:
        f.truncate(mib * MIB)
        for n in range(mib * 40):
            os.pwrite(f.fileno(), rng.randbytes(4096), rng.randrange(mib * 256) * 4096)
        os.fsync(f.fileno())


MAKER = """
import os, sys
root, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for n in range(first, first + count):
    if n % 1000 == 0:
        os.mkdir(f"{root}/d{n // 1000}")
    os.mknod(f"{root}/d{n // 1000}/a file with a name of some length {n}")
"""


def inodes():
    need("find")
    count = 1000000 if NIGHTLY else 6000 if SANITIZED else 50000
    with Volume("--memory", f"{MEMORY}M") as v:
        v.watch()
        half = count // 2
        makers = [
            subprocess.Popen([sys.executable, "-c", MAKER, v.mnt, str(first), str(half)]) for first in (0, half)
        ]
        for m in makers:
            check(m.wait() == 0, "making inodes failed")
        v.unwatch()
        judge(v, f"{count} inodes made")
        v.remount()
        v.watch()
        for _ in range(2):
            found = int(run("sh", "-c", 'find "$1" -printf "%i %s\\n" | wc -l', "sh", v.mnt, timeout=1800))
            check(found == count + count // 1000 + 1, f"{found} names are listed")
        run("sh", "-c", 'ls -lR "$1" >/dev/null', "sh", v.mnt, timeout=1800)
        v.unwatch()
        judge(v, f"{count} inodes listed")


main(stream, writers, inodes)
