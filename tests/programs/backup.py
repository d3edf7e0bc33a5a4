"""borg, restic and rsnapshot keep their repositories on the mount, and give back what they were given."""

import os
import random

from place import Place, check, compare, describe, main, need, noise, put, run, size, text


def source_of(p):
    """A tree on the native filesystem to be backed up to the mount."""
    source = p.native("source")
    os.mkdir(source)
    rng = random.Random(p.number)
    for number in range(size(150, 3000, 60)):
        put(os.path.join(source, f"f{number}"), text(rng, rng.randrange(30000)))
    put(os.path.join(source, "random"), noise(rng, size(8, 512, 2)))
    os.symlink("random", os.path.join(source, "link"))
    # rsync compares whole seconds: a link that is copied in the second in which it was made keeps its own time.
    os.utime(os.path.join(source, "link"), ns=(10**18 + 1, 10**18 + 1), follow_symlinks=False)
    return source


def change(source):
    with open(os.path.join(source, "f1"), "ab") as f:
        f.write(b"changed")
    os.unlink(os.path.join(source, "f2"))


def borg(p: Place):
    need("borg")
    source = source_of(p)
    env = p.environment(BORG_PASSPHRASE="p", BORG_BASE_DIR=p.native())
    repo = p.path("borg")

    def do(*argv, cwd=None):
        run("borg", *argv, env=env, cwd=cwd, timeout=3600)

    do("init", "-e", "repokey", repo)
    do("create", f"{repo}::one", source)
    change(source)
    do("create", f"{repo}::two", source)

    def again():
        do("check", "--verify-data", repo)
        do("prune", "--keep-last", "1", repo)
        do("compact", repo)
        do("check", repo)
        os.mkdir(p.path("out"))
        do("extract", f"{repo}::two", cwd=p.path("out"))
        compare(describe(source), describe(p.path("out") + source))

    return again


def restic(p: Place):
    need("restic")
    source = source_of(p)
    env = p.environment(RESTIC_PASSWORD="p", RESTIC_CACHE_DIR=p.native("cache"))
    repo = p.path("restic")

    def do(command, *argv):
        run("restic", command, "-q", "-r", repo, *argv, env=env, timeout=3600)

    do("init")
    do("backup", source)
    change(source)
    do("backup", source)

    def again():
        do("check", "--read-data")
        do("forget", "--keep-last", "1", "--prune")
        do("check", "--read-data")
        do("restore", "latest", "--target", p.path("out"))
        compare(describe(source), describe(p.path("out") + source))

    return again


def rsnapshot(p: Place):
    """Snapshots by hard links: what did not change is one inode in all of them."""
    need("rsnapshot", "rsync")
    source = source_of(p)
    root = p.path("snapshots")
    config = p.native("rsnapshot.conf")
    lines = (
        ("config_version", "1.2"),
        ("snapshot_root", f"{root}/"),
        ("cmd_cp", "/bin/cp"),
        ("cmd_rm", "/bin/rm"),
        ("cmd_rsync", "/usr/bin/rsync"),
        ("retain", "alpha", "3"),
        ("lockfile", p.native("rsnapshot.pid")),
        ("backup", f"{source}/", "here/"),
    )
    put(config, "".join("\t".join(line) + "\n" for line in lines).encode())

    def snapshot(number):
        return os.path.join(root, f"alpha.{number}", "here", source.lstrip("/"))

    def do():
        run("rsnapshot", "-c", config, "alpha", env=p.environment(), timeout=1200)
        compare(describe(source), without_links(describe(snapshot(0))))

    do()
    change(source)
    do()

    def again():
        do()
        for name in ("f3", "random"):
            inodes = {os.stat(os.path.join(snapshot(n), name)).st_ino for n in range(3)}
            check(len(inodes) == 1, f"{name} is several inodes: {inodes}")
        check(os.path.exists(os.path.join(snapshot(2), "f2")), "the oldest snapshot lacks a file")
        do()  # the oldest goes
        check(not os.path.exists(os.path.join(snapshot(2), "f2")), "the oldest snapshot has not gone")

    return again


def without_links(tree):
    """describe() as if nothing were hard-linked."""
    for item in tree.values():
        if len(item) > 6 and isinstance(item[6], int) and item[6] > 1:
            item[6] = 1
            item.pop()
    return tree


main(borg, restic, rsnapshot)
