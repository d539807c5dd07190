"""The bytes of a volume in a backup: a POSIX pax tar, so that any tar unpacks it without us.

What we write is the same for the same files: no time of today, no names of users, members in a fixed order.
Holes are written as GNU's sparse format 1.0, extended attributes as SCHILY.xattr. `tarfile` reads all of it,
but takes several times as long for a header, which counts with a hundred thousand files.
"""

from __future__ import annotations

import functools
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from tenant_backup.contract.reasons import Failure, Reason

BLOCK = 512  # bytes; everything in a tar is padded to it
END = bytes(2 * BLOCK)

Type = Literal["file", "directory", "symlink", "hardlink"]
Extents = tuple[tuple[int, int], ...]  # (offset, length) of each stretch that is not a hole

_HEADER = struct.Struct("100s48s8s1s100s8s247x")  # name, numbers, checksum, type, target, magic
_NO_CHECKSUM = b" " * 8
_MAGIC = b"ustar\x0000"
_FLAGS: dict[Type, bytes] = {"file": b"0", "hardlink": b"1", "symlink": b"2", "directory": b"5"}
_TYPES = {flag: type_ for type_, flag in _FLAGS.items()}
_PAX = b"x"
_OCTAL_7, _OCTAL_11 = 0o7777777, 0o77777777777  # the largest that fit into a header
_NAME_MAX = 100  # bytes
_PAX_MAX = 1 << 20  # bytes of records that are believed; attributes have 64 KiB at most
_XATTR = b"SCHILY.xattr."
_SECOND = 1_000_000_000
_TEN_DIGITS = 1_000_000_000  # seconds: a moment in 2001; before 2286 they have as many digits
_AFTER_RECORD = bytes(BLOCK - 30)


class Entry(NamedTuple):
    """One file, directory or link."""

    path: bytes  # relative to the volume; no slash at either end
    type: Type
    mode: int  # permission bits
    uid: int
    gid: int
    mtime: int  # nanoseconds since 1970
    size: int = 0  # bytes of a file, holes included
    target: bytes = b""  # of a symbolic link; of a hard link the path of its first name
    xattrs: Mapping[bytes, bytes] = {}
    extents: Extents | None = None  # of a file with holes

    @property
    def data(self) -> Extents:
        """The stretches whose bytes follow the header, in this order."""
        return ((0, self.size),) if self.extents is None else self.extents


def header(entry: Entry) -> bytes:
    """Return what stands before an entry's data."""
    table, stored = b"", entry.size
    if entry.extents is not None:
        table = _table(entry.extents)
        stored = len(table) + sum(length for _, length in entry.extents)
    name = entry.path + b"/" if entry.type == "directory" else entry.path
    records = _records(entry, name, stored)
    pax = _pax(records) if records else b""
    seconds = min(max(entry.mtime // _SECOND, 0), _OCTAL_11)
    numbers = (
        entry.mode,
        min(entry.uid, _OCTAL_7),
        min(entry.gid, _OCTAL_7),
        min(stored, _OCTAL_11),
        seconds,
    )
    return pax + _block(name, numbers, _FLAGS[entry.type], entry.target) + table


def plain_header(path: bytes, status: os.stat_result) -> bytes:
    """Return `header` of a file without holes and attributes, in a third of the time: most are like that."""
    seconds, fraction = divmod(status.st_mtime_ns, _SECOND)
    mode, uid, gid, size = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_size
    fits = len(path) <= _NAME_MAX and size <= _OCTAL_11 and uid <= _OCTAL_7 and gid <= _OCTAL_7
    if not fits or not path.isascii() or not fraction or not _TEN_DIGITS <= seconds < 10 * _TEN_DIGITS:
        return header(Entry(path, "file", mode, uid, gid, status.st_mtime_ns, size))
    record = b"30 mtime=%d.%09d\n" % (seconds, fraction)
    block = _block(path, (mode, uid, gid, size, min(seconds, _OCTAL_11)), _FLAGS["file"], b"")
    return b"".join((_pax_block(30), record, _AFTER_RECORD, block))


def padding(length: int) -> bytes:
    """Return what stands behind `length` bytes of data."""
    return bytes(-length % BLOCK)


def _table(extents: Extents) -> bytes:
    numbers = [len(extents), *(number for extent in extents for number in extent)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + padding(len(text))


def _records(entry: Entry, name: bytes, stored: int) -> bytes:
    """Return what a header has no room for."""
    found: list[tuple[bytes, bytes]] = []
    if stored > _OCTAL_11:
        found.append((b"size", b"%d" % stored))
    if entry.extents is not None:
        found += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
        found += [(b"GNU.sparse.name", name), (b"GNU.sparse.realsize", b"%d" % entry.size)]
    elif len(name) > _NAME_MAX or not name.isascii():
        found.append((b"path", name))
    if len(entry.target) > _NAME_MAX or not entry.target.isascii():
        found.append((b"linkpath", entry.target))
    if entry.uid > _OCTAL_7:
        found.append((b"uid", b"%d" % entry.uid))
    if entry.gid > _OCTAL_7:
        found.append((b"gid", b"%d" % entry.gid))
    if entry.mtime % _SECOND or not 0 <= entry.mtime // _SECOND <= _OCTAL_11:
        found.append((b"mtime", _decimal(entry.mtime)))
    found += [(_XATTR + _escaped(key), value) for key, value in sorted(entry.xattrs.items())]
    if not _is_text(name) or not _is_text(entry.target):
        found.insert(0, (b"hdrcharset", b"BINARY"))
    return b"".join(_record(key, value) for key, value in found)


def _record(key: bytes, value: bytes) -> bytes:
    """Return `length key=value`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _decimal(nanoseconds: int) -> bytes:
    sign, absolute = (b"-", -nanoseconds) if nanoseconds < 0 else (b"", nanoseconds)
    return b"%s%d.%09d" % (sign, absolute // _SECOND, absolute % _SECOND)


def _escaped(key: bytes) -> bytes:
    # As GNU tar does: the first = ends the key of a record.
    return key.replace(b"%", b"%25").replace(b"=", b"%3D")


def _is_text(name: bytes) -> bool:
    if name.isascii():
        return True
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pax(records: bytes) -> bytes:
    return _pax_block(len(records)) + records + padding(len(records))


@functools.lru_cache  # nearly all have one of a few lengths
def _pax_block(length: int) -> bytes:
    return _block(b"PaxHeaders", (0o644, 0, 0, length, 0), _PAX, b"")


def _block(name: bytes, numbers: tuple[int, int, int, int, int], flag: bytes, target: bytes) -> bytes:
    name, target = name[:_NAME_MAX], target[:_NAME_MAX]
    digits = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    # Of all bytes of the block; those that are not here are zero.
    checksum = b"%06o\0 " % _sum(name + digits + _NO_CHECKSUM + flag + target + _MAGIC)
    return _HEADER.pack(name, digits, checksum, flag, target, _MAGIC)


def _sum(block: bytes) -> int:
    """Return the sum of the bytes, as Adler-32 has it, many times as fast as sum(): modulo 65521, from 1 on.

    A header that we write does not come near that.
    """
    return (zlib.adler32(block) & 0xFFFF) - 1


class Reader:
    """Reads a tar that `header` wrote, from pieces of any size; no others.

    Raises Failure(CHECKSUM_MISMATCH) on anything else: what is signed was written by us.
    """

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._left = 0  # bytes of the entry's data and padding that nobody has asked for

    def entries(self) -> Iterator[Entry]:
        """Yield each entry; its `data` may be read before the next one is asked for."""
        while (entry := self._next()) is not None:
            yield entry
            for _ in self.data(self._left):
                pass
        for _ in self._pieces:
            pass  # the sender's verdict comes behind the last of them

    def data(self, length: int) -> Iterator[memoryview]:
        """Yield the next bytes of the entry's data; a piece is good until the next one."""
        self._left -= length
        while length:
            if not self._piece:
                self._piece = next(self._pieces, memoryview(b""))
                if not self._piece:
                    raise _damaged("it ends too early")
            piece, self._piece = self._piece[:length], self._piece[length:]
            length -= len(piece)
            yield piece

    def _next(self) -> Entry | None:
        block, records = self._take(BLOCK), b""
        if not any(block):
            return None
        try:
            if block[156:157] == _PAX:
                records = self._padded(_Fields(block).number(124, 12))
                block = self._take(BLOCK)
            return _sane(self._entry(_Fields(block), dict(_parsed(records))))
        except ValueError:
            raise _damaged("a number in a header is none") from None

    def _take(self, length: int) -> bytes:
        self._left += length
        return self._copied(length)

    def _copied(self, length: int) -> bytes:
        # Each piece is copied before the next one comes into the same buffer.
        return b"".join([bytes(piece) for piece in self.data(length)])

    def _padded(self, length: int) -> bytes:
        if length > _PAX_MAX:
            raise _damaged("a header is too long")
        taken = self._take(length)
        self._take(len(padding(length)))
        return taken

    def _entry(self, fields: _Fields, records: dict[bytes, bytes]) -> Entry:
        stored = int(records.get(b"size", b"") or fields.number(124, 12))
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or fields.text(0, _NAME_MAX)
        mtime = records.get(b"mtime")
        self._left = stored + len(padding(stored))
        found = Entry(
            path=name.removesuffix(b"/"),
            type=fields.type(),
            mode=fields.number(100, 8),
            uid=int(records.get(b"uid", b"") or fields.number(108, 8)),
            gid=int(records.get(b"gid", b"") or fields.number(116, 8)),
            mtime=_nanoseconds(mtime) if mtime else fields.number(136, 12) * _SECOND,
            size=stored,
            target=records.get(b"linkpath") or fields.text(157, _NAME_MAX),
            xattrs={
                _unescaped(key.removeprefix(_XATTR)): value
                for key, value in records.items()
                if key.startswith(_XATTR)
            },
        )
        if b"GNU.sparse.realsize" not in records:
            return found
        return found._replace(size=int(records[b"GNU.sparse.realsize"]), extents=self._read_table())

    def _read_table(self) -> Extents:
        count, text = self._numbers(b"", 1)
        numbers, text = self._numbers(text, 1 + 2 * count[0])
        offsets, lengths = numbers[1::2], numbers[2::2]
        return tuple(zip(offsets, lengths, strict=True))

    def _numbers(self, text: bytes, wanted: int) -> tuple[list[int], bytes]:
        """Return so many lines of the table; `text` is what was read of it."""
        blocks = [text]
        lines = text.count(b"\n")
        while lines < wanted:
            blocks.append(self._copied(BLOCK))
            lines += blocks[-1].count(b"\n")
        text = b"".join(blocks)
        return [int(line) for line in text.split(b"\n", wanted)[:wanted]], text


class _Fields:
    """A header's block."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        blank = block[:148] + _NO_CHECKSUM + block[156:]
        if block[257:262] != b"ustar" or self.number(148, 8) != _sum(blank):
            raise _damaged("a header is none")

    def text(self, start: int, length: int) -> bytes:
        """Return a text."""
        return self._block[start : start + length].partition(b"\0")[0]

    def number(self, start: int, length: int) -> int:
        """Return an octal number."""
        return int(self.text(start, length), 8)

    def type(self) -> Type:
        """Return what it is."""
        flag = self._block[156:157]
        if flag not in _TYPES:
            raise _damaged(f"it has an entry of type {flag!r}")
        return _TYPES[flag]


def _parsed(records: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(records):
        digits = records[at : at + 9].partition(b" ")[0]
        end = at + int(digits)
        if not at + len(digits) < end <= len(records):
            raise _damaged("a record of a header is none")
        key, _, value = records[at + len(digits) + 1 : end - 1].partition(b"=")
        yield key, value
        at = end


def _sane(entry: Entry) -> Entry:
    """Return it, unless there is a number in it that no file can have."""
    numbers = (
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        *(number for pair in entry.data for number in pair),
    )
    if min(numbers) < 0 or max(numbers) >= 1 << 63 or max(entry.uid, entry.gid) >= 1 << 32:
        raise _damaged("a number in a header is impossible")
    if abs(entry.mtime) >= 1 << 64:
        raise _damaged("a time in a header is impossible")
    return entry


def _nanoseconds(text: bytes) -> int:
    whole, _, fraction = text.lstrip(b"-").partition(b".")
    absolute = int(whole) * _SECOND + int(fraction.ljust(9, b"0")[:9] or b"0")
    return -absolute if text.startswith(b"-") else absolute


def _unescaped(key: bytes) -> bytes:
    return key.replace(b"%3D", b"=").replace(b"%25", b"%")


def _damaged(what: str) -> Failure:
    message = f"the files of the backup cannot be read ({what}); choose another backup, and report this"
    return Failure(Reason.CHECKSUM_MISMATCH, message)
