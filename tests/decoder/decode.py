#!/usr/bin/env python3
"""Reads a whole STORE without apfs, from its secret and docs/FORMAT.md.

usage: decode.py (--passfile FILE | --keyfile FILE | --recovery FILE) [--extract DIR] [--scan] STORE

Prints a manifest of the tree, one JSON object a line (see manifest.py). --extract also writes the files to DIR.
--scan reads every segment record by record besides, and compares the records with the index.
"""

import argparse
import collections
import hashlib
import os
import stat
import sys

import index
import manifest
import store
from store import Damage, need

CHUNKS_KEPT = 8


class Volume:
    def __init__(self, path, secret):
        self.path = path
        self.sb, self.keys = store.open_superblock(path, secret)
        self.index = index.Index(index.open_image(path, self.sb, self.keys))
        self.segments, self.chunks = {}, collections.OrderedDict()

    def segment(self, ident):
        if ident not in self.segments:
            row = self.index.segment(ident)
            if row["state"] == 3:
                self.segments[ident] = store.Segment(self.sb, self.keys, row["header"], row["name"])
                need(self.segments[ident].kind == 1, "a segment's kind")
            else:
                self.segments[ident] = store.segment_file(self.path, self.sb, self.keys, row["name"])
            need(self.segments[ident].epoch == row["epoch"], "a segment's epoch")
        return self.segments[ident]

    def chunk(self, ident):
        """The plaintext of a chunk, read by what the index says of it."""
        if ident in self.chunks:
            self.chunks.move_to_end(ident)
            return self.chunks[ident]
        row, frames = self.index.chunk(ident)
        segment = self.segment(row["segment"])
        if row["inlined"]:
            record = self.index.inline(ident)
        else:
            record = segment.read(row["offset"], row["stored_len"])
        need(len(record) == row["stored_len"], f"the length of chunk {ident}'s record")
        plain = store.read_frames(segment, ident, row["plain_len"], frames, record[row["data_start"] :])
        self.chunks[ident] = plain
        if len(self.chunks) > CHUNKS_KEPT:
            self.chunks.popitem(last=False)
        return plain

    def data(self, inode):
        """The bytes of a file, in pieces; a hole is a number."""
        at, size = 0, inode["size"]
        for off, length, chunk, chunk_off in self.index.extents(inode["ino"]):
            need(off >= at and length > 0, "extents that overlap")
            if off >= size:
                break
            if off > at:
                yield off - at
            piece = self.chunk(chunk)[chunk_off : chunk_off + length]
            need(len(piece) == length, "an extent outside of its chunk")
            yield piece[: size - off]
            at = min(off + length, size)
        if at < size:
            yield size - at

    def walk(self, ino=1, path=b""):
        """Pairs of path and inode row, a directory before what is in it."""
        inode = self.index.inode(ino)
        yield path, inode
        if not stat.S_ISDIR(inode["mode"]):
            return
        names = self.index.names(ino)
        need(inode["size"] == len(names), f"the number of names in {path}")
        for name, child, kind in names:
            row = self.index.inode(child)
            need(0 < len(name) < 256 and not set(name) & set(b"\0/"), "a name")
            need(kind == stat.S_IFMT(row["mode"]) >> 12, f"the type of {name} in {path}")
            yield from self.walk(child, path + b"/" + name if path else name)

    def scan(self):
        """Reads every segment's records and compares them with the index: how many there are, and how many live."""
        records = live = 0
        for (ident,) in self.index.all("SELECT id FROM segment WHERE state <> 3"):
            for at, record in self.segment(ident).scan():
                records += 1
                rows = self.index.all("SELECT * FROM chunk WHERE id = ?", record.id)
                if not rows or (rows[0]["segment"], rows[0]["offset"]) != (ident, at):
                    continue
                live += 1
                self.compare(record)
        for ident, segment, data in self.index.all("SELECT id, segment, data FROM inline_chunk NATURAL JOIN chunk"):
            record = store.Record(self.segment(segment), data)
            record.load(data)
            need(record.id == ident, f"inline chunk {ident} is another")
            live += 1
            self.compare(record)
        (total,) = self.index.one("SELECT count(*) FROM chunk")
        need(live == total, f"{total} chunks in the index, {live} of them found by scanning")
        return records, live

    def compare(self, record):
        """A record, and what the index says of its chunk and of its extents."""
        row, frames = self.index.chunk(record.id)
        same = (index.u64(row["sequence"]), row["stored_len"], row["plain_len"], row["data_start"], frames)
        found = (record.sequence, record.stored_len, record.plain_len, record.data_start, record.frames)
        need(same == found, f"chunk {record.id}: index and record differ")
        extents = self.index.all("SELECT ino, off, len, chunk_off FROM extent WHERE chunk = ?", record.id)
        need(row["refs"] == len(extents) > 0, f"chunk {record.id}: the number of its extents")
        need(row["mapped"] == sum(x["len"] for x in extents), f"chunk {record.id}: what its extents map")
        for x in extents:
            cloned = self.index.inode(x["ino"])["flags"] & 8
            need(cloned or covers(record.ranges, *x), f"chunk {record.id}: an extent that is not in its ranges")


def covers(ranges, ino, off, length, chunk_off):
    """Whether bytes [chunk_off, chunk_off + length) of a chunk are, by its ranges, those at off of the inode."""
    at = 0
    for range_ino, range_off, n in ranges:
        begin, end = max(at, chunk_off), min(at + n, chunk_off + length)
        if begin < end and (range_ino, range_off + begin - at) != (ino, off + begin - chunk_off):
            return False
        at += n
    return chunk_off + length <= at


def write(path, inode, volume, extract):
    """Hashes a file's data, and writes it below extract: the hash."""
    h, out = hashlib.sha256(), None
    if extract:
        out = open(os.path.join(os.fsencode(extract), path), "wb")
    for piece in volume.data(inode):
        if isinstance(piece, int):
            if out:
                out.seek(piece, os.SEEK_CUR)
            for n in range(0, piece, manifest.BLOCK):
                h.update(bytes(min(manifest.BLOCK, piece - n)))
        else:
            h.update(piece)
            if out:
                out.write(piece)
    if out:
        out.truncate(inode["size"])
        out.close()
    return h.hexdigest()


def entry(path, inode, volume, extract):
    mode, ino = inode["mode"], inode["ino"]
    mtime = inode["mtime"] * 10**9 + inode["mtime_ns"]
    e = manifest.entry(path, mode, inode["nlink"], (inode["uid"], inode["gid"]), mtime, volume.index.xattrs(inode))
    if stat.S_ISREG(mode):
        e["size"], e["sha256"] = inode["size"], write(path, inode, volume, extract)
    elif stat.S_ISLNK(mode):
        target = volume.index.target(ino)
        need(len(target) == inode["size"], "a symlink's length")
        e["target"] = manifest.text(target)
        if extract:
            os.symlink(target, os.path.join(os.fsencode(extract), path))
    elif stat.S_ISDIR(mode):
        if extract:
            os.makedirs(os.path.join(os.fsencode(extract), path), exist_ok=True)
    else:
        e["rdev"] = inode["rdev"]
    return e


def secret_of(args):
    """The type of the key slot and the bytes that it takes."""
    if args.passfile:
        with open(args.passfile, "rb") as f:
            return 1, f.readline().removesuffix(b"\n")
    if args.keyfile:
        with open(args.keyfile, "rb") as f:
            return 2, f.read()
    if args.recovery:
        with open(args.recovery, encoding="ascii") as f:
            return 3, store.recovery_key(f.readline().removesuffix("\n"))
    raise SystemExit("one of --passfile, --keyfile, --recovery is needed")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n", maxsplit=1)[0])
    for option in ("passfile", "keyfile", "recovery", "extract"):
        parser.add_argument("--" + option)
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("store")
    args = parser.parse_args()
    try:
        volume = Volume(args.store, secret_of(args))
        manifest.write(sys.stdout, (entry(p, i, volume, args.extract) for p, i in volume.walk()))
        if args.scan:
            print(*volume.scan(), file=sys.stderr)
    except (Damage, store.WrongSecret) as why:
        sys.exit(f"{args.store}: {why}")


if __name__ == "__main__":
    main()
