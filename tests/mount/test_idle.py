"""--idle: a mount that nobody uses ends by itself, and one that somebody uses does not."""

import os
import subprocess
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


main(idle)
