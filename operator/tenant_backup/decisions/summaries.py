"""What the operator remembers of every object: a few words each, so that ten thousand cost little.

Decisions over many objects (schedules, queue, objectives, metrics, notifications) are made from these.
Whoever deletes on their strength looks at the objects themselves first: a summary may be a moment old.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from typing import Any

from tenant_backup.api.references import LABEL_HOLD, LABEL_SCHEDULE, LABEL_SLOT
from tenant_backup.api.tenant import DEFAULT_PORTS
from tenant_backup.api.values import duration_seconds, quantity_bytes

from .conditions import condition_of
from .instants import parse
from .names import slot_of
from .queue import Budget, server_of
from .wishes import is_awaited

Document = Mapping[str, Any]
FINISHED = ("Succeeded", "Failed", "Expired")


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """One TenantBackup. Times are aware; sizes are bytes, `seconds` is how long the run took."""

    namespace: str
    name: str
    uid: str
    version: int  # metadata.resourceVersion: which of two looks at it is the newer one
    tenant: str
    store: str
    schedule: str  # "" when no schedule made it
    slot: datetime | None  # of the schedule
    created: datetime
    modules: tuple[str, ...]  # empty: all rows are in it
    mode: str
    state: str  # "" while nobody looked at it
    reason: str  # of its headline condition
    health: str
    backup_id: str
    started: datetime | None
    completed: datetime | None
    verified: datetime | None
    logical: int
    stored: int
    added: int
    rows: int
    held: bool  # label tenantbackup.dev/hold
    removing: bool
    doubted: datetime | None = None  # when it was last verified, if that did not find it Healthy
    trouble: str = ""  # why the run failed, or the verification
    requested_by: str = ""
    retained: bool = False  # deletionPolicy Retain: its data outlives the object
    contents: str = "All"  # of what the tenant had
    awaited: bool = False  # a verification of it is to be done, or under way
    level: str = ""  # of its last verification
    answered: str = ""  # the last value of annotation tenantbackup.dev/verify that was acted on

    @property
    def finished(self) -> bool:
        """Whether its run is over, well or not."""
        return self.state in FINISHED

    @property
    def good(self) -> bool:
        """Whether a restore can count on it."""
        return self.state == "Succeeded" and self.health != "Corrupt" and not self.removing

    @property
    def seconds(self) -> float:
        """How long the run took; 0 while it has not ended."""
        return (self.completed - self.started).total_seconds() if self.started and self.completed else 0.0


def of_backup(document: Document) -> BackupSummary:
    """Return the summary of a TenantBackup as the API server sends it."""
    metadata, spec = document["metadata"], document["spec"]
    status: Document = document.get("status", {})
    labels: Document = metadata.get("labels", {})
    sizes: Document = status.get("bytes", {})
    done: Document = status.get("verification", {})
    return BackupSummary(
        namespace=intern(metadata["namespace"]),
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        tenant=intern(spec["tenantRef"]["name"]),
        store=intern(spec["storeRef"]["name"]),
        schedule=intern(labels.get(LABEL_SCHEDULE, "")),
        slot=_slot(labels),
        created=parse(metadata["creationTimestamp"]) or datetime.now(UTC),
        # Who writes an object for a backup that is in the store need not know its modules.
        modules=tuple(sorted(spec.get("modules") or status.get("contents", {}).get("modules", ()))),
        mode=intern(spec.get("mode", "")),
        state=intern(status.get("state", "")),
        reason=intern(condition_of(status, "Succeeded").get("reason", "")),
        health=intern(status.get("health", "")),
        backup_id=status.get("backupId") or spec.get("imported", {}).get("backupId", ""),
        started=parse(status.get("startedAt")),
        completed=parse(status.get("completedAt")),
        verified=_verified(status),
        logical=int(sizes.get("logical", 0)),
        stored=int(sizes.get("stored", 0)),
        added=int(sizes.get("added", 0)),
        rows=int(status.get("contents", {}).get("rows", 0)),
        held=LABEL_HOLD in labels,
        removing="deletionTimestamp" in metadata,
        doubted=_doubted(status),
        trouble=_trouble(status),
        requested_by=intern(status.get("requestedBy", "")),
        retained=spec.get("deletionPolicy") == "Retain",
        contents=intern(spec.get("contents", "All")),
        awaited=is_awaited(spec, metadata, status),
        level=intern(done.get("level", "")),
        answered=intern(done.get("requested", "")),
    )


def weighed(health: str, contents: Document) -> str:
    """Return the health of a backup whose data was found so: files may have changed while they were read."""
    return "Degraded" if health == "Healthy" and contents.get("changedFiles") else health


@dataclass(frozen=True, slots=True)
class Begun:
    """Something that should be and is not: since when, and why."""

    since: datetime
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """One Tenant, as far as schedules and queue need it."""

    namespace: str
    name: str
    uid: str
    version: int
    created: datetime
    labels: Mapping[str, str]
    server: str  # host:port of its database, else its own; what a budget per server counts
    ready: bool | None  # None: not known yet
    recovery_point: int | None  # seconds, of spec.objectives
    objectives_met: bool | None  # None: it has none, or nobody looked yet
    removing: bool
    missed: Begun | None = None  # its objectives are


def of_tenant(document: Document) -> TenantSummary:
    """Return the summary of a Tenant as the API server sends it."""
    metadata, spec = document["metadata"], document["spec"]
    database: Document = spec.get("database", {})
    status: Document = document.get("status", {})
    point = spec.get("objectives", {}).get("recoveryPoint")
    return TenantSummary(
        namespace=intern(metadata["namespace"]),
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        created=parse(metadata["creationTimestamp"]) or datetime.now(UTC),
        labels={intern(key): intern(value) for key, value in metadata.get("labels", {}).items()},
        server=intern(_server(metadata, database)),
        ready=_holds(status, "Ready"),
        recovery_point=duration_seconds(point) if point else None,
        objectives_met=_holds(status, "ObjectivesMet"),
        removing="deletionTimestamp" in metadata,
        missed=_begun(status, "ObjectivesMet"),
    )


def _server(metadata: Document, database: Document) -> str:
    if not database:
        return f"volumes of {metadata['namespace']}/{metadata['name']}"
    return server_of(metadata["namespace"], database.get("host", ""), _port(database))


def _port(database: Document) -> int:
    """Return the port a Tenant's database is at; 0 when its engine is not one of ours."""
    return int(database.get("port") or DEFAULT_PORTS.get(database.get("engine", ""), 0))


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """One BackupSchedule, as far as queue and metrics need it."""

    namespace: str
    name: str
    uid: str
    version: int
    created: datetime
    suspended: bool
    tenants: tuple[str, ...]  # by name; empty when `labels` choose them
    labels: Mapping[str, str]
    ready: bool | None
    last_run: datetime | None  # the slot
    last_success: datetime | None  # the newest slot in which every tenant succeeded
    next_runs: tuple[datetime, ...]
    counts: Mapping[str, int]  # of the last run: tenants by what became of their backup; and `selected`
    budget: Budget | None


def of_schedule(document: Document) -> ScheduleSummary:
    """Return the summary of a BackupSchedule as the API server sends it."""
    metadata, spec = document["metadata"], document["spec"]
    status: Document = document.get("status", {})
    upcoming = (parse(moment) for moment in status.get("nextRuns", ()))
    budget: Document | None = spec.get("budget")
    return ScheduleSummary(
        namespace=intern(metadata["namespace"]),
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        created=parse(metadata["creationTimestamp"]) or datetime.now(UTC),
        suspended=bool(spec.get("suspend")),
        tenants=tuple(intern(name) for name in spec.get("tenants", ())),
        labels=dict(spec.get("tenantSelector", {}).get("matchLabels", {})),
        ready=_holds(status, "Ready"),
        last_run=parse(status.get("lastRun")),
        last_success=parse(status.get("lastSuccess")),
        next_runs=tuple(moment for moment in upcoming if moment),
        counts={intern(what): int(number) for what, number in status.get("tenants", {}).items()},
        budget=Budget(budget.get("total"), budget.get("perServer")) if budget else None,
    )


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """One BackupStore, as far as metrics need it. Sizes are bytes; None: not known, or not set."""

    namespace: str
    name: str
    uid: str
    version: int
    ready: bool | None
    used: int | None
    limit: int | None  # of spec.capacity
    warn_at: int | None  # percent of the limit
    backups: int | None
    tenants: int | None
    unlisted: int | None  # backups in the store without an object
    collected: datetime | None  # when the last collection that succeeded ended
    freed: int | None  # by the last collection
    nearly_full: Begun | None = None

    @property
    def warning(self) -> float | None:
        """From how many bytes on it is nearly full."""
        return self.limit * self.warn_at / 100 if self.limit and self.warn_at else None


def of_store(document: Document) -> StoreSummary:
    """Return the summary of a BackupStore as the API server sends it."""
    metadata, status = document["metadata"], document.get("status", {})
    capacity: Document = document["spec"].get("capacity", {})
    collection: Document = status.get("collection", {})
    limit = capacity.get("limit")
    return StoreSummary(
        namespace=intern(metadata["namespace"]),
        name=intern(metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        ready=_holds(status, "Ready"),
        used=status.get("usedBytes"),
        limit=quantity_bytes(limit) if limit else None,
        warn_at=capacity.get("warnAt"),
        backups=status.get("backups"),
        tenants=status.get("tenants"),
        unlisted=status.get("unlisted"),
        collected=parse(collection.get("completedAt")),
        freed=collection.get("freedBytes"),
        nearly_full=_begun(status, "CapacityOk"),
    )


@dataclass(frozen=True, slots=True)
class RestoreSummary:
    """One TenantRestore, as far as who is told of it needs it."""

    namespace: str
    name: str
    uid: str
    version: int
    tenant: str  # it restores into
    backup: str
    strategy: str
    state: str
    reason: str  # of its headline condition
    trouble: str  # why it failed
    completed: datetime | None
    requested_by: str


def of_restore(document: Document) -> RestoreSummary:
    """Return the summary of a TenantRestore as the API server sends it."""
    metadata, spec = document["metadata"], document["spec"]
    status: Document = document.get("status", {})
    return RestoreSummary(
        namespace=intern(metadata["namespace"]),
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        tenant=intern(spec["target"]["tenantRef"]["name"]),
        backup=spec["source"].get("backupRef", {}).get("name", ""),
        strategy=intern(spec.get("strategy", "")),
        state=intern(status.get("state", "")),
        reason=intern(condition_of(status, "Succeeded").get("reason", "")),
        trouble=_trouble(status),
        completed=parse(status.get("completedAt")),
        requested_by=intern(status.get("requestedBy", "")),
    )


@dataclass(frozen=True, slots=True)
class NotifierSummary:
    """One BackupNotifier: that it is there."""

    namespace: str
    name: str
    uid: str
    version: int


def of_notifier(document: Document) -> NotifierSummary:
    """Return the summary of a BackupNotifier as the API server sends it."""
    metadata = document["metadata"]
    version = int(metadata["resourceVersion"])
    return NotifierSummary(metadata["namespace"], metadata["name"], metadata["uid"], version)


def _begun(status: Document, condition: str) -> Begun | None:
    """Return since when the condition is False, if it is."""
    found = condition_of(status, condition)
    since = parse(found.get("lastTransitionTime"))
    if since is None or found.get("status") != "False":
        return None
    return Begun(since, intern(found.get("reason", "")), found.get("message", ""))


def _trouble(status: Document) -> str:
    """Return why it failed: the words about what went well are not kept."""
    if status.get("state") == "Failed":
        return str(condition_of(status, "Succeeded").get("message", ""))
    return str(status.get("verification", {}).get("message", "")) if _doubted(status) else ""


def _doubted(status: Document) -> datetime | None:
    done: Document = status.get("verification", {})
    ended = done.get("completedAt")
    return parse(ended) if ended != done.get("healthyAt") else None


def _holds(status: Document, condition: str) -> bool | None:
    return {"True": True, "False": False}.get(condition_of(status, condition).get("status", ""))


def _slot(labels: Document) -> datetime | None:
    try:
        return slot_of(labels[LABEL_SLOT])
    except (KeyError, ValueError):
        return None  # not of a schedule, or somebody changed the label


def _verified(status: Document) -> datetime | None:
    """Return when it was last found Healthy; a verification that could not be done says nothing."""
    healthy = status.get("health") == weighed("Healthy", status.get("contents", {}))
    return parse(status.get("verification", {}).get("healthyAt")) if healthy else None
