"""Observe a BackupStore: its probes."""

from __future__ import annotations

from datetime import datetime

from tenant_backup.api import BackupStore
from tenant_backup.cluster import Object
from tenant_backup.decisions.observed import StoreSeen

from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> StoreSeen:
    """Return one look at the BackupStore. Raises a ClusterError or pydantic.ValidationError."""
    store = BackupStore.model_validate(document)
    return StoreSeen(
        store=store,
        status=document.get("status", {}),
        jobs=await look.jobs(store.metadata.namespace, store.metadata.uid, now),
        platform=await look.platform(),
    )
