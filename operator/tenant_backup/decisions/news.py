"""News: what happened to backups, restores, Tenants and stores, read off how they are now.

There is no record of events that could be lost: a backup that ended at some time is news of that time, for
whoever looks. A notification's id is a function of the object and of what happened to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tenant_backup.api.backup_notifier import EventName

from .instants import rfc3339
from .summaries import BackupSummary, Begun, RestoreSummary, StoreSummary, TenantSummary

_MARK = 10  # characters of an id; two of a status that are equal are one in a billion


@dataclass(frozen=True)
class News:
    """One thing that happened. `tenant` is empty for a store; `data` has what else is known, for programs."""

    event: EventName
    time: datetime
    kind: str
    namespace: str
    name: str
    uid: str
    tenant: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """32 hex digits: the same whoever derives it when."""
        parts = (self.uid, self.event, rfc3339(self.time))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    @property
    def mark(self) -> str:
        """How the id begins: enough to remember that it was told."""
        return self.id[:_MARK]

    @property
    def message(self) -> str:
        """Why, in one sentence; empty when it went well."""
        return str(self.data.get("message", ""))


@dataclass(frozen=True)
class Objects:
    """Summaries of the objects of one namespace."""

    backups: tuple[BackupSummary, ...] = ()
    restores: tuple[RestoreSummary, ...] = ()
    tenants: tuple[TenantSummary, ...] = ()
    stores: tuple[StoreSummary, ...] = ()


def news(objects: Objects, since: datetime) -> list[News]:
    """Return what happened after `since`, in time order."""
    found = [
        *(one for backup in objects.backups for one in _of_backup(backup, since)),
        *(one for restore in objects.restores for one in _of_restore(restore)),
        *(one for tenant in objects.tenants for one in _missed(tenant)),
        *(one for store in objects.stores for one in _nearly_full(store)),
    ]
    return sorted((one for one in found if one.time > since), key=lambda one: (one.time, one.mark))


def _of_backup(backup: BackupSummary, since: datetime) -> Iterator[News]:
    # Of ten thousand almost all are older.
    if backup.completed and backup.completed > since:
        if backup.state == "Failed":
            yield _backup_news("BackupFailed", backup, backup.completed)
        elif backup.state == "Succeeded" and backup.health != "Corrupt":
            yield _backup_news("BackupSucceeded", backup, backup.completed)
    if backup.doubted and backup.doubted > since:
        yield _backup_news("VerificationFailed", backup, backup.doubted)


def _backup_news(event: EventName, backup: BackupSummary, time: datetime) -> News:
    data = {
        "store": backup.store,
        "schedule": backup.schedule,
        "backupId": backup.backup_id,
        "reason": "" if event == "VerificationFailed" else backup.reason,
        "message": backup.trouble,
        "health": backup.health,
        "seconds": backup.seconds,
        "bytes": _known({"logical": backup.logical, "stored": backup.stored, "added": backup.added}),
        "requestedBy": backup.requested_by,
    }
    about = ("TenantBackup", backup.namespace, backup.name, backup.uid, backup.tenant)
    return News(event, time, *about, _known(data))


def _of_restore(restore: RestoreSummary) -> Iterator[News]:
    # One that was undone has succeeded before.
    ended: dict[str, EventName] = {
        "Succeeded": "RestoreSucceeded",
        "Undone": "RestoreSucceeded",
        "Failed": "RestoreFailed",
    }
    if restore.completed is None or restore.state not in ended:
        return
    data = {
        "backup": restore.backup,
        "strategy": restore.strategy,
        "reason": restore.reason,
        "message": restore.trouble,
        "requestedBy": restore.requested_by,
    }
    about = ("TenantRestore", restore.namespace, restore.name, restore.uid, restore.tenant)
    yield News(ended[restore.state], restore.completed, *about, _known(data))


def _missed(tenant: TenantSummary) -> Iterator[News]:
    if tenant.missed:
        event: EventName = "BackupMissed" if tenant.missed.reason == "BackupMissed" else "ObjectiveMissed"
        about = ("Tenant", tenant.namespace, tenant.name, tenant.uid, tenant.name)
        yield News(event, tenant.missed.since, *about, _why(tenant.missed))


def _nearly_full(store: StoreSummary) -> Iterator[News]:
    if store.nearly_full:
        about = ("BackupStore", store.namespace, store.name, store.uid)
        yield News("StoreNearlyFull", store.nearly_full.since, *about, data=_why(store.nearly_full))


def _why(begun: Begun) -> Mapping[str, Any]:
    return _known({"reason": begun.reason, "message": begun.message})


def _known(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in data.items() if value}


def wanted(event: EventName, events: Iterable[EventName]) -> bool:
    """Whether somebody who asked for `events` is told: a missed backup is a missed objective, too."""
    asked = tuple(events)
    return event in asked or (event == "BackupMissed" and "ObjectiveMissed" in asked)
