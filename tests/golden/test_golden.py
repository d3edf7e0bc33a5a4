#!/usr/bin/env python3
"""Stores that earlier versions wrote: today's programs read all of them, write to them, and find them whole.

What make put into NAME.tar.xz is what NAME.manifest says, to the independent decoder and through a mount.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DECODER = os.path.join(HERE, "../decoder")
sys.path[:0] = [DECODER, os.path.join(HERE, "../mount")]

import manifest  # noqa: E402
from apfsmount import Volume, check, main, need, run, say, tool  # noqa: E402

PYTHON = "/usr/bin/python3"  # the one that Debian's python3-* packages are for


class Golden(Volume):
    """A mount of a golden's copy."""

    def __init__(self, name):
        super().__init__(mount=False)
        run("rm", "-r", self.store)
        run("tar", "-C", self.root, "-xJf", f"{HERE}/{name}.tar.xz")
        with open(f"{HERE}/{name}.manifest", encoding="ascii") as f:
            self.manifest = f.read().splitlines()

    def secrets(self):
        """Options of the decoder and of apfs for all that opens it."""
        yield ["--passfile", self.passfile], ["--passfile", self.passfile]
        if os.path.exists(f"{self.root}/keyfile"):
            yield ["--keyfile", f"{self.root}/keyfile"], ["--keyfile", f"{self.root}/keyfile"]
            yield ["--recovery", f"{self.root}/recovery"], ["--recovery-key", "--passfile", f"{self.root}/recovery"]

    def found(self):
        return [manifest.dump(e) for e in sorted(manifest.tree(self.mnt), key=lambda e: e["path"])]


def compare(want, got, how, without=()):
    """without: the beginnings of paths that may differ."""
    def kept(entries):
        return [e for e in entries if not any(f'"path": "{p}' in e for p in without)]

    for a, b in zip(kept(want), kept(got)):
        check(a == b, f"{how}: differs:\n  manifest {a}\n  found    {b}")
    check(len(kept(want)) == len(kept(got)), f"{how}: {len(want)} entries in the manifest, {len(got)} found")


def decode(v, secret):
    argv = [PYTHON, "-B", f"{DECODER}/decode.py", *secret, "--scan", v.store]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"the decoder failed: {done.stderr[-2000:]}")
    compare(v.manifest, done.stdout.splitlines(), "decoder")


def change(v):
    """New files, changes of old ones; and back, as far as that can be seen."""
    for n in range(20):
        with open(v.path("later", f"new {n}"), "wb") as f:
            f.write(b"%d " % n * 5000)
    with open(v.path("later", "new 3"), "r+b") as f:
        f.seek(7000)
        f.write(b"another")
        os.fsync(f.fileno())
    os.rename(v.path("later", "new 4"), v.path("later", "moved"))
    os.unlink(v.path("later", "new 5"))


def golden(name):
    with Golden(name) as v:
        for for_decoder, for_apfs in v.secrets():
            decode(v, for_decoder)
            run(tool("apfs"), "key", "test", *for_apfs, v.store)
        if os.getuid():
            say("not root: the mount is left out")
            return
        v.mount("--ro")
        compare(v.manifest, v.found(), "mount, read-only")
        v.umount()
        v.mount()
        compare(v.manifest, v.found(), "mount")
        change(v)
        v.umount()
        run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store)
        v.mount()
        compare(v.manifest, v.found(), "after changes", without=("later",))
        with open(v.path("later", "new 3"), "rb") as f:
            check(f.read().count(b"another") == 1, "what was written is not there")
        check(len(os.listdir(v.path("later"))) == 19, "names in later/")
        v.umount()


def goldens():
    need("tar", "xz")
    names = sorted(f.removesuffix(".manifest") for f in os.listdir(HERE) if f.endswith(".manifest"))
    check(len(names) >= 3, "there are no goldens")
    for name in names:
        golden(name)
        say(f"{name}: fine")


if __name__ == "__main__":
    main(goldens)
