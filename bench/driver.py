"""The process that measures in C (driver.h), as an object, and the frame of a benchmark that uses it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

import report
from fusemount import Failure

BINARY = os.path.join(report.HERE, "../build/release/bench/apfs-bench-driver")


class Driver:
    """cores: which ones it may run on."""

    def __init__(self, binary, cores=None):
        pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
        self.process = subprocess.Popen(
            [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="ascii", errors="replace", preexec_fn=pin
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def send(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        found = json.loads(line) if line else {"error": "the driver has ended"}
        if "error" in found:
            raise Failure(found["error"])
        return found

    def ask(self, *words):
        self.send(*words)
        return self.answer()


def parser(description, rounds):
    p = report.parser(description)
    p.add_argument("--rounds", type=int, help=f"{rounds}, or 1 with --quick")
    p.add_argument("--driver", default=BINARY, help="apfs-bench-driver (build/release/bench)")
    p.set_defaults(usual_rounds=rounds)
    return p


def main(args, measure):
    """measure(args, work, results) gives a table and charts, or None where there is nothing to show."""
    if not os.path.exists(args.driver):
        sys.exit(f"{args.driver} is not built (cmake --preset release && cmake --build --preset release; --driver FILE)")
    args.rounds = args.rounds or (1 if args.quick else args.usual_rounds)
    results = {"machine": report.machine(), "arguments": vars(args), "values": []}
    work = os.path.realpath(tempfile.mkdtemp(prefix="apfs-bench-", dir=args.work))
    try:
        table, charts = measure(args, work, results)
    except Failure as e:
        sys.exit(f"failed: {e}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table)
    report.save(args, results, charts)
