"""TenantBackups that stand for what is in a store already: no Job of theirs ever reads a database.

`spec.imported` says so from the first moment, so dying after the object was created and before its status
was written makes no new backup of the live database: an `inspect` Job then reads what the status needs. What
it finds has to be of the tenant that the object names, so writing such an object by hand gains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.api import BackupStore
from tenant_backup.api.references import LABEL_TENANT
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .audits import audited
from .checks import store_is_there
from .conditions import condition_of, conditions
from .instants import duration, parse, rfc3339, size
from .names import digest, job_name, shortened
from .observed import BackupSeen
from .plan import Announce, Audit, ImportBackup, Judge, Plan, Run, Subject
from .runs import Course, Pauses, again_after_failure, of_purpose, recorded
from .verdicts import Done, Failed, Verdict, Waiting

WRITTEN_WITHIN = timedelta(seconds=15)  # the listing that created it writes its status
INSPECT_DEADLINE = 300  # seconds
PAUSES = Pauses(20.0, 600.0)  # seconds between tries
Status = Mapping[str, Any]


def name_of(store: str, backup_id: str) -> str:
    """Return the name of the TenantBackup that stands for a backup in a store."""
    return shortened(backup_id.replace("_", "-"), digest(store, backup_id))


def import_of(store: BackupStore, tenant: str, found: Status, now: datetime) -> ImportBackup:
    """Return what makes an object of `found`, which `stages.catalogue.described` returned."""
    name, backup_id = store.metadata.name, str(found["id"])
    spec: dict[str, Any] = {
        "tenantRef": {"name": tenant},
        "storeRef": {"name": name},
        "imported": {"backupId": backup_id},
        # Nobody waits for ten thousand verifications, and deleting an object must not delete the last copy.
        "verification": "None",
        "deletionPolicy": "Retain",
    }
    if found.get("modules"):
        spec["modules"] = found["modules"]
    if found["contents"] != "All":
        spec["contents"] = found["contents"]
    labels = {LABEL_TENANT: shortened(tenant)}
    return ImportBackup(name_of(name, backup_id), labels, spec, status_of(found, name, 1, now))


def status_of(found: Status, store: str, generation: int, now: datetime) -> dict[str, Any]:
    """Return the status of an imported backup."""
    began, ended = parse(found["started"]), parse(found["completed"])
    assert began
    assert ended
    verdict = Done(Reason.SUCCEEDED, f"{found['id']} was found in BackupStore {store}; {_CHECKED_LATER}")
    return {
        "state": "Succeeded",
        "health": "Unknown",
        "backupId": found["id"],
        "location": found["location"][:1024],
        "checksum": f"sha256:{found['sha256']}",
        "encryption": found["encryption"],
        "consistency": found["consistency"],
        "bytes": dict(found["bytes"]),
        "size": size(found["bytes"]["stored"]),
        "added": size(found["bytes"]["added"]),
        "contents": {
            "tables": found["tables"],
            "rows": found["rows"],
            **{key: found[key] for key in _IF_THERE if found.get(key)},
        },
        "dataAt": {key: rfc3339(at) for key, text in found["dataAt"].items() if (at := parse(text))},
        "startedAt": rfc3339(began),
        "completedAt": rfc3339(ended),
        "duration": duration((ended - began).total_seconds()),
        "observedGeneration": generation,
        "conditions": conditions("Succeeded", verdict, {}, generation, now),
    }


_IF_THERE = ("files", "changedFiles", "skippedFiles", "modules")
_CHECKED_LATER = "its signature is checked when it is verified or restored"


def decide_imported(seen: BackupSeen, now: datetime) -> Plan:
    """Return what to do about an imported backup whose status is not written yet."""
    metadata = seen.backup.metadata
    assert metadata.creation_timestamp
    left = (metadata.creation_timestamp + WRITTEN_WITHIN - now).total_seconds()
    if left > 0:
        return Plan(retry_in=left)
    jobs = of_purpose(seen.jobs, "inspect")
    missing = store_is_there(seen.store, metadata.namespace, seen.backup.spec.store_ref.name)
    if missing is not None and not jobs:
        return _plan(seen, Course(missing), missing, now)
    known = condition_of(seen.status, "Succeeded")
    course = again_after_failure(jobs, lambda attempt: _run(seen, attempt), now, PAUSES, known)
    if isinstance(course.verdict, Done) and course.facts:
        return _found(seen, course, course.facts.facts, now)
    return _plan(seen, course, _lasting(course.verdict), now)


def _lasting(verdict: Verdict) -> Verdict:
    """A store that is away may come back; a backup that is not there, or is another's, is not tried again."""
    final = (
        Reason.BACKUP_NOT_FOUND,
        Reason.CROSS_TENANT_ACCESS,
        Reason.CHECKSUM_MISMATCH,
        Reason.UNSUPPORTED_CONTENT,
        Reason.INVALID_SPEC,
    )
    if isinstance(verdict, Failed) and verdict.reason in final:
        return Failed(verdict.reason, verdict.message)
    if isinstance(verdict, Failed):
        return Waiting(verdict.reason, verdict.message, verdict.retry_in, verdict.wait_for, retrying=True)
    return verdict


def _run(seen: BackupSeen, attempt: int) -> Run:
    store, backup = seen.store, seen.backup
    assert store
    assert backup.spec.imported
    backup_id, tenant = backup.spec.imported.backup_id, backup.spec.tenant_ref.name
    slug = backup_id.partition("_")[0]
    return Run(
        name=job_name(backup.metadata.name, backup.metadata.uid, "inspect", attempt=attempt),
        purpose="inspect",
        job=contract.Inspect(
            uid=backup.metadata.uid,
            backup_id=backup_id,
            tenant=contract.Tenant(seen.platform.cluster_id, backup.metadata.namespace, tenant, slug),
            store=described.store(store),
            modules=sorted(backup.spec.modules),
            contents=backup.spec.contents,
        ),
        subject=Subject.of(backup),
        tenant=tenant,
        secrets=described.store_secrets(store),
        claim=described.claim(store),
        deadline=INSPECT_DEADLINE,
        attempt=attempt,
    )


def _found(seen: BackupSeen, course: Course, facts: Status, now: datetime) -> Plan:
    backup = seen.backup
    found = {**facts, "modules": list(backup.spec.modules)}  # compared by the Job
    status = status_of(found, backup.spec.store_ref.name, backup.metadata.generation, now)
    return Plan((_audit(seen, Reason.SUCCEEDED), *course.actions, *recorded(seen.jobs)), status)


def _plan(seen: BackupSeen, course: Course, verdict: Verdict, now: datetime) -> Plan:
    metadata = seen.backup.metadata
    failed = isinstance(verdict, Failed)
    status = {
        **seen.status,
        "state": "Failed" if failed else "Pending",
        "observedGeneration": metadata.generation,
        "conditions": conditions("Succeeded", verdict, seen.status, metadata.generation, now),
    }
    if not failed:
        return Plan(course.actions, status, verdict.retry_in, verdict.wait_for)
    status["completedAt"] = rfc3339(now)
    told = Announce("Warning", verdict.reason, verdict.message)
    # Another try is among the actions of a course that would go on.
    ended = tuple(action for action in course.actions if not isinstance(action, Run))
    return Plan((told, _audit(seen, verdict.reason), *ended, *recorded(seen.jobs)), status)


def _audit(seen: BackupSeen, reason: Reason) -> Audit:
    imported = seen.backup.spec.imported
    return audited("import", seen.backup, backupId=imported.backup_id if imported else "", reason=str(reason))


def judged(status: Status, judge: Judge) -> dict[str, Any] | None:
    """Return what `judge` changes in a TenantBackup's status as it is now; None when it is so already."""
    known = condition_of(status, "Succeeded")
    if status.get("state") != "Succeeded" or judge.gone == (known.get("reason") == Reason.BACKUP_NOT_FOUND):
        return None
    backup_id = status.get("backupId", "")
    if judge.gone:
        reason, message = Reason.BACKUP_NOT_FOUND, gone_message(backup_id, judge.store)
    else:
        reason, message = Reason.SUCCEEDED, f"{backup_id} is in BackupStore {judge.store} again; verify it"
    others = [item for item in status.get("conditions", ()) if item["type"] != "Succeeded"]
    return {
        "health": "Corrupt" if judge.gone else "Unknown",
        "verification": {"message": message},
        "conditions": [{**known, "reason": str(reason), "message": message}, *others],
    }


def gone_message(backup_id: str, store: str) -> str:
    """Return the sentence about data that vanished."""
    return (
        f"{backup_id} is not in BackupStore {store} any more; bring its objects back from a copy, or correct"
        " the BackupStore if it names another place, or delete this TenantBackup"
    )
