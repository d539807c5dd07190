"""After a Replace: switch back when asked, and drop the kept database when its time is over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from tenant_backup.api.values import duration_seconds
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .conditions import Fact, condition_of, stamped
from .instants import parse, rfc3339
from .names import job_name
from .observed import RestoreSeen
from .plan import Announce, Plan, Run, Secrets, Subject
from .runs import Course, Pauses, again_after_failure, of_purpose, recorded
from .verdicts import Done, Failed, Ref, Waiting

SWAP_DEADLINE = 600  # seconds
PAUSES = Pauses(30.0, 900.0)  # seconds between tries
_ATTEMPT_KEY = {"Undo": 1, "DropPrevious": 2}  # each action has Jobs of its own


def decide_previous(seen: RestoreSeen, now: datetime) -> Plan:
    """Return the next step of a restore that has ended."""
    until = parse(seen.status.get("undoUntil"))
    if not seen.status.get("previousDatabase") or until is None:
        return _nothing_is_kept(seen, now)
    if _undo_is_wanted(seen) and (now < until or _runs(seen, "Undo")):
        return _undo(seen, now)
    if now < until:
        return Plan(recorded(seen.jobs), retry_in=(until - now).total_seconds())
    return _drop(seen, now)


def _nothing_is_kept(seen: RestoreSeen, now: datetime) -> Plan:
    if not _undo_is_wanted(seen) or seen.status.get("state") != "Succeeded":
        return Plan(recorded(seen.jobs))
    message = "the previous database is not kept any more; restore an earlier backup instead"
    return Plan(
        recorded(seen.jobs), _with(seen, Fact("Undone", "False", Reason.DATABASE_NOT_FOUND, message), now)
    )


def _undo_is_wanted(seen: RestoreSeen) -> bool:
    return seen.restore.spec.undo and seen.status.get("state") != "Undone"


def _runs(seen: RestoreSeen, action: str) -> bool:
    return bool(of_purpose(seen.jobs, "swap", _ATTEMPT_KEY[action]))


def _undo(seen: RestoreSeen, now: datetime) -> Plan:
    course = _course(seen, "Undo", now)
    if course is None:
        return _waits_for_the_tenant(seen)
    if isinstance(course.verdict, Done):
        message = "the previous database is live again"
        kept = timedelta(seconds=duration_seconds(seen.restore.spec.keep_previous))
        status = _with(seen, Fact("Undone", "True", Reason.UNDONE, message), now)
        # What the undo took away is now the previous one, under the same name, and kept as long.
        status |= {"state": "Undone", "undoUntil": rfc3339(now + kept)}
        told = Announce("Normal", Reason.UNDONE, message)
        return Plan((*course.actions, told), status, kept.total_seconds())
    reason, message = course.verdict.reason, course.verdict.message
    fact = Fact("Undone", "False", reason, message)
    return Plan(course.actions, _with(seen, fact, now), course.verdict.retry_in)


def _drop(seen: RestoreSeen, now: datetime) -> Plan:
    course = _course(seen, "DropPrevious", now)
    if course is None:
        return _waits_for_the_tenant(seen)
    if isinstance(course.verdict, Done):
        status = {
            key: value for key, value in seen.status.items() if key not in ("previousDatabase", "undoUntil")
        }
        name = seen.status["previousDatabase"]
        return Plan(
            (*course.actions, Announce("Normal", Reason.PREVIOUS_DROPPED, f"database {name} was dropped")),
            status,
        )
    if isinstance(course.verdict, Failed):
        told = Announce("Warning", course.verdict.reason, f"previous not dropped: {course.verdict.message}")
        return Plan((*course.actions, told), None, course.verdict.retry_in)
    return Plan(course.actions, None, course.verdict.retry_in)


def _course(seen: RestoreSeen, action: Literal["Undo", "DropPrevious"], now: datetime) -> Course | None:
    if seen.tenant is None or not described.admin_secret(seen.tenant):
        return None
    jobs = of_purpose(seen.jobs, "swap", _ATTEMPT_KEY[action])
    known = condition_of(seen.status, "Undone")
    return again_after_failure(jobs, lambda attempt: _run(seen, action, attempt), now, PAUSES, known)


def _run(seen: RestoreSeen, action: Literal["Undo", "DropPrevious"], attempt: int) -> Run:
    tenant, metadata = seen.tenant, seen.restore.metadata
    assert tenant
    database = described.database(tenant)
    job = contract.Swap(
        uid=metadata.uid,
        name=metadata.name,
        action=action,
        database=database,
        target_database=database.name,
    )
    return Run(
        name=job_name(metadata.name, metadata.uid, "swap", _ATTEMPT_KEY[action], attempt),
        purpose="swap",
        job=job,
        subject=Subject.of(seen.restore),
        tenant=tenant.metadata.name,
        secrets=Secrets(
            database_ca=described.database_secrets(tenant).database_ca, admin=described.admin_secret(tenant)
        ),
        deadline=SWAP_DEADLINE,
        retries=0,
        generation=_ATTEMPT_KEY[action],
        attempt=attempt,
    )


def _waits_for_the_tenant(seen: RestoreSeen) -> Plan:
    # Nobody can reach the server without it; the previous database stays until it is back.
    name = seen.restore.spec.target.tenant_ref.name
    ref = Ref("Tenant", seen.restore.metadata.namespace, name)
    waiting = Waiting(Reason.TENANT_NOT_FOUND, f"Tenant {name} is gone", 600.0, (ref,))
    return Plan((), None, waiting.retry_in, waiting.wait_for)


def _with(seen: RestoreSeen, fact: Fact, now: datetime) -> dict[str, Any]:
    """Return the status with one more condition; how the restore itself ended stays true."""
    generation = seen.restore.metadata.generation
    others = [item for item in seen.status.get("conditions", ()) if item["type"] != fact.type]
    found = [*others, stamped(fact, seen.status, generation, now)]
    return {**seen.status, "conditions": found, "observedGeneration": generation}
