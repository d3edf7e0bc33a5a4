#!/usr/bin/env python3
"""What a tree holds, as one JSON object a line, sorted by path; of a mounted tree, or of what decode.py read.

usage: manifest.py TREE

path and target are text with surrogates for bytes that are no UTF-8; values of extended attributes are hexadecimal.
"""

import hashlib
import json
import os
import stat
import sys

BLOCK = 1 << 20


def text(name):
    return os.fsdecode(name)


def entry(path, mode, nlink, owner, mtime_ns, xattrs):
    """What every inode has. owner: uid and gid; xattrs: {bytes: bytes}."""
    return {
        "path": text(path),
        "mode": f"{mode:06o}",
        "nlink": nlink,
        "uid": owner[0],
        "gid": owner[1],
        "mtime_ns": mtime_ns,
        "xattrs": {text(name): value.hex() for name, value in sorted(xattrs.items())},
    }


def dump(e):
    return json.dumps(e, sort_keys=True)


def write(out, entries):
    for e in sorted(entries, key=lambda e: e["path"]):
        print(dump(e), file=out)


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(BLOCK):
            h.update(block)
    return h.hexdigest()


def look(path, rel):
    st = os.lstat(path)
    names = os.listxattr(path, follow_symlinks=False)
    xattrs = {os.fsencode(n): os.getxattr(path, n, follow_symlinks=False) for n in names}
    e = entry(rel, st.st_mode, st.st_nlink, (st.st_uid, st.st_gid), st.st_mtime_ns, xattrs)
    if stat.S_ISREG(st.st_mode):
        e["size"], e["sha256"] = st.st_size, sha256(path)
    elif stat.S_ISLNK(st.st_mode):
        e["target"] = text(os.readlink(path))
    elif not stat.S_ISDIR(st.st_mode):
        e["rdev"] = st.st_rdev
    return e


def tree(root):
    """The entries of a tree in the kernel's eyes."""
    root = os.fsencode(root)
    todo = [b""]
    while todo:
        rel = todo.pop()
        path = os.path.join(root, rel) if rel else root
        yield look(path, rel)
        if stat.S_ISDIR(os.lstat(path).st_mode):
            todo += [os.path.join(rel, name) if rel else name for name in os.listdir(path)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.stdout, tree(sys.argv[1]))
