"""The size of STORE, and what becomes of bits that flip in it and of files that are not ours."""

import errno
import os
import random

from apfsmount import SANITIZED, Volume, check, flip, main, need, run, say, seed, text, tool


def smaller():
    """Text takes less room than it has bytes."""
    need()
    rng = random.Random(1)
    with Volume(mount=False) as v:
        empty = v.usage()
        v.mount()
        data = text(rng, 8 << 20)
        with open(v.path("text"), "wb") as f:
            f.write(data)
        v.umount()
        used = v.usage() - empty
        say(f"{len(data)} bytes of text take {used}")
        check(used < len(data) // 2, f"{len(data)} bytes of text take {used}")


def bit_flips():
    """In segments of an unmounted store: EIO and a log line, or unchanged data."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        files = {}
        for number in range(30):
            kind = number % 3
            size = rng.randrange(1, 3000 if number < 15 else 200000)
            files[f"file-{number}"] = rng.randbytes(size) if kind == 0 else text(rng, size) if kind == 1 else b"abc" * size
        for name, data in files.items():
            with open(v.path(name), "wb") as f:
                f.write(data)
        v.umount()
        paths = v.segments()
        check(paths, "there are no segments")
        errors = 0
        for _ in range(5 if SANITIZED else 25):
            flips = []
            for _ in range(4):
                path = rng.choice(paths)
                flips.append((path, rng.randrange(os.path.getsize(path)), rng.randrange(8)))
                flip(*flips[-1])
            before = os.path.getsize(v.log)
            v.mount()
            failed = read_all(v, files)
            v.umount()
            with open(v.log, "rb") as f:
                f.seek(before)
                log = f.read()
            errors += failed
            check(not failed or b"error" in log.lower() or b"cannot be read" in log, f"EIO without a log line: {log}")
            check(b"file-" not in log, "the log names a file")
            for one in flips:
                flip(*one)
        say(f"{errors} files could not be read")
        check(errors, "no flip was noticed")
        v.mount()
        check(read_all(v, files) == 0, "a file is unreadable with all bits as they were")


def read_all(v, files):
    failed = 0
    for name, data in files.items():
        try:
            with open(v.path(name), "rb") as f:
                check(f.read() == data, f"{name} has other data")
        except OSError as e:
            check(e.errno == errno.EIO, f"{name}: {e}")
            failed += 1
    return failed


def odd_store():
    """Files of no meaning in STORE, and a lost backup of the superblock, do no harm."""
    need()
    with Volume() as v:
        with open(v.path("f"), "wb") as f:
            f.write(b"data")
        v.umount()
        os.makedirs(os.path.join(v.store, "segments", "zz"), exist_ok=True)
        with open(os.path.join(v.store, "segments", "zz", "note.txt"), "wb") as f:
            f.write(b"what is this")
        with open(os.path.join(v.store, "mine"), "wb") as f:
            f.write(b"and this")
        os.unlink(os.path.join(v.store, "superblock"))
        v.mount()
        with open(v.path("f"), "rb") as f:
            check(f.read() == b"data", "the file has other data")
        v.umount()
        check(os.path.exists(os.path.join(v.store, "mine")), "a file that is not ours was removed")
        status, out = run(tool("apfs"), "info", v.store, status=None)
        check(status == 0, f"apfs info: {status}: {out}")


def mapped():
    """Segments that are mapped (--mmap), and damaged and cut short under the daemon: EIO, and it goes on."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        files = {name: rng.randbytes(4 << 20) for name in ("a", "b")}
        for name, data in files.items():
            with open(v.path(name), "wb") as f:
                f.write(data)
        for options in (("--ro", "--mmap=1G"), ("--mmap=1G",)):
            v.umount()
            v.mount(*options)
            with open(v.path("a"), "rb") as f:
                check(f.read(4096) == files["a"][:4096], "a has other data")
            with open(f"/proc/{v.daemon.pid}/maps", encoding="utf-8") as f:
                check(os.path.join(v.store, "segments") in f.read(), f"no segment is mapped: {options}")
        for path in v.segments():
            flip(path, os.path.getsize(path) - 1000, 3)
        check(read_all(v, files) == 1, "the bit that flipped was not noticed, or spoiled more than its file")
        for path in v.segments():
            flip(path, os.path.getsize(path) - 1000, 3)
        check(read_all(v, files) == 0, "a file is unreadable with all bits as they were")
        with open(v.path("b"), "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for path in v.segments():
            os.truncate(path, 20000)
        check(read_all(v, {"b": files["b"]}) == 1, "what was cut off was read")
        with open(v.path("c"), "wb") as f:
            f.write(b"and it goes on")
            os.fsync(f.fileno())


main(smaller, bit_flips, odd_store, mapped)
