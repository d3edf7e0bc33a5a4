"""rsync with everything that it can carry, to a mount and within one."""

import os
import random

from place import MIB, Place, check, compare, describe, file_hash, linux_files, main, need, noise, put, run, size


def dress(tree):
    """What -H, -A, -X and -S are for."""
    put(os.path.join(tree, "sparse"), b"")
    with open(os.path.join(tree, "sparse"), "r+b") as f:
        for number in range(8):
            f.seek(number * 4 * MIB)
            f.write(os.urandom(70000))
        f.truncate(40 * MIB)
    put(os.path.join(tree, "one"), b"linked")
    os.link(os.path.join(tree, "one"), os.path.join(tree, "two"))
    os.setxattr(os.path.join(tree, "one"), "user.name", b"value")
    run("setfacl", "-m", "u:12345:rw,g:54321:r", os.path.join(tree, "sparse"))
    os.mkdir(os.path.join(tree, "inherit"))
    run("setfacl", "-d", "-m", "u:12345:rwx", os.path.join(tree, "inherit"))
    os.mkfifo(os.path.join(tree, "fifo"))
    # rsync compares whole seconds: what is no file and is copied in the second in which it was made keeps its own time.
    for folder, _, _ in os.walk(tree):
        os.utime(folder, ns=(10**18 + 1, 10**18 + 1))
    os.utime(os.path.join(tree, "fifo"), ns=(10**18 + 1, 10**18 + 1))


def rsync(p: Place):
    """The second run finds nothing to do; nor does the third, after a remount."""
    need("rsync", "setfacl")
    with linux_files(size(500, 3000, 200)) as tree:
        run("cp", "-a", tree, p.native("tree"))
    native = p.native("tree")
    dress(native)
    copy = p.path("copy")

    def nothing_to_do(*options):
        out = run("rsync", "-aHAXS", "--itemize-changes", *options, f"{native}/", copy)
        check(out == "", f"rsync finds work:\n{out[:2000]}")

    run("rsync", "-aHAXS", f"{native}/", copy)
    nothing_to_do()
    stored = os.stat(os.path.join(copy, "sparse")).st_blocks * 512
    check(0 < stored < 20 * MIB, f"a sparse file takes {stored} bytes")

    def again():
        nothing_to_do()
        nothing_to_do("--checksum")
        run("rsync", "-aHAX", "--delete", "--inplace", "--no-whole-file", "-I", f"{native}/", copy)
        compare(describe(native), describe(copy))

    return again


def chain(p: Place):
    """Generations with --link-dest: an unchanged file is one inode in all, and deleting one leaves the others."""
    need("rsync")
    source = p.path("source")
    os.mkdir(source)
    rng = random.Random(p.number)
    for number in range(size(100, 1000, 50)):
        put(os.path.join(source, f"f{number}"), rng.randbytes(rng.randrange(20000)))
    generations = []
    hashes = []
    for number in range(size(5, 20, 3)):
        put(os.path.join(source, f"f{number}"), b"changed in %d" % number)
        link = [f"--link-dest={generations[-1]}"] if generations else []
        generations.append(p.path(f"g{number}"))
        run("rsync", "-a", "--delete", *link, f"{source}/", generations[-1])
        hashes.append({name: file_hash(os.path.join(source, name)) for name in os.listdir(source)})

    def again():
        check(len({os.stat(os.path.join(g, "f49")).st_ino for g in generations}) == 1, "an unchanged file was copied")
        check(os.stat(os.path.join(generations[0], "f49")).st_nlink == len(generations), "another number of links")
        run("rm", "-r", generations[0])
        for folder, expected in list(zip(generations, hashes))[1:]:
            found = {name: file_hash(os.path.join(folder, name)) for name in os.listdir(folder)}
            check(found == expected, f"{folder} differs")

    return again


def inplace(p: Place):
    """A large file is brought up to date in its place, by its changed blocks."""
    need("rsync")
    there, here = p.native("image"), p.path("image")
    rng = random.Random(p.number)
    put(there, noise(rng, size(12, 512, 4)))
    for _ in range(3):
        run("rsync", "-aI", "--inplace", "--no-whole-file", there, here)
        check(file_hash(there) == file_hash(here), "the copy differs")
        with open(there, "r+b") as f:
            for _ in range(20):
                f.seek(rng.randrange(os.path.getsize(there)))
                f.write(rng.randbytes(5000))
    run("rsync", "-aI", "--inplace", "--no-whole-file", there, here)
    return lambda: check(file_hash(there) == file_hash(here), "the copy differs after a remount")


main(rsync, chain, inplace)
