"""The mixed load of test_kill.py and test_power.py: what it writes can be told from its content, and what is durable from its journal.

Each worker has a folder of its own on the mount and a journal outside of it, one line an event, written before (a
promise: this may be found) or after (a fact: this must be found) the system calls.

  blocks/N   4 KiB blocks, each naming file, number and version, overwritten at random
  logs/N     lines appended
  whole/N    replaced by rename, each version of another size; written, closed, with or without fsync, renamed
  names/...  made, linked, renamed, removed
"""

import errno
import multiprocessing
import os
import random
import struct
import time
import traceback

from apfsmount import Failure, check, get, say

DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EBADF)  # what the load meets when the daemon dies
BLOCK = 4096
FILES = 4
BLOCKS = 96


def block(name, number, version):
    head = struct.pack("<4sIII", b"BLK!", name, number, version)
    rng = random.Random(f"{name}/{number}/{version}")
    if version % 2:
        body = rng.randbytes(BLOCK - len(head))
    else:
        body = (b"%08x" % rng.getrandbits(32)) * (BLOCK // 8)
    return (head + body)[:BLOCK]


def whole(name, version):
    rng = random.Random(f"w{name}/{version}")
    size = rng.choice((0, 100, 5000, 70000, 300000)) + rng.randrange(3000)
    head = b"whole %d %d %d\n" % (name, version, size)
    return head + body_of(rng, size)


def body_of(rng, size):
    piece = rng.randbytes(3000)
    return (piece * (size // len(piece) + 1))[:size]


def line(name, sequence):
    rng = random.Random(f"l{name}/{sequence}")
    return b"%d %d %s\n" % (name, sequence, b"x" * rng.randrange(300))


class Worker:
    def __init__(self, folder, journal, seed, syncs):
        self.rng = random.Random(seed)
        self.syncs = syncs
        self.folder = folder
        # One write(2) an event: what is in the journal was said before the daemon died.
        self.journal = open(journal, "ab", buffering=0)
        for part in ("blocks", "logs", "whole", "names"):
            os.makedirs(os.path.join(folder, part), exist_ok=True)
        self.blocks = [os.open(self.path("blocks", n), os.O_RDWR | os.O_CREAT, 0o644) for n in range(FILES)]
        self.versions = [{} for _ in range(FILES)]
        self.logs = [os.open(self.path("logs", n), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for n in range(FILES)]
        self.sequence = [0] * FILES
        self.version = [0] * FILES
        self.fsync_dir("blocks")

    def path(self, *parts):
        return os.path.join(self.folder, *map(str, parts))

    def say(self, *words):
        self.journal.write((" ".join(map(str, words)) + "\n").encode())

    def fsync_dir(self, *parts):
        fd = os.open(self.path(*parts), os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        self.say("all")  # fsync of a directory: everything that was said before is durable

    def chance(self, p):
        """Of an fsync. `syncs` makes them rarer, so that more is at stake."""
        return self.rng.random() < p * self.syncs

    def write_blocks(self):
        name = self.rng.randrange(FILES)
        first, count = self.rng.randrange(BLOCKS), self.rng.choice((1, 1, 1, 4, 16))
        data = b""
        for number in range(first, first + count):
            version = self.versions[name].get(number, 0) + 1
            self.versions[name][number] = version
            self.say("block", name, number, version)
            data += block(name, number, version)
        os.pwrite(self.blocks[name], data, first * BLOCK)
        if self.chance(0.15):
            os.fdatasync(self.blocks[name])
            self.say("blocks-synced", name)

    def append(self):
        name = self.rng.randrange(FILES)
        for _ in range(self.rng.randrange(1, 10)):
            self.say("line", name, self.sequence[name])
            os.write(self.logs[name], line(name, self.sequence[name]))
            self.sequence[name] += 1
        if self.chance(0.15):
            os.fsync(self.logs[name])
            self.say("log-synced", name)

    def replace(self):
        name = self.rng.randrange(FILES)
        self.version[name] += 1
        version = self.version[name]
        self.say("whole", name, version)
        fd = os.open(self.path("whole", f"{name}.tmp"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        data = whole(name, version)
        half = self.rng.randrange(len(data) + 1)
        os.write(fd, data[:half])
        os.write(fd, data[half:])
        # A rename over nothing promises nothing of what was not synced.
        synced = version == 1 or self.chance(0.4)
        if synced:
            os.fsync(fd)
        os.close(fd)
        os.rename(self.path("whole", f"{name}.tmp"), self.path("whole", name))
        self.say("renamed", name, version)
        if synced and self.chance(0.5):
            self.fsync_dir("whole")

    def names(self):
        number = self.rng.randrange(40)
        path = self.path("names", number)
        dice = self.rng.random()
        try:
            if dice < 0.3:
                os.mkdir(path)
            elif dice < 0.5:
                with open(f"{path}.f", "wb") as f:
                    f.write(b"name %d" % number)
            elif dice < 0.6:
                os.link(f"{path}.f", f"{path}.l")
            elif dice < 0.7:
                os.rename(path, self.path("names", self.rng.randrange(40)))
            elif dice < 0.8:
                os.rmdir(path)
            elif dice < 0.9:
                os.unlink(f"{path}.{self.rng.choice('fls')}")
            else:
                os.symlink("target", f"{path}.s")
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
            pass
        except OSError as e:
            if e.errno != 39:  # ENOTEMPTY
                raise

    def marker(self):
        """A name that must be there, or must be gone, after an fsync of its directory."""
        number = self.rng.randrange(8)
        path = self.path("names", f"marker{number}")
        if os.path.exists(path):
            self.say("unmark", number)
            os.unlink(path)
            self.say("unmarked", number)
        else:
            self.say("mark", number)
            with open(path, "wb") as f:
                f.write(b"marker")
            self.say("marked", number)
        if self.chance(0.3):
            self.fsync_dir("names")

    def run(self):
        actions = (self.write_blocks, self.append, self.replace, self.names, self.marker)
        while True:
            self.rng.choices(actions, weights=(40, 20, 15, 20, 5))[0]()


# --- after the crash --------------------------------------------------------------------------------------------------


class Damage(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Damage(text)


class Journal:
    """What must be there, and what may be."""

    def __init__(self, path):
        self.block = [{} for _ in range(FILES)]  # number: the last version that was written
        self.block_synced = [{} for _ in range(FILES)]
        self.lines, self.lines_synced = [0] * FILES, [0] * FILES
        self.whole, self.renamed, self.whole_synced = [0] * FILES, [0] * FILES, [0] * FILES
        self.mark = {}  # number: states that may be found, the first of them the durable one
        self.events = 0
        with open(path, "rb") as f:
            for text in f.read().split(b"\n")[:-1]:
                self.events += 1
                words = text.decode().split()
                self.take(words[0], [int(w) for w in words[1:]])

    def take(self, event, args):
        if event == "block":
            name, number, version = args
            self.block[name][number] = version
        elif event == "blocks-synced":
            self.block_synced[args[0]] = dict(self.block[args[0]])
            self.names_synced()
        elif event == "line":
            self.lines[args[0]] = args[1] + 1
        elif event == "log-synced":
            self.lines_synced[args[0]] = self.lines[args[0]]
            self.names_synced()
        elif event == "whole":
            self.whole[args[0]] = args[1]
        elif event == "renamed":
            self.renamed[args[0]] = args[1]
        elif event in ("mark", "unmark"):
            self.mark.setdefault(args[0], [False]).append(event == "mark")
        elif event in ("marked", "unmarked"):
            self.mark[args[0]].append(event == "marked")
        elif event == "all":
            self.names_synced()

    def names_synced(self):
        """An fsync makes all names durable, and with them the content of what was renamed over a file."""
        self.whole_synced = list(self.renamed)
        for number, states in self.mark.items():
            self.mark[number] = states[-1:]

    def verify(self, folder):
        for name in range(FILES):
            self.verify_blocks(folder, name)
            self.verify_log(folder, name)
            self.verify_whole(folder, name)
        for number, states in self.mark.items():
            found = os.path.exists(os.path.join(folder, "names", f"marker{number}"))
            expect(found in states, f"marker{number} is {'there' if found else 'missing'}, which it never was since a sync")

    def content(self, folder, kind, name, synced):
        """None where it is missing, which it may be unless something of it was synced."""
        path = os.path.join(folder, kind, str(name))
        if not os.path.exists(path):
            expect(not synced, f"{kind}/{name} was synced and is missing")
            return None
        return get(path)

    def verify_blocks(self, folder, name):
        data = self.content(folder, "blocks", name, self.block_synced[name])
        if data is None:
            return
        expect(len(data) % BLOCK == 0, f"blocks/{name} has {len(data)} bytes")
        for number, version in self.block_synced[name].items():
            expect(len(data) >= (number + 1) * BLOCK, f"blocks/{name} is too short for block {number}, which was synced")
        for number in range(len(data) // BLOCK):
            got = data[number * BLOCK : (number + 1) * BLOCK]
            last, synced = self.block[name].get(number, 0), self.block_synced[name].get(number, 0)
            if got == bytes(BLOCK):
                expect(not synced, f"block {number} of blocks/{name} was synced at version {synced} and is zeroes")
                continue
            magic, n, at, version = struct.unpack_from("<4sIII", got)
            where = f"block {number} of blocks/{name}"
            expect(magic == b"BLK!" and n == name and at == number, f"{where} is not a block of its own: {got[:16]!r}")
            expect(synced <= version <= last, f"{where} has version {version}; synced {synced}, written {last}")
            expect(got == block(name, number, version), f"{where} is a mixture (version {version})")

    def verify_log(self, folder, name):
        data = self.content(folder, "logs", name, self.lines_synced[name]) or b""
        written = b"".join(line(name, n) for n in range(self.lines[name]))
        synced = sum(len(line(name, n)) for n in range(self.lines_synced[name]))
        expect(len(data) >= synced, f"logs/{name} has {len(data)} bytes, {synced} were synced")
        expect(len(data) <= len(written), f"logs/{name} has {len(data)} bytes, only {len(written)} were written")
        for start in range(0, len(data), BLOCK):
            got, want = data[start : start + BLOCK], written[start : start + BLOCK]
            # an older version of a block is a prefix of it, zeroes follow
            same = os.path.commonprefix((got, want))
            expect(not got[len(same) :].strip(b"\0"), f"logs/{name} holds other data at {start + len(same)}")
            expect(start + len(same) >= min(synced, start + len(got)), f"logs/{name} lost synced data at {start + len(same)}")

    def verify_whole(self, folder, name):
        data = self.content(folder, "whole", name, self.whole_synced[name])
        if data is None:
            return
        try:
            version = int(data.split(b"\n", 1)[0].split()[2])
        except (IndexError, ValueError):
            raise Damage(f"whole/{name} is not whole: {len(data)} bytes, begins with {data[:40]!r}") from None
        synced, last = self.whole_synced[name], self.whole[name]
        expect(synced <= version <= last, f"whole/{name} has version {version}; durable {synced}, written {last}")
        expect(data == whole(name, version), f"whole/{name} is not whole: version {version}, {len(data)} bytes")


# --- the load, as its test sees it ------------------------------------------------------------------------------------


def work(folder, journal, seed, syncs):
    """A process of its own. How it ended is the last thing it writes, to a file beside the journal."""
    end = "?"
    try:
        Worker(folder, journal, seed, syncs).run()
    except OSError as e:
        end = f"{e.errno}\n{traceback.format_exc()}"
    except BaseException:  # pylint: disable=broad-except
        end = traceback.format_exc()
    with open(f"{journal}.end", "w", encoding="utf-8") as f:
        f.write(end)
    os._exit(0)


class Load:
    """Workers in `folder` of the mount, with journals in `outside`, which outlives the cut."""

    def __init__(self, folder, outside, number, workers, rng, syncs=1):
        self.folders = [os.path.join(folder, str(w)) for w in range(workers)]
        self.journals = [os.path.join(outside, f"journal{number}.{w}") for w in range(workers)]
        context = multiprocessing.get_context("fork")
        self.processes = [
            context.Process(target=work, args=(f, j, rng.getrandbits(60), syncs)) for f, j in zip(self.folders, self.journals)
        ]
        for p in self.processes:
            p.start()

    def wait_for_start(self):
        """No worker starts later than that, so that there is a load to be cut off."""
        end = time.monotonic() + 30
        while not all(os.path.exists(j) and os.path.getsize(j) > 1000 for j in self.journals):
            if time.monotonic() > end or not self.runs():
                raise Failure("the load does not start: " + "".join(self.ends()))
            time.sleep(0.01)

    def runs(self):
        return all(p.is_alive() for p in self.processes)

    def end(self):
        """Once the daemon is dead: all workers are, in the end."""
        for p in self.processes:
            p.join(20)
            if p.is_alive():
                p.kill()
                p.join()

    def ends(self):
        for journal in self.journals:
            path = f"{journal}.end"
            if os.path.exists(path):
                with open(path, encoding="utf-8") as f:
                    yield f.read()
            else:
                yield "killed"

    def check_ends(self, expected=DEAD):
        for text in self.ends():
            number = text.split("\n", 1)[0]
            check(number.isdigit() and int(number) in expected, f"the load ended otherwise than by the cut: {text}")

    def verify(self, what):
        """After the remount. The journals go."""
        events = 0
        for folder, path in zip(self.folders, self.journals):
            try:
                journal = Journal(path)
                journal.verify(folder)
            except Damage as e:
                raise Failure(f"{what}, {path}: {e}") from None
            events += journal.events
            os.unlink(path)
            os.unlink(f"{path}.end")
        say(f"{what}: {events} events")
