"""A folder that nobody else can read and that is gone at the end, however the end comes.

It stands for what a Job's pod has: Secrets as files, a spool for packs. The stages and the stores find their
secrets in files only, so that none is ever in an argument, the environment or an error.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make it below $TMPDIR, readable by this user only; it has `secrets` and `spool`."""
    # The name is short because Unix sockets are below it, and their paths have 108 bytes at most.
    with vanishing(Path(tempfile.gettempdir()) / f"tb-{secrets.token_hex(6)}") as folder:
        for name in ("secrets", "spool"):
            (folder / name).mkdir(mode=0o700)
        yield folder


@contextmanager
def vanishing(folder: Path) -> Iterator[Path]:
    """Make a folder that only this user can read, for the time of the block."""
    try:
        # In here, and under a name known before: Ctrl-C right after it was made finds it too.
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        with _undisturbed():
            shutil.rmtree(folder, ignore_errors=not folder.exists())


def write_secret(folder: Path, name: str, values: Mapping[str, str | bytes]) -> None:
    """Write one Secret below `folder`/secrets as the kubelet would mount it, readable by nobody else."""
    where = folder / "secrets" / name
    where.mkdir(mode=0o700)
    for key, value in values.items():
        data = value.encode() if isinstance(value, str) else value
        write_private(where / key, data)


def write_private(path: Path, data: bytes) -> None:
    """Create a file of mode 0600. Raises FileExistsError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not stop the clearing away."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
