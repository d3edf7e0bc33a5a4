"""Superblock, keys, segments and chunks of a STORE, read as docs/FORMAT.md says and with nothing of apfs.

What is not as that page says raises Damage, and nothing of it is given out.
"""

import hashlib
import hmac
import os
import struct

import brotli
import lz4.block
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from nacl import bindings, exceptions

FRAME_MAX = 65536
CHUNK_MAX = 1 << 24
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Damage(Exception):
    pass


class WrongSecret(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Damage(what)


def blake2b(message, key=b"", person=b""):
    return hashlib.blake2b(message, key=key, person=person, digest_size=32).digest()


def subkey(key, purpose, epoch, ident):
    return blake2b(struct.pack("<III", purpose, epoch, len(ident)) + ident, key, b"apfs-subkey")


def xchacha_open(key, nonce, sealed, aad):
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(bytes(sealed), bytes(aad), bytes(nonce), key)
    except exceptions.CryptoError:
        return None


class Reader:
    """A cursor over bytes: what is missing is damage."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def take(self, n):
        need(n <= len(self.data) - self.at, "cut short")
        self.at += n
        return bytes(self.data[self.at - n : self.at])

    def unpack(self, layout):
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(value < 1 << 64, "a varint too large")
                return value
            shift += 7
            need(shift < 70, "a varint too long")

    def end(self):
        need(self.at == len(self.data), "bytes left over")


def recovery_key(text):
    """The 32 bytes of a recovery key's text."""
    for a, b in ("O0", "I1", "L1", "UV", (" ", ""), ("-", ""), ("\t", ""), ("\r", "")):
        text = text.upper().replace(a, b)
    if len(text) != 56 or set(text) - set(CROCKFORD):
        raise WrongSecret("not a recovery key")
    value = 0
    for c in text:
        value = value << 5 | CROCKFORD.index(c)
    data = value.to_bytes(35, "big")
    if blake2b(data[:32], b"", b"apfs-recovery")[:3] != data[32:]:
        raise WrongSecret("the recovery key's checksum")
    return data[:32]


# --- superblock and keys ----------------------------------------------------------------------------------------------


class Superblock:
    SIZE = 8192

    def __init__(self, image):
        need(len(image) >= 48 and image[:8] == b"apfs-sb\n", "not a superblock")
        need(hmac.compare_digest(blake2b(image[:-32]), image[-32:]), "the superblock's checksum")
        (version,) = struct.unpack_from("<I", image, 8)
        if version != 1:
            raise SystemExit(f"format version {version} is unknown")
        need(len(image) == self.SIZE, "the superblock's length")
        fields = struct.unpack_from("<IQQ16sIIqIIQ", image, 12)
        size, required, _, self.uuid, self.suite, self.page_size = fields[:6]
        self.epoch, self.index_epoch, self.generation = fields[7:]
        if required or self.suite not in NONCE:
            raise SystemExit("the store needs what this program does not know")
        need(size == self.SIZE and 1024 <= self.page_size <= 65536, "the superblock's sizes")
        need(self.page_size & (self.page_size - 1) == 0, "the index's page size")
        self.image = image

    def root_key(self, secret):
        for number in range(16):
            root = self.slot_open(number, secret)
            if root:
                need(self.authentic(root), "the superblock's MAC")
                self.slot = number
                return root
        raise WrongSecret("no key slot takes this")

    def authentic(self, root):
        mac = blake2b(self.image[:8128], subkey(root, 3, 0, b"mac"))
        return hmac.compare_digest(mac, self.image[8128:8160])

    def slot_bytes(self, number):
        return self.image[512 + 256 * number :][:256]

    def slot_open(self, number, secret):
        """secret: a pair of the slot's type and the bytes."""
        slot = self.slot_bytes(number)
        kind, derivation, ops, mem, salt, commitment, nonce, wrapped = struct.unpack("<III4xQ16s32s64x24s48s48x", slot)
        if kind != secret[0] or derivation != (2 if kind == 3 else 1):
            return None
        if kind == 3:
            key = subkey(secret[1], 66, 0, salt)
        elif 1 <= ops <= 64 and 8 << 20 <= mem <= 4 << 30 and mem % 1024 == 0:
            key = bindings.crypto_pwhash_alg(32, secret[1], salt, ops, mem, bindings.crypto_pwhash_ALG_ARGON2ID13)
        else:
            return None
        aad = self.uuid + struct.pack("<I", number) + slot[:136]
        root = xchacha_open(subkey(key, 64, 0, b""), nonce, wrapped, aad)
        return root if root and hmac.compare_digest(subkey(key, 65, 0, b""), commitment) else None

    def master_keys(self, root):
        keys = {}
        for n in range(32):
            record = self.image[4608 + 96 * n :][:96]
            epoch, _, _, nonce, wrapped = struct.unpack("<IIq24s48s8x", record)
            if epoch:
                key = xchacha_open(subkey(root, 3, 0, b"master"), nonce, wrapped, self.uuid + record[:16])
                need(key and epoch not in keys, "a master key")
                keys[epoch] = key
        need(self.epoch in keys and self.index_epoch in keys, "the current master key is missing")
        return keys


def superblock_copies(path):
    """The whole copies, and the last reason why one is not."""
    found, why = [], WrongSecret("there is no superblock: not a store")
    for name in ("superblock", "superblock.bak"):
        try:
            with open(os.path.join(path, name), "rb") as f:
                found.append(Superblock(f.read()))
        except (Damage, FileNotFoundError) as e:
            why = e
    return found, why


def open_superblock(path, secret):
    """The superblock and its master keys."""
    copies, why = superblock_copies(path)
    for sb in copies:
        try:
            root = sb.root_key(secret)
        except (Damage, WrongSecret) as e:
            why = e
            continue
        other = copies[-1]
        newer = other.generation > sb.generation and other.slot_bytes(sb.slot) == sb.slot_bytes(sb.slot)
        if newer and other.authentic(root):
            sb = other
        return sb, sb.master_keys(root)
    raise why


# --- segments ---------------------------------------------------------------------------------------------------------

NONCE = {1: 12, 2: 12, 3: 24}
TAG = 16


class Segment:
    HEADER = 104

    def __init__(self, sb, keys, header, name):
        need(len(header) >= self.HEADER and header[:8] == b"APFSSEG1", "not a segment")
        version, self.kind, self.suite, self.epoch, uuid, self.name, salt, commitment = struct.unpack_from(
            "<HBBI16s16s24s32s", header, 8
        )
        need(version == 1, "a newer segment")
        need(uuid == sb.uuid and self.name == name, "a segment of another store or name")
        need(self.epoch in keys, "a segment's epoch")
        master = keys[self.epoch]
        need(hmac.compare_digest(subkey(master, 5, self.epoch, header[8:72]), commitment), "a segment's commitment")
        need(self.kind in (0, 1) and self.suite in NONCE, "a segment's kind or suite")
        self.uuid, self.key = uuid, subkey(master, 1, self.epoch, salt)
        self.overhead = NONCE[self.suite] + TAG
        self.file = None

    def open(self, sealed, aad):
        n = NONCE[self.suite]
        need(len(sealed) >= self.overhead, "a sealed part cut short")
        if self.suite == 3:
            plain = xchacha_open(self.key, sealed[:n], sealed[n:], aad)
            need(plain is not None, "a sealed part is not authentic")
            return plain
        try:
            aead = AESGCM(self.key) if self.suite == 1 else ChaCha20Poly1305(self.key)
            return aead.decrypt(sealed[:n], sealed[n:], aad)
        except InvalidTag:
            raise Damage("a sealed part is not authentic") from None

    def read(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)

    def frame(self, sealed, chunk, number, last, codec, plain_len):
        aad = b"\x03" + self.uuid + struct.pack("<QIBBI", chunk, number, last, codec, plain_len)
        return decompress(codec, self.open(sealed, aad), plain_len)

    def scan(self):
        """Every record of the file, until the first that is not valid: pairs of offset and Record."""
        at, size = self.HEADER, self.file.seek(0, os.SEEK_END)
        while at < size:
            try:
                head = self.read(at, self.overhead + Record.HEADER)
                record = Record(self, head)
                record.load(self.read(at, record.stored_len))
            except Damage:
                return
            yield at, record
            at += record.stored_len


class Record:
    HEADER = 36

    def __init__(self, segment, data):
        h = segment.overhead
        plain = segment.open(data[: h + self.HEADER], b"\x01" + segment.uuid + segment.name)
        self.id, self.sequence, self.stored_len, self.plain_len = struct.unpack_from("<QQII", plain)
        self.table_len, self.nframes, self.nranges = struct.unpack_from("<III", plain, 24)
        need(1 <= self.plain_len <= CHUNK_MAX and 1 <= self.table_len <= 1 << 23, "a record's lengths")
        need(1 <= self.nframes <= 8193 and 1 <= self.nranges <= 1 << 20, "a record's counts")
        self.segment = segment
        self.data_start = 2 * h + self.HEADER + self.table_len

    def load(self, data):
        """Opens table and frames: self.ranges, self.frames (lengths and codecs) and self.plain."""
        h = self.segment.overhead
        need(len(data) == self.stored_len >= self.data_start, "a record cut short")
        aad = b"\x02" + self.segment.uuid + struct.pack("<Q", self.id)
        table = Reader(self.segment.open(data[h + self.HEADER : self.data_start], aad))
        self.ranges = [(table.varint(), table.varint(), table.varint()) for _ in range(self.nranges)]
        self.frames = [table.unpack("IIB") for _ in range(self.nframes)]
        table.end()
        need(all(n and off + n < 1 << 63 for _, off, n in self.ranges), "a range")
        need(sum(n for _, _, n in self.ranges) == self.plain_len, "the sum of the ranges")
        need(sum(f[1] for f in self.frames) == self.stored_len - self.data_start, "the sum of the frames")
        self.plain = read_frames(self.segment, self.id, self.plain_len, self.frames, data[self.data_start :])


def read_frames(segment, chunk, plain_len, frames, data):
    """All of a chunk's plaintext. frames: triples of plaintext length, sealed length, codec."""
    need(sum(f[0] for f in frames) == plain_len, "the sum of the frames' plaintext")
    out, at = [], 0
    for number, (plain, stored, codec) in enumerate(frames):
        need(1 <= plain <= FRAME_MAX and codec <= 3, "a frame's length or codec")
        extra = stored - segment.overhead
        need(extra == plain if codec == 0 else 1 <= extra < plain, "a frame's lengths")
        last = number == len(frames) - 1
        out.append(segment.frame(data[at : at + stored], chunk, number, last, codec, plain))
        at += stored
    return b"".join(out)


def decompress(codec, data, plain_len):
    try:
        if codec == 0:
            plain = data
        elif codec == 1:
            plain = lz4.block.decompress(data, uncompressed_size=plain_len)
        elif codec == 2:
            plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=plain_len)
        else:
            plain = brotli.decompress(data)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, brotli.error) as why:
        raise Damage(f"a frame does not decompress: {why}") from None
    need(len(plain) == plain_len, "a frame's plaintext has another length")
    return plain


def segment_file(path, sb, keys, name, kind=0):
    """A segment with its file open."""
    text = name.hex()
    try:
        f = open(os.path.join(path, "segments", text[:2], text), "rb")
    except FileNotFoundError:
        raise Damage(f"segment {text} is missing") from None
    segment = Segment(sb, keys, f.read(Segment.HEADER), name)
    need(segment.kind == kind, "a segment's kind")
    segment.file = f
    return segment
