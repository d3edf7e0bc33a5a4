"""Space of overwritten data comes back by itself while nobody uses the mount, and when it is asked for."""

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time

from apfsmount import MIB, NIGHTLY, SANITIZED, Volume, catches, check, get, main, need, run, say, tool, wait_for
from powerdisk import Disk, need_disk

SIZE = (256 if NIGHTLY else 8 if SANITIZED else 16) * MIB
BLOCK = 4096


def overwrite(path, rng, times):
    """Random blocks at random places, as many times over as the file is large; fsync in between."""
    size = os.stat(path).st_size
    with open(path, "r+b", buffering=0) as f:
        for round_ in range(times * 4):
            for _ in range(size // BLOCK // 4):
                os.pwrite(f.fileno(), rng.randbytes(BLOCK), rng.randrange(size // BLOCK) * BLOCK)
            os.fsync(f.fileno())


def segments(v):
    total = 0
    for path in v.segments():
        with contextlib.suppress(FileNotFoundError):  # deleted while we look
            total += os.stat(path).st_blocks * 512
    return total


def fill(v, name, rng, size):
    with open(v.path(name), "wb") as f:
        for _ in range(size // MIB):
            f.write(rng.randbytes(MIB))


def random_overwrite():
    """10 x a file's size at random: once idle, STORE takes at most 1.5 x what is live, and then keeps still."""
    need()
    rng = random.Random(1)
    with Volume() as v:
        fill(v, "f", rng, SIZE)
        overwrite(v.path("f"), rng, 10)
        v.sync()
        want = get(v.path("f"))
        before = segments(v)
        end = time.monotonic() + 60
        while segments(v) > SIZE * 1.5 and time.monotonic() < end:
            time.sleep(0.2)
        after = segments(v)
        say(f"{SIZE >> 20} MiB: segments {before >> 20} MiB, once idle {after >> 20} MiB")
        check(after <= SIZE * 1.5, f"segments take {after} bytes for {SIZE}")
        wait_for(lambda: is_still(v), 60, "the daemon goes on writing while nobody does anything")
        check(get(v.path("f")) == want, "another content")
        v.remount()
        check(get(v.path("f")) == want, "another content after a remount")


def is_still(v):
    """Whether the daemon writes nothing for longer than it takes an idle volume to go on compacting."""

    def written():
        with open(f"/proc/{v.daemon.pid}/io", encoding="ascii") as f:
            return [line for line in f if line.startswith("wchar")]

    before = written()
    time.sleep(4)
    return written() == before


def asked_for():
    """apfs compact: waits, says what it freed; --all leaves next to nothing dead; who may, and what is refused."""
    need()
    rng = random.Random(2)
    with Volume() as v:
        fill(v, "f", rng, 16 * MIB)
        v.sync()
        with open(v.path("f"), "r+b") as f:
            f.write(rng.randbytes(1 * MIB))
        want = get(v.path("f"))
        out = run(tool("apfs"), "compact", "--all", v.mnt)
        check("freed" in out and segments(v) < 16.5 * MIB, f"{out}: segments take {segments(v)} bytes")
        with open(v.path("f"), "r+b") as f:
            f.write(rng.randbytes(8 * MIB))
        want = get(v.path("f"))
        out = run(tool("apfs"), "compact", v.mnt)
        check("freed" in out and segments(v) < 17 * MIB, f"{out}: segments take {segments(v)} bytes")
        check(get(v.path("f")) == want, "another content")
        for value, code in ((b"everything", 22), (b"Stop", 22)):
            try:
                os.setxattr(v.mnt, "user.apfs.compact", value)
                check(False, f"{value} was taken")
            except OSError as e:
                check(e.errno == code, f"{value}: {e}")
        text = os.getxattr(v.mnt, "user.apfs.compact").decode()
        check(text.startswith("idle done=") and "error=0" in text, text)
        check("user.apfs.compact" not in os.listxattr(v.mnt), "the attribute is listed")
        run(tool("apfs"), "compact", v.root, status=30)
        run(tool("apfs"), "compact", status=1)
        v.remount("--ro")
        check("read-only" in run(tool("apfs"), "compact", v.mnt, status=2).lower(), "a read-only mount was compacted")


def on_demand():
    """--no-compact: nothing is done until somebody asks."""
    need()
    rng = random.Random(4)
    with Volume("--no-compact", "--commit-interval", "100ms") as v:
        fill(v, "f", rng, 8 * MIB)
        overwrite(v.path("f"), rng, 3)
        v.sync()
        wait_for(lambda: is_still(v), 60, "the daemon goes on writing while nobody does anything")
        check(segments(v) > 16 * MIB, f"segments take {segments(v)} bytes: it was compacted")
        want = get(v.path("f"))
        run(tool("apfs"), "compact", v.mnt)
        check(segments(v) < 12 * MIB, f"segments take {segments(v)} bytes after apfs compact")
        check(get(v.path("f")) == want, "another content")


def interrupted():
    """Ctrl-C ends it early, and cleanly; so does an unmount meanwhile."""
    need()
    rng = random.Random(3)
    with Volume() as v:
        fill(v, "f", rng, SIZE)
        for _ in range(5):
            overwrite(v.path("f"), rng, 2)
            with subprocess.Popen([tool("apfs"), "compact", "--all", v.mnt], stdout=subprocess.PIPE, text=True) as child:
                wait_for(lambda c=child: catches(c.pid, signal.SIGINT) or c.poll() is not None, 20, "it does not begin")
                child.send_signal(signal.SIGINT)
                out = child.communicate(timeout=60)[0]
            check(child.returncode == 0, f"status {child.returncode}: {out}")
            if "stopped before the end" in out:
                break
        else:
            check(False, f"it is never stopped: {out}")
        want = get(v.path("f"))
        os.setxattr(v.mnt, "user.apfs.compact", b"all")
        v.remount()
        check(get(v.path("f")) == want, "another content")


def full_disk():
    """A full disk of which every second small file was deleted: no segment is dead, but the space can be written to."""
    need_disk("ext4")
    rng = random.Random(4)
    with (
        tempfile.TemporaryDirectory(prefix="apfs-compact-") as folder,
        Disk("ext4", "shutdown", folder, 160 * MIB) as disk,
        Volume("--memory", "64M", store=f"{disk.path}/store") as v,
    ):
        data = rng.randbytes(MIB // 4)
        names = []
        with contextlib.suppress(OSError):
            while True:
                with open(v.path(f"f{len(names)}"), "wb") as f:
                    f.write(len(names).to_bytes(8, "little") + data)
                names.append(f"f{len(names)}")
        run(tool("apfs"), "sync", v.mnt, status=None)
        check(len(names) > 200, f"only {len(names)} files fitted")
        for name in names[::2]:
            os.unlink(v.path(name))
        v.sync()
        room = len(names) // 2 * 6 // 10
        for number in range(room):
            with open(v.path(f"new{number}"), "wb") as f:
                f.write(data)
                os.fsync(f.fileno())
        v.remount()
        for number in range(room):
            check(get(v.path(f"new{number}")) == data, f"new{number} is another")
        for number in range(1, len(names), 2):
            check(get(v.path(names[number])) == number.to_bytes(8, "little") + data, f"{names[number]} is another")
        say(f"{len(names)} files; of {len(names[::2])} that were deleted the room of {room} was written")


main(random_overwrite, asked_for, on_demand, interrupted, full_disk)
