"""A Linux source tree goes in by tar, and after a remount everything is as it was, in less than a quarter of the room."""

import os
import tempfile

from apfsmount import NIGHTLY, SANITIZED, SMALL, Volume, check, compare, describe, disk_usage, drop_caches, linux_tar, main, need, put, run, say

LIMIT = 0.22  # of the native tree


def linux_tree():
    need("tar")
    archive = linux_tar(whole=NIGHTLY)
    parts = SMALL if SANITIZED and not NIGHTLY else ()
    with tempfile.TemporaryDirectory(prefix="apfs-native-") as native:
        run("tar", "-xf", archive, "-C", native, *parts)
        expected = describe(native)
        size = disk_usage(native)
        # What is stored must not depend on how much of the machine other tests leave.
        with Volume("--no-feedback", "--commit-interval", "30s") as v:
            os.mkdir(v.path("linux"))
            run("tar", "-xf", archive, "-C", v.path("linux"), *parts, timeout=3600)
            compare(expected, describe(v.path("linux")))
            v.remount()
            drop_caches()
            compare(expected, describe(v.path("linux")))
            v.umount()
            stored = v.usage()
            say(f"{len(expected)} files: {size >> 10} KiB natively, {stored >> 10} KiB in STORE: {stored / size:.1%}")
            check(SANITIZED or stored <= LIMIT * size, f"STORE takes {stored / size:.1%} of the native tree, more than {LIMIT:.0%}")


def odd_tree():
    """What kernel sources lack: hard links, attributes, sparse and special files, odd names and times."""
    need("rsync", "setfacl")
    with tempfile.TemporaryDirectory(prefix="apfs-native-") as native:
        make_odd(native)
        with Volume() as v:
            run("rsync", "-aHAXS", "--devices", "--specials", f"{native}/", v.mnt)
            v.remount()
            compare(describe(native), describe(v.mnt))
            out = run("rsync", "-aHAXn", "--checksum", "--itemize-changes", f"{native}/", v.mnt)
            check(out == "", f"rsync finds differences:\n{out}")


def make_odd(root):
    def place(*parts):
        return os.path.join(os.fsencode(root), *parts)

    os.mkdir(place(b"d"), 0o2775)
    put(place(b"d", b"a"), b"linked")
    os.link(place(b"d", b"a"), place(b"b"))
    os.symlink("x" * 4000, place(b"long"))
    os.symlink("d/a", place(b"link"))
    for name in (b"new\nline", b"\xff\xfe", b" -x*", b"n" * 255, "\u20ac\U0001f600".encode()):
        put(place(name), name)
    with open(place(b"sparse"), "wb") as f:
        f.truncate(1 << 26)
        f.seek(1 << 25)
        f.write(b"middle")
    os.mkfifo(place(b"fifo"), 0o640)
    if os.getuid() == 0:
        os.mknod(place(b"null"), 0o20666, os.makedev(1, 3))
        os.mknod(place(b"block"), 0o60660, os.makedev(250, 300))
        os.chown(place(b"b"), 12345, 54321)
        os.setxattr(place(b"b"), "trusted.t", b"\0\1\2")
        os.setxattr(place(b"b"), "security.s", b"")
    os.setxattr(place(b"d"), "user.u", bytes(range(256)) * 8)
    run("setfacl", "-m", "u:1000:rwx,d:g:100:r-x", os.path.join(root, "d"))
    os.chmod(place(b"d", b"a"), 0o4711)
    for number, name in enumerate(os.listdir(place())):
        os.utime(place(name), ns=(number, (number - 3) * 10**18 + 123456789 + number), follow_symlinks=False)
    os.truncate(place(b"sparse"), (1 << 26) - 1)
    put(place(b"empty"), b"")


main(linux_tree, odd_tree)
