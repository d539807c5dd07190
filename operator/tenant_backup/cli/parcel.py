"""What `export` leaves behind: one file or one folder, under its final name only when it is complete.

Until then it is a temporary file beside its place, so that the last step is a rename on one file system; it
is removed when something fails. Nothing that exists is overwritten.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tenant_backup.contract.reasons import Failure, Reason

from . import volumes
from .private import vanishing

SUMS = "SHA256SUMS"
_CHUNK = 1 << 20  # bytes written at once


@dataclass(frozen=True)
class Contents:
    """What is in a ZIP or a folder, beside the checksums of it all."""

    at: datetime  # of what is made now
    script: Iterable[bytes] | None  # SQL
    script_name: str
    others: Mapping[str, bytes]  # small ones by name
    unpack: Callable[[Path], None] | None  # writes the files of volumes into a new folder

    def members(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Yield the name and the bytes of each that is no tenant's file."""
        if self.script is not None:
            yield self.script_name, self.script
        for name, data in self.others.items():
            yield name, [data]


class Writer(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


def free(target: Path) -> None:
    """Refuse a name that is taken, or a folder that is not there. Raises Failure."""
    if target.exists() or target.is_symlink():
        raise Failure(
            Reason.NAME_TAKEN, f"{target} exists and is not overwritten; name another place with -o"
        )
    if not target.parent.is_dir():
        raise Failure(
            Reason.VOLUME_UNAVAILABLE,
            f"there is no folder {target.parent}; make it, or name another place with -o",
        )


def write_sql(target: Path, script: Iterable[bytes]) -> None:
    """Write one SQL file. Raises Failure."""
    with _arriving(target) as temporary, _new(temporary) as file:
        _copy(script, file)


def write_zip(target: Path, contents: Contents) -> None:
    """Write a ZIP with all of it, and their checksums. Raises Failure."""
    with _arriving(target) as temporary, zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
        sums = _Sums()
        for member, blocks in contents.members():
            info = zipfile.ZipInfo(member, contents.at.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            # Zip64 at once: how long it gets is known only at its end.
            with archive.open(info, "w", force_zip64=True) as file:
                sums.add(member, _copy(blocks, file))
        if contents.unpack is not None:
            unpacked = _unpacked(contents.unpack, temporary.with_name(volumes.FOLDER))
            volumes.add_to_zip(archive, unpacked, sums.add)
        archive.writestr(zipfile.ZipInfo(SUMS, contents.at.timetuple()[:6]), b"".join(sums.lines))


def write_folder(target: Path, contents: Contents) -> None:
    """Write the same into a new folder. Raises Failure."""
    with _arriving(target) as temporary:
        temporary.mkdir(mode=0o700)
        sums = _Sums()
        for member, blocks in contents.members():
            with _new(temporary / member) as file:
                sums.add(member, _copy(blocks, file))
        if contents.unpack is not None:
            volumes.add_sums(_unpacked(contents.unpack, temporary / volumes.FOLDER), sums.add)
        with _new(temporary / SUMS) as file:
            file.write(b"".join(sums.lines))


@dataclass
class _Sums:
    """Lines for `sha256sum -c`."""

    lines: list[bytes] = field(default_factory=list)

    def add(self, path: str, digest: str) -> None:
        """See volumes.Sum."""
        self.lines.append(volumes.sum_line(path, digest))


def _unpacked(unpack: Callable[[Path], None], folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    unpack(folder)
    return folder


def _copy(blocks: Iterable[bytes], file: Writer) -> str:
    sha256 = hashlib.sha256()
    for block in blocks:
        sha256.update(block)
        file.write(block)
    return sha256.hexdigest()


@contextmanager
def _new(path: Path) -> Iterator[Writer]:
    """A new file, flushed to the disk when the block ends well. Rows are in it: nobody else may read it."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _arriving(target: Path) -> Iterator[Path]:
    """Give a place beside `target` and move what is there in the end."""
    free(target)
    try:
        with vanishing(target.with_name(f".{target.name}.{secrets.token_hex(6)}")) as holder:
            yield holder / "new"
            free(target)
            (holder / "new").rename(target)
    except OSError as error:
        raise Failure(
            Reason.VOLUME_UNAVAILABLE,
            f"{target} could not be written ({error.strerror}); nothing is left of it, free space or name"
            " another place with -o",
        ) from error
