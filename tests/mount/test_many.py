"""A directory of very many entries: made, listed, found and emptied in time that grows as their number does."""

import os
import time

from apfsmount import NIGHTLY, SANITIZED, Volume, check, main, need, run, say

ENTRIES = 1000000 if NIGHTLY else 4000 if SANITIZED else 16000
SHARE = 16  # a smaller one, to compare with: n * n would be 256 times as long


def cpu(pid):
    """Seconds of processor time that a process has had: what others do at the time does not count."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make(folder, count):
    os.mkdir(folder)
    for number in range(count):
        os.close(os.open(os.path.join(folder, f"entry {number}"), os.O_CREAT | os.O_WRONLY, 0o644))


def list_all(folder, count):
    names = os.listdir(folder)
    check(names == [f"entry {n}" for n in range(count)], "not each entry once, in the order of creation")


def find(folder, count):
    out = run("find", folder, "-type", "f", "-size", "0", "-newermt", "2000-01-01", timeout=3600)
    check(out.count("\n") == count, f"find finds {out.count(chr(10))} of {count}")


def look_up(folder, count):
    for number in range(0, count, 3):
        os.stat(os.path.join(folder, f"entry {number * 7919 % count}"))
    check(not os.path.exists(os.path.join(folder, "none")), "a name that is not there is")


def empty(folder, _count):
    run("rm", "-r", folder, timeout=3600)


def many():
    need()
    spent = {}
    with Volume() as v:
        for count in (ENTRIES // SHARE, ENTRIES):
            folder = v.path("many")
            for step in (make, list_all, find, look_up, empty):
                before, begin = cpu(v.daemon.pid), time.monotonic()
                step(folder, count)
                if step is make:
                    v.sync()
                spent[step, count] = cpu(v.daemon.pid) - before
                say(f"{step.__name__} of {count}: {time.monotonic() - begin:.2f} s, the daemon {spent[step, count]:.2f} s")
                if step in (make, find):
                    v.remount()  # nothing is known any more
    for step in (make, list_all, find, look_up, empty):
        small, large = (spent[step, count] for count in (ENTRIES // SHARE, ENTRIES))
        # Trees grow deeper, caches too small, and a busy machine makes each wake-up dearer: up to 4 times as long for
        # each is still far from n * n.
        check(large < 0.5 + 4 * SHARE * small, f"{step.__name__}: {large} s for {SHARE} times what took {small} s")


main(many)
