"""A look at a volume without reading its files: what a backup would say."""

from __future__ import annotations

import os
import stat
import time
from typing import Any

from tenant_backup.contract.job import Volume

from . import names
from .reading import Listed, reading, told, unreadable
from .walking import walk

_PATIENCE = 60.0  # seconds for a large volume; then what was seen has to do


def look(volume: Volume) -> dict[str, Any]:
    """Return {files, bytes, complete} of a volume below paths.FILES; not `complete`: it was not all seen.

    `files` are all entries but directories, `bytes` what they take. Raises Failure: PERMISSION_DENIED names
    what its user cannot read, VOLUME_UNAVAILABLE.
    """
    closed, files, size, complete = Listed(), 0, 0, True
    give_up = time.monotonic() + _PATIENCE
    with reading(volume) as opened, told(volume):
        for found in walk(opened.root, names.matcher(volume.exclude), closed.add):
            mode = found.status.st_mode
            if stat.S_ISREG(mode) and _is_closed(opened.root, found.path):
                closed.add(found.path)
            files += not stat.S_ISDIR(mode)
            size += found.status.st_blocks * 512
            if time.monotonic() > give_up:
                complete = False
                break
    if closed.count:
        raise unreadable(volume, closed)
    return {"files": files, "bytes": size, "complete": complete}


def _is_closed(root: int, path: str) -> bool:
    """Whether a file is still there, and not for us."""
    readable, there = (os.access(path, mode, dir_fd=root, effective_ids=True) for mode in (os.R_OK, os.F_OK))
    return there and not readable
