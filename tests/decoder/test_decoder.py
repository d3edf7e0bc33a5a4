#!/usr/bin/env python3
"""decode.py reads what a mount wrote: every suite and codec, files of all kinds, and the log that a crash left."""

import os
import random
import re
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"  # the one that Debian's python3-* packages are for
DECODER = f"{HERE}/decode.py"
sys.path[:0] = [HERE, os.path.join(HERE, "../mount")]

import manifest  # noqa: E402
from apfsmount import FAST, Volume, check, main, need, run, seed, text, tool  # noqa: E402


def fill(root, rng):
    """Files, directories and names of all kinds."""
    os.mkdir(f"{root}/small")
    for n in range(200):
        with open(f"{root}/small/{n:03}", "wb") as f:
            f.write(text(rng, rng.randrange(5000)))
    with open(f"{root}/large", "wb") as f:
        f.write(text(rng, 3 << 20))
    with open(f"{root}/random", "wb") as f:
        f.write(rng.randbytes(700_001))
    with open(f"{root}/sparse", "wb") as f:
        for _ in range(5):
            f.seek(rng.randrange(1 << 22))
            f.write(text(rng, 10_000))
        f.truncate(5 << 20)
    with open(f"{root}/empty", "wb"):
        pass
    os.truncate(f"{root}/empty", 123_456)
    with open(f"{root}/large", "r+b") as f:
        for _ in range(40):
            f.seek(rng.randrange(3 << 20))
            f.write(text(rng, 4096))
    os.makedirs(f"{root}/a/b/c/d")
    os.link(f"{root}/large", f"{root}/a/b/hard")
    os.symlink("../../nowhere/" + "x" * 300, f"{root}/a/soft")
    os.symlink(b"\xff\xfe not utf-8", f"{root}/a/bytes")
    os.mkdir(os.fsencode(root) + b"/a/\xf0\x28 \n name")
    os.mkfifo(f"{root}/fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"{root}/socket")
    if os.getuid() == 0:
        os.mknod(f"{root}/device", 0o020600, os.makedev(259, 70_000))
        os.chown(f"{root}/small/001", 12345, 54321)
        os.setxattr(f"{root}/random", "security.capability", bytes.fromhex("0000000200200000000000000000000000000000"))
        os.setxattr(f"{root}/a/soft", "trusted.link", b"of a link", follow_symlinks=False)
    os.chmod(f"{root}/small/002", 0o4751)
    os.setxattr(f"{root}/small", "user.name", b"value")
    os.setxattr(f"{root}/small", "user.empty", b"")
    os.setxattr(f"{root}/large", "user.big", rng.randbytes(60_000))
    os.utime(f"{root}/small/003", ns=(1, -1_500_000_000))
    os.utime(f"{root}/a", ns=(2**33 * 10**9, 2**33 * 10**9 + 999_999_999))


def later(root, rng):
    """Changes after which the daemon is killed."""
    os.unlink(f"{root}/small/010")
    os.rename(f"{root}/small/011", f"{root}/small/012")
    for n in range(20):
        with open(f"{root}/small/new{n}", "wb") as f:
            f.write(text(rng, 300))
            os.fsync(f.fileno())
    os.truncate(f"{root}/random", 100_000)
    os.setxattr(f"{root}/small", "user.name", b"another")


def expected(v):
    return [manifest.dump(e) for e in sorted(manifest.tree(v.mnt), key=lambda e: e["path"])]


def decoded(v, *options):
    argv = [PYTHON, "-B", DECODER, *options, "--scan", v.store]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"the decoder failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()


def compare(want, got):
    for a, b in zip(want, got):
        check(a == b, f"differs:\n  mount   {a}\n  decoder {b}")
    check(len(want) == len(got), f"{len(want)} entries of the mount, {len(got)} of the decoder")


def key_slots(v):
    """Slots of the other two kinds: what opens them, as options of the decoder."""
    keyfile, recovery = f"{v.root}/keyfile", f"{v.root}/recovery"
    with open(keyfile, "wb") as f:
        f.write(os.urandom(100) + b"\n")
    run(tool("apfs"), "key", "add", "--passfile", v.passfile, "--new-keyfile", keyfile, *FAST, v.store)
    printed = run(tool("apfs"), "key", "recovery", "--passfile", v.passfile, "--label", "paper", v.store)
    with open(recovery, "w", encoding="ascii") as f:
        f.write(re.search(r"([0-9A-Z]{4}-){13}[0-9A-Z]{4}", printed).group() + "\n")
    return (("--keyfile", keyfile), ("--recovery", recovery))


def keys():
    """Every kind of key slot, a damaged first superblock, and what no slot takes."""
    with Volume() as v:
        with open(v.path("file"), "wb") as f:
            f.write(b"content")
        want = expected(v)
        v.umount()
        others = key_slots(v)
        for secret in (("--passfile", v.passfile), *others):
            compare(want, decoded(v, *secret))
        with open(f"{v.store}/superblock", "r+b") as f:
            f.seek(600)
            f.write(b"x")
        compare(want, decoded(v, *others[1]))
        argv = [PYTHON, "-B", DECODER, "--passfile", others[0][1], v.store]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        check(done.returncode and not done.stdout and "no key slot" in done.stderr, f"a wrong passphrase: {done}")


def volume(suite, compress, rng):
    with Volume(f"--compress={compress}", init=("--cipher", suite)) as v:
        fill(v.mnt, rng)
        v.sync()
        want = expected(v)
        v.umount()
        compare(want, decoded(v, "--passfile", v.passfile))
        v.mount()
        later(v.mnt, rng)
        v.sync()
        want = expected(v)
        v.kill()
        check(os.path.getsize(f"{v.store}/index.db-wal") > 4096, "the crash left no write-ahead log")
        compare(want, decoded(v, "--passfile", v.passfile))


def decoder():
    need()
    rng = random.Random(seed())
    volume("aes-256-gcm", "zstd", rng)
    volume("chacha20-poly1305", "lz4", rng)
    volume("xchacha20-poly1305", "brotli", rng)
    volume("auto", "off", rng)


if __name__ == "__main__":
    main(keys, decoder)
