"""What the tests of programs share. Each is a function of a Place that works on a mount as a user of the program would. It
is called twice, in a folder of its own, with a remount after each; what it returns is called after that. In the end
`apfs check --data` has to find nothing."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../mount"))

# pylint: disable=wrong-import-position,unused-import
from apfsmount import (  # noqa: E402,F401
    MIB,
    NIGHTLY,
    SANITIZED,
    Skip,
    Volume,
    check,
    compare,
    describe,
    file_hash,
    get,
    linux_files,
    need,
    put,
    run,
    say,
    text,
    tool,
    wait_for,
)
from apfsmount import main as main_of  # noqa: E402


def size(usual, nightly, sanitized=None):
    """How much of something: in the usual run, in the long one, and where everything is slow."""
    return nightly if NIGHTLY else sanitized if SANITIZED and sanitized is not None else usual


def noise(rng, mib):
    """So many MiB of random data: randbytes gives less than 256 at once."""
    return b"".join(rng.randbytes(MIB) for _ in range(mib))


class Place:
    """v: the volume. path() is below a folder on its mount, native() below one outside, for this round alone."""

    def __init__(self, v, number):
        self.v = v
        self.number = number
        os.mkdir(self.path())
        os.mkdir(self.native())

    def path(self, *parts):
        return self.v.path(f"round{self.number}", *parts)

    def native(self, *parts):
        return os.path.join(self.v.root, f"native{self.number}", *parts)

    def environment(self, **more):
        """So that no program reads or writes the user's own settings."""
        return {"PATH": os.environ["PATH"], "HOME": self.native(), "LC_ALL": "C.UTF-8", **more}


def twice(work, options):
    def test():
        with Volume(*options) as v:
            for number in (1, 2):
                again = work(Place(v, number))
                v.remount()
                if again:
                    again()
            v.umount()
            say(run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store, timeout=3600).splitlines()[-1])

    test.__name__ = work.__name__
    return test


def main(*works, options=()):
    """A test for each. options: of the mount."""
    main_of(*(twice(work, options) for work in works))
