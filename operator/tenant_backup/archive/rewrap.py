"""Lets others read the backups that are there: keys are wrapped again, nothing is written twice.

Rows stay as they are. What was wrapped to the recipients of its day, the tenant's keys and each run's data
key, is opened with an identity that can and put into `keys/` once for each new recipient, under names that
a reader derives from what it has. It cannot take rights away: whoever could read a backup still can.

Only what the tenant's own signature vouches for is opened. Otherwise whoever can write to the store could
plant another tenant's wrapped keys, and an identity that opens both would hand them over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
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

from . import names
from .frame import Damaged
from .key_finder import WRAPPED_MAX, KeyFinder
from .keys import Identity, TenantKeys, recipient_set, wrap, wrapped_id
from .manifest import MAX_LENGTH, Manifest, verify
from .pack import Binding, ObjectRef, PackKind, read_ends

_AT_ONCE = 8  # requests
_TAIL = 128 << 10  # bytes; the end of most packs: a footer has 36 bytes per chunk


class Objects(Protocol):
    """The objects of one tenant's prefix; `stores.base.Store` has the promises in full."""

    def put(self, name: str, source: bytes, digest: Digest) -> None:
        """Create `name`. Raises AlreadyExistsError."""

    def chunks(self, name: str, start: int = 0) -> Iterator[Buffer]:
        """Yield the object's bytes from `start` on. Raises NotFoundError."""

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """Yield every object below `folder/` whose name is greater than `after`, sorted, complete."""


@dataclass(frozen=True)
class Rewrapped:
    """What was done. With `skipped` empty, every encrypted backup opens for every new recipient."""

    backups: int  # encrypted ones that were looked at
    data_keys: int  # distinct ones
    written: tuple[str, ...]  # names of the objects that were not there before
    skipped: tuple[str, ...]  # one sentence for each manifest or pack that could not be opened


def rewrap(
    objects: Objects, slug: str, trusted_key: str, identity: Identity, recipients: Sequence[str]
) -> Rewrapped:
    """Let each of `recipients` (age1…) read every backup of tenant `slug` that `identity` can read.

    `trusted_key` is the tenant's public signing key, in hex. May be broken off and run again at any time.
    Raises Failure: INVALID_SPEC for what is no recipient, and what the store raises.
    """
    run = _Run(objects, slug, identity, recipients)
    for entry in objects.entries("manifests"):
        try:
            run.backup(verify(read(objects, entry.name, MAX_LENGTH), trusted_key))
        except NotFoundError:
            continue  # deleted since it was listed
        except Failure as failure:
            if failure.reason not in _OF_ONE_BACKUP:
                raise
            run.skipped.append(f"{entry.name}: {failure.message}")
    return Rewrapped(run.backups, len(run.data_keys), tuple(run.written), tuple(run.skipped))


# What is wrong with one backup and does not keep others from being read.
_OF_ONE_BACKUP = {
    Reason.SIGNATURE_INVALID,
    Reason.UNSUPPORTED_CONTENT,
    Reason.CHECKSUM_MISMATCH,
    Reason.CROSS_TENANT_ACCESS,
    Reason.KEY_MISSING,
    Reason.WRONG_KEY,
}


class _Run:
    """One call of `rewrap`: remembers packs and keys it has seen in earlier manifests."""

    def __init__(self, objects: Objects, slug: str, identity: Identity, recipients: Sequence[str]) -> None:
        self._objects, self._slug, self._identity = objects, slug, identity
        self._recipients = list(dict.fromkeys(recipients))
        wrap(b"", self._recipients)  # what is no recipient is told before anything is done
        self._there = {entry.name for entry in objects.entries("keys")}
        self._seen: set[str] = set()  # pack ids
        self.backups = 0
        self.data_keys: set[str] = set()
        self.written: list[str] = []
        self.skipped: list[str] = []

    def backup(self, manifest: Manifest) -> None:
        """Do one backup. Raises Failure."""
        if manifest.tenant.slug != self._slug:
            raise Failure(
                Reason.CROSS_TENANT_ACCESS, f"it belongs to tenant {manifest.tenant.slug}; somebody moved it"
            )
        if manifest.encryption.mode == "None":
            return
        self.backups += 1
        finder = KeyFinder(manifest, self._identity, self._small)
        tenant = finder.tenant_keys()
        self._put(tenant.index.key_id, tenant.joined())
        new = [ref for ref in manifest.packs if ref.id not in self._seen]
        with ThreadPoolExecutor(_AT_ONCE, "rewrap") as pool:
            for ref, wrapped in zip(new, pool.map(lambda ref: self._wrapped(ref, tenant), new), strict=True):
                self._rewrap(finder, ref, wrapped)

    def _rewrap(self, finder: KeyFinder, ref: ObjectRef, wrapped: bytes | str) -> None:
        name = names.pack(ref.id)
        if isinstance(wrapped, str):
            self.skipped.append(f"{name}: {wrapped}")
            return
        key = wrapped_id(wrapped)
        try:
            if key not in self.data_keys:
                self._put(key, finder.data_key(wrapped, f"pack {ref.id}").secret)
        except Failure as failure:
            self.skipped.append(f"{name}: {failure.message}")
            return
        self.data_keys.add(key)
        self._seen.add(ref.id)

    def _wrapped(self, ref: ObjectRef, tenant: TenantKeys) -> bytes | str:
        """Return the wrapped key of a pack, authenticated by its footer; or what is wrong with it."""
        binding = Binding(PackKind.DATA, ref.id, self._slug, tenant.index)
        try:
            return read_ends(_Tail(self._objects, names.pack(ref.id), ref.length), ref.length, binding)[0]
        except NotFoundError:
            return "it is not in the store any more"
        except Damaged as damage:
            return f"it is damaged: {damage}"

    def _put(self, key: str, secret: bytes) -> None:
        for recipient in self._recipients:
            name = names.wrapped_key(key, recipient_set([recipient]))
            if name in self._there:
                continue
            data = wrap(secret, [recipient])
            with suppress(AlreadyExistsError):  # a second run at the same time: the same key for the same one
                self._objects.put(name, data, digest_of(data))
                self.written.append(name)
            self._there.add(name)

    def _small(self, name: str) -> bytes | None:
        try:
            return read(self._objects, name, WRAPPED_MAX)
        except NotFoundError:
            return None


class _Tail:
    """Reads the end of one object, in one request when it is not unusually long."""

    def __init__(self, objects: Objects, name: str, length: int) -> None:
        self._objects, self._name, self._length = objects, name, length
        self._start, self._bytes = length, b""

    def __call__(self, start: int, length: int) -> bytes:
        """Return what is there. Raises NotFoundError, or Damaged when it is less."""
        if start < self._start:
            self._start = min(start, max(0, self._length - _TAIL))
            self._bytes = b"".join(self._objects.chunks(self._name, self._start))
        at = start - self._start
        part = self._bytes[at : at + length]
        if len(part) != length:
            raise Damaged("it is cut short")
        return part
