"""`collect`: what would go or went, for people and machines."""

from __future__ import annotations

from typing import Any

from tenant_backup.archive import collector
from tenant_backup.archive.collector import Collected
from tenant_backup.stores.base import Store

from . import console


def collect(store: Store, *, delete: bool) -> Collected:
    """Collect one tenant's prefix, or only look. Raises Failure."""
    return collector.collect(store, dry_run=not delete)


def described(done: Collected) -> dict[str, Any]:
    """Return it for machines; sizes in bytes."""
    return {
        "named": list(done.candidates),
        "deleted": list(done.deleted),
        "freed": done.freed,
        "used": done.used,
        "backups": done.backups,
    }


def in_words(done: Collected, *, delete: bool) -> str:
    """Return it for people."""
    would = "" if delete else "would be "
    hours = round(collector.GRACE / 3600)
    return "\n".join(
        [
            f"{len(done.deleted)} objects {would}deleted, {console.size(done.freed)} {would}freed",
            f"{len(done.candidates)} unused objects {would}named; a collection in {hours} hours deletes them",
            f"{done.backups} backups need the other {console.size(done.used)}",
        ]
    )
