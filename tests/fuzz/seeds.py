#!/usr/bin/python3
"""Writes the first inputs of the fuzz targets, from which a fuzzer finds others.

usage: seeds.py DIRECTORY        makes DIRECTORY/<target>/seed-*

Each target says in its first lines what its input is.
"""

import os
import struct
import sys

import brotli
import lz4.block
import zstandard

TEXT = b"".join(b"line %d of a text that compresses\n" % n for n in range(60))


def codec():
    packed = (TEXT, lz4.block.compress(TEXT, store_size=False), zstandard.compress(TEXT), brotli.compress(TEXT))
    for number, data in enumerate(packed):
        yield struct.pack("<BH", number, len(TEXT) - 1) + data
        yield struct.pack("<BH", number | 0x80, 7) + TEXT
    zeroes = bytes(1 << 20)  # more than a frame may hold
    for number, data in ((1, lz4.block.compress(zeroes, store_size=False)), (2, zstandard.compress(zeroes)),
                         (3, brotli.compress(zeroes))):
        yield struct.pack("<BH", number, 65535) + data


def frames(*codecs):
    out = bytes([len(codecs) - 1])
    for c in codecs:
        out += struct.pack("<BHH", c | 0x80, 0, 300) + TEXT[:300]
    return out


def segment():
    for suite in range(3):
        yield bytes([suite, 0x80, 0]) + struct.pack("<HBBI", 1, 0, 1 + suite, 1) + b"the uuid of it\0\0" + bytes(40)
        record = struct.pack("<BHQ", 1, 7, 9) + bytes(20)
        yield bytes([suite, 1]) + record + frames(0, 1, 2, 3) + record + frames(2)
        header = struct.pack("<QIIIII", 9, 500, 300, 12, 1, 1)
        table = b"\x02\x00\xac\x02" + struct.pack("<IIB", 300, 328, 0)
        yield bytes([suite, 1]) + struct.pack("<BH", 0, 7) + header + struct.pack("<H", len(table)) + table + bytes(99)
        for flags in (6, 7, 15):
            places = struct.pack("<QIIB", 104, 500, 100, 1) + struct.pack("<HIB", 299, 120, 1) * 2 + bytes([0, 2])
            yield bytes([suite, 2, flags]) + places + frames(1, 1)


def edit(*places):
    return b"".join(struct.pack("<IB", at, len(data)) + data for at, data in places)


def superblock():
    for flags in range(0, 32, 2):
        yield bytes([flags])
    for at, data in ((8, b"\2"), (12, b"\0\x40"), (16, b"\1"), (24, b"\1"), (48, b"\4"), (52, b"\0\2"), (52, b"\1\x10"),
                     (64, b"\2"), (68, b"\2"), (512, b"\2"), (516, b"\2"), (520, b"\0"), (528, b"\xff" * 8),
                     (4608, b"\2"), (4704, b"\1"), (4704, b"\2")):
        yield bytes([6]) + edit((at, data))
        yield bytes([14]) + edit((at, data))
    slot = b"\1\0\0\0\1\0\0\0\1" + bytes(9) + b"\x80"
    yield bytes([30]) + edit((512, slot), (768, slot), (1024, slot))
    yield bytes([6]) + edit(*((512 + 256 * n, b"\3\0\0\0\2") for n in range(2, 16)))
    yield bytes([14]) + edit((72, b"\xff"), (584, b"label\x1b[31m\xff\\"))
    yield bytes([1]) + b"apfs-sb\n\2\0\0\0" + bytes(100)


def recovery():
    yield b"000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFR-M1PA"
    yield b"oooG 4or4 om3o e2o9 i85g r38e iw8l 24gk 2gah c5rr 34dl p7ox 3rfr mlpa\r"
    yield b"000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFR-M1PB"
    yield "a label \\ \u00e4\u4e00\U0001f600 \u202e \x1b[31m".encode()
    yield b"\xc0\x80 \xed\xa0\x80 \xf4\x90\x80\x80 \xe4\xb8"


def options():
    values = ("4096", "64K", "4.5M", "1GiB", "2gb", "16E", "0.5", "5s", "250ms", "10m", "1.5h", "off", "lz4:-64",
              "zstd:19", "brotli:4", "zstd:3", "aes-256-gcm", "debug", "32", "18446744073709551616", "-1",
              "99999999999999999999.9k")
    for value in values:
        yield b"\0" + value.encode()
        yield b"\1" + value.encode()
    for words in ("ro,noatime,memory=64M,commit-interval=10s,compress=zstd:3,threads=8,workers=2,log=stderr,debug",
                  "init,cipher=auto,kdf-ops=1,kdf_mem=8M", "passfile=/a\\,b,allow_other", "passfile=a,extpass=b",
                  "remount", "x-systemd.automount,nofail,_netdev,context=a", ",,,", "ro=1", "memory",
                  "log-level=warn,log=file\\"):
        yield b"\2" + words.encode()
    for text in ("# a comment\nmemory = 64M\nworkers: 2 ; two\n  no-compact = yes\nlog = /var/log/apfs\n",
                 "[section]\nmemory = 1\n", "workers = 1\nworkers = 2", "threads", "\ufeffcompress = zstd:3\n"):
        yield b"\3" + text.encode()


def notes():
    yield b"\x01" + b"1234 host\n"
    yield b"\x01" + b"99999999999999999999 " + b"h" * 70
    yield b"\x01" + b"5 a\033[31mb\n"
    yield b"\x00" + b"36 35 98:0 / /mnt rw,relatime shared:1 - fuse.apfs /store rw,user_id=0\n"
    yield b"\x00" + b"36 35 98:0 / /mn\\164 rw - " + b"t" * 80 + b" x\n"
    yield b"\x00" + b"36 35 x / /mnt - y"
    yield b"\x01" + b"1234 host ending\n"


def acl():
    def entries(*list_):
        return struct.pack("<II", 0o100640, 2) + b"".join(struct.pack("<HHI", *e) for e in list_)

    no = 0xFFFFFFFF
    yield entries((1, 6, no), (4, 4, no), (0x20, 0, no))
    yield entries((1, 7, no), (2, 5, 1000), (4, 5, no), (8, 4, 50), (0x10, 5, no), (0x20, 1, no))
    yield entries((1, 7, no), (2, 5, 1000), (4, 5, no), (0x20, 1, no))
    yield entries((1, 8, no), (4, 5, no), (0x20, 1, no))


def name(text):
    return bytes([len(text)]) + text


def core():
    def make(mode, text, parent=0):
        return bytes([0, parent]) + struct.pack("<I", mode) + name(text)

    def xattr(which, text, value, ino=1):
        return bytes([3, ino, which]) + struct.pack("<H", len(value)) + name(text) + value

    def file(which, off, n, ino=1):
        return bytes([5, ino, which]) + struct.pack("<QH", off, n)

    def names(which, other, *texts):
        return bytes([2 | which << 3, 0, other]) + b"".join(map(name, texts))

    tree = make(0o100644, b"file") + make(0o040755, b"dir") + make(0o100600, b"inner", 2) + make(0o010644, b"fifo")
    acl_ = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in ((1, 7, 0), (4, 5, 0), (0x20, 1, 0)))
    setattr_ = bytes([4, 1]) + struct.pack("<HIIQQI", 0x2FF, 0o4755, 1000, 5000, 1 << 40, 7)
    yield tree + file(2, 0, 60000) + file(0x72, 100_000, 5000) + file(1, 0, 65535) + file(4, 5, 0) + file(12, 5, 0)
    yield tree + b"".join((xattr(0, b"user.a", b"value"), xattr(1, b"user.a", b""), xattr(3, b"", bytes(100)),
                           xattr(2, b"user.a", b"")))
    yield tree + xattr(0, b"system.posix_acl_access", acl_) + xattr(0, b"system.posix_acl_default", acl_, 2) + setattr_
    yield tree + b"".join((xattr(0, b"user.apfs.info", b"x"), xattr(1, b"user.apfs.info", bytes(99)),
                           xattr(0, b"security.capability", b"1")))
    yield tree + b"".join((names(1, 1, b"hard"), names(2, 0, b"file"), names(4, 2, b"hard", b"moved"),
                           names(3, 0, b"dir"), bytes([6, 0])))
    yield tree + names(4, 2, b"dir", b"into itself") + names(6, 0, b"file", b"dir") + names(5, 0, b"file", b"dir")
    yield tree + setattr_ + file(2, 4000, 5000) + bytes([15, 1, 15, 0]) + file(0x82, 1 << 62, 5)
    yield bytes([1, 0]) + struct.pack("<H", 4095) + name(b"soft") + name(b"../target") + names(0, 0, b"soft")
    yield b"".join(make(0, text) for text in (b"", b".", b"..", b"a/b", b"x" * 255)) + make(0o170000, b"what")


def index():
    def page(n, at, data):
        return 1024 * (n - 1) + at, data

    yield from (bytes([flags]) for flags in (0, 1, 2, 4, 16))
    for n in range(1, 30, 2):
        header = 100 if n == 1 else 0
        for at, data in ((0, b"\x05"), (1, b"\0\7"), (3, b"\xff\xff"), (5, b"\0\0"), (8, b"\0\0\0\1"),
                         (12, b"\3\xe0")):
            yield bytes([1 + 2 * (n & 2)]) + edit(page(n, header + at, data))
        yield bytes([1]) + edit(page(n, 900, b"\x81\x80\x80\x80\x80\x80\x80\x80\xff\xff"))
    yield bytes([1]) + edit(page(1, 28, b"\xff\xff\xff\xff"), page(1, 32, b"\0\0\0\5"), page(1, 36, b"\0\0\0\x20"))
    yield bytes([1]) + edit(page(1, 52, b"\0\0\0\0"), page(1, 18, b"\1\1"))
    yield bytes([1]) + edit(page(1, 20, b"\0"), page(1, 16, b"\x10\0"))
    yield bytes([1]) + edit(page(3, 1008, b"\1"))


def rows():
    def change(table, row, columns, *values):
        return bytes([table, row]) + struct.pack("<H", columns) + b"".join(values)

    def number(n):
        return b"\0" + struct.pack("<q", n)

    def small(n):
        return b"\1" + bytes([n])

    def blob(data):
        return b"\5" + bytes([len(data)]) + data

    yield b""
    meta, inode, symlink, dirent, xattr, extent, chunk, inline, segment_ = range(9)
    yield change(meta, 0, 2, number(-1)) + change(meta, 1, 2, number(1 << 62)) + change(meta, 2, 2, small(0))
    for column in range(15):
        yield change(inode, 1, 1 << column, number(-1)) + change(inode, 0, 1 << column, number(1 << 40))
        yield change(inode, 1, 1 << column, b"\3\0\0\1\0") + change(inode, 2, 1 << column, small(7))
    yield change(inode, 0, 2, number(0o100644)) + change(inode, 1, 2, number(0o040755)) + change(inode, 1, 4, small(0))
    yield change(symlink, 0, 2, blob(b"")) + change(symlink, 0, 2, blob(b"a\0b")) + change(symlink, 0, 2, b"\3\0\0\1\0")
    yield change(dirent, 0, 2, blob(b"")) + change(dirent, 0, 2, blob(b"..")) + change(dirent, 1, 2, blob(b"a/b"))
    yield change(dirent, 0, 10, blob(b"x" * 255), number(-1)) + change(dirent, 1, 6, blob(b"loop"), small(1))
    yield change(dirent, 2, 1, small(9)) + change(dirent, 1, 16, number(-1)) + change(dirent, 0, 4, number(5000))
    yield change(xattr, 0, 2, blob(b"")) + change(xattr, 0, 4, b"\3\0\0\2\0") + change(xattr, 0, 2, blob(b"user.\0x"))
    for values in ((0, -1), (1, -1), (0, 1 << 40), (5, 0), (-5, 10), ((1 << 63) - 1, 1), (100, (1 << 63) - 1)):
        yield change(extent, 0, 6, *map(number, values)) + change(extent, 1, 24, small(1), number(values[0]))
    for column in range(1, 9):
        for value in (-1, 0, 1 << 31, 1 << 33):
            yield change(chunk, 0, 1 << column, number(value)) + change(chunk, 1, 1 << column, number(value))
    for table in (b"", b"\0", b"\xff" * 9 + b"\1", b"\1\x80\x80\4\1\1", b"\2\xac\2\x90\1\1\0\0\0", b"\x80\x40"):
        yield b"".join(change(chunk, row, 512, blob(table)) for row in range(3))
    yield change(inline, 0, 2, blob(b"short")) + change(chunk, 2, 256, small(0)) + change(chunk, 0, 256, small(1))
    for column in range(1, 8):
        yield change(segment_, 0, 1 << column, number(-1)) + change(segment_, 1, 1 << column, small(3))
        yield change(segment_, 0, 1 << column, blob(bytes(16))) + change(segment_, 1, 1 << column, blob(bytes(104)))
    yield b"".join(bytes([table, 7]) + b"\0\x80" for table in range(9))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for target in (codec, segment, superblock, recovery, options, notes, acl, core, index, rows):
        folder = os.path.join(sys.argv[1], target.__name__)
        os.makedirs(folder, exist_ok=True)
        for number, data in enumerate(target()):
            with open(f"{folder}/seed-{number:02}", "wb") as f:
                f.write(data)


if __name__ == "__main__":
    main()
