"""The command line: what is said, exit statuses, where passphrases come from, mount(8), signals."""

import contextlib
import errno
import os
import re
import shutil
import signal
import sqlite3
import subprocess

from apfsmount import FAST, PASSPHRASE, Skip, Volume, check, flip, get, main, mounted, need, put, run, say, tool, wait_for
from cli import at_terminal, fails

BUILD = os.environ.get("APFS_BUILD", "")


def daemons(store):
    """Process ids of apfs-mount that serve the store."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
            if os.fsencode(store) in words and b"apfs" in os.path.basename(words[0]):
                found.append(int(pid))
    return found


def threads(pid):
    """Their names."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm", encoding="ascii") as f:
            found.append(f.read().strip())
    return found


def gone(pid):
    def over():
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True

    return over


@contextlib.contextmanager
def background(v, *argv, **options):
    """A mount in the background, as people have it."""
    run(*argv, **options)
    check(mounted(v.mnt) == "fuse.apfs", f"mounted is {mounted(v.mnt)}")
    (pid,) = daemons(v.store)
    try:
        yield pid
    finally:
        subprocess.run(["umount", "-l", v.mnt], check=False, stderr=subprocess.DEVNULL)
        with contextlib.suppress(ProcessLookupError, Exception):
            wait_for(gone(pid), 20, "")
        if not gone(pid)():
            os.kill(pid, signal.SIGKILL)


def help_texts():
    need()
    commands = ("init", "info", "passwd", "key", "export-index", "check", "compact", "config", "sync", "umount")
    for argv in ([tool("apfs-mount")], [tool("apfs")], *([tool("apfs"), c] for c in commands)):
        out = run(*argv, "--help")
        check("STORE" in out or "MOUNT" in out or "PATH" in out, f"{argv} --help: {out}")
        if len(argv) == 1:
            check(re.search(r"\d+\.\d+", run(*argv, "--version")), "--version has no number")
    for status in (10, 11, 13, 20, 23):
        check(f" {status}  " in run(tool("apfs-mount"), "--help"), f"--help does not list status {status}")


def usage_errors():
    need()
    status, out = run(tool("apfs-mount"), status=None)
    check(status == 1 and "STORE" in out, f"{status} {out}")
    status, out = run(tool("apfs"), status=None)
    check(status == 1, f"{status} {out}")
    fails(1, "nonsense", tool("apfs"), "nonsense")
    fails(1, "3 birds", tool("apfs-mount"), "--memory", "3 birds", "/a", "/b")
    fails(1, "unknown_word", tool("apfs-mount"), "/a", "/b", "-o", "unknown_word")
    fails(1, "commit-interval", tool("apfs-mount"), "--commit-interval=never", "/a", "/b")
    fails(1, "compress", tool("apfs-mount"), "--compress=rar", "/a", "/b")
    fails(1, "-5 to 19", tool("apfs-mount"), "--compress=zstd:0", "/a", "/b")
    status, out = run(tool("apfs-mount"), "--nonsense", "/a", "/b", status=None)
    check(status == 1 and "nonsense" in out, f"{status} {out}")


def mount_errors():
    need()
    with Volume(mount=False) as v:
        mount = (tool("apfs-mount"), "--passfile", v.passfile)
        there = os.path.join(v.root, "there")
        os.mkdir(there)
        wrong = os.path.join(v.root, "wrong")
        put(wrong, b"wrong\n")
        fails(10, "not a store", *mount, os.path.join(v.root, "none"), v.mnt)
        fails(10, "not a store", *mount, there, v.mnt)
        fails(10, "not a store", *mount, wrong, v.mnt)
        fails(11, "wrong passphrase", tool("apfs-mount"), "--passfile", wrong, v.store, v.mnt)
        fails(12, "", tool("apfs-mount"), "--passfile", os.path.join(v.root, "none"), v.store, v.mnt)
        fails(12, "", tool("apfs-mount"), v.store, v.mnt, stdin=subprocess.DEVNULL)
        fails(12, "status 3", tool("apfs-mount"), "--extpass", "exit 3", v.store, v.mnt)
        fails(16, "already", tool("apfs"), "init", "--passfile", v.passfile, v.store)
        put(os.path.join(there, "file"))
        fails(16, "", tool("apfs"), "init", "--passfile", v.passfile, *FAST, there)
        fails(20, "mountpoint", *mount, v.store, os.path.join(v.root, "none"))
        fails(20, "not a directory", *mount, v.store, wrong)
        fails(22, "inside", *mount, v.store, v.store)
        os.mkdir(os.path.join(v.store, "sub"))
        fails(22, "inside", *mount, v.store, os.path.join(v.store, "sub"))
        os.rmdir(os.path.join(v.store, "sub"))
        fails(22, "inside", *mount, v.store, v.root)
        fails(30, "", tool("apfs"), "sync", there)
        fails(30, "", tool("apfs"), "umount", there)
        fails(10, "", tool("apfs"), "info", there)
        fails(10, "not a store", tool("apfs"), "check", there, stdin=subprocess.DEVNULL)  # without asking
        check(not daemons(v.store) and not mounted(v.mnt), "a failed mount leaves something behind")
        v.mount()
        more = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + 1
        fails(1, "of this machine", tool("apfs-mount"), "--memory", more, v.store, there, stdin=subprocess.DEVNULL)
        fails(13, f"process {v.daemon.pid} on ", *mount, v.store, there)
        run(tool("apfs"), "init", "--passfile", v.passfile, *FAST, os.path.join(v.root, "second"))
        fails(21, "mounted", *mount, os.path.join(v.root, "second"), v.mnt)
        with open(v.path("f"), "w", encoding="ascii"):
            fails(31, "busy", tool("apfs"), "umount", v.mnt)
        v.umount()


def no_fuse():
    """In a mount namespace whose /dev lacks it."""
    need("unshare", root=True)
    with Volume(mount=False) as v:
        script = 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && exec "$@"'
        argv = ("unshare", "-m", "sh", "-c", script, "sh", tool("apfs-mount"), "--passfile", v.passfile, v.store, v.mnt)
        fails(23, "fuse", *argv)


def damaged_superblock():
    need()
    with Volume(mount=False) as v:
        mount = (tool("apfs-mount"), "--passfile", v.passfile)
        for name in ("superblock", "superblock.bak"):
            flip(os.path.join(v.store, name), 4096)
        fails(15, "", *mount, v.store, v.mnt)
        for name in ("superblock", "superblock.bak"):
            put(os.path.join(v.store, name), b"")
        status, out = run(*mount, v.store, v.mnt, status=None)
        check(status in (10, 15) and out.count("\n") == 1, f"{status} {out}")


def passphrases():
    """From a file, a command, standard input, a terminal."""
    need()
    with Volume(mount=False) as v:
        apfs_mount, places = tool("apfs-mount"), (v.store, v.mnt)
        for argv, options in (
            ((apfs_mount, "--passfile", v.passfile, *places), {}),
            ((apfs_mount, *places, "--extpass", f"cat '{v.passfile}'"), {}),
            ((apfs_mount, *places), {"input": PASSPHRASE + "\nmore"}),
            ((apfs_mount, *places, "-o", f"passfile={v.passfile},memory=64M"), {}),
        ):
            with background(v, *argv, **options) as pid:
                put(v.path("f"))
                run(tool("apfs"), "umount", v.mnt)
                check(gone(pid)(), "umount returned before the daemon's end")
        status, out = at_terminal((apfs_mount, *places), (PASSPHRASE,))
        pids = daemons(v.store)
        try:
            check(status == 0 and PASSPHRASE not in out, f"at a terminal: {status} {out}")
            check(get(v.path("f")) == b"data", "another file")
            run(tool("apfs"), "umount", v.mnt)
        finally:
            subprocess.run(["umount", "-l", v.mnt], check=False, stderr=subprocess.DEVNULL)
            for pid in pids:
                wait_for(gone(pid), 20, "the daemon does not end")
        status, out = at_terminal((tool("apfs"), "init", *FAST, os.path.join(v.root, "new")), ("one", "two"))
        check(status == 12 and "differ" in out, f"two passphrases: {status} {out}")
        status, out = at_terminal((tool("apfs"), "init", *FAST, os.path.join(v.root, "new")), ("one", "one"))
        check(status == 0, f"init at a terminal: {status} {out}")


def passwd():
    need()
    with Volume(mount=False) as v:
        new = os.path.join(v.root, "new")
        put(new, b"the new one\n")
        fails(11, "wrong passphrase", tool("apfs"), "passwd", "--passfile", new, "--new-passfile", new, v.store)
        run(tool("apfs"), "passwd", "--passfile", v.passfile, "--new-passfile", new, v.store)
        fails(11, "wrong passphrase", tool("apfs-mount"), "--passfile", v.passfile, v.store, v.mnt)
        run(tool("apfs"), "passwd", v.store, input=f"the new one\n{PASSPHRASE}\n")
        v.mount()


def export_index():
    """A plaintext copy of the index, that only its owner can read."""
    need()
    with Volume(mount=True) as v:
        put(v.path("a name to look for"))
        copy = os.path.join(v.root, "copy")
        export = (tool("apfs"), "export-index", "--passfile", v.passfile, v.store)
        fails(13, "in use", *export, copy)
        check(not os.path.exists(copy), "a refused export left a file")
        v.umount()
        for folder, _, names in os.walk(v.store):
            for name in names:
                data = get(os.path.join(folder, name))
                check(b"a name to look for" not in data and b"SQLite" not in data, f"{name} is plain")
        check("plaintext" in run(*export, copy), "no warning that it is plaintext")
        check(os.stat(copy).st_mode & 0o777 == 0o600, f"mode {os.stat(copy).st_mode:o}")
        db = sqlite3.connect(copy)
        check(db.execute("SELECT name FROM dirent").fetchall() == [(b"a name to look for",)], "other names")
        check(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "the copy is damaged")
        db.close()
        status, out = run(*export, copy, status=None)
        check(status and "cannot be made" in out, f"an existing file: {status} {out}")
        status, out = run(*export, os.path.join(v.root, "none", "copy"), status=None)
        check(status and "cannot be made" in out, f"no directory: {status} {out}")
        flip(os.path.join(v.store, "index.db"), 4096 + 77)
        other = os.path.join(v.root, "other")
        status, out = run(*export, other, status=None)
        check(status == 15 and "page 2 is damaged" in out, f"a damaged page: {status} {out}")
        check(not os.path.exists(other), "a part of the index was left")


def signals():
    """SIGTERM, SIGINT and SIGHUP end cleanly: all is durable, the mount is gone, the status 0."""
    need()
    with Volume(mount=False) as v:
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            v.mount()
            put(v.path(sig.name), b"x" * 100000)
            v.daemon.send_signal(sig)
            check(v.daemon.wait(60) == 0, f"{sig.name}: status {v.daemon.returncode}: {v.log_tail()}")
            v.daemon = None
            check(not mounted(v.mnt), f"{sig.name} leaves the mount")
        v.mount()
        check(sorted(os.listdir(v.mnt)) == ["SIGHUP", "SIGINT", "SIGTERM"], "names are missing")
        check(all(len(get(v.path(n))) == 100000 for n in os.listdir(v.mnt)), "data is missing")


def syncs():
    """apfs sync, then a kill: everything is there."""
    need()
    with Volume("--commit-interval", "1h") as v:
        for name in ("a", "b"):
            put(v.path(name), b"y" * 50000)
        v.sync()
        put(v.path("later"))
        v.kill()
        v.mount()
        check({"a", "b"} <= set(os.listdir(v.mnt)) and len(get(v.path("b"))) == 50000, "synced files are missing")


def at_once():
    """umount(2) returns before the daemon has ended; what mounts the store next waits for it."""
    need(root=True)
    with Volume(mount=False) as v:
        mount = (tool("apfs-mount"), "--passfile", v.passfile, v.store, v.mnt)
        for n in range(8):
            run(*mount)
            left = daemons(v.store)
            put(v.path(f"f{n}"), os.urandom(4 << 20))
            run("umount", "-i", v.mnt)
        for pid in left:
            wait_for(gone(pid), 20, "the daemon does not end")
        v.mount()
        check(len(os.listdir(v.mnt)) == 8, f"{os.listdir(v.mnt)}")
        os.mkdir(v.root + "/other")
        fails(13, "in use", *mount[:-1], v.root + "/other")


def named():
    """df shows STORE, or the name that the mount was given."""
    need()
    with Volume() as v:
        for options, name in ((), v.store), (("-o", "noatime,fsname=a name"), "a name"):
            v.remount(*options)
            found = run("findmnt", "-n", "-o", "SOURCE,FSTYPE", "--mountpoint", v.mnt).strip()
            check(found.split() == [*name.split(), "fuse.apfs"], f"mounted as {found}, not {name}")


def read_only():
    need()
    with Volume() as v:
        put(v.path("f"))
        for options in (("--ro",), ("-o", "ro")):
            v.remount(*options)
            check(get(v.path("f")) == b"data", "another file")
            for call in (lambda: put(v.path("g")), lambda: os.unlink(v.path("f")), lambda: os.chmod(v.path("f"), 0o600)):
                try:
                    call()
                    check(False, "a write succeeded on a read-only mount")
                except OSError as e:
                    check(e.errno == 30, f"{e}, not EROFS")


def info():
    need()
    with Volume(init=("--cipher", "xchacha20-poly1305")) as v:
        put(v.path("f"), b"text " * 100000)
        v.sync()
        out = run(tool("apfs"), "info", v.store)
        for word in ("format", "uuid", "xchacha20-poly1305", "slot", "Argon2id"):
            check(word in out, f"info of a store lacks {word}:\n{out}")
        out = run(tool("apfs"), "info", v.mnt)
        for word in ("inodes", "logical", "ratio", "segments", "dead"):
            check(word in out, f"info of a mount lacks {word}:\n{out}")
        out = run(tool("apfs"), "info", v.path("f"))
        for word in ("chunks", "frames", "zstd", "ratio", "compression:", "the mount's", "decided by:", "small files"):
            check(word in out, f"info of a file lacks {word}:\n{out}")
        os.mkfifo(v.path("fifo"))
        fails(10, "neither a store nor a file or directory under an apfs mount", tool("apfs"), "info", v.path("fifo"))
        check(get_attribute(v.path("f"), "user.apfs.info") == out.encode(), "the attribute says something else")


def get_attribute(path, name):
    return os.getxattr(path, name).rstrip(b"\n") + b"\n"


def preferences():
    """Extended attributes that say how a directory's files are stored."""
    need()
    with Volume() as v:
        os.mkdir(v.path("d"))
        os.setxattr(v.path("d"), "user.apfs.compression", b"lz4")
        os.setxattr(v.path("d"), "user.apfs.priority", b"speed")
        for name in ("d/f", "g"):
            put(v.path(name), b"text " * 10000)
        for name, value in (("user.apfs.compression", b"rar"), ("user.apfs.priority", b""), ("user.apfs.info", b"x")):
            try:
                os.setxattr(v.path("d"), name, value)
                check(False, f"{name} can be {value}")
            except OSError as e:
                check(e.errno == (errno.EPERM if name.endswith("info") else errno.EINVAL), f"{name}: {e}")
        check(os.listxattr(v.path("d/f")) == ["user.apfs.compression", "user.apfs.priority"], os.listxattr(v.path("d/f")))
        check(os.listxattr(v.path("g")) == [], os.listxattr(v.path("g")))
        v.remount()
        for name, codec, source in (("d/f", "lz4", "said by user.apfs.compression"), ("g", "zstd", "the mount's")):
            out = run(tool("apfs"), "info", v.path(name))
            check(f"codecs:          {codec} " in out and source in out, f"info of {name}:\n{out}")
        check("said by user.apfs.priority" in run(tool("apfs"), "info", v.path("d")), "info of a directory")
        v.remount("--compress", "zstd:3")  # which comes first
        put(v.path("d/f"), b"text " * 10000)
        v.sync()
        check("codecs:          zstd " in run(tool("apfs"), "info", v.path("d/f")), "the attribute came first")


def config():
    """A configuration file, what comes before it, and what is wrong with one."""
    need()
    with Volume(mount=False) as v:
        own = os.path.join(v.root, "apfs.conf")
        put(own, b"# ours\nmemory = 64M\ncompress = lz4\nworkers = 1\n")
        v.mount("--config", own, "--compress", "zstd:9", "-o", "commit_interval=2s,no-compact")
        said = {line.split()[0]: line.split(None, 2)[1:] for line in run(tool("apfs"), "config", v.mnt).splitlines()}
        for name, value, source in (
            ("memory", "64M", f"{own}:2"),
            ("compress", "zstd:9", "command line"),
            ("workers", "1", f"{own}:4"),
            ("commit-interval", "2s", "command line"),
            ("no-compact", "yes", "command line"),
            ("log-level", "info", "default"),
        ):
            check(said.get(name) == [value, source], f"{name}: {said.get(name)}")
        check(int(said["threads"][0]) >= 2, f"threads: {said['threads']}")  # what the machine made of it
        check(int(said["cpu-tokens"][0]) >= 1, f"CPU tokens: {said['cpu-tokens']}")
        check(said["io-tokens"][0] in ("4", "12", "24"), f"I/O tokens: {said['io-tokens']}")
        check("compression:     zstd:9" in run(tool("apfs"), "info", v.mnt), "another codec is used")
        check("; 0 of 1 workers" in run(tool("apfs"), "stats", v.mnt), "not one worker")
        v.umount()
        fails(30, "not an apfs mount", tool("apfs"), "config", v.mnt)
        mount = (tool("apfs-mount"), "--passfile", v.passfile, "--config", own, v.store, v.mnt)
        put(own, b"memory = 64M\nworkers = 99\n")
        fails(1, f"{own}:2: workers: '99' is not a number from 1 to 32", *mount)
        put(own, b"colour = blue\n")
        fails(1, f"{own}:1: there is no setting 'colour'", *mount)
        put(own, b"# ours\nmemory = 15T\n")
        fails(1, f"{own}:2: memory: 15.0TB is more than the ", *mount)
        os.unlink(own)
        fails(1, "No such file", *mount)
        put(own, b"idle = 10m\nthreads = 3\nmetrics-listen = 127.0.0.1:1\nlog = /nonexistent/log\n")
        v.mount("--config", own, "--idle", "never", "-o", "threads=auto,metrics-listen=off,log=default")
        said = {line.split()[0]: line.split(None, 1)[1] for line in run(tool("apfs"), "config", v.mnt).splitlines()}
        check(re.fullmatch(r"\(never\) +command line", said["idle"]), f"idle: {said['idle']}")
        check(re.fullmatch(r"stderr +command line", said["log"]), f"log: {said['log']}")


def effective():
    """What memory and the format leave of what was asked for is shown, and is what happens."""
    need()
    for options, expected in (
        (("--memory=32M", "--threads=32", "--workers=32"), {"threads": "32", "workers": "32"}),
        (("--memory=64M", "--chunk-size=512M"), {"chunk-size": "512M"}),
        (("--chunk-size=1",), {"chunk-size": "1"}),
        (("--chunk-size=1M", "--workers=01"), {}),
        (("--no-governance", "--cpu-tokens=3"), {"cpu-tokens": "3"}),
    ):
        with Volume(*options) as v:
            said = {line.split()[0]: line.split(None, 2)[1:] for line in run(tool("apfs"), "config", v.mnt).splitlines()}
            asked = {name: source.split("asked for ")[1] for name, (_, source) in said.items() if "asked for" in source}
            check(asked == expected, f"{options}: {said}")
            for name, comm in (("threads", "apfs-fuse"), ("workers", "apfs-worker")):
                if name in expected:
                    real = threads(int(os.getxattr(v.mnt, "user.apfs.pid"))).count(comm)
                    check(real < 32 and said[name][0] == str(real), f"{real} {name}: {said[name]}")
            if "chunk-size" in expected:
                put(v.path("f"), os.urandom(40 << 20))
                v.sync()
                info = run(tool("apfs"), "info", v.path("f"))
                told = re.search("in sequence .* chunks of ([0-9.]+)(KB|MB)", info)
                real = re.search("chunks: .* of (?:.* to )?([0-9.]+)(KB|MB) ", info)
                check(told.groups() == real.groups(), info)
                check(said["chunk-size"][0] == f"{float(told[1]):.0f}{told[2][0]}", f"{said['chunk-size']}, {info}")


def formats():
    """Every suite and codec carries data."""
    need()
    data = bytes(range(256)) * 2000
    for suite in ("aes-256-gcm", "chacha20-poly1305", "xchacha20-poly1305"):
        with Volume(init=("--cipher", suite)) as v:
            codecs = ("off", "lz4", "zstd", "zstd:5", "brotli")
            for codec in codecs:
                v.remount("--compress", codec)
                put(v.path(codec), data)
            v.remount()
            for codec in codecs:
                check(get(v.path(codec)) == data, f"{suite} {codec}: other data")


def init_and_mount():
    need()
    with Volume(mount=False) as v:
        shutil.rmtree(v.store)
        argv = (tool("apfs-mount"), "--init", *FAST, "--passfile", v.passfile, v.store, v.mnt)
        for _ in range(2):
            with background(v, *argv):
                put(v.path("f"))
                run(tool("apfs"), "umount", v.mnt)


def init_settings():
    """What a new store is made with: the command line's before the file's, the default among them."""
    need()
    with Volume(mount=False) as v:
        own = os.path.join(v.root, "apfs.conf")
        put(own, b"cipher = xchacha20-poly1305\nkdf-ops = 2\nkdf-mem = 8M\n")
        argv = (tool("apfs"), "init", "--config", own, "--passfile", v.passfile)
        run(tool("apfs"), "init", "--passfile", v.passfile, *FAST, "--cipher", "auto", os.path.join(v.root, "auto"))
        cipher = re.search("cipher: .*", run(tool("apfs"), "info", os.path.join(v.root, "auto")))[0]
        for n, (options, texts) in enumerate((
            ((), ("xchacha20", "2 passes over 8.0MB")),
            (("--cipher", "auto", "--kdf-ops", "3"), (cipher, "3 passes over 8.0MB")),
            (("--cipher", "default", "--kdf-ops", "default"), (cipher, "3 passes over 8.0MB")),
        )):
            store = os.path.join(v.root, str(n))
            run(*argv, *options, store)
            out = run(tool("apfs"), "info", store)
            check("xchacha20" not in cipher and all(text in out for text in texts), f"{options}: {texts}\n{out}")
        put(own, b"cipher = rot13\n")
        fails(1, f"{own}:1: cipher", *argv, os.path.join(v.root, "none"))


def logs():
    """A log file gets what the mount says, and no names of files."""
    need()
    with Volume(mount=False) as v:
        log = os.path.join(v.root, "its log")
        with background(v, tool("apfs-mount"), "--passfile", v.passfile, "--log", log, v.store, v.mnt):
            put(v.path("a secret name"))
            run(tool("apfs"), "umount", v.mnt)
        text = get(log)
        check(text and b"secret" not in text, f"the log: {text}")
        check(os.stat(log).st_mode & 0o777 == 0o600, "others may read the log")


HELPER = """
set -e
mkdir "$ROOT/sbin"
ln -s "$BIN/apfs-mount" "$ROOT/sbin/mount.fuse.apfs"
ln -s "$BIN/apfs" "$ROOT/sbin/umount.fuse.apfs"
mount -t overlay -o "ro,lowerdir=$ROOT/sbin:/usr/sbin" none /usr/sbin || exit 77
mount -t fuse.apfs -o "passfile=$ROOT/pass,noatime" "$ROOT/store" "$ROOT/mnt"
echo by mount > "$ROOT/mnt/f"
findmnt -n -o FSTYPE,SOURCE,OPTIONS "$ROOT/mnt"
mount -o remount,ro,nosuid "$ROOT/mnt"
findmnt -n -o OPTIONS "$ROOT/mnt" | grep '^ro,nosuid,.*noatime'
! touch "$ROOT/mnt/g" || exit 1
mount -o remount,rw,suid "$ROOT/mnt"
touch "$ROOT/mnt/g"
findmnt -n -o OPTIONS "$ROOT/mnt" | grep -v nosuid | grep '^rw,noatime'
umount "$ROOT/mnt"
! mount -t fuse.apfs -o remount,ro "$ROOT/store" "$ROOT/mnt" || exit 1
echo "$ROOT/store $ROOT/mnt fuse.apfs noauto,nofail,x-systemd.automount,memory=64M,passfile=$ROOT/pass 0 0" > "$ROOT/fstab"
mount -T "$ROOT/fstab" "$ROOT/mnt"
cat "$ROOT/mnt/f"
umount "$ROOT/mnt"
"$BIN/apfs-mount" --passfile "$ROOT/pass" "$ROOT/store" "$ROOT/mnt"
cat "$ROOT/mnt/f"
umount "$ROOT/mnt"
"""


def mount_helpers():
    """mount(8), an fstab line and umount(8), in a mount namespace where the helpers are in /sbin."""
    need("unshare", "findmnt", root=True)
    with Volume(mount=False) as v:
        env = {**os.environ, "ROOT": v.root, "BIN": os.path.realpath(os.path.dirname(tool("apfs")))}
        status, out = run("unshare", "-m", "sh", "-c", HELPER, status=None, env=env)
        left = daemons(v.store)
        for pid in left:
            os.kill(pid, signal.SIGTERM)
        if status == 77:
            raise Skip(f"no overlay: {out}")
        check(status == 0, f"status {status}:\n{out}")
        check(out.count("by mount") == 2 and "fuse.apfs" in out and v.store in out, out)
        check(not left, "umount(8) returned before the daemon's end")


OTHERS = """
set -e
mknod "$ROOT/fuse" c 10 229
chmod 666 "$ROOT/fuse"
mount --bind "$ROOT/fuse" /dev/fuse
apfs="$BIN/apfs"
as() { user=$1; shift; setpriv --reuid $user --regid $user --clear-groups env -u XDG_RUNTIME_DIR HOME=/ "$@"; }
# Somebody was first where a socket would be.
as 65534 mkdir -p -m 700 /tmp/apfs-65534
mkdir "$ROOT/first"
mount --bind "$ROOT/first" /tmp/apfs-65534
as 65534 "$BIN/apfs-mount" --init $FAST --log /dev/null --passfile "$ROOT/pass" "$ROOT/store" "$ROOT/mnt"
as 65534 cp "$ROOT/pass" "$ROOT/mnt/f"
! ls "$ROOT/mnt" || exit 77
for command in stats config sync umount; do
    echo "$command: $(! as 65533 $apfs $command "$ROOT/mnt" 2>&1)"
done
$apfs stats "$ROOT/mnt"
$apfs config "$ROOT/mnt"
$apfs info "$ROOT/mnt"
cd "$ROOT"
$apfs info mnt/f
$apfs sync mnt
as 65534 chmod 0 mnt/f
echo "unreadable: $(! as 65534 $apfs info mnt/f 2>&1)"
sockets=$(dirname $(as 65534 python3 -c 'import os; print(os.getxattr("mnt", "user.apfs.control").decode())'))
test -d $sockets -a $(stat -c %a $sockets) = 700
$apfs umount mnt
! findmnt "$ROOT/mnt"
! test -e $sockets || exit 1
"""


def others():
    """Root is answered on what a user mounted for nobody else, and others are not."""
    need("unshare", "setpriv", "fusermount3", root=True)
    with Volume(mount=False) as v:
        os.chmod(v.root, 0o755)
        os.chmod(v.passfile, 0o644)
        shutil.rmtree(v.store)
        os.mkdir(v.store)
        for path in (v.store, v.mnt):
            os.chown(path, 65534, 65534)
        env = {**os.environ, "FAST": " ".join(FAST), "ROOT": v.root, "BIN": os.path.realpath(os.path.dirname(tool("apfs")))}
        status, out = run("unshare", "-m", "sh", "-c", OTHERS, status=None, env=env)
        for pid in daemons(v.store):
            os.kill(pid, signal.SIGTERM)
        if status == 77:
            raise Skip("the kernel lets root in")
        check(status == 0, f"status {status}:\n{out}")
        check(out.count("Permission denied") == 1 + 4 + 1, f"others are answered:\n{out}")
        for text in ("wait: memory", "\nmemory  ", "inodes:", "compression:"):
            check(text in out, f"root is not told {text}:\n{out}")


def installed():
    """cmake --install puts everything where mount(8) and people look."""
    need("cmake")
    if not BUILD:
        raise Skip("APFS_BUILD does not name a build")
    with Volume(mount=False) as v:
        dest = os.path.join(v.root, "dest")
        run("cmake", "--install", BUILD, "--prefix", "/usr", env={**os.environ, "DESTDIR": dest})
        found = {os.path.join(folder, n)[len(dest) :] for folder, _, names in os.walk(dest) for n in names}
        say(" ".join(sorted(found)))
        for name in ("apfs", "apfs-mount"):
            check(f"/usr/bin/{name}" in found, f"{name} is not installed")
        for name in ("mount.fuse.apfs", "umount.fuse.apfs"):
            check(any(f.endswith(f"sbin/{name}") for f in found), f"{name} is not installed")


main(
    help_texts,
    usage_errors,
    mount_errors,
    no_fuse,
    damaged_superblock,
    passphrases,
    passwd,
    export_index,
    signals,
    syncs,
    at_once,
    named,
    read_only,
    info,
    preferences,
    config,
    effective,
    formats,
    init_and_mount,
    init_settings,
    logs,
    mount_helpers,
    others,
    installed,
)
