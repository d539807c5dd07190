"""To an entry deep in a volume, one name after the other: no symbolic link on the way leads elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def open_above(top: int, path: bytes, *, make: bool = False) -> Iterator[tuple[int, bytes]]:
    """Open the directory that `path`, relative to the directory `top`, is in; yield it and the last name.

    With `make`, directories that are not there are made. Raises OSError.
    """
    *above, name = path.split(b"/")
    folder = os.dup(top)
    try:
        for step in above:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, 0o700, dir_fd=folder)
            below = os.open(step, DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder, name
    finally:
        os.close(folder)
