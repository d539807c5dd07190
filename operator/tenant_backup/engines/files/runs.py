"""Cutting a walk into runs: entries that follow each other, and are read together or not at all.

A run of which nothing has changed since an earlier backup is not read: that backup has its bytes. Whether
something has changed says a fingerprint of all that the file system says of its entries. Where a run begins
depends on the entry there, by the hash of its path: what comes or goes moves no other border.
"""

from __future__ import annotations

import hashlib
import stat
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tenant_backup.engines.seam import Piece

from .walking import Found

# A run is read again as a whole, and costs `archive` 2.4 KB of memory: large ones are few, small ones cheap.
_BYTES = 16 << 20  # of a run, on average; a file of more is a run of its own
_ENTRY = 32 << 10  # bytes that an entry counts for beside its own: 512 empty files are a run
_BYTES_MAX = 64 << 20
# The longest time in which a file can change unseen: pages of mapped memory count as changed when they are
# written to first, and again only after the kernel has brought them to disk, which it does after 35 seconds.
# Clocks of file systems move in steps of up to two seconds, and those of servers are not quite ours.
_LASTING = 60 * 10**9  # nanoseconds
# What a fingerprint stands for is these bytes of a tar: where we write other bytes, this is another word.
_WRITER = "tar 1"


@dataclass(frozen=True)
class Run(Piece):
    """A run; its fingerprint is empty when something in it may yet change unseen."""

    entries: Sequence[Found] = ()
    began: int = 0  # nanoseconds since 1970: none of the entries was looked at before


def cut(found: Iterable[Found]) -> Iterator[tuple[list[Found], int]]:
    """Yield the entries of each run, and the moment before the first of them was looked at."""
    run: list[Found] = []
    length, alone, before = 0, False, time.time_ns()
    began = before
    for one in found:
        own = _ENTRY + one.status.st_size
        if run and (alone or length + own > _BYTES_MAX or _begins(one, own)):
            yield run, began
            run, length, began = [], 0, before
        run.append(one)
        length += own
        alone = own > _BYTES
        before = time.time_ns()
    if run:
        yield run, began


def fingerprint(run: Sequence[Found], began: int, linked: dict[int, str]) -> str:
    """Return what differs when any of the entries does, in content too; nothing if that is not sure.

    `linked` has the first name of each file with several by its inode; those in this run are added.
    """
    records = [_record(one, linked) for one in run]
    changes = [one.status.st_ctime_ns for one in run]
    if max(changes) > began - _LASTING or min(changes) <= 0:  # 0 is what file systems say that keep no ctime
        return ""
    text = "\0".join([_WRITER, *records])
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _begins(one: Found, own: int) -> bool:
    return zlib.crc32(one.path.encode("utf-8", "surrogateescape")) * _BYTES < own << 32


def _record(one: Found, linked: dict[int, str]) -> str:
    # Nobody can set ctime. Whoever changes a file's content, mode, owner, links or attributes changes it.
    s = one.status
    record = (
        f"{one.folder}{one.name}\0{s.st_ino} {s.st_ctime_ns} {s.st_mtime_ns} {s.st_size}"
        f" {s.st_mode} {s.st_uid} {s.st_gid}"
    )
    if s.st_nlink > 1 and stat.S_ISREG(s.st_mode):
        return f"{record} {linked.setdefault(s.st_ino, one.path)}"
    return record
