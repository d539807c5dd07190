"""The files of a backup in a folder, and in a ZIP, which holds less.

They are unpacked by what fills volumes in a cluster. A ZIP gets them from there: a file that changed while it
was backed up stands twice in the archive, and a hard link needs what it points to.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tenant_backup.archive.lists import Catalogue
from tenant_backup.archive.reader import ArchiveReader
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.files import names, tar
from tenant_backup.engines.files.unpacking import Unpacker
from tenant_backup.engines.files.walking import Folders, Found, walk

from . import console

FOLDER = "files"  # in an export
_PIECE = 1 << 20  # bytes read at once
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ZIP_NAME_MAX = 0xFFFF  # bytes
_ZIP_YEARS = (1980, 2107)
_TIMES = struct.Struct(
    "<2sHBi"
)  # extra field of a ZIP's entry: UT, its length, 1 for mtime, seconds since 1970
_ESCAPED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}

Sum = Callable[[str, str], None]  # takes a path, bytes as os.fsdecode has them, and its SHA-256 (hex)


def described(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return the volumes of a backup for machines."""
    return [
        {key: value for key, value in volume.items() if key != "segments"}
        for volume in catalogue.engine.get("files", ())
    ]


def unpack(reader: ArchiveReader, catalogue: Catalogue, folder: Path) -> None:
    """Unpack each volume into a folder of its name; say what is not as it was. Raises Failure, OSError."""
    for volume in catalogue.engine.get("files", ()):
        (folder / volume["name"]).mkdir(mode=0o700)
        top = os.open(folder / volume["name"], _DIRECTORY)
        try:
            unpacker = Unpacker(top)
            unpacker.unpack(tar.Reader(_blocks(reader, catalogue, volume["segments"])))
        finally:
            os.close(top)
        for sentence in unpacker.done.told():
            console.say(f"volume {volume['name']}: {sentence}")


def add_sums(folder: Path, add: Sum) -> None:
    """Tell the SHA-256 of each file below `folder`. Raises Failure, OSError."""
    for found, above in _walked(folder):
        if stat.S_ISREG(found.status.st_mode):
            add(f"{FOLDER}/{found.path}", _copied(found, above, None))


def add_to_zip(archive: zipfile.ZipFile, folder: Path, add: Sum) -> None:
    """Add all below `folder` as Info-ZIP does, and tell the SHA-256 of each file. Raises Failure, OSError.

    A ZIP has no hard links, which become files of their own, no holes, which become zeros, no owners and no
    attributes. Symbolic links are entries that say so. Names are UTF-8: in others each byte that is none
    becomes %XX.
    """
    renamed = 0
    for found, above in _walked(folder):
        name = _zip_name(found, archive)
        renamed += name.rstrip("/") != f"{FOLDER}/{found.path}"
        info = _info(name, found.status)
        if stat.S_ISLNK(found.status.st_mode):
            archive.writestr(info, os.fsencode(os.readlink(found.name, dir_fd=above)))
        elif stat.S_ISDIR(found.status.st_mode):
            archive.writestr(info, b"")
        else:
            with archive.open(info, "w", force_zip64=found.status.st_size > 1 << 30) as file:
                add(name, _copied(found, above, file))
    if renamed:
        console.say(f"{renamed} names are no UTF-8, which a ZIP wants: they have %XX for such bytes")


def sum_line(path: str, digest: str) -> bytes:
    """Return a line as `sha256sum -c` reads it."""
    escaped = re.sub(r"[\\\n\r]", lambda found: _ESCAPED[found[0]], path)
    return ("\\" if escaped != path else "").encode() + digest.encode() + b"  " + os.fsencode(escaped) + b"\n"


def _blocks(reader: ArchiveReader, catalogue: Catalogue, segments: list[str]) -> Iterator[memoryview]:
    for segment in segments:
        for block in reader.blocks(catalogue.segments[segment]):
            yield memoryview(block)


def _walked(folder: Path) -> Iterator[tuple[Found, int]]:
    """Yield all below a folder, each with the directory that it is in, opened until the next one comes."""
    root = os.open(folder, _DIRECTORY)
    folders = Folders(root)
    try:
        for found in walk(root, lambda _path: False, _refuse):
            yield found, folders.open(found.folder)
    finally:
        folders.close()
        os.close(root)


def _refuse(path: str) -> None:
    message = f"{names.shown(path)} may not be read by you, as its own mode says; run this as root"
    raise Failure(Reason.PERMISSION_DENIED, f"{message}, or take the files with `restore --files`")


def _copied(found: Found, above: int, target: IO[bytes] | None) -> str:
    """Copy a file to `target`, if there is one; return its SHA-256."""
    try:
        descriptor = os.open(found.name, _FILE, dir_fd=above)
    except PermissionError:
        _refuse(found.path)
        raise
    said = hashlib.sha256()
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            said.update(piece)
            if target is not None:
                target.write(piece)
    return said.hexdigest()


def _zip_name(found: Found, archive: zipfile.ZipFile) -> str:
    text = f"{FOLDER}/{found.path}" + ("/" if stat.S_ISDIR(found.status.st_mode) else "")
    name = "".join(
        f"%{ord(letter) - 0xDC00:02X}" if "\udc80" <= letter <= "\udcff" else letter for letter in text
    )
    while name in archive.NameToInfo:  # somebody has a file of that very name
        name = f"{name.rstrip('/')}_" + ("/" if name.endswith("/") else "")
    if len(name.encode()) > _ZIP_NAME_MAX:
        message = f"{names.shown(found.path)} has a longer name than a ZIP holds; use --format directory"
        raise Failure(Reason.UNSUPPORTED_CONTENT, message)
    return name


def _info(name: str, status: os.stat_result) -> zipfile.ZipInfo:
    seconds = int(status.st_mtime)
    first, last = _ZIP_YEARS
    moment = time.gmtime(seconds)
    year = min(max(moment.tm_year, first), last)
    info = zipfile.ZipInfo(name, (year, *moment[1:6]))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix: the mode is in the upper half
    info.external_attr = status.st_mode << 16
    if -(1 << 31) <= seconds < 1 << 31:
        info.extra = _TIMES.pack(b"UT", 5, 1, seconds)  # in UTC; the other one is of no time zone
    return info
