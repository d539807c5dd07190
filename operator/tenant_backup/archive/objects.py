"""The objects of one tenant as a reader asks for them: by name, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Objects(Protocol):
    """The objects of one tenant's prefix. Used by several threads at once."""

    def fetch(self, name: str, length: int | None, sha256: str | None) -> Path:
        """Return a file with the object's bytes; the caller unlinks it. Raises Failure."""

    def length(self, name: str) -> int | None:
        """Return the object's size in bytes, or None when there is none."""


def fetch_bytes(objects: Objects, name: str) -> bytes:
    """Return a small object whole; ask for its length first. Raises Failure."""
    path = objects.fetch(name, None, None)
    try:
        return path.read_bytes()
    finally:
        path.unlink()
