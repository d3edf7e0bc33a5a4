"""apfs check, and what a mount makes of a damaged store."""

import contextlib
import errno
import json
import os
import pty
import random
import select
import signal
import subprocess
import time

from apfsmount import Failure, Volume, check, drop_caches, flip, get, main, need, put, run, say, seed, text, tool

CLEAN, IN_USE, WRONG_PASS, SPARE, DATA, INDEX, STOPPED = 0, 13, 11, 40, 41, 42, 43


def apfs_check(v, *options, status=CLEAN):
    return run(tool("apfs"), "check", "--passfile", v.passfile, *options, v.store, status=status)


def report(v, *options, status=CLEAN):
    """The JSON report, which is one object on standard output."""
    argv = [tool("apfs"), "check", "--json", "--passfile", v.passfile, *options, v.store]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
    r = json.loads(done.stdout)
    status = done.returncode if status is None else status
    check(done.returncode == status == r["status"], f"status {done.returncode}, not {status}: {done.stdout} {done.stderr}")
    check(r["clean"] == (status == CLEAN), f"clean: {r}")
    return r


def snapshot(store):
    found = {}
    for folder, _, names in os.walk(store):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                found[path] = (os.stat(path).st_mtime_ns, f.read() if name != "reserve" else b"")
    return found


def fill(v, rng, files=40):
    """Files of all sizes in directories, with links, holes and attributes."""
    made = {}
    for number in range(files):
        folder = os.path.join("d%d" % (number % 5), "e")
        os.makedirs(v.path(folder), exist_ok=True)
        name = os.path.join(folder, f"f{number}")
        size = rng.choice((10, 1000, 5000, 70000, 700000))
        made[name] = rng.randbytes(size) if number % 2 else text(rng, size)
        with open(v.path(name), "wb") as f:
            f.write(made[name])
            if number % 4 == 0:
                f.flush()
                os.fsync(f.fileno())
    if not os.path.lexists(v.path("symlink")):
        os.symlink("d0/e/f0", v.path("symlink"))
        os.link(v.path("d1/e/f1"), v.path("link"))
    os.setxattr(v.path("d0"), "user.note", b"value")
    return made


def damage(v):
    """Flips a byte of a file's data in the middle of the largest segment: the files that the report names."""
    path = max(v.segments(), key=os.path.getsize)
    for offset in range(os.path.getsize(path) // 2, os.path.getsize(path), 3000):
        flip(path, offset)
        r = report(v, "--data", status=None)
        if r["status"] == DATA:
            return r["files"]
        check(r["status"] in (CLEAN, SPARE), f"{r}")  # no file's data: what nobody uses, or a record's header
        flip(path, offset)
    check(False, "no byte belongs to a file")


def clean():
    """A whole store is in order, is not touched, and is refused while mounted or with a wrong passphrase."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        fill(v, rng)
        os.mkdir(v.path("gone"))
        os.rmdir(v.path("gone"))
        out = apfs_check(v, status=IN_USE)
        check(len(out.splitlines()) == 1 and "in use by process" in out, out)
        v.umount()
        before = snapshot(v.store)
        out = apfs_check(v, "--data")
        check("in order" in out, out)
        r = report(v, "--data")
        check(r["inodes"] == 40 + 1 + 10 + 1 and r["names"] == 40 + 2 + 10, f"{r}")
        check(r["read_bytes"] > 0 and not r["findings"] and not r["files"] and r["data"], f"{r}")
        check(report(v)["read_bytes"] == 0, "data was read without --data")
        check(snapshot(v.store) == before, "the check changed the store")
        wrong = os.path.join(v.root, "wrong")
        with open(wrong, "w", encoding="ascii") as f:
            f.write("no\n")
        run(tool("apfs"), "check", "--passfile", wrong, v.store, status=WRONG_PASS)
        run(tool("apfs"), "check", "--nonsense", v.store, status=1)
        run(tool("apfs"), "check", "--passfile", v.passfile, v.root, status=10)


def after_kill():
    """A store that a crash left, with its WAL, is in order, stays as it is, and is so after the next mount too."""
    need()
    rng = random.Random(seed())
    with Volume("--commit-interval", "100ms") as v:
        for round_ in range(3):
            fill(v, rng)
            kept = os.open(v.path("d0/e/open"), os.O_RDWR | os.O_CREAT)
            os.write(kept, b"x" * 100000)
            os.unlink(v.path("d0/e/open"))
            v.sync()
            with open(v.path(f"late{round_}"), "wb") as f:
                f.write(rng.randbytes(3 << 20))
            v.kill()
            with contextlib.suppress(OSError):
                os.close(kept)
            before = snapshot(v.store)
            r = report(v, "--data")
            check(r["worst"] == "note" and r["orphans"] == 1, f"{r}")
            check(snapshot(v.store) == before, "the check changed the store")
            v.mount()
            v.umount()
            report(v, "--data")
            v.mount()
        v.umount()


def covers(found, bad):
    return any(off <= bad < off + length for off, length in found)


def damaged_data():
    """A flipped byte in a segment is named by path and range; other files are not; overwriting mends it."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        made = fill(v, rng)
        with open(v.path("d0", "e", "big"), "wb") as f:
            made["d0/e/big"] = rng.randbytes(3 << 20)
            f.write(made["d0/e/big"])
        v.umount()
        damage(v)
        check("in order" in apfs_check(v), "without --data no record is read")
        r = report(v, "--data", status=DATA)
        check(r["damaged_files"] == len(r["files"]) >= 1 and r["worst"] == "data", f"{r}")
        bad = {f["path"]: f["ranges"] for f in r["files"]}
        out = apfs_check(v, "--data", status=DATA)
        if "link" in bad:  # the other name of the same file
            made["link"] = made.pop("d1/e/f1")
        for name, ranges in bad.items():
            check(name in made, f"{name} was never made")
            first, length = ranges[0]
            check(f"{name}: bytes {first}-{first + length - 1}" in out, out)
        v.mount()
        mend(v, made, bad)
        v.umount()
        report(v, "--data")


def mend(v, made, bad):
    """Reads say what the report said; then the damaged ranges are written again."""
    drop_caches()
    for name, data in made.items():
        fd = os.open(v.path(name), os.O_RDWR)
        for off in range(0, len(data), 4096):
            expected = data[off : off + 4096]
            broken = any(covers(bad.get(name, ()), b) for b in (off, off + len(expected) - 1))
            try:
                check(os.pread(fd, 4096, off) == expected, f"{name} has other data at {off}")
                check(not broken, f"{name} can be read at {off}")
            except OSError as e:
                check(e.errno == errno.EIO, f"{name}: {e}")
                check(broken, f"{name} cannot be read at {off}")
        for off, length in bad.get(name, ()):
            start, end = off // 4096 * 4096, (off + length + 4095) // 4096 * 4096
            overwrite(v.path(name), data[start:end], start)
        os.fsync(fd)
        check(os.pread(fd, len(data), 0) == data, f"{name} is not mended")
        os.close(fd)
    log = get(v.log)
    check(not bad or b"inode" in log, "no log line")


def overwrite(path, data, off):
    """In whole pages, as the kernel would read the rest of one: the end of the file is padded and cut off again."""
    size = os.path.getsize(path)
    fd = os.open(path, os.O_RDWR)
    padded = data + bytes(-len(data) % 4096)
    check(os.pwrite(fd, padded, off) == len(padded), "a short write")
    os.ftruncate(fd, size)
    os.fsync(fd)
    os.close(fd)


def lost_segment():
    """All of the files of a missing segment are named; they can be cut, written, renamed and deleted, and then all is
    in order."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        made = fill(v, rng)
        v.umount()
        lost = max(v.segments(), key=os.path.getsize)
        size = os.path.getsize(lost)
        os.unlink(lost)
        for options in ((), ("--data",)):
            r = report(v, *options, status=DATA)
            check(any("missing" in f["text"] for f in r["findings"]), f"{r}")
            bad = {f["path"]: f["ranges"] for f in r["files"]}
            check(bad and all(name in made or name == "link" for name in bad), f"{bad}")
        v.mount()
        os.unlink(v.path("link"))  # one of the two names of a file, of which the report has either
        for number, name in enumerate(sorted(bad)):
            treat(v, number, "d1/e/f1" if name == "link" else name)
        names = ("d0/e", "d1/e", "d2/e", "d3/e", "d4/e")
        check(sum(len(os.listdir(v.path(n))) for n in names) > 0, "nothing is listed")
        put(v.path("fresh"), rng.randbytes(100000))
        v.sync()
        v.umount()
        check(b"inode" in get(v.log), "no log line")
        report(v, "--data")
        # A segment that is shorter than it was, and one whose header is wrong.
        rest = max(v.segments(), key=os.path.getsize)
        os.truncate(rest, os.path.getsize(rest) // 2)
        check(report(v, status=DATA)["files"], "no file is named")
        check(report(v, "--data", status=DATA)["files"], "no file is named")
        flip(rest, 50)
        check(report(v, status=DATA)["files"], "no file is named")
        say(f"{len(bad)} files of a segment of {size} bytes")


def treat(v, number, name):
    """One of the ways in which a file gets rid of its damage."""
    path = v.path(name)
    length = os.path.getsize(path)
    with open(path, "rb") as f:
        try:
            f.read()
            check(False, f"{name} can be read")
        except OSError as e:
            check(e.errno == errno.EIO, f"{name}: {e}")
    if number % 5 == 0:
        os.unlink(path)
    elif number % 5 == 1:
        os.truncate(path, 0)
    elif number % 5 == 2:
        overwrite(path, bytes(length), 0)
    elif number % 5 == 3:
        with open(path, "wb") as f:
            f.write(b"new")
    else:
        with open(path + ".new", "wb") as f:
            f.write(b"replacement")
        os.rename(path + ".new", path)


def partial_overwrite():
    """Whole pages of a damaged frame can be written one by one without reading it, and appending works."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        data = rng.randbytes(1 << 20)
        with open(v.path("f"), "wb") as f:
            f.write(data)
        v.umount()
        ((first, length),) = damage(v)[0]["ranges"]
        v.mount()
        fd = os.open(v.path("f"), os.O_RDWR)
        page = first + length // 2 // 4096 * 4096
        os.pwrite(fd, data[page : page + 4096], page)
        try:
            os.pwrite(fd, b"x", first + 10)  # the kernel must read the page first
            check(False, "a part of a damaged page could be written")
        except OSError as e:
            check(e.errno == errno.EIO, f"{e}")
        os.pwrite(fd, b"tail", len(data))
        os.fsync(fd)
        check(os.pread(fd, 4096, page) == data[page : page + 4096], "not what was written")
        os.close(fd)
        v.umount()
        ((a, n), (b, m)) = report(v, "--data", status=DATA)["files"][0]["ranges"]
        check((a, a + n, b, b + m) == (first, page, page + 4096, first + length), f"{a} {n} {b} {m}")
        v.mount()
        os.truncate(v.path("f"), first)
        v.umount()
        report(v, "--data")


def compacted():
    """After compaction all is in order; what is damaged stays damaged, as it is, and the rest is compacted around it."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        made = fill(v, rng, files=60)
        for number in range(0, 60, 3):
            name = os.path.join("d%d" % (number % 5), "e", f"f{number}")
            if number % 2:
                os.unlink(v.path(name))
                del made[name]
            else:
                made[name] = made[name][:100] + b"changed" + made[name][107:]
                with open(v.path(name), "r+b") as f:
                    f.write(made[name])
        v.sync()
        run(tool("apfs"), "compact", "--all", v.mnt)
        v.umount()
        report(v, "--data")
        bad = {f["path"] for f in damage(v)}
        v.mount()
        for number in range(60):
            name = os.path.join("d%d" % (number % 5), "e", f"f{number}")
            if number % 4 and name in made and name not in bad:
                os.unlink(v.path(name))
                del made[name]
        v.sync()
        status, out = run(tool("apfs"), "compact", "--all", v.mnt, status=None, timeout=120)
        say(f"compact: {status} {out.strip()[-200:]}")
        for name, data in made.items():
            try:
                with open(v.path(name), "rb") as f:
                    check(f.read() == data and name not in bad, f"{name} has other data, or is whole again")
            except OSError as e:
                check(e.errno == errno.EIO and name in bad, f"{name}: {e}")
        v.umount()
        check({f["path"] for f in report(v, "--data", status=DATA)["files"]} == bad, "other files are damaged than were")


def damaged_index():
    """Pages of the index that do not open: what needs them fails with EIO, nothing else is shown, the check says so."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        for folder in range(30):
            os.mkdir(v.path(f"d{folder}"))
            for number in range(60):
                with open(v.path(f"d{folder}", f"a rather long name of a file, number {number}"), "wb") as f:
                    f.write(b"%d" % number)
        v.umount()
        path = os.path.join(v.store, "index.db")
        with open(path, "rb") as f:
            whole = f.read()
        outcomes = {"refused": 0, "errors": 0, "stopped": 0, "whole": 0}
        for _ in range(12):
            for _ in range(3):
                flip(path, rng.randrange(len(whole)))
            out = report(v, status=None)
            try:
                v.mount()
            except Failure as e:
                check(out["status"] == INDEX, f"{e} {out}")
                outcomes["refused"] += 1
                v.daemon = None
            else:
                outcomes[use_damaged(v, out)] += 1
            with open(path, "wb") as f:
                f.write(whole)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + "-wal")
        say(f"{outcomes}")
        check(outcomes["errors"] + outcomes["stopped"], "no flip was noticed")


def use_damaged(v, out):
    """Reads all and writes a little; EIO (and after a lost transaction EROFS) is all that may go wrong."""
    errors = 0
    for folder in range(30):
        for number in range(60):
            try:
                with open(v.path(f"d{folder}", f"a rather long name of a file, number {number}"), "rb") as f:
                    check(f.read() == b"%d" % number, "other data")
            except OSError as e:
                check(e.errno == errno.EIO, f"{e}")
                errors += 1
        try:
            with open(v.path(f"d{folder}", "new"), "wb") as f:
                f.write(b"new")
            os.unlink(v.path(f"d{folder}", "a rather long name of a file, number 7"))
        except OSError as e:
            check(e.errno in (errno.EIO, errno.EROFS), f"{e}")
            errors += 1
    check(not errors or out["status"] == INDEX, f"{errors} errors, and the check says {out}")
    status, _ = run(tool("apfs"), "umount", v.mnt, status=None)
    ended = v.daemon.wait(120)
    v.daemon = None
    check(ended == 0 or errors, f"{status}, {ended}")
    return "stopped" if ended else "errors" if errors else "whole"


def superblocks():
    """A copy that is damaged, missing or old is found, and the store still opens."""
    need()
    with Volume() as v:
        v.umount()
        one, two = os.path.join(v.store, "superblock"), os.path.join(v.store, "superblock.bak")
        for path in (one, two):
            with open(path, "rb") as f:
                whole = f.read()
            flip(path, 700)
            r = report(v, status=SPARE)
            check(os.path.basename(path) + " is of no use" in r["findings"][0]["text"], f"{r}")
            os.unlink(path)
            report(v, status=SPARE)
            with open(path, "wb") as f:
                f.write(whole)
            report(v)
        new = os.path.join(v.root, "new")
        with open(new, "w", encoding="ascii") as f:
            f.write("another\n")
        with open(two, "rb") as f:
            old = f.read()
        run(tool("apfs"), "passwd", "--passfile", v.passfile, "--new-passfile", new, v.store)
        with open(two, "wb") as f:
            f.write(old)
        v.passfile = new
        report(v, status=SPARE)
        for path in (one, two):
            flip(path, 700)
        run(tool("apfs"), "check", "--passfile", v.passfile, v.store, status=15)


def stopped():
    """SIGINT ends a check early, with what it found; on a terminal there is a bar."""
    need()
    rng = random.Random(seed())
    with Volume() as v:
        for number in range(6):
            with open(v.path(f"f{number}"), "wb") as f:
                f.write(rng.randbytes(20 << 20))
        v.umount()
        for _ in range(10):
            status, out, shown = stop_at_bar(v)
            if status != CLEAN:  # else it had just come to its end
                break
        r = json.loads(out)
        check(status == STOPPED and r["stopped"] and not r["clean"], f"{status} {r}")
        check("\r" in shown and "%" in shown, f"{shown!r} is no bar")


def stop_at_bar(v):
    """Interrupts a check as soon as it shows its bar: its status, what it reports, what it has shown until then."""
    argv = [tool("apfs"), "check", "--data", "--json", "--passfile", v.passfile, v.store]
    terminal, other = pty.openpty()
    shown = b""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=other) as process:
        try:
            os.close(other)
            while not shown and process.poll() is None:
                # The bar is for what takes longer than 0.2 s, which is long on a fast machine: so it is held up.
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.25)
                process.send_signal(signal.SIGCONT)
                if select.select([terminal], [], [], 0.01)[0]:
                    with contextlib.suppress(OSError):  # it has ended
                        shown = os.read(terminal, 65536)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=120)
        finally:
            process.kill()
            os.close(terminal)
    return process.returncode, out, shown.decode(errors="replace")


main(clean, after_kill, damaged_data, lost_segment, partial_overwrite, compacted, damaged_index, superblocks, stopped)
