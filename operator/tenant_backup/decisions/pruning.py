"""Carrying retention out: what goes is shown for a while first, and goes a few at a time.

The list is in status, with the rules it was made by. New rules, which may be a slip of the hand, delete
nothing until their list has been there for one interval of the schedule, a day at most. What goes is decided
on the backups as the API server has them at that moment, not on what the roster remembers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tenant_backup.api.backup_schedule import BackupScheduleSpec
from tenant_backup.api.schedule import Schedule
from tenant_backup.contract.reasons import Reason

from .audits import deletion
from .instants import parse, rfc3339
from .observed import ScheduleSeen
from .plan import Action, Announce
from .retention import surplus
from .summaries import BackupSummary

LONGEST_GRACE = timedelta(days=1)
AT_ONCE = 20  # backups of one schedule that are being deleted in one store; each of them costs a Job
LISTED = 20  # names in status
LOOK_AGAIN = 10.0  # seconds, while more are to go than go at once
Status = Mapping[str, Any]


@dataclass(frozen=True)
class Pruning:
    """What to do, and what status.retention is then; None without a retention."""

    status: Status | None = None
    actions: tuple[Action, ...] = ()
    retry_in: float | None = None  # seconds


def condemned(
    spec: BackupScheduleSpec, status: Status, backups: Iterable[BackupSummary], now: datetime
) -> tuple[BackupSummary, ...]:
    """Return which of a schedule's backups go now, oldest first. `status` is the schedule's."""
    if not _is_due(spec, status, now):
        return ()
    backups = tuple(backups)
    return _going(_surplus(spec, status, backups), backups)


def prune(seen: ScheduleSeen, schedule: Schedule, now: datetime) -> Pruning:
    """Return the next step; only backups of tenants that were read afresh for this look are deleted."""
    spec = seen.schedule.spec
    if spec.retention is None:
        return Pruning()
    gone = _surplus(spec, seen.status, seen.backups)
    due = _going(gone, seen.backups) if _is_due(spec, seen.status, now) else ()
    going = [backup for backup in due if backup.tenant in seen.read_afresh]
    begins = _begins(spec, seen.status) or now + _grace(schedule, now)
    stored = sum(backup.state == "Succeeded" and not backup.removing for backup in seen.backups)
    status = {
        "rules": _rules(spec),
        "deletesFrom": rfc3339(begins),
        "kept": stored - sum(backup.state == "Succeeded" for backup in gone),
        "toDelete": len(gone),
        **({"next": [backup.name for backup in gone[:LISTED]]} if gone else {}),
    }
    left = max((begins - now).total_seconds(), LOOK_AGAIN) if len(gone) > len(going) else None
    return Pruning(status, (*_told(going), *(step for one in going for step in _deletion(seen, one))), left)


def _surplus(
    spec: BackupScheduleSpec, status: Status, backups: Iterable[BackupSummary]
) -> tuple[BackupSummary, ...]:
    if spec.retention is None:
        return ()
    if status.get("verification", {}).get("pending"):
        # What this slot reads, or has read, stays until it is over: else it would go on with a newer one.
        backups = (replace(one, held=True) if one.awaited or one.answered else one for one in backups)
    return surplus(backups, spec.retention, ZoneInfo(spec.time_zone))


def _going(gone: Iterable[BackupSummary], backups: Iterable[BackupSummary]) -> tuple[BackupSummary, ...]:
    # Counted per store: one that does not answer must not keep those in another one from going.
    busy = Counter(backup.store for backup in backups if backup.removing)
    chosen = []
    for backup in gone:
        busy[backup.store] += 1
        if busy[backup.store] <= AT_ONCE:
            chosen.append(backup)
    return tuple(chosen)


def _is_due(spec: BackupScheduleSpec, status: Status, now: datetime) -> bool:
    begins = _begins(spec, status)
    return begins is not None and begins <= now


def _begins(spec: BackupScheduleSpec, status: Status) -> datetime | None:
    """Return from when on something goes; None while the list by these rules has not been shown."""
    if spec.retention is None:
        return None
    known: Status = status.get("retention", {})
    return parse(known.get("deletesFrom")) if known.get("rules") == _rules(spec) else None


def _grace(schedule: Schedule, now: datetime) -> timedelta:
    first, second = schedule.next_runs(now, 2)
    return min(second - first, LONGEST_GRACE)


def _rules(spec: BackupScheduleSpec) -> str:
    """Return the rules as a person reads them, such as `keepLast 3, keepFailed 3 in Europe/Rome`."""
    assert spec.retention
    given = spec.retention.model_dump(by_alias=True, exclude_none=True)
    return f"{', '.join(f'{rule} {value}' for rule, value in given.items())} in {spec.time_zone}"


def _told(going: Sequence[BackupSummary]) -> tuple[Announce, ...]:
    if not going:
        return ()
    more = f" and {len(going) - 1} more" if len(going) > 1 else ""
    return (Announce("Normal", Reason.PRUNED, f"deletes {going[0].name}{more}, which no rule keeps"),)


def _deletion(seen: ScheduleSeen, backup: BackupSummary) -> tuple[Action, ...]:
    schedule, rules = seen.schedule.metadata.name, _rules(seen.schedule.spec)
    return deletion("retention", backup, Reason.PRUNED, state=backup.state, schedule=schedule, rules=rules)
