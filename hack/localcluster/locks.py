"""Taking turns: checkouts share one node per machine, and one cache per user."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .say import say


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file, waiting for whoever holds it; the kernel releases it however its holder ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another command is working on {what}; waiting for it …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
