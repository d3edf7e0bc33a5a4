"""fio writes and verifies: at random, mixed, O_DIRECT, mmap, asynchronously, eight jobs at once, with fsync between."""

from place import MIB, Place, main, need, run, size

JOBS = {
    "random": ("--rw=randwrite", "--bs=4k"),
    "mixed": ("--rw=randrw", "--bsrange=512-64k", "--bs_unaligned"),
    "direct": ("--rw=randrw", "--bs=4k", "--direct=1"),
    "mmap": ("--rw=randrw", "--bs=4k", "--ioengine=mmap"),
    "libaio": ("--rw=randrw", "--bs=16k", "--ioengine=libaio", "--iodepth=16", "--direct=1"),
    "synced": ("--rw=randwrite", "--bs=4k", "--fsync=16"),
    "eight": ("--rw=randrw", "--bs=4k", "--numjobs=8"),
    "sequential": ("--rw=write", "--bs=1m"),
}


def fio(p: Place):
    need("fio")

    def do(name, *more):
        options = JOBS[name]
        megabytes = size(8, 256, 2) if name != "eight" else size(2, 64, 1)
        common = (f"--directory={p.path()}", f"--size={megabytes * MIB}", "--verify=crc32c", "--verify_fatal=1")
        quiet = ("--minimal", "--randrepeat=1", "--group_reporting", "--allow_file_create=1")
        run("fio", f"--name={name}", *common, *quiet, *options, *more, timeout=1800, cwd=p.native())

    for name in JOBS:
        do(name)

    def again():
        for name in ("random", "sequential", "synced"):
            do(name, "--verify_only=1")

    return again


main(fio)
