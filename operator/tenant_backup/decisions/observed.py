"""What is seen of the cluster in one look: the input of every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tenant_backup.api import BackupSchedule, BackupStore, Tenant, TenantBackup, TenantRestore
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from .news import Objects
from .queue import Place

from .summaries import BackupSummary, TenantSummary


@dataclass(frozen=True)
class Ended:
    """How one pod ended: the answer of the container that knows the cause."""

    ok: bool
    reason: Reason = Reason.SUCCEEDED
    message: str = ""
    retriable: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trouble:
    """Why a pod cannot start, and since when."""

    reason: Reason
    message: str
    since: datetime


@dataclass(frozen=True)
class JobSeen:
    """A Job and its pods, as far as decisions need them."""

    name: str
    uid: str
    created: datetime
    purpose: str = ""
    generation: int = 0  # of the spec it was made for, where each one has its own
    attempt: int = 1  # which Job this is, where the operator itself tries again
    retries: int = 2
    finished: Literal["", "Complete", "Failed"] = ""
    failure: str = ""  # the Job controller's reason, when it failed
    removing: bool = False
    expires: bool = False  # it has a TTL
    pods: int = 0  # that exist
    ended: int = 0  # pods that ended, by the Job's own count where it is higher
    running: bool = False
    outcome: Ended | None = None  # of the newest pod that ended; None: none ended, or none can be read
    trouble: Trouble | None = None
    node_lost: bool = False
    progress: Mapping[str, Any] | None = None
    told: contract.Job | None = None  # its description; None when it cannot be read


@dataclass(frozen=True)
class Collection:
    """When unused objects are deleted; both in seconds."""

    interval: int = 86400  # between two collections of a store
    grace: int = 90000  # between naming an object and deleting it

    @property
    def max_run(self) -> int:
        """The longest deadline of a backup: an hour is for clocks that disagree.

        Never more than a day, because the command line collects too, with the grace of 25 hours.
        """
        return min(self.grace - 3600, 86400)


@dataclass(frozen=True)
class Platform:
    """What is the same for every object: facts about the cluster and the installation."""

    cluster_id: str
    trusts_requested_by: bool = False
    collection: Collection = Collection()


KeyState = Literal["Absent", "Present", "Lost", "Gone"]


@dataclass(frozen=True)
class TenantSeen:
    """A Tenant.

    `keys`: Absent: never made. Lost: named in status, but the Secret was never created. Gone: the Secret
    was there, and somebody deleted it.
    """

    tenant: Tenant
    status: Mapping[str, Any]
    keys: KeyState
    jobs: tuple[JobSeen, ...]
    platform: Platform
    backups: int = 0  # that succeeded and are there
    last_backup: tuple[str, str] | None = None  # name and completedAt
    last_restore: tuple[str, str] | None = None


@dataclass(frozen=True)
class StoreSeen:
    """A BackupStore and its probes."""

    store: BackupStore
    status: Mapping[str, Any]
    jobs: tuple[JobSeen, ...]
    platform: Platform


@dataclass(frozen=True)
class Sibling:
    """Another TenantBackup of the same tenant in the same store, committed."""

    name: str
    uid: str
    backup_id: str
    corrupt: bool


@dataclass(frozen=True)
class BackupSeen:
    """A TenantBackup, its Jobs, and what it refers to. `siblings` are looked for when damage was found."""

    backup: TenantBackup
    status: Mapping[str, Any]
    tenant: Tenant | None
    store: BackupStore | None
    jobs: tuple[JobSeen, ...]
    platform: Platform
    terminating: bool = False  # the namespace or the kind itself is going away
    place: Place | None = None  # in the queue; None: its turn has come, or it does not want one yet
    siblings: tuple[Sibling, ...] = ()


@dataclass(frozen=True)
class RestoreSeen:
    """A TenantRestore, its Jobs, and what it refers to. `rival`: a restore running on the same target."""

    restore: TenantRestore
    status: Mapping[str, Any]
    backup: TenantBackup | None
    backup_status: Mapping[str, Any]
    tenant: Tenant | None
    store: BackupStore | None
    jobs: tuple[JobSeen, ...]
    rival: str
    platform: Platform


@dataclass(frozen=True)
class ScheduledBackup:
    """One backup a schedule made."""

    name: str
    uid: str
    tenant: str
    slot: datetime
    state: str  # "" while nobody looked at it
    corrupt: bool = False
    held: bool = False  # label tenantbackup.dev/hold
    removing: bool = False

    @property
    def good(self) -> bool:
        """Whether a restore can count on it."""
        return self.state == "Succeeded" and not self.corrupt and not self.removing


@dataclass(frozen=True)
class ScheduleSeen:
    """A BackupSchedule, the names of its tenants, and the backups it made.

    `missing` are tenants it names that do not exist.
    """

    schedule: BackupSchedule
    status: Mapping[str, Any]
    tenants: tuple[str, ...]
    backups: tuple[ScheduledBackup, ...]
    missing: tuple[str, ...] = ()
