"""SQLite in every journal mode, by read and write and by mmap, by one process and by several at once."""

import contextlib
import multiprocessing
import random
import sqlite3

from place import MIB, Place, check, main, need, run, size

MODES = ("WAL", "DELETE", "TRUNCATE", "PERSIST")
ACCOUNTS, CREDIT = 50, 1000


def connect(path, mode, mmap=0):
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    check(db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] == mode.lower(), f"{mode} is refused")
    db.execute(f"PRAGMA mmap_size={mmap}")
    return contextlib.closing(db)


def rows_of(db):
    return db.execute("SELECT count(*), sum(id), sum(length(v)), max(k) FROM t").fetchone()


def fill(path, mode, mmap):
    rng = random.Random(mode)
    with connect(path, mode, mmap) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, k TEXT, v BLOB)")
        db.execute("CREATE INDEX i ON t (k)")
        for transaction in range(size(20, 1000, 10)):
            db.execute("BEGIN")
            for _ in range(30):
                row = (f"{rng.random()}", rng.randbytes(rng.randrange(2000)))
                db.execute("INSERT INTO t (k, v) VALUES (?, ?)", row)
            db.execute("UPDATE t SET v = ? WHERE id % 17 = ?", (rng.randbytes(500), transaction % 17))
            db.execute("DELETE FROM t WHERE id % 23 = ?", (transaction % 23,))
            db.execute("ROLLBACK" if transaction % 10 == 9 else "COMMIT")
        return rows_of(db)


def sound(path):
    check(run("sqlite3", path, "PRAGMA integrity_check").strip() == "ok", f"{path} is damaged")


def sqlite(p: Place):
    need("sqlite3")
    rows = {}
    for mode in MODES:
        for mmap in (0, 256 * MIB):
            path = p.path(f"{mode}{mmap}.db")
            rows[path] = fill(path, mode, mmap)

    def again():
        for path, expected in rows.items():
            sound(path)
            with contextlib.closing(sqlite3.connect(path)) as db:
                check(rows_of(db) == expected, f"{path}: rows differ")
                db.execute("VACUUM")
            sound(path)

    return again


def move_money(path, mode, number, count):
    rng = random.Random(number)
    with connect(path, mode) as db:
        for _ in range(count):
            amount, here, there = rng.randrange(100), rng.randrange(ACCOUNTS), rng.randrange(ACCOUNTS)
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE account SET credit = credit - ? WHERE id = ?", (amount, here))
            db.execute("UPDATE account SET credit = credit + ? WHERE id = ?", (amount, there))
            db.execute("INSERT INTO moved VALUES (?)", (number,))
            db.execute("COMMIT")


def together(p: Place):
    """Processes that move money at once: none of it is lost, and each has made all its moves."""
    need("sqlite3")
    count = size(30, 2000, 15)
    paths = []
    for mode in ("WAL", "DELETE"):
        path = p.path(f"{mode}.db")
        paths.append(path)
        with connect(path, mode) as db:
            db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, credit INTEGER)")
            db.execute("CREATE TABLE moved (who INTEGER)")
            db.executemany("INSERT INTO account VALUES (?, ?)", ((i, CREDIT) for i in range(ACCOUNTS)))
        workers = [multiprocessing.Process(target=move_money, args=(path, mode, i, count)) for i in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(600)
            check(worker.exitcode == 0, f"a process of {mode} ended with {worker.exitcode}")

    def again():
        for path in paths:
            sound(path)
            with contextlib.closing(sqlite3.connect(path)) as db:
                check(db.execute("SELECT sum(credit) FROM account").fetchone()[0] == ACCOUNTS * CREDIT, f"{path}: lost money")
                check(db.execute("SELECT count(*) FROM moved").fetchone()[0] == 4 * count, f"{path}: lost moves")

    again()
    return again


main(sqlite, together)
