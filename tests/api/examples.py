"""One accepted and one refused object for every CEL rule of the CRDs, by the rule's message."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tenant_backup.api.references import API_VERSION

Document = dict[str, Any]
RECIPIENT = "age1" + "q" * 58
SOON = "2030-01-01T00:00:00Z"


@dataclass(frozen=True)
class Example:
    """`before` is applied first when the rule is about a change; then one passes and the other does not."""

    rule: str  # the message of the rule
    accepted: Document
    refused: Document
    before: tuple[Document, ...] = ()


def make(kind: str, spec: Document, name: str = "acme") -> Document:
    """Return a document of one of our kinds."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def changed(document: Document, **fields: Any) -> Document:
    """Return a copy with spec fields replaced; keys are dotted paths with __ for the dots, None removes."""
    result = copy.deepcopy(document)
    for path, value in fields.items():
        *parents, last = path.split("__")
        node = result["spec"]
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return result


def named(document: Document, name: str) -> Document:
    """Return a copy with another name."""
    result = copy.deepcopy(document)
    result["metadata"]["name"] = name
    return result


DATABASE = {"engine": "PostgreSQL", "host": "pg", "name": "acme", "credentialsSecretRef": {"name": "acme-db"}}
TENANT = make("Tenant", {"database": DATABASE, "encryption": {"recipients": [RECIPIENT]}})
S3 = make("BackupStore", {"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "s3"}}}, "prod")
VOLUME_SPEC = {"persistentVolumeClaim": {"claimName": "backups"}}
VOLUME = make("BackupStore", {"volume": VOLUME_SPEC}, "disk")
BACKUP = make("TenantBackup", {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}, "acme-1")
REPLACE = make(
    "TenantRestore",
    {
        "source": {"backupRef": {"name": "acme-1"}},
        "target": {"tenantRef": {"name": "acme"}},
        "strategy": "Replace",
    },
    "acme-back",
)
NEW_DATABASE = changed(REPLACE, strategy="NewDatabase", target__database="acme_copy")
MERGE = changed(
    REPLACE, strategy="Merge", target__files=[{"name": "uploads"}], select={"files": ["uploads:hr/**"]}
)
SCHEDULE = make(
    "BackupSchedule",
    {
        "schedule": "0 2 * * *",
        "tenants": ["acme"],
        "template": {"storeRef": {"name": "prod"}},
        "retention": {"keepLast": 7},
    },
    "nightly",
)
UPLOADS = {
    "name": "uploads",
    "persistentVolumeClaim": {"claimName": "acme-uploads"},
    "exclude": ["cache/**"],
    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
}
WEBHOOK = {"urlSecretRef": {"name": "ops"}, "signingSecretRef": {"name": "ops"}}
EMAIL = {"smtpSecretRef": {"name": "smtp"}, "from": "backup@example.org", "to": ["ops@example.org"]}
NOTIFIER = make("BackupNotifier", {"events": ["BackupFailed"], "webhook": WEBHOOK}, "ops")
APPROVAL = {"confirm": {"database": "acme", "expires": SOON}}


def _column(**fields: Any) -> Document:
    column = {"table": "public.users", "column": "password", **fields}
    return changed(TENANT, exclusions__columns=[column])


def _tls(**fields: Any) -> Document:
    return changed(TENANT, database__tls=fields)


# fmt: off
EXAMPLES = [
    Example("the name of a Tenant has at most 52 characters",
            changed(named(TENANT, "a" * 52), slug="a"), changed(named(TENANT, "a" * 53), slug="a")),
    Example("spec.slug is needed because the name is longer than 40 characters or has a dot",
            changed(named(TENANT, "acme.corp"), slug="acme-corp"), named(TENANT, "acme.corp")),
    Example("slug is immutable: it names the tenant in every store",
            changed(TENANT, slug="acme"), changed(TENANT, slug="other"), before=(TENANT,)),
    Example("slug is immutable: it names the tenant in every store",
            changed(TENANT, slug="first"), TENANT, before=(changed(TENANT, slug="first"),)),
    Example("mode VerifyFull needs caSecretRef: the Secret with the server's CA certificate as ca.crt",
            _tls(mode="VerifyFull", caSecretRef={"name": "ca"}), _tls(mode="VerifyFull")),
    Example("caSecretRef is used by mode VerifyFull only; set mode: VerifyFull or leave it out",
            _tls(mode="Require"), _tls(mode="Require", caSecretRef={"name": "ca"})),
    Example("onRestore: Value needs value, and value is for onRestore: Value only",
            _column(onRestore="Value", value="!"), _column(onRestore="Value")),
    Example("onRestore: Value needs value, and value is for onRestore: Value only",
            _column(onRestore="Null"), _column(onRestore="Null", value="!")),
    Example("else is for onRestore: KeepLive only: what rows without a match in the live database get",
            _column(**{"else": "!"}), _column(onRestore="Default", **{"else": "!"})),
    Example("imported needs deletionPolicy Retain: what another object wrote is not deleted with this one",
            changed(BACKUP, imported={"backupId": "acme_2024-01-15_14-30-25"}, deletionPolicy="Retain"),
            changed(BACKUP, imported={"backupId": "acme_2024-01-15_14-30-25"})),
    Example("set exactly one of s3 and volume", S3, changed(S3, volume=VOLUME_SPEC)),
    Example("set exactly one of s3 and volume", VOLUME, changed(VOLUME, volume=None)),
    Example("caSecretRef needs an endpoint that starts with https://",
            changed(S3, s3__caSecretRef={"name": "ca"}, s3__endpoint="https://s3.example"),
            changed(S3, s3__caSecretRef={"name": "ca"}, s3__endpoint="http://s3.example")),
    Example("mode None encrypts for nobody: remove recipients, or set mode: Age",
            changed(TENANT, encryption={"mode": "None", "identitySecretRef": {"name": "old"}}),
            changed(TENANT, encryption__mode="None")),
    Example("readRate must be between 64Ki and 1Ti, in bytes per second",
            changed(TENANT, database__readRate="1.5Mi"), changed(TENANT, database__readRate="65535")),
    Example("uploadRate must be between 64Ki and 1Ti, in bytes per second",
            changed(S3, limits__uploadRate="1Ti"), changed(S3, limits__uploadRate="1.001Ti")),
    Example("recoveryPoint must be between 1m and 8760h",
            changed(TENANT, objectives__recoveryPoint="26h"), changed(TENANT, objectives__recoveryPoint="59s")),
    Example("recoveryPoint must be between 1m and 8760h",
            changed(TENANT, objectives__recoveryPoint="8760h"), changed(TENANT, objectives__recoveryPoint="8760h1s")),
    Example("storedBytes must be at least 1Mi",
            changed(TENANT, limits__storedBytes="1Mi"), changed(TENANT, limits__storedBytes="1M")),
    Example("capacity.limit must be at least 1Mi",
            changed(S3, capacity__limit="1Ti"), changed(S3, capacity__limit="0")),
    Example("must not have . or .. between slashes",
            changed(S3, s3__prefix="prod/eu..1/"), changed(S3, s3__prefix="prod/../other")),
    Example("must not have . or .. between slashes",
            changed(VOLUME, volume__path="/backups/"), changed(VOLUME, volume__path="/..")),
    Example("a TenantBackup is immutable: create a new one with another name",
            BACKUP, changed(BACKUP, deletionPolicy="Retain"), before=(BACKUP,)),
    Example("a TenantBackup is immutable: create a new one with another name",
            changed(BACKUP, modules=["hr"]), BACKUP, before=(changed(BACKUP, modules=["hr"]),)),
    Example("deadline of a backup must be between 1m and 24h",
            changed(BACKUP, deadline="24h"), changed(BACKUP, deadline="59s")),
    Example("deadline of a backup must be between 1m and 24h",
            changed(BACKUP, deadline="1h30m"), changed(BACKUP, deadline="24h1s")),
    Example("expiresAfter must be between 1m and 87600h",
            changed(BACKUP, expiresAfter="720h"), changed(BACKUP, expiresAfter="59s")),
    Example("imported backups do not expire: remove expiresAfter",
            changed(BACKUP, imported={"backupId": "acme_1"}, deletionPolicy="Retain"),
            changed(BACKUP, imported={"backupId": "acme_1"}, deletionPolicy="Retain", expiresAfter="1h")),
    Example("collectorCredentialsSecretRef needs s3",
            changed(S3, collectorCredentialsSecretRef={"name": "x"}),
            changed(VOLUME, collectorCredentialsSecretRef={"name": "x"})),
    Example("deadline must be between 1m and 168h",
            changed(REPLACE, deadline="168h"), changed(REPLACE, deadline="168h1s")),
    Example("keepPrevious must be between 0s and 720h",
            changed(REPLACE, keepPrevious="0s"), changed(REPLACE, keepPrevious="721h")),
    Example("strategy NewDatabase needs target.database, the database to create, or target.files",
            NEW_DATABASE, changed(NEW_DATABASE, target__database=None)),
    Example("strategy NewDatabase needs target.database, the database to create, or target.files",
            changed(NEW_DATABASE, target__database=None, target__files=[{"name": "uploads"}]),
            changed(NEW_DATABASE, target__database=None, target__files=[])),
    Example("a Tenant needs database, files, or both: what is backed up",
            changed(TENANT, database=None, files=[UPLOADS]), changed(TENANT, database=None)),
    Example("a Tenant needs database, files, or both: what is backed up",
            changed(TENANT, files=[UPLOADS]), changed(TENANT, database=None, files=[])),
    Example("strategy Merge needs target.files and select.files, and no target.database: it is for files",
            MERGE, changed(MERGE, select=None)),
    Example("strategy Merge needs target.files and select.files, and no target.database: it is for files",
            MERGE, changed(MERGE, target__database="acme")),
    Example("select is for strategies NewDatabase and Merge; Replace replaces all",
            changed(MERGE, strategy="NewDatabase"), changed(MERGE, strategy="Replace")),
    Example("paths are relative to the volume: no . or .. between slashes",
            changed(MERGE, select__files=["uploads:a..b/...", "uploads:.hidden"]),
            changed(MERGE, select__files=["uploads:a/../b"])),
    Example("paths are relative to the volume: no . or .. between slashes",
            MERGE, changed(MERGE, select__files=["uploads:.."])),
    Example("a module needs tables, files, or both",
            changed(TENANT, files=[UPLOADS], modules=[{"name": "hr", "files": ["uploads:hr/**"]}]),
            changed(TENANT, modules=[{"name": "hr"}])),
    Example("confirm names what will be replaced: database, files, or both",
            changed(REPLACE, target__files=[{"name": "uploads"}], approval__confirm__files=["uploads"],
                    approval__confirm__expires="2030-01-01T00:00:00Z"),
            changed(REPLACE, approval__confirm__expires="2030-01-01T00:00:00Z")),
    Example("approval is for strategies Replace and Merge; NewDatabase replaces nothing",
            changed(REPLACE, approval=APPROVAL), changed(NEW_DATABASE, approval=APPROVAL)),
    Example("undo is for strategies Replace and Merge; drop the new database instead",
            changed(REPLACE, undo=True), changed(NEW_DATABASE, undo=True), before=(REPLACE,)),
    Example("undo is set after the restore, not when it is created", REPLACE, changed(REPLACE, undo=True)),
    Example("undo cannot be taken back: create a new TenantRestore",
            changed(REPLACE, undo=True), REPLACE, before=(REPLACE, changed(REPLACE, undo=True))),
    Example("a TenantRestore is immutable except approval and undo: create a new one with another name",
            changed(REPLACE, approval=APPROVAL, undo=True), changed(REPLACE, deadline="1h"), before=(REPLACE,)),
    Example("a TenantRestore is immutable except approval and undo: create a new one with another name",
            REPLACE, changed(REPLACE, identitySecretRef={"name": "key"}), before=(REPLACE,)),
    Example("set exactly one of tenants and tenantSelector",
            SCHEDULE, changed(SCHEDULE, tenantSelector={"matchLabels": {"tier": "gold"}})),
    Example("set exactly one of tenants and tenantSelector",
            changed(SCHEDULE, tenants=None, tenantSelector={"matchLabels": {"tier": "gold"}}),
            changed(SCHEDULE, tenants=None)),
    Example("set keepWithin, or at least one of keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly"
            " to more than 0",
            changed(SCHEDULE, retention={"keepHourly": 0, "keepYearly": 1}),
            changed(SCHEDULE, retention={"keepLast": 0, "keepFailed": 3})),
    Example("set keepWithin, or at least one of keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly"
            " to more than 0",
            changed(SCHEDULE, retention={"keepWithin": "48h"}), changed(SCHEDULE, retention={})),
    Example("keepWithin must be between 1m and 87600h",
            changed(SCHEDULE, retention__keepWithin="87600h"), changed(SCHEDULE, retention__keepWithin="0s")),
    Example("set total, perServer or both in budget",
            changed(SCHEDULE, budget={"perServer": 1}), changed(SCHEDULE, budget={})),
    Example("fullEvery is for template.mode Incremental; with Full every backup is one",
            changed(SCHEDULE, fullEvery="720h"), changed(SCHEDULE, fullEvery="720h", template__mode="Full")),
    Example("fullEvery must be between 1h and 87600h",
            changed(SCHEDULE, fullEvery="1h"), changed(SCHEDULE, fullEvery="59m")),
    Example("spread must be between 0s and 24h",
            changed(SCHEDULE, spread="24h"), changed(SCHEDULE, spread="24h1s")),
    Example("startingDeadline must be between 1m and 168h",
            changed(SCHEDULE, startingDeadline="1m"), changed(SCHEDULE, startingDeadline="59s")),
    Example("backoff must be between 1s and 6h",
            changed(SCHEDULE, retries={"backoff": "6h"}), changed(SCHEDULE, retries={"backoff": "0s"})),
    Example("the name of a BackupSchedule has at most 52 characters",
            named(SCHEDULE, "a" * 52), named(SCHEDULE, "a" * 53)),
    Example("set at least one of webhook, email and heartbeat",
            changed(NOTIFIER, webhook=None, email=EMAIL), changed(NOTIFIER, webhook=None)),
    Example("events is needed with webhook and email: it says what they are told",
            changed(NOTIFIER, events=None, webhook=None, heartbeat={"urlSecretRef": {"name": "ops"}}),
            changed(NOTIFIER, events=None)),
]

# fmt: on

# Refused by the schema itself (pattern, enum, limit): the last word is part of the API server's answer.
REFUSED_BY_SCHEMA = [
    (changed(TENANT, slug="Acme"), "spec.slug"),
    (changed(TENANT, database__engine="Oracle"), "spec.database.engine"),
    (changed(TENANT, database__host="a,b"), "spec.database.host"),
    (changed(TENANT, database__host="/run/postgresql"), "spec.database.host"),
    (changed(TENANT, database__port=0), "spec.database.port"),
    (changed(TENANT, database__connections=33), "spec.database.connections"),
    (changed(TENANT, encryption__recipients=["AGE-SECRET-KEY-1"]), "spec.encryption.recipients[0]"),
    (changed(TENANT, encryption__recipients=[RECIPIENT] * 2), "spec.encryption.recipients[1]"),
    (changed(TENANT, encryption__mode="Gpg"), "spec.encryption.mode"),
    (changed(TENANT, database__readRate="fast"), "spec.database.readRate"),
    (changed(TENANT, database__readRate="-1Mi"), "spec.database.readRate"),
    (changed(S3, recipients=["ssh-ed25519 AAAA"]), "spec.recipients[0]"),
    (changed(S3, recipients=[RECIPIENT] * 2), "spec.recipients[1]"),
    (changed(TENANT, modules=[{"name": "hr", "tables": ["employee"]}]), "spec.modules[0].tables[0]"),
    (changed(TENANT, modules=[{"name": "hr", "tables": ["a.b"]}] * 2), "spec.modules[1]"),
    (changed(TENANT, modules=[{"name": "hr", "files": ["hr/**"]}]), "spec.modules[0].files[0]"),
    (changed(TENANT, objectives__recoveryPoint="a day"), "spec.objectives.recoveryPoint"),
    (changed(TENANT, limits__storedBytes="much"), "spec.limits.storedBytes"),
    (changed(TENANT, files=[UPLOADS] * 2), "spec.files[1]"),
    (changed(TENANT, files=[UPLOADS | {"name": "Up loads"}]), "spec.files[0].name"),
    (changed(TENANT, files=[UPLOADS | {"exclude": ["/cache"]}]), "spec.files[0].exclude[0]"),
    (changed(TENANT, files=[UPLOADS | {"securityContext": {"runAsUser": 0, "runAsGroup": 1}}]), "runAsUser"),
    (changed(BACKUP, contents="Everything"), "spec.contents"),
    (changed(S3, capacity={"warnAt": 80}), "spec.capacity.limit"),
    (changed(S3, capacity={"limit": "1Ti", "warnAt": 101}), "spec.capacity.warnAt"),
    (changed(S3, s3__endpoint="https://user:password@s3.example"), "spec.s3.endpoint"),
    (changed(S3, s3__credentialsSecretRef=None), "spec.s3.credentialsSecretRef"),
    (changed(BACKUP, compression__level=20), "spec.compression.level"),
    (changed(BACKUP, deadline="6 hours"), "spec.deadline"),
    (changed(BACKUP, expiresAfter="a month"), "spec.expiresAfter"),
    (changed(TENANT, offboarding="Keep"), "spec.offboarding"),
    (changed(BACKUP, verification="RestoreTest"), "spec.verification"),
    (changed(REPLACE, strategy="Overwrite"), "spec.strategy"),
    (changed(MERGE, select__files=["uploads:/etc/passwd"]), "spec.select.files[0]"),
    (changed(MERGE, select__files=["hr/**"]), "spec.select.files[0]"),
    (changed(MERGE, select__files=[]), "spec.select.files"),
    (changed(REPLACE, approval={"confirm": {"database": "acme", "expires": "soon"}}), "expires"),
    (changed(SCHEDULE, schedule="0 2 * *"), "spec.schedule"),
    (changed(SCHEDULE, schedule="@reboot"), "spec.schedule"),
    (changed(SCHEDULE, timeZone="../etc/passwd"), "spec.timeZone"),
    (changed(SCHEDULE, retention__keepLast=-1), "spec.retention.keepLast"),
    (changed(SCHEDULE, retention__keepDaily=1001), "spec.retention.keepDaily"),
    (changed(SCHEDULE, tenants=[]), "spec.tenants"),
    (changed(NOTIFIER, events=["BackupStarted"]), "spec.events[0]"),
    (changed(NOTIFIER, events=["BackupFailed"] * 2), "spec.events[1]"),
    (changed(NOTIFIER, webhook__format="Slack"), "spec.webhook.format"),
    (changed(NOTIFIER, webhook__signingSecretRef=None), "spec.webhook.signingSecretRef"),
    (changed(NOTIFIER, email={**EMAIL, "to": ["ops@example.org\nBcc: all@example.org"]}), "spec.email.to[0]"),
    (changed(NOTIFIER, email={**EMAIL, "from": "Backup <backup@example.org>"}), "spec.email.from"),
    (changed(SCHEDULE, fullEvery="30d"), "spec.fullEvery"),
    (changed(SCHEDULE, overlap="Replace"), "spec.overlap"),
    (changed(SCHEDULE, onNewTenant="Later"), "spec.onNewTenant"),
    (changed(SCHEDULE, missedRuns="RunAll"), "spec.missedRuns"),
    (changed(SCHEDULE, retries={"limit": 11}), "spec.retries.limit"),
    (changed(SCHEDULE, verification={"schedule": "0 5 * *"}), "spec.verification.schedule"),
    (changed(SCHEDULE, verification={"level": "Contents"}), "spec.verification.schedule"),
    (
        changed(SCHEDULE, verification={"schedule": "@weekly", "level": "RestoreTest"}),
        "spec.verification.level",
    ),
]
