"""Objectives: until when a Tenant's backups are young enough, and since when they are not.

Computed from all its backups, so that the answer is the same whoever looks when: a schedule that never
fires and an operator that was down make no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tenant_backup.api.values import duration_seconds
from tenant_backup.contract.reasons import Reason

from .aspects import Aspect, begins
from .conditions import Fact
from .instants import parse, rfc3339
from .observed import TenantSeen
from .plan import Announce
from .summaries import BackupSummary


@dataclass(frozen=True)
class Data:
    """A good backup of everything: the moment its data is of, and since when it is known to be good."""

    name: str
    of: datetime
    known: datetime


@dataclass(frozen=True)
class Cover:
    """From when until when the objective is met, because of one backup or because the Tenant is young."""

    since: datetime
    until: datetime


def objectives(seen: TenantSeen, now: datetime) -> Aspect:
    """Return the condition ObjectivesMet, with Event BackupMissed once for each miss."""
    point = seen.tenant.spec.objectives.recovery_point
    if point is None:
        return Aspect(fields={"recoveryPoint": None})
    born = seen.tenant.metadata.creation_timestamp or now
    backups = whole(seen.backups)
    covers = covers_of(backups, born, timedelta(seconds=duration_seconds(point)))
    until = max(one.until for one in covers)
    fact = _fact(backups, until, point, now)
    known = seen.status.get("recoveryPoint", {})
    missed, told = missed_at(covers, parse(known.get("metUntil")), now), parse(known.get("missedAt"))
    is_new = missed is not None and (told is None or missed > told)
    # A backup that healed a miss may turn out to be Corrupt: the old miss is there again.
    is_back = fact.status == "False" and begins(fact, seen.status)
    last = max((moment for moment in (missed, told) if moment), default=None)
    fields = {"metUntil": rfc3339(until)} | ({"missedAt": rfc3339(last)} if last else {})
    return Aspect(
        facts=(fact,),
        fields={"recoveryPoint": fields},
        actions=(_event(fact, missed, point),) if missed and (is_new or is_back) else (),
        retry_in=(until - now).total_seconds() if now < until else None,
    )


def whole(backups: Iterable[BackupSummary]) -> list[Data]:
    """Return those that can bring the whole tenant back, the newest data first."""
    found = [
        Data(backup.name, backup.started, backup.completed)
        for backup in backups
        if backup.good and backup.started and backup.completed
        if backup.contents == "All" and not backup.modules
    ]
    return sorted(found, key=lambda data: data.of, reverse=True)


def covers_of(backups: Iterable[Data], born: datetime, point: timedelta) -> list[Cover]:
    """Return when the data was no older than `point`, of a Tenant that was born then; the oldest first."""
    covers = [Cover(data.known, data.of + point) for data in backups]
    # One that took longer than the objective was too old when it was complete: it covered no moment.
    lasting = [Cover(born, born + point), *(one for one in covers if one.since < one.until)]
    return sorted(lasting, key=lambda one: one.since)


def missed_at(covers: list[Cover], promised: datetime | None, now: datetime) -> datetime | None:
    """Return when the last miss began: one that lasts, or one that was healed since `promised` was said."""
    until = max(one.until for one in covers)
    if now >= until or promised is None:
        return until if now >= until else None
    reach = promised
    for one in covers:
        if one.since < reach:
            reach = max(reach, one.until)
    return reach if reach <= now else None


def _fact(backups: list[Data], ends: datetime, point: str, now: datetime) -> Fact:
    until, newest = rfc3339(ends), backups[0] if backups else None
    held = f"TenantBackup {newest.name} holds the data of {rfc3339(newest.of)}" if newest else ""
    if now < ends:
        message = f"{held or 'there is no good backup yet'}; recoveryPoint {point} is met until {until}"
        return Fact("ObjectivesMet", "True", Reason.OBJECTIVES_MET, message)
    late = f", took longer than {point}, and so was too old when it was complete"
    outrun = late if newest and newest.known >= newest.of + timedelta(seconds=duration_seconds(point)) else ""
    good = f"the newest good backup of everything, {held}{outrun}" if newest else "there is no good backup"
    message = f"recoveryPoint {point} is missed since {until}: {good}; look at the Tenant's TenantBackups"
    return Fact("ObjectivesMet", "False", Reason.BACKUP_MISSED, message)


def _event(fact: Fact, missed: datetime, point: str) -> Announce:
    if fact.status == "False":
        return Announce("Warning", Reason.BACKUP_MISSED, fact.message)
    message = f"recoveryPoint {point} was missed at {rfc3339(missed)} and is met again: {fact.message}"
    return Announce("Warning", Reason.BACKUP_MISSED, message)
