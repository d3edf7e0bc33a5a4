#!/usr/bin/env python3
"""Runs clang-tidy on every source file of compile_commands.json in BUILD.

usage: check_tidy.py ROOT BUILD
"""

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys

SKIP = 77


def run(tool, build, path):
    # One process a file: within one, version 14's va_list check carries state from file to file.
    done = subprocess.run([tool, "--quiet", "-p", build, path], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout if done.stdout.strip() else done.stderr


def main():
    root, build = os.path.realpath(sys.argv[1]), sys.argv[2]
    tool = shutil.which("clang-tidy-14") or shutil.which("clang-tidy")
    if not tool:
        print("skipped: clang-tidy is not installed")
        sys.exit(SKIP)
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        files = sorted({entry["file"] for entry in json.load(f) if entry["file"].startswith(root + os.sep)})
    if not files:
        sys.exit("compile_commands.json names no source")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for status, output in pool.map(lambda path: run(tool, build, path), files):
            if status:
                failed += 1
                print(output)
    print(f"{len(files)} files, {failed} with findings")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
