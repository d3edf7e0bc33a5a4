"""A FUSE filesystem in a temporary directory, its daemon a child of ours: what the mount tests and the benchmarks share.
Standard library only."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time


class Failure(Exception):
    pass


def say(text):
    print(text, flush=True)


def run(*argv, status=0, timeout=600, **options):
    """Runs a program; its output (both streams, one string). A status other than expected is a Failure.
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


def rss_anon(pid):
    """Anonymous and locked memory of a process, bytes."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    return 0


def disk_usage(path, exclude=()):
    """As du: allocated bytes, hard links once. exclude: names right below path. Files may vanish meanwhile."""
    seen = set()
    total = 0
    for folder, dirs, names in os.walk(path):
        if folder == path:
            names = [n for n in names if n not in exclude]
        for name in [*names, *dirs]:
            with contextlib.suppress(FileNotFoundError):
                st = os.lstat(os.path.join(folder, name))
                if (st.st_dev, st.st_ino) not in seen:
                    seen.add((st.st_dev, st.st_ino))
                    total += st.st_blocks * 512
    return total


def drop_caches():
    """What the kernel keeps of files is dropped: whether that is permitted."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("3")
    except OSError:
        return False
    return True


class Mount:
    """A fresh directory with a place for the backing directory (`store`), the mount (`mnt`) and the daemon's log."""

    def __init__(self, prefix, work=None):
        self.root = os.path.realpath(tempfile.mkdtemp(prefix=prefix, dir=work))
        self.store = os.path.join(self.root, "store")
        self.mnt = os.path.join(self.root, "mnt")
        self.log = os.path.join(self.root, "log")
        self.daemon = None
        self.peak = 0  # RssAnon, bytes, as sampled while watch() was on
        self._watching = None

    def __exit__(self, *_):
        self.release()

    def start(self, *argv):
        """A daemon that stays in the foreground."""
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_until_up(self):
        def up():
            if self.daemon.poll() is not None:
                raise Failure(f"{self.daemon.args[0]} ended with {self.daemon.returncode}: {self.log_tail()}")
            return mounted(self.mnt)

        wait_for(up, 60, "the mount did not appear in a minute")
        os.stat(self.mnt)

    def log_tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-6000:]

    def wait_until_gone(self, seconds):
        """The daemon's status, after an unmount."""
        try:
            status = self.daemon.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"the daemon still runs {seconds} seconds after the unmount") from None
        self.daemon = None
        return status

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

    def release(self):
        """Whatever has happened, nothing is left."""
        self.unwatch()
        for _ in range(5):
            if not mounted(self.mnt):
                break
            subprocess.run(["umount", "-l", self.mnt], check=False, stderr=subprocess.DEVNULL)
        if self.daemon:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(20)
            if self.daemon.poll() is None:
                self.daemon.kill()
                self.daemon.wait(20)
        self.daemon = None
        if mounted(self.mnt):
            say(f"left behind, it is still mounted: {self.mnt}")
        elif not os.environ.get("APFS_KEEP"):
            shutil.rmtree(self.root, ignore_errors=True)
