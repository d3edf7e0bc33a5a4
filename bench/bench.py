#!/usr/bin/env python3
"""Runs the same work on apfs and on other filesystems, side by side, and prints absolute figures and ratios.

    bench/bench.py                        every row, every system that is installed, 3 rounds
    bench/bench.py --quick                small sizes, one round
    bench/bench.py --rows write-text,untar --systems native,apfs,gocryptfs --json out.json

Rounds are interleaved: each group of rows runs on one system after the other before the next group begins, and every
other round in reverse order, so that a machine that drifts drifts for all. "Cold" is after a remount and with dropped
caches, which needs root. Sequential writes end with fsync. Everything is taken away at the end.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import report
import systems
from data import LINUX, make_random, make_text
from report import MIB, choose
from fusemount import Failure, disk_usage, mounted, run

# 14,795 files, 200 MB
TREE = (
    "fs include kernel lib mm block crypto security net sound init ipc io_uring certs usr virt samples rust".split()
)

# row: (what, unit, whether more is better)
ROWS = {
    "write-text": ("sequential write, text", "MB/s", True),
    "read-text": ("sequential read, text, cold", "MB/s", True),
    "write-random": ("sequential write, random data", "MB/s", True),
    "read-random": ("sequential read, random data, cold", "MB/s", True),
    "rand-first": ("random read 4 KiB, the first 1,000, cold", "IOPS", True),
    "rand-read": ("random read 4 KiB, cold", "IOPS", True),
    "rand-write": ("random write 4 KiB, fsync at end", "IOPS", True),
    "rand-fdatasync": ("random write 4 KiB, fdatasync each", "IOPS", True),
    "mixed": ("mixed 16 KiB, 4 jobs", "IOPS", True),
    "untar": ("untar the tree", "s", False),
    "ls": ("ls -lR, cold", "s", False),
    "grep": ("grep -r, cold", "s", False),
    "rm": ("rm -rf", "s", False),
    "disk-tree": ("disk for the tree", "% of native", False),
    "disk-text": ("disk for text", "%", False),
    "memory": ("the daemon's memory, peak", "MB", False),
}
GROUPS = {
    "text": (
        "write-text", "disk-text", "read-text", "rand-first", "rand-read", "rand-write", "rand-fdatasync", "mixed", "memory"
    ),
    "random": ("write-random", "read-random", "memory"),
    "tree": ("untar", "disk-tree", "ls", "grep", "rm", "memory"),
}


class Data:
    """What is written: made once, kept in memory or on the native disk."""

    def __init__(self, work, args, groups):
        self.text_size = (64 if args.quick else 531) * 1000000
        self.random_size = (64 if args.quick else 512) * MIB
        self.files = 1500 if args.quick else None
        self.text = make_text(self.text_size) if "text" in groups else None
        self.random = make_random(self.random_size) if "random" in groups else None
        self.tar, self.tree_usage = make_tree(work, self.files) if "tree" in groups else (None, 0)


def make_tree(work, limit):
    """A tar of kernel source, and what it takes on the native filesystem."""
    if not os.path.exists(LINUX):
        raise Failure(f"{LINUX} is missing (package linux-source-6.1); leave out the rows of the tree")
    tree = os.path.join(work, "tree")
    os.mkdir(tree)
    names = [f"linux-source-6.1/{n}" for n in (TREE if limit is None else ("fs", "mm", "kernel"))]
    run("tar", "-xJf", LINUX, "-C", tree, "--strip-components=1", *names)
    kept = 0
    for folder, _, files in os.walk(tree):
        for name in sorted(files):
            kept += 1
            if limit is not None and kept > limit:
                os.unlink(os.path.join(folder, name))
    path = os.path.join(work, "tree.tar")
    run("tar", "-cf", path, "-C", tree, ".")
    usage = disk_usage(tree)
    shutil.rmtree(tree)
    return path, usage


def seconds(function, *args):
    start = time.monotonic()
    function(*args)
    return time.monotonic() - start


def write_file(path, data):
    view = memoryview(data)
    with open(path, "wb", buffering=0) as f:
        for at in range(0, len(data), MIB):
            piece = view[at : at + MIB]
            while piece:
                piece = piece[f.write(piece) :]
        os.fsync(f.fileno())


def write_warm(path, data):
    """The seconds of write_file. On a virtual machine the first look of the kernel at a process's page, and at memory that
    it gave back to the host when something else ended, costs a fault in the host, of 3 to 20 us: who comes first, or after
    the one that left most, would pay for all. So the kernel has looked at data, and at twice as much memory as that, before."""
    os.sync()
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            fd = os.memfd_create("warm")
            stack.callback(os.close, fd)
            write_file(f"/proc/self/fd/{fd}", data)
    return seconds(write_file, path, data)


def read_file(path, size):
    buffer = bytearray(MIB)
    total = 0
    with open(path, "rb", buffering=0) as f:
        while n := f.readinto(buffer):
            total += n
    if total != size:
        raise Failure(f"{path} has {total} bytes, not {size}")


class Measure:
    """One group of rows on one system."""

    def __init__(self, system, data, args, wanted):
        self.system, self.data, self.args, self.wanted = system, data, args, wanted
        self.found = {}

    def put(self, row, value):
        if row in self.wanted:
            self.found[row] = value

    def fio(self, row, path, *options):
        """IOPS. Written blocks compress about as text does."""
        out = run(
            "fio", f"--name={row}", f"--filename={path}", f"--size={os.path.getsize(path) // MIB}M", "--ioengine=psync",
            "--iodepth=1", "--invalidate=0", "--fallocate=none", "--randrepeat=1", "--norandommap", "--refill_buffers",
            "--buffer_compress_percentage=70", "--group_reporting", "--output-format=json", *options,
        )
        job = json.loads(out[out.index("{") :])["jobs"][0]
        # Over the time that the job took, an fsync at its end included.
        total = job["read"]["total_ios"] + job["write"]["total_ios"]
        spent = max(job["read"]["runtime"], job["write"]["runtime"]) / 1000
        self.put(row, total / spent)

    def text(self):
        s, path = self.system, os.path.join(self.system.mnt, "text")
        size = len(self.data.text)
        self.put("write-text", size / 1e6 / write_warm(path, self.data.text))
        if "disk-text" in self.wanted:
            s.umount()
            self.put("disk-text", 100 * s.usage() / size)
            s.mount()
        limit = f"--runtime={2 if self.args.quick else 10}"
        if "read-text" in self.wanted:
            s.cold()
            self.put("read-text", size / 1e6 / seconds(read_file, path, size))
        if "rand-first" in self.wanted:
            s.cold()
            # So few that hardly any unit of compression is met twice.
            self.fio("rand-first", path, "--rw=randread", "--bs=4k", "--io_size=4M")
        if "rand-read" in self.wanted:
            s.cold()
            # A part of the file, so that few blocks are met twice and found in the kernel's cache.
            self.fio("rand-read", path, "--rw=randread", "--bs=4k", f"--io_size={size // 8 // MIB}M", limit)
        if "rand-write" in self.wanted:
            s.cold()
            self.fio("rand-write", path, "--rw=randwrite", "--bs=4k", f"--io_size={16 if self.args.quick else 160}M", "--end_fsync=1")
        if "rand-fdatasync" in self.wanted:
            self.fio("rand-fdatasync", path, "--rw=randwrite", "--bs=4k", "--fdatasync=1", "--time_based", limit)
        if "mixed" in self.wanted:
            self.fio("mixed", path, "--rw=randrw", "--bs=16k", "--numjobs=4", "--time_based", limit, "--end_fsync=1")

    def random(self):
        s, path = self.system, os.path.join(self.system.mnt, "random")
        size = len(self.data.random)
        self.put("write-random", size / 1e6 / write_warm(path, self.data.random))
        if "read-random" in self.wanted:
            s.cold()
            self.put("read-random", size / 1e6 / seconds(read_file, path, size))

    def tree(self):
        s, path = self.system, os.path.join(self.system.mnt, "tree")
        os.mkdir(path)
        self.put("untar", seconds(run, "tar", "-xf", self.data.tar, "-C", path))
        if "disk-tree" in self.wanted:
            s.umount()
            self.put("disk-tree", 100 * s.usage() / self.data.tree_usage)
            s.mount()
        if "ls" in self.wanted:
            s.cold()
            self.put("ls", seconds(run, "sh", "-c", 'ls -lR "$1" >/dev/null', "sh", path))
        if "grep" in self.wanted:
            s.cold()
            self.put("grep", seconds(run, "sh", "-c", 'grep -r "no line holds this" "$1"; test $? = 1', "sh", path))
        self.put("rm", seconds(run, "rm", "-rf", path))

    def run(self, group):
        getattr(self, group)()
        if self.system.peak:
            self.put("memory", self.system.peak / 1e6)
        return self.found


def measure_all(args, chosen, rows, work, results):
    groups = [g for g, members in GROUPS.items() if set(members) & set(rows) - {"memory"}]
    data = Data(work, args, groups)
    for round_number in range(args.rounds):
        for group in groups:
            for cls in chosen if round_number % 2 == 0 else reversed(chosen):
                print(f"round {round_number + 1}, {group}: {cls.name}", file=sys.stderr, flush=True)
                try:
                    with cls(work) as system:
                        found = Measure(system, data, args, set(GROUPS[group]) & set(rows)).run(group)
                except (Failure, OSError, subprocess.SubprocessError) as e:
                    print(f"  failed: {e}", file=sys.stderr, flush=True)
                    results["failures"].append(f"round {round_number + 1}, {group}: {cls.name}: {e}")
                    continue
                for row, value in found.items():
                    results["values"].setdefault(row, {}).setdefault(cls.name, []).append(value)


def middle(row, values):
    return max(values) if row == "memory" else report.middle(values)


def middles(results):
    """row -> system -> figure"""
    return {row: {n: middle(row, v) for n, v in results["values"][row].items()} for row in ROWS if row in results["values"]}


def table(results, chosen):
    names = [c.name for c in chosen]
    others = [n for n in names if n != "apfs"]
    rows = []
    for row, found in middles(results).items():
        what, unit, better = ROWS[row]
        ratios = [f"{found['apfs'] / found[n]:.2f}" if "apfs" in found and found.get(n) else "" for n in others]
        rows.append((f"{what} ({'more' if better else 'less'} is better)", unit, *(found.get(n, "") for n in names), *ratios))
    return report.markdown(("work", "unit", *names, *(f"apfs / {n}" for n in others)), rows)


def charts(results, chosen):
    return {f"{ROWS[row][0]}, {ROWS[row][1]}": {c.name: {c.name: found[c.name]} for c in chosen if c.name in found}
            for row, found in middles(results).items()}


def arguments():
    parser = report.parser(__doc__)
    parser.add_argument("--rows", help="of: " + ", ".join(ROWS))
    parser.add_argument("--systems", help="of: " + ", ".join(c.name for c in systems.ALL))
    parser.add_argument("--rounds", type=int, help="3, or 1 with --quick")
    parser.add_argument("--apfs-bin", help="the folder of apfs and apfs-mount (build/release/tools)")
    parser.add_argument("--apfs-options", default="", help="further options of apfs-mount, separated by spaces")
    parser.add_argument("--passthrough", help="the binary passthrough_hp (from PATH)")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    return args


def main():
    args = arguments()
    rows = choose(args.rows, ROWS, "row")
    names = choose(args.systems, [c.name for c in systems.ALL], "system")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if args.apfs_bin:
        systems.Apfs.bin = os.path.realpath(args.apfs_bin)
    systems.Apfs.options = tuple(args.apfs_options.split())
    if args.passthrough:
        systems.Passthrough.binary = os.path.realpath(args.passthrough)
    work = os.path.realpath(tempfile.mkdtemp(prefix="apfs-bench-", dir=args.work))
    results = {"machine": report.machine(), "arguments": vars(args), "values": {}, "failures": []}
    try:
        chosen = []
        for cls in (c for c in systems.ALL if c.name in names):
            why = cls.missing()
            if why:
                print(f"without {cls.name}: {why}", file=sys.stderr)
            else:
                chosen.append(cls)
        with contextlib.suppress(KeyboardInterrupt):
            measure_all(args, chosen, rows, work, results)
    finally:
        if not any(mounted(os.path.join(work, d, "mnt")) for d in os.listdir(work)):
            shutil.rmtree(work, ignore_errors=True)
    print(table(results, chosen))
    for failure in results["failures"]:
        print(f"failed: {failure}")
    report.save(args, results, charts(results, chosen))
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
