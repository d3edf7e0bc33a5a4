#!/usr/bin/env python3
"""What a small file costs beyond compressing and sealing it: open, write, fsync, close, through a mount.

    bench/overhead.py --json overhead.json

The time of codecs and ciphers and of the device's flushes is what the daemon's own metrics say; where a file has enough
frames to be fanned out, the former are divided by the cores that may share them. What is left are the requests, the
copies, the index and the waiting: milliseconds, the median, the 95th percentile and the worst of all files. "in write":
of that, the time in write(2), in which the kernel fills its cache and asks the daemon for nothing.
"""

import os
import signal
import statistics
import sys
import tempfile
import time

import data
import report
import systems
from fusemount import run

SIZES = {"4K": 4 << 10, "64K": 64 << 10, "256K": 256 << 10, "1M": 1 << 20, "4M": 4 << 20, "9.9M": 9900000}
FRAME = 65536
FANNED = 10  # frames
WORK = ("apfs_compress_seconds_sum", "apfs_seal_seconds_sum")
FLUSH = ("apfs_sync_seconds_sum", "apfs_index_sync_seconds_sum")


def spent(mount):
    """(seconds of codecs and ciphers, seconds of flushes) since the mount."""
    text = run(os.path.join(systems.Apfs.bin, "apfs"), "stats", "--prometheus", mount)
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return sum(float(values[n]) for n in WORK), sum(float(values[n]) for n in FLUSH)


def write(path, content):
    """(seconds of all, of write(2))"""
    begin = time.monotonic()
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    view = memoryview(content)
    opened = time.monotonic()
    while view:
        view = view[os.write(fd, view) :]
    written = time.monotonic()
    os.fsync(fd)
    os.close(fd)
    return time.monotonic() - begin, written - opened


def measure(args, work):
    files = data.make(work, ["text", "random"], 16 * report.MIB)
    runs = {}
    with systems.Apfs(work) as system:
        for kind, path in files.items():
            with open(path, "rb") as f:
                content = f.read()
            for name, size in SIZES.items():
                for number in range(args.rounds + 1):  # the first warms up
                    at = number * 977 * 4096 % (len(content) - size)
                    before = spent(system.mnt)
                    total, cached = write(f"{system.mnt}/{kind}-{name}-{number}", content[at : at + size])
                    worked, flushed = (b - a for a, b in zip(before, spent(system.mnt)))
                    if size >= FANNED * FRAME:
                        worked /= os.cpu_count()
                    if number:
                        runs.setdefault(f"{name} {kind}", []).append((total, flushed, total - flushed - worked, cached))
    return runs


def table(runs):
    rows, chart = [], {}
    for cell, found in runs.items():
        left = sorted(1000 * f[2] for f in found)
        rows.append((cell, 1000 * statistics.median(f[0] for f in found), statistics.median(left),
                     1000 * statistics.median(f[3] for f in found), left[min(len(left) - 1, len(left) * 95 // 100)],
                     left[-1], 1000 * max(f[1] + f[2] for f in found)))
        chart[cell] = {"overhead": statistics.median(left)}
    head = ("file", "whole, ms", "overhead, ms", "in write", "95 %", "worst", "worst with flushes")
    return report.markdown(head, rows), {"overhead, ms": chart}


def main():
    parser = report.parser(__doc__)
    parser.add_argument("--rounds", type=int, help="files of each size and kind: 40, or 3 with --quick")
    parser.add_argument("--apfs-bin", help="the folder of apfs and apfs-mount (build/release/tools)")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 40)
    if args.apfs_bin:
        systems.Apfs.bin = os.path.realpath(args.apfs_bin)
    if systems.Apfs.missing():
        sys.exit(systems.Apfs.missing())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="apfs-bench-", dir=args.work) as work:
        results = {"machine": report.machine(), "arguments": vars(args), "values": measure(args, os.path.realpath(work))}
    text, charts = table(results["values"])
    print(text)
    report.save(args, results, charts)


if __name__ == "__main__":
    main()
