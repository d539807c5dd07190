"""`list`: the tenants of a store, or the backups of one."""

from __future__ import annotations

from typing import Any

from tenant_backup.archive import names
from tenant_backup.stores.base import Store

from . import console
from .opened import Kept, kept

MARKER = "TENANT"


def is_tenant(store: Store) -> bool:
    """Say whether a store's root is one tenant's prefix."""
    return store.stat(MARKER) is not None or any(True for _ in store.entries("manifests"))


def tenants(store: Store) -> list[dict[str, Any]]:
    """Return the tenants below a store's root: slug, number of backups, id of the newest."""
    found = []
    for slug in store.folders():
        if names.is_backup_id(slug) and store.stat(f"{slug}/{MARKER}") is not None:
            ids = [entry.name.rpartition("/")[2] for entry in store.entries(f"{slug}/manifests")]
            found.append({"slug": slug, "backups": len(ids), "newest": max(ids, default=None)})
    return found


def tenants_table(found: list[dict[str, Any]]) -> str:
    """Show tenants to people."""
    rows = [[item["slug"], str(item["backups"]), item["newest"] or "-"] for item in found]
    return console.table(("TENANT", "BACKUPS", "NEWEST"), rows)


def backups(store: Store, trust: str | None) -> list[Kept]:
    """Return all backups of a tenant, oldest first."""
    return kept(store, trust)


def described(backup: Kept) -> dict[str, Any]:
    """Return a backup for machines."""
    manifest = backup.manifest
    if manifest is None:
        return {
            "backupId": backup.backup_id,
            "readable": False,
            "message": backup.trouble,
            "signature": console.SIGNATURE[backup.signed],
        }
    return {
        "backupId": backup.backup_id,
        "readable": True,
        "completedAt": manifest.times.completed,
        "snapshotAt": manifest.times.snapshot,
        "checksum": f"sha256:{backup.sha256}",
        "encryption": manifest.encryption.mode,
        "bytes": {
            "logical": manifest.bytes.logical,
            "stored": manifest.bytes.stored,
            "added": manifest.bytes.added,
        },
        "tables": manifest.tables,
        "rows": manifest.rows,
        "files": manifest.files.count,
        "partial": manifest.partial,
        "signature": console.SIGNATURE[backup.signed],
    }


def backups_table(found: list[Kept]) -> str:
    """Show backups to people."""
    heads = ("BACKUP", "COMPLETED", "SIZE", "ADDED", "TABLES", "ROWS", "FILES", "SIGNATURE")
    return console.table(heads, [_row(backup) for backup in found])


def _row(backup: Kept) -> list[str]:
    manifest, signature = backup.manifest, console.SIGNATURE[backup.signed]
    if manifest is None:
        return [backup.backup_id, "unreadable", "-", "-", "-", "-", "-", signature]
    sizes = [console.size(manifest.bytes.stored), console.size(manifest.bytes.added)]
    return [
        backup.backup_id,
        manifest.times.completed,
        *sizes,
        str(manifest.tables),
        str(manifest.rows),
        str(manifest.files.count),
        signature,
    ]


def anything_wrong(found: list[Kept]) -> bool:
    """Say whether a backup cannot be read or has a wrong signature."""
    return any(backup.manifest is None or backup.signed is False for backup in found)
