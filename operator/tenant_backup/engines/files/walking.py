"""A walk over a volume, in the same order each time, that no symbolic link leads astray.

Directories are opened from the one above, never by a path: a tenant may change the volume meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .names import LEFT_ALONE

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found(NamedTuple):
    """Something on the volume, as it was when it was found."""

    folder: str  # its path relative to the volume, with a slash at the end; bytes as os.fsdecode has them
    name: str
    status: os.stat_result
    is_mount: bool = False  # a directory of another file system, which is not walked

    @property
    def path(self) -> str:
        """Its path relative to the volume."""
        return self.folder + self.name


@dataclass(slots=True)
class _Level:
    folder: int
    path: str  # with a slash at the end
    names: list[str]  # still to come, the next one last


def walk(root: int, leave_out: Callable[[str], bool], unreadable: Callable[[str], None]) -> Iterator[Found]:
    """Yield what is below the directory `root`, each directory before what is in it, ordered by name.

    What `leave_out` says is left out with all that is below it. `unreadable` is told the paths of directories
    that cannot be read. Raises OSError when the volume fails.
    """
    device = os.fstat(root).st_dev
    names = [name for name in _names(root) if name not in LEFT_ALONE]
    levels = [_Level(os.dup(root), "", names)]
    try:
        while levels:
            level = levels[-1]
            if not level.names:
                os.close(levels.pop().folder)
                continue
            name = level.names.pop()
            if leave_out(level.path + name):
                continue
            try:
                status = os.lstat(name, dir_fd=level.folder)
                if not stat.S_ISDIR(status.st_mode):
                    yield Found(level.path, name, status)
                    continue
                found, below = _enter(level, name, device, unreadable)
            except FileNotFoundError:
                continue  # deleted since it was listed
            except NotADirectoryError:
                level.names.append(name)  # replaced since it was looked at: look again
                continue
            except PermissionError:
                unreadable(level.path + name)
                continue
            levels.append(below)
            yield found
    finally:
        for level in levels:
            os.close(level.folder)


class Folders:
    """Directories of a volume, opened one from the other. The last one stays open, and those above it."""

    def __init__(self, root: int) -> None:
        """Open directories below `root`, which is the caller's to close."""
        self._stack = [("", os.dup(root))]

    def open(self, path: str) -> int:
        """Return a directory, its path with a slash at the end, open until the next. Raises OSError."""
        above, folder = self._stack[-1]
        if path == above:
            return folder
        while not path.startswith(above):
            os.close(self._stack.pop()[1])
            above, folder = self._stack[-1]
        for name in path[len(above) :].split("/")[:-1]:
            folder = os.open(name, _DIRECTORY, dir_fd=folder)
            above += name + "/"
            self._stack.append((above, folder))
        return folder

    def close(self) -> None:
        """Close all of them."""
        while self._stack:
            os.close(self._stack.pop()[1])


def _enter(level: _Level, name: str, device: int, unreadable: Callable[[str], None]) -> tuple[Found, _Level]:
    """Open a directory and list it."""
    directory = os.open(name, _DIRECTORY, dir_fd=level.folder)
    try:
        status, path = os.fstat(directory), level.path + name
        is_mount = status.st_dev != device
        names = [] if is_mount else _names_or_none(directory, path, unreadable)
    except BaseException:
        os.close(directory)
        raise
    return Found(level.path, name, status, is_mount), _Level(directory, path + "/", names)


def _names_or_none(directory: int, path: str, unreadable: Callable[[str], None]) -> list[str]:
    try:
        return _names(directory)
    except PermissionError:
        unreadable(path)
        return []


def _names(folder: int) -> list[str]:
    return sorted(os.listdir(folder), key=os.fsencode, reverse=True)
