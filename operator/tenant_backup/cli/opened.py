"""One tenant's backups in a store: which there are, which can be believed, and one of them opened."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tenant_backup.archive import manifest as manifests
from tenant_backup.archive import names
from tenant_backup.archive.key_finder import WRAPPED_MAX
from tenant_backup.archive.keys import Identity
from tenant_backup.archive.manifest import Manifest
from tenant_backup.archive.reader import ArchiveReader, open_index_key, open_manifest
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores.base import Digest, NotFoundError, Store, digest_of, fetch, read, require_digest

_AT_ONCE = 8  # manifests read at the same time
LATEST = "latest"  # instead of a backup id: no backup id is so short


@dataclass(frozen=True)
class Kept:
    """What stands in the store under one backup id."""

    backup_id: str
    sha256: str
    manifest: Manifest | None  # None: it cannot be read, `trouble` says why
    trouble: str
    signed: bool | None  # by the trusted key; None: no key to compare with


def kept(store: Store, trust: str | None) -> list[Kept]:
    """Return all backups, oldest first by name. Raises what the store raises."""
    ids = [entry.name.removeprefix(names.manifest("")) for entry in store.entries("manifests")]
    with ThreadPoolExecutor(_AT_ONCE, "manifest") as pool:
        return list(pool.map(lambda backup_id: kept_one(store, backup_id, trust), ids))


def kept_one(store: Store, backup_id: str, trust: str | None) -> Kept:
    """Return one backup. Raises Failure(BACKUP_NOT_FOUND)."""
    return _kept(manifest_bytes(store, backup_id), backup_id, trust)


def _kept(data: bytes, backup_id: str, trust: str | None) -> Kept:
    sha256 = digest_of(data).sha256
    signed = None if trust is None else is_signed(data, trust)
    try:
        manifest = manifests.parse(data)
    except Failure as failure:
        return Kept(backup_id, sha256, None, failure.message, signed)
    return Kept(backup_id, sha256, manifest, "", signed and manifest.backup_id == backup_id)


def is_signed(data: bytes, trust: str) -> bool:
    """Say whether a manifest was signed by the key `trust` (hex). Raises Failure for a newer format."""
    try:
        manifests.verify(data, trust)
    except Failure as failure:
        if failure.reason is Reason.SIGNATURE_INVALID:
            return False
        raise
    return True


def manifest_bytes(store: Store, backup_id: str) -> bytes:
    """Return a manifest, unchecked. Raises Failure(BACKUP_NOT_FOUND)."""
    if not names.is_backup_id(backup_id):
        raise Failure(
            Reason.BACKUP_NOT_FOUND, f'"{backup_id}" cannot be a backup id; `list` shows those there are'
        )
    try:
        return read(store, names.manifest(backup_id), manifests.MAX_LENGTH)
    except NotFoundError:
        raise Failure(
            Reason.BACKUP_NOT_FOUND,
            f"there is no backup {backup_id} in {store.location}; `list` shows those there are",
        ) from None


def newest(found: list[Kept], where: str) -> Kept:
    """Return the newest backup whose signature is not wrong. Raises Failure(BACKUP_NOT_FOUND)."""
    good = [
        ((backup.manifest.times.completed, backup.backup_id), backup)
        for backup in found
        if backup.manifest and backup.signed is not False
    ]
    if not good:
        raise Failure(
            Reason.BACKUP_NOT_FOUND,
            f"there is no backup in {where} that can be believed; `list` shows what there is",
        )
    return max(good, key=lambda pair: pair[0])[1]


def resolve(store: Store, backup_id: str, trust: str | None) -> str:
    """Return a backup id; `latest` stands for the newest one with a good signature."""
    if backup_id != LATEST:
        return backup_id
    return newest(kept(store, trust), store.location).backup_id


def trusted(store: Store, slug: str, backup_id: str, trust: str) -> tuple[Manifest, str]:
    """Return a manifest that `trust` signed for this tenant's prefix, and its SHA-256. Raises Failure."""
    data = manifest_bytes(store, backup_id)
    owner = manifests.verify(data, trust).tenant  # its signature says so, there is no cluster to ask
    return open_manifest(data, trust, backup_id, (slug, owner.namespace, owner.name)), digest_of(data).sha256


@contextmanager
def reading(
    manifest: Manifest, identity: Identity | None, store: Store, spool: Path, advance: Callable[[int], None]
) -> Iterator[ArchiveReader]:
    """Open a backup, everything checked that is checked before a restore; `advance` counts fetched bytes."""
    objects = StoreObjects(store, spool, advance)
    index = open_index_key(manifest, None, identity, objects)
    reader = ArchiveReader(manifest, index, identity, objects)
    try:
        yield reader
    finally:
        reader.close()


def small(store: Store) -> Callable[[str], bytes | None]:
    """Return what reads a small object of the store whole, None when there is none."""

    def read_small(name: str) -> bytes | None:
        try:
            return read(store, name, WRAPPED_MAX)
        except NotFoundError:
            return None

    return read_small


class StoreObjects:
    """The objects of one tenant, fetched into `spool`; see archive.reader.Objects."""

    def __init__(self, store: Store, spool: Path, advance: Callable[[int], None]) -> None:
        self._store, self._spool, self._advance = store, spool, advance

    def fetch(self, name: str, length: int | None, sha256: str | None) -> Path:
        """See Objects. Raises Failure: PACK_MISSING, CHECKSUM_MISMATCH."""
        target = self._spool / randomness.token_hex(16)
        try:
            actual = fetch(self._store, name, target)
        except NotFoundError:
            raise Failure(
                Reason.PACK_MISSING,
                f"{self._store.location}/{name} is missing; bring it back or choose another backup",
            ) from None
        expected = Digest(
            actual.length if length is None else length, actual.sha256 if sha256 is None else sha256
        )
        require_digest(f"{self._store.location}/{name}", actual, expected)
        self._advance(actual.length)
        return target

    def length(self, name: str) -> int | None:
        """See Objects."""
        return self._store.stat(name)
