"""TenantBackup: one Job, followed until its end is recorded; deletion takes the data along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from tenant_backup.api.references import FINALIZER, LABEL_SCHEDULE
from tenant_backup.api.values import duration_seconds
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .audits import audited
from .checks import requested_by, store_is_there, tenant_has_keys, tenant_is_there
from .conditions import Fact, condition_of, conditions, stamped
from .deletion import decide_deletion
from .expiry import decide_committed
from .imported import decide_imported
from .instants import duration, parse, rfc3339, size
from .names import backup_id, job_name
from .observed import BackupSeen, Ended, JobSeen
from .plan import Action, Announce, HoldData, Plan, Run, Secrets, Subject
from .queue import REFRESH, queue_status
from .runs import Course, follow, newest, of_purpose, recorded, start
from .summaries import FINISHED, weighed
from .tenant import how_to_make_a_key, readable_by_somebody
from .unusual import Figures, as_condition, unusual
from .verdicts import Done, Failed, Ref, Stalled, Verdict, Waiting
from .verification import committed

_AUDITED = ("state", "backupId", "checksum", "bytes", "startedAt", "completedAt", "requestedBy")


def decide(seen: BackupSeen, now: datetime) -> Plan:
    """Return what to do about a TenantBackup."""
    if seen.backup.metadata.deletion_timestamp:
        return decide_deletion(seen, now)
    if seen.status.get("state") in FINISHED:
        return _ended(seen, now)
    if seen.backup.spec.imported:
        return decide_imported(seen, now)
    job, started = newest(of_purpose(seen.jobs, "backup")), parse(seen.status.get("startedAt"))
    if job is not None:
        # Checks hold the start back, never a Job that runs: it was told everything it needs.
        known = condition_of(seen.status, "Succeeded")
        deadline = duration_seconds(seen.backup.spec.deadline)
        return _plan(seen, follow(job, deadline, started, now, known), job, now)
    for check in _CHECKS:
        verdict = check(seen)
        if verdict is not None:
            return _plan(seen, Course(verdict), None, now)
    return _plan(seen, start(_run(seen), started, now), None, now)


def _ended(seen: BackupSeen, now: datetime) -> Plan:
    failed = seen.status.get("state") == "Failed"
    return Plan(recorded(seen.jobs)) if failed else decide_committed(seen, now)


def wants_to_start(seen: BackupSeen) -> bool:
    """Whether nothing but its turn in the queue is missing; `seen.place` is not asked for yet."""
    over = seen.backup.metadata.deletion_timestamp or seen.status.get("state") in FINISHED
    if over or seen.backup.spec.imported:
        return False
    return not is_at_work(seen) and all(check(seen) is None for check in _CHECKS)


def volumes_to_read(seen: BackupSeen) -> list[contract.Volume]:
    """Return the volumes whose files it is of."""
    if seen.tenant is None or seen.backup.spec.contents == "Database":
        return []
    return described.volumes(seen.tenant, seen.backup.spec.modules)


def is_at_work(seen: BackupSeen) -> bool:
    """Whether a Job of it may use the database now."""
    return bool(of_purpose(seen.jobs, "backup")) and seen.status.get("state") not in FINISHED


def its_tenant_is_there(seen: BackupSeen) -> Verdict | None:
    """Whose data would it be?"""
    metadata = seen.backup.metadata
    return tenant_is_there(seen.tenant, metadata.namespace, seen.backup.spec.tenant_ref.name)


def its_store_is_there(seen: BackupSeen) -> Verdict | None:
    """Where would it go?"""
    metadata = seen.backup.metadata
    return store_is_there(seen.store, metadata.namespace, seen.backup.spec.store_ref.name)


def somebody_can_read_it(seen: BackupSeen) -> Verdict | None:
    """A backup that nobody can decrypt is none."""
    assert seen.tenant
    if readable_by_somebody(seen.tenant):
        return None
    name = seen.tenant.metadata.name
    wait_for = (Ref("Tenant", seen.tenant.metadata.namespace, name),)
    return Stalled(Reason.KEY_MISSING, f"Tenant {name}: {how_to_make_a_key(name)}", None, wait_for)


def its_contents_are_there(seen: BackupSeen) -> Verdict | None:
    """A backup of the files of a tenant that has none would be empty, and look like one."""
    assert seen.tenant
    contents, spec, name = seen.backup.spec.contents, seen.tenant.spec, seen.tenant.metadata.name
    missing = "database" if contents == "Database" and spec.database is None else ""
    missing = missing or ("files" if contents == "Files" and not spec.files else "")
    if not missing:
        return None
    message = f"Tenant {name} has no spec.{missing}, and contents is {contents}: add them, or choose All"
    return Stalled(Reason.INVALID_SPEC, message, None, (Ref("Tenant", seen.tenant.metadata.namespace, name),))


def its_modules_are_known(seen: BackupSeen) -> Verdict | None:
    """A misspelt module must not become a backup with nothing in it."""
    assert seen.tenant
    known = {module.name for module in seen.tenant.spec.modules}
    unknown = sorted(set(seen.backup.spec.modules) - known)
    if not unknown:
        return None
    name = seen.tenant.metadata.name
    message = (
        f"Tenant {name} has no module {', '.join(unknown)}; it has: {', '.join(sorted(known)) or 'none'}"
    )
    return Stalled(Reason.INVALID_SPEC, message, None, (Ref("Tenant", seen.tenant.metadata.namespace, name),))


def its_modules_have_files(seen: BackupSeen) -> Verdict | None:
    """A misspelt volume would leave files out; a backup of files that no module has would be empty."""
    assert seen.tenant
    spec, name = seen.tenant.spec, seen.tenant.metadata.name
    volumes = {files.name for files in spec.files}
    named = {glob.partition(":")[0]: module.name for module in spec.modules for glob in module.files}
    wait_for = (Ref("Tenant", seen.tenant.metadata.namespace, name),)
    for volume in sorted(named.keys() - volumes):
        message = f"module {named[volume]} of Tenant {name} has files of volume {volume}, which is not in its"
        return Stalled(Reason.INVALID_SPEC, f"{message} spec.files: correct one of them", None, wait_for)
    no_rows = seen.backup.spec.contents == "Files" or spec.database is None
    if not seen.backup.spec.modules or not no_rows or volumes_to_read(seen):
        return None
    message = (
        f"no module of {', '.join(seen.backup.spec.modules)} has files in Tenant {name}, and nothing else"
    )
    return Stalled(Reason.INVALID_SPEC, f"{message} is to be backed up: choose others", None, wait_for)


def it_ends_before_its_packs_may_be_collected(seen: BackupSeen) -> Verdict | None:
    """What a run refers to is safe for so long only."""
    longest = seen.platform.collection.max_run
    if duration_seconds(seen.backup.spec.deadline) <= longest:
        return None
    message = (
        f"the deadline is longer than the {longest} s that a backup may last here; create it with a shorter"
        " one, or set a longer collector.grace in the chart"
    )
    return Stalled(Reason.INVALID_SPEC, message)


def its_tenant_has_keys(seen: BackupSeen) -> Verdict | None:
    """The manifest is signed with them."""
    assert seen.tenant
    return tenant_has_keys(seen.tenant)


def the_run_before_it_has_ended(seen: BackupSeen) -> Verdict | None:
    """Two backups that a schedule with overlap Queue made for a tenant run one after the other."""
    if not seen.before:
        return None
    message = f"it waits until {seen.before}, the schedule's previous backup of the tenant, has ended"
    ref = Ref("TenantBackup", seen.backup.metadata.namespace, seen.before)
    return Waiting(Reason.QUEUED, message, REFRESH.total_seconds(), (ref,))


def its_turn_has_come(seen: BackupSeen) -> Verdict | None:
    """The last check: who cannot start anyway takes nobody's place."""
    place = seen.place
    if place is None:
        return None
    message = f"number {place.position} in the queue at {place.at:%H:%M} UTC: {place.why}"
    return Waiting(Reason.QUEUED, message, REFRESH.total_seconds())  # the queue wakes it earlier


_CHECKS: tuple[Callable[[BackupSeen], Verdict | None], ...] = (
    its_tenant_is_there,
    its_store_is_there,
    somebody_can_read_it,
    its_contents_are_there,
    its_modules_are_known,
    its_modules_have_files,
    it_ends_before_its_packs_may_be_collected,
    its_tenant_has_keys,
    the_run_before_it_has_ended,
    its_turn_has_come,
)


def _run(seen: BackupSeen) -> Run:
    tenant, store, metadata = seen.tenant, seen.store, seen.backup.metadata
    assert tenant
    assert store
    return Run(
        name=job_name(metadata.name, metadata.uid, "backup"),
        purpose="backup",
        job=_job(seen),
        subject=Subject.of(seen.backup),
        tenant=tenant.metadata.name,
        secrets=(Secrets() if seen.backup.spec.contents == "Files" else described.database_secrets(tenant))
        | described.store_secrets(store)
        | described.key_secrets(tenant),
        claim=described.claim(store),
        deadline=duration_seconds(seen.backup.spec.deadline),
        node=seen.node,
    )


def _job(seen: BackupSeen) -> contract.Backup:
    tenant, store, backup = seen.tenant, seen.store, seen.backup
    assert tenant
    assert store
    assert backup.metadata.creation_timestamp
    contents = backup.spec.contents
    return contract.Backup(
        uid=backup.metadata.uid,
        backup_id=backup_id(tenant.slug, backup.metadata.creation_timestamp),
        name=backup.metadata.name,
        tenant=described.tenant(tenant, seen.platform.cluster_id),
        database=contract.NO_DATABASE if contents == "Files" else described.database(tenant),
        store=described.store(store),
        recipients=described.recipients(tenant, store),
        encryption=tenant.spec.encryption.mode,
        exclude_columns=described.excluded_columns(tenant),
        exclude_tables=list(tenant.spec.exclusions.tables),
        modules=described.modules(tenant),
        only_modules=list(backup.spec.modules),
        compression_level=backup.spec.compression.level,
        mode=backup.spec.mode,
        max_run_seconds=seen.platform.collection.max_run,
        adopt=described.adopts(store),
        read_rate=described.read_rate(tenant),
        upload_rate=described.upload_rate(store),
        verify=backup.spec.verification == "Checksum",  # Contents needs a Job that has the identity
        contents=contents,
        files=volumes_to_read(seen),
    )


def _plan(seen: BackupSeen, course: Course, job: JobSeen | None, now: datetime) -> Plan:
    verdict = _named(seen, course)
    status = _status(seen, verdict, course, job, now)
    odd = _unusual(seen, status) if isinstance(verdict, Done) else []
    generation = seen.backup.metadata.generation
    status["conditions"] += [stamped(fact, seen.status, generation, now) for fact in as_condition(odd)]
    warnings = (Announce("Warning", fact.reason, fact.message) for fact in odd)
    return Plan(
        actions=(*_hold(seen, course), *course.actions, *_tell(seen, verdict, status), *warnings),
        status=status,
        retry_in=verdict.retry_in,
        wait_for=verdict.wait_for,
    )


def _unusual(seen: BackupSeen, status: Mapping[str, Any]) -> list[Fact]:
    """Return what is unusual about a backup that was just recorded, compared with the tenant's others."""
    started, completed = parse(status.get("startedAt")), parse(status["completedAt"])
    found = Figures(
        rows=status.get("contents", {}).get("rows"),
        logical=status.get("bytes", {}).get("logical"),
        seconds=(completed - started).total_seconds() if started and completed else 0.0,
    )
    return unusual(found, seen.backup.spec.mode, seen.comparable)


def _named(seen: BackupSeen, course: Course) -> Verdict:
    if not isinstance(course.verdict, Done) or course.facts is None:
        return course.verdict
    if not {"backupId", "checksum"} <= course.facts.facts.keys():
        message = "the upload ended well without naming what it committed; report this"
        return Failed(Reason.INTERNAL_ERROR, message)
    facts = course.facts.facts
    damage = facts.get("verification", {}).get("message", "") if facts.get("health") == "Corrupt" else ""
    return committed(seen, facts, damage)


def _hold(seen: BackupSeen, course: Course) -> tuple[Action, ...]:
    # Before the Job exists nothing can be in the store; from then on the finalizer stands for what is.
    wanted = seen.backup.spec.deletion_policy == "Delete" and FINALIZER not in seen.backup.metadata.finalizers
    starts = any(isinstance(action, Run) for action in course.actions)
    return (HoldData(),) if wanted and starts else ()


def _tell(seen: BackupSeen, verdict: Verdict, status: dict[str, Any]) -> tuple[Action, ...]:
    if not isinstance(verdict, Done | Failed):
        return ()
    record = {"reason": str(verdict.reason)} | {key: status[key] for key in _AUDITED if key in status}
    if isinstance(verdict, Failed):
        failed = Announce("Warning", verdict.reason, verdict.message)
        return (failed, audited("backup", seen.backup, **record))
    # That a schedule works is in status and metrics: a thousand Events a night of it would hide the others.
    somebody_waits = LABEL_SCHEDULE not in seen.backup.metadata.labels
    good = (Announce("Normal", Reason.BACKUP_SUCCEEDED, verdict.message),) if somebody_waits else ()
    if status["health"] != "Corrupt":
        return (*good, audited("backup", seen.backup, **record))
    bad = Announce("Warning", Reason.VERIFICATION_FAILED, status["verification"]["message"])
    return (*good, bad, audited("backup", seen.backup, **record, health="Corrupt"))


def _status(
    seen: BackupSeen, verdict: Verdict, course: Course, job: JobSeen | None, now: datetime
) -> dict[str, Any]:
    metadata = seen.backup.metadata
    status = dict(seen.status)
    status |= requested_by(metadata.annotations, trusted=seen.platform.trusts_requested_by)
    status |= run_fields(status, course, job, now)
    told = told_to(course, job)
    if isinstance(told, contract.Backup):
        # Deletion needs the name even when the Tenant, and with it the slug, is gone by then.
        status.setdefault("backupId", told.backup_id)
    if isinstance(verdict, Done) and course.facts:
        status |= _result(seen, course.facts, now)
    status.pop("queue", None)
    if seen.place and verdict.reason is Reason.QUEUED:
        status["queue"] = queue_status(seen.place)
    if isinstance(verdict, Done | Failed):
        status |= ending(status, now)
        status.pop("progress", None)
    status["state"] = _state(verdict, status)
    status["observedGeneration"] = metadata.generation
    status["conditions"] = conditions("Succeeded", verdict, seen.status, metadata.generation, now)
    return status


def run_fields(status: dict[str, Any], course: Course, job: JobSeen | None, now: datetime) -> dict[str, Any]:
    """Return the status fields that follow from a Job: when it started, its name, tries, progress."""
    created = next((action for action in course.actions if isinstance(action, Run)), None)
    if job is None and created is None:
        return {}
    began = job.created if job else now
    fields: dict[str, Any] = {"startedAt": status.get("startedAt") or rfc3339(began)}
    fields["jobRef"] = {"name": job.name if job else created.name}  # type: ignore[union-attr]
    fields["attempts"] = max(status.get("attempts", 1), job.pods if job else 1, job.ended if job else 1)
    if job is not None and job.progress:
        fields["progress"] = dict(job.progress)
    return fields


def told_to(course: Course, job: JobSeen | None) -> contract.Job | None:
    """Return what the Job was told; or is told, if it is being created."""
    # A previous pass may have created it and died before it could write this into status.
    created = next((action.job for action in course.actions if isinstance(action, Run)), None)
    return created or (job.told if job else None)


def ending(status: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return completedAt and duration of what ends now."""
    started = parse(status.get("startedAt"))
    fields = {"completedAt": rfc3339(now)}
    return fields | ({"duration": duration((now - started).total_seconds())} if started else {})


def _result(seen: BackupSeen, ended: Ended, now: datetime) -> dict[str, Any]:
    facts = dict(ended.facts)
    taken = ("backupId", "location", "checksum", "encryption", "consistency", "bytes", "dataAt")
    fields = {key: facts[key] for key in taken if facts.get(key) is not None}
    fields["contents"] = _counted(facts)
    if seen.backup.spec.modules:
        fields["contents"]["modules"] = list(seen.backup.spec.modules)
    sizes = facts.get("bytes", {})
    fields |= {
        name: size(sizes[key]) for name, key in (("size", "stored"), ("added", "added")) if key in sizes
    }
    fields["health"] = facts.get("health", "Unknown")
    if fields["health"] == "Healthy":
        moments = {"completedAt": rfc3339(now), "healthyAt": rfc3339(now)}
        fields["verification"] = {**facts["verification"], **moments}
    elif fields["health"] == "Corrupt":
        # Not completed: a Job that has the index key follows and says which tables are hit.
        fields["verification"] = facts["verification"]
    fields["health"] = weighed(fields["health"], fields["contents"])
    return fields


def _counted(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is in the backup, in numbers."""
    files = facts.get("files", {})
    of_files = {"files": "count", "changedFiles": "changed", "skippedFiles": "skipped"}
    counted = {key: facts[key] for key in ("tables", "rows") if facts.get(key) is not None}
    return counted | {key: files[name] for key, name in of_files.items() if files.get(name)}


def _state(verdict: Verdict, status: dict[str, Any]) -> str:
    if isinstance(verdict, Done):
        return "Succeeded"
    if isinstance(verdict, Failed):
        return "Failed"
    if verdict.reason is Reason.QUEUED:
        return "Queued"
    running = isinstance(verdict, Waiting | Stalled) and "startedAt" in status
    return "Running" if running else "Pending"
