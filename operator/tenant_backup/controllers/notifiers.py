"""Observe a BackupNotifier: the objects of its namespace, and what its receivers last did."""

from __future__ import annotations

from datetime import datetime

from tenant_backup.api import BackupNotifier
from tenant_backup.cluster import Object
from tenant_backup.decisions.news import Objects
from tenant_backup.decisions.observed import NotifierSeen

from .look import Look


async def observe(look: Look, document: Object, _now: datetime) -> NotifierSeen:
    """Return one look at the BackupNotifier. Raises a ClusterError or pydantic.ValidationError."""
    notifier = BackupNotifier.model_validate(document)
    namespace, roster = notifier.metadata.namespace, look.roster
    objects = Objects(
        backups=tuple(roster.backups(namespace)),
        restores=tuple(roster.restores(namespace)),
        tenants=tuple(roster.tenants(namespace)),
        stores=tuple(roster.stores(namespace)),
    )
    return NotifierSeen(
        notifier=notifier,
        status=document.get("status", {}),
        objects=objects,
        errands=look.courier.errands(notifier),
        platform=await look.platform(),
    )
