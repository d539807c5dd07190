"""To an entry deep in a volume, one name after the other: no symbolic link on the way leads elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ANY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def open_above(
    top: int, path: bytes, *, make: bool = False, ours: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Open the directory that `path`, relative to the directory `top`, is in; yield it and the last name.

    With `make`, directories that are not there are made; with `ours`, they may be used whatever their mode.
    Raises OSError.
    """
    *above, name = path.split(b"/")
    folder = os.dup(top)
    try:
        for step in above:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, 0o700, dir_fd=folder)
            if ours:
                make_usable(step, folder)
            below = os.open(step, DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder, name
    finally:
        os.close(folder)


def set_mode(name: str | bytes, folder: int, mode: int) -> None:
    """Change the mode of a directory, never through a symbolic link that has just come in its place."""
    descriptor = os.open(name, _ANY, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", mode)  # it may be one that nobody can open for reading
    except PermissionError as error:
        error.filename = name
        raise
    finally:
        os.close(descriptor)


def make_usable(name: str | bytes, folder: int, rights: int = os.R_OK | os.W_OK | os.X_OK) -> None:
    """See that we have these rights on a directory. One that moves into another one has to be writable."""
    if not os.access(name, rights, dir_fd=folder, effective_ids=True, follow_symlinks=False):
        set_mode(name, folder, 0o700)
