"""Observe a BackupSchedule: its tenants and the backups it made."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tenant_backup.api import BackupSchedule
from tenant_backup.api.references import LABEL_SCHEDULE
from tenant_backup.cluster import Object
from tenant_backup.decisions.observed import ScheduleSeen
from tenant_backup.decisions.pruning import condemned
from tenant_backup.decisions.summaries import BackupSummary

from .afresh import backups_of
from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> ScheduleSeen:
    """Return one look at the BackupSchedule. Raises a ClusterError or pydantic.ValidationError."""
    schedule = BackupSchedule.model_validate(document)
    namespace = schedule.metadata.namespace
    selector, named = schedule.spec.tenant_selector, set(schedule.spec.tenants or ())
    there = [
        tenant
        for tenant in look.roster.tenants(namespace, selector.match_labels if selector else None)
        if not tenant.removing and (selector or tenant.name in named)
    ]
    backups = look.roster.of_schedule(namespace, schedule.metadata.name)
    status = document.get("status", {})
    going = {backup.tenant for backup in condemned(schedule.spec, status, backups, now)}
    return ScheduleSeen(
        schedule=schedule,
        status=status,
        tenants=tuple(there),
        backups=await with_fresh(look, schedule, backups, going),
        missing=tuple(sorted(named - {tenant.name for tenant in there})),
        taken=frozenset(backup.name for backup in look.roster.backups(namespace)),
        read_afresh=frozenset(going),
        stores=frozenset(store.name for store in look.roster.stores(namespace)),
        at_once=look.admission.at_once(schedule.spec.budget.total if schedule.spec.budget else None),
    )


async def with_fresh(
    look: Look, schedule: BackupSchedule, backups: Iterable[BackupSummary], tenants: Iterable[str]
) -> tuple[BackupSummary, ...]:
    """Return the schedule's backups, those of these tenants as the API server has them now."""
    tenants = set(tenants)
    found = [backup for backup in backups if backup.tenant not in tenants]
    made = f"{LABEL_SCHEDULE}={schedule.metadata.name}"
    for tenant in sorted(tenants):
        found += await backups_of(look.cluster, schedule.metadata.namespace, tenant, made)
    return tuple(found)
