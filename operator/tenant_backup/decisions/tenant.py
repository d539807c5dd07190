"""Tenant: its keys are made once; a preflight Job looks at what it has, for each new spec and once a day."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tenant_backup.api import Tenant
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from . import described
from .aspects import Aspect, together, with_fields
from .capacity import within_limits
from .conditions import condition_of, conditions, stamped
from .estimate import estimate
from .instants import parse, rfc3339
from .names import job_name, key_secret
from .objectives import objectives
from .observed import Ended, TenantSeen
from .offboarding import decide_offboarding, holding, unpruned
from .plan import Action, Announce, MakeKeys, Plan, Run, Subject
from .runs import Course, Pauses, again_after_failure, of_purpose, outdated, recorded
from .slots import offset
from .summaries import BackupSummary
from .verdicts import Done, Failed, Stalled, Verdict, Waiting

PAUSES = Pauses(20.0, 600.0)  # seconds between preflights of a tenant that is not ready
PREFLIGHT_DEADLINE = 300  # seconds
_DAY = timedelta(days=1)
_LATE = timedelta(
    hours=2
)  # a look that is later waits for tomorrow: after a day of rest not all come at once

# Each says one thing about a Tenant beside whether it is Ready.
_ASPECTS: tuple[Callable[[TenantSeen, datetime], Aspect], ...] = (objectives, within_limits, unpruned)

_KEYS_GONE_RETRY = 60.0  # seconds; nobody tells us when the Secret is back

_MADE = "made the keys of the tenant, with which its backups are signed and its lists encrypted"
_KEEP_SHEET = (
    "the sheet that `tenant-backup recovery-sheet` prints, which says whose signature to trust when the"
    " cluster is lost"
)
_FIRST_BACKUP = (
    "the first backup is stored; keep two things outside the cluster: the identity of one of its recipients,"
    f" the file age-keygen made, without which nobody can restore, and {_KEEP_SHEET}"
)
_FIRST_READABLE_BACKUP = (
    "the first backup is stored and not encrypted: whoever can read the store can read its rows; keep"
    f" outside the cluster {_KEEP_SHEET}"
)
_NOT_ENCRYPTED = "; its backups are not encrypted (spec.encryption.mode is None)"


def decide(seen: TenantSeen, now: datetime) -> Plan:
    """Return what to do about a Tenant."""
    if seen.tenant.metadata.deletion_timestamp:
        return decide_offboarding(seen, now)
    course = _course(seen, now)
    verdict = _lasting(seen, course.verdict)
    stale = outdated(seen.jobs, "preflight", seen.tenant.metadata.generation)
    said = together(aspect(seen, now) for aspect in _ASPECTS)
    times = [time for time in (verdict.retry_in, said.retry_in) if time is not None]
    return Plan(
        # Told first: what is refused after it keeps nobody from hearing it.
        actions=(
            *said.actions,
            *holding(seen.tenant),
            *_keys(seen),
            *_first_backup(seen),
            *stale,
            *course.actions,
        ),
        status=_status(seen, verdict, course.facts, said, now),
        retry_in=min(times, default=None),
    )


def _keys(seen: TenantSeen) -> tuple[Action, ...]:
    told = Announce("Normal", Reason.KEYS_CREATED, _MADE)
    if seen.recovered:
        return ()  # its backups go on under the signature they had
    # Lost means that we died after the status patch and before the Secret was there: nothing was ever
    # signed with those keys, so new ones take their place. Keys that are Gone have backups, and stay.
    if seen.keys in ("Absent", "Lost"):
        return (MakeKeys(seen.tenant.metadata.name), told)
    # The Secret is there, but a previous pass died before it could say so.
    return () if seen.status.get("keysReady") else (told,)


def _first_backup(seen: TenantSeen) -> tuple[Action, ...]:
    """From now on there is something to lose."""
    if _newest(seen, lambda one: one.completed) is None or "lastBackup" in seen.status:
        return ()
    readable = seen.tenant.spec.encryption.mode == "None"
    return (Announce("Normal", Reason.FIRST_BACKUP, _FIRST_READABLE_BACKUP if readable else _FIRST_BACKUP),)


def _course(seen: TenantSeen, now: datetime) -> Course:
    for check in _CHECKS:
        verdict = check(seen)
        if verdict is not None:
            return Course(verdict, recorded(seen.jobs))
    found = _found_ready(seen)
    due = _due(seen, now)
    if found and (due is None or now < due):
        left = (due - now).total_seconds() if due else None
        return Course(replace(found, retry_in=left), recorded(seen.jobs))
    jobs = of_purpose(seen.jobs, "preflight", seen.tenant.metadata.generation)
    ready = condition_of(seen.status, "Ready")
    course = again_after_failure(jobs, lambda attempt: _preflight(seen, attempt), now, PAUSES, ready)
    if found and isinstance(course.verdict, Waiting):
        # Until the new look has ended, the tenant is what the last one found.
        return replace(course, verdict=replace(found, retry_in=course.verdict.retry_in))
    return course


def nobody_could_read_the_backups(seen: TenantSeen) -> Verdict | None:
    """Without recipients nothing can be encrypted."""
    if readable_by_somebody(seen.tenant):
        return None
    return Stalled(Reason.KEY_MISSING, how_to_make_a_key(seen.tenant.metadata.name))


def its_keys_were_deleted(seen: TenantSeen) -> Verdict | None:
    """New keys would make every backup that is there look forged: a person must decide."""
    if seen.keys != "Gone":
        return None
    message = (
        f"Secret {seen.status['keySecret']} with the keys of the tenant was deleted; bring it back with"
        " `tenant-backup recover-keys` and the identity, or from a copy. No new keys are made while status"
        " names a signingKey: backups that are there would look forged"
    )
    return Stalled(Reason.KEY_MISSING, message, _KEYS_GONE_RETRY)


_CHECKS: tuple[Callable[[TenantSeen], Verdict | None], ...] = (
    nobody_could_read_the_backups,
    its_keys_were_deleted,
)


def _found_ready(seen: TenantSeen) -> Done | None:
    """Return what a preflight of this generation said, if it succeeded and is recorded."""
    ready = condition_of(seen.status, "Ready")
    current = ready.get("observedGeneration") == seen.tenant.metadata.generation
    return Done(Reason.READY, str(ready["message"])) if current and ready.get("status") == "True" else None


def _due(seen: TenantSeen, now: datetime) -> datetime | None:
    """Return when it is looked at again: once a day, at a time of its own."""
    looked, metadata = parse(seen.status.get("lookedAt")), seen.tenant.metadata
    if looked is None:
        return None
    own = now.replace(hour=0, minute=0, second=0, microsecond=0) + offset(
        metadata.namespace, metadata.name, _DAY
    )
    times = (own + days * _DAY for days in (-1, 0, 1, 2))
    return next(time for time in times if time >= looked + _DAY / 2 and now < time + _LATE)


def readable_by_somebody(tenant: Tenant) -> bool:
    """Whether a backup of this tenant could be read: by its recipients, or with mode None by anybody."""
    return bool(tenant.spec.encryption.recipients) or tenant.spec.encryption.mode == "None"


def how_to_make_a_key(tenant: str) -> str:
    """Return the sentence that tells how to get recipients."""
    return (
        "spec.encryption.recipients is empty, so nobody could read a backup: run"
        " `age-keygen -o identity.txt`, keep that file safe outside the cluster, and put its public key"
        " (age1…) into spec.encryption.recipients; for restores run"
        f" `kubectl create secret generic {tenant}-identity --from-file=identity=identity.txt`"
        " and name it in spec.encryption.identitySecretRef"
    )


def _preflight(seen: TenantSeen, attempt: int) -> Run:
    tenant, metadata = seen.tenant, seen.tenant.metadata
    job = contract.Preflight(
        tenant=described.tenant(tenant, seen.platform.cluster_id),
        database=described.database(tenant),
        exclude_columns=described.excluded_columns(tenant),
        exclude_tables=list(tenant.spec.exclusions.tables),
        modules=described.modules(tenant),
        files=described.volumes(tenant),
    )
    return Run(
        name=job_name(metadata.name, metadata.uid, "preflight", metadata.generation, attempt),
        purpose="preflight",
        job=job,
        subject=Subject.of(tenant),
        tenant=metadata.name,
        secrets=described.database_secrets(tenant),
        deadline=PREFLIGHT_DEADLINE,
        retries=0,
        generation=metadata.generation,
        attempt=attempt,
        node=seen.node,
    )


def _lasting(seen: TenantSeen, verdict: Verdict) -> Verdict:
    """A failed preflight is not the end: it stalls until the next one."""
    if isinstance(verdict, Failed):
        return Stalled(verdict.reason, verdict.message, verdict.retry_in)
    if isinstance(verdict, Done) and verdict.reason is Reason.SUCCEEDED:
        found = "; ".join(_good_news(seen.tenant))
        readable = seen.tenant.spec.encryption.mode == "None"
        return Done(Reason.READY, found + _NOT_ENCRYPTED if readable else found)
    if isinstance(verdict, Waiting) and verdict.reason is Reason.RUNNING:
        return Waiting(Reason.RUNNING, "looking at what there is to back up", verdict.retry_in)
    return verdict


def _good_news(tenant: Tenant) -> Iterator[str]:
    if tenant.spec.database:
        yield "the database is reachable and everything named in the spec is readable"
    if tenant.spec.files:
        yield "its files can be read"


def _status(
    seen: TenantSeen, verdict: Verdict, facts: Ended | None, said: Aspect, now: datetime
) -> dict[str, Any]:
    generation = seen.tenant.metadata.generation
    status = dict(seen.status)
    if seen.recovered:
        secret = key_secret(seen.tenant.metadata.name, seen.recovered)
        status |= {"signingKey": seen.recovered, "keySecret": secret}
    if seen.keys == "Present" or seen.recovered:
        status["keysReady"] = True
    if facts is not None:
        status |= {**_found(facts.facts), "lookedAt": rfc3339(now)}
    status["estimate"] = estimate(seen, status)
    status["backups"] = sum(one.state == "Succeeded" and not one.removing for one in seen.backups)
    status["lastBackup"] = _moment(_newest(seen, lambda one: one.completed), "completedAt")
    status["lastVerified"] = _moment(_newest(seen, lambda one: one.verified), "verifiedAt")
    if seen.last_restore:
        status["lastRestore"] = {"name": seen.last_restore[0], "completedAt": seen.last_restore[1]}
    status["observedGeneration"] = generation
    status["conditions"] = [
        *conditions("Ready", verdict, seen.status, generation, now),
        *(stamped(fact, seen.status, generation, now) for fact in said.facts),
    ]
    return with_fields(status, said.fields)


def _found(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a preflight's facts mean for status; what there is none of is not shown."""
    found, volumes = facts.get("database", {}), facts.get("volumes", {})
    lists = {key: found.get(key) for key in ("unclaimedTables", "leavingForeignKeys")}
    return {
        "database": {key: found[key] for key in ("version", "sizeBytes", "tables") if key in found} or None,
        "files": [{"name": name, **seen} for name, seen in sorted(volumes.items())] or None,
        **{key: value if value and value["count"] else None for key, value in lists.items()},
    }


def _newest(
    seen: TenantSeen, when: Callable[[BackupSummary], datetime | None]
) -> tuple[datetime, str] | None:
    """Return the moment and the name of the newest good backup that has one."""
    found = [(moment, one.name) for one in seen.backups if one.good and (moment := when(one))]
    return max(found, default=None)


def _moment(newest: tuple[datetime, str] | None, field: str) -> dict[str, Any] | None:
    return {"name": newest[1], field: rfc3339(newest[0])} if newest else None
