"""What the tests of the command line share."""

import contextlib
import os
import pty
import select

from apfsmount import check, run


def fails(status, text, *argv, **options):
    """A status, and one line that holds the text."""
    got, out = run(*argv, status=None, **options)
    shown = " ".join(str(a) for a in argv)
    check(got == status, f"{shown}: status {got}, not {status}:\n{out}")
    check(text in out, f"{shown}: does not say {text!r}:\n{out}")
    check(out.count("\n") == 1, f"{shown}: says more than one line:\n{out}")


def at_terminal(argv, answers):
    """Answers each prompt: the status and all that was shown."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(argv[0], argv)
    shown = b""
    try:
        for answer in answers:
            while not shown.endswith(b": "):
                check(select.select([fd], [], [], 30)[0], f"no prompt: {shown}")
                shown += os.read(fd, 1000)
            os.write(fd, answer.encode() + b"\n")
            shown += b"\0"
        with contextlib.suppress(OSError):
            while select.select([fd], [], [], 60)[0] and (data := os.read(fd, 1000)):
                shown += data
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")
    finally:
        os.close(fd)
