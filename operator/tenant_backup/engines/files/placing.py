"""Putting the files of a backup on an empty volume, so that whoever dies, the next attempt ends it.

All is unpacked below `.tenant-backup` at the top of the volume, checked, and only then moved up, one entry
after the other. How far it is say the names there, `{h}` being of the restore: `{h}.new` is being unpacked,
`{h}.ready` is complete and being moved, `{h}.done` is in place. Nothing is ever deleted elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from tenant_backup.contract import paths
from tenant_backup.contract.job import Volume
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.handles import handle
from tenant_backup.engines.seam import Stored

from . import names, tar
from .unpacking import DIRECTORY, Directory, Unpacker

_TOLD = 5  # paths in a message
_CONNECTION_LOST = (errno.EPIPE, errno.ECONNRESET)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def place(volume: Volume, uid: str, described: dict[str, Any], stored: Stored) -> dict[str, Any]:
    """Restore a volume, however often; return {files, bytes, skipped: sentences}.

    `uid` is the restore's, `described` what the catalogue says of the volume. Raises Failure.
    """
    with _told(volume), _opened(paths.FILES / volume.name) as root:
        ground = _Ground(volume, root, handle(uid))
        try:
            told = ground.restore(described, stored)
        finally:
            ground.close()
    return {"files": described["files"], "bytes": described["bytes"], "skipped": told}


class _Ground:
    """A volume on which one restore is at work."""

    def __init__(self, volume: Volume, root: int, handle: str) -> None:
        self._volume, self._root = volume, root
        self._new, self._ready, self._done = f"{handle}.new", f"{handle}.ready", f"{handle}.done"
        self._journal = f"{handle}.json"
        with contextlib.suppress(FileExistsError):
            os.mkdir(names.OURS, 0o700, dir_fd=root)
        self._ours = os.open(names.OURS, DIRECTORY, dir_fd=root)
        try:
            fcntl.flock(self._ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            message = f"another restore is at work on volume {volume.name}; this one tries again"
            raise Failure(Reason.VOLUME_UNAVAILABLE, message, retriable=True) from None

    def close(self) -> None:
        """Let others work on it."""
        os.close(self._ours)

    def restore(self, described: dict[str, Any], stored: Stored) -> list[str]:
        """Go on where an earlier attempt was; return sentences about what is not as it was."""
        told: list[str] = []
        stands = set(os.listdir(self._ours))
        if self._done in stands:
            return told
        if self._ready not in stands:
            self._refuse_unless_empty()
            for name in stands:
                _remove(name, self._ours)
            told = self._unpack(described, stored)
        self._move_up()
        return told

    def _refuse_unless_empty(self) -> None:
        found = sorted(set(os.listdir(self._root)) - names.LEFT_ALONE)
        if found:
            message = (
                f"volume {self._volume.name} (claim {self._volume.claim}) is not empty: it has"
                f" {names.listed(found[:_TOLD], len(found))}; name an empty claim in target.files of a new"
                " TenantRestore, or empty this one first"
            )
            raise Failure(Reason.NAME_TAKEN, message)

    def _unpack(self, described: dict[str, Any], stored: Stored) -> list[str]:
        os.mkdir(self._new, 0o700, dir_fd=self._ours)
        with _opened(self._new, self._ours) as top:
            unpacker = Unpacker(top)
            unpacker.unpack(tar.Reader(_blocks(described["segments"], stored)))
        found, wanted = unpacker.done, (described["files"], described["bytes"])
        if (found.files, found.bytes) != wanted:
            message = (
                f"volume {self._volume.name} got {found.files} files with {found.bytes} bytes, the backup has"
                f" {wanted[0]} with {wanted[1]}; nothing was put in place: report this"
            )
            raise Failure(Reason.LOAD_FAILED, message)
        self._write_journal(unpacker.tops())
        _sync(self._root)
        os.rename(self._new, self._ready, src_dir_fd=self._ours, dst_dir_fd=self._ours)
        os.fsync(self._ours)
        return found.told()

    def _move_up(self) -> None:
        with _opened(self._ready, self._ours) as ready:
            for name in sorted(os.listdir(ready), key=os.fsencode):
                self._refuse_another(name)
                os.rename(name, name, src_dir_fd=ready, dst_dir_fd=self._root)
        for directory in self._read_journal():
            directory.finish(directory.path, self._root)
        _sync(self._root)
        os.rename(self._ready, self._done, src_dir_fd=self._ours, dst_dir_fd=self._ours)
        os.unlink(self._journal, dir_fd=self._ours)
        os.fsync(self._ours)

    def _refuse_another(self, name: str) -> None:
        """Somebody may have used the volume meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            os.lstat(name, dir_fd=self._root)
            message = (
                f"{names.shown(name)} came to volume {self._volume.name} while it was restored; stop who uses"
                " it, empty it, and create a new TenantRestore"
            )
            raise Failure(Reason.NAME_TAKEN, message)

    def _write_journal(self, tops: list[Directory]) -> None:
        document = [[os.fsdecode(top.path), top.mode, top.mtime] for top in tops]
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._journal, flags, 0o600, dir_fd=self._ours), "w") as file:
            json.dump(document, file)

    def _read_journal(self) -> list[Directory]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._journal, flags, dir_fd=self._ours)) as file:
            return [Directory(os.fsencode(path), mode, mtime) for path, mode, mtime in json.load(file)]


def _blocks(segments: Iterable[str], stored: Stored) -> Iterator[memoryview]:
    """Yield the bytes of segments, one after the other."""
    for segment in segments:
        yield from stored.blocks(segment)
        stored.verdict()


def _remove(name: str, folder: int) -> None:
    """Remove what an attempt left that got no further."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        os.chmod(name, 0o700, dir_fd=folder)
        with _opened(name, folder) as below:
            for child in os.listdir(below):
                _remove(child, below)
        os.rmdir(name, dir_fd=folder)


@contextlib.contextmanager
def _opened(path: os.PathLike[str] | str, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, DIRECTORY, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(root: int) -> None:
    """Have all of the volume on disk."""
    if ctypes.CDLL(None, use_errno=True).syncfs(root):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def _told(volume: Volume) -> Iterator[None]:
    """Turn what the volume refuses into a Failure; a lost connection is the caller's."""
    try:
        yield
    except PermissionError as error:
        message = (
            f"user {os.geteuid()}, group {os.getegid()} cannot write to volume {volume.name} (claim"
            f" {volume.claim}): {error.strerror}; make its top writable for them, or set securityContext of"
            " that entry of the Tenant's spec.files"
        )
        raise Failure(Reason.PERMISSION_DENIED, message) from error
    except OSError as error:
        if error.errno in _CONNECTION_LOST:
            raise
        full = "; make it larger" if error.errno in _FULL else "; see that it is healthy"
        message = f"writing to volume {volume.name} (claim {volume.claim}): {error.strerror}{full}"
        raise Failure(Reason.VOLUME_UNAVAILABLE, message, retriable=error.errno not in _FULL) from error
