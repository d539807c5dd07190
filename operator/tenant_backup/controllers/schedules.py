"""Observe a BackupSchedule: its tenants and the backups it made."""

from __future__ import annotations

from datetime import UTC, datetime

from tenant_backup.api import BackupSchedule
from tenant_backup.api.references import LABEL_HOLD, LABEL_SCHEDULE, LABEL_SLOT
from tenant_backup.cluster import BACKUP, TENANT, Object
from tenant_backup.decisions.names import slot_of
from tenant_backup.decisions.observed import ScheduledBackup, ScheduleSeen

from .look import Look


async def observe(look: Look, document: Object, _now: datetime) -> ScheduleSeen:
    """Return one look at the BackupSchedule. Raises a ClusterError or pydantic.ValidationError."""
    schedule = BackupSchedule.model_validate(document)
    namespace = schedule.metadata.namespace
    selector = schedule.spec.tenant_selector
    labels = ",".join(f"{key}={value}" for key, value in selector.match_labels.items()) if selector else ""
    found = await look.cluster.list(TENANT, namespace, labels=labels)
    there = {item["metadata"]["name"] for item in found if "deletionTimestamp" not in item["metadata"]}
    named = set(schedule.spec.tenants or ())
    made = await look.cluster.list(BACKUP, namespace, labels=f"{LABEL_SCHEDULE}={schedule.metadata.name}")
    return ScheduleSeen(
        schedule=schedule,
        status=document.get("status", {}),
        tenants=tuple(sorted(there if selector else there & named)),
        backups=tuple(_scheduled(item) for item in made),
        missing=tuple(sorted(named - there)),
    )


def _scheduled(document: Object) -> ScheduledBackup:
    metadata, status = document["metadata"], document.get("status", {})
    return ScheduledBackup(
        name=metadata["name"],
        uid=metadata["uid"],
        tenant=document["spec"]["tenantRef"]["name"],
        slot=_slot(metadata),
        state=status.get("state", ""),
        corrupt=status.get("health") == "Corrupt",
        held=LABEL_HOLD in metadata["labels"],
        removing="deletionTimestamp" in metadata,
    )


def _slot(metadata: Object) -> datetime:
    try:
        return slot_of(metadata["labels"].get(LABEL_SLOT, ""))
    except ValueError:  # somebody changed the label; the age is still known
        return datetime.fromisoformat(metadata["creationTimestamp"]).astimezone(UTC)
