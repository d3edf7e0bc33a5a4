"""The filesystems that bench.py compares: how each is made, mounted, unmounted."""

import os
import shutil

from report import HERE
import fusemount
from fusemount import Failure, disk_usage, run

PASSWORD = "bench"


class System(fusemount.Mount):
    """One filesystem in a fresh directory below `work`; a context manager that takes it away again."""

    name = "?"
    exclude = ()

    def __init__(self, work):
        super().__init__(f"{self.name}-", work)

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

    def create(self):
        pass

    def command(self):
        """The daemon's command line, in the foreground."""
        raise NotImplementedError

    def mount(self):
        self.start(*self.command())
        self.wait_until_up()
        self.watch(0.05)

    def umount(self):
        self.unwatch()
        run("umount", self.mnt)
        self.wait_until_gone(300)

    def remount(self):
        self.umount()
        self.mount()

    def cold(self):
        """Nothing is cached any more."""
        self.remount()
        drop_caches()

    def usage(self):
        return disk_usage(self.store, self.exclude)


def drop_caches():
    if not fusemount.drop_caches():
        raise Failure("caches cannot be dropped: run as root")


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
