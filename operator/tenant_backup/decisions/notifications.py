"""BackupNotifier: who has been told what, and who is told what next.

What is to be told follows from the objects (`news`) and from a watermark in status: everything that happened
until then was told, or given up. The operator may die at any moment: between a delivery and the status that
records it, so that the last batch is told again under the same ids; never so that something is left out.

An object's time is the operator's when it decided, and it is seen a moment later. So the watermark stays
behind by SETTLE, and what was told of the time after it is listed one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tenant_backup.api import BackupNotifier
from tenant_backup.api.backup_notifier import TOLD_LIMIT, EventName, ReceiverName
from tenant_backup.contract.reasons import Reason

from .conditions import condition_of, conditions
from .instants import parse, rfc3339
from .news import News, news, wanted
from .observed import Errand, NotifierSeen
from .plan import Action, Announce, Deliver, Plan
from .runs import Pauses
from .verdicts import Done, Stalled, Verdict, Waiting

SETTLE = timedelta(minutes=2)  # from a decision until everybody sees it: its requests may take 30 s each
GIVE_UP = timedelta(hours=24)  # then a notification is old news
IDLE = timedelta(hours=1)  # the watermark is moved this often when there is nothing to tell
CHECK = timedelta(minutes=10)  # how often Secrets are looked at when there is nothing to tell
PAUSES = Pauses(5.0, 600.0)  # seconds between tries
PERSON = 60.0  # seconds at most between tries, when somebody must correct something
RECORDED = 0.2  # seconds until the status that was just written is seen
GATHER = {"Webhook": 5.0, "Email": 60.0, "Heartbeat": 30.0}  # seconds; what happens meanwhile is one batch
BATCH = {"Webhook": 100, "Email": TOLD_LIMIT, "Heartbeat": TOLD_LIMIT}
ERROR_LIMIT = 512  # characters, as in the CRD
_WHOLE = "~"  # behind every mark: of that second, everything
_Place = tuple[datetime, str]  # in the order of news: time and mark


@dataclass(frozen=True)
class _Step:
    """What is next for one receiver. `status` is its entry."""

    receiver: ReceiverName
    status: Mapping[str, Any]
    errand: Errand | None
    retry_in: float | None = None
    deliver: tuple[News, ...] | None = None  # empty: see whether it could be
    given_up: tuple[News, ...] = ()


def decide(seen: NotifierSeen, now: datetime) -> Plan:
    """Return what to do about a BackupNotifier."""
    if seen.notifier.metadata.deletion_timestamp:
        return Plan()
    steps = tuple(_step(seen, receiver, now) for receiver in receivers(seen.notifier))
    times = [step.retry_in for step in steps if step.retry_in is not None]
    return Plan(
        actions=tuple(action for step in steps for action in _actions(seen, step)),
        status=_status(seen, steps, now),
        retry_in=min([*times, CHECK.total_seconds()]),
    )


def receivers(notifier: BackupNotifier) -> tuple[ReceiverName, ...]:
    """Return who is told."""
    spec = notifier.spec
    named: tuple[tuple[ReceiverName, Any], ...] = (
        ("Webhook", spec.webhook),
        ("Email", spec.email),
        ("Heartbeat", spec.heartbeat),
    )
    return tuple(name for name, settings in named if settings is not None)


def _step(seen: NotifierSeen, receiver: ReceiverName, now: datetime) -> _Step:
    before = _before(seen, receiver, now)
    mark = _place(before)
    after = [one for one in _meant(seen, receiver, mark[0]) if (one.time, one.mark) > mark]
    errand, known = seen.errands.get(receiver), set(before.get("told", ()))
    delivered = [one for one in after if errand and one.id in errand.delivered and one.mark not in known]
    told = known | {one.mark for one in delivered}
    waiting = [one for one in after if one.mark not in told]
    tried = errand is not None and errand.ended is not None and errand.problem is not None
    given_up = tuple(one for one in waiting if tried and now - one.time >= GIVE_UP)
    waiting = [one for one in waiting if one not in given_up]
    moved = max(mark, _settled(after, waiting, now))
    is_due = delivered or given_up or (not waiting and now - mark[0] > IDLE) or len(told) >= TOLD_LIMIT
    status = before
    if is_due:
        marks = [one.mark for one in after if one.mark in told and (one.time, one.mark) > moved]
        status = _entry(before, moved, marks) | {
            "delivered": before["delivered"] + len(delivered),
            "failed": before["failed"] + len(given_up),
        }
    if delivered and errand and errand.ended:
        status["lastDelivered"] = rfc3339(errand.ended)
    if errand is not None and errand.problem is not None:
        status["lastError"] = errand.problem.message[:ERROR_LIMIT]
    step = _Step(receiver, status, errand, given_up=given_up)
    if delivered or given_up:
        return replace(step, retry_in=RECORDED)  # first it is recorded: a crash repeats one batch, not two
    return _next(seen, step, waiting, now)


def _before(seen: NotifierSeen, receiver: ReceiverName, now: datetime) -> dict[str, Any]:
    """Return a receiver's entry; a new notifier starts when it was made, a new receiver of an old one now."""
    known = next((one for one in seen.status.get("receivers", ()) if one["name"] == receiver), None)
    if known is not None:
        return {"delivered": 0, "failed": 0, **known}
    born = seen.notifier.metadata.creation_timestamp or now
    start = now if seen.status.get("observedGeneration", -1) > 0 else born - timedelta(seconds=1)
    return {"name": receiver, "watermark": rfc3339(start), "delivered": 0, "failed": 0}


def _place(entry: Mapping[str, Any]) -> _Place:
    return parse(entry["watermark"]) or datetime.min.replace(tzinfo=UTC), entry.get("through", _WHOLE)


def _meant(seen: NotifierSeen, receiver: ReceiverName, since: datetime) -> list[News]:
    """Return what this receiver should know, from the watermark's own second on."""
    spec = seen.notifier.spec
    events: tuple[EventName, ...] = ("BackupSucceeded",)
    if receiver != "Heartbeat":
        events = spec.events or ()
    found = [one for one in news(seen.objects, since - timedelta(seconds=1)) if wanted(one.event, events)]
    if spec.tenant_selector is None:
        return found
    labels = spec.tenant_selector.match_labels.items()
    selected = {tenant.name for tenant in seen.objects.tenants if labels <= tenant.labels.items()}
    return [one for one in found if not one.tenant or one.tenant in selected]


def _settled(after: list[News], waiting: list[News], now: datetime) -> _Place:
    """Return until where everything is told: nothing older can turn up any more, and nothing there waits."""
    settled = (now - SETTLE).replace(microsecond=0)
    if not waiting or waiting[0].time > settled:
        return settled, _WHOLE
    first = (waiting[0].time, waiting[0].mark)
    before = [(one.time, one.mark) for one in after if (one.time, one.mark) < first]
    return before[-1] if before else (datetime.min.replace(tzinfo=UTC), "")


def _entry(before: Mapping[str, Any], place: _Place, marks: list[str]) -> dict[str, Any]:
    entry = {key: value for key, value in before.items() if key not in ("through", "told")}
    entry["watermark"] = rfc3339(place[0])
    if place[1] != _WHOLE:
        entry["through"] = place[1]
    if marks:
        entry["told"] = marks
    return entry


def _next(seen: NotifierSeen, step: _Step, waiting: list[News], now: datetime) -> _Step:
    """Return when the next delivery is due, or the delivery."""
    errand, generation = step.errand, seen.notifier.metadata.generation
    if errand is not None and errand.ended is None:
        return step  # under way; whoever is at it wakes us
    room = TOLD_LIMIT - len(step.status.get("told", ()))
    batch = tuple(waiting[: min(BATCH[step.receiver], room)])
    if errand is None or errand.ended is None or errand.generation != generation:
        return replace(step, deliver=batch)
    if waiting and not batch:
        return replace(step, retry_in=SETTLE.total_seconds() / 4)  # until the watermark makes room
    due = max(_again(errand, bool(batch)), _gathered(step, errand))
    if now < due:
        return replace(step, retry_in=(due - now).total_seconds())
    return replace(step, deliver=batch)


def _again(errand: Errand, something: bool) -> datetime:
    """Return when to try again; without something to tell only the Secrets are looked at."""
    assert errand.ended
    if errand.problem is None:
        return errand.ended + (timedelta() if something else CHECK)
    pause = PAUSES.after(errand.failures)
    return errand.ended + timedelta(seconds=min(pause, PERSON) if errand.problem.needs_person else pause)


def _gathered(step: _Step, errand: Errand) -> datetime:
    """Return until when news are gathered, so that many of them cost one mail and one write."""
    last = parse(step.status.get("lastDelivered")) or errand.ended
    assert last
    return last + timedelta(seconds=GATHER[step.receiver]) if "lastDelivered" in step.status else last


def _actions(seen: NotifierSeen, step: _Step) -> tuple[Action, ...]:
    actions: tuple[Action, ...] = ()
    if step.given_up:
        first, count = step.given_up[0], len(step.given_up)
        error = step.status.get("lastError", "")
        message = (
            f"{step.receiver} did not take {count} notifications for a day and they are given up; first was"
            f" {first.event} of {first.kind} {first.name} at {rfc3339(first.time)}: {error}"
        )
        actions = (Announce("Warning", Reason.DELIVERY_FAILED, message),)
    if step.deliver is not None:
        source = f"/tenantbackup.dev/clusters/{seen.platform.cluster_id}"
        actions = (*actions, Deliver(seen.notifier, step.receiver, step.deliver, source))
    return actions


def _status(seen: NotifierSeen, steps: tuple[_Step, ...], now: datetime) -> dict[str, Any]:
    generation, entries = seen.notifier.metadata.generation, [dict(step.status) for step in steps]
    status: dict[str, Any] = {
        "receivers": entries,
        "delivered": sum(entry["delivered"] for entry in entries),
        "failed": sum(entry["failed"] for entry in entries),
        "watermark": min(entry["watermark"] for entry in entries),
        "observedGeneration": generation,
    }
    times = [entry["lastDelivered"] for entry in entries if "lastDelivered" in entry]
    failing = [step.status["lastError"] for step in steps if step.errand and step.errand.problem]
    errors = [*failing, *([seen.status["lastError"]] if "lastError" in seen.status else [])]
    status |= {"lastDelivered": max(times)} if times else {}
    status |= {"lastError": errors[0]} if errors else {}
    verdict = _verdict(seen, steps)
    if verdict is None:
        status["conditions"] = seen.status["conditions"]
    else:
        status["conditions"] = conditions("Ready", verdict, seen.status, generation, now)
    return status


def _verdict(seen: NotifierSeen, steps: tuple[_Step, ...]) -> Verdict | None:
    """Return how the notifier is; None: as it was, until somebody has looked at its Secrets again."""
    problems = [(step.receiver, step.errand.problem) for step in steps if step.errand and step.errand.problem]
    for receiver, problem in sorted(problems, key=lambda one: not one[1].needs_person):
        message = f"{receiver}: {problem.message}"
        if problem.needs_person:
            return Stalled(problem.reason, message)
        return Waiting(problem.reason, message, retrying=True)
    generation = seen.notifier.metadata.generation
    if all(step.errand and step.errand.ended and step.errand.generation == generation for step in steps):
        return Done(Reason.READY, f"tells {', '.join(step.receiver for step in steps)}")
    if condition_of(seen.status, "Ready").get("observedGeneration") == generation:
        return None
    return Waiting(Reason.PENDING, "its Secrets are being read")
