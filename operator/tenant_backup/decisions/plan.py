"""What a decision asks for: actions in order, and the status that is true once they are done.

Actions are written so that carrying them out twice is the same as once: the operator may die
between any two of them, and the next pass observes and decides again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from tenant_backup.api import BackupNotifier
from tenant_backup.api.backup_notifier import ReceiverName
from tenant_backup.api.resource import Resource
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason

from .news import News
from .verdicts import Ref


@dataclass(frozen=True)
class Subject:
    """One of our objects, and not another one that had its name before."""

    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, resource: Resource) -> Subject:
        """Return how a Job names `resource`."""
        metadata = resource.metadata
        return cls(resource.NAMES.kind, metadata.namespace, metadata.name, metadata.uid)


@dataclass(frozen=True)
class Secrets:
    """Names of the Secrets a Job's containers mount, each only in the container that needs it.

    `a | b` has what either names.
    """

    database: str = ""
    database_ca: str = ""
    admin: str = ""
    store: str = ""
    store_ca: str = ""
    keys: str = ""
    identity: str = ""

    def __or__(self, other: Secrets) -> Secrets:
        named = {item.name: getattr(other, item.name) for item in fields(other)}
        return replace(self, **{key: name for key, name in named.items() if name})


Purpose = Literal[
    "backup", "restore", "swap", "preflight", "probe", "delete", "collect", "catalogue", "inspect", "verify"
]


@dataclass(frozen=True)
class Run:
    """A Job to be created, unless it is there."""

    name: str
    purpose: Purpose
    job: contract.Job
    subject: Subject  # whose reconcile looks at it, and with whom it goes unless `owner` says otherwise
    tenant: str  # label; empty for a probe
    secrets: Secrets
    claim: str = ""  # PersistentVolumeClaim of a volume store
    deadline: int = 600  # seconds for all tries together
    retries: int = 2  # further pods after the first failed one
    expires: int | None = None  # seconds after its end; None: only once its outcome is recorded
    generation: int = 0  # of the spec, where each has a Job of its own
    attempt: int = 1  # which Job this is, where the operator itself tries again
    owner: Subject | None = None  # with whom it goes instead
    node: str = ""  # where its pod is best, because a volume is in use there


@dataclass(frozen=True)
class RemoveJob:
    """Delete a Job with its pods; the object is there until the last pod is gone."""

    name: str
    uid: str


@dataclass(frozen=True)
class ExpireJob:
    """The Job's outcome is recorded: let the cluster remove it after `seconds`."""

    name: str
    seconds: int


@dataclass(frozen=True)
class MakeKeys:
    """Make the tenant's key pair and index key: name them in status, then create the Secret."""

    tenant: str


@dataclass(frozen=True)
class CreateBackup:
    """Create a TenantBackup of a schedule's slot; one that is there already is this one."""

    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class DeleteBackup:
    """Delete a TenantBackup, unless it changed since it was read: somebody may hold it by now."""

    name: str
    uid: str
    version: str  # metadata.resourceVersion


@dataclass(frozen=True)
class RequestVerification:
    """Annotate a TenantBackup to be verified, unless it changed meanwhile: a person may have asked."""

    name: str
    value: str  # of the annotation
    version: str  # metadata.resourceVersion


@dataclass(frozen=True)
class Condemn:
    """Say of another TenantBackup that it is Corrupt: it needs an object that was found damaged."""

    name: str
    uid: str
    level: str  # of the verification that found it
    message: str


@dataclass(frozen=True)
class ImportBackup:
    """Create a TenantBackup that stands for what is in the store; one that is there already is this one."""

    name: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    status: Mapping[str, Any]


@dataclass(frozen=True)
class Judge:
    """Say of a TenantBackup that its data is not in the store any more, or that it is back."""

    name: str
    uid: str
    gone: bool
    store: str


@dataclass(frozen=True)
class HoldData:
    """Add our finalizer: from now on there may be data outside the cluster."""


@dataclass(frozen=True)
class ReleaseData:
    """Remove our finalizer: the data is gone, or stays on purpose."""


@dataclass(frozen=True)
class Deliver:
    """Tell a receiver of a BackupNotifier these news; none: only see whether its Secrets can be read.

    What comes of it is seen by a later look. `source` says which cluster speaks.
    """

    notifier: BackupNotifier
    receiver: ReceiverName
    news: tuple[News, ...]
    source: str


@dataclass(frozen=True)
class Announce:
    """An Event on the object. Its name is a function of object and content: never posted twice."""

    type: Literal["Normal", "Warning"]
    reason: Reason
    message: str


@dataclass(frozen=True)
class Audit:
    """One line in the log, for whoever must show what happened to whose data."""

    record: Mapping[str, Any]


Action = (
    Run
    | RemoveJob
    | ExpireJob
    | MakeKeys
    | CreateBackup
    | DeleteBackup
    | RequestVerification
    | Condemn
    | ImportBackup
    | Judge
    | Deliver
    | HoldData
    | ReleaseData
    | Announce
    | Audit
)


@dataclass(frozen=True)
class Plan:
    """What to do now. `status` is the whole wished status; None leaves it alone."""

    actions: tuple[Action, ...] = ()
    status: Mapping[str, Any] | None = None
    retry_in: float | None = None  # seconds
    wait_for: tuple[Ref, ...] = field(default=())


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the RFC 7386 patch that turns `before` into `after`; empty when they are equal."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            nested = merge_patch(old, value)
            if nested:
                patch[key] = nested
        elif key not in before or old != value:
            patch[key] = value
    return patch
