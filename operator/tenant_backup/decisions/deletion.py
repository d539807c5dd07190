"""Deleting a TenantBackup: its Job first, then its data, then the object.

Our finalizer is there when a Job may have written something and `deletionPolicy` is Delete; a scheduled
backup has it from the start, which is one write less for each of a thousand. It never holds a namespace or
the kind itself that is going away: then the data stays.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tenant_backup.api.references import FINALIZER, LABEL_HOLD
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .conditions import condition_of, conditions
from .instants import rfc3339
from .names import backup_id, job_name
from .observed import BackupSeen, JobSeen
from .plan import Announce, Plan, ReleaseData, RemoveJob, Run, Subject
from .runs import LOOK_AGAIN, Course, Pauses, again_after_failure, of_purpose
from .verdicts import Done, Failed, Ref, Stalled, Verdict, Waiting

UNREACHABLE_FOR = timedelta(minutes=10)  # then the object goes and the data stays
DELETE_DEADLINE = 600  # seconds
EXPIRES = (
    900  # seconds: the object whose status would record the outcome is gone by then; longer than any pause
)
PAUSES = Pauses(20.0, 300.0)  # seconds between tries
_STORE_IS_GONE = (
    Reason.STORE_NOT_FOUND,
    Reason.SECRET_NOT_FOUND,
    Reason.KEY_MISSING,
    Reason.STORE_UNAVAILABLE,
    Reason.VOLUME_UNAVAILABLE,
)


def decide_deletion(seen: BackupSeen, now: datetime) -> Plan:
    """Return the next step of deleting a TenantBackup."""
    if FINALIZER not in seen.backup.metadata.finalizers:
        return Plan()
    if seen.terminating or seen.backup.spec.deletion_policy == "Retain":
        whole = "its namespace or its kind is being deleted"
        return _let_go(whole if seen.terminating else "deletionPolicy is Retain")
    running = at_work(seen)
    if running:
        return _stopping(seen, running, now)
    if _never_ran(seen):
        return Plan((ReleaseData(),))
    if LABEL_HOLD in seen.backup.metadata.labels:
        message = (
            f"label {LABEL_HOLD} keeps the data: remove it, and the data is deleted, and so is this object"
        )
        return _plan(seen, Course(Stalled(Reason.HELD, message)), now)
    return _delete_the_data(seen, now)


def _stopping(seen: BackupSeen, jobs: tuple[JobSeen, ...], now: datetime) -> Plan:
    verdict = Waiting(Reason.CANCELLED, "waiting until the pods of the backup are gone", LOOK_AGAIN)
    if _has_run(seen):
        return _plan(seen, Course(verdict, stop(jobs)), now)
    # Said before the Job goes: afterwards nothing else tells that something may be in the store.
    started = {"startedAt": rfc3339(min(job.created for job in jobs))}
    return Plan(status=while_deleting(seen, verdict, now) | started, retry_in=LOOK_AGAIN)


def _never_ran(seen: BackupSeen) -> bool:
    """Whether nothing can be in the store."""
    # Foreground deletion may have taken along a Job that nobody had recorded.
    in_view = "foregroundDeletion" not in seen.backup.metadata.finalizers
    return in_view and not seen.jobs and not _has_run(seen)


def _has_run(seen: BackupSeen) -> bool:
    return bool({"startedAt", "backupId"} & seen.status.keys())


def at_work(seen: BackupSeen) -> tuple[JobSeen, ...]:
    """Return the Jobs that read or write its data."""
    return (*of_purpose(seen.jobs, "backup"), *of_purpose(seen.jobs, "verify"))


def stop(jobs: tuple[JobSeen, ...]) -> tuple[RemoveJob, ...]:
    """Return what removes these Jobs; they are there until their last pod is gone."""
    return tuple(RemoveJob(job.name, job.uid) for job in jobs if not job.removing)


def outcome(course: Course) -> Announce:
    """Return what became of the data, once a Job has deleted it or left it alone."""
    facts = course.facts.facts if course.facts else {}
    if facts.get("left"):
        return Announce("Warning", Reason.DATA_RETAINED, f"the data stays in the store: {facts['message']}")
    return Announce("Normal", Reason.DATA_DELETED, "the backup is deleted from its store")


def _delete_the_data(seen: BackupSeen, now: datetime) -> Plan:
    course = deleting(seen, now)
    verdict = course.verdict
    if isinstance(verdict, Done):
        return Plan((outcome(course), ReleaseData(), *course.actions))
    if verdict.reason in _STORE_IS_GONE and _waited_long_enough(seen, now):
        return _let_go(f"its store could not be reached for {UNREACHABLE_FOR}: {verdict.message}")
    return _plan(seen, course, now)


def _waited_long_enough(seen: BackupSeen, now: datetime) -> bool:
    since = seen.backup.metadata.deletion_timestamp
    return since is not None and now - since >= UNREACHABLE_FOR


def deleting(seen: BackupSeen, now: datetime) -> Course:
    """Return how it stands with the Job that deletes the data; it is made, and made again, as need be."""
    store = seen.store
    if store is None or store.metadata.deletion_timestamp:
        name, namespace = seen.backup.spec.store_ref.name, seen.backup.metadata.namespace
        message = f"BackupStore {name} does not exist; create it again, or the data stays in the store"
        ref = Ref("BackupStore", namespace, name)
        return Course(Waiting(Reason.STORE_NOT_FOUND, message, 30.0, (ref,)))
    jobs = of_purpose(seen.jobs, "delete")
    known = condition_of(seen.status, "Stalled")
    return again_after_failure(jobs, lambda attempt: _run(seen, attempt), now, PAUSES, known)


def _run(seen: BackupSeen, attempt: int) -> Run:
    store, metadata = seen.store, seen.backup.metadata
    assert store
    return Run(
        name=job_name(metadata.name, metadata.uid, "delete", attempt=attempt),
        purpose="delete",
        job=_job(seen),
        subject=Subject.of(seen.backup),
        # Foreground deletion of the backup would collect a Job that the backup owns.
        owner=Subject.of(store),
        tenant=seen.backup.spec.tenant_ref.name,
        secrets=described.collector_secrets(store),
        claim=described.claim(store),
        deadline=DELETE_DEADLINE,
        expires=EXPIRES,
        retries=0,
        attempt=attempt,
    )


def _job(seen: BackupSeen) -> contract.Delete:
    metadata, store = seen.backup.metadata, seen.store
    assert store
    assert metadata.creation_timestamp
    name = seen.backup.spec.tenant_ref.name
    recorded = str(seen.status.get("backupId", ""))
    # The Tenant may be gone before its backups; its slug is in the backup's id.
    slug = recorded.split("_", 1)[0] or (seen.tenant.slug if seen.tenant else name)
    return contract.Delete(
        uid=metadata.uid,
        backup_id=recorded or backup_id(slug, metadata.creation_timestamp),
        tenant=contract.Tenant(seen.platform.cluster_id, metadata.namespace, name, slug),
        store=described.collected_store(store),
        grace_seconds=seen.platform.collection.grace,
    )


def _let_go(why: str) -> Plan:
    return Plan(
        (Announce("Warning", Reason.DATA_RETAINED, f"the data stays in the store: {why}"), ReleaseData())
    )


def _plan(seen: BackupSeen, course: Course, now: datetime) -> Plan:
    verdict = course.verdict
    return Plan(course.actions, while_deleting(seen, verdict, now), verdict.retry_in, verdict.wait_for)


def while_deleting(seen: BackupSeen, verdict: Verdict, now: datetime) -> dict[str, Any]:
    """Return the status while the data is not gone yet; how the backup itself ended stays true."""
    if isinstance(verdict, Failed):
        verdict = Stalled(verdict.reason, f"the data is not deleted yet: {verdict.message}", verdict.retry_in)
    status = dict(seen.status)
    generation = seen.backup.metadata.generation
    passing = ("Reconciling", "Stalled")
    kept = [item for item in seen.status.get("conditions", ()) if item["type"] not in passing]
    fresh = conditions("Succeeded", verdict, seen.status, generation, now)
    status["conditions"] = [*kept, *(item for item in fresh if item["type"] in passing)]
    status["observedGeneration"] = generation
    return status
