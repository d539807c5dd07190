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
    """Something on the volume. `folder` is open until the next one is asked for, and so is `directory`."""

    path: str  # relative to the volume; bytes that are no UTF-8 as os.fsdecode has them
    name: str  # in `folder`
    folder: int
    status: os.stat_result
    directory: int = -1  # opened, if it is one
    is_mount: bool = False  # of another file system, which is not walked


@dataclass(slots=True)
class _Level:
    folder: int
    prefix: str
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
            found = _find(level, device, leave_out, unreadable)
            if found is None:
                continue
            if found.directory >= 0:
                names = [] if found.is_mount else _names_or_none(found, unreadable)
                levels.append(_Level(found.directory, found.path + "/", names))
            yield found
    finally:
        for level in levels:
            os.close(level.folder)


def _find(
    level: _Level, device: int, leave_out: Callable[[str], bool], unreadable: Callable[[str], None]
) -> Found | None:
    name = level.names.pop()
    path = level.prefix + name
    if leave_out(path):
        return None
    try:
        status = os.lstat(name, dir_fd=level.folder)
        if not stat.S_ISDIR(status.st_mode):
            return Found(path, name, level.folder, status)
        directory = os.open(name, _DIRECTORY, dir_fd=level.folder)
        status = os.fstat(directory)
        return Found(path, name, level.folder, status, directory, is_mount=status.st_dev != device)
    except FileNotFoundError:
        pass  # deleted since it was listed
    except NotADirectoryError:
        level.names.append(name)  # replaced since it was looked at: look again
    except PermissionError:
        unreadable(path)
    return None


def _names_or_none(found: Found, unreadable: Callable[[str], None]) -> list[str]:
    try:
        return _names(found.directory)
    except PermissionError:
        unreadable(found.path)
        return []


def _names(folder: int) -> list[str]:
    return sorted(os.listdir(folder), key=os.fsencode, reverse=True)
