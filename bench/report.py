"""What the benchmarks have in common: the machine, tables, plots, JSON, their options."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../tests/mount"))  # fusemount.py

MIB = 1 << 20


def machine():
    model = ""
    with contextlib.suppress(OSError):
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), "")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB,
        "load": os.getloadavg(),
    }


def choose(text, known, what):
    names = [n.strip() for n in text.split(",") if n.strip()] if text else list(known)
    for name in names:
        if name not in known:
            raise SystemExit(f"there is no {what} '{name}'; there are {', '.join(known)}")
    return [n for n in known if n in names]


def parser(description):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="small sizes, one round: does it work?")
    p.add_argument("--json", help="write every value of every round to this file")
    p.add_argument("--plot", help="draw what the table says into this file (.png, .svg)")
    p.add_argument("--work", help="where stores and data are made (a directory below TMPDIR)")
    return p


def middle(values):
    return statistics.median(values)


def markdown(head, rows):
    """The first column is text, the others are figures."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        cells = (f"{c:,.{0 if abs(c) >= 100 else 1 if abs(c) >= 10 else 2}f}" if isinstance(c, float) else str(c) for c in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(args, results, charts):
    """charts: title -> {group: {series: value}}, each drawn as bars."""
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)
    if not args.plot:
        return
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed (python3-matplotlib)", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    charts = {t: c for t, c in charts.items() if c}
    heights = [max(1.5, 0.16 * sum(len(s) + 1 for s in c.values())) for c in charts.values()]
    figure, axes = pyplot.subplots(
        len(charts), 1, figsize=(9, sum(heights) + len(charts)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, (title, chart) in zip(axes[:, 0], charts.items()):
        names = list(dict.fromkeys(s for series in chart.values() for s in series))
        at, ticks = 0, []
        for series in chart.values():
            ticks.append(at + (len(series) - 1) / 2)
            for name, value in series.items():
                axis.barh(at, value, color=f"C{names.index(name) % 10}")
                at += 1
            at += 1
        axis.set_yticks(ticks, list(chart))
        axis.invert_yaxis()
        axis.set_title(title)
        if len(names) > 1:
            axis.legend([pyplot.Rectangle((0, 0), 1, 1, color=f"C{i % 10}") for i in range(len(names))], names)
    figure.savefig(args.plot, dpi=100)
