"""The only door to the Kubernetes API: a small protocol on plain dictionaries, and its errors.

Everything above speaks to `Cluster`; `api_server.ApiServer` is the one that talks HTTP. Objects are
dictionaries as the API server sends them, without `managedFields`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Object = dict[str, Any]
Objects = list[Object]
Lines = list[str]
LOG_LIMIT = 8 << 20  # bytes; a kubelet keeps 10 MiB of a log before it begins a new file


@dataclass(frozen=True)
class Kind:
    """How a kind is called, and where the API server keeps it."""

    name: str
    api_version: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path of a collection (no name), an object or its subresource."""
        root = "/apis" if "/" in self.api_version else "/api"
        parts = [root, self.api_version, *(["namespaces", namespace] if namespace else []), self.plural]
        return "/".join([*parts, *([name] if name else []), *([subresource] if subresource else [])])


GROUP_VERSION = "tenantbackup.dev/v1alpha1"
TENANT = Kind("Tenant", GROUP_VERSION, "tenants")
STORE = Kind("BackupStore", GROUP_VERSION, "backupstores")
BACKUP = Kind("TenantBackup", GROUP_VERSION, "tenantbackups")
RESTORE = Kind("TenantRestore", GROUP_VERSION, "tenantrestores")
SCHEDULE = Kind("BackupSchedule", GROUP_VERSION, "backupschedules")
NOTIFIER = Kind("BackupNotifier", GROUP_VERSION, "backupnotifiers")
OURS = {kind.name: kind for kind in (TENANT, STORE, BACKUP, RESTORE, SCHEDULE, NOTIFIER)}

JOB = Kind("Job", "batch/v1", "jobs")
POD = Kind("Pod", "v1", "pods")
SECRET = Kind("Secret", "v1", "secrets")
EVENT = Kind("Event", "v1", "events")
NAMESPACE = Kind("Namespace", "v1", "namespaces")
DEFINITION = Kind("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions")


class ClusterError(Exception):
    """The API server did not do what was asked. `message` is its own sentence."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.message = message
        self.status = status


class Conflict(ClusterError):
    """Somebody changed the object since it was read: observe again."""


class AlreadyExists(ClusterError):
    """An object with that name is there: observe again."""


class Gone(ClusterError):
    """The object to change is not there any more: observe again."""


class Rejected(ClusterError):
    """The API server will not do it: rights, quota, admission, validation."""


class Unavailable(ClusterError):
    """The API server could not be reached, or asks to try later."""


class Cluster(Protocol):
    """What the operator needs of a Kubernetes API.

    Every method raises a `ClusterError`, of the most telling class. `namespace` is empty for kinds
    that live in none.
    """

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object, or None when there is none."""

    async def list(self, kind: Kind, namespace: str, *, labels: str = "", fields: str = "") -> Objects:
        """Return the objects that match both selectors."""

    def pages(self, kind: Kind, namespace: str, *, labels: str = "") -> AsyncIterator[Object]:
        """Yield the objects that match the selector one by one, a page of them in memory at a time."""

    async def create(self, kind: Kind, body: Object, *, dry_run: bool = False) -> Object:
        """Create the object; its metadata says where. Raises AlreadyExists."""

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """Apply a merge patch. With metadata.resourceVersion in it, raises Conflict when outdated."""

    async def patch_status(self, kind: Kind, target: Object, status: Object) -> Object:
        """Apply a merge patch to the status of `target` as it was read. Raises Conflict."""

    async def delete(  # noqa: PLR0913 - what, which one, and how
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str,
        version: str = "",
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        """Delete the object with that UID; no error when it is gone already.

        With a `version`, only while its resourceVersion is that one: nothing is deleted when it changed.
        """

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> Lines:
        """Return the last lines a container wrote; empty when it has not started."""

    async def log(self, namespace: str, pod: str, container: str) -> Lines:
        """Return what a container wrote, at most LOG_LIMIT bytes; empty when there is nothing to read."""

    async def close(self) -> None:
        """Close the connections."""
