"""Collecting a BackupStore: one Job at a time, once per interval or when somebody asks.

A Job's name is a function of the collection before it, so a pass that dies after creating it finds it
again. Whatever becomes of a collection, the store stays Ready: backups do not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.api.references import ANNOTATION_COLLECT
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .conditions import MESSAGE_LIMIT, condition_of
from .instants import parse, rfc3339, size
from .names import job_name
from .observed import JobSeen, StoreSeen
from .plan import Action, Announce, ExpireJob, Run, Subject
from .runs import KEEP_FAILED, Course, follow, recorded
from .verdicts import Done, Failed, Stalled

DEADLINE = 6 * 3600  # seconds; what is left is the next one's
DRY_RUN = "dry-run"  # an annotation that begins so only asks what would go
MAY_NOT_DELETE = (
    "nothing is collected because the store's credentials may not delete; name others that may in"
    " spec.collectorCredentialsSecretRef"
)
Status = Mapping[str, Any]


@dataclass(frozen=True)
class Collecting:
    """What to do about collecting, and the store's status with what is known of it."""

    status: Status
    actions: tuple[Action, ...] = ()
    retry_in: float | None = None  # seconds


def collecting(seen: StoreSeen, now: datetime) -> Collecting:
    """Return the next step; `seen.status` without what it says about collections stays as it is."""
    mine = tuple(job for job in seen.jobs if job.purpose == "collect")
    under_way = [job for job in mine if not _is_recorded(job, _known(seen.status))]
    if under_way:
        return _follow(seen, min(under_way, key=lambda job: job.created), now)
    status = _without_outdated_message(seen)
    if not is_ready(seen) or not _may_delete(seen):
        return Collecting(status, recorded(mine))
    wait = _due_in(seen, now)
    if wait > 0:
        return Collecting(status, recorded(mine), wait)
    return Collecting(status, (*recorded(mine), _run(seen)), 5.0)


def _known(status: Status) -> Status:
    known: Status = status.get("collection", {})
    return known


def _is_recorded(job: JobSeen, known: Status) -> bool:
    return rfc3339(job.created) <= str(known.get("startedAt", ""))


def is_ready(seen: StoreSeen) -> bool:
    """Whether the probe found this spec's store good."""
    ready = condition_of(seen.status, "Ready")
    generation = seen.store.metadata.generation
    return ready.get("status") == "True" and ready.get("observedGeneration") == generation


def _may_delete(seen: StoreSeen) -> bool:
    own = seen.store.spec.collector_credentials_secret_ref is not None
    return own or seen.status.get("capabilities", {}).get("delete") is not False


def _without_outdated_message(seen: StoreSeen) -> Status:
    known = dict(_known(seen.status))
    if not _may_delete(seen):
        known["message"] = MAY_NOT_DELETE
    elif known.get("message") == MAY_NOT_DELETE:
        del known["message"]
    return {**seen.status, "collection": known} if known else seen.status


def _request(seen: StoreSeen) -> str:
    """Return what somebody asked for and nobody did yet."""
    asked = seen.store.metadata.annotations.get(ANNOTATION_COLLECT, "")[:MESSAGE_LIMIT]
    return "" if asked == _known(seen.status).get("requested", "") else asked


def _due_in(seen: StoreSeen, now: datetime) -> float:
    """Return in how many seconds; the first one is an interval after the store was ready."""
    if _request(seen):
        return 0.0
    ready = condition_of(seen.status, "Ready")
    last = parse(_known(seen.status).get("attemptedAt") or ready.get("lastTransitionTime")) or now
    return (last + timedelta(seconds=seen.platform.collection.interval) - now).total_seconds()


def _run(seen: StoreSeen) -> Run:
    store, metadata, request = seen.store, seen.store.metadata, _request(seen)
    slot = f"{_known(seen.status).get('startedAt', '')} {request}"
    return Run(
        name=job_name(metadata.name, f"{metadata.uid} {slot}", "collect"),
        purpose="collect",
        job=contract.Collect(
            uid=metadata.uid,
            cluster_id=seen.platform.cluster_id,
            store=described.collected_store(store),
            grace_seconds=seen.platform.collection.grace,
            dry_run=request.startswith(DRY_RUN),
            request=request,
        ),
        subject=Subject.of(store),
        tenant="",
        secrets=described.collector_secrets(store),
        claim=described.claim(store),
        deadline=DEADLINE,
    )


def _follow(seen: StoreSeen, job: JobSeen, now: datetime) -> Collecting:
    course = follow(job, DEADLINE, job.created, now, {})
    if isinstance(course.verdict, Done):
        assert course.facts
        return _succeeded(seen, job, course, course.facts.facts, now)
    if isinstance(course.verdict, Failed):
        return _failed(seen, job, course)
    if isinstance(course.verdict, Stalled):
        known = {**_known(seen.status), "message": course.verdict.message[:MESSAGE_LIMIT]}
        return Collecting({**seen.status, "collection": known}, course.actions, course.verdict.retry_in)
    return Collecting(seen.status, course.actions, course.verdict.retry_in)


def _succeeded(seen: StoreSeen, job: JobSeen, course: Course, facts: Status, now: datetime) -> Collecting:
    deleted, freed = int(facts["deleted"]), size(int(facts["freedBytes"]))
    if _is_dry(job):
        named = f"{facts['candidates']} more would be named for a later one"
        message = f"dry run: {deleted} objects of {freed} would be deleted, {named}; see the Job's log"
        # The log is what was asked for.
        actions = tuple(_longer(action) for action in course.actions)
        return Collecting(_status(seen, job, message), actions, 5.0)
    status = {
        **_status(seen, job, str(facts["message"]), completedAt=rfc3339(now)),
        **{key: facts[key] for key in ("tenants", "backups", "usedBytes")},
        "used": size(int(facts["usedBytes"])),
    }
    counts = {key: facts[key] for key in ("candidates", "deleted", "freedBytes")}
    status["collection"] |= counts
    return Collecting(status, (*_told(facts, deleted, freed), *course.actions), 5.0)


def _told(facts: Status, deleted: int, freed: str) -> tuple[Announce, ...]:
    gone = Announce("Normal", Reason.STORE_COLLECTED, f"{deleted} unused objects of {freed} were deleted")
    left = Announce("Warning", Reason.COLLECTION_FAILED, f"a tenant was left out: {facts['message']}")
    return (*((gone,) if deleted else ()), *((left,) if facts["message"] else ()))


def _failed(seen: StoreSeen, job: JobSeen, course: Course) -> Collecting:
    message = f"{course.verdict.reason}: {course.verdict.message}"
    event = Announce("Warning", Reason.COLLECTION_FAILED, message)
    return Collecting(_status(seen, job, message), (event, *course.actions), 5.0)


def _status(seen: StoreSeen, job: JobSeen, message: str, **times: str) -> dict[str, Any]:
    """Return the status in which this Job's outcome is recorded."""
    request = job.told.request if isinstance(job.told, contract.Collect) else ""
    began = rfc3339(job.created)
    known = {**_known(seen.status), **times, "message": message[:MESSAGE_LIMIT], "startedAt": began}
    known |= {} if _is_dry(job) else {"attemptedAt": began}
    known |= {"requested": request} if request else {}
    return {**seen.status, "collection": {key: value for key, value in known.items() if value != ""}}


def _is_dry(job: JobSeen) -> bool:
    return isinstance(job.told, contract.Collect) and job.told.dry_run


def _longer(action: Action) -> Action:
    return replace(action, seconds=KEEP_FAILED) if isinstance(action, ExpireJob) else action
