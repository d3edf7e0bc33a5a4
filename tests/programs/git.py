"""git: clone, fsck, gc, worktree, many rebases; what it remembers of files holds over a remount."""

import os

from place import Place, check, linux_files, main, need, run, size

IDENTITY = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(p: Place):
    need("git")
    env = p.environment(GIT_CONFIG_NOSYSTEM="1", **IDENTITY)
    work = p.path("work")

    def do(*argv, cwd=work):
        return run("git", *argv, cwd=cwd, env=env)

    def unchanged():
        """Without a look at contents: size, times, inode numbers are as git has noted them."""
        do("diff-files", "--quiet")
        check(do("status", "--porcelain") == "", "git status finds changes")

    with linux_files(size(500, 5000, 250)) as native:
        do("init", "-q", ".", cwd=native)
        for part in ("mm", "kernel", "."):
            if os.path.exists(os.path.join(native, part)):
                do("add", part, cwd=native)
                do("commit", "-q", "--allow-empty", "-m", part, cwd=native)
        do("clone", "-q", "--no-hardlinks", native, work, cwd=native)
    do("fsck", "--full")
    unchanged()
    do("checkout", "-q", "-b", "side")
    for number in range(3):
        with open(os.path.join(work, f"side{number}"), "w", encoding="ascii") as f:
            f.write(f"{number}\n" * 1000)
        do("add", ".")
        do("commit", "-q", "-m", f"side {number}")
    do("worktree", "add", "-q", p.path("tree"), "-b", "base", "HEAD~3")
    for number in range(size(6, 50, 3)):
        with open(p.path("tree", "base"), "a", encoding="ascii") as f:
            f.write(f"{number}\n")
        do("add", "base", cwd=p.path("tree"))
        do("commit", "-q", "-m", f"base {number}", cwd=p.path("tree"))
        do("rebase", "-q", "base")
    check(do("rev-list", "--count", "base..side").strip() == "3", "the rebased branch lacks commits")
    do("repack", "-q", "-a", "-d", "-f")
    do("gc", "-q", "--prune=now")
    unchanged()

    def again():
        unchanged()
        do("fsck", "--full", "--strict")
        do("worktree", "remove", p.path("tree"))
        do("clone", "-q", work, p.path("again"))

    return again


main(git)
