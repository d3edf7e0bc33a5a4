#!/usr/bin/env python3
"""What the policy loses against the best fixed chunk size and number of workers: its regret.

    bench/sweep.py --json sweep.json --plot sweep.png
    bench/sweep.py --nightly              2 GB files too
    bench/sweep.py --sizes 5M,50M --codecs zstd

A cell is a file size, a kind of data and a codec. In each, every setting and the policy write such files, through
fs/core to a store on disk, and make each durable; they take turns, in another order each round. Each setting has a
process of its own, whose memory is warm. The best setting is the one with the highest median among those that store no more
than the policy: a size of chunks may bring another level, whose speed has its price. Because the best of many medians
is a lucky one too, it then runs against the policy again, in pairs: "again" is the regret by these runs alone.
"""

import contextlib
import os
import random
import sys

import data
import driver
import report

SIZES = {"256K": (256 << 10, 8), "5M": (5 << 20, 3), "50M": (50 << 20, 1), "500M": (500 << 20, 1), "2G": (2 << 30, 1)}
CODECS = ("lz4", "zstd", "brotli")
CHUNKS = ("256K", "1M", "4M", "16M")
WORKERS = ("2", "4", "8")
POLICY = "policy"


class Settings:
    """A process and a store for each setting, and one for the policy."""

    def __init__(self, args, work, codec, stack):
        self.all = {}
        options = {f"{c}, {w}": (f"chunk={c}", f"workers={w}") for c in args.chunks for w in args.workers}
        for name, option in {**options, POLICY: ()}.items():
            store = os.path.join(work, f"{codec}-{len(self.all)}")
            os.mkdir(store)
            d = self.all[name] = stack.enter_context(driver.Driver(args.driver))
            d.ask("format", store)
            d.ask("open", store, f"codec={codec}", *option)

    def data(self, path):
        for d in self.all.values():
            d.ask("data", path)

    def write(self, name, size, count):
        """MB/s and stored percent."""
        found = self.all[name].ask("write", "f", size, count)
        self.all[name].ask("remove", "f", count)
        return size * count / 1e6 / found["seconds"], 100 * found["stored"] / found["plain"]


def cell(args, settings, order, size, count):
    """name -> its runs; the best name; (best, policy) of the pairs."""
    runs = {name: [] for name in settings.all}
    for name in settings.all:
        settings.write(name, size, 1)  # for warmth
    for _ in range(args.rounds):
        for name in order.sample(list(runs), len(runs)):
            runs[name].append(settings.write(name, size, count))
    fixed = [n for n in runs if n != POLICY]
    rivals = [n for n in fixed if not worse(stored(runs[n]), stored(runs[POLICY]))]
    best = max(rivals or fixed, key=lambda n: speed(runs[n]))
    pairs = {best: [], POLICY: []}
    for _ in range(args.rounds):
        for name in order.sample(list(pairs), 2):
            pairs[name].append(settings.write(name, size, count))
    return runs, best, pairs


def speed(runs):
    return report.middle([r[0] for r in runs])


def stored(runs):
    return report.middle([r[1] for r in runs])


def worse(one, other):
    """Whether a stored percentage is above another by more than what blocks and headers make."""
    return one > max(other * 1.01, other + 0.1)


def regret(runs, best):
    """Percent of the best's speed that the policy lacks; below 0: it is faster."""
    return 100 * (1 - speed(runs[POLICY]) / speed(runs[best]))


def tables(results):
    rows, charts = [], {}
    for v in results["values"]:
        runs, best, pairs = v["runs"], v["best"], v["pairs"]
        again = regret(pairs, best)
        rows.append((f"{v['codec']}, {v['size']} {v['data']}", best, speed(runs[best]), speed(runs[POLICY]),
                     regret(runs, best), again, stored(runs[best]), stored(runs[POLICY])))
        charts.setdefault(f"{v['codec']}: MB/s", {})[f"{v['size']} {v['data']}"] = {
            "best fixed": speed(runs[best]), POLICY: speed(runs[POLICY])}
    text = report.markdown(("cell", "best chunk, workers", "MB/s", "policy MB/s", "regret %", "again %",
                            "stored %", "policy stored %"), rows)
    for what, column in (("regret", 4), ("again", 5)):
        values = sorted(r[column] for r in rows)
        if values:
            text += (f"\n\n{what}: median {report.middle(values):.1f} %, worst {values[-1]:.1f} %, "
                     f"{sum(v > 15 for v in values)} of {len(values)} cells above 15 %")
    larger = [r[0] for r in rows if worse(r[7], r[6])]
    return text + f"\n\nstored over 1 % (and 0.1 points) more than the best fixed: {', '.join(larger) or 'none'}", charts


def measure(args, work, results):
    files = data.make(work, args.kinds, (16 if args.quick else 64) * report.MIB)
    order = random.Random(1)
    for codec in args.codecs:
        with contextlib.ExitStack() as stack:
            settings = Settings(args, work, codec, stack)
            for kind, path in files.items():
                settings.data(path)
                for name in args.sizes:
                    print(f"{codec}, {name} {kind}", file=sys.stderr, flush=True)
                    runs, best, pairs = cell(args, settings, order, *SIZES[name])
                    results["values"].append(
                        {"codec": codec, "size": name, "data": kind, "runs": runs, "best": best, "pairs": pairs})
    return tables(results)


def main():
    p = driver.parser(__doc__, 5)
    p.add_argument("--nightly", action="store_true", help="2 GB files too")
    p.add_argument("--sizes", help="of: " + ", ".join(SIZES))
    p.add_argument("--kinds", help="of: " + ", ".join(data.KINDS))
    p.add_argument("--codecs", help="comma-separated, with or without levels (" + ",".join(CODECS) + ")")
    p.add_argument("--chunks", help="comma-separated (" + ",".join(CHUNKS) + ")")
    p.add_argument("--workers", help="comma-separated (" + ",".join(WORKERS) + ")")
    args = p.parse_args()
    usual = ("256K", "5M") if args.quick else [s for s in SIZES if args.nightly or s != "2G"]
    args.sizes = report.choose(args.sizes, SIZES, "size") if args.sizes else usual
    args.kinds = report.choose(args.kinds, data.KINDS, "kind of data")
    args.codecs = args.codecs.split(",") if args.codecs else CODECS[: 1 if args.quick else None]
    args.chunks = args.chunks.split(",") if args.chunks else CHUNKS[: 2 if args.quick else None]
    args.workers = args.workers.split(",") if args.workers else WORKERS[: 2 if args.quick else None]
    driver.main(args, measure)


if __name__ == "__main__":
    main()
