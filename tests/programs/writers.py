"""Two processes write in one file at the same time, each its own blocks, in every way there is: both are there."""

import mmap
import multiprocessing
import os
import random

from place import Place, check, get, main, size

BLOCK = 4096
WAYS = ("write", "append", "direct", "mmap")


def block(number, who):
    return random.Random(number * 2 + who).randbytes(BLOCK)


def write_blocks(path, way, who, count):
    numbers = list(range(who, count, 2))
    random.Random(who).shuffle(numbers)
    flags = os.O_RDWR | (os.O_DIRECT if way == "direct" else 0)
    fd = os.open(path, flags)
    mapped = mmap.mmap(fd, count * BLOCK) if way == "mmap" else None
    page = mmap.mmap(-1, BLOCK)  # as O_DIRECT wants it
    for number in numbers:
        page[:] = block(number, who)
        if mapped:
            mapped[number * BLOCK : (number + 1) * BLOCK] = page[:]
        else:
            check(os.pwrite(fd, page, number * BLOCK) == BLOCK, "a short write")
        if number % 64 == who:
            os.fsync(fd)
    os.close(fd)


def append_lines(path, who, count):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in range(count):
        os.write(fd, f"{who} {number}\n".encode() * 3)
    os.close(fd)


def both(target, *args):
    workers = [multiprocessing.Process(target=target, args=(*args[:-1], who, args[-1])) for who in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        check(worker.exitcode == 0, f"a writer ended with {worker.exitcode}")


def writers(p: Place):
    count = size(1500, 50000, 500)

    def verify():
        for way in WAYS:
            data = get(p.path(way))
            if way == "append":
                lines = data.split(b"\n")[:-1]
                check(len(lines) == 6 * count, f"{len(lines)} of {6 * count} appended lines")
                for who in (0, 1):
                    mine = [int(line.split()[1]) for line in lines if line.startswith(b"%d " % who)]
                    check(mine == [n for n in range(count) for _ in range(3)], "appended lines are torn or out of order")
                continue
            for number in range(count):
                found = data[number * BLOCK : (number + 1) * BLOCK]
                check(found == block(number, number % 2), f"{way}: block {number} is not what was written")

    for way in WAYS:
        with open(p.path(way), "wb") as f:
            if way != "append":
                f.truncate(count * BLOCK)
        if way == "append":
            both(append_lines, p.path(way), count)
        else:
            both(write_blocks, p.path(way), way, count)
    verify()
    return verify


main(writers)
