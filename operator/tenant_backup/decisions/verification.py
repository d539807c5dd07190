"""Verifying a committed backup: once after it was made, and whenever its annotation gets a new value.

What is asked for is in the object, what was done is in its status, and the Job in between has a name
that is a function of both: so nothing is done twice and nothing is forgotten, wherever we die.
The backup stays Succeeded; what is found makes it Healthy or Corrupt, and nothing else does: what could
not be looked at leaves its health as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tenant_backup.api.references import ANNOTATION_VERIFY
from tenant_backup.api.values import duration_seconds
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .audits import audited
from .checks import store_is_there, tenant_has_keys, tenant_is_there
from .conditions import conditions, others
from .instants import rfc3339
from .names import job_name
from .observed import BackupSeen, JobSeen
from .plan import Action, Announce, Audit, Condemn, Plan, RemoveJob, Run, Secrets, Subject
from .runs import Course, Pauses, again_after_failure, follow, newest, of_purpose, recorded, start
from .summaries import weighed
from .verdicts import Done, Failed, Verdict
from .wishes import Wish, is_scheduled, wish

TRIES = 4  # Jobs, each with retries of its own
PAUSES = Pauses(60.0, 600.0)  # seconds between Jobs; below the time a failed Job is kept
MESSAGE_LIMIT = 1024  # characters, as in the CRD
_UNDER_WAY = {"phase": "Verify"}
Status = Mapping[str, Any]


def committed(seen: BackupSeen, facts: Status, damage: str) -> Done:
    """Return the verdict on a committed backup, with what is wrong with it if anything is.

    `facts` has its `backupId` and its `encryption`.
    """
    store = seen.backup.spec.store_ref.name
    readable = ", not encrypted" if facts.get("encryption") == "None" else ""
    changed = facts.get("files", {}).get("changed") or facts.get("contents", {}).get("changedFiles")
    read = f"; {changed} files changed while they were read, the log of its Job names them" if changed else ""
    message = f"{facts.get('backupId')} is committed to BackupStore {store}{readable}{read}"
    return Done(Reason.SUCCEEDED, f"{message}; {damage}" if damage else message)


def decide_verification(seen: BackupSeen, now: datetime) -> Plan:
    """Return what to do about a backup that succeeded."""
    spec, metadata = seen.backup.spec, seen.backup.metadata
    wanted = wish({"verification": spec.verification}, {"annotations": metadata.annotations}, seen.status)
    if wanted is None:
        return _wound_up(seen)
    jobs = _jobs(seen, wanted)
    course = _course(seen, wanted, jobs, now)
    if isinstance(course.verdict, Done):
        plan = _found(seen, wanted, course, now)
    elif isinstance(course.verdict, Failed) and course.verdict.retry_in is None:
        plan = _given_up(seen, wanted, course, now)
    else:
        plan = _under_way(seen, course, newest(jobs))
    return replace(plan, actions=(*_tidy(seen, jobs), *plan.actions))


def its_tenant_is_there(seen: BackupSeen) -> Verdict | None:
    """It has the keys."""
    return tenant_is_there(seen.tenant, seen.backup.metadata.namespace, seen.backup.spec.tenant_ref.name)


def its_store_is_there(seen: BackupSeen) -> Verdict | None:
    """It says where to look."""
    return store_is_there(seen.store, seen.backup.metadata.namespace, seen.backup.spec.store_ref.name)


def its_tenant_has_keys(seen: BackupSeen) -> Verdict | None:
    """The manifest is believed only when they signed it."""
    assert seen.tenant
    return tenant_has_keys(seen.tenant)


_CHECKS: tuple[Callable[[BackupSeen], Verdict | None], ...] = (
    its_tenant_is_there,
    its_store_is_there,
    its_tenant_has_keys,
)


def _name(seen: BackupSeen, wanted: Wish, attempt: int) -> str:
    # The time of the verification before tells two requests with one value apart.
    slot = (wanted.requested, wanted.level, seen.status.get("verification", {}).get("completedAt", ""))
    metadata = seen.backup.metadata
    return job_name(metadata.name, "\0".join((metadata.uid, *slot)), "verify", attempt=attempt)


def _jobs(seen: BackupSeen, wanted: Wish) -> tuple[JobSeen, ...]:
    names = {_name(seen, wanted, attempt) for attempt in range(1, TRIES + 1)}
    return tuple(job for job in of_purpose(seen.jobs, "verify") if job.name in names)


def _tidy(seen: BackupSeen, jobs: tuple[JobSeen, ...]) -> tuple[Action, ...]:
    """Let Jobs go that are none of `jobs`: recorded ones after a while, those of an older request at once."""
    others = [job for job in seen.jobs if job not in jobs]
    stale = [job for job in others if _is_at_work(job)]
    ended = tuple(job for job in others if not _is_at_work(job))
    return (*(RemoveJob(job.name, job.uid) for job in stale if not job.removing), *recorded(ended))


def _is_at_work(job: JobSeen) -> bool:
    # A pod's answer is read before the Job controller has counted it.
    answered = job.outcome is not None and (job.outcome.ok or not job.outcome.retriable)
    return job.purpose == "verify" and not job.finished and not answered


def _wound_up(seen: BackupSeen) -> Plan:
    """Nothing is asked for, or not any more."""
    actions = _tidy(seen, ())
    if "progress" not in seen.status:
        return Plan(actions)
    status = {key: value for key, value in seen.status.items() if key != "progress"}
    status["verification"] = {**status.get("verification", {}), "message": "the request was withdrawn"}
    return Plan(actions, status)


def _course(seen: BackupSeen, wanted: Wish, jobs: tuple[JobSeen, ...], now: datetime) -> Course:
    job = newest(jobs)
    missing = next((verdict for check in _CHECKS if (verdict := check(seen)) is not None), None)
    if job is None and missing is not None:
        # Woken when that changes: there may be thousands of backups of a Tenant that is gone.
        return Course(replace(missing, retry_in=None))
    if job is None:
        return start(_run(seen, wanted, 1, now), None, now)
    course = follow(job, _deadline(seen), job.created, now, {})
    if missing is not None or not _may_be_tried_again(job, course.verdict):
        return course
    return again_after_failure(jobs, lambda attempt: _run(seen, wanted, attempt, now), now, PAUSES, {})


def _may_be_tried_again(job: JobSeen, verdict: Verdict) -> bool:
    """A store that was away may be back; a key that is missing, or too little time, needs a person."""
    permanent = job.outcome is not None and not job.outcome.retriable
    failed = isinstance(verdict, Failed) and verdict.reason is not Reason.DEADLINE_EXCEEDED
    return failed and not permanent and job.attempt < TRIES


def _found(seen: BackupSeen, wanted: Wish, course: Course, now: datetime) -> Plan:
    facts = course.facts.facts if course.facts else {}
    if "health" not in facts:
        silent = Failed(Reason.INTERNAL_ERROR, "the verification ended well without an answer; report this")
        return _given_up(seen, wanted, replace(course, verdict=silent), now)
    if _a_deeper_look_found_more(seen, wanted, facts):
        return _still_doubted(seen, wanted, course, now)
    health, message = facts["health"], str(facts["verification"]["message"])
    damage = "" if health == "Healthy" else message
    status = _concluded(seen, wanted, message, now) | {"health": weighed(health, _contents(seen))}
    if health == "Healthy":
        status["verification"]["healthyAt"] = rfc3339(now)
    metadata = seen.backup.metadata
    verdict = committed(seen, seen.status, damage)
    found = conditions("Succeeded", verdict, seen.status, metadata.generation, now)
    status["conditions"] = [*found, *others(seen.status)]
    told, condemned = _told(seen, wanted, message, bad=bool(damage)), _condemned(seen, facts)
    return Plan((*condemned, *told, _audit(seen, wanted, health, message), *course.actions), status)


def _told(seen: BackupSeen, wanted: Wish, message: str, *, bad: bool) -> tuple[Action, ...]:
    said = f"{_asked(wanted)}: {message}"
    if bad:
        return (Announce("Warning", Reason.VERIFICATION_FAILED, said),)
    # That a schedule works is in status and metrics: a thousand Events a night of it would hide the others.
    if is_scheduled(wanted.requested, seen.backup.metadata.labels):
        return ()
    return (Announce("Normal", Reason.BACKUP_VERIFIED, said),)


def _a_deeper_look_found_more(seen: BackupSeen, wanted: Wish, facts: Status) -> bool:
    """Whether Checksum is content with what Contents was not: a matching SHA-256 hides a lot."""
    deeper = seen.status.get("verification", {}).get("level") == "Contents" and wanted.level == "Checksum"
    known = seen.status.get("health")
    doubted = known in ("Corrupt", "Degraded") and known != weighed("Healthy", _contents(seen))
    return deeper and facts["health"] == "Healthy" and doubted


def _contents(seen: BackupSeen) -> Status:
    return dict(seen.status.get("contents", {}))


def _still_doubted(seen: BackupSeen, wanted: Wish, course: Course, now: datetime) -> Plan:
    message = "what Contents found still stands, because Checksum cannot see it; ask for Contents again"
    status = _concluded(seen, wanted, message, now)
    status["verification"] |= {"level": "Contents"}
    told = Announce("Warning", Reason.VERIFICATION_FAILED, f"{_asked(wanted)}: {message}")
    return Plan((told, _audit(seen, wanted, str(seen.status["health"]), message), *course.actions), status)


def _condemned(seen: BackupSeen, facts: Status) -> tuple[Action, ...]:
    """The others that need the damaged objects: they are corrupt too, and say so now."""
    hit = set(facts.get("backups", ()))
    message = (
        f"{facts.get('damaged', '')}: found when TenantBackup {seen.backup.metadata.name} was verified; "
        f"annotate this one with {ANNOTATION_VERIFY} to learn which tables are hit"
    )
    others = [one for one in seen.siblings if one.backup_id in hit and not one.corrupt]
    level = facts["verification"]["level"]
    return tuple(Condemn(one.name, one.uid, level, message[:MESSAGE_LIMIT]) for one in others)


def _given_up(seen: BackupSeen, wanted: Wish, course: Course, now: datetime) -> Plan:
    message = f"could not be verified: {course.verdict.reason}: {course.verdict.message}"
    told = Announce("Warning", Reason.VERIFICATION_FAILED, f"{_asked(wanted)}: {message}")
    health = str(seen.status.get("health", "Unknown"))
    status = _concluded(seen, wanted, message, now)
    return Plan((told, _audit(seen, wanted, health, message), *course.actions), status)


def _under_way(seen: BackupSeen, course: Course, job: JobSeen | None) -> Plan:
    verdict = course.verdict
    trouble = f"{verdict.reason}: {verdict.message}"[:MESSAGE_LIMIT]
    said = "under way" if verdict.reason is Reason.RUNNING else trouble
    status = {**seen.status, "progress": dict(job.progress) if job and job.progress else _UNDER_WAY}
    status["verification"] = {**seen.status.get("verification", {}), "message": said}
    return Plan(course.actions, status, verdict.retry_in, verdict.wait_for)


def _concluded(seen: BackupSeen, wanted: Wish, message: str, now: datetime) -> dict[str, Any]:
    status = {key: value for key, value in seen.status.items() if key != "progress"}
    done = {"level": wanted.level, "completedAt": rfc3339(now), "message": message[:MESSAGE_LIMIT]}
    # An empty request is the first one: what an annotation asked for before stays handled.
    requested = {"requested": wanted.requested} if wanted.requested else {}
    status["verification"] = {**seen.status.get("verification", {}), **done, **requested}
    return status


def _asked(wanted: Wish) -> str:
    return f'{wanted.level}, requested by "{wanted.requested}"' if wanted.requested else wanted.level


def _audit(seen: BackupSeen, wanted: Wish, health: str, message: str) -> Audit:
    return audited(
        "verification",
        seen.backup,
        backupId=seen.status.get("backupId", ""),
        level=wanted.level,
        health=health,
        message=message,
    )


def _deadline(seen: BackupSeen) -> int:
    return duration_seconds(seen.backup.spec.deadline)


def _run(seen: BackupSeen, wanted: Wish, attempt: int, now: datetime) -> Run:
    tenant, store = seen.tenant, seen.store
    assert tenant
    assert store
    job = _job(seen, wanted, now)
    return Run(
        name=_name(seen, wanted, attempt),
        purpose="verify",
        job=job,
        subject=Subject.of(seen.backup),
        tenant=tenant.metadata.name,
        secrets=described.store_secrets(store)
        | described.key_secrets(tenant)
        | Secrets(identity=job.identity_secret),
        claim=described.claim(store),
        deadline=_deadline(seen),
        attempt=attempt,
    )


def _job(seen: BackupSeen, wanted: Wish, now: datetime) -> contract.Verify:
    tenant, store = seen.tenant, seen.store
    assert tenant
    assert store
    reference = tenant.spec.encryption.identity_secret_ref
    return contract.Verify(
        uid=seen.backup.metadata.uid,
        backup_id=str(seen.status.get("backupId", "")),
        level=wanted.level,
        everything=bool(wanted.requested),
        day=now.toordinal(),
        tenant=described.tenant(tenant, seen.platform.cluster_id),
        store=described.store(store),
        manifest_sha256=str(seen.status.get("checksum", "")).removeprefix("sha256:"),
        signing_key=tenant.status.signing_key or "",
        trusted_keys=described.trusted_keys(tenant),
        identity_secret=reference.name if reference and wanted.level == "Contents" else "",
    )
