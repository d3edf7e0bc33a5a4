"""The filesystems that bench.py compares: how each is made, mounted, unmounted; and a sampler of its daemon's memory."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PASSWORD = "bench"


class BenchError(Exception):
    pass


def run(*argv, **options):
    done = subprocess.run(
        [str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        check=False, **{"stdin": subprocess.DEVNULL, **options},
    )
    if done.returncode:
        raise BenchError(f"{' '.join(map(str, argv))}: status {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        return any(line.split()[4] == path for line in f)


def wait_for(condition, seconds, text):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise BenchError(text)
        time.sleep(0.01)


def rss(pid):
    """Anonymous and locked memory of a process, bytes."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    return 0


def disk_usage(path, exclude=()):
    """As du: allocated bytes. exclude: names right below path."""
    total = 0
    for folder, dirs, names in os.walk(path):
        if folder == path:
            names = [n for n in names if n not in exclude]
        for name in [*names, *dirs]:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


class System:
    """One filesystem in a fresh directory below `work`; a context manager that takes it away again."""

    name = "?"
    exclude = ()

    def __init__(self, work):
        self.root = os.path.realpath(tempfile.mkdtemp(prefix=f"{self.name}-", dir=work))
        self.store = os.path.join(self.root, "store")
        self.mnt = os.path.join(self.root, "mnt")
        self.daemon = None
        self.peak = 0
        self._stop = None
        self._sampler = None

    @classmethod
    def missing(cls):
        """Why it cannot be measured here, or None."""
        return None

    def __enter__(self):
        try:
            os.mkdir(self.store)
            os.mkdir(self.mnt)
            self.create()
            self.mount()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *_):
        self.release()

    def create(self):
        pass

    def command(self):
        """The daemon's command line, in the foreground."""
        raise NotImplementedError

    def mount(self):
        log = open(os.path.join(self.root, "log"), "ab")  # pylint: disable=consider-using-with
        with log:
            self.daemon = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def up():
            if self.daemon.poll() is not None:
                with open(log.name, encoding="utf-8", errors="replace") as f:
                    raise BenchError(f"{self.name}: the daemon ended with {self.daemon.returncode}: {f.read()[-2000:]}")
            return mounted(self.mnt)

        wait_for(up, 60, f"{self.name}: no mount within a minute")
        os.listdir(self.mnt)
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, args=(self.daemon.pid, self._stop), daemon=True)
        self._sampler.start()

    def _sample(self, pid, stop):
        while not stop.wait(0.05):
            self.peak = max(self.peak, rss(pid))

    def umount(self):
        if self._sampler:
            self._stop.set()
            self._sampler.join()
            self._sampler = None
        run("umount", self.mnt)
        try:
            self.daemon.wait(300)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name}: the daemon goes on after the unmount") from None
        self.daemon = None

    def remount(self):
        self.umount()
        self.mount()

    def cold(self):
        """Nothing is cached any more."""
        self.remount()
        drop_caches()

    def usage(self):
        return disk_usage(self.store, self.exclude)

    def release(self):
        if self._sampler:
            self._stop.set()
            self._sampler.join()
            self._sampler = None
        for _ in range(3):
            if mounted(self.mnt):
                subprocess.run(["umount", "-l", self.mnt], check=False, stderr=subprocess.DEVNULL)
        if self.daemon:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(60)
            if self.daemon.poll() is None:
                self.daemon.kill()
                self.daemon.wait()
            self.daemon = None
        if not mounted(self.mnt):
            shutil.rmtree(self.root, ignore_errors=True)


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("3")
    except OSError as e:
        raise BenchError(f"caches cannot be dropped ({e}): run as root") from None


class Native(System):
    name = "native"

    def mount(self):
        self.mnt = self.store

    def umount(self):
        pass

    def cold(self):
        drop_caches()


class Apfs(System):
    name = "apfs"
    exclude = ("reserve",)
    bin = os.path.join(HERE, "../build/release/tools")
    options = ()

    @classmethod
    def missing(cls):
        path = os.path.join(cls.bin, "apfs-mount")
        return None if os.path.exists(path) else f"{path} is not built (cmake --preset release; --apfs-bin DIR)"

    def create(self):
        self.passfile = os.path.join(self.root, "pass")
        with open(self.passfile, "w", encoding="ascii") as f:
            f.write(PASSWORD + "\n")
        run(
            os.path.join(self.bin, "apfs"), "init", "--kdf-ops", "1", "--kdf-mem", "8M", "--passfile", self.passfile, self.store
        )

    def command(self):
        return [
            os.path.join(self.bin, "apfs-mount"), "-f", "--passfile", self.passfile, *self.options, self.store, self.mnt
        ]

    def umount(self):
        # What is measured is over; `apfs umount` waits for the daemon, as gocryptfs' umount cannot.
        run(os.path.join(self.bin, "apfs"), "sync", self.mnt)
        super().umount()


class Gocryptfs(System):
    name = "gocryptfs"

    @classmethod
    def missing(cls):
        return None if shutil.which("gocryptfs") else "gocryptfs is not installed"

    def create(self):
        run("gocryptfs", "-init", "-q", "-scryptn", "10", "-extpass", f"echo {PASSWORD}", self.store)

    def command(self):
        return ["gocryptfs", "-fg", "-q", "-extpass", f"echo {PASSWORD}", self.store, self.mnt]


class Securefs(System):
    name = "securefs"

    @classmethod
    def missing(cls):
        return None if shutil.which("securefs") else "securefs is not installed"

    def create(self):
        run("securefs", "create", "--pass", PASSWORD, "--rounds", "1", self.store)

    def command(self):
        return ["securefs", "mount", "--pass", PASSWORD, self.store, self.mnt]


class Passthrough(System):
    """libfuse's passthrough_hp: no compression, no encryption, the usual FUSE floor."""

    name = "passthrough"
    binary = shutil.which("passthrough_hp")

    @classmethod
    def missing(cls):
        return None if cls.binary and os.path.exists(cls.binary) else "no passthrough_hp (--passthrough PATH)"

    def command(self):
        return [self.binary, "--foreground", self.store, self.mnt]


ALL = [Native, Passthrough, Gocryptfs, Securefs, Apfs]
