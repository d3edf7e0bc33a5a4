"""The same random system calls on a mount and on ext4, by root and by others: each must give the same, and leave the same.

A difference is shown with the steps that it takes. APFS_SEED repeats a run.
"""

import os
import pickle
import random
import shutil
import signal
import stat
import sys
import tempfile
import time

from apfsmount import NIGHTLY, Failure, Volume, drop_caches, main, need, run, say, seed, tool
from calls import in_child
from runner import Runner
from sequences import OLD, Maker

SECONDS = int(os.environ.get("APFS_SECONDS") or (1800 if NIGHTLY else 10))
BATCH = 12
TICK = 20_000_000  # ns: two looks at one change, by the kernel's coarse clock and by a fine one, are that close


class Ext4:
    """The referee, mounted with the options that the mount has."""

    def __init__(self, folder, options):
        self.path = os.path.join(folder, "ext4")
        image = os.path.join(folder, "image")
        os.mkdir(self.path)
        with open(image, "wb") as f:
            f.truncate(1 << 30)
        run("mkfs.ext4", "-q", image)
        run("mount", "-o", f"loop,{options}", image, self.path)

    def release(self):
        run("umount", self.path, status=None)


def in_place(folder, part, every):
    """Starts the steps in a process whose / is the folder: the process, and the file that gets what it tells."""
    told = tempfile.TemporaryFile()
    pid = os.fork()
    if pid:
        return pid, told
    status = 1
    try:
        runner = None
        os.chroot(folder)
        runner = Runner()
        pickle.dump(runner.run(part, every), told)
        told.flush()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def both(folders, part, every):
    jobs = [in_place(folder, part, every) for folder in folders]
    found = []
    for pid, told in jobs:
        status = os.waitpid(pid, 0)[1]
        if status:
            raise Failure(f"a process that ran the steps ended with {status}")
        told.seek(0)
        found.append(pickle.load(told))
        told.close()
    return found


def difference(one, other):
    """Where two runs differ first: (the step's number, text), or None."""
    for n, ((gave, shows), (gave2, shows2)) in enumerate(zip(one, other)):
        if gave != gave2:
            return n, f"ext4 gives {gave!r}, the mount {gave2!r}"
        if shows != shows2:
            return n, "they leave\n" + "\n".join(differing("ext4", shows, "the mount", shows2))
    return None


def alike(one, other):
    if one == other or not one or not other or len(one) != len(other):
        return one == other
    return all(a == b or isinstance(a, int) and isinstance(b, int) and a > OLD and abs(a - b) < TICK for a, b in zip(one, other))


def differing(one_name, one, other_name, other):
    return [
        f"  {path!r} by {name}: {tree.get(path)}"
        for path in sorted(one.keys() | other.keys())
        if not alike(one.get(path), other.get(path))
        for name, tree in ((one_name, one), (other_name, other))
    ]


class Places:
    """Two empty directories for each sequence, one of the mount and one of ext4."""

    def __init__(self, ext4, mnt):
        self.roots = (ext4, mnt)
        self.count = 0

    def new(self):
        self.count += 1
        folders = [os.path.join(root, f"s{self.count}") for root in self.roots]
        for folder in folders:
            os.mkdir(folder)
            os.chmod(folder, 0o1777)
        return folders

    @staticmethod
    def remove(folders):
        for folder in folders:
            shutil.rmtree(folder)


def shortest(places, parts, between, text):
    """The steps without those that the difference does not need; what is told of them."""
    steps = [(n, step) for n, part in enumerate(parts) for step in part]
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            found = compare(places, [[s for n, s in fewer if n == part] for part in range(len(parts))], 1, between)
            if found:
                steps, text = fewer, found
            else:
                at += size
        size //= 2
    return "\n".join(f"  {'(after the remount) ' if n else ''}{step}" for n, step in steps), text


def compare(places, parts, every, between):
    folders = places.new()
    try:
        for n, part in enumerate(parts):
            if n and parts[n - 1]:
                between()
            if part and (found := difference(*both(folders, part, every))):
                return found[1]
        return None
    finally:
        places.remove(folders)


def batch(v, places, first, pauses, between):
    """Some sequences, all of which see a remount when they are half-way: the first difference."""
    made = []
    for number in range(first, first + BATCH):
        rng = random.Random(number)
        steps = Maker(rng, rng.choice((15, 40, 80)) // (3 if pauses else 1), pauses).steps
        half = len(steps) // 2
        made.append((number, places.new(), [steps[:half], steps[half:]], rng.choice((1, 1, 3, 10))))
    for half in range(2):
        for number, folders, parts, every in made:
            found = difference(*both(folders, parts[half], every))
            if found:
                say(f"sequence {number} differs at step {found[0]} of part {half}: {found[1]}")
                if half == 0:
                    parts = [parts[0][: found[0] + 1]]
                else:
                    parts = [parts[0], parts[1][: found[0] + 1]]
                steps, text = shortest(places, parts, between, found[1])
                return f"sequence {number}:\n{steps}\n{text}"
        if not half:
            between()
    for _, folders, _, _ in made:
        places.remove(folders)
    return None


def differential():
    need("mkfs.ext4", "losetup", root=True)
    number, end, done = seed(), time.monotonic() + SECONDS, 0
    with Volume("-o", "allow_other,noatime,dev,suid") as v:
        for folder in (v.root, v.mnt):
            os.chmod(folder, 0o755)
        ext4 = Ext4(v.root, "noatime")
        try:
            places = Places(ext4.path, v.mnt)
            while time.monotonic() < end:
                found = batch(v, places, number, done % 4 == 3, v.remount)
                if found:
                    raise Failure(found)
                number, done = number + BATCH, done + 1
        finally:
            ext4.release()
    say(f"{done * BATCH} sequences")


# --- many at once -----------------------------------------------------------------------------------------------------


def crowd(folder, numbers, steps):
    """As many processes as numbers, each with its own steps, in one directory."""
    pids = []
    for number in numbers:
        pids.append(os.fork())
        if pids[-1]:
            continue
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.chroot(folder)
            runner = Runner()
            for step in Maker(random.Random(number), steps, False).steps:
                runner.call(step)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    for pid in pids:
        if os.waitpid(pid, 0)[1]:
            raise Failure("a process of the crowd failed")


def seen(folder):
    """Everything, by way of the kernel's caches."""
    return in_child(lambda: os.chroot(folder) or Runner().look(True, True))


def links(tree):
    """Names of each inode, and directories in each directory, are as many as its count of links says."""
    names, inside, count = {}, {}, {}
    for path, item in tree.items():
        mode, _, _, nlink, number = item[:5]
        count[number] = (path, nlink)
        if stat.S_ISDIR(int(mode, 8)):
            names[number] = 2
            inside[os.path.dirname(path)] = inside.get(os.path.dirname(path), 0) + (path != b"/")
        else:
            names[number] = names.get(number, 0) + 1
    for path, n in inside.items():
        names[tree[path][4]] += n
    for number, (path, nlink) in count.items():
        if names[number] != nlink:
            raise Failure(f"{path!r} has {nlink} links, {names[number]} were found")


def together():
    """What many processes leave that change the same names at once: the kernel's cache, the daemon and STORE agree."""
    need(root=True)
    number, end, done = seed(), time.monotonic() + SECONDS, 0
    with Volume("-o", "allow_other,noatime,dev,suid") as v:
        for folder in (v.root, v.mnt):
            os.chmod(folder, 0o755)
        while time.monotonic() < end:
            folder = v.path(f"s{number}")
            os.mkdir(folder)
            os.chmod(folder, 0o1777)
            crowd(folder, range(number, number + 6), 150)
            first = seen(folder)
            links(first)
            drop_caches()
            compare_trees("the kernel's cache", first, "the daemon", seen(folder))
            if done % 4 == 0:
                v.remount()
                compare_trees("before the remount", first, "after it", seen(folder))
            number, done = number + 6, done + 1
        v.umount()
        run(tool("apfs"), "check", "--data", "--passfile", v.passfile, v.store)
    say(f"{done} times 6 processes")


def compare_trees(one_name, one, other_name, other):
    lines = differing(one_name, one, other_name, other)
    if lines:
        raise Failure("\n".join(lines))


if __name__ == "__main__":
    main(differential, together)
