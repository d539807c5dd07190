"""BackupSchedule: one TenantBackup per tenant and slot, further tries, retention, and verifications.

A pass starts a bounded number of backups and comes back at once for the rest, so that a thousand tenants hold
up nobody else. A slot is settled, and becomes `lastRun`, only when every tenant has its backup in it or is
known to get none: whoever dies before that finds the slot open, and in it the backups that are there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from tenant_backup.api.references import LABEL_SCHEDULE, LABEL_SLOT, LABEL_TENANT
from tenant_backup.api.schedule import Schedule
from tenant_backup.contract.reasons import Reason

from .aspects import with_fields
from .conditions import conditions
from .instants import parse, rfc3339
from .names import scheduled_backup, slot_label
from .observed import ScheduleSeen
from .plan import Action, Announce, CreateBackup, Plan
from .pruning import prune
from .slots import COUNTED, Slots, asked_at, between, unserved
from .summaries import BackupSummary
from .turns import FOREIGN, LATE, Board, History, Turn, histories, mode_of, spread_of
from .verdicts import Done, Ref, Stalled, Verdict
from .verifying import paused, verify

LONGEST_SLEEP = 3600.0  # seconds: clocks are set, zones change
AT_ONCE = 50  # backups created in one pass
SHORTEST_SLEEP = 0.05  # seconds
NAMED = 20  # tenants in a list for people


@dataclass(frozen=True)
class _Pass:
    """What one look at a schedule leads to."""

    slots: Slots
    turns: tuple[Turn, ...]
    starting: tuple[Turn, ...]  # of the turns, those whose backup is created now
    before: datetime  # slots up to it were settled when we looked
    settled: datetime  # and are now
    skipped: tuple[datetime, ...] = ()  # slots that nobody can be started in any more


def decide(seen: ScheduleSeen, now: datetime) -> Plan:
    """Return what to do about a BackupSchedule."""
    if seen.schedule.metadata.deletion_timestamp:
        return Plan()  # what it made stays
    spec = seen.schedule.spec
    try:
        schedule = Schedule.parse(spec.schedule, spec.time_zone)
    except ValueError as error:
        unreadable = Stalled(Reason.INVALID_SPEC, str(error))
        return Plan(status={**seen.status, "nextRuns": [], **_conditions(seen, unreadable, now)})
    return _suspended(seen, schedule, now) if spec.suspend else _active(seen, schedule, now)


def _active(seen: ScheduleSeen, schedule: Schedule, now: datetime) -> Plan:
    known = histories(seen.backups, now)
    found, pruning = _look(seen, schedule, known, now), prune(seen, schedule, now)
    verifying = verify(seen, now)
    verdict = _verdict(seen, found.turns, verifying.problem)
    status = _status(seen, found, now) | _conditions(seen, verdict, now)
    fields = {"retention": pruning.status, "verification": verifying.status}
    creations = tuple(_creation(seen, turn, known[turn.tenant].good) for turn in found.starting)
    times = (LONGEST_SLEEP, _sleep(seen, found, now), pruning.retry_in, verifying.retry_in)
    return Plan(
        # Told before it is done: whoever dies after a creation does not know any more what it stands for.
        actions=(*_missed(found), *creations, *pruning.actions, *verifying.actions),
        status=with_fields(status, fields),
        retry_in=min(seconds for seconds in times if seconds is not None),
        wait_for=verdict.wait_for,
    )


def _suspended(seen: ScheduleSeen, schedule: Schedule, now: datetime) -> Plan:
    """Nothing is started, and slots that pass by are not made up for."""
    newest, (following, *_) = schedule.last_run(now), schedule.next_runs(now)
    settled = max(_settled(seen, now), newest)
    status = {
        **seen.status,
        "settledThrough": rfc3339(settled),
        "expression": _expression(seen),
        "nextRuns": [],
        "verification": paused(seen),
    }
    verdict = Done(Reason.SUSPENDED, "suspended: nothing is started, verified or deleted")
    until = (following - now).total_seconds()
    return Plan(
        status=with_fields(status, _conditions(seen, verdict, now)),
        retry_in=min(max(until, SHORTEST_SLEEP), LONGEST_SLEEP),
    )


def _look(seen: ScheduleSeen, schedule: Schedule, known: defaultdict[str, History], now: datetime) -> _Pass:
    settled = _settled(seen, now)
    created = seen.schedule.metadata.creation_timestamp or now
    asked = parse(seen.status.get("runNow", {}).get("slot"))
    slots = Slots.around(now, schedule, spread_of(seen.schedule), created, asked)
    board = Board(
        schedule=seen.schedule,
        slots=slots,
        settled=settled,
        has_run="lastRun" in seen.status,
        last_missed=parse(seen.status.get("lastMissed")),
        taken=seen.taken,
        now=now,
    )
    turns = tuple(board.turn(tenant, known[tenant.name]) for tenant in seen.tenants)
    starting = sorted((turn for turn in turns if turn.attempt), key=_order)[:AT_ONCE]
    skipped = between(schedule, settled, slots.moments[0]) if slots.moments else ()
    return _Pass(
        slots=slots,
        turns=turns,
        starting=tuple(starting),
        before=settled,
        settled=_settled_after(slots, turns, starting, settled),
        skipped=tuple(islice(skipped, COUNTED)),
    )


def _settled(seen: ScheduleSeen, now: datetime) -> datetime:
    """Return up to when slots are over: nobody makes up for those before the schedule or its expression."""
    created = seen.schedule.metadata.creation_timestamp or now
    settled = parse(seen.status.get("settledThrough")) or created - timedelta(seconds=1)
    is_the_same = seen.status.get("expression") in (None, _expression(seen))
    return settled if is_the_same else max(settled, now)


def _settled_after(
    slots: Slots, turns: tuple[Turn, ...], starting: Iterable[Turn], settled: datetime
) -> datetime:
    """Return up to when slots are over once this pass is done: as far as the slowest tenant is."""
    left = {turn.tenant for turn in turns if turn.attempt} - {turn.tenant for turn in starting}
    reached = [slots.before(turn.slot) if turn.slot and turn.tenant in left else turn.slot for turn in turns]
    everybody = min((moment or settled for moment in reached), default=slots.newest or settled)
    return max(settled, everybody)


def _order(turn: Turn) -> tuple[datetime, str]:
    assert turn.slot
    return (turn.slot + turn.offset, turn.tenant)


def _expression(seen: ScheduleSeen) -> str:
    return f"{seen.schedule.spec.schedule} {seen.schedule.spec.time_zone}"


def _creation(seen: ScheduleSeen, turn: Turn, good: BackupSummary | None) -> CreateBackup:
    template, schedule = seen.schedule.spec.template, seen.schedule.metadata.name
    assert turn.slot
    spec: dict[str, Any] = {
        "tenantRef": {"name": turn.tenant},
        "storeRef": {"name": template.store_ref.name},
        "mode": mode_of(seen.schedule, turn.tenant, turn.slot, good),
        "compression": {"level": template.compression.level},
        "verification": template.verification,
    }
    if template.contents != "All":
        spec["contents"] = template.contents
    if template.modules:
        spec["modules"] = list(template.modules)
    labels = {LABEL_SCHEDULE: schedule, LABEL_TENANT: turn.tenant, LABEL_SLOT: slot_label(turn.slot)}
    return CreateBackup(scheduled_backup(schedule, turn.tenant, turn.slot, turn.attempt), labels, spec)


def _missed(found: _Pass) -> tuple[Action, ...]:
    """Tell of slots that a tenant gets no backup in: once, when that is settled."""
    settles = found.settled > found.before
    by_cause: defaultdict[tuple[datetime, str], list[str]] = defaultdict(list)
    for turn in found.turns:
        if settles and turn.missed and turn.slot and found.before < turn.slot <= found.settled:
            by_cause[turn.slot, turn.missed].append(turn.tenant)
        for slot in _passed(found, turn):
            by_cause[slot, LATE].append(turn.tenant)
    told = [unserved("backups", found.skipped, LATE)] if settles and found.skipped else []
    told += [
        f"no backup in slot {rfc3339(slot)} for {_named(tenants)}: {cause}"
        for (slot, cause), tenants in sorted(by_cause.items())
    ]
    return tuple(Announce("Warning", Reason.SCHEDULE_MISSED, message) for message in told)


def _passed(found: _Pass, turn: Turn) -> list[datetime]:
    """Return the slots before its own that a tenant was not started in, when it is known that it is not."""
    known = (
        turn in found.starting if turn.attempt == 1 else bool(turn.missed) and found.settled > found.before
    )
    if not known or turn.slot in (None, found.slots.asked):
        return []  # what somebody asked for stands for what came before it
    after = max(found.before, turn.since or found.before)
    return [slot for slot in found.slots.moments if after < slot < turn.slot]


def _named(tenants: list[str]) -> str:
    more = f" and {len(tenants) - NAMED} more" if len(tenants) > NAMED else ""
    return f"{len(tenants)} tenants ({', '.join(tenants[:NAMED])}{more})"


def _verdict(seen: ScheduleSeen, turns: tuple[Turn, ...], problem: str) -> Verdict:
    if seen.missing:
        namespace = seen.schedule.metadata.namespace
        refs = tuple(Ref("Tenant", namespace, name) for name in seen.missing)
        message = f"Tenant {', '.join(seen.missing[:NAMED])} does not exist; the others are backed up"
        return Stalled(Reason.TENANT_NOT_FOUND, message, None, refs)
    if not seen.tenants:
        message = "no Tenant matches; correct spec.tenants or spec.tenantSelector"
        return Stalled(Reason.TENANT_NOT_FOUND, message)
    foreign = [turn for turn in turns if turn.missed == FOREIGN]
    if foreign:
        return Stalled(Reason.FOREIGN_OBJECT, _foreign(seen, foreign))
    if problem:
        return Stalled(Reason.INVALID_SPEC, f"{problem}; nothing is verified, backups go on")
    return Done(Reason.READY, f"backs up {len(seen.tenants)} tenants")


def _foreign(seen: ScheduleSeen, turns: list[Turn]) -> str:
    schedule = seen.schedule.metadata.name
    names = [scheduled_backup(schedule, turn.tenant, turn.slot) for turn in turns if turn.slot]
    return (
        f"TenantBackup {', '.join(names[:NAMED])} was not made by this schedule and has the name of its"
        " backup; delete it; the other tenants are backed up"
    )


def _sleep(seen: ScheduleSeen, found: _Pass, now: datetime) -> float:
    if sum(turn.attempt > 0 for turn in found.turns) > len(found.starting):
        return SHORTEST_SLEEP
    moments = [turn.again_at for turn in found.turns]
    moments.append(found.slots.next_due((turn.offset for turn in found.turns), now))
    moments.append(parse(_asked(seen, now).get("slot")))
    until = [(moment - now).total_seconds() for moment in moments if moment and moment > now]
    return max(min(until, default=LONGEST_SLEEP), SHORTEST_SLEEP)


def _asked(seen: ScheduleSeen, now: datetime) -> dict[str, str]:
    """Return the last `runNow` and its slot, which is in status before anything is started in it."""
    known: dict[str, str] = dict(seen.status.get("runNow", {}))
    value = seen.schedule.spec.run_now
    return (
        {"value": value, "slot": rfc3339(asked_at(now))} if value not in ("", known.get("value")) else known
    )


def _conditions(seen: ScheduleSeen, verdict: Verdict, now: datetime) -> dict[str, Any]:
    generation = seen.schedule.metadata.generation
    found = conditions("Ready", verdict, seen.status, generation, now)
    return {"observedGeneration": generation, "conditions": found}


def _status(seen: ScheduleSeen, found: _Pass, now: datetime) -> dict[str, Any]:
    status: dict[str, Any] = dict(seen.status)
    status["nextRuns"] = [rfc3339(moment) for moment in found.slots.upcoming]
    status["settledThrough"], status["expression"] = rfc3339(found.settled), _expression(seen)
    started = [turn.slot for turn in found.starting] + [_slot_of(turn.last) for turn in found.turns]
    missed = [*found.skipped, *(turn.slot for turn in found.turns if turn.missed)]
    missed += [slot for turn in found.turns for slot in _passed(found, turn)]
    for name, slots in (("lastRun", started), ("lastMissed", missed)):
        newest = max((slot for slot in slots if slot and slot <= found.settled), default=None)
        status |= {name: rfc3339(_later(newest, status.get(name)))} if newest else {}
    asked = _asked(seen, now)
    return status | ({"runNow": asked} if asked else {}) | _counts(found, status)


def _counts(found: _Pass, status: dict[str, Any]) -> dict[str, Any]:
    results = {turn.tenant: _result(turn) for turn in found.turns}
    count = Counter(results.values())
    kinds = ("succeeded", "failed", "running", "queued", "missed")
    fields: dict[str, Any] = {"tenants": {"selected": len(results)} | {kind: count[kind] for kind in kinds}}
    fields["failing"] = [tenant for tenant, result in results.items() if result == "failed"][:NAMED]
    slots = [slot for slot in (_slot_of(turn.last) for turn in found.turns) if slot]
    complete = set(results.values()) <= {"succeeded", ""} and slots and min(slots) <= found.settled
    if complete:
        fields["lastSuccess"] = rfc3339(_later(min(slots), status.get("lastSuccess")))
    return fields


def _result(turn: Turn) -> str:
    """Return what became of the tenant's turn; empty when it had none yet."""
    last = turn.last
    if turn.attempt:
        return "queued"
    if last is None:
        return "missed" if turn.missed else ""
    if last.state in ("Succeeded", "Expired"):
        return "failed" if last.health == "Corrupt" else "succeeded"
    return {"Failed": "failed", "Running": "running"}.get(last.state, "queued")


def _slot_of(backup: BackupSummary | None) -> datetime | None:
    return backup.slot if backup else None


def _later(moment: datetime, known: str | None) -> datetime:
    return max(moment, parse(known) or moment)
