#!/usr/bin/env python3
"""What a mount counts: every metric of the registry moves under a load that should move it, and sums are right."""

import contextlib
import http.client
import itertools
import mmap
import os
import random
import re
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import apfsmount
from apfsmount import MIB, PASSPHRASE, Volume, amount, check, need, run, stats, tool
from cli import fails

DASHBOARD = os.path.join(os.path.dirname(__file__), "../../docs/grafana.json")


class Seen:
    """The largest amount of each metric, over several mounts."""

    def __init__(self):
        self.most = {}

    def look(self, v):
        for name, metric in stats(v).items():
            self.most[name] = max(self.most.get(name, 0), amount(metric))

    def still(self):
        return sorted(name for name, most in self.most.items() if not most)

    def until(self, v, names, seconds, load):
        """Repeats the load until those have moved."""
        end = time.monotonic() + seconds
        while True:
            load()
            self.look(v)
            if not any(self.most[name] == 0 for name in names) or time.monotonic() > end:
                return

    def beside(self, v, names, seconds, *loads):
        """The same while they run, each again and again: what shows for a moment is seen, and there is no pause."""
        over = threading.Event()

        def again(load):
            while True:
                load()
                if over.is_set():
                    return

        with ThreadPoolExecutor(len(loads)) as pool:
            running = [pool.submit(again, load) for load in loads]
            try:
                self.until(v, names, seconds, lambda: time.sleep(0.05))
            finally:
                over.set()
            for load in running:
                load.result()


def write(path, data, sync=False):
    with open(path, "wb") as f:
        f.write(data)
        if sync:
            f.flush()
            os.fsync(f.fileno())


def write_past(path, data):
    """Past the kernel's cache, which hands over one file after the other."""
    with mmap.mmap(-1, len(data)) as pages:
        pages.write(data)
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
        try:
            os.write(fd, pages)
        finally:
            os.close(fd)


def drop(path):
    """The kernel forgets what it cached of a file."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# Gauges that are 0 but while data is being sealed.
PASSING = ("apfs_dirty_bytes", "apfs_queue_bytes", "apfs_queue_jobs", "apfs_workers_active")


def load_small_memory(seen):
    """Little memory: writers wait, frames are evicted, queue and workers are seen at work; compaction, and damage."""
    rng = random.Random(4)
    block = apfsmount.text(rng, MIB)
    with Volume("--memory", "32M", "--threads", "8") as v:
        # Made before: while Python is busy, nobody looks.
        mixed = b"".join((block, rng.randbytes(MIB))) * 20
        seen.beside(v, PASSING, 60, *(partial(write, v.path(f"mixed{i}"), mixed, sync=True) for i in range(2)))
        # Those that the commit interval takes first are not inline.
        seen.until(v, ["apfs_chunks_inline_total"], 30,
                   lambda: write(v.path("small"), b"a few bytes that somebody waits for", sync=True))

        def scatter():
            with open(v.path("random"), "wb") as f:
                for _ in range(4000):
                    f.seek(rng.randrange(4000) * 16384)
                    f.write(block[:4096])

        seen.until(v, ["apfs_memory_wait_seconds"], 30, scatter)

        # A piece of each frame, twice: what is larger goes past the cache. Who may not write is given the rest too.
        def read(mode):
            for i in range(2):
                drop(v.path(f"mixed{i}"))
                with open(v.path(f"mixed{i}"), mode) as f:
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                    for at in range(0, 40 * MIB, 65536):
                        os.pread(f.fileno(), 100, at + 4096)
                        os.pread(f.fileno(), 100, at + 32768)

        seen.until(v, ["apfs_cache_hits_total", "apfs_cache_evictions_total"], 30, lambda: read("r+b"))
        seen.until(v, ["apfs_cache_given_bytes_total"], 30, lambda: read("rb"))
        os.unlink(v.path("mixed0"))
        with open(v.path("mixed1"), "r+b") as f: # leaves a third alive, here and there
            for at in range(0, 40, 3):
                f.seek(at * MIB)
                f.write(bytes(2 * MIB))
        v.sync()
        run(tool("apfs"), "compact", "--all", v.mnt)
        v.sync()
        seen.look(v)
        write(v.path("victim"), rng.randbytes(4 * MIB), sync=True)
        v.remount()
        for path in v.segments():
            with open(path, "r+b") as f:
                size = os.fstat(f.fileno()).st_size
                f.seek(size - 1000)
                f.write(bytes(500))
        try:
            apfsmount.get(v.path("victim"))
        except OSError:
            pass
        seen.look(v)


def load_codecs(seen):
    data = apfsmount.text(random.Random(5), MIB)
    for codec in ("lz4", "zstd", "brotli:1"):
        with Volume("--compress", codec) as v:
            write(v.path("f"), data, sync=True)
            seen.look(v)


def load_alert(seen):
    """Compression that keeps every processor busy for an interval of the sampler. Each writer waits until its file is
    stored, and none is overwritten: once it is over, there is nothing left to compress, nor to compact."""
    data = apfsmount.text(random.Random(6), MIB)
    names = itertools.count()
    with Volume("--compress", "brotli:11", "--workers", "16") as v:
        seen.beside(v, ["apfs_alerts_total", "apfs_cpu_saturation_ratio", "apfs_io_saturation_ratio",
                        "apfs_memory_saturation_ratio"], 60,
                    *[lambda: write(v.path(f"f{next(names)}"), data, sync=True)] * 3)
        check("processors are busy" in v.log_tail(), f"no alert in the log: {v.log_tail()}")


@contextlib.contextmanager
def spinners(count):
    """Processes that do nothing but use processors."""
    code = f"import os\nwhile os.getppid() == {os.getpid()}:\n for _ in range(1000000): pass"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for p in started:
            p.kill()
            p.wait()


def load_feedback(seen):
    """Others use the processors, and the level is moved; memory is short, and chunks are, where the level is fixed."""
    data = apfsmount.text(random.Random(8), 2 * MIB) * 4
    # Brotli takes longer for the data than whoever brings it, so that samples agree.
    with spinners(2 * os.cpu_count()), Volume("--memory", "32M", "--compress", "brotli") as v:
        seen.beside(v, ["apfs_feedback_level_steps"], 60, lambda: write(v.path("f"), data))
        check(seen.most["apfs_feedback_level_steps"], f"the level was not moved: {run(tool('apfs'), 'info', v.mnt)}")
    with Volume("--memory", "32M", "--compress", "brotli:9") as v: # one file alone does not get that much
        seen.beside(v, ["apfs_feedback_chunk_halvings"], 60,
                    *(partial(write_past, v.path(f"f{i}"), data) for i in range(3)))
        check(seen.most["apfs_feedback_chunk_halvings"], f"chunks were not halved: {run(tool('apfs'), 'info', v.mnt)}")


def registry():
    """Every metric there is has moved."""
    need()
    seen = Seen()
    load_small_memory(seen)
    load_codecs(seen)
    load_alert(seen)
    load_feedback(seen)
    check(len(seen.most) > 50, f"only {len(seen.most)} metrics")
    check(not seen.still(), f"never moved: {' '.join(seen.still())}")


def sums():
    """What was written and read through the kernel is what was counted, and what STORE holds."""
    need()
    rng = random.Random(7)
    size = 8 * MIB
    with Volume() as v:
        write(v.path("f"), rng.randbytes(size), sync=True)
        s = stats(v)
        check(s["apfs_write_bytes_total"]["value"] == size, f"{s['apfs_write_bytes_total']} were written")
        check(s["apfs_chunk_plain_bytes_total"]["value"] == size, f"{s['apfs_chunk_plain_bytes_total']} were sealed")
        stored = sum(os.path.getsize(path) for path in v.segments())
        appended = s["apfs_append_bytes_total"]["value"]
        check(size < appended <= stored <= appended + 1000, f"{appended} were appended, {stored} are there")
        check(s["apfs_sync_bytes_total"]["value"] == appended, "what was appended is not what was synced")
        check(s["apfs_fsync_seconds"]["count"] == 1, f"{s['apfs_fsync_seconds']['count']} fsyncs")
        drop(v.path("f"))
        apfsmount.get(v.path("f"))
        check(stats(v)["apfs_read_bytes_total"]["value"] == size, "what was read is not what was counted")


# --- how they are shown -----------------------------------------------------------------------------------------------


def prometheus(text):
    """{name: value} of the text format, and {name: type}; fails on anything that is not a line of it."""
    values, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = re.fullmatch(r'([a-z0-9_]+(?:\{le="[^"]+"\})?) ([0-9.e+-]+)', line)
            check(match, f"not a line of Prometheus: {line}")
            values[match[1]] = float(match[2])
    return values, types


def formats():
    """Text, JSON, Prometheus on the socket and over HTTP show the same metrics; the dashboard knows no others."""
    need()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with Volume("--metrics-listen", f"127.0.0.1:{port}") as v:
        write(v.path("f"), bytes(MIB), sync=True)
        names = stats(v)
        values, types = prometheus(run(tool("apfs"), "stats", "--prometheus", v.mnt))
        check(types == {name: m["type"] for name, m in names.items()}, "JSON and Prometheus differ")
        check(values["apfs_write_bytes_total"] == MIB, "Prometheus shows another sum")
        check(values['apfs_fsync_seconds_bucket{le="+Inf"}'] == values["apfs_fsync_seconds_count"] == 1, "a histogram")
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            check(answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"), "the type of the answer")
            check(prometheus(answer.read().decode())[1] == types, "HTTP and the socket differ")
        for request in (f"{url}/", urllib.request.Request(f"{url}/metrics", data=b"x")):
            try:
                urllib.request.urlopen(request, timeout=10).close()
                check(False, "answers anything")
            except urllib.error.HTTPError as e:
                check(e.code in (404, 405), f"answers {e.code}")
        with contextlib.ExitStack() as idle:
            for _ in range(12):
                idle.enter_context(socket.create_connection(("127.0.0.1", port)))
            other = idle.enter_context(contextlib.closing(
                http.client.HTTPConnection("127.0.0.1", port, timeout=5, source_address=("127.0.0.2", 0))))
            other.request("GET", "/metrics")
            check(other.getresponse().status == 200, "one address takes all connections")
        with open(DASHBOARD, encoding="utf-8") as f:
            known = set(re.findall(r"apfs_[a-z0-9_]+", f.read()))
        series = {re.sub(r"\{.*", "", name) for name in values}
        check(known <= series, f"the dashboard asks for what there is not: {known - series}")
        check(set(names) <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in known},
              f"the dashboard leaves out {set(names) - known}")
        text = run(tool("apfs"), "stats", v.mnt)
        check("1.0MB" in text and "compress" in text, f"not a table: {text}")
        check("feedback     level +0, large chunks 1/1" in text, f"no feedback: {text}")
        fails(24, f"127.0.0.1:{port}", tool("apfs-mount"), "--passfile", v.passfile, "--metrics-listen",
              f"127.0.0.1:{port}", *second_store(v))


def second_store(v):
    store, mnt = os.path.join(v.root, "store2"), os.path.join(v.root, "mnt2")
    run(tool("apfs"), "init", "--passfile", v.passfile, *apfsmount.FAST, store)
    os.mkdir(mnt)
    return store, mnt


def watching():
    """--watch goes on, a line a time, and ends with the mount."""
    need()
    with Volume() as v:
        with subprocess.Popen([tool("apfs"), "stats", "--watch=50ms", v.mnt], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as p:
            lines = [p.stdout.readline() for _ in range(6)]
            v.umount()
            p.stdout.read()
            check(p.wait(30) == 30 and "the mount is gone" in p.stderr.read(), "does not say that the mount is gone")
        check(lines[0].split()[0] == "write" and lines[2].count(".") >= 4, f"other lines: {lines}")


def died():
    """The mount's process is killed: every command says so, and apfs umount takes away what is left."""
    need()
    with Volume() as v:
        write(v.path("f"), b"data")
        with subprocess.Popen([tool("apfs"), "stats", "--watch=50ms", v.mnt], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as p:
            for _ in range(3):
                p.stdout.readline()
            v.daemon.kill()
            v.daemon.wait(60)
            v.daemon = None
            p.stdout.read()
            check(p.wait(30) == 30 and "the mount is gone" in p.stderr.read(), "does not say that the mount is gone")
        for command in ("stats", "config", "sync", "compact"):
            fails(30, "process has died", tool("apfs"), command, v.mnt)
        fails(2, "unmounted, but its process had died", tool("apfs"), "umount", v.mnt)
        check(not apfsmount.mounted(v.mnt), "it is still mounted")


def ask_as_nobody(path):
    """The beginning of the answer to another user; None: cut off."""
    got, give = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = b""
        try:
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                s.sendall(b"json\n")
                answer = s.recv(100)
        except ConnectionError:
            pass
        finally:
            os.write(give, answer or b"-")
            os._exit(0)
    os.close(give)
    with open(got, "rb") as f:
        answer = f.read()
    os.waitpid(pid, 0)
    return None if answer == b"-" else answer


def drip(s, over):
    """A byte now and then, and never a line; until cut off."""
    with contextlib.suppress(OSError):
        while not over.wait(0.2):
            s.sendall(b"x")


def stuck():
    """Who asks and does not go on holds up neither others, nor the unmount."""
    need()
    with Volume() as v, contextlib.ExitStack() as open_ones:
        path = os.getxattr(v.mnt, "user.apfs.control").decode()

        def connect():
            s = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            s.connect(path)
            return s

        for _ in range(4):
            connect()
        check(amount(stats(v)["apfs_uptime_seconds"]) > 0, "does not answer after some who say nothing")
        over = threading.Event()
        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(drip, connect(), over)
            try:
                time.sleep(0.2)
                start = time.monotonic()
                v.umount()
                took = time.monotonic() - start
            finally:
                over.set()
        check(took < 5, f"the unmount took {took:.1f} s")


def private():
    """The socket is the mounting user's alone, goes with the mount, and does not hang on who says nothing."""
    need()
    with Volume() as v:
        path = os.getxattr(v.mnt, "user.apfs.control").decode()
        check(stat.S_IMODE(os.stat(path).st_mode) == 0o600, "others may open it")
        check(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700, "others may see it")
        with socket.socket(socket.AF_UNIX) as mute, socket.socket(socket.AF_UNIX) as odd:
            mute.connect(path)
            odd.connect(path)
            odd.sendall(b"no such question\n")
            check(odd.recv(1000).startswith(b"!"), "answers any question")
            check(amount(stats(v)["apfs_uptime_seconds"]) > 0, "does not answer beside others")
        leftover = os.path.join(os.path.dirname(path), "999999999.sock")
        write(leftover, b"")
        v.remount()
        check(not os.path.exists(path), "the socket outlives the mount")
        check(not os.path.exists(leftover), "what a killed process left stays")
        if os.getuid() == 0:
            path = os.getxattr(v.mnt, "user.apfs.control").decode()
            os.chmod(os.path.dirname(path), 0o711)
            os.chmod(path, 0o666)
            try:
                check(ask_as_nobody(path) is None, "answers anybody")
            finally:
                os.chmod(os.path.dirname(path), 0o700)


def switched_off():
    """--no-metrics: there is nothing to ask for, and all else works."""
    need()
    with Volume("--no-metrics") as v:
        write(v.path("f"), b"data", sync=True)
        fails(2, "switched off", tool("apfs"), "stats", v.mnt)
        config = run(tool("apfs"), "config", v.mnt)
        check(re.search("^no-feedback +yes +default$", config, re.M), f"feedback without measuring: {config}")
        check(apfsmount.get(v.path("f")) == b"data", "other data")
        store = second_store(v)
        fails(1, "no-metrics", tool("apfs-mount"), "--no-metrics", "--metrics-listen", "127.0.0.1:1", *store)
        conf = os.path.join(v.root, "conf")
        write(conf, b"metrics-listen = 127.0.0.1:1\n")
        both = (tool("apfs-mount"), "--passfile", v.passfile, "--config", conf, "--no-metrics", *store)
        check("conf:1: metrics-listen: with no-metrics there are none" in run(*both), "nothing said about nothing served")
        said = run(tool("apfs"), "config", store[1])
        run(tool("apfs"), "umount", store[1])
        check(re.search("^metrics-listen +\\(off\\) ", said, re.M), f"served all the same: {said}")
        for wrong in ("9750", "localhost:", "localhost:80", "127.0.0.1:http", "[::1", "1.2.3.4:99999", "127.0.0.1:", "127.0.0.1:0", "[::1]:00"):
            fails(1, "metrics-listen", tool("apfs-mount"), "--metrics-listen", wrong, *store, input=PASSPHRASE)
        fails(30, "not an apfs mount", tool("apfs"), "stats", v.root)


apfsmount.main(sums, formats, watching, died, stuck, private, switched_off, registry)
