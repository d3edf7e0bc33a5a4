"""Programs that people keep their data with: git, sqlite3, borg, restic, rsync, and a build."""

import os
import random
import sqlite3

from apfsmount import MIB, NIGHTLY, SANITIZED, Volume, check, compare, describe, linux_files, main, need, run, say, text

HOME = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))


def environment(folder, **more):
    """So that no program reads or writes the user's own settings."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
        **more,
    }


def git():
    need("git")
    with linux_files(1200) as native:
        env = environment(native)
        run("git", "init", "-q", ".", cwd=native, env=env)
        for part in ("mm", "kernel", "."):
            if os.path.exists(os.path.join(native, part)):
                run("git", "add", part, cwd=native, env=env)
                run("git", "commit", "-q", "--allow-empty", "-m", part, cwd=native, env=env)
        with Volume() as v:
            work = v.path("work")
            run("git", "clone", "-q", "--no-hardlinks", native, work, env=env)
            run("git", "fsck", "--full", cwd=work, env=env)
            check(run("git", "status", "--porcelain", cwd=work, env=env) == "", "git status finds changes")
            with open(os.path.join(work, "more"), "w", encoding="ascii") as f:
                f.write("more\n" * 1000)
            run("git", "add", "more", cwd=work, env=env)
            run("git", "commit", "-q", "-m", "more", cwd=work, env=env)
            run("git", "repack", "-q", "-a", "-d", "-f", cwd=work, env=env)
            run("git", "gc", "-q", "--prune=now", cwd=work, env=env)
            v.remount()
            run("git", "fsck", "--full", "--strict", cwd=work, env=env)
            check(run("git", "status", "--porcelain", cwd=work, env=env) == "", "git status finds changes")
            run("git", "clone", "-q", work, v.path("again"), env=env)


def sqlite_fill(path, mode):
    rng = random.Random(mode)
    db = sqlite3.connect(path, isolation_level=None)
    check(db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] == mode.lower(), f"{mode} is refused")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, v BLOB)")
    db.execute("CREATE INDEX i ON t (k)")
    for transaction in range(40 if SANITIZED else 120):
        db.execute("BEGIN")
        for _ in range(30):
            db.execute("INSERT INTO t (k, v) VALUES (?, ?)", (f"{rng.random()}", rng.randbytes(rng.randrange(2000))))
        db.execute("UPDATE t SET v = ? WHERE id % 17 = ?", (rng.randbytes(500), transaction % 17))
        db.execute("DELETE FROM t WHERE id % 23 = ?", (transaction % 23,))
        db.execute("ROLLBACK" if transaction % 10 == 9 else "COMMIT")
    rows = sqlite_rows(db)
    db.close()
    return rows


def sqlite_rows(db):
    return db.execute("SELECT count(*), sum(id), sum(length(v)), max(k) FROM t").fetchone()


def sqlite():
    need("sqlite3")
    for mode in ("WAL", "DELETE"):
        with Volume() as v:
            path = v.path("test.db")
            rows = sqlite_fill(path, mode)
            v.remount()
            check(run("sqlite3", path, "PRAGMA integrity_check").strip() == "ok", f"{mode}: the database is damaged")
            db = sqlite3.connect(path)
            check(sqlite_rows(db) == rows, f"{mode}: rows differ")
            db.execute("VACUUM")
            db.close()
            check(run("sqlite3", path, "PRAGMA integrity_check").strip() == "ok", f"{mode}: damaged by VACUUM")


def backup_source(v):
    """A tree on the native filesystem to be backed up to the mount."""
    source = os.path.join(v.root, "source")
    os.mkdir(source)
    rng = random.Random(4)
    for number in range(300):
        with open(os.path.join(source, f"f{number}"), "wb") as f:
            f.write(text(rng, rng.randrange(30000)))
    with open(os.path.join(source, "random"), "wb") as f:
        f.write(rng.randbytes(8 * MIB if SANITIZED else 32 * MIB))
    return source


def borg():
    need("borg")
    with Volume() as v:
        source = backup_source(v)
        env = environment(v.root, BORG_PASSPHRASE="p", BORG_BASE_DIR=v.root)
        repo = v.path("borg")
        run("borg", "init", "-e", "repokey", repo, env=env)
        run("borg", "create", f"{repo}::one", source, env=env)
        with open(os.path.join(source, "f1"), "ab") as f:
            f.write(b"changed")
        run("borg", "create", f"{repo}::two", source, env=env)
        v.remount()
        run("borg", "check", "--verify-data", repo, env=env, timeout=1200)
        run("borg", "delete", f"{repo}::one", env=env)
        run("borg", "compact", repo, env=env)
        run("borg", "check", repo, env=env)


def restic():
    need("restic")
    with Volume() as v:
        source = backup_source(v)
        env = environment(v.root, RESTIC_PASSWORD="p", RESTIC_CACHE_DIR=os.path.join(v.root, "cache"))
        repo = v.path("restic")
        run("restic", "init", "-r", repo, env=env)
        run("restic", "backup", "-q", "-r", repo, source, env=env)
        with open(os.path.join(source, "f1"), "ab") as f:
            f.write(b"changed")
        run("restic", "backup", "-q", "-r", repo, source, env=env)
        v.remount()
        run("restic", "check", "-q", "-r", repo, "--read-data", env=env, timeout=1200)
        run("restic", "restore", "-q", "-r", repo, "latest", "--target", v.path("out"), env=env)
        compare(describe(source), describe(v.path("out") + source))


def rsync():
    """The second run finds nothing to do; nor does the third, after a remount."""
    need("rsync")
    with linux_files(3000) as native:
        # rsync compares whole seconds: a folder that is copied in the second in which it was made keeps its own time.
        for folder, _, _ in os.walk(native):
            os.utime(folder, ns=(10**18 + 1, 10**18 + 1))
        with Volume() as v:
            run("rsync", "-aHAX", f"{native}/", v.path("copy"))
            for attempt in ("at once", "after a remount"):
                out = run("rsync", "-aHAX", "--itemize-changes", f"{native}/", v.path("copy"))
                check(out == "", f"a second rsync {attempt} finds work:\n{out[:2000]}")
                v.remount()
            out = run("rsync", "-aHAX", "--itemize-changes", "--checksum", f"{native}/", v.path("copy"))
            check(out == "", f"rsync --checksum finds work:\n{out[:2000]}")
            run("rsync", "-aHAX", "--delete", "--inplace", "--no-whole-file", "-I", f"{native}/", v.path("copy"))
            compare(describe(native), describe(v.path("copy")))


def build():
    """apfs builds itself, sources and objects on the mount."""
    need("cmake", "ninja", "gcc")
    with Volume() as v:
        source = v.path("apfs")
        tree = ("CMakeLists.txt", "base", "pipeline", "index", "fs", "tools", "tests")
        os.mkdir(source)
        run("cp", "-a", *(os.path.join(HOME, t) for t in tree if os.path.exists(os.path.join(HOME, t))), source)
        run("cmake", "-S", source, "-B", v.path("build"), "-G", "Ninja", "-DBUILD_TESTING=OFF", timeout=300)
        targets = [] if NIGHTLY else ["apfs_base", "apfs_pipeline"]
        run("ninja", "-C", v.path("build"), *targets, timeout=1200)
        v.remount()
        out = run("ninja", "-C", v.path("build"), *targets, timeout=1200)
        check("no work to do" in out, f"ninja builds again after a remount:\n{out}")
        if NIGHTLY:
            say(run(v.path("build", "tools", "apfs-mount"), "--version").strip())


main(git, sqlite, borg, restic, rsync, build)
