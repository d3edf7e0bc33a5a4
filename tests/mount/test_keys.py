"""Key slots through the tools: what opens a store, on a mounted one too, and what the processes keep to themselves."""

import contextlib
import hashlib
import json
import os
import re
import subprocess
import time

from apfsmount import FAST, PASSPHRASE, Volume, check, flip, get, main, need, put, run, tool, wait_for
from cli import at_terminal, fails

APFS = tool("apfs")


class Keys(Volume):
    """A store that is not mounted yet, with files to take secrets from."""

    def __init__(self, **options):
        super().__init__(mount=False, **options)
        self.other = self.file("other", b"another one\n")
        self.keyfile = self.file("keyfile", os.urandom(4000))
        self.old = ("--passfile", self.passfile)

    def file(self, name, data):
        path = os.path.join(self.root, name)
        put(path, data)
        return path

    def key(self, command, *options, **more):
        return run(APFS, "key", command, *options, self.store, **more)

    def slots(self):
        return {s["slot"]: s for s in json.loads(self.key("list", "--json"))["slots"]}

    def recovery(self, *options):
        """Makes one: its text."""
        return recovery_text(self.key("recovery", *(options or self.old)))


def recovery_text(out):
    found = re.findall(r"^    ([0-9A-Z-]{69})$", out, re.MULTILINE)
    check(len(found) == 1, f"no recovery key: {out}")
    return found[0]


def kinds():
    """Each kind of secret mounts, is tried on its kind only, and is asked for again only where it is wrong."""
    need()
    with Keys() as v:
        v.key("add", *v.old, "--new-keyfile", v.keyfile, *FAST, "--label", 'a "stick" \u00fc')
        paper = v.file("paper", v.recovery("--keyfile", v.keyfile).encode() + b"\n")
        mistyped = v.file("mistyped", b"0" + get(paper)[1:] if get(paper)[:1] != b"0" else b"1" + get(paper)[1:])
        slots = v.slots()
        check([s["type"] for s in slots.values()] == ["passphrase", "key file", "recovery key"], f"slots: {slots}")
        check(slots[1]["label"] == 'a "stick" \u00fc', f"label: {slots[1]}")
        ways = (v.old, ("--keyfile", v.keyfile), ("--recovery-key", "--passfile", paper))
        for number, way in enumerate(ways):
            check(f"Slot {number} " in v.key("test", *way), f"another slot takes {way}")
            run(tool("apfs-mount"), *way, v.store, v.mnt)
            put(v.path(f"by {number}"))
            run(APFS, "umount", v.mnt)
        run(tool("apfs-mount"), "-o", f"keyfile={v.keyfile}", v.store, v.mnt)
        check(sorted(os.listdir(v.mnt)) == ["by 0", "by 1", "by 2"], "files are missing")
        run(APFS, "umount", v.mnt)
        text = get(paper).decode().strip()
        spoken = text.lower().replace("-", " ").replace("0", "o").replace("1", "l").replace("v", "u")
        v.key("test", "--recovery-key", input=spoken)
        for argv in ((APFS, "key", "test"), (tool("apfs-mount"), "-o", "ro")):
            at = (v.store,) if argv[0] == APFS else (v.store, v.mnt)
            fails(11, "wrong passphrase", *argv, "--passfile", v.other, *at)
            fails(11, "wrong key file", *argv, "--keyfile", v.file("k", b"x" * 32), *at)
            fails(11, "wrong key file", *argv, "--keyfile", v.file("k", get(v.passfile)[:-1] + b"x" * 32), *at)
            fails(11, "wrong recovery key", *argv, "--recovery-key", *at, input=zeroes_as_text())
            fails(12, "mistyped", *argv, "--recovery-key", "--passfile", mistyped, *at)
            fails(12, "characters", *argv, "--recovery-key", *at, input=text[:-1])
            fails(12, "32 bytes", *argv, "--keyfile", v.file("k", b"x" * 31), *at)
            fails(12, "8 MiB", *argv, "--keyfile", "/dev/zero", *at)
            fails(12, "key file", *argv, "--keyfile", os.path.join(v.root, "none"), *at)
            fails(12, "", *argv, "--recovery-key", *at)
            status, out = run(*argv, "--keyfile", v.keyfile, *v.old, *at, status=None)
            check(status == 1 and "excludes" in out, f"{status} {out}")


def zeroes_as_text():
    """The recovery key of 32 zeroes."""
    bits = int.from_bytes(bytes(32) + hashlib.blake2b(bytes(32), digest_size=32, person=b"apfs-recovery").digest()[:3], "big")
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[bits >> 5 * i & 31] for i in range(55, -1, -1))


def slots():
    """Sixteen, and no more; removing and changing them; the last one stays."""
    need()
    with Keys() as v:
        papers = [v.recovery() for _ in range(15)]
        check(len(set(papers)) == 15 and len(v.slots()) == 16, "not sixteen slots")
        fails(18, "16", APFS, "key", "recovery", *v.old, v.store)
        fails(18, "16", APFS, "key", "add", *v.old, "--new-passfile", v.other, v.store)
        fails(18, "one that was opened", APFS, "key", "remove", *v.old, v.store, "0")
        status, out = run(APFS, "key", "remove", *v.old, v.store, "16", status=None)
        check(status == 1, f"slot 16: {status} {out}")
        out = run(APFS, "key", "remove", "--recovery-key", v.store, "0", input=papers[6])
        check("no passphrase" in out, f"the last passphrase goes unnoticed: {out}")
        fails(11, "wrong passphrase", APFS, "key", "test", *v.old, v.store)
        for number in (n for n in range(1, 16) if n != 7):
            run(APFS, "key", "remove", "--recovery-key", v.store, str(number), input=papers[6])
        fails(18, "last", APFS, "key", "remove", "--recovery-key", v.store, "7", input=papers[6])
        fails(18, "not in use", APFS, "key", "remove", "--recovery-key", v.store, "3", input=papers[6])
        run(APFS, "key", "add", "--recovery-key", *FAST, v.store, input=f"{papers[6]}\n{PASSPHRASE}\n")
        check(sorted(v.slots()) == [0, 7], f"slots: {v.slots()}")
        v.mount()


def labels():
    need()
    with Keys() as v:
        for bad in ("x" * 64, "a\x1b[31m", "\u202eabc", "tab\t"):
            status, out = run(APFS, "key", "recovery", *v.old, "--label", bad, v.store, status=None)
            check(status == 1 and "label" in out and "\x1b" not in out, f"label {bad!r}: {status} {out}")
        v.recovery(*v.old, "--label", "safe, \u00fcber")
        check("safe, \u00fcber" in v.key("list"), v.key("list"))
        data = bytearray(get(os.path.join(v.store, "superblock")))
        at = data.index("safe".encode())
        data[at : at + 4] = b"\x1b[2J"
        data[-32:] = hashlib.blake2b(data[:-32], digest_size=32).digest()
        put(os.path.join(v.store, "superblock"), data)
        for out in (v.key("list"), v.key("list", "--json"), run(APFS, "info", v.store)):
            check("\x1b" not in out and "x1b[2J" in out, f"not escaped: {out!r}")
        fails(11, "wrong passphrase", APFS, "key", "test", "--passfile", v.other, v.store)


def beside_a_mount():
    """Slots change while the store is mounted and written to, and the mount goes on."""
    need()
    with Keys() as v:
        v.mount()
        put(v.path("before"), b"b" * 100000)
        run(APFS, "passwd", *v.old, "--new-passfile", v.other, v.store)
        v.key("add", "--passfile", v.other, "--new-keyfile", v.keyfile, *FAST)
        paper = v.recovery("--keyfile", v.keyfile)
        put(v.path("after"), b"a" * 100000)
        fails(11, "wrong passphrase", APFS, "key", "test", *v.old, v.store)
        run(APFS, "key", "remove", "--recovery-key", v.store, "0", input=paper)
        v.sync()
        v.kill()
        fails(11, "wrong passphrase", tool("apfs-mount"), "--passfile", v.other, v.store, v.mnt)
        run(tool("apfs-mount"), "--keyfile", v.keyfile, v.store, v.mnt)
        check(get(v.path("before")) == b"b" * 100000 and get(v.path("after")) == b"a" * 100000, "other data")
        run(APFS, "umount", v.mnt)


def many_at_once():
    """Processes that change slots at the same time: each either does it or says that another one is at it."""
    need()
    with Keys() as v:
        procs = [
            subprocess.Popen([APFS, "key", "recovery", *v.old, v.store], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(8)
        ]
        papers = []
        for p in procs:
            out, err = p.communicate(timeout=120)
            if p.returncode == 0:
                papers.append(recovery_text(out))
            else:
                check(p.returncode == 13 and "another process" in err, f"{p.returncode} {err}")
        check(papers and len(v.slots()) == 1 + len(papers), f"{len(papers)} keys, slots: {v.slots()}")
        for paper in papers:
            v.key("test", "--recovery-key", input=paper)
        check(get(os.path.join(v.store, "superblock")) == get(os.path.join(v.store, "superblock.bak")), "two superblocks")


def init_with():
    """apfs init makes stores that a key file opens, and recovery keys."""
    need()
    with Keys() as v:
        store = os.path.join(v.root, "second")
        paper = recovery_text(run(APFS, "init", "--keyfile", v.keyfile, "--recovery", *FAST, store))
        fails(11, "wrong passphrase", APFS, "key", "test", *v.old, store)
        run(APFS, "key", "test", "--keyfile", v.keyfile, store)
        run(APFS, "key", "test", "--recovery-key", store, input=paper)
        fails(12, "32 bytes", APFS, "init", "--keyfile", "/dev/null", *FAST, os.path.join(v.root, "third"))
        status, out = run(APFS, "init", "--recovery-key", os.path.join(v.root, "third"), status=None)
        check(status == 1 and "--recovery" in out, f"{status} {out}")
        third = os.path.join(v.root, "fourth")
        run(tool("apfs-mount"), "--init", *FAST, "--keyfile", v.keyfile, third, v.mnt)
        run(APFS, "umount", v.mnt)
        run(APFS, "key", "test", "--keyfile", v.keyfile, third)


def at_a_terminal():
    """Old and new secrets are asked for, the new one twice, and nothing of them is shown."""
    need()
    with Keys() as v:
        argv = (APFS, "key", "add", *FAST, v.store)
        status, out = at_terminal(argv, (PASSPHRASE, "one", "two"))
        check(status == 12 and "differ" in out, f"two passphrases: {status} {out}")
        status, out = at_terminal(argv, ("wrong",))
        check(status == 11 and out.count("assphrase for") == 1, f"asks for a new one: {status} {out}")
        status, out = at_terminal(argv, (PASSPHRASE, "second", "second"))
        check(status == 0 and PASSPHRASE not in out and "second" not in out, f"{status} {out}")
        status, out = at_terminal((APFS, "key", "test", v.store), ("second",))
        check(status == 0 and "Slot 1" in out, f"{status} {out}")
        paper = v.recovery()
        status, out = at_terminal((APFS, "key", "test", "--recovery-key", v.store), (paper,))
        check(status == 0 and "Recovery key for" in out and paper not in out, f"{status} {out}")


def repair():
    """A mount that may write puts a damaged copy of the superblock right; a read-only one leaves it."""
    need()
    with Keys() as v:
        paths = [os.path.join(v.store, n) for n in ("superblock", "superblock.bak")]
        good = get(paths[0])
        for path in paths:
            flip(path, 900)
            bad = get(path)
            v.mount("--ro")
            v.umount()
            check(get(path) == bad, "a read-only mount writes")
            v.mount()
            v.umount()
            check(get(paths[0]) == good and get(paths[1]) == good, f"{path} is not repaired")
            check("written anew" in v.log_tail(), f"the log: {v.log_tail()}")
        os.unlink(paths[0])
        v.mount()
        v.umount()
        check(get(paths[0]) == good, "a missing superblock is not made again")
        # that of another store which the same passphrase opens: refused, and nothing is lost by it
        other = os.path.join(v.root, "second")
        run(APFS, "init", *v.old, *FAST, other)
        foreign = get(os.path.join(other, "superblock"))
        put(paths[0], foreign)
        status, out = run(tool("apfs-mount"), *v.old, v.store, v.mnt, status=None)
        check(status == 15, f"another store's superblock: {status} {out}")
        check(get(paths[0]) == foreign and get(paths[1]) == good, "a copy was overwritten")
        fails(15, "different keys", APFS, "key", "recovery", *v.old, v.store)
        check(get(paths[0]) == foreign and get(paths[1]) == good, "a copy was overwritten")
        os.unlink(paths[0])
        v.mount()


def hidden(pid):
    """What /proc says of a process that holds keys."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as f:
        (core,) = (line for line in f if line.startswith("Max core file size"))
    check(core.split()[4:6] == ["0", "0"], f"core dumps: {core}")
    with open(f"/proc/{pid}/coredump_filter", encoding="ascii") as f:
        check(int(f.read(), 16) == 0, "memory would go into a core dump")


def processes():
    """No core dumps, and no other process of the same user looks into one that holds keys."""
    need("setpriv", root=True)
    with Keys() as v:
        v.mount()
        hidden(v.daemon.pid)
        v.umount()
        os.chmod(v.root, 0o755)
        run("chown", "-R", "nobody", v.store, v.mnt)
        fifo = os.path.join(v.root, "fifo")
        os.mkfifo(fifo, 0o666)
        os.chmod(fifo, 0o666)
        nobody = ("setpriv", "--reuid", "nobody", "--clear-groups")
        for argv in ((APFS, "key", "test", "--passfile", fifo, v.store), (tool("apfs-mount"), "-f", "--passfile", fifo, v.store, v.mnt)):
            with subprocess.Popen([*nobody, *argv], stderr=subprocess.PIPE, text=True) as p:
                try:
                    wait_for(lambda p=p: waits(p.pid, argv[0]), 20, "it does not wait for its passphrase")
                    hidden(p.pid)
                    check(os.stat(f"/proc/{p.pid}/mem").st_uid == 0, "the process can be dumped")
                    status, out = run(*nobody, "cat", f"/proc/{p.pid}/environ", status=None)
                    check(status != 0, f"another process of the user reads: {out[:80]}")
                finally:
                    with contextlib.suppress(OSError):
                        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))  # an empty passphrase
                    check(p.wait(60) == 12, f"status {p.returncode}")


def waits(pid, program):
    """Whether it has become that program and sleeps in its open of the fifo."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
            name = f.read().strip()
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            state = f.read().rsplit(")", 1)[1].split()[0]
        time.sleep(0.2)
        return name == os.path.basename(program) and state == "S"
    return False


main(kinds, slots, labels, beside_a_mount, many_at_once, init_with, at_a_terminal, repair, processes)
