#!/usr/bin/env python3
"""Fails where clang-format would change a source file.

usage: check_format.py ROOT
"""

import re
import shutil
import subprocess
import sys

import sources

VERSION = 14  # Debian 12's: others lay some things out differently


def main():
    root = sys.argv[1]
    tool = shutil.which(f"clang-format-{VERSION}") or shutil.which("clang-format")
    if not tool:
        sources.skip("clang-format is not installed")
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    if not re.search(rf"\b{VERSION}\.", version):
        sources.skip(f"{version.strip()} is not version {VERSION}")
    files = sources.files(root, (".c", ".h"))
    done = subprocess.run([tool, "--dry-run", "-Werror", "--style=file", *files], cwd=root, check=False)
    if done.returncode:
        print("run clang-format -i on these files")
    sys.exit(1 if done.returncode else 0)


if __name__ == "__main__":
    main()
