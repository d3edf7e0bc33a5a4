"""What the benchmarks compress and write, made from what the machine has."""

import contextlib
import os
import random
import tarfile

from report import MIB
from fusemount import Failure

LINUX = "/usr/src/linux-source-6.1.tar.xz"


def files(root, suffixes=()):
    """Below root, in the order of names, but what is compressed already."""
    for folder, dirs, names in os.walk(root):
        dirs.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if (not suffixes or name.endswith(suffixes)) and os.path.isfile(path) and not name.endswith((".gz", ".png")):
                yield path


def mixed_paths():
    """Headers, documentation and objects of the machine, in turn."""
    lists = [
        list(files("/usr/include")),
        list(files("/usr/share/doc")),
        list(files("/usr/lib/x86_64-linux-gnu", (".a", ".o"))),
        list(files("/usr/lib", (".o", ".a", ".so"))),
    ]
    while any(lists):
        for found in lists:
            yield from found[:50]
            del found[:50]


def join(paths, size):
    """Their content one after another, from the beginning again if it does not suffice."""
    out = bytearray()
    for path in paths:
        with contextlib.suppress(OSError):
            with open(path, "rb") as f:
                out += f.read(min(8 * MIB, size - len(out)))
        if len(out) >= size:
            return bytes(out)
    while out and len(out) < size:
        out += out[: size - len(out)]
    return bytes(out)


def make_text(size):
    return join(mixed_paths(), size)


def make_random(size):
    source = random.Random(1)
    return b"".join(source.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))


def make_source(size):
    if not os.path.exists(LINUX):
        raise Failure(f"{LINUX} is missing (package linux-source-6.1)")
    out = bytearray()
    with tarfile.open(LINUX, "r|xz") as tar:
        for member in tar:
            if member.isfile() and member.name.endswith((".c", ".h", ".S")):
                out += tar.extractfile(member).read(size - len(out))
            if len(out) >= size:
                break
    return bytes(out)


KINDS = {
    "text": lambda size: join(files("/usr/share/doc"), size),
    "source": make_source,
    "binaries": lambda size: join(files("/usr/lib/x86_64-linux-gnu", (".so", ".a")), size),
    "random": make_random,
    "zeros": bytes,
}


def make(work, kinds, size):
    """kind -> the path of a file of that many bytes."""
    made = {}
    for kind in kinds:
        made[kind] = os.path.join(work, f"data-{kind}")
        with open(made[kind], "wb") as f:
            f.write(KINDS[kind](size))
    return made
