"""A store and its mount in a temporary directory, and what the mount tests share. Standard library only.

A test is a script: it exits 0, 1, or 77 (skipped: the reason is printed). With CI=true what is missing is a failure.
Whatever happens, what was mounted is unmounted, and the daemon is ended by its process id.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback

from fusemount import Failure, Mount, disk_usage, drop_caches, mounted, run, say, wait_for  # noqa: F401 (tests take them from here)

BIN = os.environ.get("APFS_BIN") or os.path.join(os.path.dirname(__file__), "../../build/dev/tools")
CACHE = os.environ.get("APFS_CACHE") or os.path.join(tempfile.gettempdir(), f"apfs-test-cache-{os.getuid()}")
NIGHTLY = "APFS_NIGHTLY" in os.environ
SANITIZED = bool(os.environ.get("APFS_SANITIZED"))  # built with sanitizers: slow, and no figures of memory
CI = os.environ.get("CI") == "true"
SMALL = ("./kernel", "./lib", "./mm")  # some 1,250 files of it
LINUX = "/usr/src/linux-source-6.1.tar.xz"
FAST = ("--kdf-ops", "1", "--kdf-mem", "8M")  # the cheapest key derivation
BUSY = 31  # the status of an unmount
PASSPHRASE = "correct horse battery staple"

MIB = 1 << 20


class Skip(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failure(text)


def tool(name):
    return os.path.join(BIN, name)


def need(*programs, root=False):
    """Skips where a program, FUSE or the right to is missing."""
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")
    if root and os.getuid() != 0:
        raise Skip("only root may")
    for program in programs:
        if not shutil.which(program) and not os.path.exists(program):
            raise Skip(f"{program} is missing")
    check(os.path.exists(tool("apfs-mount")), f"{tool('apfs-mount')} is not built")


class Volume(Mount):
    """with Volume() as v: a mounted store at v.mnt; its daemon is a child of ours, v.daemon."""

    def __init__(self, *options, init=(), mount=True, store=None):
        super().__init__("apfs-mount-")
        self.options = [str(o) for o in options]
        self.store = store or self.store
        self.passfile = os.path.join(self.root, "pass")
        try:
            os.mkdir(self.mnt)
            put(self.passfile, f"{PASSPHRASE}\n".encode())
            run(tool("apfs"), "init", "--passfile", self.passfile, *FAST, *init, self.store)
            if mount:
                self.mount()
        except BaseException:
            self.release()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        if kind and os.path.exists(self.log):
            say(f"--- the daemon's log (its end):\n{self.log_tail()}---")
        self.release()

    def path(self, *parts):
        return os.path.join(self.mnt, *parts)

    def start(self, *options):
        """In the foreground, so that the daemon is our child."""
        super().start(tool("apfs-mount"), "-f", "--passfile", self.passfile, *self.options, *options, self.store, self.mnt)

    def mount(self, *options):
        """Returns once the mount answers."""
        self.start(*options)
        self.wait_until_up()

    def umount(self):
        """Waits for durability and for the daemon's end, which must be a clean one. Whoever walks every mount of the
        machine makes this one busy for a moment, too."""
        end = time.monotonic() + 5
        while (told := run(tool("apfs"), "umount", self.mnt, status=None))[0] == BUSY and time.monotonic() < end:
            time.sleep(0.05)
        check(told[0] == 0, f"apfs umount: {told}")
        self.unwatch()
        status = self.wait_until_gone(120)
        check(status == 0, f"the daemon ended with status {status}: {self.log_tail()}")

    def remount(self, *options):
        self.umount()
        self.mount(*options)

    def kill(self, sig=signal.SIGKILL):
        """As a crash of the daemon; the dead mount is taken away."""
        self.unwatch()
        self.daemon.send_signal(sig)
        self.daemon.wait(60)
        self.daemon = None
        # While others mount and unmount, umount(8) may not find it in the kernel's list.
        wait_for(
            lambda: not mounted(self.mnt) or run("umount", "-l", self.mnt, status=None)[0] == 0, 20, "the dead mount stays"
        )

    def sync(self):
        run(tool("apfs"), "sync", self.mnt)

    def usage(self):
        """Bytes that STORE takes, the reserve excluded."""
        return disk_usage(self.store, exclude=("reserve",))

    def segments(self):
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(os.path.join(self.store, "segments"))
            for name in names
        ]


def put(path, data=b"data"):
    with open(path, "wb") as f:
        f.write(data)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def errno_of(call):
    """The errno that it fails with, or 0."""
    try:
        call()
    except OSError as e:
        return e.errno
    return 0


def catches(pid, sig):
    """Whether a process has a handler for the signal."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        mask = next(line.split()[1] for line in f if line.startswith("SigCgt:"))
    return int(mask, 16) >> (sig - 1) & 1


def stats(v):
    """What a mount has counted: name -> metric."""
    return json.loads(run(tool("apfs"), "stats", "--json", v.mnt))["metrics"]


def amount(metric):
    """Steps may be negative."""
    return metric["count"] if metric["type"] == "histogram" else abs(metric["value"])


def flip(path, offset, bit=4):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1 << bit]))


def file_hash(path):
    h = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as f:
        while chunk := f.read(MIB):
            h.update(chunk)
    return h.digest()


def describe(root):
    """What a tree holds: {relative path (bytes): all that must be the same}."""
    root = os.fsencode(root)
    tree = {}
    links = {}
    todo = [b""]
    while todo:
        below = todo.pop()
        for entry in os.scandir(os.path.join(root, below) if below else root):
            rel = os.path.join(below, entry.name)
            st = os.lstat(entry.path)
            kind = stat.S_IFMT(st.st_mode)
            item = [st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns]
            if kind == stat.S_IFDIR:
                todo.append(rel)
            elif kind == stat.S_IFREG:
                item += [st.st_size, file_hash(entry.path), st.st_nlink]
                if st.st_nlink > 1:
                    links.setdefault((st.st_dev, st.st_ino), []).append(rel)
            elif kind == stat.S_IFLNK:
                item += [os.readlink(entry.path)]
            else:
                item += [st.st_rdev]
            names = sorted(os.listxattr(entry.path, follow_symlinks=False))
            item += [(n, os.getxattr(entry.path, n, follow_symlinks=False)) for n in names]
            tree[rel] = item
    for group in links.values():
        for rel in group:
            tree[rel].append(sorted(group))
    return tree


def compare(expected, found):
    """Two results of describe()."""
    for rel in sorted(expected.keys() | found.keys()):
        if rel not in found:
            raise Failure(f"{rel!r} is missing")
        if rel not in expected:
            raise Failure(f"{rel!r} was never made")
        if expected[rel] != found[rel]:
            raise Failure(f"{rel!r} differs:\n  expected {expected[rel]}\n  found    {found[rel]}")


def linux_tar(whole=False):
    """A tar of the kernel's source, or of its 10,000-file part, made once."""
    need("tar", "xz")
    if not os.path.exists(LINUX):
        raise Skip(f"{LINUX} is missing (package linux-source-6.1)")
    part = ["drivers/net", "include/linux", "kernel", "lib", "mm"]
    names = [] if whole else [f"linux-source-6.1/{p}" for p in part]
    kind = hashlib.blake2b(repr((names, os.stat(LINUX).st_size)).encode(), digest_size=4).hexdigest()
    path = os.path.join(CACHE, f"linux-{kind}.tar")
    os.makedirs(CACHE, exist_ok=True)
    with open(path + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path
        with tempfile.TemporaryDirectory(dir=CACHE) as tmp:
            run("tar", "-xJf", LINUX, "-C", tmp, "--strip-components=1", *names, timeout=1200)
            run("tar", "-cf", path + ".new", "-C", tmp, ".", timeout=1200)
        os.rename(path + ".new", path)
    return path


@contextlib.contextmanager
def linux_files(count):
    """A directory with that many small files' worth of kernel source."""
    with tempfile.TemporaryDirectory(prefix="apfs-linux-") as tmp:
        parts = SMALL if count <= 1200 else (*SMALL, "./include/linux")
        run("tar", "-xf", linux_tar(), "-C", tmp, *parts)
        kept = 0
        for folder, dirs, names in os.walk(tmp):
            dirs.sort()
            for name in sorted(names):
                kept += 1
                if kept > count:
                    os.unlink(os.path.join(folder, name))
        yield tmp


def text(rng, size):
    """Compressible bytes, much as source code."""
    words = [b"static ", b"int ", b"return ", b"struct ", b"if (", b")\n\t", b"index", b"0;\n", b"const ", b"= ", b"the "]
    out = bytearray()
    while len(out) < size:
        out += b"".join(rng.choices(words, k=64))
        out += b"%d" % rng.getrandbits(30)
    return bytes(out[:size])


def seed():
    value = int(os.environ.get("APFS_SEED") or random.SystemRandom().getrandbits(31))
    say(f"APFS_SEED={value}")
    return value


def main(*tests):
    """Runs the functions in turn and exits. A time limit (APFS_TIMEOUT, seconds) ends them in order."""
    end = time.monotonic() + int(os.environ.get("APFS_TIMEOUT") or 1e6)

    def expired(_signal, _frame):
        raise Failure("out of time")

    def ended(_signal, _frame):
        raise SystemExit(1)

    signal.signal(signal.SIGALRM, expired)
    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, ended)
    signal.setitimer(signal.ITIMER_REAL, end - time.monotonic())
    wanted = sys.argv[1:]
    unknown = set(wanted) - {test.__name__ for test in tests}
    if unknown:
        sys.exit(f"there is no test {', '.join(sorted(unknown))}")
    status = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            check(start < end, "out of time")
            test()
            say(f"ok {test.__name__} ({time.monotonic() - start:.1f} s)")
        except Skip as why:
            say(f"skipped {test.__name__}: {why}")
            status = status or (1 if CI else 77)
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
            say(f"FAILED {test.__name__}")
            status = 1
    sys.exit(status)
