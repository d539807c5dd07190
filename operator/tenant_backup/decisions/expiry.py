"""A backup whose time is over: its data goes, the object stays, so that Git does not bring it back to life.

The state says Expired before anything is deleted: from then on no restore begins. An `expiresAfter` is
somebody's word about one backup, but it was given when nobody knew what would come: the data stays while
somebody holds it, and while there is no newer good backup to fall back on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.api.references import FINALIZER, LABEL_HOLD
from tenant_backup.api.values import duration_seconds
from tenant_backup.contract.reasons import Reason

from .audits import audited
from .conditions import Fact, condition_of, stamped
from .deletion import at_work, deleting, outcome, stop, while_deleting
from .instants import parse
from .observed import BackupSeen
from .plan import Plan, ReleaseData
from .retention import indispensable, line_of, moment_of
from .runs import recorded
from .verdicts import Done, Waiting
from .verification import decide_verification

LOOK_AGAIN = 3600.0  # seconds: nobody tells when a newer backup is there
Status = Mapping[str, Any]


def expires_at(spec: Status, status: Status) -> datetime | None:
    """Return when the data goes, of a backup as the API server describes it; None: never, or it is going."""
    after, completed = spec.get("expiresAfter"), parse(status.get("completedAt"))
    if not after or status.get("state") != "Succeeded" or completed is None:
        return None
    return completed + timedelta(seconds=duration_seconds(after))


def is_going(status: Status) -> bool:
    """Whether it has expired and its data is not gone yet."""
    return (
        status.get("state") == "Expired" and condition_of(status, "Expired").get("reason") == Reason.EXPIRED
    )


def decide_committed(seen: BackupSeen, now: datetime) -> Plan:
    """Return what to do about a backup that has succeeded: verify it, until its time is over."""
    if seen.status.get("state") == "Expired":
        return _end(seen, now)
    spec = seen.backup.spec
    due = expires_at({"expiresAfter": spec.expires_after}, seen.status)
    if due is None:
        return decide_verification(seen, now)
    if now < due:
        return _sooner(decide_verification(seen, now), (due - now).total_seconds())
    stays = _why_it_stays(seen)
    return _kept(seen, stays, now) if stays else _expire(seen, now)


def _why_it_stays(seen: BackupSeen) -> Fact | None:
    me = next((one for one in seen.line if one.uid == seen.backup.metadata.uid), None)
    if LABEL_HOLD in seen.backup.metadata.labels or me is None or me.held:
        message = f"label {LABEL_HOLD}, or a TenantRestore that is to read it, keeps its data"
        return Fact("Expired", "False", Reason.HELD, message)
    mates = [one for one in seen.line if line_of(one) == line_of(me)]
    newer = any(one.good and moment_of(one) > moment_of(me) for one in mates)
    if newer and me.uid not in indispensable(mates):
        return None
    message = (
        "its data stays until a newer backup of the same tenant, contents and modules in the same store is"
        " good and verified; delete this object to have it gone now"
    )
    return Fact("Expired", "False", Reason.NEWEST_GOOD, message)


def _kept(seen: BackupSeen, stays: Fact, now: datetime) -> Plan:
    plan = decide_verification(seen, now)
    return _sooner(replace(plan, status=_with(plan.status or seen.status, seen, stays, now)), LOOK_AGAIN)


def _sooner(plan: Plan, seconds: float) -> Plan:
    return replace(plan, retry_in=min(seconds, plan.retry_in or seconds))


def _expire(seen: BackupSeen, now: datetime) -> Plan:
    status = {key: value for key, value in seen.status.items() if key not in ("progress", "health")}
    going = Fact("Expired", "True", Reason.EXPIRED, "its time is over; its data is being deleted")
    status = _with(status | {"state": "Expired"}, seen, going, now)
    told = audited(
        "expiry",
        seen.backup,
        backupId=seen.status.get("backupId", ""),
        expiresAfter=seen.backup.spec.expires_after,
        reason=str(Reason.EXPIRED),
    )
    return Plan((told,), status, retry_in=1.0)


def _end(seen: BackupSeen, now: datetime) -> Plan:
    if not is_going(seen.status):
        return Plan(recorded(seen.jobs))
    running = at_work(seen)
    if running:
        verdict = Waiting(Reason.CANCELLED, "waiting until no Job reads it any more", 5.0)
        return Plan(stop(running), while_deleting(seen, verdict, now), verdict.retry_in)
    course = deleting(seen, now)
    if not isinstance(course.verdict, Done):
        status = while_deleting(seen, course.verdict, now)
        return Plan(course.actions, status, course.verdict.retry_in, course.verdict.wait_for)
    told = outcome(course)
    gone = Fact("Expired", "True", told.reason, told.message)
    release = (ReleaseData(),) if FINALIZER in seen.backup.metadata.finalizers else ()
    conditions = [
        item for item in seen.status["conditions"] if item["type"] not in ("Reconciling", "Stalled")
    ]
    status = _with({**seen.status, "conditions": conditions}, seen, gone, now)
    return Plan((told, *release, *course.actions), status)


def _with(status: Status, seen: BackupSeen, fact: Fact, now: datetime) -> dict[str, Any]:
    generation = seen.backup.metadata.generation
    others = [item for item in status.get("conditions", ()) if item["type"] != fact.type]
    return {**status, "conditions": [*others, stamped(fact, seen.status, generation, now)]}
