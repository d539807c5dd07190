"""From a tar to a directory. Nothing in it can lead elsewhere: no path is ever followed.

An entry goes into the directory that was made for the one above it and is still open, so `..`, an absolute
path, or a symbolic link in the way has no meaning here. Directories get their modes and times in the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field

from tenant_backup.contract.reasons import Failure, Reason

from . import tar
from .choosing import Chosen
from .descending import DIRECTORY, open_above
from .names import LEFT_ALONE, shown

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ATTRIBUTES = (errno.ENOTSUP, errno.EPERM, errno.ENOSPC, errno.ERANGE, errno.E2BIG)
_NOWHERE = (b"", b".", b"..")
_SETS_USER = 0o6000  # bits that say whose rights a program has


@dataclass(frozen=True, slots=True)
class Directory:
    """What a directory gets when all is in it."""

    path: bytes
    mode: int
    mtime: int  # nanoseconds

    def finish(self, name: bytes, folder: int) -> None:
        """Give it to the directory `name` in `folder`."""
        descriptor = os.open(name, DIRECTORY, dir_fd=folder)
        try:
            os.utime(descriptor, ns=(self.mtime, self.mtime))
            os.fchmod(descriptor, self.mode)
        finally:
            os.close(descriptor)


@dataclass(slots=True)
class _Open:
    path: bytes
    folder: int


@dataclass
class Unpacked:
    """What has been unpacked."""

    files: int = 0  # everything but directories
    bytes: int = 0  # of files, with holes
    foreign: int = 0  # belong to another user or group than before
    plain: int = 0  # have lost extended attributes
    directories: list[Directory] = field(default_factory=list)  # each before what is in it

    def told(self) -> list[str]:
        """Return sentences about what is not as it was."""
        found = [f"{self.foreign} files have another owner or group"] if self.foreign else []
        return found + ([f"{self.plain} files have lost extended attributes"] if self.plain else [])


class Unpacker:
    """Unpacks one tar into an empty directory. Raises Failure(CHECKSUM_MISMATCH) on what we never write."""

    def __init__(self, top: int) -> None:
        """Unpack into the directory that is open as `top`."""
        self.done = Unpacked()
        self._top = top
        self._stack = [_Open(b"", top)]
        self._last = (b"", 0)  # the file before, and its bytes

    def unpack(self, reader: tar.Reader, chosen: Chosen | None = None) -> None:
        """Unpack everything, or what is chosen. Raises Failure, OSError."""
        try:
            for entry in reader.entries():
                if chosen is None or entry.path in chosen.needed:
                    self._place(entry, reader)
        finally:
            self._leave_all()
        left_over = chosen.needed - chosen.wanted if chosen else set()
        for path in left_over - {directory.path for directory in self.done.directories}:
            with open_above(self._top, path) as (folder, name):
                os.unlink(name, dir_fd=folder)
            self.done.files -= 1
        for directory in reversed(self.done.directories):
            with open_above(self._top, directory.path) as (folder, name):
                os.rmdir(name, dir_fd=folder) if directory.path in left_over else directory.finish(
                    name, folder
                )

    def _place(self, entry: tar.Entry, reader: tar.Reader) -> None:
        folder, name = self._parent(entry.path)
        if entry.type == "directory":
            self._make(entry, folder, name)
            return
        if entry.type == "file":
            self._write(entry, folder, name, reader)
        elif entry.type == "symlink":
            os.symlink(entry.target, name, dir_fd=folder)
            self._own(entry, name, folder)
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)
        else:
            self._link(entry, folder, name)
        self.done.files += 1

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the open directory that the entry goes into, and its name there."""
        above, slash, name = path.rpartition(b"/")
        reserved = not above and os.fsdecode(name) in LEFT_ALONE
        if name in _NOWHERE or b"\0" in name or bool(above) != bool(slash) or reserved:
            raise _strange(path)
        while self._stack[-1].path != above:
            if len(self._stack) == 1:
                raise _strange(path)
            os.close(self._stack.pop().folder)
        return self._stack[-1].folder, name

    def _make(self, entry: tar.Entry, folder: int, name: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=folder)
        made = os.open(name, DIRECTORY, dir_fd=folder)
        self._stack.append(_Open(entry.path, made))
        self._attribute(entry, made)
        self.done.directories.append(Directory(entry.path, self._own(entry, made), entry.mtime))

    def _write(self, entry: tar.Entry, folder: int, name: bytes, reader: tar.Reader) -> None:
        if entry.path == self._last[0]:  # it changed while it was read, and was read again
            os.unlink(name, dir_fd=folder)
            self.done.files -= 1
            self.done.bytes -= self._last[1]
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            for offset, length in entry.data:
                at = offset
                for piece in reader.data(length):
                    at = _write_all(descriptor, piece, at)
            if entry.extents is not None:
                os.ftruncate(descriptor, entry.size)
            self._attribute(entry, descriptor)
            os.fchmod(descriptor, self._own(entry, descriptor))
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
        self.done.bytes += entry.size
        self._last = (entry.path, entry.size)

    def _link(self, entry: tar.Entry, folder: int, name: bytes) -> None:
        if any(step in _NOWHERE for step in entry.target.split(b"/")):
            raise _strange(entry.target)
        with open_above(self._top, entry.target) as (source, first):
            os.link(first, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)

    def _own(self, entry: tar.Entry, what: int | bytes, folder: int | None = None) -> int:
        """Give it to its owner and group as far as we may; return the mode it can have then."""
        for user in (entry.uid, -1):
            status = os.stat(what, dir_fd=folder, follow_symlinks=folder is None)
            if (status.st_uid, status.st_gid) == (entry.uid, entry.gid):
                return entry.mode
            with contextlib.suppress(PermissionError):
                os.chown(what, user, entry.gid, dir_fd=folder, follow_symlinks=folder is None)
                if user == entry.uid:
                    return entry.mode
        self.done.foreign += 1
        return entry.mode & ~_SETS_USER

    def _attribute(self, entry: tar.Entry, descriptor: int) -> None:
        try:
            for key, value in entry.xattrs.items():
                os.setxattr(descriptor, key, value)
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
            self.done.plain += 1

    def _leave_all(self) -> None:
        while len(self._stack) > 1:
            os.close(self._stack.pop().folder)


def _write_all(descriptor: int, piece: memoryview, at: int) -> int:
    while piece:
        written = os.pwrite(descriptor, piece, at)
        piece, at = piece[written:], at + written
    return at


def _strange(path: bytes) -> Failure:
    message = f"the backup has an entry {shown(os.fsdecode(path))} that could not have been written by us"
    return Failure(Reason.CHECKSUM_MISMATCH, f"{message}; nothing was put in place: choose another backup")
