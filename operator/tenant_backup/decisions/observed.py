"""What is seen of the cluster in one look: the input of every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tenant_backup.api import BackupNotifier, BackupSchedule, BackupStore, Tenant, TenantBackup, TenantRestore
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
    was there, and somebody deleted it. `recovered` is the public key (hex) of a Secret that somebody brought
    back before this Tenant was made.
    """

    tenant: Tenant
    status: Mapping[str, Any]
    keys: KeyState
    jobs: tuple[JobSeen, ...]
    platform: Platform
    recovered: str = ""
    backups: tuple[BackupSummary, ...] = ()  # all of the tenant's; read afresh while it is being deleted
    schedules: frozenset[str] = frozenset()  # names of those that exist
    terminating: bool = False  # the namespace or the kind itself is going away
    last_restore: tuple[str, str] | None = None  # that succeeded: name and completedAt
    node: str = ""  # of a pod that uses one of its volumes; looked for when a preflight starts


@dataclass(frozen=True)
class StoreSeen:
    """A BackupStore, its Jobs, and when a page of its catalogue is to be taken in, the objects there are.

    `pages` are what Jobs listed, by their names; without those whose answer cannot be read any more.
    `backups` are those of this store, `uids` those of all TenantBackups of the namespace.
    """

    store: BackupStore
    status: Mapping[str, Any]
    jobs: tuple[JobSeen, ...]
    platform: Platform
    pages: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    backups: tuple[BackupSummary, ...] = ()
    uids: frozenset[str] = frozenset()


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
    comparable: tuple[BackupSummary, ...] = ()  # others of the same tenant, store, contents and modules
    before: str = ""  # its schedule's backup of the tenant that runs now
    line: tuple[BackupSummary, ...] = ()  # all backups of the tenant, read afresh when it is to expire
    node: str = ""  # of a pod that uses one of its volumes; looked for when it starts


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
class ScheduleSeen:
    """A BackupSchedule, its tenants, and the backups it made.

    `missing` are tenants it names that do not exist. `taken` are the names of all TenantBackups there are.
    `read_afresh` are tenants whose backups were read from the API for this look, because some are about to
    go; the others' may be a moment old. `stores` are the names of the BackupStores there are. So many
    verifications may be under way `at_once`; None: all.
    """

    schedule: BackupSchedule
    status: Mapping[str, Any]
    tenants: tuple[TenantSummary, ...]
    backups: tuple[BackupSummary, ...]
    missing: tuple[str, ...] = ()
    taken: frozenset[str] = frozenset()
    read_afresh: frozenset[str] = frozenset()
    stores: frozenset[str] = frozenset()
    at_once: int | None = None


@dataclass(frozen=True)
class Problem:
    """Why something was not delivered. `message` is without secrets, and so without URLs."""

    reason: Reason
    message: str
    needs_person: bool = False


@dataclass(frozen=True)
class Errand:
    """What became of the last delivery to one receiver. In memory only: a restart delivers at once.

    While one is under way (`ended` is None) `problem` is that of the one before.
    """

    generation: int  # of the notifier's spec
    ended: datetime | None = None
    delivered: tuple[str, ...] = ()  # ids of the news
    problem: Problem | None = None
    failures: int = 0  # tries in a row that ended with a problem


@dataclass(frozen=True)
class NotifierSeen:
    """A BackupNotifier, the objects of its namespace, and what its receivers last did."""

    notifier: BackupNotifier
    status: Mapping[str, Any]
    objects: Objects
    errands: Mapping[str, Errand]
    platform: Platform
