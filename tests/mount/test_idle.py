"""--idle: a mount that nobody uses ends by itself, and one that somebody uses does not."""

import contextlib
import os
import subprocess
import tempfile
import time

from apfsmount import Volume, check, get, main, mounted, need, put, run, tool

IDLE = 2  # seconds


def ends(v, seconds):
    """Whether the daemon ends by itself within that time, and then that it ends well."""
    try:
        status = v.daemon.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    check(status == 0, f"status {status}: {v.log_tail()}")
    check(not mounted(v.mnt), "it is still mounted")
    v.daemon = None
    return True


def idle():
    need()
    with Volume("--idle", f"{IDLE}s", "--commit-interval", "1h") as v:
        # Used again and again, by little.
        for number in range(8):
            time.sleep(IDLE / 4)
            put(v.path(f"f{number}"), b"data" * 5000)
        # An open file, a working directory, a mapping.
        with open(v.path("f0"), "rb"):
            check(not ends(v, 2 * IDLE), "it ended with a file open")
        with subprocess.Popen(["sleep", str(2 * IDLE)], cwd=v.mnt) as user:
            check(not ends(v, 2 * IDLE - 0.2), "it ended with somebody in it")
            user.wait()
        check(len(os.listdir(v.mnt)) == 8, "files are missing")
        # df of all mounts is no use.
        end = time.monotonic() + 3 * IDLE
        while time.monotonic() < end and not ends(v, 0.3):
            os.statvfs(v.mnt)
        check(not v.daemon, f"it was not used for {3 * IDLE} s and goes on")
        v.mount()
        check(get(v.path("f7")) == b"data" * 5000, "what was written before is not there")
        check("2s" in run(tool("apfs"), "config", v.mnt), "apfs config does not show it")
        # A signal holds as ever.
        v.daemon.terminate()
        check(ends(v, 20), "a signal does not end it")


def covered():
    """What is mounted over it is not what is unmounted."""
    need(root=True)
    with Volume("--idle", f"{IDLE}s") as v:
        put(v.path("f"))
        run("mount", "-t", "tmpfs", "none", v.mnt)
        try:
            check(not ends(v, 2 * IDLE), "it ended under another mount")
            check(os.path.ismount(v.mnt) and not os.path.exists(v.path("f")), "the other mount is gone")
        finally:
            run("umount", v.mnt)
        check(ends(v, 4 * IDLE), "it does not end once it is uncovered")
        v.mount()
        run("mount", "-t", "tmpfs", "none", v.mnt)
        try:
            put(v.path("other"))
            with open(v.path("other"), "rb"):  # busy: not even detached
                v.daemon.terminate()
                v.daemon.wait(20)
                v.daemon = None
                check(os.path.exists(v.path("other")), "a signal to what is below unmounted it")
            check(b"mounted over" in get(v.log), v.log_tail())
        finally:
            run("umount", v.mnt)
            run("umount", v.mnt)


def full():
    """What cannot be stored keeps it mounted."""
    need(root=True)
    disk = tempfile.mkdtemp(prefix="apfs-idle-")
    try:
        run("mount", "-t", "tmpfs", "-o", "size=64m", "none", disk)
        with Volume("--idle", f"{IDLE}s", "--commit-interval", "1h", store=os.path.join(disk, "store")) as v:
            data = [os.urandom(900 << 10) for _ in range(28)]  # each too small to be stored before the cut
            for number, content in enumerate(data):
                put(v.path(f"f{number}"), content)
            with contextlib.suppress(OSError), open(os.path.join(disk, "other"), "wb") as f:
                while True:
                    f.write(bytes(1 << 16))
            check(not ends(v, 3 * IDLE), "it ended with what it could not store")
            check(all(get(v.path(f"f{n}")) == d for n, d in enumerate(data)), "the data is not there")
            os.unlink(os.path.join(disk, "other"))
            check(ends(v, 6 * IDLE), "it does not end once there is room")
            v.mount()
            check(all(get(v.path(f"f{n}")) == d for n, d in enumerate(data)), "the data is not there after a remount")
    finally:
        subprocess.run(["umount", disk], check=False)
        os.rmdir(disk)


main(idle, covered, full)
