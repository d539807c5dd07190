"""Words for objects in a store that the archive and every store share.

The archive knows no store and a store knows no archive; what one asks of the other is said in these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from .reasons import Failure, Reason

Buffer = bytes | memoryview


class AlreadyExistsError(Exception):
    """The name is taken: by another writer, or by an earlier try of this very call."""


class NotFoundError(Exception):
    """The store is there and answers, and has no object of this name."""


@dataclass(frozen=True)
class Entry:
    """One listed object: `length` in bytes, `modified` in seconds since 1970 by the store's own clock.

    Compare `modified` with that of other objects of the same store only: nobody's clock is the store's.
    """

    name: str
    length: int
    modified: float


@dataclass(frozen=True)
class Digest:
    """What an object's bytes are: `length` in bytes, `sha256` as hex."""

    length: int
    sha256: str


class Readable(Protocol):
    """Whatever gives an object's bytes."""

    def chunks(self, name: str) -> Iterator[Buffer]:
        """Yield the object's bytes in order. Raises NotFoundError."""


def digest_of(data: Buffer) -> Digest:
    """Return the digest of bytes in memory or mapped."""
    return Digest(len(data), hashlib.sha256(data).hexdigest())


def read(objects: Readable, name: str, limit: int) -> bytes:
    """Return a small object whole. Raises NotFoundError; Failure ChecksumMismatch above `limit` bytes."""
    data = bytearray()
    for block in objects.chunks(name):
        data += block
        if len(data) > limit:
            raise Failure(Reason.CHECKSUM_MISMATCH, f"{name} is longer than the {limit} bytes it may have")
    return bytes(data)
