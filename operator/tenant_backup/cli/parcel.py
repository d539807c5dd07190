"""What `export` leaves behind: one file or one folder, under its final name only when it is complete.

Until then it is a temporary file beside its place, so that the last step is a rename on one file system; it
is removed when something fails. Nothing that exists is overwritten.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from tenant_backup.contract.reasons import Failure, Reason

from .private import vanishing

SUMS = "SHA256SUMS"
_CHUNK = 1 << 20  # bytes written at once


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


def write_zip(
    target: Path, name: str, at: datetime, script: Iterable[bytes], others: Mapping[str, bytes]
) -> None:
    """Write a ZIP with the script as `name`, `others`, and their checksums. Raises Failure."""
    with _arriving(target) as temporary, zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
        sums = {}
        for member, blocks in _members(name, script, others):
            info = zipfile.ZipInfo(member, at.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            # Zip64 at once: how long it gets is known only at its end.
            with archive.open(info, "w", force_zip64=True) as file:
                sums[member] = _copy(blocks, file)
        archive.writestr(zipfile.ZipInfo(SUMS, at.timetuple()[:6]), _sums(sums))


def write_folder(target: Path, name: str, script: Iterable[bytes], others: Mapping[str, bytes]) -> None:
    """Write the same members into a new folder. Raises Failure."""
    with _arriving(target) as temporary:
        temporary.mkdir(mode=0o700)
        sums = {}
        for member, blocks in _members(name, script, others):
            with _new(temporary / member) as file:
                sums[member] = _copy(blocks, file)
        with _new(temporary / SUMS) as file:
            file.write(_sums(sums))


def _members(
    name: str, script: Iterable[bytes], others: Mapping[str, bytes]
) -> Iterator[tuple[str, Iterable[bytes]]]:
    yield name, script
    for other, data in others.items():
        yield other, [data]


def _sums(sums: Mapping[str, str]) -> bytes:
    """As `sha256sum -c` reads them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


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
