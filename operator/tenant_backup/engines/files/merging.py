"""Which entries of a tree take their places in another one that has more than these."""

from __future__ import annotations

import contextlib
import os
import stat

from .descending import open_above
from .exchange import Paths


def merged(coming: int, there: int) -> Paths:
    """Return what is to change places so that all below the directory `coming` is in the directory `there`.

    A directory that is in both stays, with its owner and mode and whatever else is in it. Raises OSError.
    """
    found, waiting = Paths([], [], whole=False), [b""]
    while waiting:
        prefix = waiting.pop()
        with (
            open_above(coming, prefix + b".", ours=True) as (source, _),
            open_above(there, prefix + b".") as (
                target,
                _,
            ),
        ):
            for name in sorted(map(os.fsencode, os.listdir(source))):
                is_there, both = _look(name, source, target)
                if both:
                    waiting.append(prefix + name + b"/")
                    continue
                found.coming.append(prefix + name)
                found.leaving.extend([prefix + name] if is_there else [])
    return found


def _look(name: bytes, source: int, target: int) -> tuple[bool, bool]:
    """Return whether the target has such an entry, and whether it is a directory in both."""
    with contextlib.suppress(FileNotFoundError):
        modes = [os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode for folder in (target, source)]
        return True, all(map(stat.S_ISDIR, modes))
    return False, False
