#!/usr/bin/env python3
"""What an option costs: the same writing with and without it, in pairs, and how sure one can be.

    bench/pairs.py --without nostore,nogovernance --with nostore --rounds 280
    bench/pairs.py --metrics --with nostore,nofeedback --rounds 280
    bench/pairs.py --without codec=zstd --with codec=zstd,mmap=1G --sizes 500M

Both options are lists as apfs-bench-driver's `open` takes them; with nostore the processors are all that limits. Each
round writes and makes durable the files of each kind of data once with either, in changing order. Two processes of the
same program may differ by more than an option costs, so new ones are begun every few rounds. "gain %": how much more
MB/s there are with the option, the mean over those batches, and the interval that holds the true one with 95 %
likelihood. With --metrics there is one process and volume, opened with the options of --with, whose metrics are paused
for one side: so no difference of processes hides so small a cost.
"""

import contextlib
import math
import os
import random
import shutil
import statistics
import sys

import data
import driver
import report
from sweep import SIZES

FRESH = 4  # rounds that two processes do

# Student's t, two-sided 95 %, by degrees of freedom; beyond: as normal.
T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)


def interval(batches):
    """Mean gain in percent, and both ends of its interval: by the logarithms of the ratios of (without, with) speeds,
    their mean in each batch being one value."""
    logs = [statistics.fmean(math.log(b / a) for a, b in pairs) for pairs in batches]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return (100 * math.expm1(mean),) * 3
    t = T95[len(logs) - 2] if len(logs) - 2 < len(T95) else 1.96
    half = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return tuple(100 * math.expm1(x) for x in (mean, mean - half, mean + half))


def batch(args, work, files, order, rounds):
    """(size, kind) -> (without, with) speeds of each round, by two new processes, either of which may be the older."""
    runs, options = {}, (args.without, vars(args)["with"])
    stores = [os.path.join(work, f"store{i}") for i in order.sample((0, 1), 2)]
    with contextlib.ExitStack() as stack:
        drivers = [stack.enter_context(driver.Driver(args.driver)) for _ in range(1 if args.metrics else 2)]
        sides = drivers * 2 if args.metrics else order.sample(drivers, 2)
        own = order.sample((0, 1)[-len(drivers) :], len(drivers))  # a side of each process
        for i in own:
            os.mkdir(stores[i])
            sides[i].ask("format", stores[i])
            sides[i].ask("open", stores[i], *(o for o in options[i].split(",") if o))
        for kind, path in files.items():
            for i in own:
                sides[i].ask("data", path)
            for number in range(rounds + 1):  # the first warms up
                for name in args.sizes:
                    size, count = SIZES[name]
                    found = {}
                    for i in order.sample((0, 1), 2):
                        if args.metrics:
                            sides[i].ask("metrics", ("off", "on")[i])
                        found[i] = size * count / 1e6 / sides[i].ask("write", "f", size, count)["seconds"]
                        sides[i].ask("remove", "f", count)
                    if number:
                        runs.setdefault((name, kind), []).append((found[0], found[1]))
    for i in own:
        shutil.rmtree(stores[i])
    return runs


def measure(args, work, results):
    order, runs = random.Random(1), {}
    files = data.make(work, args.kinds, (16 if args.quick else 64) * report.MIB)
    for done in range(0, args.rounds, FRESH):
        print(f"round {done + 1}", file=sys.stderr, flush=True)
        for cell, pairs in batch(args, work, files, order, min(FRESH, args.rounds - done)).items():
            runs.setdefault(cell, []).append(pairs)
    results["values"] = [{"size": n, "data": k, "batches": b} for (n, k), b in runs.items()]
    runs["all", "cells"] = [sum(cells, []) for cells in zip(*runs.values())]
    rows, chart = [], {}
    for (name, kind), batches in runs.items():
        gain = interval(batches)
        pairs = sum(batches, [])
        rows.append((f"{name} {kind}", *(report.middle([p[i] for p in pairs]) for i in (0, 1)), *gain))
        chart[f"{name} {kind}"] = {"gain": gain[0]}
    return report.markdown(("cell", "without, MB/s", "with, MB/s", "gain %", "from", "to"), rows), {"gain, %": chart}


def main():
    p = driver.parser(__doc__, 12)
    p.add_argument("--with", default="", help="options of one side: OPTION,...")
    p.add_argument("--without", default="", help="options of the other")
    p.add_argument("--metrics", action="store_true", help="metrics on against metrics paused, in one process")
    p.add_argument("--sizes", help="of: " + ", ".join(SIZES))
    p.add_argument("--kinds", help="of: " + ", ".join(data.KINDS))
    args = p.parse_args()
    args.sizes = report.choose(args.sizes or ("5M" if args.quick else "5M,50M"), SIZES, "size")
    args.kinds = report.choose(args.kinds or "source,random", data.KINDS, "kind of data")
    driver.main(args, measure)


if __name__ == "__main__":
    main()
