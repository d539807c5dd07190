"""BackupSchedule: one TenantBackup per tenant and slot, and retention over what it made.

A slot is a moment the cron expression names. The backup's name is a function of schedule, tenant and
slot, so a pass that is repeated after a crash creates nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tenant_backup.api.references import LABEL_SCHEDULE, LABEL_SLOT, LABEL_TENANT
from tenant_backup.api.schedule import Schedule
from tenant_backup.contract.reasons import Reason

from .conditions import conditions
from .instants import parse, rfc3339
from .names import scheduled_backup, slot_label
from .observed import ScheduledBackup, ScheduleSeen
from .plan import Action, CreateBackup, DeleteBackup, Plan
from .retention import surplus
from .verdicts import Done, Ref, Stalled, Verdict

LONGEST_SLEEP = 3600.0  # seconds: clocks are set, zones change


@dataclass(frozen=True)
class _Pass:
    """What one look at a schedule leads to."""

    verdict: Verdict
    slot: datetime | None = None  # that is started now
    upcoming: tuple[datetime, ...] = ()
    surplus: tuple[ScheduledBackup, ...] = ()


def decide(seen: ScheduleSeen, now: datetime) -> Plan:
    """Return what to do about a BackupSchedule."""
    if seen.schedule.metadata.deletion_timestamp:
        return Plan()  # what it made stays
    try:
        schedule = Schedule.parse(seen.schedule.spec.schedule, seen.schedule.spec.time_zone)
    except ValueError as error:
        return Plan(status=_status(seen, _Pass(Stalled(Reason.INVALID_SPEC, str(error))), now))
    if seen.schedule.spec.suspend:
        suspended = Done(Reason.SUSPENDED, "suspended: nothing is started and nothing is deleted")
        return Plan(status=_status(seen, _Pass(suspended), now))
    return _active(seen, schedule, now)


def _active(seen: ScheduleSeen, schedule: Schedule, now: datetime) -> Plan:
    found = _Pass(_verdict(seen), due_slot(seen, schedule, now), schedule.next_runs(now), _surplus(seen))
    creations = _creations(seen, found.slot) if found.slot else ()
    return Plan(
        actions=(*creations, *(DeleteBackup(backup.name, backup.uid) for backup in found.surplus)),
        status=_status(seen, found, now),
        retry_in=_sleep(found.upcoming, now),
        wait_for=found.verdict.wait_for,
    )


def due_slot(seen: ScheduleSeen, schedule: Schedule, now: datetime) -> datetime | None:
    """Return the newest slot that is due and was not run; older missed ones are not made up for."""
    newest = schedule.last_run(now)
    created = seen.schedule.metadata.creation_timestamp
    last = parse(seen.status.get("lastRun"))
    if (created and newest < created) or (last and newest <= last):
        return None
    return newest


def _creations(seen: ScheduleSeen, slot: datetime) -> tuple[Action, ...]:
    busy = {backup.tenant for backup in seen.backups if backup.state not in ("Succeeded", "Failed")}
    # A tenant whose previous run is still going is left out of this slot; a failed one is not.
    return tuple(_creation(seen, tenant, slot) for tenant in seen.tenants if tenant not in busy)


def _creation(seen: ScheduleSeen, tenant: str, slot: datetime) -> CreateBackup:
    template, schedule = seen.schedule.spec.template, seen.schedule.metadata.name
    spec: dict[str, Any] = {
        "tenantRef": {"name": tenant},
        "storeRef": {"name": template.store_ref.name},
        "mode": template.mode,
        "compression": {"level": template.compression.level},
        "verification": template.verification,
    }
    if template.modules:
        spec["modules"] = list(template.modules)
    labels = {LABEL_SCHEDULE: schedule, LABEL_TENANT: tenant, LABEL_SLOT: slot_label(slot)}
    return CreateBackup(scheduled_backup(schedule, tenant, slot), labels, spec)


def _surplus(seen: ScheduleSeen) -> tuple[ScheduledBackup, ...]:
    retention = seen.schedule.spec.retention
    return surplus(seen.backups, retention.keep_last) if retention else ()


def _verdict(seen: ScheduleSeen) -> Verdict:
    if seen.missing:
        namespace = seen.schedule.metadata.namespace
        refs = tuple(Ref("Tenant", namespace, name) for name in seen.missing)
        message = f"Tenant {', '.join(seen.missing[:20])} does not exist; the others are backed up"
        return Stalled(Reason.TENANT_NOT_FOUND, message, None, refs)
    if not seen.tenants:
        return Stalled(
            Reason.TENANT_NOT_FOUND, "no Tenant matches; correct spec.tenants or spec.tenantSelector"
        )
    return Done(Reason.READY, f"backs up {len(seen.tenants)} tenants")


def _sleep(upcoming: tuple[datetime, ...], now: datetime) -> float:
    until = (upcoming[0] - now).total_seconds() if upcoming else LONGEST_SLEEP
    return min(max(until, 0.05), LONGEST_SLEEP)


def _status(seen: ScheduleSeen, found: _Pass, now: datetime) -> dict[str, Any]:
    generation = seen.schedule.metadata.generation
    status: dict[str, Any] = dict(seen.status)
    status["nextRuns"] = [rfc3339(moment) for moment in found.upcoming]
    if found.slot is not None:
        status["lastRun"] = rfc3339(found.slot)
    status |= _last_run(seen, status)
    kept = sum(backup.good for backup in seen.backups if backup not in found.surplus)
    status["retention"] = {"kept": kept, "toDelete": len(found.surplus)}
    status["observedGeneration"] = generation
    status["conditions"] = conditions("Ready", found.verdict, seen.status, generation, now)
    return status


def _last_run(seen: ScheduleSeen, status: Mapping[str, Any]) -> dict[str, Any]:
    last = parse(status.get("lastRun"))
    mine = [backup for backup in seen.backups if backup.slot == last]
    states = [backup.state for backup in mine]
    succeeded, failed = states.count("Succeeded"), states.count("Failed")
    counts = {
        "selected": len(seen.tenants),
        "succeeded": succeeded,
        "failed": failed,
        "running": len(mine) - succeeded - failed,
    }
    complete = bool(mine) and succeeded == len(mine)
    return {"tenants": counts} | ({"lastSuccess": status["lastRun"]} if complete else {})
