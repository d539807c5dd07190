"""A directory on a mounted volume as a store.

A file appears by `link` of a finished, flushed temporary file: link fails when the name is taken, so
nothing is ever overwritten, and who dies before it leaves only a temporary file that nobody lists.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenant_backup.contract.reasons import Failure, Reason

from .base import (
    BLOCK,
    AlreadyExistsError,
    Buffer,
    Digest,
    Entry,
    NotFoundError,
    blocks_of,
    check_name,
    require_digest,
    view_of,
)

INCOMING = ".incoming"  # temporary files; no store name begins with a dot
ABANDONED_AFTER = 86400.0  # seconds without a write: its writer is dead
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class VolumeStore:
    """Files below `{volume}/{root}`; keeps the promises of `base.Store`."""

    def __init__(self, volume: Path, root: str) -> None:
        self._volume = volume
        self._root = volume / root
        self._shown = f"volume:/{root}"
        with self._explained():
            mounted = volume.is_dir()
        if not mounted:
            message = f"no volume is mounted at {volume}; check the BackupStore's PersistentVolumeClaim"
            raise Failure(Reason.STORE_UNAVAILABLE, message, retriable=True)

    @property
    def location(self) -> str:
        """See Store."""
        return self._shown

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """See Store. Raises before writing when the name is taken already."""
        with self._explained(), view_of(source) as view:
            target = self._path(name)
            if target.exists():
                raise AlreadyExistsError(name)
            temporary = self._incoming() / secrets.token_hex(16)
            try:
                require_digest(name, _write(temporary, view), digest)
                self._make_folder(target.parent)
                _link(temporary, target, name)
                _flush_folder(target.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def chunks(self, name: str, start: int = 0) -> Iterator[Buffer]:
        """See Store."""
        with self._explained():
            try:
                fd = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(name) from None
            try:
                os.lseek(fd, start, os.SEEK_SET)
                yield from iter(lambda: os.read(fd, BLOCK), b"")
            finally:
                os.close(fd)

    def stat(self, name: str) -> int | None:
        """See Store."""
        with self._explained():
            try:
                return self._path(name).stat(follow_symlinks=False).st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """See Store."""
        with self._explained():
            yield from (entry for entry in _walk(self._path(folder), folder) if entry.name > after)

    def folders(self) -> Iterator[str]:
        """See Store."""
        with self._explained(), suppress(FileNotFoundError, NotADirectoryError):
            found = [item.name for item in os.scandir(self._root) if item.is_dir(follow_symlinks=False)]
            yield from sorted(name for name in found if not name.startswith("."))

    def delete(self, name: str) -> None:
        """See Store."""
        with self._explained():
            path = self._path(name)
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            _flush_folder(path.parent)

    def _path(self, name: str) -> Path:
        path = self._root / check_name(name)
        # A name cannot lead outside, but a symbolic link planted on the volume could.
        if not path.parent.resolve().is_relative_to(self._volume.resolve()):
            message = f"{self._shown}/{name} leaves the volume through a symbolic link; remove the link"
            raise Failure(Reason.STORE_PERMISSION_DENIED, message)
        return path

    def _incoming(self) -> Path:
        folder = self._root / INCOMING
        if not folder.is_dir():
            self._make_folder(folder)
        for left in folder.iterdir():
            _remove_if_abandoned(left)
        return folder

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        try:
            folder.mkdir(0o770)
        except FileExistsError:
            return  # another thread or pod was faster
        _flush_folder(folder.parent)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> Failure:
        said = f"({error.strerror or 'I/O error'})"
        if error.errno in _FULL:
            message = f"{self._shown} is full {said}; enlarge the volume or free space on it, then retry"
            return Failure(Reason.STORE_FULL, message)
        if error.errno in _REFUSED:
            message = f"{self._shown} refused access {said}; give the pods' user read and write rights on it"
            return Failure(Reason.STORE_PERMISSION_DENIED, message)
        message = f"{self._shown} failed {said}; check the volume"
        return Failure(Reason.STORE_UNAVAILABLE, message, retriable=True)


def _write(temporary: Path, view: memoryview) -> Digest:
    sha256 = hashlib.sha256()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
    with os.fdopen(fd, "wb", buffering=0) as file:
        for block in blocks_of(view):
            sha256.update(block)
            _write_all(file.fileno(), block)
        os.fsync(fd)
        # Not from our cache: a later verification shall read what the disk holds.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return Digest(len(view), sha256.hexdigest())


def _write_all(fd: int, block: memoryview) -> None:
    while block:
        block = block[os.write(fd, block) :]


def _link(temporary: Path, target: Path, name: str) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise AlreadyExistsError(name) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        message = f"the volume's file system has no hard links ({error.strerror}); use one that has, such as "
        raise Failure(Reason.STORE_UNAVAILABLE, message + "ext4, XFS, NFS or CephFS") from error


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_if_abandoned(temporary: Path) -> None:
    try:
        if time.time() - temporary.stat().st_mtime > ABANDONED_AFTER:
            temporary.unlink()
    except FileNotFoundError:
        return  # its writer finished, or another pod cleaned up


def _walk(folder: Path, name: str) -> Iterator[Entry]:
    try:
        found = [item for item in os.scandir(folder) if not item.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    # "a/b" sorts before "a.b" as a path but after it as a name: order as the full names do.
    for item in sorted(found, key=lambda item: item.name + "/" * item.is_dir(follow_symlinks=False)):
        below = f"{name}/{item.name}"
        if item.is_dir(follow_symlinks=False):
            yield from _walk(folder / item.name, below)
        elif item.is_file(follow_symlinks=False):
            # Deleted since the folder was read: by the collector, or by another one's.
            with suppress(FileNotFoundError):
                status = item.stat(follow_symlinks=False)
                yield Entry(below, status.st_size, status.st_mtime)
