"""A maildir: processes deliver (write to tmp/, fsync, link into new/) while others read (rename to cur/) and delete. Every
message arrives once and whole."""

import hashlib
import multiprocessing
import os
import random

from place import Place, check, main, size

DELIVERERS = 3


def message(rng, name):
    body = rng.randbytes(rng.randrange(20000))
    return b"%s\n%s\n%s" % (name.encode(), hashlib.sha256(body).hexdigest().encode(), body)


def whole(path, name):
    with open(path, "rb") as f:
        head, digest, body = f.read().split(b"\n", 2)
    check(head == name.encode() and hashlib.sha256(body).hexdigest().encode() == digest, f"{path} is not what was sent")


def deliver(box, number, count):
    rng = random.Random(number)
    for serial in range(count):
        name = f"{serial}.{number}.host"
        tmp = os.path.join(box, "tmp", name)
        fd = os.open(tmp, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(fd, message(rng, name))
        os.fsync(fd)
        os.close(fd)
        if serial % 2:
            os.rename(tmp, os.path.join(box, "new", name))
        else:
            os.link(tmp, os.path.join(box, "new", name))
            os.unlink(tmp)
        fd = os.open(os.path.join(box, "new"), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def mail(p: Place):
    box = p.path("Maildir")
    for name in (".", "tmp", "new", "cur"):
        os.mkdir(os.path.normpath(os.path.join(box, name)))
    count = size(60, 2000, 25)
    senders = [multiprocessing.Process(target=deliver, args=(box, number, count)) for number in range(DELIVERERS)]
    for sender in senders:
        sender.start()
    seen = set()
    while True:
        over = not any(sender.is_alive() for sender in senders)
        for name in os.listdir(os.path.join(box, "new")):
            check(name not in seen, f"{name} came twice")
            seen.add(name)
            there = os.path.join(box, "cur", f"{name}:2,S")
            os.rename(os.path.join(box, "new", name), there)
            whole(there, name)
            if len(seen) % 3 == 0:
                os.unlink(there)
        if over:
            break
    for sender in senders:
        sender.join()
        check(sender.exitcode == 0, f"a sender ended with {sender.exitcode}")
    check(len(seen) == DELIVERERS * count, f"{len(seen)} of {DELIVERERS * count} messages arrived")
    kept = sorted(os.listdir(os.path.join(box, "cur")))

    def again():
        check(sorted(os.listdir(os.path.join(box, "cur"))) == kept, "other messages than before")
        check(not os.listdir(os.path.join(box, "tmp")) and not os.listdir(os.path.join(box, "new")), "messages came back")
        for name in kept:
            whole(os.path.join(box, "cur", name), name.partition(":")[0])

    return again


main(mail)
