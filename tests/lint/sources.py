"""The project's own source files, and their text without comments."""

import os
import re
import sys

TOP = ("base", "pipeline", "index", "fs", "tools", "tests", "bench")

_TOKEN = re.compile(
    r"""(?P<comment>/\*.*?\*/|//[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*")|(?P<char>'(?:\\.|[^'\\\n])+')""", re.DOTALL
)


def skip(why):
    """Ends the program, whose tool is missing: in CI, which has all of them, that is a failure."""
    print(f"skipped: {why}")
    sys.exit(1 if os.environ.get("CI") == "true" else 77)


def files(root, suffixes):
    """Paths relative to root, sorted, '/'-separated."""
    found = []
    for top in TOP:
        for folder, dirs, names in os.walk(os.path.join(root, top)):
            dirs[:] = [d for d in dirs if d != "__pycache__"]
            for name in names:
                if name.endswith(suffixes):
                    found.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def blank(text, strings):
    """Replaces comments, and strings where asked, by spaces; lines keep their numbers."""

    def spaces(match):
        if match.lastgroup != "comment" and not strings:
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())

    return _TOKEN.sub(spaces, text)
