"""Reading back what was committed: a manifest with a TenantBackup's UID *is* that backup's result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenant_backup.archive import names
from tenant_backup.contract.reasons import Failure
from tenant_backup.stores.base import NotFoundError, Store, digest_of, read

if TYPE_CHECKING:
    from tenant_backup.archive.manifest import Manifest

MANIFEST_LIMIT = 64 << 20  # bytes; a manifest of 100,000 packs has about 15 MiB


@dataclass(frozen=True)
class Commit:
    """A manifest in the store. When nobody here can read it, it is None, `uid` empty and `facts` too."""

    uid: str
    sha256: str
    facts: dict[str, Any]
    manifest: Manifest | None = None


def location(store: Store, backup_id: str) -> str:
    """Return where people find this backup's manifest."""
    return f"{store.location}/{names.manifest(backup_id)}"


def find(store: Store, backup_id: str) -> Commit | None:
    """Return what is committed under `backup_id`, or None when nothing is."""
    try:
        data = read(store, names.manifest(backup_id), MANIFEST_LIMIT)
    except NotFoundError:
        return None
    # Late: signatures and packs cost start-up time, and most backups find no manifest here.
    from tenant_backup.archive import manifest as manifests

    sha256 = digest_of(data).sha256
    try:
        manifest = manifests.parse(data)
    except Failure:
        return Commit("", sha256, {})
    facts = manifests.facts(manifest, sha256)
    # Whether it was verified is not in the manifest: verification comes after it.
    facts |= {"location": location(store, backup_id), "health": "Unknown"}
    return Commit(manifest.backup.uid, sha256, facts, manifest)
