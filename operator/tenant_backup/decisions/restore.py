"""TenantRestore: checks first, then one Job; what a Replace replaced is kept, then dropped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.api.values import duration_seconds
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .approval import replacing_is_approved
from .backup import ending, run_fields, told_to
from .checks import UNTIL_THERE, requested_by, store_is_there, tenant_is_there
from .conditions import condition_of, conditions
from .instants import parse, rfc3339
from .names import job_name
from .observed import Ended, JobSeen, RestoreSeen
from .plan import Action, Announce, Audit, Plan, Run, Secrets, Subject
from .previous import decide_previous
from .restored import restores_database, selected, volumes
from .runs import Course, follow, newest, of_purpose, start
from .verdicts import Done, Failed, Ref, Stalled, Verdict, Waiting

_AUDITED = (
    "state",
    "resolvedBackup",
    "previousDatabase",
    "previousFiles",
    "startedAt",
    "completedAt",
    "requestedBy",
)


def decide(seen: RestoreSeen, now: datetime) -> Plan:
    """Return what to do about a TenantRestore."""
    if seen.restore.metadata.deletion_timestamp:
        return Plan()  # nothing is held: the previous database stays, whoever deletes the object
    if seen.status.get("state") in ("Succeeded", "Failed", "Undone"):
        return decide_previous(seen, now)
    job, started = newest(of_purpose(seen.jobs, "restore")), parse(seen.status.get("startedAt"))
    if job is not None:
        # Checks hold the start back, never a Job that runs: it was told everything it needs.
        known = condition_of(seen.status, "Succeeded")
        deadline = duration_seconds(seen.restore.spec.deadline)
        return _plan(seen, follow(job, deadline, started, now, known), job, now)
    for check in _checks(seen):
        verdict = check(seen, now)
        if verdict is not None:
            return _plan(seen, Course(verdict), None, now)
    return _plan(seen, start(_run(seen), started, now), None, now)


def the_backup_is_there(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """Wait for it: the order in which objects are applied does not matter."""
    if seen.backup is not None:
        return None
    namespace, name = seen.restore.metadata.namespace, seen.restore.spec.source.backup_ref.name
    message = f"TenantBackup {name} does not exist in namespace {namespace}; name one that does"
    return Stalled(Reason.BACKUP_NOT_FOUND, message, UNTIL_THERE, (Ref("TenantBackup", namespace, name),))


def the_backup_is_of_the_same_tenant(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """One tenant's data never reaches another's database."""
    assert seen.backup
    source, target = seen.backup.spec.tenant_ref.name, seen.restore.spec.target.tenant_ref.name
    if source == target:
        return None
    message = f"the backup is of Tenant {source} and cannot be restored into Tenant {target}"
    return Failed(Reason.CROSS_TENANT_ACCESS, message)


def the_backup_is_good(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """Only a committed backup that no verification found damaged."""
    assert seen.backup
    name, state = seen.backup.metadata.name, seen.backup_status.get("state")
    if state == "Expired":
        message = f"TenantBackup {name} has expired and its data is deleted; name one that has not"
        return Failed(Reason.BACKUP_NOT_FOUND, message)
    if state == "Failed":
        return Failed(Reason.BACKUP_NOT_FOUND, f"TenantBackup {name} has failed; name one that succeeded")
    if seen.backup_status.get("health") == "Corrupt":
        return Failed(Reason.CHECKSUM_MISMATCH, f"TenantBackup {name} is corrupt; name another one")
    if state != "Succeeded":
        ref = Ref("TenantBackup", seen.restore.metadata.namespace, name)
        return Waiting(Reason.PENDING, f"TenantBackup {name} is not complete yet", UNTIL_THERE, (ref,))
    return None


def the_backup_is_still_the_one_that_was_resolved(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """A backup deleted and created again under the same name is another one."""
    resolved = seen.status.get("resolvedBackup")
    if not resolved or resolved.get("checksum") == seen.backup_status.get("checksum"):
        return None
    message = (
        f"TenantBackup {resolved['name']} is not the one this restore began with; create a new TenantRestore"
    )
    return Failed(Reason.BACKUP_NOT_FOUND, message)


def everything_is_in_the_backup(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """Replacing anything by a part of it would lose the rest."""
    assert seen.backup
    if seen.restore.spec.strategy != "Replace" or not seen.backup.spec.modules:
        return None
    name, modules = seen.backup.metadata.name, ", ".join(seen.backup.spec.modules)
    message = f"TenantBackup {name} has only what is of {modules} and cannot replace all; use NewDatabase"
    return Failed(Reason.PARTIAL_BACKUP, message)


def everything_wished_for_is_in_it(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """A backup of files alone has no database, one of the database alone has no files."""
    assert seen.backup
    contents, name = seen.backup.spec.contents, seen.backup.metadata.name
    if contents == "Files" and restores_database(seen):
        message = f"TenantBackup {name} has files only; name them in target.files, without target.database"
        return Failed(Reason.PARTIAL_BACKUP, message)
    if contents == "Database" and seen.restore.spec.target.files:
        message = (
            f"TenantBackup {name} has the database only; name a backup with files, or remove target.files"
        )
        return Failed(Reason.PARTIAL_BACKUP, message)
    return None


def the_tenant_has_what_is_restored(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """It says on which server a database is made, and as whom files are written."""
    assert seen.tenant
    spec, name = seen.tenant.spec, seen.tenant.metadata.name
    if restores_database(seen) and spec.database is None:
        message = (
            f"Tenant {name} has no spec.database, so there is no server to restore a database on: add it"
        )
        return Stalled(Reason.INVALID_SPEC, message, None, (_tenant_ref(seen),))
    known = {files.name for files in spec.files}
    unknown = sorted({files.name for files in seen.restore.spec.target.files} - known)
    if not unknown:
        return None
    message = (
        f"Tenant {name} has no {', '.join(unknown)} in spec.files, whose securityContext says who writes;"
        f" it has: {', '.join(sorted(known)) or 'none'}"
    )
    return Stalled(Reason.INVALID_SPEC, message, None, (_tenant_ref(seen),))


def what_is_selected_is_of_the_target(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """A volume without a pattern would get nothing, and a pattern without its volume mean nothing."""
    if seen.restore.spec.select is None:
        return None
    targets = {files.name for files in seen.restore.spec.target.files}
    wrong = sorted(targets ^ selected(seen).keys())
    if not wrong:
        return None
    message = f"only one of select.files and target.files names {', '.join(wrong)}; name the same in both"
    return Failed(Reason.INVALID_SPEC, message)


def the_tenant_is_there(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """Whose server is it?"""
    return tenant_is_there(
        seen.tenant, seen.restore.metadata.namespace, seen.restore.spec.target.tenant_ref.name
    )


def the_store_is_there(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """Where is the backup?"""
    assert seen.backup
    return store_is_there(seen.store, seen.restore.metadata.namespace, seen.backup.spec.store_ref.name)


def the_tenant_says_who_may_create_databases(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """A restore creates a database beside the live one."""
    assert seen.tenant
    if described.admin_secret(seen.tenant) or not restores_database(seen):
        return None
    name = seen.tenant.metadata.name
    message = (
        f"Tenant {name} has no spec.database.adminCredentialsSecretRef; a restore needs a login that may"
        " create databases and roles: put its username and password into a Secret and name it there"
    )
    return Stalled(Reason.PERMISSION_DENIED, message, None, (_tenant_ref(seen),))


def the_target_is_what_the_strategy_is_for(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """NewDatabase replaces nothing, and Replace creates nothing."""
    assert seen.tenant
    wanted, files = seen.restore.spec.target.database, seen.restore.spec.target.files
    if seen.restore.spec.strategy == "Replace":
        live = described.database(seen.tenant).name
        if wanted in (None, live):
            return None
        message = f"Replace is for the Tenant's own database, {live}, and target.database is {wanted}"
        return Failed(Reason.INVALID_SPEC, f"{message}; name that one, or use strategy NewDatabase")
    if not wanted and not files:
        message = "strategy NewDatabase needs target.database, the database to create, or target.files"
        return Failed(Reason.INVALID_SPEC, message)
    if not wanted or wanted != described.database(seen.tenant).name:
        return None
    message = f"{wanted} is the live database of the Tenant; name another one, or use strategy Replace"
    return Failed(Reason.NAME_TAKEN, message)


def somebody_can_decrypt_it(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """The cluster does not keep identities unless it is given one."""
    assert seen.tenant
    if identity_secret(seen) or seen.backup_status.get("encryption") == "None":
        return None
    message = (
        "no identity is named: put the line AGE-SECRET-KEY-1… into a Secret under the key identity and name"
        f" it in spec.encryption.identitySecretRef of Tenant {seen.tenant.metadata.name}, or create a"
        " TenantRestore with spec.identitySecretRef"
    )
    return Stalled(Reason.KEY_MISSING, message, None, (_tenant_ref(seen),))


def the_signature_can_be_checked(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """The public key comes from the Tenant, never from the store."""
    assert seen.tenant
    if seen.tenant.status.signing_key and seen.tenant.status.key_secret:
        return None
    name = seen.tenant.metadata.name
    return Waiting(
        Reason.TENANT_NOT_READY, f"the keys of Tenant {name} are being made", 30.0, (_tenant_ref(seen),)
    )


def nobody_else_restores_there(seen: RestoreSeen, _now: datetime) -> Verdict | None:
    """One restore per target at a time."""
    if not seen.rival:
        return None
    message = f"TenantRestore {seen.rival} is running on the same target; this one goes next"
    ref = Ref("TenantRestore", seen.restore.metadata.namespace, seen.rival)
    return Waiting(Reason.PENDING, message, UNTIL_THERE, (ref,))


_Check = Callable[[RestoreSeen, datetime], Verdict | None]
_CHECKS: tuple[_Check, ...] = (
    the_backup_is_there,
    the_backup_is_of_the_same_tenant,
    the_backup_is_good,
    the_backup_is_still_the_one_that_was_resolved,
    everything_is_in_the_backup,
    everything_wished_for_is_in_it,
    the_tenant_is_there,
    the_tenant_has_what_is_restored,
    what_is_selected_is_of_the_target,
    the_store_is_there,
    the_target_is_what_the_strategy_is_for,
    the_tenant_says_who_may_create_databases,
    somebody_can_decrypt_it,
    the_signature_can_be_checked,
    replacing_is_approved,
    nobody_else_restores_there,
)


def _checks(seen: RestoreSeen) -> tuple[_Check, ...]:
    # Once started it was approved; a Job that vanished may start again after the approval ran out.
    if "startedAt" in seen.status:
        return tuple(check for check in _CHECKS if check is not replacing_is_approved)
    return _CHECKS


def identity_secret(seen: RestoreSeen) -> str:
    """Return the Secret with the identity: the restore's own, else the Tenant's, else nothing."""
    own = seen.restore.spec.identity_secret_ref
    tenants = seen.tenant.spec.encryption.identity_secret_ref if seen.tenant else None
    chosen = own or tenants
    return chosen.name if chosen else ""


def _tenant_ref(seen: RestoreSeen) -> Ref:
    return Ref("Tenant", seen.restore.metadata.namespace, seen.restore.spec.target.tenant_ref.name)


def _run(seen: RestoreSeen) -> Run:
    tenant, store, metadata = seen.tenant, seen.store, seen.restore.metadata
    assert tenant
    assert store
    return Run(
        name=job_name(metadata.name, metadata.uid, "restore"),
        purpose="restore",
        job=_job(seen),
        subject=Subject.of(seen.restore),
        tenant=tenant.metadata.name,
        secrets=_database_secrets(seen)
        | described.store_secrets(store)
        | described.key_secrets(tenant)
        | Secrets(identity=identity_secret(seen)),
        claim=described.claim(store),
        deadline=duration_seconds(seen.restore.spec.deadline),
    )


def _database_secrets(seen: RestoreSeen) -> Secrets:
    assert seen.tenant
    if not restores_database(seen):
        return Secrets()
    return described.database_secrets(seen.tenant) | Secrets(admin=described.admin_secret(seen.tenant))


def _job(seen: RestoreSeen) -> contract.Restore:
    tenant, store, restore = seen.tenant, seen.store, seen.restore
    assert tenant
    assert store
    who = described.tenant(tenant, seen.platform.cluster_id)
    database = described.database(tenant) if restores_database(seen) else contract.NO_DATABASE
    return contract.Restore(
        uid=restore.metadata.uid,
        name=restore.metadata.name,
        strategy=restore.spec.strategy,
        source=who,
        tenant=who,
        database=database,
        target_database=restore.spec.target.database or database.name,
        store=described.store(store),
        backup_id=str(seen.backup_status["backupId"]),
        manifest_sha256=str(seen.backup_status.get("checksum", "")).removeprefix("sha256:"),
        signing_key=tenant.status.signing_key or "",
        trusted_keys=described.trusted_keys(tenant),
        identity_secret=identity_secret(seen),
        exclude_columns=described.excluded_columns(tenant),
        deadline_seconds=duration_seconds(restore.spec.deadline),
        files=volumes(seen),
    )


def _plan(seen: RestoreSeen, course: Course, job: JobSeen | None, now: datetime) -> Plan:
    verdict = course.verdict
    if isinstance(verdict, Done):
        verdict = Done(Reason.SUCCEEDED, _good_news(seen))
    status = _status(seen, verdict, course, job, now)
    return Plan((*course.actions, *_tell(seen, verdict, status)), status, verdict.retry_in, verdict.wait_for)


def _good_news(seen: RestoreSeen) -> str:
    spec = seen.restore.spec
    filled = ", ".join(files.name for files in spec.target.files)
    holds = "those of its files that were selected" if spec.select else "its files"
    files = f"volume {filled} holds {holds}, which were counted" if filled else ""
    target = spec.target.database or "the tenant's database"
    rows = f"{target} holds the backup; rows were counted against its manifest"
    return "; ".join(([rows] if restores_database(seen) else []) + ([files] if files else []))


def _tell(seen: RestoreSeen, verdict: Verdict, status: dict[str, Any]) -> tuple[Action, ...]:
    if not isinstance(verdict, Done | Failed):
        return ()
    record: dict[str, Any] = {
        "event": "restore",
        "namespace": seen.restore.metadata.namespace,
        "name": seen.restore.metadata.name,
        "uid": seen.restore.metadata.uid,
        "tenant": seen.restore.spec.target.tenant_ref.name,
        "backup": seen.restore.spec.source.backup_ref.name,
        "strategy": seen.restore.spec.strategy,
        "reason": str(verdict.reason),
    }
    record |= {key: status[key] for key in _AUDITED if key in status}
    if isinstance(verdict, Done):
        return (Announce("Normal", Reason.RESTORE_SUCCEEDED, verdict.message), Audit(record))
    return (Announce("Warning", verdict.reason, verdict.message), Audit(record))


def _status(
    seen: RestoreSeen, verdict: Verdict, course: Course, job: JobSeen | None, now: datetime
) -> dict[str, Any]:
    metadata = seen.restore.metadata
    status = dict(seen.status)
    status |= requested_by(metadata.annotations, trusted=seen.platform.trusts_requested_by)
    status |= _resolved(seen, status, told_to(course, job))
    status |= run_fields(status, course, job, now)
    if isinstance(verdict, Done) and course.facts:
        status |= _result(seen, course.facts, now)
    if isinstance(verdict, Done | Failed):
        status |= ending(status, now)
        status.pop("progress", None)
    status["state"] = _state(verdict, status)
    status["observedGeneration"] = metadata.generation
    status["conditions"] = conditions("Succeeded", verdict, seen.status, metadata.generation, now)
    return status


def _resolved(seen: RestoreSeen, status: dict[str, Any], told: contract.Job | None) -> dict[str, Any]:
    if "resolvedBackup" in status or not isinstance(told, contract.Restore):
        return {}
    name, checksum = seen.restore.spec.source.backup_ref.name, f"sha256:{told.manifest_sha256}"
    return {"resolvedBackup": {"name": name, "backupId": told.backup_id, "checksum": checksum}}


def _result(seen: RestoreSeen, ended: Ended, now: datetime) -> dict[str, Any]:
    facts = ended.facts
    taken = ("restored", "check", "keepLive", "skipped", "previousDatabase")
    fields = {key: facts[key] for key in taken if facts.get(key)}
    if facts.get("placed"):
        fields |= _placed(facts["placed"], fields)
        if seen.restore.spec.strategy != "NewDatabase":
            fields["previousFiles"] = sorted(facts["placed"])
    if fields.get("previousDatabase") or fields.get("previousFiles"):
        kept = timedelta(seconds=duration_seconds(seen.restore.spec.keep_previous))
        fields["undoUntil"] = rfc3339(now + kept)
    return fields


def _placed(volumes: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return what changes in these fields because files came back, too."""
    restored = {"bytes": 0, **fields.get("restored", {})}
    # Whose message was lost has ended well, too.
    restored["files"] = sum(volume.get("files", 0) for volume in volumes.values())
    restored["bytes"] += sum(volume.get("bytes", 0) for volume in volumes.values())
    told = [f"{name}: {text}" for name, volume in volumes.items() for text in volume.get("skipped", ())]
    skipped = [*fields.get("skipped", ()), *told]
    return {"restored": restored} | ({"skipped": skipped} if skipped else {})


def _state(verdict: Verdict, status: dict[str, Any]) -> str:
    if isinstance(verdict, Done):
        return "Succeeded"
    if isinstance(verdict, Failed):
        return "Failed"
    if verdict.reason is Reason.APPROVAL_PENDING:
        return "ApprovalPending"
    return "Running" if "startedAt" in status else "Pending"
