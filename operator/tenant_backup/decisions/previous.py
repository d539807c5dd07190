"""After a Replace: switch back when asked, and drop what is kept when its time is over."""

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
from .restored import restores_database, volumes
from .runs import Course, Pauses, again_after_failure, of_purpose, recorded
from .verdicts import Done, Failed, Ref, Waiting

SWAP_DEADLINE = 600  # seconds
PAUSES = Pauses(30.0, 900.0)  # seconds between tries
_KEPT = ("previousDatabase", "previousFiles")
_ATTEMPT_KEY = {"Undo": 1, "DropPrevious": 2}  # each action has Jobs of its own


def decide_previous(seen: RestoreSeen, now: datetime) -> Plan:
    """Return the next step of a restore that has ended."""
    until = parse(seen.status.get("undoUntil"))
    if not _is_kept(seen) or until is None:
        return _nothing_is_kept(seen, now)
    if _undo_is_wanted(seen) and (now < until or _runs(seen, "Undo")):
        return _undo(seen, now)
    if now < until:
        return Plan(recorded(seen.jobs), retry_in=(until - now).total_seconds())
    return _drop(seen, now)


def _is_kept(seen: RestoreSeen) -> bool:
    return any(seen.status.get(field) for field in _KEPT)


def _nothing_is_kept(seen: RestoreSeen, now: datetime) -> Plan:
    if not _undo_is_wanted(seen) or seen.status.get("state") != "Succeeded":
        return Plan(recorded(seen.jobs))
    message = "what was replaced is not kept any more; restore an earlier backup instead"
    reason = Reason.DATABASE_NOT_FOUND if restores_database(seen) else Reason.FILES_NOT_FOUND
    return Plan(recorded(seen.jobs), _with(seen, Fact("Undone", "False", reason, message), now))


def _undo_is_wanted(seen: RestoreSeen) -> bool:
    return seen.restore.spec.undo and seen.status.get("state") != "Undone"


def _runs(seen: RestoreSeen, action: str) -> bool:
    return bool(of_purpose(seen.jobs, "swap", _ATTEMPT_KEY[action]))


def _undo(seen: RestoreSeen, now: datetime) -> Plan:
    course = _course(seen, "Undo", now)
    if course is None:
        return _waits_for_the_tenant(seen)
    if isinstance(course.verdict, Done):
        message = f"{_named(seen)} is back in its place"
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
        status = {key: value for key, value in seen.status.items() if key not in (*_KEPT, "undoUntil")}
        told = Announce("Normal", Reason.PREVIOUS_DROPPED, f"{_named(seen)} was dropped")
        return Plan((*course.actions, told), status)
    if isinstance(course.verdict, Failed):
        told = Announce("Warning", course.verdict.reason, f"previous not dropped: {course.verdict.message}")
        return Plan((*course.actions, told), None, course.verdict.retry_in)
    return Plan(course.actions, None, course.verdict.retry_in)


def _course(seen: RestoreSeen, action: Literal["Undo", "DropPrevious"], now: datetime) -> Course | None:
    if seen.tenant is None or not _can_be_reached(seen):
        return None
    jobs = of_purpose(seen.jobs, "swap", _ATTEMPT_KEY[action])
    known = condition_of(seen.status, "Undone")
    return again_after_failure(jobs, lambda attempt: _run(seen, action, attempt), now, PAUSES, known)


def _can_be_reached(seen: RestoreSeen) -> bool:
    """Whether the Tenant still names all that it takes."""
    assert seen.tenant
    administrator = described.admin_secret(seen.tenant) or not seen.status.get("previousDatabase")
    return bool(administrator) and {one.name for one in _volumes(seen)} >= set(
        seen.status.get("previousFiles", ())
    )


def _volumes(seen: RestoreSeen) -> list[contract.Volume]:
    return [volume for volume in volumes(seen) if volume.name in seen.status.get("previousFiles", ())]


def _named(seen: RestoreSeen) -> str:
    database, files = (seen.status.get(field) for field in _KEPT)
    words = [f"database {database}"] if database else []
    return " and ".join([*words, f"what was kept of files of {', '.join(files)}"] if files else words)


def _run(seen: RestoreSeen, action: Literal["Undo", "DropPrevious"], attempt: int) -> Run:
    tenant, metadata = seen.tenant, seen.restore.metadata
    assert tenant
    database, secrets = contract.NO_DATABASE, Secrets()
    if seen.status.get("previousDatabase"):
        database, admin = described.database(tenant), described.admin_secret(tenant)
        secrets = Secrets(database_ca=described.database_secrets(tenant).database_ca, admin=admin)
    job = contract.Swap(
        uid=metadata.uid,
        name=metadata.name,
        action=action,
        database=database,
        target_database=database.name,
        files=_volumes(seen),
    )
    return Run(
        name=job_name(metadata.name, metadata.uid, "swap", _ATTEMPT_KEY[action], attempt),
        purpose="swap",
        job=job,
        subject=Subject.of(seen.restore),
        tenant=tenant.metadata.name,
        secrets=secrets,
        deadline=SWAP_DEADLINE,
        retries=0,
        generation=_ATTEMPT_KEY[action],
        attempt=attempt,
    )


def _waits_for_the_tenant(seen: RestoreSeen) -> Plan:
    # Nobody can reach server or volume without it; what is kept stays until it is back.
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
