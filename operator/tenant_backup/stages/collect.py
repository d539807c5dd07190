"""Deletes from a whole store what no backup needs any more, tenant by tenant.

Holds the store's credentials and no key: manifests are readable. Only what carries our cluster's id is
touched; a tenant whose manifests cannot all be read is left as it is, and the others are collected.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenant_backup.archive.collector import Collected, collect
from tenant_backup.archive.manifest import UNREADABLE
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import progress_line
from tenant_backup.stores import connect

from .ownership import owner
from .progress import INTERVAL

_MESSAGE_LIMIT = 700  # characters; the result has 2 KiB


def run(job: jobs.Collect, *, secrets: Path = paths.SECRETS, volume: Path = paths.VOLUME) -> dict[str, Any]:
    """Return `{"tenants", "backups", "usedBytes", "candidates", "deleted", "freedBytes", "message"}`.

    `usedBytes` are those of all packs and lists that are left, `message` names the first tenant that was
    left out. A dry run writes what would go to standard output, one JSON line for each object.
    Raises Failure: StorePermissionDenied when the credentials may not delete, and what the store raises.
    """
    done = _Done(job.dry_run)
    for slug in connect(job.store, "", secrets=secrets, volume=volume).folders():
        store = connect(job.store, slug, secrets=secrets, volume=volume)
        marker = owner(store)
        if not isinstance(marker, dict) or marker.get("clusterId") != job.cluster_id:
            continue
        try:
            done.add(slug, collect(store, grace=job.grace_seconds, dry_run=job.dry_run, deleted=done.tell))
        except Failure as failure:
            done.leave_out(slug, failure)
    return done.facts()


@dataclass
class _Done:
    """Adds the tenants up, and says on standard output how far it is."""

    dry_run: bool
    tenants: int = 0
    sum: Collected = field(default_factory=Collected)
    candidates: int = 0
    deleted: int = 0
    message: str = ""
    _told: float = 0.0

    def add(self, slug: str, collected: Collected) -> None:
        """Count one tenant."""
        self.tenants += 1
        self.candidates += len(collected.candidates)
        self.deleted += len(collected.deleted) if self.dry_run else 0
        self.sum = Collected(
            freed=self.sum.freed + collected.freed,
            used=self.sum.used + collected.used,
            backups=self.sum.backups + collected.backups,
        )
        for what, listed in (("delete", collected.deleted), ("name", collected.candidates)):
            for name in listed if self.dry_run else ():
                print(json.dumps({"would": what, "object": f"{slug}/{name}"}), flush=True)

    def tell(self, _name: str, _length: int) -> None:
        """Count one deleted object."""
        self.deleted += 1
        if time.monotonic() - self._told >= INTERVAL:
            self._told = time.monotonic()
            print(progress_line(phase="Collect", tenants=self.tenants, deleted=self.deleted), flush=True)

    def leave_out(self, slug: str, failure: Failure) -> None:
        """Go on without a tenant whose objects cannot be read. Raises any other failure."""
        if failure.reason is Reason.STORE_PERMISSION_DENIED:
            raise refused(failure) from None
        if failure.reason not in UNREADABLE:
            raise failure
        self.tenants += 1
        self.message = self.message or f"{slug}: {failure.message}"[:_MESSAGE_LIMIT]

    def facts(self) -> dict[str, Any]:
        """Return the result."""
        return {
            "tenants": self.tenants,
            "backups": self.sum.backups,
            "usedBytes": self.sum.used,
            "candidates": self.candidates,
            "deleted": self.deleted,
            "freedBytes": self.sum.freed,
            "message": self.message,
        }


def refused(failure: Failure) -> Failure:
    """Return the same refusal in words about collecting."""
    return Failure(
        failure.reason,
        "collecting needs the right to delete too; give it to these credentials or name others in"
        f" spec.collectorCredentialsSecretRef: {failure.message}",
    )
