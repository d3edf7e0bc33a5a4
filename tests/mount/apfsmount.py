"""A store and its mount in a temporary directory, and what the mount tests share. Standard library only.

A test is a script: it exits 0, 1, or 77 (skipped: the reason is printed). With CI=true what is missing is a failure.
Whatever happens, what was mounted is unmounted, and the daemon is ended by its process id.
"""

import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback

BIN = os.environ.get("APFS_BIN") or os.path.join(os.path.dirname(__file__), "../../build/dev/tools")
CACHE = os.environ.get("APFS_CACHE") or os.path.join(tempfile.gettempdir(), f"apfs-test-cache-{os.getuid()}")
NIGHTLY = "APFS_NIGHTLY" in os.environ
SANITIZED = bool(os.environ.get("APFS_SANITIZED"))  # built with sanitizers: slow, and no figures of memory
CI = os.environ.get("CI") == "true"
SMALL = ("./kernel", "./lib", "./mm")  # some 1,250 files of it
LINUX = "/usr/src/linux-source-6.1.tar.xz"
FAST = ("--kdf-ops", "1", "--kdf-mem", "8M")  # the cheapest key derivation
PASSPHRASE = "correct horse battery staple"

MIB = 1 << 20


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failure(text)


def say(text):
    print(text, flush=True)


def tool(name):
    return os.path.join(BIN, name)


def need(*programs):
    """Skips where a program or FUSE is missing."""
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")
    for program in programs:
        if not shutil.which(program) and not os.path.exists(program):
            raise Skip(f"{program} is not installed")
    check(os.path.exists(tool("apfs-mount")), f"{tool('apfs-mount')} is not built")


def run(*argv, status=0, timeout=600, **options):
    """Runs a program; its output (both streams, one string). A status other than expected fails the test.
    status=None: any, and a pair (status, output) is returned."""
    argv = [str(a) for a in argv]
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        del options["stdin"]
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, encoding="utf-8", errors="replace", **options
    )
    if status is None:
        return done.returncode, done.stdout
    if done.returncode != status:
        raise Failure(f"{' '.join(argv)}: status {done.returncode}, not {status}:\n{done.stdout[-4000:]}")
    return done.stdout


def mounted(path):
    """The type of the filesystem mounted exactly there, or None."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        for line in f:
            fields, _, rest = line.partition(" - ")
            place = fields.split()[4].encode().decode("unicode_escape", errors="replace")
            if place == path:
                found = rest.split()[0]
    return found


def wait_for(condition, seconds, text):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(text)
        time.sleep(0.01)


class Volume:
    """with Volume() as v: a mounted store at v.mnt; its daemon is a child of ours, v.daemon."""

    def __init__(self, *options, init=(), mount=True, store=None):
        self.options = [str(o) for o in options]
        self.root = os.path.realpath(tempfile.mkdtemp(prefix="apfs-mount-"))
        self.store = store or os.path.join(self.root, "store")
        self.mnt = os.path.join(self.root, "mnt")
        self.passfile = os.path.join(self.root, "pass")
        self.log = os.path.join(self.root, "log")
        self.daemon = None
        self.peak = 0  # RssAnon, bytes, as sampled while watch() was on
        self._watching = None
        try:
            os.mkdir(self.mnt)
            with open(self.passfile, "w", encoding="utf-8") as f:
                f.write(PASSPHRASE + "\n")
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
            with open(self.log, encoding="utf-8", errors="replace") as f:
                text = f.read()
            say(f"--- the daemon's log (its end):\n{text[-6000:]}---")
        self.release()

    def path(self, *parts):
        return os.path.join(self.mnt, *parts)

    def start(self, *options):
        """In the foreground, so that the daemon is our child."""
        argv = [tool("apfs-mount"), "-f", "--passfile", self.passfile, *self.options, *options, self.store, self.mnt]
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def mount(self, *options):
        """Returns once the mount answers."""
        self.start(*options)

        def up():
            if self.daemon.poll() is not None:
                raise Failure(f"apfs-mount ended with {self.daemon.returncode}: {self.log_tail()}")
            return mounted(self.mnt) is not None

        wait_for(up, 60, "the mount did not appear in a minute")
        os.stat(self.mnt)

    def log_tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-3000:]

    def umount(self):
        """Waits for durability and for the daemon's end, which must be a clean one."""
        run(tool("apfs"), "umount", self.mnt)
        self.unwatch()
        try:
            status = self.daemon.wait(120)
        except subprocess.TimeoutExpired:
            raise Failure("the daemon still runs two minutes after the unmount") from None
        self.daemon = None
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
        if mounted(self.mnt):
            run("umount", "-l", self.mnt)

    def sync(self):
        run(tool("apfs"), "sync", self.mnt)

    def release(self):
        with contextlib.suppress(Failure):
            self.unwatch()
        for _ in range(5):
            if not mounted(self.mnt):
                break
            subprocess.run(["umount", "-l", self.mnt], check=False, stderr=subprocess.DEVNULL)
        if self.daemon:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(20)
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait(20)
        self.daemon = None
        if mounted(self.mnt):
            say(f"left behind, it is still mounted: {self.mnt}")
        elif not os.environ.get("APFS_KEEP"):
            shutil.rmtree(self.root, ignore_errors=True)

    def watch(self, interval=0.02):
        """Samples the daemon's RssAnon into self.peak until unwatch()."""
        stop = threading.Event()
        pid = self.daemon.pid

        def sample():
            while not stop.wait(interval):
                self.peak = max(self.peak, rss_anon(pid))

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        self._watching = (stop, thread)

    def unwatch(self):
        if self._watching:
            self._watching[0].set()
            self._watching[1].join()
            self._watching = None

    def usage(self):
        """Bytes that STORE takes, the reserve excluded."""
        return disk_usage(self.store, exclude=("reserve",))

    def segments(self):
        return [
            os.path.join(folder, name)
            for folder, _, names in os.walk(os.path.join(self.store, "segments"))
            for name in names
        ]


def rss_anon(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    return 0


def disk_usage(path, exclude=()):
    """As du: allocated bytes, hard links once. exclude: names right below path."""
    seen = set()
    total = 0
    for folder, dirs, names in os.walk(path):
        if folder == path:
            names = [n for n in names if n not in exclude]
        for name in [*names, *dirs]:
            st = os.lstat(os.path.join(folder, name))
            if (st.st_dev, st.st_ino) not in seen:
                seen.add((st.st_dev, st.st_ino))
                total += st.st_blocks * 512
    return total


def drop_caches():
    """Where permitted; what the kernel keeps of files is dropped."""
    os.sync()
    with contextlib.suppress(OSError):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("3")


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


def linux_files(count):
    """That many small files' worth of kernel source, unpacked below a fresh directory that the caller removes."""
    tmp = tempfile.mkdtemp(prefix="apfs-linux-")
    parts = SMALL if count <= 1200 else (*SMALL, "./include/linux")
    run("tar", "-xf", linux_tar(), "-C", tmp, *parts)
    kept = 0
    for folder, dirs, names in os.walk(tmp):
        dirs.sort()
        for name in sorted(names):
            kept += 1
            if kept > count:
                os.unlink(os.path.join(folder, name))
    return tmp


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

    def expired(_signal, _frame):
        raise Failure("out of time")

    def ended(_signal, _frame):
        raise SystemExit(1)

    signal.signal(signal.SIGALRM, expired)
    signal.signal(signal.SIGTERM, ended)
    signal.signal(signal.SIGINT, ended)
    signal.alarm(int(os.environ.get("APFS_TIMEOUT") or 0))
    wanted = sys.argv[1:]
    status = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
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
