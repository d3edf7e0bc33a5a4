"""qemu-img: raw and qcow2, converted and compared, each right after it was written."""

import os
import random

from place import MIB, Place, check, main, need, run, size


def raw_image(path, seed, megabytes):
    """Mostly holes, as a fresh disk of a virtual machine."""
    rng = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(megabytes * MIB)
        for _ in range(megabytes // 4):
            f.seek(rng.randrange(megabytes * MIB - MIB) & ~4095)
            f.write(rng.randbytes(rng.randrange(1, 64) * 4096))


def images(p: Place):
    need("qemu-img")
    raw, qcow2, back, thin = (p.path(n) for n in ("a.raw", "a.qcow2", "b.raw", "thin.qcow2"))
    megabytes = size(64, 1024, 16)

    def do(*argv):
        return run("qemu-img", *argv, timeout=1200)

    raw_image(raw, p.number, megabytes)
    do("convert", "-f", "raw", "-O", "qcow2", raw, qcow2)  # which asks for the holes
    do("compare", "-f", "raw", "-F", "qcow2", raw, qcow2)
    do("check", qcow2)
    do("convert", "-f", "qcow2", "-O", "raw", qcow2, back)
    do("compare", "-f", "raw", "-F", "raw", raw, back)
    check(os.stat(back).st_blocks * 512 < megabytes * MIB * 3 // 4, "the holes were filled")
    do("convert", "-c", "-f", "raw", "-O", "qcow2", raw, p.path("packed.qcow2"))
    do("create", "-f", "qcow2", "-b", qcow2, "-F", "qcow2", thin)
    do("snapshot", "-c", "one", thin)
    do("resize", "--shrink", "-f", "raw", back, f"{megabytes // 2}M")
    do("resize", "-f", "raw", back, f"{megabytes}M")
    if p.number == 2:  # not through the kernel's cache
        do("convert", "-t", "none", "-T", "none", "-f", "raw", "-O", "qcow2", raw, p.path("direct.qcow2"))
        do("compare", "-f", "raw", "-F", "qcow2", raw, p.path("direct.qcow2"))

    def again():
        for name in ("a.qcow2", "packed.qcow2", "thin.qcow2"):
            do("check", p.path(name))
            do("compare", "-f", "raw", "-F", "qcow2", raw, p.path(name))

    return again


main(images)
