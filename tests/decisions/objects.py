"""Objects as users write them, and looks at the cluster, for the tables of these tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tenant_backup.api import BackupSchedule, BackupStore, Tenant, TenantBackup, TenantRestore
from tenant_backup.decisions.instants import rfc3339
from tenant_backup.decisions.names import scheduled_backup, slot_label
from tenant_backup.decisions.observed import (
    BackupSeen,
    Ended,
    JobSeen,
    Platform,
    RestoreSeen,
    ScheduleSeen,
    StoreSeen,
    TenantSeen,
)
from tenant_backup.decisions.summaries import BackupSummary, TenantSummary, of_backup, of_tenant

NOW = datetime(2024, 1, 15, 14, 30, 25, tzinfo=UTC)
CREATED = "2024-01-15T14:30:20Z"
PLATFORM = Platform("11111111-2222-3333-4444-555555555555")
RECIPIENT = "age1" + "q" * 58
FACTS = {
    "backupId": "acme_2024-01-15_14-30-20",
    "checksum": "sha256:" + "a" * 64,
    "location": "s3://b/prod/acme/manifests/acme_2024-01-15_14-30-20",
    "encryption": "Age",
    "bytes": {"logical": 1000, "stored": 2048, "added": 512},
    "tables": 3,
    "rows": 12,
    "consistency": "Snapshot",
    "health": "Healthy",
    "verification": {"level": "Checksum", "message": ""},
}
VERIFIED = {
    "level": "Checksum",
    "message": "",
    "completedAt": "2024-01-15T14:30:24Z",
    "healthyAt": "2024-01-15T14:30:24Z",
}


def at(seconds: float) -> datetime:
    """The moment that many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def document(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """An object as the API server sends it."""
    known = {
        "name": name,
        "namespace": "backups",
        "uid": f"uid-{name}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": CREATED,
    }
    version = "tenantbackup.dev/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": known | metadata, "spec": spec, "status": {}}


def tenant(
    *,
    keys: bool = True,
    encryption: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
    **database: Any,
) -> Tenant:
    """Tenant acme, with keys and an identity, unless told otherwise; `more` is of its spec."""
    spec = {
        "database": {
            "engine": "PostgreSQL",
            "host": "pg",
            "name": "app",
            "credentialsSecretRef": {"name": "acme-db"},
            "adminCredentialsSecretRef": {"name": "pg-admin"},
            **database,
        },
        "modules": [{"name": "hr", "tables": ["public.employee"]}],
        "exclusions": {"columns": [{"table": "public.users", "column": "password", "onRestore": "Null"}]},
        "encryption": {"recipients": [RECIPIENT], "identitySecretRef": {"name": "acme-id"}}
        if encryption is None
        else encryption,
        **(more or {}),
    }
    found = document("Tenant", "acme", spec)
    if keys:
        found["status"] = {"signingKey": "ab" * 32, "keySecret": "acme-keys-0123456789", "keysReady": True}
    return Tenant.model_validate(found)


def tenant_seen(found: Tenant | None = None, **fields: Any) -> TenantSeen:
    """One look at it."""
    known: dict[str, Any] = {
        "keys": "Present",
        "status": {"keysReady": True},
        "jobs": (),
        "platform": PLATFORM,
    }
    return TenantSeen(tenant=found or tenant(), **(known | fields))


def store(*, volume: bool = False, **metadata: Any) -> BackupStore:
    """BackupStore prod: a bucket, or a volume."""
    s3 = {
        "bucket": "backups",
        "prefix": "prod/",
        "endpoint": "https://s3:7070",
        "region": "x",
        "credentialsSecretRef": {"name": "s3"},
        "caSecretRef": {"name": "s3-ca"},
    }
    claim = {"persistentVolumeClaim": {"claimName": "backups"}, "path": "/here/"}
    spec = {"volume": claim} if volume else {"s3": s3}
    return BackupStore.model_validate(document("BackupStore", "prod", spec, **metadata))


def store_seen(**fields: Any) -> StoreSeen:
    """One look at it."""
    known: dict[str, Any] = {"store": store(), "status": {}, "jobs": (), "platform": PLATFORM}
    return StoreSeen(**(known | fields))


def ready_store(**status: Any) -> dict[str, Any]:
    """The status of a store that has been ready for two weeks, and was listed just now."""
    ready = {"type": "Ready", "status": "True", "observedGeneration": 1, "reason": "Ready", "message": "good"}
    conditions = [ready | {"lastTransitionTime": "2024-01-01T00:00:00Z"}]
    listed = {"startedAt": "2024-01-15T14:30:25Z", "completedAt": "2024-01-15T14:30:25Z", "generation": 1}
    return {"observedGeneration": 1, "conditions": conditions, "catalogue": listed, **status}


def backup(spec: dict[str, Any] | None = None, **metadata: Any) -> TenantBackup:
    """TenantBackup acme-1."""
    known = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}, **(spec or {})}
    return TenantBackup.model_validate(document("TenantBackup", "acme-1", known, **metadata))


def backup_seen(**fields: Any) -> BackupSeen:
    """One look at it, with everything it refers to."""
    known: dict[str, Any] = {
        "backup": backup(),
        "status": {},
        "tenant": tenant(),
        "store": store(),
        "jobs": (),
        "platform": PLATFORM,
    }
    return BackupSeen(**(known | fields))


def restore(spec: dict[str, Any] | None = None, **metadata: Any) -> TenantRestore:
    """TenantRestore back-1, into a new database."""
    known = {
        "source": {"backupRef": {"name": "acme-1"}},
        "target": {"tenantRef": {"name": "acme"}, "database": "app_copy"},
        "strategy": "NewDatabase",
        **(spec or {}),
    }
    return TenantRestore.model_validate(document("TenantRestore", "back-1", known, **metadata))


REPLACE: dict[str, Any] = {"strategy": "Replace", "target": {"tenantRef": {"name": "acme"}}}


def approved(expires: datetime, database: str | None = "app", **confirm: Any) -> dict[str, Any]:
    """The spec of a Replace with somebody's word."""
    word = {"database": database, "expires": expires.isoformat(), **confirm}
    return {**REPLACE, "approval": {"confirm": word}}


def restore_seen(**fields: Any) -> RestoreSeen:
    """One look at it, with everything it refers to."""
    known: dict[str, Any] = {
        "restore": restore(),
        "status": {},
        "backup": backup(),
        "backup_status": {"state": "Succeeded", "health": "Healthy", **FACTS},
        "tenant": tenant(),
        "store": store(),
        "jobs": (),
        "rival": "",
        "platform": PLATFORM,
    }
    return RestoreSeen(**(known | fields))


def schedule(spec: dict[str, Any] | None = None, **metadata: Any) -> BackupSchedule:
    """BackupSchedule nightly, at two in the morning."""
    known = {
        "schedule": "0 2 * * *",
        "tenants": ["acme"],
        "template": {"storeRef": {"name": "prod"}},
        "retention": {"keepLast": 2},
        **(spec or {}),
    }
    dates = {"creationTimestamp": "2024-01-01T00:00:00Z"}
    return BackupSchedule.model_validate(document("BackupSchedule", "nightly", known, **(dates | metadata)))


def schedule_seen(**fields: Any) -> ScheduleSeen:
    """One look at it."""
    known: dict[str, Any] = {"schedule": schedule(), "status": {}, "tenants": ("acme",), "backups": ()}
    known |= {"stores": frozenset({"prod"}), **fields}
    tenants = tuple(remembered(one) if isinstance(one, str) else one for one in known["tenants"])
    taken = frozenset(backup.name for backup in known["backups"])
    return ScheduleSeen(**({"taken": taken} | known | {"tenants": tenants}))


def remembered(name: str, created: str = "2023-06-01T00:00:00Z") -> TenantSummary:
    """What is remembered of a Tenant."""
    spec = {"database": {"host": "pg", "port": 5432}}
    return of_tenant(document("Tenant", name, spec, creationTimestamp=created))


def summary(name: str = "acme-1", **fields: Any) -> BackupSummary:
    """What is remembered of a good backup of everything, made and verified at NOW."""
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}, "mode": "Incremental"}
    return replace(
        of_backup(document("TenantBackup", name, spec)),
        **({"state": "Succeeded", "health": "Healthy", "started": NOW, "completed": NOW} | fields),
    )


def made(slot: datetime, state: str = "Succeeded", **fields: Any) -> BackupSummary:
    """What is remembered of a backup that schedule nightly made in that slot: healthy unless told otherwise."""
    time, good = rfc3339(slot), state == "Succeeded"
    health = fields.get("health", "Healthy" if good else "")
    names = {key: fields.get(key, "acme" if key == "tenant" else "prod") for key in ("tenant", "store")}
    name = fields.get("name") or scheduled_backup("nightly", names["tenant"], slot)
    labels = {"schedule": "nightly", "tenant": names["tenant"], "slot": slot_label(slot)}
    found = document(
        "TenantBackup",
        name,
        {f"{key}Ref": {"name": value} for key, value in names.items()},
        creationTimestamp=time,
        labels={f"tenantbackup.dev/{key}": value for key, value in labels.items()},
    )
    found["status"] = {"state": state, "health": health, "startedAt": time} if state else {}
    if state in ("Succeeded", "Failed"):
        found["status"] |= {"completedAt": time, "verification": {**VERIFIED, "completedAt": time}}
        found["status"]["verification"] |= {"healthyAt": time} if health == "Healthy" else {}
    return replace(of_backup(found), **fields)


def job(purpose: str = "backup", **fields: Any) -> JobSeen:
    """A Job that was made at NOW."""
    known: dict[str, Any] = {"name": f"x-{purpose}", "uid": "uid-job", "created": NOW, "purpose": purpose}
    return JobSeen(**(known | fields))


def succeeded(facts: dict[str, Any] | None = None) -> Ended:
    """A pod that ended well."""
    return Ended(True, facts=FACTS if facts is None else facts)


def condition(status: Any, kind: str) -> dict[str, Any]:
    """The condition of that type, which must be there."""
    return dict(next(item for item in status["conditions"] if item["type"] == kind))


def kinds(status: Any) -> set[str]:
    """The types of the conditions that are there."""
    return {item["type"] for item in status["conditions"]}
