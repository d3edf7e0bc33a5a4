"""PostgreSQL: initdb with checksums, pgbench, SIGKILL of the server, SIGKILL of the mount below it, and its own checks."""

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import time

from place import Place, check, main, need, run, say, size, wait_for

NOBODY = 65534
SUMS = (
    "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), "
    "(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)"
)


def programs():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    need(os.path.join(found[-1] if found else "/usr/lib/postgresql", "initdb"))
    return found[-1]


class Server:
    """A cluster on the mount. The server does not run as root: as nobody, then, who may enter the folders."""

    def __init__(self, p):
        self.bin = programs()
        self.data = p.path("data")
        self.socket = p.native("s")
        self.p = p
        self.as_user = {}
        for folder in (self.data, self.socket):
            os.mkdir(folder, 0o700)
        if os.getuid() == 0:
            self.as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            for folder in (self.data, self.socket):
                os.chown(folder, NOBODY, NOBODY)
            os.chmod(p.v.root, 0o711)
            os.chmod(p.native(), 0o711)
        self.do("initdb", "-k", "-A", "trust", "-U", "postgres", "-D", self.data)

    def do(self, program, *argv, status=0):
        env = self.p.environment(PGHOST=self.socket, PGUSER="postgres", TZ="UTC")
        return run(os.path.join(self.bin, program), *argv, status=status, timeout=1800, cwd="/", env=env, **self.as_user)

    def start(self):
        options = f"-c listen_addresses= -c unix_socket_directories={self.socket} -c checkpoint_timeout=30s"
        self.do("pg_ctl", "-w", "-t", "120", "-D", self.data, "-l", self.p.native("s", "log"), "-o", options, "start")

    def stop(self):
        self.do("pg_ctl", "-w", "-m", "fast", "-D", self.data, "stop")

    def kill(self):
        """SIGKILL of the postmaster; its children end when they notice."""
        with open(os.path.join(self.data, "postmaster.pid"), encoding="ascii") as f:
            pid = int(f.readline())
        children = self.children(pid)
        for victim in (pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        wait_for(lambda: not any(os.path.exists(f"/proc/{v}") for v in (pid, *children)), 30, "PostgreSQL does not die")

    @staticmethod
    def children(pid):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return [int(child) for child in f.read().split()]

    def bench(self, seconds):
        return self.do("pgbench", "-n", "-c", "4", "-j", "2", "-T", str(seconds), "postgres")

    @contextlib.contextmanager
    def load(self):
        """pgbench in the background; the server dies under it."""
        env = self.p.environment(PGHOST=self.socket, PGUSER="postgres")
        argv = [os.path.join(self.bin, "pgbench"), "-n", "-c", "4", "-j", "2", "-T", "600", "postgres"]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, env=env, cwd="/", **self.as_user) as process:
            try:
                yield
            finally:
                process.kill()

    def query(self, text):
        return self.do("psql", "-XAtc", text, "postgres").strip()

    def sound(self):
        """All that pgbench moved adds up, and every table can be read and dumped."""
        sums = set(self.query(SUMS).split("|"))
        check(len(sums) == 1, f"pgbench's sums differ: {sums}")
        self.do("pg_dumpall", "-f", os.path.join(self.socket, "dump"))
        return int(self.query("SELECT count(*) FROM pgbench_history"))


def postgres(p: Place):
    s = Server(p)
    s.start()
    s.do("pgbench", "-i", "-q", "-s", str(size(1, 10)), "postgres")
    s.bench(size(1, 30))
    count = s.sound()
    with s.load():
        time.sleep(size(0.5, 5))
        s.kill()
    s.start()
    more = s.sound()
    check(more >= count, "committed transactions are gone after SIGKILL of PostgreSQL")
    # The mount dies below the server: what it had fsynced is there, so what it had committed is.
    with s.load():
        time.sleep(size(0.5, 5))
        done = int(s.query("SELECT count(*) FROM pgbench_history"))
        with open(os.path.join(s.data, "postmaster.pid"), encoding="ascii") as f:
            pid = int(f.readline())
        victims = (pid, *s.children(pid))
        p.v.kill()
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not any(os.path.exists(f"/proc/{v}") for v in victims), 30, "PostgreSQL does not die")
    p.v.mount()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(s.data, "postmaster.pid"))
    s.start()
    check(s.sound() >= done, "committed transactions are gone after SIGKILL of the mount")
    s.stop()
    s.do("pg_checksums", "--check", "-D", s.data)

    def again():
        s.start()
        say(f"{s.sound()} transactions")
        s.stop()
        s.do("pg_checksums", "--check", "-D", s.data)
        shutil.rmtree(s.data)

    return again


main(postgres, options=("-o", "allow_other") if os.getuid() == 0 else ())
