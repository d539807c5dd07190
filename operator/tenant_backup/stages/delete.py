"""Deletes one backup: its manifest goes, and with it the backup.

What no other backup needs is named for the collector at once, so that it is gone a grace later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenant_backup.archive import collector, names
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure
from tenant_backup.stores import connect
from tenant_backup.stores.base import Store

from . import commits

_MESSAGE_LIMIT = 700  # characters; the result has 2 KiB


def run(job: jobs.Delete, *, secrets: Path = paths.SECRETS, volume: Path = paths.VOLUME) -> dict[str, Any]:
    """Return `{"backupId", "deleted", "left", "message"}`; absent already is success, so it may be repeated.

    A manifest under this name with another TenantBackup's UID, or one nobody can read, is `left` alone.
    """
    store = connect(job.store, job.tenant.slug, secrets=secrets, volume=volume)
    commit = commits.find(store, job.backup_id)
    if commit is None:
        return _facts(job, "it was not in the store", deleted=False)
    if commit.uid != job.uid:
        whose = f"belongs to TenantBackup {commit.uid}" if commit.uid else "cannot be read"
        left = f"{commits.location(store, job.backup_id)} {whose}; it was left alone"
        return _facts(job, left, deleted=False) | {"left": True}
    store.delete(names.manifest(job.backup_id))
    return _facts(job, _mark(store, job.grace_seconds), deleted=True)


def _mark(store: Store, grace: float) -> str:
    """Name what is unused now; return why not, where it cannot be done. The next collection does it too."""
    try:
        collector.mark(store, grace=grace)
    except Failure as failure:
        return f"its packs stay until the next collection: {failure.message}"[:_MESSAGE_LIMIT]
    return ""


def _facts(job: jobs.Delete, message: str, *, deleted: bool) -> dict[str, Any]:
    return {"backupId": job.backup_id, "deleted": deleted, "left": False, "message": message}
