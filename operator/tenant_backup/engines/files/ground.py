"""A volume on which a restore is at work: what is ours there is below `.tenant-backup`, at the top."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from tenant_backup.contract import paths
from tenant_backup.contract.job import Volume
from tenant_backup.contract.reasons import Failure, Reason

from . import names
from .descending import DIRECTORY, make_usable

_CONNECTION_LOST = (errno.EPIPE, errno.ECONNRESET)
FULL = (errno.ENOSPC, errno.EDQUOT)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Ground:
    """A volume held by one restore; `root` is its top and `ours` the folder of ours, both open."""

    volume: Volume
    root: int
    ours: int

    def there(self) -> set[str]:
        """Return the names in our folder."""
        return set(os.listdir(self.ours))

    def top(self) -> list[bytes]:
        """Return the names of what the tenant has at the top, in a fixed order."""
        return sorted(os.fsencode(name) for name in os.listdir(self.root) if name not in names.LEFT_ALONE)

    def make(self, name: str) -> None:
        """Make a folder below ours, unless it is there."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.ours)

    def write(self, name: str, text: str) -> None:
        """Write a file below ours, as a whole or not at all; all of the volume is on disk before it is."""
        unfinished = f"{name}.tmp"
        with os.fdopen(os.open(unfinished, _WRITE, 0o600, dir_fd=self.ours), "w") as file:
            file.write(text)
        self.sync()
        self.rename(unfinished, name)

    def read(self, name: str) -> str | None:
        """Return what is in a file below ours; None when there is none."""
        try:
            with os.fdopen(os.open(name, _READ, dir_fd=self.ours)) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def rename(self, old: str, new: str) -> None:
        """Give what is below ours another name: how far a restore is, is said by names."""
        os.rename(old, new, src_dir_fd=self.ours, dst_dir_fd=self.ours)
        os.fsync(self.ours)

    def unlink(self, name: str) -> None:
        """Remove a file below ours, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.ours)
        os.fsync(self.ours)

    def remove(self, name: str) -> None:
        """Remove something below ours with all that is in it, if it is there.

        Directories in it are moved up first, so that no depth is too much.
        """
        fresh = (f"{name}.{number}" for number in count())
        taken, waiting = self.there(), [name]
        while waiting:
            folder = waiting.pop()
            try:
                os.unlink(folder, dir_fd=self.ours)
                continue
            except FileNotFoundError:
                continue
            except IsADirectoryError:
                make_usable(folder, self.ours)
            with opened(folder, self.ours) as below:
                for child in os.listdir(below):
                    try:
                        os.unlink(child, dir_fd=below)
                    except IsADirectoryError:
                        make_usable(child, below, os.W_OK)
                        moved = next(each for each in fresh if each not in taken)
                        os.rename(child, moved, src_dir_fd=below, dst_dir_fd=self.ours)
                        waiting.append(moved)
            os.rmdir(folder, dir_fd=self.ours)

    def sync(self) -> None:
        """Have all of the volume on disk."""
        if ctypes.CDLL(None, use_errno=True).syncfs(self.root):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def working_on(volume: Volume) -> Iterator[Ground]:
    """Hold a volume, alone. Raises Failure; what the volume refuses meanwhile becomes one, too."""
    with _told(volume), opened(paths.FILES / volume.name) as root:
        with contextlib.suppress(FileExistsError):
            os.mkdir(names.OURS, 0o700, dir_fd=root)
        with opened(names.OURS, root) as ours:
            try:
                fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another restore is at work on volume {volume.name}; this one tries again"
                raise Failure(Reason.VOLUME_UNAVAILABLE, message, retriable=True) from None
            yield Ground(volume, root, ours)


@contextlib.contextmanager
def opened(path: os.PathLike[str] | str | bytes, folder: int | None = None) -> Iterator[int]:
    """Open a directory."""
    descriptor = os.open(path, DIRECTORY, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(volume: Volume) -> Iterator[None]:
    """Turn what the volume refuses into a Failure; a lost connection is the caller's."""
    try:
        yield
    except PermissionError as error:
        where = f" {names.shown(os.fsdecode(error.filename))}" if error.filename else ""
        message = (
            f"user {os.geteuid()}, group {os.getegid()} cannot write to{where or ' it'} on volume"
            f" {volume.name} (claim {volume.claim}): {error.strerror}; make it writable for them, or set"
            " securityContext of that entry of the Tenant's spec.files"
        )
        raise Failure(Reason.PERMISSION_DENIED, message) from error
    except OSError as error:
        if error.errno in _CONNECTION_LOST:
            raise
        full = "; make it larger" if error.errno in FULL else "; see that it is healthy"
        message = f"writing to volume {volume.name} (claim {volume.claim}): {error.strerror}{full}"
        raise Failure(Reason.VOLUME_UNAVAILABLE, message, retriable=error.errno not in FULL) from error
