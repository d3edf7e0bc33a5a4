#!/usr/bin/env python3
"""Reading segments by pread against reading them through mappings, at several file sizes.

    bench/reads.py --json reads.json --plot reads.png

Through fs/core, in a process that has read nothing yet. "cold": the kernel's cache is dropped before (as root). MB/s from
end to end; random: 4 KiB reads a second. The two take turns, in another order each round.
"""

import os
import sys

import data
import driver
import fusemount
import report

SIZES = {"1M": 1 << 20, "10M": 10 << 20, "50M": 50 << 20, "100M": 100 << 20, "1G": 1 << 30}
METHODS = {"pread": (), "mmap": ("mmap=1G",)}
WAYS = {"sequential": "MB/s", "random": "IOPS"}
RANDOM = 5000  # reads


def read(args, store, name, way, options):
    with driver.Driver(args.driver) as d:
        d.ask("open", store, *options)
        found = d.ask("read", f"{name}.0", way, RANDOM)
        d.ask("close")
    return (RANDOM if way == "random" else found["bytes"] / 1e6) / found["seconds"]


def measure(args, work, results):
    store = os.path.join(work, "store")
    os.mkdir(store)
    path = data.make(work, ["source"], (16 if args.quick else 64) * report.MIB)["source"]
    with driver.Driver(args.driver) as d:
        d.ask("format", store)
        d.ask("open", store)
        d.ask("data", path)
        for name in args.sizes:
            d.ask("write", name, SIZES[name], 1)
        d.ask("close")
    runs = {}
    for number in range(args.rounds):
        print(f"round {number + 1}", file=sys.stderr, flush=True)
        for name in args.sizes:
            for way in WAYS:
                for cache in args.caches:
                    for method in METHODS if number % 2 else reversed(METHODS):
                        if cache == "cold" and not fusemount.drop_caches():
                            raise fusemount.Failure("caches cannot be dropped: run as root, or with --caches warm")
                        found = read(args, store, name, way, METHODS[method])
                        runs.setdefault((name, way, cache), {}).setdefault(method, []).append(found)
    results["values"] = [{"size": n, "way": w, "cache": c, **found} for (n, w, c), found in runs.items()]
    rows, charts = [], {}
    for (name, way, cache), found in runs.items():
        pread, mapped = report.middle(found["pread"]), report.middle(found["mmap"])
        rows.append((f"{name}, {way}, {cache}", WAYS[way], pread, mapped, mapped / pread))
        charts.setdefault(f"{way}, {cache}, {WAYS[way]}", {})[name] = {"pread": pread, "mmap": mapped}
    return report.markdown(("file", "unit", "pread", "mmap", "mmap / pread"), rows), charts


def main():
    p = driver.parser(__doc__, 7)
    p.add_argument("--sizes", help="of: " + ", ".join(SIZES))
    p.add_argument("--caches", help="of: cold, warm")
    args = p.parse_args()
    args.sizes = report.choose(args.sizes or ("1M,10M" if args.quick else ""), SIZES, "size")
    args.caches = report.choose(args.caches, ("cold", "warm"), "state of the caches")
    driver.main(args, measure)


if __name__ == "__main__":
    main()
