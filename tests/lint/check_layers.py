#!/usr/bin/env python3
"""Fails on what the architecture forbids: includes against the direction of the boxes, a third-party library outside
its box, raw file calls beside base's io, and files too long to read.

usage: check_layers.py ROOT
"""

import re
import sys

import sources

MAX_LINES = 700

# A box, and the boxes that its files may include. Tests and benchmarks may include everything.
BOXES = {
    "base": ("base",),
    "pipeline": ("pipeline", "base"),
    "index": ("index", "base"),
    "fs/core": ("fs/core", "index", "pipeline", "base"),
    "fs/fuse": ("fs/fuse", "fs/core", "index", "pipeline", "base"),
    "tools": ("tools", "fs/fuse", "fs/core", "index", "pipeline", "base"),
}

# Headers of libraries, and the one box that may include them.
LIBRARIES = (
    (re.compile(r"fuse(_\w+)?\.h$|fuse3?/"), "fs/fuse"),
    (re.compile(r"sqlite3(ext)?\.h$"), "index"),
    (re.compile(r"(zstd|zdict|zstd_errors|lz4\w*|xxhash|sodium)\.h$|(brotli|sodium|openssl)/"), "pipeline"),
    (re.compile(r"(ini|jansson|microhttpd)\.h$"), "tools"),
)

# Boxes whose only way to a file is base/io.h, and the calls that would go around it.
IO_BOXES = ("base", "pipeline", "index", "fs/core")
RAW_CALLS = """
open open64 openat openat2 creat fopen fopen64 freopen fdopen opendir fdopendir
read readv pread pread64 preadv preadv2 write writev pwrite pwrite64 pwritev pwritev2 sendfile splice copy_file_range
fsync fdatasync sync syncfs sync_file_range msync
truncate ftruncate fallocate posix_fallocate
rename renameat renameat2 unlink unlinkat remove rmdir mkdir mkdirat mknod mknodat mkfifo link linkat symlink symlinkat
mkstemp mkostemp mkdtemp tmpfile
stat lstat fstat fstatat statx access faccessat readlink readlinkat statfs fstatfs statvfs fstatvfs
chmod fchmod fchmodat chown fchown lchown fchownat utimensat futimens flock lockf syscall
""".split()
RAW_CALL = re.compile(r"(?<![\w.>])(?:::\s*)?(%s)\s*\(" % "|".join(RAW_CALLS))
# The places that may use them.
RAW_ALLOWED = {
    "base/io_posix.c": set(RAW_CALLS),  # the implementation
    "base/log.c": {"open", "write"},  # the log file, which is no part of STORE
    "base/storage.c": {"fopen", "opendir", "stat", "statx"},  # sysfs
}

INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b[ \t]*(.*?)[ \t]*$", re.MULTILINE)


def box_of(path):
    for box in BOXES:
        if path.startswith(box + "/"):
            return box
    return None


def line_of(text, at):
    return text.count("\n", 0, at) + 1


def check_includes(path, text):
    box = box_of(path)
    if box is None:
        return
    for match in INCLUDE.finditer(sources.blank(text, strings=False)):
        line, what = line_of(text, match.start(1)), match.group(1)
        quoted = re.fullmatch(r'"([^"]+)"', what)
        angled = re.fullmatch(r"<([^>]+)>", what)
        if not quoted and not angled:
            yield line, f"#include {what}: neither a quoted nor an angled name"
            continue
        name = (quoted or angled).group(1)
        target = box_of(name)
        if ".." in name.split("/") or (quoted and target is None):
            yield line, f'#include "{name}": own headers are named from the top, as "base/io.h"'
        elif target is not None and target not in BOXES[box]:
            yield line, f"{box} must not include {target} ({name})"
        for pattern, owner in LIBRARIES:
            if target is None and pattern.match(name) and box != owner:
                yield line, f"<{name}> belongs in {owner} only"


def check_raw_calls(path, text):
    if box_of(path) not in IO_BOXES:
        return
    for match in RAW_CALL.finditer(sources.blank(text, strings=True)):
        if match.group(1) not in RAW_ALLOWED.get(path, ()):
            yield line_of(text, match.start(1)), f"{match.group(1)}() goes around base/io.h"


def check_length(path, text):
    lines = text.count("\n")
    if lines > MAX_LINES:
        yield lines, f"{lines} lines, {MAX_LINES} are allowed: split it by noun"


def check(root):
    """All findings as (path, line, text)."""
    found = []
    for path in sources.files(root, (".c", ".h", ".py", ".sh")):
        text = sources.read(root, path)
        checks = [check_length]
        if path.endswith((".c", ".h")):
            checks += [check_includes, check_raw_calls]
        for one in checks:
            found += [(path, line, what) for line, what in one(path, text)]
    return found


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__.strip())
    found = check(sys.argv[1])
    for path, line, what in found:
        print(f"{path}:{line}: {what}")
    if not sources.files(sys.argv[1], (".c",)):
        sys.exit("no sources found in " + sys.argv[1])
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
