#!/usr/bin/env python3
"""Runs clang-tidy on every source file of the boxes and tools that compile_commands.json in BUILD names. Tests are
left out: cmocka's assertions do not tell the analyzer that they end the test, so that it finds what cannot happen.

usage: check_tidy.py ROOT BUILD
"""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys

import sources

BOXES = ("base", "pipeline", "index", "fs", "tools")


# Fields are in the order of their meaning.
CHECKS = "-clang-analyzer-optin.performance.Padding"
# States that the analyzer looks at in a function before it gives up; 225,000 is its own limit. Nearly all of the time
# goes to the few functions that have more than either, and so few have found whatever more of them did.
NODES = "225000" if os.environ.get("APFS_NIGHTLY") else "40000"
FINDING = re.compile(r"^\S+:\d+:\d+: (?:warning|error): .*$", re.MULTILINE)
# The analyzer loses track of the lists inside uthash's macros.
UNTRUSTED = re.compile(r"\A.*\n[ \t]*HASH_\w+\(.*\n")


def run(tool, build, path):
    """What it found in one file."""
    # One process a file: within one, version 14's va_list check carries state from file to file.
    limit = [f"--extra-arg={arg}" for arg in ("-Xclang", "-analyzer-config", "-Xclang", f"max-nodes={NODES}")]
    done = subprocess.run([tool, "--quiet", f"--checks={CHECKS}", *limit, "-p", build, path],
                          capture_output=True, text=True, check=False)
    starts = [match.start() for match in FINDING.finditer(done.stdout)]
    blocks = [done.stdout[a:b] for a, b in zip(starts, starts[1:] + [len(done.stdout)])]
    if done.returncode and not blocks:
        return [f"{path}: clang-tidy failed\n{done.stderr}"]
    return [block for block in blocks if not UNTRUSTED.match(block)]


def main():
    root, build = os.path.realpath(sys.argv[1]), sys.argv[2]
    tool = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if not tool:
        sources.skip("clang-tidy is not installed")
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        named = {entry["file"] for entry in json.load(f)}
    files = sorted(path for path in named if path.startswith(tuple(f"{root}/{box}/" for box in BOXES)))
    if not files:
        sys.exit("compile_commands.json names no source")
    found = set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for blocks in pool.map(lambda path: run(tool, build, path), files):
            found.update(blocks)
    print("\n".join(sorted(found)))
    print(f"{len(files)} files, {len(found)} findings")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
