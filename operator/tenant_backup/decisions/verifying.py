"""A schedule's verifications: in each slot the newest good backup of every tenant is read again, whole.

A few at a time: a backup is annotated as a person would do it, and the next one once an answer is there. What
was asked and answered is on the backups themselves. Status has the rest: a slot has come once `nextRun` is
over, and it is open as long as somebody is `pending`. What it came to stays until the next one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal

from tenant_backup.api.backup_schedule import ScheduleVerification
from tenant_backup.api.schedule import Schedule
from tenant_backup.contract.reasons import Reason

from .instants import parse, rfc3339
from .observed import ScheduleSeen
from .plan import Action, Announce, RequestVerification
from .retention import moment_of
from .slots import COUNTED, between, unserved
from .summaries import BackupSummary
from .turns import LATE, latest_start
from .wishes import scheduled_request

STILL_OPEN = "the verification before it has not ended"
NAMED = 20  # tenants in status
_SECOND = timedelta(seconds=1)
Status = Mapping[str, Any]


@dataclass(frozen=True)
class Verifying:
    """What to do, and what status.verification is then; None: there is nothing to say.

    `problem`: why spec.verification cannot be followed.
    """

    status: Status | None = None
    actions: tuple[Action, ...] = ()
    retry_in: float | None = None  # seconds
    problem: str = ""


def verify(seen: ScheduleSeen, now: datetime) -> Verifying:
    """Return the next step."""
    wanted = seen.schedule.spec.verification
    if wanted is None:
        return Verifying()
    try:
        schedule = Schedule.parse(wanted.schedule, seen.schedule.spec.time_zone)
    except ValueError as error:
        return Verifying(problem=f"spec.verification: {error}")
    return _verify(seen, wanted, schedule, now)


def paused(seen: ScheduleSeen) -> Status | None:
    """Return status.verification while the schedule is suspended: what passes by then is not made up for."""
    over = {field: value for field, value in _known(seen).items() if field not in ("nextRun", "pending")}
    return over or None


@dataclass(frozen=True)
class _Found:
    """What one look at a slot leads to."""

    status: Status
    requests: tuple[RequestVerification, ...] = ()


def _verify(seen: ScheduleSeen, wanted: ScheduleVerification, schedule: Schedule, now: datetime) -> Verifying:
    known, following = _known(seen), schedule.next_runs(now, 1)[0]
    begun = parse(known.get("lastRun")) if known.get("pending") else None
    found = _look(seen, wanted, begun) if begun else _Found(known)
    missed, why = _came(known, schedule, now), LATE
    if missed and found.status.get("pending"):
        why = STILL_OPEN
    elif missed and now - missed[-1] <= latest_start(seen.schedule):
        *missed, slot = missed
        found = _look(seen, wanted, slot)
    return Verifying(
        status={**found.status, "nextRun": rfc3339(following)},
        actions=(*_told(missed, why), *found.requests),
        retry_in=(following - now).total_seconds(),
    )


def _came(known: Status, schedule: Schedule, now: datetime) -> list[datetime]:
    """Return the slots that have come since the last look, oldest first."""
    expected, newest = parse(known.get("nextRun")), schedule.last_run(now)
    if expected is None or newest < expected:
        return []
    return [*islice(between(schedule, expected - _SECOND, newest), COUNTED), newest]


def _told(missed: list[datetime], why: str) -> tuple[Action, ...]:
    if not missed:
        return ()
    return (Announce("Warning", Reason.SCHEDULE_MISSED, unserved("verifications", missed, why)),)


def _look(seen: ScheduleSeen, wanted: ScheduleVerification, slot: datetime) -> _Found:
    request = scheduled_request(wanted.level, seen.schedule.metadata.name, slot)
    of_tenant: defaultdict[str, list[BackupSummary]] = defaultdict(list)
    for backup in seen.backups:
        of_tenant[backup.tenant].append(backup)
    case = _Case(wanted.level, slot, request, seen.stores)
    standings = {tenant.name: case.standing(of_tenant[tenant.name]) for tenant in seen.tenants}
    count = Counter(standing.result for standing in standings.values())
    left = [standing.ask for standing in standings.values() if standing.ask]
    busy = count["pending"] - len(left)
    room = max(seen.at_once - busy, 0) if seen.at_once is not None else None
    failing = [tenant for tenant, standing in standings.items() if standing.result == "failed"]
    status = {
        "lastRun": rfc3339(slot),
        **{result: count[result] for result in ("verified", "failed", "pending")},
        **({"failing": failing[:NAMED]} if failing else {}),
    }
    asked = (RequestVerification(one.name, request, str(one.version)) for one in left[:room])
    return _Found(status, tuple(asked))


@dataclass(frozen=True)
class _Standing:
    """How it stands with one tenant; `ask`: the backup whose verification is still to be asked for."""

    result: Literal["verified", "failed", "pending", ""]  # "": there is nothing to verify
    ask: BackupSummary | None = None


@dataclass(frozen=True)
class _Case:
    """What the standing of a tenant is decided from."""

    level: str
    slot: datetime
    request: str
    stores: frozenset[str]

    def standing(self, backups: list[BackupSummary]) -> _Standing:
        """Decide about one tenant, by the schedule's backups of it."""
        answered = [backup for backup in backups if backup.answered == self.request]
        if answered:
            return _Standing("failed" if any(backup.doubted for backup in answered) else "verified")
        there = [backup for backup in backups if self._can_be_read(backup)]
        if any(backup.awaited for backup in there):
            # Also what a person asked for, and the first one after a backup: a newer request would stop it.
            return _Standing("pending")
        newest = max((backup for backup in there if backup.good), key=moment_of, default=None)
        if newest is None:
            return _Standing("")
        return _Standing("verified") if self._is_done(newest) else _Standing("pending", newest)

    def _can_be_read(self, backup: BackupSummary) -> bool:
        # What waits for a store that is gone may wait for ever, and must not keep others waiting.
        return backup.state == "Succeeded" and not backup.removing and backup.store in self.stores

    def _is_done(self, backup: BackupSummary) -> bool:
        """Whether all of it was read since the slot, as deeply as is asked."""
        if backup.doubted or backup.verified is None or backup.verified < self.slot:
            return False
        # Checksum reads the older packs only when somebody asks; Contents reads everything.
        return backup.level == "Contents" or (self.level == "Checksum" and bool(backup.answered))


def _known(seen: ScheduleSeen) -> Status:
    known: Status = seen.status.get("verification", {})
    return known
