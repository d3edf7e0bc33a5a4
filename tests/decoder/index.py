"""index.db and index.db-wal of a STORE, opened as docs/FORMAT.md says: the image of a plain SQLite database."""

import os
import sqlite3
import struct

from store import Reader, need, subkey, xchacha_open

NONCE, TAG = 24, 16
RESERVE = NONCE + TAG
WAL_HEADER, WAL_USED, FRAME_HEADER = 128, NONCE + 32 + TAG, 24


def read_file(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return b""


def wal_checksum(data, order, s=(0, 0)):
    """SQLite's: pairs of 32-bit words, chained."""
    s0, s1 = s
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for a, b in zip(words[::2], words[1::2]):
        s0 = (s0 + a + s1) & 0xFFFFFFFF
        s1 = (s1 + b + s0) & 0xFFFFFFFF
    return s0, s1


class Wal:
    """The committed pages of index.db-wal: self.pages {number: bytes}, and self.size of the database in pages, or 0."""

    def __init__(self, data, sb, key):
        self.pages, self.size = {}, 0
        self.data, self.aad, self.key, self.page_size = data, sb.uuid + b"wal", key, sb.page_size
        self.slots = max(0, len(data) - WAL_HEADER) // (sb.page_size + 32)
        if not any(data[:WAL_USED]):
            first = self.slot(1)
            need(not first or not self.durable(1, first[0][8:16]), "the write-ahead log's header is gone")
            return
        header = xchacha_open(key, data[:NONCE], data[NONCE:WAL_USED], self.aad + struct.pack("<Q", 0))
        if header is None:
            need(not any(data[WAL_HEADER : WAL_HEADER + NONCE]), "the write-ahead log's header is not authentic")
            return
        magic, version, page_size, _, salt, first = struct.unpack(">IIII8s8s", header)
        order = ">" if magic & 1 else "<"
        sums = wal_checksum(header[:24], order)
        need((magic | 1, version, page_size) == (0x377F0683, 3007000, sb.page_size), "the write-ahead log's header")
        need(struct.unpack(">2I", first) == sums, "the checksum of the write-ahead log's header")
        self.replay(salt, order, sums)

    def slot(self, n):
        """Slot n: frame header, page without its reserved bytes, durable. None where it does not open."""
        size = self.page_size + 32
        raw = self.data[WAL_HEADER + (n - 1) * size :][:size]
        plain = len(raw) == size and xchacha_open(self.key, raw[:NONCE], raw[NONCE:], self.aad + struct.pack("<Q", n))
        return (plain[:FRAME_HEADER], plain[FRAME_HEADER:-8], struct.unpack("<Q", plain[-8:])[0]) if plain else None

    def replay(self, salt, order, sums):
        pending, n = {}, 1
        while n <= self.slots and (slot := self.slot(n)) and slot[0][8:16] == salt:
            header, page, _ = slot
            page += bytes(RESERVE)
            sums = wal_checksum(header[:8] + page, order, sums)
            number, commit, _, check = struct.unpack(">II8s8s", header)
            need(number and check == struct.pack(">2I", *sums), f"the checksum of slot {n} of the write-ahead log")
            pending[number] = page
            if commit:
                self.pages.update(pending)
                self.size, pending = commit, {}
            n += 1
        need(self.durable(n + 1, salt) < n, f"slot {n} of the write-ahead log, which was durable")

    def durable(self, n, salt):
        """The most that the slots from n on with this salt say is durable."""
        slots = (self.slot(k) for k in range(n, self.slots + 1))
        return max((slot[2] for slot in slots if slot and slot[0][8:16] == salt), default=0)


def open_image(path, sb, keys):
    """The database as bytes, the write-ahead log applied."""
    epoch = sb.index_epoch
    key = {name: subkey(keys[epoch], 2, epoch, name) for name in (b"db", b"wal")}
    sealed, size = read_file(os.path.join(path, "index.db")), sb.page_size
    wal = Wal(read_file(os.path.join(path, "index.db-wal")), sb, key[b"wal"])

    def page(number):
        if number in wal.pages:
            return wal.pages[number]
        if (number - 1) * size == 1 << 30:
            return bytes(size)  # SQLite's locks, and nothing else
        raw = sealed[(number - 1) * size :][:size]
        need(len(raw) == size, f"page {number} of the index is missing")
        aad = sb.uuid + b"db" + struct.pack("<I", number)
        plain = xchacha_open(key[b"db"], raw[-RESERVE:-TAG], raw[:-RESERVE] + raw[-TAG:], aad)
        need(plain is not None, f"page {number} of the index is not authentic")
        return plain + bytes(RESERVE)

    first = page(1)
    need(first[:16] == b"SQLite format 3\0" and first[20] == RESERVE, "the index's first page")
    pages = wal.size or struct.unpack_from(">I", first, 28)[0]
    image = bytearray(b"".join(page(n) for n in range(1, pages + 1)))
    image[18:20] = b"\1\1"  # no write-ahead log any more
    return bytes(image)


def u64(value):
    return value & (1 << 64) - 1


class Index:
    def __init__(self, image):
        self.db = sqlite3.connect(":memory:")
        self.db.row_factory = sqlite3.Row
        self.db.deserialize(image)
        need(self.one("SELECT value FROM meta WHERE key = 'schema'")[0] == 1, "the schema")

    def all(self, sql, *args):
        return self.db.execute(sql, args).fetchall()

    def one(self, sql, *args):
        row = self.db.execute(sql, args).fetchone()
        need(row is not None, f"no row: {sql} {args}")
        return row

    def inode(self, ino):
        return self.one("SELECT * FROM inode WHERE ino = ?", ino)

    def names(self, parent):
        return self.all("SELECT name, ino, type FROM dirent WHERE parent = ? ORDER BY cookie", parent)

    def xattrs(self, inode):
        if not inode["flags"] & 1:
            return {}
        return {row[0]: row[1] for row in self.all("SELECT name, value FROM xattr WHERE ino = ?", inode["ino"])}

    def target(self, ino):
        return self.one("SELECT target FROM symlink WHERE ino = ?", ino)[0]

    def extents(self, ino):
        return self.all("SELECT off, len, chunk, chunk_off FROM extent WHERE ino = ? ORDER BY off", ino)

    def segment(self, ident):
        return self.one("SELECT * FROM segment WHERE id = ?", ident)

    def chunk(self, ident):
        """The row of a chunk, and its frames as triples of plaintext length, sealed length, codec."""
        row = self.one("SELECT * FROM chunk WHERE id = ?", ident)
        r = Reader(row["frames"])
        frames = [(r.varint(), r.varint(), r.take(1)[0]) for _ in range(r.varint())]
        r.end()
        return row, frames

    def inline(self, ident):
        return self.one("SELECT data FROM inline_chunk WHERE id = ?", ident)[0]
