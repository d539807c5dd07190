"""The promises every store keeps, and what can be said of any store that keeps them.

`tests/stores` holds one conformance suite; a store that breaks a promise made here fails it.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tenant_backup.contract.objects import (
    AlreadyExistsError,
    Buffer,
    Digest,
    Entry,
    NotFoundError,
    digest_of,
    read,
)
from tenant_backup.contract.reasons import Failure, Reason

__all__ = ["AlreadyExistsError", "Buffer", "Digest", "Entry", "NotFoundError", "digest_of", "read"]

BLOCK = 1 << 20  # bytes moved at once
SMALL = 1 << 20  # bytes; longer objects get longer time-outs
PATIENCE = 15.0  # seconds of retries inside one call before StoreUnavailable
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class Store(Protocol):
    """Objects by name below one root. Safe to use from several threads at once.

    Names are relative, `/`-separated, of `A-Za-z0-9._-`; no segment begins with a dot.
    Any method raises Failure: StoreUnavailable (retriable, after PATIENCE seconds of own retries),
    StorePermissionDenied, StoreFull, StoreNotFound (no such bucket).
    """

    @property
    def location(self) -> str:
        """The root as a URL for people, for example `s3://bucket/prefix/acme`."""

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """Create `name` with exactly the bytes `digest` describes; visible whole or not at all.

        When it returns, the bytes are durable and the store has checked their SHA-256. An object
        once created is never changed: raises AlreadyExistsError if the name is taken, and then an earlier,
        timed-out try of this call may be who took it. Raises Failure ChecksumMismatch if `source`
        is not what `digest` says.
        """

    def chunks(self, name: str, start: int = 0) -> Iterator[Buffer]:
        """Yield the object's bytes in order, about BLOCK at a time. Raises NotFoundError.

        With `start`, which must be less than the object's length, only those from there on are moved.
        """

    def stat(self, name: str) -> int | None:
        """Return the length in bytes, or None when there is no such object."""

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """Yield every object below `folder/`, sorted by name, whose name is greater than `after`.

        Complete: an object whose `put` returned before the call is listed.
        """

    def folders(self) -> Iterator[str]:
        """Yield the first part of every name of two or more parts, once each, sorted."""

    def delete(self, name: str) -> None:
        """Delete the object; it is not an error when there is none."""


def check_name(name: str) -> str:
    """Return `name`. Raises ValueError when it is not a store name (so `..` never leads outside)."""
    if not all(_SEGMENT.fullmatch(segment) for segment in name.split("/")):
        raise ValueError(f"not a store name: {name!r}")
    return name


def view_of(source: Path | bytes) -> memoryview:
    """Return the bytes of `source`; a file is mapped, so it costs page cache and not memory."""
    if isinstance(source, bytes):
        return memoryview(source)
    with source.open("rb") as file:
        if not file.seek(0, 2):
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def blocks_of(view: memoryview) -> Iterator[memoryview]:
    """Yield `view` in slices of BLOCK bytes."""
    return (view[at : at + BLOCK] for at in range(0, len(view), BLOCK))


def require_digest(name: str, actual: Digest, expected: Digest) -> None:
    """Raise Failure ChecksumMismatch, naming the object, when the two differ."""
    if actual != expected:
        raise Failure(
            Reason.CHECKSUM_MISMATCH,
            f"{name} has {actual.length} bytes with SHA-256 {actual.sha256[:16]}…, expected "
            f"{expected.length} bytes with {expected.sha256[:16]}…: it is damaged, use another backup "
            "or a copy of this object",
        )


def put_once(store: Store, name: str, source: Path | bytes, digest: Digest) -> None:
    """Create `name`, or find that an earlier try of ours already did.

    A PUT whose answer was lost and a second pod of the same backup both end in "already exists";
    the same SHA-256 is acknowledgement. Raises Failure NameTaken when the bytes are others.
    """
    try:
        store.put(name, source, digest)
    except AlreadyExistsError:
        if digest_in(store, name) != digest:
            message = f"{store.location}/{name} already exists with other content; it was left untouched"
            raise Failure(Reason.NAME_TAKEN, message, retriable=True) from None


def digest_in(store: Store, name: str) -> Digest:
    """Read the object and return its digest. Raises NotFoundError."""
    sha256, length = hashlib.sha256(), 0
    for block in store.chunks(name):
        sha256.update(block)
        length += len(block)
    return Digest(length, sha256.hexdigest())


def fetch(store: Store, name: str, target: Path) -> Digest:
    """Read the object into the new file `target`; return what arrived. Raises NotFoundError."""
    sha256, length = hashlib.sha256(), 0
    with target.open("xb") as file:
        for block in store.chunks(name):
            sha256.update(block)
            length += file.write(block)
    return Digest(length, sha256.hexdigest())
