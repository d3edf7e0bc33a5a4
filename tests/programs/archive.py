"""tar, cp and dpkg-deb: what goes in comes out, holes, attributes, times and links included."""

import os
import time

from place import MIB, Place, check, compare, describe, file_hash, linux_files, main, need, put, run, size


def sparse_file(path, pieces, step):
    with open(path, "wb") as f:
        for number in range(pieces):
            f.seek(number * step)
            f.write(os.urandom(5000))
        f.truncate(pieces * step)


def stored(path):
    return os.stat(path).st_blocks * 512


def special_tree(root):
    os.mkdir(root)
    sparse_file(os.path.join(root, "sparse"), 8, 3 * MIB)
    sparse_file(os.path.join(root, "hole"), 0, 0)
    os.truncate(os.path.join(root, "hole"), 24 * MIB)
    put(os.path.join(root, "plain"), os.urandom(100000))
    os.link(os.path.join(root, "plain"), os.path.join(root, "again"))
    os.symlink("plain", os.path.join(root, "link"))
    os.mkfifo(os.path.join(root, "fifo"))
    os.mkdir(os.path.join(root, "d"))
    for number in range(20):
        put(os.path.join(root, "d", f"{number}" * 20), b"x" * number)
    os.setxattr(os.path.join(root, "plain"), "user.name", b"value")
    run("setfacl", "-m", "u:12345:rwx", os.path.join(root, "d"))
    for name in ("plain", "sparse", "d"):
        os.utime(os.path.join(root, name), ns=(123456789123456789, 987654321987654321))


def tar(p: Place):
    need("tar", "setfacl")
    source, out = p.path("source"), p.path("out")
    special_tree(source)
    options = ("--sparse", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")
    run("tar", "-cf", p.path("a.tar"), *options, "-C", source, ".")  # right after the write
    check(os.path.getsize(p.path("a.tar")) < 2 * MIB, "tar does not see the holes")
    os.mkdir(out)
    run("tar", "-xpf", p.path("a.tar"), *options, "-C", out)
    compare(describe(source), describe(out))
    check(stored(os.path.join(out, "sparse")) < 5 * MIB, "the holes were filled")
    check(stored(os.path.join(out, "hole")) == 0, "what is all hole takes space")

    def again():
        compare(describe(source), describe(out))
        run("tar", "--compare", "-f", p.path("a.tar"), *options, "-C", out)

    return again


def cp(p: Place):
    need("cp", "setfacl")
    source = p.path("source")
    special_tree(source)
    for number, options in enumerate((("-a",), ("-a", "--reflink=auto"), ("-a", "--sparse=always"))):
        run("cp", *options, source, p.path(f"copy{number}"))
        compare(describe(source), describe(p.path(f"copy{number}")))
        check(stored(p.path(f"copy{number}", "sparse")) < 5 * MIB, f"cp {options}: the holes were filled")

    def again():
        for number in range(3):
            compare(describe(source), describe(p.path(f"copy{number}")))

    return again


def clone(p: Place):
    """cp within the mount: at once and without space, and each goes its own way from there."""
    large, copy = p.path("large"), p.path("copy")
    with open(large, "wb") as f:
        for _ in range(size(64, 1024, 16)):
            f.write(os.urandom(MIB))
    p.v.sync()
    before, begin = p.v.usage(), time.monotonic()
    run("cp", "--reflink=auto", large, copy)
    seconds = time.monotonic() - begin
    p.v.sync()
    check(p.v.usage() - before < 2 * MIB, f"a copy takes {p.v.usage() - before} bytes of STORE")
    check(seconds < 5, f"a copy takes {seconds} s")
    expected = file_hash(large)
    check(file_hash(copy) == expected, "the copy differs")
    with open(copy, "r+b") as f:
        f.write(b"changed")

    def again():
        check(file_hash(large) == expected, "the original has changed with the copy")
        os.unlink(large)
        with open(copy, "r+b") as f:
            check(f.read(7) == b"changed", "the copy's change is lost")
        p.v.sync()

    return again


def deb(p: Place):
    need("dpkg-deb")
    root = p.path("package")
    with linux_files(size(500, 5000, 200)) as tree:
        os.makedirs(os.path.join(root, "usr/src"))
        run("cp", "-a", tree, os.path.join(root, "usr/src/linux"))
    os.mkdir(os.path.join(root, "DEBIAN"), 0o755)
    put(
        os.path.join(root, "DEBIAN/control"),
        b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n",
    )
    now = 1600000000
    for folder, dirs, names in os.walk(root):
        for name in [*dirs, *names]:
            os.utime(os.path.join(folder, name), (now, now), follow_symlinks=False)
    os.chmod(root, 0o755)
    run("dpkg-deb", "-Zgzip", "--build", root, p.path("x.deb"))
    run("dpkg-deb", "-x", p.path("x.deb"), p.path("out"))
    run("rm", "-r", os.path.join(root, "DEBIAN"))
    expected = describe(os.path.join(root, "usr/src"))
    compare(expected, describe(p.path("out/usr/src")))
    return lambda: compare(expected, describe(p.path("out/usr/src")))


main(tar, cp, clone, deb)
